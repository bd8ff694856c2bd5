use super::Kernel;
use super::lines::{self, LANES, Scratch, multiply_add, row, rows, vectorised};

vectorised! {
    /// Convolves a scratch buffer with one kernel:
    /// `out[j] = w[0] s[j] + sum over k > 0 of w[k] (s[j-k] + s[j+k])`.
    ///
    /// Row `j` of `out` is centred at entry `radius * tap + j * advance` of the scratch buffer; its
    /// neighbours along the line lie `tap` entries apart.
    pub(super) fn fold(scratch: &[f32], weights: &[f32], tap: usize, advance: usize, out: &mut [f32]) => fold_body
}

/// Processes two taps at a time, so that sums are stored half as often.
#[inline(always)]
fn fold_body<const FUSED: bool>(
    scratch: &[f32],
    weights: &[f32],
    tap: usize,
    advance: usize,
    out: &mut [f32],
) {
    let radius = weights.len() - 1;
    for (j, sums) in rows(out).enumerate() {
        let centre = radius * tap + j * advance;
        let middle = row(scratch, centre);
        for i in 0..LANES {
            sums[i] = weights[0] * middle[i];
        }
        for k in (1..=radius).step_by(2) {
            let next = radius.min(k + 1);
            let near = weights[k];
            let far = if next > k { weights[next] } else { 0.0 };
            let (a, b) = (row(scratch, centre - k * tap), row(scratch, centre + k * tap));
            let (c, d) = (row(scratch, centre - next * tap), row(scratch, centre + next * tap));
            for i in 0..LANES {
                let sum = multiply_add::<FUSED>(near, a[i] + b[i], sums[i]);
                sums[i] = multiply_add::<FUSED>(far, c[i] + d[i], sum);
            }
        }
    }
}

/// Convolves an image with one kernel per axis and keeps every `step`-th voxel along each axis,
/// beginning with the first.
///
/// * `image`: `(z, y, x)` of `shape`
/// * returns the smoothed image and its shape, `ceil(shape / step)`
///
/// Border: mirrored about the voxel edge. Numbers: `f32`, summed from the centre of the kernel
/// outwards.
/// Checked by: `oracle::convolve` (to 1e-5 of the range).
pub fn smooth(
    image: &[f32],
    shape: [usize; 3],
    kernels: &[Kernel; 3],
    step: [usize; 3],
) -> (Vec<f32>, [usize; 3]) {
    // z first: planes dropped along z need not be convolved along y and x
    let (along_z, shape) = along_columns(image, shape, 0, &kernels[0], step[0]);
    let (along_y, shape) = along_columns(&along_z, shape, 1, &kernels[1], step[1]);
    // besides `image`, at most two images are in memory at once
    drop(along_z);
    along_rows(&along_y, shape, &kernels[2], step[2])
}

/// The means of the known pixels around each pixel of a plane, weighted by a kernel; NaN where no
/// pixel around is known.
///
/// * `image`: `(y, x)` of `shape`, NaN where unknown
///
/// Border and numbers: as [`smooth`].
pub fn smooth_known(image: &[f32], shape: [usize; 2], kernel: &Kernel) -> Vec<f32> {
    let kernels = [Kernel::identity(), kernel.clone(), kernel.clone()];
    let over = |values: &[f32]| smooth(values, [1, shape[0], shape[1]], &kernels, [1; 3]).0;
    if image.iter().all(|v| v.is_finite()) {
        return over(image);
    }
    let known = |v: f32| if v.is_finite() { v } else { 0.0 };
    let mut sums = over(&image.iter().map(|v| known(*v)).collect::<Vec<_>>());
    let weights =
        over(&image.iter().map(|v| f32::from(u8::from(v.is_finite()))).collect::<Vec<_>>());
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum = if weight > 1e-6 { *sum / weight } else { f32::NAN };
    }
    sums
}

fn along_columns(
    image: &[f32],
    shape: [usize; 3],
    axis: usize,
    kernel: &Kernel,
    step: usize,
) -> (Vec<f32>, [usize; 3]) {
    let mut kept = shape;
    kept[axis] = shape[axis].div_ceil(step);
    let mut out = vec![0.0; kept.iter().product()];
    let (mut scratch, mut filtered) = (Scratch::default(), Scratch::default());
    filtered.resize(kept[axis] * LANES);
    let radius = kernel.radius() as i64;
    for (source, target) in lines::bundles(shape, axis).zip(lines::bundles(kept, axis)) {
        let end = shape[axis] as i64 + radius;
        lines::gather(image, source, shape[axis], -radius, end, &mut scratch);
        fold(&scratch, kernel.weights(), LANES, step * LANES, &mut filtered);
        lines::scatter(&filtered, target, &mut out);
    }
    (out, kept)
}

fn along_rows(
    image: &[f32],
    shape: [usize; 3],
    kernel: &Kernel,
    step: usize,
) -> (Vec<f32>, [usize; 3]) {
    let kept = [shape[0], shape[1], shape[2].div_ceil(step)];
    let mut out = Vec::with_capacity(kept.iter().product());
    let (mut scratch, mut filtered) = (Scratch::default(), Scratch::default());
    filtered.resize(shape[2].next_multiple_of(LANES));
    let radius = kernel.radius() as i64;
    let end = shape[2] as i64 + radius;
    for line in image.chunks_exact(shape[2].max(1)) {
        lines::pad(line, -radius, end, &mut scratch);
        fold(&scratch, kernel.weights(), 1, LANES, &mut filtered);
        out.extend(filtered[..shape[2]].iter().step_by(step));
    }
    (out, kept)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::oracle;

    proptest! {
        #[test]
        fn smoothing_equals_the_slow_sum(
            shape in [1_usize..9, 1_usize..12, 1_usize..70],
            step in [1_usize..3, 1_usize..3, 1_usize..3],
            variance in [0.0..3.0, 0.0..9.0, 0.0..40.0],
            seed in any::<u32>(),
        ) {
            let image = oracle::noise(shape, seed);
            let kernels = variance.map(Kernel::discrete);
            let (fast, kept) = smooth(&image, shape, &kernels, step);
            let slow = oracle::convolve(&image, shape, &kernels);
            prop_assert_eq!(fast.len(), kept.iter().product::<usize>());
            for z in 0..kept[0] {
                for y in 0..kept[1] {
                    for x in 0..kept[2] {
                        let at = (z * step[0] * shape[1] + y * step[1]) * shape[2] + x * step[2];
                        let found = f64::from(fast[(z * kept[1] + y) * kept[2] + x]);
                        prop_assert!((found - slow[at]).abs() < 1e-5, "{} {}", found, slow[at]);
                    }
                }
            }
        }
    }
}
