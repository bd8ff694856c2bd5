//! A slow, straightforward reference implementation of downsampling.

use proptest::prelude::*;

use super::cpu::{self, Mean};
use super::{Method, Voxel};

/// Combines the voxels of one output voxel, given in C order.
fn one<T: Voxel>(method: Method, values: &[T], mean: fn(&[T]) -> T) -> T {
    let numbers: Vec<T> = values.iter().copied().filter(|v| !v.to_f64().is_nan()).collect();
    let pick = |better: fn(T, T) -> bool| {
        let pick = |a: T, b: T| if better(b, a) { b } else { a };
        numbers.iter().copied().reduce(pick).unwrap_or(values[0])
    };
    match method {
        Method::Mean if numbers.is_empty() => values[0],
        Method::Mean => mean(&numbers),
        Method::Min => pick(|b, a| b < a),
        Method::Max => pick(|b, a| b > a),
        Method::Stride => values[0],
        Method::Mode => {
            let count = |v: &T| numbers.iter().filter(|other| *other == v).count();
            let most = numbers.iter().map(count).max().unwrap_or_default();
            let often = numbers.iter().copied().filter(|v| count(v) == most);
            often.reduce(|a, b| if b < a { b } else { a }).unwrap_or(values[0])
        }
    }
}

fn reduce<T: Voxel>(
    method: Method,
    voxels: &[T],
    shape: [usize; 3],
    factor: [usize; 3],
    mean: fn(&[T]) -> T,
) -> Vec<T> {
    let small: [usize; 3] = std::array::from_fn(|a| shape[a].div_ceil(factor[a]));
    let mut out = Vec::new();
    for i in 0..small.iter().product::<usize>() {
        let at = [i / (small[1] * small[2]), i / small[2] % small[1], i % small[2]];
        let range = |a: usize| at[a] * factor[a]..((at[a] + 1) * factor[a]).min(shape[a]);
        let mut values = Vec::new();
        for z in range(0) {
            for y in range(1) {
                for x in range(2) {
                    values.push(voxels[(z * shape[1] + y) * shape[2] + x]);
                }
            }
        }
        out.push(one(method, &values, mean));
    }
    out
}

const METHODS: [Method; 5] = [Method::Mean, Method::Mode, Method::Min, Method::Max, Method::Stride];

fn check<T: Mean>(
    shape: [usize; 3],
    factor: [usize; 3],
    mean: fn(&[T]) -> T,
    voxel: impl Fn(u64) -> T,
    seed: u64,
) -> Result<(), TestCaseError> {
    let mut state = seed;
    let voxels: Vec<T> = (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            voxel(state >> 16)
        })
        .collect();
    let small: [usize; 3] = std::array::from_fn(|a| shape[a].div_ceil(factor[a]));
    for method in METHODS {
        let mut got = vec![T::default(); small.iter().product()];
        cpu::reduce(method, &voxels, shape, factor, &mut got);
        let want = reduce(method, &voxels, shape, factor, mean);
        for (got, want) in got.iter().zip(&want) {
            let same = got == want || (got.to_f64().is_nan() && want.to_f64().is_nan());
            prop_assert!(same, "{method:?} {factor:?} of {shape:?}: {got:?}, not {want:?}");
        }
    }
    Ok(())
}

/// The mean of integers in integer arithmetic.
macro_rules! exact {
    ($t:ty) => {
        |values: &[$t]| {
            let sum: i128 = values.iter().map(|v| i128::from(*v)).sum();
            let count = values.len() as i128;
            (2 * sum + count).div_euclid(2 * count) as $t
        }
    };
}

proptest! {
    #[test]
    fn every_method_gives_what_each_block_of_voxels_gives_by_itself(
        shape in prop::array::uniform3(1..24usize),
        factor in prop::array::uniform3(1..5usize),
        kind in 0..9u8,
        seed: u64,
    ) {
        match kind {
            0 => check::<u8>(shape, factor, exact!(u8), |r| r as u8, seed)?,
            1 => check::<u16>(shape, factor, exact!(u16), |r| r as u16, seed)?,
            2 => check::<i16>(shape, factor, exact!(i16), |r| r as i16, seed)?,
            3 => check::<u32>(shape, factor, exact!(u32), |r| r as u32, seed)?,
            4 => check::<u64>(shape, factor, exact!(u64), |r| r << 17, seed)?,
            5 => check::<u16>(shape, factor, exact!(u16), |r| (r % 3) as u16, seed)?,
            6 => check::<u64>(shape, factor, exact!(u64), |r| (1 << 60) + r % 2, seed)?,
            7 => check::<f64>(shape, factor,
                |v| v.iter().sum::<f64>() / v.len() as f64, |r| (r % 97) as f64, seed)?,
            _ => check::<f32>(shape, factor,
                |v| (v.iter().map(|v| f64::from(*v)).sum::<f64>() / v.len() as f64) as f32,
                |r| if r % 5 == 0 { f32::NAN } else { (r % 7) as f32 }, seed)?,
        }
    }

    #[test]
    fn pairs_along_every_axis_are_reduced_by_the_fast_way_too(
        shape in prop::array::uniform3(1..40usize), seed: u64,
    ) {
        for factor in [[2, 2, 2], [1, 2, 2], [1, 1, 2]] {
            check::<u16>(shape, factor, exact!(u16), |r| r as u16, seed)?;
            check::<u8>(shape, factor, exact!(u8), |r| r as u8, seed)?;
        }
    }
}

#[test]
fn halves_are_rounded_up_also_below_zero_and_at_the_top_of_the_range() {
    for (voxels, wanted) in [([-3i16, -2], -2), ([2, 3], 3), ([i16::MAX, i16::MAX], i16::MAX)] {
        let mut out = [0];
        cpu::reduce(Method::Mean, &voxels, [1, 1, 2], [1, 1, 2], &mut out);
        assert_eq!(out, [wanted]);
    }
    let mut out = [0];
    cpu::reduce(Method::Mean, &[u64::MAX; 8], [2; 3], [2; 3], &mut out);
    assert_eq!(out, [u64::MAX]);
}

#[test]
fn a_block_of_the_largest_size_does_not_overflow_its_sum() {
    let voxels = vec![u16::MAX; cpu::MAX_BLOCK_VOXELS];
    let mut out = [0];
    cpu::reduce(
        Method::Mean,
        &voxels,
        [1, 1, cpu::MAX_BLOCK_VOXELS],
        [1, 1, cpu::MAX_BLOCK_VOXELS],
        &mut out,
    );
    assert_eq!(out, [u16::MAX]);
}
