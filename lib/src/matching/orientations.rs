//! Matching of volumes whose orientations differ: contexts are compared in each of the 48
//! orientations obtained by permuting and flipping axes.

use super::{Error, Estimate, EstimateOptions, MatchOptions, estimate, read};
use crate::blocks::Context;
use crate::geom::{Grid, Point};
use crate::table::{Match, Spot};
use crate::volume::Volume;

/// The maximum number of spots of each volume, those of the strongest response, that are matched in
/// every orientation that is tried. In the best orientation, all spots are matched.
const MAX_TRIED_SPOTS: usize = 1000;

/// An orientation: axis `a` of the turned volume is axis `axes[a]` of the stored volume, reversed
/// if `flip[a]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Orientation {
    axes: [usize; 3],
    flip: [bool; 3],
}

impl Orientation {
    /// The orientation in which the volume is stored.
    pub(super) const STORED: Self = Self { axes: [0, 1, 2], flip: [false; 3] };

    /// All orientations except [`Orientation::STORED`].
    fn others() -> impl Iterator<Item = Self> {
        const ORDERS: [[usize; 3]; 6] =
            [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
        let all = ORDERS.into_iter().flat_map(|axes| {
            (0..8).map(move |signs: usize| Self {
                axes,
                flip: std::array::from_fn(|a| signs >> a & 1 == 1),
            })
        });
        all.filter(|frame| *frame != Self::STORED)
    }

    /// Whether the orientation is a reflection.
    fn mirrors(&self) -> bool {
        let [a, b, c] = self.axes;
        let inversions = usize::from(a > b) + usize::from(a > c) + usize::from(b > c);
        (inversions + self.flip.iter().filter(|&&f| f).count()) % 2 == 1
    }

    /// Reorders values along the stored axes into values along the turned axes.
    pub(super) fn turned<T: Copy>(&self, of: [T; 3]) -> [T; 3] {
        self.axes.map(|axis| of[axis])
    }

    /// Reorders values along the turned axes into values along the stored axes; the inverse of
    /// `turned`.
    pub(super) fn stored<T: Copy>(&self, of: [T; 3]) -> [T; 3] {
        let mut out = of;
        (0..3).for_each(|a| out[self.axes[a]] = of[a]);
        out
    }

    /// The index in the turned volume of voxel `at` of the stored volume, which has the shape
    /// `shape`.
    pub(super) fn voxel(&self, at: [usize; 3], shape: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|a| {
            let (at, last) = (at[self.axes[a]], shape[self.axes[a]] - 1);
            if self.flip[a] { last - at } else { at }
        })
    }

    /// Converts a position `at` in the turned volume to the position in the stored volume, which
    /// has the shape `shape`. Both are in fractional voxels.
    pub(super) fn position(&self, at: Point, shape: [usize; 3]) -> Point {
        let mut out = at;
        for a in 0..3 {
            let last = shape[self.axes[a]] as f64 - 1.0;
            out[self.axes[a]] = if self.flip[a] { last - at[a] } else { at[a] };
        }
        out
    }

    /// The voxels of a stored array of `shape`, rearranged in the turned order.
    pub(super) fn array<T: Copy>(&self, voxels: &[T], shape: [usize; 3]) -> Vec<T> {
        let strides = [shape[1] * shape[2], shape[2], 1];
        let size = self.turned(shape);
        let place = |a: usize, i: usize| {
            let (n, stride) = (shape[self.axes[a]], strides[self.axes[a]]);
            stride * if self.flip[a] { n - 1 - i } else { i }
        };
        let mut out = Vec::with_capacity(voxels.len());
        for z in 0..size[0] {
            for y in 0..size[1] {
                let row = place(0, z) + place(1, y);
                out.extend((0..size[2]).map(|x| voxels[row + place(2, x)]));
            }
        }
        out
    }

    /// The turned grid, except for its origin, which is that of the stored grid.
    pub(super) fn grid(&self, grid: &Grid) -> Grid {
        Grid::new(self.turned(grid.shape), self.turned(grid.spacing), grid.origin)
    }
}

/// The result of matching and fitting.
#[derive(Debug)]
pub struct MatchResult {
    /// The matches, in the order of the fixed spots.
    pub matches: Vec<Match>,
    /// The map, or the reason why there is no trustworthy one.
    pub estimate: Result<Estimate, Error>,
    /// Whether the moving volume was matched in an orientation other than the stored one.
    pub turned: bool,
}

impl MatchResult {
    /// Sets the inliers and residuals of the matches, and records the statistics in the receipt.
    pub fn record(&mut self, ctx: &Context) {
        ctx.record("turned", self.turned);
        match &self.estimate {
            Ok(estimate) => {
                estimate.mark(&mut self.matches);
                estimate.record(ctx);
            }
            Err(_) => ctx.record("matches", self.matches.len()),
        }
    }
}

/// Matches the spots of two volumes and fits a map. If no trustworthy map is found, all other
/// orientations of the moving volume are tried too, including reflections if `fit.allow_reflection`
/// is set, unless `matching.exact` or `fit.compat` is set.
///
/// # Errors
/// [`Error`]. Errors of the matches or the map ([`Error::is_doubt`]) are not returned; they are
/// part of the result.
pub fn find(
    volumes: [&Volume; 2],
    spots: [&[Spot]; 2],
    matching: &MatchOptions,
    fit: &EstimateOptions,
    ctx: &Context,
) -> Result<MatchResult, Error> {
    let attempt = |frame: Orientation, spots: [&[Spot]; 2]| -> Result<MatchResult, Error> {
        let matches = read::match_turned(volumes, spots, matching, &[frame], ctx)?.remove(0);
        let estimate = estimate(&matches, fit, ctx.seed);
        keep_doubt(matches, estimate, frame)
    };
    let first = attempt(Orientation::STORED, spots);
    let turns = !matching.exact && fit.compat.is_none() && !ctx.plan_only;
    let doubted = match &first {
        Ok(found) => found.estimate.is_err(),
        Err(error) => matches!(error, Error::VoxelSizes { .. }),
    };
    if !(turns && doubted) {
        return first;
    }
    let grids = volumes.map(Volume::grid);
    let frames: Vec<Orientation> = Orientation::others()
        .filter(|frame| fit.allow_reflection || !frame.mirrors())
        .filter(|frame| super::pair::check(matching, &grids[0], &frame.grid(&grids[1])).is_ok())
        .collect();
    tracing::info!(orientations = frames.len(), "nothing fits: trying other orientations");
    let strongest = spots.map(strongest);
    let some: [&[Spot]; 2] = [&strongest[0], &strongest[1]];
    let tried = read::match_turned(volumes, some, matching, &frames, ctx)?;
    let mut best: Option<(f64, Orientation)> = None;
    for (frame, matches) in frames.into_iter().zip(tried) {
        if let Ok(estimate) = estimate(&matches, fit, ctx.seed)
            && best.is_none_or(|(least, _)| estimate.false_alarms < least)
        {
            best = Some((estimate.false_alarms, frame));
        }
    }
    match best {
        Some((_, frame)) => {
            tracing::info!(?frame, "the moving volume lies in another orientation");
            attempt(frame, spots)
        }
        None => first,
    }
}

/// Keeps an error about the matches or the map as part of the result; any other error is returned.
fn keep_doubt(
    matches: Vec<Match>,
    estimate: Result<Estimate, Error>,
    frame: Orientation,
) -> Result<MatchResult, Error> {
    match estimate {
        Err(error) if !error.is_doubt() => Err(error),
        estimate => Ok(MatchResult { matches, estimate, turned: frame != Orientation::STORED }),
    }
}

fn strongest(spots: &[Spot]) -> Vec<Spot> {
    let mut order: Vec<usize> = (0..spots.len()).collect();
    order.sort_by(|&a, &b| spots[b].response.total_cmp(&spots[a].response));
    order.truncate(MAX_TRIED_SPOTS);
    order.sort_unstable();
    order.into_iter().map(|i| spots[i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_orientation_takes_voxels_to_their_places_and_back() {
        let shape = [2, 3, 4];
        let voxels: Vec<usize> = (0..24).collect();
        let frames: Vec<Orientation> = Orientation::others().collect();
        assert_eq!(frames.len(), 47);
        assert_eq!(frames.iter().filter(|f| f.mirrors()).count(), 24);
        for frame in frames {
            let turned = frame.array(&voxels, shape);
            let size = frame.turned(shape);
            assert_eq!(frame.stored(size), shape);
            for i in 0..24 {
                let at = [i / 12, i / 4 % 3, i % 4];
                let there = frame.voxel(at, shape);
                assert_eq!(turned[(there[0] * size[1] + there[1]) * size[2] + there[2]], i);
                let back = frame.position(there.map(|v| v as f64), shape);
                assert_eq!(back, at.map(|v| v as f64));
            }
        }
    }
}
