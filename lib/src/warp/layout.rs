//! How the output is cut into blocks, and what a block costs.

use super::inverse::Scaffold;
use super::{Error, Job};
use crate::blocks::{self, Context, Plan};
use crate::geom::{Box3, LocalChain, LocalStep, Transform};

/// Output voxels of a block where nothing else is said. Neither threads nor the machine's memory
/// have a say, so that all parts of a scattered run and its resumption cut alike. Measured (2 threads, 384^3
/// `uint16`, compressed and raw): as fast as blocks four times as large, at 60 % of the memory or less.
const BLOCK_VOXELS: usize = 2 << 20;

/// Blocks that are looked at to learn what a block reads, where looking means reading a field.
const PROBES: usize = 24;

/// The blocks of a run.
pub(super) struct Layout {
    /// The shape of a block.
    pub(super) block: [usize; 3],
    /// What the most expensive one holds in memory.
    pub(super) bytes: u64,
    /// The most voxels of the moving volume that one reads.
    pub(super) part: usize,
}

/// Chooses blocks; `bytes` says what a block costs from its output voxels and the shape of what it reads.
pub(super) fn choose(
    job: &Job,
    bytes: &dyn Fn(usize, [usize; 3]) -> u64,
    ctx: &Context,
) -> Result<Layout, Error> {
    let (bounds, unit) = (job.spec.grid.bounds(), job.spec.shard.unwrap_or(job.spec.chunk));
    let mut block = if ctx.block_size.is_some() {
        Plan::choose_block(bounds, unit, |_| 0, ctx)?
    } else {
        grown(unit, bounds.shape(), BLOCK_VOXELS)
    };
    let (mut cost, mut part) = dearest(job, block, bytes)?;
    // room for a few, and for what they share
    let mut voxels = BLOCK_VOXELS;
    while ctx.block_size.is_none() && cost > ctx.memory / 8 && block != unit {
        voxels /= 2;
        block = grown(unit, bounds.shape(), voxels);
        (cost, part) = dearest(job, block, bytes)?;
    }
    if cost > ctx.memory {
        return Err(blocks::Error::Usage(format!(
            "a block of {block:?} voxels needs {} MB, and --memory allows {} MB; \
             give more --memory, or a smaller --block-size or --chunk",
            cost >> 20,
            ctx.memory >> 20
        ))
        .into());
    }
    Ok(Layout { block, bytes: cost, part })
}

/// Doubles the shortest side (x before y before z) as long as the block has no more than `most` voxels.
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

/// The cost of the most expensive block, and what the greatest reads.
fn dearest(
    job: &Job,
    block: [usize; 3],
    bytes: &dyn Fn(usize, [usize; 3]) -> u64,
) -> Result<(u64, usize), Error> {
    let bounds = job.spec.grid.bounds();
    let count = bounds.tiles(block).count();
    let is_field = |step: &Transform| matches!(step, Transform::Field(_));
    let fields = job.options.backwards || job.chain.steps.iter().any(is_field);
    let every = if fields { count.div_ceil(PROBES).max(1) } else { 1 };
    let (mut most, mut greatest) = (0, 0);
    for core in bounds.tiles(block).step_by(every) {
        let (vectors, part) = demand(job, &core)?;
        greatest = greatest.max(part.len());
        most = most.max(bytes(core.len(), part.shape()) + (vectors * size_of::<[f32; 3]>()) as u64);
    }
    // what has not been looked at may read more
    Ok(if every > 1 { (most + most / 10, greatest + greatest / 10) } else { (most, greatest) })
}

/// Vectors that a block holds, and the part of the moving volume that it reads.
fn demand(job: &Job, core: &Box3) -> Result<(usize, Box3), Error> {
    let count = |chain: &LocalChain| chain.steps.iter().map(vectors_of).sum::<usize>();
    if !job.options.backwards {
        let (chain, part, _) = job.footprint(core)?;
        let vectors = count(&chain);
        job.give_back(chain);
        return Ok((vectors, part));
    }
    // one voxel in 8 x 8 x 8 says enough
    let Some(extent) = Scaffold::new(job.chain, &job.spec.grid, core)?.extent() else {
        return Ok((core.len(), Box3::of_shape([0; 3])));
    };
    let (chain, _) = job.chain.localise(extent).map_err(Error::Field)?;
    Ok((core.len() + count(&chain), job.part(extent)))
}

fn vectors_of(step: &LocalStep) -> usize {
    match step {
        LocalStep::Field(field) => field.part.len(),
        _ => 0,
    }
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
