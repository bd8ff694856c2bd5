//! What is computed for given options and voxel size: scales, octaves, and how far a spot looks.

use super::{Detector, Options};
use crate::filter::{Kernel, opening_reach};
use crate::geom::{Box3, Point};

/// Scales per doubling of the radius: a blob's response falls by 2 % half way between two.
const PER_OCTAVE: f64 = 3.0;

/// Least sigma, in voxels of its own grid, of a smoothed image: what decimation then folds back is
/// less than 1e-3 of it (the Gaussian at the Nyquist frequency).
const LEAST_SIGMA: f64 = 1.25;

/// Grid voxels beyond a block's own that refining a maximum may look at: three moves and their
/// neighbours.
pub(super) const REFINE_REACH: usize = super::maxima::MOVES + 1;

/// What a block measures at least where memory allows.
const LEAST_BLOCK: usize = 256;

/// Grid voxels that the second differences look at.
const LAPLACIAN_REACH: usize = 2;

/// Scales that share a grid.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Octave {
    /// Voxels of the volume per voxel of the grid.
    pub(super) step: [usize; 3],
    /// The smoothed images: their indices in [`Pyramid::sigmas`].
    pub(super) levels: std::ops::Range<usize>,
    /// The responses whose maxima are looked for here; the others are only compared with.
    pub(super) wanted: std::ops::Range<usize>,
}

/// The usual detector's scales.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pyramid {
    pub(super) spacing: Point,
    pub(super) detector: Detector,
    /// Sigma of every smoothed image, micrometres.
    pub(super) sigmas: Vec<f64>,
    /// Sigma that each response stands for, micrometres.
    pub(super) scales: Vec<f64>,
    /// From scale to scale.
    pub(super) ratio: f64,
    pub(super) octaves: Vec<Octave>,
}

/// How the responses are made.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scales {
    /// BigStream's sigmas, voxels.
    Exact(Vec<f64>),
    /// A pyramid.
    Pyramid(Pyramid),
}

/// All that a block needs to know.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scheme {
    /// Sides of the top-hat's box, voxels.
    pub(super) background: Option<[usize; 3]>,
    pub(super) scales: Scales,
    /// Voxels dropped at each face of the volume.
    pub(super) border: Point,
}

impl Scheme {
    pub(super) fn new(options: &Options, spacing: Point) -> Self {
        let [low, high] = options.radius;
        let (background, scales, border) = if options.exact {
            let scales = Scales::Exact(exact_sigmas(low, high));
            ([(high as usize).max(1); 3], scales, [options.border; 3])
        } else {
            let sigmas = [low, high].map(|radius| radius / 3.0_f64.sqrt());
            let scales = Scales::Pyramid(Pyramid::new(sigmas, options.detector, spacing));
            let side = spacing.map(|s| 2 * (high / s).round() as usize + 1);
            (side, scales, spacing.map(|s| options.border / s))
        };
        let background = options.background_subtract.then_some(background);
        Self { background, scales, border }
    }

    /// Voxels around a block that its spots depend on, in each direction.
    pub(super) fn halo(&self) -> [usize; 3] {
        let filters = match &self.scales {
            Scales::Exact(sigmas) => {
                let radius = sigmas.iter().map(|&s| Kernel::sampled(s).radius()).max();
                [radius.unwrap_or(0) + 1; 3]
            }
            Scales::Pyramid(pyramid) => pyramid.reach(),
        };
        let opening = self.background.map_or([0; 3], |window| window.map(opening_reach));
        std::array::from_fn(|a| filters[a] + opening[a])
    }

    /// The box that must be read so that the spots of `core` come out as from the whole volume.
    pub(super) fn input(&self, core: &Box3, volume: &Box3) -> Box3 {
        let grown = core.grow(self.halo().map(|n| n as i64));
        // decimation is counted from voxel 0 of the volume
        let step = match &self.scales {
            Scales::Exact(_) => [1; 3],
            Scales::Pyramid(pyramid) => pyramid.coarsest().map(|n| n as i64),
        };
        let aligned = std::array::from_fn(|a| grown.min[a].div_euclid(step[a]) * step[a]);
        Box3::new(aligned, grown.max).intersect(volume)
    }

    /// Bytes that a block of `core` voxels holds at its peak.
    pub(super) fn bytes(&self, core: [usize; 3], volume: [usize; 3]) -> u64 {
        let (halo, mut input) = (self.halo(), 1);
        for a in 0..3 {
            input *= (core[a] + 2 * halo[a]).min(volume[a]);
        }
        let core: usize = core.iter().product();
        let floats = match &self.scales {
            // the image raw and cleaned, three responses, a slab of planes twice
            Scales::Exact(_) => 3 * input + 3 * core,
            Scales::Pyramid(pyramid) => {
                let [z, y, x] = pyramid.octaves[0].step;
                // raw, cleaned, two passes of the first smoothing; then raw, three responses, two
                // levels, a base for the next octave and a pass
                (2 * input + input / z + input / (z * y)).max(input + 7 * input / (z * y * x))
            }
        };
        4 * floats as u64
    }

    /// The block of a task where none is asked for: six halos wide, so that computing them twice
    /// costs little, and of equal blocks; less where two would not fit into memory.
    ///
    /// It depends neither on threads nor on parts, so that all parts cut alike.
    pub(super) fn block(&self, volume: [usize; 3], memory: u64) -> [usize; 3] {
        let halo = self.halo();
        let mut pieces: [usize; 3] =
            std::array::from_fn(|a| (volume[a] / LEAST_BLOCK.max(6 * halo[a])).max(1));
        loop {
            let block: [usize; 3] = std::array::from_fn(|a| volume[a].div_ceil(pieces[a]).max(1));
            let longest = (0..3).max_by_key(|&a| (block[a], 3 - a)).unwrap_or(0);
            if 2 * self.bytes(block, volume) <= memory || block[longest] <= 16 {
                return block;
            }
            pieces[longest] += 1;
        }
    }
}

/// V1's: linear from 0.8 min/sqrt 3 to 1.2 max/sqrt 3, one per voxel of radius, at most 15.
fn exact_sigmas(low: f64, high: f64) -> Vec<f64> {
    let count = ((high - low) as usize).clamp(1, 15);
    let (first, last) = (0.8 * low / 3.0_f64.sqrt(), 1.2 * high / 3.0_f64.sqrt());
    let apart = if count > 1 { (last - first) / (count - 1) as f64 } else { 0.0 };
    (0..count).map(|i| first + i as f64 * apart).collect()
}

impl Pyramid {
    fn new([low, high]: [f64; 2], detector: Detector, spacing: Point) -> Self {
        let doublings = (high / low).log2();
        let count = (PER_OCTAVE * doublings - 1e-9).ceil().max(0.0) as usize;
        let ratio = if count == 0 {
            2.0_f64.powf(1.0 / PER_OCTAVE)
        } else {
            (high / low).powf(1.0 / count as f64)
        };
        let scales: Vec<f64> = (0..=count).map(|i| low * ratio.powi(i as i32)).collect();
        let sigmas = match detector {
            Detector::Log => scales.clone(),
            // a difference stands for the variance half way between its two
            Detector::Dog => {
                let below = (2.0 / (1.0 + ratio * ratio)).sqrt();
                (0..=count + 1).map(|i| low * below * ratio.powi(i as i32)).collect()
            }
        };
        let octaves = octaves(&sigmas, scales.len(), spacing);
        Self { spacing, detector, sigmas, scales, ratio, octaves }
    }

    /// The kernels that smooth an octave's grid from sigma `from` to sigma `to`.
    pub(super) fn kernels(&self, step: [usize; 3], from: f64, to: f64) -> [Kernel; 3] {
        std::array::from_fn(|a| {
            let voxel = self.spacing[a] * step[a] as f64;
            Kernel::discrete((to * to - from * from) / (voxel * voxel))
        })
    }

    /// Voxels of the volume that a spot depends on, in each direction.
    fn reach(&self) -> [usize; 3] {
        let mut smoothing = [0; 3];
        let mut most = [0; 3];
        let add = |reach: &mut [usize; 3], step: [usize; 3], from: f64, to: f64| {
            let kernels = self.kernels(step, from, to);
            (0..3).for_each(|a| reach[a] += kernels[a].radius() * step[a]);
        };
        add(&mut smoothing, [1; 3], 0.0, self.sigmas[0]);
        for (i, octave) in self.octaves.iter().enumerate() {
            let base = smoothing;
            let next = self.octaves.get(i + 1).map(|next| next.levels.start);
            let mut level = base;
            for index in octave.levels.clone() {
                if index > octave.levels.start {
                    add(&mut level, octave.step, self.sigmas[index - 1], self.sigmas[index]);
                }
                if Some(index) == next {
                    smoothing = level;
                }
            }
            for a in 0..3 {
                most[a] = most[a].max(level[a] + (LAPLACIAN_REACH + REFINE_REACH) * octave.step[a]);
            }
        }
        most
    }

    fn coarsest(&self) -> [usize; 3] {
        self.octaves.last().map_or([1; 3], |octave| octave.step)
    }
}

/// The largest power of two per axis that decimation allows at `sigma`.
fn thinning(sigma: f64, spacing: Point) -> [usize; 3] {
    spacing.map(|s| {
        let doublings = (sigma / (s * LEAST_SIGMA)).log2().floor().clamp(0.0, 20.0);
        1 << doublings as u32
    })
}

fn octaves(sigmas: &[f64], responses: usize, spacing: Point) -> Vec<Octave> {
    // smoothed images that one response takes beyond the first
    let more = sigmas.len() - responses;
    let mut octaves = Vec::new();
    let mut start = 0;
    while start < responses {
        let base = if start == 0 { 0 } else { start - 1 };
        let step = thinning(sigmas[base], spacing);
        let end = (start + 1..responses)
            .find(|&next| thinning(sigmas[next - 1], spacing) != step)
            .unwrap_or(responses);
        let levels = base..(end + 1).min(responses) + more;
        octaves.push(Octave { step, levels, wanted: start..end });
        start = end;
    }
    octaves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scales_of_the_tutorial_are_fourteen_from_2_77_to_13_86() {
        let sigmas = exact_sigmas(6.0, 20.0);
        assert_eq!(sigmas.len(), 14);
        assert!((sigmas[0] - 2.771_281_29).abs() < 1e-8);
        assert!((sigmas[13] - 13.856_406_46).abs() < 1e-8);
    }

    #[test]
    fn every_response_is_wanted_in_one_octave_and_compared_with_its_neighbours_there() {
        for detector in [Detector::Log, Detector::Dog] {
            for (low, high) in [(0.5, 0.5), (1.0, 1.3), (1.0, 40.0), (7.0, 9.0)] {
                let pyramid = Pyramid::new([low, high], detector, [2.0, 1.0, 0.3]);
                let mut wanted = 0;
                for octave in &pyramid.octaves {
                    assert_eq!(octave.wanted.start, wanted);
                    wanted = octave.wanted.end;
                    let more = usize::from(detector == Detector::Dog);
                    let compared = octave.levels.start..octave.levels.end - more;
                    assert_eq!(compared.start, octave.wanted.start.saturating_sub(1));
                    assert_eq!(compared.end, (wanted + 1).min(pyramid.scales.len()));
                }
                assert_eq!(wanted, pyramid.scales.len());
            }
        }
    }

    #[test]
    fn an_anisotropic_volume_is_thinned_where_its_voxels_are_small() {
        assert_eq!(thinning(3.0, [4.0, 1.0, 0.5]), [1, 2, 4]);
    }
}
