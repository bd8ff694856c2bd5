//! The steps into which a transform is read, before they are written in the target format.

use std::fs;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::Error;
use super::hdf5;
use super::read_error::ReadError;
use super::unpack::{self, Packing};
use super::world::{Placement, World};
use crate::blocks::Identity;
use crate::fingerprint::Fingerprint;
use crate::geom::{Affine, Box3, Chain, FieldSource, Grid, Point, SourceError, Transform};
use crate::transform::Step;
use crate::volume::{self, FlatVectors, VectorArray, Voxel};
use crate::with_voxel;

/// Maximum number of samples of a field; a header with more is taken as damaged.
const MAX_SAMPLES: usize = 1 << 44;

/// A smooth map that is defined everywhere, such as a spline.
pub(super) trait SmoothMap: Send + Sync {
    /// Maps `p`, `[z, y, x]` micrometres.
    fn apply(&self, p: Point) -> Point;

    /// Adds all parameters of the map to a fingerprint.
    fn add_to(&self, fingerprint: &mut Fingerprint);

    /// The affine part of the map, which extrapolates outside the grid of a sampled field.
    fn affine(&self) -> Affine {
        Affine::IDENTITY
    }
}

/// One of the maps of which a transform is composed.
pub(super) enum MapStep {
    /// A matrix.
    Affine(Affine),
    /// A map that is sampled to become a displacement field.
    Smooth(Arc<dyn SmoothMap>),
    /// A vector field of another program, on its own samples.
    ForeignField(Box<ForeignField>),
    /// A native array.
    Native(Step),
}

/// The storage of a foreign field's vectors.
pub(super) enum Payload {
    /// An array that can be read in boxes.
    Array(VectorArray),
    /// Uncompressed bytes after a header.
    Flat(FlatVectors),
    /// Encoded data: decoding `file` from byte `from` on yields the bytes that `flat` describes.
    Packed { file: PathBuf, from: u64, packing: Packing, flat: FlatVectors },
    /// An array in HDF5.
    Hdf5(hdf5::Vectors),
    /// In memory, in C order.
    Memory(Vec<[f64; 3]>),
}

/// The meaning of the vectors of a foreign field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VectorMeaning {
    /// Displacements of the sample positions.
    Displacements,
    /// The positions to which the samples are mapped.
    Positions,
}

impl VectorMeaning {
    /// The name of the meaning, in the plural.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Displacements => "displacements",
            Self::Positions => "positions",
        }
    }
}

/// A vector field of another program.
pub(super) struct ForeignField {
    /// The grid of the samples, in the field's own frame.
    grid: Grid,
    /// The affine from the field's own frame to voxloom's coordinates; `None` if they are the same.
    frame: Option<Affine>,
    /// The matrix that takes a stored vector to `[z, y, x]` micrometres in the field's own frame.
    turn: [[f64; 3]; 3],
    /// The translation added after `turn`: for positions, the translation of the inverse of
    /// `frame`; for displacements, 0.
    shift: Point,
    holds: VectorMeaning,
    payload: Payload,
    /// The fingerprint of the payload, computed on first use.
    content: OnceLock<String>,
}

impl ForeignField {
    /// Creates a field whose samples lie at `placement` in the coordinates `world`, and whose
    /// vectors are in the coordinates `vectors`.
    pub(super) fn new(
        placement: &Placement,
        world: World,
        vectors: World,
        holds: VectorMeaning,
        payload: Payload,
    ) -> Result<Self, ReadError> {
        let (grid, frame) = placement.grid(world);
        let back = match &frame {
            Some(frame) => {
                frame.inverse().map_err(|e| format!("has axes that span no space: {e}"))?
            }
            None => Affine::IDENTITY,
        };
        let unit = |c: usize| std::array::from_fn(|a| if a == c { 1.0 } else { 0.0 });
        let columns: [Point; 3] =
            std::array::from_fn(|c| back.apply_vector(vectors.vector(unit(c))));
        let turn = std::array::from_fn(|r| std::array::from_fn(|c| columns[c][r]));
        let shift = match holds {
            VectorMeaning::Displacements => [0.0; 3],
            VectorMeaning::Positions => back.offset(),
        };
        Self { grid, frame, turn, shift, holds, payload, content: OnceLock::new() }.checked()
    }

    /// Creates a field on a grid that is aligned with voxloom's axes. `turn` takes a stored vector
    /// to `[z, y, x]` micrometres.
    pub(super) fn on_grid(
        grid: Grid,
        turn: [[f64; 3]; 3],
        holds: VectorMeaning,
        payload: Payload,
    ) -> Result<Self, ReadError> {
        let content = OnceLock::new();
        Self { grid, frame: None, turn, shift: [0.0; 3], holds, payload, content }.checked()
    }

    fn checked(self) -> Result<Self, ReadError> {
        let Grid { shape, spacing, origin, .. } = self.grid;
        let count = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if !count.is_some_and(|count| (1..=MAX_SAMPLES).contains(&count)) {
            return Err(format!("has {shape:?} samples along z, y, x, which cannot be").into());
        }
        if spacing.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return Err(format!("has samples {spacing:?} um apart, wanted lengths above 0").into());
        }
        if origin.iter().any(|v| !v.is_finite()) {
            return Err(format!("has its first sample at {origin:?}, wanted finite numbers").into());
        }
        self.payload.check()?;
        Ok(self)
    }

    /// Multiplies the stored numbers by `slope`.
    pub(super) fn scale(&mut self, slope: f64) {
        self.turn = self.turn.map(|row| row.map(|v| v * slope));
    }

    /// The grid of the samples, in the field's own frame.
    pub(super) fn own_grid(&self) -> &Grid {
        &self.grid
    }

    /// The meaning of its vectors.
    pub(super) fn holds(&self) -> VectorMeaning {
        self.holds
    }

    /// Whether the grid is aligned with voxloom's axes, so that the field is a single step.
    pub(super) fn is_straight(&self) -> bool {
        self.frame.is_none()
    }

    /// The native steps that are equivalent to the field, if `location` stores its vectors.
    pub(super) fn steps(&self, location: &str) -> Vec<Step> {
        let field = Step::Field(location.to_owned());
        match self.frame.as_ref().map(|frame| (frame, frame.inverse())) {
            Some((frame, Ok(back))) => vec![Step::Affine(back), field, Step::Affine(*frame)],
            // a frame without an inverse has been refused in `new`
            _ => vec![field],
        }
    }

    /// Computes the fingerprint of the stored data. Then decodes the vectors, if they are encoded,
    /// into a file in `scratch`, from which any box can be read; this fails if data are missing.
    pub(super) fn prepare(&mut self, scratch: &Path) -> Result<(), Error> {
        // fingerprint the original file, because the decoded one is temporary
        self.content()?;
        if let Payload::Packed { file, from, packing, flat } = &self.payload {
            fs::create_dir_all(scratch).map_err(refused("create", scratch))?;
            let path = scratch.join("vectors.raw");
            unpack::to_file(*packing, file, *from, bytes_of(flat), &path)?;
            self.payload = Payload::Flat(FlatVectors { path, ..flat.clone() });
        }
        Ok(())
    }

    /// The fingerprint of the stored data.
    fn content(&self) -> Result<&str, Error> {
        if let Some(content) = self.content.get() {
            return Ok(content);
        }
        let of_file = |path: &Path| volume::fingerprint(&path.to_string_lossy());
        let content = match &self.payload {
            Payload::Array(array) => array.fingerprint()?,
            Payload::Flat(flat) => of_file(&flat.path)?,
            Payload::Packed { file, .. } => of_file(file)?,
            Payload::Hdf5(vectors) => of_file(&vectors.path)?,
            Payload::Memory(vectors) => {
                let mut fingerprint = Fingerprint::default();
                fingerprint.add_numbers(vectors.iter().flatten().copied());
                fingerprint.hex()
            }
        };
        Ok(self.content.get_or_init(|| content))
    }

    fn stored(&self, part: &Box3) -> Result<Vec<[f64; 3]>, SourceError> {
        match &self.payload {
            Payload::Array(array) => Ok(array.read(part)?),
            Payload::Hdf5(vectors) => Ok(vectors.read(part)?),
            Payload::Flat(flat) => Ok(VectorArray::flat(flat.clone()).read(part)?),
            Payload::Packed { file, .. } => {
                Err(format!("{}: is still packed", file.display()).into())
            }
            Payload::Memory(vectors) => {
                let shape = self.grid.shape.map(|n| n as i64);
                let index = |[z, y, x]: [i64; 3]| ((z * shape[1] + y) * shape[2] + x) as usize;
                Ok(part.tiles([1; 3]).map(|voxel| vectors[index(voxel.min)]).collect())
            }
        }
    }
}

fn refused(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Io { action, path: path.clone(), source }
}

/// The size of a file up to the end of its vectors, bytes.
fn bytes_of(flat: &FlatVectors) -> u64 {
    let counts = flat.shape.into_iter().chain([flat.components, flat.dtype.size()]);
    let bytes = counts.fold(1u64, |product, n| product.saturating_mul(n as u64));
    flat.offset.saturating_add(bytes)
}

impl Payload {
    /// Refuses a file that is too short for the vectors that its header announces.
    fn check(&self) -> Result<(), ReadError> {
        match self {
            Self::Packed { file, from, packing, flat } => {
                packing.check(file, *from, bytes_of(flat))
            }
            Self::Flat(flat) => {
                let found = fs::metadata(&flat.path).map_err(ReadError::io)?;
                let (found, wanted) = (found.len(), bytes_of(flat));
                if found < wanted {
                    return Err(format!(
                        "is cut off: it has {found} bytes of {wanted}; copy it again"
                    )
                    .into());
                }
                Ok(())
            }
            Self::Array(_) | Self::Hdf5(_) | Self::Memory(_) => Ok(()),
        }
    }

    /// All numbers in storage order. More than `most` numbers are refused, because large fields
    /// must be read in parts.
    pub(super) fn numbers(&self, most: usize) -> Result<Vec<f64>, ReadError> {
        self.check()?;
        let (Self::Flat(flat) | Self::Packed { flat, .. }) = self else {
            return Err("is no file of plain numbers".into());
        };
        let end = bytes_of(flat);
        let count = (end - flat.offset) / flat.dtype.size() as u64;
        if count > most as u64 {
            return Err(format!("has {count} numbers; {most} are read at most").into());
        }
        let mut bytes = Vec::new();
        if let Self::Packed { file, from, packing, .. } = self {
            packing.unpack(file, *from, end, &mut bytes).map_err(ReadError::io)?;
            bytes.drain(..flat.offset as usize);
        } else {
            let mut file = fs::File::open(&flat.path).map_err(ReadError::io)?;
            file.seek(io::SeekFrom::Start(flat.offset)).map_err(ReadError::io)?;
            file.take(end - flat.offset).read_to_end(&mut bytes).map_err(ReadError::io)?;
        }
        with_voxel!(flat.dtype, T => {
            let value = |bytes: &[u8]| T::get(bytes, flat.order).to_f64();
            Ok(bytes.chunks_exact(size_of::<T>()).map(value).collect())
        })
    }
}

impl FieldSource for ForeignField {
    fn fingerprint(&self) -> Result<String, SourceError> {
        let mut fingerprint = Fingerprint::default();
        self.grid.add_to(&mut fingerprint);
        let frame = self.frame.unwrap_or(Affine::IDENTITY);
        fingerprint.add_numbers(frame.rows().concat()).add_numbers(self.turn.concat());
        fingerprint.add_numbers(self.shift);
        fingerprint.add_counts([u64::from(self.holds == VectorMeaning::Positions)]);
        fingerprint.add(self.content()?.as_bytes());
        Ok(fingerprint.hex())
    }

    fn grid(&self) -> Grid {
        self.grid
    }

    fn keep(&self, bytes: u64) {
        if let Payload::Array(array) = &self.payload {
            array.keep(bytes);
        }
    }

    fn kept_bytes(&self) -> u64 {
        if let Payload::Array(array) = &self.payload { array.kept_bytes() } else { 0 }
    }

    fn scratch_bytes(&self) -> u64 {
        if let Payload::Array(array) = &self.payload { array.scratch_bytes() } else { 0 }
    }

    fn read(&self, part: &Box3) -> Result<Vec<[f32; 3]>, SourceError> {
        let stored = self.stored(part)?;
        let turn = |v: [f64; 3]| -> Point {
            let turned = self.turn.map(|row| row[0] * v[0] + row[1] * v[1] + row[2] * v[2]);
            std::array::from_fn(|a| turned[a] + self.shift[a])
        };
        Ok(stored
            .into_iter()
            .zip(positions(&self.grid, part))
            .map(|(v, p)| {
                let u = turn(v);
                match self.holds {
                    VectorMeaning::Displacements => u.map(|u| u as f32),
                    VectorMeaning::Positions => std::array::from_fn(|a| (u[a] - p[a]) as f32),
                }
            })
            .collect())
    }
}

/// The positions of the samples of `part` in C order, `[z, y, x]` micrometres.
pub(super) fn positions(grid: &Grid, part: &Box3) -> impl Iterator<Item = Point> {
    let (grid, part) = (*grid, *part);
    (part.min[0]..part.max[0]).flat_map(move |z| {
        (part.min[1]..part.max[1]).flat_map(move |y| {
            (part.min[2]..part.max[2]).map(move |x| grid.position([z, y, x].map(|v| v as f64)))
        })
    })
}

/// One map of a transform, in a form that can be evaluated.
pub(super) enum EvaluableStep {
    /// A chain of native steps.
    Chain(Chain),
    /// A spline.
    Smooth(Arc<dyn SmoothMap>),
}

/// Maps points through all stages in order, without sampling them on a grid.
pub(super) fn map_points(
    stages: &[EvaluableStep],
    points: &mut [Point],
) -> Result<(), SourceError> {
    for stage in stages {
        match stage {
            EvaluableStep::Smooth(warp) => points.iter_mut().for_each(|p| *p = warp.apply(*p)),
            EvaluableStep::Chain(chain) => {
                let mut extent = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
                for p in points.iter().filter(|p| p.iter().all(|v| v.is_finite())) {
                    for a in 0..3 {
                        extent[0][a] = extent[0][a].min(p[a]);
                        extent[1][a] = extent[1][a].max(p[a]);
                    }
                }
                let (local, _) = chain.localise(extent)?;
                points.iter_mut().for_each(|p| *p = local.apply(*p));
            }
        }
    }
    Ok(())
}

/// The composition of the affine parts of all stages: the map that extrapolates a sampled field.
pub(super) fn affine_part(stages: &[EvaluableStep]) -> Affine {
    stages.iter().fold(Affine::IDENTITY, |sum, stage| match stage {
        EvaluableStep::Smooth(warp) => sum.then(&warp.affine()),
        EvaluableStep::Chain(chain) => chain.steps.iter().fold(sum, |sum, step| match step {
            Transform::Affine(map) => sum.then(map),
            _ => sum,
        }),
    })
}

/// Stages sampled on a grid as a field `u`, such that `p -> last(p + u(p))` is exact at the grid's
/// nodes.
pub(super) struct SampledSteps {
    pub(super) stages: Vec<EvaluableStep>,
    pub(super) grid: Grid,
    /// The inverse of `last`, the matrix that follows the field.
    pub(super) inverse_of_last: Affine,
}

impl FieldSource for SampledSteps {
    fn fingerprint(&self) -> Result<String, SourceError> {
        let mut fingerprint = Fingerprint::default();
        self.grid.add_to(&mut fingerprint);
        fingerprint.add_numbers(self.inverse_of_last.rows().concat());
        for stage in &self.stages {
            match stage {
                EvaluableStep::Smooth(warp) => warp.add_to(&mut fingerprint),
                EvaluableStep::Chain(chain) => {
                    let identity = Identity::of("chain").with_chain("steps", chain)?;
                    fingerprint.add(identity.hex().as_bytes());
                }
            }
        }
        Ok(fingerprint.hex())
    }

    fn grid(&self) -> Grid {
        self.grid
    }

    fn read(&self, part: &Box3) -> Result<Vec<[f32; 3]>, SourceError> {
        let mut points: Vec<Point> = positions(&self.grid, part).collect();
        map_points(&self.stages, &mut points)?;
        Ok(points
            .into_iter()
            .zip(positions(&self.grid, part))
            .map(|(q, p)| {
                let q = self.inverse_of_last.apply(q);
                std::array::from_fn(|a| (q[a] - p[a]) as f32)
            })
            .collect())
    }
}
