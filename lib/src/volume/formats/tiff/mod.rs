//! TIFF and `BigTIFF`: files with many pages, stacks of files, and the metadata of ImageJ, tifffile
//! and OME-TIFF.
//!
//! `directory` reads tags, `form` interprets them, `pages` lists a file, `series` finds the page of
//! each plane, `decode` decompresses, `read` is the source of voxels.

mod decode;
mod description;
mod directory;
mod form;
mod names;
mod ome;
mod pages;
mod planes;
mod read;
mod series;
#[cfg(test)]
mod tests;
mod write;

pub(in crate::volume) use read::{Opened, open, open_stack};
pub(in crate::volume) use write::Plan;

/// Whether a file begins with the signature of TIFF or `BigTIFF`.
pub(in crate::volume) fn is_tiff(start: &[u8]) -> bool {
    [b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"].iter().any(|m| start.starts_with(*m))
}
