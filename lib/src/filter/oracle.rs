//! Slow reference implementations that the filters must match.

use super::{Kernel, mirror};

/// Reproducible noise between 0 and 1.
pub(super) fn noise(shape: [usize; 3], seed: u32) -> Vec<f32> {
    let mut state = u64::from(seed) + 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    std::iter::repeat_with(next).take(shape.iter().product()).collect()
}

/// `value` at every voxel index of `shape`, C order.
fn everywhere<T>(shape: [usize; 3], mut value: impl FnMut([usize; 3]) -> T) -> Vec<T> {
    let mut out = Vec::new();
    for z in 0..shape[0] {
        for y in 0..shape[1] {
            for x in 0..shape[2] {
                out.push(value([z, y, x]));
            }
        }
    }
    out
}

fn offset(shape: [usize; 3], [z, y, x]: [usize; 3]) -> usize {
    (z * shape[1] + y) * shape[2] + x
}

/// The voxels at offsets `from..=to` along `axis` from `at`.
fn line<T: Copy>(
    image: &[T],
    shape: [usize; 3],
    at: [usize; 3],
    axis: usize,
    [from, to]: [i64; 2],
) -> impl Iterator<Item = T> + '_ {
    (from..=to).map(move |step| {
        let mut there = at;
        there[axis] = mirror(at[axis] as i64 + step, shape[axis]);
        image[offset(shape, there)]
    })
}

fn convolve_axis(image: &[f64], shape: [usize; 3], axis: usize, kernel: &Kernel) -> Vec<f64> {
    let radius = kernel.radius() as i64;
    everywhere(shape, |at| {
        line(image, shape, at, axis, [-radius, radius])
            .zip(-radius..=radius)
            .map(|(value, k)| value * f64::from(kernel.weights()[k.unsigned_abs() as usize]))
            .sum()
    })
}

/// Convolution with one kernel per axis.
pub(super) fn convolve(image: &[f32], shape: [usize; 3], kernels: &[Kernel; 3]) -> Vec<f64> {
    let image: Vec<f64> = image.iter().map(|&v| f64::from(v)).collect();
    (0..3).fold(image, |image, axis| convolve_axis(&image, shape, axis, &kernels[axis]))
}

/// The sum of three convolutions, each with the second derivative along one axis.
pub(super) fn laplacian_of_gaussian(image: &[f32], shape: [usize; 3], sigma: f64) -> Vec<f64> {
    let mut sum = vec![0.0; image.len()];
    for axis in 0..3 {
        let mut kernels = [(); 3].map(|()| Kernel::sampled(sigma));
        kernels[axis] = Kernel::sampled_second_derivative(sigma);
        let part = convolve(image, shape, &kernels);
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// Erosion, then dilation, with windows as SciPy places them.
pub(super) fn opening(image: &[f32], shape: [usize; 3], window: [usize; 3]) -> Vec<f32> {
    let mut image = image.to_vec();
    for axis in 0..3 {
        let (low, high) = (window[axis] / 2, window[axis] - 1 - window[axis] / 2);
        image = everywhere(shape, |at| {
            line(&image, shape, at, axis, [-(low as i64), high as i64])
                .fold(f32::INFINITY, f32::min)
        });
    }
    for axis in 0..3 {
        let (low, high) = (window[axis] / 2, window[axis] - 1 - window[axis] / 2);
        image = everywhere(shape, |at| {
            line(&image, shape, at, axis, [-(high as i64), low as i64])
                .fold(f32::NEG_INFINITY, f32::max)
        });
    }
    image
}

/// A Fourier transform by its definition.
pub(super) fn transform(data: &[[f32; 2]], shape: [usize; 3]) -> Vec<[f64; 2]> {
    let places = |i: usize| [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
    let at = |k: usize| {
        data.iter().enumerate().fold([0.0, 0.0], |sum, (p, value)| {
            let (k, p) = (places(k), places(p));
            let turns: f64 = (0..3).map(|a| (k[a] * p[a]) as f64 / shape[a] as f64).sum();
            let (sin, cos) = (-std::f64::consts::TAU * turns).sin_cos();
            let [re, im] = value.map(f64::from);
            [sum[0] + re * cos - im * sin, sum[1] + re * sin + im * cos]
        })
    };
    (0..data.len()).map(at).collect()
}

/// The distance of each pixel from the nearest pixel of a set, by trying all of them.
pub(super) fn distance(set: &[bool], shape: [usize; 2]) -> Vec<f32> {
    let place = |i: usize| [(i / shape[1]) as f64, (i % shape[1]) as f64];
    (0..set.len())
        .map(|i| {
            let squares = (0..set.len()).filter(|j| set[*j]).map(|j| {
                let (p, q) = (place(i), place(j));
                (p[0] - q[0]).powi(2) + (p[1] - q[1]).powi(2)
            });
            squares.fold(f64::INFINITY, f64::min).sqrt() as f32
        })
        .collect()
}

/// The groups of connected voxels: each voxel takes the least number around it, until none changes.
pub(super) fn groups(shape: [usize; 3], planar: bool, set: &[bool]) -> Vec<u32> {
    let mut of: Vec<usize> = (0..set.len()).map(|i| if set[i] { i + 1 } else { 0 }).collect();
    let axes = usize::from(planar)..3;
    loop {
        let before = of.clone();
        let at_all = everywhere(shape, |at| at);
        for (i, at) in at_all.iter().enumerate().filter(|(i, _)| set[*i]) {
            for a in axes.clone() {
                let mut there = *at;
                if at[a] + 1 < shape[a] {
                    there[a] += 1;
                    let j = offset(shape, there);
                    if set[j] {
                        let least = of[i].min(of[j]);
                        (of[i], of[j]) = (least, least);
                    }
                }
            }
        }
        if of == before {
            break;
        }
    }
    let mut numbers: Vec<usize> = of.iter().copied().filter(|n| *n > 0).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let number = |n: usize| numbers.binary_search(&n).map_or(0, |at| at as u32 + 1);
    of.into_iter().map(number).collect()
}
