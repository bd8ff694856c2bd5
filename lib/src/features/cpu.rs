//! Spots of one block.

use super::block::{Block, Found};
use super::frame::{Frame, area};
use super::scheme::{Octave, Pyramid, Scales, Scheme};
use super::sweep::Sweep;
use super::{Options, OptionsError, SpotVoxel, exact, prune};
use crate::filter::opening;
use crate::filter::planes::Plane;
use crate::geom::{Box3, Point};

/// What was found in one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Detection {
    /// Its spots, in the order in which they were found.
    pub(super) spots: Vec<SpotVoxel>,
    /// How many were found off the border, those that count for nothing too.
    pub(super) blobs: usize,
    /// The greatest response, that of dropped spots too.
    pub(super) greatest: f64,
    /// Voxels of the core that were no finite number; they count as 0.
    pub(super) not_finite: u64,
    /// Whether all voxels were equal: nothing was computed.
    pub(super) constant: bool,
}

/// What detectors do to each voxel first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clean(pub(super) Option<[f32; 2]>);

impl Clean {
    /// 0 for what is no finite number; cut to the range of intensities, if there is one.
    #[inline]
    pub(super) fn apply(self, v: f32) -> f32 {
        let v = if v.is_finite() { v } else { 0.0 };
        self.0.map_or(v, |[low, high]| v.max(low).min(high))
    }
}

/// Finds the maxima of one octave, whose planes `next` fills one after the other.
///
/// * `next`: takes the index of a plane, and the plane over the area of the frame's input
///
/// Numbers: `f32`, see [`crate::filter`]. Checked by: the tests of `background`, of
/// `filter::planes`, and on blobs whose places are known.
pub(super) fn sweep<E>(
    scheme: &Scheme,
    pyramid: &Pyramid,
    octave: &Octave,
    frame: &Frame,
    mut next: impl FnMut(i64, &mut Plane) -> Result<(), E>,
) -> Result<Vec<Found>, E> {
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

/// Finds the maxima of a block that is held whole, as BigStream 2021 does; none where all its voxels
/// are equal.
///
/// Numbers: `f32`, see [`crate::filter`]. Checked by: `oracle::detect`.
pub(super) fn whole(
    block: &Block<'_>,
    scheme: &Scheme,
    sigmas: &[f64],
    clean: Clean,
) -> Option<Vec<Found>> {
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
    /// Turns maxima to spots, whose intensity is still to be looked up: those outside of the border.
    ///
    /// * returns the spots and the greatest response, that of dropped ones too
    pub(super) fn spots(
        &self,
        found: &[Found],
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

/// Whether a position lies outside the excluded border of `volume`. A plane has no border along z.
fn inside(position: Point, volume: &Box3, border: Point) -> bool {
    let shape = volume.shape();
    (0..3).filter(|&a| shape[a] > 1).all(|a| {
        let (first, last) = (volume.min[a] as f64, (volume.max[a] - 1) as f64);
        position[a] >= first + border[a] && position[a] <= last - border[a]
    })
}

/// The voxel nearest to a position, within `volume`.
pub(super) fn nearest(position: Point, volume: &Box3) -> [i64; 3] {
    std::array::from_fn(|a| (position[a].round() as i64).clamp(volume.min[a], volume.max[a] - 1))
}

/// What the voxel of a spot counts as: 0 where it is no finite number.
pub(super) fn intensity(voxel: f32) -> f64 {
    if voxel.is_finite() { f64::from(voxel) } else { 0.0 }
}

/// Voxels of the core that are no finite number.
pub(super) fn not_finite(block: &Block<'_>) -> u64 {
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
/// * `voxels`: `(z, y, x)` of `shape`
/// * `core`: the voxels whose spots are wanted
pub(super) fn detect(
    voxels: &[f32],
    shape: [usize; 3],
    core: &Box3,
    scheme: &Scheme,
    clean: Clean,
    spacing: Point,
) -> Detection {
    let volume = Box3::of_shape(shape);
    let block = Block { voxels, bounds: volume, core: *core, volume };
    let not_finite = not_finite(&block);
    let first = voxels.first().map_or(0.0, |&v| clean.apply(v));
    if voxels.iter().all(|&v| clean.apply(v) == first) {
        return Detection { not_finite, constant: true, ..Detection::default() };
    }
    let found = match &scheme.scales {
        Scales::Exact(sigmas) => whole(&block, scheme, sigmas, clean).unwrap_or_default(),
        Scales::Pyramid(pyramid) => {
            let octaves = pyramid.octaves.iter().flat_map(|octave| {
                let frame = Frame::new(octave, scheme.coarse, core, shape);
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

/// Copies a part of a plane of an array.
fn fill(voxels: &[f32], [_, ny, nx]: [usize; 3], z: i64, clean: Clean, plane: &mut Plane) {
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
    let scheme = Scheme::new(options, spacing);
    let found = detect(voxels, shape, &bounds, &scheme, Clean(clamp), spacing);
    Ok(prune::select(found.spots, found.greatest, spacing, options))
}
