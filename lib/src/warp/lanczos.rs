//! Interpolation by a windowed sinc: the Lanczos kernel of radius 3.
//!
//! The kernel is `sinc(d) sinc(d / 3)` for `|d| < 3`, after Lanczos' window in Duchon, "Lanczos
//! filtering in one and two dimensions", Journal of Applied Meteorology 18, 1979, and Turkowski,
//! "Filters for common resampling tasks", Graphics Gems, 1990. As in ITK
//! (`WindowedSincInterpolateImageFunction` with a `LanczosWindowFunction`; Meijering et al.,
//! "Quantitative comparison of sinc-approximating kernels", MICCAI 1999), positions beyond the
//! volume are clamped to the edge voxels. Unlike in ITK, the six weights along an axis are divided
//! by their sum, so that a constant image stays constant; those of ITK sum to 1 within a hundredth.

use std::f64::consts::PI;

use super::rows::ON_VOXEL;
use crate::volume::Voxel;

/// The number of voxels on each side of a position that contribute.
pub(super) const RADIUS: usize = 3;
const TAPS: usize = 2 * RADIUS;

/// The weights of the voxels from two below the lower neighbour to three above it.
#[inline(always)]
fn weights(share: f32) -> [f32; TAPS] {
    // a position on a voxel takes that voxel alone, even if others are NaN
    if share < ON_VOXEL {
        return [0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
    }
    if share > 1.0 - ON_VOXEL {
        return [0.0, 0.0, 0.0, 1.0, 0.0, 0.0];
    }
    let share = f64::from(share);
    let (low, high) = (side(share), side(1.0 - share));
    let by = 1.0 / (low[0] + low[1] + low[2] + high[0] + high[1] + high[2]);
    [low[2], low[1], low[0], high[0], high[1], high[2]].map(|weight| (weight * by) as f32)
}

/// The kernel at the distances `t`, `t + 1`, `t + 2`, up to a factor that is the same for `1 - t`.
///
/// `sin(pi (t + k))` equals `sin(pi t)` except for its sign; the factor is the same on both sides
/// of the position and cancels when the weights are divided by their sum. The sines are computed by
/// series here, because the system's library gives different results on different machines.
#[inline(always)]
fn side(t: f64) -> [f64; RADIUS] {
    let (sine, cosine) = (sine(PI / 3.0 * t), cosine(PI / 3.0 * t));
    // cosines and sines of pi / 3 and 2 pi / 3
    let (half, root) = (0.5, 0.866_025_403_784_438_6);
    let window = [sine, sine * half + cosine * root, cosine * root - sine * half];
    let square = |d: f64| 1.0 / (d * d);
    [window[0] * square(t), -window[1] * square(t + 1.0), window[2] * square(t + 2.0)]
}

/// The sine, to 3e-10 for arguments up to pi / 3.
#[inline(always)]
fn sine(x: f64) -> f64 {
    let s = x * x;
    x * (1.0 - s / 6.0 * (1.0 - s / 20.0 * (1.0 - s / 42.0 * (1.0 - s / 72.0 * (1.0 - s / 110.0)))))
}

/// The cosine, to 2e-9 for arguments up to pi / 3.
#[inline(always)]
fn cosine(x: f64) -> f64 {
    let s = x * x;
    1.0 - s / 2.0 * (1.0 - s / 12.0 * (1.0 - s / 30.0 * (1.0 - s / 56.0 * (1.0 - s / 90.0))))
}

/// The value at the fraction `share` of the way from voxel `low` of a block of `shape` to the next
/// along each axis.
#[inline(always)]
pub(super) fn at<T: Voxel>(
    voxels: &[T],
    shape: [usize; 3],
    low: [usize; 3],
    share: [f32; 3],
) -> f32 {
    let [z_weights, y_weights, x_weights] = share.map(weights);
    let place = |a: usize, tap: usize| (low[a] + tap).saturating_sub(RADIUS - 1).min(shape[a] - 1);
    let xs: [usize; TAPS] = std::array::from_fn(|tap| place(2, tap));
    let inside = xs[TAPS - 1] - xs[0] == TAPS - 1;
    let mut sum = [0.0f32; TAPS];
    for (z, z_weight) in z_weights.into_iter().enumerate() {
        if z_weight == 0.0 {
            continue;
        }
        let plane = place(0, z) * shape[1];
        for (y, y_weight) in y_weights.into_iter().enumerate() {
            if y_weight == 0.0 {
                continue;
            }
            let row = &voxels[(plane + place(1, y)) * shape[2]..][..shape[2]];
            let weight = z_weight * y_weight;
            if inside {
                let row = &row[xs[0]..xs[0] + TAPS];
                for x in 0..TAPS {
                    sum[x] += weight * row[x].to_f32();
                }
            } else {
                for x in 0..TAPS {
                    sum[x] += weight * row[xs[x]].to_f32();
                }
            }
        }
    }
    let share = |x: usize| if x_weights[x] == 0.0 { 0.0 } else { x_weights[x] * sum[x] };
    ((share(0) + share(5)) + (share(1) + share(4))) + (share(2) + share(3))
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
            // without normalisation the sum is off by up to a hundredth
            prop_assert!((sum - 1.0).abs() < 0.011, "{}", sum);
            let got = weights(share);
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
            let got = super::at(&voxels, shape, low, at);
            prop_assert!((got - f32::from(value)).abs() <= 1e-6 * f32::from(value), "{got}");
        }
    }
}
