//! `rough`: aligns the sections of a stack of which nothing is known.

use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, Program, Purpose, VolumeArgs};
use voxloom::refine::{self, InputVolume, RoughFlags};
use voxloom::transform;

/// Aligns the sections of a stack roughly, whatever their rotations and shifts.
///
/// Each section is compared with those before it over all rotations, the nearest first, until the
/// result is certain; broken sections are compared piece by piece. The result is a field that takes
/// each point of the aligned stack to its section; OUT.json, beside OUT.zarr, contains its chain.
/// Both flow and relax can start from it (--through). For two images, refine --search does the same.
#[derive(clap::Args)]
pub(crate) struct Rough {
    /// The stack: a volume, or a folder, pattern or table of sections
    stack: String,
    /// The displacement field: a Zarr array
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Mask of the tissue: only pixels above 0 are used
    #[arg(long, value_name = "LOC")]
    mask: Option<String>,
    #[command(flatten)]
    align: RoughFlags,
    #[command(flatten)]
    volume: VolumeArgs,
}

impl Program for Rough {
    const NAME: &'static str = "rough";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "rough sections.zarr -o rough.zarr";

    fn written(&self) -> Vec<PathBuf> {
        vec![transform::document_beside(&self.output)]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let (select, mask) = (self.volume.select(), self.mask.as_deref());
        let stack = InputVolume { location: &self.stack, select, mask };
        Ok(refine::rough(&stack, &self.output, &self.align.options()?, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Rough>()
}
