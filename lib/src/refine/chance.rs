//! Tests whether the similarity under a map is greater than by chance.
//!
//! Any two images agree a little under some maps, and a search finds the best of these maps.
//! Therefore the similarity under the map found is compared with that under wrong maps, which are
//! rotated, mirrored and shifted at random and then refined in the same way. The similarities under
//! wrong maps form an empirical null distribution, like that of phase-randomised or shifted
//! surrogates (Theiler et al., Physica D 58, 1992). The evidence is the number of standard
//! deviations by which the similarity exceeds the mean of this distribution (see
//! [`evidence::beyond`]).

use super::coarse_to_fine::MIN_SAMPLES;
use super::image_pair::{ImagePair, InitialMap, Level};
use super::initial_maps::{IDENTITY, Linear, in_plane, in_space, signed_permutations};
use super::model::ModelParameters;
use super::optimise::{StopCriteria, optimise};
use crate::geom::{Affine, Point};
use crate::metric::{
    AffineSimilarity, Normalisation, SimilarityMeasure, Workspace, evidence, hash, unit,
};

/// Maximum number of samples that are compared; any useful map stands out with this number.
const MAX_SAMPLES: usize = 16_000;
/// Number of resolutions tried, each twice as coarse as the previous one. With little noise, a map
/// stands out most at the finest resolution, otherwise at a coarser one.
const LEVELS: usize = 4;
/// Number of resolutions considered, from the finest; each is twice as coarse as the previous one.
const MAX_DOUBLINGS: i32 = 16;
/// Maximum number of voxels of the fixed image at a resolution that is tried. With more voxels, the
/// comparison would take longer than the refinement.
const MAX_VOXELS: usize = 4 << 20;
/// Number of wrong maps wanted.
const WRONG_MAPS: usize = 24;
/// Minimum number of wrong maps for a judgement.
const MIN_WRONG_MAPS: usize = 8;
/// Maximum number of random maps drawn.
const MAX_DRAWS: u64 = 600;
/// Maximum number of steps of each refinement.
const MAX_STEPS: usize = 10;
/// Minimum displacement by a wrong map, as a fraction of [`Normalisation::size`].
const MIN_DISPLACEMENT: f64 = 0.15;
/// Largest random rotation in addition to the permutation of axes, radians.
const MAX_TILT: f64 = 0.35;

/// Comparison of a map with wrong maps, at the resolution with the most evidence.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    /// Resolution, fixed micrometres.
    pub(super) resolution: f64,
    /// Correlation, or mutual information in nats, of the details under the map found.
    pub(super) found: f64,
    /// The greatest correlation or mutual information of the details under a wrong map.
    pub(super) wrong: f64,
    /// Number of wrong maps.
    pub(super) maps: usize,
    /// The evidence, in standard deviations.
    pub(super) evidence: f64,
}

/// Judges `map`, which follows `start`; `None` if too few wrong maps with enough overlap exist.
///
/// * `scale`: scale of `start`, moving lengths divided by fixed lengths
/// * `enough`: evidence at which no further resolution is tried
/// * `coarse_first`: whether coarse resolutions, which take less time, are tried first
pub(super) fn judge(
    images: &ImagePair<'_>,
    start: &InitialMap<'_>,
    map: &Affine,
    scale: f64,
    enough: f64,
    coarse_first: bool,
) -> Option<Evidence> {
    let finest = images.finest(scale);
    let mut best: Option<Evidence> = None;
    let fine = (0..MAX_DOUBLINGS).map(|number| finest * 2f64.powi(number));
    let fine = fine.filter(|r| images.voxels(*r) <= MAX_VOXELS).take(LEVELS);
    let mut resolutions: Vec<f64> = fine.collect();
    if coarse_first {
        resolutions.reverse();
    }
    for resolution in resolutions {
        let Ok(level) = images.clipped(resolution, scale, start, MAX_SAMPLES) else { continue };
        let Some(one) = at_level(&level, start, map, images) else { continue };
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
    start: &InitialMap<'_>,
    map: &Affine,
    images: &ImagePair<'_>,
) -> Option<Evidence> {
    let judge = EvidenceTest {
        pair: level.similarity(start),
        parameters: ModelParameters::of(images.options.model, images.planar),
        criteria: StopCriteria {
            iterations: MAX_STEPS,
            voxel: level.resolution[1],
            min_samples: MIN_SAMPLES,
        },
        information: images.options.metric == SimilarityMeasure::MutualInformation,
        extent: level.moving_extent(),
    };
    let mut work = Workspace::default();
    // the map itself is refined further in the same way as the wrong maps
    let here = optimise(&judge.pair, map, &judge.parameters, &judge.criteria, &mut work)?;
    judge.pair.score(&here.map, &mut work)?;
    let normalisation = judge.pair.normalisation(&here.map, &work)?;
    let mut wrong: Vec<[f64; 2]> = Vec::new();
    for draw in 0..MAX_DRAWS {
        if wrong.len() == WRONG_MAPS {
            break;
        }
        let change = random_change(level, &normalisation, images, draw);
        wrong.extend(judge.wrong(&here.map, here.count, &change, &normalisation, &mut work));
    }
    if wrong.len() < MIN_WRONG_MAPS {
        return None;
    }
    let greatest = wrong.iter().map(|w| w[1]).fold(f64::NEG_INFINITY, f64::max);
    let values: Vec<f64> = wrong.iter().map(|w| w[0]).collect();
    Some(Evidence {
        resolution: level.resolution[0],
        found: images.options.metric.of_details().shown(here.energy),
        wrong: greatest,
        maps: wrong.len(),
        evidence: evidence::beyond(judge.significance(here.energy, here.count), values),
    })
}

struct EvidenceTest<'a> {
    pair: AffineSimilarity<'a>,
    parameters: ModelParameters,
    criteria: StopCriteria,
    information: bool,
    /// The extent of the moving image, micrometres.
    extent: [Point; 2],
}

impl EvidenceTest<'_> {
    /// The similarity in units of its standard deviation for independent samples.
    fn significance(&self, energy: f64, count: usize) -> f64 {
        /// Degrees of freedom of the joint histogram of `metric::histogram`: one less than the 32
        /// fixed bins, times one less than the 27 bins of the moving range.
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
        normalisation: &Normalisation,
        work: &mut Workspace,
    ) -> Option<[f64; 2]> {
        let least = (count / 2).max(MIN_SAMPLES);
        let map = right.then(change);
        if self.pair.score(&map, work)?.count < least {
            return None;
        }
        let up = optimise(&self.pair, &map, &self.parameters, &self.criteria, work)?;
        let back = right.inverse().ok()?.then(&up.map);
        // maps are compared only within the moving image, because a thin stack does not determine
        // how a map extrapolates beyond its planes
        let reach = [0, 1].map(|end| {
            let [low, high] = self.extent;
            let side = [-normalisation.size, normalisation.size][end];
            std::array::from_fn(|a| {
                (normalisation.centre[a] + side).clamp(low[a], high[a].max(low[a]))
            })
        });
        let is_distinct =
            back.distance(&Affine::IDENTITY, reach) > MIN_DISPLACEMENT * normalisation.size;
        let similarity = if self.information { -up.energy } else { 1.0 - up.energy };
        (is_distinct && up.count >= least)
            .then(|| [self.significance(up.energy, up.count), similarity])
    }
}

/// A random rigid map, which can be mirrored, with a shift by up to half the extent of the moving
/// image. For volumes, it is a signed permutation of the axes and a rotation by up to [`MAX_TILT`];
/// half of the draws only flip axes, because thin volumes with permuted axes can hardly overlap.
/// For planes, it is any rotation in the plane.
fn random_change(
    level: &Level,
    normalisation: &Normalisation,
    images: &ImagePair<'_>,
    draw: u64,
) -> Affine {
    let seed = hash(images.seed, 0xC4A_7CE);
    let chance = |purpose: u64| unit(hash(seed, draw), purpose);
    let sides: Linear = if images.planar {
        let flip = if chance(0) < 0.5 { -1.0 } else { 1.0 };
        in_plane(std::f64::consts::TAU * chance(1)).map(|row| [row[0], row[1], flip * row[2]])
    } else {
        let kinds = if chance(0) < 0.5 { 8.0 } else { 48.0 };
        signed_permutations().nth((kinds * chance(1)) as usize).unwrap_or(IDENTITY)
    };
    let tilt = if images.planar {
        IDENTITY
    } else {
        in_space([chance(2), chance(3), chance(4)], MAX_TILT)
    };
    let [low, high] = level.moving_extent();
    let to: Point = std::array::from_fn(|a| {
        let still = images.planar && a == 0;
        let shift = if still { 0.0 } else { (chance(5 + a as u64) - 0.5) * (high[a] - low[a]) };
        normalisation.centre[a] + shift
    });
    Affine::translation(normalisation.centre.map(|c| -c))
        .then(&Affine::from_parts(sides, [0.0; 3]))
        .then(&Affine::from_parts(tilt, to))
}
