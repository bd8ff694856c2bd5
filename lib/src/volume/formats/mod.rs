//! The formats of arrays, one module each: how they are opened, read and written.
//!
//! `zarr`, `n5`: chunks in a folder. `tiff`, `png`: one file or a stack of files. `npy`: one file.
//! `sections`: a table of images. `flat` reads uncompressed files, `codecs` decodes chunks, `bits`
//! unpacks samples that are not whole bytes.

pub(in crate::volume) mod bits;
pub(in crate::volume) mod codecs;
pub(in crate::volume) mod flat;
pub(in crate::volume) mod n5;
pub(in crate::volume) mod npy;
pub(in crate::volume) mod png;
pub(in crate::volume) mod sections;
pub(in crate::volume) mod tiff;
pub(in crate::volume) mod zarr;
