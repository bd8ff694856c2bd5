//! Interpolation by a windowed sinc: the Lanczos kernel of radius 3.
//!
//! The kernel is `sinc(d) sinc(d / 3)` for `|d| < 3`, after Lanczos' window in Duchon, "Lanczos
//! filtering in one and two dimensions", Journal of Applied Meteorology 18, 1979, and Turkowski,
//! "Filters for common resampling tasks", Graphics Gems, 1990. As in ITK
//! (`WindowedSincInterpolateImageFunction` with a `LanczosWindowFunction`; Meijering et al.,
//! "Quantitative comparison of sinc-approximating kernels", MICCAI 1999), positions beyond the
//! volume are clamped to the edge voxels. In ITK, the sum of the six weights along an axis differs
//! from 1 by up to a hundredth. Here the weights are divided by their sum, so that a constant image
//! stays constant.

use std::f64::consts::PI;
use std::hint::black_box;
use std::sync::LazyLock;

use super::cpu::Interpolator;
use super::voxel_map::ON_VOXEL;
use crate::volume::Voxel;

/// Voxels on each side of a position that contribute to its value.
pub(super) const RADIUS: usize = 3;
const TAPS: usize = 2 * RADIUS;

/// The number of taps along x, padded with taps of weight 0 to the width of a vector register.
const WIDE: usize = 8;
type Taps = [f32; WIDE];

/// The number of intervals in the table of weights. Weights that are interpolated linearly between
/// its rows differ from the exact weights by less than `2e-6`.
const STEPS: usize = 1024;

/// Row `i` holds the weights for a position at the fraction `i / STEPS` of the way from its lower
/// neighbour to the next voxel. They belong to the voxels from two below the lower neighbour to
/// three above it. The last row is stored twice, so that every interpolated row has a next row.
static WEIGHTS: LazyLock<Vec<Taps>> =
    LazyLock::new(|| (0..=STEPS + 1).map(|i| exact(i.min(STEPS) as f64 / STEPS as f64)).collect());

/// The weights at the fraction `t` of the way from the lower neighbour to the next voxel, by the
/// definition of the kernel.
fn exact(t: f64) -> Taps {
    // if the position lies on a voxel, `side` would divide by 0
    if t == 0.0 {
        return [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    }
    if t == 1.0 {
        return [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    }
    let (low, high) = (side(t), side(1.0 - t));
    let by = 1.0 / (low[0] + low[1] + low[2] + high[0] + high[1] + high[2]);
    [low[2], low[1], low[0], high[0], high[1], high[2], 0.0, 0.0].map(|weight| (weight * by) as f32)
}

/// Like [`exact`], but interpolated from `table`.
#[inline(always)]
fn weights(table: &[Taps], t: f32) -> Taps {
    // if the position lies on a voxel, the weights of all other voxels are exactly 0
    let t = if t < ON_VOXEL { 0.0 } else { t };
    let t = if t > 1.0 - ON_VOXEL { 1.0 } else { t };
    let t = t * STEPS as f32;
    let i = (t as usize).min(STEPS);
    let t = t - i as f32;
    // a loop, because a closure might not be compiled with the vector instructions
    let (mut row, next) = (table[i], &table[i + 1]);
    for tap in 0..WIDE {
        row[tap] += t * (next[tap] - row[tap]);
    }
    row
}

/// The kernel at the distances `t`, `t + 1` and `t + 2`, divided by `3 sin(pi t) / pi^2`.
///
/// `sin(pi (t + k))` equals `sin(pi t)` except for its sign. The divisor is the same for `t` and
/// `1 - t`, the two sides of the position, and cancels when the weights are divided by their sum.
/// The sines are computed by a series here, because the system's library gives different results on
/// different machines.
#[inline(always)]
fn side(t: f64) -> [f64; RADIUS] {
    let (sine, cosine) = (sine(PI / 3.0 * t), cosine(PI / 3.0 * t));
    // the absolute values of the cosine and the sine, both of pi / 3 and of 2 pi / 3
    let (half, root) = (0.5, 0.866_025_403_784_438_6);
    let window = [sine, sine * half + cosine * root, cosine * root - sine * half];
    let square = |d: f64| 1.0 / (d * d);
    [window[0] * square(t), -window[1] * square(t + 1.0), window[2] * square(t + 2.0)]
}

/// The sine, with an error of at most 3e-10 for arguments from 0 to pi / 3.
#[inline(always)]
fn sine(x: f64) -> f64 {
    let s = x * x;
    x * (1.0 - s / 6.0 * (1.0 - s / 20.0 * (1.0 - s / 42.0 * (1.0 - s / 72.0 * (1.0 - s / 110.0)))))
}

/// The cosine, with an error of at most 4e-9 for arguments from 0 to pi / 3.
#[inline(always)]
fn cosine(x: f64) -> f64 {
    let s = x * x;
    1.0 - s / 2.0 * (1.0 - s / 12.0 * (1.0 - s / 30.0 * (1.0 - s / 56.0 * (1.0 - s / 90.0))))
}

/// Lanczos interpolation in a block of `shape`.
pub(super) struct Lanczos<'a, T> {
    voxels: &'a [T],
    shape: [usize; 3],
    table: &'a [Taps],
}

impl<'a, T: Voxel> Lanczos<'a, T> {
    pub(super) fn new(voxels: &'a [T], shape: [usize; 3]) -> Self {
        Self { voxels, shape, table: &WEIGHTS }
    }

    /// The voxels of the taps along x, at tap `z` along z and tap `y` along y. Taps outside the
    /// block take the nearest edge voxel.
    #[inline(never)]
    fn clamped(&self, low: [usize; 3], z: usize, y: usize) -> Taps {
        let clamp = |axis: usize, tap: usize| {
            (low[axis] + tap).saturating_sub(RADIUS - 1).min(self.shape[axis] - 1)
        };
        let row = (clamp(0, z) * self.shape[1] + clamp(1, y)) * self.shape[2];
        let voxel = |x: usize| self.voxels[row + clamp(2, x)].to_f32();
        std::array::from_fn(|x| if x < TAPS { voxel(x) } else { 0.0 })
    }

    /// For each tap along x, the weighted sum of its voxels along z and y. Rows of weight 0 are
    /// skipped, so that a NaN in them is ignored.
    ///
    /// * `block`: the voxels from the first tap on; `None` if a tap lies outside the block
    #[inline(always)]
    fn sums(&self, block: Option<&[T]>, low: [usize; 3], weights: [&Taps; 2]) -> Taps {
        let [_, height, width] = self.shape;
        let mut sum = [0.0f32; WIDE];
        for z in 0..TAPS {
            let z_weight = weights[0][z];
            if z_weight == 0.0 {
                continue;
            }
            let mut plane = [0.0f32; WIDE];
            for y in 0..TAPS {
                let y_weight = weights[1][y];
                if y_weight == 0.0 {
                    continue;
                }
                let row = match block {
                    Some(block) => taps(&block[(z * height + y) * width..]),
                    None => self.clamped(low, z, y),
                };
                for x in 0..WIDE {
                    plane[x] += y_weight * row[x];
                }
            }
            for x in 0..WIDE {
                sum[x] += z_weight * plane[x];
            }
        }
        sum
    }
}

/// The voxels of the taps along x. For integers, a whole register is read, because the additional
/// voxels have weight 0. For floats, only the taps are read: an additional voxel could be NaN, and
/// NaN times 0 is NaN.
#[inline(always)]
fn taps<T: Voxel>(row: &[T]) -> Taps {
    let mut taps = [0.0; WIDE];
    if T::DTYPE.is_integer() {
        let row: [T; WIDE] =
            *row.first_chunk().expect("a row of the block has a register of voxels");
        for x in 0..WIDE {
            taps[x] = row[x].to_f32();
        }
    } else {
        let row: [T; TAPS] = *row.first_chunk().expect("a row of the block has all taps");
        for x in 0..TAPS {
            taps[x] = row[x].to_f32();
        }
    }
    taps
}

impl<T: Voxel> Interpolator for Lanczos<'_, T> {
    #[inline(always)]
    fn at(&self, low: [usize; 3], t: [f32; 3]) -> f32 {
        let (z_weights, y_weights) = (weights(self.table, t[0]), weights(self.table, t[1]));
        let x_weights = weights(self.table, t[2]);
        let [_, height, width] = self.shape;
        let is_inside = |a: usize| low[a] + 1 >= RADIUS && low[a] + RADIUS < self.shape[a];
        // in the last rows of the block, a whole register can reach past the end of the slice
        let block = if is_inside(0) && is_inside(1) && is_inside(2) {
            let first = ((low[0] + 1 - RADIUS) * height + low[1] + 1 - RADIUS) * width + low[2] + 1
                - RADIUS;
            self.voxels[first..].get(..((TAPS - 1) * height + TAPS - 1) * width + WIDE)
        } else {
            None
        };
        // with the literal `None`, the compiler omits the tests of `block` from the loops
        let sum = match block {
            Some(_) => self.sums(block, low, [&z_weights, &y_weights]),
            None => self.sums(None, low, [&z_weights, &y_weights]),
        };
        // `black_box` keeps the sums together in memory: otherwise the compiler would compute each
        // of them separately, because they are used separately below
        let sum = black_box(sum);
        let term = |x: usize| if x_weights[x] == 0.0 { 0.0 } else { x_weights[x] * sum[x] };
        ((term(0) + term(5)) + (term(1) + term(4))) + (term(2) + term(3))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The kernel by its definition.
    fn kernel(d: f64) -> f64 {
        let sinc = |t: f64| if t == 0.0 { 1.0 } else { (PI * t).sin() / (PI * t) };
        if d.abs() < 3.0 { sinc(d) * sinc(d / 3.0) } else { 0.0 }
    }

    proptest! {
        #[test]
        fn weights_are_the_kernels_and_sum_to_one(share in 0.0..1.0f32) {
            let wanted: [f64; TAPS] =
                std::array::from_fn(|tap| kernel(tap as f64 - 2.0 - f64::from(share)));
            let sum: f64 = wanted.iter().sum();
            // without normalisation, the sum differs from 1 by up to a hundredth
            prop_assert!((sum - 1.0).abs() < 0.011, "{}", sum);
            let got = weights(&WEIGHTS, share);
            for (got, wanted) in got.iter().zip(wanted) {
                prop_assert!((f64::from(*got) - wanted / sum).abs() < 2e-6, "{share}: {got:?}");
            }
            prop_assert!((got.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }

        #[test]
        fn an_even_block_stays_even_to_its_last_voxel(
            shape in prop::array::uniform3(1..8usize),
            at in prop::array::uniform3(0.0..1.0f32),
            value: u16,
        ) {
            let voxels = vec![value; shape.iter().product()];
            let low = shape.map(|n| n.saturating_sub(2));
            let got = Lanczos::new(&voxels, shape).at(low, at);
            prop_assert!((got - f32::from(value)).abs() <= 1e-6 * f32::from(value), "{got}");
        }
    }
}
