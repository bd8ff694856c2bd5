//! One image that a table of sections lists: a section or its mask.

use std::path::{Path, PathBuf};

use super::rows::{ImageRow, SectionRow, is_table};
use crate::geom::Box3;
use crate::store;
use crate::volume::cache::Cache;
use crate::volume::content::StoredContent;
use crate::volume::open::{self, OpenedArray};
use crate::volume::source::{self, Source, View};
use crate::volume::{Dtype, Error, Voxel, unfinished};

/// A section that the table lists. The image itself is opened again whenever it is needed.
pub(super) struct Section {
    /// The index of the plane.
    pub(super) z: i64,
    /// The position of the first pixel along y, x.
    pub(super) offset: [i64; 2],
    /// The number of rows and columns.
    pub(super) size: [u64; 2],
    pub(super) image: PathBuf,
    pub(super) mask: Option<PathBuf>,
    /// Up to `FILES_EACH` files of the image and as many of the mask, evenly spread.
    pub(super) files: Vec<PathBuf>,
    /// The line in the table, counted from 1.
    pub(super) line: u64,
}

impl Section {
    pub(super) fn new(section: &SectionRow<'_>, size: [u64; 2]) -> Self {
        let ImageRow { z, line, image, mask, .. } = section.row.clone();
        Self { z, offset: section.offset, size, image, mask, files: Vec::new(), line }
    }
}

/// An image of one plane, open for reading.
pub(super) struct SectionImage {
    source: Box<dyn Source>,
    view: View,
    /// The dimension of channels, if there is one.
    channel: Option<usize>,
    pub(super) channels: u64,
    /// The number of rows and columns.
    pub(super) size: [u64; 2],
    /// The pixel size along y, x that the file states, micrometres.
    pub(super) pixel: Option<[f64; 2]>,
    pub(super) notes: Vec<String>,
    /// A cache of size 0, because the stack caches its own blocks.
    cache: Cache,
}

impl SectionImage {
    /// Opens an image of one plane, with or without channels.
    ///
    /// # Errors
    /// [`Error`] if there is no image at `path`, or if the image is not a single plane.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let location = path.display().to_string();
        let bad = |message: String| Error::format(&location, message);
        if !store::is_remote(path) && path.is_file() && is_table(path) {
            return Err(bad("is a table of sections itself; a section is one image".into()));
        }
        let OpenedArray { source, names, calibration, attributes, notes, .. } =
            open::find(&location)?;
        unfinished::check(&location, &attributes)?;
        let shape = source.layout().shape.clone();
        let at = |wanted: &str| names.iter().position(|name| name == wanted);
        let (Some(y), Some(x)) = (at("y"), at("x")) else {
            let names = names.join(", ");
            return Err(bad(format!("has the dimensions {names}; a section has y and x")));
        };
        let channel = at("c").or(at("channel"));
        for (d, name) in names.iter().enumerate() {
            if shape[d] != 1 && ![Some(y), Some(x), channel].contains(&Some(d)) {
                let count = shape[d];
                return Err(bad(format!("has {count} along {name}; a section is one image")));
            }
        }
        let view = View { axes: [None, Some(y), Some(x)], fixed: vec![0; shape.len()] };
        let pixel = calibration.spacing.map(|[_, y, x]| [y, x]).or(calibration.pixel);
        Ok(Self {
            view,
            channel,
            channels: channel.map_or(1, |d| shape[d]),
            size: [shape[y], shape[x]],
            pixel,
            notes,
            source,
            cache: Cache::new(0),
        })
    }

    pub(super) fn dtype(&self) -> Dtype {
        self.source.layout().dtype
    }

    /// The block shape along y, x.
    pub(super) fn block(&self) -> [u64; 2] {
        let [_, y, x] = self.view.pick(&self.source.layout().block, 1);
        [y, x]
    }

    pub(super) fn scratch_bytes(&self) -> u64 {
        source::scratch_bytes(&*self.source)
    }

    pub(super) fn stored(&self) -> StoredContent<'_> {
        self.source.stored()
    }

    pub(super) fn codecs(&self) -> Vec<String> {
        let facts = self.source.describe();
        let codecs = facts.get("codecs").and_then(serde_json::Value::as_array);
        codecs.into_iter().flatten().filter_map(|codec| Some(codec.as_str()?.to_owned())).collect()
    }

    /// Reads the pixels of `part` in one channel. `part` must lie within the image.
    ///
    /// # Errors
    /// [`Error`] for damaged blocks, and for I/O errors.
    pub(super) fn read<T: Voxel>(
        &self,
        channel: u64,
        part: &Box3,
        out: &mut [T],
    ) -> Result<(), Error> {
        let mut view = self.view.clone();
        if let Some(d) = self.channel {
            view.fixed[d] = channel;
        }
        source::read(&*self.source, &self.cache, &view, part, out)
    }
}
