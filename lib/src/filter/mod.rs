//! Filters on blocks in memory: convolution with symmetric kernels, background by morphological
//! opening, Fourier transforms, removal of hot and dead pixels, resampling to a coarser grid,
//! distances and connected groups of pixels.
//!
//! Convolutions and openings work on C-order `(z, y, x)` slices of `f32`, one axis at a time, and
//! mirror the block about the *edge* of its first and last voxel (`c b a | a b c`). They always
//! compute the value of a voxel by the same operations in the same order, wherever the voxel lies
//! in the block: a block with a sufficient halo gives results that are bit-identical to those of
//! the whole volume.

mod convolve;
mod distance;
mod fft;
mod gaussian;
mod groups;
pub(crate) mod lines;
#[cfg(test)]
mod oracle;
pub(crate) mod parabola;
pub mod planes;
mod regrid;
mod second_derivatives;
mod spikes;
mod top_hat;

pub use convolve::{smooth, smooth_known};
pub use distance::distance;
pub use fft::Fft;
pub use gaussian::Kernel;
pub use groups::Groups;
pub use lines::mirror;
pub use regrid::Regridded;
pub use second_derivatives::LaplacianOfGaussian;
pub use spikes::{despike, spikes};
pub use top_hat::{Extreme, extreme_within, opening, opening_reach};
