//! Matrices computed from the parameters of ITK transforms (ITK Software Guide, book 2, chapter
//! 3.9; each class's `ComputeMatrix`). elastix has the same parameters under shorter class names.

/// A linear part and an offset, with axes x, y, z.
pub(super) type Matrix = ([[f64; 3]; 3], [f64; 3]);

type Linear = [[f64; 3]; 3];

const UNIT: Linear = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

/// The matrix of the transform `name` (without precision and dimensions) with `axes` axes.
///
/// `None` if the class is unknown.
///
/// # Errors
/// A message if the number of parameters is wrong or a parameter is not finite.
pub(super) fn matrix(
    name: &str,
    axes: usize,
    parameters: &[f64],
    fixed: &[f64],
) -> Option<Result<Matrix, String>> {
    let count = parameter_count(name, axes)?;
    if parameters.len() != count {
        return Some(Err(format!(
            "has {} parameters for a {name} of {axes} axes, wanted {count}",
            parameters.len()
        )));
    }
    if let Some(bad) = parameters.iter().chain(fixed).find(|v| !v.is_finite()) {
        return Some(Err(format!("has the parameter {bad}, wanted finite numbers")));
    }
    Some(Ok(compute(name, axes, parameters, fixed)))
}

fn parameter_count(name: &str, axes: usize) -> Option<usize> {
    Some(match (name, axes) {
        ("IdentityTransform", _) => 0,
        ("TranslationTransform" | "ScaleTransform", n) => n,
        ("AffineTransform" | "MatrixOffsetTransformBase" | "ScalableAffineTransform", n) => {
            n * (n + 1)
        }
        ("CenteredAffineTransform", n) => n * (n + 2),
        ("Euler2DTransform" | "Rigid2DTransform", 2) | ("VersorTransform", 3) => 3,
        ("Similarity2DTransform", 2) => 4,
        ("CenteredRigid2DTransform", 2) => 5,
        ("CenteredSimilarity2DTransform", 2)
        | ("Euler3DTransform" | "VersorRigid3DTransform", 3) => 6,
        ("QuaternionRigidTransform" | "Similarity3DTransform", 3) => 7,
        ("CenteredEuler3DTransform" | "ScaleVersor3DTransform", 3) => 9,
        ("Rigid3DTransform" | "ComposeScaleSkewVersor3DTransform", 3) => 12,
        ("ScaleSkewVersor3DTransform", 3) => 15,
        _ => return None,
    })
}

fn compute(name: &str, axes: usize, p: &[f64], fixed: &[f64]) -> Matrix {
    let center = |from: &[f64]| -> [f64; 3] {
        std::array::from_fn(|a| if a < axes { from.get(a).copied().unwrap_or(0.0) } else { 0.0 })
    };
    let fixed_center = center(fixed);
    let shift = |from: usize| center(&p[from..]);
    match name {
        "TranslationTransform" => (UNIT, shift(0)),
        "ScaleTransform" => around_center(scaled(UNIT, &p[..axes]), [0.0; 3], fixed_center),
        "AffineTransform" | "MatrixOffsetTransformBase" | "ScalableAffineTransform" => {
            around_center(square(p, axes), shift(axes * axes), fixed_center)
        }
        "CenteredAffineTransform" => {
            let n = axes * axes;
            around_center(square(p, axes), shift(n + axes), center(&p[n..]))
        }
        "Euler2DTransform" | "Rigid2DTransform" => {
            around_center(turn(p[0], 1.0), shift(1), fixed_center)
        }
        "Similarity2DTransform" => around_center(turn(p[1], p[0]), shift(2), fixed_center),
        "CenteredRigid2DTransform" => around_center(turn(p[0], 1.0), shift(3), center(&p[1..])),
        "CenteredSimilarity2DTransform" => {
            around_center(turn(p[1], p[0]), shift(4), center(&p[2..]))
        }
        "VersorTransform" => around_center(versor(p), [0.0; 3], fixed_center),
        "VersorRigid3DTransform" => around_center(versor(p), shift(3), fixed_center),
        // a nonzero fourth fixed parameter selects the order Rz Ry Rx
        "Euler3DTransform" => {
            around_center(euler(p, fixed.get(3).is_some_and(|v| *v != 0.0)), shift(3), fixed_center)
        }
        "CenteredEuler3DTransform" => around_center(
            euler(p, fixed.first().is_some_and(|v| *v != 0.0)),
            shift(6),
            center(&p[3..]),
        ),
        "QuaternionRigidTransform" => around_center(quaternion(p), shift(4), fixed_center),
        "Similarity3DTransform" => {
            around_center(versor(p).map(|row| row.map(|v| v * p[6])), shift(3), fixed_center)
        }
        "ScaleVersor3DTransform" | "ScaleSkewVersor3DTransform" => {
            around_center(skewed(p), shift(3), fixed_center)
        }
        "ComposeScaleSkewVersor3DTransform" => around_center(composed(p), shift(3), fixed_center),
        "Rigid3DTransform" => around_center(square(p, 3), shift(9), fixed_center),
        _ => (UNIT, [0.0; 3]), // the identity
    }
}

/// `x -> M (x - center) + shift + center`.
fn around_center(linear: Linear, shift: [f64; 3], center: [f64; 3]) -> Matrix {
    let offset = std::array::from_fn(|r| {
        let turned: f64 = (0..3).map(|c| linear[r][c] * center[c]).sum();
        shift[r] + center[r] - turned
    });
    (linear, offset)
}

/// A matrix of `axes` rows and columns, by rows; with 2 axes, z is unchanged.
fn square(p: &[f64], axes: usize) -> Linear {
    let mut linear = UNIT;
    for r in 0..axes {
        linear[r][..axes].copy_from_slice(&p[r * axes..(r + 1) * axes]);
    }
    linear
}

fn scaled(mut linear: Linear, scales: &[f64]) -> Linear {
    for row in &mut linear {
        for (value, scale) in row.iter_mut().zip(scales) {
            *value *= scale;
        }
    }
    linear
}

fn product(a: &Linear, b: &Linear) -> Linear {
    std::array::from_fn(|r| std::array::from_fn(|c| (0..3).map(|k| a[r][k] * b[k][c]).sum()))
}

/// Rotation by `angle` in the x-y plane, times `scale`.
fn turn(angle: f64, scale: f64) -> Linear {
    let (sin, cos) = angle.sin_cos();
    [[cos * scale, -sin * scale, 0.0], [sin * scale, cos * scale, 0.0], [0.0, 0.0, 1.0]]
}

/// The rotation by the angles `p` (radians): `Rz Rx Ry`, or `Rz Ry Rx` if `zyx`.
fn euler(p: &[f64], zyx: bool) -> Linear {
    let [(sx, cx), (sy, cy), (sz, cz)] = [p[0], p[1], p[2]].map(f64::sin_cos);
    let x = [[1.0, 0.0, 0.0], [0.0, cx, -sx], [0.0, sx, cx]];
    let y = [[cy, 0.0, sy], [0.0, 1.0, 0.0], [-sy, 0.0, cy]];
    let z = [[cz, -sz, 0.0], [sz, cz, 0.0], [0.0, 0.0, 1.0]];
    let rest = if zyx { product(&y, &x) } else { product(&x, &y) };
    product(&z, &rest)
}

/// The rotation of a versor, the vector part of a unit quaternion.
fn versor(p: &[f64]) -> Linear {
    let square: f64 = p[..3].iter().map(|v| v * v).sum();
    quaternion(&[p[0], p[1], p[2], (1.0 - square).max(0.0).sqrt()])
}

/// The rotation of the quaternion x, y, z, w, which need not be normalised.
fn quaternion(q: &[f64]) -> Linear {
    let length = q[..4].iter().map(|v| v * v).sum::<f64>().sqrt();
    let [x, y, z, w] = if length > 0.0 {
        [q[0], q[1], q[2], q[3]].map(|v| v / length)
    } else {
        [0.0, 0.0, 0.0, 1.0]
    };
    [
        [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
        [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
        [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
    ]
}

/// The rotation of a versor, to which `ScaleVersor3DTransform` and `ScaleSkewVersor3DTransform` add
/// scales and skews.
fn skewed(p: &[f64]) -> Linear {
    let mut linear = versor(p);
    for a in 0..3 {
        linear[a][a] += p[6 + a] - 1.0;
    }
    if let Some(skew) = p.get(9..15) {
        for (k, (r, c)) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)].into_iter().enumerate()
        {
            linear[r][c] += skew[k];
        }
    }
    linear
}

/// The product `R S K` of rotation, scales and skews.
fn composed(p: &[f64]) -> Linear {
    let skew = [[1.0, p[9], p[10]], [0.0, 1.0, p[11]], [0.0, 0.0, 1.0]];
    product(&scaled(versor(p), &p[6..9]), &skew)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_center_stays_where_it_is_but_for_the_shift() {
        let p = [0.1, -0.2, 0.3, 1.0, 2.0, 3.0];
        let (linear, offset) =
            matrix("Euler3DTransform", 3, &p, &[4.0, 5.0, 6.0]).unwrap().unwrap();
        let image: Vec<f64> = (0..3)
            .map(|r| linear[r][0] * 4.0 + linear[r][1] * 5.0 + linear[r][2] * 6.0 + offset[r])
            .collect();
        for (got, want) in image.iter().zip([5.0, 7.0, 9.0]) {
            assert!((got - want).abs() < 1e-12);
        }
    }

    #[test]
    fn rotations_are_rotations() {
        for (name, p) in [
            ("Euler3DTransform", vec![0.1, 0.2, 0.3, 0.0, 0.0, 0.0]),
            ("VersorRigid3DTransform", vec![0.1, 0.2, 0.3, 0.0, 0.0, 0.0]),
            ("QuaternionRigidTransform", vec![0.1, 0.2, 0.3, 2.0, 0.0, 0.0, 0.0]),
        ] {
            let (linear, _) = matrix(name, 3, &p, &[]).unwrap().unwrap();
            let transposed = std::array::from_fn(|r| std::array::from_fn(|c| linear[c][r]));
            let both = product(&linear, &transposed);
            for r in 0..3 {
                for c in 0..3 {
                    assert!((both[r][c] - UNIT[r][c]).abs() < 1e-12, "{name}");
                }
            }
        }
    }

    #[test]
    fn a_wrong_number_of_parameters_is_counted_and_an_unknown_name_is_not_guessed() {
        let few = matrix("AffineTransform", 3, &[1.0; 11], &[]).unwrap().unwrap_err();
        assert_eq!(few, "has 11 parameters for a AffineTransform of 3 axes, wanted 12");
        assert!(matrix("SomeTransform", 3, &[], &[]).is_none());
        assert!(matrix("Euler3DTransform", 2, &[0.0; 6], &[]).is_none());
    }
}
