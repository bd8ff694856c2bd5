//! Distances between mapped fixed points and their moving points.

use super::EstimateOptions;
use crate::geom::{Affine, FitError, Point, fit};

/// Pairs of points, also stored axis by axis so that the computation of distances is vectorised.
pub(super) struct Pairs<'a> {
    fixed: &'a [Point],
    moving: &'a [Point],
    from: [Vec<f64>; 3],
    to: [Vec<f64>; 3],
}

impl<'a> Pairs<'a> {
    pub(super) fn new(fixed: &'a [Point], moving: &'a [Point]) -> Self {
        let axis = |points: &[Point], a: usize| points.iter().map(|p| p[a]).collect();
        Self {
            fixed,
            moving,
            from: std::array::from_fn(|a| axis(fixed, a)),
            to: std::array::from_fn(|a| axis(moving, a)),
        }
    }

    /// Writes the squared distances under `map` to `out`, one for each pair.
    pub(super) fn squares(&self, map: &Affine, out: &mut [f64]) {
        let [z, y, x] = &self.from;
        out.fill(0.0);
        for (to, [a, b, c, d]) in self.to.iter().zip(map.rows()) {
            let points = z.iter().zip(y).zip(x).zip(to);
            for (out, (((z, y), x), to)) in out.iter_mut().zip(points) {
                let difference = a * z + b * y + c * x + d - to;
                *out += difference * difference;
            }
        }
    }

    /// The sum of the squared distances, each truncated at the squared threshold.
    pub(super) fn cost(&self, map: &Affine, threshold: f64, scratch: &mut [f64]) -> f64 {
        self.squares(map, scratch);
        let limit = threshold * threshold;
        scratch.iter().map(|s| s.min(limit)).sum()
    }

    /// The number of pairs whose distance is within the threshold.
    pub(super) fn inliers(&self, map: &Affine, threshold: f64, scratch: &mut [f64]) -> usize {
        self.squares(map, scratch);
        let limit = threshold * threshold;
        scratch.iter().filter(|&&s| s <= limit).count()
    }

    /// The map of the options' model that fits the pairs best with these weights.
    pub(super) fn fit(
        &self,
        options: &EstimateOptions,
        weights: &[f64],
    ) -> Result<Affine, FitError> {
        fit(options.model, self.fixed, self.moving, Some(weights), options.allow_reflection)
    }
}
