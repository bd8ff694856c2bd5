use std::sync::Arc;

use super::*;
use crate::geom::{Affine, Field};
use crate::volume::FieldFile;
use crate::warp::points;

const GRID: Grid =
    Grid { shape: [20, 24, 28], spacing: [1.0, 0.8, 0.8], origin: [3.0, -2.0, 0.5], planar: false };

fn bend(grid: Grid, strength: f64) -> Field {
    let shape = grid.shape;
    let vectors = (0..grid.bounds().len())
        .map(|i| {
            let node = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
            let wave = |a: usize, turns: f64| {
                (turns * std::f64::consts::PI * node[a] as f64 / shape[a].max(2) as f64).sin()
            };
            let flat = shape[0] == 1;
            let s = strength;
            [
                if flat { 0.0 } else { (s * wave(2, 2.0)) as f32 },
                (s * wave(2, 1.0)) as f32,
                (-s * wave(1, 2.0)) as f32,
            ]
        })
        .collect();
    Field { grid, vectors }
}

fn chain(grid: Grid, strength: f64) -> Chain {
    let map = Affine::from_parts(
        [[1.05, 0.0, 0.02], [0.0, 0.97, 0.03], [0.0, -0.03, 1.02]],
        [1.0, -0.5, 0.25],
    );
    let map = if grid.shape[0] == 1 { Affine::translation([0.0, 0.3, -0.2]) } else { map };
    Chain { steps: vec![Transform::Field(Arc::new(bend(grid, strength))), Transform::Affine(map)] }
}

fn inverted(chain: &Chain, grid: &Grid, ctx: &Context) -> (Vec<[f32; 3]>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("inverse.zarr").to_str().unwrap().to_owned();
    let options = Options { transform: "bend".into(), tolerance: 1e-4 };
    invert(chain, grid, &location, &options, ctx).unwrap();
    assert!(FieldFile::open(&location).unwrap_err().to_string().contains("moving-to-fixed"));
    let field = FieldFile::open_inverse(&location).unwrap();
    (field.read(&grid.bounds()).unwrap(), folder)
}

#[test]
fn every_node_is_taken_back_to_where_it_came_from() {
    let flat = Grid { shape: [1, 50, 60], ..GRID };
    for grid in [GRID, flat] {
        let chain = chain(grid, 1.5);
        let (vectors, _folder) = inverted(&chain, &grid, &Context::default());
        let nodes: Vec<Point> = (0..vectors.len())
            .map(|i| {
                let [_, h, w] = grid.shape;
                grid.position([i / (h * w), i / w % h, i % w].map(|v| v as f64))
            })
            .collect();
        // the reference result
        let wanted = points::inverse(&chain, &nodes).unwrap();
        let mut known = 0;
        for (i, y) in nodes.iter().enumerate() {
            let q = wanted.points[i];
            let v = vectors[i].map(f64::from);
            if v[0].is_nan() {
                continue;
            }
            known += 1;
            // at the edge of the field, two points can map to the same node
            let at = grid.index(q);
            let inner = |a: usize| {
                grid.shape[a] == 1 || (at[a] > 1.0 && at[a] < grid.shape[a] as f64 - 2.0)
            };
            if !(0..3).all(inner) {
                continue;
            }
            for a in 0..3 {
                assert!((y[a] + v[a] - q[a]).abs() < 1e-3, "node {i}: {v:?}, wanted {q:?} - {y:?}");
            }
        }
        assert!(known * 10 > 8 * nodes.len(), "{known} of {}", nodes.len());
    }
}

#[test]
fn blocks_of_any_size_and_threads_give_the_same() {
    let chain = chain(GRID, 1.0);
    let (whole, _a) = inverted(&chain, &GRID, &Context::default());
    let ctx = Context { threads: 2, ..Context::default() };
    let (again, _b) = inverted(&chain, &GRID, &ctx);
    let bits = |v: &[[f32; 3]]| v.as_flattened().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&whole), bits(&again));
}

#[test]
fn where_a_map_folds_there_is_no_inverse() {
    let chain = chain(GRID, 6.0);
    let ctx = Context::default();
    let (vectors, _folder) = inverted(&chain, &GRID, &ctx);
    let unknown = vectors.iter().filter(|v| v[0].is_nan()).count();
    assert!(unknown > 0);
    let receipt = ctx.receipt();
    assert_eq!(receipt.results["without_inverse"], serde_json::json!(unknown));
}

#[test]
fn unknown_parts_of_a_field_leave_unknown_parts_of_its_inverse() {
    let mut field = bend(GRID, 0.5);
    let holes = 10 * 24 * 28..11 * 24 * 28;
    field.vectors[holes].fill([f32::NAN; 3]);
    let chain = Chain { steps: vec![Transform::Field(Arc::new(field))] };
    let (vectors, _folder) = inverted(&chain, &GRID, &Context::default());
    assert!(vectors[10 * 24 * 28 + 12 * 28 + 14][0].is_nan());
    assert!(vectors[3 * 24 * 28 + 12 * 28 + 14][0].is_finite());
}

#[test]
fn an_inverse_is_unknown_outside_its_grid_in_images_and_for_points() {
    let chain = Chain { steps: vec![Transform::Field(Arc::new(bend(GRID, 0.5)))] };
    let (_, folder) = inverted(&chain, &GRID, &Context::default());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let field = FieldFile::open_inverse(&at("inverse.zarr")).unwrap();
    let inverse = Chain { steps: vec![Transform::Field(Arc::new(field))] };
    let (inside, outside) = (GRID.position([9.0, 11.0, 13.0]), GRID.position([9.0, 11.0, 29.0]));
    let images = points::forward(&inverse, &[inside, outside]).unwrap();
    assert!(images[0].iter().all(|v| v.is_finite()));
    assert!(images[1].iter().all(|v| v.is_nan()));

    // The volume is twice as long along x as the grid of the inverse, and some of its blocks lie
    // wholly outside this grid.
    let wide = Grid { shape: [20, 24, 56], ..GRID };
    let (dtype, codec, format) = (volume::Dtype::U8, volume::Codec::Raw, volume::Format::Zarr3);
    let spec = volume::Spec { grid: wide, dtype, chunk: [20, 24, 8], shard: None, codec, format };
    let ones = vec![1u8; wide.bounds().len()];
    let made = volume::Output::create(&at("ones.zarr"), &spec, volume::Existing::Refuse).unwrap();
    made.write(&wide.bounds(), &ones).unwrap();
    let ones = volume::Volume::open(&at("ones.zarr"), &volume::Select::default()).unwrap();
    let options = warp::Options { fill: 7.0, ..warp::Options::default() };
    let ctx = Context { block_size: Some([20, 24, 8]), ..Context::default() };
    warp::resample(&[ones], &inverse, &at("out.zarr"), &spec, &options, &ctx).unwrap();
    let out = volume::Volume::open(&at("out.zarr"), &volume::Select::default()).unwrap();
    let out = out.read::<u8>(&wide.bounds()).unwrap();
    let unknown = out.iter().map(|v| usize::from(*v == 7)).sum::<usize>();
    assert!((0..20 * 24).all(|row| out[row * 56 + 29..(row + 1) * 56].iter().all(|v| *v == 7)));
    assert_eq!(out[(9 * 24 + 11) * 56 + 13], 1);
    assert_eq!(ctx.receipt().results["voxels_without_transform"], serde_json::json!(unknown));
}

#[test]
fn a_grid_far_away_and_a_chain_without_a_grid_are_named() {
    let options = Options { transform: "m.txt".into(), tolerance: 1e-4 };
    let none = Chain::affine(Affine::IDENTITY);
    let message = grid_of(&none, &options).unwrap_err().to_string();
    assert!(message.contains("m.txt") && message.contains("--onto"), "{message}");
    let found = grid_of(&chain(GRID, 1.0), &options).unwrap();
    assert!(found.shape[0] >= 20 && found.spacing == GRID.spacing);
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("i.zarr").to_str().unwrap().to_owned();
    let mut lost = bend(GRID, 1.0);
    lost.vectors.fill([f32::NAN; 3]);
    let chain = Chain { steps: vec![Transform::Field(Arc::new(lost))] };
    let error = invert(&chain, &GRID, &location, &options, &Context::default()).unwrap_err();
    assert!(error.to_string().contains("no node"), "{error}");
}
