//! Tests that known maps are recovered, some of them in comparison with other tools.

use tempfile::TempDir;

use super::{InputVolume, Options, SearchOptions, align};
use crate::blocks::Context;
use crate::geom::{Affine, Box3, Grid, Model, Point};
use crate::golden::npz::read_npz;
use crate::golden::shared;
use crate::metric::{Image, SimilarityMeasure, hash, sample};
use crate::transform::{Step, read_chain, write_document};
use crate::volume::{Codec, Existing, FieldOutput, Format, Output, Select, Spec};

/// A temporary folder of volumes.
struct VolumeFolder(TempDir);

impl VolumeFolder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn volume(&self, name: &str, image: &Image) -> String {
        let spec = Spec {
            grid: image.grid,
            dtype: crate::volume::Dtype::F32,
            chunk: image.grid.shape,
            shard: None,
            codec: Codec::Raw,
            format: Format::Zarr3,
        };
        let output = Output::create(&self.at(name), &spec, Existing::Overwrite).unwrap();
        output.write(&image.grid.bounds(), &image.voxels).unwrap();
        self.at(name)
    }

    /// Aligns the two volumes of the folder; returns the map and the results in the receipt.
    fn aligned(&self, initial: &[String], options: &Options) -> (Affine, Results) {
        let ctx = Context { existing: Existing::Overwrite, ..Context::default() };
        let (fixed, moving) = (self.at("fixed.zarr"), self.at("moving.zarr"));
        let [fixed, moving] = [&fixed, &moving].map(|location| input(location));
        let output = self.at("out.json");
        align(&fixed, &moving, initial, output.as_ref(), options, &ctx).unwrap();
        let chain = read_chain(&[output]).unwrap();
        (chain.as_affine().unwrap(), Results(ctx.receipt().to_json()["results"].clone()))
    }
}

fn input(location: &str) -> InputVolume<'_> {
    InputVolume { location, select: Select::default(), mask: None }
}

struct Results(serde_json::Value);

impl Results {
    fn number(&self, name: &str) -> f64 {
        self.0[name].as_f64().unwrap()
    }
}

/// A scene of blobs at pseudorandom positions in micrometres, independent of the sampling.
fn scene(p: Point, planar: bool) -> f64 {
    let mut sum = 100.0;
    for blob in 0..70 {
        let at = |a: u64| 60.0 * (hash(blob, a) % 1000) as f64 / 1000.0;
        let width = 2.0 + (hash(blob, 3) % 100) as f64 / 30.0;
        let d2: f64 = (usize::from(planar)..3).map(|a| (p[a] - at(a as u64)).powi(2)).sum();
        sum += 300.0 * (-0.5 * d2 / (width * width)).exp();
    }
    sum
}

/// The image on `grid` that shows at `p` the point `map(p)` of the scene.
fn seen(grid: Grid, map: &Affine, planar: bool) -> Image {
    let bounds = grid.bounds();
    let voxels = bounds.tiles([1; 3]).map(|voxel| {
        let p = map.apply(grid.position(voxel.min.map(|v| v as f64)));
        scene(p, planar) as f32
    });
    Image { grid, voxels: voxels.collect() }
}

fn space() -> Grid {
    Grid::new([24, 46, 46], [2.0, 1.1, 1.1], [5.0, 4.0, 3.0])
}

fn plane() -> Grid {
    Grid::new([1, 64, 60], [1.0, 0.9, 0.9], [0.0, 1.0, 2.0])
}

/// The largest error of a map at the corners of a grid, micrometres.
fn error(found: &Affine, truth: &Affine, grid: &Grid) -> f64 {
    found.distance(truth, grid.extent(&grid.bounds()))
}

/// A map of the given model, close to the identity, about the middle of the scene.
fn truth(model: Model, planar: bool) -> Affine {
    let angle: f64 = 0.06;
    let (sin, cos) = angle.sin_cos();
    let turn = [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]];
    let linear = match model {
        Model::Translation => [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        Model::Rigid => turn,
        Model::Similarity if planar => {
            [[1.0, 0.0, 0.0], [0.0, 1.05 * cos, -1.05 * sin], [0.0, 1.05 * sin, 1.05 * cos]]
        }
        Model::Similarity => turn.map(|row| row.map(|v| 1.05 * v)),
        Model::Affine if planar => [[1.0, 0.0, 0.0], [0.0, 1.04, 0.03], [0.0, -0.05, 0.97]],
        Model::Affine | Model::PlanarAffine => {
            [[1.03, 0.02, -0.01], [0.03, 0.97, 0.04], [-0.02, 0.01, 1.02]]
        }
    };
    let shift = [if planar { 0.0 } else { 1.3 }, -1.7, 2.1];
    let middle = [if planar { 0.0 } else { 28.0 }, 30.0, 30.0];
    Affine::translation(middle.map(|m: f64| -m))
        .then(&Affine::from_parts(linear, shift))
        .then(&Affine::translation(middle))
}

#[test]
fn each_model_finds_its_map_with_each_measure_in_space_and_in_the_plane() {
    for planar in [false, true] {
        let grid = if planar { plane() } else { space() };
        for model in [Model::Translation, Model::Rigid, Model::Similarity, Model::Affine] {
            let place = VolumeFolder::new();
            let truth = truth(model, planar);
            // the fixed image shows at p what the moving one shows at truth(p)
            place.volume("fixed.zarr", &seen(grid, &truth, planar));
            place.volume("moving.zarr", &seen(grid, &Affine::IDENTITY, planar));
            for metric in [
                SimilarityMeasure::Correlation,
                SimilarityMeasure::MutualInformation,
                SimilarityMeasure::MeanSquares,
            ] {
                let options = Options { metric, model, ..Options::default() };
                let (found, results) = place.aligned(&[], &options);
                let error = error(&found, &truth, &grid);
                assert!(error < 0.15, "{model:?} {metric:?} planar {planar}: {error}");
                let overlap = results.number("overlap_after");
                assert!(results.0["accepted"] == true && overlap > 0.7, "{model:?}: {overlap}");
            }
        }
    }
}

#[test]
fn what_was_given_is_part_of_what_is_written() {
    let place = VolumeFolder::new();
    let truth = truth(Model::Affine, false);
    let far =
        Affine::from_parts([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, -1.0, 0.0]], [9.0, 8.0, 90.0]);
    place.volume("fixed.zarr", &seen(space(), &truth, false));
    // the moving volume is rotated and lies elsewhere
    let mut moving = seen(space(), &Affine::IDENTITY, false);
    let turned =
        Grid { origin: [far.apply(moving.grid.origin)[0], 4.0 + 8.0 - 1.0, 0.0], ..space() };
    let back = far.inverse().unwrap();
    moving = Image {
        grid: Grid { origin: [14.0, 11.0, 30.0], shape: [24, 46, 46], ..turned },
        voxels: moving.voxels,
    };
    let voxels = moving.grid.bounds();
    let grid = moving.grid;
    moving.voxels = voxels
        .tiles([1; 3])
        .map(|v| scene(back.apply(grid.position(v.min.map(|v| v as f64))), false) as f32)
        .collect();
    place.volume("moving.zarr", &moving);
    let initial = place.at("initial.json");
    write_document(initial.as_ref(), &[Step::Affine(far)]).unwrap();
    let (found, _) = place.aligned(&[initial], &Options::default());
    assert!(error(&found, &truth.then(&far), &space()) < 0.15);
}

#[test]
fn a_field_before_the_refinement_stays_in_the_chain() {
    let place = VolumeFolder::new();
    let wave = |p: Point| 1.5 * (p[2] * 0.1).sin();
    let truth = truth(Model::Rigid, false);
    let grid = space();
    let bounds = grid.bounds();
    let voxels = bounds.tiles([1; 3]).map(|voxel| {
        let p = grid.position(voxel.min.map(|v| v as f64));
        scene(truth.apply([p[0], p[1] + wave(p), p[2]]), false) as f32
    });
    place.volume("fixed.zarr", &Image { grid, voxels: voxels.collect() });
    place.volume("moving.zarr", &seen(grid, &Affine::IDENTITY, false));
    let field = place.at("field.zarr");
    let output = FieldOutput::create(&field, &grid, grid.shape, Existing::Refuse).unwrap();
    let vectors: Vec<[f32; 3]> = bounds
        .tiles([1; 3])
        .map(|voxel| [0.0, wave(grid.position(voxel.min.map(|v| v as f64))) as f32, 0.0])
        .collect();
    output.write(&bounds, &vectors).unwrap();
    let ctx = Context::default();
    let (fixed, moving) = (place.at("fixed.zarr"), place.at("moving.zarr"));
    let out = place.at("out.json");
    let options = Options { model: Model::Rigid, ..Options::default() };
    let initial = [field];
    align(&input(&fixed), &input(&moving), &initial, out.as_ref(), &options, &ctx).unwrap();
    let chain = read_chain(&[out]).unwrap();
    assert_eq!(chain.steps.len(), 2);
    let (low, high) = ([10.0, 10.0, 10.0], [50.0, 45.0, 45.0]);
    let (local, _) = chain.localise([low, high]).unwrap();
    for p in [low, high, [30.0, 20.0, 40.0]] {
        let wanted = truth.apply([p[0], p[1] + wave(p), p[2]]);
        let found = local.apply(p);
        for a in 0..3 {
            assert!((found[a] - wanted[a]).abs() < 0.15, "{found:?} {wanted:?}");
        }
    }
}

#[test]
fn unknown_voxels_are_left_out() {
    let place = VolumeFolder::new();
    let truth = truth(Model::Affine, false);
    let mut fixed = seen(space(), &truth, false);
    let mut moving = seen(space(), &Affine::IDENTITY, false);
    // a block of unknown voxels in one image, scattered ones in the other
    for (i, v) in fixed.voxels.iter_mut().enumerate() {
        if i / 46 % 46 < 12 {
            *v = f32::NAN;
        }
    }
    for (i, v) in moving.voxels.iter_mut().enumerate() {
        if hash(1, i as u64).is_multiple_of(400) {
            *v = f32::NAN;
        }
    }
    place.volume("fixed.zarr", &fixed);
    place.volume("moving.zarr", &moving);
    let (found, _) = place.aligned(&[], &Options::default());
    assert!(error(&found, &truth, &space()) < 0.4);
}

#[test]
fn masks_hide_what_would_mislead() {
    let place = VolumeFolder::new();
    let truth = truth(Model::Translation, false);
    let mut fixed = seen(space(), &truth, false);
    let moving = seen(space(), &Affine::IDENTITY, false);
    // a bright bar that is not in the moving volume
    let bar = |i: usize| i % 46 > 30;
    for (i, v) in fixed.voxels.iter_mut().enumerate() {
        if bar(i) {
            *v = 2000.0 + (i % 7) as f32;
        }
    }
    let mut mask = fixed.clone();
    mask.voxels.iter_mut().enumerate().for_each(|(i, v)| *v = if bar(i) { 0.0 } else { 1.0 });
    let [fixed, moving, mask] =
        [("fixed.zarr", &fixed), ("moving.zarr", &moving), ("mask.zarr", &mask)]
            .map(|(name, image)| place.volume(name, image));
    let options = Options { model: Model::Translation, ..Options::default() };
    let out = place.at("out.json");
    let masked = InputVolume { mask: Some(&mask), ..input(&fixed) };
    let ctx = Context::default();
    align(&masked, &input(&moving), &[], out.as_ref(), &options, &ctx).unwrap();
    let found = read_chain(&[out]).unwrap().as_affine().unwrap();
    assert!(error(&found, &truth, &space()) < 0.15);
}

fn search(starts: usize) -> SearchOptions {
    SearchOptions {
        starts,
        max_rotation: std::f64::consts::PI,
        max_translation: None,
        scale_range: [0.5, 2.0],
        allow_reflection: true,
        keep: 24,
    }
}

#[test]
fn a_search_finds_a_turned_scaled_mirrored_plane_the_same_for_any_threads() {
    let place = VolumeFolder::new();
    let (sin, cos) = 2.0f64.sin_cos();
    // mirrored, turned by 115 degrees, 1.4 times as large
    let linear = [[1.0, 0.0, 0.0], [0.0, 1.4 * cos, 1.4 * sin], [0.0, 1.4 * sin, -1.4 * cos]];
    let truth = Affine::translation([0.0, -25.0, -25.0])
        .then(&Affine::from_parts(linear, [0.0, 31.0, 29.0]));
    let small = Grid::new([1, 40, 40], [1.0, 0.9, 0.9], [0.0, 8.0, 8.0]);
    place.volume("fixed.zarr", &seen(small, &truth, true));
    place.volume("moving.zarr", &seen(plane(), &Affine::IDENTITY, true));
    let options =
        Options { model: Model::Similarity, search: Some(search(400)), ..Options::default() };
    let once = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| place.aligned(&[], &options))
    };
    let (found, results) = once(1);
    let error = error(&found, &truth, &small);
    assert!(error < 0.3, "{error}");
    assert!(found.determinant() < 0.0 && results.0["search"]["placed"].as_u64() > Some(300));
    let (again, other) = once(3);
    assert_eq!(found, again);
    assert_eq!(results.0, other.0);
}

#[test]
fn a_search_finds_a_turned_volume() {
    let place = VolumeFolder::new();
    let turn = Affine::from_parts(
        // 120 degrees about the diagonal, and mirrored
        [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [-1.0, 0.0, 0.0]],
        [0.0, 0.0, 60.0],
    );
    let cube = Grid::new([36, 36, 36], [1.6; 3], [2.0; 3]);
    place.volume("fixed.zarr", &seen(cube, &turn, false));
    place.volume("moving.zarr", &seen(cube, &Affine::IDENTITY, false));
    let what = SearchOptions { scale_range: [1.0, 1.0], ..search(600) };
    let options = Options { model: Model::Rigid, search: Some(what), ..Options::default() };
    let (found, _) = place.aligned(&[], &options);
    let error = error(&found, &turn, &cube);
    assert!(error < 0.3, "{error}");
}

#[test]
fn too_little_memory_is_met_by_a_coarser_resolution_or_named() {
    let place = VolumeFolder::new();
    let truth = truth(Model::Rigid, false);
    let fixed = place.volume("fixed.zarr", &seen(space(), &truth, false));
    let moving = place.volume("moving.zarr", &seen(space(), &Affine::IDENTITY, false));
    let out = place.at("out.json");
    let options = Options { model: Model::Rigid, ..Options::default() };
    let run = |memory| {
        let ctx = Context { existing: Existing::Overwrite, memory, ..Context::default() };
        let done = align(&input(&fixed), &input(&moving), &[], out.as_ref(), &options, &ctx);
        (done, ctx.receipt().to_json()["results"]["finest_resolution_um"].as_f64())
    };
    let (plenty, finest) = run(1 << 30);
    plenty.unwrap();
    assert_eq!(finest, Some(1.1));
    // slightly more than threads and caches need
    let (little, coarser) = run(132_000_000);
    little.unwrap();
    assert_eq!(coarser, Some(2.2));
    let found = read_chain(std::slice::from_ref(&out)).unwrap().as_affine().unwrap();
    assert!(error(&found, &truth, &space()) < 0.3);
    let refused = run(1 << 20).0.unwrap_err().to_string();
    assert!(refused.contains("--memory"), "{refused}");
}

/// The correlation of `fixed` with `moving` resampled through `map`, without the outer 8 voxels;
/// computed as in the reference results.
fn interior(fixed: &Image, moving: &Image, map: &Affine) -> f64 {
    let part = fixed.grid.bounds().grow([-8; 3]);
    let [_, ny, nx] = fixed.grid.shape;
    let pairs: Vec<[f64; 2]> = part
        .tiles([1; 3])
        .map(|voxel: Box3| {
            let [z, y, x] = voxel.min.map(|v| v as usize);
            let q = map.apply(fixed.grid.position(voxel.min.map(|v| v as f64)));
            let (value, _) = sample(moving, moving.grid.index(q).map(|v| v as f32));
            let value = if value.is_nan() { 0.0 } else { value };
            [f64::from(fixed.voxels[(z * ny + y) * nx + x]), f64::from(value)]
        })
        .collect();
    let n = pairs.len() as f64;
    let mean = |k: usize| pairs.iter().map(|p| p[k]).sum::<f64>() / n;
    let (a, b) = (mean(0), mean(1));
    let sum = |i: usize, j: usize| {
        let of = [a, b];
        pairs.iter().map(|p| (p[i] - of[i]) * (p[j] - of[j])).sum::<f64>()
    };
    sum(0, 1) / (sum(0, 0) * sum(1, 1)).sqrt()
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_crop_of_the_tutorial_is_aligned_better_than_simpleitk_aligns_it() {
    let path = shared("reference/bigstream/greedypy/inputs.npz");
    let peer = shared("reference/bigstream/simpleitk_align/outputs.npz");
    let arrays = read_npz(&path);
    let image = |name: &str| {
        let array = arrays[name].reversed();
        let grid = Grid::new(array.shape[..3].try_into().unwrap(), [0.84, 0.92, 0.92], [0.0; 3]);
        Image { grid, voxels: array.values.iter().map(|v| *v as f32).collect() }
    };
    let (fixed, moving) = (image("fixed_xyz"), image("moving_aligned_xyz"));
    let peer = read_npz(&peer)["affine_ncc"].values.clone();
    assert!((interior(&fixed, &moving, &Affine::IDENTITY) - peer[0]).abs() < 1e-4);
    let place = VolumeFolder::new();
    place.volume("fixed.zarr", &fixed);
    place.volume("moving.zarr", &moving);
    for metric in [SimilarityMeasure::Correlation, SimilarityMeasure::MutualInformation] {
        let (found, _) = place.aligned(&[], &Options { metric, ..Options::default() });
        let reached = interior(&fixed, &moving, &found);
        assert!(reached >= 0.913 && reached > peer[1], "{metric:?}: {reached}");
    }
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn an_expanded_mirrored_sample_is_aligned_in_either_direction() {
    let before = shared("data/exm-pre-post-a/pre_expansion.tif");
    let after = before.with_file_name("post_expansion.tif");
    let select = Select { spacing: Some([1.0, 3.107, 3.107]), ..Select::default() };
    let place = VolumeFolder::new();
    let out = place.at("out.json");
    for (fixed, moving, factor) in [(&before, &after, 4.17276), (&after, &before, 1.0 / 4.17276)] {
        let [fixed, moving] = [fixed, moving].map(|path| InputVolume {
            location: path.to_str().unwrap(),
            select: select.clone(),
            mask: None,
        });
        let what = SearchOptions { scale_range: [0.2, 5.0], ..search(1000) };
        let options =
            Options { model: Model::Similarity, search: Some(what), ..Options::default() };
        let ctx = Context { existing: Existing::Overwrite, ..Context::default() };
        align(&fixed, &moving, &[], out.as_ref(), &options, &ctx).unwrap();
        let found = read_chain(std::slice::from_ref(&out)).unwrap().as_affine().unwrap();
        // z is unchanged, so the determinant is the square of the in-plane scale
        assert!(found.determinant() < 0.0);
        let scale = found.determinant().abs().sqrt();
        assert!((scale / factor - 1.0).abs() < 0.005, "{scale} {factor}");
    }
}
