//! The energy of a pair of images as a function of an affine map, and its derivatives.

use std::ops::Range;

use rayon::prelude::*;

use super::cpu::{self, LANES, Lanes, PAIRS, ProductSums};
use super::{Force, Image, Partial, SampleLocations, Samples, Score, Scorer};
use crate::geom::{Affine, Grid, Point};

/// Minimum number of samples in a part of the parallel work; there are at most [`MAX_PARTS`] parts.
const MIN_PART_SAMPLES: usize = 4096;
/// Maximum number of parts. It limits the memory, because each part can hold a histogram.
const MAX_PARTS: usize = 512;
/// Number of full batches after which sums in `f32` are added to totals in `f64`.
const FLUSH: usize = 8;

/// The centre and the unit of length in which a change of a map, `q -> q + size * (t + L (q -
/// centre) / size)`, is described by its 3 x 4 parameters `[t L]`. The value of each parameter is
/// of the order of the displacement that it causes, in units of `size`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// A point of the moving space, micrometres, z, y, x.
    pub centre: Point,
    /// A length, micrometres.
    pub size: f64,
}

/// An energy and its derivatives with respect to the twelve parameters of a change (see
/// [`Normalisation`]): row by row `z, y, x`, each `t, L_z, L_y, L_x`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linearised {
    /// The energy without a change.
    pub energy: f64,
    /// Number of samples that fall on known voxels of the moving image.
    pub count: usize,
    /// First derivatives.
    pub gradient: [f64; 12],
    /// Second derivatives, positive semidefinite.
    pub curvature: [[f64; 12]; 12],
}

/// Buffers that are reused from one evaluation to the next.
#[derive(Default)]
pub struct Workspace {
    values: Vec<f32>,
    slopes: Vec<[f32; 3]>,
}

/// The similarity of a fixed and a moving image as a function of an affine map between them.
pub struct AffineSimilarity<'a> {
    samples: &'a Samples,
    scorer: &'a Scorer,
    moving: &'a Image,
    /// The map from the coordinates of [`SampleLocations`] to moving micrometres.
    before: Affine,
    width: [usize; 3],
}

impl<'a> AffineSimilarity<'a> {
    /// Prepares the comparison.
    ///
    /// * `fixed`: the grid of the fixed image, whose voxels were sampled
    /// * `initial`: from fixed to moving micrometres, applied before the map; unused for
    ///   [`SampleLocations::Points`], to which it is already applied
    pub fn new(
        samples: &'a Samples,
        fixed: &Grid,
        moving: &'a Image,
        initial: &Affine,
        scorer: &'a Scorer,
    ) -> Self {
        let before = match samples.places {
            SampleLocations::Voxels(_) => fixed.to_physical().then(initial),
            SampleLocations::Points(_) => moving.grid.to_physical(),
        };
        Self { samples, scorer, moving, before, width: fixed.shape }
    }

    /// The energy under `map` (from moving to moving micrometres, applied after the initial map),
    /// and the number of samples on known voxels; `None` if too few samples lie on known voxels, or
    /// if their values are constant.
    pub fn score(&self, map: &Affine, work: &mut Workspace) -> Option<Score> {
        let n = self.samples.len();
        work.values.resize(n, 0.0);
        work.slopes.resize(n, [0.0; 3]);
        let parts = parts(n);
        let index = self.index(map);
        let shares = work.values.par_chunks_mut(parts).zip(work.slopes.par_chunks_mut(parts));
        let parts: Vec<Partial> = shares
            .enumerate()
            .map(|(i, (values, slopes))| {
                let range = i * parts..i * parts + values.len();
                self.each(&index, range.clone(), |n, at| {
                    (values[n], slopes[n]) = super::sample(self.moving, at);
                });
                self.scorer.gather(&self.samples.values[range], values)
            })
            .collect();
        let whole = parts.into_iter().reduce(|sum, part| sum.plus(&part))?;
        self.scorer.conclude(&whole)
    }

    /// The energy under `map` and its derivatives with respect to a change that is applied after
    /// `map`.
    pub fn linearise(
        &self,
        map: &Affine,
        normalisation: &Normalisation,
        work: &mut Workspace,
    ) -> Option<Linearised> {
        let score = self.score(map, work)?;
        let index = self.index(map);
        let parts = parts(self.samples.len());
        let (values, slopes) = (&work.values, &work.slopes);
        let parts: Vec<Equations> = values
            .par_chunks(parts)
            .enumerate()
            .map(|(i, part)| {
                let range = i * parts..i * parts + part.len();
                self.equations(&index, normalisation, &score.force, range, values, slopes)
            })
            .collect();
        let mut whole = Equations::default();
        parts.iter().for_each(|part| whole.plus(part));
        let (gradient, curvature) = whole.solveable(&score.force);
        Some(Linearised { energy: score.energy, count: score.count, gradient, curvature })
    }

    /// The centre of the samples on known voxels under `map`, and their root mean square distance
    /// from this centre, micrometres. Call [`AffineSimilarity::score`] with the same map first.
    pub fn normalisation(&self, map: &Affine, work: &Workspace) -> Option<Normalisation> {
        let (grid, index) = (self.moving.grid, self.index(map));
        let (mut count, mut sum, mut squares) = (0.0, [0.0; 3], 0.0);
        let middle = grid.extent(&grid.bounds());
        let middle: Point = std::array::from_fn(|a| 0.5 * (middle[0][a] + middle[1][a]));
        self.each(&index, 0..self.samples.len(), |n, at| {
            if !work.values[n].is_nan() {
                let q = grid.position(at.map(f64::from));
                count += 1.0;
                for a in 0..3 {
                    let d = q[a] - middle[a];
                    sum[a] += d;
                    squares += d * d;
                }
            }
        });
        let mean: Point = sum.map(|s| s / count);
        let spread = squares / count - mean.iter().map(|m| m * m).sum::<f64>();
        let size = spread.max(0.0).sqrt().max(grid.mean_spacing());
        (count > 0.0)
            .then(|| Normalisation { centre: std::array::from_fn(|a| middle[a] + mean[a]), size })
    }

    /// The map from the coordinates of [`SampleLocations`] to moving voxels, as a 3 x 4 matrix.
    fn index(&self, map: &Affine) -> [[f64; 4]; 3] {
        let grid = self.moving.grid;
        let rows = self.before.then(map).rows();
        std::array::from_fn(|a| {
            let mut row = rows[a].map(|v| v / grid.spacing[a]);
            row[3] -= grid.origin[a] / grid.spacing[a];
            row
        })
    }

    /// Calls `each` for every sample of a range, with its index in the range and its position in
    /// moving voxels.
    fn each(
        &self,
        index: &[[f64; 4]; 3],
        range: Range<usize>,
        mut each: impl FnMut(usize, [f32; 3]),
    ) {
        match &self.samples.places {
            SampleLocations::Points(points) => {
                for (n, p) in points[range].iter().enumerate() {
                    let p = p.map(f64::from);
                    let q = index.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
                    each(n, q.map(|v| v as f32));
                }
            }
            SampleLocations::Voxels(voxels) => {
                let [_, ny, nx] = self.width;
                let (mut first, mut end, mut start) = (0, 0, [0.0; 3]);
                for (n, &voxel) in voxels[range].iter().enumerate() {
                    let voxel = voxel as usize;
                    if voxel >= end {
                        let row = voxel / nx;
                        (first, end) = (row * nx, row * nx + nx);
                        let (z, y) = ((row / ny) as f64, (row % ny) as f64);
                        start = index.map(|r| r[0] * z + r[1] * y + r[3]);
                    }
                    let x = (voxel - first) as f64;
                    each(n, std::array::from_fn(|a| (start[a] + index[a][2] * x) as f32));
                }
            }
        }
    }

    /// The sums of the normal equations over a range of samples.
    fn equations(
        &self,
        index: &[[f64; 4]; 3],
        normalisation: &Normalisation,
        force: &Force,
        range: Range<usize>,
        values: &[f32],
        slopes: &[[f32; 3]],
    ) -> Equations {
        let grid = self.moving.grid;
        let gain = grid.spacing.map(|s| (normalisation.size / s) as f32);
        let step = grid.spacing.map(|s| (s / normalisation.size) as f32);
        let start: [f32; 3] = std::array::from_fn(|a| {
            ((grid.origin[a] - normalisation.centre[a]) / normalisation.size) as f32
        });
        let mean = match force {
            Force::Linear { mean, .. } => mean[1] as f32,
            Force::Table(_) => 0.0,
        };
        let from = range.start;
        let mut out = Equations::default();
        let mut batch = Batch::new();
        self.each(index, range, |n, at| {
            let value = values[from + n];
            if value.is_nan() {
                return;
            }
            let (lane, lanes) = batch.next(&mut out);
            let slope = slopes[from + n];
            for a in 0..3 {
                lanes.slope[a][lane] = slope[a] * gain[a];
                lanes.place[a][lane] = at[a] * step[a] + start[a];
            }
            (lanes.force[lane], lanes.curvature[lane]) =
                force.at(self.samples.values[from + n], value);
            lanes.value[lane] = value - mean;
        });
        batch.finish(&mut out);
        out
    }
}

fn parts(samples: usize) -> usize {
    samples.div_ceil(MAX_PARTS).max(MIN_PART_SAMPLES)
}

/// A batch of lanes that is being filled.
struct Batch {
    lanes: Lanes,
    used: usize,
    sums: ProductSums,
    added: usize,
}

impl Batch {
    fn new() -> Self {
        Self { lanes: Lanes::EMPTY, used: 0, sums: ProductSums::ZERO, added: 0 }
    }

    /// The next free lane; a full batch is added to the sums first.
    fn next(&mut self, out: &mut Equations) -> (usize, &mut Lanes) {
        if self.used == LANES {
            cpu::add(&self.lanes, &mut self.sums);
            (self.used, self.added) = (0, self.added + 1);
            if self.added == FLUSH {
                out.take(&self.sums);
                (self.sums, self.added) = (ProductSums::ZERO, 0);
            }
        }
        self.used += 1;
        (self.used - 1, &mut self.lanes)
    }

    fn finish(&mut self, out: &mut Equations) {
        for lane in self.used..LANES {
            for a in 0..3 {
                // unused lanes add 0, because every product of a lane contains its gradient
                self.lanes.slope[a][lane] = 0.0;
            }
        }
        cpu::add(&self.lanes, &mut self.sums);
        out.take(&self.sums);
    }
}

/// Totals of the products in [`ProductSums`].
#[derive(Default)]
struct Equations {
    squares: [[f64; 10]; 6],
    vectors: [[[f64; 4]; 3]; 3],
}

impl Equations {
    fn take(&mut self, sums: &ProductSums) {
        for (pair, row) in self.squares.iter_mut().enumerate() {
            row.iter_mut().enumerate().for_each(|(k, sum)| *sum += sums.square(pair, k));
        }
        for (weight, axes) in self.vectors.iter_mut().enumerate() {
            for (a, row) in axes.iter_mut().enumerate() {
                row.iter_mut().enumerate().for_each(|(p, sum)| *sum += sums.vector(weight, a, p));
            }
        }
    }

    fn plus(&mut self, other: &Self) {
        let rows = self.squares.iter_mut().flatten().zip(other.squares.iter().flatten());
        rows.for_each(|(sum, more)| *sum += more);
        let rows = self.vectors.iter_mut().flatten().flatten();
        rows.zip(other.vectors.iter().flatten().flatten()).for_each(|(sum, more)| *sum += more);
    }

    /// Gradient and curvature. For correlation, the part of the curvature that a change of
    /// brightness or contrast explains is subtracted.
    fn solveable(&self, force: &Force) -> ([f64; 12], [[f64; 12]; 12]) {
        /// Index of the product of two of `1, z, y, x` among the ten products.
        const PRODUCT: [[usize; 4]; 4] = [[0, 1, 2, 3], [1, 4, 5, 6], [2, 5, 7, 8], [3, 6, 8, 9]];
        let vector = |weight: usize| -> [f64; 12] {
            std::array::from_fn(|i| self.vectors[weight][i / 4][i % 4])
        };
        let mut curvature = [[0.0; 12]; 12];
        for (pair, &[a, b]) in PAIRS.iter().enumerate() {
            for p in 0..4 {
                for q in 0..4 {
                    let sum = self.squares[pair][PRODUCT[p][q]];
                    curvature[4 * a + p][4 * b + q] = sum;
                    curvature[4 * b + q][4 * a + p] = sum;
                }
            }
        }
        if let Force::Linear { free: Some([n, mm]), curvature: weight, .. } = force {
            let (ones, contrast) = (vector(1), vector(2));
            for i in 0..12 {
                for j in 0..12 {
                    curvature[i][j] -=
                        weight * (ones[i] * ones[j] / n + contrast[i] * contrast[j] / mm);
                }
            }
        }
        (vector(0), curvature)
    }
}
