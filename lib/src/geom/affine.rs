use nalgebra::{Matrix3, Vector3};

use super::Point;

/// The error for a matrix that cannot be inverted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "the matrix is singular (determinant {determinant:e}): it flattens space and has no inverse"
)]
pub struct SingularError {
    /// The determinant of the matrix.
    pub determinant: f64,
}

/// An affine map `p -> linear * p + translation` of `[z, y, x]` points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// Rows z, y, x; columns z, y, x, 1.
    rows: [[f64; 4]; 3],
}

/// The polar decomposition of an affine's linear part: `linear = rotation * stretch`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// A rotation (determinant 1), rows and columns z, y, x.
    pub rotation: [[f64; 3]; 3],
    /// The angle of `rotation` in radians.
    pub angle: f64,
    /// The principal stretches, largest first; the last is negative for a reflection.
    pub scales: [f64; 3],
    /// The ratio of the largest to the smallest absolute stretch, minus 1: 0 for a similarity,
    /// infinite for a singular matrix.
    pub shear: f64,
    /// The determinant of the linear part.
    pub determinant: f64,
}

impl Affine {
    /// The identity.
    pub const IDENTITY: Self =
        Self { rows: [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]] };

    /// Creates a map from three rows (z, y, x) of four columns (z, y, x, 1).
    pub fn from_rows(rows: [[f64; 4]; 3]) -> Self {
        Self { rows }
    }

    /// Creates a map from a linear part (rows and columns z, y, x) and a translation.
    pub fn from_parts(linear: [[f64; 3]; 3], translation: Point) -> Self {
        Self {
            rows: std::array::from_fn(|r| {
                [linear[r][0], linear[r][1], linear[r][2], translation[r]]
            }),
        }
    }

    /// A pure translation by `by`.
    pub fn translation(by: Point) -> Self {
        let mut map = Self::IDENTITY;
        for a in 0..3 {
            map.rows[a][3] = by[a];
        }
        map
    }

    /// The rows z, y, x; columns z, y, x, 1.
    pub fn rows(&self) -> [[f64; 4]; 3] {
        self.rows
    }

    /// The linear part, rows and columns z, y, x.
    pub fn linear(&self) -> [[f64; 3]; 3] {
        self.rows.map(|r| [r[0], r[1], r[2]])
    }

    /// The translation, which is the image of the origin.
    pub fn offset(&self) -> Point {
        self.rows.map(|r| r[3])
    }

    /// The image of the point `p`.
    #[inline]
    pub fn apply(&self, p: Point) -> Point {
        self.rows.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3])
    }

    /// The image of the vector `v`, to which the translation does not apply.
    pub fn apply_vector(&self, v: Point) -> Point {
        self.rows.map(|r| r[0] * v[0] + r[1] * v[1] + r[2] * v[2])
    }

    /// Composes two maps, this one first: `p -> next(self(p))`.
    ///
    /// ```
    /// use voxloom::geom::Affine;
    ///
    /// let shift = Affine::translation([0.0, 0.0, 2.0]);
    /// let double = Affine::from_parts([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]], [0.0; 3]);
    /// assert_eq!(shift.then(&double).apply([1.0; 3]), [2.0, 2.0, 6.0]);
    /// assert_eq!(double.then(&shift).apply([1.0; 3]), [2.0, 2.0, 4.0]);
    /// ```
    #[must_use]
    pub fn then(&self, next: &Self) -> Self {
        Self {
            rows: std::array::from_fn(|r| {
                std::array::from_fn(|c| {
                    let n = &next.rows[r];
                    let sum = (0..3).map(|k| n[k] * self.rows[k][c]).sum::<f64>();
                    sum + if c == 3 { n[3] } else { 0.0 }
                })
            }),
        }
    }

    /// The determinant of the linear part; negative for a reflection.
    pub fn determinant(&self) -> f64 {
        self.matrix().determinant()
    }

    /// The inverse map.
    ///
    /// # Errors
    /// [`SingularError`] if the linear part is not finite or is numerically singular: the absolute
    /// determinant is at most 1e-12 times the cube of the Frobenius norm of the matrix.
    ///
    /// ```
    /// use voxloom::geom::Affine;
    ///
    /// let map = Affine::translation([1.0, -2.0, 0.5]);
    /// assert_eq!(map.then(&map.inverse()?).apply([3.0, 4.0, 5.0]), [3.0, 4.0, 5.0]);
    /// assert!(Affine::from_rows([[0.0; 4]; 3]).inverse().is_err());
    /// # Ok::<(), voxloom::geom::SingularError>(())
    /// ```
    pub fn inverse(&self) -> Result<Self, SingularError> {
        let matrix = self.matrix();
        let determinant = matrix.determinant();
        let size = matrix.norm().powi(3);
        if !(determinant.is_finite() && determinant.abs() > 1e-12 * size) {
            return Err(SingularError { determinant });
        }
        let inverse = matrix.try_inverse().ok_or(SingularError { determinant })?;
        let offset = -(inverse * Vector3::from(self.offset()));
        Ok(Self::from_parts(rows_of(&inverse), offset.into()))
    }

    /// The same map in coordinates with a new origin: `p -> self(p + origin) - origin`.
    #[must_use]
    pub fn recenter(&self, origin: Point) -> Self {
        Self::translation(origin).then(self).then(&Self::translation(origin.map(|v| -v)))
    }

    /// Decomposes the linear part into rotation, stretches and shear.
    pub fn decompose(&self) -> Parts {
        let svd = self.matrix().svd(true, true);
        let (mut u, v_t) =
            (svd.u.unwrap_or_else(Matrix3::identity), svd.v_t.unwrap_or_else(Matrix3::identity));
        let mut order = [0, 1, 2];
        order.sort_by(|&a, &b| svd.singular_values[b].total_cmp(&svd.singular_values[a]));
        let mut scales = order.map(|i| svd.singular_values[i]);
        let shear = if scales[2] > 0.0 { scales[0] / scales[2] - 1.0 } else { f64::INFINITY };
        if (u * v_t).determinant() < 0.0 {
            let smallest = order[2];
            u.column_mut(smallest).neg_mut();
            scales[2] = -scales[2];
        }
        let rotation = u * v_t;
        let angle = ((rotation.trace() - 1.0) / 2.0).clamp(-1.0, 1.0).acos();
        Parts {
            rotation: rows_of(&rotation),
            angle,
            scales,
            shear,
            determinant: self.determinant(),
        }
    }

    /// The largest distance between the images of the corners of the extent `[low, high]` under the
    /// two maps.
    pub fn distance(&self, other: &Self, [low, high]: [Point; 2]) -> f64 {
        corners([low, high])
            .map(|p| {
                let (a, b) = (self.apply(p), other.apply(p));
                (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt()
            })
            .into_iter()
            .fold(0.0, f64::max)
    }

    fn matrix(&self) -> Matrix3<f64> {
        Matrix3::from_fn(|r, c| self.rows[r][c])
    }
}

/// The eight corners of an extent.
pub(super) fn corners([low, high]: [Point; 2]) -> [Point; 8] {
    std::array::from_fn(|i| std::array::from_fn(|a| if i >> a & 1 == 0 { low[a] } else { high[a] }))
}

fn rows_of(m: &Matrix3<f64>) -> [[f64; 3]; 3] {
    std::array::from_fn(|r| std::array::from_fn(|c| m[(r, c)]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_affine() -> impl Strategy<Value = Affine> {
        prop::array::uniform3(prop::array::uniform4(-0.3..0.3f64)).prop_map(|mut rows| {
            for (a, row) in rows.iter_mut().enumerate() {
                row[a] += 1.0;
                row[3] *= 100.0;
            }
            Affine::from_rows(rows)
        })
    }

    proptest! {
        #[test]
        fn an_inverse_undoes_its_map(map in any_affine(), p in prop::array::uniform3(-50.0..50.0f64)) {
            let back = map.inverse().unwrap().apply(map.apply(p));
            for a in 0..3 {
                prop_assert!((back[a] - p[a]).abs() < 1e-9);
            }
        }

        #[test]
        fn then_is_one_map_after_the_other(a in any_affine(), b in any_affine(),
                                           p in prop::array::uniform3(-50.0..50.0f64)) {
            let (once, twice) = (a.then(&b).apply(p), b.apply(a.apply(p)));
            for i in 0..3 {
                prop_assert!((once[i] - twice[i]).abs() < 1e-9);
            }
        }

        #[test]
        fn recentring_changes_the_frame_and_not_the_map(a in any_affine(),
                                                        o in prop::array::uniform3(-50.0..50.0f64)) {
            let here = a.recenter(o).apply([1.0, 2.0, 3.0]);
            let there = a.apply([1.0 + o[0], 2.0 + o[1], 3.0 + o[2]]);
            for i in 0..3 {
                prop_assert!((here[i] - (there[i] - o[i])).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_flat_matrix_has_no_inverse() {
        let flat = Affine::from_rows([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0; 4]]);
        assert!(flat.inverse().is_err());
    }

    #[test]
    fn a_reflection_shows_as_a_negative_stretch() {
        let mirror =
            Affine::from_rows([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0]]);
        let parts = mirror.decompose();
        assert!(parts.determinant < 0.0 && parts.scales[2] < 0.0);
        assert!((parts.shear - 1.0).abs() < 1e-12);
    }
}
