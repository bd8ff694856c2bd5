//! The command-line flags of local affine alignment, for programs to flatten into their own. The
//! struct has no doc comment because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::Options;
use crate::features;
use crate::geom::Grid;
use crate::matching::ContextRadius;

#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Range of spot radii, micrometres [default: 3 to 10 voxels]
    #[arg(long, value_name = "MIN..MAX", value_parser = features::parse_range)]
    pub radius: Option<[f64; 2]>,
    /// Half the side of the cubes that are compared: micrometres, or voxels as 10vox
    /// [default: 10vox, fewer along axes that are short or have large voxels]
    #[arg(long, value_name = "UM")]
    pub context_radius: Option<ContextRadius>,
    /// Maximum error of --initial, micrometres [default: 6 voxels]
    #[arg(long, value_name = "UM")]
    pub max_distance: Option<f64>,
    /// Minimum correlation of a match
    #[arg(long, value_name = "R", default_value_t = 0.7)]
    pub match_threshold: f64,
    /// How strongly neighbouring blocks are made to agree: the face between two weighs like this
    /// many matches
    #[arg(long, value_name = "N", default_value_t = super::DEFAULT_STIFFNESS)]
    pub stiffness: f64,
    /// Minimum number of inliers for a block to count as `fitted`, and of matches in the whole
    /// volume
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub min_matches: usize,
    /// Half the width of the blend between blocks, as a fraction of a block
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5)]
    pub overlap: f64,
}

impl Flags {
    /// The options selected by the flags, for volumes of these grids and the initial map named
    /// `initial`.
    pub fn options(&self, fixed: &Grid, moving: &Grid, initial: String) -> Options {
        let usual = Options::new(fixed, moving);
        Options {
            initial,
            radius: self.radius.unwrap_or(usual.radius),
            context_radius: self.context_radius,
            max_distance: self.max_distance.unwrap_or(usual.max_distance),
            match_threshold: self.match_threshold,
            stiffness: self.stiffness,
            min_matches: self.min_matches,
            overlap: self.overlap,
        }
    }
}
