//! A reimplementation of OpenCV's `estimateAffine3D`, the estimator that BigStream uses.
//!
//! It converts points to single precision, draws at most 1000 samples of four matches by a
//! multiply-with-carry generator with a fixed seed, rejects nearly collinear samples, and returns
//! the matrix through the best four matches without refinement. On the tutorial data it gives the
//! same inliers and matrix as OpenCV 4.5.2 and 4.11 (with the collinearity test in all three
//! dimensions).

use nalgebra::{Matrix4, Vector3};

use super::EstimateOptions;
use super::ransac::Consensus;
use crate::geom::{Affine, Point};

const SAMPLES: usize = 1000;
const CONFIDENCE: f64 = 0.999;

/// The squared cosine above which three points of a sample count as collinear.
const COLLINEAR: f32 = 0.996 * 0.996;

/// The maximum number of attempts to draw a sample that passes the collinearity test.
const ATTEMPTS: usize = 10_000;

/// The best four-point map, and for each match whether it is an inlier.
pub(super) fn search(
    fixed: &[Point],
    moving: &[Point],
    options: &EstimateOptions,
) -> Option<(Consensus, Vec<bool>)> {
    // callers of OpenCV order the axes x, y, z, and sums in single precision depend on that order
    let single = |points: &[Point]| -> Vec<[f32; 3]> {
        points.iter().map(|p| [p[2] as f32, p[1] as f32, p[0] as f32]).collect()
    };
    let (from, to) = (single(fixed), single(moving));
    let limit = options.threshold().powi(2) as f32;
    let mut random = MultiplyWithCarry(u64::MAX);
    let mut best: Option<(usize, AffineRows, Vec<bool>)> = None;
    let (mut wanted, mut iterations) = (SAMPLES, 0);
    while iterations < wanted {
        let Some(sample) = draw(&from, &to, &mut random) else { break };
        iterations += 1;
        let Some(rows) = through(&from, &to, sample) else { continue };
        let fits: Vec<bool> =
            from.iter().zip(&to).map(|(p, q)| square(&rows, *p, *q) <= limit).collect();
        let count = fits.iter().filter(|&&f| f).count();
        if count > best.as_ref().map_or(3, |b| b.0) {
            let outliers = (from.len() - count) as f64 / from.len() as f64;
            wanted = samples(outliers, wanted);
            best = Some((count, rows, fits));
        }
    }
    best.map(|(_, rows, fits)| (Consensus { map: zyx(&rows), iterations }, fits))
}

/// An affine map with the rows x, y, z and the columns x, y, z, 1.
type AffineRows = [[f64; 4]; 3];

fn zyx(rows: &AffineRows) -> Affine {
    Affine::from_rows(std::array::from_fn(|r| {
        let [x, y, z, one] = rows[2 - r];
        [z, y, x, one]
    }))
}

/// Four distinct indices of points that are not nearly collinear in either set.
fn draw(from: &[[f32; 3]], to: &[[f32; 3]], random: &mut MultiplyWithCarry) -> Option<[usize; 4]> {
    for _ in 0..ATTEMPTS {
        let mut sample = [usize::MAX; 4];
        for i in 0..4 {
            loop {
                sample[i] = random.below(from.len());
                if !sample[..i].contains(&sample[i]) {
                    break;
                }
            }
        }
        if [from, to].iter().all(|points| is_noncollinear(sample.map(|i| points[i]))) {
            return Some(sample);
        }
    }
    None
}

/// Whether the last point is not nearly collinear with any two of the others.
fn is_noncollinear(points: [[f32; 3]; 4]) -> bool {
    let last = points[3];
    let edge = |i: usize| -> [f32; 3] { std::array::from_fn(|a| points[i][a] - last[a]) };
    let dot = |a: [f32; 3], b: [f32; 3]| a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
    (0..3).all(|j| {
        (0..j).all(|k| {
            let (a, b) = (edge(j), edge(k));
            dot(a, b).powi(2) <= COLLINEAR * dot(a, a) * dot(b, b)
        })
    })
}

/// The map through four pairs of points.
fn through(from: &[[f32; 3]], to: &[[f32; 3]], sample: [usize; 4]) -> Option<AffineRows> {
    let left = Matrix4::from_fn(|r, c| if c < 3 { f64::from(from[sample[r]][c]) } else { 1.0 });
    let inverse = left.full_piv_lu();
    let mut rows = [[0.0; 4]; 3];
    for (axis, row) in rows.iter_mut().enumerate() {
        let right = nalgebra::Vector4::from_fn(|r, _| f64::from(to[sample[r]][axis]));
        let solution = inverse.solve(&right)?;
        row.copy_from_slice(solution.as_slice());
    }
    rows.iter().flatten().all(|v| v.is_finite()).then_some(rows)
}

fn square(rows: &AffineRows, p: [f32; 3], q: [f32; 3]) -> f32 {
    let [x, y, z] = p.map(f64::from);
    let difference = Vector3::from_fn(|a, _| {
        let r = rows[a];
        r[0] * x + r[1] * y + r[2] * z + r[3] - f64::from(q[a])
    });
    difference.norm_squared() as f32
}

/// The number of samples needed at the fraction `outliers` of outliers; at most `before`.
fn samples(outliers: f64, before: usize) -> usize {
    let chance = 1.0 - (1.0 - outliers).powi(4);
    if chance < f64::MIN_POSITIVE {
        return 0;
    }
    let (miss, chance) = ((1.0 - CONFIDENCE).ln(), chance.ln());
    if chance >= 0.0 || -miss > before as f64 * -chance {
        before
    } else {
        (miss / chance).round_ties_even() as usize
    }
}

/// The state of OpenCV's random number generator, `RNG`.
struct MultiplyWithCarry(u64);

impl MultiplyWithCarry {
    fn below(&mut self, count: usize) -> usize {
        let low = self.0 & u64::from(u32::MAX);
        self.0 = low.wrapping_mul(4_164_903_690).wrapping_add(self.0 >> 32);
        (self.0 as u32 as usize) % count
    }
}
