//! Displacements of patches between two images, by correlation.
//!
//! Each patch of the fixed image is compared with the moving image at all shifts of a search window
//! (`cpu.rs`); the maximum of the correlation, to a fraction of a voxel, is the displacement of the
//! centre of the patch (`peak.rs`). [`FlowField::clean`] and [`FlowField::reconcile`] compare the
//! displacements with those of their neighbours. [`sofima_flow`] is the estimation of SOFIMA.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::blocks::{self, Budget, Context, Identity, Outcome, Plan, Reads, TaskResult, WriteUnit};
use crate::device::Cost;
use crate::geom::{Affine, Box3, Chain, Grid, Point, UnreachedField};
use crate::transform::{self, Step};
use crate::volume::{self, FieldOutput, FieldParts, Masks, Volume};

mod cells;
mod clean;
mod cpu;
mod fields;
mod fill;
#[cfg(feature = "cli")]
mod flags;
#[cfg(test)]
mod golden;
mod input;
#[cfg(test)]
mod oracle;
mod patches;
mod peak;
mod sofima;
#[cfg(test)]
mod tests;

pub use clean::{FlowField, Limits, Neighbours, Quality};
pub use fields::{CleanOptions, clean_fields};
#[cfg(feature = "cli")]
pub use flags::{CleanFlags, Flags};
pub use patches::Patches;
pub use sofima::{MaskedImage, SofimaOptions, Target, flow as sofima_flow};

pub(crate) use cpu::{BlockPair, surfaces};
pub(crate) use peak::find as find_peak;

use input::Pair;
use peak::{NoPeak, Peak};

/// The side of a chunk of the field, in patches: of planes along y and x, and of volumes.
const CHUNK: [usize; 2] = [64, 16];
/// The memory of the sums of the patches that are computed together, bytes.
const TILE_BYTES: usize = 64 << 20;
/// With more than this fraction of the compared patches at the edge of the search window, a warning is given.
const MANY_AT_EDGE: f64 = 0.1;
/// With fewer matches than this fraction of the patches that were compared, a warning is given.
const FEW: f64 = 0.5;
/// With fewer matches than this fraction of the patches that were compared, the result is not to be
/// believed.
const TOO_FEW: f64 = 0.05;
/// The minimum number of voxels of a patch.
const MIN_VOXELS: usize = 16;

/// Why no flow was computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of reading or writing a volume.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the block-wise run.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// The chain could not be written.
    #[error(transparent)]
    Transform(#[from] transform::Error),
    /// A field of the initial map does not overlap the fixed volume.
    #[error(transparent)]
    Apart(#[from] UnreachedField),
    /// No patch has a match.
    #[error(
        "only {found} of {patches} patches have a match: {unknown} are constant, masked or outside the moving \
         volume, {at_edge} correlate best at the edge of the search window (give a larger --search, or an \
         --initial that is nearer), {rejected} are below the limits of quality; {output} is not to be believed"
    )]
    TooFew {
        /// The number of patches with a match.
        found: u64,
        /// The number of patches.
        patches: u64,
        /// Those that are constant, masked or outside the moving volume.
        unknown: u64,
        /// Those that correlate best at the edge of the search window.
        at_edge: u64,
        /// Those below the limits of quality.
        rejected: u64,
        /// The location of the field.
        output: String,
        /// The exit reason: the run is complete but not successful.
        #[source]
        verdict: blocks::ExitReason,
    },
    /// No vector is left after cleaning.
    #[error(
        "too few vectors are left: of {patches} patches {before} had one, {removed} of which violate a limit and \
         {unreconciled} do not fit to their neighbours; look at the flow, and loosen the limits if it is right"
    )]
    NothingLeft {
        /// The number of patches.
        patches: u64,
        /// The known vectors of the first field.
        before: u64,
        /// Those that violate a limit.
        removed: u64,
        /// Those that do not fit to their neighbours.
        unreconciled: u64,
        /// The exit reason: the run is complete but not successful.
        #[source]
        verdict: blocks::ExitReason,
    },
}

/// How flow is computed.
#[derive(Clone, Debug, Serialize)]
pub struct Options {
    /// The patches.
    pub patches: Patches,
    /// Whether each plane is compared with one plane of the moving volume.
    pub planes: bool,
    /// The number of planes by which the plane of the moving volume precedes that of the fixed
    /// volume. 0 unless `planes` is true.
    pub distance: i64,
    /// Whether both volumes are seen through the initial map, and not the moving one alone.
    pub through: bool,
    /// The limits of quality and of magnitude. Neighbours are not compared.
    pub limits: Limits,
}

impl Options {
    /// Checks the options for a fixed volume on `grid`.
    ///
    /// # Errors
    /// [`blocks::Error::Usage`] with the value and the range allowed.
    pub fn check(&self, grid: &Grid) -> Result<(), blocks::Error> {
        let refuse = |message: String| Err(blocks::Error::Usage(message));
        let Patches { size, stride, radius } = self.patches;
        let text = |of: [usize; 3]| of.map(|n| n.to_string()).join(",");
        if (0..3).any(|a| size[a] == 0 || size[a] > grid.shape[a]) {
            let advice = if size[0] > grid.shape[0] && !self.planes {
                "; a stack is compared plane by plane with --planes"
            } else {
                ""
            };
            return refuse(format!(
                "--patch {} does not fit into the fixed volume of {} voxels{advice}",
                text(size),
                text(grid.shape)
            ));
        }
        if size.iter().product::<usize>() < MIN_VOXELS {
            return refuse(format!(
                "--patch {} is out of range; wanted are at least {MIN_VOXELS} voxels",
                text(size)
            ));
        }
        if stride.contains(&0) {
            return refuse(format!("--stride {} is out of range; wanted 1 or more", text(stride)));
        }
        if radius == [0; 3] || radius.iter().any(|r| *r > 1 << 12) {
            return refuse(format!(
                "--search {} is out of range; wanted 1 to 4096 along at least one axis",
                text(radius)
            ));
        }
        if self.planes && (size[0], stride[0], radius[0]) != (1, 1, 0) {
            return refuse(format!(
                "--planes compares single planes, and --patch, --stride and --search along z are {}, {} and \
                 {}; wanted 1, 1 and 0",
                size[0], stride[0], radius[0]
            ));
        }
        if self.distance != 0 && !self.planes {
            return refuse("--distance is for --planes".to_owned());
        }
        if self.distance.unsigned_abs() >= grid.shape[0] as u64 && self.distance != 0 {
            return refuse(format!(
                "--distance {} is out of range: the fixed volume has {} planes, and none is left to compare",
                self.distance, grid.shape[0]
            ));
        }
        self.limits.check().map_err(blocks::Error::Usage)
    }
}

/// The statistics of a task in its ledger entry, or of all tasks.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct FlowCounts {
    patches: u64,
    found: u64,
    /// Constant, masked, or outside the moving volume.
    unknown: u64,
    at_edge: u64,
    rejected: u64,
    /// The sum of the correlations of the vectors found.
    correlation: f64,
    /// The longest displacement along z, y, x, micrometres.
    reach: Point,
}

impl FlowCounts {
    fn add(&mut self, other: &Self) {
        self.patches += other.patches;
        self.found += other.found;
        self.unknown += other.unknown;
        self.at_edge += other.at_edge;
        self.rejected += other.rejected;
        self.correlation += other.correlation;
        self.reach = std::array::from_fn(|a| self.reach[a].max(other.reach[a]));
    }
}

/// Computes the displacement of each patch of `fixed` and writes the field, with its quality
/// channels, to `output`. The complete chain, which is the field followed by `steps` (the steps of
/// `initial`), is written to [`transform::document_beside`] `output`. If both volumes are seen
/// through the initial map, the chain lies between them as they are seen, and `steps` are not part
/// of it. Vectors without a match, and those beyond the limits, are NaN; the quality of the latter
/// is kept.
///
/// # Errors
/// [`Error`].
pub fn flow(
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
    options.check(&grid)?;
    if moving.grid().shape[0] == 1 && !options.planes {
        let message = format!(
            "{} is one plane and {} a volume; give a volume, or a plane as the fixed volume",
            moving.location(),
            fixed.location()
        );
        return Err(blocks::Error::Usage(message).into());
    }
    initial.check_fields(grid.extent(&grid.bounds()))?;
    let nodes = options.patches.nodes(&grid);
    let pair = Pair { fixed, moving, masks, initial, options };
    let chunk = nodes.shape.map(|n| n.min(CHUNK[usize::from(!options.planes)]));
    let chunk = if options.planes { [1, chunk[1], chunk[2]] } else { chunk };
    let plan = plan(&pair, &nodes, (output, chunk), ctx)?;
    ctx.input(fixed);
    ctx.input(moving);
    [masks.fixed, masks.moving].into_iter().flatten().for_each(|mask| ctx.input(mask));
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let document = transform::document_beside(output);
    ctx.replace_document(&document)?;
    let components = if options.planes { 2 } else { 3 };
    let parts = FieldParts { components, quality: peak::QUALITY.map(str::to_owned).to_vec() };
    let out = FieldOutput::create_parts(output, &nodes, parts, chunk, &plan.as_run(ctx))?;
    ctx.output_file(Path::new(output));
    let results = plan.stream_to::<_, _, _, Error>(
        ctx,
        &out,
        |task| pair.read(task),
        |task, input| Ok(estimate(&pair, &task.core, input)),
        |task, (elements, counts)| {
            out.write_parts(&task.core, &elements)?;
            let outcome = if counts.found == 0 { Outcome::Empty } else { Outcome::Done };
            Ok(TaskResult::from(outcome).with_summary(&counts)?)
        },
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let mut counts = FlowCounts::default();
    for summary in results.summaries() {
        counts.add(&summary?.1);
    }
    if options.through {
        out.set_attribute(volume::THROUGH, json!(Identity::of_chain(initial)?))?;
    }
    conclude(&counts, output, &out, ctx)?;
    Ok(transform::write_document(&document, &chain_of(output, steps, options, &grid))?)
}

/// The field at `output`, the way to the plane of the moving volume, and the steps of the initial
/// map.
fn chain_of(output: &str, steps: &[Step], options: &Options, grid: &Grid) -> Vec<Step> {
    let mut chain = vec![Step::Field(output.to_owned())];
    if options.distance != 0 {
        let along_z = -options.distance as f64 * grid.spacing[0];
        chain.push(Step::Affine(Affine::translation([along_z, 0.0, 0.0])));
    }
    if !options.through {
        chain.extend_from_slice(steps);
    }
    chain
}

fn plan(
    pair: &Pair,
    nodes: &Grid,
    (output, chunk): (&str, [usize; 3]),
    ctx: &Context,
) -> Result<Plan, Error> {
    let Pair { fixed, moving, masks, initial, options } = pair;
    let budget = Budget::of(ctx);
    let patches = &options.patches;
    let cost = |block: [usize; 3]| cost(patches, block.map(|n| n.max(1)), nodes.shape);
    let bounds = nodes.bounds();
    // planes are cut into chunks, so that several parts have work
    let block = if options.planes && ctx.block_size.is_none() {
        blocks::refuse_large(chunk, bounds, WriteUnit::from(chunk), |block| cost(block).0, ctx)?;
        blocks::refuse_many(chunk, bounds)?;
        chunk
    } else {
        Plan::choose_block(bounds, chunk, |block| cost(block).0, ctx)?
    };
    let (peak, waiting) = cost(block);
    let volumes: Vec<&Volume> = [*fixed, *moving]
        .into_iter()
        .chain([masks.fixed, masks.moving].into_iter().flatten())
        .collect();
    let reads: Vec<Reads> = volumes.iter().map(|volume| Reads::Volume(volume)).collect();
    let halo = std::array::from_fn(|a| patches.size[a] + patches.radius[a]);
    let voxels = std::array::from_fn(|a| block[a] * patches.stride[a]);
    let useful = volumes.iter().map(|volume| blocks::useful_cache_bytes(volume, voxels, halo));
    let kept = budget.caches(&reads.iter().copied().zip(useful).collect::<Vec<_>>(), &peak);
    let identity = Identity::of("flow")
        .with_volume("fixed", fixed)?
        .with_volume("moving", moving)?
        .with_optional("fixed-mask", masks.fixed)?
        .with_optional("moving-mask", masks.moving)?
        .with_chain("initial", initial)?
        .with("options", options);
    // elements are one and a third times those of vectors with three components
    let writing = 3 * FieldOutput::writing_bytes(output, chunk);
    Ok(Plan::tile(bounds, block, peak, &identity).waiting(&waiting).with_overhead(
        &budget,
        kept,
        Budget::each_thread(&reads, writing),
    ))
}

/// The memory of a task of `block` patches at its peak, and while it waits.
fn cost(patches: &Patches, block: [usize; 3], shape: [usize; 3]) -> (Cost, Cost) {
    let block: [usize; 3] = std::array::from_fn(|a| block[a].min(shape[a]));
    let extent = cpu::extent(block, patches);
    let voxels: usize = extent.iter().product();
    let window: usize = (0..3).map(|a| extent[a] + 2 * patches.radius[a]).product();
    let waiting =
        Cost::of::<f32>("fixed voxels", voxels) + Cost::of::<f32>("moving voxels", window);
    let tile = tile(patches, block);
    let inner = cpu::extent(tile, patches);
    let around: usize = (0..3).map(|a| inner[a] + 2 * patches.radius[a]).product();
    let peak = waiting.clone()
        + Cost::of::<f32>("voxels being resampled", 2 * window)
        + Cost::of::<[f64; 6]>("sums over patches", cpu::sums(tile, patches))
        + Cost::of::<[f64; 5]>("sums over boxes", around)
        + Cost::of::<[f32; 8]>("vectors", block.iter().product());
    (peak, waiting)
}

/// The number of patches along each axis whose sums fit into [`TILE_BYTES`].
fn tile(patches: &Patches, block: [usize; 3]) -> [usize; 3] {
    let mut tile = block;
    while cpu::sums(tile, patches) * size_of::<[f64; 6]>() > TILE_BYTES && tile != [1; 3] {
        let longest = (0..3).max_by_key(|&a| tile[a]).unwrap_or(2);
        tile[longest] = tile[longest].div_ceil(2);
    }
    tile
}

/// The elements of a task's part of the field: components and quality of each patch.
fn estimate(pair: &Pair, core: &Box3, input: input::Input) -> (Vec<f32>, FlowCounts) {
    let options = pair.options;
    let first = usize::from(options.planes);
    let width = 3 - first + peak::QUALITY.len();
    let mut elements = vec![f32::NAN; core.len() * width];
    let mut counts = FlowCounts::default();
    let spacing = pair.fixed.grid().spacing;
    let padding = options.patches.padding();
    for (slab, pair) in pair.slabs(core).iter().zip(input) {
        let Some(pair) = pair else {
            counts.patches += slab.len() as u64;
            counts.unknown += slab.len() as u64;
            continue;
        };
        let [_, height, across] = core.shape();
        for_each_patch(&pair, &options.patches, |at, found| {
            counts.patches += 1;
            let peak = match found {
                Ok(peak) => peak,
                Err(NoPeak::Unknown) => return counts.unknown += 1,
                Err(NoPeak::AtEdge) => return counts.at_edge += 1,
            };
            let [z, y, x]: [usize; 3] = std::array::from_fn(|a| {
                (slab.min[a] + padding[a] as i64 - core.min[a]) as usize + at[a]
            });
            let i = (z * height + y) * across + x;
            let element = &mut elements[i * width..(i + 1) * width];
            element[3 - first..].copy_from_slice(&peak.quality());
            if !options.limits.accept(&peak) {
                counts.rejected += 1;
                return;
            }
            counts.found += 1;
            counts.correlation += f64::from(peak.correlation);
            for a in first..3 {
                let length = peak.shift[a] * spacing[a];
                element[a - first] = length as f32;
                counts.reach[a] = counts.reach[a].max(length.abs());
            }
        });
    }
    (elements, counts)
}

/// Calls `found` with the index and the match of each patch of a block.
fn for_each_patch(
    pair: &BlockPair,
    patches: &Patches,
    mut found: impl FnMut([usize; 3], Result<Peak, NoPeak>),
) {
    let all = Box3::of_shape(pair.nodes);
    let size = tile(patches, pair.nodes);
    for part in all.tiles(size) {
        let [_, ny, nx] = part.shape();
        cpu::surfaces(pair.crop(&part, patches), patches, |i, surface| {
            let at = [i / (ny * nx), i / nx % ny, i % nx];
            let at = std::array::from_fn(|a| part.min[a] as usize + at[a]);
            found(at, peak::find(surface, patches));
        });
    }
}

fn conclude(
    counts: &FlowCounts,
    output: &str,
    out: &FieldOutput,
    ctx: &Context,
) -> Result<(), Error> {
    let FlowCounts { patches, found, unknown, at_edge, rejected, correlation, reach } = *counts;
    ctx.record("patches", patches);
    ctx.record("found", found);
    ctx.record("unknown", unknown);
    ctx.record("at_edge", at_edge);
    ctx.record("rejected", rejected);
    ctx.record("mean_correlation", correlation / found.max(1) as f64);
    ctx.record("longest_um", json!(reach));
    if patches == 0 {
        return Ok(()); // all blocks failed, which was allowed
    }
    out.set_attribute("reach", json!(reach))?;
    // masked patches and those outside the moving volume are no failures
    let compared = (patches - unknown) as f64;
    if found as f64 <= TOO_FEW * compared {
        let (output, verdict) = (output.to_owned(), blocks::ExitReason::TooManyFailed);
        return Err(Error::TooFew { found, patches, unknown, at_edge, rejected, output, verdict });
    }
    tracing::info!(
        "{found} of {patches} patches have a match, with a mean correlation of {:.3}",
        correlation / found as f64
    );
    if (found as f64) < FEW * compared {
        tracing::warn!(
            "only {found} of {patches} patches have a match: {unknown} are constant, masked or outside the moving \
             volume, {at_edge} at the edge of the search window, {rejected} below the limits of quality"
        );
    }
    if at_edge as f64 > MANY_AT_EDGE * compared {
        tracing::warn!(
            "{at_edge} of {patches} patches correlate best at the edge of the search window; give a larger \
             --search, or an --initial that is nearer"
        );
    }
    Ok(())
}
