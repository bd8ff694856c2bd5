//! The command-line flags of fusion, which programs flatten into their own. The struct has no doc
//! comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{Blend, Options};
use crate::warp::Interpolation;

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Fusion")]
pub struct Flags {
    /// What a pixel becomes that several tiles show
    #[arg(long, value_enum, default_value = "linear")]
    pub blend: Blend,
    /// Width of the ramps at the borders of tiles [default: 10 % of the shorter side of the tiles]
    #[arg(long, value_name = "PIXELS")]
    pub blend_width: Option<f64>,
    /// Interpolation of the tiles
    #[arg(long, value_enum, default_value = "linear")]
    pub interpolation: Interpolation,
    /// Value of pixels that no tile shows
    #[arg(long, value_name = "VALUE", default_value_t = 0.0)]
    pub fill: f64,
    /// Leave out tiles that no link connects to the others
    #[arg(long)]
    pub linked_only: bool,
}

impl Flags {
    /// The options selected by the flags.
    ///
    /// * `channel`: the channel of the tiles that is fused
    pub fn options(&self, channel: Option<usize>) -> Options {
        Options {
            blend: self.blend,
            width: self.blend_width,
            interpolation: self.interpolation,
            fill: self.fill,
            linked_only: self.linked_only,
            channel,
        }
    }
}
