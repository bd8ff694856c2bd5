//! The inverse of a map, as a displacement field.
//!
//! For every node `y` of a grid in the moving space, `warp::inverse` searches for the point `q`
//! with `map(q) = y`, and the field stores `q - y`. Unlike a fixed-point inverse (spec of
//! BigStream, section 6.5), which leaves an error, the search at each node continues until the map
//! takes `q` to within the tolerance of the node. If there is no such point, the vector of the node
//! is NaN, which means unknown.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::blocks::{self, Budget, Context, Identity, Outcome, Plan, Reads, TaskResult};
use crate::device::Cost;
use crate::geom::{Chain, FieldSource, Grid, Point, Transform, UnreachedField};
use crate::volume::{self, FieldOutput};
use crate::warp::{self, inverse, points};

#[cfg(test)]
mod tests;

/// The side of a chunk of the field, in nodes.
const CHUNK: usize = 64;

/// The maximum number of blocks whose memory is estimated in advance.
const MAX_PROBES: usize = 12;

/// The reason why a map could not be inverted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of reading or writing a volume.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the block-wise run.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// A field of the chain could not be read, or the chain has a step that cannot be inverted.
    #[error(transparent)]
    Warp(#[from] warp::Error),
    /// A field of the chain does not overlap the points that it would be applied to.
    #[error(transparent)]
    Apart(#[from] UnreachedField),
    /// No node has an inverse.
    #[error(
        "no node of the grid has an inverse under {transform}: the grid, or its unit (micrometres), is not that \
         of the map; give --onto a volume of the moving space"
    )]
    Nothing {
        /// The name of the map.
        transform: String,
    },
    /// No grid is given, and the chain has no field whose grid could be used.
    #[error(
        "{transform} holds no displacement field whose grid could be used; give --onto a volume"
    )]
    NoGrid {
        /// The name of the map.
        transform: String,
    },
}

/// The parameters of the inversion.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the map, for messages.
    pub transform: String,
    /// The maximum distance between a node and the image of its inverse, in units of the smallest
    /// node spacing.
    pub tolerance: f64,
}

/// The statistics of a block in its ledger entry, or the total of all blocks: the numbers of nodes
/// with an inverse (`found`) and without (`lost`), how many of the latter lie where the map folds
/// (`folded`), and the maximum displacement along z, y, x in micrometres (`reach`).
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct InversionCounts {
    found: u64,
    lost: u64,
    folded: u64,
    /// The sum and the maximum of the residuals, in units of the smallest node spacing.
    sum: f64,
    greatest: f64,
    reach: Point,
}

impl InversionCounts {
    fn of(found: &inverse::Inverse, grid: &Grid) -> Self {
        let unit = grid.spacing.iter().copied().fold(f64::INFINITY, f64::min);
        let mut reach = [0.0; 3];
        for vector in &found.vectors {
            for a in 0..3 {
                // `max` ignores NaN, which marks unknown vectors
                reach[a] = f64::from(vector[a].abs()).max(reach[a]);
            }
        }
        Self {
            found: found.vectors.len() as u64 - found.lost,
            lost: found.lost,
            folded: found.folded,
            sum: found.residual_sum / unit,
            greatest: found.residual_greatest / unit,
            reach,
        }
    }

    fn add(&mut self, other: &Self) {
        self.found += other.found;
        self.lost += other.lost;
        self.folded += other.folded;
        self.sum += other.sum;
        self.greatest = self.greatest.max(other.greatest);
        for (a, b) in self.reach.iter_mut().zip(other.reach) {
            *a = a.max(b);
        }
    }
}

/// The grid of the chain's first field, moved and resized to cover the image of that field under
/// the map. Each point of this image has an inverse.
///
/// # Errors
/// [`Error::NoGrid`] if the chain has no field, [`Error::Nothing`] if none of the sample points has
/// an image, or an error of mapping the points.
pub fn grid_of(chain: &Chain, options: &Options) -> Result<Grid, Error> {
    let field = chain.steps.iter().find_map(|step| match step {
        Transform::Field(field) => Some(field.grid()),
        _ => None,
    });
    let grid = field.ok_or_else(|| Error::NoGrid { transform: options.transform.clone() })?;
    let images = points::forward(chain, &grid.sample())?;
    let Some(extent) = extent_of(&images) else {
        return Err(Error::Nothing { transform: options.transform.clone() });
    };
    let nodes = |a: usize| ((extent[1][a] - extent[0][a]) / grid.spacing[a]).round() as usize + 1;
    let shape = [nodes(0), nodes(1), nodes(2)];
    let planar = grid.planar && shape[0] == 1;
    Ok(Grid { planar, ..Grid::new(shape, grid.spacing, extent[0]) })
}

/// The extent `[low, high]` of the finite points; `None` if no point is finite.
fn extent_of(points: &[Point]) -> Option<[Point; 2]> {
    let mut extent = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
    for q in points.iter().filter(|q| q.iter().all(|v| v.is_finite())) {
        for a in 0..3 {
            extent[0][a] = extent[0][a].min(q[a]);
            extent[1][a] = extent[1][a].max(q[a]);
        }
    }
    extent[0][0].is_finite().then_some(extent)
}

/// Writes the inverse of `chain` on `grid`, a grid in the moving space, to `output`.
///
/// # Errors
/// [`Error`]. Blocks that failed are listed in the receipt.
pub fn invert(
    chain: &Chain,
    grid: &Grid,
    output: &str,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    if !(options.tolerance.is_finite() && options.tolerance > 0.0) {
        let found = options.tolerance;
        let message = format!("--tolerance {found}: wanted is a length above 0, in voxels");
        return Err(blocks::Error::Usage(message).into());
    }
    if let Some(extent) = extent_of(&points::inverse(chain, &grid.sample())?.points) {
        chain.check_fields(extent)?;
    }
    let chunk = grid.shape.map(|n| n.min(CHUNK));
    let plan = plan(chain, grid, (output, chunk), options, ctx)?;
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let out = FieldOutput::begin(output, grid, chunk, &plan.as_run(ctx))?;
    out.set_inverse()?;
    ctx.output_file(Path::new(output));
    let results = plan.stream_to::<_, _, _, Error>(
        ctx,
        &out,
        |task| Ok(task.core),
        |_, core| {
            let found = inverse::inverse(chain, grid, &core, options.tolerance)?;
            let tally = InversionCounts::of(&found, grid);
            Ok((found.vectors, tally))
        },
        |task, (vectors, tally)| {
            out.write(&task.core, &vectors)?;
            let outcome = if tally.found == 0 { Outcome::Empty } else { Outcome::Done };
            Ok(TaskResult::from(outcome).with_summary(&tally)?)
        },
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let mut tally = InversionCounts::default();
    for summary in results.summaries() {
        tally.add(&summary?.1);
    }
    conclude(&tally, &out, options, ctx)
}

fn plan(
    chain: &Chain,
    grid: &Grid,
    (output, chunk): (&str, [usize; 3]),
    options: &Options,
    ctx: &Context,
) -> Result<Plan, Error> {
    let budget = Budget::of(ctx);
    let fields: Vec<Reads> = fields_of(chain).map(Reads::Field).collect();
    fields_of(chain).for_each(|field| field.keep(ctx.memory / 8));
    let guess = |block: [usize; 3]| estimate(chain, grid, block);
    let block = Plan::choose_block(grid.bounds(), chunk, guess, ctx)?;
    let cost = most_expensive(chain, grid, block)?;
    let sources: Vec<_> = fields.iter().map(|field| (*field, ctx.memory / 8)).collect();
    let kept = budget.caches(&sources, &cost);
    let identity = Identity::of("invmap")
        .with_chain("transform", chain)?
        .with("grid", grid)
        .with("tolerance", options.tolerance);
    let nodes = (0..3).map(|a| block[a].min(grid.shape[a])).product();
    Ok(Plan::tile(grid.bounds(), block, cost, &identity)
        .waiting(&Cost::of::<[f32; 3]>("inverse vectors", nodes))
        .with_overhead(
            &budget,
            kept,
            Budget::each_thread(&fields, FieldOutput::writing_bytes(output, chunk)),
        ))
}

fn fields_of(chain: &Chain) -> impl Iterator<Item = &dyn FieldSource> {
    chain.steps.iter().filter_map(|step| match step {
        Transform::Field(field) => Some(&**field),
        _ => None,
    })
}

/// The memory of a block, estimated without reading fields, on the assumption that the map changes
/// lengths by at most a quarter.
fn estimate(chain: &Chain, grid: &Grid, block: [usize; 3]) -> Cost {
    let nodes: usize = (0..3).map(|a| block[a].min(grid.shape[a])).product();
    let vectors = fields_of(chain).map(|field| {
        let own = field.grid();
        let along = |a: usize| {
            let length = (block[a] + 16) as f64 * grid.spacing[a] * 1.25;
            ((length / own.spacing[a]).min(1e9) as usize + 4).min(own.shape[a])
        };
        along(0) * along(1) * along(2)
    });
    Cost::of::<[f32; 3]>("inverse vectors", nodes)
        + Cost::of::<[f32; 3]>("vectors of the map", vectors.sum())
        + points::search_cost(chain, points::MAX_CONCURRENT, nodes)
}

/// The memory of the most expensive of at most [`MAX_PROBES`] evenly spaced blocks. If these are
/// not all blocks, a tenth is added because the other blocks can need more.
fn most_expensive(chain: &Chain, grid: &Grid, block: [usize; 3]) -> Result<Cost, Error> {
    let count = grid.bounds().tiles(block).count();
    let every = count.div_ceil(MAX_PROBES).max(1);
    let mut most = Cost::default();
    for part in grid.bounds().tiles(block).step_by(every) {
        most = most.or(inverse::cost(chain, grid, &part)?);
    }
    let margin = if every > 1 { most.total() / 10 } else { 0 };
    Ok(most + Cost::bytes("blocks not looked at", margin))
}

fn conclude(
    tally: &InversionCounts,
    out: &FieldOutput,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    let nodes = tally.found + tally.lost;
    ctx.record("nodes", nodes);
    ctx.record("without_inverse", tally.lost);
    ctx.record("folded", tally.folded);
    ctx.record("residual_mean_voxels", tally.sum / tally.found.max(1) as f64);
    ctx.record("residual_greatest_voxels", tally.greatest);
    if nodes == 0 {
        return Ok(()); // all blocks failed, which was allowed
    }
    if tally.found == 0 {
        return Err(Error::Nothing { transform: options.transform.clone() });
    }
    out.set_attribute("reach", serde_json::json!(tally.reach))?;
    let (lost, folded) = (tally.lost, tally.folded);
    if folded > 0 {
        tracing::warn!(
            "{lost} of {nodes} nodes have no inverse, {folded} of them where the map folds; they are unknown (NaN)"
        );
    } else if lost > 0 {
        tracing::info!(
            "{lost} of {nodes} nodes have no inverse and are unknown (NaN): the map takes no point there; it has \
             no folds"
        );
    }
    Ok(())
}
