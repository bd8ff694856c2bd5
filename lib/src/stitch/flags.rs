//! The command-line flags of stitching, which programs flatten into their own. The struct has no doc
//! comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{Options, StitchModel};

/// Which displacements of tiles are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ModelFlag {
    /// The simplest that predicts unseen matches as well as any
    Auto,
    /// Shift each tile
    Translation,
    /// An affine map for each tile
    Affine,
    /// Shift each tile and deform it smoothly
    Elastic,
}

/// Whether all tiles share a distortion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LensFlag {
    /// If unseen matches are predicted better with it
    Auto,
    /// Yes
    Yes,
    /// No
    No,
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Stitching")]
pub struct Flags {
    /// How each tile can be displaced
    #[arg(long, value_enum, default_value = "auto")]
    pub model: ModelFlag,
    /// Whether all tiles have a distortion in common, as that of a lens
    #[arg(long, value_enum, default_value = "auto")]
    pub lens: LensFlag,
    /// Greatest error of a position; pairs that do not fit are searched up to four times as far
    /// [default: 5 % of the longer side of the tiles]
    #[arg(long, value_name = "PIXELS")]
    pub search: Option<f64>,
    /// Side of the patches of an overlap that are matched one by one
    #[arg(long, value_name = "PIXELS", default_value_t = 128)]
    pub patch: usize,
    /// Minimum correlation of a pair of tiles, and of a match; what chance gives must be exceeded too
    #[arg(long, value_name = "R", default_value_t = 0.25)]
    pub min_correlation: f64,
    /// Reject the result (exit code 3) if the residuals of 95 % of the matches are not below this
    #[arg(long, value_name = "PIXELS", default_value_t = 5.0)]
    pub max_residual: f64,
}

impl Flags {
    /// The options selected by the flags.
    ///
    /// * `channel`: the channel of the tiles that is used
    pub fn options(&self, channel: Option<usize>) -> Options {
        Options {
            model: match self.model {
                ModelFlag::Auto => None,
                ModelFlag::Translation => Some(StitchModel::Translation),
                ModelFlag::Affine => Some(StitchModel::Affine),
                ModelFlag::Elastic => Some(StitchModel::Elastic),
            },
            lens: match self.lens {
                LensFlag::Auto => None,
                LensFlag::Yes => Some(true),
                LensFlag::No => Some(false),
            },
            search: self.search,
            patch: self.patch,
            min_correlation: self.min_correlation,
            max_residual: self.max_residual,
            channel,
        }
    }
}
