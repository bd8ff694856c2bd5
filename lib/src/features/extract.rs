//! Spots of a volume, block by block.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::block::{Block, Found};
use super::cpu::{Clean, Detection, intensity, nearest, not_finite, sweep, whole};
use super::frame::Frame;
use super::scheme::{Scales, Scheme};
use super::slabs::{self, Slabs};
use super::tiling::{Share, Stored};
use super::{Options, OptionsError, SpotVoxel, prune, winsorize};
use crate::blocks::{
    self, Budget, Context, Ending, Ends, Identity, Outcome, Plan, Reads, Rows, Task,
};
use crate::device::Cost;
use crate::filter::planes::Plane;
use crate::quote;
use crate::table::{self, Spot};
use crate::volume::Volume;

/// What the program holds beside its tasks, bytes.
const PROGRAM: u64 = 20 << 20;

/// Blocks whose halo costs more than this many times the work are warned of.
const DEAR: f64 = 2.0;

/// Why there are no spots.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Options that cannot be.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// All voxels are equal.
    #[error("{location}: no spots: all its voxels are equal; is this the right channel and level?")]
    Constant {
        /// The volume.
        location: String,
    },
    /// Nothing counts as a spot.
    #[error(
        "{location}: no spots: {found} blobs were found, the strongest with a response of \
         {}, and none is left by threshold ({}), border and mask; try another \
         --radius (now {low:.2}..{high:.2}), a lower --threshold or --border, another --mask",
        quote::rounded(*.greatest),
        quote::rounded(*.floor)
    )]
    NoSpots {
        /// The volume.
        location: String,
        /// Blobs before the threshold.
        found: usize,
        /// The greatest response.
        greatest: f64,
        /// The least that counts.
        floor: f64,
        /// The smallest radius looked for.
        low: f64,
        /// The largest.
        high: f64,
    },
    /// They cannot be ranked in memory.
    #[error(
        "{count} blobs were found, more than can be ranked in the memory allowed ({memory} bytes); \
         give a --threshold, or more --memory"
    )]
    TooMany {
        /// Blobs found.
        count: usize,
        /// Bytes allowed.
        memory: u64,
    },
}

/// Numbers of a row: a spot's position, radius, response, intensity.
const ROW: usize = 6;

/// Finds the spots of `volume` and writes them to the table `output`, best first.
///
/// * `mask`: spots whose nearest voxel of it is 0 or missing are dropped; it has its own grid
///
/// With `ctx.part` only the part's blocks are done, and the table is written by `ctx.finish`.
///
/// # Errors
/// [`Error`], and those of reading, running and writing.
pub fn extract(
    volume: &Volume,
    mask: Option<&Volume>,
    options: &Options,
    ctx: &Context,
    output: &Path,
) -> anyhow::Result<()> {
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
    volume.keep(kept(ctx.memory));
    let chunks = Cost::bytes("decoded chunks", volume.kept_bytes());
    let decoding = Budget::each_thread(&[Reads::Volume(volume)], 0);
    let mut plan = Plan::tile(volume.grid().bounds(), blocks[0], passes.bytes(), &identity)
        .waiting(&Cost::default())
        .beside(&budget, chunks, decoding);
    plan.tasks.clone_from(&passes.tasks);
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
    let folder = blocks::folder_beside(output);
    let rows = Rows::new(&folder);
    let search = Search { volume, mask, scheme: &scheme, clean: Clean(clamp), options };
    let ends = plan.stream(
        ctx,
        &folder,
        |_| Ok(()),
        |task, ()| search.run(&passes, task),
        |task, found| write(&rows, task, &found),
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let found = gather(&rows, &plan, &ends, options, ctx)?;
    report(&found, ctx);
    let spots = match select(found, volume, options) {
        Ok(spots) => spots,
        Err(none) => {
            // other options are wanted, and those would have a ledger of their own
            rows.discard(ctx);
            return Err(none.into());
        }
    };
    ctx.record("spots", spots.len());
    table::write_spots(output, &spots)?;
    rows.remove(ctx);
    Ok(())
}

/// The blocks of all passes over the volume.
struct Passes {
    costs: Vec<Share>,
    /// The first task of each pass.
    first: Vec<usize>,
    tasks: Vec<Task>,
}

impl Passes {
    fn new(scheme: &Scheme, volume: &Volume, ctx: &Context) -> Result<Self, blocks::Error> {
        let grid = volume.grid();
        let stored = Stored { shape: grid.shape, chunk: volume.chunk(), dtype: volume.dtype() };
        let costs = (0..scheme.passes()).map(|pass| match ctx.block_size {
            Some(block) => scheme.cost(pass, block, &stored),
            None => scheme.choose(pass, &stored, room(ctx.memory)),
        });
        let costs: Vec<Share> = costs.collect();
        let (mut first, mut tasks, mut above) = (Vec::new(), Vec::<Task>::new(), 0);
        for cost in &costs {
            blocks::refuse_many(cost.block, grid.bounds())?;
            first.push(tasks.len());
            for core in grid.bounds().tiles(cost.block) {
                let mut index = std::array::from_fn(|a| core.min[a] as usize / cost.block[a]);
                // so that no two tasks are called alike
                index[0] += above;
                tasks.push(Task { id: tasks.len(), index, core });
            }
            above += grid.shape[0].div_ceil(cost.block[0]);
        }
        Ok(Self { costs, first, tasks })
    }

    /// The pass of a task.
    fn of(&self, task: &Task) -> usize {
        self.first.partition_point(|&first| first <= task.id) - 1
    }

    /// Bytes of the task that holds most.
    fn bytes(&self) -> u64 {
        self.costs.iter().map(|cost| cost.bytes).max().unwrap_or(0)
    }

    /// Refuses blocks that do not fit into `memory`, and warns of halos that cost more than the blocks.
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
        if let Some(worst) = worst.filter(|worst| worst.factor > DEAR) {
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

/// What `--memory` leaves beside the program itself, the decoded chunks that are kept, and what the
/// allocator holds on to.
fn room(memory: u64) -> u64 {
    // half of it: what the allocator keeps of buffers of several sizes was measured
    (memory - PROGRAM.min(memory / 4) - kept(memory)) / 2
}

/// Bytes of decoded chunks that are kept: a task reads each of its chunks once, so few are wanted again.
fn kept(memory: u64) -> u64 {
    (memory / 8).min(64 << 20)
}

/// How spots are looked for.
struct Search<'a> {
    volume: &'a Volume,
    mask: Option<&'a Volume>,
    scheme: &'a Scheme,
    clean: Clean,
    options: &'a Options,
}

impl Search<'_> {
    /// The spots of one task.
    fn run(&self, passes: &Passes, task: &Task) -> anyhow::Result<Detection> {
        let (grid, pass) = (self.volume.grid(), passes.of(task));
        let bounds = grid.bounds();
        let (found, mut all) = match &self.scheme.scales {
            Scales::Exact(sigmas) => self.whole(sigmas, task)?,
            Scales::Pyramid(pyramid) => {
                let octave = &pyramid.octaves[pass];
                let frame = Frame::new(octave, self.scheme.coarse, &task.core, grid.shape);
                let depth = passes.costs[pass].depth;
                let mut slabs = Slabs::new(self.volume, frame.input, task.core, depth, self.clean);
                let fill = |z, plane: &mut Plane| slabs.fill(z, plane);
                let found = sweep(self.scheme, pyramid, octave, &frame, fill)?;
                // each pass reads all voxels, and the first counts them
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
        // below a response that is asked for anyway nothing counts
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

    /// The maxima of a block that is held whole.
    fn whole(&self, sigmas: &[f64], task: &Task) -> anyhow::Result<(Vec<Found>, Detection)> {
        let volume = self.volume.grid().bounds();
        let bounds = self.scheme.input(sigmas, &task.core, &volume);
        let voxels = self.volume.read(&bounds)?;
        let block = Block { voxels: &voxels, bounds, core: task.core, volume };
        let not_finite = not_finite(&block);
        let found = whole(&block, self.scheme, sigmas, self.clean);
        let constant = found.is_none();
        Ok((found.unwrap_or_default(), Detection { not_finite, constant, ..Detection::default() }))
    }

    /// Drops spots whose nearest voxel of the mask is 0 or missing.
    fn drop_masked(&self, mask: &Volume, spots: &mut Vec<SpotVoxel>) -> anyhow::Result<()> {
        let (grid, of_mask) = (self.volume.grid(), mask.grid());
        let place = |spot: &SpotVoxel| {
            of_mask.index(grid.position(spot.position)).map(|v| v.round() as i64)
        };
        let places: Vec<[i64; 3]> = spots.iter().map(place).collect();
        let mut kept = slabs::sample::<u8>(mask, &places)?
            .into_iter()
            .map(|voxel| voxel.is_some_and(|voxel| voxel != 0));
        spots.retain(|_| kept.next().unwrap_or(false));
        Ok(())
    }
}

/// What a block that is not constant leaves in its ledger entry, and what the blocks amount to.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Summary {
    /// Blobs that it found off the border.
    blobs: usize,
    /// The greatest response, that of dropped blobs too.
    greatest: f64,
    /// Voxels that were no finite number.
    not_finite: u64,
}

/// The spots of all blocks.
struct Gathered {
    all: Summary,
    /// Whether all voxels of all blocks were equal.
    constant: bool,
    /// Those above the threshold, in the order of the plan.
    spots: Vec<SpotVoxel>,
}

/// Writes a task's rows, its spots; what of the block counts for all goes into the ledger.
fn write(rows: &Rows, task: &Task, found: &Detection) -> anyhow::Result<Ending> {
    if found.constant && found.not_finite == 0 {
        return Ok(Outcome::Empty.into());
    }
    let &Detection { blobs, greatest, not_finite, .. } = found;
    let summary = Summary { blobs, greatest, not_finite };
    if found.spots.is_empty() {
        return Ok(Ending::from(Outcome::Empty).with_summary(&summary)?);
    }
    let numbers = found.spots.iter().flat_map(|s| {
        let [z, y, x] = s.position;
        [z, y, x, s.radius, s.response, s.intensity]
    });
    let stored = rows.write(task, &numbers.flat_map(f64::to_le_bytes).collect::<Vec<u8>>())?;
    Ok(Ending::from(Outcome::Done).with_rows(stored).with_summary(&summary)?)
}

/// The spots of all blocks. The threshold depends on the greatest response of all, which the ledger knows
/// before any rows are read: only what is above it is held in memory.
fn gather(
    rows: &Rows,
    plan: &Plan,
    ends: &Ends,
    options: &Options,
    ctx: &Context,
) -> anyhow::Result<Gathered> {
    let (mut all, mut constant) = (Summary::default(), true);
    for summary in ends.summaries::<Summary>() {
        let (_, summary) = summary?;
        all.blobs += summary.blobs;
        all.greatest = all.greatest.max(summary.greatest);
        all.not_finite += summary.not_finite;
        constant = false;
    }
    let floor = options.floor(all.greatest);
    let mut spots = Vec::new();
    for task in &plan.tasks {
        let Some(bytes) = rows.read(task, ends)? else { continue };
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
        // once as it grows, once as spots, once in the cells of the pruning
        if (3 * spots.len() * size_of::<SpotVoxel>()) as u64 > ctx.memory {
            return Err(Error::TooMany { count: all.blobs, memory: ctx.memory }.into());
        }
    }
    Ok(Gathered { all, constant, spots })
}

fn report(found: &Gathered, ctx: &Context) {
    let found = found.all;
    if found.not_finite > 0 {
        let count = found.not_finite;
        tracing::warn!("{count} voxels are no finite numbers; they were taken as 0");
    }
    ctx.record("voxels_not_finite", found.not_finite);
    ctx.record("blobs", found.blobs);
    ctx.record("greatest_response", found.greatest);
}

/// The spots that count, best first, in space.
fn select(found: Gathered, volume: &Volume, options: &Options) -> Result<Vec<Spot>, Error> {
    let location = volume.location().to_owned();
    if found.constant {
        return Err(Error::Constant { location });
    }
    let (grid, Summary { greatest, blobs: count, .. }) = (volume.grid(), found.all);
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
