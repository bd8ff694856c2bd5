//! Spot detection on a volume, block by block.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::block::{PaddedBlock, ResponseMaximum};
use super::cpu::{
    Detection, Preprocessing, intensity, maxima_of_block, nearest, not_finite, sweep,
};
use super::scheme::{Scales, Scheme};
use super::slabs::{self, Slabs};
use super::stage_boxes::StageBoxes;
use super::tiling::{BlockCost, StoredVolume};
use super::{Options, OptionsError, SpotVoxel, prune, winsorize};
use crate::blocks::{
    self, Budget, Context, Identity, Key, ListedTask, Outcome, Plan, Reads, Task, TaskResult,
    TaskResults, TaskRows,
};
use crate::device::Cost;
use crate::filter::planes::Plane;
use crate::quote;
use crate::table::{self, Spot};
use crate::volume::{self, Volume};

/// Memory of the program apart from its tasks, bytes.
const PROGRAM: u64 = 20 << 20;

/// A warning is given if halos increase the work by more than this factor.
const MAX_HALO_WORK: f64 = 2.0;

/// The reason why no spots could be returned.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The table of the spots could not be written.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// The blocks could not be computed, or the output exists.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// The options are invalid.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// All voxels are equal.
    #[error("{location}: no spots: all its voxels are equal; is this the right channel and level?")]
    Constant {
        /// The location of the volume.
        location: String,
    },
    /// No blob passes the threshold, the border and the mask.
    #[error(
        "{location}: no spots: {found} blobs were found, the strongest with a response of \
         {}, and none is left by threshold ({}), border and mask; try another \
         --radius (now {low:.2}..{high:.2}), a lower --threshold or --border, another --mask",
        quote::rounded(*.greatest),
        quote::rounded(*.floor)
    )]
    NoSpots {
        /// The location of the volume.
        location: String,
        /// The number of blobs before the threshold.
        found: usize,
        /// The maximum response.
        greatest: f64,
        /// The response that a spot must exceed.
        floor: f64,
        /// The smallest radius searched, in the unit of [`Options::radius`].
        low: f64,
        /// The largest radius searched, in the unit of [`Options::radius`].
        high: f64,
    },
    /// The spots do not fit into memory for ranking.
    #[error(
        "{count} blobs were found, more than can be ranked in the memory allowed ({memory} bytes); \
         give a --threshold, or more --memory"
    )]
    TooMany {
        /// The number of blobs found.
        count: usize,
        /// The memory limit, bytes.
        memory: u64,
    },
}

/// Values per row: a spot's position (z, y, x), radius, response and intensity.
const ROW: usize = 6;

/// Detects the spots of `volume` and writes them to the table `output`, best first.
///
/// * `mask`: a volume with its own grid; spots outside this grid, and spots whose nearest voxel of
///   the mask is not above 0, are dropped
///
/// With `ctx.part`, only the blocks of that part are processed; a later run with `ctx.finish`
/// writes the table.
///
/// # Errors
/// [`Error`].
pub fn extract(
    volume: &Volume,
    mask: Option<&Volume>,
    options: &Options,
    ctx: &Context,
    output: &Path,
) -> Result<(), Error> {
    options.check_for(&volume.grid()).map_err(|e| blocks::Error::Usage(e.to_string()))?;
    let budget = Budget::of(ctx);
    let scheme = Scheme::new(options, volume.grid().spacing);
    let passes = Passes::new(&scheme, volume, ctx)?;
    passes.check(ctx.memory)?;
    let blocks: Vec<[usize; 3]> = passes.costs.iter().map(|cost| cost.block).collect();
    let identity = Identity::of("extract-spots")
        .with_processor()
        .with_volume("volume", volume)?
        .with_optional("mask", mask)?
        .with("options", options)
        .with("blocks", &blocks);
    volume.keep(cache_limit(ctx.memory));
    let chunks = Cost::bytes("decoded chunks", volume.kept_bytes());
    let decoding = Budget::each_thread(&[Reads::Volume(volume)], 0);
    let plan = Plan::list(passes.items.clone(), passes.bytes(), &identity)
        .waiting(&Cost::default())
        .with_overhead(&budget, chunks, decoding);
    ctx.input(volume);
    if let Some(mask) = mask {
        ctx.input(mask);
    }
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    ctx.refuse_existing(output)?;
    ctx.output_file(output);
    let clamp = match options.winsorize {
        Some(fractions) if !ctx.finish => Some(winsorize::limits(volume, fractions)?),
        _ => None,
    };
    let folder = blocks::ledger_folder_of(output);
    let rows = TaskRows::new(&folder);
    let search = SpotSearch { volume, mask, scheme: &scheme, clean: Preprocessing(clamp), options };
    let results = plan.stream(
        ctx,
        &folder,
        |_| Ok(()),
        |task, ()| search.run(&passes, task),
        |_, found| write(&rows, &found),
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let found = gather(&rows, &plan, &results, options, ctx)?;
    report(&found, ctx);
    let spots = match select(found, volume, options) {
        Ok(spots) => spots,
        Err(none) => {
            // a run with other options has a ledger of its own and cannot use these rows
            rows.discard(ctx);
            return Err(none);
        }
    };
    ctx.record("spots", spots.len());
    table::write_spots(output, &spots)?;
    rows.remove(ctx);
    Ok(())
}

/// The blocks of all passes over the volume.
struct Passes {
    costs: Vec<BlockCost>,
    /// The index of the first task of each pass.
    first: Vec<usize>,
    items: Vec<ListedTask>,
}

impl Passes {
    fn new(scheme: &Scheme, volume: &Volume, ctx: &Context) -> Result<Self, blocks::Error> {
        let grid = volume.grid();
        let stored =
            StoredVolume { shape: grid.shape, chunk: volume.chunk(), dtype: volume.dtype() };
        let costs = (0..scheme.passes()).map(|pass| match ctx.block_size {
            Some(block) => scheme.cost(pass, block, &stored),
            None => scheme.choose(pass, &stored, room(ctx.memory)),
        });
        let costs: Vec<BlockCost> = costs.collect();
        let (mut first, mut items, mut above) = (Vec::new(), Vec::<ListedTask>::new(), 0);
        for cost in &costs {
            blocks::refuse_many(cost.block, grid.bounds())?;
            first.push(items.len());
            for core in grid.bounds().tiles(cost.block) {
                let mut index = std::array::from_fn(|a| core.min[a] as usize / cost.block[a]);
                // the indices of different passes must differ
                index[0] += above;
                let work = core.len() as f64 * cost.factor;
                items.push(ListedTask {
                    key: Key::Block(index),
                    core,
                    cost: work.ceil() as u64,
                    memory: cost.bytes,
                    wave: 0,
                });
            }
            above += grid.shape[0].div_ceil(cost.block[0]);
        }
        Ok(Self { costs, first, items })
    }

    /// The pass that a task belongs to.
    fn of(&self, task: &Task) -> usize {
        self.first.partition_point(|&first| first <= task.id) - 1
    }

    /// The peak memory of the largest task, bytes.
    fn bytes(&self) -> u64 {
        self.costs.iter().map(|cost| cost.bytes).max().unwrap_or(0)
    }

    /// Rejects blocks that do not fit into `memory`, and warns if the halos dominate the work.
    fn check(&self, memory: u64) -> Result<(), blocks::Error> {
        let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
        let text = |[z, y, x]: [usize; 3]| format!("{z},{y},{x}");
        if let Some(largest) = self.costs.iter().max_by_key(|cost| cost.bytes)
            && largest.bytes > room(memory)
        {
            let needed = (2 * largest.bytes + PROGRAM).saturating_mul(8) / 7 + 1;
            return Err(blocks::Error::Usage(format!(
                "a block of {} voxels, with all that its spots depend on, needs --memory {}M with \
                 the program, and it is {} MB; give so much, a smaller --block-size or a smaller --radius",
                text(largest.block),
                megabytes(needed),
                megabytes(memory)
            )));
        }
        let worst = self.costs.iter().max_by(|a, b| a.factor.total_cmp(&b.factor));
        if let Some(worst) = worst.filter(|worst| worst.factor > MAX_HALO_WORK) {
            tracing::warn!(
                "blocks of {} voxels cost {:.1} times the work of one large block, as each reads all \
                 that its spots depend on; more --memory ({} MB is allowed) or a larger --block-size \
                 costs less time",
                text(worst.block),
                worst.factor,
                megabytes(memory)
            );
        }
        Ok(())
    }
}

/// The memory available to one block out of `--memory`, bytes.
fn room(memory: u64) -> u64 {
    // half of the memory that the program and the cached chunks do not need: in measurements, the
    // allocator retained about as much memory in freed buffers as was in use
    (memory - PROGRAM.min(memory / 4) - cache_limit(memory)) / 2
}

/// The limit of the cache of decoded chunks, bytes. A task reads each of its chunks only once, so
/// few cached chunks are used again.
fn cache_limit(memory: u64) -> u64 {
    (memory / 8).min(64 << 20)
}

/// The parameters of a search for spots.
struct SpotSearch<'a> {
    volume: &'a Volume,
    mask: Option<&'a Volume>,
    scheme: &'a Scheme,
    clean: Preprocessing,
    options: &'a Options,
}

impl SpotSearch<'_> {
    /// Detects the spots of one task.
    fn run(&self, passes: &Passes, task: &Task) -> anyhow::Result<Detection> {
        let (grid, pass) = (self.volume.grid(), passes.of(task));
        let bounds = grid.bounds();
        let (found, mut all) = match &self.scheme.scales {
            Scales::Exact(sigmas) => self.maxima_of_block(sigmas, task)?,
            Scales::Pyramid(pyramid) => {
                let octave = &pyramid.octaves[pass];
                let frame = StageBoxes::new(octave, self.scheme.coarse, &task.core, grid.shape);
                let depth = passes.costs[pass].depth;
                let mut slabs = Slabs::new(self.volume, frame.input, task.core, depth, self.clean);
                let fill = |z, plane: &mut Plane| slabs.fill(z, plane);
                let found = sweep(self.scheme, pyramid, octave, &frame, fill)?;
                // every pass reads all voxels, but only the first pass counts the non-finite ones
                let not_finite = if pass == 0 { slabs.not_finite } else { 0 };
                (found, Detection { not_finite, constant: slabs.constant, ..Detection::default() })
            }
        };
        if all.constant {
            return Ok(all);
        }
        (all.spots, all.greatest) = self.scheme.spots(&found, &bounds, grid.spacing);
        drop(found);
        all.blobs = all.spots.len();
        // drops spots below the threshold early; the final threshold is never lower
        all.spots.retain(|spot| spot.response > self.options.threshold);
        let places: Vec<[i64; 3]> =
            all.spots.iter().map(|spot| nearest(spot.position, &bounds)).collect();
        let voxels = slabs::sample::<f32>(self.volume, &places)?;
        for (spot, voxel) in all.spots.iter_mut().zip(voxels) {
            spot.intensity = intensity(voxel.unwrap_or_default());
        }
        let options = self.options;
        all.spots.retain(|spot| options.is_signal(spot.response, spot.intensity));
        if let Some(mask) = self.mask {
            self.drop_masked(mask, &mut all.spots)?;
        }
        Ok(all)
    }

    /// Finds the maxima of a block that is held in memory as a whole.
    fn maxima_of_block(
        &self,
        sigmas: &[f64],
        task: &Task,
    ) -> anyhow::Result<(Vec<ResponseMaximum>, Detection)> {
        let volume = self.volume.grid().bounds();
        let bounds = self.scheme.input(sigmas, &task.core, &volume);
        let voxels = self.volume.read(&bounds)?;
        let block = PaddedBlock { voxels: &voxels, bounds, core: task.core, volume };
        let not_finite = not_finite(&block);
        let found = maxima_of_block(&block, self.scheme, sigmas, self.clean);
        let constant = found.is_none();
        Ok((found.unwrap_or_default(), Detection { not_finite, constant, ..Detection::default() }))
    }

    /// Drops spots outside the grid of the mask, and spots whose nearest voxel of the mask is not above
    /// 0.
    fn drop_masked(&self, mask: &Volume, spots: &mut Vec<SpotVoxel>) -> anyhow::Result<()> {
        let (grid, of_mask) = (self.volume.grid(), mask.grid());
        let place = |spot: &SpotVoxel| {
            of_mask.index(grid.position(spot.position)).map(|v| v.round() as i64)
        };
        let places: Vec<[i64; 3]> = spots.iter().map(place).collect();
        let mut kept = slabs::sample::<f32>(mask, &places)?
            .into_iter()
            .map(|voxel| voxel.is_some_and(|voxel| voxel > 0.0));
        spots.retain(|_| kept.next().unwrap_or(false));
        Ok(())
    }
}

/// The statistics of one block, or the totals of all blocks. The ledger entry of a block contains
/// its statistics, unless all its voxels are equal and finite.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct BlockSummary {
    /// The number of blobs found outside the excluded border.
    blobs: usize,
    /// The maximum response, including that of dropped blobs.
    greatest: f64,
    /// The number of voxels that are NaN or infinite.
    not_finite: u64,
}

/// The spots of all blocks.
struct CollectedSpots {
    all: BlockSummary,
    /// Whether all voxels of all blocks were equal.
    constant: bool,
    /// The spots above the threshold, in the order of the plan's tasks.
    spots: Vec<SpotVoxel>,
}

/// Writes a task's spots as rows, and returns its ledger entry with the statistics of the block.
fn write(rows: &TaskRows, found: &Detection) -> anyhow::Result<TaskResult> {
    if found.constant && found.not_finite == 0 {
        return Ok(Outcome::Empty.into());
    }
    let &Detection { blobs, greatest, not_finite, .. } = found;
    let summary = BlockSummary { blobs, greatest, not_finite };
    if found.spots.is_empty() {
        return Ok(TaskResult::from(Outcome::Empty).with_summary(&summary)?);
    }
    let numbers = found.spots.iter().flat_map(|s| {
        let [z, y, x] = s.position;
        [z, y, x, s.radius, s.response, s.intensity]
    });
    let stored = rows.write(&numbers.flat_map(f64::to_le_bytes).collect::<Vec<u8>>())?;
    Ok(TaskResult::from(Outcome::Done).with_rows(stored).with_summary(&summary)?)
}

/// Collects the spots of all blocks. The threshold depends on the maximum response of all blocks.
/// The ledger holds the maximum of each block. The threshold is therefore known before any rows are
/// read, and only spots above it are held in memory.
fn gather(
    rows: &TaskRows,
    plan: &Plan,
    results: &TaskResults,
    options: &Options,
    ctx: &Context,
) -> Result<CollectedSpots, Error> {
    let (mut all, mut constant) = (BlockSummary::default(), true);
    for summary in results.summaries::<BlockSummary>() {
        let (_, summary) = summary?;
        all.blobs += summary.blobs;
        all.greatest = all.greatest.max(summary.greatest);
        all.not_finite += summary.not_finite;
        constant = false;
    }
    let floor = options.floor(all.greatest);
    let mut spots = Vec::new();
    for task in plan.tasks().iter() {
        let Some(bytes) = rows.read(&task, results)? else { continue };
        let numbers: Vec<f64> =
            bytes.as_chunks::<8>().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect();
        let rows = numbers.as_chunks::<ROW>().0.iter();
        spots.extend(
            rows.map(|&[z, y, x, radius, response, intensity]| SpotVoxel {
                position: [z, y, x],
                radius,
                response,
                intensity,
            })
            .filter(|spot| spot.response > floor),
        );
        // up to three copies exist: the spots, a copy while the vector grows, the cells of the
        // pruning
        if (3 * spots.len() * size_of::<SpotVoxel>()) as u64 > ctx.memory {
            return Err(Error::TooMany { count: all.blobs, memory: ctx.memory });
        }
    }
    Ok(CollectedSpots { all, constant, spots })
}

fn report(found: &CollectedSpots, ctx: &Context) {
    let found = found.all;
    if found.not_finite > 0 {
        let count = found.not_finite;
        tracing::warn!("{count} voxels are no finite numbers; they were taken as 0");
    }
    ctx.record("voxels_not_finite", found.not_finite);
    ctx.record("blobs", found.blobs);
    ctx.record("greatest_response", found.greatest);
}

/// The selected spots, best first, with positions in micrometres.
fn select(found: CollectedSpots, volume: &Volume, options: &Options) -> Result<Vec<Spot>, Error> {
    let location = volume.location().to_owned();
    if found.constant {
        return Err(Error::Constant { location });
    }
    let (grid, BlockSummary { greatest, blobs: count, .. }) = (volume.grid(), found.all);
    let spots = prune::select(found.spots, greatest, grid.spacing, options);
    if spots.is_empty() {
        let ([low, high], floor) = (options.radius, options.floor(greatest));
        return Err(Error::NoSpots { location, found: count, greatest, floor, low, high });
    }
    let spots = spots.iter().map(|spot| Spot {
        position: grid.position(spot.position),
        radius: spot.radius,
        response: spot.response,
        intensity: spot.intensity,
    });
    Ok(spots.collect())
}
