use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::array::Array;
use super::open;
use super::source::{self, View};
use super::watch::Watch;
use super::{Codec, Dtype, Error, Format, Select, Voxel, unfinished};
use crate::geom::{Box3, Grid, Point};
use crate::store;

/// A volume open for reading. Reads are thread-safe and have no file position.
///
/// It is a view of an [`Array`]: z, y and x of one channel and one time point.
pub struct Volume {
    array: Array,
    grid: Grid,
    dtype: Dtype,
    chunk: [usize; 3],
    view: View,
    spacing_from: String,
    has_spacing: bool,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Volume({}, {:?} {})", self.location(), self.grid.shape, self.dtype)
    }
}

impl Volume {
    /// Opens the volume at `location` (see `docs/formats.md` for what a location can be).
    ///
    /// # Errors
    /// [`Error`] if nothing exists at `location`, or it is not a volume, is unfinished, has no
    /// voxel size, or has several channels or time points of which none is selected.
    pub fn open(location: &str, select: &Select) -> Result<Self, Error> {
        let volume = Self::open_any(location, select)?;
        if volume.has_spacing {
            return Ok(volume);
        }
        let axes = if volume.grid.shape[0] == 1 { "y,x for a plane, or z,y,x" } else { "z,y,x" };
        let message = format!(
            "has no voxel size ({}); give --{}spacing {axes}, or make a copy that has one with transcode \
             --spacing",
            volume.spacing_from, select.prefix
        );
        Err(Error::format(location, message))
    }

    /// Opens a mask of the volume `of`. If the mask has no voxel size, but the same shape as the
    /// volume, it gets the spacing and origin of the volume.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub fn open_mask(location: &str, of: &Self) -> Result<Self, Error> {
        let stated = Self::open_any(location, &Select::default())?;
        let select = if stated.has_spacing || stated.grid.shape != of.grid.shape {
            Select::default()
        } else {
            let (spacing, origin) = (Some(of.grid.spacing), Some(of.grid.origin));
            Select { spacing, origin, ..Select::default() }
        };
        let mask = Self::open(location, &select)?;
        let missing = uncovered(&mask.grid, &of.grid);
        if !missing.is_empty() {
            let axes = missing.join(" and ");
            tracing::warn!(
                "{location} does not reach as far as {} along {axes}; is it the mask of another volume?",
                of.location()
            );
        }
        Ok(mask)
    }

    /// As [`Volume::open`], but also accepts a volume without a voxel size: the spacing is then 1
    /// along each axis, and [`Volume::has_spacing`] is false. For inspection only.
    ///
    /// # Errors
    /// As [`Volume::open`], except for a missing voxel size.
    pub fn open_any(location: &str, select: &Select) -> Result<Self, Error> {
        let found = Array::of(location, open::find_image(location, select.image.as_deref())?);
        unfinished::check(location, &found.attributes)?;
        let view = view(location, &found, select)?;
        let layout = found.source.layout();
        let shape = view.shape(layout);
        let mut chunk = view.pick(&layout.block, 1).map(|n| n as usize);
        if found.format == Format::Tiff && chunk[2] == shape[2] {
            // strips are consecutive rows of a plane: their height does not matter for reading
            chunk[1] = shape[1];
        }
        for note in &found.notes {
            tracing::warn!("{location}: {note}");
        }
        let Size { spacing, source: spacing_from, planar } =
            spacing(location, &found, &view, select)?;
        let has_spacing = spacing.is_some();
        let spacing = spacing.unwrap_or([1.0; 3]);
        let stated = found.calibration.origin_for(spacing, planar).filter(|_| has_spacing);
        let stated = stated.or(found.calibration.origin);
        let origin = match (select.origin, stated) {
            (Some(origin), stated) => {
                let known = lengths(origin);
                if origin[0].is_nan() && shape[0] != 1 {
                    let message =
                        format!("has {} planes; an origin {known} along y,x is for one", shape[0]);
                    return Err(Error::format(location, message));
                }
                let other = stated.map_or("0".to_owned(), lengths);
                tracing::info!(
                    "{location}: the origin is {known} um, as the command line says, not {other}"
                );
                [if origin[0].is_nan() { 0.0 } else { origin[0] }, origin[1], origin[2]]
            }
            (None, stated) => stated.unwrap_or_default(),
        };
        if let Some(bad) = origin.iter().find(|v| !v.is_finite()) {
            return Err(Error::format(location, format!("has an origin of {bad}; give --origin")));
        }
        let grid = Grid { shape, spacing, origin, planar };
        let dtype = layout.dtype.read_as();
        Ok(Self { array: found, grid, dtype, chunk, view, spacing_from, has_spacing })
    }

    /// The volume with another voxel size; its first voxel stays where it is.
    ///
    /// * `spacing`: micrometres along z, y, x
    #[must_use]
    pub fn with_spacing(mut self, spacing: Point) -> Self {
        self.grid.spacing = spacing;
        self.has_spacing = true;
        self
    }

    /// Returns a [`Watch`] with which the caller can check later whether the volume still exists
    /// and is unchanged. Call this before reading.
    pub fn watch(&self) -> Arc<Watch> {
        self.array.watch()
    }

    /// The location as given.
    pub fn location(&self) -> &str {
        &self.array.location
    }

    /// Shape, spacing and origin along z, y, x; micrometres.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// Whether the voxel size is known; only [`Volume::open_any`] opens volumes without one.
    pub fn has_spacing(&self) -> bool {
        self.has_spacing
    }

    /// The number of channels of the image that this volume is one channel of.
    pub fn channels(&self) -> usize {
        let at = self.array.names.iter().position(|name| matches!(name.as_str(), "c" | "channel"));
        at.map_or(1, |d| self.array.source.layout().shape[d] as usize)
    }

    /// The element type in which programs compute with the voxels; see [`Dtype::read_as`].
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The chunk shape (z, y, x), the unit in which reading is most efficient.
    pub fn chunk(&self) -> [usize; 3] {
        self.chunk
    }

    /// Caches up to `bytes` of decoded chunks from now on, instead of 64 MiB; 0 disables caching.
    pub fn keep(&self, bytes: u64) {
        self.array.cache.keep(bytes);
    }

    /// Bytes of decoded chunks that further reading can add to the cache.
    pub fn kept_bytes(&self) -> u64 {
        source::kept_bytes(&*self.array.source, &self.array.cache)
    }

    /// Bytes of cache that are needed to hold all decoded chunks that intersect a box; 0 for
    /// uncompressed chunks, which are not cached.
    pub fn decoded_bytes(&self, part: &Box3) -> u64 {
        source::decoded_bytes(&*self.array.source, &self.view, part)
    }

    /// Bytes that each thread holds while it reads.
    pub fn scratch_bytes(&self) -> u64 {
        source::scratch_bytes(&*self.array.source)
    }

    /// The format of the source (image stacks count as TIFF).
    pub fn format(&self) -> Format {
        self.array.format
    }

    /// The [`Codec`] that is most similar to the one the volume is stored with.
    pub fn codec(&self) -> Codec {
        let facts = self.array.source.describe();
        let names: Vec<&str> = facts
            .get("codecs")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(|name| name.strip_prefix("numcodecs.").unwrap_or(name))
            .filter(|name| !["bytes", "crc32c", "sharding_indexed"].contains(name))
            .collect();
        match names.as_slice() {
            [] | ["none" | "raw"] => Codec::Raw,
            ["gzip" | "zlib" | "deflate" | "bzip2" | "bz2" | "xz"] => Codec::Gzip,
            ["zstd"] => Codec::Zstd,
            ["lz4" | "blosc:lz4" | "blosc:blosclz" | "blosc:lz4hc"] => Codec::Lz4,
            _ => Codec::Blosc,
        }
    }

    /// An attribute of the array.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.array.attributes.get(name)
    }

    /// Reads a box into `out`, C order `(z, y, x)`, converted to `T`. If `T` is an integer type,
    /// values are rounded half away from zero and clamped to its range, and NaN becomes 0. Voxels
    /// outside the volume read as `T::default()`.
    ///
    /// # Errors
    /// [`Error::Chunk`] for a corrupt chunk, [`Error::Io`]. A missing chunk reads as the fill
    /// value.
    ///
    /// # Panics
    /// If the length of `out` is not the number of voxels of the box.
    pub fn read_into<T: Voxel>(&self, part: &Box3, out: &mut [T]) -> Result<(), Error> {
        assert_eq!(out.len(), part.len(), "the output must be as long as the box");
        source::read(&*self.array.source, &self.array.cache, &self.view, part, out)
    }

    /// As [`Volume::read_into`], into a new vector.
    ///
    /// # Errors
    /// As [`Volume::read_into`].
    pub fn read<T: Voxel>(&self, part: &Box3) -> Result<Vec<T>, Error> {
        let mut out = vec![T::default(); part.len()];
        self.read_into(part, &mut out)?;
        Ok(out)
    }

    /// The properties of the volume that `inspect` shows: format, axes, the shape of the whole
    /// array, codecs, the source of the voxel size, levels, bytes on disk.
    pub fn describe(&self) -> Value {
        let layout = self.array.source.layout();
        let mut facts = self.array.source.describe();
        if let Some(why) = unfinished::unfinished_reason(&self.array.attributes) {
            facts.insert("unfinished".into(), why.into());
        }
        facts.insert("location".into(), self.array.location.clone().into());
        facts.insert("array_shape".into(), json!(layout.shape));
        facts.insert("array_chunk".into(), json!(layout.block));
        let grid = &self.grid;
        facts.insert("shape".into(), json!(grid.axes(&grid.shape)));
        facts.insert("chunk".into(), json!(grid.axes(&self.chunk)));
        facts.insert("dtype".into(), self.dtype.name().into());
        let spacing = self.has_spacing.then(|| grid.axes(&grid.spacing));
        facts.insert("spacing".into(), json!(spacing));
        facts.insert("origin".into(), json!(grid.axes(&grid.origin)));
        facts.insert("unit".into(), "micrometer".into());
        facts.insert("spacing_from".into(), self.spacing_from.clone().into());
        if !self.array.notes.is_empty() {
            facts.insert("notes".into(), json!(self.array.notes));
        }
        if !facts.contains_key("stored_bytes") {
            facts.insert("stored_bytes".into(), json!(stored_bytes(&self.array.path)));
        }
        let levels = super::levels(&self.array.location).unwrap_or_default();
        let levels: Vec<Value> = levels
            .iter()
            .map(|level| {
                let super::Level { location, grid } = level;
                json!({"location": location, "shape": grid.axes(&grid.shape),
                       "spacing": grid.axes(&grid.spacing), "origin": grid.axes(&grid.origin)})
            })
            .collect();
        let mut names = self.array.names.clone();
        if let (true, Some(z)) = (self.grid.planar, names.iter().position(|name| name == "z")) {
            names.remove(z);
            for key in ["array_shape", "array_chunk"] {
                if let Some(list) = facts.get_mut(key).and_then(Value::as_array_mut) {
                    list.remove(z);
                }
            }
        }
        facts.insert("axes".into(), names.into());
        facts.insert("levels".into(), levels.into());
        facts.into()
    }

    /// Identifies the volume within the identity of a run: a fingerprint of its content, and the
    /// selection (axes, channel, time, grid). The location is not part of it.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read.
    pub fn identity(&self) -> Result<Value, Error> {
        let content = self.array.fingerprint()?;
        Ok(json!({
            "content": content,
            "axes": self.view.axes,
            "at": self.at(),
            "dtype": self.dtype.name(),
            "grid": self.grid,
        }))
    }

    /// The index along each dimension other than z, y, x, by the dimension's name.
    fn at(&self) -> Map<String, Value> {
        let dimensions = self.array.names.iter().zip(&self.view.fixed).enumerate();
        let others = dimensions.filter(|(d, _)| !self.view.axes.contains(&Some(*d)));
        others.map(|(_, (name, at))| (name.clone(), (*at).into())).collect()
    }
}

/// Selects the dimensions z, y and x, one channel and one time point.
fn view(location: &str, found: &Array, select: &Select) -> Result<View, Error> {
    let shape = &found.source.layout().shape;
    let at = |wanted: &str| found.names.iter().position(|name| name == wanted);
    let axes = [at("z"), at("y"), at("x")];
    if axes[1].is_none() || axes[2].is_none() {
        let message = format!("has the dimensions {}; y and x are needed", found.names.join(", "));
        return Err(Error::format(location, message));
    }
    if axes[0].is_none() {
        tracing::info!("{location}: is 2-D; it is taken as one plane of a volume");
    }
    let prefix = select.prefix;
    let mut fixed = vec![0; shape.len()];
    let mut has = [false; 2];
    for (d, name) in found.names.iter().enumerate() {
        if axes.contains(&Some(d)) {
            continue;
        }
        let (chosen, flag, what) = match name.as_str() {
            "c" | "channel" => (select.channel, "channel", "channels"),
            "t" | "time" => (select.time, "time", "time points"),
            _ if shape[d] == 1 => continue,
            _ => {
                let message = format!(
                    "has a dimension '{name}' of {}; only t, c, z, y and x are known",
                    shape[d]
                );
                return Err(Error::format(location, message));
            }
        };
        has[usize::from(flag == "time")] = true;
        let count = shape[d];
        fixed[d] = match chosen {
            Some(index) if (index as u64) < count => index as u64,
            None if count == 1 => 0,
            Some(index) => {
                let message = format!(
                    "has {count} {what}; --{prefix}{flag} {index} is none of them, the last is {}",
                    count - 1
                );
                return Err(Error::format(location, message));
            }
            None => {
                let message = format!(
                    "has {count} {what}; choose one with --{prefix}{flag} 0..{}",
                    count - 1
                );
                return Err(Error::format(location, message));
            }
        };
    }
    for (has, chosen, flag) in [(has[0], select.channel, "channel"), (has[1], select.time, "time")]
    {
        if let (false, Some(index @ 1..)) = (has, chosen) {
            let message = format!("has only one; --{prefix}{flag} {index} is not there");
            return Err(Error::format(location, message));
        }
    }
    Ok(View { axes, fixed })
}

/// The voxel size of a volume, and where it comes from.
struct Size {
    /// Spacing along z, y, x in micrometres, if known; for a planar image, the value along z is
    /// that along y.
    spacing: Option<Point>,
    /// Where the spacing comes from, or why it is unknown.
    source: String,
    /// Whether the volume is one plane of unknown thickness.
    planar: bool,
}

fn spacing(location: &str, found: &Array, view: &View, select: &Select) -> Result<Size, Error> {
    let stated = &found.calibration;
    let has_z = view.axes[0].is_some();
    let planes = view.shape(found.source.layout())[0];
    // NaN stands for an unknown spacing along z
    let of_file = match (stated.spacing, stated.pixel) {
        (Some([_, y, x]), _) if !has_z => Some([f64::NAN, y, x]),
        (Some(spacing), _) => Some(spacing),
        (None, Some([y, x])) => Some([f64::NAN, y, x]),
        (None, None) => None,
    };
    if let Some(spacing) = select.spacing {
        let other = of_file.map_or(String::new(), |other| {
            format!(", not {} um as {} says", lengths(other), stated.source)
        });
        let spacing = lengths(spacing);
        tracing::info!(
            "{location}: the voxel size is {spacing} um, as the command line says{other}"
        );
    }
    let (spacing, source) = match (select.spacing, of_file) {
        (Some(spacing), _) => (spacing, "--spacing".to_owned()),
        (None, Some(spacing)) => (spacing, stated.source.clone()),
        (None, None) => {
            let source = stated.source.clone();
            // a TIFF file with one page has no z axis
            let planar = !has_z || (planes == 1 && found.format == Format::Tiff);
            return Ok(Size { spacing: None, source, planar });
        }
    };
    let planar = spacing[0].is_nan() && planes == 1;
    if spacing[0].is_nan() && !planar {
        if select.spacing.is_none() {
            let who = if source.is_empty() { "the file" } else { &source };
            let source = format!("{who} does not say how far apart planes are");
            return Ok(Size { spacing: None, source, planar: false });
        }
        let message = format!("has {planes} planes; --spacing y,x is for one, give z,y,x");
        return Err(Error::format(location, message));
    }
    let spacing = if planar { [spacing[1], spacing[1], spacing[2]] } else { spacing };
    if let Some(bad) = spacing.iter().find(|v| !(v.is_finite() && **v > 0.0)) {
        let message = format!(
            "has a voxel size of {bad} um ({source}), which is not above 0; give --spacing"
        );
        return Err(Error::format(location, message));
    }
    Ok(Size { spacing: Some(spacing), source, planar })
}

/// The axes along which a grid covers another one by less than to its outermost voxels.
fn uncovered(grid: &Grid, of: &Grid) -> Vec<&'static str> {
    let ([low, high], [first, last]) = (grid.extent(&grid.bounds()), of.extent(&of.bounds()));
    let is_short = |a: usize| {
        // a coarser grid ends less than one of its voxels before the other
        let is_coarser = grid.spacing[a] > 1.001 * of.spacing[a];
        let margin = if is_coarser { 1.001 * grid.spacing[a] } else { 0.5 * of.spacing[a] };
        first[a] < low[a] - margin || last[a] > high[a] + margin
    };
    ["z", "y", "x"]
        .into_iter()
        .enumerate()
        .filter(|(a, _)| is_short(*a))
        .map(|(_, name)| name)
        .collect()
}

/// Formats lengths along z, y, x, or along y and x if that along z is NaN.
fn lengths(lengths: Point) -> String {
    let known = if lengths[0].is_nan() { &lengths[1..] } else { &lengths[..] };
    format!("{known:?}")
}

/// The total size in bytes of a file, or of all files below a folder except those in `.voxloom`;
/// `None` in a bucket or on a web server, where listing takes a request for each thousand chunks.
fn stored_bytes(path: &Path) -> Option<u64> {
    (!store::is_remote(path)).then(|| local_bytes(path))
}

fn local_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else {
        return fs::metadata(path).map_or(0, |meta| meta.len());
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name() != ".voxloom")
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => local_bytes(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
