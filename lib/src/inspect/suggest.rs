//! Suggested parameters for aligning a pair of volumes, each with its reason.

use std::fmt::Write as _;

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use super::Error;
use super::blobs::{Blob, Spectrum, blobs};
use super::page::short;
use super::sample::sample;
use crate::device::Cost;
use crate::geom::{Box3, Grid, defaults};
use crate::volume::Volume;

/// Edge length of a block in which blobs are measured, voxels.
const BLOCK_SIDE: i64 = 128;
/// Number of blocks that are measured in each volume.
const BLOCKS: usize = 3;
/// Number of spots that a block of local affines should contain; about a fifth of them become
/// inlier matches.
const SPOTS_PER_BLOCK: f64 = 100.0;
/// The suggested radii are those whose response has at least this fraction of the peak's amplitude.
const AMPLITUDE_FRACTION: f64 = 0.85;
/// Bounds of the half-width of a context, voxels: the smallest that tells spots apart, and the
/// largest that is worth its cost, which grows with the cube.
const CONTEXT: [f64; 2] = [6.0, 12.0];

/// Suggested parameters of the programs, each with its reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Suggestion {
    items: Vec<SuggestedFlag>,
}

#[derive(Clone, Debug, PartialEq)]
struct SuggestedFlag {
    program: &'static str,
    flag: &'static str,
    value: String,
    reason: String,
}

impl Suggestion {
    /// A configuration file in YAML for the programs and the workflow, one section per program.
    pub fn yaml(&self) -> String {
        let mut text = String::new();
        let mut section = "";
        for SuggestedFlag { program, flag, value, reason } in &self.items {
            if *program != section {
                let _ = writeln!(text, "{program}:"); // writing to a String cannot fail
                section = program;
            }
            let _ = writeln!(text, "  {flag}: {value}  # {reason}");
        }
        text
    }

    /// The suggestions as JSON: the value and the reason of each flag, by program.
    pub fn json(&self) -> Value {
        let mut map = Map::new();
        for SuggestedFlag { program, flag, value, reason } in &self.items {
            map.entry(*program).or_insert_with(|| json!({}))[*flag] =
                json!({ "value": value, "reason": reason });
        }
        Value::Object(map)
    }

    fn add(&mut self, programs: &[&'static str], flag: &'static str, value: &str, reason: &str) {
        for &program in programs {
            let (value, reason) = (value.to_owned(), reason.to_owned());
            self.items.push(SuggestedFlag { program, flag, value, reason });
        }
    }
}

/// Measurements of one volume.
#[derive(Clone, Debug, PartialEq)]
struct BlobMeasurements {
    grid: Grid,
    /// Radii `[lower, peak, upper]`, micrometres: `peak` is the radius of the strongest response,
    /// and at the others the amplitude has fallen to the fraction [`AMPLITUDE_FRACTION`] of it.
    radii: [f64; 3],
    /// Number of blobs with radii from `lower` to `upper` per cubic micrometre; for a plane, per
    /// square micrometre.
    density: f64,
}

/// The memory that [`suggest`] needs: the volumes are measured one after the other, the blocks of
/// each in parallel.
pub fn suggest_memory(fixed: &Volume, moving: &Volume, threads: usize) -> Cost {
    let of = |volume: &Volume| {
        let side = BLOCK_SIDE as usize;
        let block: usize = volume.grid().shape.iter().map(|n| (*n).min(side)).product();
        // the block, two smoothed copies, three layers, and the buffers of the smoothing filter
        let blocks = Cost::of::<[f32; 9]>("blocks", block) * threads.min(BLOCKS) as u64;
        super::sample::memory(volume)
            .or(blocks + Cost::bytes("decoded chunks", volume.kept_bytes()))
    };
    of(fixed).or(of(moving))
}

/// Measures the blobs of both volumes and suggests parameters for their alignment.
///
/// # Errors
/// [`Error`] if a volume cannot be read, or shows no blobs.
pub fn suggest(fixed: &Volume, moving: &Volume) -> Result<Suggestion, Error> {
    Ok(propose(&measure(fixed)?, &measure(moving)?))
}

/// The radius of the most prominent structures, micrometres; `None` if nothing stands out.
pub(super) fn radius(volume: &Volume) -> Result<Option<f64>, Error> {
    match measure(volume) {
        Ok(measured) => Ok(Some(measured.radii[1])),
        Err(Error::Nothing { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn measure(volume: &Volume) -> Result<BlobMeasurements, Error> {
    let grid = volume.grid();
    let mut tiles = sample(volume)?.contrast;
    // measure where the contrast is highest
    tiles.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.min.cmp(&b.0.min)));
    let mut parts: Vec<Box3> = Vec::new();
    for (tile, _) in tiles {
        let part = cube(&tile, &grid);
        if parts.len() < BLOCKS && parts.iter().all(|other| other.intersect(&part).is_empty()) {
            parts.push(part);
        }
    }
    let found = parts
        .par_iter()
        .map(|part| {
            let mut voxels = volume.read::<f32>(part)?;
            for v in &mut voxels {
                *v = if v.is_finite() { *v } else { 0.0 };
            }
            Ok(blobs(&voxels, part.shape(), grid.spacing))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let read: usize = parts.iter().map(Box3::len).sum();
    summarise(&found, read, grid).ok_or_else(|| Error::Nothing {
        location: volume.location().to_owned(),
        message: "nothing stands out from the noise, so no radius can be proposed; look at the \
                  volume, or give another --channel"
            .to_owned(),
    })
}

/// A cube of [`BLOCK_SIDE`] voxels about the centre of `tile`, shifted to lie inside the volume and
/// cut to its size.
fn cube(tile: &Box3, grid: &Grid) -> Box3 {
    let mut part = *tile;
    for a in 0..3 {
        let end = grid.shape[a] as i64;
        let side = BLOCK_SIDE.min(end);
        part.min[a] = ((tile.min[a] + tile.max[a] - side) / 2).clamp(0, end - side);
        part.max[a] = part.min[a] + side;
    }
    part
}

fn summarise(
    found: &[(Vec<Blob>, Spectrum)],
    voxels: usize,
    grid: Grid,
) -> Option<BlobMeasurements> {
    let mut sum = Spectrum::default();
    for (_, spectrum) in found {
        sum.add(spectrum);
    }
    let radii = sum.range(AMPLITUDE_FRACTION)?;
    let blobs = found.iter().flat_map(|(blobs, _)| blobs);
    let count = blobs.filter(|blob| (radii[0]..=radii[2]).contains(&blob.radius)).count();
    let volume = voxels as f64 * long_axes(&grid).map(|a| grid.spacing[a]).product::<f64>();
    // at least one blob is counted, so that the density is not 0 if the maxima of all blobs have
    // merged
    Some(BlobMeasurements { grid, radii, density: count.max(1) as f64 / volume })
}

/// The axes with more than one voxel.
fn long_axes(grid: &Grid) -> impl Iterator<Item = usize> + Clone {
    let shape = grid.shape;
    (0..3).filter(move |&a| shape[a] > 1)
}

/// Rounds to two significant digits.
fn round(value: f64) -> f64 {
    let unit = 10f64.powi(value.abs().max(1e-9).log10().floor() as i32 - 1);
    (value / unit).round() * unit
}

fn propose(fixed: &BlobMeasurements, moving: &BlobMeasurements) -> Suggestion {
    let mut this = Suggestion { items: Vec::new() };
    let both = [fixed, moving];
    let least =
        |f: fn(&BlobMeasurements) -> f64| both.map(f).into_iter().fold(f64::INFINITY, f64::min);
    let most = |f: fn(&BlobMeasurements) -> f64| both.map(f).into_iter().fold(0.0, f64::max);
    let spacing = most(|m| m.grid.mean_spacing());

    let radius = [round(least(|m| m.radii[0])), round(most(|m| m.radii[2]))];
    let reason = format!(
        "um; structures of these radii stand out most (strongest: {} in fixed, {} in moving)",
        short(round(fixed.radii[1])),
        short(round(moving.radii[1])),
    );
    let value = format!("{}..{}", short(radius[0]), short(radius[1]));
    this.add(&["extract-spots", "local-affine"], "radius", &value, &reason);

    let typical = (fixed.radii[1] * moving.radii[1]).sqrt();
    let half = (2.5 * typical / spacing).round().clamp(CONTEXT[0], CONTEXT[1]) as usize;
    let context = defaults::context(half, [&fixed.grid, &moving.grid]);
    let mut reason = format!(
        "voxels; a spot (radius {} um) with what is next to it, {} to {} voxels",
        short(round(typical)),
        CONTEXT[0],
        CONTEXT[1]
    );
    let value = if context == [half; 3] {
        format!("{half}vox")
    } else {
        reason += ", fewer along axes that are short or have large voxels";
        format!("{}vox", context.map(|n| n.to_string()).join(","))
    };
    this.add(&["ransac", "local-affine"], "context-radius", &value, &reason);

    let reason = format!("um; 1.2 times the mean voxel edge ({})", short(spacing));
    let threshold = short(round(defaults::align_threshold(&fixed.grid, &moving.grid)));
    this.add(&["ransac"], "align-threshold", &threshold, &reason);

    let density = least(|m| m.density);
    let block = block_size(&fixed.grid, density);
    let area = long_axes(&fixed.grid).map(|a| block[a] as f64 * fixed.grid.spacing[a]);
    let spots = density * area.product::<f64>();
    let reason = format!("voxels; about {} spots in a block that is full", short(round(spots)));
    let value = block.map(|n| n.to_string()).join(",");
    this.add(&["local-affine"], "block-size", &value, &reason);

    this.items.sort_by_key(|item| {
        ["extract-spots", "ransac", "local-affine"].iter().position(|p| *p == item.program)
    });
    this
}

/// The size, in voxels, of a block that is a cube in physical space and contains about
/// [`SPOTS_PER_BLOCK`] spots. Its sides are multiples of 16 voxels from 32 to 512, and no longer
/// than needed to cover the volume. Along an axis of one voxel, the side is 1.
fn block_size(grid: &Grid, density: f64) -> [usize; 3] {
    let axes = long_axes(grid).count().max(1);
    let side = (SPOTS_PER_BLOCK / density).powf(1.0 / axes as f64);
    std::array::from_fn(|a| {
        if grid.shape[a] == 1 {
            return 1;
        }
        let voxels = (side / grid.spacing[a]).round() as usize;
        let whole = grid.shape[a].next_multiple_of(16);
        voxels.next_multiple_of(16).clamp(32, 512).min(whole)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(spacing: f64, radii: [f64; 3], density: f64) -> BlobMeasurements {
        let grid = Grid::new([149, 241, 456], [spacing; 3], [0.0; 3]);
        BlobMeasurements { grid, radii, density }
    }

    #[test]
    fn a_proposal_looks_like_this() {
        let fixed = measured(1.84, [6.0, 10.0, 20.0], 1e-4);
        let moving = measured(1.84, [7.0, 11.0, 18.0], 8e-5);
        let suggestion = propose(&fixed, &moving);
        insta::assert_snapshot!(suggestion.yaml());
        assert_eq!(suggestion.json()["extract-spots"]["radius"]["value"], "6..20");
    }

    #[test]
    fn a_proposal_is_valid_yaml_of_the_same_values() {
        let one = measured(0.2, [1.0, 2.0, 3.0], 0.01);
        let yaml = propose(&one, &one).yaml();
        let value: Value = serde_saphyr::from_str(&yaml).unwrap();
        assert_eq!(value["extract-spots"]["radius"], "1..3");
        assert_eq!(value["ransac"]["align-threshold"], json!(0.24));
        assert_eq!(value["local-affine"]["block-size"], "112,112,112");
    }

    #[test]
    fn what_is_proposed_fits_into_planes_and_thin_stacks() {
        let proposed = |shape, spacing| {
            let grid = Grid::new(shape, spacing, [0.0; 3]);
            let one = BlobMeasurements { grid, radii: [3.0, 5.0, 7.0], density: 0.01 };
            let json = propose(&one, &one).json();
            let value = |program: &str, flag: &str| {
                json[program][flag]["value"].as_str().unwrap().to_owned()
            };
            [value("ransac", "context-radius"), value("local-affine", "block-size")]
        };
        assert_eq!(proposed([12, 160, 160], [8.0, 0.8, 0.8])[0], "2,7,7vox");
        assert_eq!(proposed([1, 160, 160], [5.0, 0.8, 0.8]), ["0,12,12vox", "1,128,128"]);
    }

    #[test]
    fn a_cube_stays_inside_the_volume() {
        let grid = Grid::new([50, 1000, 1000], [1.0; 3], [0.0; 3]);
        let part = cube(&Box3::new([0, 0, 900], [50, 64, 1000]), &grid);
        assert_eq!(part, Box3::new([0, 0, 872], [50, 128, 1000]));
    }

    #[test]
    fn blobs_of_other_radii_do_not_count() {
        let blob = |radius: f64| Blob { at: [0; 3], radius, response: 1.0 };
        let spectrum = Spectrum {
            radii: vec![1.0, 2.0, 4.0, 8.0],
            signal: vec![0.0, 1.0, 4.0, 0.0],
            noise: vec![1.0; 4],
        };
        let blobs: Vec<_> = (0..10).map(|i| blob(if i < 4 { 4.0 } else { 1.0 })).collect();
        let grid = Grid::new([10; 3], [2.0; 3], [0.0; 3]);
        let found =
            summarise(&[(blobs.clone(), spectrum), (vec![], Spectrum::default())], 1000, grid);
        let found = found.unwrap();
        assert_eq!((found.radii[1], found.density), (4.0, 4.0 / 8000.0));
        assert!(summarise(&[(blobs, Spectrum::default())], 1000, grid).is_none());
    }
}
