//! The command-line flags of masks, which programs flatten into their own. The struct has no doc
//! comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{Defects, Options, Tone};

/// The tone of a kind of defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ToneFlag {
    /// Darker than the tissue
    Dark,
    /// Brighter than the tissue
    Bright,
    /// There are none
    None,
}

impl ToneFlag {
    fn tone(self) -> Option<Tone> {
        match self {
            Self::Dark => Some(Tone::Dark),
            Self::Bright => Some(Tone::Bright),
            Self::None => None,
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Masks (lengths in pixels of the mask)")]
pub struct Flags {
    /// Pixels along y and x that become one of the mask [default: the least power of 2 with which a
    /// mask has at most 2048 pixels along each axis]
    #[arg(long, value_name = "N")]
    pub reduce: Option<usize>,
    /// Least local contrast of tissue, grey values: the mean difference of two Gaussians (sigma 1 and
    /// 4) over 17 x 17 pixels [default: where the histogram of the stack has its valley]
    #[arg(long, value_name = "GREY")]
    pub min_contrast: Option<f64>,
    /// Close gaps of the tissue with a disc of this radius
    #[arg(long, value_name = "PIXELS", default_value_t = 16.0)]
    pub close: f64,
    /// Drop smaller islands of tissue, and fill smaller holes
    #[arg(long, value_name = "PIXELS", default_value_t = 1000)]
    pub min_area: usize,
    /// What is darker than 97 % of the tissue, or brighter, by more than N times the distance of this
    /// limit from the median is a defect
    #[arg(long, value_name = "N", default_value_t = 0.7)]
    pub outlier: f64,
    /// Defects that are lines of this tone are wrinkles; others are dirt, and excluded
    #[arg(long, value_enum, default_value = "dark")]
    pub wrinkles: ToneFlag,
    /// Defects that are lines of this tone are tears; others are charging, and excluded
    #[arg(long, value_enum, default_value = "bright")]
    pub tears: ToneFlag,
    /// Groups of fewer such pixels are not defects
    #[arg(long, value_name = "PIXELS", default_value_t = 50)]
    pub min_defect: usize,
    /// Enlarge defects by this distance
    #[arg(long, value_name = "PIXELS", default_value_t = 2.0)]
    pub grow: f64,
    /// Exclude a margin of this width along the border of the tissue and of the section
    #[arg(long, value_name = "PIXELS", default_value_t = 0.0)]
    pub edge: f64,
}

impl Flags {
    /// The options selected by the flags.
    pub fn options(&self) -> Options {
        Options {
            reduce: self.reduce,
            min_contrast: self.min_contrast,
            close: self.close,
            min_area: self.min_area,
            outlier: self.outlier,
            defects: Defects {
                wrinkles: self.wrinkles.tone(),
                tears: self.tears.tone(),
                min_area: self.min_defect,
                grow: self.grow,
            },
            edge: self.edge,
        }
    }
}
