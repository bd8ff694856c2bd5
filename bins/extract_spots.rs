//! Finds the spots of a volume.

use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, Program, Purpose, Shape, VolumeArgs};
use voxloom::features::{self, Detector, Options, Rank};
use voxloom::volume::{Select, Volume};

/// Finds spots: blobs of a range of sizes, to a fraction of a voxel.
///
/// A spot is a maximum of the Laplacian of Gaussian over position and scale. Blocks of any size give
/// the same spots. With --exact they are the whole voxels that BigStream (2021) finds, and --radius
/// and --border count voxels.
#[derive(clap::Args)]
pub(crate) struct ExtractSpots {
    /// The volume
    volume: String,
    /// The table of spots: z_um, y_um, x_um, radius_um, response, intensity
    #[arg(short, long, value_name = "CSV")]
    output: PathBuf,
    /// Radii of the spots, micrometres [default: 3 to 10 voxels; with --exact 6 to 20]
    #[arg(long, value_name = "MIN..MAX", value_parser = cli::parse_range)]
    radius: Option<[f64; 2]>,
    /// How many spots are kept
    #[arg(long, value_name = "N", default_value_t = 5000)]
    max_spots: usize,
    /// Which are kept: the brightest, or those that stand out
    #[arg(long, value_name = "BY", default_value = "intensity")]
    rank: Rank,
    /// Keep spots where this volume is not 0
    #[arg(long, value_name = "LOC")]
    mask: Option<String>,
    /// Whether what is wider than the largest spot is taken off first (white top-hat)
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    background_subtract: bool,
    /// Clamp these fractions of the darkest and the brightest voxels first
    #[arg(long, value_name = "LOW,HIGH", value_parser = cli::parse_pair)]
    winsorize: Option<[f64; 2]>,
    /// Least response, in the image's intensities
    #[arg(long, value_name = "R", default_value_t = 0.0)]
    threshold: f64,
    /// Least response as a fraction of the greatest
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    threshold_relative: f64,
    /// Of two spots that share more than this fraction of the smaller, the larger stays [default: 0.5; with --exact 0.8]
    #[arg(long, value_name = "FRACTION")]
    overlap: Option<f64>,
    /// Drop spots nearer than this to a face, micrometres [default: 3 voxels; with --exact 12]
    #[arg(long, value_name = "UM")]
    border: Option<f64>,
    /// Laplacian of Gaussian, or difference of Gaussians
    #[arg(long, value_name = "FILTER", default_value = "log")]
    detector: Detector,
    /// The whole voxels that BigStream (2021) finds
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    select: VolumeArgs,
}

impl Program for ExtractSpots {
    const NAME: &'static str = "extract-spots";
    const PURPOSE: Purpose = Purpose::Align;
    const SHAPE: Shape = Shape::Blocks;
    const EXAMPLE: &'static str = "extract-spots fixed.zarr --radius 3..9 -o fixed_spots.csv";

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let volume = Volume::open(&self.volume, &self.select.select())?;
        let mask = self.mask.as_ref().map(|at| Volume::open(at, &Select::default())).transpose()?;
        let usual = if self.exact { Options::exact() } else { Options::new(volume.grid().spacing) };
        let options = Options {
            radius: self.radius.unwrap_or(usual.radius),
            overlap: self.overlap.unwrap_or(usual.overlap),
            border: self.border.unwrap_or(usual.border),
            detector: self.detector,
            exact: self.exact,
            background_subtract: self.background_subtract,
            winsorize: self.winsorize,
            threshold: self.threshold,
            threshold_relative: self.threshold_relative,
            max_spots: self.max_spots,
            rank: self.rank,
        };
        features::extract(&volume, mask.as_ref(), &options, ctx, &self.output)
    }
}

fn main() -> ExitCode {
    cli::main::<ExtractSpots>()
}
