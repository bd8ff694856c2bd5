//! A reference implementation of matching: correlates every context with every other, in `f64`.

use super::{MatchOptions, SpotVolume};
use crate::volume::Voxel;

/// The best partner of each fixed spot above the threshold, as `(fixed, moving, correlation)`.
pub(super) fn matches<T: Voxel, U: Voxel>(
    fixed: &SpotVolume<'_, T>,
    moving: &SpotVolume<'_, U>,
    options: &MatchOptions,
) -> Vec<(usize, usize, f64)> {
    let correlations: Vec<Vec<f64>> = fixed
        .positions
        .iter()
        .map(|&p| {
            let one = context(fixed, p, options);
            let row = moving.positions.iter().map(|&q| {
                let distance = (0..3).map(|a| (p[a] - q[a]).powi(2)).sum::<f64>().sqrt();
                if options.max_distance.is_some_and(|most| distance > most) {
                    return f64::NEG_INFINITY;
                }
                pearson(one.as_deref(), context(moving, q, options).as_deref())
            });
            row.collect()
        })
        .collect();
    let mut found = Vec::new();
    for (i, row) in correlations.iter().enumerate() {
        let Some(j) = (0..row.len()).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])) else {
            continue;
        };
        let best_of_column = correlations.iter().all(|other| other[j] <= row[j]);
        if row[j] > options.match_threshold && (best_of_column || !options.mutual()) {
            found.push((i, j, row[j]));
        }
    }
    found
}

fn context<T: Voxel>(
    block: &SpotVolume<'_, T>,
    p: [f64; 3],
    options: &MatchOptions,
) -> Option<Vec<f64>> {
    let [_, ny, nx] = block.grid.shape;
    let at = block.grid.index(p).map(|v| v.round() as i64);
    let r = options.context_radius.unwrap().voxels([1.0; 3]).map(|r| r as i64);
    let complete = (0..3).all(|a| at[a] - r[a] >= 0 && at[a] + r[a] < block.grid.shape[a] as i64);
    complete.then(|| {
        let mut voxels = Vec::new();
        for z in at[0] - r[0]..=at[0] + r[0] {
            for y in at[1] - r[1]..=at[1] + r[1] {
                for x in at[2] - r[2]..=at[2] + r[2] {
                    voxels.push(
                        block.voxels[(z as usize * ny + y as usize) * nx + x as usize].to_f64(),
                    );
                }
            }
        }
        voxels
    })
}

/// The Pearson correlation; negative infinity if a context is missing, constant or not finite.
fn pearson(a: Option<&[f64]>, b: Option<&[f64]>) -> f64 {
    let (Some(a), Some(b)) = (a, b) else { return f64::NEG_INFINITY };
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let sum =
        |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(x, y)| f(x - ma, y - mb)).sum::<f64>();
    let value = sum(&|x, y| x * y) / (sum(&|x, _| x * x) * sum(&|_, y| y * y)).sqrt();
    if value.is_nan() { f64::NEG_INFINITY } else { value }
}

mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::geom::{Grid, Point};
    use crate::matching::{ContextRadius, match_in_memory};

    /// A small volume of smooth noise, with constant regions.
    fn volume(seed: u64, shape: [usize; 3]) -> Vec<u16> {
        let mut state = seed;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 24) as f32
        };
        let waves: Vec<[f32; 5]> = (0..12).map(|_| std::array::from_fn(|_| noise())).collect();
        let mut voxels = Vec::new();
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                for x in 0..shape[2] {
                    let sum: f32 = waves
                        .iter()
                        .map(|[a, b, c, d, e]| {
                            let phase = a * z as f32 + b * y as f32 + c * x as f32 + 6.3 * d;
                            (e * 300.0) * phase.sin()
                        })
                        .sum();
                    voxels.push((sum.max(-200.0) + 400.0 + 30.0 * noise()) as u16);
                    if x < 4 {
                        *voxels.last_mut().unwrap() = 7;
                    }
                }
            }
        }
        voxels
    }

    fn spots(shape: [usize; 3]) -> impl Strategy<Value = Vec<Point>> {
        let along = |n: usize| 0.0..(n as f64 - 1.0);
        prop::collection::vec((along(shape[0]), along(shape[1]), along(shape[2])), 1..40).prop_map(
            |list| {
                let list = list.into_iter().map(|(z, y, x)| [z, y, x]);
                // two spots in the same voxel have the same context, so that the best match would
                // be ambiguous
                let places: BTreeMap<[i64; 3], Point> =
                    list.map(|p: Point| (p.map(|v| v.round() as i64), p)).collect();
                places.into_values().collect()
            },
        )
    }

    const SHAPE: [usize; 3] = [14, 16, 18];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn matches_are_those_of_the_full_product(
            seed in 0u64..1000, fixed in spots(SHAPE), moving in spots(SHAPE),
            distance in prop::option::of(1.0..20.0f64), mutual in any::<bool>(),
            threshold in -0.2..0.9f64, radius in prop::array::uniform3(1usize..5),
        ) {
            let grid = Grid::new(SHAPE, [1.0; 3], [0.0; 3]);
            let (one, two) = (volume(seed, SHAPE), volume(seed + seed % 2, SHAPE));
            let two: Vec<f32> = two.iter().map(|&v| 0.5 * f32::from(v) + 3.0).collect();
            let fixed = SpotVolume { voxels: &one, grid, positions: &fixed };
            let moving = SpotVolume { voxels: &two, grid, positions: &moving };
            let options = MatchOptions {
                match_threshold: threshold,
                context_radius: Some(ContextRadius::Voxels(radius)),
                max_distance: distance,
                mutual: Some(mutual),
                subvoxel: Some(false),
                exact: false,
            };
            let slow = matches(&fixed, &moving, &options);
            let fast = match_in_memory(&fixed, &moving, &options).unwrap();
            prop_assert_eq!(fast.len(), slow.len());
            for (got, (i, j, correlation)) in fast.iter().zip(slow) {
                prop_assert_eq!(got.fixed, fixed.positions[i]);
                prop_assert!((got.correlation - correlation).abs() < 1e-5);
                let partner = context(&moving, got.moving, &options);
                let wanted = context(&moving, moving.positions[j], &options);
                prop_assert!((pearson(partner.as_deref(), wanted.as_deref()) - 1.0).abs() < 1e-5);
            }
        }
    }
}
