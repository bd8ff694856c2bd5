//! Where an alignment takes each section.

use serde::Serialize;

use super::Error;
use crate::geom::{Chain, Grid};

/// The number of points along y and x at which the displacement of a section is looked up.
const POINTS: usize = 13;

/// The displacement of a section, as a rotation about the middle, a shift, and what these leave; if it
/// fits better, the section is mirrored along x first.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Place {
    /// The shift of the middle along y and x, micrometres.
    pub(super) shift_um: [f64; 2],
    pub(super) rotation_degrees: f64,
    pub(super) mirrored: bool,
    /// The root mean square of what the rotation and the shift leave, micrometres.
    pub(super) bending_um: f64,
    /// Points of the aligned section, and what is left there; micrometres along y and x.
    #[serde(skip)]
    pub(super) bends: Vec<([f64; 2], [f64; 2])>,
}

/// The place of each section; `None` where the transforms are unknown.
///
/// # Errors
/// [`Error::Input`] if a displacement field cannot be read, or does not reach the stack.
pub(super) fn places(chain: &Chain, grid: &Grid) -> Result<Vec<Option<Place>>, Error> {
    (0..grid.shape[0]).map(|section| place(chain, grid, section)).collect()
}

fn place(chain: &Chain, grid: &Grid, section: usize) -> Result<Option<Place>, Error> {
    let size = [1, 2].map(|a| grid.shape[a] as f64 - 1.0);
    let at = |y: f64, x: f64| grid.position([section as f64, y * size[0], x * size[1]]);
    let (local, _) = chain
        .localise([at(0.0, 0.0), at(1.0, 1.0)])
        .map_err(|e| Error::Input { path: "--transform".to_owned(), message: e.to_string() })?;
    let pairs: Vec<([f64; 2], [f64; 2])> = (0..POINTS * POINTS)
        .map(|i| {
            let share = |i: usize| (i as f64 + 0.5) / POINTS as f64;
            let p = at(share(i / POINTS), share(i % POINTS));
            let q = local.apply(p);
            ([p[1], p[2]], [q[1], q[2]])
        })
        .filter(|(_, q)| q.iter().all(|v| v.is_finite()))
        .collect();
    Ok((2 * pairs.len() > POINTS * POINTS).then(|| fitted(&pairs)))
}

fn fitted(pairs: &[([f64; 2], [f64; 2])]) -> Place {
    let [plain, mirrored] = [1.0, -1.0].map(|side| turned(pairs, side));
    if mirrored.bending_um < plain.bending_um { mirrored } else { plain }
}

/// Fits a rotation and a shift to pairs of points (in the plane, in closed form).
///
/// * `side`: the sign of x before the rotation
fn turned(pairs: &[([f64; 2], [f64; 2])], side: f64) -> Place {
    let count = pairs.len() as f64;
    let mean = |of: fn(&([f64; 2], [f64; 2])) -> [f64; 2]| {
        [0, 1].map(|a| pairs.iter().map(|pair| of(pair)[a]).sum::<f64>() / count)
    };
    let (from, to) = (mean(|pair| pair.0), mean(|pair| pair.1));
    let (mut cross, mut dot) = (0.0, 0.0);
    for (p, q) in pairs {
        let (p, q) = ([p[0] - from[0], side * (p[1] - from[1])], [q[0] - to[0], q[1] - to[1]]);
        dot += p[0] * q[0] + p[1] * q[1];
        cross += p[1] * q[0] - p[0] * q[1];
    }
    // q = (cos p_y + sin p_x, -sin p_y + cos p_x)
    let angle = cross.atan2(dot);
    let (sin, cos) = angle.sin_cos();
    let bends: Vec<([f64; 2], [f64; 2])> = pairs
        .iter()
        .map(|(p, q)| {
            let at = [p[0] - from[0], side * (p[1] - from[1])];
            let turned = [cos * at[0] + sin * at[1], -sin * at[0] + cos * at[1]];
            (*p, [q[0] - to[0] - turned[0], q[1] - to[1] - turned[1]])
        })
        .collect();
    let squares: f64 = bends.iter().map(|(_, bend)| bend[0].powi(2) + bend[1].powi(2)).sum();
    Place {
        shift_um: [to[0] - from[0], to[1] - from[1]],
        rotation_degrees: angle.to_degrees(),
        mirrored: side < 0.0,
        bending_um: (squares / count).sqrt(),
        bends,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_and_a_shift_leave_no_bending() {
        let (sin, cos) = 0.7f64.sin_cos();
        let map = |[y, x]: [f64; 2]| [cos * y + sin * x + 3.0, -sin * y + cos * x - 2.0];
        let points = [[0.0, 0.0], [0.0, 8.0], [8.0, 0.0], [8.0, 8.0]];
        let mut pairs: Vec<_> = points.iter().map(|p| (*p, map(*p))).collect();
        let place = fitted(&pairs);
        assert!((place.rotation_degrees - 0.7f64.to_degrees()).abs() < 1e-9);
        assert!(place.bending_um < 1e-9 && !place.mirrored);
        let flipped: Vec<_> = points.iter().map(|p| (*p, map([p[0], 8.0 - p[1]]))).collect();
        assert!(fitted(&flipped).bending_um < 1e-9 && fitted(&flipped).mirrored);
        // the middle, (4, 4), is moved to its image
        let middle = map([4.0, 4.0]);
        for a in 0..2 {
            assert!((place.shift_um[a] - (middle[a] - 4.0)).abs() < 1e-9);
        }
        pairs[0].1[0] += 1.0;
        assert!(fitted(&pairs).bending_um > 0.2);
    }
}
