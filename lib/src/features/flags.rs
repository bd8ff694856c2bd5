//! The command-line flags of spot detection, for programs to flatten into their own. The struct has
//! no doc comment because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{Detector, Options, Rank};
use crate::geom::Grid;

/// The upper limit of a radius, micrometres or voxels.
const LARGEST_RADIUS: f64 = 1e9;

#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Radii of the blobs, micrometres; voxels with --exact [default: 3 to 10 voxels; 6..20]
    #[arg(long, value_name = "MIN..MAX", value_parser = parse_range)]
    pub radius: Option<[f64; 2]>,
    /// Keep so many, the best
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub max_spots: usize,
    /// What makes a spot better
    #[arg(long, value_enum, default_value_t = Rank::Intensity)]
    pub rank: Rank,
    /// Drop spots nearer to a face of the volume, unit of --radius [default: 3 voxels; 12]
    #[arg(long, value_name = "LENGTH")]
    pub border: Option<f64>,
    /// Remove what is wider than the largest blob first (white top-hat)
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    pub background_subtract: bool,
    /// Clamp these fractions of the darkest and brightest voxels first; the volume is read twice
    /// more
    #[arg(long, value_name = "LOW,HIGH", value_parser = fractions)]
    pub winsorize: Option<[f64; 2]>,
    /// Least filter response, in the volume's intensities
    #[arg(long, value_name = "RESPONSE", default_value_t = 0.0)]
    pub threshold: f64,
    /// Least filter response as a fraction of the volume's greatest
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    pub threshold_relative: f64,
    /// Of two spots that share more than this of the smaller, keep the larger [default: 0.5; 0.8]
    #[arg(long, value_name = "FRACTION")]
    pub overlap: Option<f64>,
    /// Which filter finds blobs
    #[arg(long, value_enum, default_value_t = Detector::Log)]
    pub detector: Detector,
    /// Give the integer voxels that BigStream 2021 gives (its defaults stand after the semicolons)
    #[arg(long)]
    pub exact: bool,
}

impl Flags {
    /// The options selected by the flags, for a volume of this grid.
    pub fn options(&self, grid: &Grid) -> Options {
        let like = if self.exact { Options::exact() } else { Options::for_grid(grid) };
        Options {
            radius: self.radius.unwrap_or(like.radius),
            detector: self.detector,
            exact: self.exact,
            background_subtract: self.background_subtract,
            winsorize: self.winsorize,
            threshold: self.threshold,
            threshold_relative: self.threshold_relative,
            overlap: self.overlap.unwrap_or(like.overlap),
            border: self.border.unwrap_or(like.border),
            max_spots: self.max_spots,
            rank: self.rank,
        }
    }
}

pub fn parse_range(text: &str) -> Result<[f64; 2], String> {
    pair(text, "..")
        .filter(|range| range.iter().all(|radius| *radius <= LARGEST_RADIUS))
        .ok_or_else(|| format!("'{text}' is no range MIN..MAX such as 4..12"))
}

fn fractions(text: &str) -> Result<[f64; 2], String> {
    pair(text, ",").ok_or_else(|| format!("'{text}' is no LOW,HIGH such as 0.01,0.01"))
}

fn pair(text: &str, between: &str) -> Option<[f64; 2]> {
    let (low, high) = text.split_once(between)?;
    let [low, high] = [low, high].map(|text| text.trim().parse().ok());
    Some([low?, high?])
}
