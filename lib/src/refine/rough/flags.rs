//! The command-line flags of the rough alignment, which programs flatten into their own. The struct
//! has no doc comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::RoughOptions;
use crate::blocks::Error;
use crate::metric::SimilarityMeasure;
use crate::refine::flags::ScaleRange;

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Alignment")]
pub struct RoughFlags {
    /// Compare each section with up to this many sections before it
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub distance: usize,
    /// Search rotations up to this angle, degrees
    #[arg(long, value_name = "DEGREES", default_value_t = 180.0)]
    pub max_rotation: f64,
    /// Search scales in this range: lengths in the earlier section divided by those in the later one
    #[arg(long, value_name = "MIN..MAX", default_value = "1..1")]
    pub scale_range: ScaleRange,
    /// Also search mirror images
    #[arg(long)]
    pub allow_reflection: bool,
    /// Maximum number of pieces of a broken section, each with a map of its own
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub pieces: usize,
    /// Similarity measure that is optimised
    #[arg(long, value_enum, default_value = "correlation")]
    pub metric: SimilarityMeasure,
    /// Reject a pair of sections that overlap by less than this fraction of the smaller one
    #[arg(long, value_name = "FRACTION", default_value_t = 0.3)]
    pub min_overlap: f64,
    /// Reject a pair of sections unless its similarity exceeds that of wrong maps (rotated,
    /// mirrored, shifted) by this many of their standard deviations [default: 12; 30 for
    /// mutual-information]
    #[arg(long, value_name = "DEVIATIONS")]
    pub min_evidence: Option<f64>,
    /// The section that is not moved, counted from 0 [default: the middle one]
    #[arg(long, value_name = "Z")]
    pub reference: Option<usize>,
}

impl RoughFlags {
    /// Converts the flags to options.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid value.
    pub fn options(&self) -> Result<RoughOptions, Error> {
        let refuse = |flag: &str, found: String, wanted: &str| {
            Err(Error::Usage(format!("{flag} {found} is out of range: wanted {wanted}")))
        };
        if !(1..=100).contains(&self.distance) {
            return refuse("--distance", self.distance.to_string(), "1 to 100 sections");
        }
        if !(0.0..=180.0).contains(&self.max_rotation) {
            return refuse("--max-rotation", self.max_rotation.to_string(), "0 to 180 degrees");
        }
        if !(1..=8).contains(&self.pieces) {
            return refuse("--pieces", self.pieces.to_string(), "1 to 8");
        }
        if !(self.min_overlap > 0.0 && self.min_overlap <= 1.0) {
            let found = self.min_overlap.to_string();
            return refuse("--min-overlap", found, "a fraction above 0, at most 1");
        }
        let usual = crate::refine::Options::min_evidence_of(self.metric);
        let min_evidence = self.min_evidence.unwrap_or(usual);
        if !(min_evidence >= 0.0 && min_evidence.is_finite()) {
            return refuse("--min-evidence", min_evidence.to_string(), "a number from 0");
        }
        Ok(RoughOptions {
            distance: self.distance,
            max_rotation: self.max_rotation.to_radians(),
            scale_range: self.scale_range.0,
            allow_reflection: self.allow_reflection,
            pieces: self.pieces,
            metric: self.metric,
            min_overlap: self.min_overlap,
            min_evidence,
            reference: self.reference,
        })
    }
}
