//! A test whether matches agree more than random matches would.
//!
//! It is an a-contrario test (Moisan and Stival, IJCV 57, 2004; with measured densities, Moulon,
//! Monasse and Marlet, ACCV 2012). Among `n` unrelated pairs of points there are
//! `(n - s) C(n, k) C(k, s)` ways to choose a number `k`, then `k` of the pairs and among these the
//! `s` that determine a map. Each of the other `k - s` pairs lies within the threshold with
//! probability `a`. The expected number of false alarms is the number of ways times `a^(k - s)`.

use super::EstimateOptions;
use crate::geom::{Affine, Point};

/// Fixed points closer than this many thresholds count as one point. They show the same structure,
/// so that if one of them is matched wrongly, the others are probably wrong too.
const SAME_POINT_DISTANCE: f64 = 2.0;
/// The maximum number of matches whose points [`chance_match`] compares with each other.
const MAX_DENSITY_POINTS: usize = 1000;

/// The base 10 logarithm of the expected number of maps that would fit as many matches as `map`
/// does if all matches were random.
pub(super) fn false_alarms(
    fixed: &[Point],
    moving: &[Point],
    inliers: &[bool],
    map: &Affine,
    options: &EstimateOptions,
) -> f64 {
    let threshold = options.threshold();
    let one_each = separated(fixed, inliers, SAME_POINT_DISTANCE * threshold);
    let (n, k) = (one_each.len(), one_each.iter().filter(|&&i| inliers[i]).count());
    let sample = options.model.pairs();
    if k <= sample {
        return 0.0;
    }
    let chance_match = chance_match(fixed, moving, map, threshold).log10();
    let ways = ((n - sample).max(1) as f64).log10() + binomial(n, k) + binomial(k, sample);
    ways + (k - sample) as f64 * chance_match
}

/// Indices of a subset of points that are at least `distance` apart. Points marked in `first` take
/// precedence over the others, and earlier points over later ones.
fn separated(points: &[Point], first: &[bool], distance: f64) -> Vec<usize> {
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

/// The probability that the moving point of another match lies within the threshold of a mapped
/// fixed point. It is the observed frequency, but at least the volume of a ball whose radius is the
/// threshold, relative to the bounding box of the moving points.
fn chance_match(fixed: &[Point], moving: &[Point], map: &Affine, threshold: f64) -> f64 {
    let step = fixed.len().div_ceil(MAX_DENSITY_POINTS);
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

/// The base 10 logarithm of the binomial coefficient `n` over `k`.
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
        assert_eq!(separated(&points, &[false, true, false, false], 4.0), [1, 2, 3]);
    }
}
