//! The offset of two tiles, and the matches in their overlap.
//!
//! The overlap of one tile is looked for in the other by normalised correlation, first at a
//! resolution at which the search window is small, then twice as fine each time. At full
//! resolution, patches of the overlap are looked for one by one. How high a correlation is by chance
//! is measured with the same overlap mirrored, which has the same spectrum and nothing in common
//! with the other tile.

use serde::{Deserialize, Serialize};

use super::strips::Strip;
use crate::flow::{BlockPair, Patches, find_peak, surfaces};
use crate::geom::Box3;

/// The search window at the coarsest resolution has at most about this half width, pixels.
const WINDOW: i64 = 12;
/// The overlap has at least this many pixels along each axis at the coarsest resolution.
const COARSE_SIDE: i64 = 12;
/// The half width of the search window at the resolutions below, pixels.
const STEP: i64 = 2;
/// The half width of the search window of patches, pixels, and how much wider it is if many matches
/// are at its edge.
const NEAR: [i64; 2] = [4, 12];
/// Patches are looked for again in a wider window if this fraction has its maximum at the edge.
const MANY_AT_EDGE: f64 = 0.2;
/// The standard deviation of the means that are subtracted as shading, pixels.
const SHADING: f64 = 5.0;
/// The least sides of patches that are made smaller to get several, across and along an overlap, pixels.
const ACROSS: i64 = 16;
const ALONG: i64 = 40;
/// The smallest patch, pixels along each axis.
const LEAST_PATCH: i64 = 12;

/// A place that two tiles show.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct TileMatch {
    /// The place in the first and in the second tile, pixels along y, x.
    pub(super) places: [[f32; 2]; 2],
    /// The correlation of the patches.
    pub(super) correlation: f32,
}

/// What the comparison of two tiles found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Link {
    /// The numbers of the tiles in the project.
    pub(super) a: usize,
    pub(super) b: usize,
    /// The place of the first pixel of `b` in `a`, pixels along y, x.
    pub(super) offset: [f64; 2],
    /// The correlation of the overlap without its shading, at the coarsest resolution.
    pub(super) correlation: f64,
    /// The highest correlations of the mirrored overlap.
    pub(super) chance: Vec<f64>,
    /// The matches of patches.
    pub(super) matches: Vec<TileMatch>,
    /// Why the tiles are not linked.
    pub(super) refusal: Option<String>,
}

/// How two tiles are compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Search {
    /// The half width of the search window, pixels.
    pub(super) radius: i64,
    /// The side of a patch, pixels.
    pub(super) patch: i64,
    /// The least correlation of a match.
    pub(super) min_correlation: f64,
}

/// The levels of a strip: each has half the resolution of the one before.
fn levels(strip: &Strip, count: usize) -> Vec<Strip> {
    let mut levels = vec![strip.clone()];
    while levels.len() < count {
        levels.extend(levels.last().map(Strip::halved));
    }
    levels
}

/// The number of levels with which the search window is small and the overlap is not.
fn count(radius: i64, overlap: [i64; 2]) -> usize {
    let least = overlap[0].min(overlap[1]);
    let fits = |level: &usize| radius >> level > WINDOW && least >> (level + 1) >= COARSE_SIDE;
    (0..20).find(|level| !fits(level)).unwrap_or(0) + 1
}

/// The highest value of a correlation, and the shift at which it is, pixels along y, x.
struct Highest {
    correlation: f64,
    shift: [f64; 2],
    at_edge: bool,
}

/// The shift of `fixed` at which it fits best to `moving`, which is wider by `radius` on all sides.
///
/// * `within`: the first pixel of `fixed` in the second tile, and the pixels of that tile. Correlations of
///   fewer pixels are higher by chance, in inverse proportion to the square root of their number; so
///   correlations count in proportion to that of the pixels that are within the tile.
fn best_shift(
    [fixed, moving]: [Vec<f32>; 2],
    shape: [usize; 3],
    radius: i64,
    (first, tile): ([i64; 3], &Box3),
) -> Option<Highest> {
    let whole = Box3::of_shape(shape).shift(first);
    let radius = [0, radius as usize, radius as usize];
    let patches = Patches { size: shape, stride: shape, radius };
    let (width, mut found) = (2 * radius[2] + 1, None);
    surfaces(BlockPair { nodes: [1; 3], fixed, moving }, &patches, |_, surface| {
        let shift = |i: usize| [i / width, i % width].map(|v| v as i64 - radius[1] as i64);
        let weighted = |(i, r): (usize, &f32)| {
            let [y, x] = shift(i);
            let inside = whole.shift([0, y, x]).intersect(tile).len();
            r * (inside as f32 / whole.len() as f32).sqrt()
        };
        let surface: Vec<f32> = surface.iter().enumerate().map(weighted).collect();
        let known = surface.iter().enumerate().filter(|(_, v)| !v.is_nan());
        let Some((i, top)) = known.max_by(|a, b| a.1.total_cmp(b.1)) else { return };
        found = Some(match find_peak(&surface, &patches) {
            Ok(peak) => Highest {
                correlation: f64::from(peak.correlation),
                shift: [peak.shift[1], peak.shift[2]],
                at_edge: false,
            },
            Err(_) => Highest {
                correlation: f64::from(*top),
                shift: shift(i).map(|v| v as f64),
                at_edge: true,
            },
        });
    });
    found
}

/// Compares the strips of two tiles.
///
/// * `expected`: the place of the first pixel of the second tile in the first, pixels
///
/// # Errors
/// Why there is no result.
pub(super) fn compare(
    strips: [&Strip; 2],
    expected: [f64; 2],
    search: &Search,
) -> Result<Link, String> {
    let mut offset = expected;
    let overlap = common(strips, whole(offset));
    let [_, height, width] = overlap.shape().map(|n| n as i64);
    let count = count(search.radius, [height, width]);
    let [a, b] = strips.map(|strip| levels(strip, count));
    let mut link = Link::default();
    // half the full resolution is fine enough for the windows of patches
    let finest = usize::from(count > 1);
    for level in (finest..count).rev() {
        let mut pair = [a[level].clone(), b[level].clone()];
        let is_coarsest = level + 1 == count;
        if is_coarsest {
            pair.iter_mut().for_each(|strip| strip.without_shading(SHADING));
        }
        let radius = if is_coarsest { (search.radius >> level).max(STEP) } else { STEP };
        let scale = f64::from(1_u32 << level);
        // reduced pixels are counted from the first pixel of each strip
        let first = strips.map(|strip| [strip.part.min[1] as f64, strip.part.min[2] as f64]);
        let shift = [0, 1].map(|c| {
            let reduced = (offset[c] - (first[0][c] - first[1][c])) / scale;
            (reduced + first[0][c] - first[1][c]).round() as i64
        });
        let found = at_level(&pair, shift, radius).ok_or("too little is known of their overlap")?;
        for c in 0..2 {
            let between = shift[c] as f64 - found.shift[c] - (first[0][c] - first[1][c]);
            offset[c] = first[0][c] - first[1][c] + scale * between;
        }
        if is_coarsest {
            link.correlation = found.correlation;
            link.chance = chance(&pair, shift, radius);
            if found.at_edge {
                return Err("they fit best at the edge of the search window".to_owned());
            }
        }
    }
    link.offset = offset;
    link.matches = matches(strips, whole(offset), search);
    Ok(link)
}

/// The nearest whole pixels.
fn whole(offset: [f64; 2]) -> [i64; 2] {
    offset.map(|v| v.round() as i64)
}

/// The pixels of the first tile that the second one shows too.
fn common(strips: [&Strip; 2], [y, x]: [i64; 2]) -> Box3 {
    strips[0].part.intersect(&strips[1].part.shift([0, y, x]))
}

/// The pixels of the first tile that are compared at an offset: those that the second one shows too,
/// without a margin beyond which the second tile ends, unless little would be left.
fn compared(strips: [&Strip; 2], shift: [i64; 2], radius: i64) -> Box3 {
    let part = common(strips, shift);
    let within = strips[1].part.shift([0, shift[0], shift[1]]).grow([0, -radius, -radius]);
    let inner = part.intersect(&within);
    let is_enough = (1..3).all(|a| 2 * inner.shape()[a] >= part.shape()[a]);
    if is_enough { inner } else { part }
}

/// The images that are compared at an offset: a part of the first strip, and a wider part of the
/// second.
fn cut(strips: &[Strip; 2], shift: [i64; 2], radius: i64) -> Option<(Vec<f32>, Vec<f32>, Box3)> {
    let part = compared([&strips[0], &strips[1]], shift, radius);
    if part.is_empty() {
        return None;
    }
    let other = part.shift([0, -shift[0], -shift[1]]).grow([0, radius, radius]);
    Some((strips[0].crop(&part), strips[1].crop(&other), part))
}

fn at_level(strips: &[Strip; 2], shift: [i64; 2], radius: i64) -> Option<Highest> {
    let (fixed, moving, part) = cut(strips, shift, radius)?;
    let first = part.shift([0, -shift[0], -shift[1]]).min;
    best_shift([fixed, moving], part.shape(), radius, (first, &strips[1].part))
}

/// The highest correlations of the common part of the first strip, mirrored along y and along x.
fn chance(strips: &[Strip; 2], shift: [i64; 2], radius: i64) -> Vec<f64> {
    let Some((fixed, moving, part)) = cut(strips, shift, radius) else { return Vec::new() };
    let width = part.shape()[2];
    let upside_down: Vec<f32> = fixed.chunks_exact(width).rev().flatten().copied().collect();
    let turned: Vec<f32> =
        fixed.chunks_exact(width).flat_map(|row| row.iter().rev()).copied().collect();
    let first = part.shift([0, -shift[0], -shift[1]]).min;
    let within = (first, &strips[1].part);
    let highest = |mirrored| best_shift([mirrored, moving.clone()], part.shape(), radius, within);
    [upside_down, turned].into_iter().filter_map(highest).map(|found| found.correlation).collect()
}

/// The number of patches along an axis of so many pixels, and the side of each: as near to `wanted` as
/// a whole number of patches can be.
fn division(length: i64, wanted: i64) -> [i64; 2] {
    let count = ((length as f64 / wanted as f64).round() as i64).max(1);
    [count, length / count]
}

/// The sides of patches in an overlap: at most `most`, and so small that several lie side by side along
/// it, and two across it if it is wide enough.
fn patch(overlap: [i64; 2], most: i64) -> [i64; 2] {
    let short = overlap[0].min(overlap[1]);
    overlap.map(|side| {
        let wanted = if side == short { (side / 2).max(ACROSS) } else { (side / 6).max(ALONG) };
        wanted.min(most)
    })
}

/// The matches of patches that lie side by side in the overlap.
fn matches(strips: [&Strip; 2], offset: [i64; 2], search: &Search) -> Vec<TileMatch> {
    let overlap = compared(strips, offset, NEAR[0]);
    let [_, height, width] = overlap.shape().map(|n| n as i64);
    let [down, along] = patch([height, width], search.patch);
    let ([rows, tall], [columns, wide]) = (division(height, down), division(width, along));
    if tall.min(wide) < LEAST_PATCH {
        return Vec::new();
    }
    let size = [1, tall, wide].map(|n| n as usize);
    let nodes = [1, rows, columns].map(|n| n as usize);
    let end = [overlap.min[1] + rows * tall, overlap.min[2] + columns * wide];
    let part = Box3::new(overlap.min, [1, end[0], end[1]]);
    let fixed = strips[0].crop(&part);
    let mut found = Vec::new();
    for near in NEAR {
        found.clear();
        let (mut compared, mut at_edge) = (0, 0);
        let radius = [0, near as usize, near as usize];
        let patches = Patches { size, stride: size, radius };
        let window = part.shift([0, -offset[0], -offset[1]]).grow([0, near, near]);
        let pair = BlockPair { nodes, fixed: fixed.clone(), moving: strips[1].crop(&window) };
        surfaces(pair, &patches, |i, surface| {
            if surface.iter().all(|v| v.is_nan()) {
                return;
            }
            compared += 1;
            let Ok(peak) = find_peak(surface, &patches) else {
                at_edge += 1;
                return;
            };
            if f64::from(peak.correlation) < search.min_correlation {
                return;
            }
            let node = [i / nodes[2], i % nodes[2]];
            let place: [f64; 2] = std::array::from_fn(|c| {
                let middle = (size[c + 1] as f64 - 1.0) / 2.0;
                part.min[c + 1] as f64 + (node[c] * size[c + 1]) as f64 + middle
            });
            let other: [f64; 2] =
                std::array::from_fn(|c| place[c] - offset[c] as f64 + peak.shift[c + 1]);
            let places = [place, other].map(|p| p.map(|v| v as f32));
            found.push(TileMatch { places, correlation: peak.correlation });
        });
        if f64::from(at_edge) < MANY_AT_EDGE * f64::from(compared) {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A smooth scene.
    fn scene(y: f64, x: f64) -> f32 {
        let wave = |a: f64, b: f64, c: f64| (a * y + b * x + c).sin();
        let sum = wave(0.31, 0.12, 0.4)
            + wave(-0.17, 0.27, 1.0)
            + wave(0.08, -0.4, 2.0)
            + 0.7 * wave(0.45, 0.05, 0.0) * wave(0.03, 0.5, 1.5);
        (100.0 + 20.0 * sum) as f32
    }

    fn strip(part: Box3, at: [f64; 2], gain: f32) -> Strip {
        let values = part
            .tiles([1; 3])
            .map(|p| gain * scene(p.min[1] as f64 + at[0], p.min[2] as f64 + at[1]));
        Strip { part, values: values.collect() }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn an_offset_is_found_to_a_fraction_of_a_pixel(
            error in [-9.0..9.0_f64, -9.0..9.0], gain in 0.5..2.0_f32,
        ) {
            // the stage says 0, 200; the second tile is 240 x 260 pixels large
            let expected = [0.0, 200.0];
            let truth = [expected[0] + error[0], expected[1] + error[1]];
            let a = strip(Box3::new([0, 0, 190], [1, 240, 260]), [0.0; 2], 1.0);
            let b = strip(Box3::new([0, 0, 0], [1, 240, 70]), truth, gain);
            let search = Search { radius: 12, patch: 64, min_correlation: 0.3 };
            let link = compare([&a, &b], expected, &search).unwrap();
            for c in 0..2 {
                prop_assert!((link.offset[c] - truth[c]).abs() < 0.3, "{link:?} {truth:?}");
            }
            prop_assert!(link.correlation > 0.9 && link.matches.len() >= 4);
            prop_assert!(link.chance.iter().all(|c| *c < link.correlation - 0.1), "{:?}", link.chance);
            for found in &link.matches {
                let [p, q] = found.places.map(|p| p.map(f64::from));
                for c in 0..2 {
                    prop_assert!((p[c] - q[c] - truth[c]).abs() < 0.15, "{found:?} {truth:?}");
                }
            }
        }
    }

    #[test]
    fn tiles_without_structure_and_without_overlap_are_refused() {
        let flat = Strip { part: Box3::of_shape([1, 60, 60]), values: vec![3.0; 3600] };
        let search = Search { radius: 8, patch: 64, min_correlation: 0.3 };
        assert!(compare([&flat, &flat], [0.0, 20.0], &search).is_err());
        assert!(compare([&flat, &flat], [0.0, 80.0], &search).is_err());
    }
}
