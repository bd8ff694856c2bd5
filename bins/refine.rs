//! `refine`: finds the affine under which the intensities of two volumes agree best.

use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FixedArgs, FlagSet, MovingArgs, Program, Purpose};
use voxloom::refine::{self, Flags, InputVolume};

/// Finds the affine from one volume to another under which their intensities agree best.
///
/// The alignment starts at --initial and changes it only as --model allows, from coarse to fine
/// resolutions. Without a good initial transform, --search tries rotated, scaled and mirrored
/// versions, each at its best shift. Images of one plane are aligned within their plane. If the
/// result is rejected, the initial transform is written (nothing if there is none), the reason is
/// reported, and the exit code is 3.
#[derive(clap::Args)]
pub(crate) struct Refine {
    /// The fixed volume
    fixed: String,
    /// The moving volume
    moving: String,
    /// Initial transforms, which map the fixed volume roughly to the moving one, in the order in
    /// which they are applied [default: the identity]
    #[arg(long, value_name = "LOC", num_args = 1..)]
    initial: Vec<String>,
    /// The chain of --initial and the refinement: a JSON file
    #[arg(short, long, value_name = "JSON")]
    output: PathBuf,
    /// Mask of the fixed volume: only voxels above 0 are used
    #[arg(long, value_name = "LOC")]
    fixed_mask: Option<String>,
    /// Mask of the moving volume: only voxels above 0 are used
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
    const FLAG_SET: FlagSet = FlagSet::Whole;
    const EXAMPLE: &'static str =
        "refine fixed.zarr moving.zarr --initial global.json -o refined.json";

    fn pipes(&self) -> Vec<&'static str> {
        vec!["initial", "output"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let (select, mask) = (self.fixed_args.select(), self.fixed_mask.as_deref());
        let fixed = InputVolume { location: &self.fixed, select, mask };
        let (select, mask) = (self.moving_args.select(), self.moving_mask.as_deref());
        let moving = InputVolume { location: &self.moving, select, mask };
        let options = self.align.options()?;
        Ok(refine::align(&fixed, &moving, &self.initial, &self.output, &options, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Refine>()
}
