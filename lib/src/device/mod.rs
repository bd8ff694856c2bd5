//! Where kernels run, and what they may use there: memory as sums of named terms, threads by permits.

mod cost;
mod permits;

pub use cost::{Cost, megabytes};
pub use permits::{Permits, waiting};

/// Whether kernels that are compiled for it use fused multiply-add on this processor: a result is then rounded
/// once where it is rounded twice elsewhere.
pub fn fuses_multiply_add() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// The processor that a kernel runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU: every kernel has this form.
    #[default]
    Cpu,
}
