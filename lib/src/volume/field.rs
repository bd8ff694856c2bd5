//! Displacement fields on disk: Zarr arrays `(z, y, x, component)` of `float32`, in micrometres.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::array::{Array, Axis, AxisName};
use super::array::{ArrayOutput, ArraySpec};
use super::bounds::{Bounds, BoxN};
use super::node::{Container, Node};
use super::source::{self, View};
use super::unfinished::{self, Begin, Unfinished};
use super::{Codec, Dtype, Error, Existing, Format, check_zarr_name, conventions, ome, path_of};
use crate::fingerprint::Fingerprint;
use crate::geom::{Box3, FieldSource, Grid, Point, SourceError};
use crate::store;

/// The value of the attribute `direction` of fields that map the fixed to the moving space.
const DIRECTION: &str = "fixed-to-moving";
/// The value of `direction` of inverse fields, which map the moving to the fixed space.
const BACKWARD: &str = "moving-to-fixed";

/// The attribute of fields between volumes that were seen through a chain: the identity of the chain.
pub const THROUGH: &str = "through";

/// The expected format of a field, for error messages.
const WANTED: &str = "a displacement field is wanted, a Zarr array (z, y, x, 3) of float32";

/// The elements that an array of vectors holds at each position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldParts {
    /// The number of components of a vector: 3 (z, y, x), or 2 (y, x) in a field of planes, whose
    /// vectors have no component along z.
    pub components: usize,
    /// The names of the quality channels, which are stored after the components.
    pub quality: Vec<String>,
}

impl Default for FieldParts {
    fn default() -> Self {
        Self { components: 3, quality: Vec::new() }
    }
}

impl FieldParts {
    /// The number of elements at each position.
    fn len(&self) -> usize {
        self.components + self.quality.len()
    }

    /// The axes of the components.
    fn axes(&self) -> &'static [&'static str] {
        if self.components == 2 { &["y", "x"] } else { &["z", "y", "x"] }
    }
}

/// A displacement field on disk, read box by box. Missing chunks have the fill value, NaN (unknown)
/// in the fields that [`FieldOutput`] writes. The displacement outside the grid
/// ([`exterior`](FieldSource::exterior)) is NaN for an inverse field (from the moving space to the
/// fixed space), and 0 for all other fields.
pub struct FieldFile {
    array: Array,
    parts: FieldParts,
    grid: Grid,
    reach: Option<Point>,
    /// What the attribute `through` says.
    through: Option<String>,
    exterior: f64,
}

impl std::fmt::Debug for FieldFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FieldFile({:?})", self.grid)
    }
}

impl FieldFile {
    /// Opens the field at `location`, which maps points of the fixed space to the moving space.
    ///
    /// # Errors
    /// [`Error`] if nothing exists at `location`, or it is not a field, is unfinished, or has
    /// another direction.
    pub fn open(location: &str) -> Result<Self, Error> {
        Self::open_in(location, DIRECTION)
    }

    /// Opens the field at `location`, which maps points of the moving space to the fixed space.
    ///
    /// # Errors
    /// As [`FieldFile::open`].
    pub fn open_inverse(location: &str) -> Result<Self, Error> {
        Self::open_in(location, BACKWARD)
    }

    fn open_in(location: &str, wanted: &str) -> Result<Self, Error> {
        let path = path_of(location)?;
        let bad = |message: String| Err(Error::format(location, message));
        let Some(node) = Node::read(&path)? else {
            if store::exists(&path) {
                return bad(format!("holds no Zarr array; {WANTED}"));
            }
            return Err(Error::missing(location, "a Zarr array of displacements is wanted"));
        };
        if !node.is_array || node.container == Container::N5 {
            let what = match &node {
                Node { container: Container::N5, .. } => "is N5 and no Zarr array",
                _ if ome::is_image(&node.attributes) => "is an image and no field",
                _ => "is a Zarr group and no array",
            };
            return bad(format!("{what}; {WANTED}"));
        }
        unfinished::check(location, &node.attributes)?;
        let known = conventions::of(&node)?.calibration;
        let direction = node.attributes.get("direction").and_then(Value::as_str);
        let reach = node.attributes.get("reach").cloned();
        let through = node.attributes.get(THROUGH).and_then(Value::as_str).map(str::to_owned);
        let planar = node.attributes.get("planar") == Some(&Value::Bool(true));
        let found = direction.map(str::to_owned);
        let parts = parts_of(&node.attributes);
        let array = Array::of_node(location, node, known.clone())?;
        let layout = array.source.layout();
        let size = parts.as_ref().map_or(3, FieldParts::len) as u64;
        let [depth, height, width, found_size] = layout.shape[..] else {
            return bad(format!("has the shape {:?}; {WANTED}", layout.shape));
        };
        if found_size != size {
            return bad(format!("has the shape {:?}; {WANTED}", layout.shape));
        }
        if layout.block[3] != size {
            return bad(format!("has chunks of {:?}, which cut vectors", layout.block));
        }
        if layout.dtype.is_integer() {
            return bad(format!("holds {}; a field has float32", layout.dtype));
        }
        if found.as_deref() != Some(wanted) {
            let found = found.map_or("no direction".to_owned(), |d| format!("the direction '{d}'"));
            return bad(format!("has {found} in its attributes; '{wanted}' is wanted"));
        }
        let parts = match parts {
            Ok(parts) => parts,
            Err(message) => return bad(message),
        };
        let Some(spacing) = known.spacing.filter(|s| s.iter().all(|v| v.is_finite() && *v > 0.0))
        else {
            return bad("has no attribute 'spacing' with three lengths above 0".into());
        };
        let Some(origin) = known.origin.filter(|o| o.iter().all(|v| v.is_finite())) else {
            return bad("has no attribute 'origin' with three lengths, its first node".into());
        };
        let shape = [depth as usize, height as usize, width as usize];
        let planar = planar && depth == 1;
        let grid = Grid { planar, ..Grid::new(shape, spacing, origin) };
        let reach = reach.and_then(|reach| serde_json::from_value(reach).ok());
        let exterior = if wanted == BACKWARD { f64::NAN } else { 0.0 };
        Ok(Self { array, parts, grid, reach, through, exterior })
    }

    /// The components and quality channels.
    pub fn parts(&self) -> &FieldParts {
        &self.parts
    }

    /// The identity of the chain through which the volumes were seen between which this field lies;
    /// `None` if they were seen as they are.
    pub fn through(&self) -> Option<&str> {
        self.through.as_deref()
    }

    /// Reads one quality channel of a box, C order `(z, y, x)`; 0 outside the field.
    ///
    /// # Errors
    /// [`Error::Format`] for a channel that the field does not have; [`Error::Chunk`] for a corrupt
    /// chunk, [`Error::Io`].
    pub fn read_quality(&self, channel: usize, part: &Box3) -> Result<Vec<f32>, Error> {
        let count = self.parts.quality.len();
        if channel >= count {
            let message = format!("has {count} quality channels; channel {channel} is not there");
            return Err(Error::format(self.array.location(), message));
        }
        let at = self.parts.components + channel;
        let mut values = vec![0.0; part.len()];
        self.read_elements(part, at..at + 1, &mut values)?;
        Ok(values)
    }

    /// Reads the elements in the range `at` (components, then quality channels) at each position of
    /// a box, in C order `(z, y, x, element)`; 0 outside the field.
    fn read_elements(&self, part: &Box3, at: Range<usize>, out: &mut [f32]) -> Result<(), Error> {
        let view = View { axes: std::array::from_fn(Some), fixed: vec![0; 4] };
        let wide = |[z, y, x]: [i64; 3], at: usize| [z, y, x, at as i64];
        let part = BoxN { min: wide(part.min, at.start), max: wide(part.max, at.end) };
        source::read(&*self.array.source, &self.array.cache, &view, part, out)
    }

    /// The chunk shape in vectors (z, y, x), the unit in which reading is most efficient.
    pub fn chunk(&self) -> [usize; 3] {
        let block = &self.array.source.layout().block;
        [0, 1, 2].map(|a| block[a] as usize)
    }
}

impl FieldSource for FieldFile {
    fn grid(&self) -> Grid {
        self.grid
    }

    fn read(&self, part: &Box3) -> Result<Vec<[f32; 3]>, SourceError> {
        let mut vectors = vec![[0.0f32; 3]; part.len()];
        self.read_into(part, &mut vectors)?;
        Ok(vectors)
    }

    fn read_into(&self, part: &Box3, out: &mut [[f32; 3]]) -> Result<(), SourceError> {
        if self.parts.components == 3 {
            self.read_elements(part, 0..3, out.as_flattened_mut())?;
            return Ok(());
        }
        let mut pairs = vec![[0.0f32; 2]; out.len()];
        self.read_elements(part, 0..2, pairs.as_flattened_mut())?;
        for (vector, [y, x]) in out.iter_mut().zip(pairs) {
            // a field with two components has no displacement along z
            *vector = [if y.is_nan() || x.is_nan() { f32::NAN } else { 0.0 }, y, x];
        }
        Ok(())
    }

    fn exterior(&self) -> f64 {
        self.exterior
    }

    fn reach(&self) -> Option<Point> {
        self.reach
    }

    fn keep(&self, bytes: u64) {
        self.array.keep(bytes);
    }

    fn kept_bytes(&self) -> u64 {
        self.array.kept_bytes()
    }

    fn scratch_bytes(&self) -> u64 {
        self.array.scratch_bytes()
    }

    fn fingerprint(&self) -> Result<String, SourceError> {
        let mut fingerprint = Fingerprint::default();
        self.grid.add_to(&mut fingerprint);
        fingerprint.add(self.array.source.stored().fingerprint()?.as_bytes());
        if self.exterior.is_nan() {
            fingerprint.add(b"unknown outside");
        }
        Ok(fingerprint.hex())
    }
}

/// Reads the components and quality channels from the attributes of a field. The attributes must
/// state the order of axes and components and the unit micrometre: no defaults are assumed.
fn parts_of(attributes: &Map<String, Value>) -> Result<FieldParts, String> {
    for (name, wanted) in [
        ("unit", vec![json!("micrometer")]),
        ("axes", vec![json!(["z", "y", "x", "component"])]),
        ("components", vec![json!(["z", "y", "x"]), json!(["y", "x"])]),
    ] {
        match attributes.get(name) {
            Some(found) if wanted.contains(found) => {}
            Some(found) => {
                return Err(format!(
                    "has '{name}' {found} in its attributes, wanted {}; write it anew in those",
                    wanted[0]
                ));
            }
            None => {
                return Err(format!(
                    "has no '{name}' in its attributes; add it, {}, if that is how its lengths \
                     and axes are",
                    wanted[0]
                ));
            }
        }
    }
    let components = attributes["components"].as_array().map_or(3, Vec::len);
    let quality = match attributes.get("quality") {
        None => Vec::new(),
        Some(names) => serde_json::from_value(names.clone()).map_err(|_| {
            format!("has 'quality' {names} in its attributes, wanted a list of names")
        })?,
    };
    Ok(FieldParts { components, quality })
}

/// A displacement field open for writing. As with [`super::Output`], each box to be written is a
/// union of whole chunks.
pub struct FieldOutput {
    array: ArrayOutput,
    parts: FieldParts,
}

impl std::fmt::Debug for FieldOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FieldOutput({})", self.array.path().display())
    }
}

impl FieldOutput {
    /// Creates the field at `location`; `chunk` is the chunk shape in vectors along z, y, x.
    ///
    /// # Errors
    /// As [`super::Output::create`].
    pub fn create(
        location: &str,
        grid: &Grid,
        chunk: [usize; 3],
        existing: Existing,
    ) -> Result<Self, Error> {
        let parts = FieldParts::default();
        Self::create_any(location, grid, parts, chunk, &existing, Map::new())
    }

    /// As [`FieldOutput::begin`], which marks the field as unfinished, but with the components and
    /// quality channels in `parts`.
    ///
    /// # Errors
    /// As [`super::Output::create`].
    pub fn create_parts(
        location: &str,
        grid: &Grid,
        parts: FieldParts,
        chunk: [usize; 3],
        run: &impl Begin,
    ) -> Result<Self, Error> {
        let mark = [(unfinished::UNFINISHED_ATTRIBUTE.to_owned(), unfinished::begun())];
        Self::create_any(location, grid, parts, chunk, run, mark.into_iter().collect())
    }

    /// As [`FieldOutput::create`], but marks the field as unfinished until
    /// [`Unfinished::set_missing_blocks`] removes the mark. `run` is the run that claims the field,
    /// or an [`Existing`].
    ///
    /// # Errors
    /// As [`super::Output::create`].
    pub fn begin(
        location: &str,
        grid: &Grid,
        chunk: [usize; 3],
        run: &impl Begin,
    ) -> Result<Self, Error> {
        let mark = [(unfinished::UNFINISHED_ATTRIBUTE.to_owned(), unfinished::begun())];
        let parts = FieldParts::default();
        Self::create_any(location, grid, parts, chunk, run, mark.into_iter().collect())
    }

    fn create_any(
        location: &str,
        grid: &Grid,
        parts: FieldParts,
        chunk: [usize; 3],
        run: &impl Begin,
        mark: Map<String, Value>,
    ) -> Result<Self, Error> {
        let valid = grid.spacing.iter().all(|v| v.is_finite() && *v > 0.0);
        if grid.shape.contains(&0) || chunk.contains(&0) || !valid {
            let message = format!("cannot be created with {grid:?} and chunks of {chunk:?}");
            return Err(Error::format(location, message));
        }
        if !(2..=3).contains(&parts.components) {
            let message = format!("cannot be created with vectors of {}", parts.components);
            return Err(Error::format(location, message));
        }
        check_zarr_name(location)?;
        let names = [AxisName::Z, AxisName::Y, AxisName::X, AxisName::Component];
        let sizes = grid.shape.into_iter().chain([parts.len()]);
        let spec = ArraySpec {
            axes: names.into_iter().zip(sizes).map(|(name, size)| Axis::new(name, size)).collect(),
            dtype: Dtype::F32,
            chunk: chunk.into_iter().chain([parts.len()]).collect(),
            shard: None,
            codec: Codec::Blosc,
            format: Format::Zarr3,
            fill: f64::NAN,
            spacing: None,
        };
        let attributes = json!({
            "spacing": grid.spacing,
            "origin": grid.origin,
            "unit": "micrometer",
            "axes": ["z", "y", "x", "component"],
            "components": parts.axes(),
            "direction": DIRECTION,
        });
        // these replace the attributes that `ArraySpec` would write
        let mut attributes = attributes.as_object().cloned().unwrap_or_default();
        if grid.planar {
            // the spacing along z of a planar field has no meaning
            attributes.insert("planar".to_owned(), true.into());
        }
        if !parts.quality.is_empty() {
            attributes.insert("quality".to_owned(), json!(parts.quality));
        }
        attributes.extend(mark);
        let array = ArrayOutput::create_as(location, &spec, Some(grid), run, attributes)?;
        Ok(Self { array, parts })
    }

    /// Bytes that each thread holds while it writes chunks to `location`; compare
    /// [`super::Spec::writing_bytes`].
    ///
    /// * `chunk`: the number of vectors in a chunk along z, y, x; each has three components
    pub fn writing_bytes(location: &str, chunk: [usize; 3]) -> u64 {
        let vectors = chunk.iter().fold(1, |product: u64, n| product.saturating_mul(*n as u64));
        let one = vectors.saturating_mul(3 * size_of::<[f32; 3]>() as u64);
        let at_once = super::writes_at_once(Path::new(location)) as u64;
        one.saturating_add(super::ENCODER).saturating_mul(at_once)
    }

    /// Marks the field as one that maps points of the moving space to the fixed space.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_inverse(&self) -> Result<(), Error> {
        self.set_attribute("direction", BACKWARD.into())
    }

    /// The shape, in vectors (z, y, x), of the unit of writing: one chunk.
    pub fn unit(&self) -> [usize; 3] {
        let unit = self.array.unit();
        [unit[0], unit[1], unit[2]]
    }

    /// The bounds of a box in the array of rank 4, with all elements at each position.
    fn bounds(&self, part: &Box3) -> Bounds {
        let wide = |[z, y, x]: [i64; 3], at: usize| vec![z, y, x, at as i64];
        Bounds { min: wide(part.min, 0), max: wide(part.max, self.parts.len()) }
    }

    /// Writes the box `part`, which must consist of whole chunks. The `vectors` are in C order
    /// `(z, y, x)`, with components z, y, x in micrometres.
    ///
    /// # Errors
    /// As [`super::Output::write`].
    pub fn write(&self, part: &Box3, vectors: &[[f32; 3]]) -> Result<(), Error> {
        self.write_parts(part, vectors.as_flattened())
    }

    /// As [`FieldOutput::write`], for any number of components and quality channels. The `elements`
    /// are in C order `(z, y, x, element)`; at each position, the components precede the quality
    /// channels.
    ///
    /// # Errors
    /// As [`super::Output::write`].
    pub fn write_parts(&self, part: &Box3, elements: &[f32]) -> Result<(), Error> {
        self.array.write(&self.bounds(part), elements)
    }

    /// The folder for ledgers, inside the folder of the array.
    pub fn ledger_folder(&self) -> PathBuf {
        self.array.ledger_folder()
    }

    /// Sets an attribute; an existing attribute of that name is replaced. [`FieldFile`] reads the
    /// attribute `reach` as the upper bound on the absolute displacement along z, y, x in
    /// micrometres.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_attribute(&self, name: &str, value: Value) -> Result<(), Error> {
        self.array.set_attribute(name, value)
    }
}

impl Unfinished for FieldOutput {
    fn ledger_folder(&self) -> PathBuf {
        Self::ledger_folder(self)
    }

    fn stored(&self, part: &Box3) -> Result<u64, Error> {
        self.array.stored(&self.bounds(part))
    }

    fn files(&self, part: &Box3) -> Vec<PathBuf> {
        self.array.files(&self.bounds(part))
    }

    fn set_missing_blocks(&self, lacking: Option<[usize; 2]>, _: bool) -> Result<(), Error> {
        self.array.set_missing_blocks(lacking)
    }
}
