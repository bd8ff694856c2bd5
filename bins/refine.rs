//! `refine`.

use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FixedArgs, MovingArgs, Program, Purpose, Shape};
use voxloom::refine::{self, Flags, Input};

/// Finds the affine from one volume to another under which their intensities agree best.
///
/// The map begins at --initial and is changed as little as --model says, from coarse to fine
/// resolutions. --search finds a beginning where there is none: turned, scaled and mirrored versions
/// are tried, each at its best shift. Images (one plane) are aligned within their plane. Where the
/// result is not to be believed the initial map is written, the reason said, and the exit code is 3.
#[derive(clap::Args)]
pub(crate) struct Refine {
    /// The fixed volume
    fixed: String,
    /// The moving volume
    moving: String,
    /// Transforms that take the fixed volume to the moving one roughly, first applied first
    /// [default: the identity]
    #[arg(long, value_name = "LOC", num_args = 1..)]
    initial: Vec<String>,
    /// The chain, --initial and what follows it: a JSON file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Look at the fixed volume only where this volume is not 0
    #[arg(long, value_name = "LOC")]
    fixed_mask: Option<String>,
    /// Look at the moving volume only where this volume is not 0
    #[arg(long, value_name = "LOC")]
    moving_mask: Option<String>,
    #[command(flatten)]
    align: Flags,
    #[command(flatten)]
    fixed_args: FixedArgs,
    #[command(flatten)]
    moving_args: MovingArgs,
}

impl Program for Refine {
    const NAME: &'static str = "refine";
    const PURPOSE: Purpose = Purpose::Align;
    const SHAPE: Shape = Shape::Whole;
    const EXAMPLE: &'static str =
        "refine fixed.zarr moving.zarr --initial global.json -o refined.json";

    fn pipes(&self) -> Vec<&'static str> {
        vec!["initial", "output"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let (select, mask) = (self.fixed_args.select(), self.fixed_mask.as_deref());
        let fixed = Input { location: &self.fixed, select, mask };
        let (select, mask) = (self.moving_args.select(), self.moving_mask.as_deref());
        let moving = Input { location: &self.moving, select, mask };
        let options = self.align.options()?;
        refine::align(&fixed, &moving, &self.initial, &self.output, &options, ctx)
    }
}

fn main() -> ExitCode {
    cli::main::<Refine>()
}
