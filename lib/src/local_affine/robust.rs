//! A fit that is robust to outliers, by iteratively reweighted least squares.

use super::outliers::{consistent, median};
use super::solve::{Observation, Penalty, solve};
use crate::geom::{Affine, LocalAffines, Point};

/// The median norm of a 3-D normal vector in units of its standard deviation per axis.
const MEDIAN_OF_LENGTH: f64 = 1.538;
/// The cut-off of Tukey's biweight in standard deviations (95 % efficiency).
const TUKEY: f64 = 4.685;
/// The iteration stops when no weight changes by more than `CONVERGED`, or after `MAX_ITERATIONS`
/// iterations.
const CONVERGED: f64 = 1e-3;
const MAX_ITERATIONS: usize = 12;

/// The affines of the blocks, and the weight and residual of each match.
pub(super) struct RobustFit {
    /// Maps of the fixed frame to itself, one per block.
    pub(super) affines: Vec<Affine>,
    /// The final weight of each match; 0 for an outlier.
    pub(super) weights: Vec<f64>,
    /// The distance between the moving point of each match and the image of its fixed point under
    /// the blended map, micrometres.
    pub(super) residuals: Vec<f64>,
}

/// Fits the blocks of `layout` to the shifts observed at the points `at` by iteratively reweighted
/// least squares with Tukey's biweight, starting with the shifts that are consistent with their
/// neighbours.
///
/// `noise` is the expected error of a shift; all lengths are in micrometres.
pub(super) fn fit(
    layout: &LocalAffines,
    at: &[Point],
    shift: &[Point],
    penalty: Penalty,
    noise: f64,
) -> RobustFit {
    let accepted = consistent(at, shift, noise);
    let mut seen: Vec<Observation> = (0..at.len())
        .map(|i| Observation {
            at: at[i],
            shift: shift[i],
            weight: f64::from(u8::from(accepted[i])),
        })
        .collect();
    let mut blended = layout.clone();
    let mut residuals = vec![0.0; at.len()];
    for _ in 0..MAX_ITERATIONS {
        blended.affines = solve(layout, &seen, penalty);
        for (residual, o) in residuals.iter_mut().zip(&seen) {
            let q = blended.apply(o.at);
            *residual = (0..3).map(|a| (q[a] - o.at[a] - o.shift[a]).powi(2)).sum::<f64>().sqrt();
        }
        if update_weights(&mut seen, &residuals, &accepted, noise) <= CONVERGED {
            break;
        }
    }
    RobustFit {
        affines: blended.affines,
        weights: seen.iter().map(|o| o.weight).collect(),
        residuals,
    }
}

/// Updates the weights from the residuals and returns the largest change.
fn update_weights(
    seen: &mut [Observation],
    residuals: &[f64],
    accepted: &[bool],
    noise: f64,
) -> f64 {
    let mut kept: Vec<f64> =
        residuals.iter().zip(accepted).filter_map(|(&r, &ok)| ok.then_some(r)).collect();
    if kept.is_empty() {
        return 0.0;
    }
    let deviation = (median(&mut kept) / MEDIAN_OF_LENGTH).max(noise / 10.0);
    let mut change: f64 = 0.0;
    for ((o, &residual), &ok) in seen.iter_mut().zip(residuals).zip(accepted) {
        let u = residual / (TUKEY * deviation);
        let weight = if ok && u < 1.0 { (1.0 - u * u).powi(2) } else { 0.0 };
        change = change.max((weight - o.weight).abs());
        o.weight = weight;
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geom::Grid;

    #[test]
    fn a_smooth_wave_is_found_through_noise_and_a_quarter_of_outliers() {
        let layout = LocalAffines {
            domain: Grid::new([64, 64, 64], [1.0; 3], [0.0; 3]),
            block: [16; 3],
            overlap: [8.0; 3],
            affines: Vec::new(),
        };
        let wave = |p: Point| {
            let f = std::f64::consts::TAU / 96.0;
            [3.0 * (f * p[2]).sin(), 3.0 * (f * p[0]).cos(), 2.0 * (f * p[1]).sin()]
        };
        let mut state = 9u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as f64 / 2f64.powi(31)
        };
        let (mut at, mut shift) = (Vec::new(), Vec::new());
        for i in 0..1500 {
            let p: Point = std::array::from_fn(|_| random() * 63.0);
            let u = wave(p);
            at.push(p);
            shift.push(if i % 4 == 0 {
                std::array::from_fn(|_| random() * 20.0 - 10.0)
            } else {
                u.map(|v| v + (random() - 0.5) * 0.6)
            });
        }
        let fit = fit(&layout, &at, &shift, Penalty { stiffness: 0.3, anchor: 0.01 }, 0.3);
        let blended = LocalAffines { affines: fit.affines, ..layout };
        let mut errors: Vec<f64> = at
            .iter()
            .map(|&p| {
                let (q, u) = (blended.apply(p), wave(p));
                (0..3).map(|a| (q[a] - p[a] - u[a]).powi(2)).sum::<f64>().sqrt()
            })
            .collect();
        let middle = median(&mut errors);
        assert!(middle < 0.15, "median error {middle}");
        let trusted =
            fit.weights.iter().enumerate().filter(|(i, w)| i % 4 == 0 && **w > 0.5).count();
        assert!(trusted < 20, "{trusted} outliers are trusted");
    }

    #[test]
    fn no_match_at_all_leaves_every_block_where_it_is() {
        let layout = LocalAffines {
            domain: Grid::new([20, 20, 20], [1.0; 3], [0.0; 3]),
            block: [10; 3],
            overlap: [5.0; 3],
            affines: Vec::new(),
        };
        let fit = fit(&layout, &[], &[], Penalty { stiffness: 4.0, anchor: 0.01 }, 0.3);
        assert!(fit.affines.iter().all(|map| *map == Affine::IDENTITY));
    }
}
