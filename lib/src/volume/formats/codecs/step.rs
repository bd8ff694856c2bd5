use serde_json::Value;

use super::checksums::Sum;
use super::filters::{self, Number};
use super::{Size, Stream};

/// One step from an array's bytes to those of a file: a filter, a compressor or a bytes-to-bytes
/// codec in Zarr's terms.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::volume) enum Step {
    /// Compression.
    Stream(Stream),
    /// A checksum of four bytes, before or after the data.
    Sum(Sum, End),
    /// Byte shuffle for elements of this many bytes: the first bytes of all elements, then the
    /// second bytes, and so on.
    Shuffle(usize),
    /// Delta filter: differences, stored as the first type, of elements of the second type.
    Delta(Number, Number),
    /// Scaling filter with the stored type, the decoded type, the scale and the offset: a stored
    /// value decodes to `value / scale + offset`.
    Scale(Number, Number, f64, f64),
    /// Rounding of values, which needs no decoding.
    Rounded,
}

/// The position of a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::volume) enum End {
    Start,
    End,
}

/// The names that [`Step::parse`] accepts, for messages.
pub(in crate::volume) const KNOWN: &str = "blosc, zstd, gzip, zlib, bz2, lzma, lz4, shuffle, delta, \
     fixedscaleoffset, quantize, bitround, crc32, crc32c, adler32 and fletcher32";

impl Step {
    /// The step of this name, with or without the prefix `numcodecs.`; `None` if it is unknown.
    /// Missing parameters have the defaults of numcodecs.
    ///
    /// # Errors
    /// An invalid or unsupported configuration.
    pub(in crate::volume) fn parse(name: &str, config: &Value) -> Result<Option<Self>, String> {
        let sum = |sum: Sum, usual: End| match config.get("location").and_then(Value::as_str) {
            None => Ok(Self::Sum(sum, usual)),
            Some("start") => Ok(Self::Sum(sum, End::Start)),
            Some("end") => Ok(Self::Sum(sum, End::End)),
            Some(_) => Err(format!("has a checksum {name} that is neither at start nor at end")),
        };
        Ok(Some(match name.strip_prefix("numcodecs.").unwrap_or(name) {
            "gzip" => Self::Stream(Stream::Gzip),
            "zlib" => Self::Stream(Stream::Zlib),
            "bz2" => Self::Stream(Stream::Bzip2),
            "lzma" => match config.get("format").and_then(Value::as_u64) {
                None | Some(0..=2) => Self::Stream(Stream::Xz),
                Some(_) => return Err("has raw LZMA, which cannot be read".into()),
            },
            "lz4" => Self::Stream(Stream::Lz4),
            "zstd" => Self::Stream(Stream::Zstd),
            "blosc" => Self::Stream(Stream::Blosc),
            "crc32c" => sum(Sum::Crc32c, End::End)?,
            "crc32" => sum(Sum::Crc32, End::Start)?,
            "adler32" => sum(Sum::Adler32, End::Start)?,
            "fletcher32" => Self::Sum(Sum::Fletcher32, End::End),
            "shuffle" => {
                let size = config.get("elementsize").map_or(Some(4), Value::as_u64);
                let size = size.filter(|size| (1..=256).contains(size));
                Self::Shuffle(
                    size.ok_or("has a filter shuffle without a size of elements")? as usize
                )
            }
            "bitround" => Self::Rounded,
            "delta" | "fixedscaleoffset" | "quantize" => return Self::of_elements(name, config),
            _ => return Ok(None),
        }))
    }

    /// Parses the filters whose configuration has element types.
    fn of_elements(name: &str, config: &Value) -> Result<Option<Self>, String> {
        let bad = || format!("has a filter {name} with types that cannot be followed: {config}");
        let wanted = Number::of(config, "dtype").ok_or_else(bad)?;
        let kept = match config.get("astype") {
            None | Some(Value::Null) => wanted,
            Some(_) => Number::of(config, "astype").ok_or_else(bad)?,
        };
        let step = match name.strip_prefix("numcodecs.").unwrap_or(name) {
            "quantize" if kept == wanted => Self::Rounded,
            "delta" if wanted.can_be_kept_as(kept) => Self::Delta(kept, wanted),
            "fixedscaleoffset" => {
                let number = |key| config.get(key).and_then(Value::as_f64);
                let (scale, offset) = (number("scale"), number("offset"));
                let (scale, offset) = (scale.ok_or_else(bad)?, offset.ok_or_else(bad)?);
                Self::Scale(kept, wanted, scale, offset)
            }
            _ => return Err(bad()),
        };
        Ok(Some(step))
    }

    /// Whether the step transforms elements rather than bytes.
    pub(in crate::volume) fn is_of_elements(&self) -> bool {
        matches!(self, Self::Delta(..) | Self::Scale(..) | Self::Rounded)
    }

    /// The encoded size in bytes of an input of `size` bytes; an upper bound for compressors.
    fn encoded(&self, size: Size) -> Size {
        let each = |size: Size, to: &dyn Fn(usize) -> usize| match size {
            Size::Exactly(size) => Size::Exactly(to(size)),
            Size::AtMost(size) => Size::AtMost(to(size)),
        };
        match self {
            // an upper bound of the expansion of incompressible data, for all compressors
            Self::Stream(_) => {
                Size::AtMost(size.max().saturating_add(size.max() / 4).saturating_add(1 << 16))
            }
            Self::Sum(..) => each(size, &|size| size.saturating_add(4)),
            Self::Delta(kept, wanted) | Self::Scale(kept, wanted, ..) => {
                each(size, &|size| (size / wanted.size()).saturating_mul(kept.size()))
            }
            Self::Shuffle(_) | Self::Rounded => size,
        }
    }

    /// Inverts the step, so that `out` holds `size` bytes.
    fn decode(&self, input: &[u8], size: Size, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Stream(stream) => return stream.decode(input, size, out),
            Self::Sum(sum, end) => {
                let parts = match end {
                    End::Start => input.split_first_chunk::<4>().map(|(sum, bytes)| (bytes, sum)),
                    End::End => input.split_last_chunk::<4>(),
                };
                let (bytes, stored) = parts.ok_or("it is shorter than its checksum")?;
                size.check(bytes.len())?;
                if sum.of(bytes) != u32::from_le_bytes(*stored) {
                    return Err("its checksum is wrong".into());
                }
                copy(bytes, out);
            }
            Self::Shuffle(width) => {
                size.check(input.len())?;
                let count = input.len() / width;
                if count * width != input.len() {
                    return Err(format!("its {} bytes are no elements of {width}", input.len()));
                }
                out.clear();
                out.extend((0..count).flat_map(|i| (0..*width).map(move |j| input[j * count + i])));
            }
            Self::Delta(kept, wanted) => filters::cumulative_sum(input, *kept, *wanted, out),
            Self::Scale(kept, wanted, scale, offset) => {
                filters::rescale(input, (*kept, *wanted), (*scale, *offset), out);
            }
            Self::Rounded => copy(input, out),
        }
        size.check(out.len())
    }
}

fn copy(bytes: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(bytes);
}

/// The encoded size of an input of `size` after all steps, which are in encoding order.
pub(in crate::volume) fn encoded(steps: &[Step], size: Size) -> Size {
    steps.iter().fold(size, |size, step| step.encoded(size))
}

/// Inverts steps, beginning with the last, so that `out` holds `size` bytes.
///
/// # Errors
/// A message about what is invalid in `input`.
pub(in crate::volume) fn decode(
    steps: &[Step],
    input: &[u8],
    size: Size,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let mut sizes = vec![size];
    for step in steps {
        sizes.push(step.encoded(sizes[sizes.len() - 1]));
    }
    let Some((last, before)) = steps.split_last() else {
        size.check(input.len())?;
        copy(input, out);
        return Ok(());
    };
    last.decode(input, sizes[before.len()], out)?;
    let mut spare = Vec::new();
    for (i, step) in before.iter().enumerate().rev() {
        std::mem::swap(out, &mut spare);
        step.decode(&spare, sizes[i], out)?;
    }
    Ok(())
}
