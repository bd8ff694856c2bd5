//! Whether a map stands out from chance, judged by the same images under wrong maps.
//!
//! Any two images agree a little under some maps, and a search finds the best of these. Therefore
//! the similarity under the map found is compared with that under maps that are rotated, mirrored
//! and shifted at random and then refined in the same way. The evidence is the number of standard
//! deviations by which it exceeds the mean of the wrong maps: an empirical null distribution, as of
//! phase-randomised or shifted surrogates (Theiler et al., Physica D 58, 1992), after the same
//! optimisation as the result.

use super::climb::{Limits, climb};
use super::descent::FEWEST;
use super::model::Freedom;
use super::scene::{Level, Scene, Start};
use super::starts::{IDENTITY, Linear, in_plane, in_space, signed_permutations};
use crate::geom::{Affine, Point};
use crate::metric::{Affinity, Frame, Kind, Workspace, evidence, hash, unit};

/// Maximum number of samples that are compared: enough for any useful map.
const SAMPLES: usize = 16_000;
/// Number of resolutions tried, each twice as coarse as the one before: with little noise a map
/// stands out most at the finest, otherwise at a coarser one.
const LEVELS: usize = 4;
/// Limit of the coarsest resolution, in doublings of the finest.
const COARSEST: i32 = 16;
/// Maximum number of fixed voxels: with more, judging would take longer than the refinement.
const LARGEST: usize = 4 << 20;
/// Number of wrong maps wanted.
const WRONG: usize = 24;
/// Minimum number of wrong maps for a judgement.
const FEWEST_WRONG: usize = 8;
/// Maximum number of random maps drawn.
const DRAWN: u64 = 600;
/// Maximum number of steps of each refinement.
const STEPS: usize = 10;
/// Minimum displacement by a wrong map, as a fraction of [`Frame::size`].
const APART: f64 = 0.15;
/// Largest random rotation in addition to the permutation of axes, radians.
const TILT: f64 = 0.35;

/// How a map compares with wrong ones, at the resolution at which it stands out most.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    /// Resolution, fixed micrometres.
    pub(super) resolution: f64,
    /// Correlation, or mutual information in nats, of the details under the map.
    pub(super) found: f64,
    /// The greatest value under a wrong map.
    pub(super) wrong: f64,
    /// Number of wrong maps it was compared with.
    pub(super) maps: usize,
    /// Number of standard deviations by which it stands out.
    pub(super) evidence: f64,
}

/// Judges the map that follows `start`; `None` if too few wrong maps with enough overlap exist.
///
/// * `scale`: moving lengths by fixed lengths
/// * `enough`: evidence at which coarser resolutions are no longer tried
pub(super) fn judge(
    scene: &Scene<'_>,
    start: &Start<'_>,
    map: &Affine,
    scale: f64,
    enough: f64,
) -> Option<Judgement> {
    let finest = scene.finest(scale);
    let mut best: Option<Judgement> = None;
    let fine = (0..COARSEST).map(|number| finest * 2f64.powi(number));
    for resolution in fine.filter(|r| scene.voxels(*r) <= LARGEST).take(LEVELS) {
        let Ok(level) = scene.clipped(resolution, scale, start, SAMPLES) else { continue };
        let Some(one) = at_level(&level, start, map, scene) else { continue };
        if best.as_ref().is_none_or(|best| one.evidence > best.evidence) {
            best = Some(one);
        }
        if best.as_ref().is_some_and(|best| best.evidence >= enough) {
            break;
        }
    }
    best
}

fn at_level(
    level: &Level,
    start: &Start<'_>,
    map: &Affine,
    scene: &Scene<'_>,
) -> Option<Judgement> {
    let judge = Judge {
        pair: level.affinity(start),
        freedom: Freedom::of(scene.options.model, scene.planar),
        limits: Limits { iterations: STEPS, voxel: level.resolution[1], least: FEWEST },
        information: scene.options.metric == Kind::MutualInformation,
        extent: level.moving_extent(),
    };
    let mut work = Workspace::default();
    // the map itself is refined further in the same way as the wrong maps
    let here = climb(&judge.pair, map, &judge.freedom, &judge.limits, &mut work)?;
    judge.pair.score(&here.map, &mut work)?;
    let frame = judge.pair.frame(&here.map, &work)?;
    let mut wrong: Vec<[f64; 2]> = Vec::new();
    for draw in 0..DRAWN {
        if wrong.len() == WRONG {
            break;
        }
        let change = drawn(level, &frame, scene, draw);
        wrong.extend(judge.wrong(&here.map, here.count, &change, &frame, &mut work));
    }
    if wrong.len() < FEWEST_WRONG {
        return None;
    }
    let greatest = wrong.iter().map(|w| w[1]).fold(f64::NEG_INFINITY, f64::max);
    let values: Vec<f64> = wrong.iter().map(|w| w[0]).collect();
    Some(Judgement {
        resolution: level.resolution[0],
        found: scene.options.metric.of_details().shown(here.energy),
        wrong: greatest,
        maps: wrong.len(),
        evidence: evidence::beyond(judge.significance(here.energy, here.count), values),
    })
}

struct Judge<'a> {
    pair: Affinity<'a>,
    freedom: Freedom,
    limits: Limits,
    information: bool,
    /// The extent of the moving image, micrometres.
    extent: [Point; 2],
}

impl Judge<'_> {
    /// The similarity in units of its standard deviation for independent samples.
    fn significance(&self, energy: f64, count: usize) -> f64 {
        /// Degrees of freedom of the histogram: see `metric::histogram`.
        const CELLS: f64 = 31.0 * 26.0;
        if self.information {
            return evidence::of_information(-energy, count, CELLS);
        }
        evidence::of_correlation(1.0 - energy, count)
    }

    /// The significance and the similarity of a wrong map after refinement; `None` if it overlaps
    /// by less than half as much as the map `right`, or if the refinement leads back to `right`.
    fn wrong(
        &self,
        right: &Affine,
        count: usize,
        change: &Affine,
        frame: &Frame,
        work: &mut Workspace,
    ) -> Option<[f64; 2]> {
        let least = (count / 2).max(FEWEST);
        let map = right.then(change);
        if self.pair.score(&map, work)?.count < least {
            return None;
        }
        let up = climb(&self.pair, &map, &self.freedom, &self.limits, work)?;
        let back = right.inverse().ok()?.then(&up.map);
        // a thin stack does not determine how a map extrapolates beyond its planes
        let reach = [0, 1].map(|end| {
            let [low, high] = self.extent;
            let side = [-frame.size, frame.size][end];
            std::array::from_fn(|a| (frame.centre[a] + side).clamp(low[a], high[a].max(low[a])))
        });
        let apart = back.distance(&Affine::IDENTITY, reach) > APART * frame.size;
        let similarity = if self.information { -up.energy } else { 1.0 - up.energy };
        (apart && up.count >= least).then(|| [self.significance(up.energy, up.count), similarity])
    }
}

/// A random rigid change, perhaps mirrored, with a shift by up to half the moving image. Volumes: a
/// signed permutation of the axes and a rotation by up to [`TILT`]; half of the draws only flip
/// axes, since permuted axes cannot overlap in thin volumes. Planes: any rotation.
fn drawn(level: &Level, frame: &Frame, scene: &Scene<'_>, draw: u64) -> Affine {
    let seed = hash(scene.seed, 0xC4A_7CE);
    let chance = |purpose: u64| unit(hash(seed, draw), purpose);
    let sides: Linear = if scene.planar {
        let flip = if chance(0) < 0.5 { -1.0 } else { 1.0 };
        in_plane(std::f64::consts::TAU * chance(1)).map(|row| [row[0], row[1], flip * row[2]])
    } else {
        let kinds = if chance(0) < 0.5 { 8.0 } else { 48.0 };
        signed_permutations().nth((kinds * chance(1)) as usize).unwrap_or(IDENTITY)
    };
    let tilt =
        if scene.planar { IDENTITY } else { in_space([chance(2), chance(3), chance(4)], TILT) };
    let [low, high] = level.moving_extent();
    let to: Point = std::array::from_fn(|a| {
        let still = scene.planar && a == 0;
        let shift = if still { 0.0 } else { (chance(5 + a as u64) - 0.5) * (high[a] - low[a]) };
        frame.centre[a] + shift
    });
    Affine::translation(frame.centre.map(|c| -c))
        .then(&Affine::from_parts(sides, [0.0; 3]))
        .then(&Affine::from_parts(tilt, to))
}
