use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::bounds::Bounds;
use super::n5;
use super::node::{self, Container, Node};
use super::output_paths::{self, OutputPaths};
use super::planes::{self, PlaneFile};
use super::unfinished::{self, Unfinished};
use super::writer::Writer;
use super::zarr::{self, ArraySpec};
use super::{
    Begin, Error, Existing, Format, Spec, Voxel, check_name, conventions, ome, open, path_of,
};
use crate::geom::{Box3, Grid};
use crate::store;

/// A volume open for writing. In Zarr and N5, each chunk (or shard) is written atomically; in TIFF
/// and `.npy`, each plane is written in place. A box to be written is a union of whole chunks,
/// shards or planes, clipped at the volume's end.
pub struct Output {
    location: String,
    writer: Writer,
    /// The folder for ledgers: `.voxloom` in the array's folder, or `<file>.voxloom` next to the
    /// file.
    folder: PathBuf,
    is_file: bool,
    /// Whether the first dimension holds channels.
    has_channels: bool,
    /// Whether there is no z dimension.
    planar: bool,
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Output({})", self.location)
    }
}

impl Output {
    /// Creates the volume at `location`. All checks precede the first change on disk.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Io`]; [`Error::Format`] for a `spec` that the format cannot
    /// represent, or an existing volume that cannot be resumed or replaced.
    ///
    /// ```
    /// use voxloom::geom::{Box3, Grid};
    /// use voxloom::volume::{Codec, Dtype, Existing, Format, Output, Select, Spec, Volume};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let location = folder.path().join("ramp.zarr").display().to_string();
    /// let grid = Grid::new([2, 4, 4], [0.5, 0.25, 0.25], [0.0; 3]);
    /// let spec = Spec {
    ///     grid,
    ///     dtype: Dtype::U16,
    ///     chunk: [2, 4, 4],
    ///     shard: None,
    ///     codec: Codec::Blosc,
    ///     format: Format::Zarr3,
    /// };
    /// let voxels: Vec<u16> = (0..32).collect();
    /// Output::create(&location, &spec, Existing::Refuse)?.write(&grid.bounds(), &voxels)?;
    ///
    /// let volume = Volume::open(&location, &Select::default())?;
    /// assert_eq!(volume.grid(), grid);
    /// assert_eq!(volume.read::<f32>(&Box3::new([1, 0, 0], [2, 1, 3]))?, [16.0, 17.0, 18.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(location: &str, spec: &Spec, existing: Existing) -> Result<Self, Error> {
        Self::create_any(location, spec, None, &existing, Map::new())
    }

    /// As [`Output::create`] or, if `channels` is above 1, [`Output::create_channels`], but `run`
    /// decides what happens to an existing output, and claims the output. A Zarr or N5 array is
    /// marked as unfinished until [`Unfinished::set_missing_blocks`] removes the mark.
    ///
    /// # Errors
    /// As [`Output::create`]; [`Error::Claimed`] if a different run has claimed the output.
    pub fn begin(
        location: &str,
        spec: &Spec,
        channels: usize,
        run: &impl Begin,
    ) -> Result<Self, Error> {
        let channels = (channels > 1).then_some([channels, 1]);
        let mark = [(unfinished::UNFINISHED_ATTRIBUTE.to_owned(), unfinished::begun())];
        Self::create_any(location, spec, channels, run, mark.into_iter().collect())
    }

    /// As [`Output::create`], for an image of `channels` channels of the same shape and type: an
    /// array `(c, z, y, x)` whose chunks hold one channel. The format must be OME-Zarr, because the
    /// other formats cannot name the channel dimension.
    ///
    /// # Errors
    /// As [`Output::create`].
    pub fn create_channels(
        location: &str,
        spec: &Spec,
        channels: usize,
        existing: Existing,
    ) -> Result<Self, Error> {
        Self::create_any(location, spec, Some([channels, 1]), &existing, Map::new())
    }

    /// As [`Output::create_channels`], but each chunk holds `together` channels, which one call of
    /// [`Output::write_channels`] writes. A shard holds the same channels as its chunks.
    ///
    /// # Errors
    /// As [`Output::create`].
    pub fn create_channels_together(
        location: &str,
        spec: &Spec,
        channels: usize,
        together: usize,
        existing: Existing,
    ) -> Result<Self, Error> {
        let together = together.clamp(1, channels.max(1));
        Self::create_any(location, spec, Some([channels, together]), &existing, Map::new())
    }

    fn create_any(
        location: &str,
        spec: &Spec,
        channels: Option<[usize; 2]>,
        run: &impl Begin,
        attributes: Map<String, Value>,
    ) -> Result<Self, Error> {
        if channels.is_some() && !matches!(spec.format, Format::Zarr3 | Format::Zarr2) {
            let message = "cannot hold several channels: OME-Zarr alone can; give a name that ends in \
                           .zarr, or one channel at a time";
            return Err(Error::format(location, message));
        }
        check_name(location, spec.format)?;
        check(location, spec)?;
        let path = path_of(location)?;
        let Some(container) = output_paths::container(spec.format) else {
            if store::is_remote(&path) {
                let message = "cannot be written to a bucket, where only Zarr and N5 can be; give a \
                               name that ends in .zarr, or a local path";
                return Err(Error::format(location, message));
            }
            let file = PlaneFile::create(location, &path, spec, run)?;
            let folder = file.folder().to_owned();
            let writer = Writer::planes(location, spec.grid.shape, spec.dtype, file);
            return Ok(Self {
                location: location.to_owned(),
                writer,
                folder,
                is_file: true,
                has_channels: false,
                planar: false,
            });
        };
        let place = OutputPaths::of_image(location, &path, container)?;
        let metadata = match container {
            Container::N5 => n5::attributes(spec, place.factors(&spec.grid)?),
            _ => zarr::metadata(&array_spec(spec, channels, container)),
        };
        let (existing, there) = place.check_for(location, run)?;
        if there {
            resume(location, &place, &metadata, Some(&spec.grid))?;
        }
        if existing == Existing::Overwrite {
            if place.image.is_none() {
                place.register(location, &spec.grid, channels.is_some(), true)?;
            }
            place.remove(run)?;
        } else {
            place.register(location, &spec.grid, channels.is_some(), true)?;
        }
        run.claim(&place.ledger_folder())?;
        if !there {
            place.make_groups()?;
            write_metadata(&place.array, container, metadata, attributes)?;
        }
        place.register(location, &spec.grid, channels.is_some(), false)?;
        place.sweep();
        Self::open_array(location, &place.array, channels.is_some())
    }

    /// Opens an existing volume for writing data or attributes. If the location names an image, its
    /// finest level is opened. Only Zarr and N5 can be opened this way.
    ///
    /// # Errors
    /// [`Error`] if nothing exists at the location, or it is not a Zarr or N5 array of rank 2 or 3.
    pub fn open_existing(location: &str) -> Result<Self, Error> {
        let found = open::find(location)?;
        Self::open_array(location, &found.path, false)
    }

    fn open_array(location: &str, array: &Path, has_channels: bool) -> Result<Self, Error> {
        let Some(node) = Node::read(array)?.filter(|node| node.is_array) else {
            let message = "is no Zarr or N5 array, which alone can be changed in place";
            return Err(Error::format(location, message));
        };
        let writer = Writer::open(location, &node)?;
        let rank = writer.shape().len();
        let planar = rank == 2 + usize::from(has_channels);
        if !planar && rank != 3 + usize::from(has_channels) {
            let message = format!("has {rank} dimensions; only z, y, x can be written");
            return Err(Error::format(location, message));
        }
        let (location, folder) = (location.to_owned(), array.join(".voxloom"));
        Ok(Self { location, writer, folder, is_file: false, has_channels, planar })
    }

    /// The location as given.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Whether the volume is a single file, TIFF or `.npy`.
    pub fn is_file(&self) -> bool {
        self.is_file
    }

    /// The shape (z, y, x) of the unit of writing: a chunk, a shard, or a plane of a single file.
    pub fn unit(&self) -> [usize; 3] {
        let space = &self.writer.unit()[usize::from(self.has_channels)..];
        if self.planar { [1, space[0], space[1]] } else { [space[0], space[1], space[2]] }
    }

    /// The bounds of a box in the given channels, with one entry for each dimension of the array.
    fn bounds(&self, channels: Range<usize>, part: &Box3) -> Bounds {
        let space = usize::from(self.planar)..3;
        let wide = |channel: usize, sizes: [i64; 3]| -> Vec<i64> {
            let first = self.has_channels.then_some(channel as i64);
            first.into_iter().chain(sizes[space.clone()].iter().copied()).collect()
        };
        Bounds { min: wide(channels.start, part.min), max: wide(channels.end, part.max) }
    }

    /// Writes the box `part`, which must consist of whole units; `voxels` are in C order
    /// `(z, y, x)`. `T` must be the volume's element type or, for `bool` and 16-bit floats, the
    /// wider type that [`Dtype::read_as`](super::Dtype::read_as) gives; its values are rounded to
    /// the element type.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a box that is not a union of whole units, or if `T` is
    /// another type.
    pub fn write<T: Voxel>(&self, part: &Box3, voxels: &[T]) -> Result<(), Error> {
        self.write_channel(0, part, voxels)
    }

    /// As [`Output::write`], for one of several channels.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write_channel<T: Voxel>(
        &self,
        channel: usize,
        part: &Box3,
        voxels: &[T],
    ) -> Result<(), Error> {
        self.write_channels(channel..channel + 1, part, voxels)
    }

    /// As [`Output::write`], for several channels; `voxels` are in C order `(c, z, y, x)`. The
    /// range `channels` must contain all channels of one or more chunks, and no others.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn write_channels<T: Voxel>(
        &self,
        channels: Range<usize>,
        part: &Box3,
        voxels: &[T],
    ) -> Result<(), Error> {
        if self.planar && (part.min[0], part.max[0]) != (0, 1) {
            let message = format!("cannot take the box {part}: it is a plane");
            return Err(Error::format(&self.location, message));
        }
        self.writer.write(&self.bounds(channels, part), voxels)
    }

    /// The folder for ledgers, inside the array's folder or next to a single file.
    pub fn ledger_folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// Sets a JSON attribute of the array; an existing attribute of that name is replaced.
    /// Attributes of a single file are kept in `attributes.json` next to its ledger.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_attribute(&self, name: &str, value: Value) -> Result<(), Error> {
        self.update(|attributes| {
            attributes.insert(name.to_owned(), value);
        })
    }

    fn update(&self, change: impl FnOnce(&mut Map<String, Value>)) -> Result<(), Error> {
        if self.is_file {
            let path = self.folder.join(planes::ATTRIBUTES);
            let before = node::read_object(&path)?.unwrap_or_default();
            let mut attributes = before.clone();
            change(&mut attributes);
            let is_new = attributes != before;
            return if is_new { node::write_object(&path, attributes) } else { Ok(()) };
        }
        Node::update(self.folder.parent().unwrap_or(&self.folder), change)
    }
}

impl Unfinished for Output {
    fn ledger_folder(&self) -> PathBuf {
        Self::ledger_folder(self)
    }

    fn stored(&self, part: &Box3) -> Result<u64, Error> {
        let channels = if self.has_channels { self.writer.shape()[0] } else { 1 };
        self.writer.stored(&self.bounds(0..channels, part))
    }

    fn files(&self, part: &Box3) -> Vec<PathBuf> {
        let channels = if self.has_channels { self.writer.shape()[0] } else { 1 };
        self.writer.files(&self.bounds(0..channels, part))
    }

    fn set_missing_blocks(&self, lacking: Option<[usize; 2]>, accepted: bool) -> Result<(), Error> {
        self.update(|attributes| unfinished::set(attributes, lacking))?;
        if lacking.is_some() && accepted { self.writer.name() } else { Ok(()) }
    }
}

/// Writes the metadata and attributes of a Zarr or N5 array. The file that makes the folder an
/// array is written last, so that a crash leaves no array with incomplete metadata.
pub(super) fn write_metadata(
    array: &Path,
    container: Container,
    mut metadata: Map<String, Value>,
    attributes: Map<String, Value>,
) -> Result<(), Error> {
    let file = match container {
        Container::Zarr3 => {
            metadata.insert("attributes".into(), attributes.into());
            "zarr.json"
        }
        Container::Zarr2 => {
            // the file that makes the folder an array is written last
            if !attributes.is_empty() {
                node::create_object(&array.join(".zattrs"), attributes)?;
            }
            ".zarray"
        }
        Container::N5 => {
            metadata.extend(attributes);
            "attributes.json"
        }
    };
    node::create_object(&array.join(file), metadata)
}

/// Checks that the format of a spec can represent its grid, element type, chunks and shards.
fn check(location: &str, spec: &Spec) -> Result<(), Error> {
    let bad = |message: String| Err(Error::format(location, message));
    let grid = &spec.grid;
    if grid.shape.contains(&0) {
        return bad(format!("cannot be created with the empty shape {:?}", grid.shape));
    }
    if grid.spacing.iter().any(|v| !(v.is_finite() && *v > 0.0)) {
        return bad(format!("cannot be created with the voxel size {:?}", grid.spacing));
    }
    if grid.origin.iter().any(|v| !v.is_finite()) {
        return bad(format!("cannot be created with the origin {:?}", grid.origin));
    }
    if !spec.dtype.fits(spec.format) {
        return bad(format!(
            "cannot hold {}, which files of this format do not have; give a name that ends in .zarr, or \
             another --dtype",
            spec.dtype
        ));
    }
    if output_paths::container(spec.format).is_none() {
        return Ok(());
    }
    if grid.planar && (grid.shape[0] != 1 || spec.shard.is_some_and(|shard| shard[0] != 1)) {
        return bad("cannot be created: a plane without z has one voxel along it".into());
    }
    if spec.chunk.contains(&0) || spec.chunk.iter().any(|n| *n > 1 << 20) {
        return bad(format!("cannot be created with chunks of {:?}", spec.chunk));
    }
    let bytes = spec.shard.unwrap_or(spec.chunk).iter().product::<usize>() * spec.dtype.size();
    if bytes > i32::MAX as usize && spec.codec != super::Codec::Raw && spec.shard.is_none() {
        return bad(format!("has chunks of {bytes} bytes; compressed ones reach up to 2 GiB"));
    }
    if let Some(shard) = spec.shard {
        if spec.format != Format::Zarr3 {
            return bad("cannot have shards: only Zarr version 3 has them".into());
        }
        if shard.contains(&0) || (0..3).any(|a| !shard[a].is_multiple_of(spec.chunk[a])) {
            let chunk = spec.chunk;
            return bad(format!(
                "has shards of {shard:?}, which are no multiples of the chunk {chunk:?}; give another \
                 --shard or --chunk"
            ));
        }
    }
    Ok(())
}

/// The Zarr array in which a volume with this spec is stored.
///
/// * `channels`: the number of channels, and the number of channels in each chunk; `None` for an
///   array without a channel dimension
fn array_spec(spec: &Spec, channels: Option<[usize; 2]>, container: Container) -> ArraySpec {
    let wide = |channels: Option<usize>, sizes: [usize; 3]| -> Vec<u64> {
        channels.iter().chain(spec.grid.axes(&sizes)).map(|n| *n as u64).collect()
    };
    let together = channels.map(|[_, together]| together);
    ArraySpec {
        container,
        shape: wide(channels.map(|[count, _]| count), spec.grid.shape),
        chunk: wide(together, spec.chunk),
        shard: spec.shard.map(|shard| wide(together, shard)),
        dtype: spec.dtype,
        codec: spec.codec,
        fill: zarr::zero(spec.dtype),
        names: ome::names_of(&spec.grid, channels.is_some())
            .into_iter()
            .map(str::to_owned)
            .collect(),
    }
}

/// Checks that the metadata of an existing array have the values in `wanted` and, with `grid`, that
/// its voxel size and origin are those of `grid`. If there is no array, nothing is checked.
pub(super) fn resume(
    location: &str,
    place: &OutputPaths,
    wanted: &Map<String, Value>,
    grid: Option<&Grid>,
) -> Result<(), Error> {
    let bad = |message: String| {
        let end = "give --overwrite to replace it, or another name";
        Error::format(location, format!("cannot be resumed: {message}; {end}"))
    };
    let Some(node) = Node::read(&place.array)? else { return Ok(()) };
    // the calibration of an N5 array is compared below, with a tolerance
    let by_value = ["pixelResolution", "downsamplingFactors", "transform"];
    for (key, wanted) in wanted.iter().filter(|(key, _)| !by_value.contains(&key.as_str())) {
        let found = node.metadata.get(key).unwrap_or(&Value::Null);
        if found != wanted {
            return Err(bad(format!("its {key} is {found}, wanted is {wanted}")));
        }
    }
    let Some(grid) = grid else { return Ok(()) };
    let known = match open::image_of(location, &node)? {
        Some((_, image, level)) => image.calibration(level),
        None => conventions::of(&node)?.calibration,
    };
    let spacing = known.spacing.or(known.pixel.map(|[y, x]| [y, y, x]));
    for (name, found, wanted) in
        [("voxel size", spacing, grid.spacing), ("origin", known.origin, grid.origin)]
    {
        let Some(found) = found else { continue };
        let scale = grid.spacing.iter().copied().fold(f64::MAX, f64::min);
        if (usize::from(grid.planar)..3)
            .any(|a| (found[a] - wanted[a]).abs() > 1e-6 * scale.max(wanted[a].abs()))
        {
            return Err(bad(format!("its {name} is {found:?}, wanted is {wanted:?}")));
        }
    }
    Ok(())
}
