//! Choice of the resolution at which a volume is aligned.
//!
//! Structures of a few voxels suffice to tell places apart, and finer detail costs time and memory.
//! Since positions are found to a fraction of a voxel, the coarsest resolution at which structures
//! have a radius of [`FINE`] voxels is as good as the full one. The resulting transform is applied
//! to the volumes at their own resolution.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::Error;
use super::suggest::radius;
use crate::downsample;
use crate::geom::Grid;
use crate::volume::{self, Volume};

/// Volumes of up to this many voxels are aligned at their own resolution.
const ENOUGH: usize = 1 << 24;
/// The smallest radius of structures after downsampling, voxels.
const FINE: f64 = 4.0;
/// No axis is made shorter than this many voxels, unless a level or a grid is given.
const SHORTEST: usize = 24;
/// The second volume may be coarser than the first by up to this factor.
const ALIKE: f64 = 1.2;

/// The requested resolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Chosen from the volume's content.
    #[default]
    Auto,
    /// The level of this number; 0 is the volume itself, each further one has half the resolution.
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

/// The chosen resolution.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// How many times the resolution is halved.
    pub level: usize,
    /// The grid at this level.
    pub grid: Grid,
    /// The location at which this level is already stored: the volume or a level of its image.
    pub stored: Option<String>,
    /// Why it was chosen.
    pub reason: String,
}

impl Choice {
    /// The choice as JSON, for receipts.
    pub fn json(&self) -> Value {
        json!({ "level": self.level, "shape": self.grid.shape, "spacing": self.grid.spacing,
                "stored": self.stored, "reason": self.reason })
    }
}

/// Chooses the resolution of a volume. With [`Wanted::Auto`] and `like`, it is the coarsest level
/// whose mean spacing is at most 1.2 times that of `like`.
///
/// # Errors
/// Errors of reading, and [`Error::Nothing`] if the volume is too small for the requested level.
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

/// A grid and its repeatedly halved versions, as long as no axis gets shorter than `least` voxels.
fn ladder(own: &Grid, least: usize) -> Vec<Grid> {
    let fits = |grid: &Grid| (0..3).all(|a| grid.shape[a] >= least.min(own.shape[a]));
    std::iter::successors(Some(*own), |grid| downsample::next_level(grid).filter(fits))
        .take(21)
        .collect()
}

/// Halves the resolution while there are more than [`ENOUGH`] voxels and structures of `radius`
/// micrometres keep a radius of [`FINE`] voxels; returns how many times.
fn suiting(ladder: &[Grid], radius: Option<f64>) -> usize {
    let fine = |grid: &Grid| radius.is_none_or(|r| r >= FINE * grid.mean_spacing());
    let pairs = ladder.iter().zip(&ladder[1..]);
    pairs.take_while(|(now, next)| voxels(now) > ENOUGH && fine(next)).count()
}

/// The coarsest level whose mean spacing is at most [`ALIKE`] times that of `like`.
fn nearest(ladder: &[Grid], like: &Grid) -> usize {
    let most = ALIKE * like.mean_spacing();
    ladder[1..].iter().take_while(|grid| grid.mean_spacing() <= most).count()
}

/// The location of a level with this grid in the volume's image.
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
    // a location without readable level metadata has no other levels
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
        // the tutorial's volume: the full resolution is halved once, half of it is kept
        let full = of([298, 482, 912], 0.92);
        assert_eq!(suiting(&full, Some(10.0)), 1);
        assert_eq!(suiting(&full[1..], Some(10.0)), 0);
        let huge = of([10_000; 3], 0.5);
        assert_eq!(suiting(&huge, Some(5.0)), 1);
        assert_eq!(suiting(&huge, Some(40.0)), 4);
        // if no structure stands out, halve until few voxels are left
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
