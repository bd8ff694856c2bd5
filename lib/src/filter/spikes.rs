//! Single voxels that are unrelated to their neighbours: hot and dead pixels, cosmic rays.

use std::ops::Range;

use crate::volume::Voxel;

/// A voxel is a spike if its value lies above or below the values of all its neighbours by more
/// than this many times the range of these values. No microscope resolves a point this sharp; noise
/// exceeds this limit in one voxel in a hundred million.
const SPIKE_FACTOR: f32 = 20.0;

/// Replaces every spike, bright or dark, by the nearest of its neighbours' values, and every
/// isolated non-finite voxel by the midpoint of its neighbours' extremes. Returns the number of
/// voxels replaced.
///
/// * `voxels`: C order `(z, y, x)`, of `shape`
///
/// The neighbours are the six along the axes, or the four in a plane. Voxels at the faces of the
/// block lack some neighbours and are not changed. All decisions are based on the input values, so
/// that they do not depend on the order of the voxels.
pub fn despike<T: Voxel>(voxels: &mut [T], shape: [usize; 3]) -> usize {
    let found = spikes(voxels, shape, 0..shape[0]);
    found.iter().for_each(|&(at, value)| voxels[at] = value);
    found.len()
}

/// Indices of the spikes and isolated non-finite voxels in some planes of a block, and the values
/// that [`despike`] puts there.
pub fn spikes<T: Voxel>(voxels: &[T], shape: [usize; 3], planes: Range<usize>) -> Vec<(usize, T)> {
    let [_, ny, nx] = shape;
    let rim = |at: usize, a: usize| shape[a] > 1 && (at == 0 || at + 1 == shape[a]);
    let mut found = Vec::new();
    for z in planes.filter(|&z| !rim(z, 0)) {
        for y in (0..ny).filter(|&y| !rim(y, 1)) {
            let row = (z * ny + y) * nx;
            let (first, end) = if nx > 1 { (1, nx - 1) } else { (0, nx) };
            for i in row + first..row + end {
                // shortcut: a value between those of two neighbours, the most frequent case, is no
                // spike
                let between = nx > 1 && {
                    let (a, v, b) = (voxels[i - 1], voxels[i], voxels[i + 1]);
                    (a <= v && v <= b) || (b <= v && v <= a)
                };
                if !between && let Some(value) = replacement(voxels, shape, i) {
                    found.push((i, value));
                }
            }
        }
    }
    found
}

/// The replacement of an inner voxel, if it is a spike or an isolated non-finite voxel.
fn replacement<T: Voxel>(voxels: &[T], shape: [usize; 3], i: usize) -> Option<T> {
    let stride = [shape[1] * shape[2], shape[2], 1];
    let mut range: Option<[T; 2]> = None;
    for a in (0..3).filter(|&a| shape[a] > 1) {
        for v in [voxels[i - stride[a]], voxels[i + stride[a]]] {
            if !v.to_f32().is_finite() {
                return None;
            }
            let [least, most] = range.unwrap_or([v; 2]);
            range = Some([if v < least { v } else { least }, if v > most { v } else { most }]);
        }
    }
    let [least, most] = range?;
    let (value, low, high) = (voxels[i].to_f32(), least.to_f32(), most.to_f32());
    if !value.is_finite() {
        return Some(T::from_f32(0.5 * low + 0.5 * high));
    }
    // equal neighbours give no scale: a single different voxel among them can be real
    let spread = high - low;
    if spread > 0.0 && value - high > SPIKE_FACTOR * spread {
        Some(most)
    } else if spread > 0.0 && low - value > SPIKE_FACTOR * spread {
        Some(least)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noisy(seed: u64, n: usize) -> Vec<u16> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % 64
        };
        (0..n).map(|i| 200 + (next() + next() + i as u64 % 17) as u16).collect()
    }

    proptest! {
        #[test]
        fn spikes_are_taken_away_and_nothing_else_is_touched(
            shape in prop::array::uniform3(3..9usize),
            hot in prop::array::uniform3(0.0..1.0f64),
            seed: u64,
        ) {
            let clean = noisy(seed, shape.iter().product());
            let mut voxels = clean.clone();
            let before = despike(&mut voxels, shape);
            prop_assert!(before == 0 && voxels == clean);
            let at: [usize; 3] =
                std::array::from_fn(|a| 1 + (hot[a] * (shape[a] - 2) as f64) as usize);
            let i = (at[0] * shape[1] + at[1]) * shape[2] + at[2];
            voxels[i] = 65535;
            prop_assert_eq!(despike(&mut voxels, shape), 1);
            prop_assert!(voxels[i] <= 400);
            voxels[i] = clean[i];
            prop_assert_eq!(voxels, clean);
        }
    }

    #[test]
    fn lone_unknown_voxels_are_filled_and_points_on_an_even_ground_kept() {
        let mut voxels = vec![1.0f32; 27];
        voxels[13] = 900.0;
        assert_eq!(despike(&mut voxels, [3; 3]), 0);
        voxels[12] = 1.5;
        assert_eq!(despike(&mut voxels, [3; 3]), 1);
        assert_eq!(voxels[13], 1.5);
        voxels[13] = f32::NAN;
        assert_eq!(despike(&mut voxels, [3; 3]), 1);
        assert_eq!(voxels[13], 1.25);
        // of two adjacent unknown voxels, neither is replaced
        (voxels[13], voxels[14]) = (f32::NAN, f32::INFINITY);
        assert_eq!(despike(&mut voxels, [3; 3]), 0);
    }

    #[test]
    fn a_plane_has_neighbours_within_it() {
        let mut voxels: Vec<u16> = (0..30).map(|i| 100 + i % 7).collect();
        voxels[14] = 60_000;
        assert_eq!(despike(&mut voxels, [1, 5, 6]), 1);
        assert!(voxels[14] < 110);
    }
}
