//! Decoders of stored bytes, shared by Zarr and N5.
//!
//! Every decoder is given the number of bytes that it may produce. Buffers grow with the decoded
//! bytes, not with the size stated in a file, so that a corrupt or hostile file costs the memory of
//! a few chunks at most.

mod checksums;
mod filters;
mod step;
mod streams;

pub(in crate::volume) use step::{KNOWN, Step, decode, encoded};
pub(in crate::volume) use streams::Stream;

/// The number of bytes that a decoder has to produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::volume) enum Size {
    /// Exactly this many.
    Exactly(usize),
    /// At most this many.
    AtMost(usize),
}

impl Size {
    /// The largest permitted number.
    pub(in crate::volume) fn max(self) -> usize {
        match self {
            Self::Exactly(size) | Self::AtMost(size) => size,
        }
    }

    /// Checks a number of decoded bytes.
    ///
    /// # Errors
    /// A message with the found and the expected number.
    pub(in crate::volume) fn check(self, found: usize) -> Result<(), String> {
        match self {
            Self::Exactly(size) if found == size => Ok(()),
            Self::AtMost(size) if found <= size => Ok(()),
            _ if found > self.max() => {
                Err(format!("it decodes to more than the {} bytes of a chunk", self.max()))
            }
            _ => Err(format!("it decodes to {found} bytes, a chunk has {}", self.max())),
        }
    }
}
