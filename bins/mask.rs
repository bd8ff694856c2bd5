//! `mask`: finds tissue, tears, wrinkles and dirt in the sections of a stack.

use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, Program, Purpose, VolumeArgs};
use voxloom::mask::{self, Flags};

/// Finds tissue, tears, wrinkles and dirt in the sections of a stack.
///
/// Tissue is where the local contrast is high. What is much darker or brighter than the tissue is a
/// defect: a wrinkle or a tear if it is a line, otherwise dirt or charging. The values of the mask are
/// 1 for tissue, 2 for soft tissue, 0 for what is excluded, -1 for tears and -2 for wrinkles; rough
/// and flow use only pixels above 0, and relax --mask cuts its meshes at tears and wrinkles.
#[derive(clap::Args)]
pub(crate) struct Mask {
    /// The stack: a volume, or a folder, pattern or table of sections
    stack: String,
    /// The mask: a Zarr array
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Labels drawn by hand, which replace what is found: 1 tissue, 2 soft, 3 or -1 tear, 4 or -2 wrinkle, 5
    /// excluded; 0 where nothing is drawn
    #[arg(long, value_name = "LOC")]
    drawn: Option<String>,
    #[command(flatten)]
    mask: Flags,
    #[command(flatten)]
    volume: VolumeArgs,
}

impl Program for Mask {
    const NAME: &'static str = "mask";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "mask sections.zarr -o mask.zarr";

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let stack = (self.stack.as_str(), &self.volume.select());
        let options = self.mask.options();
        Ok(mask::mask(stack, self.drawn.as_deref(), &self.output, &options, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Mask>()
}
