//! The library of voxloom, which the programs in `bins/` are made of.
//!
//! Modules depend only on lower layers; `tests/house/layers.rs` holds the table and fails on an
//! upward `use`.

pub mod blocks;
pub mod cli;
pub mod deform;
pub mod device;
pub mod downsample;
pub mod features;
pub mod files;
pub mod filter;
pub mod fingerprint;
pub mod geom;
#[cfg(test)]
mod golden;
pub mod inspect;
pub mod invmap;
pub mod local_affine;
pub mod matching;
pub mod metric;
pub mod phantom;
pub mod quote;
pub mod refine;
pub mod report;
pub mod store;
pub mod table;
pub mod transcode;
pub mod transform;
pub mod volume;
pub mod warp;
