//! The input and output of the detectors.

use crate::geom::{Box3, Point};

/// A block of a volume, in memory.
pub(super) struct PaddedBlock<'a> {
    /// The intensities of `bounds`, C order `(z, y, x)`.
    pub(super) voxels: &'a [f32],
    /// The voxels in memory: at least [`super::scheme::Scheme::input`] of the core.
    pub(super) bounds: Box3,
    /// The voxels whose spots are to be found.
    pub(super) core: Box3,
    /// The bounds of the whole volume.
    pub(super) volume: Box3,
}

/// A local maximum of the response.
pub(super) struct ResponseMaximum {
    /// The fractional voxel index in the volume, `[z, y, x]`.
    pub(super) position: Point,
    /// The scale: micrometres, or voxels if found by [`super::exact`].
    pub(super) sigma: f64,
    /// The response, in units of the image's intensity.
    pub(super) response: f64,
}
