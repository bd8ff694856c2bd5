use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use super::decode::decode;
use super::directory::{BufferedFile, TiffError};
use super::form::{PageForm, Sample};
use super::pages::Page;
use super::series::{self, Series};
use crate::store;
use crate::volume::Error;
use crate::volume::block::Block;
use crate::volume::calibration::Calibration;
use crate::volume::content::StoredContent;
use crate::volume::flat::{FlatFile, planes};
use crate::volume::source::{ArrayLayout, Scratch, Source};

/// A source, the names of its dimensions, and its calibration.
pub(in crate::volume) type Opened = (Box<dyn Source>, Vec<String>, Calibration);

/// Opens a file; `image` selects one of several images in it.
pub(in crate::volume) fn open(
    location: &str,
    path: &Path,
    image: Option<&str>,
) -> Result<Opened, Error> {
    Ok(opened(location, series::of_file(location, path, image)?))
}

/// Opens files whose pages are planes along z, concatenated.
pub(in crate::volume) fn open_stack(location: &str, files: Vec<PathBuf>) -> Result<Opened, Error> {
    Ok(opened(location, series::of_files(location, files)?))
}

fn opened(location: &str, series: Series) -> Opened {
    let Series { files, dimensions, planes: pages, calibration, contiguous, image } = series;
    let form = &pages[0].1.form;
    let dtype = form.sample.dtype();
    let mut facts = facts(&pages, files.len());
    if let Some(image) = image {
        facts.insert("image".into(), image.into());
    }
    let mut names: Vec<String> = dimensions.iter().map(|(name, _)| name.to_string()).collect();
    let Some(offset) = contiguous else {
        let stack = PageStack::new(location, files, &dimensions, pages, facts);
        if stack.channel == Some(names.len()) {
            names.push("c".into());
        }
        names.extend(["y".to_owned(), "x".to_owned()]);
        return (Box::new(stack), names, calibration);
    };
    names.extend(["y".to_owned(), "x".to_owned()]);
    let shape: Vec<u64> = dimensions.iter().map(|(_, size)| *size).chain(form.size).collect();
    let file = FlatFile {
        location: location.to_owned(),
        path: files[0].clone(),
        offset,
        layout: ArrayLayout { block: planes(&shape), shape, dtype, fill: vec![0; dtype.size()] },
        order: form.order,
        facts,
    };
    (Box::new(file), names, calibration)
}

/// The facts about the format that `inspect` shows.
fn facts(pages: &[(u32, Page)], files: usize) -> Map<String, Value> {
    let mut codecs: Vec<&str> = Vec::new();
    for (_, page) in pages {
        let name = page.form.compression.name();
        if !codecs.contains(&name) {
            codecs.push(name);
        }
    }
    let mut facts = Map::new();
    facts.insert("format".into(), "tiff".into());
    facts.insert("codecs".into(), serde_json::json!(codecs));
    if files > 1 {
        facts.insert("files".into(), files.into());
    }
    match pages[0].1.form.sample {
        Sample::As(stored) if stored.read_as() == stored => {}
        Sample::As(stored) => drop(facts.insert("stored_dtype".into(), stored.name().into())),
        Sample::Bits(bits) => {
            drop(facts.insert("stored_dtype".into(), format!("{bits} bits").into()));
        }
    }
    facts
}

/// Pages of one file or of several. If all have the same strips or tiles, a block is a strip or
/// tile of a page; otherwise a block is a whole page.
struct PageStack {
    location: String,
    layout: ArrayLayout,
    files: Vec<PathBuf>,
    /// File number and page of each plane, in C order of `counts`.
    pages: Vec<(u32, Page)>,
    /// The number of pages along each dimension other than y and x. All samples of a pixel are in
    /// one page.
    counts: Vec<u64>,
    /// The dimension of channels, if there is one.
    channel: Option<usize>,
    /// Whether blocks are strips or tiles.
    alike: bool,
    /// Open files that no thread is using, with their numbers.
    idle: Mutex<Vec<(u32, BufferedFile)>>,
    facts: Map<String, Value>,
}

/// The maximum number of unused files kept open.
const MAX_IDLE_FILES: usize = 16;

impl PageStack {
    fn new(
        location: &str,
        files: Vec<PathBuf>,
        dimensions: &[(char, u64)],
        pages: Vec<(u32, Page)>,
        facts: Map<String, Value>,
    ) -> Self {
        let form = &pages[0].1.form;
        let cut = |form: &PageForm| (form.chunk, form.separate);
        let alike = pages.iter().all(|(_, page)| cut(&page.form) == cut(form));
        let mut counts: Vec<u64> = dimensions.iter().map(|(_, size)| *size).collect();
        let mut channel = dimensions.iter().position(|(name, _)| *name == 'c');
        if channel.is_none() && form.samples > 1 {
            channel = Some(counts.len());
            counts.push(1);
        }
        let mut shape = counts.clone();
        let mut block = vec![1; counts.len()];
        if let Some(channel) = channel {
            shape[channel] *= form.samples;
            block[channel] = if alike { form.chunk_samples() } else { form.samples };
        }
        shape.extend(form.size);
        for a in 0..2 {
            block.push(if alike { form.chunk[a].min(form.size[a]) } else { form.size[a] });
        }
        let dtype = form.sample.dtype();
        Self {
            location: location.to_owned(),
            layout: ArrayLayout { shape, block, dtype, fill: vec![0; dtype.size()] },
            files,
            pages,
            counts,
            channel,
            alike,
            idle: Mutex::default(),
            facts,
        }
    }

    /// The number of the page that holds a block, and the sample of the block if samples are stored
    /// separately (otherwise 0).
    fn plane(&self, index: &[u64]) -> (usize, u64) {
        let (mut plane, mut sample) = (0, 0);
        for (d, count) in self.counts.iter().enumerate() {
            let mut at = index[d];
            if self.channel == Some(d) {
                let samples = self.pages[0].1.form.samples / self.layout.block[d];
                (at, sample) = (at / samples, at % samples);
            }
            plane = plane * count + at;
        }
        (plane as usize, sample)
    }

    fn input(&self, file: u32) -> Result<BufferedFile, TiffError> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = idle.iter().position(|(number, _)| *number == file) {
            return Ok(idle.swap_remove(at).1);
        }
        drop(idle);
        Ok(BufferedFile::open(&self.files[file as usize])?)
    }

    /// Decodes strip or tile `index` of a page into `out`. `file` is a buffer for the encoded
    /// bytes.
    fn chunk(
        &self,
        input: &mut BufferedFile,
        page: &Page,
        index: u64,
        file: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), TiffError> {
        let form = &page.form;
        let (offset, bytes) = page.chunk(input, index)?;
        let plain = form.is_plain();
        let target = if plain { &mut *out } else { &mut *file };
        // the range was valid when the file was opened
        if offset.checked_add(bytes).is_none_or(|end| end > input.length) {
            return Err("was changed since it was opened".to_owned().into());
        }
        target.resize(bytes as usize, 0);
        input.read_exact_at(target, offset)?;
        if !plain {
            let [down, across] = form.chunks();
            decode(form, file, form.rows(index % (down * across) / across), out)?;
        }
        Ok(())
    }

    /// Loads a strip or tile as a block.
    fn load_chunk(
        &self,
        input: &mut BufferedFile,
        page: &Page,
        index: &[u64],
        sample: u64,
        scratch: &mut Scratch,
    ) -> Result<Block, TiffError> {
        let form = &page.form;
        let [down, across] = form.chunks();
        let at = &index[index.len() - 2..];
        let chunk = (sample * down + at[0]) * across + at[1];
        self.chunk(input, page, chunk, &mut scratch.file, &mut scratch.data)?;
        let columns = form.chunk[1].min(form.size[1] - at[1] * form.chunk[1]);
        Ok(self.block(form, [form.rows(at[0]), columns], form.chunk[1], form.chunk_samples()))
    }

    /// Loads a whole page as a block.
    fn load_page(
        &self,
        input: &mut BufferedFile,
        page: &Page,
        scratch: &mut Scratch,
    ) -> Result<Block, TiffError> {
        let form = &page.form;
        let [down, across] = form.chunks();
        let size = form.sample.dtype().size();
        let (samples, each) = (form.samples as usize, form.chunk_samples() as usize);
        let row = form.size[1] as usize * samples * size;
        let mut piece = Vec::new();
        for chunk in 0..down * across * (samples / each) as u64 {
            self.chunk(input, page, chunk, &mut scratch.file, &mut piece)?;
            // allocate only after the first strip or tile could be decoded
            scratch.data.resize(row * form.size[0] as usize, 0);
            let [y, x] = [chunk % (down * across) / across, chunk % across];
            let first = [y * form.chunk[0], x * form.chunk[1]].map(|v| v as usize);
            let columns = (form.chunk[1] as usize).min(form.size[1] as usize - first[1]);
            let length = form.chunk[1] as usize * each * size;
            for r in 0..form.rows(y) as usize {
                let from = &piece[r * length..][..columns * each * size];
                let sample = (chunk / (down * across)) as usize;
                let start = (first[0] + r) * row + (first[1] * samples + sample) * size;
                for (i, pixel) in from.chunks_exact(each * size).enumerate() {
                    let at = start + i * samples * size;
                    scratch.data[at..at + pixel.len()].copy_from_slice(pixel);
                }
            }
        }
        Ok(self.block(form, form.size, form.size[1], form.samples))
    }

    /// Describes a block of `size` rows and columns: `samples` interleaved per pixel, rows of
    /// `width` pixels.
    fn block(&self, form: &PageForm, size: [u64; 2], width: u64, samples: u64) -> Block {
        let rank = self.layout.shape.len();
        let mut extent = vec![1; rank - 2];
        let mut strides = vec![0; rank - 2];
        if let Some(channel) = self.channel {
            extent[channel] = samples;
            strides[channel] = 1;
        }
        extent.extend(size);
        strides.extend([width * samples, samples].map(|v| v as usize));
        Block { first: 0, strides, extent, order: form.order }
    }
}

impl Source for PageStack {
    fn layout(&self) -> &ArrayLayout {
        &self.layout
    }

    fn load(
        &self,
        index: &[u64],
        _wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        let (plane, sample) = self.plane(index);
        let (file, page) = &self.pages[plane];
        let path = &self.files[*file as usize];
        let load = |scratch: &mut Scratch| {
            let mut input = self.input(*file)?;
            let block = if self.alike {
                self.load_chunk(&mut input, page, index, sample, scratch)?
            } else {
                self.load_page(&mut input, page, scratch)?
            };
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() >= MAX_IDLE_FILES {
                idle.swap_remove(0);
            }
            idle.push((*file, input));
            Ok(Some(block))
        };
        load(scratch).map_err(|fault| match fault {
            TiffError::Message(text) => Error::damaged(&self.location, index, path, text),
            TiffError::Io(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                Error::damaged(&self.location, index, path, "the file ends within it")
            }
            TiffError::Io(error) => Error::io("read", path, error),
        })
    }

    fn in_flight(&self) -> usize {
        if store::is_remote(&self.files[0]) { store::IN_FLIGHT } else { 1 }
    }

    fn stored(&self) -> StoredContent<'_> {
        // the assignment of pages to planes follows from the files and the selected image
        let image = self.facts.get("image").map(Value::to_string).unwrap_or_default();
        StoredContent::in_files(format!("tiff {image}"), self.files.clone())
    }

    fn describe(&self) -> Map<String, Value> {
        self.facts.clone()
    }
}
