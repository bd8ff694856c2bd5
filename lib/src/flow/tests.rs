use super::*;
use crate::geom::{Affine, Transform};
use crate::volume::{Codec, Dtype, Existing, FieldFile, Format, Output, Select, Spec};

/// A smooth texture without a period.
fn texture(p: Point) -> f64 {
    let wave = |k: [f64; 3], phase: f64| (k[0] * p[0] + k[1] * p[1] + k[2] * p[2] + phase).sin();
    100.0
        + 20.0 * wave([0.31, 0.53, 0.17], 0.3)
        + 20.0 * wave([-0.21, 0.29, 0.61], 1.1)
        + 15.0 * wave([0.47, -0.37, 0.41], 2.0)
        + 15.0 * wave([0.13, 0.71, -0.67], 0.7)
        + 10.0 * wave([0.83, 0.11, 0.97], 1.9)
}

struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// A volume of the values of a function of the position.
    fn volume(&self, name: &str, grid: Grid, value: impl Fn(Point) -> f64) -> Volume {
        let (dtype, codec, format) = (Dtype::F32, Codec::Blosc, Format::Zarr3);
        let chunk = grid.shape.map(|n| n.min(64));
        let spec = Spec { grid, dtype, chunk, shard: None, codec, format };
        let voxels: Vec<f32> = grid
            .bounds()
            .tiles([1; 3])
            .map(|voxel| value(grid.position(voxel.min.map(|v| v as f64))) as f32)
            .collect();
        let out = Output::create(&self.at(name), &spec, Existing::Refuse).unwrap();
        out.write(&grid.bounds(), &voxels).unwrap();
        Volume::open(&self.at(name), &Select::default()).unwrap()
    }
}

fn planes(size: usize, stride: usize, radius: usize) -> Options {
    Options {
        patches: Patches {
            size: [1, size, size],
            stride: [1, stride, stride],
            radius: [0, radius, radius],
        },
        planes: true,
        distance: 0,
        through: false,
        limits: Limits::default(),
    }
}

fn run(fixed: &Volume, moving: &Volume, initial: &Chain, output: &str, options: &Options) {
    let ctx = Context::default();
    flow(fixed, moving, Masks::default(), initial, &[], output, options, &ctx).unwrap();
}

/// The median and the maximum distance between the vectors of a field and the true ones.
fn errors(location: &str, patches: usize, truth: impl Fn(Point) -> Point) -> [f64; 2] {
    let field = FieldFile::open(location).unwrap();
    let grid = crate::geom::FieldSource::grid(&field);
    let vectors = crate::geom::FieldSource::read(&field, &grid.bounds()).unwrap();
    let mut errors: Vec<f64> = grid
        .bounds()
        .tiles([1; 3])
        .zip(vectors)
        .filter(|(_, found)| found.iter().all(|v| !v.is_nan()))
        .map(|(node, found)| {
            let wanted = truth(grid.position(node.min.map(|v| v as f64)));
            (0..3).map(|a| (f64::from(found[a]) - wanted[a]).powi(2)).sum::<f64>().sqrt()
        })
        .collect();
    assert!(errors.len() * 10 > patches * 7 && errors.len() <= patches, "{} vectors", errors.len());
    errors.sort_by(f64::total_cmp);
    [errors[errors.len() / 2], errors[errors.len() - 1]]
}

#[test]
fn a_smooth_displacement_of_planes_is_found_to_a_twentieth_of_a_voxel() {
    let scene = Scene::new();
    let grid = Grid::new([2, 150, 170], [5.0, 0.5, 0.5], [0.0, 3.0, -2.0]);
    let shift = |p: Point| [0.0, 1.7 + 0.01 * p[2], -0.9 + 0.01 * p[1]];
    let fixed = scene.volume("fixed.zarr", grid, |p| texture([p[0], 2.0 * p[1], 2.0 * p[2]]));
    let moving = scene.volume("moving.zarr", grid, |p| {
        // the inverse of a shift that changes slowly, by fixed-point iteration
        let mut q = p;
        for _ in 0..20 {
            let u = shift(q);
            q = std::array::from_fn(|a| p[a] - u[a]);
        }
        texture([q[0], 2.0 * q[1], 2.0 * q[2]])
    });
    let output = scene.at("flow.zarr");
    run(&fixed, &moving, &Chain::default(), &output, &planes(32, 8, 8));
    let [median, most] = errors(&output, 2 * 15 * 18, shift);
    assert!(median < 0.025 && most < 0.1, "{median} {most} um");
}

#[test]
fn a_displacement_that_remains_after_an_initial_map_is_found_in_a_volume() {
    let scene = Scene::new();
    let grid = Grid::new([24, 40, 44], [1.0; 3], [0.0; 3]);
    let fixed = scene.volume("fixed.zarr", grid, texture);
    let apart: Point = [3.3, -12.4, 9.2];
    let moving =
        scene.volume("moving.zarr", grid, |p| texture(std::array::from_fn(|a| p[a] - apart[a])));
    let initial = Chain::affine(Affine::translation([2.0, -11.0, 9.0]));
    let options = Options {
        patches: Patches { size: [8, 16, 16], stride: [4, 8, 8], radius: [2, 3, 3] },
        planes: false,
        ..planes(1, 1, 1)
    };
    let output = scene.at("flow.zarr");
    run(&fixed, &moving, &initial, &output, &options);
    let [median, most] = errors(&output, 5 * 4 * 4, |_| [1.3, -1.4, 0.2]);
    assert!(median < 0.05 && most < 0.3, "{median} {most}");
    let chain = transform::read_chain(&[scene.at("flow.json")]).unwrap();
    assert!(matches!(chain.steps.as_slice(), [Transform::Field(_)]), "no steps were given");
}

#[test]
fn neighbouring_planes_of_a_stack_are_compared_at_a_distance() {
    let scene = Scene::new();
    let grid = Grid::new([4, 60, 60], [10.0, 1.0, 1.0], [0.0; 3]);
    // plane z is shifted by (z, -z) from plane 0
    let stack = scene.volume("stack.zarr", grid, |p| {
        let z = p[0] / 10.0;
        texture([0.0, p[1] + z, p[2] - z])
    });
    let output = scene.at("flow.zarr");
    run(&stack, &stack, &Chain::default(), &output, &Options { distance: 2, ..planes(24, 12, 6) });
    let field = FieldFile::open(&output).unwrap();
    let nodes = crate::geom::FieldSource::grid(&field);
    let vectors = crate::geom::FieldSource::read(&field, &nodes.bounds()).unwrap();
    let plane = nodes.shape[1] * nodes.shape[2];
    // the first two planes have no partner
    assert!(vectors[..2 * plane].iter().all(|v| v[2].is_nan()));
    let known = vectors[2 * plane..].iter().filter(|v| !v[2].is_nan());
    assert_eq!(known.clone().count(), 2 * 4 * 4);
    // the chain takes a plane to the one before the last
    let chain = transform::read_chain(&[scene.at("flow.json")]).unwrap();
    assert!(matches!(&chain.steps[1], Transform::Affine(map) if map.offset() == [-20.0, 0.0, 0.0]));
    for v in known {
        assert!((v[1] - 2.0).abs() < 0.1 && (v[2] + 2.0).abs() < 0.1, "{v:?}");
    }
}

#[test]
fn what_has_no_match_is_counted_and_an_empty_field_is_an_error() {
    let scene = Scene::new();
    let grid = Grid::plane([64, 64], [1.0; 2], [0.0; 2]);
    let image = scene.volume("image.zarr", grid, texture);
    let far = scene.volume("far.zarr", grid, |p| texture([0.0, p[1] + 30.0, p[2]]));
    let flat = scene.volume("flat.zarr", grid, |_| 7.0);
    for (moving, words) in [(&flat, "constant"), (&far, "--search")] {
        let output = scene.at(&format!("{}.flow.zarr", words.trim_matches('-')));
        let ctx = Context::default();
        let masks = Masks::default();
        let options = Options {
            limits: Limits { min_correlation: 0.98, ..Limits::default() },
            ..planes(32, 16, 4)
        };
        let none = flow(&image, moving, masks, &Chain::default(), &[], &output, &options, &ctx);
        let message = none.unwrap_err().to_string();
        assert!(message.contains("only 0 of 9 patches") && message.contains(words), "{message}");
    }
}

#[test]
fn options_that_no_image_fits_are_refused_by_name() {
    let grid = Grid::plane([64, 64], [1.0; 2], [0.0; 2]);
    let base = planes(32, 16, 4);
    let with = |change: fn(&mut Options)| {
        let mut options = base.clone();
        change(&mut options);
        options.check(&grid).unwrap_err().to_string()
    };
    assert!(base.check(&grid).is_ok());
    assert!(with(|o| o.patches.size[1] = 65).contains("--patch"));
    assert!(with(|o| o.patches.stride[2] = 0).contains("--stride"));
    assert!(with(|o| o.patches.radius = [0; 3]).contains("--search"));
    assert!(with(|o| o.patches.radius = [1, 4, 4]).contains("--planes"));
    assert!(with(|o| (o.planes, o.distance) = (false, 1)).contains("--distance"));
    assert!(with(|o| o.limits.max_ratio = f64::NAN).contains("--max-ratio"));
    assert!(with(|o| o.limits.min_correlation = 2.0).contains("--min-correlation"));
    assert!(with(|o| o.patches.size = [1, 3, 5]).contains("--patch"));
    assert!(with(|o| o.distance = 1).contains("--distance"));
}

#[test]
fn cleaning_merges_fields_of_other_patches_and_fills_what_is_left() {
    let scene = Scene::new();
    let grid = Grid::new([2, 120, 120], [5.0, 1.0, 1.0], [0.0; 3]);
    let fixed = scene.volume("fixed.zarr", grid, texture);
    // a shift of (2, -1), except in a region without structure and one with another shift
    let is_flat = |p: Point| p[1] > 70.0 && p[2] > 70.0;
    let is_wrong = |p: Point| (20.0..52.0).contains(&p[1]) && (20.0..44.0).contains(&p[2]);
    let moving = scene.volume("moving.zarr", grid, |p| match p {
        p if is_flat(p) => 50.0,
        p if is_wrong(p) => texture([p[0], p[1] + 3.0, p[2] - 3.0]),
        p => texture([p[0], p[1] - 2.0, p[2] + 1.0]),
    });
    let [fine, coarse] = ["fine.zarr", "coarse.zarr"].map(|name| scene.at(name));
    // the fine field is unknown where there is a mask
    let is_masked = |p: Point| (76.0..100.0).contains(&p[1]) && (16.0..50.0).contains(&p[2]);
    let mask = scene.volume("mask.zarr", grid, |p| f64::from(u8::from(!is_masked(p))));
    let masks = Masks { fixed: Some(&mask), moving: None };
    let (chain, ctx) = (Chain::default(), Context::default());
    flow(&fixed, &moving, masks, &chain, &[], &fine, &planes(16, 8, 6), &ctx).unwrap();
    run(&fixed, &moving, &Chain::default(), &coarse, &planes(40, 8, 6));
    let clean = |names: &[&str], output: &str, fill| {
        let limits = Limits {
            min_correlation: 0.85,
            max_deviation: 2.0,
            min_patches: 8,
            ..Limits::default()
        };
        let options = CleanOptions { limits, max_strain: 0.3, fill };
        let locations: Vec<String> = names.iter().map(|name| scene.at(name)).collect();
        clean_fields(&locations, &scene.at(output), &options, &Context::default()).unwrap();
        let field = FieldFile::open(&scene.at(output)).unwrap();
        crate::geom::FieldSource::read(&field, &field_bounds(&field)).unwrap()
    };
    let near = |v: &[f32; 3]| (v[1] - 2.0).abs() < 0.3 && (v[2] + 1.0).abs() < 0.3;
    let known = |vectors: &[[f32; 3]]| vectors.iter().filter(|v| !v[1].is_nan()).count();
    let one = clean(&["fine.json"], "one.zarr", false);
    assert!(one.iter().filter(|v| !v[1].is_nan()).all(near), "a wrong vector is left");
    let both = clean(&["fine.json", "coarse.zarr"], "both.zarr", false);
    assert!(both.iter().filter(|v| !v[1].is_nan()).all(near), "a wrong vector is left");
    assert!(
        known(&one) < known(&both) && known(&both) < both.len(),
        "{} {}",
        known(&one),
        known(&both)
    );
    let filled = clean(&["fine.json", "coarse.json"], "filled.zarr", true);
    assert!(filled.iter().all(near), "everywhere the same shift");
}

fn field_bounds(field: &FieldFile) -> Box3 {
    crate::geom::FieldSource::grid(field).bounds()
}

#[test]
fn the_nodes_reach_the_faces_of_a_volume_of_any_size() {
    for length in 40..90 {
        for (size, stride) in [(40, 10), (33, 7), (16, 16), (17, 40)] {
            let patches =
                Patches { size: [1, size, size], stride: [1, stride, stride], radius: [0, 4, 4] };
            let grid = Grid::plane([length, length + 3], [0.5; 2], [3.0, -1.0]);
            let nodes = patches.nodes(&grid);
            let [low, high] = nodes.extent(&nodes.bounds());
            let [first, last] = grid.extent(&grid.bounds());
            assert!(
                (1..3).all(|a| low[a] <= first[a] && high[a] >= last[a]),
                "{length} {size} {stride}"
            );
            let patch = Box3::new([0; 3], nodes.shape.map(|n| n as i64));
            assert_eq!(patches.among(&patch, grid.shape).shape(), patches.count(grid.shape));
        }
    }
}
