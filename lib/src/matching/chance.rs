//! Whether matches agree more than matches of chance would.
//!
//! An a-contrario test (Moisan and Stival, IJCV 57, 2004; with measured densities, Moulon, Monasse and
//! Marlet, ACCV 2012): among `n` pairs of points that have nothing to do with each other there are
//! `(n - s) C(n, k) C(k, s)` ways to choose `k` of them and the `s` that determine a map, and each of the
//! other `k - s` lies within the threshold with the chance `a`. What is expected of false alarms is
//! their product.

use super::EstimateOptions;
use crate::geom::{Affine, Point};

/// Fixed points nearer to each other than so many thresholds count as one: what they show is the same,
/// and where one is matched wrongly, so is the other.
const SAME: f64 = 2.0;
/// Pairs of points of which the density is measured, at most.
const MEASURED: usize = 1000;

/// The logarithm to base 10 of the number of maps that are expected to fit as many matches of chance.
pub(super) fn false_alarms(
    fixed: &[Point],
    moving: &[Point],
    inliers: &[bool],
    map: &Affine,
    options: &EstimateOptions,
) -> f64 {
    let threshold = options.threshold();
    let one_each = apart(fixed, inliers, SAME * threshold);
    let (n, k) = (one_each.len(), one_each.iter().filter(|&&i| inliers[i]).count());
    let sample = options.model.pairs();
    if k <= sample {
        return 0.0;
    }
    let chance = chance(fixed, moving, map, threshold).log10();
    let ways = ((n - sample).max(1) as f64).log10() + binomial(n, k) + binomial(k, sample);
    ways + (k - sample) as f64 * chance
}

/// Numbers of points that are at least `distance` apart: those that fit first, and in the order given.
fn apart(points: &[Point], first: &[bool], distance: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by_key(|&i| !first[i]);
    let cell = |p: Point| p.map(|v| (v / distance).floor().clamp(-1e15, 1e15) as i64);
    let mut cells = std::collections::HashMap::<[i64; 3], Vec<usize>>::new();
    let mut kept = Vec::new();
    for i in order {
        let at = cell(points[i]);
        let near = |j: &usize| {
            let square: f64 = (0..3).map(|a| (points[i][a] - points[*j][a]).powi(2)).sum();
            square < distance * distance
        };
        let around = (0..27).filter_map(|c: i64| {
            cells.get(&[at[0] + c / 9 - 1, at[1] + c / 3 % 3 - 1, at[2] + c % 3 - 1])
        });
        if !around.flatten().any(near) {
            cells.entry(at).or_default().push(i);
            kept.push(i);
        }
    }
    kept
}

/// How likely the moving point of another match lies within the threshold of where the map takes a fixed
/// one: as often as it is seen, and at least the share of a ball in the box of the moving points.
fn chance(fixed: &[Point], moving: &[Point], map: &Affine, threshold: f64) -> f64 {
    let step = fixed.len().div_ceil(MEASURED);
    let some: Vec<usize> = (0..fixed.len()).step_by(step).collect();
    let (mut near, mut pairs) = (0.0, 0.0);
    for &i in &some {
        let q = map.apply(fixed[i]);
        for &j in some.iter().filter(|&&j| j != i) {
            let square: f64 = (0..3).map(|a| (q[a] - moving[j][a]).powi(2)).sum();
            pairs += 1.0;
            near += f64::from(u8::from(square <= threshold * threshold));
        }
    }
    let side = |a: usize| {
        let along = moving.iter().map(|q| q[a]);
        let (low, high) = along.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        (high - low).max(2.0 * threshold)
    };
    let ball = 4.0 / 3.0 * std::f64::consts::PI * threshold.powi(3);
    let share = ball / (side(0) * side(1) * side(2));
    (near / f64::max(pairs, 1.0)).max(share).clamp(1e-300, 1.0)
}

/// The logarithm to base 10 of `n` over `k`.
fn binomial(n: usize, k: usize) -> f64 {
    (0..k.min(n - k)).map(|i| ((n - i) as f64 / (i + 1) as f64).log10()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binomials_are_those_of_pascal() {
        for (n, k, wanted) in [(5, 0, 1.0), (5, 2, 10.0), (30, 15, 155_117_520.0), (7, 7, 1.0)] {
            assert!((binomial(n, k) - f64::log10(wanted)).abs() < 1e-9, "{n} over {k}");
        }
    }

    #[test]
    fn points_in_one_place_count_once_and_inliers_before_others() {
        let points = [[0.0; 3], [0.0, 0.0, 1.0], [0.0, 0.0, 9.0], [0.0, 9.5, 9.0]];
        assert_eq!(apart(&points, &[false, true, false, false], 4.0), [1, 2, 3]);
    }
}
