//! The pairs of tiles that overlap.

use std::collections::HashMap;

use crate::geom::Box3;
use crate::tiles::Tile;

/// The least overlap of a pair along each axis, pixels.
pub(super) const LEAST_SIDE: i64 = 16;
/// The least overlap of a pair, pixels.
const LEAST_AREA: usize = 1024;

/// Two tiles of a plane that overlap, the one that comes first in the project first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TilePair {
    pub(super) a: usize,
    pub(super) b: usize,
}

/// The pixels of a tile in the coordinates of its plane, rounded.
pub(super) fn place(tile: &Tile) -> Box3 {
    let [y, x] = tile.position.map(|v| v.round() as i64);
    let [rows, columns] = tile.shape.map(|n| n as i64);
    Box3::new([0, y, x], [1, y + rows, x + columns])
}

/// All pairs that overlap according to their positions, in order.
pub(super) fn overlapping(tiles: &[Tile]) -> Vec<TilePair> {
    // each tile is entered in the cells of a grid that it touches
    let side = |a: usize| tiles.iter().map(|tile| tile.shape[a]).max().unwrap_or(1).max(1) as i64;
    let sides = [side(0), side(1)];
    let places: Vec<Box3> = tiles.iter().map(place).collect();
    let mut cells: HashMap<(i64, i64, i64), Vec<usize>> = HashMap::new();
    let mut pairs = Vec::new();
    for (b, tile) in tiles.iter().enumerate() {
        let cell = |a: usize, v: i64| v.div_euclid(sides[a]);
        let place = &places[b];
        let mut near: Vec<usize> = Vec::new();
        for y in cell(0, place.min[1])..=cell(0, place.max[1] - 1) {
            for x in cell(1, place.min[2])..=cell(1, place.max[2] - 1) {
                let here = cells.entry((tile.z, y, x)).or_default();
                near.extend(here.iter());
                here.push(b);
            }
        }
        near.sort_unstable();
        near.dedup();
        pairs.extend(near.into_iter().map(|a| TilePair { a, b }).filter(|pair| {
            let common = places[pair.a].intersect(place);
            let [_, height, width] = common.shape();
            height.min(width) as i64 >= LEAST_SIDE && height * width >= LEAST_AREA
        }));
    }
    pairs.sort_unstable_by_key(|pair| (pair.a, pair.b));
    pairs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tile(z: i64, position: [f64; 2], shape: [usize; 2]) -> Tile {
        let location = String::new();
        Tile { location, mask: None, z, shape, position, map: Vec::new(), linked: false }
    }

    proptest! {
        #[test]
        fn the_pairs_are_those_of_a_search_among_all(
            tiles in prop::collection::vec(
                (0..2_i64, [-200.0..200.0_f64, -200.0..200.0], [20..120_usize, 20..120]), 0..30,
            ),
        ) {
            let tiles: Vec<Tile> = tiles.into_iter().map(|(z, p, s)| tile(z, p, s)).collect();
            let mut slow = Vec::new();
            for a in 0..tiles.len() {
                for b in a + 1..tiles.len() {
                    let common = place(&tiles[a]).intersect(&place(&tiles[b])).shape();
                    let is_enough = common[1] >= 16 && common[2] >= 16 && common[1] * common[2] >= 1024;
                    if tiles[a].z == tiles[b].z && is_enough {
                        slow.push(TilePair { a, b });
                    }
                }
            }
            prop_assert_eq!(overlapping(&tiles), slow);
        }
    }
}
