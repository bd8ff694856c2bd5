//! Volumes on disk.

use std::sync::Arc;

use super::*;
use crate::geom::{Affine, Field};
use crate::volume::{Codec, Existing, Format, Select};

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
    for interpolation in [Interpolation::Nearest, Interpolation::Linear, Interpolation::Cubic] {
        let options = Options { interpolation, fill: 7.0, ..Options::default() };
        let want: Vec<u16> = resample_block(&voxels, &grid(), &local, &onto, &options);
        for (i, block_size) in [None, Some([16, 32, 16]), Some([64; 3])].into_iter().enumerate() {
            let to = folder.path().join(format!("{interpolation:?}{i}.zarr")).display().to_string();
            let ctx = Context { block_size, threads: 2, ..Context::default() };
            let spec = spec(onto, Dtype::U16);
            resample(&moving, &chain, &to, &spec, &options, &ctx).unwrap();
            let out = Volume::open(&to, &Select::default()).unwrap();
            assert_eq!(out.grid(), onto);
            let got = out.read::<u16>(&onto.bounds()).unwrap();
            let apart = got.iter().zip(&want).map(|(a, b)| a.abs_diff(*b)).max();
            // a spline's memory fades; what is left may round another way
            let allowed = u16::from(interpolation == Interpolation::Cubic);
            assert!(apart <= Some(allowed), "{interpolation:?} {block_size:?}: {apart:?}");
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
    resample(&moving, &away, &to, &spec(grid(), Dtype::F32), &options, &ctx).unwrap();
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
        resample(&moving, &chain, &to.display().to_string(), &spec, &options, ctx)
    };
    run(&Context { plan_only: true, ..Context::default() }).unwrap();
    let small = Context { memory: 1000, ..Context::default() };
    let said = run(&small).unwrap_err().to_string();
    assert!(said.contains("--memory"), "{said}");
    let odd = Context { block_size: Some([10, 16, 16]), ..Context::default() };
    let said = run(&odd).unwrap_err().to_string();
    assert!(said.contains("multiple"), "{said}");
    assert!(!to.exists());
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
        resample(&moving, &chain, &to, &spec(grid(), Dtype::U8), &options, &ctx).unwrap();
        let out = Volume::open(&to, &Select::default()).unwrap();
        let got = out.read::<u8>(&grid().bounds()).unwrap();
        assert!(got.iter().zip(&voxels).all(|(a, b)| u16::from(*a) == (*b).min(255)));
    }
}
