//! A sample of bounded size from a volume: whole tiles that are spread evenly.

use super::distribution::Distribution;
use crate::device::Cost;
use crate::geom::Box3;
use crate::volume::{Dtype, Error, Volume, Voxel};
use crate::with_voxel;

/// Maximum number of voxels that a sample reads: about a second of work.
const MAX_VOXELS: usize = 64 << 20;
/// Maximum number of values kept of a voxel type that has no histogram.
const MAX_VALUES: usize = 4 << 20;
/// Approximate number of voxels of a tile.
const TILE_VOXELS: usize = 1 << 20;

/// A sample and its statistics.
pub(super) struct Sample {
    /// The distribution of the values.
    pub distribution: Distribution,
    /// Number of voxels read.
    pub voxels: u64,
    /// Number of tiles read, and of tiles in the volume.
    pub tiles: (usize, usize),
    /// The tiles read, each with the standard deviation of its finite values.
    pub contrast: Vec<(Box3, f64)>,
}

/// The memory that [`sample`] needs.
pub(super) fn memory(volume: &Volume) -> Cost {
    let tile: usize = tile_shape(volume.chunk(), volume.grid().shape).iter().product();
    let counted = matches!(volume.dtype(), Dtype::U8 | Dtype::I8 | Dtype::U16 | Dtype::I16);
    let numbers = if counted {
        Cost::of::<(u64, f64, u64)>("counts", 1 << 16)
    } else {
        let all: usize = volume.grid().shape.iter().product();
        let kept = all.min(MAX_VALUES + tile);
        // vectors grow by doubling, and are copied for sorting
        Cost::of::<[f64; 2]>("values", kept) + Cost::of::<[f64; 4]>("values, sorted", kept)
    };
    Cost::bytes("tile", (tile * volume.dtype().size()) as u64)
        + numbers
        + Cost::bytes("chunk being read", volume.scratch_bytes() + volume.kept_bytes())
}

/// Reads a sample; a small volume is read completely.
pub(super) fn sample(volume: &Volume) -> Result<Sample, Error> {
    let bounds = volume.grid().bounds();
    let tile = tile_shape(volume.chunk(), volume.grid().shape);
    let all: Vec<Box3> = bounds.tiles(tile).collect();
    let most = (MAX_VOXELS / tile.iter().product::<usize>().max(1)).max(1);
    let chosen = choose(all.len(), most);
    let tiles = chosen.iter().map(|&i| all[i]);
    let mut this = with_voxel!(volume.dtype(), T => gather::<T>(volume, tiles))?;
    this.tiles = (chosen.len(), all.len());
    Ok(this)
}

/// A multiple of the chunk with about [`TILE_VOXELS`] voxels; much larger chunks are divided.
fn tile_shape(chunk: [usize; 3], shape: [usize; 3]) -> [usize; 3] {
    let mut tile: [usize; 3] = std::array::from_fn(|a| chunk[a].clamp(1, shape[a].max(1)));
    while tile.iter().product::<usize>() > 8 * TILE_VOXELS {
        // divide along z first: formats with large chunks store whole planes or rows
        let a = usize::from(tile[0] <= 1);
        tile[a] = tile[a].div_ceil(2);
    }
    while tile.iter().product::<usize>() < TILE_VOXELS {
        let growing = (0..3).filter(|&a| tile[a] < shape[a]).min_by_key(|&a| tile[a]);
        let Some(a) = growing else { break };
        tile[a] = (2 * tile[a]).min(shape[a].next_multiple_of(chunk[a].max(1)));
    }
    tile
}

/// Chooses at most `most` of the indices below `count`, in ascending order, the same on each run.
/// The choice is pseudorandom, because evenly spaced indices could all lie in one column of tiles.
fn choose(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    let mut keyed: Vec<_> = (0..count).map(|i| (scatter(i as u64), i)).collect();
    keyed.select_nth_unstable(most);
    let mut chosen: Vec<_> = keyed[..most].iter().map(|k| k.1).collect();
    chosen.sort_unstable();
    chosen
}

/// `SplitMix64` (Steele, Lea and Flood 2014): different `i` give different pseudorandom numbers.
fn scatter(i: u64) -> u64 {
    let mut z = (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn gather<T: Voxel>(volume: &Volume, tiles: impl Iterator<Item = Box3>) -> Result<Sample, Error> {
    let first = match T::DTYPE {
        Dtype::U8 | Dtype::U16 => Some(0),
        Dtype::I8 | Dtype::I16 => Some(i64::from(i16::MIN)),
        _ => None,
    };
    let mut counts = vec![0u64; if first.is_some() { 1 << 16 } else { 0 }];
    let (mut kept, mut lost) = (Vec::new(), Vec::new());
    let mut stride = 1;
    let mut this = Sample {
        distribution: Distribution::default(),
        voxels: 0,
        tiles: (0, 0),
        contrast: Vec::new(),
    };
    for tile in tiles {
        let voxels = volume.read::<T>(&tile)?;
        this.voxels += voxels.len() as u64;
        this.contrast.push((tile, deviation(&voxels)));
        if let Some(first) = first {
            for v in &voxels {
                counts[(v.to_f64() as i64 - first) as usize] += 1;
            }
            continue;
        }
        // count all values that are not finite, but subsample the finite ones
        lost.extend(voxels.iter().map(|v| v.to_f64()).filter(|v| !v.is_finite()));
        let finite = voxels.iter().map(|v| v.to_f64()).filter(|v| v.is_finite());
        kept.extend(finite.step_by(stride));
        while kept.len() > MAX_VALUES {
            let mut i = 0;
            kept.retain(|_| {
                i += 1;
                i % 2 == 1
            });
            stride *= 2;
        }
    }
    this.distribution = match first {
        Some(first) => Distribution::of_counts(first, &counts),
        None => Distribution::of_values(kept.into_iter().chain(lost)),
    };
    Ok(this)
}

fn deviation<T: Voxel>(voxels: &[T]) -> f64 {
    let finite = || voxels.iter().map(|v| v.to_f64()).filter(|v| v.is_finite());
    let count = finite().count().max(1) as f64;
    let mean = finite().sum::<f64>() / count;
    (finite().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_hold_whole_chunks_and_stay_bounded() {
        assert_eq!(tile_shape([64, 64, 64], [1000, 1000, 1000]), [128, 128, 64]);
        assert_eq!(tile_shape([1, 512, 512], [300, 512, 512]), [4, 512, 512]);
        assert_eq!(tile_shape([64, 64, 64], [10, 20, 30]), [10, 20, 30]);
        let cut = tile_shape([2000, 2000, 2000], [2000, 2000, 2000]);
        assert!(cut.iter().product::<usize>() <= 8 * TILE_VOXELS, "{cut:?}");
        assert_eq!(cut[2], 2000);
    }

    #[test]
    fn a_choice_is_in_order_without_doubles_and_meets_all_parts() {
        let chosen = choose(10_000, 200);
        assert_eq!(chosen.len(), 200);
        assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
        for tenth in 0..10 {
            let inside = chosen.iter().filter(|&&i| i / 1000 == tenth).count();
            assert!((8..=35).contains(&inside), "{inside} in tenth {tenth}");
        }
        assert_eq!(choose(5, 200), [0, 1, 2, 3, 4]);
    }
}
