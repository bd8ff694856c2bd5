//! The map that most matches agree on, by random sampling (RANSAC).
//!
//! Samples are scored by the truncated squared distance (MSAC: Torr & Zisserman, CVIU 78, 2000).
//! Each new best map is refitted to its inliers before sampling continues (LO-RANSAC: Chum, Matas &
//! Kittler, DAGM 2003), so that the result hardly depends on the sample that led to it. Samples
//! whose map is implausible between two volumes are not scored, which rejects nearly all samples
//! that contain a wrong match.

use nalgebra::{Matrix3, Vector3};

use super::EstimateOptions;
use super::residuals::Pairs;
use crate::geom::{Affine, Model, Point, fit};

/// The minimum number of samples drawn.
const MIN_SAMPLES: usize = 50;

/// The maximum number of refits of a new best map to its inliers.
const REFITS: usize = 4;

/// The minimum volume of the parallelepiped of a four-point sample, relative to the product of the
/// lengths of its three edges.
const MIN_VOLUME: f64 = 2e-3;

/// The minimum sine of the angle at the first point of a three-point sample.
const MIN_SINE: f64 = 0.05;

/// A map, and the number of samples drawn to find it.
#[derive(Clone, Debug)]
pub(super) struct Consensus {
    pub(super) map: Affine,
    pub(super) iterations: usize,
}

/// Draws samples until a better map is unlikely; `None` if no sample gave a map.
///
/// `plausible_only`: maps far beyond the limit on scale, and maps that mirror although that is not
/// allowed, are not considered.
pub(super) fn search(
    fixed: &[Point],
    moving: &[Point],
    options: &EstimateOptions,
    seed: u64,
    plausible_only: bool,
) -> Option<Consensus> {
    let count = fixed.len();
    let size = options.model.pairs();
    let pairs = Pairs::new(fixed, moving);
    let mut random = Random(seed);
    let mut squares = vec![0.0; count];
    let mut best: Option<(f64, Affine)> = None;
    let mut wanted = options.max_iterations;
    let mut iterations = 0;
    while iterations < wanted && count >= size {
        iterations += 1;
        let sample = random.distinct(size, count);
        let [from, to] = [fixed, moving].map(|points| sample[..size].iter().map(|&i| points[i]));
        let (from, to): (Vec<_>, Vec<_>) = (from.collect(), to.collect());
        let Some(map) = minimal(options, &from, &to) else { continue };
        if plausible_only && !plausible(&map, options) {
            continue;
        }
        let cost = pairs.cost(&map, options.threshold(), &mut squares);
        if best.is_some_and(|(least, _)| cost >= least) {
            continue;
        }
        let (cost, map) = refit(&pairs, options, (cost, map), &mut squares);
        best = Some((cost, map));
        let share = pairs.inliers(&map, options.threshold(), &mut squares) as f64 / count as f64;
        wanted = samples(options, share).min(wanted).max(MIN_SAMPLES.min(options.max_iterations));
    }
    best.map(|(_, map)| Consensus { map, iterations })
}

/// The number of samples needed so that, with the probability `options.confidence`, at least one
/// of them contains no outlier. `share` is the fraction of inliers.
fn samples(options: &EstimateOptions, share: f64) -> usize {
    let clean = share.powi(options.model.pairs() as i32).min(1.0 - 1e-12);
    let wanted = (1.0 - options.confidence).ln() / (1.0 - clean).ln();
    // without inliers, infinitely many samples would be needed
    if wanted.is_finite() { wanted.ceil() as usize } else { usize::MAX }
}

/// Refits a map to its inliers for as long as the cost decreases.
fn refit(
    pairs: &Pairs<'_>,
    options: &EstimateOptions,
    mut best: (f64, Affine),
    squares: &mut [f64],
) -> (f64, Affine) {
    let limit = options.threshold().powi(2);
    for _ in 0..REFITS {
        pairs.squares(&best.1, squares);
        let weights: Vec<f64> = squares.iter().map(|&s| f64::from(u8::from(s <= limit))).collect();
        let Ok(map) = pairs.fit(options, &weights) else { break };
        let cost = pairs.cost(&map, options.threshold(), squares);
        if cost >= best.0 {
            break;
        }
        best = (cost, map);
    }
    best
}

/// The map through a minimal sample; `None` if the sample is degenerate.
fn minimal(options: &EstimateOptions, from: &[Point], to: &[Point]) -> Option<Affine> {
    let edge = |points: &[Point], i: usize| Vector3::from(points[i]) - Vector3::from(points[0]);
    match options.model {
        Model::Translation => {}
        Model::Rigid | Model::Similarity | Model::PlanarAffine => {
            for points in [from, to] {
                let (a, b) = (edge(points, 1), edge(points, 2));
                if a.cross(&b).norm() <= MIN_SINE * a.norm() * b.norm() {
                    return None;
                }
            }
        }
        Model::Affine => {
            let edges = |points| {
                Matrix3::from_columns(&[edge(points, 1), edge(points, 2), edge(points, 3)])
            };
            let edges_from = edges(from);
            let lengths: f64 = edges_from.column_iter().map(|c| c.norm()).product();
            if edges_from.determinant().abs() <= MIN_VOLUME * lengths {
                return None;
            }
            let linear = edges(to) * edges_from.try_inverse()?;
            let offset = Vector3::from(to[0]) - linear * Vector3::from(from[0]);
            let rows = std::array::from_fn(|r| std::array::from_fn(|c| linear[(r, c)]));
            return Some(Affine::from_parts(rows, offset.into()));
        }
    }
    fit(options.model, from, to, None, options.allow_reflection).ok()
}

/// Whether a map could, after refitting, pass the checks on scale and reflection.
fn plausible(map: &Affine, options: &EstimateOptions) -> bool {
    /// The factor by which the noise of a minimal sample can increase the stretches of its map.
    const NOISE_TOLERANCE: f64 = 1.5;
    let linear = Matrix3::from(map.linear()); // transposed, which does not change the norms
    let determinant = linear.determinant();
    if determinant <= 0.0 && !options.allow_reflection {
        return false;
    }
    // if no stretch exceeds a limit, the Frobenius norm is at most sqrt(3) times that limit
    let limit = 3.0_f64.sqrt() * NOISE_TOLERANCE * options.max_scale;
    linear.norm() <= limit && linear.try_inverse().is_some_and(|back| back.norm() <= limit)
}

/// A pseudo-random number generator (SplitMix64: Steele, Lea & Flood, OOPSLA 2014), reproducible by
/// its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count as u128) >> 64) as usize
    }

    /// `size` (at most 4) distinct numbers below `count`, which is at least `size`.
    fn distinct(&mut self, size: usize, count: usize) -> [usize; 4] {
        let mut sample = [usize::MAX; 4];
        for i in 0..size {
            sample[i] = loop {
                let drawn = self.below(count);
                if !sample[..i].contains(&drawn) {
                    break drawn;
                }
            };
        }
        sample
    }
}
