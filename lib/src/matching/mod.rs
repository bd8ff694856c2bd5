//! Matching: finds corresponding spots of two volumes, and the map that most of these matches agree
//! on.
//!
//! Two spots match if the raw images around them (their contexts) correlate. [`match_spots`] finds
//! the best partner of every fixed spot; [`estimate`] fits a map from fixed to moving points by
//! random sampling (RANSAC) and refits it to the matches that agree. [`match_in_memory`] matches
//! blocks that are already in memory.

mod basis;
mod chance;
mod contexts;
mod correlate;
mod cpu;
mod error;
mod guards;
mod neighbours;
mod opencv;
mod options;
mod orientations;
mod pair;
mod ransac;
mod read;
mod refine;
mod residuals;
mod subvoxel;
mod threading;

#[cfg(test)]
mod estimate_tests;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod oracle;

pub use error::Error;
pub use options::{Compat, ContextRadius, EstimateOptions, MatchOptions};
pub use orientations::{MatchResult, find};
pub use read::match_spots;

use std::borrow::Cow;

use crate::blocks::Context;
use crate::filter::despike;
use crate::geom::{Affine, Grid, Model, Point};
use crate::table::Match;
use crate::volume::Voxel;
use contexts::{Contexts, Store, places};
use orientations::Orientation;
use residuals::Pairs;
use threading::Threading;

/// A volume, or a part of one, in memory, and its spots.
#[derive(Clone, Copy, Debug)]
pub struct SpotVolume<'a, T> {
    /// The voxels, C order `(z, y, x)`.
    pub voxels: &'a [T],
    /// The grid of the voxels; with spacing 1 and origin 0, all lengths are in voxels.
    pub grid: Grid,
    /// The positions of the spots `[z, y, x]`, in the units of the grid.
    pub positions: &'a [Point],
}

/// Matches the spots of two blocks on the calling thread. Spots too close to the faces of their
/// block for a complete context are ignored. The result is in the order of the fixed spots and can
/// be empty; its residuals are NaN.
///
/// # Errors
/// [`Error::Blocks`] for an invalid flag, [`Error::VoxelSizes`] if the voxel sizes differ.
pub fn match_in_memory<T: Voxel, U: Voxel>(
    fixed: &SpotVolume<'_, T>,
    moving: &SpotVolume<'_, U>,
    options: &MatchOptions,
) -> Result<Vec<Match>, Error> {
    let radius = pair::check(options, &fixed.grid, &moving.grid)?;
    let fixed_contexts = describe(fixed, radius, options.exact);
    let moving_contexts = describe(moving, radius, options.exact);
    let grids = [&fixed.grid, &moving.grid];
    let frame = Orientation::STORED;
    Ok(pair::pair(&fixed_contexts, &moving_contexts, grids, frame, options, Threading::Alone))
}

fn describe<'a, T: Voxel>(
    block: &SpotVolume<'a, T>,
    radius: [usize; 3],
    exact: bool,
) -> Contexts<'a, T> {
    let places = places(&block.grid, block.positions, radius, exact);
    let shape = block.grid.shape;
    let mut voxels = Cow::Borrowed(block.voxels);
    if !exact {
        despike(voxels.to_mut(), shape);
    }
    let store = Store::array(voxels, shape, [0; 3], &places);
    Contexts::describe(store, shape, &places, radius, Threading::Alone)
}

/// A map from fixed to moving points, and how well it fits the matches.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// The map from fixed to moving points, micrometres.
    pub affine: Affine,
    /// For each match, whether the map takes its fixed point to within the threshold of its moving
    /// point.
    pub inliers: Vec<bool>,
    /// For each match, the distance between the mapped fixed point and the moving point,
    /// micrometres.
    pub residuals: Vec<f64>,
    /// The number of inliers.
    pub inlier_count: usize,
    /// The median residual of the inliers, micrometres.
    pub median_residual: f64,
    /// The root mean square residual of the inliers, micrometres.
    pub rms_residual: f64,
    /// The number of random samples drawn.
    pub iterations: usize,
    /// The base 10 logarithm of the expected number of maps that would fit as many matches if all
    /// matches were random.
    pub false_alarms: f64,
}

/// Fits a map to matches by random sampling, then refits it to all matches near it.
///
/// # Errors
/// [`Error`]: the check that the matches or the map failed. The message names the flag to change.
pub fn estimate(
    matches: &[Match],
    options: &EstimateOptions,
    seed: u64,
) -> Result<Estimate, Error> {
    let fixed: Vec<Point> = matches.iter().map(|m| m.fixed).collect();
    let moving: Vec<Point> = matches.iter().map(|m| m.moving).collect();
    guards::options(options)?;
    let options = &within_plane(options, &fixed, &moving);
    guards::matches(&fixed, &moving, options)?;
    let (map, fits, iterations) = match options.compat {
        Some(Compat::Opencv) => {
            let found = opencv::search(&fixed, &moving, options);
            let (found, fits) = found.ok_or_else(|| nothing_fits(&fixed, options))?;
            (found.map, Some(fits), found.iterations)
        }
        None => {
            let found = sampled(&fixed, &moving, options, seed);
            let found = found.ok_or_else(|| nothing_fits(&fixed, options))?;
            (refine::refine(&fixed, &moving, options, found.map), None, found.iterations)
        }
    };
    let mut squares = vec![0.0; matches.len()];
    Pairs::new(&fixed, &moving).squares(&map, &mut squares);
    let limit = options.threshold().powi(2);
    let inliers = fits.unwrap_or_else(|| squares.iter().map(|&s| s <= limit).collect());
    guards::inliers(&fixed, &inliers, options)?;
    guards::map(&map, options)?;
    let false_alarms = chance::false_alarms(&fixed, &moving, &inliers, &map, options);
    guards::false_alarms(&inliers, false_alarms, options)?;
    let estimate = Estimate::of(map, inliers, squares, iterations);
    Ok(Estimate { false_alarms, ..estimate })
}

/// The options for these points: if all fixed points have the same z and all moving points have the
/// same z, an affine model is restricted to the plane.
fn within_plane(options: &EstimateOptions, fixed: &[Point], moving: &[Point]) -> EstimateOptions {
    let plane = |points: &[Point]| points.iter().all(|p| p[0] == points[0][0]);
    let planar = options.model == Model::Affine && options.compat.is_none();
    let model =
        if planar && plane(fixed) && plane(moving) { Model::PlanarAffine } else { options.model };
    EstimateOptions { model, ..options.clone() }
}

/// The map found by sampling. If no plausible map has enough inliers, this is the best of all maps,
/// plausible or not, so that the later checks can report what is wrong with it.
fn sampled(
    fixed: &[Point],
    moving: &[Point],
    options: &EstimateOptions,
    seed: u64,
) -> Option<ransac::Consensus> {
    let found = ransac::search(fixed, moving, options, seed, true);
    let enough = found.as_ref().is_some_and(|found| {
        let pairs = Pairs::new(fixed, moving);
        let mut scratch = vec![0.0; fixed.len()];
        pairs.inliers(&found.map, options.threshold(), &mut scratch)
            >= options.min_inliers.max(options.model.pairs())
    });
    if enough { found } else { ransac::search(fixed, moving, options, seed, false) }
}

fn nothing_fits(fixed: &[Point], options: &EstimateOptions) -> Error {
    Error::TooFewInliers {
        found: 0,
        wanted: options.min_inliers.max(options.model.pairs()),
        matches: fixed.len(),
        threshold: options.threshold(),
    }
}

impl Estimate {
    fn of(affine: Affine, inliers: Vec<bool>, squares: Vec<f64>, iterations: usize) -> Self {
        let fit = squares.iter().zip(&inliers).filter(|(_, inlier)| **inlier);
        let mut fit: Vec<f64> = fit.map(|(square, _)| *square).collect();
        fit.sort_by(f64::total_cmp);
        let inlier_count = fit.len();
        let mean = fit.iter().sum::<f64>() / inlier_count.max(1) as f64;
        Self {
            affine,
            inliers,
            residuals: squares.into_iter().map(f64::sqrt).collect(),
            inlier_count,
            median_residual: fit.get(inlier_count / 2).map_or(0.0, |s| s.sqrt()),
            rms_residual: mean.sqrt(),
            iterations,
            false_alarms: 0.0,
        }
    }

    /// Sets `inlier` and `residual` of each match.
    pub fn mark(&self, matches: &mut [Match]) {
        for (i, one) in matches.iter_mut().enumerate() {
            (one.inlier, one.residual) = (self.inliers[i], self.residuals[i]);
        }
    }

    /// Records the statistics in the receipt, and logs the main ones.
    pub fn record(&self, ctx: &Context) {
        tracing::info!(
            "{} matches, {} fit, median residual {:.3} um",
            self.inliers.len(),
            self.inlier_count,
            self.median_residual
        );
        let parts = self.affine.decompose();
        ctx.record("matches", self.inliers.len());
        ctx.record("inliers", self.inlier_count);
        ctx.record("median_residual_um", self.median_residual);
        ctx.record("rms_residual_um", self.rms_residual);
        ctx.record("iterations", self.iterations);
        ctx.record("false_alarms_log10", self.false_alarms);
        ctx.record("believed", true);
        ctx.record("matrix_zyx_um", serde_json::json!(self.affine.rows()));
        ctx.record("rotation_degrees", parts.angle.to_degrees());
        ctx.record("scales", serde_json::json!(parts.scales));
        ctx.record("shear", parts.shear);
        ctx.record("determinant", parts.determinant);
    }
}
