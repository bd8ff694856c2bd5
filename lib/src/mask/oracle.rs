//! Slow reference implementations that the masks must match.

use super::cpu::WINDOW;
use crate::filter::{Kernel, mirror};

/// The mean of the known pixels around a pixel, weighted by a kernel along y and x.
fn mean(image: &[f64], shape: [usize; 2], [y, x]: [usize; 2], kernel: &Kernel) -> f64 {
    let reach = kernel.radius() as i64;
    let (mut sum, mut total) = (0.0, 0.0);
    for dy in -reach..=reach {
        for dx in -reach..=reach {
            let near = [y as i64 + dy, x as i64 + dx];
            let [y, x]: [usize; 2] = std::array::from_fn(|a| mirror(near[a], shape[a]));
            let value = image[y * shape[1] + x];
            if value.is_finite() {
                let weight =
                    [dy, dx].map(|d| f64::from(kernel.weights()[d.unsigned_abs() as usize]));
                sum += weight[0] * weight[1] * value;
                total += weight[0] * weight[1];
            }
        }
    }
    if total > 1e-6 { sum / total } else { f64::NAN }
}

/// The local contrast, see `cpu::contrast`.
pub(super) fn contrast(image: &[f32], shape: [usize; 2]) -> Vec<f64> {
    let image: Vec<f64> = image.iter().map(|v| f64::from(*v)).collect();
    let places: Vec<[usize; 2]> = (0..image.len()).map(|i| [i / shape[1], i % shape[1]]).collect();
    let known = |i: usize, value: f64| if image[i].is_finite() { value } else { f64::NAN };
    let [fine, coarse] = [1.0, 16.0].map(Kernel::discrete);
    let details: Vec<f64> = places
        .iter()
        .enumerate()
        .map(|(i, at)| {
            let detail = mean(&image, shape, *at, &fine) - mean(&image, shape, *at, &coarse);
            known(i, detail.abs())
        })
        .collect();
    let square = Kernel::uniform(WINDOW);
    let averaged = |(i, at): (usize, &[usize; 2])| known(i, mean(&details, shape, *at, &square));
    places.iter().enumerate().map(averaged).collect()
}
