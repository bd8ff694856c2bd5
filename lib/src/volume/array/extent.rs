//! Checks of array sizes. Sizes read from a file are untrusted: sizes that are too large for any
//! file are refused before memory of that size is allocated.

use crate::volume::Error;

/// The maximum number of dimensions of an array.
const DIMENSIONS: usize = 32;
/// The maximum size of an array in bytes: one exbibyte, more than any storage holds.
const ARRAY: u64 = 1 << 60;
/// The maximum size of a chunk that can be read in parts, in bytes: 4 TiB.
const CHUNK: u64 = 1 << 42;
/// The maximum size of a chunk that has to be decoded as a whole, in bytes: 16 GiB.
const CODED: u64 = 1 << 34;

/// Checks the shape of an array and of its chunks, for elements of `size` bytes. `coded` says
/// whether a chunk has to be decoded as a whole.
///
/// # Errors
/// [`Error::Format`], which states the invalid size.
pub(in crate::volume) fn check(
    location: &str,
    shape: &[u64],
    chunk: &[u64],
    size: usize,
    coded: bool,
) -> Result<(), Error> {
    let bad = |message: String| Err(Error::format(location, message));
    if shape.is_empty() || shape.len() > DIMENSIONS {
        let rank = shape.len();
        return bad(format!("has {rank} dimensions; from 1 to {DIMENSIONS} can be read"));
    }
    if shape.len() != chunk.len() {
        let (shape, chunk) = (shape.len(), chunk.len());
        return bad(format!("has {shape} dimensions, and its chunks have {chunk}"));
    }
    if shape.contains(&0) || chunk.contains(&0) {
        return bad(format!("has the shape {shape:?} and chunks of {chunk:?}: nothing is in it"));
    }
    let bytes =
        |sizes: &[u64]| sizes.iter().try_fold(size as u64, |product, n| product.checked_mul(*n));
    if bytes(shape).is_none_or(|bytes| bytes > ARRAY) {
        return bad(format!(
            "says that it has the shape {shape:?}, more than the {ARRAY} bytes that any storage \
             holds"
        ));
    }
    let most = if coded { CODED } else { CHUNK };
    if bytes(chunk).is_none_or(|bytes| bytes > most) {
        return bad(format!(
            "says that it has chunks of {chunk:?} elements of {size} bytes; those of up to {most} \
             bytes can be read"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_file_can_back_is_refused_and_what_can_be_is_not() {
        let good: [(&[u64], &[u64]); 3] = [
            (&[1 << 16, 1 << 20, 1 << 20], &[64; 3]),
            (&[3, 4], &[1000, 1000]),
            (&[1, 1, 1, 40, 50], &[1, 1, 1, 8, 8]),
        ];
        for (shape, chunk) in good {
            check("a", shape, chunk, 2, true).unwrap();
        }
        let wide = u64::MAX;
        let bad: [(&[u64], &[u64]); 9] = [
            (&[], &[]),
            (&[4; 3], &[4; 4]),
            (&[4, 0, 4], &[4; 3]),
            (&[4; 3], &[4, 0, 4]),
            (&[wide, 40, 40], &[4; 3]),
            (&[1 << 62, 1 << 62, 4], &[4; 3]),
            (&[1_000_000; 3], &[4; 3]),
            (&[4; 3], &[1 << 21; 3]),
            (&[4; 3], &[wide; 3]),
        ];
        for (shape, chunk) in bad {
            let error = check("a", shape, chunk, 2, true).unwrap_err().to_string();
            assert!(error.len() < 300, "{error}");
        }
        check("a", &[4; 3], &[1 << 12; 3], 2, true).unwrap_err();
        check("a", &[4; 3], &[1 << 12; 3], 2, false).unwrap();
    }
}
