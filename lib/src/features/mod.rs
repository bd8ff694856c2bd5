//! Spots: blobs detected in scale space, located to a fraction of a voxel.
//!
//! A blob is a local maximum, over position and scale, of the scale-normalised Laplacian of
//! Gaussian (Lindeberg, IJCV 30, 1998). There are two detectors:
//!
//! * the default one works on a Gaussian pyramid in micrometres, so that its blobs are isotropic in
//!   physical space rather than in voxels, and refines each maximum to a fraction of a voxel and of
//!   a scale;
//! * [`Options::exact`] reproduces the integer voxels of BigStream 2021 (fishspot 0.0.2 on
//!   scikit-image 0.18).
//!
//! The default detector makes one pass over the volume per octave. Each pass is divided into blocks
//! that are streamed plane by plane, so that memory depends only on the area of a block's planes.
//! Decimation is aligned to voxel 0 of the volume, and each block reads the whole support of its
//! spots. Therefore the spots are bit-identical for every block size. The steps that need all spots
//! (relative threshold, pruning, ranking) run after the spots of all blocks are gathered.

mod background;
mod block;
mod cpu;
mod exact;
mod extract;
#[cfg(feature = "cli")]
mod flags;
#[cfg(test)]
mod golden;
mod maxima;
mod options;
#[cfg(test)]
mod oracle;
mod prune;
mod response;
mod scheme;
mod slabs;
mod stage_boxes;
mod sweep;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tiling;
mod winsorize;

pub use cpu::detect_in_memory;
pub use extract::{Error, extract};
#[cfg(feature = "cli")]
pub use flags::{Flags, parse_range};
pub use options::{Detector, Options, OptionsError, Rank};

use crate::geom::Point;

/// A spot in voxel coordinates of its array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpotVoxel {
    /// The centre as a fractional voxel index `[z, y, x]`.
    pub position: Point,
    /// The blob radius, micrometres: sigma times the square root of 3.
    pub radius: f64,
    /// The scale-normalised filter response, in units of the image's intensity; positive for bright
    /// blobs.
    pub response: f64,
    /// The intensity of the unfiltered image at the nearest voxel.
    pub intensity: f64,
}
