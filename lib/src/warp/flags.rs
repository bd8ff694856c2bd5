//! The command-line flags of resampling, for programs to flatten into their own. The struct has no
//! doc comment because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{Interpolation, Options, Rounding};

#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// How values between voxels are computed
    #[arg(long, value_enum, default_value = "linear")]
    pub interpolation: Interpolation,
    /// Value outside the moving volume, and where the transform is undefined
    #[arg(long, value_name = "VALUE", default_value_t = 0.0)]
    pub fill: f64,
    /// Extrapolate with the nearest voxel of the moving volume instead of the fill value
    #[arg(long, conflicts_with = "fill")]
    pub extrapolate: bool,
    /// How values are rounded to integers
    #[arg(long, value_enum, default_value = "nearest")]
    pub rounding: Rounding,
}

impl Flags {
    /// The options selected by the flags.
    pub fn options(&self) -> Options {
        let Self { interpolation, fill, extrapolate, rounding } = *self;
        Options { interpolation, rounding, fill, extrapolate, backwards: false }
    }
}
