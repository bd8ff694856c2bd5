//! The reduction kernel: combines blocks of voxels into one voxel each.

use std::ops::AddAssign;

use super::{Method, Voxel};
use crate::filter::lines::for_avx2;

/// A voxel type whose mean can be computed without intermediate rounding.
pub(super) trait Mean: Voxel {
    /// Holds the sum of up to [`MAX_BLOCK_VOXELS`] voxels without overflow.
    type Accumulator: Copy + Default + AddAssign + Send;
    /// Converts to the type of the sum.
    fn to_accumulator(self) -> Self::Accumulator;
    /// `sum / count`; integers are rounded half up.
    fn mean(sum: Self::Accumulator, count: u32) -> Self;
}

macro_rules! mean_of_integers {
    ($($t:ty, $sum:ty);*) => {$(
        impl Mean for $t {
            type Accumulator = $sum;
            #[inline(always)]
            fn to_accumulator(self) -> $sum {
                <$sum>::from(self)
            }
            #[inline(always)]
            fn mean(sum: $sum, count: u32) -> Self {
                // floor(count / 2) rounds half up: for an odd count there are no ties
                let sum = sum + <$sum>::from(count as u16 / 2);
                (if count.is_power_of_two() {
                    sum >> count.trailing_zeros()
                } else {
                    sum.div_euclid(<$sum>::from(count as u16))
                }) as $t
            }
        }
    )*};
}
// a block has at most 2^15 voxels, so a sum of 16-bit values fits into 32 bits
mean_of_integers!(
    u8, u32; i8, i32; u16, u32; i16, i32; u32, u64; i32, i64; u64, u128; i64, i128
);

macro_rules! mean_of_floats {
    ($($t:ty),*) => {$(
        impl Mean for $t {
            type Accumulator = f64;
            #[inline(always)]
            fn to_accumulator(self) -> f64 {
                f64::from(self)
            }
            #[inline(always)]
            fn mean(sum: f64, count: u32) -> Self {
                (sum / f64::from(count)) as $t
            }
        }
    )*};
}
mean_of_floats!(f32, f64);

/// The largest number of voxels that are combined into one.
pub(super) const MAX_BLOCK_VOXELS: usize = 1 << 15;

for_avx2! {
    /// Reduces a block of voxels by `factor` along each axis.
    ///
    /// * `voxels`: C order, of `shape`; the first output voxel begins at the first of them
    /// * `out`: C order, of `shape / factor`, rounded up
    ///
    /// Border: blocks are cut off at the end of an axis; only the voxels inside are combined.
    /// Numbers: means of integers are exact, rounded half up. All methods but `Stride` ignore NaN,
    /// unless all voxels of the block are NaN.
    /// Checked by: `oracle`; `benches/downsample.rs`.
    pub(super) fn reduce<T: Mean>(
        method: Method,
        voxels: &[T],
        shape: [usize; 3],
        factor: [usize; 3],
        out: &mut [T],
    ) => reduce_any
}

#[inline(always)]
fn reduce_any<T: Mean>(
    method: Method,
    voxels: &[T],
    shape: [usize; 3],
    factor: [usize; 3],
    out: &mut [T],
) {
    let [depth, height, width] = shape;
    let [_, rows, columns] = std::array::from_fn(|a| shape[a].div_ceil(factor[a]));
    let mut sums = vec![T::Accumulator::default(); width];
    let mut values: Vec<T> = Vec::new();
    let mut sources: Vec<&[T]> = Vec::new();
    for (i, out) in out.chunks_exact_mut(columns.max(1)).enumerate() {
        let (z, y) = (i / rows * factor[0], i % rows * factor[1]);
        sources.clear();
        for z in z..(z + factor[0]).min(depth) {
            for y in y..(y + factor[1]).min(height) {
                sources.push(&voxels[(z * height + y) * width..][..width]);
            }
        }
        match method {
            Method::Mean => {
                mean_row(&sources, factor[2], &mut sums, out);
                mean_without_nan(&sources, factor[2], out);
            }
            Method::Mode => mode_row(&sources, factor[2], &mut values, out),
            Method::Min => extreme_row(&sources, factor[2], &mut values, |a, b| a < b, out),
            Method::Max => extreme_row(&sources, factor[2], &mut values, |a, b| a > b, out),
            Method::Stride => {
                for (to, from) in out.iter_mut().zip(sources[0].iter().step_by(factor[2])) {
                    *to = *from;
                }
            }
        }
    }
}

#[inline(always)]
fn mean_row<T: Mean>(rows: &[&[T]], factor: usize, sums: &mut [T::Accumulator], out: &mut [T]) {
    let whole = sums.len() / factor;
    let (full, cut) = out.split_at_mut(whole);
    match (rows, factor) {
        (&[a, b, c, d], 2) => mean_of_pairs([a, b, c, d], full),
        (&[a, b], 2) => mean_of_pairs([a, b], full),
        (&[a], 2) => mean_of_pairs([a], full),
        _ => {
            sums.fill(T::Accumulator::default());
            for row in rows {
                for (sum, v) in sums.iter_mut().zip(*row) {
                    *sum += v.to_accumulator();
                }
            }
            let count = (rows.len() * factor) as u32;
            for (to, sums) in full.iter_mut().zip(sums.chunks_exact(factor)) {
                let mut sum = T::Accumulator::default();
                for v in sums {
                    sum += *v;
                }
                *to = T::mean(sum, count);
            }
        }
    }
    if let [to] = cut {
        let mut sum = T::Accumulator::default();
        for v in rows.iter().flat_map(|row| &row[whole * factor..]) {
            sum += v.to_accumulator();
        }
        *to = T::mean(sum, (rows.len() * (sums.len() - whole * factor)) as u32);
    }
}

/// Recomputes NaN means from the voxels that are not NaN. For integers this is optimised away.
#[inline(always)]
fn mean_without_nan<T: Mean>(rows: &[&[T]], factor: usize, out: &mut [T]) {
    let nan = |v: T| v.partial_cmp(&v).is_none();
    for (i, to) in out.iter_mut().enumerate().filter(|(_, to)| nan(**to)) {
        let (mut sum, mut count) = (T::Accumulator::default(), 0);
        for row in rows {
            let end = ((i + 1) * factor).min(row.len());
            for v in row[i * factor..end].iter().filter(|v| !nan(**v)) {
                sum += v.to_accumulator();
                count += 1;
            }
        }
        if count > 0 {
            *to = T::mean(sum, count);
        }
    }
}

/// The mean of two neighbours in each of a constant number of rows. This is the common case, and it
/// vectorises without an intermediate buffer of sums.
#[inline(always)]
fn mean_of_pairs<T: Mean, const ROWS: usize>(rows: [&[T]; ROWS], out: &mut [T]) {
    let pairs = rows.map(|row| &row.as_chunks::<2>().0[..out.len()]);
    for (i, to) in out.iter_mut().enumerate() {
        let mut sum = T::Accumulator::default();
        for row in pairs {
            sum += row[i][0].to_accumulator();
            sum += row[i][1].to_accumulator();
        }
        *to = T::mean(sum, 2 * ROWS as u32);
    }
}

#[inline(always)]
fn extreme_row<T: Voxel>(
    rows: &[&[T]],
    factor: usize,
    values: &mut Vec<T>,
    wins: impl Fn(T, T) -> bool,
    out: &mut [T],
) {
    // only NaN differs from itself
    let best = |best: T, v: T| {
        #[expect(clippy::eq_op, reason = "true of what is no number")]
        let none = best != best;
        if wins(v, best) || none { v } else { best }
    };
    values.clear();
    values.extend_from_slice(rows[0]);
    for row in &rows[1..] {
        for (to, v) in values.iter_mut().zip(*row) {
            *to = best(*to, *v);
        }
    }
    if factor == 2 {
        let (pairs, rest) = values.as_chunks::<2>();
        for (to, [a, b]) in out.iter_mut().zip(pairs) {
            *to = best(*a, *b);
        }
        if let ([v], Some(to)) = (rest, out.last_mut()) {
            *to = *v;
        }
        return;
    }
    for (to, values) in out.iter_mut().zip(values.chunks(factor)) {
        *to = values[1..].iter().fold(values[0], |a, b| best(a, *b));
    }
}

/// The most frequent value of each block, the smallest in case of a tie.
#[inline(always)]
fn mode_row<T: Voxel>(rows: &[&[T]], factor: usize, values: &mut Vec<T>, out: &mut [T]) {
    let width = rows[0].len();
    for (i, to) in out.iter_mut().enumerate() {
        let (from, end) = (i * factor, ((i + 1) * factor).min(width));
        let first = rows[0][from];
        // fast path: inside an object all voxels are equal
        if rows.iter().all(|row| row[from..end].iter().all(|v| *v == first)) {
            *to = first;
            continue;
        }
        values.clear();
        for row in rows {
            values.extend_from_slice(&row[from..end]);
        }
        *to = if values.len() <= MAX_PAIRWISE {
            most_frequent_of_few(values)
        } else {
            most_frequent(values)
        };
    }
}

/// Up to this many values are compared pairwise; more are sorted.
const MAX_PAIRWISE: usize = 32;

fn most_frequent_of_few<T: Voxel>(values: &[T]) -> T {
    let mut best = (0, values[0]);
    for v in values {
        let count = values.iter().filter(|other| *other == v).count();
        if count > best.0 || (count == best.0 && *v < best.1) {
            best = (count, *v);
        }
    }
    best.1
}

fn most_frequent<T: Voxel>(values: &mut [T]) -> T {
    // NaN sorts last
    let none = |v: &T| v.partial_cmp(v).is_none();
    values.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| none(a).cmp(&none(b))));
    let mut best = (0, values[0]);
    for run in values.chunk_by(|a, b| a == b) {
        if !none(&run[0]) && run.len() > best.0 {
            best = (run.len(), run[0]);
        }
    }
    best.1
}
