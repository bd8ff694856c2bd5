//! Stacks of 2-D images: one file per plane, in natural order of their names.

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
use super::{Dtype, Error, tiff};

/// What a PNG begins with.
pub(super) const PNG: &[u8] = b"\x89PNG";

/// The files of a pattern, `'sections/*.png'`, in natural order (2 before 10).
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

/// Opens a stack, with the names of its dimensions.
pub(super) fn open(
    location: &str,
    files: Vec<PathBuf>,
) -> Result<(Box<dyn Source>, Vec<String>, Calibration), Error> {
    let names = ["z", "y", "x"].map(str::to_owned).to_vec();
    let mut start = [0; 4];
    let first = &files[0];
    let read = File::open(first).and_then(|mut file| file.read_exact(&mut start));
    read.map_err(|source| Error::io("read", first, source))?;
    if start == PNG {
        let source = PngStack::open(location, files)?;
        let calibration = Calibration::unknown("PNG files do not say");
        return Ok((Box::new(source), names, calibration));
    }
    let page = tiff::first_page(location, first)?;
    for file in &files {
        let other = tiff::first_page(location, file)?;
        if other.size != page.size || other.dtype != page.dtype || other.tile != page.tile {
            return Err(uneven(location, file, other.size, other.dtype, page.size, page.dtype));
        }
    }
    let shape = vec![files.len() as u64, page.size[0], page.size[1]];
    let places = files.into_iter().map(|file| (file, 0)).collect();
    let calibration = page.calibration();
    Ok((Box::new(tiff::PageStack::new(location, &page, shape, places)), names, calibration))
}

fn uneven(
    location: &str,
    file: &Path,
    size: [u64; 2],
    dtype: Dtype,
    first: [u64; 2],
    first_dtype: Dtype,
) -> Error {
    let message = format!(
        "{} has {} x {} {dtype} pixels, the first file {} x {} {first_dtype}; all must be alike",
        file.display(),
        size[0],
        size[1],
        first[0],
        first[1]
    );
    Error::format(location, message)
}

/// PNG files, 8 or 16 bits, grey.
struct PngStack {
    location: String,
    layout: Layout,
    files: Vec<PathBuf>,
}

fn decoder(path: &Path) -> Result<png::Decoder<BufReader<File>>, Error> {
    let file = File::open(path).map_err(|source| Error::io("read", path, source))?;
    let mut decoder = png::Decoder::new(BufReader::with_capacity(1 << 16, file));
    // grey levels of 1, 2 and 4 bits become bytes
    decoder.set_transformations(png::Transformations::EXPAND);
    decoder.set_limits(png::Limits { bytes: usize::MAX });
    Ok(decoder)
}

fn header(location: &str, path: &Path) -> Result<([u64; 2], Dtype), Error> {
    let bad = |error: &dyn std::fmt::Display| {
        Error::format(location, format!("{} cannot be read as PNG: {error}", path.display()))
    };
    let mut decoder = decoder(path)?;
    let info = decoder.read_header_info().map_err(|error| bad(&error))?;
    let dtype = match (info.color_type, info.bit_depth) {
        (png::ColorType::Grayscale, png::BitDepth::Sixteen) => Dtype::U16,
        (png::ColorType::Grayscale, _) => Dtype::U8,
        (other, _) => return Err(bad(&format!("it is {other:?}, only grey ones are"))),
    };
    Ok(([u64::from(info.height), u64::from(info.width)], dtype))
}

impl PngStack {
    fn open(location: &str, files: Vec<PathBuf>) -> Result<Self, Error> {
        let (size, dtype) = header(location, &files[0])?;
        for file in &files {
            let (other, other_dtype) = header(location, file)?;
            if (other, other_dtype) != (size, dtype) {
                return Err(uneven(location, file, other, other_dtype, size, dtype));
            }
        }
        let layout = Layout {
            shape: vec![files.len() as u64, size[0], size[1]],
            block: vec![1, size[0], size[1]],
            dtype,
            fill: vec![0; dtype.size()],
        };
        Ok(Self { location: location.to_owned(), layout, files })
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
        let size = self.layout.block.iter().product::<u64>() as usize * self.layout.dtype.size();
        scratch.data.resize(size, 0);
        let decode = |data: &mut [u8]| -> Result<(), png::DecodingError> {
            let decoder =
                decoder(path).map_err(|error| std::io::Error::other(error.to_string()))?;
            let mut reader = decoder.read_info()?;
            reader.next_frame(data)?;
            reader.finish()
        };
        decode(&mut scratch.data)
            .map_err(|error| Error::damaged(&self.location, index, path, error.to_string()))?;
        Ok(Some(Block::whole(&self.layout.block, ByteOrder::Big)))
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
