//! Downsampling a volume of 16 Mvoxel, `uint16`, by every method.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use voxloom::downsample::{Method, reduce_block};
use voxloom::geom::Grid;

fn reduce(c: &mut Criterion) {
    let grid = Grid::new([256; 3], [1.0; 3], [0.0; 3]);
    let noise: Vec<u16> =
        (0..grid.bounds().len()).map(|i| (i.wrapping_mul(2_654_435_761) >> 20) as u16).collect();
    let labels: Vec<u16> = (0..grid.bounds().len())
        .map(|i| [i >> 16, i >> 8 & 255, i & 255].map(|v| v / 20).iter().sum::<usize>() as u16)
        .collect();
    let mut group = c.benchmark_group("reduce");
    group.throughput(Throughput::Elements(noise.len() as u64)).sample_size(10);
    for (name, voxels, method, factor) in [
        ("mean 2x2x2", &noise, Method::Mean, [2, 2, 2]),
        ("mean 1x2x2", &noise, Method::Mean, [1, 2, 2]),
        ("mean 3x3x3", &noise, Method::Mean, [3, 3, 3]),
        ("max 2x2x2", &noise, Method::Max, [2, 2, 2]),
        ("mode 2x2x2 of labels", &labels, Method::Mode, [2, 2, 2]),
        ("mode 2x2x2 of noise", &noise, Method::Mode, [2, 2, 2]),
        ("stride 2x2x2", &noise, Method::Stride, [2, 2, 2]),
    ] {
        group.bench_function(name, |b| b.iter(|| reduce_block(voxels, &grid, method, factor)));
    }
    group.finish();
}

criterion_group!(benches, reduce);
criterion_main!(benches);
