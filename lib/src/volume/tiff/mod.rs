//! TIFF: multi-page files, stacks of files, and the metadata of ImageJ and OME-TIFF.

mod description;
mod read;
mod write;

pub(super) use description::Description;
pub(super) use read::{PageStack, first_page, open};
pub(super) use write::Plan;

/// Whether a file begins as TIFF or `BigTIFF` files do.
pub(in crate::volume) fn is_tiff(start: &[u8]) -> bool {
    [b"II\x2a\0", b"MM\0\x2a", b"II\x2b\0", b"MM\0\x2b"].iter().any(|m| start.starts_with(*m))
}
