//! Decoders of stored bytes, which Zarr and N5 share.
//!
//! Every decoder is told how many bytes it may produce. A buffer grows with the bytes that were
//! decoded, not with those that a file claims, so that a damaged or hostile file costs the memory of
//! a few chunks at most.

mod checksums;
mod filters;
mod step;
mod streams;

pub(super) use step::{KNOWN, Step, encoded, undo};
pub(super) use streams::Stream;

/// How many bytes a decoder has to produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// This many.
    Exactly(usize),
    /// Any number up to this.
    AtMost(usize),
}

impl Size {
    /// The largest number that is right.
    pub(super) fn most(self) -> usize {
        match self {
            Self::Exactly(size) | Self::AtMost(size) => size,
        }
    }

    /// Whether so many bytes are right.
    ///
    /// # Errors
    /// What was found and what was wanted.
    pub(super) fn check(self, found: usize) -> Result<(), String> {
        match self {
            Self::Exactly(size) if found == size => Ok(()),
            Self::AtMost(size) if found <= size => Ok(()),
            _ if found > self.most() => {
                Err(format!("it decodes to more than the {} bytes of a chunk", self.most()))
            }
            _ => Err(format!("it decodes to {found} bytes, a chunk has {}", self.most())),
        }
    }
}
