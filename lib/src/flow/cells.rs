//! The sums of the products of one cell with the moving image at all shifts: the inner loop of
//! `cpu.rs`.
//!
//! Numbers, border and checks: see `cpu.rs`.

use super::cpu::index;
use crate::filter::lines::for_avx2;

/// The number of shifts along x that are computed together; their sums fit into registers.
pub(super) const LANES: usize = 32;

/// The shapes of a cell, of the shifts and of the images.
pub(super) struct CellProducts {
    pub(super) cell: [usize; 3],
    pub(super) shifts: [usize; 3],
    pub(super) fixed: [usize; 3],
    pub(super) moving: [usize; 3],
}

impl CellProducts {
    pub(super) fn len(&self) -> usize {
        self.shifts.iter().product()
    }
}

for_avx2! {
    /// Adds to `out`, at each shift, the sum of the products of the cell of `fixed` that begins at
    /// `first` with the shifted cell of `moving`.
    pub(super) fn cell_products(
        kernel: &CellProducts,
        fixed: &[f32],
        moving: &[f32],
        first: [usize; 3],
        out: &mut [f64],
    ) => cell_products_any
}

#[inline(always)]
fn cell_products_any(
    kernel: &CellProducts,
    fixed: &[f32],
    moving: &[f32],
    first: [usize; 3],
    out: &mut [f64],
) {
    let [cz, cy, cx] = kernel.cell;
    let width = kernel.shifts[2];
    for (row, out) in out.chunks_exact_mut(width).enumerate() {
        let (sz, sy) = (row / kernel.shifts[1], row % kernel.shifts[1]);
        for z in 0..cz {
            for y in 0..cy {
                let at = index([first[0] + z, first[1] + y, first[2]], kernel.fixed);
                let fixed = &fixed[at..at + cx];
                let at = index([first[0] + z + sz, first[1] + y + sy, first[2]], kernel.moving);
                let moving = &moving[at..at + cx + width.max(LANES) - 1];
                match width {
                    0..=8 => row_products::<8>(fixed, moving, 0, out),
                    9..=16 => row_products::<16>(fixed, moving, 0, out),
                    17..=24 => row_products::<24>(fixed, moving, 0, out),
                    25..=LANES => row_products::<LANES>(fixed, moving, 0, out),
                    _ => {
                        for x in (0..width).step_by(LANES) {
                            // the last lanes overlap those before them
                            let from = x.min(width - LANES);
                            let (moving, out) = (&moving[from..], &mut out[from..]);
                            row_products::<LANES>(fixed, moving, x - from, out);
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of a row at up to `N` consecutive shifts, from number `first` on.
#[inline(always)]
fn row_products<const N: usize>(fixed: &[f32], moving: &[f32], first: usize, out: &mut [f64]) {
    let mut sums = [0.0f32; N];
    for (x, f) in fixed.iter().enumerate() {
        let moving = &moving[x..x + N];
        for l in 0..N {
            sums[l] += f * moving[l];
        }
    }
    if first == 0 && out.len() >= N {
        for (out, sum) in out[..N].iter_mut().zip(sums) {
            *out += f64::from(sum);
        }
    } else {
        for (out, sum) in out.iter_mut().zip(sums).skip(first) {
            *out += f64::from(sum);
        }
    }
}
