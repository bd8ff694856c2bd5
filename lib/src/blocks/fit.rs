//! The choice of block shapes: a block must fit into memory and consist of whole write units.

use super::budget::format_memory;
use super::{Budget, Context, Error};
use crate::device::{Cost, megabytes};
use crate::geom::Box3;
use crate::volume::{Format, Spec};

/// Maximum number of blocks of a plan, because each takes memory and a line of the ledger.
const MAX_BLOCKS: u128 = 20_000_000;
/// A warning is given if a halo has more than this many times the voxels of its block.
const HALO: u64 = 2;

/// The smallest unit that is written in one operation; blocks are multiples of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteUnit {
    /// Shape in voxels, (z, y, x).
    pub shape: [usize; 3],
    kind: UnitKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnitKind {
    /// Chunks of a fixed size.
    Fixed,
    /// Chunks whose size `--chunk` sets.
    Chunk,
    /// Shards, whose size `--shard` sets.
    Shard,
    /// Whole planes of a file (TIFF, NPY).
    Plane,
    /// Any multiple of the shape: the output is written only after all blocks are done.
    Voxel,
}

impl From<[usize; 3]> for WriteUnit {
    /// The write unit for chunks of this shape (z, y, x), whose size no flag can change.
    fn from(shape: [usize; 3]) -> Self {
        Self { shape: shape.map(|n| n.max(1)), kind: UnitKind::Fixed }
    }
}

impl WriteUnit {
    /// The write unit of a volume with this specification.
    pub fn of(spec: &Spec) -> Self {
        let (shape, kind) = match (spec.format, spec.shard) {
            (Format::Tiff | Format::Npy, _) => {
                ([1, spec.grid.shape[1], spec.grid.shape[2]], UnitKind::Plane)
            }
            (_, Some(shard)) => (shard, UnitKind::Shard),
            _ => (spec.chunk, UnitKind::Chunk),
        };
        Self { shape: shape.map(|n| n.max(1)), kind }
    }

    /// The unit of an operation that writes its output only after all blocks are done: a block can
    /// be any multiple of `shape` voxels (z, y, x).
    pub fn multiple_of(shape: [usize; 3]) -> Self {
        Self { shape: shape.map(|n| n.max(1)), kind: UnitKind::Voxel }
    }

    /// The name of a unit in messages.
    fn name(self) -> &'static str {
        match self.kind {
            UnitKind::Fixed | UnitKind::Chunk => "chunk",
            UnitKind::Shard => "shard",
            UnitKind::Plane => "plane of the file",
            UnitKind::Voxel => "block",
        }
    }
}

/// Refuses a block whose task does not fit into `--memory`, and suggests a block that does.
///
/// * `cost`: peak memory of a task with the given block
///
/// The decision depends on `--memory` alone, not on the number of threads or the present memory of
/// the process, so that it is the same for all parts of a run.
///
/// # Errors
/// [`Error::Usage`], which states the bytes needed and a sufficient `--block-size`, `--chunk`,
/// `--shard` or `--memory`.
pub fn refuse_large<C: Into<Cost>>(
    block: [usize; 3],
    bounds: Box3,
    unit: WriteUnit,
    cost: impl Fn([usize; 3]) -> C,
    ctx: &Context,
) -> Result<(), Error> {
    refuse_costly(block, bounds, unit, &|block| cost(block).into(), ctx)
}

/// [`refuse_large`] without type parameters, so that it is compiled only once.
pub(super) fn refuse_costly(
    block: [usize; 3],
    bounds: Box3,
    unit: WriteUnit,
    cost: &dyn Fn([usize; 3]) -> Cost,
    ctx: &Context,
) -> Result<(), Error> {
    let room = Budget::room(ctx.memory);
    let needed = cost(block);
    if needed.total() <= room {
        return Ok(());
    }
    let memory = format_memory(Budget::memory_for(needed.total()));
    let (fitting, fits) = halved_to_fit(block, unit.shape, &|b| cost(b).total() <= room);
    let way_out = if fits && fitting != block {
        format!(
            "--block-size {} needs {}; give that, or --memory {memory}",
            text(fitting),
            megabytes(cost(fitting).total())
        )
    } else {
        no_fit_advice(unit, bounds, &|shape| cost(shape).total() <= room, &memory)
    };
    Err(Error::Usage(format!(
        "a block of {} voxels needs {needed}, and --memory {} leaves {} beside the program; {way_out}",
        text(block),
        megabytes(ctx.memory),
        megabytes(room),
    )))
}

/// Refuses to cut a volume into more than 20 million blocks.
///
/// # Errors
/// [`Error::Usage`], which states the number of blocks.
pub fn refuse_many(block: [usize; 3], bounds: Box3) -> Result<(), Error> {
    let shape = bounds.shape();
    let along = |a: usize| shape[a].div_ceil(block[a].max(1)) as u128;
    let blocks: u128 = (0..3).map(along).product();
    if blocks <= MAX_BLOCKS {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} voxels in blocks of {} are {blocks} blocks, and at most {MAX_BLOCKS} can be kept in order; give a \
         larger --block-size",
        text(shape),
        text(block),
    )))
}

/// The advice in the error message if not even one write unit fits into memory.
fn no_fit_advice(
    unit: WriteUnit,
    bounds: Box3,
    fits: &dyn Fn([usize; 3]) -> bool,
    memory: &str,
) -> String {
    let name = unit.name();
    let flag = match unit.kind {
        UnitKind::Chunk => "--chunk",
        UnitKind::Shard => "--shard",
        UnitKind::Plane => {
            return format!(
                "a {name} is written at once; give --memory {memory}, or write Zarr, whose chunks are smaller"
            );
        }
        UnitKind::Fixed | UnitKind::Voxel => {
            return format!(
                "one {name} of {} is the least; give --memory {memory}",
                text(unit.shape)
            );
        }
    };
    let whole = std::array::from_fn(|a| unit.shape[a].min(bounds.shape()[a].max(1)));
    match halved_to_fit(whole, [1; 3], fits) {
        (smaller, true) => format!(
            "a {name} is written at once; give {flag} {}, or --memory {memory}",
            text(smaller)
        ),
        _ => format!("give --memory {memory}"),
    }
}

/// Halves a block along its longest axis, in whole units, until it fits or is one unit; returns the
/// block and whether it fits.
fn halved_to_fit(
    mut block: [usize; 3],
    unit: [usize; 3],
    fits: &dyn Fn([usize; 3]) -> bool,
) -> ([usize; 3], bool) {
    loop {
        if fits(block) {
            return (block, true);
        }
        let long = (0..3).filter(|&a| block[a] > unit[a]).max_by_key(|&a| (block[a], 3 - a));
        let Some(a) = long else { return (block, false) };
        block[a] = (block[a].div_ceil(2)).next_multiple_of(unit[a]).min(block[a] - 1).max(unit[a]);
        block[a] -= block[a] % unit[a];
    }
}

/// Warns if a block's halo has more than twice as many voxels as the block.
///
/// * `core`, `input`: voxels that a task writes, and voxels that it reads
pub fn warn_of_halo(block: [usize; 3], core: u64, input: u64) {
    if input.saturating_sub(core) > HALO.saturating_mul(core) {
        tracing::warn!(
            "blocks of {} voxels are small for what is read around them: {input} voxels are read and worked \
             on for {core}; a larger --block-size, or more --memory, costs less time",
            text(block)
        );
    }
}

pub(super) fn text([z, y, x]: [usize; 3]) -> String {
    format!("{z},{y},{x}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::geom::Grid;
    use crate::volume::{Codec, Dtype};

    fn spec(format: Format, shard: Option<[usize; 3]>) -> Spec {
        Spec {
            grid: Grid::new([1000; 3], [1.0; 3], [0.0; 3]),
            dtype: Dtype::U16,
            chunk: [256; 3],
            shard,
            codec: Codec::Raw,
            format,
        }
    }

    fn refusal(block: [usize; 3], unit: WriteUnit, memory: u64) -> Option<String> {
        let ctx = Context { memory, ..Context::default() };
        let bounds = Box3::of_shape([1000; 3]);
        let cost = |block: [usize; 3]| Cost::of::<u16>("voxels", block.iter().product());
        refuse_large(block, bounds, unit, cost, &ctx).err().map(|error| error.to_string())
    }

    #[test]
    fn a_block_that_does_not_fit_is_refused_with_one_that_does() {
        let unit = WriteUnit::from([64; 3]);
        assert_eq!(refusal([256; 3], unit, 64 << 20), None);
        let message = refusal([512; 3], unit, 64 << 20).unwrap();
        for part in ["512,512,512", "268 MB", "--block-size 256,256,256", "--memory"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }

    #[test]
    fn a_unit_that_does_not_fit_is_refused_with_its_own_flag() {
        let refuse = |format, shard| {
            let unit = WriteUnit::of(&spec(format, shard));
            refusal(unit.shape, unit, 1 << 20).unwrap()
        };
        let chunk = refuse(Format::Zarr3, None);
        assert!(chunk.contains("--chunk 64,64,64") && !chunk.contains("--block-size"), "{chunk}");
        let shard = refuse(Format::Zarr3, Some([512; 3]));
        assert!(shard.contains("--shard 64,64,64"), "{shard}");
        let plane = refuse(Format::Tiff, None);
        assert!(plane.contains("plane") && plane.contains("--memory"), "{plane}");
        let fixed = refusal([64; 3], [64; 3].into(), 1 << 19).unwrap();
        assert!(fixed.contains("--memory") && !fixed.contains("--chunk"), "{fixed}");
    }

    proptest! {
        #[test]
        fn what_is_shrunk_is_made_of_whole_units_and_fits_if_one_unit_does(
            unit in prop::array::uniform3(1..40_usize),
            count in prop::array::uniform3(1..9_usize),
            most in 1..200_000_usize,
        ) {
            let block: [usize; 3] = std::array::from_fn(|a| unit[a] * count[a]);
            let fits = |b: [usize; 3]| b.iter().product::<usize>() <= most;
            let (found, fit) = halved_to_fit(block, unit, &fits);
            prop_assert!((0..3).all(|a| found[a] % unit[a] == 0 && found[a] <= block[a] && found[a] > 0));
            prop_assert_eq!(fit, fits(found));
            prop_assert!(fit || (found == unit && !fits(unit)));
        }
    }
}
