//! Spots: blobs found in scale space, to sub-voxel positions.
