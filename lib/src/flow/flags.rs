//! The command-line flags of patch flow, which programs flatten into their own. The struct has no
//! doc comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{CleanOptions, Limits, Options, Patches};
use crate::geom::Grid;

/// The default size of a patch along y and x of planes, and along each axis of volumes, voxels.
const PATCH: [usize; 2] = [160, 32];
/// The default stride and search radius are the size of a patch divided by this.
const FRACTION: usize = 4;

/// Numbers of voxels along z, y, x; or one number, which is then that along each axis (of planes: y
/// and x).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Voxels {
    /// One number.
    All(usize),
    /// One number for each axis.
    Each([usize; 3]),
}

impl std::str::FromStr for Voxels {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
        match numbers.as_deref() {
            Ok([one]) => Ok(Self::All(*one)),
            Ok([z, y, x]) => Ok(Self::Each([*z, *y, *x])),
            _ => Err("wanted one number of voxels, or three as z,y,x".to_owned()),
        }
    }
}

impl Voxels {
    /// The numbers along z, y, x; `along_z` is that of planes.
    fn along(self, planes: bool, along_z: usize) -> [usize; 3] {
        match self {
            Self::Each(each) => each,
            Self::All(one) if planes => [along_z, one, one],
            Self::All(one) => [one; 3],
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
pub struct QualityFlags {
    /// Minimum correlation of a match
    #[arg(long, value_name = "R", default_value_t = 0.0)]
    pub min_correlation: f64,
    /// Minimum of the correlation at the match minus its mean 5 voxels away
    #[arg(long, value_name = "R", default_value_t = 0.0)]
    pub min_sharpness: f64,
    /// Maximum ratio of the second highest maximum of the correlation to the highest
    #[arg(long, value_name = "FRACTION", default_value_t = 0.9)]
    pub max_ratio: f64,
    /// Minimum number of standard deviations by which the correlation exceeds the highest that
    /// chance gives in the search window
    #[arg(long, value_name = "DEVIATIONS", default_value_t = 1.0)]
    pub min_evidence: f64,
}

impl QualityFlags {
    fn limits(&self) -> Limits {
        Limits {
            min_correlation: self.min_correlation,
            min_sharpness: self.min_sharpness,
            max_ratio: self.max_ratio,
            min_evidence: self.min_evidence,
            ..Limits::default()
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Size of a patch, voxels: one number, or z,y,x [default: 160 in planes, 32 in volumes]
    #[arg(long, value_name = "VOXELS")]
    pub patch: Option<Voxels>,
    /// Distance between neighbouring patches, voxels: one number, or z,y,x; the cost is least if
    /// --patch is a multiple of it [default: a quarter of --patch]
    #[arg(long, value_name = "VOXELS")]
    pub stride: Option<Voxels>,
    /// Maximum displacement that is searched along each axis, voxels: one number, or z,y,x
    /// [default: a quarter of --patch]
    #[arg(long, value_name = "VOXELS")]
    pub search: Option<Voxels>,
    /// Compare each plane of a stack with one plane of the moving volume [default: only if the
    /// fixed volume is one plane]
    #[arg(long)]
    pub planes: bool,
    /// With --planes, compare plane z with plane z - N of the moving volume
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-10_000..=10_000))]
    pub distance: i64,
    #[command(flatten)]
    pub quality: QualityFlags,
}

impl Flags {
    /// The options for a fixed volume on `grid`.
    ///
    /// * `through`: whether both volumes are seen through the initial map
    pub fn options(&self, grid: &Grid, through: bool) -> Options {
        let planes = self.planes || grid.shape[0] == 1;
        let size = self.patch.unwrap_or(Voxels::All(PATCH[usize::from(!planes)]));
        let size = size.along(planes, 1);
        let part = |of: usize| (of / FRACTION).max(1);
        let stride = self.stride.map_or(size.map(part), |stride| stride.along(planes, 1));
        let radius = match self.search {
            Some(search) => search.along(planes, 0),
            None if planes => [0, part(size[1]), part(size[2])],
            None => size.map(part),
        };
        Options {
            patches: Patches { size, stride, radius },
            planes,
            distance: self.distance,
            through,
            limits: self.quality.limits(),
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
pub struct CleanFlags {
    #[command(flatten)]
    pub quality: QualityFlags,
    /// Maximum displacement along each axis [default: no limit]
    #[arg(long, value_name = "UM")]
    pub max_magnitude: Option<f64>,
    /// Maximum difference from the median of the known neighbours along each axis [default: no
    /// limit]
    #[arg(long, value_name = "UM")]
    pub max_deviation: Option<f64>,
    /// Maximum difference between neighbours of the displacement along the axis that joins them, as
    /// a fraction of their distance; at 1 the field folds
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5)]
    pub max_strain: f64,
    /// Minimum number of connected vectors of a plane, or of a volume
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub min_patches: usize,
    /// Estimate unknown vectors from the known ones of their plane, or of the volume
    #[arg(long)]
    pub fill: bool,
}

impl CleanFlags {
    /// The options selected by the flags.
    pub fn options(&self) -> CleanOptions {
        CleanOptions {
            limits: Limits {
                max_magnitude: self.max_magnitude.unwrap_or(f64::INFINITY),
                max_deviation: self.max_deviation.unwrap_or(f64::INFINITY),
                min_patches: self.min_patches,
                ..self.quality.limits()
            },
            max_strain: self.max_strain,
            fill: self.fill,
        }
    }
}
