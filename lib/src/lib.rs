//! The library of voxloom, from which the programs in `bins/` are built.
//!
//! Volumes are read with [`volume::Volume`] and written with [`volume::Output`]; transforms are
//! read with [`transform::read_chain`] and written with [`transform::write_chain`].
//! [`warp::resample`] applies transforms to volumes, block by block:
//!
//! ```
//! use voxloom::blocks::Context;
//! use voxloom::geom::{Affine, Chain, Grid};
//! use voxloom::volume::{Codec, Dtype, Existing, Format, Output, Select, Spec, Volume};
//! use voxloom::warp;
//!
//! # let folder = tempfile::tempdir()?;
//! # let at = |name: &str| folder.path().join(name).display().to_string();
//! let grid = Grid::new([8, 8, 8], [1.0; 3], [0.0; 3]);
//! let (dtype, codec, format) = (Dtype::U8, Codec::Blosc, Format::Zarr3);
//! let spec = Spec { grid, dtype, chunk: [8; 3], shard: None, codec, format };
//! let voxels: Vec<u8> = (0..512).map(|i| (i % 8) as u8).collect();
//! Output::create(&at("moving.zarr"), &spec, Existing::Refuse)?.write(&grid.bounds(), &voxels)?;
//!
//! let moving = Volume::open(&at("moving.zarr"), &Select::default())?;
//! let chain = Chain::affine(Affine::translation([0.0, 0.0, 1.0]));
//! let (options, ctx) = (warp::Options::default(), Context::default());
//! warp::resample(&[moving], &chain, &at("aligned.zarr"), &spec, &options, &ctx)?;
//!
//! let aligned = Volume::open(&at("aligned.zarr"), &Select::default())?;
//! assert_eq!(aligned.read::<u8>(&grid.bounds())?[..8], [1, 2, 3, 4, 5, 6, 7, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Modules depend only on modules of lower layers. The test `tests/house/layers.rs` contains the
//! table of layers and fails if a module uses a module of a higher layer.

pub mod blocks;
#[cfg(feature = "cli")]
pub mod cli;
pub mod deform;
pub mod device;
pub mod downsample;
pub mod features;
pub mod files;
pub mod filter;
pub mod fingerprint;
pub mod flow;
pub mod fuse;
pub mod geom;
#[cfg(test)]
mod golden;
pub mod inspect;
pub mod interchange;
pub mod invmap;
pub mod local_affine;
pub mod mask;
pub mod matching;
pub mod mesh;
pub mod metric;
pub mod phantom;
pub mod quote;
pub mod refine;
pub mod report;
pub mod stitch;
pub mod store;
pub mod table;
pub mod tiles;
pub mod transcode;
pub mod transform;
pub mod volume;
pub mod warp;
