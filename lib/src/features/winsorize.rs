//! The intensities at which the darkest and brightest voxels are clamped.

use crate::volume::{self, Volume};

/// The number of values of a 16-bit digit; an `f32` has two digits.
const DIGIT_VALUES: usize = 1 << 16;

/// Maps an `f32` to bits that sort in the order of the values; non-finite values are taken as 0.
fn ordered(value: f32) -> u32 {
    let bits = if value.is_finite() { value.to_bits() } else { 0 };
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn unordered(bits: u32) -> f32 {
    f32::from_bits(if bits >> 31 == 1 { bits & !(1 << 31) } else { !bits })
}

/// The digit of the entry with rank `rank` (from 0) in a histogram, and its rank among entries with
/// that digit.
fn locate(histogram: &[u64], mut rank: u64) -> (u32, u64) {
    for (digit, &count) in histogram.iter().enumerate() {
        if rank < count {
            return (digit as u32, rank);
        }
        rank -= count;
    }
    ((DIGIT_VALUES - 1) as u32, 0)
}

/// The ranks (from 0) of the lowest and the highest value that are kept, as in SciPy's `winsorize`.
fn ranks(count: u64, [low, high]: [f64; 2]) -> [u64; 2] {
    let last = count.saturating_sub(1);
    let low = ((low * count as f64) as u64).min(last);
    [low, last.saturating_sub((high * count as f64) as u64).max(low)]
}

/// Selects two order statistics, first by their upper and then by their lower two bytes.
///
/// * `each`: passes all voxels to its argument, piece by piece; it is called twice
fn select<E>(
    fractions: [f64; 2],
    mut each: impl FnMut(&mut dyn FnMut(&[f32])) -> Result<(), E>,
) -> Result<[f32; 2], E> {
    let mut upper = vec![0_u64; DIGIT_VALUES];
    each(&mut |voxels| {
        voxels.iter().for_each(|&v| upper[(ordered(v) >> 16) as usize] += 1);
    })?;
    let count = upper.iter().sum();
    let found = ranks(count, fractions).map(|rank| locate(&upper, rank));
    let mut lower = [(); 2].map(|()| vec![0_u64; DIGIT_VALUES]);
    each(&mut |voxels| {
        for bits in voxels.iter().map(|&v| ordered(v)) {
            for ((digit, _), lower) in found.iter().zip(&mut lower) {
                if bits >> 16 == *digit {
                    lower[(bits & 0xffff) as usize] += 1;
                }
            }
        }
    })?;
    Ok(std::array::from_fn(|i| {
        let (digit, rank) = found[i];
        unordered(digit << 16 | locate(&lower[i], rank).0)
    }))
}

/// The clamping range of an array in memory.
pub(super) fn limits_of(voxels: &[f32], fractions: [f64; 2]) -> [f32; 2] {
    let Ok(limits) = select::<std::convert::Infallible>(fractions, |count| {
        count(voxels);
        Ok(())
    });
    limits
}

/// The approximate number of voxels read at once.
const VOXELS_PER_READ: usize = 1 << 20;

/// The clamping range of a volume. The volume is read twice, a few chunks at a time.
pub(super) fn limits(volume: &Volume, fractions: [f64; 2]) -> Result<[f32; 2], volume::Error> {
    let bounds = volume.grid().bounds();
    let mut piece = volume.chunk().map(|n| n.max(1));
    while 2 * piece.iter().product::<usize>() <= VOXELS_PER_READ {
        let short = (0..3).min_by_key(|&a| piece[a]).unwrap_or(0);
        piece[short] *= 2;
    }
    select(fractions, |count| {
        bounds.tiles(piece).try_for_each(|piece| {
            count(&volume.read::<f32>(&piece)?);
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn limits_are_the_order_statistics_of_the_sorted_voxels(
            mut voxels in prop::collection::vec(-1e6_f32..1e6, 1..200),
            low in 0.0..0.5,
            high in 0.0..0.49,
        ) {
            let found = limits_of(&voxels, [low, high]);
            voxels.sort_by(f32::total_cmp);
            let [first, last] = ranks(voxels.len() as u64, [low, high]);
            prop_assert_eq!(found, [voxels[first as usize], voxels[last as usize]]);
        }
    }

    #[test]
    fn clamping_one_per_cent_at_each_end_of_a_thousand_leaves_ten_out() {
        let voxels: Vec<f32> = (0..1000).map(|v| v as f32).collect();
        assert_eq!(limits_of(&voxels, [0.01, 0.01]), [10.0, 989.0]);
    }
}
