//! The command-line flags of the alignment, which programs flatten into their own flags. The struct
//! has no doc comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use std::str::FromStr;

use super::{Options, SearchOptions};
use crate::blocks::Error;
use crate::geom::Model;
use crate::metric::SimilarityMeasure;

/// The smallest and the largest scale that can be searched.
const SCALES: [f64; 2] = [1e-3, 1e3];
/// Maximum number of voxels that can be compared.
const MAX_SAMPLES: usize = 1_000_000_000_000;

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScaleRange(pub [f64; 2]);

impl FromStr for ScaleRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no range of scales from 0.001 to 1000 such as 0.2..5");
        let (low, high) = text.split_once("..").ok_or_else(wrong)?;
        let parse = |text: &str| text.trim().parse::<f64>().map_err(|_| wrong());
        let (low, high) = (parse(low)?, parse(high)?);
        let [least, most] = SCALES;
        let sound = low >= least && low <= high && high <= most;
        if sound { Ok(Self([low, high])) } else { Err(wrong()) }
    }
}

/// Number of voxels that are compared; `None` for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleCount(pub Option<usize>);

impl FromStr for SampleCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(None));
        }
        match text.parse() {
            Ok(count) if (100..=MAX_SAMPLES).contains(&count) => Ok(Self(Some(count))),
            _ => Err(format!("'{text}' is neither 'all' nor a number from 100")),
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Alignment")]
pub struct Flags {
    /// Kind of map by which the initial transform is corrected
    #[arg(long, value_enum, default_value = "affine")]
    pub model: Model,
    /// Similarity measure that is optimised
    #[arg(long, value_enum, default_value = "correlation")]
    pub metric: SimilarityMeasure,
    /// Number of resolutions, from coarse to fine, each twice as fine as the one before
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub levels: usize,
    /// Finest resolution that is used, micrometres of the fixed volume [default: its voxels]
    #[arg(long, value_name = "UM")]
    pub resolution: Option<f64>,
    /// Number of voxels that are compared, spread evenly and chosen at random by --seed, or 'all'
    #[arg(long, value_name = "N", default_value = "1000000")]
    pub samples: SampleCount,
    /// Maximum number of steps at each resolution
    #[arg(long, value_name = "N", default_value_t = 60)]
    pub max_iterations: usize,
    /// Reject a result in which the volumes overlap by less than this fraction of the smaller one
    #[arg(long, value_name = "FRACTION", default_value_t = 0.2)]
    pub min_overlap: f64,
    /// Reject a refinement that stretches or shrinks any direction by more than this factor
    #[arg(long, value_name = "FACTOR", default_value_t = 1.5)]
    pub max_scale: f64,
    /// Reject a map unless its similarity exceeds that of wrong maps (rotated, mirrored, shifted)
    /// by this many of their standard deviations; 0 accepts any map [default: 12; 30 for
    /// mutual-information]
    #[arg(long, value_name = "DEVIATIONS")]
    pub min_evidence: Option<f64>,
    /// Without a good initial transform: try this many rotated and scaled versions, each at its
    /// best shift
    #[arg(long, value_name = "N", help_heading = "Search")]
    pub search: Option<usize>,
    /// Search rotations up to this angle, degrees
    #[arg(long, value_name = "DEGREES", default_value_t = 180.0, help_heading = "Search")]
    pub max_rotation: f64,
    /// Search shifts of the centre up to this distance along each axis, micrometres [default: all]
    #[arg(long, value_name = "UM", help_heading = "Search")]
    pub max_translation: Option<f64>,
    /// Search scales in this range: lengths in the moving volume divided by those in the fixed one
    #[arg(long, value_name = "MIN..MAX", default_value = "1..1", help_heading = "Search")]
    pub scale_range: ScaleRange,
    /// Also search mirror images
    #[arg(long, help_heading = "Search")]
    pub allow_reflection: bool,
    /// Refine at most this many of the versions, the best first
    #[arg(long, value_name = "N", default_value_t = 24, help_heading = "Search")]
    pub keep: usize,
}

impl Flags {
    /// Converts the flags to options.
    ///
    /// # Errors
    /// [`Error::Usage`] for an invalid value.
    pub fn options(&self) -> Result<Options, Error> {
        let refuse = |flag: &str, found: String, wanted: &str| {
            Err(Error::Usage(format!("{flag} {found}: {wanted}")))
        };
        let positive = |v: f64| v > 0.0 && v.is_finite();
        if !(1..=12).contains(&self.levels) {
            return refuse("--levels", self.levels.to_string(), "wanted 1 to 12");
        }
        if let Some(v) = self.resolution.filter(|v| !positive(*v)) {
            return refuse("--resolution", v.to_string(), "wanted a length above 0 um");
        }
        if !(self.min_overlap > 0.0 && self.min_overlap <= 1.0) {
            let found = self.min_overlap.to_string();
            return refuse("--min-overlap", found, "wanted a share above 0, at most 1");
        }
        if !(self.max_scale > 1.0 && self.max_scale.is_finite()) {
            return refuse("--max-scale", self.max_scale.to_string(), "wanted a factor above 1");
        }
        let min_evidence = self.min_evidence.unwrap_or(Options::min_evidence_of(self.metric));
        if !(min_evidence >= 0.0 && min_evidence.is_finite()) {
            return refuse("--min-evidence", min_evidence.to_string(), "wanted a number from 0");
        }
        if !(0.0..=180.0).contains(&self.max_rotation) {
            return refuse("--max-rotation", self.max_rotation.to_string(), "wanted 0 to 180");
        }
        if let Some(v) = self.max_translation.filter(|v| !(*v >= 0.0 && v.is_finite())) {
            return refuse("--max-translation", v.to_string(), "wanted a length in um");
        }
        if self.search == Some(0) || self.keep == 0 {
            let flag = if self.keep == 0 { "--keep" } else { "--search" };
            return refuse(flag, "0".to_owned(), "wanted a number from 1");
        }
        let search = self.search.map(|starts| SearchOptions {
            starts,
            max_rotation: self.max_rotation.to_radians(),
            max_translation: self.max_translation,
            scale_range: self.scale_range.0,
            allow_reflection: self.allow_reflection,
            keep: self.keep,
        });
        Ok(Options {
            metric: self.metric,
            model: self.model,
            levels: self.levels,
            resolution: self.resolution,
            samples: self.samples.0,
            iterations: self.max_iterations,
            min_overlap: self.min_overlap,
            max_scale: self.max_scale,
            min_evidence,
            search,
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: Flags,
    }

    fn options(line: &str) -> Result<Options, String> {
        let words = std::iter::once("x").chain(line.split_whitespace());
        let line = Line::try_parse_from(words).map_err(|e| e.to_string())?;
        line.flags.options().map_err(|e| e.to_string())
    }

    #[test]
    fn no_flags_mean_the_defaults() {
        assert_eq!(options("").unwrap(), Options::default());
    }

    #[test]
    fn the_evidence_wanted_follows_the_metric_unless_it_is_given() {
        let wanted = |line: &str| options(line).unwrap().min_evidence;
        assert_eq!(wanted("--metric mean-squares"), 12.0);
        assert_eq!(wanted("--metric mutual-information"), 30.0);
        assert_eq!(wanted("--metric mutual-information --min-evidence 5"), 5.0);
    }

    #[test]
    fn flags_say_what_they_mean_and_refuse_what_makes_no_sense() {
        let all =
            "--search 50 --scale-range 0.2..5 --allow-reflection --max-rotation 90 --samples all";
        let found = options(all).unwrap();
        let search = found.search.unwrap();
        assert_eq!((search.starts, search.scale_range), (50, [0.2, 5.0]));
        assert!((search.max_rotation - std::f64::consts::FRAC_PI_2).abs() < 1e-12);
        assert_eq!(found.samples, None);
        for bad in [
            "--levels 0",
            "--resolution -1",
            "--resolution nan",
            "--min-overlap 0",
            "--min-overlap 1.5",
            "--max-scale 1",
            "--min-evidence -1",
            "--min-evidence nan",
            "--max-rotation 400",
            "--max-translation -3",
            "--scale-range 3..2",
            "--scale-range 0..2",
            "--scale-range 2",
            "--samples 5",
            "--samples some",
            "--search 0",
            "--keep 0",
        ] {
            assert!(options(bad).is_err(), "{bad}");
        }
    }
}
