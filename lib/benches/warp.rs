//! Resampling a block of 8 Mvoxel, `uint16`, by every kind of map.

use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use voxloom::geom::{Affine, Field, Grid, LocalAffines, LocalChain, LocalStep};
use voxloom::warp::{Interpolation, Options, resample_block};

const METHODS: [Interpolation; 4] =
    [Interpolation::Nearest, Interpolation::Linear, Interpolation::Cubic, Interpolation::Lanczos];
const SHAPE: [usize; 3] = [128, 256, 256];

fn rotation() -> Affine {
    Affine::from_parts(
        [[0.99, -0.02, 0.01], [0.03, 1.01, -0.04], [-0.01, 0.03, 0.98]],
        [1.3, -2.6, 3.1],
    )
}

fn chains() -> Vec<(&'static str, LocalStep)> {
    let domain = Grid::new(SHAPE, [1.0; 3], [0.0; 3]);
    let affines = (0..16).map(|i| {
        rotation().then(&Affine::translation([0.1 * f64::from(i % 3), 0.0, 0.05 * f64::from(i)]))
    });
    let local = LocalAffines {
        domain,
        block: [64, 64, 128],
        overlap: [8.0, 8.0, 16.0],
        affines: affines.collect(),
    };
    let grid = Grid::new([33, 65, 65], [4.0; 3], [0.0; 3]);
    let vectors = (0..grid.bounds().len()).map(|i| [0.1 * (i % 7) as f32, -0.3, 0.2]).collect();
    vec![
        ("one affine", LocalStep::Affine(rotation())),
        ("a shift", LocalStep::Affine(Affine::translation([1.3, -2.6, 3.1]))),
        ("local affines", LocalStep::LocalAffines(Arc::new(local))),
        ("a field", LocalStep::Field(Field { grid, vectors }.into())),
    ]
}

fn resample(c: &mut Criterion) {
    let grid = Grid::new(SHAPE, [1.0; 3], [0.0; 3]);
    let voxels: Vec<u16> =
        (0..grid.bounds().len()).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as u16).collect();
    let mut group = c.benchmark_group("resample");
    group.throughput(Throughput::Elements(voxels.len() as u64)).sample_size(10);
    for (name, step) in chains() {
        let chain = LocalChain { steps: vec![step] };
        for interpolation in METHODS {
            if interpolation != Interpolation::Linear && name != "one affine" {
                continue;
            }
            let options = Options { interpolation, ..Options::default() };
            group.bench_function(format!("{name}, {interpolation:?}"), |b| {
                b.iter(|| resample_block::<u16, u16>(&voxels, &grid, &chain, &grid, &options));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, resample);
criterion_main!(benches);
