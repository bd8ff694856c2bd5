//! A search for the points within a given distance, by a grid of cells.

use std::collections::HashMap;

use crate::geom::Point;

/// Points sorted into cells whose side is the search distance.
///
/// A k-d tree would also serve, but cells need no balancing and tolerate any number of points in
/// one plane, which is common for spots on voxels.
pub(super) struct NeighbourGrid {
    distance: f64,
    width: f64,
    cells: HashMap<[i64; 3], Vec<u32>>,
    points: Vec<Point>,
}

impl NeighbourGrid {
    /// Sorts `points` into cells for searches within `distance`.
    pub(super) fn new(points: Vec<Point>, distance: f64) -> Self {
        // a tiny distance must not lead to cell indices beyond the range of integers
        let width = distance.max(1e-6);
        let mut cells: HashMap<_, Vec<u32>> = HashMap::new();
        for (i, &p) in points.iter().enumerate() {
            cells.entry(cell(p, width)).or_default().push(i as u32);
        }
        Self { distance, width, cells, points }
    }

    /// The indices of points at a distance of at most `distance` from `centre`, in ascending order.
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
    // the index saturates within the range of i64, so that neighbouring indices do not overflow
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
            let square = |p: &Point| (0..3).map(|a| (p[a] - centre[a]).powi(2)).sum::<f64>();
            let slow: Vec<u32> = (0..points.len() as u32)
                .filter(|&i| square(&points[i as usize]) <= distance * distance)
                .collect();
            let mut fast = Vec::new();
            NeighbourGrid::new(points, distance).within(centre, &mut fast);
            prop_assert_eq!(fast, slow);
        }
    }
}
