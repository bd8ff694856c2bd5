//! Which points lie within a distance: a grid of cells.

use std::collections::HashMap;

use crate::geom::Point;

/// Points in cells as wide as the distance that is asked for.
///
/// A k-d tree would do as well; cells need no balance and take any number of points in one plane,
/// which spots on voxels have.
pub(super) struct Near {
    distance: f64,
    width: f64,
    cells: HashMap<[i64; 3], Vec<u32>>,
    points: Vec<Point>,
}

impl Near {
    /// Sorts `points` for questions about `distance`.
    pub(super) fn new(points: Vec<Point>, distance: f64) -> Self {
        // a tiny distance must not make more cells than integers can number
        let width = distance.max(1e-6);
        let mut cells: HashMap<_, Vec<u32>> = HashMap::new();
        for (i, &p) in points.iter().enumerate() {
            cells.entry(cell(p, width)).or_default().push(i as u32);
        }
        Self { distance, width, cells, points }
    }

    /// The points within the distance of `centre` (at it counts), in increasing order.
    pub(super) fn within(&self, centre: Point, out: &mut Vec<u32>) {
        out.clear();
        let [cz, cy, cx] = cell(centre, self.width);
        for z in cz - 1..=cz + 1 {
            for y in cy - 1..=cy + 1 {
                for x in cx - 1..=cx + 1 {
                    let Some(members) = self.cells.get(&[z, y, x]) else { continue };
                    out.extend(members.iter().filter(|&&i| {
                        let p = self.points[i as usize];
                        let square: f64 = (0..3).map(|a| (p[a] - centre[a]).powi(2)).sum();
                        square <= self.distance * self.distance
                    }));
                }
            }
        }
        out.sort_unstable();
    }
}

fn cell(p: Point, width: f64) -> [i64; 3] {
    // saturates far below the ends of i64, where neighbours can still be numbered
    p.map(|v| (v / width).floor().clamp(-1e18, 1e18) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn near_points_are_those_that_a_walk_over_all_finds(
            points in prop::collection::vec(prop::array::uniform3(-20.0..20.0f64), 0..60),
            centre in prop::array::uniform3(-25.0..25.0f64), distance in 0.0..30.0f64,
        ) {
            let apart = |p: &Point| (0..3).map(|a| (p[a] - centre[a]).powi(2)).sum::<f64>();
            let slow: Vec<u32> = (0..points.len() as u32)
                .filter(|&i| apart(&points[i as usize]) <= distance * distance)
                .collect();
            let mut fast = Vec::new();
            Near::new(points, distance).within(centre, &mut fast);
            prop_assert_eq!(fast, slow);
        }
    }
}
