use super::lines::{self, LANES, Scratch, vectorised};

vectorised! {
    /// One doubling step: `out[i] = min(s[i], s[i + stride])`.
    fn smaller(scratch: &[f32], stride: usize, out: &mut [f32]) => smaller_body
}
vectorised! {
    /// One doubling step: `out[i] = max(s[i], s[i + stride])`.
    fn larger(scratch: &[f32], stride: usize, out: &mut [f32]) => larger_body
}

#[inline(always)]
fn smaller_body<const FUSED: bool>(scratch: &[f32], stride: usize, out: &mut [f32]) {
    for ((out, &a), &b) in out.iter_mut().zip(scratch).zip(&scratch[stride..]) {
        *out = if a < b { a } else { b };
    }
}

#[inline(always)]
fn larger_body<const FUSED: bool>(scratch: &[f32], stride: usize, out: &mut [f32]) {
    for ((out, &a), &b) in out.iter_mut().zip(scratch).zip(&scratch[stride..]) {
        *out = if a > b { a } else { b };
    }
}

type RowOperation = fn(&[f32], usize, &mut [f32]);

/// Two buffers that are used alternately, so that the steps need not work in place.
#[derive(Default)]
struct DoubleBuffer {
    now: Scratch,
    next: Scratch,
}

impl DoubleBuffer {
    /// Stores in `now[i]` the extreme of `window` entries from `i` on, `stride` apart.
    ///
    /// Windows of 2, 4, 8 ... entries are each joined from two smaller windows; in the last step
    /// the two can overlap. This takes log2(window) steps of plain vector code. Van Herk's method
    /// takes three steps, in which each value depends on the one before, and is no faster at the
    /// sizes of interest.
    fn window_extreme(&mut self, window: usize, stride: usize, step: RowOperation) {
        let mut covered = 1;
        while covered < window {
            let more = covered.min(window - covered);
            self.next.resize(self.now.len() - more * stride);
            step(&self.now, more * stride, &mut self.next);
            std::mem::swap(&mut self.now, &mut self.next);
            covered += more;
        }
    }
}

/// The extreme over the window `-below..=above` of each voxel along one axis, in place.
fn extreme(
    image: &mut [f32],
    shape: [usize; 3],
    axis: usize,
    [below, above]: [usize; 2],
    step: RowOperation,
) {
    let (n, window) = (shape[axis], below + above + 1);
    let (from, to) = (-(below as i64), (n + above) as i64);
    let mut pair = DoubleBuffer::default();
    if axis < 2 {
        for bundle in lines::bundles(shape, axis) {
            lines::gather(image, bundle, n, from, to, &mut pair.now);
            pair.window_extreme(window, LANES, step);
            lines::scatter(&pair.now[..n * LANES], bundle, image);
        }
    } else {
        for line in image.chunks_exact_mut(n.max(1)) {
            lines::pad(line, from, to, &mut pair.now);
            pair.window_extreme(window, 1, step);
            line.copy_from_slice(&pair.now[..n]);
        }
    }
}

/// The grey opening of an image with a solid box of `window` voxels. It removes bright structures
/// that are smaller than the box. The image minus its opening is the white top-hat.
///
/// * `image`: `(z, y, x)` of `shape`
/// * `window`: sides of the box, at least 1; a box with an even side reaches one voxel further
///   towards lower indices when eroding, and towards higher ones when dilating, as in SciPy
///
/// Border: mirrored about the voxel edge. Checked by: `oracle::opening` (equal).
pub fn opening(mut image: Vec<f32>, shape: [usize; 3], window: [usize; 3]) -> Vec<f32> {
    for axis in 0..3 {
        let [below, above] = reach(window[axis]);
        extreme(&mut image, shape, axis, [below, above], smaller);
    }
    for axis in 0..3 {
        let [below, above] = reach(window[axis]);
        extreme(&mut image, shape, axis, [above, below], larger);
    }
    image
}

/// Which extreme of a window is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extreme {
    /// The smallest value.
    Min,
    /// The largest value.
    Max,
}

impl Extreme {
    /// The extreme of two values.
    pub fn of(self, a: f32, b: f32) -> f32 {
        match self {
            Self::Min if b < a => b,
            Self::Max if b > a => b,
            _ => a,
        }
    }
}

/// The extreme over `2 * half + 1` voxels along y and x of one plane, in place.
///
/// * `image`: `(y, x)` of `shape`; only voxels within it are considered
pub fn extreme_within(image: &mut [f32], shape: [usize; 2], half: [usize; 2], which: Extreme) {
    let step = match which {
        Extreme::Min => smaller,
        Extreme::Max => larger,
    };
    for a in 0..2 {
        extreme(image, [1, shape[0], shape[1]], a + 1, [half[a]; 2], step);
    }
}

fn reach(window: usize) -> [usize; 2] {
    [window / 2, window.max(1) - 1 - window / 2]
}

/// Halo that an [`opening`] needs along an axis, voxels.
pub fn opening_reach(window: usize) -> usize {
    window.max(1) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::oracle;

    proptest! {
        #[test]
        fn an_opening_equals_the_slow_minima_and_maxima(
            shape in [1_usize..9, 1_usize..9, 1_usize..40],
            window in [1_usize..6, 1_usize..12, 1_usize..8],
            seed in any::<u32>(),
        ) {
            let image = oracle::noise(shape, seed);
            let slow = oracle::opening(&image, shape, window);
            prop_assert_eq!(opening(image, shape, window), slow);
        }
    }

    #[test]
    fn a_bump_smaller_than_the_box_is_removed_and_a_larger_one_stays() {
        let shape = [1, 1, 12];
        let mut image = vec![1.0; 12];
        image[2..4].fill(5.0);
        image[6..10].fill(3.0);
        let mut wanted = vec![1.0; 12];
        wanted[6..10].fill(3.0);
        assert_eq!(opening(image, shape, [1, 1, 4]), wanted);
    }
}
