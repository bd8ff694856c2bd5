//! `extract-spots`: finds blobs in a volume.

use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, Program, Purpose, VolumeArgs};
use voxloom::features::{self, Flags};
use voxloom::volume::Volume;

/// Finds blobs in a volume with sub-voxel precision and writes them as a table, best first.
///
/// Blobs are local maxima of the Laplacian of Gaussian over position and scale. The result does not
/// depend on block size, parts or threads.
#[derive(clap::Args)]
pub(crate) struct ExtractSpots {
    /// The volume
    #[arg(value_name = "VOLUME")]
    location: String,
    /// The table to write: `z_um,y_um,x_um,radius_um,response,intensity`
    #[arg(short, long, value_name = "CSV")]
    output: PathBuf,
    /// Mask: spots are kept where the nearest voxel of the mask is above 0
    #[arg(long, value_name = "LOC")]
    mask: Option<String>,
    #[command(flatten)]
    spots: Flags,
    #[command(flatten)]
    volume: VolumeArgs,
}

impl Program for ExtractSpots {
    const NAME: &'static str = "extract-spots";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "extract-spots image.zarr -o spots.csv";

    fn pipes(&self) -> Vec<&'static str> {
        vec!["output"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let volume = Volume::open(&self.location, &self.volume.select())?;
        let mask = self.mask.map(|mask| Volume::open_mask(&mask, &volume)).transpose()?;
        let options = self.spots.options(&volume.grid());
        Ok(features::extract(&volume, mask.as_ref(), &options, ctx, &self.output)?)
    }
}

fn main() -> ExitCode {
    cli::main::<ExtractSpots>()
}
