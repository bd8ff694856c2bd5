//! One affine per block, consistent with its neighbours.

mod outliers;
mod robust;
mod solve;
