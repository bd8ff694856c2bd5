//! What detectors are given and what they find.

use crate::geom::{Box3, Point};

/// A block of a volume in memory.
pub(super) struct Block<'a> {
    /// Intensities of `bounds`, `(z, y, x)`.
    pub(super) voxels: &'a [f32],
    /// The voxels held: at least [`super::scheme::Scheme::input`] of the core.
    pub(super) bounds: Box3,
    /// The voxels whose spots are wanted.
    pub(super) core: Box3,
    /// All voxels of the volume.
    pub(super) volume: Box3,
}

/// A maximum of the response.
pub(super) struct Found {
    /// Voxel index in the volume, fractional.
    pub(super) position: Point,
    /// Micrometres, or voxels from [`super::exact`].
    pub(super) sigma: f64,
    /// In the image's intensities.
    pub(super) response: f64,
}
