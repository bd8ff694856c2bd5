//! The directories of a TIFF or `BigTIFF` file: TIFF 6.0, section 2, and the `BigTIFF` proposal.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::store::{self, ReadRange};
use crate::volume::Error;
use crate::volume::dtype::ByteOrder;
use crate::volume::voxel::Voxel;

/// Why a file could not be read; [`TiffError::at`] adds the location.
#[derive(Debug)]
pub(super) enum TiffError {
    /// An I/O error.
    Io(io::Error),
    /// The predicate of a sentence whose subject is the file.
    Message(String),
}

impl TiffError {
    /// The error for the file at `path`. Messages name `path`, too, if `location` is not this file
    /// but, for example, a stack of files.
    pub(super) fn at(self, location: &str, path: &Path) -> Error {
        match self {
            Self::Io(source) => Error::io("read", path, source),
            Self::Message(text) if path.to_string_lossy() == location => {
                Error::format(location, text)
            }
            Self::Message(text) => Error::format(location, format!("{} {text}", path.display())),
        }
    }
}

impl From<io::Error> for TiffError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<String> for TiffError {
    fn from(text: String) -> Self {
        Self::Message(text)
    }
}

/// A file for random access; small reads that are close together share one read call.
pub(super) struct BufferedFile {
    pub(super) path: PathBuf,
    pub(super) length: u64,
    /// The open file; `None` in a bucket or on a web server, where each read is a range request.
    file: Option<File>,
    window: Vec<u8>,
    start: u64,
}

/// The minimum number of bytes per read call.
const WINDOW: u64 = 4096;
/// The minimum number of bytes per range request, for files in a bucket or on a web server.
const REMOTE_WINDOW: u64 = 256 << 10;

impl BufferedFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, length) = if store::is_remote(path) {
            (None, store::document::length(path)?)
        } else {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            (Some(file), length)
        };
        Ok(Self { path: path.to_owned(), length, file, window: Vec::new(), start: 0 })
    }

    /// Fills `buffer` with the bytes of the file from offset `at` on.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file ends before `buffer` is full.
    pub(super) fn read_exact_at(&self, buffer: &mut Vec<u8>, at: u64) -> io::Result<()> {
        if let Some(file) = &self.file {
            return file.read_exact_at(buffer, at);
        }
        let length = buffer.len();
        let there = store::read(&self.path, ReadRange::Range { start: at, length }, buffer)?;
        match there {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(_) if buffer.len() != length => Err(io::ErrorKind::UnexpectedEof.into()),
            Some(_) => Ok(()),
        }
    }

    /// The bytes `at..at + length`, which must lie within the file.
    pub(super) fn bytes(&mut self, at: u64, length: u64) -> Result<&[u8], TiffError> {
        let end = at.checked_add(length).filter(|end| *end <= self.length);
        let Some(end) = end else {
            let text = format!(
                "is truncated or damaged: it refers to byte {}, and has {}",
                at.saturating_add(length),
                self.length
            );
            return Err(text.into());
        };
        if at < self.start || end > self.start + self.window.len() as u64 {
            let least = if self.file.is_some() { WINDOW } else { REMOTE_WINDOW };
            let mut window = std::mem::take(&mut self.window);
            window.resize(length.max(least).min(self.length - at) as usize, 0);
            self.read_exact_at(&mut window, at)?;
            (self.window, self.start) = (window, at);
        }
        let from = (at - self.start) as usize;
        Ok(&self.window[from..from + length as usize])
    }
}

/// The type, count and file offset of a tag's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct TagField {
    kind: u16,
    pub(super) count: u64,
    at: u64,
}

impl TagField {
    /// The size in bytes of a value; `None` for an unknown type.
    fn size(self) -> Option<u64> {
        match self.kind {
            1 | 2 | 6 | 7 => Some(1),
            3 | 8 => Some(2),
            4 | 9 | 11 | 13 => Some(4),
            5 | 10 | 12 | 16 | 17 | 18 => Some(8),
            _ => None,
        }
    }

    /// Value `index` of a field of unsigned integers.
    pub(super) fn number(
        self,
        input: &mut BufferedFile,
        order: ByteOrder,
        index: u64,
    ) -> Result<u64, TiffError> {
        let kind = self.kind;
        let size = self.size().filter(|_| matches!(kind, 1 | 3 | 4 | 13 | 16 | 18));
        let Some(size) = size else {
            return Err(format!("is damaged: a tag that counts has values of type {kind}").into());
        };
        if index >= self.count {
            let text = format!("is damaged: a tag has {} values, {index} is wanted", self.count);
            return Err(text.into());
        }
        let at = index.checked_mul(size).and_then(|offset| self.at.checked_add(offset));
        let bytes = input.bytes(at.unwrap_or(u64::MAX), size)?;
        Ok(match size {
            1 => u64::from(bytes[0]),
            2 => u64::from(u16::get(bytes, order)),
            4 => u64::from(u32::get(bytes, order)),
            _ => u64::get(bytes, order),
        })
    }

    /// The bytes of all values.
    pub(super) fn bytes(self, input: &mut BufferedFile) -> Result<&[u8], TiffError> {
        let length = self.size().and_then(|size| size.checked_mul(self.count));
        input.bytes(self.at, length.unwrap_or(u64::MAX))
    }
}

/// A directory: the tags of a page.
pub(super) struct Directory {
    pub(super) order: ByteOrder,
    fields: Vec<(u16, TagField)>,
}

impl Directory {
    pub(super) fn field(&self, tag: u16) -> Option<TagField> {
        self.fields.iter().find(|(found, _)| *found == tag).map(|(_, field)| *field)
    }

    /// The first value of a tag of unsigned integers.
    pub(super) fn number(
        &self,
        input: &mut BufferedFile,
        tag: u16,
    ) -> Result<Option<u64>, TiffError> {
        self.field(tag).map(|field| field.number(input, self.order, 0)).transpose()
    }

    /// The first value of a rational or floating-point tag.
    pub(super) fn rational(
        &self,
        input: &mut BufferedFile,
        tag: u16,
    ) -> Result<Option<f64>, TiffError> {
        let Some(field) = self.field(tag) else { return Ok(None) };
        let order = self.order;
        let bytes = TagField { count: field.count.min(1), ..field }.bytes(input)?;
        Ok(match (field.kind, bytes.is_empty()) {
            (5, false) => {
                let (a, b) = (u32::get(bytes, order), u32::get(&bytes[4..], order));
                Some(f64::from(a) / f64::from(b))
            }
            (11, false) => Some(f64::from(f32::get(bytes, order))),
            (12, false) => Some(f64::get(bytes, order)),
            _ => None,
        })
    }
}

/// The tags that are read; all others are skipped.
const WANTED: [u16; 29] = [
    254, 256, 257, 258, 259, 262, 266, 270, 273, 274, 277, 278, 279, 282, 283, 284, 292, 296, 317,
    322, 323, 324, 325, 330, 339, 347, 530, 33629, 34412,
];

/// Reads all directories of a file, and passes each to `each` with its number from 0.
pub(super) fn each_directory(
    input: &mut BufferedFile,
    mut each: impl FnMut(&mut BufferedFile, &Directory, usize) -> Result<(), TiffError>,
) -> Result<(), TiffError> {
    let head = input.bytes(0, input.length.min(16))?.to_vec();
    let order = match head.get(..2) {
        Some(b"II") => ByteOrder::Little,
        Some(b"MM") => ByteOrder::Big,
        _ => return Err("does not begin as a TIFF file does".to_owned().into()),
    };
    let big = head.get(2..4).is_some_and(|version| u16::get(version, order) == 43);
    let needed = if big { 16 } else { 8 };
    if head.len() < needed {
        return Err("is truncated: it ends within its head".to_owned().into());
    }
    let mut next =
        if big { u64::get(&head[8..], order) } else { u64::from(u32::get(&head[4..], order)) };
    let (mut seen, mut total) = (HashSet::new(), 0u64);
    while next != 0 {
        let number = seen.len();
        let (directory, size, after) =
            read_directory(input, order, big, next).map_err(|fault| on_page(number, fault))?;
        // detects cyclic and overlapping directories
        total = total.saturating_add(size);
        if !seen.insert(next) || total > input.length {
            let text = format!("is damaged: its directories run in a circle after page {number}");
            return Err(text.into());
        }
        each(input, &directory, number)?;
        next = after;
    }
    Ok(())
}

/// Adds the page number to a fault.
pub(super) fn on_page(number: usize, fault: TiffError) -> TiffError {
    match fault {
        TiffError::Message(text) => {
            TiffError::Message(format!("{text} (page {}, counted from 1)", number + 1))
        }
        io @ TiffError::Io(_) => io,
    }
}

/// Reads a directory: its tags, its size in bytes, and the offset of the next one.
fn read_directory(
    input: &mut BufferedFile,
    order: ByteOrder,
    big: bool,
    at: u64,
) -> Result<(Directory, u64, u64), TiffError> {
    let (head, each) = if big { (8, 20) } else { (2, 12) };
    let bytes = input.bytes(at, head)?;
    let count = if big { u64::get(bytes, order) } else { u64::from(u16::get(bytes, order)) };
    let size = count.checked_mul(each).and_then(|size| size.checked_add(if big { 8 } else { 4 }));
    let from = at + head;
    let bytes = input.bytes(from, size.unwrap_or(u64::MAX))?;
    let mut fields = Vec::with_capacity(WANTED.len());
    let (entries, next) = bytes.split_at((count * each) as usize);
    let next = if big { u64::get(next, order) } else { u64::from(u32::get(next, order)) };
    for (i, entry) in entries.chunks_exact(each as usize).enumerate() {
        let tag = u16::get(entry, order);
        if !WANTED.contains(&tag) || fields.iter().any(|(found, _)| *found == tag) {
            continue;
        }
        let kind = u16::get(&entry[2..], order);
        let count = if big {
            u64::get(&entry[4..], order)
        } else {
            u64::from(u32::get(&entry[4..], order))
        };
        let (value, room) = if big { (12, 8) } else { (8, 4) };
        let mut field = TagField { kind, count, at: from + i as u64 * each + value };
        let length = field.size().and_then(|size| size.checked_mul(count));
        if length.is_none_or(|length| length > room) {
            let value = &entry[value as usize..];
            field.at = if big { u64::get(value, order) } else { u64::from(u32::get(value, order)) };
        }
        fields.push((tag, field));
    }
    let size = size.unwrap_or_default() + head;
    Ok((Directory { order, fields }, size, next))
}
