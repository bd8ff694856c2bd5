//! Metadata of arrays: names of dimensions, voxel sizes, origins, levels.
//!
//! `ome`: OME-Zarr (NGFF). `conventions`: attributes of other programs in Zarr and N5.

pub(in crate::volume) mod conventions;
pub(in crate::volume) mod ome;
