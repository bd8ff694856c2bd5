//! The choice of block size, from the memory of a block and the work added by its halo.

use super::block::ResponseMaximum;
use super::scheme::{Octave, Pyramid, REFINE_REACH, Scales, Scheme};
use super::stage_boxes::{StageBoxes, area};
use super::{SpotVoxel, slabs};
use crate::filter::planes::Area;
use crate::filter::{Kernel, opening_reach};
use crate::geom::Box3;
use crate::volume::Dtype;

/// The number of blocks to aim for, so that many threads and parts have work.
const TARGET_BLOCKS: usize = 64;

/// The work, relative to the minimum, that is accepted to reach [`TARGET_BLOCKS`] blocks.
const MAX_EXTRA_WORK: f64 = 1.1;

/// The minimum side of an automatically chosen block, in voxels.
const MIN_BLOCK: usize = 32;

/// The cost of reading and converting a voxel. The unit of cost is one pair of symmetric kernel
/// taps.
const READ_COST: f64 = 20.0;

/// The cost of responses and the search for maxima per voxel and level, in the unit of
/// [`READ_COST`].
const SEARCH_COST: f64 = 20.0;

/// The minimum number of grid voxels per local maximum of the response in noise.
const VOXELS_PER_MAXIMUM: usize = 400;

/// A slab is halved to save memory only while it has more than this many planes.
const MIN_DEPTH: usize = 8;

/// The properties of a stored volume that determine the cost of reading it.
#[derive(Clone, Copy, Debug)]
pub(super) struct StoredVolume {
    pub(super) shape: [usize; 3],
    pub(super) chunk: [usize; 3],
    pub(super) dtype: Dtype,
}

/// The memory and the cost of a block of a given size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct BlockCost {
    /// The size of the block in voxels along z, y, x.
    pub(super) block: [usize; 3],
    /// The peak memory of a task, bytes.
    pub(super) bytes: u64,
    /// The number of planes read at once; 0 for [`Scales::Exact`].
    pub(super) depth: usize,
    /// The work per voxel, divided by the work per voxel of the whole volume as one block without a
    /// halo.
    pub(super) factor: f64,
}

impl Scheme {
    /// The costs of a block in pass `pass` (0 to [`Scheme::passes`], exclusive).
    pub(super) fn cost(&self, pass: usize, block: [usize; 3], stored: &StoredVolume) -> BlockCost {
        match &self.scales {
            Scales::Exact(sigmas) => self.cost_exact(sigmas, block, stored),
            Scales::Pyramid(pyramid) => self.cost_octave(pyramid, pass, block, stored),
        }
    }

    /// Chooses the block size of a pass. The candidates are the sizes of which two blocks fit into
    /// `memory` bytes and whose work is at most [`MAX_EXTRA_WORK`] times the minimum. The candidate
    /// that gives the most blocks, counted up to [`TARGET_BLOCKS`], is chosen; of several, the one
    /// with the least work.
    ///
    /// The choice depends neither on the number of threads nor on the number of parts, so that all
    /// parts use the same blocks. If no size fits, the block that needs the least memory is chosen.
    pub(super) fn choose(&self, pass: usize, stored: &StoredVolume, memory: u64) -> BlockCost {
        let [zs, ys, xs] = stored.shape.map(sizes);
        let mut all = Vec::new();
        for &z in &zs {
            for &y in &ys {
                all.extend(xs.iter().map(|&x| self.cost(pass, [z, y, x], stored)));
            }
        }
        let fits = |cost: &&BlockCost| cost.bytes.saturating_mul(2) <= memory;
        let by_work = |a: &&BlockCost, b: &&BlockCost| a.factor.total_cmp(&b.factor);
        let Some(best) = all.iter().filter(fits).min_by(by_work) else {
            let least = all.iter().min_by_key(|cost| cost.bytes);
            return least.copied().unwrap_or_else(|| self.cost(pass, [1; 3], stored));
        };
        let tasks = |cost: &BlockCost| -> usize {
            (0..3)
                .map(|a| stored.shape[a].div_ceil(cost.block[a]))
                .product::<usize>()
                .min(TARGET_BLOCKS)
        };
        let good =
            all.iter().filter(fits).filter(|cost| cost.factor <= MAX_EXTRA_WORK * best.factor);
        let chosen = good.max_by(|a, b| tasks(a).cmp(&tasks(b)).then(by_work(b, a)));
        *chosen.unwrap_or(best)
    }

    /// The halo of a block that is held in memory as a whole, in voxels along z, y, x.
    pub(super) fn halo(&self, sigmas: &[f64]) -> [usize; 3] {
        let radius = sigmas.iter().map(|&s| Kernel::sampled(s).radius()).max().unwrap_or(0);
        self.window.map_or([radius + 1; 3], |sides| sides.map(|n| radius + 1 + opening_reach(n)))
    }

    /// The box that is read for a block that is held in memory as a whole.
    pub(super) fn input(&self, sigmas: &[f64], core: &Box3, volume: &Box3) -> Box3 {
        core.grow(self.halo(sigmas).map(|n| n as i64)).intersect(volume)
    }

    fn cost_exact(&self, sigmas: &[f64], block: [usize; 3], stored: &StoredVolume) -> BlockCost {
        let halo = self.halo(sigmas);
        let input: usize = (0..3).map(|a| (block[a] + 2 * halo[a]).min(stored.shape[a])).product();
        let core: usize = block.iter().product();
        // the raw and the cleaned image, three responses, and the two slabs of the filter, which
        // take at most as much memory as an image
        let bytes = 4 * (3 * input + 3 * core) as u64;
        BlockCost { block, bytes, depth: 0, factor: input as f64 / core.max(1) as f64 }
    }

    fn cost_octave(
        &self,
        pyramid: &Pyramid,
        pass: usize,
        block: [usize; 3],
        stored: &StoredVolume,
    ) -> BlockCost {
        let octave = &pyramid.octaves[pass];
        let block: [usize; 3] = std::array::from_fn(|a| block[a].next_multiple_of(octave.step[a]));
        let core = middle(block, stored.shape);
        let frame = StageBoxes::new(octave, self.coarse, &core, stored.shape);
        let all = Box3::of_shape(stored.shape);
        let whole = StageBoxes::new(octave, self.coarse, &all, stored.shape);
        let depth = self.depth(&frame, stored);
        let reread = stored.chunk[0] as f64 / depth.min(stored.chunk[0]).max(1) as f64;
        let halo_free = work(octave, &whole, stored, 1.0) / all.len().max(1) as f64;
        let factor = work(octave, &frame, stored, reread) / core.len().max(1) as f64 / halo_free;
        let held = depth * frame.input.len() / frame.input.shape()[0].max(1);
        let bytes = (held * slabs::size(stored.dtype)) as u64
            + self.planes(pyramid, octave, &frame)
            + spots(&frame);
        BlockCost { block, bytes, depth, factor }
    }

    /// The number of planes read at once: those of a chunk, so that no chunk is read twice, unless
    /// that many planes would need too much memory.
    fn depth(&self, frame: &StageBoxes, stored: &StoredVolume) -> usize {
        let mut depth = stored.chunk[0].max(1);
        while depth > MIN_DEPTH && depth * slabs::size(stored.dtype) > 512 {
            depth = depth.div_ceil(2);
        }
        depth.min(frame.input.shape()[0])
    }

    /// The memory of the planes that a sweep holds, bytes.
    fn planes(&self, pyramid: &Pyramid, octave: &Octave, frame: &StageBoxes) -> u64 {
        let [base, level, response, input] =
            [&frame.base, &frame.level, &frame.response, &frame.input]
                .map(|part| pixels(area(part)));
        let [smoothing, ..] = octave.level_reach();
        let responses = octave.responses(pyramid).len();
        let held = |planes: usize, part: &Box3| planes.min(part.shape()[0]) + 1;
        let mut floats = input;
        let mut image = 2 * octave.base[0].radius() + 1;
        if let Some(coarse) = self.coarse {
            let [_, y, x] = coarse.step;
            let cells = pixels(area(&frame.input)) / (y * x);
            image += (2 * coarse.half[0] + 2) * coarse.step[0];
            floats += input / y + (4 * coarse.half[0] + 12) * cells + base / y;
        }
        // the planes of the volume along z, which lie on the octave's grid along y and x
        floats += held(image, &frame.image) * base;
        floats += held(2 * smoothing + 2, &frame.base) * base;
        // a buffer for each level after the base, smoothed along z
        floats += octave.smoothing.len() * base;
        floats +=
            octave.smoothing.len() * held(2 * octave.difference_reach + 2, &frame.level) * level;
        floats += responses * held(2 * REFINE_REACH + 2, &frame.response) * response;
        4 * floats as u64
    }
}

/// A typical block near the centre of a volume, clipped to the volume.
fn middle(block: [usize; 3], shape: [usize; 3]) -> Box3 {
    let size: [usize; 3] = std::array::from_fn(|a| block[a].min(shape[a]));
    let min = std::array::from_fn(|a| {
        let first = (shape[a] - size[a]) / 2;
        (first / block[a].max(1) * block[a]).min(shape[a] - size[a]) as i64
    });
    Box3::new(min, std::array::from_fn(|a| min[a] + size[a] as i64))
}

fn pixels(area: Area) -> usize {
    area.height() * (area.width() + 64)
}

/// The estimated memory of the maxima, spots and rows of a block, bytes.
fn spots(frame: &StageBoxes) -> u64 {
    let each = size_of::<ResponseMaximum>() + 2 * size_of::<SpotVoxel>();
    (frame.core.len() / VOXELS_PER_MAXIMUM * each) as u64
}

/// The work of a task with the boxes `frame`, in the unit of [`READ_COST`].
///
/// * `reread`: the number of times that each chunk is read
fn work(octave: &Octave, frame: &StageBoxes, stored: &StoredVolume, reread: f64) -> f64 {
    // chunks are decoded whole
    let mut read = reread;
    for a in 0..3 {
        let chunk = stored.chunk[a].max(1) as i64;
        let end = (frame.input.max[a] + chunk - 1).div_euclid(chunk) * chunk;
        let first = frame.input.min[a].div_euclid(chunk) * chunk;
        read *= (end.min(stored.shape[a] as i64) - first) as f64;
    }
    let radius = octave.base.each_ref().map(|kernel| kernel.radius() as f64);
    let [image, base, level, response] =
        [&frame.image, &frame.base, &frame.level, &frame.response].map(|part| part.len() as f64);
    let thinned = octave.step[1] as f64;
    let mut sum = READ_COST * read + image * (radius[1] + radius[2]) / thinned + base * radius[0];
    for kernels in &octave.smoothing {
        let [z, y, x] = kernels.each_ref().map(|kernel| kernel.radius() as f64);
        sum += base * z + level * (y + x);
    }
    sum + SEARCH_COST * response * octave.levels.len() as f64
}

/// Sizes that divide an axis into equal blocks, largest first. The number of blocks grows by one,
/// or by a quarter if that is more, until a block would be smaller than [`MIN_BLOCK`].
fn sizes(extent: usize) -> Vec<usize> {
    let mut sizes = vec![extent.max(1)];
    let mut pieces = 1;
    loop {
        pieces = (pieces + 1).max(pieces * 5 / 4);
        let size = extent.div_ceil(pieces);
        if size < MIN_BLOCK {
            return sizes;
        }
        sizes.push(size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Options;

    fn stored(shape: [usize; 3]) -> StoredVolume {
        StoredVolume { shape, chunk: [64; 3], dtype: Dtype::U16 }
    }

    #[test]
    fn a_volume_of_any_size_fits_half_a_gigabyte_at_little_more_work_than_one_block() {
        for shape in [[512; 3], [1000, 3000, 2000], [10_000; 3], [100_000, 20_000, 40_000]] {
            let scheme = Scheme::new(&Options::new([1.0; 3]), [1.0; 3]);
            for pass in 0..scheme.passes() {
                let cost = scheme.choose(pass, &stored(shape), 490 << 20);
                assert!(2 * cost.bytes <= 490 << 20, "{shape:?} {cost:?}");
                assert!(cost.factor <= 1.5, "{shape:?}, pass {pass}: {cost:?}");
            }
        }
    }

    #[test]
    fn a_block_is_no_smaller_than_its_halo_pays_for() {
        let scheme = Scheme::new(&Options::new([1.0; 3]), [1.0; 3]);
        let [tight, roomy] =
            [128 << 20, 8 << 30].map(|memory| scheme.choose(0, &stored([4000; 3]), memory));
        assert!(tight.bytes < roomy.bytes && tight.factor > roomy.factor, "{tight:?} {roomy:?}");
        let one = scheme.cost(0, [4000; 3], &stored([4000; 3]));
        assert!((one.factor - 1.0).abs() < 1e-9, "{one:?}");
    }

    #[test]
    fn sizes_divide_an_axis_evenly() {
        assert_eq!(sizes(10), [10]);
        let sizes = sizes(1000);
        assert_eq!(sizes[..3], [1000, 500, 334]);
        assert!(sizes.iter().all(|&n| n >= MIN_BLOCK));
    }
}
