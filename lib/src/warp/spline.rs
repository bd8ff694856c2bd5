//! Interpolation by the cubic B-spline through the voxels of a block.
//!
//! Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal Processing Magazine
//! 16(6), 1999: recursive filters along each axis convert voxels to coefficients; the value at a
//! position is the sum of the 64 coefficients around it, weighted by B-splines.

use std::hint::black_box;

use super::cpu::Interpolator;
use super::voxel_map::ON_VOXEL;
use crate::filter::lines::for_avx2;
use crate::volume::Voxel;

/// The pole of the filter of the cubic B-spline, `sqrt(3) - 2`.
const POLE: f32 = -0.267_949_2;

/// The number of voxels after which the filter's response has decayed: `|pole|^12` is 1.4e-7. In a
/// block that is read with a halo of this width, values differ from those of the whole volume by at
/// most 1e-6 of the range of intensities.
pub(super) const DECAY: i64 = 12;

/// The padding of the coefficients before the first voxel and after the last.
const PADDING_BEFORE: usize = 1;
const PADDING_AFTER: usize = 2;

/// The number of rounds in which non-finite voxels next to finite ones are filled in before the
/// filter runs. Voxels that are not filled after these rounds are more than this number of voxels
/// away from every finite voxel, and affect a finite result only with a factor of `|pole|^6`.
const FILL_ROUNDS: usize = 6;

/// The spline coefficients of a block, mirrored about its outermost voxels.
pub(super) struct Coefficients {
    values: Vec<f32>,
    shape: [usize; 3],
    /// Whether a voxel of the block is NaN or infinite.
    unknown: bool,
}

impl Coefficients {
    /// The memory of the coefficients of a block of `shape`, bytes.
    pub(super) fn bytes(shape: [usize; 3]) -> usize {
        shape.map(|n| n + PADDING_BEFORE + PADDING_AFTER).iter().product::<usize>()
            * size_of::<f32>()
    }

    /// Filters the `voxels` of a block of `shape`, C order.
    ///
    /// The filter is recursive, so that one NaN would make the whole block NaN. Non-finite voxels
    /// are therefore replaced first by the mean of their known neighbours. Positions near them are
    /// undefined nevertheless: see [`Coefficients::is_known`].
    pub(super) fn new<T: Voxel>(voxels: &[T], shape: [usize; 3]) -> Self {
        let padded = shape.map(|n| n + PADDING_BEFORE + PADDING_AFTER);
        let mut values = vec![0.0; padded.iter().product()];
        let stride = [padded[1] * padded[2], padded[2], 1];
        for (i, row) in voxels.chunks_exact(shape[2]).enumerate() {
            let (z, y) = (i / shape[1], i % shape[1]);
            let at = (z + PADDING_BEFORE) * stride[0]
                + (y + PADDING_BEFORE) * stride[1]
                + PADDING_BEFORE;
            for (to, from) in values[at..at + shape[2]].iter_mut().zip(row) {
                *to = from.to_f32();
            }
        }
        let unknown = fill_unknown(&mut values, shape, stride);
        for a in 0..3 {
            // the lines along the axis are `outer` groups of `run` interleaved lines
            let (run, outer) = (stride[a], padded[..a].iter().product::<usize>());
            for o in 0..outer {
                let lines = &mut values[o * padded[a] * run..][..padded[a] * run];
                filter(&mut lines[PADDING_BEFORE * run..], shape[a], run);
                mirror(lines, shape[a], run);
            }
        }
        Self { values, shape: padded, unknown }
    }

    /// Whether all voxels in the support of the spline at a position, four along each axis, are
    /// finite. Along an axis where the position lies on a voxel, only that voxel counts.
    ///
    /// * `voxels`: the block from which the coefficients were computed
    #[inline(always)]
    pub(super) fn is_known<T: Voxel>(
        &self,
        voxels: &[T],
        low: [usize; 3],
        share: [f32; 3],
    ) -> bool {
        !self.unknown || self.all_finite(voxels, low, share)
    }

    #[inline(never)]
    fn all_finite<T: Voxel>(&self, voxels: &[T], low: [usize; 3], share: [f32; 3]) -> bool {
        let shape = self.shape.map(|n| n - PADDING_BEFORE - PADDING_AFTER);
        let seen: [(i64, i64); 3] = std::array::from_fn(|a| {
            let at = low[a] as i64;
            match share[a] {
                s if s < ON_VOXEL => (at, at),
                s if s > 1.0 - ON_VOXEL => (at + 1, at + 1),
                _ => (at - PADDING_BEFORE as i64, at + PADDING_AFTER as i64),
            }
        });
        let range = |a: usize| (seen[a].0..=seen[a].1).map(move |i| fold(i, shape[a]));
        range(0).all(|z| {
            range(1).all(|y| {
                let row = &voxels[(z * shape[1] + y) * shape[2]..][..shape[2]];
                range(2).all(|x| row[x].to_f32().is_finite())
            })
        })
    }

    /// The spline with the voxels from which it was computed; its value is NaN at positions with a
    /// non-finite voxel in the support of the spline.
    pub(super) fn over<'a, T>(&'a self, voxels: &'a [T]) -> Spline<'a, T> {
        Spline { coefficients: self, voxels }
    }
}

/// Cubic interpolation in a block.
pub(super) struct Spline<'a, T> {
    coefficients: &'a Coefficients,
    voxels: &'a [T],
}

impl<T: Voxel> Interpolator for Spline<'_, T> {
    #[inline(always)]
    fn at(&self, low: [usize; 3], t: [f32; 3]) -> f32 {
        if !self.coefficients.is_known(self.voxels, low, t) {
            return f32::NAN;
        }
        let Coefficients { values, shape: [_, height, width], .. } = self.coefficients;
        let (z_weights, y_weights, x_weights) = (weights(t[0]), weights(t[1]), weights(t[2]));
        let first = (low[0] * height + low[1]) * width + low[2];
        let block = &values[first..][..(3 * height + 3) * width + 4];
        let mut sum = [0.0f32; 4];
        for z in 0..4 {
            let mut plane = [0.0f32; 4];
            for y in 0..4 {
                let row = &block[(z * height + y) * width..][..4];
                for x in 0..4 {
                    plane[x] += y_weights[y] * row[x];
                }
            }
            for x in 0..4 {
                sum[x] += z_weights[z] * plane[x];
            }
        }
        // `black_box` keeps the sums together in memory: otherwise the compiler would compute each
        // of them separately, because they are used separately below
        let sum = black_box(sum);
        (sum[0] * x_weights[0] + sum[1] * x_weights[1])
            + (sum[2] * x_weights[2] + sum[3] * x_weights[3])
    }
}

/// Replaces non-finite voxels by the mean of their known neighbours along the axes, in rounds from
/// the known voxels inwards, and the remaining ones by 0. Returns whether any voxel was non-finite.
///
/// * `values`: the padded array, which contains the voxels of a block of `shape`; `stride` has its
///   strides
///
/// A replacement depends only on voxels within [`FILL_ROUNDS`] voxels of it, so that the results of
/// neighbouring blocks agree.
fn fill_unknown(values: &mut [f32], shape: [usize; 3], stride: [usize; 3]) -> bool {
    let start: usize = stride.iter().map(|s| PADDING_BEFORE * s).sum();
    let mut unknown: Vec<[usize; 3]> = Vec::new();
    for z in 0..shape[0] {
        for y in 0..shape[1] {
            let row = &values[start + z * stride[0] + y * stride[1]..][..shape[2]];
            let holes = (0..shape[2]).filter(|&x| !row[x].is_finite());
            unknown.extend(holes.map(|x| [z, y, x]));
        }
    }
    let any = !unknown.is_empty();
    let place = |at: &[usize; 3]| start + (0..3).map(|a| at[a] * stride[a]).sum::<usize>();
    for _ in 0..FILL_ROUNDS {
        if unknown.is_empty() {
            break;
        }
        let means: Vec<Option<f32>> = unknown
            .iter()
            .map(|at| mean_of_neighbours(values, place(at), *at, shape, stride))
            .collect();
        let mut rest = Vec::new();
        for (at, mean) in unknown.into_iter().zip(means) {
            match mean {
                Some(mean) => values[place(&at)] = mean,
                None => rest.push(at),
            }
        }
        unknown = rest;
    }
    unknown.iter().for_each(|at| values[place(at)] = 0.0);
    any
}

/// The mean of the finite voxels next to a voxel along the three axes.
fn mean_of_neighbours(
    values: &[f32],
    place: usize,
    at: [usize; 3],
    shape: [usize; 3],
    stride: [usize; 3],
) -> Option<f32> {
    let (mut sum, mut count) = (0.0, 0.0);
    for a in 0..3 {
        let before = (at[a] > 0).then(|| values[place - stride[a]]);
        let after = (at[a] + 1 < shape[a]).then(|| values[place + stride[a]]);
        for v in [before, after].into_iter().flatten().filter(|v| v.is_finite()) {
            sum += v;
            count += 1.0;
        }
    }
    (count > 0.0).then(|| sum / count)
}

/// The B-spline at the distances of the four neighbours: 1 + t, t, 1 - t and 2 - t.
#[inline(always)]
fn weights(t: f32) -> [f32; 4] {
    let s = 1.0 - t;
    let (t2, s2) = (t * t, s * s);
    [s2 * s / 6.0, 2.0 / 3.0 - t2 * (2.0 - t) / 2.0, 2.0 / 3.0 - s2 * (2.0 - s) / 2.0, t2 * t / 6.0]
}

for_avx2! {
    /// Converts `n` values along each of `run` interleaved lines to coefficients.
    fn filter(lines: &mut [f32], n: usize, run: usize) => filter_any
}

#[inline(always)]
fn filter_any(lines: &mut [f32], n: usize, run: usize) {
    if n < 2 {
        return;
    }
    // the initial state of the filter: the weighted sum over the mirrored line, truncated where the
    // weights become negligible
    let mut state = vec![0.0; run];
    let mut weight = 1.0;
    for k in 0..=2 * DECAY as usize {
        let at = fold(k as i64, n) * run;
        for (sum, v) in state.iter_mut().zip(&lines[at..at + run]) {
            *sum += weight * *v;
        }
        weight *= POLE;
    }
    for (v, first) in lines[..run].iter_mut().zip(&state) {
        *v = 6.0 * *first;
    }
    for k in 1..n {
        let (done, rest) = lines.split_at_mut(k * run);
        for (v, before) in rest[..run].iter_mut().zip(&done[(k - 1) * run..]) {
            *v = 6.0 * *v + POLE * *before;
        }
    }
    let (done, rest) = lines.split_at_mut((n - 1) * run);
    for (v, before) in rest[..run].iter_mut().zip(&done[(n - 2) * run..]) {
        *v = POLE / (POLE * POLE - 1.0) * (*v + POLE * *before);
    }
    for k in (0..n - 1).rev() {
        let (rest, done) = lines.split_at_mut((k + 1) * run);
        for (v, after) in rest[k * run..].iter_mut().zip(&done[..run]) {
            *v = POLE * (*after - *v);
        }
    }
}

/// Fills the padding of lines whose `n` coefficients begin at position `PADDING_BEFORE`.
fn mirror(lines: &mut [f32], n: usize, run: usize) {
    for place in (0..PADDING_BEFORE).chain(PADDING_BEFORE + n..PADDING_BEFORE + n + PADDING_AFTER) {
        let from = (fold(place as i64 - PADDING_BEFORE as i64, n) + PADDING_BEFORE) * run;
        lines.copy_within(from..from + run, place * run);
    }
}

/// The index in `0..n` to which `i` is mirrored about the outermost voxels.
pub(super) fn fold(i: i64, n: usize) -> usize {
    if n < 2 {
        return 0;
    }
    let period = 2 * (n as i64 - 1);
    let i = i.rem_euclid(period);
    i.min(period - i) as usize
}
