use super::Kernel;
use super::lines::{self, Bundle, LANES, mirror, multiply_add, vectorised};
use crate::geom::Box3;

/// Planes whose z-filtered form is held at a time.
const SLAB: usize = 32;

/// The kernel `plain` and its second derivative `curved`, of equal length.
#[derive(Clone, Copy)]
struct Pair<'a> {
    plain: &'a [f32],
    curved: &'a [f32],
}

vectorised! {
    /// One scratch through both kernels: `[plain, curved]`.
    fn split(scratch: &[f32], pair: Pair<'_>, out: [&mut [f32]; 2]) => split_body
}
vectorised! {
    /// Two scratches to `[plain * a, curved * a + plain * b]`.
    fn cross(a: &[f32], b: &[f32], pair: Pair<'_>, out: [&mut [f32]; 2]) => cross_body
}
vectorised! {
    /// Two scratches, padded lines along x, to `curved * a + plain * b`.
    fn join(a: &[f32], b: &[f32], pair: Pair<'_>, out: &mut [f32]) => join_body
}

/// Entries summed at a time in [`cross_body`]: its three sums and two inputs fill the registers.
const HALF: usize = LANES / 2;

#[inline(always)]
fn split_body<const FUSED: bool>(scratch: &[f32], pair: Pair<'_>, out: [&mut [f32]; 2]) {
    let Pair { plain, curved } = pair;
    let radius = plain.len() - 1;
    let [out_plain, out_curved] = out;
    let rows = out_plain.chunks_exact_mut(LANES).zip(out_curved.chunks_exact_mut(LANES));
    for (j, (row_plain, row_curved)) in rows.enumerate() {
        let centre = (radius + j) * LANES;
        let mut sums = [[0.0_f32; LANES]; 2];
        for lane in 0..LANES {
            sums[0][lane] = plain[0] * scratch[centre + lane];
            sums[1][lane] = curved[0] * scratch[centre + lane];
        }
        for k in 1..=radius {
            let below = &scratch[centre - k * LANES..][..LANES];
            let above = &scratch[centre + k * LANES..][..LANES];
            for lane in 0..LANES {
                let both = below[lane] + above[lane];
                sums[0][lane] = multiply_add::<FUSED>(plain[k], both, sums[0][lane]);
                sums[1][lane] = multiply_add::<FUSED>(curved[k], both, sums[1][lane]);
            }
        }
        row_plain.copy_from_slice(&sums[0]);
        row_curved.copy_from_slice(&sums[1]);
    }
}

#[inline(always)]
fn cross_body<const FUSED: bool>(a: &[f32], b: &[f32], pair: Pair<'_>, out: [&mut [f32]; 2]) {
    let Pair { plain, curved } = pair;
    let radius = plain.len() - 1;
    let [out_plain, out_mixed] = out;
    let rows = out_plain.chunks_exact_mut(HALF).zip(out_mixed.chunks_exact_mut(HALF));
    for (j, (row_plain, row_mixed)) in rows.enumerate() {
        let centre = radius * LANES + j * HALF;
        let mut sums = [[0.0_f32; HALF]; 3];
        for lane in 0..HALF {
            sums[0][lane] = plain[0] * a[centre + lane];
            sums[1][lane] = curved[0] * a[centre + lane];
            sums[2][lane] = plain[0] * b[centre + lane];
        }
        for k in 1..=radius {
            let (low, high) = (centre - k * LANES, centre + k * LANES);
            let (a_below, a_above) = (&a[low..][..HALF], &a[high..][..HALF]);
            let (b_below, b_above) = (&b[low..][..HALF], &b[high..][..HALF]);
            for lane in 0..HALF {
                let a_both = a_below[lane] + a_above[lane];
                let b_both = b_below[lane] + b_above[lane];
                sums[0][lane] = multiply_add::<FUSED>(plain[k], a_both, sums[0][lane]);
                sums[1][lane] = multiply_add::<FUSED>(curved[k], a_both, sums[1][lane]);
                sums[2][lane] = multiply_add::<FUSED>(plain[k], b_both, sums[2][lane]);
            }
        }
        row_plain.copy_from_slice(&sums[0]);
        for lane in 0..HALF {
            row_mixed[lane] = sums[1][lane] + sums[2][lane];
        }
    }
}

#[inline(always)]
fn join_body<const FUSED: bool>(a: &[f32], b: &[f32], pair: Pair<'_>, out: &mut [f32]) {
    let Pair { plain, curved } = pair;
    let radius = plain.len() - 1;
    for (j, row) in out.chunks_exact_mut(LANES).enumerate() {
        let centre = radius + j * LANES;
        let mut sums = [[0.0_f32; LANES]; 2];
        for lane in 0..LANES {
            sums[0][lane] = curved[0] * a[centre + lane];
            sums[1][lane] = plain[0] * b[centre + lane];
        }
        for k in 1..=radius {
            let (a_below, a_above) = (&a[centre - k..][..LANES], &a[centre + k..][..LANES]);
            let (b_below, b_above) = (&b[centre - k..][..LANES], &b[centre + k..][..LANES]);
            for lane in 0..LANES {
                let a_both = a_below[lane] + a_above[lane];
                let b_both = b_below[lane] + b_above[lane];
                sums[0][lane] = multiply_add::<FUSED>(curved[k], a_both, sums[0][lane]);
                sums[1][lane] = multiply_add::<FUSED>(plain[k], b_both, sums[1][lane]);
            }
        }
        for lane in 0..LANES {
            row[lane] = sums[0][lane] + sums[1][lane];
        }
    }
}

/// What one scale needs: kernels, the part wanted, and the part it is made from.
struct Scale<'a> {
    image: &'a [f32],
    shape: [usize; 3],
    pair: Pair<'a>,
    target: Box3,
    /// `target` and a kernel's radius around it, within the image.
    reach: Box3,
}

/// The Laplacian of the image smoothed by a Gaussian of `sigma` voxels, as SciPy computes it from
/// sampled kernels, at the voxels of `target`.
///
/// * `image`: `(z, y, x)` of `shape`
/// * `target`: a part of the image
/// * `out`: `(z, y, x)` of `target`'s shape, per square voxel
///
/// Border: mirrored about the voxel edge. Numbers: `f32`, weights from the centre outwards.
/// The three products share their passes, `x (y z'' + y'' z) + x'' y z`: five sums of mirrored
/// neighbours and seven products per tap and voxel where three separate filterings take nine. Checked by: `oracle::laplacian_of_gaussian`.
pub fn laplacian_of_gaussian(
    image: &[f32],
    shape: [usize; 3],
    sigma: f64,
    target: &Box3,
    out: &mut Vec<f32>,
) {
    let (plain, curved) = (Kernel::sampled(sigma), Kernel::sampled_second_derivative(sigma));
    let reach = target.grow([plain.radius() as i64; 3]).intersect(&Box3::of_shape(shape));
    let pair = Pair { plain: plain.weights(), curved: curved.weights() };
    let scale = Scale { image, shape, pair, target: *target, reach };
    out.clear();
    out.reserve(target.len());
    let mut first = target.min[0];
    while first < target.max[0] {
        let last = (first + SLAB as i64).min(target.max[0]);
        scale.slab(first, last, out);
        first = last;
    }
}

impl Scale<'_> {
    fn radius(&self) -> usize {
        self.pair.plain.len() - 1
    }

    /// Appends the planes `first..last` to `out`.
    fn slab(&self, first: i64, last: i64, out: &mut Vec<f32>) {
        let planes = (last - first) as usize;
        let [_, height, width] = self.reach.shape();
        let mut along_z = [(); 2].map(|()| vec![0.0; planes * height * width]);
        self.filter_z(first, last, &mut along_z);
        let [plain, curved] = &along_z;
        let size = height * width;
        for plane in 0..planes {
            let part = plane * size..(plane + 1) * size;
            self.filter_plane(&plain[part.clone()], &curved[part], out);
        }
    }

    fn filter_z(&self, first: i64, last: i64, [plain, curved]: &mut [Vec<f32>; 2]) {
        let [_, height, width] = self.reach.shape();
        let planes = (last - first) as usize;
        let radius = self.radius() as i64;
        let mut scratch = Vec::new();
        let mut rows = [(); 2].map(|()| vec![0.0; planes * LANES]);
        let stride = self.shape[1] * self.shape[2];
        for y in 0..height {
            let line =
                (self.reach.min[1] as usize + y) * self.shape[2] + self.reach.min[2] as usize;
            for start in (0..width).step_by(LANES) {
                let lanes = LANES.min(width - start);
                let source = Bundle { first: line + start, stride, width: lanes };
                let (from, to) = (first - radius, last + radius);
                lines::gather(self.image, source, self.shape[0], from, to, &mut scratch);
                let [row_plain, row_curved] = &mut rows;
                split(&scratch, self.pair, [row_plain, row_curved]);
                let target =
                    Bundle { first: y * width + start, stride: height * width, width: lanes };
                lines::scatter(row_plain, target, plain);
                lines::scatter(row_curved, target, curved);
            }
        }
    }

    /// From the z-filtered forms of one plane to the Laplacian's rows.
    ///
    /// With `a` plain and `b` curved along z: `x y b + (x y'' + x'' y) a`.
    fn filter_plane(&self, plain: &[f32], curved: &[f32], out: &mut Vec<f32>) {
        let [_, height, width] = self.reach.shape();
        let [_, rows, columns] = self.target.shape();
        let radius = self.radius() as i64;
        let (from, to) = (self.target.min[1] - radius, self.target.max[1] + radius);
        let mut scratch = [(); 2].map(|()| Vec::with_capacity((to - from) as usize * LANES));
        let mut bundle = [(); 2].map(|()| vec![0.0; rows * LANES]);
        let mut along_y = [(); 2].map(|()| vec![0.0; rows * width]);
        for start in (0..width).step_by(LANES) {
            let lanes = LANES.min(width - start);
            for (scratch, image) in scratch.iter_mut().zip([plain, curved]) {
                scratch.clear();
                for y in from..to {
                    let y = mirror(y, self.shape[1]) - self.reach.min[1] as usize;
                    let at = (y.min(height - 1)) * width + start;
                    scratch.extend_from_slice(&image[at..at + lanes]);
                    scratch.resize(scratch.len().next_multiple_of(LANES), 0.0);
                }
            }
            let [plain, mixed] = &mut bundle;
            cross(&scratch[0], &scratch[1], self.pair, [plain, mixed]);
            let target = Bundle { first: start, stride: width, width: lanes };
            lines::scatter(plain, target, &mut along_y[0]);
            lines::scatter(mixed, target, &mut along_y[1]);
        }
        let mut row = vec![0.0; columns.next_multiple_of(LANES)];
        for y in 0..rows {
            let part = y * width..(y + 1) * width;
            for (scratch, image) in scratch.iter_mut().zip(&along_y) {
                self.pad_row(&image[part.clone()], scratch);
            }
            join(&scratch[0], &scratch[1], self.pair, &mut row);
            out.extend_from_slice(&row[..columns]);
        }
    }

    /// A line of `reach` padded so that its entry `radius` is the first voxel of `target`.
    fn pad_row(&self, line: &[f32], out: &mut Vec<f32>) {
        let radius = self.radius() as i64;
        let columns = self.target.shape()[2];
        let (from, to) = (self.target.min[2] - radius, self.target.max[2] + radius);
        let inside = from.max(self.reach.min[2])..to.min(self.reach.max[2]);
        let local = |x: i64| (x - self.reach.min[2]) as usize;
        let mirrored = |x: i64| line[local(mirror(x, self.shape[2]) as i64)];
        out.clear();
        out.extend((from..inside.start).map(mirrored));
        out.extend_from_slice(&line[local(inside.start)..local(inside.end)]);
        out.extend((inside.end..to).map(mirrored));
        out.resize(columns.next_multiple_of(LANES) + 2 * radius as usize, 0.0);
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
            laplacian_of_gaussian(&image, shape, sigma, &target, &mut fast);
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
