use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};
use tiff::decoder::{ChunkType, Decoder};
use tiff::tags::{ByteOrder as TiffOrder, SampleFormat, Tag};

use super::Description;
use crate::volume::block::Block;
use crate::volume::calibration::Calibration;
use crate::volume::content::Stored;
use crate::volume::dtype::ByteOrder;
use crate::volume::flat::{FlatFile, planes};
use crate::volume::source::{Layout, Scratch, Source};
use crate::volume::{Dtype, Error};

/// Reads one after another of a file's pages: where it stands matters.
struct Cursor {
    decoder: Decoder<BufReader<File>>,
    page: usize,
}

fn cursor(location: &str, path: &Path) -> Result<Cursor, Error> {
    let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
    let decoder = Decoder::new(BufReader::with_capacity(1 << 16, file));
    let decoder = decoder.map_err(|error| damaged(location, path, &error))?;
    // our own volumes are larger than the crate's defence against bombs; a page is checked below
    let decoder = decoder.with_limits(tiff::decoder::Limits::unlimited());
    Ok(Cursor { decoder, page: 0 })
}

fn damaged(location: &str, path: &Path, error: &tiff::TiffError) -> Error {
    Error::format(location, format!("cannot be read as TIFF ({}): {error}", path.display()))
}

/// What is known of a file from its first page.
#[derive(Clone, Debug)]
pub(in crate::volume) struct FirstPage {
    pub(in crate::volume) dtype: Dtype,
    pub(in crate::volume) size: [u64; 2],
    pub(in crate::volume) tile: [u64; 2],
    pub(in crate::volume) description: Description,
    /// Micrometres along y, x.
    pub(in crate::volume) pixel: [Option<f64>; 2],
    compression: u64,
    strips: Option<Vec<u64>>,
    order: ByteOrder,
}

/// Reads the first page of a file.
pub(in crate::volume) fn first_page(location: &str, path: &Path) -> Result<FirstPage, Error> {
    let mut decoder = cursor(location, path)?.decoder;
    inspect(&mut decoder)
        .map_err(|error| damaged(location, path, &error))?
        .map_err(|message| Error::format(location, message))
}

/// What the current page of a decoder is; the inner error is what we do not read.
fn inspect(
    decoder: &mut Decoder<BufReader<File>>,
) -> Result<Result<FirstPage, String>, tiff::TiffError> {
    let samples: u64 = decoder.find_tag_unsigned(Tag::SamplesPerPixel)?.unwrap_or(1);
    if samples != 1 {
        let message = format!(
            "has {samples} samples per pixel (a colour image); split it into channels of one sample"
        );
        return Ok(Err(message));
    }
    let bits: u64 = decoder.find_tag_unsigned(Tag::BitsPerSample)?.unwrap_or(1);
    let format: u16 = decoder.find_tag_unsigned(Tag::SampleFormat)?.unwrap_or(1);
    let dtype = match dtype(SampleFormat::from_u16_exhaustive(format), bits) {
        Ok(dtype) => dtype,
        Err(message) => return Ok(Err(message)),
    };
    let (width, height) = decoder.dimensions()?;
    let (tile_width, tile_height) = decoder.chunk_dimensions();
    let text = decoder.get_tag_ascii_string(Tag::ImageDescription).unwrap_or_default();
    let description = Description::parse(&text);
    let unit: Option<u16> = decoder.find_tag_unsigned(Tag::ResolutionUnit)?;
    // 2 is the inch, 3 the centimetre; ImageJ says 1 and writes its unit into the description
    let unit = match (description.unit, unit) {
        (Some(unit), _) => Some(unit),
        (None, Some(3)) => Some(1e4),
        _ => None,
    };
    let mut pixel = [None, None];
    for (pixel, tag) in pixel.iter_mut().zip([Tag::YResolution, Tag::XResolution]) {
        let per_unit = decoder.find_tag(tag)?.as_ref().and_then(rational).filter(|r| *r > 0.0);
        *pixel = per_unit.zip(unit).map(|(per_unit, unit)| unit / per_unit);
    }
    for (a, pixel) in pixel.iter_mut().enumerate() {
        *pixel = description.spacing[a + 1].or(*pixel);
    }
    Ok(Ok(FirstPage {
        dtype,
        size: [u64::from(height), u64::from(width)],
        tile: [u64::from(tile_height), u64::from(tile_width)],
        description,
        pixel,
        compression: decoder.find_tag_unsigned(Tag::Compression)?.unwrap_or(1),
        strips: match decoder.get_chunk_type() {
            ChunkType::Strip => decoder.find_tag_unsigned_vec(Tag::StripOffsets)?,
            ChunkType::Tile => None,
        },
        order: match decoder.byte_order() {
            TiffOrder::LittleEndian => ByteOrder::Little,
            TiffOrder::BigEndian => ByteOrder::Big,
        },
    }))
}

/// The type of samples, or why we do not read them.
fn dtype(format: SampleFormat, bits: u64) -> Result<Dtype, String> {
    match (format, bits) {
        (SampleFormat::Uint, 8) => Ok(Dtype::U8),
        (SampleFormat::Uint, 16) => Ok(Dtype::U16),
        (SampleFormat::Uint, 32) => Ok(Dtype::U32),
        (SampleFormat::Uint, 64) => Ok(Dtype::U64),
        (SampleFormat::Int, 16) => Ok(Dtype::I16),
        (SampleFormat::IEEEFP, 32) => Ok(Dtype::F32),
        (SampleFormat::IEEEFP, 64) => Ok(Dtype::F64),
        (format, bits) => {
            let types = "uint8, uint16, int16, uint32, uint64, float32 and float64 can be read";
            Err(format!("has samples of {bits} bits, {format:?}; {types}"))
        }
    }
}

fn rational(value: &tiff::decoder::ifd::Value) -> Option<f64> {
    use tiff::decoder::ifd::Value;
    match value {
        Value::Rational(a, b) => Some(f64::from(*a) / f64::from(*b)),
        Value::Float(value) => Some(f64::from(*value)),
        Value::Double(value) => Some(*value),
        _ => None,
    }
}

impl FirstPage {
    /// Where the voxels of the file lie.
    pub(in crate::volume) fn calibration(&self) -> Calibration {
        let depth = self.description.spacing[0];
        match (depth, self.pixel) {
            (Some(z), [Some(y), Some(x)]) => {
                let spacing = [z, y, x];
                let zero = self.description.zero;
                Calibration {
                    spacing: Some(spacing),
                    origin: Some(std::array::from_fn(|a| {
                        // -0 would be a surprise
                        if zero[a] == 0.0 { 0.0 } else { -zero[a] * spacing[a] }
                    })),
                    source: self.description.source.into(),
                }
            }
            _ => Calibration::unknown(
                "its metadata do not say how large a pixel is and how far apart planes are",
            ),
        }
    }
}

/// Opens a multi-page file, with the names of its dimensions.
pub(in crate::volume) fn open(
    location: &str,
    path: &Path,
) -> Result<(Box<dyn Source>, Vec<String>, Calibration), Error> {
    let mut cursor = cursor(location, path)?;
    let failed = |error: tiff::TiffError| damaged(location, path, &error);
    let page = inspect(&mut cursor.decoder)
        .map_err(failed)?
        .map_err(|message| Error::format(location, message))?;
    let mut count = 1u64;
    while cursor.decoder.more_images() {
        cursor.decoder.next_image().map_err(failed)?;
        let (width, height) = cursor.decoder.dimensions().map_err(failed)?;
        if [u64::from(height), u64::from(width)] != page.size {
            let message = format!(
                "its page {count} has {height} x {width} pixels, its first {} x {}; all must be \
                 alike",
                page.size[0], page.size[1]
            );
            return Err(Error::format(location, message));
        }
        count += 1;
    }
    let mut pages = page.description.pages.clone();
    let said: u64 = pages.iter().map(|(_, size)| size).product();
    let one_entry = count == 1 && said > 1 && page.compression == 1;
    if pages.is_empty() || (said != count && !one_entry) {
        if !pages.is_empty() {
            tracing::warn!("{location}: metadata speak of {said} pages, there are {count}");
        }
        pages = vec![('z', count)];
    }
    let calibration = page.calibration();
    let mut names: Vec<String> = pages.iter().map(|(name, _)| name.to_string()).collect();
    names.extend(["y".to_owned(), "x".to_owned()]);
    let shape: Vec<u64> = pages.iter().map(|(_, size)| *size).chain(page.size).collect();
    if one_entry && let Some([offset, ..]) = page.strips.as_deref() {
        // ImageJ's stacks of more than 4 GB: the planes follow the first one
        let fill = vec![0; page.dtype.size()];
        let layout = Layout { block: planes(&shape), shape, dtype: page.dtype, fill };
        let file = FlatFile {
            location: location.to_owned(),
            path: path.to_owned(),
            offset: *offset,
            layout,
            order: page.order,
            facts: facts(&page, 1),
        };
        return Ok((Box::new(file), names, calibration));
    }
    let places = (0..count as usize).map(|number| (path.to_owned(), number)).collect();
    Ok((Box::new(PageStack::new(location, &page, shape, places)), names, calibration))
}

fn facts(page: &FirstPage, files: usize) -> Map<String, Value> {
    let mut facts = Map::new();
    facts.insert("format".into(), "tiff".into());
    let name = match page.compression {
        1 => "none".to_owned(),
        5 => "lzw".to_owned(),
        8 | 32946 => "deflate".to_owned(),
        32773 => "packbits".to_owned(),
        50000 => "zstd".to_owned(),
        other => format!("compression {other}"),
    };
    facts.insert("codecs".into(), serde_json::json!([name]));
    if files > 1 {
        facts.insert("files".into(), files.into());
    }
    facts
}

/// Pages of one file or of several; the blocks are the strips or tiles of a page.
pub(in crate::volume) struct PageStack {
    location: String,
    layout: Layout,
    /// File and number in it of each page.
    places: Vec<(PathBuf, usize)>,
    /// Decoders that nobody uses now, with their files.
    idle: Mutex<Vec<(PathBuf, Cursor)>>,
    facts: Map<String, Value>,
}

/// Decoders kept open.
const IDLE: usize = 16;

impl PageStack {
    pub(in crate::volume) fn new(
        location: &str,
        page: &FirstPage,
        shape: Vec<u64>,
        places: Vec<(PathBuf, usize)>,
    ) -> Self {
        let mut block = vec![1; shape.len() - 2];
        block.extend(page.tile);
        let dtype = page.dtype;
        Self {
            location: location.to_owned(),
            layout: Layout { shape, block, dtype, fill: vec![0; dtype.size()] },
            idle: Mutex::default(),
            facts: facts(page, if places.iter().any(|p| p.1 > 0) { 1 } else { places.len() }),
            places,
        }
    }

    /// A decoder that stands on this page.
    fn cursor(&self, path: &Path, page: usize) -> Result<Cursor, Error> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // best one that need not move
        let found = idle
            .iter()
            .position(|(file, cursor)| file == path && cursor.page == page)
            .or_else(|| idle.iter().position(|(file, _)| file == path));
        let found = found.map(|at| idle.swap_remove(at).1);
        drop(idle);
        let mut cursor = match found {
            Some(cursor) => cursor,
            None => cursor(&self.location, path)?,
        };
        if cursor.page != page {
            let moved = cursor.decoder.seek_to_image(page);
            moved.map_err(|error| damaged(&self.location, path, &error))?;
            cursor.page = page;
        }
        Ok(cursor)
    }
}

impl Source for PageStack {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn load(
        &self,
        index: &[u64],
        _wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        let rank = self.layout.shape.len();
        let page = (0..rank - 2).fold(0, |page, d| page * self.layout.shape[d] + index[d]);
        let (path, number) = &self.places[page as usize];
        let mut cursor = self.cursor(path, *number)?;
        let across = self.layout.shape[rank - 1].div_ceil(self.layout.block[rank - 1]);
        let chunk = (index[rank - 2] * across + index[rank - 1]) as u32;
        let mut extent = vec![1; rank];
        for d in [rank - 2, rank - 1] {
            let start = index[d] * self.layout.block[d];
            extent[d] = self.layout.block[d].min(self.layout.shape[d] - start);
        }
        let size = extent.iter().product::<u64>() as usize * self.layout.dtype.size();
        scratch.data.resize(size, 0);
        let decoded = cursor.decoder.read_chunk_bytes(chunk, &mut scratch.data);
        decoded.map_err(|error| match error {
            tiff::TiffError::IoError(source) if source.raw_os_error().is_some() => {
                Error::io("read", path, source)
            }
            other => Error::damaged(&self.location, index, path, other.to_string()),
        })?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() >= IDLE {
            idle.swap_remove(0);
        }
        idle.push((path.clone(), cursor));
        Ok(Some(Block::whole(&extent, ByteOrder::NATIVE)))
    }

    fn stored(&self) -> Stored<'_> {
        let pages: Vec<u64> = self.places.iter().map(|(_, page)| *page as u64).collect();
        let mut files: Vec<PathBuf> = self.places.iter().map(|(file, _)| file.clone()).collect();
        files.dedup();
        Stored::in_files(format!("tiff {pages:?}"), files)
    }

    fn describe(&self) -> Map<String, Value> {
        self.facts.clone()
    }
}
