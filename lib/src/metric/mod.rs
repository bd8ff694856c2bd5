//! Similarity of two images as a function of the map between them, with derivatives.
//!
//! A [`SimilarityMeasure`] tells how well a moving image, resampled through a map, agrees with a
//! fixed image: normalised correlation, Mattes mutual information or mean squares. Each measure is
//! an energy to be minimised. [`AffineSimilarity`] gives the energy, its gradient and a positive
//! semidefinite curvature for affine changes of the map. [`Scorer`] gives the energy, and its
//! derivative and curvature with respect to each sample, from which other maps can be optimised.
//!
//! Images are [`Image`]s in memory, smoothed and subsampled by [`downsample`]; [`Samples`] selects
//! the voxels of the fixed image that are compared.

mod affine;
mod chance;
mod cpu;
pub mod evidence;
mod histogram;
mod image;
mod moments;
#[cfg(test)]
mod oracle;
pub mod padding;
mod samples;
mod score;
#[cfg(test)]
mod tests;

pub use affine::{AffineSimilarity, Linearised, Normalisation, Workspace};
pub use chance::{hash, unit};
pub use image::{Image, downsample};
pub use moments::PairSums;
pub use samples::{SampleLocations, Samples};
pub use score::{Force, Partial, Score, Scorer, SimilarityMeasure};

/// The value of an image and its gradient per voxel at a position in voxels, z, y, x, by trilinear
/// interpolation: NaN outside the image or next to a NaN voxel. An axis of one voxel extends half a
/// voxel to either side.
#[inline]
pub fn sample(image: &Image, at: [f32; 3]) -> (f32, [f32; 3]) {
    cpu::sample(&image.voxels, image.grid.shape, at)
}

/// Why two images cannot be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An image has no usable voxel.
    #[error("the {side} image has no usable voxel: all are NaN or masked")]
    Nothing {
        /// "fixed" or "moving".
        side: &'static str,
    },
    /// All voxels of an image have the same value.
    #[error("the {side} image is constant, which agrees with anything: is it the right channel?")]
    Constant {
        /// "fixed" or "moving".
        side: &'static str,
    },
}
