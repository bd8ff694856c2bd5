//! The resampling kernels, which compute the values of all voxels of a block.

use std::ops::Range;

use super::voxel_map::{LANES, ON_VOXEL, Positions, VoxelMap};
use super::{Interpolation, Options, Rounding, Voxel, lanczos, spline};
use crate::filter::lines::for_avx2;
use crate::geom::Box3;
use lanczos::Lanczos;

/// The radius, in voxels, of the part of the moving volume that a value can depend on.
pub(super) fn support(interpolation: Interpolation) -> i64 {
    match interpolation {
        // one voxel more than the interpolation needs, because rounding can shift positions
        Interpolation::Nearest | Interpolation::Linear => 1,
        Interpolation::Cubic => 2 + spline::DECAY,
        Interpolation::Lanczos => 1 + lanczos::RADIUS as i64,
    }
}

/// The part of the moving volume that a block needs.
pub(super) struct Moving<'a, T> {
    /// The voxels in C order, one channel after the other.
    pub(super) voxels: &'a [T],
    /// The number of channels.
    pub(super) channels: usize,
    /// The box of the moving volume that `voxels` covers.
    pub(super) part: Box3,
    /// The shape of the whole volume.
    pub(super) whole: [usize; 3],
}

impl<T> Moving<'_, T> {
    /// The voxels of each channel.
    fn channels(&self) -> impl Iterator<Item = &[T]> {
        (0..self.channels).map(|c| self.channel(c))
    }

    /// The voxels of channel `c`.
    fn channel(&self, c: usize) -> &[T] {
        &self.voxels[c * self.part.len()..][..self.part.len()]
    }
}

/// Samples `moving` at the positions of all voxels of `part`, by trilinear, cubic B-spline or
/// windowed sinc interpolation.
///
/// * `moving`: intensities in any unit, in one or more channels, which share the computed positions
/// * `rows`: the map from voxels of the output to voxels of the moving volume
/// * `out`: C order, of the shape of `part`, one channel after the other
///
/// Border: a position within `[-0.5, n - 0.5]` is inside; in the outer half voxel it takes the edge
/// value (as in ITK). Elsewhere it takes `options.fill`, or with `options.extrapolate` the nearest
/// voxel. NaN positions take `options.fill`; their number is returned.
/// Numbers: positions are `f64`, weights and values `f32`, without fused multiply-add, so that
/// results are bit-identical on every processor.
/// Checked by: `oracle`, `golden`. Measured by: `benches/warp.rs`.
pub(super) fn interpolate<T: Voxel, O: Voxel>(
    moving: &Moving<T>,
    rows: &VoxelMap,
    part: &Box3,
    options: &Options,
    out: &mut [O],
) -> u64 {
    let shape = moving.part.shape();
    let layout = VoxelLayout::new(moving, options);
    let cubic: Vec<spline::Coefficients> = moving
        .channels()
        .filter(|_| options.interpolation == Interpolation::Cubic)
        .map(|voxels| spline::Coefficients::new(voxels, shape))
        .collect();
    let mut values = vec![0.0f32; part.shape()[2].next_multiple_of(LANES)];
    each_row(rows, part, moving.channels, &mut |positions, c, range| {
        let voxels = moving.channel(c);
        match options.interpolation {
            Interpolation::Cubic => {
                value_row(&layout, positions, &mut values, &cubic[c].over(voxels));
            }
            Interpolation::Lanczos => {
                value_row(&layout, positions, &mut values, &Lanczos::new(voxels, shape));
            }
            _ => linear_row(&layout, voxels, positions, &mut values),
        }
        convert(&values, options.rounding, &mut out[range]);
    })
}

/// Like [`interpolate`], but copies the nearest voxels unchanged.
pub(super) fn nearest<T: Voxel>(
    moving: &Moving<T>,
    rows: &VoxelMap,
    part: &Box3,
    options: &Options,
    out: &mut [T],
) -> u64 {
    let layout = VoxelLayout::new(moving, options);
    let fill = T::from_f64(options.fill);
    let mut indices = Vec::new();
    each_row(rows, part, moving.channels, &mut |positions, c, range| {
        if c == 0 {
            nearest_indices(&layout, positions, &mut indices);
        }
        let voxels = moving.channel(c);
        for (to, index) in out[range].iter_mut().zip(&indices) {
            *to = if *index == OUTSIDE { fill } else { voxels[*index as usize] };
        }
    })
}

/// Samples `moving` like [`interpolate`] or [`nearest`], and calls `row` for each row along x of `part`
/// with the index of its first voxel, the positions of its voxels and their values, NaN outside the
/// moving volume; both are longer than the row by up to [`LANES`] - 1 arbitrary elements.
pub(super) fn each_value_row<T: Voxel>(
    moving: &Moving<T>,
    rows: &VoxelMap,
    part: &Box3,
    interpolation: Interpolation,
    row: &mut dyn FnMut(usize, &Positions, &[f32]),
) {
    let options = Options { interpolation, fill: f64::NAN, ..Options::default() };
    let shape = moving.part.shape();
    let layout = VoxelLayout::new(moving, &options);
    let voxels = moving.channel(0);
    let is_cubic = interpolation == Interpolation::Cubic;
    let cubic = is_cubic.then(|| spline::Coefficients::new(voxels, shape));
    let (mut values, mut indices) = (vec![0.0f32; part.shape()[2].next_multiple_of(LANES)], vec![]);
    each_row(rows, part, 1, &mut |positions, _, range| {
        match (interpolation, &cubic) {
            (Interpolation::Nearest, _) => {
                nearest_indices(&layout, positions, &mut indices);
                for (value, index) in values.iter_mut().zip(&indices) {
                    let is_outside = *index == OUTSIDE;
                    *value =
                        if is_outside { f32::NAN } else { voxels[*index as usize].to_f64() as f32 };
                }
            }
            (_, Some(cubic)) => value_row(&layout, positions, &mut values, &cubic.over(voxels)),
            (Interpolation::Lanczos, _) => {
                value_row(&layout, positions, &mut values, &Lanczos::new(voxels, shape));
            }
            _ => linear_row(&layout, voxels, positions, &mut values),
        }
        row(range.start, positions, &values);
    });
}

/// Calls `row` for each row along x of `part` and each channel, with the positions of its voxels,
/// the channel and the range of its voxels in the output. Returns the number of NaN positions.
fn each_row(
    rows: &VoxelMap,
    part: &Box3,
    channels: usize,
    row: &mut dyn FnMut(&Positions, usize, Range<usize>),
) -> u64 {
    let mut unknown = 0;
    let [depth, height, width] = part.shape();
    let mut positions = Positions::default();
    for i in 0..depth * height {
        let (z, y) = (part.min[0] + (i / height) as i64, part.min[1] + (i % height) as i64);
        rows.fill(z, y, part, &mut positions);
        unknown += rows.count_unknown(&positions);
        for c in 0..channels {
            let first = (c * depth * height + i) * width;
            row(&positions, c, first..first + width);
        }
    }
    unknown
}

for_avx2! {
    /// Interpolates one row trilinearly, one axis after the other.
    ///
    /// Speed: compiled for AVX2, it takes 0.4 of the time of the portable code (benchmarks "one
    /// affine" and "a field").
    fn linear_row<T: Voxel>(
        layout: &VoxelLayout,
        voxels: &[T],
        positions: &Positions,
        out: &mut [f32],
    ) => linear_row_any
}

#[inline(always)]
fn linear_row_any<T: Voxel>(
    layout: &VoxelLayout,
    voxels: &[T],
    positions: &Positions,
    out: &mut [f32],
) {
    if layout.upper[2] == 1 {
        layout.linear_row::<T, 1>(voxels, positions, out);
    } else {
        layout.linear_row::<T, 0>(voxels, positions, out);
    }
}

for_avx2! {
    /// Interpolates one row with a kernel of more than two voxels along each axis.
    ///
    /// Speed: compiled for AVX2, it takes 0.8 (cubic) to 0.9 (Lanczos) of the time of the portable
    /// code.
    fn value_row<I: Interpolator>(
        layout: &VoxelLayout,
        positions: &Positions,
        out: &mut [f32],
        kernel: &I,
    ) => VoxelLayout::value_row
}

/// The value that stands for the index of a voxel if the position is outside the moving volume.
const OUTSIDE: u32 = u32::MAX;

for_avx2! {
    /// The indices of the voxels nearest to the positions of one row; positions half way between
    /// voxels round up. The index is [`OUTSIDE`] if a position is outside.
    ///
    /// Speed: compiled for AVX2, nearest neighbours take 0.75 of the time of the portable code.
    fn nearest_indices(layout: &VoxelLayout, positions: &Positions, out: &mut Vec<u32>)
        => nearest_indices_any
}

#[inline(always)]
fn nearest_indices_any(layout: &VoxelLayout, positions: &Positions, out: &mut Vec<u32>) {
    out.resize(positions.padded_len(), OUTSIDE);
    for (group, out) in out.chunks_exact_mut(LANES).enumerate() {
        let mut index = [0.0f64; LANES];
        let mut inside = [true; LANES];
        for a in 0..3 {
            let at = positions.lanes(a, group);
            for l in 0..LANES {
                inside[l] &= at[l] >= layout.least[a] && at[l] <= layout.most[a];
                let p = (at[l] + 0.5).floor();
                let p = if p > layout.first[a] { p } else { layout.first[a] };
                let p = if p < layout.last[a] { p } else { layout.last[a] };
                index[l] += (p - layout.first[a]) * layout.stride[a] as f64;
            }
        }
        for l in 0..LANES {
            out[l] = if inside[l] { integer_of(index[l]) } else { OUTSIDE };
        }
    }
}

for_avx2! {
    /// Converts interpolated values to voxels.
    fn convert<O: Voxel>(values: &[f32], rounding: Rounding, out: &mut [O]) => convert_any
}

#[inline(always)]
fn convert_any<O: Voxel>(values: &[f32], rounding: Rounding, out: &mut [O]) {
    match rounding {
        Rounding::Nearest => {
            for (to, value) in out.iter_mut().zip(values) {
                *to = O::from_f32(*value);
            }
        }
        Rounding::Truncate if is_integer::<O>() => {
            for (to, value) in out.iter_mut().zip(values) {
                *to = O::from_f32(value.trunc());
            }
        }
        Rounding::Truncate => convert_any(values, Rounding::Nearest, out),
    }
}

/// The memory layout of the block's voxels, and the range of positions that are inside.
struct VoxelLayout {
    /// The first and the last voxel of the part in memory along z, y, x, as indices in the whole
    /// moving volume.
    first: [f64; 3],
    last: [f64; 3],
    /// The highest index that the lower corner of a cell can have along z, y, x.
    last_low: [f64; 3],
    /// The lowest and the highest position along z, y, x that is inside.
    least: [f64; 3],
    most: [f64; 3],
    /// The strides along z, y, x.
    stride: [usize; 3],
    /// The offsets from the lower to the upper corner of a cell; 0 along an axis of one voxel.
    upper: [usize; 3],
    /// The index in the slice of the block's voxels that voxel `[0, 0, 0]` of the whole volume
    /// would have.
    base: f64,
    fill: f32,
}

/// The cells (the cubes between eight neighbouring voxels) that contain a group of [`LANES`]
/// positions.
struct Cells {
    /// The index of the lower corner in the block's slice.
    low: [u32; LANES],
    /// The lower corner along z, y, x, counted from the block's first voxel.
    corner: [[u32; LANES]; 3],
    /// The weight of the upper corner along z, y, x.
    share: [[f32; LANES]; 3],
    /// Nonzero if the position is inside.
    inside: [u32; LANES],
}

impl VoxelLayout {
    fn new<T>(moving: &Moving<T>, options: &Options) -> Self {
        let shape = moving.part.shape();
        let stride = [shape[1] * shape[2], shape[2], 1];
        let end = |a: usize, back: i64| (moving.part.max[a] - back).max(moving.part.min[a]) as f64;
        Self {
            first: moving.part.min.map(|v| v as f64),
            last: std::array::from_fn(|a| end(a, 1)),
            last_low: std::array::from_fn(|a| end(a, 2)),
            least: [if options.extrapolate { f64::NEG_INFINITY } else { -0.5 }; 3],
            most: std::array::from_fn(|a| {
                if options.extrapolate { f64::INFINITY } else { moving.whole[a] as f64 - 0.5 }
            }),
            stride,
            upper: std::array::from_fn(|a| if shape[a] > 1 { stride[a] } else { 0 }),
            base: -(0..3).map(|a| moving.part.min[a] as f64 * stride[a] as f64).sum::<f64>(),
            fill: options.fill as f32,
        }
    }

    /// The cells of one group of positions. Every index refers to a voxel of the block, even if the
    /// position is outside or NaN.
    #[inline(always)]
    fn cells(&self, positions: &Positions, group: usize) -> Cells {
        if positions.straight && self.holds(positions, group) {
            return self.inner_cells(positions, group);
        }
        let mut index = [0.0f64; LANES];
        let mut inside = [u64::MAX; LANES];
        let mut share = [[0.0f32; LANES]; 3];
        let mut corner = [[0; LANES]; 3];
        for a in 0..3 {
            let at = positions.lanes(a, group);
            let (first, last, last_low) = (self.first[a], self.last[a], self.last_low[a]);
            let (least, most, stride) = (self.least[a], self.most[a], self.stride[a] as f64);
            for l in 0..LANES {
                let p = at[l];
                inside[l] &= if p >= least && p <= most { u64::MAX } else { 0 };
                // these comparisons map NaN to the first voxel
                let p = if p > first { p } else { first };
                let p = if p < last { p } else { last };
                let low = p.floor();
                let low = if low < last_low { low } else { last_low };
                share[a][l] = (p - low) as f32;
                corner[a][l] = integer_of(low - first);
                index[l] += (low - first) * stride;
            }
        }
        Cells { low: index.map(integer_of), corner, share, inside: inside.map(|v| v as u32) }
    }

    /// Whether a group of positions on a line, including its padding, lies between the first and
    /// the last voxel, so that no position needs a test.
    #[inline(always)]
    fn holds(&self, positions: &Positions, group: usize) -> bool {
        (0..3).all(|a| {
            let at = positions.lanes(a, group);
            let (low, high) = (at[0].min(at[LANES - 1]), at[0].max(at[LANES - 1]));
            low >= self.first[a] && high < self.last[a]
        })
    }

    /// Like [`VoxelLayout::cells`], but without tests. The result is bit-identical.
    #[inline(always)]
    fn inner_cells(&self, positions: &Positions, group: usize) -> Cells {
        let mut index = [self.base; LANES];
        let mut share = [[0.0f32; LANES]; 3];
        let mut corner = [[0; LANES]; 3];
        for a in 0..3 {
            let (at, stride) = (positions.lanes(a, group), self.stride[a] as f64);
            for l in 0..LANES {
                let low = at[l].floor();
                share[a][l] = (at[l] - low) as f32;
                corner[a][l] = integer_of(low - self.first[a]);
                index[l] += low * stride;
            }
        }
        Cells { low: index.map(integer_of), corner, share, inside: [u32::MAX; LANES] }
    }

    /// Interpolates one row trilinearly.
    ///
    /// * `X`: the offset of the upper corner of a cell along x, a constant so that both voxels are
    ///   read together
    #[inline(always)]
    fn linear_row<T: Voxel, const X: usize>(
        &self,
        voxels: &[T],
        positions: &Positions,
        out: &mut [f32],
    ) {
        let [dz, dy, _] = self.upper;
        // four slices of equal length, one per edge of a cell along x, so that one bounds check
        // serves all
        let len = voxels.len() - dz - dy;
        let edges = [0, dy, dz, dz + dy].map(|offset| &voxels[offset..offset + len]);
        for (group, out) in out.chunks_exact_mut(LANES).enumerate() {
            let cells = self.cells(positions, group);
            if cells.inside == [0; LANES] {
                out.fill(self.fill);
                continue;
            }
            let mut values = [[[T::default(); 2]; LANES]; 4];
            for l in 0..LANES {
                let low = (cells.low[l] as usize).min(len - 1 - X);
                for e in 0..4 {
                    values[e][l] = [edges[e][low], edges[e][low + X]];
                }
            }
            for l in 0..LANES {
                let [sz, sy, sx] = [cells.share[0][l], cells.share[1][l], cells.share[2][l]];
                let x: [f32; 4] = std::array::from_fn(|e| {
                    let [low, high] = values[e][l];
                    between::<T>(low.to_f32(), high.to_f32(), sx)
                });
                let y = [between::<T>(x[0], x[1], sy), between::<T>(x[2], x[3], sy)];
                let value = between::<T>(y[0], y[1], sz);
                out[l] = if cells.inside[l] != 0 { value } else { self.fill };
            }
        }
    }

    #[inline(always)]
    fn value_row<I: Interpolator>(&self, positions: &Positions, out: &mut [f32], kernel: &I) {
        for (group, out) in out.chunks_exact_mut(LANES).enumerate() {
            let cells = self.cells(positions, group);
            for l in 0..LANES {
                out[l] = if cells.inside[l] == 0 {
                    self.fill
                } else {
                    let [z, y, x] = &cells.corner;
                    let corner = [z[l] as usize, y[l] as usize, x[l] as usize];
                    let [z, y, x] = &cells.share;
                    kernel.at(corner, [z[l], y[l], x[l]])
                };
            }
        }
    }
}

/// Interpolation from more than two voxels along each axis. A trait is used instead of a closure
/// because its method is always inlined, and is then compiled for the processor's vector registers
/// together with the loop around it.
pub(super) trait Interpolator {
    /// The value at `t` (0 to 1) of the way from voxel `low` of the block to the next along each
    /// axis.
    fn at(&self, low: [usize; 3], t: [f32; 3]) -> f32;
}

/// Converts an integral value from 0 to below 2^32, using the low bits of its sum with 2^52; unlike
/// a saturating cast this is vectorised.
#[inline(always)]
fn integer_of(v: f64) -> u32 {
    (v + 4_503_599_627_370_496.0).to_bits() as u32
}

/// The value at the fraction `share` of the way from `a` to `b`. For floats an end of weight 0 is
/// ignored, because NaN times 0 is NaN.
#[inline(always)]
fn between<T: Voxel>(a: f32, b: f32, share: f32) -> f32 {
    if is_integer::<T>() {
        return a + share * (b - a);
    }
    let low = if share > 1.0 - ON_VOXEL { b } else { a };
    let high = if share < ON_VOXEL { a } else { b };
    low + share * (high - low)
}

#[inline(always)]
fn is_integer<T: Voxel>() -> bool {
    T::DTYPE.is_integer()
}
