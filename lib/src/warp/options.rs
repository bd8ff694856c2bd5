//! The parameters of resampling.

/// How values between voxels are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Interpolation {
    /// Value of the nearest voxel: for labels.
    Nearest,
    /// Trilinear.
    #[default]
    Linear,
    /// Cubic B-spline through the voxels.
    Cubic,
    /// Windowed sinc (Lanczos, radius 3): sharper than the spline, but slower.
    Lanczos,
}

/// How values are rounded to integers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Rounding {
    /// To the nearest integer, halves away from zero.
    #[default]
    Nearest,
    /// Towards zero, as older systems do.
    Truncate,
}

/// The parameters of resampling.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Options {
    /// The interpolation between voxels.
    pub interpolation: Interpolation,
    /// The rounding of values to integers.
    pub rounding: Rounding,
    /// The value written outside the moving volume.
    #[serde(serialize_with = "crate::fingerprint::any_number")]
    pub fill: f64,
    /// Whether to clamp to the nearest edge voxel outside the moving volume. `fill` is then used
    /// only where the transform is undefined.
    pub extrapolate: bool,
    /// Whether the chain maps from the moving volume to the output grid, and must be inverted.
    pub backwards: bool,
}
