//! Choice of the resolution at which a volume is aligned.
//!
//! Structures of a few voxels suffice to tell places apart, and finer detail costs time and memory.
//! Because positions are found to a fraction of a voxel, the coarsest resolution at which
//! structures have a radius of [`MIN_RADIUS`] voxels is as good as the full resolution. The
//! resulting transform is applied to the volumes at their own resolution.

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::Error;
use super::suggest::radius;
use crate::downsample;
use crate::geom::Grid;
use crate::volume::{self, Volume};

/// Volumes of up to this many voxels are aligned at their own resolution.
const MAX_VOXELS: usize = 1 << 24;
/// The smallest radius of structures after downsampling, voxels.
const MIN_RADIUS: f64 = 4.0;
/// Downsampling makes no axis shorter than this many voxels if neither a level nor `like` is given.
const MIN_AXIS: usize = 24;
/// Maximum ratio of the mean spacing of the second volume to that of the first.
const SAME_RESOLUTION_FACTOR: f64 = 1.2;

/// The requested resolution.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestedLevel {
    /// Chosen from the volume's content.
    #[default]
    Auto,
    /// The level of this number. Level 0 is the volume itself, and each further level has half the
    /// resolution of the previous one.
    Level(usize),
}

impl FromStr for RequestedLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(level @ 0..=20)) => Ok(Self::Level(level)),
            _ => Err("wanted auto, or how often the resolution is halved, 0 to 20".to_owned()),
        }
    }
}

impl fmt::Display for RequestedLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Level(level) => write!(f, "{level}"),
        }
    }
}

/// The chosen resolution.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelChoice {
    /// Number of times that the resolution is halved.
    pub level: usize,
    /// The grid at this level.
    pub grid: Grid,
    /// The location at which this level is already stored: the volume or a level of its image.
    pub stored: Option<String>,
    /// The reason for the choice, for messages and receipts.
    pub reason: String,
}

impl LevelChoice {
    /// The choice as JSON, for receipts.
    pub fn json(&self) -> Value {
        json!({ "level": self.level, "shape": self.grid.shape, "spacing": self.grid.spacing,
                "stored": self.stored, "reason": self.reason })
    }
}

/// Chooses the resolution of a volume. With [`RequestedLevel::Auto`] and `like`, the result is the
/// coarsest level whose mean spacing is at most 1.2 times that of `like`.
///
/// # Errors
/// Errors of reading, and [`Error::Nothing`] if the volume is too small for the requested level.
pub fn pick(
    volume: &Volume,
    wanted: RequestedLevel,
    like: Option<&Grid>,
) -> Result<LevelChoice, Error> {
    let least = if wanted == RequestedLevel::Auto && like.is_none() { MIN_AXIS } else { 1 };
    let halved_grids = halved_grids(&volume.grid(), least);
    let (level, reason) = match (wanted, like) {
        (RequestedLevel::Level(level), _) if level < halved_grids.len() => {
            (level, "asked for".to_owned())
        }
        (RequestedLevel::Level(level), _) => {
            let (location, steps) = (volume.location().to_owned(), halved_grids.len() - 1);
            let message =
                format!("cannot be halved {level} times, only {steps}; give a lower level");
            return Err(Error::Nothing { location, message });
        }
        (RequestedLevel::Auto, Some(like)) => {
            let reason =
                format!("nearest to {:.3} um, the voxel that is given", like.mean_spacing());
            (coarsest_within_factor(&halved_grids, like), reason)
        }
        (RequestedLevel::Auto, None) if voxels(&halved_grids[0]) <= MAX_VOXELS => {
            (0, format!("{} million voxels or fewer are aligned as they are", MAX_VOXELS >> 20))
        }
        (RequestedLevel::Auto, None) => {
            let radius = radius(volume)?;
            let level = suitable_level(&halved_grids, radius);
            let measured = radius.map_or("nothing stands out".to_owned(), |r| {
                let voxels = r / halved_grids[level].mean_spacing();
                format!("structures of {r:.2} um in radius measure {voxels:.1} voxels there")
            });
            (level, measured)
        }
    };
    let grid = halved_grids[level];
    tracing::info!("{}: aligned at level {level}: {reason}", volume.location());
    Ok(LevelChoice { level, grid, stored: stored(volume, &grid), reason })
}

fn voxels(grid: &Grid) -> usize {
    grid.shape.iter().product()
}

/// A grid and its repeatedly halved versions, as long as no axis gets shorter than `least` voxels.
fn halved_grids(own: &Grid, least: usize) -> Vec<Grid> {
    let fits = |grid: &Grid| (0..3).all(|a| grid.shape[a] >= least.min(own.shape[a]));
    std::iter::successors(Some(*own), |grid| downsample::next_level(grid).filter(fits))
        .take(21)
        .collect()
}

/// Halves the resolution while there are more than [`MAX_VOXELS`] voxels and structures of `radius`
/// micrometres keep a radius of [`MIN_RADIUS`] voxels; returns the number of times.
fn suitable_level(halved_grids: &[Grid], radius: Option<f64>) -> usize {
    let fine = |grid: &Grid| radius.is_none_or(|r| r >= MIN_RADIUS * grid.mean_spacing());
    let pairs = halved_grids.iter().zip(&halved_grids[1..]);
    pairs.take_while(|(now, next)| voxels(now) > MAX_VOXELS && fine(next)).count()
}

/// The coarsest level whose mean spacing is at most [`SAME_RESOLUTION_FACTOR`] times that of
/// `like`.
fn coarsest_within_factor(halved_grids: &[Grid], like: &Grid) -> usize {
    let most = SAME_RESOLUTION_FACTOR * like.mean_spacing();
    halved_grids[1..].iter().take_while(|grid| grid.mean_spacing() <= most).count()
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
        halved_grids(&Grid::new(shape, [spacing; 3], [0.0; 3]), MIN_AXIS)
    }

    #[test]
    fn large_volumes_are_reduced_as_long_as_their_structures_are_seen() {
        // from full resolution, the tutorial's volume is halved once; from half resolution, it is
        // not halved
        let full = of([298, 482, 912], 0.92);
        assert_eq!(suitable_level(&full, Some(10.0)), 1);
        assert_eq!(suitable_level(&full[1..], Some(10.0)), 0);
        let huge = of([10_000; 3], 0.5);
        assert_eq!(suitable_level(&huge, Some(5.0)), 1);
        assert_eq!(suitable_level(&huge, Some(40.0)), 4);
        // if no structure stands out, halve until few voxels are left
        assert_eq!(suitable_level(&huge, None), 6);
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
            assert_eq!(coarsest_within_factor(&other, &like(spacing)), level, "{spacing} um");
        }
    }
}
