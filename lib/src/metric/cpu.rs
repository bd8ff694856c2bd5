//! The inner loops: interpolated values and gradients, and sums of products over samples.

use crate::filter::lines::{multiply_add, vectorised};

/// Number of samples in a batch, whose products are summed together.
pub(super) const LANES: usize = 64;

/// Number of partial sums that are kept side by side.
const PARTIAL_SUMS: usize = 8;

/// Maximum distance, in voxels, of positions outside the outermost voxel centres that are clamped
/// to these centres. It tolerates rounding errors of maps that do not move the border.
const BORDER_TOLERANCE: f32 = 1e-3;

/// The value and its gradient per voxel at a position, by trilinear interpolation.
///
/// * `voxels`: `(Z, Y, X)` of `shape`; `at`: position in voxels, z, y, x
///
/// Border: NaN outside the outermost voxel centres, or more than half a voxel off a single plane.
/// NaN if a neighbour is NaN. Checked by: `oracle::sample`.
#[inline(always)]
pub(super) fn sample(voxels: &[f32], shape: [usize; 3], at: [f32; 3]) -> (f32, [f32; 3]) {
    let [nz, ny, nx] = shape;
    let (Some((z, dz)), Some((y, dy)), Some((x, dx))) =
        (cell(at[0], nz), cell(at[1], ny), cell(at[2], nx))
    else {
        return (f32::NAN, [0.0; 3]);
    };
    let base = (z * ny + y) * nx + x;
    let up = usize::from(nx > 1);
    let north = if ny > 1 { nx } else { 0 };
    let above = if nz > 1 { ny * nx } else { 0 };
    let pair = |at: usize| (voxels[at], voxels[at + up]);
    let (a, b) = pair(base);
    let (c, d) = pair(base + north);
    let (e, f) = pair(base + above);
    let (g, h) = pair(base + above + north);
    // along x, then y, then z
    let (ab, cd, ef, gh) = (a + dx * (b - a), c + dx * (d - c), e + dx * (f - e), g + dx * (h - g));
    let (low, high) = (ab + dy * (cd - ab), ef + dy * (gh - ef));
    let slope_y = (cd - ab) + dz * ((gh - ef) - (cd - ab));
    let (near, far) = ((b - a) + dy * ((d - c) - (b - a)), (f - e) + dy * ((h - g) - (f - e)));
    (low + dz * (high - low), [high - low, slope_y, near + dz * (far - near)])
}

/// The lower voxel of the cell that contains a position along one axis of `n` voxels, and the
/// offset of the position from it; `None` outside.
#[inline(always)]
fn cell(at: f32, n: usize) -> Option<(usize, f32)> {
    let last = (n - 1) as f32;
    let slack = if n == 1 { 0.5 } else { BORDER_TOLERANCE };
    if !(at >= -slack && at <= last + slack) {
        return None;
    }
    let at = at.clamp(0.0, last);
    let low = (at as usize).min(n.saturating_sub(2));
    Some((low, at - low as f32))
}

/// A batch of samples for an affine map. Each sample has an image gradient `g` (in `slope`), a
/// position (in `place`), a force, a curvature and a value.
#[derive(Clone)]
pub(super) struct Lanes {
    /// Image gradients along z, y, x, per `Normalisation::size`.
    pub(super) slope: [[f32; LANES]; 3],
    /// Positions z, y, x, relative to the centre of the `Normalisation` and in units of its size.
    pub(super) place: [[f32; LANES]; 3],
    /// The derivative of the energy with respect to the value.
    pub(super) force: [f32; LANES],
    /// The curvature of the energy with respect to the value.
    pub(super) curvature: [f32; LANES],
    /// The moving value; for a linear force, less its mean.
    pub(super) value: [f32; LANES],
}

impl Lanes {
    pub(super) const EMPTY: Self = Self {
        slope: [[0.0; LANES]; 3],
        place: [[0.0; LANES]; 3],
        force: [0.0; LANES],
        curvature: [0.0; LANES],
        value: [0.0; LANES],
    };
}

/// Pairs of axes, in the order of the products of two gradient components.
pub(super) const PAIRS: [[usize; 2]; 6] = [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2], [2, 2]];

/// Sums of products over samples, as `PARTIAL_SUMS` partial sums.
pub(super) struct ProductSums {
    /// `curvature g_a g_b p` for the [`PAIRS`] of axes and the ten products `p` of `1, z, y, x`:
    /// `1, z, y, x, zz, zy, zx, yy, yx, xx`.
    squares: [[[f32; PARTIAL_SUMS]; 10]; 6],
    /// `force g_a p`, `g_a p`, `value g_a p` for `p` among `1, z, y, x`.
    vectors: [[[[f32; PARTIAL_SUMS]; 4]; 3]; 3],
}

impl ProductSums {
    pub(super) const ZERO: Self = Self {
        squares: [[[0.0; PARTIAL_SUMS]; 10]; 6],
        vectors: [[[[0.0; PARTIAL_SUMS]; 4]; 3]; 3],
    };

    /// The sum of `curvature g_a g_b p`, by the pair of axes and the product of positions.
    pub(super) fn square(&self, pair: usize, product: usize) -> f64 {
        total(&self.squares[pair][product])
    }

    /// The sum of `w g_a p`, where `w` is the force, 1 or the value.
    pub(super) fn vector(&self, weight: usize, axis: usize, place: usize) -> f64 {
        total(&self.vectors[weight][axis][place])
    }
}

fn total(side_by_side: &[f32; PARTIAL_SUMS]) -> f64 {
    side_by_side.iter().map(|&v| f64::from(v)).sum()
}

vectorised! {
    /// Adds the products of these samples to the sums.
    ///
    /// Numbers: `f32`; callers add the sums to totals in `f64` every few hundred samples.
    /// Checked by: `oracle::gradient`.
    fn add_lanes(lanes: &Lanes, sums: &mut ProductSums) => add_body
}

/// Adds the products of these samples to the sums.
pub(super) fn add(lanes: &Lanes, sums: &mut ProductSums) {
    add_lanes(lanes, sums);
}

#[inline(always)]
fn add_body<const FUSED: bool>(lanes: &Lanes, sums: &mut ProductSums) {
    let [z, y, x] = &lanes.place;
    let ones = [1.0; LANES];
    let (zz, zy, zx) = (times(z, z), times(z, y), times(z, x));
    let (yy, yx, xx) = (times(y, y), times(y, x), times(x, x));
    let products = [&ones, z, y, x, &zz, &zy, &zx, &yy, &yx, &xx];
    for (pair, sums) in PAIRS.iter().zip(&mut sums.squares) {
        let both = times(&lanes.slope[pair[0]], &lanes.slope[pair[1]]);
        let weighted = times(&both, &lanes.curvature);
        for (product, sum) in products.iter().zip(sums) {
            dot::<FUSED>(&weighted, product, sum);
        }
    }
    for (weight, sums) in [&lanes.force, &ones, &lanes.value].into_iter().zip(&mut sums.vectors) {
        for (slope, sums) in lanes.slope.iter().zip(sums) {
            let weighted = times(slope, weight);
            for (place, sum) in products.iter().zip(sums) {
                dot::<FUSED>(&weighted, place, sum);
            }
        }
    }
}

#[inline(always)]
fn times(a: &[f32; LANES], b: &[f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|i| a[i] * b[i])
}

#[inline(always)]
fn dot<const FUSED: bool>(a: &[f32; LANES], b: &[f32; LANES], sum: &mut [f32; PARTIAL_SUMS]) {
    let mut wide = *sum;
    for i in (0..LANES).step_by(PARTIAL_SUMS) {
        for l in 0..PARTIAL_SUMS {
            wide[l] = multiply_add::<FUSED>(a[i + l], b[i + l], wide[l]);
        }
    }
    *sum = wide;
}
