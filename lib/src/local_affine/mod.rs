//! One affine per block, fitted jointly so that neighbouring blocks are consistent.
//!
//! There are two passes. The first finds, task by task, the spots of the fixed volume and the
//! positions at which the moving volume, resampled through the initial map, shows matching
//! surroundings. The second fits the affines of all blocks jointly to all these pairs (`solve.rs`
//! states the sum that is minimised). Neither pass needs a lock, and the tasks of the first can run
//! on any machine in any order.

use std::path::Path;

use serde_json::Map;

use crate::blocks::{self, Context, Identity, Outcome, Plan, TaskResult, TaskResults, TaskRows};
use crate::features;
use crate::geom::{Box3, Chain, Grid, LocalAffines, Point, defaults};
use crate::matching::ContextRadius;
use crate::table::{self, BlockRow, Status};
use crate::transform;
use crate::volume::{self, Volume};

mod cpu;
#[cfg(feature = "cli")]
mod flags;
mod folds;
mod limits;
#[cfg(test)]
mod oracle;
mod outliers;
mod pairs;
mod robust;
mod solve;
mod status;
mod windows;

#[cfg(feature = "cli")]
pub use flags::Flags;
use pairs::{MatchCounts, TaskMatches, VolumePair};
use solve::Penalty;

/// The weight of the penalty on the displacement of a block from the initial map, in matches. It is
/// so small that the penalty matters only where nothing else determines the block.
const ANCHOR_WEIGHT: f64 = 1e-3;
/// The default stiffness of a face between two blocks, in matches.
const DEFAULT_STIFFNESS: f64 = 0.3;
/// The expected error of a shift, in voxels, which is the scale of outlier rejection.
const SHIFT_ERROR: f64 = 0.3;
/// The default for half the side of a context, voxels.
const HALF_CONTEXT: usize = 10;
/// The minimum side of a task, in voxels, if memory allows. The halo of so large a task costs
/// little.
const MIN_TASK_SIDE: usize = 192;
/// The peak memory of a task per voxel read, bytes: the fixed and the warped voxels, the norms of
/// their windows, and two steps of smoothing. Detection needs less.
const PER_VOXEL: u64 = 24;

/// The reason why no local affines could be computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read or written.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The affines could not be written.
    #[error(transparent)]
    Transform(#[from] transform::Error),
    /// The table of the blocks could not be written.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// The blocks could not be computed, or the output exists.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// The initial map contains steps other than matrices.
    #[error("--initial {0}: holds more than matrices; local affines refine a chain of affines")]
    NoMatrix(String),
    /// The initial map takes no voxel of the fixed volume into the moving one.
    #[error(
        "the volumes do not overlap under --initial {0}: no voxel of the fixed volume falls into \
         the moving one; check its direction (fixed to moving) and unit (micrometres)"
    )]
    NoOverlap(String),
    /// There are too few matches for a fit.
    #[error(
        "{found} of {spots} spots found a match, and {wanted} are wanted; check --initial, or \
         try a larger --max-distance, a lower --match-threshold or another --radius"
    )]
    TooFew {
        /// The number of matches found.
        found: usize,
        /// The number of spots in the overlap.
        spots: usize,
        /// The minimum number of matches.
        wanted: usize,
    },
    /// The joint fit does not fit into memory.
    #[error(
        "the fit of {matches} matches and {blocks} blocks holds {needed} MB, and --memory allows {allowed} MB; \
         run the same command with --resume and more --memory, or anew with a larger --block-size or a \
         higher --match-threshold"
    )]
    TooLarge {
        /// The number of matches of all blocks.
        matches: usize,
        /// The number of blocks.
        blocks: usize,
        /// The memory needed, megabytes.
        needed: u64,
        /// The memory allowed, megabytes.
        allowed: u64,
    },
}

/// The parameters of the alignment by local affines.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Options {
    /// The name of the initial map, for messages.
    #[serde(skip)]
    pub initial: String,
    /// The smallest and largest radius of the spots of the fixed volume, micrometres.
    pub radius: [f64; 2],
    /// Half the side of the contexts that are compared; `None` for a default that depends on the
    /// volumes.
    pub context_radius: Option<ContextRadius>,
    /// The maximum error of the initial map, micrometres.
    pub max_distance: f64,
    /// The minimum correlation of a match.
    pub match_threshold: f64,
    /// How strongly neighbouring blocks are coupled: the weight of a face in matches.
    pub stiffness: f64,
    /// The minimum number of inliers of a block that counts as fitted, and of matches in the whole
    /// volume.
    pub min_matches: usize,
    /// Half the width of the blend between blocks, as a fraction of a block; at most 0.5.
    pub overlap: f64,
}

impl Options {
    /// Defaults for volumes of these grids; lengths derive from the coarser voxel size along each
    /// axis.
    pub fn new(fixed: &Grid, moving: &Grid) -> Self {
        let spacing = defaults::common_spacing(fixed, moving).unwrap_or(fixed.spacing);
        let grid = Grid { spacing, ..*fixed };
        Self {
            initial: String::new(),
            radius: features::Options::for_grid(&grid).radius,
            context_radius: None,
            max_distance: 6.0 * grid.mean_spacing(),
            match_threshold: 0.7,
            stiffness: DEFAULT_STIFFNESS,
            min_matches: 12,
            overlap: 0.5,
        }
    }

    /// The options of spot detection in the fixed volume: all spots are used.
    fn spots(&self, grid: &Grid) -> features::Options {
        let usual = features::Options::for_grid(grid);
        features::Options { radius: self.radius, max_spots: usize::MAX, ..usual }
    }

    /// Half the side of a context in voxels along z, y, x, for two volumes of equal spacing.
    fn context(&self, grids: [&Grid; 2]) -> [usize; 3] {
        let radius = match self.context_radius {
            Some(radius) => radius.voxels(grids[0].spacing),
            None => defaults::context(HALF_CONTEXT, grids),
        };
        std::array::from_fn(|a| if grids.iter().any(|g| g.shape[a] == 1) { 0 } else { radius[a] })
    }

    /// The search range of shifts in voxels along z, y, x. It is 0 along short axes, where each
    /// plane is compared only with the plane to which the initial map takes it.
    fn reach(&self, grids: [&Grid; 2]) -> [usize; 3] {
        std::array::from_fn(|a| {
            let short = grids.iter().any(|grid| grid.shape[a] < defaults::MIN_PLANES);
            let voxels = (self.max_distance / grids[0].spacing[a]).ceil() as usize;
            if short { 0 } else { voxels.max(1) }
        })
    }
}

/// Fits local affines, writes them to `output`, and writes a row for each block to `table`.
///
/// The maps are complete: they take a fixed point to the moving volume and include `initial`.
///
/// # Errors
/// [`Error`].
pub fn align(
    fixed: &Volume,
    moving: &Volume,
    initial: &Chain,
    output: &str,
    table: Option<&Path>,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    volume::check_zarr_name(output)?;
    let grid = fixed.grid();
    let block = ctx.block_size.unwrap_or([64; 3]);
    let layout = LocalAffines {
        domain: grid,
        block,
        overlap: block.map(|n| n as f64 * options.overlap),
        affines: Vec::new(),
    };
    let start = initial.as_affine().ok_or_else(|| Error::NoMatrix(options.initial.clone()))?;
    let pair = VolumePair::new(fixed, moving, initial, options);
    limits::check(&pair, options)?;
    let plan = plan(&pair, block, ctx.memory)?;
    ctx.input(fixed);
    ctx.input(moving);
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let folder = blocks::ledger_folder_of(Path::new(output));
    if let Some(table) = table {
        ctx.refuse_existing(table)?;
    }
    if plan.has_finished(output, ctx)? && table.is_none_or(Path::exists) {
        plan.restore_receipt(output, ctx)?;
        table.iter().for_each(|path| ctx.output_done(path));
        TaskRows::sweep(&folder, ctx);
        return Ok(());
    }
    ctx.output_file(Path::new(output));
    pair.record(ctx);
    let rows = TaskRows::new(&folder);
    let results = first_pass(&pair, &plan, &rows, &folder, ctx)?;
    if !ctx.gathers() {
        return Ok(());
    }
    if let Err(none) = check(&results, options)? {
        // a run with other options has a ledger of its own and cannot use these rows
        rows.discard(ctx);
        return Err(none);
    }
    let found = gather(&rows, &plan, &results, &layout, ctx)?;
    let noise = SHIFT_ERROR * pair.fixed.grid().mean_spacing();
    let (fit, least, stiffness) = fit(&layout, &found, noise, options);
    let mut maps = LocalAffines { affines: fit.affines.clone(), ..layout };
    let (table_rows, counts) = status::classify(&maps, &found, &fit, options);
    record(&found, &fit, &counts, least, stiffness, ctx);
    for map in &mut maps.affines {
        *map = map.then(&start);
    }
    let mut extra = Map::new();
    extra.insert(blocks::RESULTS.into(), ctx.results());
    extra.insert(blocks::IDENTITY_ATTRIBUTE.into(), plan.identity().to_json());
    // the output that marks the run as complete is written last
    if let Some(path) = table {
        table::write_blocks(path, &table_rows)?;
        ctx.output_file(path);
    }
    transform::write_local_affines(output, &maps, extra, ctx.existing_now())?;
    rows.remove(ctx);
    Ok(())
}

/// The tasks of the first pass: whole blocks that together measure about [`MIN_TASK_SIDE`] voxels
/// along each axis, or fewer if two such tasks would need more than three quarters of `memory`.
fn plan(pair: &VolumePair, block: [usize; 3], memory: u64) -> Result<Plan, Error> {
    let options = pair.options;
    let margin = pair.margin();
    let bytes = |size: [usize; 3]| {
        let voxels = |a: usize| size[a].min(pair.stored_grid().shape[a]) + 2 * margin[a];
        let product = |sum: u64, n| sum.saturating_mul(n as u64);
        (0..3).map(voxels).fold(PER_VOXEL, product)
    };
    let mut counts = block.map(|n| MIN_TASK_SIDE.div_ceil(n));
    let size = |counts: [usize; 3]| -> [usize; 3] { std::array::from_fn(|a| block[a] * counts[a]) };
    while bytes(size(counts)).saturating_mul(2) > memory / 4 * 3
        && let Some(a) = (0..3).filter(|&a| counts[a] > 1).max_by_key(|&a| (size(counts)[a], 3 - a))
    {
        counts[a] -= 1;
    }
    let size = size(counts);
    blocks::refuse_many(block, pair.stored_grid().bounds())?;
    let bytes = bytes(size);
    let identity = Identity::of("local-affine")
        .with_processor()
        .with_volume("fixed", pair.fixed.volume())?
        .with_volume("moving", pair.moving.volume())?
        .with_chain("initial", pair.initial)?
        .with("options", options)
        .with("block", block);
    Ok(Plan::tile(pair.stored_grid().bounds(), size, bytes, &identity))
}

fn first_pass(
    pair: &VolumePair,
    plan: &Plan,
    rows: &TaskRows,
    folder: &Path,
    ctx: &Context,
) -> Result<TaskResults, blocks::Error> {
    plan.stream(
        ctx,
        folder,
        |task| pair.read(task),
        |task, input| pair.find(task, input),
        |_, found| {
            let empty = found.spots.is_empty();
            let result = TaskResult::from(if empty { Outcome::Empty } else { Outcome::Done });
            let result = result.with_summary(&found.summary())?;
            if empty {
                return Ok(result);
            }
            Ok(result.with_rows(rows.write(&serde_json::to_vec(&found)?)?))
        },
    )
}

/// The matches of all tasks, reduced to what the fit needs.
struct Matches {
    /// The number of spots in each block, C order.
    spots: Vec<usize>,
    /// The positions of the matched spots, micrometres, in the order of the plan's tasks.
    at: Vec<Point>,
    /// The displacement from each matched spot to its match in the moving volume resampled through
    /// the initial map, micrometres.
    shift: Vec<Point>,
}

impl Matches {
    /// Memory per match in the fit, bytes: position and shift, the observation, the residual and
    /// weight, and the k-d tree of neighbours (`robust`, `outliers`).
    const BYTES_PER_MATCH: u64 = 48 + 56 + 16 + 80;
    /// Memory per block, bytes: its rows of the normal equations, with those of its 26 neighbours
    /// (`solve`).
    const BYTES_PER_BLOCK: u64 = 27 * 180;
}

/// Reads the results of all tasks, one task at a time; [`Error::TooLarge`] if the fit needs more
/// memory than `ctx.memory`.
fn gather(
    rows: &TaskRows,
    plan: &Plan,
    results: &TaskResults,
    layout: &LocalAffines,
    ctx: &Context,
) -> Result<Matches, Error> {
    let blocks = LocalAffines::counts(layout.domain.shape, layout.block).iter().product();
    let mut matches = 0;
    for summary in results.summaries::<MatchCounts>() {
        matches += summary?.1.matches;
    }
    let needed =
        matches as u64 * Matches::BYTES_PER_MATCH + blocks as u64 * Matches::BYTES_PER_BLOCK;
    if needed > ctx.memory {
        let [needed, allowed] = [needed.div_ceil(1_000_000), ctx.memory / 1_000_000];
        return Err(Error::TooLarge { matches, blocks, needed, allowed });
    }
    let mut all = Matches {
        spots: vec![0; blocks],
        at: Vec::with_capacity(matches),
        shift: Vec::with_capacity(matches),
    };
    for task in plan.tasks().iter() {
        let Some(found) = rows.read_json::<TaskMatches>(&task, results)? else { continue };
        for at in found.spots {
            all.spots[block_of(layout, at)] += 1;
        }
        all.at.extend(found.pairings.iter().map(|pairing| pairing.at));
        all.shift.extend(found.pairings.iter().map(|pairing| pairing.shift));
    }
    Ok(all)
}

/// Checks that the volumes overlap and that there are enough matches. The inner error is
/// [`Error::NoOverlap`] or [`Error::TooFew`]; the outer error means that the results could not be
/// read.
fn check(results: &TaskResults, options: &Options) -> Result<Result<(), Error>, blocks::Error> {
    let mut all = MatchCounts::default();
    for summary in results.summaries::<MatchCounts>() {
        let (_, summary) = summary?;
        all.overlaps |= summary.overlaps;
        all.spots += summary.spots;
        all.matches += summary.matches;
    }
    if !all.overlaps {
        return Ok(Err(Error::NoOverlap(options.initial.clone())));
    }
    if all.matches < options.min_matches {
        let (found, spots, wanted) = (all.matches, all.spots, options.min_matches);
        return Ok(Err(Error::TooFew { found, spots, wanted }));
    }
    Ok(Ok(()))
}

/// Fits the map. While the map folds, the fit is repeated with a higher stiffness, up to about a
/// thousand times that of the options, or of [`DEFAULT_STIFFNESS`] if that is higher. Returns the
/// last fit, its minimum Jacobian determinant and the stiffness used.
///
/// * `noise`: the expected error of a shift, micrometres
fn fit(
    layout: &LocalAffines,
    found: &Matches,
    noise: f64,
    options: &Options,
) -> (robust::RobustFit, f64, f64) {
    let mut stiffness = options.stiffness;
    // all blocks have practically the same affine here
    let limit = 1e3 * stiffness.max(DEFAULT_STIFFNESS);
    loop {
        let penalty = Penalty { stiffness, anchor: ANCHOR_WEIGHT };
        let fit = robust::fit(layout, &found.at, &found.shift, penalty, noise);
        let blended = LocalAffines { affines: fit.affines.clone(), ..layout.clone() };
        let (least, folded) = folds::folds(&blended);
        if folded == 0 || stiffness >= limit {
            return (fit, least, stiffness);
        }
        tracing::warn!("the map folds at {folded} places: trying again, stiffer");
        stiffness = if stiffness > 0.0 { 4.0 * stiffness } else { DEFAULT_STIFFNESS };
    }
}

fn record(
    found: &Matches,
    fit: &robust::RobustFit,
    counts: &status::Counts,
    least: f64,
    stiffness: f64,
    ctx: &Context,
) {
    let trusted = |&i: &usize| fit.weights[i] > status::INLIER_WEIGHT;
    let mut residuals: Vec<f64> =
        (0..fit.weights.len()).filter(trusted).map(|i| fit.residuals[i]).collect();
    let squares = residuals.iter().map(|r| r * r).sum::<f64>();
    let rms = (squares / residuals.len().max(1) as f64).sqrt();
    ctx.record("spots", found.spots.iter().sum::<usize>());
    ctx.record("matches", found.at.len());
    ctx.record("inliers", residuals.len());
    let median = outliers::median(&mut residuals);
    tracing::info!(
        "{} blocks have matches of their own, {} follow their neighbours, {} are empty; \
         {} matches, median residual {:.2} um",
        counts.fitted,
        counts.regularised,
        counts.empty,
        residuals.len(),
        median
    );
    ctx.record("median_residual_um", median);
    ctx.record("rms_residual_um", rms);
    ctx.record("blocks_fitted", counts.fitted);
    ctx.record("blocks_regularised", counts.regularised);
    ctx.record("blocks_empty", counts.empty);
    ctx.record("jacobian_least", least);
    ctx.record("stiffness", stiffness);
}

/// The index of the block that contains `p`, in C order.
fn block_of(maps: &LocalAffines, p: Point) -> usize {
    let counts = LocalAffines::counts(maps.domain.shape, maps.block);
    let index = maps.domain.index(p);
    (0..3).fold(0, |sum, a| {
        let at = ((index[a] + 0.5) / maps.block[a] as f64).floor().max(0.0) as usize;
        sum * counts[a] + at.min(counts[a] - 1)
    })
}

/// The physical position of the centre of `core`, the part of a block that lies in the domain.
fn centre_of(maps: &LocalAffines, core: &Box3) -> Point {
    let [low, high] = maps.domain.extent(core);
    std::array::from_fn(|a| f64::midpoint(low[a], high[a]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geom::Grid;

    #[test]
    fn a_map_that_folds_is_fitted_again_stiffer_also_from_stiffness_0() {
        let layout = LocalAffines {
            domain: Grid::new([10, 10, 30], [1.0; 3], [0.0; 3]),
            block: [10; 3],
            overlap: [5.0; 3],
            affines: Vec::new(),
        };
        let at: Vec<Point> = (0..60)
            .map(|i| [f64::from(i % 3) * 3.0 + 1.0, f64::from(i / 3 % 2) * 5.0, f64::from(i / 2)])
            .collect();
        // the first block is shifted over its neighbour
        let shift = at.iter().map(|p| [0.0, 0.0, if p[2] < 10.0 { 12.0 } else { 0.0 }]).collect();
        let found = Matches { spots: Vec::new(), at, shift };
        let options = Options { stiffness: 0.0, ..Options::new(&layout.domain, &layout.domain) };
        let (_, least, stiffness) = fit(&layout, &found, 0.3, &options);
        assert!(least > 0.0 && stiffness >= DEFAULT_STIFFNESS, "{least} {stiffness}");
    }
}
