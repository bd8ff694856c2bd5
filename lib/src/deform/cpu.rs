//! One resolution of a block: the differences of the images, and the step that reduces them.
//!
//! Around each node the displacement `v` is sought that minimises `sum w (F(p) - M(p + u + v))^2`
//! over a Gaussian window `w`: to first order `v = (sum w g g')^-1 sum w g (F - M(p + u))`, with
//! `g` the gradient of `F` (Lucas and Kanade, IJCAI 1981). Since `g` belongs to the fixed image,
//! the sums of its products are computed once for all steps (Baker and Matthews, IJCV 56, 2004).

use super::lattice::{Field, Lattice, Steps};
use super::similarity::Score;
use crate::geom::Point;

/// Differences are clamped to this many standard deviations (Huber).
const LIMIT: f32 = 0.7;

/// The prepared images of one resolution, and the nodes of their displacements.
pub(super) struct Stage<'a> {
    pub(super) fixed: &'a [f32],
    pub(super) moving: &'a [f32],
    /// The lattice of the images' voxels.
    pub(super) pixels: Lattice,
    /// The lattice of the displacements.
    pub(super) nodes: Lattice,
    /// Voxel size of the block, micrometres.
    pub(super) voxel: Point,
}

/// Sums over all voxels, some of them at the nodes.
pub(super) struct Sums {
    /// Gradient times difference.
    pub(super) slope: Field,
    /// Products of gradients, zz zy zx yy yx xx, if they depend on the moving image.
    pub(super) tensor: Option<[Vec<f32>; 6]>,
    /// The energy that steps reduce: the mean square of the clamped differences, or the negative
    /// mutual information.
    pub(super) energy: f64,
    /// The mean square difference of the voxels that are known in both images.
    pub(super) square: f64,
    /// Number of these voxels.
    pub(super) voxels: usize,
}

impl Stage<'_> {
    /// Image voxels per node, along each axis.
    fn ratio(&self) -> [usize; 3] {
        std::array::from_fn(|a| self.nodes.factor[a] / self.pixels.factor[a])
    }

    /// The row of nodes to which a row of voxels belongs.
    fn node_row(&self, [z, y]: [usize; 2]) -> std::ops::Range<usize> {
        let ratio = self.ratio();
        let [_, height, width] = self.nodes.shape;
        let at = (z / ratio[0] * height + y / ratio[1]) * width;
        at..at + width
    }

    /// Sums of products of the fixed image's gradient, at the nodes.
    pub(super) fn tensor(&self) -> [Vec<f32>; 6] {
        let mut sums: [Vec<f32>; 6] = std::array::from_fn(|_| vec![0.0; self.nodes.len()]);
        let mut gradient = self.rows();
        self.each_row(|at| {
            self.gradient(self.fixed, at, &mut gradient);
            self.add_products(at, &gradient, &mut sums);
        });
        sums
    }

    fn add_products(&self, at: [usize; 2], [z, y, x]: &[Vec<f32>; 3], sums: &mut [Vec<f32>; 6]) {
        let row = self.node_row(at);
        let by = self.ratio()[2];
        let pairs = [(z, z), (z, y), (z, x), (y, y), (y, x), (x, x)];
        for (sums, (a, b)) in sums.iter_mut().zip(pairs) {
            add(&mut sums[row.clone()], by, a, b);
        }
    }

    /// The sums for a step, from the differences under a displacement field.
    pub(super) fn sums(&self, field: &Field) -> Sums {
        let steps = self.pixels.steps_in(&self.nodes);
        let width = self.pixels.shape[2];
        let (mut gradient, mut line) = (self.rows(), Vec::new());
        let (mut displaced, mut pulled) = (self.rows(), vec![0.0; width]);
        let mut slope = self.nodes.zeros();
        let (mut energy, mut square, mut voxels) = (0.0, 0.0, 0);
        self.each_row(|at| {
            self.pull_row(field, &steps, at, &mut line, &mut displaced, &mut pulled);
            let first = (at[0] * self.pixels.shape[1] + at[1]) * width;
            let (mut sum, mut whole, mut count) = (0.0f32, 0.0f32, 0);
            for (pulled, &fixed) in pulled.iter_mut().zip(&self.fixed[first..first + width]) {
                let d = fixed - *pulled;
                let known = d.is_finite();
                let d = if known { d } else { 0.0 };
                whole += d * d;
                let d = d.clamp(-LIMIT, LIMIT);
                sum += d * d;
                count += usize::from(known);
                *pulled = d;
            }
            energy += f64::from(sum);
            square += f64::from(whole);
            voxels += count;
            self.gradient(self.fixed, at, &mut gradient);
            let row = self.node_row(at);
            for (slope, gradient) in slope.iter_mut().zip(&gradient) {
                add(&mut slope[row.clone()], self.ratio()[2], gradient, &pulled);
            }
        });
        let n = voxels.max(1) as f64;
        Sums { slope, tensor: None, energy: energy / n, square: square / n, voxels }
    }

    /// Like [`Stage::sums`], for images whose intensities need not match: the score, which is the
    /// derivative of the log-likelihood of a pair of intensities with respect to the moving one,
    /// takes the place of the difference (Fisher scoring).
    pub(super) fn scored_sums(&self, field: &Field, bins: usize) -> Sums {
        let pulled = self.pull(field);
        let score = Score::of(self.fixed, &pulled, bins);
        let width = self.pixels.shape[2];
        let mut gradient = self.rows();
        let mut slope = self.nodes.zeros();
        let mut tensor: [Vec<f32>; 6] = std::array::from_fn(|_| vec![0.0; self.nodes.len()]);
        let mut differences = vec![0.0; width];
        self.each_row(|at| {
            let first = (at[0] * self.pixels.shape[1] + at[1]) * width;
            for x in 0..width {
                differences[x] = score.at(self.fixed[first + x], pulled[first + x]);
            }
            self.gradient(&pulled, at, &mut gradient);
            let row = self.node_row(at);
            for (slope, gradient) in slope.iter_mut().zip(&gradient) {
                add(&mut slope[row.clone()], self.ratio()[2], gradient, &differences);
            }
            self.add_products(at, &gradient, &mut tensor);
        });
        // the curvature of the likelihood is the mean square of its derivative
        for sums in &mut tensor {
            sums.iter_mut().for_each(|v| *v *= score.information);
        }
        let energy = -score.information_shared;
        Sums { slope, tensor: Some(tensor), energy, square: energy, voxels: score.pairs }
    }

    /// The moving image at the displaced position of each voxel; NaN outside.
    pub(super) fn pull(&self, field: &Field) -> Vec<f32> {
        let steps = self.pixels.steps_in(&self.nodes);
        let width = self.pixels.shape[2];
        let (mut line, mut displaced) = (Vec::new(), self.rows());
        let mut out = vec![0.0; self.pixels.len()];
        let height = self.pixels.shape[1];
        for (row, out) in out.chunks_exact_mut(width).enumerate() {
            self.pull_row(
                field,
                &steps,
                [row / height, row % height],
                &mut line,
                &mut displaced,
                out,
            );
        }
        out
    }

    fn rows(&self) -> [Vec<f32>; 3] {
        std::array::from_fn(|_| vec![0.0; self.pixels.shape[2]])
    }

    fn each_row(&self, mut visit: impl FnMut([usize; 2])) {
        for z in 0..self.pixels.shape[0] {
            for y in 0..self.pixels.shape[1] {
                visit([z, y]);
            }
        }
    }

    fn pull_row(
        &self,
        field: &Field,
        steps: &[Steps; 3],
        at: [usize; 2],
        line: &mut Vec<f32>,
        displaced: &mut [Vec<f32>; 3],
        out: &mut [f32],
    ) {
        let spacing = self.pixels.spacing(self.voxel).map(|s| 1.0 / s as f32);
        for (row, field) in displaced.iter_mut().zip(field) {
            self.nodes.row(field, steps, at, line, row);
        }
        let [depth, height, width] = self.pixels.shape;
        let last = [depth, height, width].map(|n| (n - 1) as f32);
        // an axis of one voxel has no neighbour
        let next = [
            if depth > 1 { height * width } else { 0 },
            if height > 1 { width } else { 0 },
            usize::from(width > 1),
        ];
        let limit = [depth, height, width].map(|n| n.saturating_sub(2));
        let [uz, uy, ux] = displaced;
        for x in 0..width {
            let p = [
                at[0] as f32 + uz[x] * spacing[0],
                at[1] as f32 + uy[x] * spacing[1],
                x as f32 + ux[x] * spacing[2],
            ];
            let inside = |a: usize| p[a] >= -0.5 && p[a] <= last[a] + 0.5;
            if !(inside(0) && inside(1) && inside(2)) {
                out[x] = f32::NAN;
                continue;
            }
            let q: [f32; 3] = std::array::from_fn(|a| p[a].max(0.0).min(last[a]));
            let low: [usize; 3] = std::array::from_fn(|a| (q[a] as usize).min(limit[a]));
            let part: [f32; 3] = std::array::from_fn(|a| q[a] - low[a] as f32);
            let first = (low[0] * height + low[1]) * width + low[2];
            let pair = |at: usize| {
                let a = self.moving[at];
                a + part[2] * (self.moving[at + next[2]] - a)
            };
            let plane = |at: usize| {
                let a = pair(at);
                a + part[1] * (pair(at + next[1]) - a)
            };
            let near = plane(first);
            out[x] = near + part[0] * (plane(first + next[0]) - near);
        }
    }

    /// Central differences along a row, one-sided at the ends, per micrometre; 0 next to unknown
    /// voxels.
    fn gradient(&self, image: &[f32], [z, y]: [usize; 2], out: &mut [Vec<f32>; 3]) {
        let [depth, height, width] = self.pixels.shape;
        let spacing = self.pixels.spacing(self.voxel);
        let row = |z: usize, y: usize| &image[(z * height + y) * width..][..width];
        let neighbours = |i: usize, n: usize| (i.saturating_sub(1), (i + 1).min(n - 1));
        let scale = |low: usize, high: usize, a: usize| {
            if high > low { 1.0 / ((high - low) as f64 * spacing[a]) as f32 } else { 0.0 }
        };
        let known = |v: f32| if v.is_finite() { v } else { 0.0 };
        let (low, high) = neighbours(z, depth);
        difference(row(low, y), row(high, y), scale(low, high, 0), &mut out[0]);
        let (low, high) = neighbours(y, height);
        difference(row(z, low), row(z, high), scale(low, high, 1), &mut out[1]);
        let line = row(z, y);
        let along = &mut out[2];
        if width > 2 {
            let by = scale(0, 2, 2);
            for (out, v) in along[1..width - 1].iter_mut().zip(line.windows(3)) {
                *out = known((v[2] - v[0]) * by);
            }
        }
        for x in [0, width - 1] {
            let (low, high) = neighbours(x, width);
            along[x] = known((line[high] - line[low]) * scale(low, high, 2));
        }
    }
}

fn difference(low: &[f32], high: &[f32], scale: f32, out: &mut [f32]) {
    for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
        let d = (high - low) * scale;
        *out = if d.is_finite() { d } else { 0.0 };
    }
}

/// Adds the products of two rows of voxels to a row of nodes of `by` voxels each.
fn add(sums: &mut [f32], by: usize, a: &[f32], b: &[f32]) {
    if by == 2 {
        let (pairs, rest) = a.as_chunks::<2>();
        let (others, last) = b.as_chunks::<2>();
        for (sum, (a, b)) in sums.iter_mut().zip(pairs.iter().zip(others)) {
            *sum += a[0] * b[0] + a[1] * b[1];
        }
        if let ([a], [b], Some(sum)) = (rest, last, sums.last_mut()) {
            *sum += a * b;
        }
        return;
    }
    for (sum, (a, b)) in sums.iter_mut().zip(a.chunks(by).zip(b.chunks(by))) {
        *sum += a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    }
}

/// The inverse of the averaged products at each node, after damping: a fraction of their mean is
/// added to the diagonal.
pub(super) fn invert(tensor: &[Vec<f32>; 6], damping: f64) -> [Vec<f32>; 6] {
    let len = tensor[0].len();
    let trace: f64 = [0, 3, 5].iter().flat_map(|&i| &tensor[i]).map(|v| f64::from(*v)).sum();
    let axes = [0, 3, 5].iter().filter(|&&i| tensor[i].iter().any(|v| *v > 0.0)).count();
    let held =
        (damping * trace / (axes.max(1) * len) as f64).max(f64::from(f32::MIN_POSITIVE)) as f32;
    let mut out: [Vec<f32>; 6] = std::array::from_fn(|_| vec![0.0; len]);
    for i in 0..len {
        let [zz, zy, zx, yy, yx, xx] =
            std::array::from_fn(|k| tensor[k][i] + if matches!(k, 0 | 3 | 5) { held } else { 0.0 });
        let minors = [
            yy * xx - yx * yx,
            zx * yx - zy * xx,
            zy * yx - zx * yy,
            zz * xx - zx * zx,
            zx * zy - zz * yx,
            zz * yy - zy * zy,
        ];
        let scale = 1.0 / (zz * minors[0] + zy * minors[1] + zx * minors[2]);
        for (out, minor) in out.iter_mut().zip(minors) {
            let v = minor * scale;
            out[i] = if v.is_finite() { v } else { 0.0 };
        }
    }
    out
}

/// Multiplies each node's vector by its matrix, and shortens vectors that are longer than
/// `longest`.
pub(super) fn solve(inverse: &[Vec<f32>; 6], slope: &Field, longest: f32) -> Field {
    let len = slope[0].len();
    let mut out: Field = std::array::from_fn(|_| vec![0.0; len]);
    for i in 0..len {
        let [zz, zy, zx, yy, yx, xx] = std::array::from_fn(|k| inverse[k][i]);
        let [a, b, c] = std::array::from_fn(|k| slope[k][i]);
        let v = [zz * a + zy * b + zx * c, zy * a + yy * b + yx * c, zx * a + yx * b + xx * c];
        let length = v.iter().map(|v| v * v).sum::<f32>().sqrt();
        let scale = if length > longest { longest / length } else { 1.0 };
        for (out, v) in out.iter_mut().zip(v) {
            out[i] = v * scale;
        }
    }
    out
}
