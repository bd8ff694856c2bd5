//! PNG images, one per plane.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::store::{self, ReadRange};
use crate::volume::block::Block;
use crate::volume::content::StoredContent;
use crate::volume::dtype::ByteOrder;
use crate::volume::source::{ArrayLayout, Scratch, Source};
use crate::volume::{Dtype, Error, bits, shorten};

/// The first bytes of a PNG file.
pub(in crate::volume) const MAGIC: &[u8] = b"\x89PNG";

/// PNG files of equal size and type. Palette images are read as indices; colours and opacity are
/// read as channels.
pub(in crate::volume) struct PngStack {
    location: String,
    layout: ArrayLayout,
    head: PngHeader,
    files: Vec<PathBuf>,
}

/// The header fields of a PNG file. They must be equal in all files of a stack.
#[derive(Clone, Copy, PartialEq)]
struct PngHeader {
    /// The number of rows and columns.
    size: [u64; 2],
    color: png::ColorType,
    bits: u8,
}

impl PngHeader {
    fn samples(self) -> u64 {
        self.color.samples() as u64
    }

    fn dtype(self) -> Dtype {
        if self.bits == 16 { Dtype::U16 } else { Dtype::U8 }
    }

    /// Bytes of a stored row. The product cannot overflow, because a PNG has fewer than 2^31
    /// columns.
    fn row_bytes(self) -> u64 {
        (self.size[1] * self.samples() * u64::from(self.bits)).div_ceil(8)
    }
}

impl std::fmt::Display for PngHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [height, width] = self.size;
        write!(f, "{height} x {width} pixels, {:?} of {} bits", self.color, self.bits)
    }
}

fn decoder(path: &Path) -> Result<png::Decoder<BufReader<File>>, std::io::Error> {
    let file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut decoder = png::Decoder::new_with_limits(file, png::Limits { bytes: usize::MAX });
    // keep sample values as they are stored; skip text and colour-profile chunks of any length
    decoder.set_transformations(png::Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    Ok(decoder)
}

/// The maximum expansion of deflate: decompressed bytes per compressed byte.
const MAX_EXPANSION: u64 = 1032;

fn header(location: &str, path: &Path) -> Result<PngHeader, Error> {
    let io = |source| Error::io("read", path, source);
    let bad = |error: &dyn std::fmt::Display| {
        let error = shorten(&error.to_string());
        Error::format(location, format!("{} cannot be read as PNG: {error}", path.display()))
    };
    let mut decoder = decoder(path).map_err(io)?;
    let info = decoder.read_header_info().map_err(|error| bad(&error))?;
    let head = PngHeader {
        size: [u64::from(info.height), u64::from(info.width)],
        color: info.color_type,
        bits: info.bit_depth as u8,
    };
    let length = std::fs::metadata(path).map_err(io)?.len();
    if head.size[0].saturating_mul(head.row_bytes()) > length.saturating_mul(MAX_EXPANSION) {
        return Err(bad(&format!("it is to hold {head}, and has only {length} bytes")));
    }
    // IEND is the last chunk, but some programs write data after it: search the last 4 KiB
    let mut end = Vec::new();
    store::read(path, ReadRange::End(length.min(1 << 12) as usize), &mut end).map_err(io)?;
    if !end.windows(4).any(|word| word == b"IEND") {
        return Err(bad(&"it is truncated, as its end is not there"));
    }
    Ok(head)
}

impl PngStack {
    /// Opens the files; also returns the names of the dimensions, slowest first.
    ///
    /// # Errors
    /// [`Error`] if a file is not a PNG, is truncated, or differs from the first file in size or
    /// type.
    pub(in crate::volume) fn open(
        location: &str,
        files: Vec<PathBuf>,
    ) -> Result<(Self, Vec<String>), Error> {
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
        let layout = ArrayLayout { shape, block, dtype, fill: vec![0; dtype.size()] };
        Ok((Self { location: location.to_owned(), layout, head, files }, names))
    }

    /// Decodes a file into `out`: samples in stored order, big endian. `packed` is a buffer for
    /// samples of fewer than 8 bits.
    fn decode(&self, path: &Path, packed: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), PngError> {
        let mut reader = decoder(path).map_err(PngError::Io)?.read_info()?;
        let row = self.head.row_bytes() as usize;
        let rows = self.head.size[0] as usize;
        let narrow = self.head.bits < 8;
        let target = if narrow { &mut *packed } else { &mut *out };
        target.clear();
        if reader.info().interlaced {
            target.resize(row * rows, 0);
            reader.next_frame(target)?;
        } else {
            // the buffer grows with the decoded rows, because the size in the header is untrusted
            while let Some(row) = reader.next_row()? {
                target.extend_from_slice(row.data());
            }
        }
        reader.finish()?;
        if target.len() != row * rows {
            return Err(PngError::Short(target.len(), row * rows));
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
enum PngError {
    Io(std::io::Error),
    Png(png::DecodingError),
    Short(usize, usize),
}

impl From<png::DecodingError> for PngError {
    fn from(error: png::DecodingError) -> Self {
        match error {
            png::DecodingError::IoError(error) if error.raw_os_error().is_some() => Self::Io(error),
            error => Self::Png(error),
        }
    }
}

impl Source for PngStack {
    fn layout(&self) -> &ArrayLayout {
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
            PngError::Io(error) => Error::io("read", path, error),
            PngError::Png(error) => damaged(shorten(&error.to_string())),
            PngError::Short(found, wanted) => {
                damaged(format!("it holds {found} of {wanted} bytes"))
            }
        })?;
        let block = Block::whole(&self.layout.block, ByteOrder::Big);
        let [samples, width] = [self.head.samples(), self.head.size[1]].map(|n| n as usize);
        if samples == 1 {
            return Ok(Some(block));
        }
        // the samples of a pixel are interleaved
        Ok(Some(Block { strides: vec![0, 1, width * samples, samples], ..block }))
    }

    fn stored(&self) -> StoredContent<'_> {
        StoredContent::in_files("png".into(), self.files.clone())
    }

    fn describe(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("format".into(), "png".into());
        facts.insert("codecs".into(), serde_json::json!(["deflate"]));
        facts.insert("files".into(), self.files.len().into());
        facts
    }
}
