//! The maximum of a parabola through a sample and its neighbours.

use nalgebra::{Matrix3, Vector3};

use crate::geom::Point;

/// The offset from a local maximum of samples to the vertex of a parabola through the maximum and
/// its 18 neighbours that differ along at most two axes, in samples along z, y, x. The offset is 0
/// along an axis that is not free.
///
/// * `value`: the sample at an offset of -1, 0 or 1 along each axis
/// * `is_free`: the axes along which the maximum has neighbours on both sides
pub(crate) fn vertex(mut value: impl FnMut([isize; 3]) -> f64, is_free: [bool; 3]) -> Point {
    let along = |a: usize, i: isize, b: usize, j: isize| {
        let mut by = [0; 3];
        by[a] += i;
        by[b] += j;
        by
    };
    let height = value([0; 3]);
    let mut slope = Vector3::zeros();
    let mut bend = Matrix3::identity() * -1.0;
    for a in (0..3).filter(|&a| is_free[a]) {
        let [up, down] = [1, -1].map(|i| value(along(a, i, a, 0)));
        slope[a] = (up - down) / 2.0;
        bend[(a, a)] = up + down - 2.0 * height;
        for b in (0..a).filter(|&b| is_free[b]) {
            let mut corner = |i, j| value(along(a, i, b, j));
            let cross = corner(1, 1) + corner(-1, -1) - corner(1, -1) - corner(-1, 1);
            bend[(a, b)] = cross / 4.0;
            bend[(b, a)] = cross / 4.0;
        }
    }
    let inside = |part: &Vector3<f64>| part.iter().all(|v| v.abs() <= 1.0);
    let whole = (-bend).cholesky().map(|c| c.solve(&slope)).filter(inside);
    // the parabola has no maximum nearby, as on a ridge: fit each axis with a maximum separately
    let part = whole.unwrap_or_else(|| {
        Vector3::from_fn(|a, _| if bend[(a, a)] < 0.0 { -slope[a] / bend[(a, a)] } else { 0.0 })
    });
    part.into()
}
