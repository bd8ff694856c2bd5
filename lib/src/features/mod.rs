//! Spots: blobs found in scale space, to sub-voxel positions.
//!
//! A blob is a maximum, over position and scale, of the scale-normalised Laplacian of Gaussian
//! (Lindeberg, IJCV 30, 1998). Two detectors share one road:
//!
//! * the usual one works on a Gaussian pyramid in micrometres, so that a blob is round in space and
//!   not in voxels, and refines each maximum to a fraction of a voxel and of a scale;
//! * [`Options::exact`] gives the integer voxels of BigStream 2021 (fishspot 0.0.2 on scikit-image
//!   0.18), for parity.
//!
//! The usual one takes a pass over the volume per octave, each in blocks that stream by plane after
//! plane, so that memory grows with the area of a block's planes only. Decimation is counted from
//! voxel 0 of the volume and blocks read all that a spot depends on: the spots are the same, bit for
//! bit, for every block size. What needs all of them (relative threshold, pruning, ranking) is done
//! once, after the gather.

mod background;
mod block;
mod cpu;
mod exact;
mod extract;
mod flags;
mod frame;
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
mod sweep;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tiling;
mod winsorize;

pub use cpu::detect_in_memory;
pub use extract::{Error, extract};
pub use flags::{Flags, parse_range};
pub use options::{Detector, Options, OptionsError, Rank};

use crate::geom::Point;

/// A spot in the frame of its array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpotVoxel {
    /// Its centre, (fractional) voxel index `[z, y, x]`.
    pub position: Point,
    /// Blob radius, micrometres: sigma times the square root of 3.
    pub radius: f64,
    /// Scale-normalised filter response, in the image's intensities; positive for bright blobs.
    pub response: f64,
    /// Intensity of the unfiltered image at the nearest voxel.
    pub intensity: f64,
}
