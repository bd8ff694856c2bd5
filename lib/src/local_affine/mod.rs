//! One affine per block, consistent with its neighbours.
