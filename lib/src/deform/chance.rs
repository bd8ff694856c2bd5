//! Tests whether the images of a block show the same sample, by comparing them at wrong positions.
//!
//! A field makes any two images more similar, so that the gain in similarity proves nothing. At one
//! of the coarse resolutions, the similarity is compared with the similarities at wrong positions:
//! the known part of the moving image is shifted cyclically by a quarter to three quarters of its
//! length along each axis. The images are first compared without registration. If the evidence is
//! below [`CLEAR`], they are compared again after a registration at the true position and at each
//! wrong position ([`evidence`]).

use std::path::Path;

use super::block::{self, descend};
use super::cpu::Stage;
use super::lattice::{Field, Lattice};
use super::pairs::BlockSummary;
use super::pyramid::{self, Level};
use super::similarity::Score;
use super::{Error, Metric, Model, Options};
use crate::blocks::{Context, TaskResults};
use crate::geom::{Box3, Point};
use crate::metric::{PairSums, evidence, hash, unit};

/// Number of wrong positions that are tried.
const WRONG: u64 = 20;
/// Minimum number of wrong positions with enough overlap for a judgement.
const FEWEST_WRONG: usize = 8;
/// The images are compared at the coarsest resolution that has at least this many voxels, or at the
/// finest one given; more voxels would not change the judgement.
const ENOUGH: usize = 20_000;
/// Minimum number of voxels that are known in both images.
const FEWEST: usize = 2000;
/// Evidence from the images without registration at which no registration is needed.
const CLEAR: f64 = 20.0;
/// Average evidence of blocks of unrelated images, which is subtracted before blocks are combined.
/// The largest average measured was 0.94, for mutual information and blocks of 32^3 voxels.
const OF_CHANCE: f64 = 1.0;

/// Evidence that two images show the same sample: the number of standard deviations by which their
/// similarity exceeds the similarities at wrong positions. `None` if too few voxels are known.
///
/// * `levels`: prepared images, finest first; `first` is the level number of the first of them
pub(super) fn of_block(
    levels: &[Level],
    first: usize,
    block: [usize; 3],
    voxel: Point,
    options: &Options,
) -> Option<f64> {
    let skipped = levels.iter().rposition(|level| level.fixed.len() >= ENOUGH).unwrap_or(0);
    let levels = levels.get(skipped..).filter(|levels| !levels.is_empty())?;
    let elasticity = if options.model == Model::Dense { options.elasticity } else { 4.0 };
    let options = Options { elasticity, model: Model::Dense, ..options.clone() };
    let nodes = levels.iter().map(|l| pyramid::nodes(&l.lattice, voxel, block)).collect();
    let known = known_part(levels.last()?)?;
    let judge = Judge { levels, first: first + skipped, nodes, voxel, known, options };
    let here: Vec<&[f32]> = levels.iter().map(|level| &level.moving[..]).collect();
    let (found, count) = judge.still(&here);
    if count < FEWEST {
        return None;
    }
    // the shifted images are computed again for the registration, because keeping all of them
    // would take more memory than the block
    let still = |draw: u64| (draw, judge.still(&judge.rolled(draw)));
    let wrong: Vec<(u64, f64)> = (0..WRONG)
        .map(still)
        .filter_map(|(draw, (value, known))| (known >= count / 4).then_some((draw, value)))
        .collect();
    if wrong.len() < FEWEST_WRONG {
        return None;
    }
    let before = evidence::beyond(found, wrong.iter().map(|(_, value)| *value).collect());
    if before >= CLEAR {
        return Some(before);
    }
    let registered = |&(draw, _): &(u64, f64)| judge.registered(&judge.rolled(draw));
    let after = evidence::beyond(judge.registered(&here), wrong.iter().map(registered).collect());
    Some(before.max(after))
}

/// Records the evidence for the whole field in the receipt, and rejects the result (exit code 3) if
/// it is below `--min-evidence`.
///
/// * `ends`: the task results of the first pass
pub(super) fn check(
    ends: &TaskResults,
    options: &Options,
    output: &str,
    ctx: &Context,
) -> Result<(), Error> {
    let mut blocks = Vec::new();
    for summary in ends.summaries() {
        let (_, head): (_, BlockSummary) = summary?;
        blocks.extend(head.evidence);
    }
    let evidence = of_field(&blocks);
    ctx.record("evidence", evidence);
    let wanted = options.min_evidence;
    match evidence {
        Some(found) if found < wanted => {
            let reason = Error::Chance { found, wanted, initial: options.initial.clone() };
            Err(ctx.reject_result(Path::new(output), &reason.to_string()).into())
        }
        None if wanted > 0.0 => {
            tracing::warn!(
                "the blocks are too small to tell the field found from wrong ones: look at the result"
            );
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Evidence for a whole field from the evidence of its blocks: the combined evidence of all blocks
/// (Stouffer's method) or the evidence of the best block, whichever is greater. The evidence of the
/// best of many blocks is reduced, because one of many blocks can agree by chance. `None` if no
/// block has evidence.
fn of_field(blocks: &[f64]) -> Option<f64> {
    let n = blocks.len() as f64;
    let together = blocks.iter().map(|block| block - OF_CHANCE).sum::<f64>() / n.sqrt();
    let best = blocks.iter().copied().reduce(f64::max)?;
    Some(together.max(best / (1.0 + n.log10())))
}

/// The images of a block at several resolutions, finest first.
struct Judge<'a> {
    levels: &'a [Level],
    /// Level number of the first of `levels`.
    first: usize,
    nodes: Vec<Lattice>,
    voxel: Point,
    /// The box, at the coarsest resolution, that contains all known voxels of the moving image.
    known: Box3,
    options: Options,
}

/// The smallest box that contains all known voxels of the moving image; `None` if there is no known
/// voxel.
fn known_part(level: &Level) -> Option<Box3> {
    let [_, height, width] = level.lattice.shape;
    let known = level.moving.iter().enumerate().filter(|(_, v)| v.is_finite());
    let at = known.map(|(i, _)| [i / (height * width), i / width % height, i % width]);
    let mut part: Option<Box3> = None;
    for at in at.map(|at| at.map(|v| v as i64)) {
        let one = Box3::new(at, at.map(|v| v + 1));
        part = Some(part.map_or(one, |part| part.union(&one)));
    }
    part
}

impl Judge<'_> {
    fn stage<'b>(&'b self, number: usize, moving: &'b [f32]) -> Stage<'b> {
        let Level { lattice, fixed, .. } = &self.levels[number];
        Stage { fixed, moving, pixels: *lattice, nodes: self.nodes[number], voxel: self.voxel }
    }

    /// The moving images at all resolutions, with their known parts shifted cyclically by the same
    /// physical distance.
    fn rolled(&self, draw: u64) -> Vec<Vec<f32>> {
        let coarsest = &self.levels[self.levels.len() - 1].lattice;
        let by: [usize; 3] = std::array::from_fn(|a| {
            let part = 0.25 + 0.5 * unit(hash(draw, 0x0F_1E1D), a as u64);
            (part * self.known.shape()[a] as f64).round() as usize * coarsest.factor[a]
        });
        let roll = |level: &Level| {
            let Level { lattice: Lattice { shape, factor }, moving, .. } = level;
            let finer: [usize; 3] = std::array::from_fn(|a| coarsest.factor[a] / factor[a]);
            let low: [usize; 3] = std::array::from_fn(|a| self.known.min[a] as usize * finer[a]);
            let high: [usize; 3] =
                std::array::from_fn(|a| shape[a].min(self.known.max[a] as usize * finer[a]));
            // the index along axis `a` from which the voxel at index `at` is copied
            let from = |a: usize, at: usize| {
                let length = high[a] - low[a];
                low[a] + (at - low[a] + by[a] / factor[a]) % length
            };
            let mut out = vec![f32::NAN; moving.len()];
            for z in low[0]..high[0] {
                for y in low[1]..high[1] {
                    let row = &moving[(from(0, z) * shape[1] + from(1, y)) * shape[2]..];
                    let out = &mut out[(z * shape[1] + y) * shape[2]..];
                    for x in low[2]..high[2] {
                        out[x] = row[from(2, x)];
                    }
                }
            }
            out
        };
        self.levels.iter().map(roll).collect()
    }

    /// [`Judge::significance`] with a field of zero displacement.
    fn still<M: AsRef<[f32]>>(&self, moving: &[M]) -> (f64, usize) {
        self.significance(moving[0].as_ref(), &self.nodes[0].zeros())
    }

    /// The similarity at the finest resolution after a registration, in units of its standard
    /// deviation for independent voxels.
    fn registered<M: AsRef<[f32]>>(&self, moving: &[M]) -> f64 {
        let mut known: Option<(Lattice, Field)> = None;
        for number in (0..self.levels.len()).rev() {
            let (stage, nodes) = (self.stage(number, moving[number].as_ref()), self.nodes[number]);
            let field = match &known {
                Some((lattice, field)) => lattice.resample(field, &nodes),
                None => nodes.zeros(),
            };
            let iterations = self.options.iterations_at(self.first + number);
            known = Some((nodes, descend(&stage, field, iterations, &self.options)));
        }
        known.map_or(0.0, |(_, field)| self.significance(moving[0].as_ref(), &field).0)
    }

    /// The similarity at the finest resolution, in units of its standard deviation for independent
    /// voxels, and the number of voxels that are known in both images.
    fn significance(&self, moving: &[f32], field: &Field) -> (f64, usize) {
        let pulled = self.stage(0, moving).pull(field);
        let fixed = &self.levels[0].fixed;
        if self.options.metric == Metric::Mi {
            let score = Score::of(fixed, &pulled, block::BINS);
            let freedom = Score::freedom(block::BINS);
            let shared = score.information_shared;
            return (evidence::of_information(shared, score.pairs, freedom), score.pairs);
        }
        let (correlation, count) = correlation(fixed, &pulled);
        (evidence::of_correlation(correlation, count), count)
    }
}

/// The correlation of the voxels that are known in both images, and their number.
fn correlation(a: &[f32], b: &[f32]) -> (f64, usize) {
    let mut sums = PairSums::default();
    for (a, b) in a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b))) {
        if (a + b).is_finite() {
            sums.add(a, b);
        }
    }
    (sums.correlation().unwrap_or(0.0), sums.n as usize)
}
