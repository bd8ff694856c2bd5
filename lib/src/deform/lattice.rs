//! Regular nodes over the voxels of a block, and displacement fields on them.
//!
//! Node `j` of a lattice of factor `f` lies at voxel `f * j + (f - 1) / 2`, the centre of the
//! voxels `f * j .. f * (j + 1)` that it represents. The images of a pyramid lie on lattices, too.

use crate::filter::{self, Kernel};
use crate::geom::Point;

/// Nodes over the voxels of a block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Lattice {
    /// Nodes along z, y, x.
    pub(super) shape: [usize; 3],
    /// Voxels of the block per node, along z, y, x.
    pub(super) factor: [usize; 3],
}

/// Displacements at the nodes of a lattice: one image per component z, y, x, micrometres.
pub(super) type Field = [Vec<f32>; 3];

/// Positions of the nodes of one lattice in another lattice, along one axis: the other lattice's
/// node before each position (`low`), and the fraction of the way to the next node (`part`).
/// Positions beyond the ends are clamped.
pub(super) struct Steps {
    low: Vec<usize>,
    part: Vec<f32>,
}

impl Steps {
    fn new(nodes: [usize; 2], factors: [usize; 2]) -> Self {
        let [to, from] = factors.map(|f| f as f64);
        let last = nodes[1] - 1;
        let at = |j: usize| ((to * j as f64 + 0.5 * (to - from)) / from).clamp(0.0, last as f64);
        let low = |j: usize| (at(j) as usize).min(last.saturating_sub(1));
        Self {
            low: (0..nodes[0]).map(low).collect(),
            part: (0..nodes[0]).map(|j| (at(j) - low(j) as f64) as f32).collect(),
        }
    }
}

impl Lattice {
    /// The lattice over a block of this many voxels.
    pub(super) fn over(voxels: [usize; 3], factor: [usize; 3]) -> Self {
        Self { shape: std::array::from_fn(|a| voxels[a].div_ceil(factor[a])), factor }
    }

    /// Number of nodes.
    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Distance between nodes, micrometres, for voxels of this size.
    pub(super) fn spacing(&self, voxel: Point) -> Point {
        std::array::from_fn(|a| voxel[a] * self.factor[a] as f64)
    }

    /// The lattice of half as many nodes along each axis.
    pub(super) fn halved(&self) -> Self {
        let by = self.shape.map(|n| if n > 1 { 2 } else { 1 });
        let shape = std::array::from_fn(|a| self.shape[a].div_ceil(by[a]));
        Self { shape, factor: std::array::from_fn(|a| by[a] * self.factor[a]) }
    }

    /// For each node of [`Lattice::halved`], the sum of the values of the nodes that it represents.
    pub(super) fn pool(&self, image: &[f32]) -> Vec<f32> {
        let to = self.halved();
        let by: [usize; 3] = std::array::from_fn(|a| to.factor[a] / self.factor[a]);
        let [_, height, width] = self.shape;
        let mut out = vec![0.0; to.len()];
        for (row, values) in image.chunks_exact(width).enumerate() {
            let at = row / height / by[0] * to.shape[1] + row % height / by[1];
            let sums = &mut out[at * to.shape[2]..][..to.shape[2]];
            for (sum, values) in sums.iter_mut().zip(values.chunks(by[2])) {
                *sum += values.iter().sum::<f32>();
            }
        }
        out
    }

    /// A field of zero displacement.
    pub(super) fn zeros(&self) -> Field {
        std::array::from_fn(|_| vec![0.0; self.len()])
    }

    /// Positions of this lattice's nodes in another lattice.
    pub(super) fn steps_in(&self, other: &Self) -> [Steps; 3] {
        std::array::from_fn(|a| {
            Steps::new([self.shape[a], other.shape[a]], [self.factor[a], other.factor[a]])
        })
    }

    /// Interpolates an image on this lattice at the nodes of row `[z, y]` of another lattice.
    ///
    /// * `steps`: positions of the other lattice's nodes in this lattice
    /// * `line`: scratch buffer
    #[inline(always)]
    pub(super) fn row(
        &self,
        image: &[f32],
        steps: &[Steps; 3],
        [z, y]: [usize; 2],
        line: &mut Vec<f32>,
        out: &mut [f32],
    ) {
        let [depth, height, width] = self.shape;
        let (z0, fz) = (steps[0].low[z], steps[0].part[z]);
        let (y0, fy) = (steps[1].low[y], steps[1].part[y]);
        let (z1, y1) = ((z0 + 1).min(depth - 1), (y0 + 1).min(height - 1));
        let at = |z: usize, y: usize| &image[(z * height + y) * width..][..width];
        let (a, b, c, d) = (at(z0, y0), at(z0, y1), at(z1, y0), at(z1, y1));
        line.clear();
        line.extend((0..width).map(|x| {
            let near = a[x] + fy * (b[x] - a[x]);
            let far = c[x] + fy * (d[x] - c[x]);
            near + fz * (far - near)
        }));
        line.push(line[width - 1]);
        for (out, (&low, &part)) in out.iter_mut().zip(steps[2].low.iter().zip(&steps[2].part)) {
            *out = line[low] + part * (line[low + 1] - line[low]);
        }
    }

    /// A field on this lattice, interpolated at the nodes of another over the same block.
    pub(super) fn resample(&self, field: &Field, onto: &Self) -> Field {
        let steps = onto.steps_in(self);
        let [depth, height, width] = onto.shape;
        let mut line = Vec::new();
        std::array::from_fn(|c| {
            let mut out = vec![0.0; onto.len()];
            for (row, out) in out.chunks_exact_mut(width).enumerate() {
                self.row(&field[c], &steps, [row / height, row % height], &mut line, out);
            }
            debug_assert_eq!(out.len(), depth * height * width);
            out
        })
    }

    /// The field `p -> v(p) + u(p + v(p))`: `v` first, then `u`.
    pub(super) fn compose(&self, u: &Field, v: &Field, voxel: Point) -> Field {
        let spacing = self.spacing(voxel).map(|s| s as f32);
        let [_, height, width] = self.shape;
        let mut out = self.zeros();
        for i in 0..self.len() {
            let node = [i / (height * width), i / width % height, i % width];
            let at: [f32; 3] = std::array::from_fn(|a| node[a] as f32 + v[a][i] / spacing[a]);
            let (corners, weights) = self.around(at);
            for c in 0..3 {
                let sum: f32 = (0..8).map(|k| weights[k] * u[c][corners[k]]).sum();
                out[c][i] = v[c][i] + sum;
            }
        }
        out
    }

    /// The eight nodes around a position and their trilinear weights; positions outside are
    /// clamped.
    fn around(&self, at: [f32; 3]) -> ([usize; 8], [f32; 8]) {
        let mut low = [0; 3];
        let mut step = [0; 3];
        let mut part = [0.0; 3];
        let strides = [self.shape[1] * self.shape[2], self.shape[2], 1];
        for a in 0..3 {
            let last = self.shape[a] - 1;
            let p = at[a].clamp(0.0, last as f32);
            low[a] = (p as usize).min(last.saturating_sub(1));
            part[a] = p - low[a] as f32;
            step[a] = if last > 0 { strides[a] } else { 0 };
        }
        let first = low[0] * strides[0] + low[1] * strides[1] + low[2];
        let side = |k: usize, a: usize| k >> (2 - a) & 1;
        let corner = |k: usize| first + (0..3).map(|a| side(k, a) * step[a]).sum::<usize>();
        let weight = |k: usize| -> f32 {
            (0..3).map(|a| if side(k, a) == 1 { part[a] } else { 1.0 - part[a] }).product()
        };
        (std::array::from_fn(corner), std::array::from_fn(weight))
    }

    /// Smooths an image on the lattice by a Gaussian of standard deviation `sigma` micrometres;
    /// mirrored at the ends.
    pub(super) fn smooth(&self, image: &[f32], sigma: f64, voxel: Point) -> Vec<f32> {
        let spacing = self.spacing(voxel);
        let kernels = std::array::from_fn(|a| {
            let variance = (sigma / spacing[a]).powi(2);
            if self.shape[a] == 1 { Kernel::identity() } else { Kernel::discrete(variance) }
        });
        filter::smooth(image, self.shape, &kernels, [1; 3]).0
    }

    /// The least Jacobian determinant of `p -> p + u(p)`, with `u` trilinear between the nodes, and
    /// the number of nodes with a determinant that is not above 0.
    ///
    /// Determinants are computed at the corners of every cell, from differences along its edges.
    pub(super) fn least_jacobian(&self, u: &Field, voxel: Point) -> (f64, usize) {
        let (mut least, mut folded) = (f32::INFINITY, 0);
        for z in 0..self.shape[0] {
            let of_plane = self.plane_jacobian(u, voxel, z);
            least = least.min(of_plane.0);
            folded += of_plane.1;
        }
        (f64::from(least), folded)
    }

    /// Whether [`Lattice::least_jacobian`] is above `limit`, which is at least 0. Planes of nodes
    /// with small differences need no determinants: with `A` the derivative of `u`, the determinant
    /// of `1 + A` is at least `(1 - s)^3` if the absolute values of each row of `A` sum to at most
    /// `s < 1`.
    pub(super) fn is_unfolded(&self, u: &Field, voxel: Point, limit: f64) -> bool {
        (0..self.shape[0]).all(|z| {
            let small = |sum: &f64| *sum < 1.0 && (1.0 - sum).powi(3) > limit;
            self.greatest_rows(u, voxel, z).iter().all(small)
                || f64::from(self.plane_jacobian(u, voxel, z).0) > limit
        })
    }

    /// An upper limit for the sum of the absolute derivatives of each component at the nodes of a
    /// plane; NaN or infinite if a derivative is.
    fn greatest_rows(&self, u: &Field, voxel: Point, z: usize) -> [f64; 3] {
        let [depth, height, width] = self.shape;
        let spacing = self.spacing(voxel);
        let plane = height * width;
        let of_component = |image: &Vec<f32>| {
            let at = |z: usize| &image[z * plane..][..plane];
            let here = at(z);
            let below = if z > 0 { greatest_difference(at(z - 1), here) } else { 0.0 };
            let above = if z + 1 < depth { greatest_difference(here, at(z + 1)) } else { 0.0 };
            let y = greatest_difference(&here[..plane - width], &here[width..]);
            // the difference between the end of a row and the start of the next is left out
            let rows = here.chunks_exact(width);
            let x = rows.map(|row| greatest_difference(&row[..width - 1], &row[1..]));
            let x = x.fold(0.0, greatest);
            [greatest(below, above), y, x].iter().zip(spacing).map(|(v, s)| f64::from(*v) / s).sum()
        };
        u.each_ref().map(of_component)
    }

    /// [`Lattice::least_jacobian`] of one plane.
    fn plane_jacobian(&self, u: &Field, voxel: Point, z: usize) -> (f32, usize) {
        let spacing = self.spacing(voxel).map(|s| 1.0 / s as f32);
        let [_, height, width] = self.shape;
        let strides = [height * width, width, 1];
        let (mut least, mut folded) = (f32::INFINITY, 0);
        for i in z * strides[0]..(z + 1) * strides[0] {
            let node = [z, i / width % height, i % width];
            // differences to the next and from the previous node, axis by axis
            let sides: [[[f32; 3]; 2]; 3] = std::array::from_fn(|a| {
                let next = (node[a] + 1 < self.shape[a]).then(|| i + strides[a]);
                let previous = (node[a] > 0).then(|| i - strides[a]);
                let slope = |from: usize, to: usize| -> [f32; 3] {
                    std::array::from_fn(|c| (u[c][to] - u[c][from]) * spacing[a])
                };
                let forward = next.map(|next| slope(i, next));
                let backward = previous.map(|previous| slope(previous, i));
                let either = forward.or(backward).unwrap_or_default();
                [forward.unwrap_or(either), backward.unwrap_or(either)]
            });
            let mut worst = f32::INFINITY;
            for corner in 0..8 {
                let [a, b, c]: [[f32; 3]; 3] = std::array::from_fn(|a| sides[a][corner >> a & 1]);
                let found = determinant([
                    [1.0 + a[0], a[1], a[2]],
                    [b[0], 1.0 + b[1], b[2]],
                    [c[0], c[1], 1.0 + c[2]],
                ]);
                // NaN counts as a fold, too
                worst = worst.min(if found.is_nan() { f32::NEG_INFINITY } else { found });
            }
            folded += usize::from(!(worst > 0.0));
            least = least.min(worst);
        }
        (least, folded)
    }
}

/// The greatest absolute difference between corresponding values of `a` and `b`; NaN or infinite if
/// a difference is.
fn greatest_difference(a: &[f32], b: &[f32]) -> f32 {
    // the bit patterns of non-negative floats sort like the floats, and those of NaN come last
    let bits = a.iter().zip(b).map(|(a, b)| (b - a).abs().to_bits());
    f32::from_bits(bits.fold(0, u32::max))
}

fn greatest(a: f32, b: f32) -> f32 {
    f32::from_bits(a.abs().to_bits().max(b.abs().to_bits()))
}

fn determinant([a, b, c]: [[f32; 3]; 3]) -> f32 {
    a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
        + a[2] * (b[0] * c[1] - b[1] * c[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOXEL: Point = [2.0, 1.0, 1.0];

    /// A smooth field on a lattice, as a function of position in micrometres.
    fn field(lattice: &Lattice, f: impl Fn(Point) -> Point) -> Field {
        let mut out = lattice.zeros();
        for i in 0..lattice.len() {
            let [_, height, width] = lattice.shape;
            let node = [i / (height * width), i / width % height, i % width];
            let p: Point = std::array::from_fn(|a| {
                let f = lattice.factor[a] as f64;
                VOXEL[a] * (f * node[a] as f64 + 0.5 * (f - 1.0))
            });
            let u = f(p);
            for c in 0..3 {
                out[c][i] = u[c] as f32;
            }
        }
        out
    }

    fn linear(p: Point) -> Point {
        [0.1 * p[1] - 0.05 * p[0], 0.02 * p[2] + 1.0, -0.03 * p[0]]
    }

    #[test]
    fn a_linear_field_is_the_same_on_every_lattice() {
        let coarse = Lattice::over([16, 18, 20], [2, 4, 4]);
        let fine = Lattice::over([16, 18, 20], [1, 2, 2]);
        let found = coarse.resample(&field(&coarse, linear), &fine);
        let wanted = field(&fine, linear);
        let inner = |i: usize| {
            let [_, height, width] = fine.shape;
            let node = [i / (height * width), i / width % height, i % width];
            (0..3).all(|a| node[a] >= 1 && node[a] + 3 < fine.shape[a])
        };
        for i in (0..fine.len()).filter(|&i| inner(i)) {
            for c in 0..3 {
                assert!((found[c][i] - wanted[c][i]).abs() < 1e-5, "node {i}");
            }
        }
    }

    #[test]
    fn pooled_values_are_the_sums_over_the_nodes_that_each_represents() {
        for shape in [[5, 6, 7], [1, 4, 9], [3, 1, 1]] {
            let lattice = Lattice { shape, factor: [1, 2, 2] };
            let image: Vec<f32> = (0..lattice.len()).map(|i| (i * i % 17) as f32).collect();
            let (halved, pooled) = (lattice.halved(), lattice.pool(&image));
            let by: [usize; 3] = std::array::from_fn(|a| halved.factor[a] / lattice.factor[a]);
            let mut wanted = vec![0.0; halved.len()];
            for (i, v) in image.iter().enumerate() {
                let node = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
                let to: [usize; 3] = std::array::from_fn(|a| node[a] / by[a]);
                wanted[(to[0] * halved.shape[1] + to[1]) * halved.shape[2] + to[2]] += v;
            }
            assert_eq!(pooled, wanted);
        }
    }

    #[test]
    fn the_jacobian_of_a_linear_field_is_its_determinant() {
        let lattice = Lattice::over([8, 9, 10], [1, 2, 2]);
        let (least, folded) = lattice.least_jacobian(&field(&lattice, linear), VOXEL);
        let wanted = 0.95 * (1.0 - 0.0) - 0.1 * (0.0 * 1.0 - 0.02 * -0.03);
        assert!((least - wanted).abs() < 1e-5, "{least}");
        assert_eq!(folded, 0);
        let mirrored = field(&lattice, |p| [0.0, 0.0, -2.0 * p[2]]);
        let (least, folded) = lattice.least_jacobian(&mirrored, VOXEL);
        assert!((least + 1.0).abs() < 1e-5);
        assert_eq!(folded, lattice.len());
    }

    proptest::proptest! {
        #[test]
        fn a_field_is_unfolded_if_its_least_determinant_is_above_the_limit(
            shape in [1_usize..4, 1_usize..5, 1_usize..6],
            size in 0.0..1.5f64,
            limit in 0.0..0.9f64,
            unknown in proptest::option::weighted(0.2, 0_usize..60),
            seed in proptest::prelude::any::<u64>(),
        ) {
            let lattice = Lattice { shape, factor: [1, 2, 2] };
            let noise = |c: u64, i: usize| size * (crate::metric::unit(seed ^ c, i as u64) - 0.5);
            let mut u: Field =
                [0, 1, 2].map(|c| (0..lattice.len()).map(|i| noise(c, i) as f32).collect());
            if let Some(v) = unknown.and_then(|i| u[i % 3].get_mut(i / 3)) {
                *v = f32::NAN;
            }
            let (least, folded) = lattice.least_jacobian(&u, VOXEL);
            proptest::prop_assert_eq!(lattice.is_unfolded(&u, VOXEL, limit), least > limit);
            // a single node has no differences
            if u.iter().flatten().any(|v| v.is_nan()) && lattice.len() > 1 {
                proptest::prop_assert!(folded > 0 && least == f64::NEG_INFINITY);
            }
        }
    }

    #[test]
    fn shifts_add_up_and_a_plane_stays_a_plane() {
        for shape in [[6, 7, 8], [1, 7, 8]] {
            let lattice = Lattice::over(shape, [1, 1, 1]);
            let (u, v) =
                (field(&lattice, |_| [0.0, 0.5, 1.0]), field(&lattice, |_| [0.0, -0.25, 0.5]));
            let sum = lattice.compose(&u, &v, VOXEL);
            for i in 0..lattice.len() {
                assert_eq!([sum[0][i], sum[1][i], sum[2][i]], [0.0, 0.25, 1.5]);
            }
        }
    }

    #[test]
    fn composing_follows_the_second_field_to_where_the_first_leads() {
        let lattice = Lattice::over([10, 10, 10], [1, 1, 1]);
        let u = field(&lattice, linear);
        let v = field(&lattice, |_| [1.0, 0.5, -0.25]);
        let sum = lattice.compose(&u, &v, VOXEL);
        let i = (5 * 10 + 5) * 10 + 5;
        let wanted = linear([10.0 + 1.0, 5.5, 4.75]);
        for c in 0..3 {
            let moved = [1.0, 0.5, -0.25][c] + wanted[c];
            assert!((f64::from(sum[c][i]) - moved).abs() < 1e-5);
        }
    }
}
