//! Downsampling into pyramids by mean, mode, min, max or stride.
//!
//! [`pyramid`] computes each level from the previous one, block by block, and lists it in the
//! image's metadata with its true spacing and origin.

use std::path::Path;
use std::sync::Arc;

use crate::blocks::{self, Budget, Context, Identity, Outcome, Plan, Pool, Reads, WriteUnit};
use crate::device::Cost;
use crate::geom::{Box3, Grid};
use crate::store;
use crate::volume::{self, Codec, Existing, Format, Output, Select, Spec, Volume, Voxel};
use crate::with_voxel;

mod cpu;
mod levels;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use levels::PyramidLocations;

/// Why a pyramid could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be read or written.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the run, such as an invalid option or an output that exists.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
}

/// How a block of voxels is reduced to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Method {
    /// Mean, exact, rounded half up: for images.
    #[default]
    Mean,
    /// Most frequent value, the smallest of equally frequent ones: for labels.
    Mode,
    /// Minimum.
    Min,
    /// Maximum.
    Max,
    /// First voxel of the block.
    Stride,
}

/// How many voxels are combined into one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Factor {
    /// Two along every axis whose spacing is at most sqrt(2) times the smallest, which makes the
    /// voxels more isotropic from level to level.
    #[default]
    Auto,
    /// This number of voxels along z, y, x, at every level.
    Fixed([usize; 3]),
}

impl std::str::FromStr for Factor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let factors: Option<Vec<usize>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
        let factors: Option<[usize; 3]> = factors.and_then(|factors| match factors[..] {
            [y, x] => Some([1, y, x]),
            _ => factors.try_into().ok(),
        });
        match factors {
            Some([z, y, x])
                if [z, y, x].iter().all(|f| (1..=cpu::MAX_BLOCK_VOXELS).contains(f))
                    && (2..=cpu::MAX_BLOCK_VOXELS).contains(&(z * y * x)) =>
            {
                Ok(Self::Fixed([z, y, x]))
            }
            _ => Err(
                "wanted auto, or whole factors along z,y,x such as 1,2,2, or along y,x of a plane"
                    .to_owned(),
            ),
        }
    }
}

/// The options of [`pyramid`]: how voxels are combined, and which levels are made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// How voxels are combined.
    pub method: Method,
    /// How many voxels are combined into one.
    pub factor: Factor,
    /// Number of levels below the volume. If `None`, levels are made until one fits into one chunk.
    pub levels: Option<usize>,
    /// Make only the level of this number, counted from 1 (the first below the volume).
    pub only: Option<usize>,
    /// If the output is a new image: also copy the volume itself into it, as its level 0.
    pub with_original: bool,
}

/// How the levels are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LevelStorage {
    /// The chunk shape, voxels along z, y, x. If `None`, it is that of the volume, or 128 voxels
    /// along each axis if the volume's chunks are too small or too large.
    pub chunk: Option<[usize; 3]>,
    /// The shard shape, a multiple of the chunk shape. If `None`, there are no shards.
    pub shard: Option<[usize; 3]>,
    /// The codec of the chunks. If `None`, it is that of the volume.
    pub codec: Option<Codec>,
}

/// Makes the pyramid of the volume at `location`, either in the image that it belongs to, or as a
/// new image `to` of the given format.
///
/// Each level is computed from the previous one. Minima and maxima are nevertheless exact. Means
/// equal those of all voxels, except for rounding and for blocks that are cut off at the border.
/// The mode of modes can differ from the mode of all voxels.
///
/// # Errors
/// [`Error`]; blocks that failed are listed in the receipt.
pub fn pyramid(
    location: &str,
    select: &Select,
    to: Option<(&str, Format)>,
    layout: &LevelStorage,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    let place = PyramidLocations::find(location, to)?;
    let base = Volume::open(&place.base, select)?;
    let format = to.map_or(base.format(), |(_, format)| format);
    let chunk = layout.chunk.unwrap_or_else(|| levels::usual_chunk(&base));
    let steps = levels::steps(&base.grid(), chunk, options);
    let kept = usize::from(to.is_some() && options.with_original);
    if steps.is_empty() && kept == 0 {
        return nothing_to_do(location, to.map(|(to, _)| to), &base, chunk, options, ctx);
    }
    if steps.len() + kept > 1 && matches!(format, Format::Tiff | Format::Npy) {
        return usage(format!(
            "{} holds one level, and {} are asked for; give --levels 1, or write Zarr",
            to.map_or(location, |(to, _)| to),
            steps.len() + kept
        ));
    }
    if let Some(only) = options.only
        && !(1..=steps.len()).contains(&only)
    {
        return usage(format!("--level {only}: there are the levels 1 to {}", steps.len()));
    }
    if options.only.is_none() && steps.len() + kept > 1 && ctx.part.n > 1 {
        return usage(format!(
            "a level is made from the one before, so that a part cannot make all {}; \
             give --level 1, and the next when all parts of it are done",
            steps.len()
        ));
    }
    if !place.is_replaced_whole() {
        refuse_stale(&place.level(kept + steps.len()), steps.len(), options, ctx)?;
    }
    let mut from = base.location().to_owned();
    let mut select = select.clone();
    let original = (kept == 1).then_some(levels::LevelStep { factor: [1; 3], grid: base.grid() });
    for (i, step) in original.iter().chain(&steps).enumerate() {
        let spec = Spec {
            grid: step.grid,
            dtype: base.dtype(),
            chunk: match format {
                Format::Tiff | Format::Npy => [1, step.grid.shape[1], step.grid.shape[2]],
                _ => chunk,
            },
            shard: layout.shard,
            codec: layout.codec.unwrap_or_else(|| base.codec()),
            format,
        };
        let level = Level { from: &from, select: &select, to: place.level(i), spec, step };
        let method = if step.factor == [1; 3] { Method::Stride } else { options.method };
        if options.only.is_none_or(|only| only + kept == i + 1 || (only == 1 && i < kept)) {
            with_voxel!(base.dtype(), T => level.make::<T>(method, ctx))?;
        }
        from = level.to;
        select = Select::default();
    }
    ctx.record("levels", steps.len());
    Ok(())
}

/// Refuses to replace levels of an image if coarser levels, which were made from the replaced ones,
/// would stay. With `--level` this is allowed, because the caller makes the coarser levels next.
///
/// * `coarser`: the location of the next coarser level after the `made` levels of this run
fn refuse_stale(coarser: &str, made: usize, options: &Options, ctx: &Context) -> Result<(), Error> {
    let is_replaced = ctx.existing == Existing::Overwrite && options.only.is_none();
    if !is_replaced || !store::exists(Path::new(coarser)) {
        return Ok(());
    }
    usage(format!(
        "{coarser} was made from the levels that --overwrite replaces, and would stay; give --levels \
         {} or more to make it again too, or remove it",
        made + 1
    ))
}

/// Explains why no level is made, so that exit status 0 without an output does not go unnoticed.
fn nothing_to_do(
    location: &str,
    to: Option<&str>,
    base: &Volume,
    chunk: [usize; 3],
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    let shape = base.grid().shape;
    let why = match options.levels {
        Some(0) => "--levels 0 asks for none".to_owned(),
        Some(_) => format!("its {shape:?} voxels cannot be downsampled"),
        None => {
            format!("its {shape:?} voxels fit into a chunk of {chunk:?}; give --levels to go on")
        }
    };
    if let Some(only) = options.only {
        return usage(format!("--level {only}: {location} has no level below it: {why}"));
    }
    let what = to.map_or(String::new(), |to| format!(", and {to} is not written"));
    let message = format!("{location}: there is no level to make{what}: {why}");
    if to.is_none() && options.levels.is_none() {
        tracing::info!("{message}");
    } else {
        tracing::warn!("{message}");
    }
    ctx.record("levels", 0);
    Ok(())
}

fn usage<T>(message: String) -> Result<T, Error> {
    Err(blocks::Error::Usage(message).into())
}

/// One level to make.
struct Level<'a> {
    from: &'a str,
    select: &'a Select,
    to: String,
    spec: Spec,
    step: &'a levels::LevelStep,
}

impl Level<'_> {
    fn make<T: cpu::Mean>(&self, method: Method, ctx: &Context) -> Result<(), Error> {
        let (bounds, factor) = (self.spec.grid.bounds(), self.step.factor);
        let budget = Budget::of(ctx);
        let cost = |block: [usize; 3]| {
            let out: usize = (0..3).map(|a| block[a].min(bounds.shape()[a])).product();
            Cost::of::<T>("voxels", out * factor.iter().product::<usize>())
                + Cost::of::<T>("means", out)
        };
        // if only a plan is wanted, the previous level need not exist yet
        let from = if ctx.plan_only && !store::exists(Path::new(self.from)) {
            None
        } else {
            Some(Volume::open(self.from, self.select)?)
        };
        let unit = WriteUnit::of(&self.spec);
        let source = from.as_ref().map_or(self.spec.chunk, Volume::chunk);
        let block = if ctx.block_size.is_some() {
            Plan::choose_block(bounds, unit, cost, ctx)?
        } else {
            levels::block(unit.shape, bounds.shape(), factor, source, |block| {
                cost(block).total().saturating_mul(8) <= ctx.memory
            })
        };
        blocks::refuse_large(block, bounds, unit, cost, ctx)?;
        blocks::refuse_many(block, bounds)?;
        let identity = Identity::of("downsample")
            .with_optional("volume", from.as_ref())?
            .with("method", method)
            .with("factor", factor)
            .with("output", &self.spec);
        let reads: Vec<Reads> = from.iter().map(Reads::Volume).collect();
        let read = std::array::from_fn(|a| block[a] * factor[a]);
        let useful = from.iter().map(|from| blocks::useful_cache_bytes(from, read, [0; 3]));
        let sources: Vec<_> = reads.iter().copied().zip(useful).collect();
        let kept = budget.caches(&sources, &cost(block));
        let plan = Plan::tile(bounds, block, cost(block), &identity).with_overhead(
            &budget,
            kept,
            Budget::each_thread(&reads, self.spec.writing_bytes(&self.to)),
        );
        from.iter().for_each(|from| ctx.input(from));
        let (false, Some(from)) = (plan.is_all_asked(ctx)?, &from) else { return Ok(()) };
        let out = Arc::new(Output::begin(&self.to, &self.spec, 1, &plan.as_run(ctx))?);
        ctx.output_array(&out);
        self.stream::<T>(&plan, from, &out, method, ctx)
    }

    fn stream<T: cpu::Mean>(
        &self,
        plan: &Plan,
        from: &Volume,
        out: &Output,
        method: Method,
        ctx: &Context,
    ) -> Result<(), Error> {
        let sizes = plan.tasks().iter().map(|task| task.core.len()).max().unwrap_or_default();
        let inputs = Pool::<T>::of(sizes * self.step.factor.iter().product::<usize>());
        let outputs = Pool::<T>::of(sizes);
        let whole = from.grid().bounds();
        plan.stream_to::<_, _, _, Error>(
            ctx,
            out,
            |task| {
                let part = source_of(&task.core, self.step.factor).intersect(&whole);
                let mut voxels = inputs.take(part.len());
                from.read_into(&part, &mut voxels[..part.len()])?;
                Ok((part, voxels))
            },
            |task, (part, voxels)| {
                let mut reduced = outputs.take(task.core.len());
                cpu::reduce(
                    method,
                    &voxels[..part.len()],
                    part.shape(),
                    self.step.factor,
                    &mut reduced[..task.core.len()],
                );
                inputs.give_back(voxels);
                Ok(reduced)
            },
            |task, voxels| {
                out.write(&task.core, &voxels[..task.core.len()])?;
                outputs.give_back(voxels);
                Ok(Outcome::Done)
            },
        )?;
        Ok(())
    }
}

/// The source voxels of a box of a level; the box may extend beyond the source.
fn source_of(core: &Box3, factor: [usize; 3]) -> Box3 {
    let scale = |at: [i64; 3]| std::array::from_fn(|a| at[a] * factor[a] as i64);
    Box3::new(scale(core.min), scale(core.max))
}

/// The grid of the next level for [`Factor::Auto`] and [`Method::Mean`]; `None` if there is none.
///
/// ```
/// use voxloom::downsample::next_level;
/// use voxloom::geom::Grid;
///
/// // z is coarser already: only y and x are halved
/// let grid = Grid::new([200, 1000, 1000], [2.0, 0.5, 0.5], [0.0; 3]);
/// assert_eq!(next_level(&grid).unwrap().shape, [200, 500, 500]);
/// ```
pub fn next_level(grid: &Grid) -> Option<Grid> {
    let factor = levels::next_factor(grid, Factor::Auto);
    (factor != [1; 3]).then(|| levels::reduced(grid, factor, Method::Mean))
}

/// Downsamples `voxels` on `grid` (C order) in memory; returns the result and its grid.
///
/// ```
/// use voxloom::downsample::{Method, reduce_block};
/// use voxloom::geom::Grid;
///
/// let grid = Grid::new([1, 2, 4], [1.0; 3], [0.0; 3]);
/// let (small, half) = reduce_block(&[1, 3, 5, 7, 1, 3, 5, 7], &grid, Method::Mean, [1, 2, 2]);
/// assert_eq!(small, [2, 6]);
/// // the first voxel lies in the middle of the four that it is made of
/// assert_eq!((half.spacing, half.origin), ([1.0, 2.0, 2.0], [0.0, 0.5, 0.5]));
/// ```
pub fn reduce_block(
    voxels: &[u16],
    grid: &Grid,
    method: Method,
    factor: [usize; 3],
) -> (Vec<u16>, Grid) {
    let small = levels::reduced(grid, factor, method);
    let mut out = vec![0; small.bounds().len()];
    cpu::reduce(method, voxels, grid.shape, factor, &mut out);
    (out, small)
}
