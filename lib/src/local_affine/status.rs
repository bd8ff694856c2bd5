//! The rows of the table of blocks.

use super::outliers::median;
use super::robust::RobustFit;
use super::{BlockRow, LocalAffines, Matches, Options, Status, block_of, centre_of};

/// The weight above which a match counts as an inlier.
pub(super) const INLIER_WEIGHT: f64 = 0.1;

/// The number of blocks of each status.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) fitted: usize,
    pub(super) regularised: usize,
    pub(super) empty: usize,
}

/// One row per block in C order, and the number of blocks of each status.
///
/// A block is *empty* if it contains no spot, *fitted* if it has enough inliers of its own, and
/// otherwise *regularised*: its affine depends on its neighbours and the initial map, too.
pub(super) fn classify(
    maps: &LocalAffines,
    found: &Matches,
    fit: &RobustFit,
    options: &Options,
) -> (Vec<BlockRow>, Counts) {
    let spots = &found.spots;
    let mut matches = vec![0; maps.affines.len()];
    let mut residuals = vec![Vec::new(); maps.affines.len()];
    for (i, &at) in found.at.iter().enumerate() {
        let block = block_of(maps, at);
        matches[block] += 1;
        if fit.weights[i] > INLIER_WEIGHT {
            residuals[block].push(fit.residuals[i]);
        }
    }
    let mut counts = Counts::default();
    let counts_of_blocks = LocalAffines::counts(maps.domain.shape, maps.block);
    let rows = maps
        .domain
        .bounds()
        .tiles(maps.block)
        .enumerate()
        .map(|(b, core)| {
            let inliers = residuals[b].len();
            let (status, reason) = if spots[b] == 0 {
                counts.empty += 1;
                (Status::Empty, "no spots".to_owned())
            } else if inliers >= options.min_matches {
                counts.fitted += 1;
                (Status::Fitted, String::new())
            } else {
                counts.regularised += 1;
                (Status::Regularised, format!("{inliers} inliers, below {}", options.min_matches))
            };
            let p = centre_of(maps, &core);
            let q = maps.apply(p);
            let squares = residuals[b].iter().map(|r| r * r).sum::<f64>();
            let [_, height, width] = counts_of_blocks;
            BlockRow {
                index: [b / (height * width), b / width % height, b % width],
                status,
                reason,
                spots: spots[b],
                matches: matches[b],
                inliers,
                rms: (inliers > 0).then(|| (squares / inliers as f64).sqrt()),
                median: (inliers > 0).then(|| median(&mut residuals[b])),
                shift: std::array::from_fn(|a| q[a] - p[a]),
            }
        })
        .collect();
    (rows, counts)
}
