//! Where kernels run, and what they may use there: memory as sums of named terms, threads by permits.

mod cost;
mod permits;

pub use cost::{Cost, megabytes};
pub use permits::{Permits, waiting};

/// The processor that a kernel runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU: every kernel has this form.
    #[default]
    Cpu,
}
