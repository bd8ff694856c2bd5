//! Realistic synthetic test sets with known ground truth.
//!
//! [`rounds`] simulates two rounds of imaging of one piece of tissue, as in expansion microscopy
//! with several rounds of staining: nuclei of varied size, brightness and texture, puncta, uneven
//! background, blur, shot noise and electronic noise, some nuclei lost or changed between the
//! rounds, empty corners, and a moving volume of another size that overlaps the fixed one in part.
//! The world is defined at every point of space, so both rounds are rendered without interpolating
//! an image: the fixed voxel at `p` shows `world(p)`, the moving voxel at `q` shows
//! `world(T^-1(q))`. [`score`] measures the error of a transform against `T`.
//!
//! [`sections`] makes a stack of serial sections, as in electron microscopy, and [`score_sections`]
//! measures how well they are aligned. [`tiles`] makes planes of overlapping tiles, and
//! [`score_tiles`] measures how well they are placed.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::blocks::{self, Budget, Context, Identity, Outcome, Plan};
use crate::device::Cost;
use crate::geom::{Box3, Chain, Grid, Point};
use crate::store;
use crate::transform::{self, Step};
use crate::volume::{self, Codec, Dtype, FieldOutput, Format, Output, Spec, Unfinished};

#[cfg(feature = "cli")]
mod flags;
mod map;
mod marks;
mod noise;
mod random;
mod render;
mod score;
mod score_sections;
mod sections;
mod tiles;
mod world;

#[cfg(feature = "cli")]
pub use flags::Flags;
pub use score::{Score, Spread, score};
pub use score_sections::{SectionScore, SectionsScore, is_of_sections, score_sections};
pub use sections::{Kind, Sections, sections};
pub use tiles::{Tiles, TilesScore, is_of_tiles, score_tiles, tiles};

use map::{Deformation, TrueMap};
use render::Camera;
use world::World;

/// The reason why a test set could not be made or a transform could not be scored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ground truth does not have the form that [`rounds`] writes.
    #[error("{path}: {message}")]
    Truth {
        /// The file.
        path: String,
        /// The content of the file, and the expected content.
        message: String,
    },
    /// The operating system reported an error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A volume could not be read or written.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// A transform could not be read or written.
    #[error(transparent)]
    Transform(#[from] transform::Error),
    /// An error of the run, such as a parameter out of range or an output that exists.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// A displacement field of a chain could not be read.
    #[error("cannot read a displacement field of the transform: {0}")]
    Field(#[source] crate::geom::SourceError),
}

/// Makes an [`Error::Io`] of an error of the operating system.
fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.display().to_string();
    move |source| Error::Io { action, path, source }
}

/// Parameters of [`rounds`].
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Rounds {
    /// Shape of the fixed volume, voxels along z, y, x; the moving one differs by a few per cent.
    pub shape: [usize; 3],
    /// Spacing of both volumes along z, y, x, micrometres per voxel.
    pub spacing: Point,
    /// Length of the largest displacement of the smooth deformation, voxels.
    pub max_displacement: f64,
    /// Shortest wavelength of the deformation, voxels; the longest is twice that.
    pub wavelength: f64,
    /// Strength of the noise; 1 corresponds to a good camera.
    pub noise: f64,
}

/// Parses a shape in the syntax of `--size`: `256`, or three numbers `z,y,x`.
///
/// # Errors
/// A message that states the expected syntax.
pub fn parse_shape(text: &str) -> Result<[usize; 3], String> {
    let sizes: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    match sizes.as_deref() {
        Ok(&[n]) => Ok([n; 3]),
        Ok(&[z, y, x]) => Ok([z, y, x]),
        _ => {
            Err("wanted one number of voxels, or three along z,y,x such as 256,300,300".to_owned())
        }
    }
}

/// Edge length of chunks and of the blocks rendered at a time, voxels.
const CHUNK: usize = 64;
/// The true displacement field is sampled at every 4th voxel. For displacements of 8 voxels at
/// wavelengths of 256 voxels or more, the error of linear interpolation is at most
/// `4^2 / 8 * 8 * (2 pi / 256)^2`, 0.01 voxel.
const FIELD_STEP: usize = 4;
/// Maximum number of voxels of a volume.
const MAX_VOXELS: usize = 1_000_000_000_000;
/// Maximum number of true points. It suffices for statistics, and limits the size of the table for
/// large volumes.
const MAX_POINTS: usize = 50_000;

/// The world, the true map and both grids of a test set.
struct PhantomPair {
    world: World,
    map: TrueMap,
    fixed: Grid,
    moving: Grid,
}

impl Rounds {
    fn check(&self) -> Result<(), Error> {
        let usage = |message: String| Err(blocks::Error::Usage(message).into());
        if let Some(&n) = self.shape.iter().find(|&&n| !(32..=100_000).contains(&n)) {
            return usage(format!("--size has an axis of {n} voxels; wanted 32 to 100000"));
        }
        let voxels = self.shape.iter().product::<usize>();
        if voxels > MAX_VOXELS {
            return usage(format!("--size has {voxels} voxels; wanted {MAX_VOXELS} at most"));
        }
        if self.spacing.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return usage(format!("--spacing {:?} is not three lengths above 0", self.spacing));
        }
        if !(self.max_displacement.is_finite() && self.max_displacement >= 0.0) {
            return usage(format!(
                "--max-displacement {} is no length; wanted 0 or more voxels",
                self.max_displacement
            ));
        }
        let shortest = self.shape.into_iter().min().unwrap_or(0);
        if self.max_displacement > shortest as f64 / 4.0 {
            return usage(format!(
                "--max-displacement {} is more than a quarter of the shortest axis, {shortest} voxels; give less",
                self.max_displacement
            ));
        }
        if !(self.wavelength.is_finite() && self.wavelength >= 64.0) {
            return usage(format!(
                "--wavelength {} is too short to be smooth; wanted 64 voxels or more",
                self.wavelength
            ));
        }
        if !(self.noise.is_finite() && (0.0..=20.0).contains(&self.noise)) {
            return usage(format!("--noise {} is out of range; wanted 0 to 20", self.noise));
        }
        Ok(())
    }

    fn pair(&self, seed: u64) -> Result<PhantomPair, Error> {
        self.check()?;
        let fixed = Grid::new(self.shape, self.spacing, [0.0; 3]);
        let factor = [1.06, 0.95, 1.02];
        let moving_shape =
            std::array::from_fn(|a| (self.shape[a] as f64 * factor[a]).round() as usize);
        let moving = Grid::new(moving_shape, self.spacing, [0.0; 3]);
        let deformation = Deformation::random(seed, &fixed, self.max_displacement, self.wavelength);
        let ratio = deformation.min_jacobian(&fixed);
        if ratio < 0.2 {
            return Err(blocks::Error::Usage(format!(
                "a deformation of {} voxels at a wavelength of {} shrinks parts of the volume to {ratio:.2} of \
                 their size; wanted at least 0.2: lower --max-displacement or raise --wavelength",
                self.max_displacement, self.wavelength
            )).into());
        }
        let map = TrueMap::random(seed, &fixed, &moving, deformation);
        Ok(PhantomPair { world: World::new(seed, &fixed), map, fixed, moving })
    }
}

/// Estimates the memory of [`score`]: the table of true points, 4 bytes for each byte of its text.
pub fn score_memory(folder: &Path) -> Cost {
    let text = store::document::length(folder.join("truth_points.csv")).unwrap_or(0);
    Cost::bytes("points", 4 * text)
}

/// Writes `fixed.zarr`, `moving.zarr` and the ground truth `p -> A(p + u(p))` into `folder`:
/// `truth.zarr` (the displacement `u`), `truth_affine.json` (`A`), `truth_points.csv` (objects in
/// both volumes) and, last, `truth.json` (the chain of `u` and `A`).
///
/// # Errors
/// [`Error`] if a parameter is out of range, if the deformation would shrink any part of the volume
/// to less than 0.2 of its volume, or if an output exists.
pub fn rounds(rounds: &Rounds, folder: &Path, ctx: &Context) -> Result<(), Error> {
    let pair = rounds.pair(ctx.seed)?;
    create_folder(folder, ctx)?;
    let camera = |round: usize| Camera {
        world: &pair.world,
        map: (round == 1).then_some(&pair.map),
        grid: if round == 0 { pair.fixed } else { pair.moving },
        round,
        gain: [900.0, 640.0][round],
        offset: [100.0, 118.0][round],
        haze: [1.0, 1.35][round],
        shading: [0.06, -0.14][round],
        noise: rounds.noise as f32,
        seed: ctx.seed,
    };
    let identity = Identity::of("phantom").with("rounds", rounds).with("seed", ctx.seed);
    image(&camera(0), &folder.join("fixed.zarr"), &identity.clone().with("round", 0), ctx)?;
    image(&camera(1), &folder.join("moving.zarr"), &identity.with("round", 1), ctx)?;
    if ctx.plan_only {
        return Ok(());
    }
    write_truth(&pair, folder, ctx)
}

/// Creates the folder of a test set, unless it is in a bucket.
fn create_folder(folder: &Path, ctx: &Context) -> Result<(), Error> {
    if ctx.plan_only || store::is_remote(folder) {
        return Ok(());
    }
    std::fs::create_dir_all(folder).map_err(io("create", folder))
}

/// Renders one round, block by block.
fn image(camera: &Camera, path: &Path, identity: &Identity, ctx: &Context) -> Result<(), Error> {
    let bounds = camera.grid.bounds();
    let block = [CHUNK; 3];
    let budget = Budget::of(ctx);
    let spec = Spec {
        grid: camera.grid,
        dtype: Dtype::U16,
        chunk: block,
        shard: None,
        codec: Codec::default(),
        format: Format::Zarr3,
    };
    let plan = Plan::tile(bounds, block, Camera::memory(block), identity).with_overhead(
        &budget,
        Cost::default(),
        Budget::each_thread(&[], spec.writing_bytes(&path.to_string_lossy())),
    );
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let output = Arc::new(Output::begin(&path.to_string_lossy(), &spec, 1, &plan.as_run(ctx))?);
    ctx.output_array(&output);
    plan.stream_to::<_, _, _, Error>(
        ctx,
        &*output,
        |_| Ok(()),
        |task, ()| Ok(camera.render(&task.core)),
        |task, voxels| {
            output.write(&task.core, &voxels)?;
            Ok(Outcome::Done)
        },
    )?;
    Ok(())
}

fn write_truth(pair: &PhantomPair, folder: &Path, ctx: &Context) -> Result<(), Error> {
    let field = folder.join("truth.zarr");
    write_field(pair, &field, ctx)?;
    let affine = pair.map.affine;
    transform::write_chain(&folder.join("truth_affine.json"), &Chain::affine(affine))?;
    let points = pair.points();
    score::write_points(&folder.join("truth_points.csv"), &points)?;
    let chain = [Step::Field(field.display().to_string()), Step::Affine(affine)];
    transform::write_document(&folder.join("truth.json"), &chain)?;
    let parts = pair.map.affine.decompose();
    ctx.record("objects", points.len());
    ctx.record("rotation_degrees", parts.angle.to_degrees());
    ctx.record("scales", json!(parts.scales));
    ctx.record("affine", json!(pair.map.affine.rows()));
    ctx.record("max_displacement_voxels", pair.map.deformation.max_displacement(&pair.fixed));
    ctx.record("least_volume_ratio", pair.map.deformation.min_jacobian(&pair.fixed));
    Ok(())
}

fn write_field(pair: &PhantomPair, path: &Path, ctx: &Context) -> Result<(), Error> {
    let shape = pair.fixed.shape.map(|n| (n - 1).div_ceil(FIELD_STEP) + 1);
    let grid =
        Grid::new(shape, pair.fixed.spacing.map(|s| s * FIELD_STEP as f64), pair.fixed.origin);
    let chunk = [32; 3];
    let output = FieldOutput::begin(&path.to_string_lossy(), &grid, chunk, &ctx.existing)?;
    for part in grid.bounds().tiles(chunk) {
        output.write(&part, &pair.vectors(&grid, &part))?;
    }
    output.set_attribute("reach", json!(pair.map.deformation.reach()))?;
    Ok(output.set_missing_blocks(None, true)?)
}

impl PhantomPair {
    fn vectors(&self, grid: &Grid, part: &Box3) -> Vec<[f32; 3]> {
        let [_, ny, nx] = part.shape();
        (0..part.len())
            .map(|i| {
                let at = [i / (ny * nx), i / nx % ny, i % nx];
                let p = grid.position(std::array::from_fn(|a| part.min[a] as f64 + at[a] as f64));
                self.map.deformation.at(p).map(|v| v as f32)
            })
            .collect()
    }

    /// Fixed and moving positions of objects that are visible in both volumes, micrometres: at most
    /// [`MAX_POINTS`], subsampled evenly.
    fn points(&self) -> Vec<[Point; 2]> {
        let extent = self.fixed.extent(&self.fixed.bounds());
        let inside = |grid: &Grid, p: Point| {
            let [low, high] = grid.extent(&grid.bounds());
            (0..3).all(|a| low[a] <= p[a] && p[a] <= high[a])
        };
        // slab by slab, so that the objects of a very large volume are not all in memory at once
        let slabs = self.fixed.shape[0].div_ceil(256) as f64;
        let mut points = Vec::new();
        for slab in 0..slabs as usize {
            let depth = extent[1][0] - extent[0][0];
            let edge = |i: f64| extent[0][0] + depth * i / slabs;
            let (low, high) = (edge(slab as f64), edge(slab as f64 + 1.0));
            let (mut from, mut to) = (extent[0], extent[1]);
            (from[0], to[0]) = (low, high);
            let last = slab as f64 + 1.0 == slabs;
            points.extend(
                self.world
                    .nuclei([from, to])
                    .iter()
                    .filter(|n| n.brightness.iter().all(|&b| b > 0.0))
                    .map(|n| n.centre)
                    .filter(|p| low <= p[0] && (p[0] < high || last) && inside(&self.fixed, *p))
                    .map(|p| [p, self.map.apply(p)])
                    .filter(|[_, q]| inside(&self.moving, *q)),
            );
        }
        let keep = points.len().div_ceil(MAX_POINTS).max(1);
        points.into_iter().step_by(keep).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Rounds {
        Rounds {
            shape: [128; 3],
            spacing: [1.0, 0.8, 0.8],
            max_displacement: 8.0,
            wavelength: 256.0,
            noise: 1.0,
        }
    }

    #[test]
    fn true_points_lie_in_both_volumes_and_on_the_true_map() {
        let pair = small().pair(1).unwrap();
        let points = pair.points();
        assert!(points.len() > 150, "{}", points.len());
        for [p, q] in points {
            let back = pair.map.invert(q);
            assert!((0..3).all(|a| (back[a] - p[a]).abs() < 1e-6));
            let at = pair.moving.index(q);
            assert!((0..3).all(|a| at[a] >= 0.0 && at[a] < pair.moving.shape[a] as f64));
        }
    }

    #[test]
    fn the_field_and_the_affine_together_are_the_true_map() {
        let pair = small().pair(2).unwrap();
        let grid = Grid::new([33; 3], [4.0, 3.2, 3.2], [0.0; 3]);
        let field = crate::geom::Field { grid, vectors: pair.vectors(&grid, &grid.bounds()) };
        let mut worst = 0f64;
        for [p, q] in pair.points() {
            let u = field.displacement(p);
            let got = pair.map.affine.apply(std::array::from_fn(|a| p[a] + u[a]));
            worst = (0..3).map(|a| (got[a] - q[a]).abs()).fold(worst, f64::max);
        }
        assert!(worst < 0.02, "{worst} um");
    }

    #[test]
    fn a_written_pair_is_the_same_for_any_threads_and_its_truth_has_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let rounds_of = |threads: usize| {
            let place = folder.path().join(threads.to_string());
            let ctx = Context { threads, seed: 7, ..Context::default() };
            rounds(&Rounds { shape: [80, 64, 70], ..small() }, &place, &ctx).unwrap();
            place
        };
        let (one, three) = (rounds_of(1), rounds_of(3));
        for name in ["fixed.zarr", "moving.zarr"] {
            let read = |place: &Path| {
                let location = place.join(name).display().to_string();
                let volume = volume::Volume::open(&location, &volume::Select::default()).unwrap();
                volume.read::<u16>(&volume.grid().bounds()).unwrap()
            };
            let voxels = read(&one);
            assert!(voxels.iter().any(|&v| v > 500), "{name} shows something");
            assert_eq!(voxels, read(&three));
        }
        let errors = |file: &str| {
            score(&one, &[one.join(file).display().to_string()]).unwrap().voxels.median
        };
        assert!(errors("truth.json") < 0.01 && errors("truth_affine.json") > 1.0);
        let again = rounds(&small(), &one, &Context::default()).unwrap_err().to_string();
        assert!(again.contains("--overwrite"), "{again}");
    }

    #[test]
    fn a_shape_is_one_number_or_three() {
        assert_eq!(parse_shape("64"), Ok([64; 3]));
        assert_eq!(parse_shape("64, 70,80"), Ok([64, 70, 80]));
        assert!(parse_shape("64,70").is_err() && parse_shape("big").is_err());
    }

    #[test]
    fn parameters_that_cannot_be_are_named_with_the_way_out() {
        let message = |rounds: Rounds| rounds.pair(0).err().map(|e| e.to_string()).unwrap();
        let fold = message(Rounds { max_displacement: 32.0, wavelength: 64.0, ..small() });
        assert!(fold.contains("lower --max-displacement"), "{fold}");
        let far = message(Rounds { max_displacement: 33.0, wavelength: 9e9, ..small() });
        assert!(far.contains("more than a quarter"), "{far}");
        assert!(message(Rounds { shape: [128, 8, 128], ..small() }).contains("--size"));
        assert!(message(Rounds { spacing: [1.0, 0.0, 1.0], ..small() }).contains("--spacing"));
        assert!(message(Rounds { noise: f64::NAN, ..small() }).contains("--noise"));
    }
}
