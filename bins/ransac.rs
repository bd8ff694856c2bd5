//! `ransac`: finds the affine that fits most of the matching spots of two volumes.
use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FixedArgs, FlagSet, MovingArgs, Program, Purpose};
use voxloom::geom::Chain;
use voxloom::matching::{self, EstimateOptions, MatchOptions};
use voxloom::volume::Volume;
use voxloom::{table, transform};

/// Finds the affine from one volume to another that fits most of their matching spots.
///
/// Two spots match if the images around them correlate. The map is found by random sampling
/// (RANSAC) and refitted to all its inliers; it maps points of the fixed volume to the moving one.
/// If no map is accepted, other orientations of the moving volume are tried (mirrored ones with
/// --allow-reflection); if none is accepted then, no map is written, the reason is reported, and
/// the exit code is 3.
#[derive(clap::Args)]
pub(crate) struct Ransac {
    /// The fixed volume
    fixed: String,
    /// The moving volume
    moving: String,
    /// Spots of the fixed volume, as from `extract-spots`
    #[arg(long, value_name = "CSV")]
    fixed_spots: PathBuf,
    /// Spots of the moving volume
    #[arg(long, value_name = "CSV")]
    moving_spots: PathBuf,
    /// The affine map: a JSON file
    #[arg(short, long, value_name = "JSON")]
    output: PathBuf,
    /// Each match, its residual and whether it is an inlier, as CSV
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
    const FLAG_SET: FlagSet = FlagSet::Whole;
    const EXAMPLE: &'static str = "ransac fixed.zarr moving.zarr --fixed-spots fixed.csv \
                                   --moving-spots moving.csv -o affine.json";

    fn pipes(&self) -> Vec<&'static str> {
        vec!["fixed_spots", "moving_spots", "output", "matches"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        for path in std::iter::once(&self.output).chain(&self.matches) {
            ctx.refuse_existing(path)?;
        }
        let fixed = Volume::open(&self.fixed, &self.fixed_args.select())?;
        let moving = Volume::open(&self.moving, &self.moving_args.select())?;
        let fixed_spots = table::read_spots(&self.fixed_spots)?;
        let moving_spots = table::read_spots(&self.moving_spots)?;
        ctx.input(&fixed);
        ctx.input(&moving);
        ctx.input_file(&self.fixed_spots.to_string_lossy());
        ctx.input_file(&self.moving_spots.to_string_lossy());
        let spots = [&fixed_spots[..], &moving_spots[..]];
        let fit = self.fit.for_pair(&fixed.grid(), &moving.grid());
        ctx.record("align_threshold_um", fit.threshold());
        let mut found = matching::find([&fixed, &moving], spots, &self.matching, &fit, ctx)?;
        if ctx.plan_only {
            return Ok(());
        }
        ctx.check_inputs()?;
        found.record(ctx);
        if let Some(path) = &self.matches {
            table::write_matches(path, &found.matches)?;
            ctx.output_file(path);
        }
        match found.estimate {
            Err(doubt) => Err(ctx.reject_result(&self.output, &doubt.to_string()).into()),
            Ok(estimate) => {
                transform::write_chain(&self.output, &Chain::affine(estimate.affine))?;
                ctx.output_file(&self.output);
                Ok(())
            }
        }
    }
}

fn main() -> ExitCode {
    cli::main::<Ransac>()
}
