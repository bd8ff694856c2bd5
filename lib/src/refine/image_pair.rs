//! The two images at one resolution, prepared for comparison.

use super::pyramid::Pyramid;
use super::{Error, Options};
use crate::geom::{Affine, Chain, Grid, Point};
use crate::metric::{
    AffineSimilarity, Image, SampleLocations, Samples, Scorer, SimilarityMeasure, padding,
};

/// Both images, and the options by which they are compared.
pub(super) struct ImagePair<'a> {
    pub(super) fixed: &'a Pyramid,
    pub(super) moving: &'a Pyramid,
    /// Whether both images are single planes, which lie at z = 0.
    pub(super) planar: bool,
    pub(super) options: &'a Options,
    pub(super) seed: u64,
    /// Whether the steps are not logged, because the pair is one of many.
    pub(super) quiet: bool,
}

/// The initial map of a refinement.
pub(super) enum InitialMap<'a> {
    /// A matrix.
    Matrix(Affine),
    /// Any chain, and the z position of the fixed plane (micrometres) if both images are planes.
    Chain(&'a Chain, f64),
}

/// Both images at one resolution.
pub(super) struct Level {
    /// The resolution, in micrometres of the fixed and of the moving space.
    pub(super) resolution: [f64; 2],
    fixed: Grid,
    moving: Image,
    samples: Samples,
    scorer: Scorer,
    /// Volumes of the known parts of both images, cubic micrometres of the fixed space. For planes,
    /// they are areas, square micrometres.
    sizes: [f64; 2],
}

impl ImagePair<'_> {
    /// The finest resolution, in fixed micrometres, that both images have under a map of scale
    /// `scale` and that the options allow.
    pub(super) fn finest(&self, scale: f64) -> f64 {
        let own = self.fixed.resolution().max(self.moving.resolution() / scale);
        own.max(self.options.resolution.unwrap_or(0.0))
    }

    /// Both images at `resolution`, in fixed micrometres, under a map of scale `scale`.
    ///
    /// # Errors
    /// [`Error::Metric`] if an image is constant or has no known voxel; errors of the fields of
    /// `start`.
    pub(super) fn level(
        &self,
        resolution: f64,
        scale: f64,
        start: &InitialMap<'_>,
    ) -> Result<Level, Error> {
        let images = [self.fixed.at(resolution), self.moving.at(resolution * scale)];
        let resolutions = [resolution, resolution * scale];
        self.compare(images, resolutions, self.options.metric, self.options.samples, start)
    }

    /// Like [`ImagePair::level`], with the [`detail`] of both images. Details distinguish right
    /// maps from wrong ones, whereas large bright and dark regions agree under many maps.
    ///
    /// # Errors
    /// As for [`ImagePair::level`].
    pub(super) fn detail(
        &self,
        resolution: f64,
        scale: f64,
        start: &InitialMap<'_>,
    ) -> Result<Level, Error> {
        let resolutions = [resolution, resolution * scale];
        let images = [
            detail(&self.fixed.at(resolutions[0]), resolutions[0]),
            detail(&self.moving.at(resolutions[1]), resolutions[1]),
        ];
        let kind = self.options.metric.of_details();
        self.compare(images, resolutions, kind, self.options.samples, start)
    }

    /// Like [`ImagePair::detail`], with at most `samples` samples. Padding is ignored, because it
    /// has a similar outline in any two images. Extreme values are clipped, because a few bright
    /// objects coincide with a few others under many maps.
    ///
    /// # Errors
    /// As for [`ImagePair::level`].
    pub(super) fn clipped(
        &self,
        resolution: f64,
        scale: f64,
        start: &InitialMap<'_>,
        samples: usize,
    ) -> Result<Level, Error> {
        let resolutions = [resolution, resolution * scale];
        let image = |side: &Pyramid, resolution: f64| {
            let mut image = side.at(resolution);
            padding::mark(image.grid.shape, &mut image.voxels);
            clip(detail(&image, resolution))
        };
        let images = [image(self.fixed, resolutions[0]), image(self.moving, resolutions[1])];
        let samples = self.options.samples.map_or(samples, |most| most.min(samples));
        self.compare(images, resolutions, self.options.metric.of_details(), Some(samples), start)
    }

    /// Approximate number of voxels of the fixed image at `resolution` (micrometres).
    pub(super) fn voxels(&self, resolution: f64) -> usize {
        let grid = self.fixed.base().grid;
        let along = |a: usize| {
            let step = (resolution / grid.spacing[a] + 1e-6).floor().max(1.0) as usize;
            grid.shape[a].div_ceil(step)
        };
        (0..3).map(along).product()
    }

    fn compare(
        &self,
        [fixed, moving]: [Image; 2],
        resolution: [f64; 2],
        kind: SimilarityMeasure,
        samples: Option<usize>,
        start: &InitialMap<'_>,
    ) -> Result<Level, Error> {
        let mut samples = Samples::choose(&fixed, |_| true, samples, self.seed);
        let scorer = Scorer::new(kind, &samples, &moving)?;
        let known = moving.voxels.iter().filter(|v| v.is_finite()).count();
        let scale = resolution[1] / resolution[0];
        let sizes = [
            samples.usable as f64 * self.cell(&fixed.grid),
            known as f64 * self.cell(&moving.grid) / scale.powi(if self.planar { 2 } else { 3 }),
        ];
        if let InitialMap::Chain(chain, height) = start {
            let height = self.planar.then_some(*height);
            samples.places = points(&samples.places, &fixed.grid, &moving.grid, chain, height)?;
        }
        Ok(Level { resolution, fixed: fixed.grid, moving, samples, scorer, sizes })
    }

    /// Volume of a voxel, cubic micrometres; for planes its area, square micrometres.
    fn cell(&self, grid: &Grid) -> f64 {
        grid.spacing[usize::from(self.planar)..].iter().product()
    }
}

impl Level {
    /// The energy as a function of the map that follows `start`.
    pub(super) fn similarity(&self, start: &InitialMap<'_>) -> AffineSimilarity<'_> {
        let initial = match start {
            InitialMap::Matrix(map) => *map,
            InitialMap::Chain(..) => Affine::IDENTITY,
        };
        AffineSimilarity::new(&self.samples, &self.fixed, &self.moving, &initial, &self.scorer)
    }

    /// The overlap as a fraction of the smaller image, if `count` samples fall on the moving image.
    pub(super) fn overlap(&self, count: usize) -> f64 {
        let common = count as f64 / self.samples.len().max(1) as f64 * self.sizes[0];
        (common / self.sizes[0].min(self.sizes[1])).min(1.0)
    }

    /// The extent of the moving image, micrometres.
    pub(super) fn moving_extent(&self) -> [Point; 2] {
        self.moving.grid.extent(&self.moving.grid.bounds())
    }

    /// Number of samples.
    pub(super) fn samples(&self) -> usize {
        self.samples.len()
    }

    /// The fraction of samples that count as independent, because voxels finer than the resolution
    /// are correlated.
    pub(super) fn independence(&self, planar: bool) -> f64 {
        let axes = usize::from(planar)..3;
        axes.map(|a| (self.fixed.spacing[a] / self.resolution[0]).min(1.0)).product()
    }
}

/// Standard deviation of the Gaussian that [`detail`] subtracts, in units of the resolution.
const BROAD_SIGMA: f64 = 3.0;

/// The detail of an image: the image minus its convolution with a Gaussian whose standard deviation
/// is [`BROAD_SIGMA`] times the resolution (micrometres).
pub(super) fn detail(image: &Image, resolution: f64) -> Image {
    let grid = image.grid;
    let variance = std::array::from_fn(|a| {
        if grid.shape[a] > 1 { (BROAD_SIGMA * resolution / grid.spacing[a]).powi(2) } else { 0.0 }
    });
    let mut detail = image.downsampled(variance, [1; 3]);
    for (broad, fine) in detail.voxels.iter_mut().zip(&image.voxels) {
        *broad = fine - *broad;
    }
    detail
}

/// Details are clipped at this many standard deviations.
const CLIP_LIMIT: f32 = 4.0;

/// Clips a detail at [`CLIP_LIMIT`] standard deviations, estimated as 1.4826 times the median
/// absolute value (as for a normal distribution). Returns the detail unchanged if the median is 0.
fn clip(mut detail: Image) -> Image {
    let mut sizes: Vec<f32> =
        detail.voxels.iter().filter(|v| v.is_finite()).map(|v| v.abs()).collect();
    if sizes.is_empty() {
        return detail;
    }
    let middle = sizes.len() / 2;
    let (_, median, _) = sizes.select_nth_unstable_by(middle, f32::total_cmp);
    let limit = CLIP_LIMIT * 1.4826 * *median;
    if limit > 0.0 {
        for v in detail.voxels.iter_mut().filter(|v| v.is_finite()) {
            *v = v.clamp(-limit, limit);
        }
    }
    detail
}

/// Maps voxels of the fixed grid through a chain to voxel coordinates of the moving grid.
///
/// * `height`: z of the fixed plane, micrometres, if both images are planes
fn points(
    places: &SampleLocations,
    fixed: &Grid,
    moving: &Grid,
    chain: &Chain,
    height: Option<f64>,
) -> Result<SampleLocations, Error> {
    let SampleLocations::Voxels(voxels) = places else { return Ok(places.clone()) };
    let [_, ny, nx] = fixed.shape;
    let mut grid = *fixed;
    if let Some(height) = height {
        grid.origin[0] = height;
    }
    let mut points = Vec::with_capacity(voxels.len());
    // plane by plane, so that only the part of a field that one plane needs is in memory
    for plane in voxels.chunk_by(|a, b| *a as usize / (ny * nx) == *b as usize / (ny * nx)) {
        let z = (plane[0] as usize / (ny * nx)) as i64;
        let mut part = grid.bounds();
        (part.min[0], part.max[0]) = (z, z + 1);
        let (local, _) = chain.localise(grid.extent(&part)).map_err(|source| {
            crate::transform::Error::Format {
                location: "--initial".to_owned(),
                message: source.to_string(),
            }
        })?;
        for &voxel in plane {
            let voxel = voxel as usize;
            let index: Point = [z as f64, (voxel / nx % ny) as f64, (voxel % nx) as f64];
            let mut q = local.apply(grid.position(index));
            if height.is_some() {
                q[0] = moving.origin[0];
            }
            points.push(moving.index(q).map(|v| v as f32));
        }
    }
    Ok(SampleLocations::Points(points))
}
