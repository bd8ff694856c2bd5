//! Elastic meshes that follow the displacements of patches.
//!
//! A mesh has a node at each node of a field of patch displacements, and springs between
//! neighbouring nodes (`springs.rs`), which resist strain and neither shifts nor rotations. Measured
//! displacements pull at the nodes (`matches.rs`, `ties.rs`): those of a volume or of a plane in
//! another one, or those of all sections of a stack in their neighbours, whose meshes then move
//! together. The displacements of the nodes at equilibrium (`rounds.rs`, `solve.rs`) are a field
//! that maps each point of the aligned space to the volume, plane or section.

use serde::Serialize;

use crate::blocks;
use crate::geom::{Grid, UnreachedField};
use crate::transform;
use crate::volume;
use crate::warp;

mod coarsest;
mod conclude;
#[cfg(feature = "cli")]
mod flags;
mod folds;
#[cfg(test)]
mod golden;
mod layout;
mod matches;
mod materials;
mod multigrid;
#[cfg(test)]
mod oracle;
mod rounds;
mod run;
mod solve;
mod sources;
mod springs;
#[cfg(test)]
mod tests;
mod ties;
mod tiles;

#[cfg(feature = "cli")]
pub use flags::Flags;
pub use materials::Materials;
pub use run::relax;

/// Why meshes were not relaxed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of reading or writing a volume.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the block-wise run.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// A chain could not be read or written.
    #[error(transparent)]
    Transform(#[from] transform::Error),
    /// The steps after a field could not be applied.
    #[error(transparent)]
    Warp(#[from] warp::Error),
    /// The steps after a field do not reach it.
    #[error(transparent)]
    Apart(#[from] UnreachedField),
    /// No node has a match.
    #[error(
        "no node has a match: all vectors of the fields are unknown; look at the receipts of flow and clean-flow"
    )]
    NoMatch {
        /// The exit reason: the run is complete but not successful.
        #[source]
        verdict: blocks::ExitReason,
    },
    /// Groups of sections are not connected by matches.
    #[error(
        "the stack falls apart: {groups} are connected by matches that fit to each other; {output} \
         aligns no more than each group in itself; compare sections at more distances (--distance), or search \
         further (flow --search, a first pass of stack.sh with a larger SEARCH)"
    )]
    NotConnected {
        /// The groups, as the subject of the sentence.
        groups: String,
        /// The location of the field.
        output: String,
        /// The exit reason: the run is complete but not successful.
        #[source]
        verdict: blocks::ExitReason,
    },
    /// Meshes fold.
    #[error(
        "the mesh folds at {nodes} nodes, also after the matches there were weakened; clean the fields with \
         tighter limits, or raise --stiffness"
    )]
    Folds {
        /// The number of nodes.
        nodes: u64,
        /// The exit reason: the run is complete but not successful.
        #[source]
        verdict: blocks::ExitReason,
    },
}

/// How meshes are relaxed.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    /// The constant of the springs along x, relative to that of a match with a weight of 1.
    pub stiffness: f64,
    /// Whether the fields compare sections of one stack.
    pub stack: bool,
    /// The sections that do not move.
    pub fixed: Vec<usize>,
    /// The residual at which the weight of a match is a quarter, in section thicknesses times the
    /// distance of the sections; `None` for the default of stacks, and no limit for pairs.
    pub outlier_length: Option<f64>,
    /// Whether matches are weighted by the square of their correlation.
    pub weighted: bool,
    /// The fraction of matches that are left out, to judge the result by their residuals.
    pub hold_out: f64,
    /// How much weaker the springs are where a mask has labels.
    pub materials: Materials,
}

impl Options {
    /// Checks the options for fields with nodes on `grid`.
    ///
    /// # Errors
    /// [`blocks::Error::Usage`] with the value and the range allowed.
    pub fn check(&self, grid: &Grid, planes: bool) -> Result<(), blocks::Error> {
        let refuse = |message: String| Err(blocks::Error::Usage(message));
        // written so that NaN is rejected
        if !(1e-6..=1e9).contains(&self.stiffness) {
            return refuse(format!(
                "--stiffness {} is out of range; wanted 1e-6 to 1e9",
                self.stiffness
            ));
        }
        if self.outlier_length.is_some_and(|length| !(length > 0.0)) {
            return refuse("--outlier-length is out of range; wanted above 0".to_owned());
        }
        if self.outlier_length.is_some() && (grid.planar || !planes) {
            return refuse(
                "--outlier-length is in section thicknesses, and the fields are not those of a stack of sections"
                    .to_owned(),
            );
        }
        if !(0.0..=0.5).contains(&self.hold_out) {
            return refuse(format!(
                "--hold-out {} is out of range; wanted 0 to 0.5",
                self.hold_out
            ));
        }
        if !planes && self.stack {
            return refuse(
                "--stack is for fields of planes, and these are fields of volumes; leave it out"
                    .to_owned(),
            );
        }
        if !self.fixed.is_empty() && !self.stack {
            return refuse("--fixed is for --stack".to_owned());
        }
        if let Some(beyond) = self.fixed.iter().find(|z| **z >= grid.shape[0]) {
            return refuse(format!(
                "--fixed {beyond} is out of range: the stack has {} sections, 0 to {}",
                grid.shape[0],
                grid.shape[0] - 1
            ));
        }
        Ok(())
    }
}
