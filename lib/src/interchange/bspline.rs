//! Free-form deformations: displacements as tensor-product B-splines (ITK's `BSplineTransform`,
//! elastix' `BSplineTransform`; Rueckert et al., IEEE TMI 18(8), 1999).

use super::map_steps::SmoothMap;
use super::world::{Placement, World};
use crate::fingerprint::Fingerprint;
use crate::geom::{Affine, Point};

/// The displacement `sum c_k B(i - k)` at index `i`, with coefficients `c_k` and the B-spline `B`.
/// As in ITK, it is 0 where the control points do not cover the whole support of `B`.
pub(super) struct BSpline {
    /// Maps positions to fractional indices of coefficients.
    to_index: Affine,
    size: [usize; 3],
    order: usize,
    /// The tolerance of an index at the border of the valid region, as a fraction of the number of
    /// control points along the axis.
    close: f64,
    /// Coefficients in C order, `[z, y, x]` micrometres.
    coefficients: Vec<Point>,
}

impl BSpline {
    /// Creates the spline with control points at `placement` and the coefficients `numbers`: the x
    /// components of all control points (x varies fastest), then the y components, then the z
    /// components; with 2 `axes`, there are no z components.
    pub(super) fn new(
        placement: &Placement,
        world: World,
        order: usize,
        axes: usize,
        numbers: &[f64],
    ) -> Result<Self, String> {
        if !(1..=3).contains(&order) {
            return Err(format!("is a B-spline of order {order}; orders 1 to 3 can be read"));
        }
        let size = placement.shape;
        let count = size.iter().product::<usize>();
        if numbers.len() != axes * count {
            return Err(format!(
                "has {} coefficients, wanted {axes} for each of {count} control points",
                numbers.len()
            ));
        }
        if let Some(bad) = numbers.iter().find(|v| !v.is_finite()) {
            return Err(format!("has the coefficient {bad}, wanted finite numbers"));
        }
        let few = (0..3).find(|&a| size[a] != 1 && size[a] <= order);
        if few.is_some() || (axes == 3 && size[0] == 1) {
            return Err(format!(
                "has {size:?} control points along z, y, x, too few for a B-spline"
            ));
        }
        let to_index = placement
            .index_to_world(world)
            .inverse()
            .map_err(|e| format!("has a grid of control points that spans no space: {e}"))?;
        let part = |i: usize, a: usize| if a < axes { numbers[a * count + i] } else { 0.0 };
        let coefficients =
            (0..count).map(|i| world.vector([part(i, 0), part(i, 1), part(i, 2)])).collect();
        Ok(Self { to_index, size, order, close: 1e-9, coefficients })
    }

    /// The same spline, for control points whose positions are known to single precision only.
    #[must_use]
    pub(super) fn in_single_precision(self) -> Self {
        Self { close: 1e-5, ..self }
    }

    /// The position along an axis of the first coefficient that contributes at `index`, and the
    /// weights of this and the next coefficients; `None` if the support exceeds the coefficients.
    fn weights(&self, index: f64, size: usize) -> Option<(usize, [f64; 4])> {
        let order = self.order;
        if size == 1 {
            return Some((0, [1.0, 0.0, 0.0, 0.0])); // the axis perpendicular to a plane
        }
        // ITK: BSplineTransform::InsideValidRegion, with its tolerance at the border
        let rim = 0.5 * (order as f64 - 1.0);
        let last = size as f64 - 1.0 - rim;
        let close = self.close * size as f64;
        if !(index >= rim - close && index <= last + close) {
            return None;
        }
        let index = index.clamp(rim, last);
        let first = ((index - rim).floor() as usize).min(size - 1 - order);
        let weights = std::array::from_fn(|k| {
            if k <= order { basis(order, index - (first + k) as f64) } else { 0.0 }
        });
        Some((first, weights))
    }

    fn displacement(&self, p: Point) -> Point {
        let index = self.to_index.apply(p);
        let [Some(z), Some(y), Some(x)] =
            std::array::from_fn(|a| self.weights(index[a], self.size[a]))
        else {
            return [0.0; 3];
        };
        let mut sum = [0.0; 3];
        for (k, wz) in z.1.iter().enumerate().filter(|(_, w)| **w != 0.0) {
            for (j, wy) in y.1.iter().enumerate().filter(|(_, w)| **w != 0.0) {
                let row = ((z.0 + k) * self.size[1] + y.0 + j) * self.size[2] + x.0;
                for (i, wx) in x.1.iter().enumerate().filter(|(_, w)| **w != 0.0) {
                    let c = self.coefficients[row + i];
                    let weight = wz * wy * wx;
                    for a in 0..3 {
                        sum[a] += weight * c[a];
                    }
                }
            }
        }
        sum
    }
}

impl SmoothMap for BSpline {
    fn add_to(&self, fingerprint: &mut Fingerprint) {
        fingerprint.add(b"B-spline").add_counts([self.order as u64]);
        fingerprint.add_counts(self.size.map(|n| n as u64));
        fingerprint.add_numbers([self.close]).add_numbers(self.to_index.rows().concat());
        fingerprint.add_numbers(self.coefficients.iter().flatten().copied());
    }

    fn apply(&self, p: Point) -> Point {
        let u = self.displacement(p);
        std::array::from_fn(|a| p[a] + u[a])
    }
}

/// The centred B-spline of the given order at `x`.
fn basis(order: usize, x: f64) -> f64 {
    let x = x.abs();
    match order {
        1 => (1.0 - x).max(0.0),
        2 if x <= 0.5 => 0.75 - x * x,
        2 if x < 1.5 => 0.5 * (1.5 - x).powi(2),
        3 if x < 1.0 => 2.0 / 3.0 - x * x + 0.5 * x.powi(3),
        3 if x < 2.0 => (2.0 - x).powi(3) / 6.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::AnatomicalFrame;
    use super::*;

    const WORLD: World = World { frame: AnatomicalFrame::Lps, micrometres: 1.0 };
    const UNIT: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

    fn placement(shape: [usize; 3]) -> Placement {
        Placement::new(shape, [2.0, 3.0, 4.0], [-2.0, -3.0, -4.0], &UNIT)
    }

    #[test]
    fn bases_of_every_order_sum_to_one() {
        for order in 1..=3 {
            for i in 0..20 {
                let x = 0.05 * f64::from(i);
                let sum: f64 = (-3..=3).map(|k| basis(order, x - f64::from(k))).sum();
                assert!((sum - 1.0).abs() < 1e-12, "{order} {x}");
            }
        }
    }

    #[test]
    fn equal_coefficients_are_a_shift_inside_and_nothing_outside() {
        for order in 1..=3 {
            let numbers: Vec<f64> =
                [1.0, 2.0, 3.0].iter().flat_map(|v| vec![*v; 6 * 7 * 8]).collect();
            let spline = BSpline::new(&placement([6, 7, 8]), WORLD, order, 3, &numbers).unwrap();
            let inside = spline.apply([4.0, 3.0, 2.0]);
            let want = [7.0, 5.0, 3.0];
            assert!((0..3).all(|a| (inside[a] - want[a]).abs() < 1e-12));
            assert_eq!(spline.apply([-40.0, 3.0, 2.0]), [-40.0, 3.0, 2.0]);
        }
    }

    #[test]
    fn a_plane_moves_within_itself() {
        let numbers: Vec<f64> = [1.0, 2.0].iter().flat_map(|v| vec![*v; 56]).collect();
        let spline = BSpline::new(&placement([1, 7, 8]), WORLD, 3, 2, &numbers).unwrap();
        let got = spline.apply([0.0, 3.0, 2.0]);
        assert!((0..3).all(|a| (got[a] - [0.0, 5.0, 3.0][a]).abs() < 1e-12));
    }

    #[test]
    fn what_is_wrong_with_a_grid_of_control_points_is_said() {
        let bad = |shape, order, count| {
            let numbers = vec![0.0; count];
            BSpline::new(&placement(shape), WORLD, order, 3, &numbers).err().unwrap()
        };
        assert!(bad([6, 7, 8], 5, 1008).contains("order 5"));
        assert!(bad([6, 7, 8], 3, 1007).contains("1007 coefficients"));
        assert!(bad([3, 7, 8], 3, 504).contains("too few"));
    }
}
