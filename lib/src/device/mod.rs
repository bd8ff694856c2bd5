//! The device on which a kernel runs, its memory use as a sum of named terms, and permits that
//! limit the number of computing threads.

mod cost;
mod permits;

pub use cost::{Cost, megabytes};
pub use permits::{Permits, waiting};

/// Whether kernels that have a version compiled for AVX2 and FMA use it on this processor, and so
/// compute with fused multiply-add. A fused operation rounds once, a separate multiplication and
/// addition twice.
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

/// The processor on which a kernel runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU; every kernel has a CPU implementation.
    #[default]
    Cpu,
}
