//! Stacks of sections that a table lists: one image per plane, of any size and format, at any
//! offset. Planes that the table does not list, pixels outside the images, and pixels where a mask
//! is 0 have the fill value.
//!
//! `rows` reads the table, `image` opens one section, `source` reads blocks of the stack.

use std::path::{Path, PathBuf};

use crate::fingerprint::Fingerprint;
use crate::quote;
use crate::store;
use crate::volume::calibration::Calibration;
use crate::volume::node::Node;
use crate::volume::open::OpenedArray;
use crate::volume::{Dtype, Error, Format, Voxel, extent, path_of, stack};
use crate::with_element;

mod image;
mod rows;
mod source;
#[cfg(test)]
mod tests;

use image::{Section, SectionImage};
use rows::SectionRow;
pub(in crate::volume) use rows::is_table;
pub use rows::{ImageRow, ImageTable, read_images};
use source::Sections;

/// The maximum number of files of one image or mask that are included in the fingerprint and
/// checked for changes during a run.
const FILES_EACH: u64 = 64;

/// Whether a location is a table of sections, which is read as a volume.
pub fn is_sections(location: &str) -> bool {
    path_of(location).is_ok_and(|path| {
        let there = store::stat_file(&path).ok().flatten();
        there.is_some_and(|there| there.kind == store::EntryKind::File) && is_table(&path)
    })
}

/// The files and folders that a stack of sections consists of besides `location` itself: the images
/// and masks of a table of sections, or the images in a folder. Empty for anything else.
pub fn members(location: &str) -> Vec<PathBuf> {
    let Ok(path) = path_of(location) else { return Vec::new() };
    if !is_sections(location) {
        // the folder of an array is not listed, as it may have millions of chunks
        if Node::read(&path).is_ok_and(|node| node.is_some()) {
            return Vec::new();
        }
        return stack::in_folder(&path).ok().flatten().map_or_else(Vec::new, |images| images.files);
    }
    let rows = rows::read_images(&path).map(|list| list.rows).unwrap_or_default();
    rows.into_iter().flat_map(|row| std::iter::once(row.image).chain(row.mask)).collect()
}

/// Opens the stack that the table at `path` lists.
///
/// # Errors
/// [`Error`] that names the line of the table: the line is damaged, or its image cannot be read, or
/// the image differs from the first image in element type or number of channels.
pub(in crate::volume) fn open(location: &str, path: &Path) -> Result<OpenedArray, Error> {
    let list = rows::read_images(path)?;
    let mut opened = OpenedSections::new(path);
    for section in list.sections(path)? {
        opened.add(&section)?;
    }
    let layout = opened.layout(location, &list)?;
    let (first, _) = opened.canvas();
    let calibration = opened.calibration(&list, first);
    let mut notes = opened.notes(&list);
    notes.append(&mut opened.notes);
    let form = opened.form(&list, &layout.shape, first);
    let names = if opened.channels > 1 { &["z", "c", "y", "x"][..] } else { &["z", "y", "x"] };
    let source = Sections::new(location, layout, first, opened, form);
    Ok(OpenedArray {
        source: Box::new(source),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        calibration,
        path: path.to_owned(),
        format: Format::Tiff,
        attributes: serde_json::Map::new(),
        notes,
    })
}

/// The common properties of the sections, collected by opening one image after the other.
struct OpenedSections<'a> {
    table: &'a Path,
    sections: Vec<Section>,
    dtype: Dtype,
    channels: u64,
    /// The largest block of an image along y, x.
    block: [u64; 2],
    /// Bytes of memory that are needed to read one block of an image or mask, at most.
    working: u64,
    pixels: Vec<Option<[f64; 2]>>,
    codecs: Vec<String>,
    /// The fingerprint of how all images and masks are stored: type, codecs and so on.
    forms: Fingerprint,
    notes: Vec<String>,
}

impl<'a> OpenedSections<'a> {
    fn new(table: &'a Path) -> Self {
        Self {
            table,
            sections: Vec::new(),
            dtype: Dtype::U8,
            channels: 1,
            block: [1; 2],
            working: 0,
            pixels: Vec::new(),
            codecs: Vec::new(),
            forms: Fingerprint::default(),
            notes: Vec::new(),
        }
    }

    fn add(&mut self, section: &SectionRow<'_>) -> Result<(), Error> {
        let row = section.row;
        let bad = |message: String| rows::at_line(self.table, row.line, message);
        let of_line = |error: Error| bad(error.to_string());
        let image = SectionImage::open(&row.image).map_err(of_line)?;
        let mask = row.mask.as_deref().map(SectionImage::open).transpose().map_err(of_line)?;
        let shown = row.image.display();
        if self.sections.is_empty() {
            (self.dtype, self.channels) = (image.dtype(), image.channels);
        } else if image.dtype() != self.dtype {
            let (found, wanted) = (image.dtype(), self.dtype);
            return Err(bad(format!(
                "{shown} holds {found}, the first section {wanted}; all must be alike"
            )));
        } else if image.channels != self.channels {
            let (found, wanted) = (image.channels, self.channels);
            return Err(bad(format!(
                "{shown} has {found} channels, the first section {wanted}; all must be alike"
            )));
        }
        if let Some(mask) = &mask
            && (mask.size != image.size || mask.channels != 1)
        {
            let describe = |image: &SectionImage| {
                let [height, width] = image.size;
                format!("{height} x {width} pixels and {} channels", image.channels)
            };
            return Err(bad(format!(
                "its mask has {}, its image {}; a mask has one channel and the size of the image",
                describe(mask),
                describe(&image)
            )));
        }
        let mut section = Section::new(section, image.size);
        for part in [Some(&image), mask.as_ref()].into_iter().flatten() {
            let (size, block) = (part.size, part.block());
            self.block = std::array::from_fn(|a| self.block[a].max(block[a].min(size[a])));
            self.working = self.working.max(part.scratch_bytes());
            let stored = part.stored();
            section.files.extend(stored.paths(FILES_EACH));
            self.forms.add(stored.form.as_bytes());
        }
        for codec in image.codecs() {
            if !self.codecs.contains(&codec) {
                self.codecs.push(codec);
            }
        }
        self.pixels.push(image.pixel);
        self.notes.extend(image.notes.iter().map(|note| format!("{shown}: {note}")));
        self.sections.push(section);
        Ok(())
    }

    /// The first plane, row and column that any section covers, and the numbers of planes, rows and
    /// columns of the stack.
    fn canvas(&self) -> ([i64; 3], [u64; 3]) {
        let sections = &self.sections;
        let mut first = [sections[0].z, i64::MAX, i64::MAX];
        let mut end = [sections[sections.len() - 1].z + 1, i64::MIN, i64::MIN];
        for section in sections {
            for a in 0..2 {
                first[a + 1] = first[a + 1].min(section.offset[a]);
                end[a + 1] = end[a + 1].max(section.offset[a] + section.size[a] as i64);
            }
        }
        (first, std::array::from_fn(|a| (end[a] - first[a]) as u64))
    }

    fn layout(
        &self,
        location: &str,
        list: &ImageTable,
    ) -> Result<crate::volume::source::ArrayLayout, Error> {
        let (_, [planes, height, width]) = self.canvas();
        let block = blocks(self.block, [height, width]);
        let mut shape = vec![planes, height, width];
        let mut blocks = vec![1, block[0], block[1]];
        if self.channels > 1 {
            shape.insert(1, self.channels);
            blocks.insert(1, 1);
        }
        let dtype = self.dtype;
        extent::check(location, &shape, &blocks, dtype.size(), true)?;
        if !dtype.holds(list.fill) {
            let message = format!("has the fill {}, which is no {dtype}", list.fill);
            return Err(Error::format(location, message));
        }
        let mut fill = Vec::new();
        with_element!(dtype, T => {
            T::put(&[T::from_f64(list.fill)], crate::volume::ByteOrder::Little, &mut fill);
        });
        Ok(crate::volume::source::ArrayLayout { shape, block: blocks, dtype, fill })
    }

    fn calibration(&self, list: &ImageTable, first: [i64; 3]) -> Calibration {
        let first = first.map(|n| n as f64);
        let table = || self.table.display().to_string();
        let known = Calibration { origin: list.origin, first, ..Calibration::default() };
        match list.spacing {
            Some([z, y, x]) if z.is_nan() => {
                Calibration { pixel: Some([y, x]), source: table(), ..known }
            }
            Some(spacing) => Calibration { spacing: Some(spacing), source: table(), ..known },
            None => match self.pixel() {
                Ok(pixel) => {
                    let source = "the table of sections".to_owned();
                    Calibration { pixel: Some(pixel), source, ..known }
                }
                Err(why) => Calibration { source: why, ..known },
            },
        }
    }

    /// The pixel size that all sections state, or why there is none.
    fn pixel(&self) -> Result<[f64; 2], String> {
        let wanted = "the table of sections has no line '# spacing: z,y,x unit', and";
        let Some(pixel) = self.pixels[0] else {
            return Err(format!("{wanted} its sections do not say"));
        };
        for (section, other) in self.sections.iter().zip(&self.pixels) {
            let is_same = |other: [f64; 2]| {
                (0..2).all(|a| (other[a] - pixel[a]).abs() <= 1e-6 * pixel[a].abs())
            };
            if !other.is_some_and(is_same) {
                return Err(format!(
                    "{wanted} the section of line {} has another pixel size than the first one",
                    section.line
                ));
            }
        }
        Ok(pixel)
    }

    /// Notes for the user about planes and pixels that no section covers.
    fn notes(&self, list: &ImageTable) -> Vec<String> {
        let mut notes = Vec::new();
        let (_, [planes, height, width]) = self.canvas();
        let missing = planes - self.sections.len() as u64;
        if missing > 0 {
            let gaps = self.sections.windows(2).filter(|pair| pair[1].z - pair[0].z > 1);
            let gaps: Vec<String> = gaps.map(|pair| span(pair[0].z + 1, pair[1].z - 1)).collect();
            notes.push(format!(
                "has no section at z {}: {missing} of {planes} planes have the fill value {}",
                quote::list(&gaps),
                list.fill
            ));
        }
        let covers = |section: &Section| section.size == [height, width];
        let padded = self.sections.iter().filter(|section| !covers(section)).count();
        if padded > 0 {
            notes.push(format!(
                "{padded} of its {} sections do not cover the plane of {height} x {width} pixels and are padded \
                 with the fill value {}",
                self.sections.len(),
                list.fill
            ));
        }
        notes
    }

    /// A text for the fingerprint with everything that determines the voxels, except the content of
    /// the files.
    fn form(&mut self, list: &ImageTable, shape: &[u64], first: [i64; 3]) -> String {
        let mut forms = std::mem::take(&mut self.forms);
        for section in &self.sections {
            let at = [section.z, section.offset[0], section.offset[1]];
            forms.add_counts(std::array::from_fn::<_, 3, _>(|a| (at[a] - first[a]) as u64));
            forms.add_counts(section.size).add_counts([section.mask.is_some().into()]);
        }
        format!("sections {shape:?} {} fill {} {}", self.dtype, list.fill, forms.hex())
    }
}

/// The block shape of a stack along y, x. It is a multiple of the largest block shape of the
/// images, and has at least about 512 x 512 pixels, but it is not larger than the plane.
fn blocks(of_images: [u64; 2], plane: [u64; 2]) -> [u64; 2] {
    const SIDE: u64 = 512;
    let [height, width] = of_images;
    let wide = width.max(SIDE.div_ceil(width) * width).min(plane[1]);
    let rows = (SIDE * SIDE).div_ceil(wide);
    [height.max(rows.div_ceil(height) * height).min(plane[0]), wide]
}

/// A range of planes as text: `7` or `7..9`.
fn span(first: i64, last: i64) -> String {
    if first == last { first.to_string() } else { format!("{first}..{last}") }
}
