//! The command-line flags of spot detection, for programs to flatten into their own flags. The
//! struct has no doc comment because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{Detector, Options, Rank};
use crate::geom::Grid;

/// The upper limit of a radius, micrometres or voxels.
const MAX_RADIUS: f64 = 1e9;

#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Range of blob radii, micrometres; voxels with --exact [default: 3 to 10 voxels; 6..20]
    #[arg(long, value_name = "MIN..MAX", value_parser = parse_range)]
    pub radius: Option<[f64; 2]>,
    /// Keep at most this many spots, the best first
    #[arg(long, value_name = "N", default_value_t = 5000)]
    pub max_spots: usize,
    /// Value by which spots are ranked, the highest first
    #[arg(long, value_enum, default_value_t = Rank::Intensity)]
    pub rank: Rank,
    /// Drop spots closer than this to a face of the volume, in the unit of --radius [default: 3
    /// voxels; 12]
    #[arg(long, value_name = "LENGTH")]
    pub border: Option<f64>,
    /// First remove structures wider than the largest blob (white top-hat)
    #[arg(long, value_name = "BOOL", default_value_t = true, num_args = 0..=1,
          default_missing_value = "true", action = clap::ArgAction::Set)]
    pub background_subtract: bool,
    /// First clamp these fractions of the darkest and brightest voxels; the volume is then read two
    /// more times
    #[arg(long, value_name = "LOW,HIGH", value_parser = fractions)]
    pub winsorize: Option<[f64; 2]>,
    /// Minimum filter response, in units of the volume's intensity
    #[arg(long, value_name = "RESPONSE", default_value_t = 0.0)]
    pub threshold: f64,
    /// Minimum filter response, as a fraction of the maximum response in the volume
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    pub threshold_relative: f64,
    /// Of two spots that share more than this fraction of the smaller one, keep only the larger
    /// [default: 0.5; 0.8]
    #[arg(long, value_name = "FRACTION")]
    pub overlap: Option<f64>,
    /// Filter that detects blobs
    #[arg(long, value_enum, default_value_t = Detector::Log)]
    pub detector: Detector,
    /// Return the integer voxels of BigStream 2021 (its defaults are given after the semicolons)
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

/// Parses a range of radii, `MIN..MAX`.
///
/// # Errors
/// A message that states the expected form.
pub fn parse_range(text: &str) -> Result<[f64; 2], String> {
    pair(text, "..")
        .filter(|range| range.iter().all(|radius| *radius <= MAX_RADIUS))
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
