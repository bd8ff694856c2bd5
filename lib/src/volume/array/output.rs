//! Writing of arrays of rank 1 to 6, as Zarr or N5.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::geom::{Grid, Point};
use crate::volume::array::{Axis, AxisName, FIRST};
use crate::volume::bounds::{Bounds, RANK};
use crate::volume::node::{Container, Node};
use crate::volume::output_paths::{self, OutputPaths};
use crate::volume::unfinished;
use crate::volume::writer::Writer;
use crate::volume::{
    Begin, Codec, Dtype, Error, Format, Voxel, check_name, n5, output, path_of, zarr,
};

/// The properties of an array to be written.
#[derive(Clone, Debug)]
pub struct ArraySpec {
    /// The axes, slowest first.
    pub axes: Vec<Axis>,
    /// Element type.
    pub dtype: Dtype,
    /// Elements of a chunk along each axis; with shards, of an inner chunk.
    pub chunk: Vec<usize>,
    /// Elements of a shard along each axis, multiples of `chunk` (Zarr v3 only).
    pub shard: Option<Vec<usize>>,
    /// How chunks are compressed.
    pub codec: Codec,
    /// Zarr v3, Zarr v2 or N5.
    pub format: Format,
    /// The value of chunks that are not written; it must be 0 in N5.
    pub fill: f64,
    /// The distance between neighbouring elements along z, y, x in micrometres. It determines the
    /// origin too: an element with the index i lies at i times the spacing. `None` if neither
    /// spacing nor origin is to be stored.
    pub spacing: Option<Point>,
}

/// An array open for writing. Chunks are written as a whole, each atomically.
pub struct ArrayOutput {
    location: String,
    array: PathBuf,
    writer: Writer,
    first: Vec<i64>,
}

impl std::fmt::Debug for ArrayOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ArrayOutput({})", self.location)
    }
}

/// The fill value of an array as JSON, in Zarr's spelling for its element type.
fn fill(spec: &ArraySpec) -> Value {
    match spec.fill {
        fill if spec.dtype == Dtype::Bool => json!(fill != 0.0),
        fill if spec.dtype.is_integer() => json!(fill as i64),
        fill if fill.is_nan() => "NaN".into(),
        fill if fill.is_infinite() => if fill > 0.0 { "Infinity" } else { "-Infinity" }.into(),
        fill => json!(fill),
    }
}

impl ArraySpec {
    /// Checks that an array with these properties can be written.
    fn check(&self, location: &str) -> Result<(), Error> {
        let bad = |message: String| Err(Error::format(location, message));
        let (rank, shape) = (self.axes.len(), self.shape());
        if !(1..=RANK).contains(&rank) || shape.contains(&0) {
            return bad(format!(
                "cannot be created with the shape {shape:?}; an array has 1 to {RANK} axes"
            ));
        }
        if self.chunk.len() != rank || self.chunk.contains(&0) {
            return bad(format!("cannot be created with chunks of {:?}", self.chunk));
        }
        if let Some(shard) = &self.shard {
            let fits = shard.len() == rank
                && shard.iter().zip(&self.chunk).all(|(s, c)| *s > 0 && s.is_multiple_of(*c));
            if !fits || self.format != Format::Zarr3 {
                let chunk = &self.chunk;
                return bad(format!(
                    "cannot be created with shards of {shard:?} and chunks of {chunk:?}; shards are multiples of \
                     chunks, and in Zarr version 3 alone"
                ));
            }
        }
        if !self.dtype.holds(self.fill) || !self.dtype.fits(self.format) {
            let (dtype, fill) = (self.dtype, self.fill);
            return bad(format!(
                "cannot be created with {dtype} and the fill value {fill} in this format"
            ));
        }
        if self.format == Format::N5 && self.fill != 0.0 {
            return bad(
                "cannot be created with a fill value other than 0, which N5 does not have".into()
            );
        }
        let names: Vec<String> = self.axes.iter().map(|axis| axis.name.to_string()).collect();
        if (1..rank).any(|i| names[..i].contains(&names[i])) {
            return bad(format!("cannot be created with the axes {}", names.join(", ")));
        }
        let valid = |spacing: &Point| spacing.iter().all(|v| v.is_finite() && *v > 0.0);
        if self.spacing.is_some_and(|spacing| !valid(&spacing)) {
            return bad(format!("cannot be created with the spacing {:?}", self.spacing));
        }
        Ok(())
    }

    fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|axis| axis.size).collect()
    }

    /// The metadata of the array.
    fn metadata(&self, container: Container) -> Map<String, Value> {
        let wide = |sizes: &[usize]| sizes.iter().map(|n| *n as u64).collect::<Vec<_>>();
        if container == Container::N5 {
            return n5::metadata(&wide(&self.shape()), &wide(&self.chunk), self.dtype, self.codec);
        }
        zarr::metadata(&zarr::ArraySpec {
            container,
            shape: wide(&self.shape()),
            chunk: wide(&self.chunk),
            shard: self.shard.as_deref().map(wide),
            dtype: self.dtype,
            codec: self.codec,
            fill: fill(self),
            names: self.axes.iter().map(|axis| axis.name.to_string()).collect(),
        })
    }

    /// The attributes that describe the axes: names, first indices, spacing and origin.
    fn attributes(&self) -> Map<String, Value> {
        let mut attributes = Map::new();
        let mut names: Vec<String> = self.axes.iter().map(|axis| axis.name.to_string()).collect();
        if self.format == Format::N5 {
            // N5 lists dimensions fastest first
            names.reverse();
        }
        attributes.insert("axes".into(), json!(names));
        if self.axes.iter().any(|axis| axis.first != 0) {
            attributes.insert(FIRST.into(), self.axes.iter().map(|axis| axis.first).collect());
        }
        if let Some(spacing) = self.spacing {
            let first = |name: AxisName| {
                self.axes
                    .iter()
                    .find(|axis| axis.name == name)
                    .map_or(0.0, |axis| axis.first as f64)
            };
            let first = [first(AxisName::Z), first(AxisName::Y), first(AxisName::X)];
            let origin: Point =
                std::array::from_fn(|a| if first[a] == 0.0 { 0.0 } else { first[a] * spacing[a] });
            attributes.insert("spacing".into(), json!(spacing));
            attributes.insert("origin".into(), json!(origin));
            attributes.insert("unit".into(), "micrometer".into());
        }
        attributes
    }
}

impl ArrayOutput {
    /// Creates the array at `location`. All checks precede the first change on disk.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::Io`]; [`Error::Format`] for a `spec` that the format cannot
    /// represent.
    ///
    /// ```
    /// use voxloom::volume::{Array, ArrayOutput, ArraySpec, Axis, AxisName, Bounds};
    /// use voxloom::volume::{Codec, Dtype, Existing, Format};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let location = folder.path().join("flow.zarr").display().to_string();
    /// // two planes of 3 x 4 vectors, with indices from z = -1
    /// let axes = [(AxisName::Z, 2), (AxisName::Y, 3), (AxisName::X, 4), (AxisName::Component, 2)];
    /// let mut axes = axes.map(|(name, size)| Axis::new(name, size)).to_vec();
    /// axes[0].first = -1;
    /// let spec = ArraySpec {
    ///     axes,
    ///     dtype: Dtype::F32,
    ///     chunk: vec![1, 3, 4, 2],
    ///     shard: None,
    ///     codec: Codec::Blosc,
    ///     format: Format::Zarr3,
    ///     fill: f64::NAN,
    ///     spacing: None,
    /// };
    /// let output = ArrayOutput::create(&location, &spec, &Existing::Refuse)?;
    /// let plane = Bounds::new(&[0, 0, 0, 0], &[1, 3, 4, 2]);
    /// output.write(&plane, &[0.5f32; 24])?;
    ///
    /// let array = Array::open(&location)?;
    /// assert_eq!(array.bounds(), Bounds::new(&[-1, 0, 0, 0], &[1, 3, 4, 2]));
    /// let column = Bounds::new(&[-1, 2, 3, 0], &[1, 3, 4, 1]);
    /// assert_eq!(format!("{:?}", array.read::<f32>(&column)?), "[NaN, 0.5]");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create(location: &str, spec: &ArraySpec, run: &impl Begin) -> Result<Self, Error> {
        Self::create_any(location, spec, run, Map::new())
    }

    /// As [`ArrayOutput::create`], but marks the array as unfinished until
    /// [`Unfinished::set_missing_blocks`](crate::volume::Unfinished::set_missing_blocks) removes
    /// the mark.
    ///
    /// # Errors
    /// As [`ArrayOutput::create`].
    pub fn begin(location: &str, spec: &ArraySpec, run: &impl Begin) -> Result<Self, Error> {
        let mark = [(unfinished::UNFINISHED_ATTRIBUTE.to_owned(), unfinished::begun())];
        Self::create_any(location, spec, run, mark.into_iter().collect())
    }

    fn create_any(
        location: &str,
        spec: &ArraySpec,
        run: &impl Begin,
        more: Map<String, Value>,
    ) -> Result<Self, Error> {
        let mut attributes = spec.attributes();
        attributes.extend(more);
        Self::create_as(location, spec, None, run, attributes)
    }

    /// As [`ArrayOutput::create`], with these attributes. If an array is resumed and `grid` is
    /// given, the array must have the voxel size and origin of `grid`.
    pub(in crate::volume) fn create_as(
        location: &str,
        spec: &ArraySpec,
        grid: Option<&Grid>,
        run: &impl Begin,
        attributes: Map<String, Value>,
    ) -> Result<Self, Error> {
        spec.check(location)?;
        check_name(location, spec.format)?;
        let Some(container) = output_paths::container(spec.format) else {
            let message =
                "cannot be one file; an array is Zarr or N5: give a name that ends in .zarr";
            return Err(Error::format(location, message));
        };
        let path = path_of(location)?;
        let place = OutputPaths::of_array(location, &path, container)?;
        let metadata = spec.metadata(container);
        let (existing, there) = place.check_for(location, run)?;
        if there {
            output::resume(location, &place, &metadata, grid)?;
        }
        if existing == crate::volume::Existing::Overwrite {
            place.remove(run)?;
        }
        run.claim(&place.ledger_folder())?;
        if !there {
            place.make_groups()?;
            output::write_metadata(&path, container, metadata, attributes)?;
        }
        place.sweep();
        let Some(node) = Node::read(&path)? else {
            return Err(Error::missing(location, "it was created a moment ago"));
        };
        Ok(Self {
            location: location.to_owned(),
            writer: Writer::open(location, &node)?,
            array: path,
            first: spec.axes.iter().map(|axis| axis.first).collect(),
        })
    }

    /// The shape of the unit of writing along the axes: a chunk, or a shard.
    pub fn unit(&self) -> &[usize] {
        self.writer.unit()
    }

    /// Writes the box `part`, which must consist of whole units. The `elements` are in C order of
    /// the axes, and are rounded to the element type. `T` must be the element type, or the wider
    /// type that [`Dtype::read_as`] gives for it.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a box that is not a union of whole units, or if `T` is
    /// another type.
    pub fn write<T: Voxel>(&self, part: &Bounds, elements: &[T]) -> Result<(), Error> {
        if part.rank() != self.first.len() {
            let message = format!("has {} axes, cannot take the box {part}", self.first.len());
            return Err(Error::format(&self.location, message));
        }
        let back: Vec<i64> = self.first.iter().map(|v| -v).collect();
        self.writer.write(&part.shift(&back), elements)
    }

    /// The number of existing files for the chunks of a box.
    pub(in crate::volume) fn stored(&self, part: &Bounds) -> Result<u64, Error> {
        self.writer.stored(part)
    }

    /// The files for the chunks of a box, which need not exist.
    pub(in crate::volume) fn files(&self, part: &Bounds) -> Vec<PathBuf> {
        self.writer.files(part)
    }

    /// The folder of the array.
    pub(in crate::volume) fn path(&self) -> &Path {
        &self.array
    }

    /// The folder for ledgers, inside the folder of the array.
    pub fn ledger_folder(&self) -> PathBuf {
        self.array.join(".voxloom")
    }

    /// Sets a JSON attribute of the array; an existing attribute of that name is replaced.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_attribute(&self, name: &str, value: Value) -> Result<(), Error> {
        Node::update(&self.array, |attributes| {
            attributes.insert(name.to_owned(), value);
        })
    }

    /// Records `lacking`, the number of missing blocks and the total number of blocks, in the
    /// attributes; `None` marks the array as complete.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_missing_blocks(&self, lacking: Option<[usize; 2]>) -> Result<(), Error> {
        Node::update(&self.array, |attributes| unfinished::set(attributes, lacking))
    }
}
