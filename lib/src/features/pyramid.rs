//! The usual detector on one block: a Gaussian pyramid in micrometres.

use super::Detector;
use super::block::{Block, Found};
use super::maxima::{Stack, Ties};
use super::scheme::{Octave, Pyramid};
use crate::filter::lines::{mirror, multiply_add, vectorised};
use crate::filter::smooth;
use crate::geom::Box3;

/// Second difference of fourth order at offsets 0, 1, 2: its error at the smallest sigma allowed
/// is 1 %, against 10 % of the usual three points, so that octaves agree where they meet.
const SECOND_DIFFERENCE: [f32; 3] = [-2.5, 4.0 / 3.0, -1.0 / 12.0];

/// An image on a decimated grid.
struct Level {
    voxels: Vec<f32>,
    shape: [usize; 3],
}

/// Maxima of the scale-normalised response, refined in position and scale.
pub(super) fn maxima(block: &Block<'_>, image: Vec<f32>, pyramid: &Pyramid) -> Vec<Found> {
    let mut found = Vec::new();
    let mut step = [1; 3];
    let mut base = Level { voxels: image, shape: block.bounds.shape() };
    for (i, octave) in pyramid.octaves.iter().enumerate() {
        // later octaves begin with a level of the one before, which is only thinned
        let sigma = pyramid.sigmas[octave.levels.start];
        let from = if i == 0 { 0.0 } else { sigma };
        let thin = std::array::from_fn(|a| octave.step[a] / step[a]);
        base = base.smooth(pyramid, step, [from, sigma], thin);
        step = octave.step;
        let next = pyramid.octaves.get(i + 1).map(|next| next.levels.start);
        match (Search { block, pyramid, octave }).run(base, next, &mut found) {
            Some(level) => base = level,
            None => break,
        }
    }
    found
}

/// One octave of one block.
struct Search<'a> {
    block: &'a Block<'a>,
    pyramid: &'a Pyramid,
    octave: &'a Octave,
}

impl Search<'_> {
    /// Appends the octave's maxima to `found`; returns its level `next`, the base of the next one.
    fn run(&self, base: Level, next: Option<usize>, found: &mut Vec<Found>) -> Option<Level> {
        let Self { pyramid, octave, .. } = self;
        let shape = base.shape;
        let mut kept = None;
        let mut level = Some(base);
        // responses at the scale before last, the last, and the one just computed
        let mut held: [Option<Vec<f32>>; 3] = [None, None, None];
        let responses = octave.levels.start..octave.levels.end.min(pyramid.scales.len());
        // one past the end: the last has none above it
        for index in responses.start..=responses.end {
            held.rotate_left(1);
            held[2] = None;
            if let Some(sharp) = level.take_if(|_| index < responses.end) {
                let smoother = (index + 1 < octave.levels.end).then(|| {
                    let sigmas = [pyramid.sigmas[index], pyramid.sigmas[index + 1]];
                    sharp.smooth(pyramid, octave.step, sigmas, [1; 3])
                });
                held[2] = Some(respond(&sharp, smoother.as_ref(), pyramid, octave, index));
                level = smoother;
                if next == Some(index) {
                    kept = Some(sharp);
                }
            }
            if index > responses.start && octave.wanted.contains(&(index - 1)) {
                self.collect(index - 1, shape, &held, found);
            }
        }
        kept
    }

    /// Appends the maxima at scale `index`, the middle one of those `held`.
    fn collect(
        &self,
        index: usize,
        shape: [usize; 3],
        held: &[Option<Vec<f32>>; 3],
        found: &mut Vec<Found>,
    ) {
        let Self { block, pyramid, octave } = self;
        let [below, Some(here), above] = held.each_ref().map(Option::as_deref) else { return };
        let stack = Stack { shape, below, here, above };
        let step = octave.step.map(|step| step as i64);
        let first: [i64; 3] = std::array::from_fn(|a| block.bounds.min[a] / step[a]);
        // a grid voxel belongs to the block in whose core the voxel at its place lies
        let inner = [block.core.min, block.core.max]
            .map(|corner| std::array::from_fn(|a| (corner[a] + step[a] - 1) / step[a] - first[a]));
        for at in stack.maxima(&Box3::new(inner[0], inner[1]), Ties::First) {
            let top = stack.refine(at);
            let scale = index as f64 + stack.refine_scale(at);
            found.push(Found {
                position: std::array::from_fn(|a| {
                    ((first[a] + top.voxel[a] as i64) as f64 + top.offset[a]) * step[a] as f64
                }),
                sigma: pyramid.scales[0] * pyramid.ratio.powf(scale),
                response: top.height,
            });
        }
    }
}

/// The response at level `index`, positive for bright blobs, in the image's intensities.
fn respond(
    level: &Level,
    smoother: Option<&Level>,
    pyramid: &Pyramid,
    octave: &Octave,
    index: usize,
) -> Vec<f32> {
    match pyramid.detector {
        Detector::Log => {
            let sigma = pyramid.sigmas[index];
            let scales = std::array::from_fn(|a| {
                let voxel = pyramid.spacing[a] * octave.step[a] as f64;
                -(sigma * sigma / (voxel * voxel)) as f32
            });
            laplacian(level, scales)
        }
        Detector::Dog => {
            // d/dt L = Laplacian / 2 with t the variance
            let scale = (2.0 / (pyramid.ratio * pyramid.ratio - 1.0)) as f32;
            let smooth = smoother.map_or(&[][..], |smoother| &smoother.voxels);
            level.voxels.iter().zip(smooth).map(|(a, b)| scale * (a - b)).collect()
        }
    }
}

impl Level {
    /// Smooths from sigma to sigma and keeps every `thin`-th voxel.
    fn smooth(
        &self,
        pyramid: &Pyramid,
        step: [usize; 3],
        [from, to]: [f64; 2],
        thin: [usize; 3],
    ) -> Self {
        let kernels = pyramid.kernels(step, from, to);
        let (voxels, shape) = smooth(&self.voxels, self.shape, &kernels, thin);
        Self { voxels, shape }
    }

    fn row(&self, z: i64, y: i64) -> &[f32] {
        let [nz, ny, nx] = self.shape;
        let start = (mirror(z, nz) * ny + mirror(y, ny)) * nx;
        &self.voxels[start..start + nx]
    }
}

vectorised! {
    /// Adds second differences: `out += scale * (w1 * (rows 0 + 1) + w2 * (rows 2 + 3) + w0 * row)`.
    fn add_curvature(row: &[f32], around: [&[f32]; 4], scale: f32, out: &mut [f32]) => add_curvature_body
}

#[inline(always)]
fn add_curvature_body<const FUSED: bool>(
    row: &[f32],
    around: [&[f32]; 4],
    scale: f32,
    out: &mut [f32],
) {
    let n = out.len();
    let weights = SECOND_DIFFERENCE.map(|w| w * scale);
    let row = &row[..n];
    let [a, b, c, d] = around.map(|other| &other[..n]);
    for i in 0..n {
        let sum = multiply_add::<FUSED>(weights[0], row[i], out[i]);
        let sum = multiply_add::<FUSED>(weights[1], a[i] + b[i], sum);
        out[i] = multiply_add::<FUSED>(weights[2], c[i] + d[i], sum);
    }
}

/// The sum over the axes of the second difference times `scales`.
fn laplacian(level: &Level, scales: [f32; 3]) -> Vec<f32> {
    let [nz, ny, nx] = level.shape;
    let mut out = vec![0.0; level.voxels.len()];
    let mut padded = vec![0.0; nx + 4];
    let rows = (0..nz as i64).flat_map(|z| (0..ny as i64).map(move |y| (z, y)));
    for ((z, y), out) in rows.zip(out.chunks_exact_mut(nx.max(1))) {
        let row = level.row(z, y);
        let along_z = [-1, 1, -2, 2].map(|by| level.row(z + by, y));
        let along_y = [-1, 1, -2, 2].map(|by| level.row(z, y + by));
        padded[2..nx + 2].copy_from_slice(row);
        for i in [-2, -1, nx as i64, nx as i64 + 1] {
            padded[(i + 2) as usize] = row[mirror(i, nx)];
        }
        let along_x = [&padded[1..], &padded[3..], &padded[..], &padded[4..]];
        add_curvature(row, along_z, scales[0], out);
        add_curvature(row, along_y, scales[1], out);
        add_curvature(row, along_x, scales[2], out);
    }
    out
}
