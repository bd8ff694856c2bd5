//! Chooses the stiffness of a block's field by cross-validation.
//!
//! Images become more similar with every degree of freedom of the field, even by fitting what the
//! imaging rounds do not share: noise, or a biological cell that was lost. Therefore the block is
//! divided into cubes, called cells below, like a chessboard, and a field found with the cubes of
//! one colour is scored on the cubes of the other. True displacements improve the similarity there,
//! too; spurious ones reduce it. The finest resolution is not used. Cross-validation costs about a
//! seventh of a registration per elasticity.

use super::block::{self, descend};
use super::cpu::Stage;
use super::lattice::{Field, Lattice};
use super::pyramid::{self, Level};
use super::{Metric, Options};
use crate::geom::Point;

/// Elasticities that are tried, from loose to stiff, voxels.
const TRIED: [f64; 3] = [4.0, 8.0, 16.0];
/// Side length of a cell, voxels of the finest resolution.
const CELL: f64 = 16.0;
/// Images with fewer pixels along their longest axis are not used for validation.
const FEWEST: usize = 24;

/// Result of the cross-validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    /// The elasticity with the best score.
    pub(super) elasticity: f64,
    /// Whether the score of this elasticity is better than that of no field.
    pub(super) gains: bool,
}

/// Scores the elasticities [`TRIED`] by cross-validation and returns the best one; `None` if the
/// images are too small or have too few known voxels.
///
/// * `levels`: prepared images, finest first
/// * `first`: level number of the first of `levels`
pub(super) fn choose(
    levels: &[Level],
    first: usize,
    block: [usize; 3],
    voxel: Point,
    options: &Options,
) -> Option<Verdict> {
    let finest = levels.first()?;
    if finest.lattice.shape.iter().all(|&n| n < FEWEST) {
        return None;
    }
    let nodes: Vec<Lattice> =
        levels.iter().map(|level| pyramid::nodes(&level.lattice, voxel, block)).collect();
    let mut scores = [0.0; TRIED.len()];
    let mut none = 0.0;
    for colour in [false, true] {
        let taught: Vec<Vec<f32>> =
            levels.iter().map(|level| cells(level, block, voxel, colour)).collect();
        let asked = cells(finest, block, voxel, !colour);
        let question = stage(finest, &asked, nodes[0], voxel);
        none += judge(&question, &nodes[0].zeros(), options)?;
        for (score, elasticity) in scores.iter_mut().zip(TRIED) {
            let options = Options { elasticity, ..options.clone() };
            let mut known: Option<(Lattice, Field)> = None;
            for number in (0..levels.len()).rev() {
                let stage = stage(&levels[number], &taught[number], nodes[number], voxel);
                let field = match &known {
                    Some((lattice, field)) => lattice.resample(field, &nodes[number]),
                    None => nodes[number].zeros(),
                };
                let iterations = options.iterations_at(first + number);
                known = Some((nodes[number], descend(&stage, field, iterations, &options)));
            }
            *score += judge(&question, &known?.1, &options)?;
        }
    }
    let best = (0..TRIED.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]))?;
    tracing::debug!(?scores, none, "elasticities by cells that were left out");
    Some(Verdict { elasticity: TRIED[best], gains: scores[best] > none })
}

fn stage<'a>(level: &'a Level, fixed: &'a [f32], nodes: Lattice, voxel: Point) -> Stage<'a> {
    Stage { fixed, moving: &level.moving, pixels: level.lattice, nodes, voxel }
}

/// The similarity of the voxels that are known in both images; `None` if no voxel is known in both.
fn judge(question: &Stage, field: &Field, options: &Options) -> Option<f64> {
    let sums = block::sums(question, field, options);
    // differences are clamped as in a step, so that a lost biological cell has little influence
    let energy = if options.metric == Metric::Mi { sums.square } else { sums.energy };
    (sums.voxels > 0).then_some(-energy)
}

/// The fixed image in the cells of one colour, NaN elsewhere.
fn cells(level: &Level, block: [usize; 3], voxel: Point, colour: bool) -> Vec<f32> {
    let side = CELL * block::unit(voxel, block);
    let spacing = level.lattice.spacing(voxel);
    let cell: [Vec<usize>; 3] = std::array::from_fn(|a| {
        let at = |i: usize| ((i as f64 + 0.5) * spacing[a] / side) as usize;
        (0..level.lattice.shape[a]).map(at).collect()
    });
    let [_, height, width] = level.lattice.shape;
    let mut out = level.fixed.clone();
    for (i, v) in out.iter_mut().enumerate() {
        let sum = cell[0][i / (height * width)] + cell[1][i / width % height] + cell[2][i % width];
        if (sum % 2 == 1) != colour {
            *v = f32::NAN;
        }
    }
    out
}
