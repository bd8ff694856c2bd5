//! One resolution of a block: the differences of the images, and the step that reduces them.
//!
//! At each node, the displacement `v` minimises `sum w (F(p) - M(p + u + v))^2` over a Gaussian
//! window `w`: to first order `v = (sum w g g')^-1 sum w g (F - M(p + u))`, with `g` the gradient
//! of `F` (Lucas and Kanade, IJCAI 1981). The gradient belongs to the fixed image, so that the
//! sums of its products are computed once for all steps (Baker and Matthews, IJCV 56, 2004).

use super::lattice::{Field, Lattice, Steps};
use super::similarity::Score;
use crate::filter::lines::for_avx2;
use crate::geom::Point;

/// Differences are clamped to this many standard deviations (Huber).
const LIMIT: f32 = 0.7;

/// Number of voxels that are computed together. Rows of displacements are padded to a multiple of
/// this number.
const LANES: usize = 16;

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

/// Sums over voxels. `slope` and `tensor` are sums for each node; the other fields refer to the
/// whole image.
pub(super) struct Sums {
    /// Gradient times difference.
    pub(super) slope: Field,
    /// Products of gradients, zz zy zx yy yx xx, if they depend on the moving image.
    pub(super) tensor: Option<[Vec<f32>; 6]>,
    /// The energy that steps reduce: the mean square of the clamped differences, or the negative
    /// mutual information.
    pub(super) energy: f64,
    /// The mean square difference of the voxels that are known in both images, or the negative
    /// mutual information.
    pub(super) square: f64,
    /// Number of voxels that are known in both images.
    pub(super) voxels: usize,
}

for_avx2! {
    /// [`Stage::sums`], compiled with and without AVX2.
    fn sums(stage: &Stage<'_>, field: &Field) -> Sums => Stage::sums_inlined
}

for_avx2! {
    /// [`Stage::pull`], compiled with and without AVX2.
    fn pull(stage: &Stage<'_>, field: &Field) -> Vec<f32> => Stage::pull_inlined
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

    /// Sums of the squared gradient of the fixed image, at the nodes.
    pub(super) fn structure(&self) -> Vec<f32> {
        let mut sums = vec![0.0; self.nodes.len()];
        let mut gradient = self.rows();
        self.each_row(|at| {
            self.gradient(self.fixed, at, &mut gradient);
            let row = self.node_row(at);
            for along in &gradient {
                add(&mut sums[row.clone()], self.ratio()[2], along, along);
            }
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
    ///
    /// Arithmetic is in `f32` without fused multiply-add, so that every processor gives the same
    /// bits; energies are added over rows in `f64`.
    pub(super) fn sums(&self, field: &Field) -> Sums {
        sums(self, field)
    }

    #[inline(always)]
    fn sums_inlined(&self, field: &Field) -> Sums {
        let steps = self.pixels.steps_in(&self.nodes);
        let width = self.pixels.shape[2];
        let (mut gradient, mut line) = (self.rows(), Vec::new());
        let (mut displaced, mut pulled) = (self.padded_rows(), vec![0.0; width]);
        let mut slope = self.nodes.zeros();
        let (mut energy, mut square, mut voxels) = (0.0, 0.0, 0);
        for (row, fixed) in self.fixed.chunks_exact(width).enumerate() {
            let at = [row / self.pixels.shape[1], row % self.pixels.shape[1]];
            self.pull_row(field, &steps, at, &mut line, &mut displaced, &mut pulled);
            let (sum, whole, count) = differences(fixed, &mut pulled);
            energy += f64::from(sum);
            square += f64::from(whole);
            voxels += count;
            self.gradient(self.fixed, at, &mut gradient);
            let row = self.node_row(at);
            for (slope, gradient) in slope.iter_mut().zip(&gradient) {
                add(&mut slope[row.clone()], self.ratio()[2], gradient, &pulled);
            }
        }
        let n = voxels.max(1) as f64;
        Sums { slope, tensor: None, energy: energy / n, square: square / n, voxels }
    }

    /// Like [`Stage::sums`], for mutual information. A score takes the place of the difference: the
    /// derivative of the log-likelihood of a pair of intensities with respect to the moving
    /// intensity (Fisher scoring).
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
        pull(self, field)
    }

    #[inline(always)]
    fn pull_inlined(&self, field: &Field) -> Vec<f32> {
        let steps = self.pixels.steps_in(&self.nodes);
        let width = self.pixels.shape[2];
        let (mut line, mut displaced) = (Vec::new(), self.padded_rows());
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

    /// The fraction of the fixed image's squared gradient that the moving image shares under a
    /// field. The remaining fraction is noise, which contributes to the products of gradients
    /// although it does not follow the displacement.
    pub(super) fn shared_gradient(&self, field: &Field) -> f64 {
        let pulled = self.pull(field);
        let (mut one, mut other) = (self.rows(), self.rows());
        let (mut shared, mut whole) = (0.0, 0.0);
        self.each_row(|at| {
            self.gradient(self.fixed, at, &mut one);
            self.gradient(&pulled, at, &mut other);
            let (mut both, mut square) = (0.0f32, 0.0f32);
            for (one, other) in one.iter().flatten().zip(other.iter().flatten()) {
                both += one * other;
                square += one * one;
            }
            shared += f64::from(both);
            whole += f64::from(square);
        });
        shared / f64::max(whole, f64::MIN_POSITIVE)
    }

    fn rows(&self) -> [Vec<f32>; 3] {
        std::array::from_fn(|_| vec![0.0; self.pixels.shape[2]])
    }

    fn padded_rows(&self) -> [Vec<f32>; 3] {
        std::array::from_fn(|_| vec![0.0; self.pixels.shape[2].next_multiple_of(LANES)])
    }

    fn each_row(&self, mut visit: impl FnMut([usize; 2])) {
        for z in 0..self.pixels.shape[0] {
            for y in 0..self.pixels.shape[1] {
                visit([z, y]);
            }
        }
    }

    /// One row of [`Stage::pull`].
    ///
    /// * `line`, `displaced`: scratch buffers; [`Stage::padded_rows`] creates `displaced`
    #[inline(always)]
    fn pull_row(
        &self,
        field: &Field,
        steps: &[Steps; 3],
        at: [usize; 2],
        line: &mut Vec<f32>,
        displaced: &mut [Vec<f32>; 3],
        out: &mut [f32],
    ) {
        for (row, field) in displaced.iter_mut().zip(field) {
            self.nodes.row(field, steps, at, line, row);
        }
        if self.pixels.shape[2] > 1 {
            self.pull_row_of::<1>(at, displaced, out);
        } else {
            self.pull_row_of::<0>(at, displaced, out);
        }
    }

    /// The moving image at the displaced positions of a row, trilinearly.
    ///
    /// * `X`: offset of the next voxel along x: 1, or 0 if the image is one voxel wide
    #[inline(always)]
    fn pull_row_of<const X: usize>(
        &self,
        at: [usize; 2],
        displaced: &[Vec<f32>; 3],
        out: &mut [f32],
    ) {
        let [depth, height, width] = self.pixels.shape;
        let dz = if depth > 1 { height * width } else { 0 };
        let dy = if height > 1 { width } else { 0 };
        // four slices of equal length, one for each edge of a cell along x, so that one bounds
        // check serves all four
        let len = self.moving.len() - dz - dy;
        let edges = [0, dy, dz, dz + dy].map(|offset| &self.moving[offset..offset + len]);
        for (group, out) in out.chunks_mut(LANES).enumerate() {
            let cells = self.cells(at, group * LANES, displaced);
            let mut corners = [[[0.0f32; 2]; LANES]; 4];
            for l in 0..LANES {
                let low = (cells.low[l] as usize).min(len - 1 - X);
                for e in 0..4 {
                    corners[e][l] = [edges[e][low], edges[e][low + X]];
                }
            }
            let mut values = [0.0f32; LANES];
            for l in 0..LANES {
                let mut along = [0.0f32; 4];
                for e in 0..4 {
                    let [a, b] = corners[e][l];
                    along[e] = a + cells.part[2][l] * (b - a);
                }
                let near = along[0] + cells.part[1][l] * (along[1] - along[0]);
                let far = along[2] + cells.part[1][l] * (along[3] - along[2]);
                let value = near + cells.part[0][l] * (far - near);
                values[l] = if cells.inside[l] != 0 { value } else { f32::NAN };
            }
            out.copy_from_slice(&values[..out.len()]);
        }
    }

    /// The cells of the moving image that contain the displaced positions of [`LANES`] voxels of a
    /// row, beginning with voxel `x`. Positions outside are clamped, NaN becomes the first voxel.
    #[inline(always)]
    fn cells(&self, [z, y]: [usize; 2], x: usize, displaced: &[Vec<f32>; 3]) -> Cells {
        let shape = self.pixels.shape;
        let spacing = self.pixels.spacing(self.voxel).map(|s| 1.0 / s as f32);
        let stride = [(shape[1] * shape[2]) as u32, shape[2] as u32, 1];
        let first = [z as f32, y as f32, x as f32];
        let mut cells =
            Cells { low: [0; LANES], part: [[0.0; LANES]; 3], inside: [u32::MAX; LANES] };
        for a in 0..3 {
            let last = (shape[a] - 1) as f32;
            let limit = shape[a].saturating_sub(2) as f32;
            let row: &[f32; LANES] = displaced[a][x..].first_chunk().unwrap_or(&[0.0; LANES]);
            for l in 0..LANES {
                let along = if a == 2 { l as f32 } else { 0.0 };
                let p = (first[a] + along) + row[l] * spacing[a];
                cells.inside[l] &= if p >= -0.5 && p <= last + 0.5 { u32::MAX } else { 0 };
                let p = if p > 0.0 { p } else { 0.0 };
                let p = if p < last { p } else { last };
                let low = p.floor();
                let low = if low < limit { low } else { limit };
                cells.part[a][l] = p - low;
                cells.low[l] += whole(low) * stride[a];
            }
        }
        cells
    }

    /// The gradient along z, y, x of a row of voxels, per micrometre: central differences,
    /// one-sided at the faces of the image; 0 next to unknown voxels.
    #[inline(always)]
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

/// Cells of the moving image, and positions in them.
struct Cells {
    /// Index of the lower corner.
    low: [u32; LANES],
    /// Fraction of the way to the upper corner along z, y, x.
    part: [[f32; LANES]; 3],
    /// Nonzero if the position is inside.
    inside: [u32; LANES],
}

/// Converts an integral value from 0 to below 2^23, using the low bits of its sum with 2^23. Unlike
/// a saturating cast, this operation is vectorised.
#[inline(always)]
fn whole(v: f32) -> u32 {
    (v + 8_388_608.0).to_bits() & 0x7f_ffff
}

/// Replaces the values of the moving image by the clamped differences `fixed - pulled`, 0 where
/// either value is unknown. Returns the sums of squares of the clamped and of the unclamped
/// differences, and the number of known differences.
#[inline(always)]
fn differences(fixed: &[f32], pulled: &mut [f32]) -> (f32, f32, usize) {
    let mut clamped = [0.0f32; LANES];
    let mut all = [0.0f32; LANES];
    let mut count = [0u32; LANES];
    let mut lane = |l: usize, fixed: f32, pulled: &mut f32| {
        let d = fixed - *pulled;
        let known = d.abs() < f32::INFINITY;
        let d = if known { d } else { 0.0 };
        all[l] += d * d;
        let d = if d > LIMIT { LIMIT } else { d };
        let d = if d < -LIMIT { -LIMIT } else { d };
        clamped[l] += d * d;
        count[l] += u32::from(known);
        *pulled = d;
    };
    let (groups, rest) = pulled.as_chunks_mut::<LANES>();
    let (fixed, last) = fixed.as_chunks::<LANES>();
    for (pulled, fixed) in groups.iter_mut().zip(fixed) {
        for l in 0..LANES {
            lane(l, fixed[l], &mut pulled[l]);
        }
    }
    for (l, (pulled, fixed)) in rest.iter_mut().zip(last).enumerate() {
        lane(l, *fixed, pulled);
    }
    (clamped.iter().sum(), all.iter().sum(), count.iter().sum::<u32>() as usize)
}

#[inline(always)]
fn difference(low: &[f32], high: &[f32], scale: f32, out: &mut [f32]) {
    for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
        let d = (high - low) * scale;
        *out = if d.is_finite() { d } else { 0.0 };
    }
}

/// Adds the products of two rows of voxels to a row of nodes of `by` voxels each.
#[inline(always)]
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

/// The inverse of each node's matrix of averaged products of gradients. First, `damping` times the
/// mean diagonal element of all nodes is added to the diagonal.
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
