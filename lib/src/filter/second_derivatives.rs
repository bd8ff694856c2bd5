use super::Kernel;
use super::lines::{self, Bundle, LANES, Scratch, mirror, multiply_add, row, rows, vectorised};
use crate::geom::Box3;

/// Number of planes filtered along z that are in memory at a time.
const SLAB: usize = 64;

/// The kernel `plain` and its second derivative `curved`, of equal length.
#[derive(Clone, Copy)]
struct KernelPair<'a> {
    plain: &'a [f32],
    curved: &'a [f32],
}

vectorised! {
    /// One bundle convolved with both kernels: `[plain, curved]`.
    fn split(scratch: &[f32], pair: KernelPair<'_>, out: [&mut [f32]; 2]) => split_body
}
vectorised! {
    /// Two bundles combined to `[plain * a, curved * a + plain * b]`.
    fn cross(scratch: [&[f32]; 2], pair: KernelPair<'_>, out: [&mut [f32]; 2]) => cross_body
}
vectorised! {
    /// Two padded lines along x combined to `curved * a + plain * b`.
    fn join(scratch: [&[f32]; 2], pair: KernelPair<'_>, out: &mut [f32]) => join_body
}

// Each body processes two taps at a time, so that sums are stored half as often.

#[inline(always)]
fn split_body<const FUSED: bool>(
    scratch: &[f32],
    pair: KernelPair<'_>,
    [plain, curved]: [&mut [f32]; 2],
) {
    let radius = pair.plain.len() - 1;
    for (j, (p, c)) in rows(plain).zip(rows(curved)).enumerate() {
        let centre = (radius + j) * LANES;
        let middle = row(scratch, centre);
        for i in 0..LANES {
            p[i] = pair.plain[0] * middle[i];
            c[i] = pair.curved[0] * middle[i];
        }
        for k in (1..=radius).step_by(2) {
            let [near, far] = pair.weights(k);
            let (inner, outer) = (k * LANES, radius.min(k + 1) * LANES);
            let (s1, s2) = (row(scratch, centre - inner), row(scratch, centre + inner));
            let (s3, s4) = (row(scratch, centre - outer), row(scratch, centre + outer));
            for i in 0..LANES {
                let (inner, outer) = (s1[i] + s2[i], s3[i] + s4[i]);
                p[i] = two::<FUSED>(near[0], inner, far[0], outer, p[i]);
                c[i] = two::<FUSED>(near[1], inner, far[1], outer, c[i]);
            }
        }
    }
}

#[inline(always)]
fn cross_body<const FUSED: bool>(
    [a, b]: [&[f32]; 2],
    pair: KernelPair<'_>,
    [plain, mixed]: [&mut [f32]; 2],
) {
    let radius = pair.plain.len() - 1;
    for (j, (p, m)) in rows(plain).zip(rows(mixed)).enumerate() {
        let centre = (radius + j) * LANES;
        let (a_middle, b_middle) = (row(a, centre), row(b, centre));
        for i in 0..LANES {
            p[i] = pair.plain[0] * a_middle[i];
            m[i] = pair.curved[0] * a_middle[i] + pair.plain[0] * b_middle[i];
        }
        for k in (1..=radius).step_by(2) {
            let [near, far] = pair.weights(k);
            let (inner, outer) = (k * LANES, radius.min(k + 1) * LANES);
            let (a1, a2) = (row(a, centre - inner), row(a, centre + inner));
            let (a3, a4) = (row(a, centre - outer), row(a, centre + outer));
            let (b1, b2) = (row(b, centre - inner), row(b, centre + inner));
            let (b3, b4) = (row(b, centre - outer), row(b, centre + outer));
            for i in 0..LANES {
                let (a_inner, a_outer) = (a1[i] + a2[i], a3[i] + a4[i]);
                let (b_inner, b_outer) = (b1[i] + b2[i], b3[i] + b4[i]);
                p[i] = two::<FUSED>(near[0], a_inner, far[0], a_outer, p[i]);
                let sum = two::<FUSED>(near[1], a_inner, far[1], a_outer, m[i]);
                m[i] = two::<FUSED>(near[0], b_inner, far[0], b_outer, sum);
            }
        }
    }
}

#[inline(always)]
fn join_body<const FUSED: bool>([a, b]: [&[f32]; 2], pair: KernelPair<'_>, out: &mut [f32]) {
    let radius = pair.plain.len() - 1;
    for (j, sums) in rows(out).enumerate() {
        let centre = radius + j * LANES;
        let (a_middle, b_middle) = (row(a, centre), row(b, centre));
        for i in 0..LANES {
            sums[i] = pair.curved[0] * a_middle[i] + pair.plain[0] * b_middle[i];
        }
        for k in (1..=radius).step_by(2) {
            let [near, far] = pair.weights(k);
            let next = radius.min(k + 1);
            let (a1, a2) = (row(a, centre - k), row(a, centre + k));
            let (a3, a4) = (row(a, centre - next), row(a, centre + next));
            let (b1, b2) = (row(b, centre - k), row(b, centre + k));
            let (b3, b4) = (row(b, centre - next), row(b, centre + next));
            for i in 0..LANES {
                let (a_inner, a_outer) = (a1[i] + a2[i], a3[i] + a4[i]);
                let (b_inner, b_outer) = (b1[i] + b2[i], b3[i] + b4[i]);
                let sum = two::<FUSED>(near[1], a_inner, far[1], a_outer, sums[i]);
                sums[i] = two::<FUSED>(near[0], b_inner, far[0], b_outer, sum);
            }
        }
    }
}

/// `sum + v * a + w * b`
#[inline(always)]
fn two<const FUSED: bool>(v: f32, a: f32, w: f32, b: f32, sum: f32) -> f32 {
    multiply_add::<FUSED>(w, b, multiply_add::<FUSED>(v, a, sum))
}

impl KernelPair<'_> {
    /// `[plain, curved]` at offsets `k` and `k + 1`, 0 beyond the kernels.
    #[inline(always)]
    fn weights(&self, k: usize) -> [[f32; 2]; 2] {
        let far = match (self.plain.get(k + 1), self.curved.get(k + 1)) {
            (Some(&plain), Some(&curved)) => [plain, curved],
            _ => [0.0; 2],
        };
        [[self.plain[k], self.curved[k]], far]
    }
}

/// The Laplacian of an image smoothed by a Gaussian, as SciPy computes it from sampled kernels.
///
/// Buffers are reused from scale to scale.
#[derive(Default)]
pub struct LaplacianOfGaussian {
    /// Planes filtered along z, plain and curved, indexed by plane, tile of [`LANES`] columns, y,
    /// lane.
    along_z: [Scratch; 2],
    /// One plane filtered along y, plain and mixed, indexed by tile, y, lane.
    along_y: [Scratch; 2],
    /// A bundle along z and its filtered forms.
    column: Scratch,
    filtered: [Scratch; 2],
    /// Two lines along x and the line that combines them.
    lines: [Scratch; 2],
    joined: Scratch,
}

/// One image, and the kernels of one scale.
struct Scale<'a> {
    image: &'a [f32],
    shape: [usize; 3],
    pair: KernelPair<'a>,
    radius: i64,
    target: Box3,
    /// `target` grown by a kernel's radius, within the image.
    reach: Box3,
    /// Number of tiles of [`LANES`] columns across `reach`.
    tiles: usize,
    /// Rows of a tile along y: those of `target`, and a kernel's radius on both sides, mirrored
    /// where needed.
    tall: usize,
}

impl LaplacianOfGaussian {
    /// Computes the Laplacian of the Gaussian at the voxels of `target`.
    ///
    /// * `image`: `(z, y, x)` of `shape`
    /// * `sigma`: standard deviation of the Gaussian, voxels
    /// * `target`: a part of the image
    /// * `out`: `(z, y, x)` of `target`'s shape, per square voxel
    ///
    /// Border: mirrored about the voxel edge. Numbers: `f32`, summed from the centre of the kernels
    /// outwards.
    /// The three terms of the Laplacian share their passes, `x (y z'' + y'' z) + x'' y z`, where a
    /// letter stands for the Gaussian along this axis and `''` for its second derivative. This
    /// takes five sums of mirrored neighbours and seven products per tap and voxel; three separate
    /// filterings take nine of each.
    /// Checked by: `oracle::laplacian_of_gaussian`.
    pub fn filter(
        &mut self,
        image: &[f32],
        shape: [usize; 3],
        sigma: f64,
        target: &Box3,
        out: &mut Vec<f32>,
    ) {
        let (plain, curved) = (Kernel::sampled(sigma), Kernel::sampled_second_derivative(sigma));
        let radius = plain.radius() as i64;
        let reach = target.grow([radius; 3]).intersect(&Box3::of_shape(shape));
        let scale = Scale {
            image,
            shape,
            pair: KernelPair { plain: plain.weights(), curved: curved.weights() },
            radius,
            target: *target,
            reach,
            tiles: reach.shape()[2].div_ceil(LANES),
            tall: target.shape()[1] + 2 * radius as usize,
        };
        out.clear();
        out.reserve(target.len());
        let mut first = target.min[0];
        while first < target.max[0] {
            let last = (first + SLAB as i64).min(target.max[0]);
            self.filter_z(&scale, first, last);
            for plane in 0..(last - first) as usize {
                self.filter_y(&scale, plane);
                self.filter_x(&scale, out);
            }
            first = last;
        }
    }

    /// Fills `along_z` with the planes `first..last`.
    fn filter_z(&mut self, scale: &Scale<'_>, first: i64, last: i64) {
        let [_, height, width] = scale.reach.shape();
        let [_, ny, nx] = scale.shape;
        let planes = (last - first) as usize;
        let (from, to) = (first - scale.radius, last + scale.radius);
        let size = scale.tiles * scale.tall * LANES;
        let ([plain, curved], [plain_out, curved_out]) = (&mut self.filtered, &mut self.along_z);
        for scratch in [&mut *plain, &mut *curved] {
            scratch.resize(planes * LANES);
        }
        for scratch in [&mut *plain_out, &mut *curved_out] {
            scratch.resize(planes * size);
        }
        let top = (scale.reach.min[1] - scale.target.min[1] + scale.radius) as usize;
        for y in 0..height {
            let line = (scale.reach.min[1] as usize + y) * nx + scale.reach.min[2] as usize;
            for tile in 0..scale.tiles {
                let start = tile * LANES;
                let width = LANES.min(width - start);
                let source = Bundle { first: line + start, stride: ny * nx, width };
                lines::gather(scale.image, source, scale.shape[0], from, to, &mut self.column);
                split(&self.column, scale.pair, [plain, curved]);
                let first = (tile * scale.tall + top + y) * LANES;
                let target = Bundle { first, stride: size, width: LANES };
                lines::scatter(plain, target, plain_out);
                lines::scatter(curved, target, curved_out);
            }
        }
    }

    /// Fills `along_y` from a plane of `along_z`.
    fn filter_y(&mut self, scale: &Scale<'_>, plane: usize) {
        let height = scale.target.shape()[1];
        let size = scale.tall * LANES;
        let [a, b] = &mut self.along_z;
        let [plain, mixed] = &mut self.along_y;
        for scratch in [&mut *plain, &mut *mixed] {
            scratch.resize(scale.tiles * height * LANES);
        }
        for tile in 0..scale.tiles {
            let column =
                (plane * scale.tiles + tile) * size..(plane * scale.tiles + tile + 1) * size;
            let (a, b) = (&mut a[column.clone()], &mut b[column]);
            for column in [&mut *a, &mut *b] {
                scale.mirror_rows(column);
            }
            let part = tile * height * LANES..(tile + 1) * height * LANES;
            let out = [&mut plain[part.clone()], &mut mixed[part]];
            cross([a, b], scale.pair, out);
        }
    }

    /// Filters the plane in `along_y` along x and appends its rows to `out`.
    fn filter_x(&mut self, scale: &Scale<'_>, out: &mut Vec<f32>) {
        let [_, height, columns] = scale.target.shape();
        self.joined.resize(columns.next_multiple_of(LANES));
        for y in 0..height {
            for (line, tiles) in self.lines.iter_mut().zip(&self.along_y) {
                scale.assemble(tiles, y, line);
            }
            let [a, b] = &self.lines;
            join([a, b], scale.pair, &mut self.joined);
            out.extend_from_slice(&self.joined[..columns]);
        }
    }
}

impl Scale<'_> {
    /// Fills the rows of a tile that lie beyond the image by mirroring.
    fn mirror_rows(&self, column: &mut [f32]) {
        let first = self.target.min[1] - self.radius;
        let last = self.target.max[1] + self.radius;
        for y in (first..self.reach.min[1]).chain(self.reach.max[1]..last) {
            let inside = (mirror(y, self.shape[1]) as i64 - first) as usize * LANES;
            column.copy_within(inside..inside + LANES, (y - first) as usize * LANES);
        }
    }

    /// Joins row `y` of the tiles to a line that extends a radius beyond `target`, mirrored beyond
    /// the image. It is followed by [`LANES`] zeros, which are read but do not affect the result.
    fn assemble(&self, tiles: &[f32], y: usize, line: &mut Scratch) {
        let (first, last) = (self.target.min[2] - self.radius, self.target.max[2] + self.radius);
        let height = self.target.shape()[1];
        let [start, end] = [self.reach.min[2], self.reach.max[2]].map(|x| (x - first) as usize);
        line.resize((last - first) as usize + LANES);
        for (tile, part) in line[start..end].chunks_mut(LANES).enumerate() {
            part.copy_from_slice(&tiles[(tile * height + y) * LANES..][..part.len()]);
        }
        for x in (first..self.reach.min[2]).chain(self.reach.max[2]..last) {
            line[(x - first) as usize] = line[(mirror(x, self.shape[2]) as i64 - first) as usize];
        }
        line[(last - first) as usize..].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::oracle;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_laplacian_equals_three_filterings_added(
            shape in [1_usize..12, 1_usize..20, 1_usize..50],
            sigma in 0.6..5.0,
            low in [0.0..1.0, 0.0..1.0, 0.0..1.0],
            high in [0.0..1.0, 0.0..1.0, 0.0..1.0],
            seed in any::<u32>(),
        ) {
            let min: [i64; 3] = std::array::from_fn(|a| (low[a] * shape[a] as f64) as i64);
            let max = std::array::from_fn(|a| {
                min[a] + 1 + (high[a] * (shape[a] as i64 - min[a] - 1) as f64) as i64
            });
            let target = Box3::new(min, max);
            let image = oracle::noise(shape, seed);
            let slow = oracle::laplacian_of_gaussian(&image, shape, sigma);
            let mut fast = Vec::new();
            LaplacianOfGaussian::default().filter(&image, shape, sigma, &target, &mut fast);
            let part = target.shape();
            for z in 0..part[0] {
                for y in 0..part[1] {
                    for x in 0..part[2] {
                        let [oz, oy, ox] = min.map(|v| v as usize);
                        let at = ((z + oz) * shape[1] + y + oy) * shape[2] + x + ox;
                        let found = f64::from(fast[(z * part[1] + y) * part[2] + x]);
                        prop_assert!((found - slow[at]).abs() < 1e-5, "{} {}", found, slow[at]);
                    }
                }
            }
        }
    }
}
