//! Registration of one block in memory, from coarse to fine, until the similarity no longer
//! improves.

use super::bspline::Controls;
use super::chance;
use super::cpu::{Stage, Sums, invert, solve};
use super::free_form::{FreeForm, Limits};
use super::lattice::{Field, Lattice};
use super::pyramid::{self, Level};
use super::validate::{self, Verdict};
use super::{Metric, Model, Options};
use crate::geom::Point;
use crate::metric::padding;

/// Maximum displacement by a step of a dense field, voxels of its resolution. A step this short
/// does not fold.
const LONGEST: f64 = 0.5;
/// Maximum displacement of control points by a step, voxels of its resolution. It is longer than
/// [`LONGEST`] because nodes between control points do not move independently of each other.
const LONGEST_OF_CONTROLS: f64 = 2.0;
/// Minimum Jacobian determinant of the field after a step.
const LEAST_JACOBIAN: f64 = 0.03;
/// Minimum fraction of a block that must be known in both images.
const KNOWN: f64 = 0.01;
/// Standard deviation of the blur of the finest images, voxels.
const BLUR: f64 = 0.7;
/// Number of histogram bins for the intensities of each image, for mutual information.
pub(super) const BINS: usize = 32;

/// Two images on one grid; NaN where unknown.
pub(super) struct BlockPair {
    /// The fixed image, `(z, y, x)`.
    pub(super) fixed: Vec<f32>,
    /// The moving image resampled through the initial map, `(z, y, x)`.
    pub(super) moving: Vec<f32>,
    pub(super) shape: [usize; 3],
    /// Voxel size, micrometres.
    pub(super) voxel: Point,
}

/// Result of the registration of a block.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) nodes: Lattice,
    pub(super) field: Field,
    /// The mean displacement, micrometres, weighted by the squared gradient of the fixed image,
    /// because displacements of regions without structure are only extrapolated.
    pub(super) mean: [f64; 3],
    /// Similarity at the finest resolution, without and with the field.
    pub(super) similarity: [f64; 2],
    /// The elasticity of the options, or the one chosen by cross-validation.
    pub(super) elasticity: f64,
    /// Evidence that the images show the same sample (`chance.rs`).
    pub(super) evidence: Option<f64>,
}

/// Why a block has no field of its own.
#[derive(Debug, PartialEq)]
pub(super) enum Unusable {
    /// The block contains nothing that can be aligned; holds the reason.
    Empty(&'static str),
    /// The field makes the images less similar; holds the evidence that they show the same sample.
    NoGain(Option<f64>),
}

/// The nodes of the field that [`register`] returns for a block.
pub(super) fn nodes_of(shape: [usize; 3], voxel: Point) -> Lattice {
    pyramid::nodes(&Lattice::over(shape, [1; 3]), voxel, shape)
}

/// Number of control points at the finest resolution of a block, `spacing` voxels apart.
pub(super) fn control_points(shape: [usize; 3], voxel: Point, spacing: f64) -> usize {
    Controls::over(shape, voxel, spacing * unit(voxel, shape)).shape().iter().product()
}

/// Finds the displacement field that aligns the moving image with the fixed one.
pub(super) fn register(mut pair: BlockPair, options: &Options) -> Result<Registered, Unusable> {
    pyramid::clamp_outliers(&mut pair.fixed);
    pyramid::clamp_outliers(&mut pair.moving);
    let (shape, voxel) = (pair.shape, pair.voxel);
    let (fixed, moving) = comparable(&pair, options.metric)?;
    drop(pair);
    let levels = pyramid::build(fixed, moving, shape, voxel, options.levels);
    let finest = nodes_of(shape, voxel);
    let mut known: Option<(Lattice, Field)> = None;
    let mut form = free_form(shape, voxel, levels.len(), options);
    let mut gain = Gain { similarity: [0.0; 2], gains: true, mean: [0.0; 3] };
    let mut levels = levels.into_iter();
    let whole = levels.next();
    let coarse: Vec<Level> = levels.collect();
    let without_padding = unpadded(&coarse);
    let prepared = |levels: Vec<Level>| -> Vec<Level> {
        levels.into_iter().map(|level| prepare(level, voxel, false, options)).collect()
    };
    let coarse = prepared(coarse);
    let judged = without_padding.map(prepared);
    let evidence = chance::of_block(judged.as_ref().unwrap_or(&coarse), 1, shape, voxel, options);
    drop(judged);
    let judged = options.choose && options.model == Model::Dense;
    let verdict = judged.then(|| validate::choose(&coarse, 1, shape, voxel, options)).flatten();
    let mut elasticity = verdict.map_or(options.elasticity, |verdict: Verdict| verdict.elasticity);
    let options = &Options { elasticity, ..options.clone() };
    let all = whole.into_iter().chain(coarse).enumerate().collect::<Vec<_>>();
    for (number, level) in all.into_iter().rev() {
        let nodes = pyramid::nodes(&level.lattice, voxel, shape);
        let images = if number == 0 { prepare(level, voxel, true, options) } else { level };
        let stage = Stage {
            fixed: &images.fixed,
            moving: &images.moving,
            pixels: images.lattice,
            nodes,
            voxel,
        };
        let iterations = options.iterations_at(number);
        let mut field = improve(&stage, known.as_ref(), form.as_mut(), iterations, options);
        if number == 0 {
            gain = Gain::of(&stage, &mut field, form.as_mut(), iterations, options);
        }
        known = Some((nodes, field));
    }
    if let Some(form) = &form {
        elasticity = form.elasticity;
    }
    let (nodes, field) = known.unwrap_or_else(|| (finest, finest.zeros()));
    let Gain { similarity, gains, mean } = gain;
    if !gains {
        return Err(Unusable::NoGain(evidence));
    }
    if verdict.is_some_and(|verdict| !verdict.gains) {
        // the field is set to 0 because a field fitted to half of the block does not improve the
        // other half
        let similarity = [similarity[0]; 2];
        let (field, mean) = (nodes.zeros(), [0.0; 3]);
        return Ok(Registered { nodes, field, mean, similarity, elasticity, evidence });
    }
    Ok(Registered { nodes, field, mean, similarity, elasticity, evidence })
}

/// The gain in similarity from a field at the finest resolution.
struct Gain {
    /// The similarity without and with the field.
    similarity: [f64; 2],
    /// Whether the images are at least as similar with the field as without it.
    gains: bool,
    /// The mean displacement, weighted by the structure of the fixed image.
    mean: [f64; 3],
}

impl Gain {
    /// Measures the gain. If a B-spline field makes the images less similar than no field, its
    /// control points are reset to 0 and fitted again at the resolution of `stage`, with a fixed
    /// elasticity.
    fn of(
        stage: &Stage,
        field: &mut Field,
        form: Option<&mut FreeForm>,
        iterations: usize,
        options: &Options,
    ) -> Self {
        let before = sums(stage, &stage.nodes.zeros(), options);
        let mut after = sums(stage, field, options);
        if let (Some(form), false) = (form, after.energy <= before.energy) {
            // Each accepted step decreases the sum of image and bending energy, and a zero field
            // has no bending energy. Therefore the new field is never worse than no field.
            form.reset();
            let chosen = Options { choose: false, ..options.clone() };
            *field = improve(stage, None, Some(form), iterations, &chosen);
            after = sums(stage, field, options);
        }
        let not_worse = after.energy <= before.energy;
        let similarity = [before, after].map(|sums| options.metric.similarity(&sums));
        // for nearly identical images, the two energies differ only by rounding errors; a gain in
        // similarity then suffices
        let gains = not_worse || similarity[1] >= similarity[0];
        Self { similarity, gains, mean: weighted_mean(field, &stage.structure()) }
    }
}

/// The mean of each component with a weight at each node; 0 if all weights are 0.
fn weighted_mean(field: &Field, weights: &[f32]) -> [f64; 3] {
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    field.each_ref().map(|image| {
        let pairs = image.iter().zip(weights);
        let sum: f64 = pairs.map(|(v, w)| f64::from(*v) * f64::from(*w)).sum();
        if total > 0.0 { sum / total } else { 0.0 }
    })
}

/// Computes the field at the resolution of `stage`, with the field `known` of the coarser
/// resolution as the initial guess.
fn improve(
    stage: &Stage,
    known: Option<&(Lattice, Field)>,
    form: Option<&mut FreeForm>,
    iterations: usize,
    options: &Options,
) -> Field {
    let Some(form) = form else {
        let field = match known {
            Some((lattice, field)) => lattice.resample(field, &stage.nodes),
            None => stage.nodes.zeros(),
        };
        return descend(stage, field, iterations, options);
    };
    if known.is_some() {
        form.refine();
    }
    form.descend(stage, iterations, &limits(stage), options, |field| sums(stage, field, options))
}

/// The images with padding set to NaN, because the padding of unrelated images can have the same
/// outline; `None` if no image has padding.
fn unpadded(levels: &[Level]) -> Option<Vec<Level>> {
    let mut found = false;
    let mut without = |shape: [usize; 3], image: &[f32]| {
        let mut image = image.to_vec();
        found |= padding::mark(shape, &mut image);
        image
    };
    let levels: Vec<Level> = levels
        .iter()
        .map(|Level { lattice, fixed, moving }| Level {
            lattice: *lattice,
            fixed: without(lattice.shape, fixed),
            moving: without(lattice.shape, moving),
        })
        .collect();
    found.then_some(levels)
}

/// The control points at the coarsest of `levels` resolutions; `None` for the dense model.
fn free_form(
    block: [usize; 3],
    voxel: Point,
    levels: usize,
    options: &Options,
) -> Option<FreeForm> {
    let Model::Bspline { spacing } = options.model else { return None };
    let coarsest = spacing * unit(voxel, block) * f64::from(1u32 << (levels - 1));
    Some(FreeForm::new(Controls::over(block, voxel, coarsest), options.elasticity))
}

/// The limits of a step of control points.
fn limits(stage: &Stage) -> Limits {
    let unit = unit(stage.pixels.spacing(stage.voxel), stage.pixels.shape);
    Limits { voxel: unit, longest: LONGEST_OF_CONTROLS * unit, jacobian: LEAST_JACOBIAN }
}

/// Both images, standardised to mean 0 and standard deviation 1. For [`Metric::Ssq`], which
/// compares brightness, the moving image is scaled like the fixed one; for [`Metric::Mi`],
/// intensities are replaced by their ranks.
///
/// # Errors
/// [`Unusable::Empty`] if an image is constant or has no known voxel, or if the images hardly
/// overlap.
fn comparable(pair: &BlockPair, metric: Metric) -> Result<(Vec<f32>, Vec<f32>), Unusable> {
    let (mean, variance, known) = pyramid::moments(&pair.fixed);
    let (other_mean, other_variance, other_known) = pyramid::moments(&pair.moving);
    let both = pair.fixed.iter().zip(&pair.moving).filter(|(f, m)| (*f + *m).is_finite()).count();
    if known == 0.0 {
        return Err(Unusable::Empty("no voxel of the fixed volume counts"));
    }
    if other_known == 0.0 {
        return Err(Unusable::Empty("the moving volume shows nothing there"));
    }
    if (both as f64) < KNOWN * pair.fixed.len() as f64 {
        return Err(Unusable::Empty("the volumes hardly overlap"));
    }
    // rounding errors can give a constant image a variance of up to this limit
    let constant = |mean: f64, variance: f64| variance <= 1e-12 * mean * mean || variance == 0.0;
    if constant(mean, variance) {
        return Err(Unusable::Empty("the fixed volume is constant"));
    }
    if constant(other_mean, other_variance) {
        return Err(Unusable::Empty("the moving volume is constant"));
    }
    if metric == Metric::Mi {
        return Ok((pyramid::equalise(&pair.fixed), pyramid::equalise(&pair.moving)));
    }
    let fixed = pyramid::standardise(&pair.fixed, mean, variance.sqrt());
    let moving = match metric {
        Metric::Ssq => pyramid::standardise(&pair.moving, mean, variance.sqrt()),
        _ => pyramid::standardise(&pair.moving, other_mean, other_variance.sqrt()),
    };
    Ok((fixed, moving))
}

/// Prepares the images of a level for comparison: blurs them if the level is the finest, and
/// normalises them locally for [`Metric::Lcc`].
fn prepare(mut level: Level, voxel: Point, finest: bool, options: &Options) -> Level {
    let spacing = level.lattice.spacing(voxel);
    let unit = unit(spacing, level.lattice.shape);
    if finest {
        let pixels = Lattice { shape: level.lattice.shape, factor: [1; 3] };
        pyramid::soften(&mut level.fixed, &pixels, spacing, BLUR * unit);
        pyramid::soften(&mut level.moving, &pixels, spacing, BLUR * unit);
    }
    if options.metric == Metric::Lcc {
        let sigma = options.radius * unit;
        level.fixed = pyramid::normalise(&level.fixed, &level.lattice, voxel, sigma);
        level.moving = pyramid::normalise(&level.moving, &level.lattice, voxel, sigma);
    }
    level
}

/// The voxel size of a resolution as one length: the finest spacing among the axes of more than one
/// voxel.
pub(super) fn unit(spacing: Point, shape: [usize; 3]) -> f64 {
    let wide = (0..3).filter(|&a| shape[a] > 1).map(|a| spacing[a]);
    wide.fold(f64::INFINITY, f64::min).min(spacing.iter().copied().fold(0.0, f64::max))
}

pub(super) fn sums(stage: &Stage, field: &Field, options: &Options) -> Sums {
    match options.metric {
        Metric::Mi => stage.scored_sums(field, BINS),
        Metric::Lcc | Metric::Ssq => stage.sums(field),
    }
}

/// Takes steps until the similarity no longer improves; returns the best field.
pub(super) fn descend(
    stage: &Stage,
    mut field: Field,
    iterations: usize,
    options: &Options,
) -> Field {
    let mut descent = Descent::new(stage, options);
    let mut best: Option<(f64, Field)> = None;
    for _ in 0..=iterations {
        let now = sums(stage, &field, options);
        if now.voxels == 0 {
            break;
        }
        if let Some((energy, kept)) = &best {
            let gain = (energy - now.energy) / energy.abs().max(f64::MIN_POSITIVE);
            if gain < 0.0 {
                // the step was too long: try again from the best field so far, with shorter steps
                descent.longest *= 0.5;
                if descent.longest < 0.1 * LONGEST * descent.unit {
                    break;
                }
                field = descent.step(kept, &sums(stage, kept, options));
                continue;
            }
            if gain < options.tolerance {
                best = Some((now.energy, field));
                break;
            }
        }
        let next = descent.step(&field, &now);
        best = Some((now.energy, field));
        field = next;
    }
    best.map_or_else(|| stage.nodes.zeros(), |(_, field)| field)
}

/// The state that the steps of one resolution share.
struct Descent<'a> {
    stage: &'a Stage<'a>,
    options: &'a Options,
    /// The inverse matrices of the normal equations, if they are the same for all steps.
    inverse: Option<[Vec<f32>; 6]>,
    /// Voxel size of this resolution, micrometres.
    unit: f64,
    /// The maximum displacement by the next step, micrometres.
    longest: f64,
}

impl<'a> Descent<'a> {
    fn new(stage: &'a Stage<'a>, options: &'a Options) -> Self {
        let unit = unit(stage.pixels.spacing(stage.voxel), stage.pixels.shape);
        let mut descent = Self { stage, options, inverse: None, unit, longest: LONGEST * unit };
        if options.metric != Metric::Mi {
            descent.inverse = Some(descent.inverted(&stage.tensor()));
        }
        descent
    }

    /// Averages over the window of each node.
    fn windowed(&self, image: &[f32]) -> Vec<f32> {
        self.stage.nodes.smooth(image, self.options.window * self.unit, self.stage.voxel)
    }

    fn inverted(&self, tensor: &[Vec<f32>; 6]) -> [Vec<f32>; 6] {
        let windowed = tensor.each_ref().map(|image| self.windowed(image));
        invert(&windowed, self.options.damping)
    }

    /// One step: the update of each node is composed with the field, and the result is smoothed.
    /// While the result folds, the limit on the length of an update is halved, up to three times;
    /// if it still folds, the field is returned unchanged.
    fn step(&self, field: &Field, now: &Sums) -> Field {
        let (nodes, voxel) = (self.stage.nodes, self.stage.voxel);
        let own = now.tensor.as_ref().map(|tensor| self.inverted(tensor));
        let Some(inverse) = own.as_ref().or(self.inverse.as_ref()) else { return field.clone() };
        let slope = now.slope.each_ref().map(|image| self.windowed(image));
        let elastic = self.options.elasticity * self.unit;
        let mut longest = self.longest;
        for _ in 0..4 {
            let update = solve(inverse, &slope, longest as f32);
            let sum = nodes.compose(field, &update, voxel);
            let next = sum.each_ref().map(|image| nodes.smooth(image, elastic, voxel));
            if nodes.is_unfolded(&next, voxel, LEAST_JACOBIAN) {
                return next;
            }
            longest *= 0.5;
        }
        field.clone()
    }
}

#[cfg(test)]
mod tests;
