//! Chooses the stiffness of control points by cross-validation of the normal equations.
//!
//! Images become more similar with every degree of freedom of the field, even by fitting what they
//! do not share: noise, or a biological cell that was lost. Therefore the block is divided into
//! cubes, called cells below, like a chessboard. From the current field, a step is fitted to the
//! cubes of one colour and scored on those of the other, for several elasticities. True
//! displacements reduce the differences there, too; spurious ones increase them. Fit and score use
//! the sums at the nodes, so that the images are not compared again.

use super::Metric;
use super::bspline::{Basis, Controls};
use super::equations::{Accuracy, Equations, OF_STEP, dot, multiply};
use super::lattice::{Field, Lattice};

/// Side length of a cell, nodes: 20 voxels at the finest resolution. Differences between two
/// imaging rounds are correlated over several voxels. With small cells, both halves would contain
/// many of the same differences, and cross-validation would choose fields that are too loose.
const CELL: usize = 5;
/// Minimum number of cells along the longest axis.
const FEWEST: usize = 3;
/// Limits of the elasticities that are tried.
const RANGE: [f64; 2] = [0.25, 64.0];
/// Ratio of the best elasticity for all data to the best elasticity for half of the data. The best
/// weight of the bending energy grows with the amount of data to the power of 0.64. The ratio is
/// therefore 2^0.32, because the elasticity is proportional to the square root of the weight.
const OF_HALF: f64 = 1.25;

/// The image terms of the normal equations for the current control points, summed at nodes.
pub(super) struct Terms {
    pub(super) nodes: Lattice,
    /// Products of gradients, zz zy zx yy yx xx, scaled by the fraction of the squared gradient
    /// that the images share.
    pub(super) tensor: [Vec<f32>; 6],
    /// Image gradients times the differences between the images. For mutual information, a score
    /// takes the place of the difference.
    pub(super) slope: Field,
}

impl Terms {
    /// The terms in the cells of one colour; 0 elsewhere.
    fn half(&self, colour: usize) -> Self {
        let [depth, height, width] = self.nodes.shape;
        let mut seen = Vec::with_capacity(self.nodes.len());
        for row in 0..depth * height {
            let cell = row / height / CELL + row % height / CELL;
            let is_seen = |x: usize| (cell + x / CELL) % 2 == colour;
            seen.extend((0..width).map(|x| f32::from(u8::from(is_seen(x)))));
        }
        let mask = |image: &Vec<f32>| -> Vec<f32> {
            image.iter().zip(&seen).map(|(v, seen)| v * seen).collect()
        };
        Self {
            nodes: self.nodes,
            tensor: self.tensor.each_ref().map(mask),
            slope: self.slope.each_ref().map(mask),
        }
    }
}

/// The data that all scores of a cross-validation share: the image terms of both halves and the
/// current control points.
struct Trial<'a> {
    halves: [Terms; 2],
    whole: Equations<'a>,
    basis: &'a Basis,
    shape: [usize; 3],
    from: &'a Field,
}

impl Trial<'_> {
    /// The reduction of the squared differences in one half by a step that is fitted to the other
    /// half, summed over both halves.
    ///
    /// * `steps`: initial guesses, such as the steps of a similar elasticity; replaced by the steps
    ///   found
    fn score(&self, elasticity: f64, accuracy: Accuracy, steps: &mut [Option<Field>; 2]) -> f64 {
        let stiffness = self.whole.stiffness(elasticity, Metric::Lcc);
        let mut score = 0.0;
        for (fitted, last) in steps.iter_mut().enumerate() {
            let (fitted, unseen) = (&self.halves[fitted], &self.halves[1 - fitted]);
            let equations = Equations::new(self.basis, self.shape, &fitted.tensor);
            let slope = fitted.slope.each_ref().map(|image| self.basis.gather(image));
            let found = equations.solve(slope, self.from, last.take(), stiffness, 0.0, accuracy);
            let step = self.basis.field(&found);
            let mut curved = step.clone();
            multiply(&unseen.tensor, &mut curved);
            score += 2.0 * dot(&step, &unseen.slope) - dot(&step, &curved);
            *last = Some(found);
        }
        score
    }
}

/// The elasticity that is best for all data; `None` if the block has too few cells. It is estimated
/// from the scores of `start` and of elasticities that repeatedly double or halve `start` until the
/// score gets worse.
///
/// * `from`: the current control points
pub(super) fn choose(controls: &Controls, terms: &Terms, from: &Field, start: f64) -> Option<f64> {
    if terms.nodes.shape.iter().all(|n| n / CELL < FEWEST) {
        return None;
    }
    let basis = controls.basis(&terms.nodes);
    let shape = controls.shape();
    let trial = Trial {
        halves: [terms.half(0), terms.half(1)],
        whole: Equations::new(&basis, shape, &terms.tensor),
        basis: &basis,
        shape,
        from,
    };
    let mut steps = [None, None];
    let mut tried = vec![(start, trial.score(start, OF_STEP, &mut steps))];
    let first = steps.clone();
    for factor in [2.0, 0.5] {
        steps.clone_from(&first);
        loop {
            let (at, best) = tried[tried.len() - 1];
            let next = at * factor;
            if !(RANGE[0]..=RANGE[1]).contains(&next) {
                break;
            }
            tried.push((next, trial.score(next, OF_STEP, &mut steps)));
            if !(tried[tried.len() - 1].1 > best) {
                break;
            }
        }
        // Sorted from stiff to loose. After the first pass, which tries stiffer elasticities, the
        // last entry is `start`, from which the second pass continues to looser elasticities.
        tried.sort_by(|a, b| b.0.total_cmp(&a.0));
    }
    tracing::debug!(?tried, "elasticities by cells that were left out");
    Some(OF_HALF * vertex(&tried))
}

/// The elasticity at the vertex of the parabola through the best score and its neighbours.
///
/// * `tried`: elasticities, each half or twice the previous one, with their scores
fn vertex(tried: &[(f64, f64)]) -> f64 {
    let best = (0..tried.len()).max_by(|&a, &b| tried[a].1.total_cmp(&tried[b].1)).unwrap_or(0);
    let (at, score) = tried[best];
    let beside = |i: Option<usize>| i.and_then(|i| tried.get(i));
    let (Some(before), Some(after)) = (beside(best.checked_sub(1)), beside(Some(best + 1))) else {
        return at;
    };
    let curvature = before.1 - 2.0 * score + after.1;
    let shift = if curvature < 0.0 { 0.5 * (before.1 - after.1) / curvature } else { 0.0 };
    at * (after.0 / at).powf(shift)
}

#[cfg(test)]
mod oracle;
