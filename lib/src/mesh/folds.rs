//! Folds of meshes.

use super::layout::Layout;

/// A mesh folds where the area (or the volume) of a corner of a cell is below this, relative to its
/// value at rest.
const LEAST: f64 = 0.05;

/// The nodes at which a mesh folds, and the least relative area (or volume) of a corner.
pub(super) fn folds<const C: usize>(
    layout: &Layout,
    spacing: [f64; 3],
    u: &[[f64; C]],
) -> (Vec<usize>, f64) {
    let mut found = Vec::new();
    let mut least = f64::INFINITY;
    for i in 0..layout.len() {
        let area = corners(layout, spacing, u, i);
        least = least.min(area);
        if area < LEAST {
            found.push(i);
        }
    }
    (found, least)
}

/// The least relative area of the corners of the cells around node `i`.
fn corners<const C: usize>(layout: &Layout, spacing: [f64; 3], u: &[[f64; C]], i: usize) -> f64 {
    let (section, at) = layout.position(i);
    let mut least = f64::INFINITY;
    for sides in 0..1_usize << C {
        // the derivatives towards one neighbour along each axis
        let mut jacobian = [[0.0; C]; C];
        let mut is_complete = true;
        for c in 0..C {
            let (a, by) = (3 - C + c, if sides >> c & 1 == 1 { 1 } else { -1 });
            let mut beside = at;
            match at[a].checked_add_signed(by).filter(|v| *v < layout.shape[a]) {
                Some(v) => beside[a] = v,
                None => is_complete = false,
            }
            let j = layout.index(section, beside);
            for d in 0..C {
                let slope = (u[j][d] - u[i][d]) / (by as f64 * spacing[a]);
                jacobian[d][c] = slope + if c == d { 1.0 } else { 0.0 };
            }
        }
        if is_complete {
            least = least.min(determinant(&jacobian));
        }
    }
    least
}

fn determinant<const C: usize>(m: &[[f64; C]; C]) -> f64 {
    let minor = |a: usize, b: usize| m[1][a] * m[2][b] - m[1][b] * m[2][a];
    match C {
        2 => m[0][0] * m[1][1] - m[0][1] * m[1][0],
        _ => m[0][0] * minor(1, 2) - m[0][1] * minor(0, 2) + m[0][2] * minor(0, 1),
    }
}

/// Adds the nodes of the same section within `reach` nodes along each axis.
pub(super) fn grown(layout: &Layout, nodes: &[usize], reach: usize) -> Vec<usize> {
    let mut inside = vec![false; layout.len()];
    for i in nodes {
        let (section, at) = layout.position(*i);
        let range =
            |a: usize| at[a].saturating_sub(reach)..(at[a] + reach + 1).min(layout.shape[a]);
        for z in range(0) {
            for y in range(1) {
                for x in range(2) {
                    inside[layout.index(section, [z, y, x])] = true;
                }
            }
        }
    }
    (0..inside.len()).filter(|i| inside[*i]).collect()
}
