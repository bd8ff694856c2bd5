//! Displacement fields on disk: Zarr arrays `(z, y, x, 3)` of `float32`, micrometres.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::block::Block;
use super::cache::{self, Cache};
use super::content::Stored;
use super::node::{Container, Node};
use super::output;
use super::place::Place;
use super::source::{self, Layout, Scratch, Source, View};
use super::unfinished::{self, Begin, Unfinished};
use super::writer::{Each, Writer};
use super::zarr::{self, ArraySpec, ZarrSource};
use super::{Codec, Dtype, Error, Existing, check_zarr_name, conventions, ome, path_of};
use crate::fingerprint::Fingerprint;
use crate::geom::{Box3, FieldSource, Grid, Point, SourceError};
use crate::store;

/// The attribute `direction` of transforms.
const DIRECTION: &str = "fixed-to-moving";
/// The attribute `direction` of inverse transforms.
const BACKWARD: &str = "moving-to-fixed";

/// The expected format of a field, for error messages.
const WANTED: &str = "a displacement field is wanted, a Zarr array (z, y, x, 3) of float32";

/// An array with three components last, viewed as an array of rank 3 with rows three times as long.
struct Interleaved {
    array: ZarrSource,
    layout: Layout,
}

impl Interleaved {
    fn new(array: ZarrSource) -> Self {
        let merge = |sizes: &[u64]| vec![sizes[0], sizes[1], sizes[2] * 3];
        let inner = array.layout();
        let layout = Layout {
            shape: merge(&inner.shape),
            block: merge(&inner.block),
            dtype: inner.dtype,
            fill: inner.fill.clone(),
        };
        Self { array, layout }
    }
}

impl Source for Interleaved {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn load(
        &self,
        index: &[u64],
        wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        let x = wanted[2].start / 3..wanted[2].end.div_ceil(3);
        let wanted = [wanted[0].clone(), wanted[1].clone(), x, 0..3];
        let index = [index[0], index[1], index[2], 0];
        let block = self.array.load(&index, &wanted, scratch)?;
        Ok(block.map(|block| Block {
            strides: vec![block.strides[0], block.strides[1], 1],
            extent: vec![block.extent[0], block.extent[1], block.extent[2] * 3],
            ..block
        }))
    }

    fn is_coded(&self) -> bool {
        self.array.is_coded()
    }

    fn in_flight(&self) -> usize {
        self.array.in_flight()
    }

    fn stored(&self) -> Stored<'_> {
        self.array.stored()
    }

    fn describe(&self) -> Map<String, Value> {
        self.array.describe()
    }
}

/// A displacement field on disk, read box by box. Missing chunks have the fill value, NaN (unknown)
/// in the fields that [`FieldOutput`] writes. A field that maps the moving space to the fixed space
/// is an inverse, and unknown outside its samples; all others are 0 there.
pub struct FieldFile {
    source: Interleaved,
    cache: Cache,
    grid: Grid,
    reach: Option<Point>,
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
    /// [`Error`]: nothing there, not a field, or a field of another direction.
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
        let planar = node.attributes.get("planar") == Some(&Value::Bool(true));
        let found = direction.map(str::to_owned);
        let frame = frame_of(&node.attributes);
        let array = ZarrSource::open(location, node)?;
        let layout = array.layout();
        let [depth, height, width, 3] = layout.shape[..] else {
            return bad(format!("has the shape {:?}; {WANTED}", layout.shape));
        };
        if layout.block[3] != 3 {
            return bad(format!("has chunks of {:?}, which cut vectors", layout.block));
        }
        if !matches!(layout.dtype, Dtype::F32 | Dtype::F64) {
            return bad(format!("holds {}; a field has float32", layout.dtype));
        }
        if found.as_deref() != Some(wanted) {
            let found = found.map_or("no direction".to_owned(), |d| format!("the direction '{d}'"));
            return bad(format!("has {found} in its attributes; '{wanted}' is wanted"));
        }
        if let Err(message) = frame {
            return bad(message);
        }
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
        let cache = Cache::new(cache::LIMIT);
        let exterior = if wanted == BACKWARD { f64::NAN } else { 0.0 };
        Ok(Self { source: Interleaved::new(array), cache, grid, reach, exterior })
    }

    /// The chunk shape in vectors (z, y, x), the unit in which reading is most efficient.
    pub fn chunk(&self) -> [usize; 3] {
        let block = &self.source.layout.block;
        [block[0] as usize, block[1] as usize, block[2] as usize / 3]
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
        let view = View { axes: [Some(0), Some(1), Some(2)], fixed: vec![0; 3] };
        let wide = |[z, y, x]: [i64; 3]| [z, y, 3 * x];
        let part = Box3::new(wide(part.min), wide(part.max));
        source::read(&self.source, &self.cache, &view, &part, out.as_flattened_mut())?;
        Ok(())
    }

    fn exterior(&self) -> f64 {
        self.exterior
    }

    fn reach(&self) -> Option<Point> {
        self.reach
    }

    fn keep(&self, bytes: u64) {
        self.cache.keep(bytes);
    }

    fn kept_bytes(&self) -> u64 {
        source::kept_bytes(&self.source, &self.cache)
    }

    fn scratch_bytes(&self) -> u64 {
        source::scratch_bytes(&self.source)
    }

    fn fingerprint(&self) -> Result<String, SourceError> {
        let mut fingerprint = Fingerprint::default();
        self.grid.add_to(&mut fingerprint);
        fingerprint.add(self.source.stored().fingerprint()?.as_bytes());
        if self.exterior.is_nan() {
            fingerprint.add(b"unknown outside");
        }
        Ok(fingerprint.hex())
    }
}

/// Whether the attributes of a field state axes z, y, x and micrometres; nothing is assumed.
fn frame_of(attributes: &Map<String, Value>) -> Result<(), String> {
    for (name, wanted) in [
        ("unit", json!("micrometer")),
        ("axes", json!(["z", "y", "x", "component"])),
        ("components", json!(["z", "y", "x"])),
    ] {
        match attributes.get(name) {
            Some(found) if *found == wanted => {}
            Some(found) => {
                return Err(format!(
                    "has '{name}' {found} in its attributes, wanted {wanted}; write it anew in those"
                ));
            }
            None => {
                return Err(format!(
                    "has no '{name}' in its attributes; add it, {wanted}, if that is how its lengths \
                     and axes are"
                ));
            }
        }
    }
    Ok(())
}

/// A displacement field open for writing; the same rules hold as for [`super::Output`].
pub struct FieldOutput {
    writer: Writer,
    array: PathBuf,
}

impl std::fmt::Debug for FieldOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FieldOutput({})", self.array.display())
    }
}

impl FieldOutput {
    /// Creates the field at `location`; `chunk` counts vectors along z, y, x.
    ///
    /// # Errors
    /// As [`super::Output::create`].
    pub fn create(
        location: &str,
        grid: &Grid,
        chunk: [usize; 3],
        existing: Existing,
    ) -> Result<Self, Error> {
        Self::create_any(location, grid, chunk, &existing, Map::new())
    }

    /// As [`FieldOutput::create`], but marks the field as unfinished until
    /// [`Unfinished::set_lacking`] changes that.
    ///
    /// # Errors
    /// As [`super::Output::create`].
    pub fn begin(
        location: &str,
        grid: &Grid,
        chunk: [usize; 3],
        run: &impl Begin,
    ) -> Result<Self, Error> {
        let mark = [(unfinished::MARK.to_owned(), unfinished::begun())];
        Self::create_any(location, grid, chunk, run, mark.into_iter().collect())
    }

    fn create_any(
        location: &str,
        grid: &Grid,
        chunk: [usize; 3],
        run: &impl Begin,
        mark: Map<String, Value>,
    ) -> Result<Self, Error> {
        let size = |sizes: [usize; 3]| -> Vec<u64> {
            sizes.into_iter().chain([3]).map(|n| n as u64).collect()
        };
        let valid = grid.spacing.iter().all(|v| v.is_finite() && *v > 0.0);
        if grid.shape.contains(&0) || chunk.contains(&0) || !valid {
            let message = format!("cannot be created with {grid:?} and chunks of {chunk:?}");
            return Err(Error::format(location, message));
        }
        check_zarr_name(location)?;
        let path = path_of(location)?;
        let place = Place::of_array(location, &path, Container::Zarr3)?;
        let metadata = zarr::metadata(&ArraySpec {
            container: Container::Zarr3,
            shape: size(grid.shape),
            chunk: size(chunk),
            shard: None,
            dtype: Dtype::F32,
            codec: Codec::Blosc,
            fill: "NaN".into(),
            names: ["z", "y", "x", "component"].map(str::to_owned).to_vec(),
        });
        let (existing, there) = place.check_for(location, run)?;
        if there {
            output::resume(location, &place, &metadata, grid)?;
        }
        if existing == Existing::Overwrite {
            place.remove(run)?;
        }
        run.claim(&place.ledger_folder())?;
        if !there {
            let attributes = json!({
                "spacing": grid.spacing,
                "origin": grid.origin,
                "unit": "micrometer",
                "axes": ["z", "y", "x", "component"],
                "components": ["z", "y", "x"],
                "direction": DIRECTION,
            });
            let mut attributes = attributes.as_object().cloned().unwrap_or_default();
            if grid.planar {
                // the spacing along z then has no meaning
                attributes.insert("planar".to_owned(), true.into());
            }
            attributes.extend(mark);
            place.make_groups()?;
            output::write_metadata(&path, Container::Zarr3, metadata, attributes)?;
        }
        place.sweep();
        let Some(node) = Node::read(&path)? else {
            return Err(Error::missing(location, "it was created a moment ago"));
        };
        Ok(Self { writer: Writer::open(location, &node, Each::Vector)?, array: path })
    }

    /// Bytes that each thread holds while it writes chunks of so many vectors along z, y, x to
    /// `location`; compare [`super::Spec::writing_bytes`].
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
        self.writer.unit()
    }

    /// Writes a box of whole chunks, C order `(z, y, x)`, components z, y, x in micrometres.
    ///
    /// # Errors
    /// As [`super::Output::write`].
    pub fn write(&self, part: &Box3, vectors: &[[f32; 3]]) -> Result<(), Error> {
        let elements = vectors.as_flattened();
        self.writer.check(part, elements)?;
        self.writer.write(0, part, elements)
    }

    /// A folder inside the array for ledgers.
    pub fn ledger_folder(&self) -> PathBuf {
        self.array.join(".voxloom")
    }

    /// Sets an attribute; `reach`, three lengths along z, y, x, is read by [`FieldFile`] as its
    /// reach.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn set_attribute(&self, name: &str, value: Value) -> Result<(), Error> {
        Node::update(&self.array, |attributes| {
            attributes.insert(name.to_owned(), value);
        })
    }
}

impl Unfinished for FieldOutput {
    fn ledger_folder(&self) -> PathBuf {
        Self::ledger_folder(self)
    }

    fn stored(&self, part: &Box3) -> Result<u64, Error> {
        self.writer.stored(part)
    }

    fn set_lacking(&self, lacking: Option<[usize; 2]>, _: bool) -> Result<(), Error> {
        Node::update(&self.array, |attributes| unfinished::set(attributes, lacking))
    }
}
