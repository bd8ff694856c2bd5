//! `report`: shows an alignment on one HTML page.

use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FixedArgs, FlagSet, MovingArgs, Program, Purpose};
use voxloom::report::{self, NamedLocation, Request, StackRequest};
use voxloom::volume::Volume;

/// Shows an alignment on one page: pictures and numbers before and after each step.
///
/// With --stack and --aligned, it shows the sections of a stack before and after their alignment.
#[derive(clap::Args)]
pub(crate) struct Report {
    /// Receipts of the programs, or arrays that contain one
    #[arg(value_name = "RECEIPT")]
    receipts: Vec<PathBuf>,
    /// The fixed volume
    #[arg(long, value_name = "LOC", required_unless_present = "stack")]
    fixed: Option<String>,
    /// The moving volume, not resampled
    #[arg(long, value_name = "LOC", required_unless_present = "stack")]
    moving: Option<String>,
    /// In place of --fixed and --moving: a stack of sections, not resampled; flags of the fixed
    /// volume apply to it
    #[arg(long, value_name = "LOC", requires = "aligned",
        conflicts_with_all = ["fixed", "moving", "stage", "matches", "fixed_spots", "blocks_table", "truth_score"])]
    stack: Option<String>,
    /// The aligned stack
    #[arg(long, value_name = "LOC", requires = "stack")]
    aligned: Option<String>,
    /// Transforms from the aligned stack to its sections, in the order in which they are applied
    #[arg(long, value_name = "LOC", num_args = 1.., requires = "stack")]
    transform: Vec<String>,
    /// Result of a step, resampled onto the fixed grid; repeat the flag for further steps, in order
    #[arg(long, value_name = "NAME=LOC")]
    stage: Vec<NamedLocation>,
    /// Matches of the global step, as from `ransac --matches`
    #[arg(long, value_name = "CSV")]
    matches: Option<PathBuf>,
    /// Spots of the fixed volume, as from `extract-spots`
    #[arg(long, value_name = "CSV")]
    fixed_spots: Option<PathBuf>,
    /// Status of each block, as from `local-affine --table`
    #[arg(long, value_name = "CSV")]
    blocks_table: Option<PathBuf>,
    /// Output of `phantom score`, with a name for the page; repeat the flag for several
    #[arg(long, value_name = "NAME=JSON")]
    truth_score: Vec<NamedLocation>,
    /// URL at which Neuroglancer will find the volumes
    #[arg(long, value_name = "URL", default_value = "http://localhost:8000")]
    base_url: String,
    /// Title of the page
    #[arg(long)]
    title: Option<String>,
    /// The page to write; its numbers (.json) and a state for Neuroglancer are written beside it
    #[arg(short, long, value_name = "HTML")]
    output: PathBuf,
    #[command(flatten)]
    of_fixed: FixedArgs,
    #[command(flatten)]
    of_moving: MovingArgs,
}

impl Program for Report {
    const NAME: &'static str = "report";
    const PURPOSE: Purpose = Purpose::Inspect;
    const FLAG_SET: FlagSet = FlagSet::Whole;
    const EXAMPLE: &'static str = "report receipts/*.json --fixed a.zarr --moving b.zarr -o c.html";

    fn written(&self) -> Vec<PathBuf> {
        report::companion_paths(&self.output).to_vec()
    }

    fn pipes(&self) -> Vec<&'static str> {
        vec!["receipts", "transform", "matches", "fixed_spots", "blocks_table", "truth_score"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let papers = [&self.matches, &self.fixed_spots, &self.blocks_table].into_iter().flatten();
        let papers = self.receipts.iter().chain(papers).map(|path| path.display().to_string());
        let scores = self.truth_score.iter().map(|score| score.location.clone());
        papers.chain(scores).for_each(|location| ctx.input_file(&location));
        if let (Some(stack), Some(aligned)) = (&self.stack, &self.aligned) {
            self.transform.iter().for_each(|location| ctx.input_file(location));
            let request = StackRequest {
                stack: stack.clone(),
                select: self.of_fixed.select(),
                aligned: aligned.clone(),
                transform: self.transform,
                receipts: self.receipts,
                title: self.title,
                output: self.output,
            };
            return Ok(report::write_stack(&request, ctx)?);
        }
        let (Some(fixed), Some(moving)) = (&self.fixed, &self.moving) else {
            anyhow::bail!("--fixed and --moving are wanted, or --stack and --aligned");
        };
        let request = Request {
            fixed: Volume::open(fixed, &self.of_fixed.select())?,
            moving: Volume::open(moving, &self.of_moving.select())?,
            stages: self.stage,
            receipts: self.receipts,
            matches: self.matches,
            fixed_spots: self.fixed_spots,
            blocks_table: self.blocks_table,
            truth_scores: self.truth_score,
            base_url: self.base_url,
            title: self.title,
            output: self.output,
        };
        Ok(report::write(&request, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Report>()
}
