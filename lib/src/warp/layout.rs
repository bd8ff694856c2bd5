//! The division of the output into blocks, and the memory of a block.

use std::collections::BTreeMap;

use super::inverse::SolvedNodes;
use super::{Error, ResampleJob, cpu};
use crate::blocks::{self, Context, Plan, WriteUnit};
use crate::device::Cost;
use crate::geom::{Box3, Transform};

/// The default number of output voxels of a block. It depends neither on the number of threads nor
/// on the machine's memory, so that all parts of a distributed run, and a resumed run, use the same
/// blocks. Measured with 2 threads on 384^3 `uint16` voxels, compressed and raw, these blocks are
/// as fast as blocks four times as large and take at most 60 % of their memory.
const BLOCK_VOXELS: usize = 2 << 20;

/// The maximum number of blocks that are examined to find the most expensive one, if the
/// examination of a block has to read a field or invert the chain.
const MAX_PROBES: usize = 24;

/// The blocks of a run.
pub(super) struct BlockLayout {
    /// The shape of a block.
    pub(super) block: [usize; 3],
    /// The peak memory of the most expensive block.
    pub(super) task: Cost,
    /// The memory of the most expensive block while it waits to be computed or written.
    pub(super) waiting: Cost,
    /// The maximum number of voxels of the moving volume that a block reads from each channel.
    pub(super) part: usize,
    /// The shape of the largest part of the moving volume that a block reads.
    shape: [usize; 3],
    /// The decoded size of the chunks of one channel that a layer of blocks (blocks of equal z)
    /// reads, bytes; the maximum over all layers. A cache of this size holds all chunks that the
    /// next layer reads again.
    pub(super) useful_cache_bytes: u64,
}

/// The amount of data of a block.
pub(super) struct Demand {
    /// The number of output voxels.
    pub(super) core: usize,
    /// The number of displacement vectors in memory.
    pub(super) vectors: usize,
    /// The shape of the part of the moving volume that is read.
    pub(super) part: [usize; 3],
}

/// The memory of a block at its peak, and while it waits to be computed or written.
type Costs<'a> = &'a dyn Fn(&Demand) -> [Cost; 2];

/// Chooses the blocks; `costs` gives the memory of a block.
pub(super) fn choose(job: &ResampleJob, costs: Costs, ctx: &Context) -> Result<BlockLayout, Error> {
    let (bounds, unit) = (job.spec.grid.bounds(), WriteUnit::of(job.spec));
    let mut block = if ctx.block_size.is_some() {
        Plan::choose_block(bounds, unit, |_| 0_u64, ctx)?
    } else {
        grown(unit.shape, bounds.shape(), BLOCK_VOXELS)
    };
    let mut layout = most_expensive(job, block, costs)?;
    // halve the blocks until the memory holds eight of them; caches and other shared buffers need
    // room too
    let mut voxels = BLOCK_VOXELS;
    while ctx.block_size.is_none() && layout.task.total() > ctx.memory / 8 && block != unit.shape {
        voxels /= 2;
        block = grown(unit.shape, bounds.shape(), voxels);
        layout = most_expensive(job, block, costs)?;
    }
    // the cost of other block shapes is scaled in proportion to their number of voxels
    let known = layout.task.clone();
    let voxels = |block: [usize; 3]| block.iter().product::<usize>() as f64;
    let cost = |other: [usize; 3]| {
        if other == block {
            return known.clone();
        }
        let share = (voxels(other) / voxels(block) * 1000.0).ceil() as u64;
        let terms = known.terms().map(|(name, bytes)| (name.to_owned(), bytes));
        terms.map(|(name, bytes)| Cost::bytes(name, (bytes / 1000 + 1) * share)).sum()
    };
    blocks::refuse_large(block, bounds, unit, cost, ctx)?;
    let count = |shape: [usize; 3]| shape.iter().product::<usize>() as u64;
    let support = 2 * cpu::support(job.options.interpolation) as usize;
    let without = layout.shape.map(|n| n.saturating_sub(support).max(1));
    blocks::warn_of_halo(block, count(without), count(layout.shape));
    Ok(layout)
}

/// Grows a block from `unit` in steps. Each step doubles the shortest of the sides that are shorter
/// than those of `shape` (of equal sides, x before y before z). The growth ends if no such side
/// remains, or if the next block, clipped to `shape`, would have more than `most` voxels.
fn grown(unit: [usize; 3], shape: [usize; 3], most: usize) -> [usize; 3] {
    let mut block = unit;
    loop {
        let open = (0..3).rev().filter(|&a| block[a] < shape[a]).min_by_key(|&a| block[a]);
        let Some(axis) = open else { return block };
        let mut next = block;
        next[axis] *= 2;
        let voxels: usize = (0..3).map(|a| next[a].min(shape[a])).product();
        if voxels > most {
            return block;
        }
        block = next;
    }
}

/// Determines the layout for blocks of the shape `block` from the most expensive of these blocks.
fn most_expensive(
    job: &ResampleJob,
    block: [usize; 3],
    costs: Costs,
) -> Result<BlockLayout, Error> {
    let bounds = job.spec.grid.bounds();
    let count = bounds.tiles(block).count();
    let is_field = |step: &Transform| matches!(step, Transform::Field(_));
    let fields = job.options.backwards || job.chain.steps.iter().any(is_field);
    let every = if fields { count.div_ceil(MAX_PROBES).max(1) } else { 1 };
    let mut greatest = Demand { core: 0, vectors: 0, part: [0; 3] };
    let mut most = [Cost::default(), Cost::default()];
    // the box of the moving volume that each layer of blocks (blocks of equal z) reads
    let mut layers: BTreeMap<i64, Box3> = BTreeMap::new();
    for core in bounds.tiles(block).step_by(every) {
        let (vectors, part) = demand(job, &core)?;
        let demand = Demand { core: core.len(), vectors, part: part.shape() };
        let [peak, waiting] = costs(&demand);
        if peak.total() > most[0].total() {
            most = [peak, waiting];
        }
        if part.len() > greatest.part.iter().product::<usize>() {
            greatest = demand;
        }
        let layer = layers.entry(core.min[0]).or_insert(part);
        *layer = layer.union(&part);
    }
    // a block that was not examined can read more
    let margin = |n: u64| if every > 1 { n + n / 10 } else { n };
    let [task, waiting] = most.map(|cost| {
        let terms = cost.terms().map(|(name, bytes)| (name.to_owned(), bytes));
        terms.map(|(name, bytes)| Cost::bytes(name, margin(bytes))).sum()
    });
    let part = margin(greatest.part.iter().product::<usize>() as u64) as usize;
    let worth = layers.values().map(|part| job.channels[0].decoded_bytes(part)).max();
    let shape = greatest.part;
    Ok(BlockLayout { block, task, waiting, part, shape, useful_cache_bytes: worth.unwrap_or(0) })
}

/// The number of vectors that a block holds, and the part of the moving volume that it reads.
fn demand(job: &ResampleJob, core: &Box3) -> Result<(usize, Box3), Error> {
    if !job.options.backwards {
        let (chain, part, _) = job.footprint(core)?;
        let vectors = chain.vectors();
        job.give_back(chain);
        return Ok((vectors, part));
    }
    // the extent of the solved nodes, one node per 8 x 8 x 8 voxels, is a sufficient estimate
    let Some(extent) = SolvedNodes::new(job.chain, &job.spec.grid, core)?.extent() else {
        return Ok((core.len(), Box3::of_shape([0; 3])));
    };
    let (chain, _) = job.chain.localise(extent).map_err(Error::Field)?;
    Ok((core.len() + chain.vectors(), job.part(extent)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_from_the_chunk_until_they_are_large_enough_or_the_volume_ends() {
        assert_eq!(grown([128; 3], [149, 241, 456], 8 << 20), [128, 256, 256]);
        assert_eq!(grown([64; 3], [50, 60, 70], 8 << 20), [64, 64, 128]);
        assert_eq!(grown([1, 4096, 4096], [10, 8192, 8192], 8 << 20), [1, 4096, 4096]);
    }
}
