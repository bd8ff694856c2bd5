//! Stacks of 2-D images: one file per plane, in natural order of the file names.

use std::fs::File;
use std::io::{BufReader, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::block::Block;
use super::calibration::Calibration;
use super::content::Stored;
use super::dtype::ByteOrder;
use super::source::{Layout, Scratch, Source};
use super::{Dtype, Error, bits, shorten, tiff};
use crate::store::{self, Kind, Wanted};

/// The first bytes of a PNG file.
pub(super) const PNG: &[u8] = b"\x89PNG";

/// The files that match a pattern such as `'sections/*.png'`, in natural order (2 before 10).
pub(super) fn files(location: &str) -> Result<Vec<PathBuf>, Error> {
    let paths = glob::glob(location)
        .map_err(|error| Error::format(location, format!("is no pattern: {error}")))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let folder = error.path().to_owned();
            Error::io("read", folder, error.into())
        })?;
        if path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(Error::missing(location, "no file matches the pattern"));
    }
    files.sort_by(|a, b| natord::compare(&a.to_string_lossy(), &b.to_string_lossy()));
    Ok(files)
}

/// The images of a folder, in natural order.
pub(super) struct Images {
    pub(super) files: Vec<PathBuf>,
    /// What was ignored.
    pub(super) notes: Vec<String>,
}

/// The TIFF or PNG files in a local folder, by their names; `None` if there are none.
///
/// # Errors
/// [`Error::Format`] for a folder with files of both kinds; [`Error::Io`].
pub(super) fn in_folder(folder: &Path) -> Result<Option<Images>, Error> {
    if store::is_remote(folder) || !store::is_folder(folder) {
        return Ok(None);
    }
    let (mut found, mut others) = ([Vec::new(), Vec::new()], 0);
    let entries = store::list(folder).map_err(|source| Error::io("read", folder, source))?;
    for entry in entries.into_iter().filter(|entry| !entry.name.starts_with('.')) {
        let path = folder.join(&entry.name);
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
        match ending.as_deref() {
            Some("tif" | "tiff") if entry.kind == Kind::File => found[0].push(path),
            Some("png") if entry.kind == Kind::File => found[1].push(path),
            _ => others += 1,
        }
    }
    if found.iter().all(|files| !files.is_empty()) {
        let message = format!(
            "is a folder of {} TIFF and {} PNG files; choose some with a pattern such as '{}/*.png'",
            found[0].len(),
            found[1].len(),
            folder.display()
        );
        return Err(Error::format(folder.display(), message));
    }
    let mut files = found.concat();
    files.sort_by(|a, b| natord::compare(&a.to_string_lossy(), &b.to_string_lossy()));
    let ignored = || format!("{others} other files and folders in it are ignored");
    let notes = (others > 0).then(ignored).into_iter().collect();
    Ok((!files.is_empty()).then_some(Images { files, notes }))
}

/// Opens a stack and names its dimensions.
pub(super) fn open(location: &str, files: Vec<PathBuf>) -> Result<tiff::Opened, Error> {
    let mut start = [0; 4];
    let first = &files[0];
    let read = File::open(first).and_then(|mut file| file.read_exact(&mut start));
    read.map_err(|source| Error::io("read", first, source))?;
    if start != PNG {
        return tiff::open_stack(location, files);
    }
    let (source, names) = PngStack::open(location, files)?;
    Ok((Box::new(source), names, Calibration::unknown("PNG files do not say")))
}

/// PNG files of equal size and type. Palette images are read as indices; colours and opacity are
/// read as channels.
struct PngStack {
    location: String,
    layout: Layout,
    head: Head,
    files: Vec<PathBuf>,
}

/// The contents of a PNG header.
#[derive(Clone, Copy, PartialEq)]
struct Head {
    /// The number of rows and columns.
    size: [u64; 2],
    color: png::ColorType,
    bits: u8,
}

impl Head {
    fn samples(self) -> u64 {
        self.color.samples() as u64
    }

    fn dtype(self) -> Dtype {
        if self.bits == 16 { Dtype::U16 } else { Dtype::U8 }
    }

    /// Bytes of a stored row. Cannot overflow, as no PNG is wider than 2^31 pixels.
    fn row_bytes(self) -> u64 {
        (self.size[1] * self.samples() * u64::from(self.bits)).div_ceil(8)
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [height, width] = self.size;
        write!(f, "{height} x {width} pixels, {:?} of {} bits", self.color, self.bits)
    }
}

fn decoder(path: &Path) -> Result<png::Decoder<BufReader<File>>, std::io::Error> {
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut decoder = png::Decoder::new_with_limits(file, png::Limits { bytes: usize::MAX });
    // sample values as stored; text chunks of any length are skipped
    decoder.set_transformations(png::Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    Ok(decoder)
}

/// The maximum expansion of deflate: decompressed bytes per compressed byte.
const EXPANSION: u64 = 1032;

fn header(location: &str, path: &Path) -> Result<Head, Error> {
    let io = |source| Error::io("read", path, source);
    let bad = |error: &dyn std::fmt::Display| {
        let error = shorten(&error.to_string());
        Error::format(location, format!("{} cannot be read as PNG: {error}", path.display()))
    };
    let mut decoder = decoder(path).map_err(io)?;
    let info = decoder.read_header_info().map_err(|error| bad(&error))?;
    let head = Head {
        size: [u64::from(info.height), u64::from(info.width)],
        color: info.color_type,
        bits: info.bit_depth as u8,
    };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if head.size[0].saturating_mul(head.row_bytes()) > length.saturating_mul(EXPANSION) {
        return Err(bad(&format!("it is to hold {head}, and has only {length} bytes")));
    }
    // the last chunk; some programs write more data after it
    let mut end = Vec::new();
    store::read(path, Wanted::End(length.min(1 << 12) as usize), &mut end).map_err(io)?;
    if !end.windows(4).any(|word| word == b"IEND") {
        return Err(bad(&"it is truncated, as its end is not there"));
    }
    Ok(head)
}

impl PngStack {
    fn open(location: &str, files: Vec<PathBuf>) -> Result<(Self, Vec<String>), Error> {
        let head = header(location, &files[0])?;
        for file in &files {
            let other = header(location, file)?;
            if other != head {
                let message = format!(
                    "{} has {other}, the first file {head}; all must be alike: list images of several sizes \
                     in a table of sections",
                    file.display()
                );
                return Err(Error::format(location, message));
            }
        }
        if head.color == png::ColorType::Indexed {
            tracing::info!("{location}: has a palette of colours; its indices are read");
        }
        let mut names = vec!["z".to_owned(), "y".to_owned(), "x".to_owned()];
        let mut shape = vec![files.len() as u64, head.size[0], head.size[1]];
        if head.samples() > 1 {
            names.insert(1, "c".into());
            shape.insert(1, head.samples());
        }
        let mut block = shape.clone();
        block[0] = 1;
        let dtype = head.dtype();
        let layout = Layout { shape, block, dtype, fill: vec![0; dtype.size()] };
        Ok((Self { location: location.to_owned(), layout, head, files }, names))
    }

    /// Decodes a file: samples in stored order, big endian.
    fn decode(&self, path: &Path, packed: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut reader = decoder(path).map_err(Fault::Io)?.read_info()?;
        let row = self.head.row_bytes() as usize;
        let rows = self.head.size[0] as usize;
        let narrow = self.head.bits < 8;
        let target = if narrow { &mut *packed } else { &mut *out };
        target.clear();
        if reader.info().interlaced {
            target.resize(row * rows, 0);
            reader.next_frame(target)?;
        } else {
            // allocate as rows arrive
            while let Some(row) = reader.next_row()? {
                target.extend_from_slice(row.data());
            }
        }
        reader.finish()?;
        if target.len() != row * rows {
            return Err(Fault::Short(target.len(), row * rows));
        }
        if narrow {
            out.clear();
            let width = self.head.size[1] as usize;
            for row in packed.chunks_exact(row) {
                bits::unpack(row, self.head.bits.into(), width, 1, ByteOrder::Big, out);
            }
            if self.head.color == png::ColorType::Grayscale {
                // grey samples of fewer than 8 bits are scaled to 0..=255, as in other readers
                let share = 255 / ((1 << self.head.bits) - 1);
                out.iter_mut().for_each(|v| *v *= share);
            }
        }
        Ok(())
    }
}

/// Why a PNG file could not be decoded.
enum Fault {
    Io(std::io::Error),
    Png(png::DecodingError),
    Short(usize, usize),
}

impl From<png::DecodingError> for Fault {
    fn from(error: png::DecodingError) -> Self {
        match error {
            png::DecodingError::IoError(error) if error.raw_os_error().is_some() => Self::Io(error),
            error => Self::Png(error),
        }
    }
}

impl Source for PngStack {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn load(
        &self,
        index: &[u64],
        _wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        let path = &self.files[index[0] as usize];
        let damaged = |text: String| Error::damaged(&self.location, index, path, text);
        self.decode(path, &mut scratch.file, &mut scratch.data).map_err(|fault| match fault {
            Fault::Io(error) => Error::io("read", path, error),
            Fault::Png(error) => damaged(shorten(&error.to_string())),
            Fault::Short(found, wanted) => damaged(format!("it holds {found} of {wanted} bytes")),
        })?;
        let block = Block::whole(&self.layout.block, ByteOrder::Big);
        let [samples, width] = [self.head.samples(), self.head.size[1]].map(|n| n as usize);
        if samples == 1 {
            return Ok(Some(block));
        }
        // the samples of a pixel are interleaved
        Ok(Some(Block { strides: vec![0, 1, width * samples, samples], ..block }))
    }

    fn stored(&self) -> Stored<'_> {
        Stored::in_files("png".into(), self.files.clone())
    }

    fn describe(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("format".into(), "png".into());
        facts.insert("codecs".into(), serde_json::json!(["deflate"]));
        facts.insert("files".into(), self.files.len().into());
        facts
    }
}
