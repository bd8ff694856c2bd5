//! Where kernels run.

/// The processor that a kernel runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The CPU: every kernel has this form.
    #[default]
    Cpu,
}
