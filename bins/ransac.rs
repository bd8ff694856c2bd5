//! Finds the map from one volume to another by matching their spots.

use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{FixedArgs, MovingArgs, Program, Purpose, Shape};
use voxloom::geom::Chain;
use voxloom::matching::{EstimateOptions, MatchOptions, estimate, match_spots};
use voxloom::volume::Volume;
use voxloom::{table, transform};

/// Finds the map from FIXED to MOVING that most pairs of matching spots agree on
///
/// Two spots match where the images around them correlate. The map is found by random sampling and
/// refitted to all matches near it. It takes fixed points to moving points, in micrometres.
#[derive(clap::Args)]
pub(crate) struct Ransac {
    /// The volume that stays
    fixed: String,

    /// The volume to be moved onto it
    moving: String,

    /// Spots of FIXED, from extract-spots
    #[arg(long, value_name = "CSV")]
    fixed_spots: PathBuf,

    /// Spots of MOVING, from extract-spots
    #[arg(long, value_name = "CSV")]
    moving_spots: PathBuf,

    /// Where the map is written, as JSON
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,

    /// Write the matches too, with residuals and which of them fit
    #[arg(long, value_name = "CSV")]
    matches: Option<PathBuf>,

    #[command(flatten)]
    matching: MatchOptions,

    #[command(flatten)]
    fit: EstimateOptions,

    #[command(flatten)]
    fixed_args: FixedArgs,

    #[command(flatten)]
    moving_args: MovingArgs,
}

impl Program for Ransac {
    const NAME: &'static str = "ransac";
    const PURPOSE: Purpose = Purpose::Align;
    const SHAPE: Shape = Shape::Whole;
    const EXAMPLE: &'static str = "ransac fixed.zarr moving.zarr --fixed-spots fixed.csv \
        --moving-spots moving.csv -o affine.json";

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        ctx.refuse_existing(&self.output)?;
        let fixed = Volume::open(&self.fixed, &self.fixed_args.select())?;
        let moving = Volume::open(&self.moving, &self.moving_args.select())?;
        ctx.input(&fixed);
        ctx.input(&moving);
        ctx.output_file(&self.output);
        let fixed_spots = table::read_spots(&self.fixed_spots)?;
        let moving_spots = table::read_spots(&self.moving_spots)?;
        ctx.record("fixed_spots", fixed_spots.len());
        ctx.record("moving_spots", moving_spots.len());
        let mut matches =
            match_spots(&fixed, &moving, &fixed_spots, &moving_spots, &self.matching, ctx)?;
        let found = estimate(&matches, &self.fit, ctx.seed)?;
        found.record(ctx);
        found.mark(&mut matches);
        if let Some(path) = &self.matches {
            table::write_matches(path, &matches)?;
        }
        transform::write_chain(&self.output, &Chain::affine(found.affine))?;
        Ok(())
    }
}

fn main() -> ExitCode {
    voxloom::cli::main::<Ransac>()
}
