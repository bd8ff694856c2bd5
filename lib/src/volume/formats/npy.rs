//! NumPy's `.npy` format, versions 1 to 3
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use std::path::Path;

use serde_json::Map;

use crate::geom::Grid;
use crate::store::document;
use crate::volume::calibration::Calibration;
use crate::volume::flat::{FlatFile, planes};
use crate::volume::source::ArrayLayout;
use crate::volume::{Dtype, Error, shorten};

/// The first bytes of the file.
pub(in crate::volume) const MAGIC: &[u8] = b"\x93NUMPY";

/// The maximum size of a header in bytes; NumPy accepts no more than 10 000 by default.
const MAX_HEADER: usize = 1 << 20;

/// Opens an array. Also returns whether its elements are in Fortran order. If so, the layout lists
/// the dimensions in reverse order, so that the slowest is first.
pub(in crate::volume) fn open(
    location: &str,
    path: &Path,
) -> Result<(FlatFile, bool, Calibration), Error> {
    let bad = |message: &str| Error::format(location, format!("is a damaged .npy file: {message}"));
    let failed = |source| Error::io("read", path, source);
    let start = document::read_start(path, 12).map_err(failed)?;
    if start.len() < 12 {
        return Err(bad("it ends within its header"));
    }
    let (length, offset) = match start[6] {
        1 => (usize::from(u16::from_le_bytes([start[8], start[9]])), 10),
        2 | 3 => (u32::from_le_bytes([start[8], start[9], start[10], start[11]]) as usize, 12),
        version => return Err(bad(&format!("its version is {version}"))),
    };
    if length > MAX_HEADER {
        return Err(bad(&format!("its header has {length} bytes")));
    }
    let head = document::read_start(path, offset + length).map_err(failed)?;
    let header = head.get(offset..offset + length);
    let text = header.and_then(|header| std::str::from_utf8(header).ok());
    let text = text.ok_or_else(|| bad("its header ends early"))?;
    let (Some(name), Some(shape)) = (entry(text, "descr"), entry(text, "shape")) else {
        return Err(bad("its header has no descr and shape"));
    };
    let name = name.trim_matches(['\'', '"']);
    let found = Dtype::from_descr(name);
    let (dtype, order) = found.ok_or_else(|| Error::dtype(location, &name.into()))?;
    let numbers =
        shape.trim_matches(['(', ')']).split(',').map(str::trim).filter(|n| !n.is_empty());
    let shape: Option<Vec<u64>> = numbers.map(|n| n.parse().ok()).collect();
    let mut shape = shape.ok_or_else(|| bad("its shape is no list of numbers"))?;
    let reversed = entry(text, "fortran_order") == Some("True");
    if reversed {
        shape.reverse();
    }
    let length_there = document::length(path).map_err(failed)?;
    let data = (shape.iter()).try_fold(dtype.size() as u64, |a, n| a.checked_mul(*n));
    let offset = (offset + length) as u64;
    match data.and_then(|data| data.checked_add(offset)) {
        Some(end) if end <= length_there && end > offset => {}
        Some(end) if end == offset => {
            let shape = shorten(&format!("{shape:?}"));
            return Err(Error::format(location, format!("has the shape {shape}: no element")));
        }
        _ => {
            return Err(bad(&format!(
                "its {} elements of {} do not fit into its {length_there} bytes: it is truncated",
                shorten(&format!("{shape:?}")),
                dtype.name()
            )));
        }
    }
    let layout = ArrayLayout { block: planes(&shape), shape, dtype, fill: vec![0; dtype.size()] };
    let mut facts = Map::new();
    facts.insert("format".into(), "npy".into());
    if dtype.read_as() != dtype {
        facts.insert("stored_dtype".into(), dtype.name().into());
    }
    let file = FlatFile {
        location: location.to_owned(),
        path: path.to_owned(),
        offset,
        layout,
        order,
        facts,
    };
    Ok((file, reversed, Calibration::unknown(".npy files do not say")))
}

/// The text of an entry of the header, a Python dictionary with known keys.
fn entry<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{key}'"))?;
    let value = header[at..].split_once(':')?.1.trim_start();
    let end = if value.starts_with('(') {
        value.find(')')? + 1
    } else if value.starts_with('[') {
        value.find(']')? + 1
    } else {
        value.find([',', '}'])?
    };
    Some(value[..end].trim())
}

/// The header (format version 1.0) of a file that stores elements in C order.
pub(in crate::volume) fn header(grid: &Grid, dtype: Dtype) -> Vec<u8> {
    let descr = dtype.descr();
    let shape: Vec<String> = grid.axes(&grid.shape).iter().map(usize::to_string).collect();
    let shape = shape.join(", ");
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}");
    // the data begin at a multiple of 64 bytes
    let padding = 64 - (MAGIC.len() + 4 + text.len() + 1) % 64;
    text.extend(std::iter::repeat_n(' ', padding % 64));
    text.push('\n');
    let mut header = MAGIC.to_vec();
    header.extend([1, 0]);
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text.as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_ends_at_a_multiple_of_64() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        let header = header(&Grid::new([2, 3, 40], [1.0; 3], [0.0; 3]), Dtype::I16);
        assert_eq!(header.len() % 64, 0);
        std::fs::write(&path, [header, vec![0; 2 * 2 * 3 * 40]].concat()).unwrap();
        let (file, reversed, _) = open("a.npy", &path).unwrap();
        assert_eq!((file.layout.shape, reversed), (vec![2, 3, 40], false));
        assert_eq!(file.layout.dtype, Dtype::I16);
    }

    #[test]
    fn entries_are_found_in_any_order() {
        let text = "{'shape': (2, 3), 'fortran_order': True, 'descr': '>f4'}";
        assert_eq!(entry(text, "shape"), Some("(2, 3)"));
        assert_eq!(entry(text, "fortran_order"), Some("True"));
        assert_eq!(entry(text, "descr"), Some("'>f4'"));
    }
}
