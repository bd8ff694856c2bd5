//! Fourier transforms of boxes whose side lengths are powers of two.

use super::lines::vectorised;

/// Lines that are transformed together: lines of 256 voxels and their copies stay in the
/// first-level cache.
const LINES: usize = 8;

/// The real and the imaginary parts of several lines at one position.
type Row = [[f32; LINES]; 2];

/// Transforms of complex boxes of one shape, `[real, imaginary]` per element, C order `(z, y, x)`.
#[derive(Clone, Debug)]
pub struct Fft {
    shape: [usize; 3],
    /// `exp(-2 pi i k / n)` for `k < n / 2`, along each axis.
    twiddles: [Vec<[f32; 2]>; 3],
}

impl Fft {
    /// Prepares transforms of a box that holds at least `shape`; sides are the next powers of two.
    pub fn holding(shape: [usize; 3]) -> Self {
        let shape = shape.map(|n| n.max(1).next_power_of_two());
        let twiddles = shape.map(|n| {
            let angle = |k: usize| -std::f64::consts::TAU * k as f64 / n as f64;
            (0..n / 2).map(|k| [angle(k).cos() as f32, angle(k).sin() as f32]).collect()
        });
        Self { shape, twiddles }
    }

    /// The side lengths of the box.
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Number of elements of the box.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the box is empty: always false.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The forward transform, `sum over p of f(p) exp(-2 pi i k p / n)`, in place.
    ///
    /// Numbers: `f32`, errors of about 1e-7 of the root mean square times the logarithm of the
    /// size. Checked by: `oracle::transform`.
    pub fn forward(&self, data: &mut [[f32; 2]]) {
        for axis in 0..3 {
            self.along(axis, data);
        }
    }

    /// The inverse transform, divided by the number of elements, in place.
    pub fn inverse(&self, data: &mut [[f32; 2]]) {
        let scale = 1.0 / self.len() as f32;
        data.iter_mut().for_each(|[_, im]| *im = -*im);
        self.forward(data);
        for [re, im] in data {
            (*re, *im) = (*re * scale, -*im * scale);
        }
    }

    /// Index of the element whose frequency is opposite to that of element `at`.
    #[inline]
    pub fn opposite(&self, at: usize) -> usize {
        let [nz, ny, nx] = self.shape;
        let (z, y, x) = (at / (ny * nx), at / nx % ny, at % nx);
        let turn = |v: usize, n: usize| (n - v) & (n - 1);
        (turn(z, nz) * ny + turn(y, ny)) * nx + turn(x, nx)
    }

    fn along(&self, axis: usize, data: &mut [[f32; 2]]) {
        let n = self.shape[axis];
        if n == 1 {
            return;
        }
        let stride: usize = self.shape[axis + 1..].iter().product();
        let mut from = vec![[[0.0; LINES]; 2]; n];
        let mut to = from.clone();
        let lines = self.len() / n;
        for first in (0..lines).step_by(LINES) {
            let count = LINES.min(lines - first);
            let start = |line: usize| (line / stride) * stride * n + line % stride;
            let starts: [usize; LINES] = std::array::from_fn(|l| start(first + l.min(count - 1)));
            for (i, row) in from.iter_mut().enumerate() {
                for (l, start) in starts.iter().enumerate() {
                    [row[0][l], row[1][l]] = data[start + i * stride];
                }
            }
            transform(&self.twiddles[axis], &mut from, &mut to);
            for (i, row) in from.iter().enumerate() {
                for (l, start) in starts.iter().enumerate().take(count) {
                    data[start + i * stride] = [row[0][l], row[1][l]];
                }
            }
        }
    }
}

vectorised! {
    /// Transforms lines in place (`from`) by Stockham's method, which needs a second buffer but no
    /// bit reversal.
    fn transform(twiddles: &[[f32; 2]], from: &mut [Row], to: &mut [Row]) => transform_body
}

#[inline(always)]
fn transform_body<const FUSED: bool>(twiddles: &[[f32; 2]], from: &mut [Row], to: &mut [Row]) {
    let half = from.len() / 2;
    let (mut source, mut target) = (from, to);
    let (mut length, mut apart, mut swapped) = (half, 1, false);
    while length > 0 {
        // `length` twiddles, each for `apart` neighbours
        for p in 0..length {
            let [wr, wi] = twiddles[p * apart];
            for q in 0..apart {
                let (a, b) = (&source[q + apart * p], &source[q + apart * (p + length)]);
                let (mut sum, mut turned) = ([[0.0; LINES]; 2], [[0.0; LINES]; 2]);
                for l in 0..LINES {
                    let (re, im) = (a[0][l] - b[0][l], a[1][l] - b[1][l]);
                    sum[0][l] = a[0][l] + b[0][l];
                    sum[1][l] = a[1][l] + b[1][l];
                    turned[0][l] = re * wr - im * wi;
                    turned[1][l] = re * wi + im * wr;
                }
                target[q + apart * 2 * p] = sum;
                target[q + apart * (2 * p + 1)] = turned;
            }
        }
        (source, target) = (target, source);
        (length, apart, swapped) = (length / 2, apart * 2, !swapped);
    }
    if swapped {
        // the result lies in the buffer that was passed as `to`
        target.copy_from_slice(source);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::oracle;

    proptest! {
        #[test]
        fn a_transform_equals_the_slow_sum_and_its_inverse_undoes_it(
            shape in [1_usize..5, 1_usize..9, 1_usize..17], seed in any::<u32>(),
        ) {
            let fft = Fft::holding(shape);
            let numbers = oracle::noise([2, 1, fft.len()], seed);
            let data: Vec<[f32; 2]> =
                (0..fft.len()).map(|i| [numbers[i], numbers[fft.len() + i]]).collect();
            let mut fast = data.clone();
            fft.forward(&mut fast);
            let slow = oracle::transform(&data, fft.shape());
            for (fast, slow) in fast.iter().zip(&slow) {
                prop_assert!((f64::from(fast[0]) - slow[0]).abs() < 1e-3);
                prop_assert!((f64::from(fast[1]) - slow[1]).abs() < 1e-3);
            }
            fft.inverse(&mut fast);
            for (back, data) in fast.iter().zip(&data) {
                prop_assert!((back[0] - data[0]).abs() < 1e-5 && (back[1] - data[1]).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn the_opposite_of_a_frequency_holds_the_conjugate_of_a_real_image() {
        let fft = Fft::holding([2, 4, 8]);
        let numbers = oracle::noise([2, 4, 8], 3);
        let mut data: Vec<[f32; 2]> = numbers.iter().map(|&v| [v, 0.0]).collect();
        fft.forward(&mut data);
        for (i, here) in data.iter().enumerate() {
            let there = data[fft.opposite(i)];
            assert!((here[0] - there[0]).abs() < 1e-5 && (here[1] + there[1]).abs() < 1e-5);
        }
    }
}
