//! How stiff the field of a block should be, by cross-validation.
//!
//! Images grow more alike with every freedom of the field, also by what the rounds do not share: noise, a cell
//! that is gone. So the block is cut into cells like a chessboard; a field that was found with the cells of one
//! colour is judged by the other. What is true of the tissue holds there too, what is not makes them less alike.
//! Done on all resolutions but the finest, it costs about a seventh of a fit per try.

use super::block::{self, descend};
use super::cpu::Stage;
use super::lattice::{Field, Lattice};
use super::pyramid::{self, Level};
use super::{Metric, Options};
use crate::geom::Point;

/// What is tried, loose to stiff, voxels.
const TRIED: [f64; 3] = [4.0, 8.0, 16.0];
/// Side of a cell, voxels of the finest resolution.
const CELL: f64 = 16.0;
/// A resolution of fewer pixels along its longest axis is not judged.
const FEWEST: usize = 24;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Verdict {
    /// The elasticity that does best.
    pub(super) elasticity: f64,
    /// Whether it does better than no field.
    pub(super) gains: bool,
}

/// Judges elasticities on prepared images, finest first; `None` where there is too little to judge by.
///
/// * `first`: the number of the finest resolution that is here
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

/// How alike the images are where the fixed one is known; `None` where nowhere.
fn judge(question: &Stage, field: &Field, options: &Options) -> Option<f64> {
    let sums = block::sums(question, field, options);
    // as far as a difference counts in a step: a cell that is gone says little either way
    let energy = if options.metric == Metric::Mi { sums.square } else { sums.energy };
    (sums.voxels > 0).then_some(-energy)
}

/// The fixed image in the cells of a colour, NaN elsewhere.
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
