//! The search for the context of a point in another block of the same grid.
//!
//! It finds the shift of maximum Pearson correlation from coarse to fine. First, all shifts within
//! reach are tried on voxels of twice the size. Then steepest ascent on the original voxels leads
//! from the best of these shifts to a local maximum. Finally, a quadratic through the 27
//! correlations around the local maximum gives the sub-voxel shift. An exhaustive search of a
//! 25-voxel cube within 5 voxels would take 21 million multiplications per point; the search from
//! coarse to fine takes 1 million.

use std::collections::HashMap;

use super::windows::{CorrelationBlock, NormalisedCube, VoxelBlock};

/// The offsets of a voxel and its 26 neighbours; index 13 is the voxel itself.
const NEIGHBOUR_OFFSETS: [[i64; 3]; 27] = {
    let mut steps = [[0; 3]; 27];
    let mut i = 0;
    while i < 27 {
        steps[i] = [i as i64 / 9 - 1, i as i64 / 3 % 3 - 1, i as i64 % 3 - 1];
        i += 1;
    }
    steps
};

/// The result of a search.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Peak {
    /// The displacement from the point in the fixed block to its match in the moving one, voxels
    /// along z, y, x.
    pub(super) shift: [f64; 3],
    /// The correlation at the whole-voxel shift that is a local maximum.
    pub(super) correlation: f64,
}

/// Two blocks on one grid, prepared for many searches.
pub(super) struct Searcher<'a> {
    fixed: VoxelBlock<'a>,
    moving: CorrelationBlock,
    half_fixed: Vec<f32>,
    half_moving: CorrelationBlock,
    half_shape: [usize; 3],
    /// The downsampling factors of the coarse search along z, y, x.
    factor: [usize; 3],
    radius: [usize; 3],
    reach: [usize; 3],
}

impl<'a> Searcher<'a> {
    /// Prepares for contexts of `2 * radius + 1` voxels and shifts of up to `reach` voxels; along
    /// an axis of reach 0 there is no search.
    pub(super) fn new(
        fixed: VoxelBlock<'a>,
        moving: VoxelBlock,
        radius: [usize; 3],
        reach: [usize; 3],
    ) -> Self {
        // contexts of one or three voxels cannot be downsampled
        let factor = std::array::from_fn(|a| if radius[a] > 1 && reach[a] > 0 { 2 } else { 1 });
        let (half_fixed, half_shape) = downsample(fixed, factor);
        let (half_moving, _) = downsample(moving, factor);
        let half_moving = VoxelBlock { voxels: &half_moving, shape: half_shape };
        Self {
            fixed,
            moving: CorrelationBlock::new(moving, radius),
            half_fixed,
            half_moving: CorrelationBlock::new(half_moving, reduced_radius(radius, factor)),
            half_shape,
            factor,
            radius,
            reach,
        }
    }

    /// The shift at which the context of voxel `at` of the fixed block correlates best with the
    /// moving block. The best shift at reduced resolution is found first; from there, the search
    /// ascends voxel by voxel to a local maximum at full resolution.
    ///
    /// `None` if the fixed context extends beyond its block, is constant or is not finite; if the
    /// search at reduced resolution finds no shift; if the ascent meets a shift where the
    /// correlation is undefined (beyond the moving block, constant or not finite); if the ascent
    /// needs more than three steps; or if the maximum lies beyond the reach.
    pub(super) fn search(&self, at: [usize; 3]) -> Option<Peak> {
        let window = NormalisedCube::new(self.fixed, at.map(|v| v as i64), self.radius)?;
        let coarse = self.coarse(at)?;
        let mut centre: [i64; 3] = std::array::from_fn(|a| self.factor[a] as i64 * coarse[a]);
        let mut known = HashMap::new();
        // the coarse maximum is off by one or two voxels at most; a longer ascent would lead to
        // another maximum
        for _ in 0..4 {
            let around = self.around(&window, at, centre, &mut known)?;
            let best = (0..27).max_by(|&a, &b| around[a].total_cmp(&around[b]))?;
            if best == 13 {
                return self.refine(&around, centre);
            }
            centre = std::array::from_fn(|a| centre[a] + NEIGHBOUR_OFFSETS[best][a]);
        }
        None
    }

    fn coarse(&self, at: [usize; 3]) -> Option<[i64; 3]> {
        let fixed = VoxelBlock { voxels: &self.half_fixed, shape: self.half_shape };
        let at: [i64; 3] = std::array::from_fn(|a| (at[a] / self.factor[a]) as i64);
        let window = NormalisedCube::new(fixed, at, reduced_radius(self.radius, self.factor))?;
        let reach: [i64; 3] =
            std::array::from_fn(|a| self.reach[a].div_ceil(self.factor[a]) as i64);
        let mut best: Option<([i64; 3], f64)> = None;
        for z in -reach[0]..=reach[0] {
            for y in -reach[1]..=reach[1] {
                for x in -reach[2]..=reach[2] {
                    let shift = [z, y, x];
                    let place = std::array::from_fn(|a| at[a] + shift[a]);
                    let Some(r) = self.half_moving.correlate(&window, place) else { continue };
                    if best.is_none_or(|(_, most)| r > most) {
                        best = Some((shift, r));
                    }
                }
            }
        }
        best.map(|(shift, _)| shift)
    }

    fn around(
        &self,
        window: &NormalisedCube,
        at: [usize; 3],
        centre: [i64; 3],
        known: &mut HashMap<[i64; 3], f64>,
    ) -> Option<[f64; 27]> {
        let mut found = [0.0; 27];
        let flat = self.reach.map(|reach| reach == 0);
        let leaves = |step: [i64; 3]| (0..3).any(|a| flat[a] && step[a] != 0);
        for (value, step) in
            found.iter_mut().zip(NEIGHBOUR_OFFSETS).filter(|(_, step)| !leaves(*step))
        {
            let place: [i64; 3] = std::array::from_fn(|a| at[a] as i64 + centre[a] + step[a]);
            *value = if let Some(&r) = known.get(&place) {
                r
            } else {
                let r = self.moving.correlate(window, place)?;
                known.insert(place, r);
                r
            };
        }
        // along an axis that is not searched, an even parabola puts the maximum at offset 0
        for (i, step) in NEIGHBOUR_OFFSETS.into_iter().enumerate().filter(|(_, step)| leaves(*step))
        {
            let within: [i64; 3] = std::array::from_fn(|a| if flat[a] { 0 } else { step[a] });
            let away = (0..3).filter(|&a| flat[a] && step[a] != 0).count();
            let at = 13 + 9 * within[0] + 3 * within[1] + within[2];
            found[i] = found[at as usize] - 2.0 * away as f64;
        }
        Some(found)
    }

    fn refine(&self, around: &[f64; 27], centre: [i64; 3]) -> Option<Peak> {
        let top = maximum_of(around);
        let shift: [f64; 3] = std::array::from_fn(|a| centre[a] as f64 + top[a]);
        let inside = (0..3).all(|a| shift[a].abs() <= self.reach[a] as f64);
        inside.then_some(Peak { shift, correlation: around[13] })
    }
}

/// A radius on a grid downsampled by `factor`.
fn reduced_radius(radius: [usize; 3], factor: [usize; 3]) -> [usize; 3] {
    std::array::from_fn(|a| radius[a] / factor[a])
}

/// Downsamples by averaging `factor` voxels along each axis (1 or 2); a last odd voxel is dropped.
fn downsample(block: VoxelBlock, factor: [usize; 3]) -> (Vec<f32>, [usize; 3]) {
    let shape: [usize; 3] = std::array::from_fn(|a| block.shape[a] / factor[a]);
    let [_, height, width] = block.shape;
    let scale = 1.0 / factor.iter().product::<usize>() as f32;
    let mut out = Vec::with_capacity(shape.iter().product());
    for z in 0..shape[0] {
        for y in 0..shape[1] {
            let rows: Vec<&[f32]> = (0..factor[0] * factor[1])
                .map(|i| {
                    let (dz, dy) = (i / factor[1], i % factor[1]);
                    let start = ((factor[0] * z + dz) * height + factor[1] * y + dy) * width;
                    &block.voxels[start..start + width]
                })
                .collect();
            out.extend((0..shape[2]).map(|x| {
                let sum = |row: &&[f32]| match factor[2] {
                    2 => row[2 * x] + row[2 * x + 1],
                    _ => row[x],
                };
                rows.iter().map(sum).sum::<f32>() * scale
            }));
        }
    }
    (out, shape)
}

/// The offset of the maximum of the quadratic through 27 values around a local maximum, at most one
/// voxel along each axis.
///
/// Gradient and Hessian are computed by central differences. If the Hessian is not negative
/// definite, or the offset is too large, each axis is fitted by a parabola of its own.
fn maximum_of(around: &[f64; 27]) -> [f64; 3] {
    const STRIDE: [usize; 3] = [9, 3, 1];
    let at = |offset: isize| around[(13 + offset) as usize];
    let stride = |a: usize| STRIDE[a] as isize;
    let middle = around[13];
    let gradient = nalgebra::Vector3::from_fn(|a, _| (at(stride(a)) - at(-stride(a))) / 2.0);
    let hessian = nalgebra::Matrix3::from_fn(|a, b| {
        let (s, t) = (stride(a), stride(b));
        if a == b {
            at(s) - 2.0 * middle + at(-s)
        } else {
            (at(s + t) - at(s - t) - at(t - s) + at(-s - t)) / 4.0
        }
    });
    if let Some(decomposition) = (-hessian).cholesky() {
        let top = decomposition.solve(&gradient);
        if top.iter().all(|v| v.abs() <= 1.0) {
            return top.into();
        }
    }
    std::array::from_fn(|a| {
        let bend = hessian[(a, a)];
        if bend < 0.0 { (-gradient[a] / bend).clamp(-0.5, 0.5) } else { 0.0 }
    })
}

#[cfg(test)]
mod tests {
    use super::super::oracle;
    use super::*;

    /// A smooth pseudo-random texture, evaluated at any position.
    fn texture(p: [f64; 3]) -> f32 {
        let wave = |k: f64| {
            (p[0] * (0.31 + 0.07 * k) + k).sin()
                * (p[1] * (0.27 + 0.11 * k) + 2.0 * k).cos()
                * (p[2] * (0.36 - 0.05 * k) - k).sin()
        };
        (500.0 + 100.0 * (0..4).map(|k| wave(f64::from(k))).sum::<f64>()) as f32
    }

    fn sampled(shape: [usize; 3], shift: [f64; 3]) -> Vec<f32> {
        (0..shape.iter().product())
            .map(|i| {
                let index = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
                texture(std::array::from_fn(|a| index[a] as f64 - shift[a]))
            })
            .collect()
    }

    #[test]
    fn a_known_shift_is_found_to_a_tenth_of_a_voxel() {
        let shape = [40, 44, 48];
        let fixed = sampled(shape, [0.0; 3]);
        for shift in [[0.0, 0.0, 0.0], [1.3, -2.6, 3.45], [-3.5, 0.25, -1.75]] {
            let moving = sampled(shape, shift);
            let searcher = Searcher::new(
                VoxelBlock { voxels: &fixed, shape },
                VoxelBlock { voxels: &moving, shape },
                [10; 3],
                [5; 3],
            );
            let peak = searcher.search([20, 22, 24]).unwrap();
            for a in 0..3 {
                assert!((peak.shift[a] - shift[a]).abs() < 0.1, "{:?} for {shift:?}", peak.shift);
            }
            assert!(peak.correlation > 0.9);
        }
    }

    #[test]
    fn the_peak_is_that_of_all_shifts_tried_one_by_one() {
        let shape = [30, 30, 30];
        let fixed = sampled(shape, [0.0; 3]);
        let moving = sampled(shape, [1.4, -2.2, 0.7]);
        let (fixed, moving) =
            (VoxelBlock { voxels: &fixed, shape }, VoxelBlock { voxels: &moving, shape });
        let searcher = Searcher::new(fixed, moving, [6, 7, 8], [4; 3]);
        for at in [[14, 15, 16], [13, 12, 14], [15, 14, 13]] {
            let (shift, correlation) = oracle::search(fixed, moving, at, [6, 7, 8], 4);
            let peak = searcher.search(at).unwrap();
            for a in 0..3 {
                assert!(
                    (peak.shift[a] - shift[a] as f64).abs() < 1.0,
                    "{:?} {shift:?}",
                    peak.shift
                );
            }
            assert!((peak.correlation - correlation).abs() < 1e-4);
        }
    }

    #[test]
    fn constant_surroundings_and_the_rim_give_no_peak() {
        let shape = [24; 3];
        let (flat, ramp) = (vec![7.0; 24 * 24 * 24], sampled(shape, [0.0; 3]));
        let block = |voxels| VoxelBlock { voxels, shape };
        assert_eq!(Searcher::new(block(&flat), block(&ramp), [5; 3], [2; 3]).search([12; 3]), None);
        assert_eq!(Searcher::new(block(&ramp), block(&ramp), [5; 3], [2; 3]).search([3; 3]), None);
    }

    #[test]
    fn planes_and_thin_volumes_are_searched_within_their_planes() {
        for planes in [1, 2, 3, 5] {
            let shape = [planes, 44, 48];
            let fixed = sampled(shape, [0.0; 3]);
            let moving = sampled(shape, [0.0, -2.6, 3.45]);
            let searcher = Searcher::new(
                VoxelBlock { voxels: &fixed, shape },
                VoxelBlock { voxels: &moving, shape },
                [0, 10, 10],
                [0, 5, 5],
            );
            let peak = searcher.search([planes / 2, 22, 24]).unwrap();
            assert_eq!(peak.shift[0], 0.0);
            for (found, wanted) in peak.shift.iter().zip([0.0, -2.6, 3.45]) {
                assert!((found - wanted).abs() < 0.1, "{:?} in {planes} planes", peak.shift);
            }
        }
    }
}
