//! Detection of matches that are inconsistent with their neighbours.
//!
//! This is the normalised median test of particle image velocimetry (Westerweel and Scarano,
//! "Universal outlier detection for PIV data", Experiments in Fluids 39, 2005, equations 2 and 3):
//! a shift is compared with the median of its neighbours' shifts, relative to their spread.
//! The test needs no model of the deformation, so that matches of a strong but smooth deformation
//! are not rejected.

use std::num::NonZero;

use kiddo::{ImmutableKdTree, SquaredEuclidean};

use crate::geom::Point;

/// The number of neighbours that a shift is compared with.
const NEIGHBOURS: usize = 12;
/// The minimum number of shifts for the test; fewer are all rejected.
const MIN_SHIFTS: usize = 5;
/// The test value above which a shift is an outlier (the choice of Westerweel and Scarano).
const MAX_DEVIATION: f64 = 2.0;

/// Whether each shift is consistent with its neighbours; `noise` is the expected error of a shift.
///
/// All lengths are in the same unit. If there are fewer than five shifts, no shift is accepted.
pub(super) fn consistent(at: &[Point], shift: &[Point], noise: f64) -> Vec<bool> {
    let mut accepted = vec![at.len() >= MIN_SHIFTS; at.len()];
    // the second round uses only accepted neighbours, because outliers may have distorted the
    // medians of the first round
    for _ in 0..2 {
        let kept: Vec<usize> = (0..at.len()).filter(|&i| accepted[i]).collect();
        if kept.len() < MIN_SHIFTS {
            return vec![false; at.len()];
        }
        let points: Vec<Point> = kept.iter().map(|&i| at[i]).collect();
        let Ok(tree) = ImmutableKdTree::<f64, 3>::new_from_slice(&points) else {
            return vec![false; at.len()];
        };
        let count = NonZero::new(NEIGHBOURS + 1).expect("a constant above 0");
        for i in 0..at.len() {
            let around: Vec<Point> = tree
                .query(&at[i])
                .nearest_n::<SquaredEuclidean<f64>>(count)
                .execute()
                .into_iter()
                .map(|found| kept[found.item as usize])
                .filter(|&j| j != i)
                .take(NEIGHBOURS)
                .map(|j| shift[j])
                .collect();
            accepted[i] = around.len() >= MIN_SHIFTS - 1
                && deviation(shift[i], &around, noise) <= MAX_DEVIATION;
        }
    }
    accepted
}

/// The normalised deviation of `shift` from the shifts `around` it.
fn deviation(shift: Point, around: &[Point], noise: f64) -> f64 {
    let middle: Point =
        std::array::from_fn(|a| median(&mut around.iter().map(|s| s[a]).collect::<Vec<_>>()));
    let distance = |s: &Point| (0..3).map(|a| (s[a] - middle[a]).powi(2)).sum::<f64>().sqrt();
    let spread = median(&mut around.iter().map(distance).collect::<Vec<_>>());
    distance(&shift) / (spread + noise)
}

/// The median (the upper one of an even number of values); NaN if `values` is empty.
pub(super) fn median(values: &mut [f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smooth_shifts() -> (Vec<Point>, Vec<Point>) {
        let at: Vec<Point> = (0..512)
            .map(|i| [(i / 64) as f64 * 5.0, (i / 8 % 8) as f64 * 5.0, (i % 8) as f64 * 5.0])
            .collect();
        let shift = at
            .iter()
            .map(|p| [(p[1] * 0.05).sin() * 6.0, p[2] * 0.1, (p[0] * 0.04).cos() * 4.0])
            .collect();
        (at, shift)
    }

    #[test]
    fn a_strong_smooth_deformation_loses_no_match() {
        let (at, shift) = smooth_shifts();
        assert!(consistent(&at, &shift, 0.3).iter().all(|&ok| ok));
    }

    #[test]
    fn a_fifth_of_random_shifts_is_found_out() {
        let (at, mut shift) = smooth_shifts();
        let mut state = 3u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as f64 / 2f64.powi(31) * 40.0 - 20.0
        };
        for i in (0..512).step_by(5) {
            shift[i] = [random(), random(), random()];
        }
        let accepted = consistent(&at, &shift, 0.3);
        let wrong = (0..512).filter(|i| accepted[*i] == (i % 5 == 0)).count();
        assert!(wrong <= 10, "{wrong} of 512 judged wrongly");
    }

    #[test]
    fn points_on_one_lattice_plane_or_at_one_place_are_no_trouble() {
        let at = vec![[1.0, 2.0, 3.0]; 200];
        let shift = vec![[0.5; 3]; 200];
        assert!(consistent(&at, &shift, 0.3).iter().all(|&ok| ok));
        assert_eq!(consistent(&at[..3], &shift[..3], 0.3), [false; 3]);
    }
}
