//! Tests with whole volumes: effects of blocks, unknown regions and units on the field.

use tempfile::TempDir;

use super::*;
use crate::blocks::Context;
use crate::geom::{Affine, Box3, FieldSource, Point, SourceError, Transform};
use crate::volume::{Codec, Dtype, Existing, FieldFile, Format, Output, Select, Spec};

/// A temporary folder with a pair of volumes.
struct Place(TempDir);

/// The result: the grid of the nodes, their vectors and the receipt.
struct Found {
    grid: Grid,
    vectors: Vec<[f32; 3]>,
    receipt: serde_json::Value,
}

impl Place {
    /// `fixed` and `moving` give the value at a voxel index.
    fn new(grid: Grid, fixed: impl Fn(Point) -> f32, moving: impl Fn(Point) -> f32) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.put("fixed.zarr", grid, fixed);
        place.put("moving.zarr", grid, moving);
        place
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn put(&self, name: &str, grid: Grid, value: impl Fn(Point) -> f32) {
        let voxels: Vec<f32> =
            grid.bounds().tiles([1; 3]).map(|v| value(v.min.map(|i| i as f64))).collect();
        let spec = Spec {
            grid,
            dtype: Dtype::F32,
            chunk: grid.shape,
            shard: None,
            codec: Codec::Raw,
            format: Format::Zarr3,
        };
        let output = Output::create(&self.at(name), &spec, Existing::Refuse).unwrap();
        output.write(&grid.bounds(), &voxels).unwrap();
    }

    fn aligned(&self, initial: &Chain, block: [usize; 3], options: &Options) -> Found {
        let [fixed, moving] = ["fixed.zarr", "moving.zarr"]
            .map(|name| Volume::open(&self.at(name), &Select::default()).unwrap());
        let out = self.at("field.zarr");
        let ctx = Context {
            existing: Existing::Overwrite,
            block_size: Some(block),
            allow_failed: 1.0,
            ..Context::default()
        };
        align(&fixed, &moving, Masks::default(), initial, &[], &out, options, &ctx).unwrap();
        let field = FieldFile::open(&out).unwrap();
        let grid = field.grid();
        let vectors = field.read(&grid.bounds()).unwrap();
        Found { grid, vectors, receipt: serde_json::to_value(ctx.receipt().to_json()).unwrap() }
    }
}

impl Found {
    /// Positions of the nodes and their vectors, in voxels of spacing `unit`.
    fn each(&self, unit: f64) -> impl Iterator<Item = (Point, [f64; 3])> {
        let [_, height, width] = self.grid.shape;
        self.vectors.iter().enumerate().map(move |(i, u)| {
            let node = [i / (height * width), i / width % height, i % width];
            let p = self.grid.position(node.map(|i| i as f64));
            (p.map(|v| v / unit), u.map(|v| f64::from(v) / unit))
        })
    }

    fn result(&self, name: &str) -> f64 {
        self.receipt["results"][name].as_f64().unwrap()
    }
}

/// A sum of waves of many lengths and directions, which has structure everywhere.
fn texture(p: Point) -> f32 {
    let waves = [
        [0.31, 0.42, 0.0, 0.3],
        [0.0, 0.37, -0.45, 1.1],
        [0.5, 0.0, 0.29, 2.0],
        [0.9, -0.5, 0.3, 0.1],
        [-0.4, 0.8, 0.7, 1.9],
        [0.6, 0.7, -0.8, 2.6],
        [0.2, 1.0, 0.4, 3.3],
    ];
    let sum: f64 =
        waves.iter().map(|[z, y, x, phase]| (z * p[0] + y * p[1] + x * p[2] + phase).sin()).sum();
    (100.0 + 20.0 * sum) as f32
}

fn grid(shape: [usize; 3], spacing: f64) -> Grid {
    Grid::new(shape, [spacing; 3], [0.0; 3])
}

fn options() -> Options {
    Options { overlap: 12, ..Options::default() }
}

fn identity() -> Chain {
    Chain { steps: vec![Transform::Affine(Affine::IDENTITY)] }
}

/// The greatest distance between `wanted` and the vectors of the nodes in `part`, voxels.
fn greatest_error(found: &Found, part: Box3, wanted: impl Fn(Point) -> Point) -> f64 {
    let far = found.each(1.0).filter(|(p, _)| {
        (0..3).all(|a| p[a] >= part.min[a] as f64 && p[a] <= part.max[a] as f64 - 1.0)
    });
    far.map(|(p, u)| {
        let w = wanted(p);
        (0..3).map(|c| (u[c] - w[c]).powi(2)).sum::<f64>().sqrt()
    })
    .fold(0.0, f64::max)
}

#[test]
fn blocks_without_structure_take_their_neighbours_field_and_are_named() {
    let shift = [0.9, -1.3, 1.6];
    let shape = [32, 32, 240];
    // The block in the middle is constant, including its halo. The texture fades out gradually
    // because a sharp edge lies between two voxels and would appear to move by whole voxels.
    let seen = |p: Point| {
        let fade = ((p[2] - 120.0).abs() - 38.0).clamp(0.0, 8.0) / 8.0;
        100.0 + (texture(p) - 100.0) * (fade * fade * (3.0 - 2.0 * fade)) as f32
    };
    let place =
        Place::new(grid(shape, 1.0), |p| seen(std::array::from_fn(|a| p[a] + shift[a])), seen);
    let found = place.aligned(&identity(), [32, 32, 48], &options());
    assert_eq!(found.receipt["blocks"]["empty"], 1, "{}", found.receipt["blocks"]);
    let middle = Box3::new([8, 8, 96], [24, 24, 144]);
    let error = greatest_error(&found, middle, |_| shift);
    assert!(error < 0.35, "{error}");
    assert_eq!(found.result("folded"), 0.0);
}

#[test]
fn nothing_leaks_from_one_face_to_the_opposite_one() {
    let shape = [24, 24, 96];
    // the last third is displaced; the first is not
    let bump = |x: f64| 2.5 * (0.5 + 0.5 * ((x - 72.0) / 8.0).tanh());
    let place = Place::new(grid(shape, 1.0), |p| texture([p[0], p[1] + bump(p[2]), p[2]]), texture);
    let found = place.aligned(&identity(), shape, &options());
    let error = greatest_error(&found, Box3::new([0; 3], [24, 24, 30]), |_| [0.0; 3]);
    assert!(error < 0.1, "{error}");
    let far =
        greatest_error(&found, Box3::new([6, 6, 84], [18, 18, 90]), |p| [0.0, bump(p[2]), 0.0]);
    assert!(far < 0.5, "{far}");
}

#[test]
fn the_same_voxels_in_another_unit_have_the_same_field_in_that_unit() {
    let moved = |p: Point| texture([p[0] + 0.8, p[1] - 1.1 * (0.1 * p[2]).sin(), p[2]]);
    let shape = [28, 30, 32];
    let found = [1.0, 1000.0].map(|unit| {
        let place = Place::new(grid(shape, unit), moved, texture);
        place.aligned(&identity(), shape, &options())
    });
    for ((_, one), (_, other)) in found[0].each(1.0).zip(found[1].each(1000.0)) {
        for c in 0..3 {
            assert!((one[c] - other[c]).abs() < 1e-3, "{one:?} {other:?}");
        }
    }
}

#[test]
fn volumes_that_have_nothing_in_common_do_not_fold_space() {
    let shape = [32, 34, 36];
    let place =
        Place::new(grid(shape, 1.0), |[z, y, x]| texture([3.0 * y, 2.0 * x, 1.5 * z]), texture);
    let options = Options { elasticity: 0.5, window: 1.0, min_evidence: 0.0, ..options() };
    let found = place.aligned(&identity(), shape, &options);
    assert!(found.result("jacobian_least") > 0.0 && found.result("folded") == 0.0);
    assert!(found.vectors.iter().flatten().any(|u| u.abs() > 0.5), "nothing moved");
}

#[test]
fn a_field_of_blocks_is_that_of_one_block() {
    let shape = [40, 64, 64];
    let moved = |p: Point| {
        let wave = |v: f64| (v * 0.07).sin();
        texture([p[0] + wave(p[1]), p[1] - 1.5 * wave(p[2] + 9.0), p[2] + 1.2 * wave(p[0] + p[1])])
    };
    let place = Place::new(grid(shape, 1.0), moved, texture);
    let one = place.aligned(&identity(), shape, &options());
    let many = place.aligned(&identity(), [40, 32, 32], &options());
    assert_eq!(many.result("blocks_aligned"), 4.0);
    let inner = Box3::new([6; 3], [34, 58, 58]);
    let wanted: Vec<_> = one.each(1.0).map(|(_, u)| u).collect();
    let mut apart: Vec<f64> = many
        .each(1.0)
        .zip(&wanted)
        .filter(|((p, _), _)| {
            (0..3).all(|a| p[a] >= inner.min[a] as f64 && p[a] < inner.max[a] as f64)
        })
        .map(|((_, u), w)| (0..3).map(|c| (u[c] - w[c]).powi(2)).sum::<f64>().sqrt())
        .collect();
    apart.sort_by(f64::total_cmp);
    let (median, most) = (apart[apart.len() / 2], apart[apart.len() - 1]);
    assert!(median < 0.02 && most < 0.25, "{median} {most}");
}

#[test]
fn where_the_initial_map_is_unknown_nothing_is_compared() {
    let shape = [32, 32, 64];
    let shift = [0.0, 1.2, -0.7];
    let place = Place::new(
        grid(shape, 1.0),
        |p| texture(std::array::from_fn(|a| p[a] + shift[a])),
        texture,
    );
    // a field that is NaN in one half
    let coarse = Grid::new([4, 4, 8], [32.0 / 3.0, 32.0 / 3.0, 64.0 / 7.0], [0.0; 3]);
    let bounds = coarse.bounds();
    let vectors =
        bounds.tiles([1; 3]).map(|node| [if node.min[2] > 4 { f32::NAN } else { 0.0 }; 3]);
    let field = crate::geom::Field { grid: coarse, vectors: vectors.collect() };
    let initial = Chain { steps: vec![Transform::Field(std::sync::Arc::new(field))] };
    let found = place.aligned(&initial, [32; 3], &options());
    assert!(found.vectors.iter().flatten().all(|u| u.is_finite()));
    let error = greatest_error(&found, Box3::new([8, 8, 8], [24, 24, 24]), |_| shift);
    assert!(error < 0.2, "{error}");
}

#[test]
fn hot_voxels_leave_the_field_where_it_was() {
    let shape = [40, 44, 48];
    let shift = [0.9, -1.3, 1.6];
    // One voxel in a thousand is hot: with two different seeds, at different places in the two
    // images; with equal seeds, at the same places.
    let hot = |seed: u64, p: Point| {
        let [z, y, x] = p.map(|v| v as u64);
        crate::metric::hash(seed, (z * 44 + y) * 48 + x).is_multiple_of(1000)
    };
    let moved = |p: Point| texture(std::array::from_fn(|a| p[a] + shift[a]));
    let error = |seeds: Option<[u64; 2]>| {
        let spoilt = |which: usize, p: Point, value: f32| {
            if seeds.is_some_and(|seeds| hot(seeds[which], p)) { 65_535.0 } else { value }
        };
        let place =
            Place::new(grid(shape, 1.0), |p| spoilt(0, p, moved(p)), |p| spoilt(1, p, texture(p)));
        let found = place.aligned(&identity(), shape, &options());
        greatest_error(&found, Box3::new([6; 3], [34, 38, 42]), |_| shift)
    };
    let clean = error(None);
    for seeds in [[1, 2], [3, 3]] {
        let spoilt = error(Some(seeds));
        assert!(spoilt < 2.0 * clean + 0.05, "{spoilt}, and {clean} without hot voxels");
    }
}

/// A field on a storage that fails.
struct FailingField(Grid);

impl FieldSource for FailingField {
    fn grid(&self) -> Grid {
        self.0
    }

    fn read(&self, _: &Box3) -> Result<Vec<[f32; 3]>, SourceError> {
        Err(Box::new(std::io::Error::from_raw_os_error(libc::EIO)))
    }

    fn fingerprint(&self) -> Result<String, SourceError> {
        Ok("failing".to_owned())
    }
}

#[test]
fn a_failing_storage_of_the_initial_map_is_a_transient_fault() {
    let grid = Grid::new([24; 3], [1.0; 3], [0.0; 3]);
    let wave = |p: Point| ((0.4 * p[0] + 0.6 * p[1]).sin() + (0.5 * p[2]).cos()) as f32;
    let place = Place::new(grid, wave, wave);
    let [fixed, moving] = ["fixed.zarr", "moving.zarr"]
        .map(|name| Volume::open(&place.at(name), &Select::default()).unwrap());
    let initial = Chain { steps: vec![Transform::Field(std::sync::Arc::new(FailingField(grid)))] };
    let (out, options, ctx) = (place.at("field.zarr"), Options::default(), Context::default());
    let failed = align(&fixed, &moving, Masks::default(), &initial, &[], &out, &options, &ctx);
    let error = failed.unwrap_err();
    assert!(blocks::is_passing(&error), "{error}");
}
