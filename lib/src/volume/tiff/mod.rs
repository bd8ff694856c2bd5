//! TIFF and `BigTIFF`: files of many pages, stacks of files, and what ImageJ, tifffile and OME-TIFF
//! say in them.
//!
//! `directory` reads tags, `form` what they mean, `pages` lists a file, `series` finds the page of
//! each plane, `decode` undoes compression, `read` is the source of voxels.

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

pub(super) use read::{Opened, open, open_stack};
pub(super) use write::Plan;

/// Whether a file begins as TIFF or `BigTIFF` files do.
pub(in crate::volume) fn is_tiff(start: &[u8]) -> bool {
    [b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"].iter().any(|m| start.starts_with(*m))
}
