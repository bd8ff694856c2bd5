//! TIFF: multi-page files, stacks of files, and the metadata of ImageJ and OME-TIFF.

mod description;
mod read;
mod write;

pub(super) use description::Description;
pub(super) use read::{PageStack, first_page, open};
pub(super) use write::Plan;
