//! Resampling volumes and mapping points through chains of transforms.
//!
//! [`resample`] resamples a volume onto a grid, block by block: the chain determines which part of
//! the moving volume an output block depends on, that part is read, and every output voxel takes
//! the interpolated value at its mapped position. If the chain is to be applied backwards, its
//! inverse is first computed at the voxels of the block ([`inverse`]), in memory, so that the
//! volume is still resampled only once. [`points`] maps points in either direction.

use std::sync::Arc;

use crate::blocks::{
    self, Budget, Context, Identity, Outcome, Plan, Pool, Reads, Task, TaskResult,
};
use crate::device::Cost;
use crate::geom::{
    Box3, Chain, FieldSource, Grid, LocalChain, LocalStep, Point, SourceError, Transform,
    UnreachedField,
};
use crate::volume::{self, Dtype, Output, Spec, Volume, Voxel};
use crate::with_voxel;

mod counts;
mod cpu;
mod fill;
#[cfg(feature = "cli")]
mod flags;
mod lanczos;
mod layout;
mod options;
mod rows;
mod spline;
mod voxel_map;

pub mod inverse;
pub mod points;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod golden_fields;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

use counts::ValueCounts;
#[cfg(feature = "cli")]
pub use flags::Flags;
pub use options::{Interpolation, Options, Rounding};
pub(crate) use rows::{PartOf, each_sampled_row, support};
use voxel_map::VoxelMap;

/// The reason why a volume could not be resampled or points could not be mapped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of reading or writing a volume.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the block-wise run.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// A field could not be read.
    #[error("the displacement field of the transform cannot be read: {0}")]
    Field(#[source] SourceError),
    /// A field of the chain does not overlap the points that it would be applied to.
    #[error(transparent)]
    Apart(#[from] UnreachedField),
    /// The chain cannot be inverted.
    #[error("--inverse-transform: step {step} of the transform is {what}")]
    NoInverse {
        /// The step's number in the chain, counted from 1.
        step: usize,
        /// What kind of step it is, and what to do instead.
        what: String,
    },
    /// No channel of the moving volume is selected.
    #[error(
        "no channel is chosen; give --moving-channel a number, several with commas between, or all"
    )]
    NoChannel,
    /// The channels differ in grid or data type.
    #[error(
        "{0} and {1} differ in grid or type; channels are resampled together where they are alike"
    )]
    Unlike(String, String),
    /// The output consists of NaN only.
    #[error(
        "{output} is written, and every voxel of it is NaN: the moving volume is NaN wherever the transform \
         leads, or --fill is; see with inspect whether it is the right volume, channel and transform"
    )]
    Unknown {
        /// The output.
        output: String,
        /// The exit reason: the run is complete but not successful.
        #[source]
        verdict: blocks::ExitReason,
    },
    /// The table of points is invalid.
    #[error(transparent)]
    Table(#[from] crate::table::Error),
}

/// Resamples `moving` through `chain` and writes the result to the new volume `to`, described by
/// `spec`.
///
/// The chain maps positions of the output to positions of the moving volume, or the reverse with
/// `options.backwards`. Voxels where the map or its inverse is undefined get the fill value and are
/// counted in the receipt. `moving` holds the channels of one image, which must have the same grid
/// and data type; positions are computed only once for all channels. The output has the same number
/// of channels.
///
/// # Errors
/// [`Error`]. Blocks that failed are listed in the receipt.
pub fn resample(
    moving: &[Volume],
    chain: &Chain,
    to: &str,
    spec: &Spec,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    let Some((first, others)) = moving.split_first() else { return Err(Error::NoChannel) };
    let is_other = |v: &&Volume| v.grid() != first.grid() || v.dtype() != first.dtype();
    if let Some(other) = others.iter().find(is_other) {
        return Err(Error::Unlike(other.location().to_owned(), first.location().to_owned()));
    }
    fill::check(spec.dtype, options)?;
    // a chain that consists of matrices only is inverted exactly, by inverting the matrices
    let turned = (options.backwards && chain.as_affine().is_some())
        .then(|| points::inverse_chain(chain))
        .transpose()?;
    let options = &Options { backwards: options.backwards && turned.is_none(), ..*options };
    let chain = turned.as_ref().unwrap_or(chain);
    if !options.backwards {
        chain.check_fields(spec.grid.extent(&spec.grid.bounds()))?;
        points::warn_outside(to, chain, &spec.grid)?;
    }
    let moving_grid = first.grid();
    let job = ResampleJob {
        channels: moving,
        moving: moving_grid,
        chain,
        to,
        spec,
        options,
        vectors: Pool::default(),
    };
    if options.interpolation != Interpolation::Nearest
        && matches!(first.dtype(), Dtype::U32 | Dtype::I32 | Dtype::U64 | Dtype::I64)
    {
        tracing::warn!(
            "{} is {}: it is interpolated in single precision, which rounds values above 16777216; \
             for labels give --interpolation nearest",
            first.location(),
            first.dtype()
        );
    }
    if options.interpolation == Interpolation::Nearest {
        // if voxels must be converted, this happens when they are read, so that 64-bit labels keep
        // all digits
        with_voxel!(spec.dtype, O => job.run::<O, O>(ctx, cpu::nearest))
    } else if spec.dtype == first.dtype() {
        with_voxel!(spec.dtype, O => job.run::<O, O>(ctx, cpu::interpolate))
    } else {
        with_voxel!(spec.dtype, O => job.run::<f32, O>(ctx, cpu::interpolate))
    }
}

/// Like [`resample`], but in memory: resamples `voxels` (C order, on the grid `moving`) through
/// `chain` onto the grid `onto`.
///
/// ```
/// use voxloom::geom::{Affine, Grid, LocalChain, LocalStep};
/// use voxloom::warp::{Options, resample_block};
///
/// // a row of four voxels, moved by half a voxel
/// let grid = Grid::new([1, 1, 4], [1.0; 3], [0.0; 3]);
/// let chain = LocalChain { steps: vec![LocalStep::Affine(Affine::translation([0.0, 0.0, 0.5]))] };
/// let options = Options::default();
/// let moved: Vec<f32> = resample_block(&[10u16, 20, 40, 80], &grid, &chain, &grid, &options);
/// assert_eq!(moved, [15.0, 30.0, 60.0, 80.0]);
/// ```
pub fn resample_block<T: Voxel, O: Voxel>(
    voxels: &[T],
    moving: &Grid,
    chain: &LocalChain,
    onto: &Grid,
    options: &Options,
) -> Vec<O> {
    let mut out = vec![O::default(); onto.bounds().len()];
    let (part, whole) = (moving.bounds(), moving.shape);
    let rows = VoxelMap::new(chain, onto, moving);
    if options.interpolation == Interpolation::Nearest {
        let voxels: Vec<O> = voxels.iter().map(|v| O::from_f64(v.to_f64())).collect();
        let moving = cpu::Moving { voxels: &voxels, channels: 1, part, whole };
        cpu::nearest(&moving, &rows, &onto.bounds(), options, &mut out);
    } else {
        let moving = cpu::Moving { voxels, channels: 1, part, whole };
        cpu::interpolate(&moving, &rows, &onto.bounds(), options, &mut out);
    }
    out
}

/// The parameters and state of one call of [`resample`].
struct ResampleJob<'a> {
    /// The channels, at least one.
    channels: &'a [Volume],
    /// The grid of every channel.
    moving: Grid,
    chain: &'a Chain,
    to: &'a str,
    spec: &'a Spec,
    options: &'a Options,
    /// Buffers for the vectors of fields, reused by later tasks.
    vectors: Pool<[f32; 3]>,
}

/// The input of a task, if it needs any.
struct TaskData<T> {
    /// `None` if the block does not map into the moving volume.
    input: Option<MovingPart<T>>,
    tally: ValueCounts,
}

/// The part of the moving volume that a task needs.
struct MovingPart<T> {
    chain: LocalChain,
    part: Box3,
    voxels: Vec<T>,
}

type Kernel<T, O> = fn(&cpu::Moving<T>, &VoxelMap, &Box3, &Options, &mut [O]) -> u64;

impl ResampleJob<'_> {
    fn run<T: Voxel, O: Voxel>(&self, ctx: &Context, kernel: Kernel<T, O>) -> Result<(), Error> {
        let budget = Budget::of(ctx);
        self.fields().for_each(|field| field.keep(ctx.memory / 8));
        let layout = layout::choose(self, &|demand| self.task_of::<T, O>(demand), ctx)?;
        let onto = &self.spec.grid;
        let plan = self.plan(&layout, &self.identity()?, &budget, ctx);
        self.channels.iter().for_each(|volume| ctx.input(volume));
        if plan.is_all_asked(ctx)? {
            return Ok(());
        }
        let channels = self.channels.len();
        let out = Arc::new(Output::begin(self.to, self.spec, channels, &plan.as_run(ctx))?);
        ctx.output_array(&out);
        let inputs = Pool::<T>::of(channels * layout.part);
        let core = (0..3).map(|a| layout.block[a].min(onto.shape[a])).product::<usize>();
        let outputs = Pool::<O>::of(channels * core);
        let results = plan.stream_to::<_, _, _, Error>(
            ctx,
            &*out,
            // if the chain is inverted, the part to read is known only after the inverse is
            // computed
            |task| (!self.options.backwards).then(|| self.read::<T, O>(task, &inputs)).transpose(),
            |task, work| {
                let TaskData { input, mut tally } =
                    work.map_or_else(|| self.read::<T, O>(task, &inputs), Ok)?;
                let mut voxels = outputs.take(channels * task.core.len());
                let core = &mut voxels[..channels * task.core.len()];
                if let Some(input) = &input {
                    let moving = cpu::Moving {
                        voxels: &input.voxels[..channels * input.part.len()],
                        channels,
                        part: input.part,
                        whole: self.moving.shape,
                    };
                    let rows = VoxelMap::new(&input.chain, onto, &self.moving);
                    let unknown = kernel(&moving, &rows, &task.core, self.options, core);
                    if !self.options.backwards {
                        tally.count_unmapped(unknown);
                    }
                } else {
                    core.fill(O::from_f64(self.options.fill));
                }
                tally.count_written(core);
                let empty = input.is_none();
                if let Some(input) = input {
                    inputs.give_back(input.voxels);
                    self.give_back(input.chain);
                }
                Ok((voxels, empty, tally))
            },
            |task, (voxels, empty, tally)| {
                for (c, voxels) in voxels.chunks_exact(task.core.len()).take(channels).enumerate() {
                    out.write_channel(c, &task.core, voxels)?;
                }
                outputs.give_back(voxels);
                let done = TaskResult::from(if empty { Outcome::Empty } else { Outcome::Done });
                Ok(if tally == ValueCounts::default() { done } else { done.with_summary(&tally)? })
            },
        )?;
        if !ctx.gathers() {
            return Ok(());
        }
        if results.are_all(&Outcome::Empty) {
            let (to, moving, fill) = (self.to, self.channels[0].location(), self.options.fill);
            tracing::warn!(
                "no voxel of {to} maps into {moving}, and all have the fill value {fill}; check the \
                 transforms, and the voxel sizes and origins of both grids"
            );
        }
        let voxels = (channels * onto.bounds().len()) as u64;
        let backwards = self.options.backwards;
        ValueCounts::of_all(&results)?.report(self.to, self.spec.dtype, voxels, backwards, ctx)
    }

    fn fields(&self) -> impl Iterator<Item = &dyn FieldSource> {
        self.chain.steps.iter().filter_map(|step| match step {
            Transform::Field(field) => Some(&**field),
            _ => None,
        })
    }

    fn plan(
        &self,
        layout: &layout::BlockLayout,
        identity: &Identity,
        budget: &Budget,
        ctx: &Context,
    ) -> Plan {
        let reads = self.reads();
        let fields = self.fields().count().max(1) as u64;
        let useful = |source: &Reads| match source {
            Reads::Volume(_) => layout.useful_cache_bytes,
            Reads::Field(_) => ctx.memory / 8 / fields,
        };
        let sources: Vec<_> = reads.iter().map(|source| (*source, useful(source))).collect();
        let kept = budget.caches(&sources, &layout.task);
        let each_thread = Budget::each_thread(&reads, self.spec.writing_bytes(self.to));
        Plan::tile(self.spec.grid.bounds(), layout.block, layout.task.clone(), identity)
            .waiting(&layout.waiting)
            .with_overhead(budget, kept, each_thread)
    }

    /// All sources that cache decoded chunks.
    fn reads(&self) -> Vec<Reads<'_>> {
        self.channels.iter().map(Reads::Volume).chain(self.fields().map(Reads::Field)).collect()
    }

    /// The memory of a task at its peak, and while it waits to be computed or written. Its buffers
    /// are kept for later tasks.
    fn task_of<T: Voxel, O: Voxel>(&self, demand: &layout::Demand) -> [Cost; 2] {
        let (channels, voxels) = (self.channels.len(), demand.part.iter().product::<usize>());
        let waiting = Cost::of::<T>("voxels of the moving volume", channels * voxels)
            + Cost::of::<[f32; 3]>("vectors of fields", demand.vectors)
            + Cost::of::<O>("resampled voxels", channels * demand.core);
        let cubic = self.options.interpolation == Interpolation::Cubic;
        let filtered = if cubic { spline::Coefficients::bytes(demand.part) } else { 0 };
        let filtered = Cost::bytes("spline coefficients", (channels * filtered) as u64);
        let stored = if self.narrows() && T::DTYPE == O::DTYPE { voxels } else { 0 };
        let stored = Cost::of::<f64>("voxels as stored", stored);
        [waiting.clone() + filtered.or(stored), waiting]
    }

    fn read<T: Voxel, O: Voxel>(&self, task: &Task, pool: &Pool<T>) -> anyhow::Result<TaskData<T>> {
        let (chain, part, lost) = self.footprint(&task.core)?;
        let mut tally = ValueCounts::of_lost(lost);
        if part.is_empty() {
            self.give_back(chain);
            return Ok(TaskData { input: None, tally });
        }
        let mut voxels = pool.take(self.channels.len() * part.len());
        for (volume, voxels) in self.channels.iter().zip(voxels.chunks_exact_mut(part.len())) {
            if !self.narrows() {
                volume.read_into(&part, voxels)?;
            } else if T::DTYPE == O::DTYPE {
                // reading would convert the values: count them before the conversion
                let stored = volume.read::<f64>(&part)?;
                tally = tally.and(ValueCounts::of_narrowed(&stored));
                for (to, from) in voxels.iter_mut().zip(stored) {
                    *to = T::from_f64(from);
                }
            } else {
                volume.read_into(&part, voxels)?;
                tally = tally.and(ValueCounts::of_narrowed(voxels));
            }
        }
        Ok(TaskData { input: Some(MovingPart { chain, part, voxels }), tally })
    }

    /// Whether the output's type cannot represent all values of the input's type.
    fn narrows(&self) -> bool {
        let (from, to) = (self.channels[0].dtype(), self.spec.dtype);
        let whole = from.is_integer() || !to.is_integer();
        from != to && !(whole && from.range().into_iter().all(|v| to.holds(v)))
    }

    /// The chain for a box of the output, the part of the moving volume that the box can depend on,
    /// and the number of voxels of the box at which the chain or its inverse is already known to be
    /// undefined.
    fn footprint(&self, core: &Box3) -> Result<(LocalChain, Box3, u64), Error> {
        let onto = &self.spec.grid;
        if !self.options.backwards {
            let buffer = |len| self.vectors.take(len);
            let local = self.chain.localise_into(onto.extent(core), buffer);
            let (chain, image) = local.map_err(Error::Field)?;
            if chain.is_unknown() {
                return Ok((chain, Box3::of_shape([0; 3]), core.len() as u64));
            }
            return Ok((chain, self.part(image), 0));
        }
        let found =
            inverse::inverse_from(self.chain, onto, core, inverse::TOLERANCE, &self.vectors)?;
        let lost = found.lost;
        let Some(image) = image_of(onto, core, &found) else {
            self.vectors.give_back(found.vectors);
            return Ok((LocalChain::default(), Box3::of_shape([0; 3]), lost));
        };
        let step = LocalStep::Field(found.into_step(onto, core));
        Ok((LocalChain { steps: vec![step] }, self.part(image), lost))
    }

    fn give_back(&self, chain: LocalChain) {
        inverse::give_back(chain, &self.vectors);
    }

    /// The voxels of the moving volume that interpolated values within the extent `image`
    /// (micrometres) depend on.
    fn part(&self, image: [Point; 2]) -> Box3 {
        let grid = self.moving;
        let part = grid.enclosing(image).grow([cpu::support(self.options.interpolation); 3]);
        let bounds = grid.bounds();
        if !self.options.extrapolate {
            return part.intersect(&bounds);
        }
        // clip the box to the volume; positions outside take the nearest edge voxels
        let clamp = |v: i64, a: usize, by: i64| v.clamp(by, bounds.max[a] - 1 + by);
        Box3::new(
            std::array::from_fn(|a| clamp(part.min[a], a, 0)),
            std::array::from_fn(|a| clamp(part.max[a], a, 1)),
        )
    }

    fn identity(&self) -> Result<Identity, Error> {
        let mut identity = Identity::of("apply-transform");
        for (channel, volume) in self.channels.iter().enumerate() {
            identity = identity.with_volume(&format!("moving {channel}"), volume)?;
        }
        let identity = identity.with_chain("transform", self.chain)?;
        Ok(identity.with("output", self.spec).with("options", self.options))
    }
}

/// The extent of the points to which an inverse maps the voxels of a box; `None` if all are
/// unknown.
fn image_of(grid: &Grid, part: &Box3, inverse: &inverse::Inverse) -> Option<[Point; 2]> {
    let mut image = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
    let mut vectors = inverse.vectors.iter();
    for z in part.min[0]..part.max[0] {
        for y in part.min[1]..part.max[1] {
            for x in part.min[2]..part.max[2] {
                let at = grid.position([z, y, x].map(|v| v as f64));
                let vector = vectors.next()?;
                for a in 0..3 {
                    // `min` and `max` ignore NaN, which marks unknown vectors
                    let q = at[a] + f64::from(vector[a]);
                    image[0][a] = image[0][a].min(q);
                    image[1][a] = image[1][a].max(q);
                }
            }
        }
    }
    image[0][0].is_finite().then_some(image)
}
