//! Reads blocks of a stack of sections.

use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};

use super::OpenedSections;
use super::image::{Section, SectionImage};
use crate::geom::Box3;
use crate::store;
use crate::volume::block::{Block, c_strides};
use crate::volume::content::StoredContent;
use crate::volume::source::{ArrayLayout, Scratch, Source};
use crate::volume::{ByteOrder, Error, Voxel};
use crate::with_element;

/// The maximum number of sections whose files and metadata are kept open. Pixels are not kept.
const MAX_OPEN: usize = 16;

/// A stack of sections, dimensions z, y, x or z, c, y, x.
pub(super) struct Sections {
    location: String,
    layout: ArrayLayout,
    /// The position of the first voxel of the stack in the table's coordinates z, y, x.
    first: [i64; 3],
    /// The sections, in order of z.
    sections: Vec<Section>,
    /// A text for the fingerprint with everything that determines the voxels, except the content of
    /// the files.
    form: String,
    codecs: Vec<String>,
    /// Bytes of memory that are needed to read one block, besides the block itself.
    working: u64,
    /// The open sections, each with its index in `sections`; the most recently used is last.
    open: Mutex<Vec<(usize, Arc<MaskedSection>)>>,
}

/// A section and its mask.
struct MaskedSection {
    image: SectionImage,
    mask: Option<SectionImage>,
}

/// The part of a section that lies in one block: its position in the block and in the image.
struct SectionPart {
    /// The number of rows and columns of the block, clipped to the plane.
    extent: [usize; 2],
    /// The first row and column of the part within the block.
    at: [usize; 2],
    /// The part as a box of the image; one plane along z.
    part: Box3,
}

impl Sections {
    pub(super) fn new(
        location: &str,
        layout: ArrayLayout,
        first: [i64; 3],
        opened: OpenedSections<'_>,
        form: String,
    ) -> Self {
        let OpenedSections { sections, codecs, working, .. } = opened;
        // buffers for the pixels of a part of a section, and for those of its mask as f32
        let pixels: u64 = layout.block.iter().product();
        let working = working.saturating_add(pixels.saturating_mul(layout.dtype.size() as u64 + 4));
        let (location, open) = (location.to_owned(), Mutex::default());
        Self { location, layout, first, sections, form, codecs, working, open }
    }

    /// Returns a section, which is opened if it is not open yet.
    fn pair(&self, number: usize) -> Result<Arc<MaskedSection>, Error> {
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = lock();
        if let Some(at) = open.iter().position(|(known, _)| *known == number) {
            let found = open.remove(at);
            let pair = Arc::clone(&found.1);
            open.push(found);
            return Ok(pair);
        }
        drop(open);
        let section = &self.sections[number];
        let image = SectionImage::open(&section.image)?;
        let mask = section.mask.as_deref().map(SectionImage::open).transpose()?;
        let is_same = |image: &SectionImage| image.size == section.size;
        if image.dtype() != self.layout.dtype
            || !is_same(&image)
            || mask.as_ref().is_some_and(|m| !is_same(m))
        {
            let message = format!("{} was changed since it was opened", section.image.display());
            return Err(Error::format(&self.location, message));
        }
        let pair = Arc::new(MaskedSection { image, mask });
        let mut open = lock();
        if open.len() >= MAX_OPEN {
            open.remove(0);
        }
        open.push((number, Arc::clone(&pair)));
        Ok(pair)
    }

    /// The part of a section that lies in the block at these indices along y, x; `None` if they do
    /// not overlap.
    fn piece(&self, section: &Section, block: [u64; 2]) -> Option<SectionPart> {
        let rank = self.layout.shape.len();
        let (mut extent, mut at, mut low, mut high) = ([0; 2], [0; 2], [0; 3], [1; 3]);
        for a in 0..2 {
            let (size, end) = (self.layout.block[rank - 2 + a], self.layout.shape[rank - 2 + a]);
            let start = block[a] * size;
            extent[a] = size.min(end - start) as usize;
            // the block's position within the image
            let begin = start as i64 + self.first[a + 1] - section.offset[a];
            low[a + 1] = begin.max(0);
            high[a + 1] = (begin + extent[a] as i64).min(section.size[a] as i64);
            if low[a + 1] >= high[a + 1] {
                return None;
            }
            at[a] = (low[a + 1] - begin) as usize;
        }
        Some(SectionPart { extent, at, part: Box3::new(low, high) })
    }

    /// Reads the part `piece` of a section into `data`, little endian, and pads it with the fill
    /// value to the size of the block (clipped to the plane).
    fn read<T: Voxel>(
        &self,
        pair: &MaskedSection,
        channel: u64,
        piece: &SectionPart,
        data: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut pixels = vec![T::default(); piece.part.len()];
        pair.image.read(channel, &piece.part, &mut pixels)?;
        let fill = T::get(&self.layout.fill, ByteOrder::Little);
        if let Some(mask) = &pair.mask {
            let mut inside = vec![0.0f32; pixels.len()];
            mask.read(0, &piece.part, &mut inside)?;
            for (pixel, inside) in pixels.iter_mut().zip(&inside) {
                if !(*inside > 0.0) {
                    *pixel = fill;
                }
            }
        }
        let [_, height, width] = piece.part.shape();
        let around = vec![fill; piece.extent[1]];
        data.clear();
        for y in 0..piece.extent[0] {
            let row = y.checked_sub(piece.at[0]).filter(|row| *row < height);
            let Some(row) = row else {
                T::put(&around, ByteOrder::Little, data);
                continue;
            };
            T::put(&around[..piece.at[1]], ByteOrder::Little, data);
            T::put(&pixels[row * width..][..width], ByteOrder::Little, data);
            T::put(&around[piece.at[1] + width..], ByteOrder::Little, data);
        }
        Ok(())
    }

    /// Bytes of all images and masks on disk; `None` if one is in a bucket or cannot be read.
    fn stored_bytes(&self) -> Option<u64> {
        let paths = self.sections.iter().flat_map(|s| std::iter::once(&s.image).chain(&s.mask));
        let mut sum = 0;
        for path in paths {
            sum += bytes_below(path)?;
        }
        Some(sum)
    }
}

/// Bytes of a file, or of all files in a folder except `.voxloom`; `None` in a bucket or if the
/// path cannot be read.
fn bytes_below(path: &Path) -> Option<u64> {
    if store::is_remote(path) {
        return None;
    }
    let about = store::stat(path).ok().flatten()?;
    if about.kind == store::EntryKind::File {
        return Some(about.length);
    }
    let entries = store::list(path).ok()?;
    entries
        .iter()
        .filter(|entry| entry.name != ".voxloom")
        .map(|e| bytes_below(&path.join(&e.name)))
        .sum()
}

impl Source for Sections {
    fn layout(&self) -> &ArrayLayout {
        &self.layout
    }

    fn load(
        &self,
        index: &[u64],
        _wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        let z = self.first[0] + index[0] as i64;
        let Ok(number) = self.sections.binary_search_by_key(&z, |section| section.z) else {
            return Ok(None);
        };
        let rank = index.len();
        let block = [index[rank - 2], index[rank - 1]];
        let Some(piece) = self.piece(&self.sections[number], block) else { return Ok(None) };
        let channel = if rank == 4 { index[1] } else { 0 };
        let pair = self.pair(number)?;
        with_element!(self.layout.dtype, T => {
            self.read::<T>(&pair, channel, &piece, &mut scratch.data)?;
        });
        let mut extent = vec![1; rank - 2];
        extent.extend(piece.extent.map(|n| n as u64));
        let strides = c_strides(&extent);
        Ok(Some(Block { first: 0, strides, extent, order: ByteOrder::Little }))
    }

    fn working_bytes(&self) -> u64 {
        self.working
    }

    fn stored(&self) -> StoredContent<'_> {
        let files = self.sections.iter().flat_map(|section| section.files.iter().cloned());
        StoredContent {
            looks_at_all: true,
            ..StoredContent::in_files(self.form.clone(), files.collect())
        }
    }

    fn describe(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("format".into(), "sections".into());
        facts.insert("codecs".into(), json!(self.codecs));
        facts.insert("sections".into(), self.sections.len().into());
        facts.insert("missing".into(), (self.layout.shape[0] - self.sections.len() as u64).into());
        facts.insert("stored_bytes".into(), json!(self.stored_bytes()));
        facts
    }
}
