//! The computation plan for given options and voxel size: scales, octaves and supports.

use super::background::Coarse;
use super::{Detector, Options, response};
use crate::filter::Kernel;
use crate::geom::Point;

/// Scales per doubling of the radius; a blob half way between two scales loses 2 % of its response.
const PER_OCTAVE: f64 = 3.0;

/// The minimum sigma of a decimated image, in voxels of its grid. The Fourier transform of this
/// Gaussian is below 1e-3 at the Nyquist frequency, so that decimation causes little aliasing.
const MIN_SIGMA: f64 = 1.25;

/// The number of grid voxels that the refinement of a maximum can read beyond its block: three
/// moves, plus one neighbour.
pub(super) const REFINE_REACH: usize = super::maxima::MAX_MOVES + 1;

/// A group of scales that share a grid.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Octave {
    /// Voxels of the volume per voxel of the grid.
    pub(super) step: [usize; 3],
    /// The smoothed images, as indices into [`Pyramid::sigmas`].
    pub(super) levels: std::ops::Range<usize>,
    /// The responses whose maxima are searched in this octave, as indices into [`Pyramid::scales`].
    /// The other responses serve only as neighbours in scale.
    pub(super) wanted: std::ops::Range<usize>,
    /// The kernels along z, y, x that smooth the volume to the first level, in voxels of the
    /// volume.
    pub(super) base: [Kernel; 3],
    /// The kernels that smooth the first level to each of the further levels, in voxels of the
    /// grid.
    pub(super) smoothing: Vec<[Kernel; 3]>,
    /// The radius of the response's support, in grid voxels.
    pub(super) difference_reach: usize,
}

impl Octave {
    /// The largest kernel radius of the further levels along each axis, in grid voxels.
    pub(super) fn level_reach(&self) -> [usize; 3] {
        let radius = |a: usize| self.smoothing.iter().map(|kernels| kernels[a].radius()).max();
        std::array::from_fn(|a| radius(a).unwrap_or(0))
    }

    /// The range of responses that are computed in this octave.
    pub(super) fn responses(&self, pyramid: &Pyramid) -> std::ops::Range<usize> {
        // a difference of Gaussians needs one more level than there are responses
        self.levels.start..self.levels.end - (pyramid.sigmas.len() - pyramid.scales.len())
    }
}

/// The scales of the default detector.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pyramid {
    pub(super) spacing: Point,
    pub(super) detector: Detector,
    /// The sigma of every smoothed image, micrometres.
    pub(super) sigmas: Vec<f64>,
    /// The nominal sigma of each response, micrometres.
    pub(super) scales: Vec<f64>,
    /// The ratio of consecutive scales.
    pub(super) ratio: f64,
    pub(super) octaves: Vec<Octave>,
}

/// The scales at which responses are computed.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scales {
    /// The sigmas of BigStream, voxels.
    Exact(Vec<f64>),
    /// A Gaussian pyramid.
    Pyramid(Pyramid),
}

/// All parameters that the processing of a block needs.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Scheme {
    /// The sides of the top-hat's box along z, y, x, in voxels; used with [`Scales::Exact`].
    pub(super) window: Option<[usize; 3]>,
    /// The grid of the background; used with [`Scales::Pyramid`].
    pub(super) coarse: Option<Coarse>,
    pub(super) scales: Scales,
    /// The width of the excluded border at each face of the volume, in voxels.
    pub(super) border: Point,
}

impl Scheme {
    pub(super) fn new(options: &Options, spacing: Point) -> Self {
        let [low, high] = options.radius;
        let subtract = options.background_subtract;
        if options.exact {
            return Self {
                window: subtract.then_some([(high as usize).max(1); 3]),
                coarse: None,
                scales: Scales::Exact(exact_sigmas(low, high)),
                border: [options.border; 3],
            };
        }
        let sigmas = [low, high].map(|radius| radius / 3.0_f64.sqrt());
        Self {
            window: None,
            coarse: subtract.then(|| Coarse::new(high, spacing)),
            scales: Scales::Pyramid(Pyramid::new(sigmas, options.detector, spacing)),
            border: spacing.map(|s| options.border / s),
        }
    }

    /// The number of passes over the volume: one per octave.
    pub(super) fn passes(&self) -> usize {
        match &self.scales {
            Scales::Exact(_) => 1,
            Scales::Pyramid(pyramid) => pyramid.octaves.len(),
        }
    }
}

/// The sigmas of BigStream 2021: linear from 0.8 min/sqrt 3 to 1.2 max/sqrt 3, one per voxel of
/// radius, at most 15.
fn exact_sigmas(low: f64, high: f64) -> Vec<f64> {
    let count = ((high - low) as usize).clamp(1, 15);
    let (first, last) = (0.8 * low / 3.0_f64.sqrt(), 1.2 * high / 3.0_f64.sqrt());
    let step = if count > 1 { (last - first) / (count - 1) as f64 } else { 0.0 };
    (0..count).map(|i| first + i as f64 * step).collect()
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
            // the variance of a difference of Gaussians is the mean of those of its two levels
            Detector::Dog => {
                let below = (2.0 / (1.0 + ratio * ratio)).sqrt();
                (0..=count + 1).map(|i| low * below * ratio.powi(i as i32)).collect()
            }
        };
        let octaves = octaves(&sigmas, scales.len(), detector, spacing);
        Self { spacing, detector, sigmas, scales, ratio, octaves }
    }

    /// The factors for the second differences along each axis that turn them into a response in
    /// units of the image's intensity, positive for bright blobs.
    pub(super) fn curvature_scales(&self, octave: &Octave, index: usize) -> [f32; 3] {
        let sigma = self.sigmas[index];
        std::array::from_fn(|a| {
            let voxel = self.spacing[a] * octave.step[a] as f64;
            -(sigma * sigma / (voxel * voxel)) as f32
        })
    }

    /// The factor that turns the difference of two adjacent levels into a scale-normalised
    /// response. It follows from dL/dt = (Laplacian of L) / 2, where L is the smoothed image and t
    /// the variance.
    pub(super) fn difference_scale(&self) -> f32 {
        (2.0 / (self.ratio * self.ratio - 1.0)) as f32
    }
}

/// The kernels that smooth a grid from sigma `from` to sigma `to` (micrometres).
fn kernels(spacing: Point, step: [usize; 3], from: f64, to: f64) -> [Kernel; 3] {
    std::array::from_fn(|a| {
        let voxel = spacing[a] * step[a] as f64;
        Kernel::discrete((to * to - from * from) / (voxel * voxel))
    })
}

/// The largest power of two along each axis by which an image smoothed with `sigma` (micrometres)
/// can be decimated such that its sigma is at least [`MIN_SIGMA`].
fn decimation(sigma: f64, spacing: Point) -> [usize; 3] {
    spacing.map(|s| {
        let doublings = (sigma / (s * MIN_SIGMA)).log2().floor().clamp(0.0, 20.0);
        1 << doublings as u32
    })
}

fn octaves(sigmas: &[f64], responses: usize, detector: Detector, spacing: Point) -> Vec<Octave> {
    // number of levels that a response needs in addition to the first one
    let more = sigmas.len() - responses;
    let mut octaves = Vec::new();
    let mut start = 0;
    while start < responses {
        let base = if start == 0 { 0 } else { start - 1 };
        let step = decimation(sigmas[base], spacing);
        let end = (start + 1..responses)
            .find(|&next| decimation(sigmas[next - 1], spacing) != step)
            .unwrap_or(responses);
        let levels = base..(end + 1).min(responses) + more;
        let further = levels.clone().skip(1);
        octaves.push(Octave {
            step,
            wanted: start..end,
            base: kernels(spacing, [1; 3], 0.0, sigmas[base]),
            smoothing: further.map(|to| kernels(spacing, step, sigmas[base], sigmas[to])).collect(),
            difference_reach: if detector == Detector::Log {
                response::SECOND_DIFFERENCE_RADIUS
            } else {
                0
            },
            levels,
        });
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
        assert_eq!(decimation(3.0, [4.0, 1.0, 0.5]), [1, 2, 4]);
    }
}
