//! Slow reference implementations for tests.

use super::{AffineSimilarity, Image, Normalisation, Workspace};
use crate::geom::Affine;

/// Trilinear interpolation by its eight weights, in `f64`; `None` outside the image.
pub(super) fn sample(image: &Image, at: [f64; 3]) -> Option<f64> {
    let shape = image.grid.shape;
    let inside = (0..3).all(|a| {
        let slack = if shape[a] == 1 { 0.5 } else { 0.0 };
        at[a] >= -slack && at[a] <= shape[a] as f64 - 1.0 + slack
    });
    let mut sum = 0.0;
    for (i, &value) in image.voxels.iter().enumerate() {
        let voxel = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
        let weight = |a: usize| {
            let at = at[a].clamp(0.0, shape[a] as f64 - 1.0);
            (1.0 - (at - voxel[a] as f64).abs()).max(0.0)
        };
        let weight = weight(0) * weight(1) * weight(2);
        if weight > 0.0 {
            sum += weight * f64::from(value);
        }
    }
    inside.then_some(sum)
}

/// The change `q -> q + size (t + L (q - centre) / size)` with the twelve parameters `numbers`.
pub(super) fn change(numbers: &[f64; 12], normalisation: &Normalisation) -> Affine {
    let linear = std::array::from_fn(|a| {
        std::array::from_fn(|b| numbers[4 * a + 1 + b] + f64::from(u8::from(a == b)))
    });
    let about =
        Affine::from_parts(linear, std::array::from_fn(|a| normalisation.size * numbers[4 * a]));
    let there = Affine::translation(normalisation.centre.map(|c| -c));
    there.then(&about).then(&Affine::translation(normalisation.centre))
}

/// The gradient of the energy by central differences.
pub(super) fn gradient(
    pair: &AffineSimilarity<'_>,
    map: &Affine,
    normalisation: &Normalisation,
    step: f64,
) -> Option<[f64; 12]> {
    let mut work = Workspace::default();
    let mut gradient = [0.0; 12];
    for (i, slope) in gradient.iter_mut().enumerate() {
        let mut energy = |by: f64| {
            let mut numbers = [0.0; 12];
            numbers[i] = by;
            Some(pair.score(&map.then(&change(&numbers, normalisation)), &mut work)?.energy)
        };
        *slope = (energy(step)? - energy(-step)?) / (2.0 * step);
    }
    Some(gradient)
}
