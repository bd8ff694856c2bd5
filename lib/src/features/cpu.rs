//! Spots of one block in memory.

use super::block::Block;
use super::scheme::{Scales, Scheme};
use super::{Options, OptionsError, SpotVoxel, exact, prune, pyramid};
use crate::filter::opening;
use crate::geom::{Box3, Point};

/// What was found in one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Detection {
    /// Its spots, in the order of scale, z, y, x.
    pub(super) spots: Vec<SpotVoxel>,
    /// The greatest response, that of dropped spots too.
    pub(super) greatest: f64,
    /// Voxels of the core that were no finite number; they count as 0.
    pub(super) not_finite: u64,
    /// Whether all voxels were equal: nothing was computed.
    pub(super) constant: bool,
}

/// Detects the spots of a block's core.
///
/// * `clamp`: intensities outside are cut to it before detection
///
/// Numbers: `f32`, see [`crate::filter`]. Checked by: `oracle::detect`.
pub(super) fn detect(
    block: &Block<'_>,
    scheme: &Scheme,
    clamp: Option<[f32; 2]>,
    spacing: Point,
) -> Detection {
    let clean = |v: f32| {
        let v = if v.is_finite() { v } else { 0.0 };
        clamp.map_or(v, |[low, high]| v.max(low).min(high))
    };
    let not_finite = not_finite(block);
    let mut image: Vec<f32> = block.voxels.iter().map(|&v| clean(v)).collect();
    if image.iter().all(|&v| v == image[0]) {
        return Detection { not_finite, constant: true, ..Detection::default() };
    }
    if let Some(window) = scheme.background {
        image = opening(image, block.bounds.shape(), window);
        for (background, &voxel) in image.iter_mut().zip(block.voxels) {
            *background = clean(voxel) - *background;
        }
    }
    let (found, to_um) = match &scheme.scales {
        Scales::Exact(sigmas) => {
            (exact::maxima(block, &image, sigmas), spacing.iter().product::<f64>().cbrt())
        }
        Scales::Pyramid(pyramid) => (pyramid::maxima(block, image, pyramid), 1.0),
    };
    let greatest = found.iter().map(|found| found.response).fold(0.0, f64::max);
    let inside = found.iter().filter(|found| inside(found.position, &block.volume, scheme.border));
    let spots = inside.map(|found| SpotVoxel {
        position: found.position,
        radius: found.sigma * 3.0_f64.sqrt() * to_um,
        response: found.response,
        intensity: intensity(block, found.position),
    });
    Detection { spots: spots.collect(), greatest, not_finite, constant: false }
}

/// Whether a position lies outside the excluded border of `volume`.
fn inside(position: Point, volume: &Box3, border: Point) -> bool {
    (0..3).all(|a| {
        let (first, last) = (volume.min[a] as f64, (volume.max[a] - 1) as f64);
        position[a] >= first + border[a] && position[a] <= last - border[a]
    })
}

/// The voxel nearest to a position, as it is in the file.
fn intensity(block: &Block<'_>, position: Point) -> f64 {
    let [_, ny, nx] = block.bounds.shape();
    let [z, y, x]: [usize; 3] = std::array::from_fn(|a| {
        let nearest = position[a].round() as i64;
        (nearest.clamp(block.bounds.min[a], block.bounds.max[a] - 1) - block.bounds.min[a]) as usize
    });
    let value = block.voxels[(z * ny + y) * nx + x];
    if value.is_finite() { f64::from(value) } else { 0.0 }
}

/// Voxels of the core that are no finite number.
fn not_finite(block: &Block<'_>) -> u64 {
    if block.voxels.iter().all(|v| v.is_finite()) {
        return 0;
    }
    let [_, ny, nx] = block.bounds.shape();
    let core = block.core.shift(block.bounds.min.map(|v| -v));
    let [min, max] = [core.min, core.max].map(|corner| corner.map(|v| v as usize));
    let rows = (min[0]..max[0]).flat_map(|z| (min[1]..max[1]).map(move |y| (z * ny + y) * nx));
    rows.map(|row| {
        block.voxels[row + min[2]..row + max[2]].iter().filter(|v| !v.is_finite()).count() as u64
    })
    .sum()
}

/// Spots of a whole array, best first; none where there are none.
///
/// * `voxels`: `(z, y, x)` of `shape`; what is no finite number counts as 0
/// * `spacing`: micrometres per voxel
///
/// # Errors
/// [`OptionsError`] for options that cannot be. `winsorize` is taken over the array.
pub fn detect_in_memory(
    voxels: &[f32],
    shape: [usize; 3],
    spacing: Point,
    options: &Options,
) -> Result<Vec<SpotVoxel>, OptionsError> {
    options.check()?;
    let bounds = Box3::of_shape(shape);
    if bounds.is_empty() {
        return Ok(Vec::new());
    }
    let clamp = options.winsorize.map(|fractions| super::winsorize::limits_of(voxels, fractions));
    let block = Block { voxels, bounds, core: bounds, volume: bounds };
    let found = detect(&block, &Scheme::new(options, spacing), clamp, spacing);
    Ok(prune::select(found.spots, found.greatest, spacing, options))
}
