//! A slow reference implementation of the search in `cpu.rs`.

use super::windows::VoxelBlock;

/// The whole-voxel shift of maximum correlation within `reach`, and that correlation.
pub(super) fn search(
    fixed: VoxelBlock,
    moving: VoxelBlock,
    at: [usize; 3],
    radius: [usize; 3],
    reach: i64,
) -> ([i64; 3], f64) {
    let mut best = ([0; 3], f64::NEG_INFINITY);
    for z in -reach..=reach {
        for y in -reach..=reach {
            for x in -reach..=reach {
                let shift = [z, y, x];
                let place = std::array::from_fn(|a| at[a] as i64 + shift[a]);
                let here = cube(fixed, at.map(|v| v as i64), radius);
                let correlation = pearson(&here, &cube(moving, place, radius));
                if correlation > best.1 {
                    best = (shift, correlation);
                }
            }
        }
    }
    best
}

fn cube(block: VoxelBlock, at: [i64; 3], radius: [usize; 3]) -> Vec<f64> {
    let range = |a: usize| at[a] - radius[a] as i64..=at[a] + radius[a] as i64;
    let mut values = Vec::new();
    for z in range(0) {
        for y in range(1) {
            for x in range(2) {
                let [z, y, x] = [z, y, x].map(|v| v as usize);
                let i = (z * block.shape[1] + y) * block.shape[2] + x;
                values.push(f64::from(block.voxels[i]));
            }
        }
    }
    values
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (p, q) = (mean(a), mean(b));
    let product: f64 = a.iter().zip(b).map(|(x, y)| (x - p) * (y - q)).sum();
    let square = |v: &[f64], m: f64| v.iter().map(|x| (x - m).powi(2)).sum::<f64>();
    product / (square(a, p) * square(b, q)).sqrt()
}
