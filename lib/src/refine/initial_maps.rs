//! The rotated, scaled and mirrored versions of the initial map that a search tries.

use nalgebra::{Quaternion, UnitQuaternion};

use super::SearchOptions;
use crate::geom::Affine;
use crate::metric::{hash, unit};

/// The linear part of a map, rows and columns z, y, x.
pub(super) type Linear = [[f64; 3]; 3];

/// The linear maps that turn the initial map into the versions that a search tries. The first is
/// the identity, scaled if `search.scale_range` excludes 1.
///
/// Rotation and scale follow an additive recurrence (Roberts 2018, a generalised golden ratio) with
/// an offset that depends on the seed. Its points fill their range more evenly than independent
/// draws, for any number of points, and a shorter sequence is the beginning of a longer one. Every
/// second version is mirrored along x if `search.allow_reflection` is set.
pub(super) fn linear_maps(search: &SearchOptions, planar: bool, seed: u64) -> Vec<Linear> {
    let dimensions = if planar { 2 } else { 4 };
    let steps = recurrence(dimensions);
    let offsets: Vec<f64> = (0..dimensions).map(|d| unit(hash(seed, 1), d as u64)).collect();
    (0..search.starts)
        .map(|i| {
            if i == 0 {
                return scaled(
                    &IDENTITY,
                    1.0f64.clamp(search.scale_range[0], search.scale_range[1]),
                );
            }
            let mirrored = search.allow_reflection && i % 2 == 1;
            let point = |d: usize| (offsets[d] + i as f64 * steps[d]).fract();
            let [low, high] = search.scale_range.map(f64::ln);
            let scale = (low + (high - low) * point(0)).exp();
            let rotation = if planar {
                in_plane(search.max_rotation * (2.0 * point(1) - 1.0))
            } else {
                in_space([point(1), point(2), point(3)], search.max_rotation)
            };
            let mut linear = scaled(&rotation, scale);
            if mirrored {
                linear.iter_mut().for_each(|row| row[2] = -row[2]);
            }
            linear
        })
        .collect()
}

/// Rotations by multiples of 90 degrees about the axes, up to `search.max_rotation` and without the
/// identity; if `search.allow_reflection` is set, also mirror images. They cover volumes that were
/// stored, mounted or cut along other axes.
pub(super) fn axis_rotations(search: &SearchOptions, planar: bool) -> Vec<Linear> {
    let scale = 1.0f64.clamp(search.scale_range[0], search.scale_range[1]);
    let mut axis_rotations = Vec::new();
    for linear in signed_permutations() {
        let determinant = Affine::from_parts(linear, [0.0; 3]).determinant();
        if (planar && linear[0][0] != 1.0) || (determinant < 0.0 && !search.allow_reflection) {
            continue;
        }
        // a mirror image is mirrored along x first and then rotated
        let rotation = linear.map(|row| [row[0], row[1], row[2] * determinant]);
        let trace = rotation[0][0] + rotation[1][1] + rotation[2][2];
        let angle = ((trace - 1.0) / 2.0).clamp(-1.0, 1.0).acos();
        if linear != IDENTITY && angle <= search.max_rotation + 1e-9 {
            axis_rotations.push(scaled(&linear, scale));
        }
    }
    axis_rotations
}

/// All 48 matrices that permute and flip axes.
pub(super) fn signed_permutations() -> impl Iterator<Item = Linear> {
    const ORDERS: [[usize; 3]; 6] =
        [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    ORDERS.into_iter().flat_map(|order| {
        (0..8).map(move |signs| {
            let mut linear = [[0.0; 3]; 3];
            for (r, row) in linear.iter_mut().enumerate() {
                row[order[r]] = if signs >> r & 1 == 1 { -1.0 } else { 1.0 };
            }
            linear
        })
    })
}

pub(super) const IDENTITY: Linear = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

fn scaled(linear: &Linear, by: f64) -> Linear {
    linear.map(|row| row.map(|v| v * by))
}

/// The steps of the recurrence, `x^-1` to `x^-d`, where `d` is `dimensions` and `x > 1` solves
/// `x^(d+1) = x + 1`.
fn recurrence(dimensions: usize) -> Vec<f64> {
    let mut root = 2.0f64;
    for _ in 0..64 {
        root = (1.0 + root).powf(1.0 / (dimensions as f64 + 1.0));
    }
    (1..=dimensions).map(|d| root.powi(-(d as i32))).collect()
}

pub(super) fn in_plane(angle: f64) -> Linear {
    let (sin, cos) = angle.sin_cos();
    [[1.0, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]]
}

/// A rotation by at most `most` radians for a point of the unit cube; uniform points give uniform
/// rotations.
pub(super) fn in_space([a, b, c]: [f64; 3], most: f64) -> Linear {
    // the angles of uniform rotations have a density proportional to 1 - cos(angle)
    let cumulative = |angle: f64| angle - angle.sin();
    let wanted = a * cumulative(most);
    let (mut low, mut high) = (0.0, most);
    for _ in 0..48 {
        let middle = 0.5 * (low + high);
        if cumulative(middle) < wanted { low = middle } else { high = middle }
    }
    let z = 2.0 * b - 1.0;
    let rim = (1.0 - z * z).max(0.0).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * c).sin_cos();
    let (half_sin, half_cos) = (0.5 * low).sin_cos();
    let quaternion =
        Quaternion::new(half_cos, half_sin * z, half_sin * rim * sin, half_sin * rim * cos);
    let matrix = UnitQuaternion::from_quaternion(quaternion).to_rotation_matrix();
    std::array::from_fn(|r| std::array::from_fn(|c| matrix[(r, c)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(starts: usize) -> SearchOptions {
        SearchOptions {
            starts,
            max_rotation: std::f64::consts::PI,
            max_translation: None,
            scale_range: [0.25, 4.0],
            allow_reflection: true,
            keep: 1,
        }
    }

    fn parts(linear: &Linear) -> crate::geom::Parts {
        Affine::from_parts(*linear, [0.0; 3]).decompose()
    }

    #[test]
    fn versions_are_similarities_within_their_ranges_and_half_of_them_mirrored() {
        for planar in [true, false] {
            let found = linear_maps(&search(400), planar, 7);
            assert_eq!(found[0], IDENTITY);
            let mirrored = found.iter().filter(|linear| parts(linear).determinant < 0.0).count();
            assert_eq!(mirrored, 200);
            for linear in &found {
                let parts = parts(linear);
                let size = parts.determinant.abs().cbrt();
                if planar {
                    let in_plane = linear[1][1] * linear[2][2] - linear[1][2] * linear[2][1];
                    assert!((0.24..4.1).contains(&in_plane.abs().sqrt()));
                } else {
                    assert!(parts.shear < 1e-9 && (0.24..4.1).contains(&size));
                }
            }
        }
    }

    #[test]
    fn turns_are_the_other_symmetries_of_a_box_within_the_largest_rotation() {
        let turned = |allow_reflection, max_rotation: f64, planar| {
            let what = SearchOptions { max_rotation, allow_reflection, ..search(1) };
            axis_rotations(&what, planar).len()
        };
        let pi = std::f64::consts::PI;
        assert_eq!([turned(true, pi, false), turned(false, pi, false)], [47, 23]);
        assert_eq!([turned(true, pi, true), turned(false, pi, true)], [7, 3]);
        // 90 degrees about an axis, in either direction; for mirror images also 0 degrees
        assert_eq!([turned(true, 1.6, false), turned(false, 1.6, false)], [13, 6]);
        assert_eq!(turned(false, 0.5, false), 0);
    }

    #[test]
    fn few_versions_are_the_first_of_many_and_the_seed_moves_them() {
        let many = linear_maps(&search(100), false, 3);
        assert_eq!(linear_maps(&search(10), false, 3), many[..10]);
        assert_ne!(linear_maps(&search(10), false, 4), many[..10]);
    }

    #[test]
    fn rotations_stay_within_their_limit_and_fill_it() {
        let narrow = SearchOptions {
            max_rotation: 0.4,
            scale_range: [1.0, 1.0],
            allow_reflection: false,
            ..search(500)
        };
        for planar in [true, false] {
            let angles: Vec<f64> =
                linear_maps(&narrow, planar, 1).iter().map(|linear| parts(linear).angle).collect();
            assert!(angles.iter().all(|a| *a <= 0.4 + 1e-6));
            assert!(angles.iter().any(|a| *a > 0.38));
        }
    }
}
