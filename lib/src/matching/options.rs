//! What can be asked of matching and of the fit, as flags.

use clap::ArgAction;

use crate::geom::Model;

/// How contexts are compared and matched.
#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(next_help_heading = "Matching")]
pub struct MatchOptions {
    /// Two spots match only if their contexts correlate by more than this
    #[arg(long, value_name = "R", default_value_t = 0.7)]
    pub match_threshold: f64,

    /// Half the width of a context in voxels: a number, or z,y,x
    #[arg(long, value_name = "N", default_value = "12", value_parser = parse_radius)]
    pub context_radius: [usize; 3],

    /// Only spots at most this far apart, before alignment, can match [micrometres]
    #[arg(long, value_name = "UM")]
    pub max_distance: Option<f64>,

    /// Keep a match only if each spot is the other's best [default: true, with --exact false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    pub mutual: Option<bool>,

    /// Place the moving point of each match between voxels [default: true, with --exact false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
          default_missing_value = "true", action = ArgAction::Set)]
    pub subvoxel: Option<bool>,

    /// Match as BigStream does: positions cut to voxels, one direction, whole voxels
    #[arg(long)]
    pub exact: bool,
}

impl Default for MatchOptions {
    fn default() -> Self {
        Self {
            match_threshold: 0.7,
            context_radius: [12; 3],
            max_distance: None,
            mutual: None,
            subvoxel: None,
            exact: false,
        }
    }
}

impl MatchOptions {
    /// Whether matches must be best in both directions.
    pub fn mutual(&self) -> bool {
        self.mutual.unwrap_or(!self.exact)
    }

    /// Whether matches are placed between voxels.
    pub fn subvoxel(&self) -> bool {
        self.subvoxel.unwrap_or(!self.exact)
    }
}

/// An estimator whose results are reproduced bit for bit or nearly so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Compat {
    /// OpenCV's `estimateAffine3D`: its random numbers, at most 1000 samples, no refinement.
    Opencv,
}

/// How a map is fitted to matches.
#[derive(Clone, Debug, PartialEq, clap::Args)]
#[command(next_help_heading = "Fit")]
pub struct EstimateOptions {
    /// Which maps are considered
    #[arg(long, value_enum, default_value = "affine")]
    pub model: Model,

    /// Consider maps that turn left into right
    #[arg(long)]
    pub allow_reflection: bool,

    /// A match fits if the map takes its fixed point this close to its moving point [micrometres]
    #[arg(long, value_name = "UM", default_value_t = 2.0)]
    pub align_threshold: f64,

    /// Stop sampling when a better map has been missed with less than one minus this chance
    #[arg(long, value_name = "P", default_value_t = 0.999)]
    pub confidence: f64,

    /// Draw no more samples than this
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    pub max_iterations: usize,

    /// Fewer matches are an error
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub min_matches: usize,

    /// Fewer matches that fit are an error
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub min_inliers: usize,

    /// A map that stretches or shrinks any direction by more than this factor is an error
    #[arg(long, value_name = "FACTOR", default_value_t = 2.0)]
    pub max_scale: f64,

    /// A map whose largest stretch exceeds its smallest by more than this share is an error
    #[arg(long, value_name = "SHARE", default_value_t = 0.5)]
    pub max_shear: f64,

    /// Reproduce another estimator
    #[arg(long, value_enum, value_name = "ESTIMATOR")]
    pub compat: Option<Compat>,
}

impl Default for EstimateOptions {
    fn default() -> Self {
        Self {
            model: Model::Affine,
            allow_reflection: false,
            align_threshold: 2.0,
            confidence: 0.999,
            max_iterations: 20_000,
            min_matches: 12,
            min_inliers: 8,
            max_scale: 2.0,
            max_shear: 0.5,
            compat: None,
        }
    }
}

fn parse_radius(text: &str) -> Result<[usize; 3], String> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|part| part.trim().parse()).collect();
    match numbers.as_deref() {
        Ok(&[r]) => Ok([r; 3]),
        Ok(&[z, y, x]) => Ok([z, y, x]),
        _ => Err("wanted a whole number of voxels, or three as z,y,x".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        matching: MatchOptions,
        #[command(flatten)]
        estimate: EstimateOptions,
    }

    #[test]
    fn no_flags_mean_the_defaults() {
        let flags = Flags::try_parse_from(["test"]).unwrap();
        assert_eq!(flags.matching, MatchOptions::default());
        assert_eq!(flags.estimate, EstimateOptions::default());
    }

    #[test]
    fn flags_say_what_they_mean() {
        let flags = Flags::try_parse_from(
            "test --exact --mutual --context-radius 6,12,12 --model rigid --compat opencv"
                .split(' '),
        )
        .unwrap();
        assert_eq!(flags.matching.context_radius, [6, 12, 12]);
        assert!(flags.matching.mutual() && !flags.matching.subvoxel());
        assert_eq!(flags.estimate.model, Model::Rigid);
        assert_eq!(flags.estimate.compat, Some(Compat::Opencv));
        assert!(Flags::try_parse_from(["test", "--context-radius", "3,4"]).is_err());
        assert!(!Flags::try_parse_from(["test", "--mutual=false"]).unwrap().matching.mutual());
    }
}
