//! The resolution at which a volume is best aligned.
//!
//! Structures of a few voxels are enough to tell places apart, and whatever is finer costs time and memory: the
//! coarsest resolution at which they measure [`FINE`] voxels in radius does as well as the finest, since
//! positions are found to a fraction of a voxel. The result is applied to the volumes as they are.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::Error;
use super::suggest::radius;
use crate::downsample;
use crate::geom::Grid;
use crate::volume::{self, Volume};

/// Voxels that are aligned as they are: less would hardly be faster.
const ENOUGH: usize = 1 << 24;
/// Voxels in radius that structures keep.
const FINE: f64 = 4.0;
/// No axis is made shorter than this unasked.
const SHORTEST: usize = 24;
/// The second volume may be coarser than the first by so much.
const ALIKE: f64 = 1.2;

/// Which resolution is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The one that suits the volume.
    #[default]
    Auto,
    /// So many steps below the volume itself, each half the resolution.
    Level(usize),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(level @ 0..=20)) => Ok(Self::Level(level)),
            _ => Err("wanted auto, or how often the resolution is halved, 0 to 20".to_owned()),
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Level(level) => write!(f, "{level}"),
        }
    }
}

/// What was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// How often the resolution is halved.
    pub level: usize,
    /// What comes out.
    pub grid: Grid,
    /// Where it is stored already: the volume itself or a level of its image.
    pub stored: Option<String>,
    /// Why.
    pub reason: String,
}

impl Choice {
    /// The same for receipts.
    pub fn json(&self) -> Value {
        json!({ "level": self.level, "shape": self.grid.shape, "spacing": self.grid.spacing,
                "stored": self.stored, "reason": self.reason })
    }
}

/// Chooses the resolution of a volume; with `like`, the one nearest to that grid's that is hardly coarser.
///
/// # Errors
/// Those of reading, and [`Error::Nothing`] for a level that the volume is too small for.
pub fn pick(volume: &Volume, wanted: Wanted, like: Option<&Grid>) -> Result<Choice, Error> {
    let least = if wanted == Wanted::Auto && like.is_none() { SHORTEST } else { 1 };
    let ladder = ladder(&volume.grid(), least);
    let (level, reason) = match (wanted, like) {
        (Wanted::Level(level), _) if level < ladder.len() => (level, "asked for".to_owned()),
        (Wanted::Level(level), _) => {
            let (location, steps) = (volume.location().to_owned(), ladder.len() - 1);
            let message =
                format!("cannot be halved {level} times, only {steps}; give a lower level");
            return Err(Error::Nothing { location, message });
        }
        (Wanted::Auto, Some(like)) => {
            let reason =
                format!("nearest to {:.3} um, the voxel that is given", like.mean_spacing());
            (nearest(&ladder, like), reason)
        }
        (Wanted::Auto, None) if voxels(&ladder[0]) <= ENOUGH => {
            (0, format!("{} million voxels or fewer are aligned as they are", ENOUGH >> 20))
        }
        (Wanted::Auto, None) => {
            let radius = radius(volume)?;
            let level = suiting(&ladder, radius);
            let measured = radius.map_or("nothing stands out".to_owned(), |r| {
                let voxels = r / ladder[level].mean_spacing();
                format!("structures of {r:.2} um in radius measure {voxels:.1} voxels there")
            });
            (level, measured)
        }
    };
    let grid = ladder[level];
    tracing::info!("{}: aligned at level {level}: {reason}", volume.location());
    Ok(Choice { level, grid, stored: stored(volume, &grid), reason })
}

fn voxels(grid: &Grid) -> usize {
    grid.shape.iter().product()
}

/// A grid and what becomes of it, halved again and again, as long as no axis grows shorter than `least`.
fn ladder(own: &Grid, least: usize) -> Vec<Grid> {
    let fits = |grid: &Grid| (0..3).all(|a| grid.shape[a] >= least.min(own.shape[a]));
    std::iter::successors(Some(*own), |grid| downsample::next_level(grid).filter(fits))
        .take(21)
        .collect()
}

/// The level of few voxels at which structures of a radius are still seen.
fn suiting(ladder: &[Grid], radius: Option<f64>) -> usize {
    let fine = |grid: &Grid| radius.is_none_or(|r| r >= FINE * grid.mean_spacing());
    let pairs = ladder.iter().zip(&ladder[1..]);
    pairs.take_while(|(now, next)| voxels(now) > ENOUGH && fine(next)).count()
}

/// The coarsest level that is hardly coarser than a grid.
fn nearest(ladder: &[Grid], like: &Grid) -> usize {
    let most = ALIKE * like.mean_spacing();
    ladder[1..].iter().take_while(|grid| grid.mean_spacing() <= most).count()
}

/// Where the image of a volume has a level of this grid.
fn stored(volume: &Volume, grid: &Grid) -> Option<String> {
    if volume.grid() == *grid {
        return Some(volume.location().to_owned());
    }
    let alike = |level: &volume::Level| {
        (0..3).all(|a| {
            (level.grid.spacing[a] / grid.spacing[a]).ln().abs() < 0.01
                && level.grid.shape[a].abs_diff(grid.shape[a]) <= 1
        })
    };
    // what says nothing of its levels has none that could be taken
    let levels = volume::levels(volume.location()).unwrap_or_default();
    levels.into_iter().find(alike).map(|level| level.location)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(shape: [usize; 3], spacing: f64) -> Vec<Grid> {
        ladder(&Grid::new(shape, [spacing; 3], [0.0; 3]), SHORTEST)
    }

    #[test]
    fn large_volumes_are_reduced_as_long_as_their_structures_are_seen() {
        // the tutorial: its full resolution is aligned at half of it, that as it is
        let full = of([298, 482, 912], 0.92);
        assert_eq!(suiting(&full, Some(10.0)), 1);
        assert_eq!(suiting(&full[1..], Some(10.0)), 0);
        let huge = of([10_000; 3], 0.5);
        assert_eq!(suiting(&huge, Some(5.0)), 1);
        assert_eq!(suiting(&huge, Some(40.0)), 4);
        // where nothing stands out, until few voxels are left
        assert_eq!(suiting(&huge, None), 6);
    }

    #[test]
    fn short_axes_are_left_long_enough() {
        let thin = of([100, 20_000, 20_000], 1.0);
        assert!(thin.len() == 3 && thin[2].shape[0] == 25, "{thin:?}");
        let plane = of([1, 40_000, 40_000], 1.0);
        assert!(plane.len() > 8 && plane.iter().all(|grid| grid.shape[0] == 1));
    }

    #[test]
    fn a_second_volume_comes_near_the_voxels_of_the_first() {
        let like = |spacing: f64| Grid::new([100; 3], [spacing; 3], [0.0; 3]);
        let other = of([1000; 3], 0.5);
        for (spacing, level) in [(0.5, 0), (0.9, 1), (1.0, 1), (2.0, 2), (3.9, 3), (0.1, 0)] {
            assert_eq!(nearest(&other, &like(spacing)), level, "{spacing} um");
        }
    }
}
