//! Comparison with results of BigStream: the release of 2021 (arrays x, y, z) and version 5 (z, y,
//! x).

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Interpolation, Options, Rounding, resample_block};
use crate::geom::{Affine, Field, Grid, LocalAffines, LocalChain, LocalStep, Point};
use crate::golden::npz::{Array, read_npy, read_npz};
use crate::golden::shared;

pub(super) type Arrays = BTreeMap<String, Array>;

fn grid_of(array: &Array, spacing: &Array, origin: Point) -> Grid {
    Grid::new(array.shape[..3].try_into().unwrap(), spacing.three(), origin)
}

fn voxels(array: &Array) -> Vec<u16> {
    array.values.iter().map(|v| *v as u16).collect()
}

/// Converts a 4x4 matrix in z, y, x order.
pub(super) fn affine(values: &[f64]) -> Affine {
    Affine::from_rows(std::array::from_fn(|r| std::array::from_fn(|c| values[4 * r + c])))
}

/// Converts a 4x4 matrix in x, y, z order.
fn affine_xyz(values: &[f64]) -> Affine {
    let order = [2, 1, 0, 3];
    Affine::from_rows(std::array::from_fn(|r| {
        std::array::from_fn(|c| values[4 * order[r] + order[c]])
    }))
}

/// The difference of two images. Positions within a voxel of the edges of the moving volume are
/// ignored, because voxloom and BigStream differ in which positions count as inside.
struct Difference {
    compared: usize,
    worst: f64,
}

fn differ(
    got: &[f32],
    want: &Array,
    chain: &LocalChain,
    onto: &Grid,
    moving: &Grid,
    rim: f64,
) -> Difference {
    let mut difference = Difference { compared: 0, worst: 0.0 };
    for (i, voxel) in onto.bounds().tiles([1, 1, 1]).enumerate() {
        let at = moving.index(chain.apply(onto.position(voxel.min.map(|v| v as f64))));
        let near = |a: usize| {
            let last = moving.shape[a] as f64 - 1.0;
            (at[a] > -rim && at[a] < rim) || (at[a] > last - rim && at[a] < last + rim)
        };
        if !(0..3).any(near) {
            difference.compared += 1;
            difference.worst = difference.worst.max((f64::from(got[i]) - want.values[i]).abs());
        }
    }
    difference
}

pub(super) struct Version5 {
    pub(super) inputs: Arrays,
    pub(super) outputs: Arrays,
    fixed: Grid,
    moving: Grid,
}

impl Version5 {
    pub(super) fn read() -> Self {
        let folder = shared("reference/bigstream/apply_current");
        let inputs = read_npz(&folder.join("inputs.npz"));
        let outputs = read_npz(&folder.join("outputs.npz"));
        let fixed = grid_of(&inputs["fix"], &inputs["fix_spacing"], inputs["fix_origin"].three());
        let moving = grid_of(&inputs["mov"], &inputs["mov_spacing"], inputs["mov_origin"].three());
        Self { inputs, outputs, fixed, moving }
    }

    pub(super) fn field(&self, name: &str, origin: Point) -> Field {
        let array = &self.inputs[name];
        let vectors = array.values.as_chunks().0.iter();
        let vectors = vectors.map(|u: &[f64; 3]| u.map(|v| v as f32)).collect();
        let grid = grid_of(array, &self.inputs["field_spacing"], origin);
        Field { grid, vectors }
    }

    /// The chain of the named steps, which are in BigStream's order: the last is applied first.
    fn chain(&self, steps: &[&str]) -> LocalChain {
        let steps = steps.iter().rev().map(|name| match *name {
            "affine" => LocalStep::Affine(affine(&self.inputs["affine_zyx"].values)),
            field => {
                LocalStep::Field(self.field(field, self.inputs["field_origin"].three()).into())
            }
        });
        LocalChain { steps: steps.collect() }
    }

    fn check(&self, name: &str, chain: &LocalChain, options: &Options, tolerance: f64) {
        let moving = voxels(&self.inputs["mov"]);
        let got = if name.ends_with("float") {
            resample_block(&moving, &self.moving, chain, &self.fixed, options)
        } else {
            let out: Vec<u16> = resample_block(&moving, &self.moving, chain, &self.fixed, options);
            out.into_iter().map(f32::from).collect()
        };
        let want = &self.outputs[name];
        let found = differ(&got, want, chain, &self.fixed, &self.moving, 1.0);
        assert!(found.compared * 2 > want.values.len(), "{name}: {} compared", found.compared);
        assert!(found.worst <= tolerance, "{name}: differs by {}", found.worst);
    }
}

const TRUNCATED: Options = Options {
    interpolation: Interpolation::Linear,
    rounding: Rounding::Truncate,
    fill: 0.0,
    extrapolate: false,
    backwards: false,
};

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn version_5_gives_the_same_linear_images() {
    let case = Version5::read();
    case.check("affine_linear", &case.chain(&["affine"]), &TRUNCATED, 1.0);
    case.check("affine_field1_linear", &case.chain(&["affine", "field1"]), &TRUNCATED, 1.0);
    let two = case.chain(&["affine", "field1", "field2"]);
    case.check("affine_field1_field2_linear", &two, &TRUNCATED, 1.0);
    let everywhere = Options { extrapolate: true, ..TRUNCATED };
    case.check("affine_linear_nnextrap", &case.chain(&["affine"]), &everywhere, 1.0);
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn version_5_gives_the_same_image_where_the_field_acts_last() {
    let case = Version5::read();
    let mut chain = case.chain(&["affine"]);
    chain.steps.push(LocalStep::Field(case.field("field1", case.moving.origin).into()));
    case.check("field1_affine_linear", &chain, &TRUNCATED, 1.0);
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn version_5_gives_the_same_nearest_voxels() {
    let case = Version5::read();
    let chain = case.chain(&["affine"]);
    let options = Options { interpolation: Interpolation::Nearest, ..TRUNCATED };
    let moving = voxels(&case.inputs["mov"]);
    let got: Vec<u16> = resample_block(&moving, &case.moving, &chain, &case.fixed, &options);
    let want = &case.outputs["affine_nn"].values;
    let same = got.iter().zip(want).filter(|(a, b)| f64::from(**a) == **b).count();
    // positions half-way between voxels can round either way
    assert!(same as f64 > 0.9999 * want.len() as f64, "{same} of {}", want.len());
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn version_5_gives_the_same_cubic_spline() {
    let case = Version5::read();
    let options = Options { interpolation: Interpolation::Cubic, ..TRUNCATED };
    case.check("affine_cubicbspline_float", &case.chain(&["affine"]), &options, 0.1);
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn version_5_gives_the_same_image_through_a_field_alone() {
    let case = Version5::read();
    let chain = case.chain(&["field1"]);
    let fixed = voxels(&case.inputs["fix"]);
    let got: Vec<f32> = resample_block(&fixed, &case.fixed, &chain, &case.fixed, &TRUNCATED);
    let want = &case.outputs["field1_linear_float"];
    let found = differ(&got, want, &chain, &case.fixed, &case.fixed, 1.0);
    assert!(found.compared * 2 > want.values.len(), "{} compared", found.compared);
    assert!(found.worst <= 1.0, "differs by {}", found.worst);
}

/// The affines of blocks as the release of 2021 stores them: array and matrices in x, y, z order.
fn local_affines(array: &Array, domain: Grid, block: [usize; 3], overlap: Point) -> LocalAffines {
    let matrices = array.reversed().values;
    let affines = matrices.as_chunks::<16>().0.iter().map(|m| affine_xyz(m)).collect();
    LocalAffines { domain, block, overlap, affines }
}

fn reversed<T: Copy>([x, y, z]: [T; 3]) -> [T; 3] {
    [z, y, x]
}

struct Release2021 {
    inputs: Arrays,
    outputs: Arrays,
    fixed: Grid,
    moving: Grid,
    maps: LocalAffines,
}

impl Release2021 {
    fn read() -> Self {
        let folder = shared("reference/bigstream/local_affines_2021");
        let inputs = read_npz(&folder.join("inputs.npz"));
        let outputs = read_npz(&folder.join("outputs.npz"));
        let spacing = reversed(inputs["spacing_xyz"].three());
        let grid = |name: &str| {
            let shape = inputs[name].reversed().shape[..3].try_into().unwrap();
            Grid::new(shape, spacing, [0.0; 3])
        };
        let (fixed, moving) = (grid("fix_xyz"), grid("mov_xyz"));
        let block = reversed(inputs["blocksize"].three()).map(|v| v as usize);
        let overlap = reversed(inputs["overlap"].three()).map(ramp_of_overlap);
        let maps = local_affines(&outputs["composed"], fixed, block, overlap);
        Self { inputs, outputs, fixed, moving, maps }
    }

    fn check(&self, name: &str, step: LocalStep) {
        let options = Options::default();
        let moving = voxels(&self.inputs["mov_xyz"].reversed());
        let chain = LocalChain { steps: vec![step] };
        let got: Vec<u16> = resample_block(&moving, &self.moving, &chain, &self.fixed, &options);
        let got: Vec<f32> = got.into_iter().map(f32::from).collect();
        let want = self.outputs[name].reversed();
        let found = differ(&got, &want, &chain, &self.fixed, &self.moving, 1.0);
        assert!(found.compared * 3 > want.values.len(), "{name}: {} compared", found.compared);
        assert!(found.worst <= 1.0, "{name}: differs by {}", found.worst);
    }
}

/// Half the width of BigStream's ramps, voxels. The weight of a block is 0 at `overlap` voxels
/// outside its core and 1 at the voxel `overlap - 1` inside, so that half the width is
/// `overlap - 0.5`.
fn ramp_of_overlap(overlap: f64) -> f64 {
    overlap - 0.5
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn local_affines_blend_as_in_the_release_of_2021() {
    let case = Release2021::read();
    let field = case.outputs["position_field"].reversed();
    let places = case.fixed.bounds();
    for (voxel, want) in places.tiles([1, 1, 1]).zip(field.values.as_chunks().0) {
        let got = case.maps.apply(case.fixed.position(voxel.min.map(|v| v as f64)));
        let want = reversed(*want);
        for a in 0..3 {
            assert!((got[a] - want[a]).abs() < 1e-3, "{voxel}: {got:?} {want:?}");
        }
    }
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_release_of_2021_gives_the_same_images() {
    let case = Release2021::read();
    let global = affine_xyz(&case.inputs["global_affine"].values);
    case.check("global_applied", LocalStep::Affine(global));
    let maps = LocalStep::LocalAffines(Arc::new(case.maps.clone()));
    case.check("local_applied", maps.clone());
    case.check("position_field_applied", maps);
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn blocks_weigh_what_they_do_in_version_5() {
    let path = shared("reference/bigstream/block_weights/weights.npz");
    let weights = read_npz(&path);
    let (block, overlap) = ([16, 20, 24], [8usize, 10, 12]);
    let domain = Grid::new([48, 60, 72], [1.0; 3], [0.0; 3]);
    let maps = LocalAffines {
        domain,
        block,
        overlap: overlap.map(|v| ramp_of_overlap(v as f64)),
        affines: vec![Affine::IDENTITY; 27],
    };
    for (number, core) in domain.bounds().tiles(block).enumerate() {
        let [i, j, k] = [number / 9, number / 3 % 3, number % 3];
        let want = &weights[&format!("full_{i}_{j}_{k}")];
        let reach = core.grow(overlap.map(|v| v as i64)).intersect(&domain.bounds());
        assert_eq!(want.shape, reach.shape());
        for (voxel, want) in reach.tiles([1, 1, 1]).zip(&want.values) {
            let shares = maps.shares(voxel.min.map(|v| v as f64));
            let got: f64 = shares.iter().filter(|s| s.0 == number).map(|s| s.1).sum();
            assert!((got - want).abs() < 1e-5, "block {number} at {voxel}: {got} {want}");
        }
    }
}

/// A volume of BigStream's tutorial in z, y, x order, read by the `n5` crate.
fn tutorial(name: &str) -> (Vec<u16>, Grid) {
    use n5::N5Reader;
    use n5::ndarray::N5NdarrayReader;
    let root = shared("data/bigstream-tutorial");
    let container = n5::filesystem::N5Filesystem::open(root.join(name)).unwrap();
    let attributes = container.get_dataset_attributes("lowres").unwrap();
    let dimensions = attributes.get_dimensions().to_vec();
    let whole = n5::ndarray::BoundingBox::new(
        n5::smallvec::smallvec![0; 3],
        dimensions.iter().copied().collect(),
    );
    // the `n5` crate returns arrays with axes x, y, z in Fortran order, which is the order z, y, x
    // in memory
    let array = container.read_ndarray::<u16>("lowres", &attributes, &whole).unwrap();
    let shape: [usize; 3] = std::array::from_fn(|a| dimensions[2 - a] as usize);
    let voxels = array.t().iter().copied().collect();
    (voxels, Grid::new(shape, [1.68, 1.84, 1.84], [0.0; 3]))
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_tutorials_volumes_come_out_as_in_the_release_of_2021() {
    let (moving, moving_grid) = tutorial("mov.n5");
    let (_, fixed_grid) = tutorial("fix.n5");
    let folder = shared("reference/bigstream/tutorial_global_2021");
    let outputs = read_npz(&folder.join("applied_crop.npz"));
    let crop = &outputs["crop_xyz"].values;
    let part = crate::geom::Box3::new(
        [crop[4], crop[2], crop[0]].map(|v| v as i64),
        [crop[5], crop[3], crop[1]].map(|v| v as i64),
    );
    let onto = fixed_grid.crop(&part);
    let arrays = read_npz(&folder.join("keypoints_matches_affine.npz"));
    let global = affine_xyz(&arrays["affine_xyz"].values);
    let local = read_npy(&folder.join("local_affines_xyz_blocks128.npy"));
    // BigStream applies the local affines before the global one, in the fixed space
    let overlap = [ramp_of_overlap(16.0); 3];
    let mut maps = local_affines(&local, fixed_grid, [128; 3], overlap);
    for map in &mut maps.affines {
        *map = map.then(&global);
    }
    for (name, step) in [
        ("global_applied", LocalStep::Affine(global)),
        ("global_local_applied", LocalStep::LocalAffines(Arc::new(maps))),
    ] {
        let chain = LocalChain { steps: vec![step] };
        let out: Vec<u16> =
            resample_block(&moving, &moving_grid, &chain, &onto, &Options::default());
        let out: Vec<f32> = out.into_iter().map(f32::from).collect();
        let want = outputs[name].reversed();
        let found = differ(&out, &want, &chain, &onto, &moving_grid, 1.0);
        assert!(found.compared * 2 > want.values.len(), "{name}: {} compared", found.compared);
        assert!(found.worst <= 1.0, "{name}: differs by {}", found.worst);
    }
}
