//! Smooth local deformation: a displacement field that aligns the moving volume with the fixed one.
//!
//! There are two passes. The first registers block by block, each read with a halo, from coarse to
//! fine (`block.rs`), and stores the blocks' fields beside the output. The second blends these
//! fields with weights that sum to one everywhere (`blend.rs`). Neither pass needs a lock, and the
//! tasks of a pass can run on any machine and in any order.
//!
//! A block's field is dense, with one displacement at each node (`block.rs`), or a sum of B-splines
//! (`free_form.rs`). Both models are read, compared, stored, blended and reported in the same way.
//!
//! The field is applied first, then the initial map: `p -> initial(p + u(p))`.

use std::path::Path;

use serde_json::json;

use crate::blocks::{
    self, Budget, Context, Identity, Outcome, Plan, Reads, TaskResult, TaskResults, TaskRows,
    WriteUnit,
};
use crate::device::Cost;
use crate::geom::{Box3, Chain, Grid};
use crate::transform::{self, Step};
use crate::volume::{self, FieldOutput, Masks, Unfinished, Volume};
use crate::{files, store};

mod blend;
mod block;
mod bspline;
mod chance;
mod cpu;
mod equations;
#[cfg(feature = "cli")]
mod flags;
mod free_form;
mod lattice;
mod memory;
mod pairs;
mod pyramid;
mod similarity;
mod stiffness;
#[cfg(test)]
mod tests;
mod unfold;
mod validate;

#[cfg(feature = "cli")]
pub use flags::Flags;
use pairs::{BlockResult, Pair};
use unfold::Unfold;

/// Default size of a block along each axis, voxels.
const BLOCK: usize = 160;
/// Size of a chunk of the field along each axis, nodes.
const CHUNK: usize = 64;

/// Minimum number of voxels that a block should read along each divided axis; if it reads fewer, a
/// warning says that it finds only small displacements. In a test with shifts between two real
/// images, blocks that read fewer voxels found shifts of 4 voxels but not all shifts of 6 or 8, and
/// blocks that read more found shifts of 8.
const FAR_REACHING: usize = 64;

/// Default distance between control points, voxels.
const CONTROL_SPACING: f64 = 8.0;

/// Why no field could be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume or a field could not be read or written.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The chain could not be written.
    #[error(transparent)]
    Transform(#[from] transform::Error),
    /// The blocks could not be computed, or the output exists.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// A written file could not be synced to the disk.
    #[error(transparent)]
    Sync(#[from] files::SyncError),
    /// A field of the initial map does not reach the fixed volume.
    #[error(transparent)]
    Unreached(#[from] crate::geom::UnreachedField),
    /// No block could be aligned.
    #[error(
        "no block of the fixed volume could be aligned ({reason}); check that the volumes overlap under \
         {initial}, which takes the fixed to the moving volume in micrometres, and the masks"
    )]
    Nothing {
        /// The initial map's name.
        initial: String,
        /// Why the first block could not be aligned.
        reason: String,
    },
    /// The volumes agree no better than at wrong positions.
    #[error(
        "no field was written: under {initial}, the volumes are hardly more similar than when one is shifted \
         (by {found:.1} standard deviations, less than --min-evidence {wanted}); check that map, which takes the fixed to \
         the moving volume in micrometres and must align them roughly, and whether both show the same sample"
    )]
    Chance {
        /// The initial map's name.
        initial: String,
        /// The evidence, standard deviations.
        found: f64,
        /// `--min-evidence`.
        wanted: f64,
    },
    /// A block's overlap is more than half of the block.
    #[error(
        "--overlap {overlap} is more than half of --block-size {},{},{}; give less, or larger blocks",
        block[0], block[1], block[2]
    )]
    Overlap {
        /// `--overlap`, voxels.
        overlap: usize,
        /// Block size, voxels.
        block: [usize; 3],
    },
}

/// A similarity measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Metric {
    /// Local correlation: brightness and contrast may differ from place to place.
    #[default]
    Lcc,
    /// Sum of squared differences: both images must have the same brightness.
    Ssq,
    /// Mutual information: intensities may be related in any way.
    Mi,
}

impl Metric {
    /// The name used in receipts.
    fn name(self) -> &'static str {
        match self {
            Self::Lcc => "local correlation",
            Self::Ssq => "negative mean square difference",
            Self::Mi => "mutual information",
        }
    }

    /// The similarity of the images; larger is better.
    fn similarity(self, sums: &cpu::Sums) -> f64 {
        match self {
            // the local correlation of images with local mean 0 and variance 1
            Self::Lcc => 1.0 - 0.5 * sums.square,
            Self::Ssq | Self::Mi => -sums.square,
        }
    }
}

/// How a field is parametrised.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub enum Model {
    /// Each node has its own displacement.
    Dense,
    /// Cubic B-splines on a grid of control points.
    Bspline {
        /// Distance between control points, voxels of each resolution.
        spacing: f64,
    },
}

impl Model {
    /// The name used in receipts.
    fn name(self) -> String {
        match self {
            Self::Dense => "dense".to_owned(),
            Self::Bspline { spacing } => format!("B-spline, control points {spacing} voxels apart"),
        }
    }
}

/// How a field is computed. Windows are standard deviations in voxels of each resolution.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Options {
    /// The initial map's name, for messages.
    #[serde(skip)]
    pub initial: String,
    /// The similarity measure.
    pub metric: Metric,
    /// How the field is parametrised.
    pub model: Model,
    /// Maximum number of resolutions; small blocks have fewer.
    pub levels: usize,
    /// Maximum number of steps at each resolution, from coarse to fine; the last value also applies
    /// to all finer resolutions.
    pub iterations: Vec<usize>,
    /// Minimum decrease of the energy by a step, as a fraction of the energy; a smaller decrease
    /// ends the steps of a resolution.
    pub tolerance: f64,
    /// Window of the local correlation.
    pub radius: f64,
    /// Window over which the normal equations of the dense field are averaged.
    pub window: f64,
    /// The stiffness of the B-splines; for a dense field, the standard deviation of its smoothing
    /// after each step, in voxels of each resolution.
    pub elasticity: f64,
    /// Whether each block uses the elasticity that cross-validation finds best instead of
    /// `elasticity`. A dense field is then set to 0 if the field of the best elasticity scores no
    /// better than zero displacement.
    pub choose: bool,
    /// How strongly regions without structure are held in place.
    pub damping: f64,
    /// Width of the halo that a block reads beyond its own voxels, voxels of the fixed volume.
    pub overlap: usize,
    /// Minimum fraction of a block within the fixed mask.
    pub foreground: f64,
    /// Number of standard deviations by which the similarity must exceed that at wrong positions; 0
    /// accepts any field.
    pub min_evidence: f64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            initial: String::new(),
            metric: Metric::Lcc,
            model: Model::Bspline { spacing: CONTROL_SPACING },
            levels: 4,
            iterations: vec![10, 8, 8, 6],
            tolerance: 0.005,
            radius: 4.0,
            window: 2.0,
            elasticity: 4.0,
            choose: true,
            damping: 1.0,
            overlap: 32,
            foreground: 0.0,
            min_evidence: 8.0,
        }
    }
}

impl Options {
    /// Maximum number of steps at `level`; level 0 is the finest.
    fn iterations_at(&self, level: usize) -> usize {
        let from_coarsest = (self.levels - 1).saturating_sub(level);
        self.iterations.get(from_coarsest).or(self.iterations.last()).copied().unwrap_or(0)
    }
}

/// Computes the field and writes it to `output`. The complete chain, which is the field followed by
/// `steps` (the steps of `initial`), is written to [`transform::document_beside`] `output`.
///
/// # Errors
/// [`Error`].
pub fn align(
    fixed: &Volume,
    moving: &Volume,
    masks: Masks,
    initial: &Chain,
    steps: &[Step],
    output: &str,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    volume::check_zarr_name(output)?;
    let grid = fixed.grid();
    let finest = block::nodes_of(grid.shape, grid.spacing);
    let nodes = Grid {
        shape: finest.shape,
        spacing: finest.spacing(grid.spacing),
        origin: grid.position(finest.factor.map(|f| 0.5 * (f as f64 - 1.0))),
        planar: grid.planar,
    };
    let block = choose_block(grid.shape, finest.factor, options, ctx)?;
    initial.check_fields(grid.extent(&grid.bounds()))?;
    let pair = Pair { fixed, moving, masks, initial, options, factor: finest.factor };
    let plan = plan(&pair, block, ctx)?;
    let second = blend::plan(&plan, &finest, block, options);
    ctx.input(fixed);
    ctx.input(moving);
    [masks.fixed, masks.moving].into_iter().flatten().for_each(|mask| ctx.input(mask));
    let asked = [plan.is_all_asked(ctx)?, second.is_all_asked(ctx)?];
    if asked.contains(&true) {
        return Ok(());
    }
    let (document, folder) =
        (transform::document_beside(output), blocks::ledger_folder_of(Path::new(output)));
    ctx.refuse_existing(&document)?;
    if plan.has_finished(output, ctx)? && store::exists(&document) {
        plan.restore_receipt(output, ctx)?;
        TaskRows::sweep(&folder, ctx);
        return Ok(());
    }
    ctx.replace_document(&document)?;
    let rows = TaskRows::new(&folder);
    let ends = first_pass(&pair, &plan, &rows, &folder, ctx)?;
    if !ctx.reaches_second_pass() {
        return Ok(());
    }
    let blend = chance::check(&ends, options, output, ctx)
        .and_then(|()| blend::Blend::new(&rows, &plan, &ends, &finest, block, options));
    let blend = match blend {
        Ok(blend) => blend,
        Err(none) => {
            // a run with other options has its own ledger and cannot use these rows
            rows.discard(ctx);
            return Err(none);
        }
    };
    let out = FieldOutput::begin(output, &nodes, [CHUNK; 3], &ctx.existing_now())?;
    ctx.output_file(Path::new(output));
    let Some(mut summary) = blend.write(&second, &out, nodes.spacing, ctx)? else {
        return Ok(());
    };
    let mut unfold = Unfold::new(nodes, initial, out.unit(), |part: &Box3| blend.blend(part));
    let (left, found) = unfold.repair(ctx)?;
    for (chunk, field) in unfold.changed() {
        out.write(&chunk, &blend::interleave(field, &chunk, &chunk))?;
    }
    summary.unfolded(&left, found);
    ctx.record("model", options.model.name());
    summary.record(options.metric.name(), ctx);
    out.set_attribute("reach", json!(summary.reach()))?;
    let mut chain = vec![Step::Field(output.to_owned())];
    chain.extend_from_slice(steps);
    transform::write_document(&document, &chain)?;
    out.set_attribute(blocks::RESULTS, ctx.results())?;
    files::sync_pending()?;
    out.set_missing_blocks(None, true)?;
    // this attribute marks the output as complete and is therefore written last
    out.set_attribute(blocks::IDENTITY_ATTRIBUTE, plan.identity().to_json())?;
    rows.remove(ctx);
    Ok(())
}

fn first_pass(
    pair: &Pair,
    plan: &Plan,
    rows: &TaskRows,
    folder: &Path,
    ctx: &Context,
) -> Result<TaskResults, blocks::Error> {
    plan.stream(
        ctx,
        folder,
        |task| pair.read(task),
        |task, input| Ok(pair.align(task, input)),
        |_, BlockResult { head, field, outcome }: BlockResult| {
            let ending = TaskResult::from(outcome).with_summary(&head)?;
            let Some(field) = field else { return Ok(ending) };
            Ok(ending.with_rows(rows.write(&pairs::encode(&field, head.shape))?))
        },
    )
}

/// The size of a block, voxels: `--block-size`, or the size that divides each axis into the fewest
/// equal parts of at most [`BLOCK`] voxels. It is rounded up to a multiple of `factor`.
///
/// # Errors
/// [`Error::Overlap`] if `--overlap` is more than half of a block along an axis that is divided.
fn choose_block(
    shape: [usize; 3],
    factor: [usize; 3],
    options: &Options,
    ctx: &Context,
) -> Result<[usize; 3], Error> {
    let block: [usize; 3] = std::array::from_fn(|a| {
        let wanted = ctx.block_size.map_or_else(
            || shape[a].div_ceil(shape[a].div_ceil(BLOCK)),
            |size| size[a].min(shape[a]),
        );
        wanted.next_multiple_of(factor[a])
    });
    let cut = |a: usize| block[a] < shape[a];
    if (0..3).any(|a| cut(a) && 2 * options.overlap > block[a]) {
        return Err(Error::Overlap { overlap: options.overlap, block });
    }
    Ok(block)
}

fn plan(pair: &Pair, block: [usize; 3], ctx: &Context) -> Result<Plan, Error> {
    let budget = Budget::of(ctx);
    let (bounds, overlap) = (pair.fixed.grid().bounds(), pair.options.overlap);
    let held = pair.held(block)?;
    let cost = |block: [usize; 3]| {
        let cut = |a: usize| block[a] < bounds.shape()[a] && 2 * overlap > block[a];
        // blocks that would be refused for their overlap must not be suggested
        match pair.held(block) {
            Ok(held) if !(0..3).any(cut) => held.peak,
            _ => Cost::bytes("overlap", u64::MAX),
        }
    };
    let least = WriteUnit::multiple_of(pair.factor);
    blocks::refuse_large(
        block,
        bounds,
        least,
        |b| if b == block { held.peak.clone() } else { cost(b) },
        ctx,
    )?;
    let read = std::array::from_fn(|a| (block[a] + 2 * overlap).min(bounds.shape()[a]));
    let count = |shape: [usize; 3]| shape.iter().product::<usize>() as u64;
    blocks::warn_of_halo(block, count(block), count(read));
    if (0..3).any(|a| block[a] < bounds.shape()[a] && read[a] < FAR_REACHING) {
        tracing::warn!(
            "blocks of {},{},{} voxels with --overlap {overlap} find displacements of up to about 4 \
             voxels; if --initial leaves larger ones, give a larger --block-size",
            block[0],
            block[1],
            block[2]
        );
    }
    let masks = [pair.masks.fixed, pair.masks.moving].into_iter().flatten();
    let volumes: Vec<&Volume> = [pair.fixed, pair.moving].into_iter().chain(masks).collect();
    let reads: Vec<Reads> = volumes.iter().map(|volume| Reads::Volume(volume)).collect();
    let useful =
        volumes.iter().map(|volume| blocks::useful_cache_bytes(volume, block, [overlap; 3]));
    let kept = budget.caches(&reads.iter().copied().zip(useful).collect::<Vec<_>>(), &held.peak);
    let identity = Identity::of("deform")
        .with_processor()
        .with_volume("fixed", pair.fixed)?
        .with_volume("moving", pair.moving)?
        .with_optional("fixed-mask", pair.masks.fixed)?
        .with_optional("moving-mask", pair.masks.moving)?
        .with_chain("initial", pair.initial)?
        .with("options", pair.options)
        .with("block", block);
    Ok(Plan::tile(bounds, block, held.peak, &identity).waiting(&held.waiting).with_overhead(
        &budget,
        kept,
        Budget::each_thread(&reads, 0),
    ))
}

/// The ledger's outcome for a block without a field of its own.
fn outcome_of(unusable: &block::Unusable) -> Outcome {
    match unusable {
        block::Unusable::Empty(_) => Outcome::Empty,
        block::Unusable::NoGain(_) => {
            Outcome::Fallback("no similarity gained; it takes its neighbours' field".to_owned())
        }
    }
}
