//! Tests with volumes on disk.

use std::sync::Arc;

use super::*;
use crate::geom::{Affine, Field, LocalAffines};
use crate::volume::{Codec, Dtype, Existing, Format, Select};

fn grid() -> Grid {
    Grid::new([30, 40, 50], [1.5, 1.0, 1.0], [0.0, 10.0, 0.0])
}

fn spec(grid: Grid, dtype: Dtype) -> Spec {
    let (codec, format) = (Codec::Blosc, Format::Zarr3);
    Spec { grid, dtype, chunk: [16; 3], shard: None, codec, format }
}

fn moving(folder: &std::path::Path) -> (Volume, Vec<u16>) {
    let location = folder.join("moving.zarr").display().to_string();
    let out = Output::create(&location, &spec(grid(), Dtype::U16), Existing::Refuse).unwrap();
    let value = |[z, y, x]: [i64; 3]| (1000 + z * 700 + y * y * 3 + x * 31 % 900) as u16;
    let all = |part: &Box3| part.tiles([1; 3]).map(|v| value(v.min)).collect::<Vec<_>>();
    for part in grid().bounds().tiles([16; 3]) {
        out.write(&part, &all(&part)).unwrap();
    }
    (Volume::open(&location, &Select::default()).unwrap(), all(&grid().bounds()))
}

fn turned() -> Affine {
    let linear = [[0.98, 0.05, 0.0], [-0.04, 1.02, 0.03], [0.01, -0.02, 0.97]];
    Affine::from_parts(linear, [1.2, -2.5, 3.0])
}

#[test]
fn a_volume_is_resampled_alike_by_blocks_of_any_size_and_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let (moving, voxels) = moving(folder.path());
    let field_grid = Grid::new([8, 8, 8], [7.0, 6.0, 8.0], [0.0, 8.0, 0.0]);
    let vectors = (0..512).map(|i| [0.3 * (i % 5) as f32, -0.4, 0.1 * (i % 11) as f32]).collect();
    let field = Arc::new(Field { grid: field_grid, vectors });
    let chain = Chain { steps: vec![Transform::Field(field), Transform::Affine(turned())] };
    let onto = Grid::new([25, 35, 45], [1.4, 1.1, 1.0], [2.0, 9.0, 1.0]);
    let (local, _) = chain.localise(onto.extent(&onto.bounds())).unwrap();
    for interpolation in [
        Interpolation::Nearest,
        Interpolation::Linear,
        Interpolation::Cubic,
        Interpolation::Lanczos,
    ] {
        let options = Options { interpolation, fill: 7.0, ..Options::default() };
        let want: Vec<u16> = resample_block(&voxels, &grid(), &local, &onto, &options);
        for (i, block_size) in [None, Some([16, 32, 16]), Some([64; 3])].into_iter().enumerate() {
            let to = folder.path().join(format!("{interpolation:?}{i}.zarr")).display().to_string();
            let ctx = Context { block_size, threads: 2, ..Context::default() };
            let spec = spec(onto, Dtype::U16);
            resample(std::slice::from_ref(&moving), &chain, &to, &spec, &options, &ctx).unwrap();
            let out = Volume::open(&to, &Select::default()).unwrap();
            assert_eq!(out.grid(), onto);
            let got = out.read::<u16>(&onto.bounds()).unwrap();
            let difference = got.iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max();
            // a block's halo truncates the impulse response of the spline filter, which can change
            // the rounding
            let allowed = u16::from(interpolation == Interpolation::Cubic);
            assert!(
                difference <= Some(allowed),
                "{interpolation:?} {block_size:?}: {difference:?}"
            );
        }
    }
}

#[test]
fn what_lies_outside_is_filled_and_blocks_without_data_are_called_empty() {
    let folder = tempfile::tempdir().unwrap();
    let (moving, _) = moving(folder.path());
    let away = Chain::affine(Affine::translation([0.0, 500.0, 0.0]));
    let to = folder.path().join("away.zarr").display().to_string();
    let options = Options { fill: -1.5, ..Options::default() };
    let ctx = Context { block_size: Some([16, 48, 64]), ..Context::default() };
    resample(std::slice::from_ref(&moving), &away, &to, &spec(grid(), Dtype::F32), &options, &ctx)
        .unwrap();
    let out = Volume::open(&to, &Select::default()).unwrap();
    let voxels = out.read::<f32>(&grid().bounds()).unwrap();
    assert!(voxels.iter().all(|v| *v == -1.5));
    assert_eq!(ctx.receipt.lock().unwrap().blocks.empty, 2);
}

#[test]
fn a_plan_creates_nothing_and_a_block_that_does_not_fit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (moving, _) = moving(folder.path());
    let chain = Chain::affine(turned());
    let (to, options) = (folder.path().join("x.zarr"), Options::default());
    let run = |ctx: &Context| {
        let spec = spec(grid(), Dtype::U16);
        resample(
            std::slice::from_ref(&moving),
            &chain,
            &to.display().to_string(),
            &spec,
            &options,
            ctx,
        )
    };
    run(&Context { plan_only: true, ..Context::default() }).unwrap();
    let small = Context { memory: 1000, ..Context::default() };
    let message = run(&small).unwrap_err().to_string();
    assert!(message.contains("--memory"), "{message}");
    let odd_block = Context { block_size: Some([10, 16, 16]), ..Context::default() };
    let message = run(&odd_block).unwrap_err().to_string();
    assert!(message.contains("multiple"), "{message}");
    assert!(!to.exists());
}

/// Without a replacement of non-finite voxels, the recursive filter of the spline would spread one
/// NaN over the whole block.
#[test]
fn unknown_voxels_stay_local_in_every_interpolation_whatever_the_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let grid = Grid::new([40, 44, 48], [1.0; 3], [0.0; 3]);
    let bounds = grid.bounds();
    let value =
        |[z, y, x]: [i64; 3]| (900 + z * 7 % 31 * 9 + y * 5 % 29 * 8 + x * 3 % 37 * 7) as f32;
    let clean: Vec<f32> = bounds.tiles([1; 3]).map(|v| value(v.min)).collect();
    // one NaN, one infinite voxel, and a corner in which all voxels are NaN
    let holes = [Box3::new([20; 3], [21; 3]), Box3::new([8, 30, 30], [9, 31, 31])];
    let corner = Box3::new([0, 0, 36], [12, 14, 48]);
    let hole = |at: [i64; 3]| match at {
        at if holes[1].contains(at) => Some(f32::INFINITY),
        at if holes[0].contains(at) || corner.contains(at) => Some(f32::NAN),
        _ => None,
    };
    let write = |name: &str, voxel: &dyn Fn([i64; 3]) -> f32| {
        let out = Output::create(&place(name), &spec(grid, Dtype::F32), Existing::Refuse).unwrap();
        let voxels: Vec<f32> = bounds.tiles([1; 3]).map(|v| voxel(v.min)).collect();
        for part in bounds.tiles([16; 3]) {
            let values: Vec<f32> = part
                .tiles([1; 3])
                .map(|v| voxels[((v.min[0] * 44 + v.min[1]) * 48 + v.min[2]) as usize])
                .collect();
            out.write(&part, &values).unwrap();
        }
        Volume::open(&place(name), &Select::default()).unwrap()
    };
    let moving = write("moving.zarr", &|at| hole(at).unwrap_or_else(|| value(at)));
    let chain = Chain::affine(Affine::translation([0.3, 0.2, 0.1]));
    let (local, _) = chain.localise(grid.extent(&bounds)).unwrap();
    for interpolation in [
        Interpolation::Nearest,
        Interpolation::Linear,
        Interpolation::Cubic,
        Interpolation::Lanczos,
    ] {
        let options = Options { interpolation, ..Options::default() };
        let want: Vec<f32> = resample_block(&clean, &grid, &local, &grid, &options);
        let mut first: Option<Vec<f32>> = None;
        for block in [16, 32, 64] {
            let (to, ctx) = (place(&format!("{interpolation:?}{block}.zarr")), Context::default());
            let ctx = Context { block_size: Some([block; 3]), ..ctx };
            let spec = spec(grid, Dtype::F32);
            resample(std::slice::from_ref(&moving), &chain, &to, &spec, &options, &ctx).unwrap();
            let out = Volume::open(&to, &Select::default()).unwrap();
            let got = out.read::<f32>(&bounds).unwrap();
            let mut unknown = 0;
            for ((voxel, got), want) in bounds.tiles([1; 3]).zip(&got).zip(&want) {
                let away = |part: &Box3| {
                    let difference = |a: usize| {
                        (part.min[a] - voxel.min[a]).max(voxel.min[a] + 1 - part.max[a]).max(0)
                    };
                    (0..3).map(difference).max().unwrap_or(0)
                };
                let near = holes.iter().chain([&corner]).map(away).min().unwrap_or(0);
                unknown += usize::from(!got.is_finite());
                assert!(got.is_finite() || near <= 3, "{interpolation:?} at {:?}", voxel.min);
                assert!(near > 0 || !got.is_finite() || interpolation != Interpolation::Cubic);
                let close = (got - want).abs() < if near > 12 { 1e-2 } else { 60.0 };
                assert!(!got.is_finite() || close, "{:?}: {got} {want}", voxel.min);
            }
            assert!(unknown > corner.len() / 2, "{interpolation:?}: {unknown}");
            let alike = |(a, b): (&f32, &f32)| (a.is_nan() && b.is_nan()) || (a - b).abs() < 5e-3;
            let first = first.get_or_insert_with(|| got.clone());
            let same = first.iter().zip(&got).filter(|(a, b)| a.is_finite() || b.is_finite());
            assert!(same.clone().all(alike), "{interpolation:?} in blocks of {block}");
        }
    }
}

#[test]
fn another_type_takes_rounded_and_clamped_values() {
    let folder = tempfile::tempdir().unwrap();
    let (moving, voxels) = moving(folder.path());
    let chain = Chain::affine(Affine::IDENTITY);
    for interpolation in [Interpolation::Nearest, Interpolation::Linear] {
        let to = folder.path().join(format!("{interpolation:?}.zarr")).display().to_string();
        let options = Options { interpolation, ..Options::default() };
        let ctx = Context::default();
        resample(
            std::slice::from_ref(&moving),
            &chain,
            &to,
            &spec(grid(), Dtype::U8),
            &options,
            &ctx,
        )
        .unwrap();
        let out = Volume::open(&to, &Select::default()).unwrap();
        let got = out.read::<u8>(&grid().bounds()).unwrap();
        assert!(got.iter().zip(&voxels).all(|(a, b)| u16::from(*a) == (*b).min(255)));
    }
}

/// A chain of a sinusoidal field of amplitude `height` (micrometres), local affines and one affine.
fn mixture(height: f32) -> Chain {
    let grid = Grid::new([12, 12, 12], [5.0, 4.0, 5.0], [-2.0, 6.0, -2.0]);
    let vectors = (0..1728).map(|i| {
        let [z, y, x] = [i / 144, i / 12 % 12, i % 12].map(|v| v as f32);
        [(y * 0.8).sin(), (x * 0.7).cos(), (z * 0.9 + x * 0.3).sin()].map(|u| u * height)
    });
    let field = Field { grid, vectors: vectors.collect() };
    let domain = Grid::new([24, 24, 24], [2.0; 3], [0.0, 10.0, 0.0]);
    let affines = (0..8).map(|i| Affine::translation([0.3 * f64::from(i % 2), 0.1, -0.2]));
    let affines = affines.collect();
    let local = LocalAffines { domain, block: [12; 3], overlap: [6.0; 3], affines };
    let steps = vec![
        Transform::Field(Arc::new(field)),
        Transform::LocalAffines(Arc::new(local)),
        Transform::Affine(turned()),
    ];
    Chain { steps }
}

#[test]
fn a_volume_is_pulled_through_the_inverse_of_any_chain_alike_by_blocks_of_any_size() {
    let folder = tempfile::tempdir().unwrap();
    let (fixed, voxels) = moving(folder.path());
    let doubles: Vec<f64> = voxels.iter().map(|v| f64::from(*v)).collect();
    let chain = mixture(0.8);
    let onto = Grid::new([25, 35, 45], [1.4, 1.1, 1.0], [2.0, 9.0, 1.0]);
    let nodes: Vec<Point> =
        onto.bounds().tiles([1; 3]).map(|v| onto.position(v.min.map(|v| v as f64))).collect();
    let back = points::inverse(&chain, &nodes).unwrap();
    for interpolation in [Interpolation::Nearest, Interpolation::Linear] {
        let options = Options { interpolation, fill: 7.0, backwards: true, ..Options::default() };
        let mut first: Option<Vec<f32>> = None;
        for (i, block_size) in [None, Some([16, 32, 16]), Some([64; 3])].into_iter().enumerate() {
            let to = folder.path().join(format!("{interpolation:?}{i}.zarr")).display().to_string();
            let ctx = Context { block_size, threads: 2, ..Context::default() };
            resample(
                std::slice::from_ref(&fixed),
                &chain,
                &to,
                &spec(onto, Dtype::F32),
                &options,
                &ctx,
            )
            .unwrap();
            let out = Volume::open(&to, &Select::default()).unwrap();
            let got = out.read::<f32>(&onto.bounds()).unwrap();
            assert_eq!(ctx.receipt().results["voxels_without_inverse"], serde_json::json!(0));
            let same = first.as_ref().is_none_or(|first| *first == got);
            assert!(same, "{interpolation:?} {block_size:?}");
            first = Some(got);
        }
        let mut inside = 0;
        for (got, q) in first.unwrap().iter().zip(&back.points) {
            let at = grid().index(*q);
            let Some(want) = oracle::value(&doubles, grid().shape, at, &options) else {
                // at the edge of the volume, a difference of 1e-4 voxels decides whether a position
                // is inside
                let is_at_edge = |a: usize| {
                    at[a].abs() < 0.51 || (at[a] - grid().shape[a] as f64 + 0.5).abs() < 0.01
                };
                assert!(*got == 7.0 || (0..3).any(is_at_edge), "{at:?}: {got}");
                continue;
            };
            let near = (0..3).any(|a| (at[a] + 0.5 - (at[a] + 0.5).round()).abs() < 0.01);
            // intensities change by up to 900 per voxel, so that small errors of the position are
            // amplified
            let difference = (f64::from(*got) - want).abs();
            inside += 1;
            assert!(difference < 0.3 || near, "{interpolation:?} at {at:?}: {got} for {want}");
        }
        assert!(inside * 2 > nodes.len(), "{inside}");
    }
}

#[test]
fn there_and_back_a_smooth_volume_is_what_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let smooth = |[z, y, x]: [i64; 3]| {
        let [z, y, x] = [z, y, x].map(|v| v as f32);
        1000.0 + 300.0 * (z * 0.2).sin() * (y * 0.15).cos() + 200.0 * (x * 0.13).sin()
    };
    let out = Output::create(&place("a.zarr"), &spec(grid(), Dtype::F32), Existing::Refuse);
    let out = out.unwrap();
    for part in grid().bounds().tiles([16; 3]) {
        let voxels: Vec<f32> = part.tiles([1; 3]).map(|v| smooth(v.min)).collect();
        out.write(&part, &voxels).unwrap();
    }
    let chain = mixture(0.8);
    let cubic = Options { interpolation: Interpolation::Cubic, ..Options::default() };
    let open = |name: &str| Volume::open(&place(name), &Select::default()).unwrap();
    let pull = |from: &str, to: &str, backwards: bool| {
        let options = Options { backwards, ..cubic };
        let spec = spec(grid(), Dtype::F32);
        resample(&[open(from)], &chain, &place(to), &spec, &options, &Context::default()).unwrap();
    };
    pull("a.zarr", "there.zarr", true);
    pull("there.zarr", "back.zarr", false);
    let inner = grid().bounds().grow([-8; 3]);
    let (was, is) = (open("a.zarr"), open("back.zarr"));
    let was = was.read::<f32>(&inner).unwrap();
    let is = is.read::<f32>(&inner).unwrap();
    let worst = was.iter().zip(&is).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 2.0, "{worst} of 1000 levels");
}

#[test]
fn voxels_that_a_fold_leaves_without_a_source_are_filled_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (fixed, _) = moving(folder.path());
    let chain = mixture(9.0);
    let options = Options { fill: -5.0, backwards: true, ..Options::default() };
    let mut counts = Vec::new();
    for (name, block) in [("a.zarr", [32, 48, 64]), ("b.zarr", [16, 16, 32])] {
        let to = folder.path().join(name).display().to_string();
        let ctx = Context { block_size: Some(block), ..Context::default() };
        resample(
            std::slice::from_ref(&fixed),
            &chain,
            &to,
            &spec(grid(), Dtype::F32),
            &options,
            &ctx,
        )
        .unwrap();
        let lost = ctx.receipt().results["voxels_without_inverse"].as_u64().unwrap();
        let out = Volume::open(&to, &Select::default()).unwrap();
        let voxels = out.read::<f32>(&grid().bounds()).unwrap();
        let filled = voxels.iter().filter(|v| **v == -5.0).count() as u64;
        assert!(lost > 0 && filled >= lost && filled < voxels.len() as u64, "{lost} {filled}");
        counts.push((lost, voxels));
    }
    assert!(counts[0] == counts[1], "{} {}", counts[0].0, counts[1].0);
}

#[test]
fn several_channels_in_one_pass_are_what_each_would_be_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).display().to_string();
    let part = grid().bounds();
    let spec = |onto: Grid| Spec { chunk: part.shape(), ..spec(onto, Dtype::U16) };
    let out =
        Output::create_channels(&place("c.zarr"), &spec(grid()), 3, Existing::Refuse).unwrap();
    for c in 0..3 {
        let value = |[z, y, x]: [i64; 3]| (1000 * c + z * 700 + y * 31 + x * (c + 1)) as u16;
        let voxels: Vec<u16> = part.tiles([1; 3]).map(|v| value(v.min)).collect();
        out.write_channel(c as usize, &part, &voxels).unwrap();
    }
    let open = |name: &str, channel: usize| {
        let select = Select { channel: Some(channel), ..Select::default() };
        Volume::open(&place(name), &select).unwrap()
    };
    assert_eq!(open("c.zarr", 1).channels(), 3);
    let chain = mixture(0.8);
    let onto = Grid::new([25, 35, 45], [1.4, 1.1, 1.0], [2.0, 9.0, 1.0]);
    for (i, (interpolation, backwards)) in [
        (Interpolation::Nearest, false),
        (Interpolation::Linear, true),
        (Interpolation::Cubic, false),
        (Interpolation::Lanczos, false),
    ]
    .into_iter()
    .enumerate()
    {
        let options = Options { interpolation, backwards, fill: 3.0, ..Options::default() };
        let spec = Spec { chunk: [16; 3], ..spec(onto) };
        let all = [2, 0, 1].map(|c| open("c.zarr", c));
        let ctx = Context { block_size: Some([32; 3]), ..Context::default() };
        let name = format!("{i}.zarr");
        resample(&all, &chain, &place(&name), &spec, &options, &ctx).unwrap();
        for (c, one) in all.iter().enumerate() {
            let alone = format!("{i}-{c}.zarr");
            let one = std::slice::from_ref(one);
            resample(one, &chain, &place(&alone), &spec, &options, &ctx).unwrap();
            let alone = Volume::open(&place(&alone), &Select::default()).unwrap();
            assert_eq!(alone.channels(), 1);
            let want = alone.read::<u16>(&onto.bounds()).unwrap();
            assert!(want.iter().any(|v| *v > 1000));
            assert!(
                open(&name, c).read::<u16>(&onto.bounds()).unwrap() == want,
                "{interpolation:?}"
            );
        }
    }
    let other = moving(folder.path()).0;
    let (ctx, options) = (Context::default(), Options::default());
    let mixed = [open("c.zarr", 0), other];
    let spec = Spec { dtype: Dtype::U8, ..spec(onto) };
    resample(&mixed, &chain, &place("mixed.zarr"), &spec, &options, &ctx).unwrap();
    let n5 = Spec { format: Format::N5, ..spec };
    let message = resample(&mixed, &chain, &place("x.n5"), &n5, &options, &ctx).unwrap_err();
    assert!(message.to_string().contains("OME-Zarr"), "{message}");
    let message = resample(&[], &chain, &place("y.zarr"), &n5, &options, &ctx).unwrap_err();
    assert!(message.to_string().contains("--moving-channel"), "{message}");
}

#[test]
fn a_field_smaller_than_the_distance_of_the_points_that_are_looked_at_is_applied() {
    let folder = tempfile::tempdir().unwrap();
    let (moving, _) = moving(folder.path());
    let onto = moving.grid();
    // the field lies between the first and the second of the five positions that `Grid::sample`
    // returns along each axis
    let grid = Grid::new([2, 2, 2], onto.spacing, onto.position([3.0, 4.0, 5.0]));
    let field = Field { grid, vectors: vec![[0.0, 0.0, 1.0]; 8] };
    let chain = Chain { steps: vec![Transform::Field(Arc::new(field))] };
    let to = folder.path().join("out.zarr").to_str().unwrap().to_owned();
    let spec = spec(onto, Dtype::U16);
    let options = Options::default();
    resample(std::slice::from_ref(&moving), &chain, &to, &spec, &options, &Context::default())
        .unwrap();
    let out = Volume::open(&to, &Select::default()).unwrap();
    let at = |volume: &Volume, z: i64, y: i64, x: i64| {
        volume.read::<u16>(&Box3::new([z, y, x], [z + 1, y + 1, x + 1])).unwrap()[0]
    };
    assert_eq!(at(&out, 3, 4, 5), at(&moving, 3, 4, 6));
    assert_eq!(at(&out, 9, 9, 9), at(&moving, 9, 9, 9));
}
