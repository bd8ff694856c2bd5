//! The kernel: what lies at every position of a block.

use super::rows::{LANES, ON_VOXEL, Positions, Rows};
use super::{Interpolation, Options, Rounding, Voxel, lanczos, spline};
use crate::geom::Box3;
use lanczos::Lanczos;

/// How far from a position, in voxels, a value can depend on the moving volume.
pub(super) fn support(interpolation: Interpolation) -> i64 {
    match interpolation {
        // one more than what is read, for positions that differ by rounding alone
        Interpolation::Nearest | Interpolation::Linear => 1,
        Interpolation::Cubic => 2 + spline::DECAY,
        Interpolation::Lanczos => 1 + lanczos::RADIUS as i64,
    }
}

/// The part of the moving volume that a block needs.
pub(super) struct Moving<'a, T> {
    /// Its voxels, C order; one channel after the other.
    pub(super) voxels: &'a [T],
    /// How many channels there are.
    pub(super) channels: usize,
    /// Where they lie in the volume.
    pub(super) part: Box3,
    /// The shape of the whole volume.
    pub(super) whole: [usize; 3],
}

impl<T> Moving<'_, T> {
    /// The voxels of each channel.
    fn channels(&self) -> impl Iterator<Item = &[T]> {
        self.voxels.chunks_exact(self.part.len().max(1)).take(self.channels)
    }
}

/// Samples `moving` at the positions of every voxel of `part`, trilinearly, by a cubic spline or by a
/// windowed sinc.
///
/// * `moving`: intensities in any unit, of one channel or several, whose positions are computed once
/// * `rows`: from voxels of the output to voxels of the moving volume
/// * `out`: C order, of `part`'s shape, one channel after the other
///
/// Border: a position within `[-0.5, n - 0.5]` is inside, and in the half voxel of rim the outer
/// voxels go on (as in ITK); elsewhere `options.fill`, or with `options.extrapolate` the nearest
/// voxel. Positions that are not numbers are outside.
/// Numbers: positions `f64`; weights and values `f32`, no fused multiply-add, so that every
/// processor gives the same bits.
/// Speed: compiled for AVX2 too, linear values take 0.4 of the time (one affine, a field), the others no
/// less than before.
/// Checked by: `oracle`, `golden`; `benches/warp.rs`.
pub(super) fn interpolate<T: Voxel, O: Voxel>(
    moving: &Moving<T>,
    rows: &Rows,
    part: &Box3,
    options: &Options,
    out: &mut [O],
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn with_avx2<T: Voxel, O: Voxel>(
            moving: &Moving<T>,
            rows: &Rows,
            part: &Box3,
            options: &Options,
            out: &mut [O],
        ) {
            interpolate_any(moving, rows, part, options, out);
        }
        #[expect(unsafe_code, reason = "a call across target features")]
        // SAFETY: the processor has been asked for AVX2 in the line above
        return unsafe { with_avx2(moving, rows, part, options, out) };
    }
    interpolate_any(moving, rows, part, options, out);
}

/// The same for nearest voxels, which are copied as they are; compiled for AVX2 too: 0.75 of the time.
pub(super) fn nearest<T: Voxel>(
    moving: &Moving<T>,
    rows: &Rows,
    part: &Box3,
    options: &Options,
    out: &mut [T],
) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        #[target_feature(enable = "avx2")]
        fn with_avx2<T: Voxel>(
            moving: &Moving<T>,
            rows: &Rows,
            part: &Box3,
            options: &Options,
            out: &mut [T],
        ) {
            nearest_any(moving, rows, part, options, out);
        }
        #[expect(unsafe_code, reason = "a call across target features")]
        // SAFETY: the processor has been asked for AVX2 in the line above
        return unsafe { with_avx2(moving, rows, part, options, out) };
    }
    nearest_any(moving, rows, part, options, out);
}

#[inline(always)]
fn nearest_any<T: Voxel>(
    moving: &Moving<T>,
    rows: &Rows,
    part: &Box3,
    options: &Options,
    out: &mut [T],
) {
    let [depth, height, width] = part.shape();
    let lattice = Lattice::new(moving, options);
    let fill = T::from_f64(options.fill);
    let mut positions = Positions::default();
    for i in 0..depth * height {
        let (z, y) = (part.min[0] + (i / height) as i64, part.min[1] + (i % height) as i64);
        rows.fill(z, y, part, &mut positions);
        for (c, voxels) in moving.channels().enumerate() {
            let row = &mut out[(c * depth * height + i) * width..][..width];
            lattice.nearest_row(voxels, &positions, fill, row);
        }
    }
}

#[inline(always)]
fn interpolate_any<T: Voxel, O: Voxel>(
    moving: &Moving<T>,
    rows: &Rows,
    part: &Box3,
    options: &Options,
    out: &mut [O],
) {
    let [depth, height, width] = part.shape();
    let lattice = Lattice::new(moving, options);
    let cubic: Vec<spline::Coefficients> = moving
        .channels()
        .filter(|_| options.interpolation == Interpolation::Cubic)
        .map(|voxels| spline::Coefficients::new(voxels, moving.part.shape()))
        .collect();
    let mut positions = Positions::default();
    let mut values = vec![0.0f32; width.next_multiple_of(LANES)];
    for i in 0..depth * height {
        let (z, y) = (part.min[0] + (i / height) as i64, part.min[1] + (i % height) as i64);
        rows.fill(z, y, part, &mut positions);
        for (c, voxels) in moving.channels().enumerate() {
            let row = &mut out[(c * depth * height + i) * width..][..width];
            match options.interpolation {
                Interpolation::Cubic => {
                    lattice.value_row(&positions, &mut values, &cubic[c].over(voxels));
                }
                Interpolation::Lanczos => {
                    let kernel = Lanczos::new(voxels, moving.part.shape());
                    lattice.value_row(&positions, &mut values, &kernel);
                }
                _ => lattice.linear_row(voxels, &positions, &mut values),
            }
            convert(&values, options.rounding, row);
        }
    }
}

#[inline(always)]
fn convert<O: Voxel>(values: &[f32], rounding: Rounding, out: &mut [O]) {
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
        Rounding::Truncate => convert(values, Rounding::Nearest, out),
    }
}

/// Where the block's voxels are in its slice, and what is inside.
struct Lattice {
    /// First and last voxel that may be read, in voxels of the volume.
    first: [f64; 3],
    last: [f64; 3],
    /// The highest lower corner of a cell.
    last_low: [f64; 3],
    /// Positions beyond these are outside.
    least: [f64; 3],
    most: [f64; 3],
    /// From a voxel to the next along z, y, x in the slice.
    stride: [usize; 3],
    /// From the lower to the upper corner of a cell; 0 along an axis of one voxel.
    upper: [usize; 3],
    /// Index in the slice that the volume's voxel 0 would have.
    base: f64,
    fill: f32,
}

/// What 16 positions have in common with the lattice.
struct Cells {
    /// Index of the lower corner in the block's slice.
    low: [u32; LANES],
    /// The lower corner along z, y, x, counted from the block's first voxel.
    corner: [[u32; LANES]; 3],
    /// Shares of the upper corner along z, y, x.
    share: [[f32; LANES]; 3],
    /// Not 0 for a position inside.
    inside: [u32; LANES],
}

impl Lattice {
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

    /// The cells of one group of positions. Every index is that of a voxel of the block, whatever
    /// the position is.
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
                // comparisons that send what is not a number to the first voxel
                let p = if p > first { p } else { first };
                let p = if p < last { p } else { last };
                let low = p.floor();
                let low = if low < last_low { low } else { last_low };
                share[a][l] = (p - low) as f32;
                corner[a][l] = whole(low - first);
                index[l] += (low - first) * stride;
            }
        }
        Cells { low: index.map(whole), corner, share, inside: inside.map(|v| v as u32) }
    }

    /// Whether a group of positions on a line lies between the first and the last voxel, with its
    /// padding: then no position needs a test.
    #[inline(always)]
    fn holds(&self, positions: &Positions, group: usize) -> bool {
        (0..3).all(|a| {
            let at = positions.lanes(a, group);
            let (low, high) = (at[0].min(at[LANES - 1]), at[0].max(at[LANES - 1]));
            low >= self.first[a] && high < self.last[a]
        })
    }

    /// [`Lattice::cells`] without its tests, to the same bits.
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
                corner[a][l] = whole(low - self.first[a]);
                index[l] += low * stride;
            }
        }
        Cells { low: index.map(whole), corner, share, inside: [u32::MAX; LANES] }
    }

    /// One row, trilinearly by nested interpolation.
    #[inline(always)]
    fn linear_row<T: Voxel>(&self, voxels: &[T], positions: &Positions, out: &mut [f32]) {
        if self.upper[2] == 1 {
            self.linear_row_of::<T, 1>(voxels, positions, out);
        } else {
            self.linear_row_of::<T, 0>(voxels, positions, out);
        }
    }

    /// The same with the way from a voxel to the next along x known: both are read at once.
    #[inline(always)]
    fn linear_row_of<T: Voxel, const X: usize>(
        &self,
        voxels: &[T],
        positions: &Positions,
        out: &mut [f32],
    ) {
        let [dz, dy, _] = self.upper;
        // four views of one length, one per edge of a cell along x: one test of an index serves all
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

    /// One row of nearest voxels; half-way goes up.
    #[inline(always)]
    fn nearest_row<T: Voxel>(&self, voxels: &[T], positions: &Positions, fill: T, out: &mut [T]) {
        for (group, out) in out.chunks_mut(LANES).enumerate() {
            let mut index = [0.0f64; LANES];
            let mut inside = [true; LANES];
            for a in 0..3 {
                let at = positions.lanes(a, group);
                for l in 0..LANES {
                    inside[l] &= at[l] >= self.least[a] && at[l] <= self.most[a];
                    let p = (at[l] + 0.5).floor();
                    let p = if p > self.first[a] { p } else { self.first[a] };
                    let p = if p < self.last[a] { p } else { self.last[a] };
                    index[l] += (p - self.first[a]) * self.stride[a] as f64;
                }
            }
            for (l, to) in out.iter_mut().enumerate() {
                *to = if inside[l] { voxels[whole(index[l]) as usize] } else { fill };
            }
        }
    }

    /// One row by a kernel of more than two voxels a side.
    #[inline(always)]
    fn value_row(&self, positions: &Positions, out: &mut [f32], kernel: &impl Kernel) {
        for (group, out) in out.chunks_exact_mut(LANES).enumerate() {
            let cells = self.cells(positions, group);
            for l in 0..LANES {
                out[l] = if cells.inside[l] == 0 {
                    self.fill
                } else {
                    let corner = [0, 1, 2].map(|a| cells.corner[a][l] as usize);
                    kernel.at(corner, [0, 1, 2].map(|a| cells.share[a][l]))
                };
            }
        }
    }
}

/// Interpolation from more than two voxels a side. A trait and no closure: its method is always inlined,
/// and is then compiled for the processor's vector registers with the loop around it.
pub(super) trait Kernel {
    /// The value at `t` (0 to 1) of the way from voxel `low` of the block to the next along each axis.
    fn at(&self, low: [usize; 3], t: [f32; 3]) -> f32;
}

/// A whole number from 0 to below 2^32, which stands in the low bits of its sum with 2^52: unlike a
/// saturating cast this becomes vector instructions.
#[inline(always)]
fn whole(v: f64) -> u32 {
    (v + 4_503_599_627_370_496.0).to_bits() as u32
}

/// The value at `share` of the way from `a` to `b`. For floats an end without weight has no say,
/// whatever it is: NaN times 0 is NaN.
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
