//! The common parts of displacement field headers in NRRD and MetaImage.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::map_steps::Payload;
use super::read_error::ReadError;
use super::unpack::Packing;
use super::world::{AnatomicalFrame, Placement};
use crate::files;
use crate::quote::shorten;
use crate::volume::{ByteOrder, Dtype, FlatVectors};

/// The maximum length of a header, bytes.
const MAX_HEADER: u64 = 1 << 20;

/// The contents of a header.
#[derive(Clone, Debug)]
pub(super) struct FlatHeader {
    pub(super) placement: Placement,
    /// The frame of the sample positions.
    pub(super) frame: AnatomicalFrame,
    pub(super) components: usize,
    /// Whether the data are stored component by component: first the x components of all vectors,
    /// then all y components, and so on.
    pub(super) planar: bool,
    pub(super) dtype: Dtype,
    pub(super) order: ByteOrder,
    /// The file that contains the elements.
    pub(super) file: PathBuf,
    /// The byte offset of the elements in the file, or in its decoded data.
    pub(super) offset: u64,
    /// The encoding, and the byte offset at which encoded data begin.
    pub(super) packing: Option<(Packing, u64)>,
    /// Micrometres per unit of length, if stated; an error message if the unit is not known.
    pub(super) micrometres: Result<Option<f64>, String>,
    /// Assumptions and unknown fields, for warnings.
    pub(super) notes: Vec<String>,
}

impl FlatHeader {
    /// The storage of the vectors of the field at `location`.
    pub(super) fn payload(&self, location: &str) -> Payload {
        let words = self.packing.is_some_and(|(packing, _)| packing == Packing::Words);
        let flat = FlatVectors {
            location: location.to_owned(),
            path: self.file.clone(),
            offset: self.offset,
            dtype: if words { Dtype::F64 } else { self.dtype },
            order: if words { ByteOrder::Little } else { self.order },
            shape: self.placement.shape,
            components: self.components,
            planar: self.planar,
        };
        match self.packing {
            Some((packing, from)) => {
                Payload::Packed { file: self.file.clone(), from, packing, flat }
            }
            None => Payload::Flat(flat),
        }
    }
}

/// Passes the lines of a header to `more` until `more` returns false; returns the offset of the
/// header's end. Bytes that are not UTF-8 are allowed.
pub(super) fn lines(
    path: &Path,
    format: &str,
    mut more: impl FnMut(&str) -> bool,
) -> Result<u64, ReadError> {
    let file = File::open(path).map_err(ReadError::io)?;
    let mut reader = BufReader::new(file).take(MAX_HEADER);
    let (mut end, mut bytes) = (0, Vec::new());
    loop {
        bytes.clear();
        let count = reader.read_until(b'\n', &mut bytes).map_err(ReadError::io)?;
        end += count as u64;
        if end >= MAX_HEADER {
            return Err(format!("is a damaged {format} file: its header does not end").into());
        }
        let line = String::from_utf8_lossy(&bytes);
        if !more(line.trim_end_matches(['\n', '\r'])) || count == 0 {
            return Ok(end);
        }
    }
}

/// The path of a data file that a header refers to by name, next to the header.
pub(super) fn data_file(path: &Path, name: &str) -> Result<PathBuf, ReadError> {
    let file = path.with_file_name("").join(name);
    let refused = |reason: &str| format!("refers to {}, which {reason}", shorten(name));
    let is_file =
        name.len() < 1024 && files::is_file(&file).map_err(|e| ReadError::io(e).within(refused))?;
    if is_file { Ok(file) } else { Err(refused("is not beside it").into()) }
}

/// Parses a positive integer.
pub(super) fn parse_positive(word: &str) -> Result<usize, String> {
    match word.trim().parse() {
        Ok(n @ 1..=0x7fff_ffff) => Ok(n),
        _ => Err(format!("has the size '{}', wanted whole numbers from 1", shorten(word))),
    }
}

/// Micrometres per unit of length with this name or symbol; `None` if the name is not known.
pub(super) fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "mm" | "millimeter" | "millimetre" | "millimeters" => 1e3,
        "um" | "\u{b5}m" | "\u{3bc}m" | "micrometer" | "micrometre" | "micron" | "microns" => 1.0,
        "nm" | "nanometer" | "nanometre" => 1e-3,
        "cm" | "centimeter" => 1e4,
        "m" | "meter" | "metre" => 1e6,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_of_any_bytes_ends_or_is_said_to_have_no_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"one\r\n\xff\xfe\nend\nrest").unwrap();
        let mut seen = 0;
        let end = lines(&path, "NRRD", |line| {
            seen += 1;
            line != "end"
        });
        assert_eq!((end.unwrap(), seen), (12, 3));
        std::fs::write(&path, vec![b'x'; 3 << 20]).unwrap();
        assert!(lines(&path, "NRRD", |_| true).unwrap_err().to_string().contains("does not end"));
        assert!(data_file(&path, &"n".repeat(20_000)).unwrap_err().to_string().len() < 200);
        assert!(
            parse_positive("0").is_err()
                && parse_positive("-3").is_err()
                && parse_positive("12").is_ok()
        );
    }
}
