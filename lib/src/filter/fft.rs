//! Fourier transforms of boxes whose side lengths have no prime factor above 7.

use super::lines::vectorised;

/// The number of lines that are transformed together: lines of 256 elements and their copies stay
/// in the first-level cache.
const LINES: usize = 8;

/// The real and the imaginary parts of several lines at one position.
type ComplexLanes = [[f32; LINES]; 2];

/// The sizes of butterflies, and the cost of each per element, relative to a butterfly of size 2.
/// Of all side lengths that are long enough, the one with the lowest total cost is used.
const BUTTERFLIES: [(usize, f64); 5] = [(4, 1.4), (2, 1.0), (3, 1.7), (5, 2.6), (7, 3.6)];

/// Transforms of complex boxes of one shape, `[real, imaginary]` per element, C order `(z, y, x)`.
#[derive(Clone, Debug)]
pub struct Fft {
    shape: [usize; 3],
    axes: [Axis; 3],
}

/// Precomputed data of the transforms along one axis.
#[derive(Clone, Debug)]
struct Axis {
    /// The sizes of the butterflies, whose product is the length `n` of the axis.
    factors: Vec<usize>,
    /// `exp(-2 pi i k / n)` for `k < n`.
    twiddles: Vec<[f32; 2]>,
}

impl Axis {
    fn new(n: usize) -> Self {
        let angle = |k: usize| -std::f64::consts::TAU * k as f64 / n as f64;
        let twiddles = (0..n).map(|k| [angle(k).cos() as f32, angle(k).sin() as f32]).collect();
        Self { factors: factors(n).unwrap_or_default(), twiddles }
    }
}

/// The sizes of butterflies whose product is `n`; `None` if `n` has a prime factor above 7.
fn factors(mut n: usize) -> Option<Vec<usize>> {
    let mut all = Vec::new();
    for (factor, _) in BUTTERFLIES {
        while n.is_multiple_of(factor) {
            all.push(factor);
            n /= factor;
        }
    }
    (n == 1).then_some(all)
}

/// The side length of at least `n` elements with which the transform of a box costs least.
fn side(n: usize) -> usize {
    /// The cost per element of the transforms along the other two axes, in the unit of
    /// [`BUTTERFLIES`]. A longer side adds elements, which are transformed along these axes too.
    const OTHER_AXES_COST: f64 = 8.0;
    let n = n.max(1);
    let cost = |side: usize| -> Option<f64> {
        let of = |factor| BUTTERFLIES.iter().find(|b| b.0 == factor).map_or(0.0, |b| b.1);
        let own: f64 = factors(side)?.into_iter().map(of).sum();
        Some(side as f64 * (OTHER_AXES_COST + own))
    };
    let sides = (n..=n.next_power_of_two()).filter_map(|side| Some((side, cost(side)?)));
    sides.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(n.next_power_of_two(), |(side, _)| side)
}

impl Fft {
    /// Prepares transforms of a box that holds at least `shape`.
    pub fn holding(shape: [usize; 3]) -> Self {
        let shape = shape.map(side);
        Self { shape, axes: shape.map(Axis::new) }
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

    /// Index of the element whose frequency is the negative of that of element `at`.
    #[inline]
    pub fn opposite(&self, at: usize) -> usize {
        let [nz, ny, nx] = self.shape;
        let (z, y, x) = (at / (ny * nx), at / nx % ny, at % nx);
        let turn = |v: usize, n: usize| if v == 0 { 0 } else { n - v };
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
            transform(&self.axes[axis], &mut from, &mut to);
            for (i, row) in from.iter().enumerate() {
                for (l, start) in starts.iter().enumerate().take(count) {
                    data[start + i * stride] = [row[0][l], row[1][l]];
                }
            }
        }
    }
}

vectorised! {
    /// Transforms lines in place (`from`) by Stockham's method, which needs a second buffer (`to`)
    /// but no reordering.
    fn transform(axis: &Axis, from: &mut [ComplexLanes], to: &mut [ComplexLanes]) => transform_body
}

#[inline(always)]
fn transform_body<const FUSED: bool>(
    axis: &Axis,
    from: &mut [ComplexLanes],
    to: &mut [ComplexLanes],
) {
    let (mut source, mut target) = (from, to);
    let (mut length, mut stride, mut swapped) = (source.len(), 1, false);
    for &factor in &axis.factors {
        length /= factor;
        let step = ButterflyPass { twiddles: &axis.twiddles, length, stride };
        match factor {
            2 => step.radix2(source, target),
            4 => step.radix4(source, target),
            3 => step.odd_radix::<3>(source, target),
            5 => step.odd_radix::<5>(source, target),
            _ => step.odd_radix::<7>(source, target),
        }
        (source, target) = (target, source);
        (stride, swapped) = (stride * factor, !swapped);
    }
    if swapped {
        // the result lies in the buffer that was passed as `to`
        target.copy_from_slice(source);
    }
}

/// One pass over a line: butterflies of elements that are `stride * length` apart.
struct ButterflyPass<'a> {
    twiddles: &'a [[f32; 2]],
    length: usize,
    stride: usize,
}

impl ButterflyPass<'_> {
    /// The elements of the butterfly `(p, q)`.
    #[inline(always)]
    fn inputs<const N: usize>(
        &self,
        source: &[ComplexLanes],
        p: usize,
        q: usize,
    ) -> [ComplexLanes; N] {
        std::array::from_fn(|k| source[q + self.stride * (p + k * self.length)])
    }

    /// Stores element `j` of the butterfly `(p, q)` of `N` elements, multiplied by its twiddle
    /// factor.
    #[inline(always)]
    fn put<const N: usize>(
        &self,
        target: &mut [ComplexLanes],
        p: usize,
        q: usize,
        j: usize,
        row: ComplexLanes,
    ) {
        let turned = if j == 0 { row } else { times(row, self.twiddles[p * j * self.stride]) };
        target[q + self.stride * (N * p + j)] = turned;
    }

    #[inline(always)]
    fn radix2(&self, source: &[ComplexLanes], target: &mut [ComplexLanes]) {
        for p in 0..self.length {
            for q in 0..self.stride {
                let [a, b] = self.inputs::<2>(source, p, q);
                self.put::<2>(target, p, q, 0, plus(a, b));
                self.put::<2>(target, p, q, 1, minus(a, b));
            }
        }
    }

    #[inline(always)]
    fn radix4(&self, source: &[ComplexLanes], target: &mut [ComplexLanes]) {
        for p in 0..self.length {
            for q in 0..self.stride {
                let [a, b, c, d] = self.inputs::<4>(source, p, q);
                let (sum, difference) = (plus(a, c), minus(a, c));
                let (other, turned) = (plus(b, d), minus(b, d));
                // multiplication by -i
                let turned = [turned[1], turned[0].map(|v| -v)];
                self.put::<4>(target, p, q, 0, plus(sum, other));
                self.put::<4>(target, p, q, 1, plus(difference, turned));
                self.put::<4>(target, p, q, 2, minus(sum, other));
                self.put::<4>(target, p, q, 3, minus(difference, turned));
            }
        }
    }

    /// Butterflies of an odd prime number of elements. Using the sums and the differences of
    /// elements `k` and `N - k` halves the number of multiplications.
    #[inline(always)]
    fn odd_radix<const N: usize>(&self, source: &[ComplexLanes], target: &mut [ComplexLanes]) {
        let root = |k: usize| self.twiddles[k % N * (self.twiddles.len() / N)];
        let roots: [[[f32; 2]; N]; N] =
            std::array::from_fn(|j| std::array::from_fn(|k| root(j * k)));
        for p in 0..self.length {
            for q in 0..self.stride {
                let inputs = self.inputs::<N>(source, p, q);
                let mut first = inputs[0];
                for k in 1..=N / 2 {
                    first = plus(first, plus(inputs[k], inputs[N - k]));
                }
                self.put::<N>(target, p, q, 0, first);
                for j in 1..=N / 2 {
                    let (mut even, mut odd) = (inputs[0], [[0.0; LINES]; 2]);
                    for k in 1..=N / 2 {
                        let [cosine, sine] = roots[j][k];
                        let (sum, difference) =
                            (plus(inputs[k], inputs[N - k]), minus(inputs[k], inputs[N - k]));
                        for l in 0..LINES {
                            even[0][l] += cosine * sum[0][l];
                            even[1][l] += cosine * sum[1][l];
                            // multiplication by i
                            odd[0][l] -= sine * difference[1][l];
                            odd[1][l] += sine * difference[0][l];
                        }
                    }
                    self.put::<N>(target, p, q, j, plus(even, odd));
                    self.put::<N>(target, p, q, N - j, minus(even, odd));
                }
            }
        }
    }
}

#[inline(always)]
fn plus(a: ComplexLanes, b: ComplexLanes) -> ComplexLanes {
    std::array::from_fn(|part| std::array::from_fn(|l| a[part][l] + b[part][l]))
}

#[inline(always)]
fn minus(a: ComplexLanes, b: ComplexLanes) -> ComplexLanes {
    std::array::from_fn(|part| std::array::from_fn(|l| a[part][l] - b[part][l]))
}

#[inline(always)]
fn times([re, im]: ComplexLanes, [wr, wi]: [f32; 2]) -> ComplexLanes {
    [
        std::array::from_fn(|l| re[l] * wr - im[l] * wi),
        std::array::from_fn(|l| re[l] * wi + im[l] * wr),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::oracle;

    proptest! {
        #[test]
        fn a_transform_equals_the_slow_sum_and_its_inverse_undoes_it(
            shape in [1_usize..4, 1_usize..8, 1_usize..22], seed in any::<u32>(),
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
    fn a_side_is_hardly_longer_than_what_it_holds_and_has_small_factors() {
        for n in 1..2000 {
            let side = side(n);
            assert!(side >= n && (side as f64) < 1.18 * n as f64 + 2.0, "{n}: {side}");
            assert_eq!(factors(side).unwrap().into_iter().product::<usize>(), side);
        }
        assert_eq!(factors(22), None);
    }

    #[test]
    fn the_opposite_of_a_frequency_holds_the_conjugate_of_a_real_image() {
        let fft = Fft::holding([3, 5, 14]);
        let numbers = oracle::noise(fft.shape(), 3);
        let mut data: Vec<[f32; 2]> = numbers.iter().map(|&v| [v, 0.0]).collect();
        fft.forward(&mut data);
        for (i, here) in data.iter().enumerate() {
            let there = data[fft.opposite(i)];
            assert!((here[0] - there[0]).abs() < 1e-5 && (here[1] + there[1]).abs() < 1e-5);
        }
    }
}
