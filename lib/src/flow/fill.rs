//! Estimates of unknown vectors from the known ones.

use nalgebra::{Matrix4, Vector4};

use super::clean::FlowField;

/// Vectors at one resolution; NaN where unknown.
struct Level {
    shape: [usize; 3],
    vectors: Vec<[f32; 3]>,
}

impl FlowField {
    /// Replaces unknown vectors by estimates: the affine map that fits the known vectors best, plus
    /// averages of their distances from it, which are coarser the further away these are ("push and
    /// pull", Gortler et al., SIGGRAPH 1996, section 3.4). Known vectors do not change. A plane, or
    /// a volume, without a known vector stays unknown. Returns how many vectors were filled.
    pub fn fill(&mut self) -> usize {
        let before = self.known();
        let [depth, height, width] = self.shape;
        let slab = if self.planar { [1, height, width] } else { [depth, height, width] };
        let length: usize = slab.iter().product();
        for vectors in self.vectors.chunks_exact_mut(length.max(1)) {
            let known = Level { shape: slab, vectors: vectors.to_vec() };
            let trend = known.trend();
            let mut level = Level { shape: slab, vectors: known.less(&trend) };
            level.fill();
            for (i, v) in vectors.iter_mut().enumerate().filter(|(_, v)| is_unknown(v)) {
                let at = known.position(i);
                *v = std::array::from_fn(|c| level.vectors[i][c] + value(&trend[c], at) as f32);
            }
        }
        self.known() - before
    }
}

/// The coefficients of an affine function of the index: the constant, and those of z, y, x.
type Trend = [f64; 4];

fn value(trend: &Trend, at: [usize; 3]) -> f64 {
    trend[0] + (0..3).map(|a| trend[1 + a] * at[a] as f64).sum::<f64>()
}

fn is_unknown(v: &[f32; 3]) -> bool {
    v.iter().any(|v| v.is_nan())
}

impl Level {
    /// The affine functions of the index that fit the components of the known vectors best, by least
    /// squares; 0 along an axis along which the known vectors do not determine them.
    fn trend(&self) -> [Trend; 3] {
        let (mut normal, mut right) = (Matrix4::<f64>::zeros(), [Vector4::<f64>::zeros(); 3]);
        for (i, v) in self.vectors.iter().enumerate().filter(|(_, v)| !is_unknown(v)) {
            let [z, y, x] = self.position(i).map(|n| n as f64);
            let row = Vector4::new(1.0, z, y, x);
            normal += row * row.transpose();
            (0..3).for_each(|c| right[c] += row * f64::from(v[c]));
        }
        // the pseudo-inverse, since a plane has no slope along z
        let inverse = normal.pseudo_inverse(1e-9 * normal.norm()).unwrap_or_default();
        right.map(|right| (inverse * right).into())
    }

    fn less(&self, trend: &[Trend; 3]) -> Vec<[f32; 3]> {
        let residual = |(i, v): (usize, &[f32; 3])| {
            std::array::from_fn(|c| v[c] - value(&trend[c], self.position(i)) as f32)
        };
        self.vectors.iter().enumerate().map(residual).collect()
    }

    fn fill(&mut self) {
        if !self.vectors.iter().any(is_unknown) || self.shape == [1; 3] {
            return;
        }
        let mut coarse = self.halved();
        coarse.fill();
        for i in 0..self.vectors.len() {
            if is_unknown(&self.vectors[i]) {
                self.vectors[i] = coarse.sample(self.position(i), self.shape);
            }
        }
    }

    fn position(&self, i: usize) -> [usize; 3] {
        let [_, ny, nx] = self.shape;
        [i / (ny * nx), i / nx % ny, i % nx]
    }

    /// The means of the known vectors in boxes of 2 along each axis.
    fn halved(&self) -> Self {
        let shape = self.shape.map(|n| n.div_ceil(2));
        let index = |[z, y, x]: [usize; 3]| (z * shape[1] + y) * shape[2] + x;
        let mut sums = vec![[0.0f64; 4]; shape.iter().product()];
        for (i, v) in self.vectors.iter().enumerate().filter(|(_, v)| !v.iter().any(|v| v.is_nan()))
        {
            let sum = &mut sums[index(self.position(i).map(|n| n / 2))];
            (0..3).for_each(|a| sum[a] += f64::from(v[a]));
            sum[3] += 1.0;
        }
        // 0 divided by 0 is NaN: unknown
        let vectors = sums.iter().map(|sum| [0, 1, 2].map(|a| (sum[a] / sum[3]) as f32)).collect();
        Self { shape, vectors }
    }

    /// The vector at a position of the level that is twice as fine and has the given shape, by
    /// linear interpolation.
    fn sample(&self, at: [usize; 3], fine: [usize; 3]) -> [f32; 3] {
        let taps: [[(usize, f32); 2]; 3] = std::array::from_fn(|a| {
            if fine[a] == 1 {
                return [(0, 1.0), (0, 0.0)];
            }
            // box k covers the fine positions 2 k and 2 k + 1
            let place = (at[a] as f32 - 0.5) / 2.0;
            let low = place.floor();
            let clamp = |v: f32| (v.max(0.0) as usize).min(self.shape[a] - 1);
            [(clamp(low), 1.0 - (place - low)), (clamp(low + 1.0), place - low)]
        });
        let mut sum = [0.0; 3];
        for (z, wz) in taps[0] {
            for (y, wy) in taps[1] {
                for (x, wx) in taps[2].into_iter().filter(|(_, w)| wz * wy * w > 0.0) {
                    let v = self.vectors[(z * self.shape[1] + y) * self.shape[2] + x];
                    (0..3).for_each(|a| sum[a] += wz * wy * wx * v[a]);
                }
            }
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(planar: bool, shape: [usize; 3], value: impl Fn([f32; 3]) -> [f32; 3]) -> FlowField {
        let vectors = (0..shape.iter().product::<usize>())
            .map(|i| {
                let [_, ny, nx] = shape;
                value([i / (ny * nx), i / nx % ny, i % nx].map(|n| n as f32))
            })
            .collect();
        FlowField { shape, planar, vectors, quality: Vec::new() }
    }

    #[test]
    fn a_hole_in_a_slope_is_filled_and_known_vectors_stay() {
        for (planar, shape) in [(true, [2, 20, 23]), (false, [9, 11, 13])] {
            let slope = |p: [f32; 3]| [0.0, 2.0 + 0.1 * p[1], -1.0 + 0.1 * p[2]];
            let whole = field(planar, shape, slope);
            let mut holed = whole.clone();
            let mut holes = 0;
            for (i, v) in holed.vectors.iter_mut().enumerate() {
                if i % 5 == 0 || (i / shape[2] % shape[1] > 6 && i % shape[2] < 5) {
                    *v = [f32::NAN; 3];
                    holes += 1;
                }
            }
            let before = holed.clone();
            assert_eq!(holed.fill(), holes);
            for ((v, known), truth) in holed.vectors.iter().zip(&before.vectors).zip(&whole.vectors)
            {
                if !known[1].is_nan() {
                    assert_eq!(v, known);
                }
                assert!((0..3).all(|a| (v[a] - truth[a]).abs() < 1e-3), "{v:?}, wanted {truth:?}");
            }
        }
    }

    #[test]
    fn a_plane_without_a_vector_stays_unknown() {
        let mut two =
            field(true, [2, 3, 4], |p| if p[0] < 0.5 { [0.0, 1.0, 2.0] } else { [f32::NAN; 3] });
        two.vectors[5] = [f32::NAN; 3];
        assert_eq!(two.fill(), 1);
        assert!((0..3).all(|a| (two.vectors[5][a] - [0.0, 1.0, 2.0][a]).abs() < 1e-4));
        assert!(two.vectors[12..].iter().all(|v| v[1].is_nan()));
    }
}
