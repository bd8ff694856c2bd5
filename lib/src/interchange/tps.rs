//! Thin-plate splines through landmarks, as in BigWarp: the kernel `r^2 log r`, both in the plane
//! and in space, plus an affine part (Bookstein, IEEE PAMI 11(6), 1989; ITK's
//! `ThinPlateR2LogRSplineKernelTransform`, from which BigWarp's spline is ported).

use nalgebra::{DMatrix, Dyn, LU};

use super::map_steps::SmoothMap;
use crate::fingerprint::Fingerprint;
use crate::geom::{Affine, Point};

/// Maximum number of landmarks; the matrix of the linear system then takes 200 MB.
const MAX_LANDMARKS: usize = 5000;

/// The spline that maps points to given positions; in a plane, the one with the least bending
/// energy.
pub(super) struct ThinPlate {
    /// Landmarks relative to their mean `middle`, in units of `size`, their largest distance from
    /// it, for a well-scaled linear system.
    points: Vec<Point>,
    middle: Point,
    size: f64,
    /// Number of axes; with 2, z is ignored.
    axes: usize,
    weights: Vec<Point>,
    affine: Affine,
}

impl ThinPlate {
    /// The spline that maps `from` to `to`. With 2 `axes` the points lie in the plane z = 0.
    pub(super) fn through(from: &[Point], to: &[Point], axes: usize) -> Result<Self, String> {
        let count = from.len().min(to.len());
        if count < axes + 1 {
            return Err(format!(
                "{count} pairs of points, and a thin-plate spline needs {}",
                axes + 1
            ));
        }
        if count > MAX_LANDMARKS {
            return Err(format!(
                "{count} pairs of points; at most {MAX_LANDMARKS} can be solved for"
            ));
        }
        for j in 0..count {
            if let Some(i) = (0..j).find(|&i| from[i] == from[j]) {
                return Err(format!(
                    "landmarks {} and {} lie in the same place ({:?} um along z, y, x)",
                    i + 1,
                    j + 1,
                    from[j]
                ));
            }
        }
        let (middle, size) = frame(&from[..count]);
        let points: Vec<Point> =
            from[..count].iter().map(|p| within(*p, middle, size, axes)).collect();
        let solution = solve(&points, &to[..count], axes)
            .ok_or("the landmarks lie on a line or in a plane: they determine no spline")?;
        let weights = (0..count).map(|i| std::array::from_fn(|a| solution[(i, a)])).collect();
        let mut linear = [[0.0; 3]; 3];
        let mut offset = [0.0; 3];
        for r in 0..3 {
            offset[r] = solution[(count, r)];
            for c in 3 - axes..3 {
                linear[r][c] = solution[(count + 1 + c - (3 - axes), r)] / size;
                offset[r] -= linear[r][c] * middle[c];
            }
        }
        if axes == 2 {
            (linear[0], offset[0]) = ([1.0, 0.0, 0.0], 0.0);
        }
        let affine = Affine::from_parts(linear, offset);
        Ok(Self { points, middle, size, axes, weights, affine })
    }
}

/// The point `p` relative to `middle`, in units of `size`; with 2 `axes`, z becomes 0.
fn within(p: Point, middle: Point, size: f64, axes: usize) -> Point {
    std::array::from_fn(|a| if a + axes < 3 { 0.0 } else { (p[a] - middle[a]) / size })
}

/// The mean of points and their largest distance from it.
fn frame(points: &[Point]) -> (Point, f64) {
    let count = points.len() as f64;
    let middle: Point = std::array::from_fn(|a| points.iter().map(|p| p[a]).sum::<f64>() / count);
    let size = points.iter().map(|p| square_distance(*p, middle)).fold(0.0, f64::max).sqrt();
    (middle, if size > 0.0 { size } else { 1.0 })
}

/// Solves for the weights of the kernels, the constant and the linear part, which are the rows of
/// the result; its columns are z, y, x. `None` if the system is singular.
fn solve(points: &[Point], to: &[Point], axes: usize) -> Option<DMatrix<f64>> {
    let (n, first) = (points.len(), 3 - axes);
    let mut matrix = DMatrix::zeros(n + axes + 1, n + axes + 1);
    let mut right = DMatrix::zeros(n + axes + 1, 3);
    for i in 0..n {
        for j in 0..i {
            let value = kernel(square_distance(points[i], points[j]));
            (matrix[(i, j)], matrix[(j, i)]) = (value, value);
        }
        for (k, value) in std::iter::once(1.0).chain(points[i][first..].iter().copied()).enumerate()
        {
            (matrix[(i, n + k)], matrix[(n + k, i)]) = (value, value);
        }
        for a in 0..3 {
            right[(i, a)] = to[i][a];
        }
    }
    let lu: LU<f64, Dyn, Dyn> = matrix.lu();
    let pivots = lu.u().diagonal().map(f64::abs);
    if !(pivots.min() > 1e-13 * pivots.max()) {
        return None;
    }
    lu.solve(&right).filter(|s| s.iter().all(|v| v.is_finite()))
}

fn square_distance(p: Point, q: Point) -> f64 {
    (0..3).map(|a| (p[a] - q[a]).powi(2)).sum()
}

/// `r^2 log r` for `square` = `r^2`.
fn kernel(square: f64) -> f64 {
    if square > 0.0 { 0.5 * square * square.ln() } else { 0.0 }
}

impl SmoothMap for ThinPlate {
    fn add_to(&self, fingerprint: &mut Fingerprint) {
        fingerprint.add(b"thin-plate spline").add_counts([self.axes as u64]);
        fingerprint.add_numbers(self.points.iter().flatten().copied());
        fingerprint.add_numbers(self.weights.iter().flatten().copied());
        fingerprint.add_numbers(self.middle).add_numbers([self.size]);
        fingerprint.add_numbers(self.affine.rows().concat());
    }

    fn apply(&self, p: Point) -> Point {
        let mut q = self.affine.apply(p);
        let p = within(p, self.middle, self.size, self.axes);
        for (point, weight) in self.points.iter().zip(&self.weights) {
            let value = kernel(square_distance(p, *point));
            for a in 0..3 {
                q[a] += value * weight[a];
            }
        }
        q
    }

    fn affine(&self) -> Affine {
        self.affine
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(count: usize) -> impl Strategy<Value = Vec<Point>> {
        prop::collection::vec(prop::array::uniform3(-500.0..500.0f64), count)
    }

    proptest! {
        #[test]
        fn landmarks_go_where_they_should(from in points(12), to in points(12)) {
            let spline = ThinPlate::through(&from, &to, 3).unwrap();
            for (p, q) in from.iter().zip(&to) {
                let got = spline.apply(*p);
                for a in 0..3 {
                    prop_assert!((got[a] - q[a]).abs() < 1e-6, "{got:?} {q:?}");
                }
            }
        }

        #[test]
        fn landmarks_moved_by_a_matrix_give_that_matrix_everywhere(
            from in points(9), rows in prop::array::uniform3(prop::array::uniform4(-2.0..2.0f64)),
            p in prop::array::uniform3(-900.0..900.0f64),
        ) {
            let map = Affine::from_rows(rows);
            let to: Vec<Point> = from.iter().map(|p| map.apply(*p)).collect();
            let spline = ThinPlate::through(&from, &to, 3).unwrap();
            let (got, want) = (spline.apply(p), map.apply(p));
            for a in 0..3 {
                prop_assert!((got[a] - want[a]).abs() < 1e-5, "{got:?} {want:?}");
            }
        }
    }

    #[test]
    fn a_plane_stays_in_its_plane() {
        let flat = |y: f64, x: f64| [0.0, y, x];
        let from = [flat(0.0, 0.0), flat(0.0, 9.0), flat(8.0, 0.0), flat(7.0, 7.0)];
        let to = [flat(1.0, 0.0), flat(0.0, 9.5), flat(8.0, 2.0), flat(7.5, 7.0)];
        let spline = ThinPlate::through(&from, &to, 2).unwrap();
        for (p, q) in from.iter().zip(&to) {
            let got = spline.apply(*p);
            assert!((0..3).all(|a| (got[a] - q[a]).abs() < 1e-9));
        }
        assert_eq!(spline.apply([0.0, 3.0, 4.0])[0], 0.0);
    }

    #[test]
    fn landmarks_that_determine_nothing_are_refused_in_words() {
        let line: Vec<Point> = (0..6).map(|i| [f64::from(i), 2.0 * f64::from(i), 1.0]).collect();
        let refusal = |from: &[Point]| ThinPlate::through(from, from, 3).err().unwrap();
        assert!(refusal(&line).contains("line or in a plane"));
        assert!(refusal(&line[..3]).contains("3 pairs"));
        let mut twice = line;
        twice[4] = twice[1];
        assert!(refusal(&twice).contains("landmarks 2 and 5"));
    }
}
