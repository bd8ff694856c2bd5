//! Spot detection on one block.

use super::block::{PaddedBlock, ResponseMaximum};
use super::scheme::{Octave, Pyramid, Scales, Scheme};
use super::stage_boxes::{StageBoxes, area};
use super::sweep::Sweep;
use super::{Options, OptionsError, SpotVoxel, exact, prune};
use crate::filter::opening;
use crate::filter::planes::Plane;
use crate::geom::{Box3, Point};

/// The result of detection on one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Detection {
    /// The spots, in the order in which they were found.
    pub(super) spots: Vec<SpotVoxel>,
    /// The number of maxima found outside the excluded border, including those dropped later.
    pub(super) blobs: usize,
    /// The maximum response, including that of dropped spots.
    pub(super) greatest: f64,
    /// The number of voxels of the core that are NaN or infinite; they are treated as 0.
    pub(super) not_finite: u64,
    /// Whether all preprocessed voxels that were read are equal; then there are no spots.
    pub(super) constant: bool,
}

/// The preprocessing of each voxel; the option holds the clamping range.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Preprocessing(pub(super) Option<[f32; 2]>);

impl Preprocessing {
    /// Replaces NaN and infinity by 0, and clamps to the range if there is one.
    #[inline]
    pub(super) fn apply(self, v: f32) -> f32 {
        let v = if v.is_finite() { v } else { 0.0 };
        self.0.map_or(v, |[low, high]| v.max(low).min(high))
    }
}

/// Finds the local maxima of one octave, while the volume is read plane by plane.
///
/// * `next`: fills the plane of the volume with the given index, over the area of `frame.input`
///
/// The computation is in `f32` (see [`crate::filter`]). It is checked by the tests of `background`
/// and of `filter::planes`, and on blobs at known positions.
pub(super) fn sweep<E>(
    scheme: &Scheme,
    pyramid: &Pyramid,
    octave: &Octave,
    frame: &StageBoxes,
    mut next: impl FnMut(i64, &mut Plane) -> Result<(), E>,
) -> Result<Vec<ResponseMaximum>, E> {
    if frame.core.is_empty() {
        return Ok(Vec::new());
    }
    let mut sweep = Sweep::new(scheme, pyramid, octave, frame);
    let mut plane = Plane::new(area(&frame.input));
    for z in frame.input.min[0]..frame.input.max[0] {
        next(z, &mut plane)?;
        sweep.push(z, &plane);
    }
    Ok(sweep.finish())
}

/// Finds the local maxima of a block that is held in memory as a whole, as BigStream 2021 does.
/// Returns `None` if all its voxels are equal.
///
/// The computation is in `f32` (see [`crate::filter`]). It is checked against `oracle::detect`.
pub(super) fn maxima_of_block(
    block: &PaddedBlock<'_>,
    scheme: &Scheme,
    sigmas: &[f64],
    clean: Preprocessing,
) -> Option<Vec<ResponseMaximum>> {
    let mut image: Vec<f32> = block.voxels.iter().map(|&v| clean.apply(v)).collect();
    if image.iter().all(|&v| v == image[0]) {
        return None;
    }
    if let Some(window) = scheme.window {
        image = opening(image, block.bounds.shape(), window);
        for (background, &voxel) in image.iter_mut().zip(block.voxels) {
            *background = clean.apply(voxel) - *background;
        }
    }
    Some(exact::maxima(block, &image, sigmas))
}

impl Scheme {
    /// Converts the maxima outside the excluded border to spots, whose intensities are still to be
    /// set.
    ///
    /// * returns the spots and the maximum response, including that of dropped maxima
    pub(super) fn spots(
        &self,
        found: &[ResponseMaximum],
        volume: &Box3,
        spacing: Point,
    ) -> (Vec<SpotVoxel>, f64) {
        let to_um = match self.scales {
            Scales::Exact(_) => spacing.iter().product::<f64>().cbrt(),
            Scales::Pyramid(_) => 1.0,
        };
        let greatest = found.iter().map(|found| found.response).fold(0.0, f64::max);
        let inside = found.iter().filter(|found| inside(found.position, volume, self.border));
        let spots = inside.map(|found| SpotVoxel {
            position: found.position,
            radius: found.sigma * 3.0_f64.sqrt() * to_um,
            response: found.response,
            intensity: 0.0,
        });
        (spots.collect(), greatest)
    }
}

/// Whether a position lies outside the excluded border of `volume`. Axes of one voxel have no
/// border.
fn inside(position: Point, volume: &Box3, border: Point) -> bool {
    let shape = volume.shape();
    (0..3).filter(|&a| shape[a] > 1).all(|a| {
        let (first, last) = (volume.min[a] as f64, (volume.max[a] - 1) as f64);
        position[a] >= first + border[a] && position[a] <= last - border[a]
    })
}

/// The voxel of `volume` nearest to a position.
pub(super) fn nearest(position: Point, volume: &Box3) -> [i64; 3] {
    std::array::from_fn(|a| (position[a].round() as i64).clamp(volume.min[a], volume.max[a] - 1))
}

/// The intensity of a spot at this voxel; 0 if the voxel is NaN or infinite.
pub(super) fn intensity(voxel: f32) -> f64 {
    if voxel.is_finite() { f64::from(voxel) } else { 0.0 }
}

/// The number of voxels of the core that are NaN or infinite.
pub(super) fn not_finite(block: &PaddedBlock<'_>) -> u64 {
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

/// Detects the spots of a part of an array in memory.
///
/// * `voxels`: C order `(z, y, x)` of `shape`
/// * `core`: the voxels whose spots are to be found
pub(super) fn detect(
    voxels: &[f32],
    shape: [usize; 3],
    core: &Box3,
    scheme: &Scheme,
    clean: Preprocessing,
    spacing: Point,
) -> Detection {
    let volume = Box3::of_shape(shape);
    let block = PaddedBlock { voxels, bounds: volume, core: *core, volume };
    let not_finite = not_finite(&block);
    let first = voxels.first().map_or(0.0, |&v| clean.apply(v));
    if voxels.iter().all(|&v| clean.apply(v) == first) {
        return Detection { not_finite, constant: true, ..Detection::default() };
    }
    let found = match &scheme.scales {
        Scales::Exact(sigmas) => maxima_of_block(&block, scheme, sigmas, clean).unwrap_or_default(),
        Scales::Pyramid(pyramid) => {
            let octaves = pyramid.octaves.iter().flat_map(|octave| {
                let frame = StageBoxes::new(octave, scheme.coarse, core, shape);
                let fill = |z, plane: &mut Plane| {
                    fill(voxels, shape, z, clean, plane);
                    Ok(())
                };
                let Ok(found) =
                    sweep::<std::convert::Infallible>(scheme, pyramid, octave, &frame, fill);
                found
            });
            octaves.collect()
        }
    };
    let (mut spots, greatest) = scheme.spots(&found, &volume, spacing);
    for spot in &mut spots {
        let [z, y, x] = nearest(spot.position, &volume).map(|v| v as usize);
        spot.intensity = intensity(voxels[(z * shape[1] + y) * shape[2] + x]);
    }
    Detection { blobs: spots.len(), spots, greatest, not_finite, constant: false }
}

/// Fills `plane` with the preprocessed voxels of plane `z` of an array, over the area of `plane`.
fn fill(voxels: &[f32], [_, ny, nx]: [usize; 3], z: i64, clean: Preprocessing, plane: &mut Plane) {
    let area = plane.area();
    let mut zero = true;
    for y in area.min[0]..area.max[0] {
        let start = (z as usize * ny + y as usize) * nx;
        let row = &voxels[start + area.min[1] as usize..start + area.max[1] as usize];
        for (out, &v) in plane.row_mut(y).iter_mut().zip(row) {
            *out = clean.apply(v);
            zero &= *out == 0.0;
        }
    }
    if zero {
        plane.clear();
    }
}

/// Detects the spots of a whole array and returns them, best first. The result can be empty.
///
/// * `voxels`: C order `(z, y, x)` of `shape`; NaN and infinity are treated as 0
/// * `spacing`: micrometres per voxel along z, y, x
///
/// With `winsorize`, the clamping range is computed from all voxels of the array.
///
/// # Errors
/// [`OptionsError`] for invalid options.
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
    let scheme = Scheme::new(options, spacing);
    let found = detect(voxels, shape, &bounds, &scheme, Preprocessing(clamp), spacing);
    Ok(prune::select(found.spots, found.greatest, spacing, options))
}
