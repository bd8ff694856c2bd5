//! `flow`: measures the displacements of patches.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use voxloom::blocks::Context;
use voxloom::cli::{self, FixedArgs, FlagSet, MovingArgs, Program, Purpose};
use voxloom::flow::{self, Flags};
use voxloom::transform::{self, Direction, StoredChain};
use voxloom::volume::{Masks, Volume};

/// Measures the displacement of each patch of the fixed volume in the moving one, by correlation.
///
/// The field has the patches' centres as nodes, NaN where a patch has no match, and four quality
/// channels: correlation, sharpness, ratio and evidence. It is applied before --initial; OUT.json,
/// beside OUT.zarr, contains this whole chain.
#[derive(clap::Args)]
pub(crate) struct Flow {
    /// The fixed volume, plane or stack of planes
    fixed: String,
    /// The moving volume, plane or stack of planes
    moving: String,
    /// Initial transforms, which map the fixed volume roughly to the moving one, in the order in
    /// which they are applied
    #[arg(long, value_name = "LOC", num_args = 1..)]
    initial: Vec<String>,
    /// Transforms through which both volumes are seen, such as the output of `relax`: OUT.json lies
    /// between them as they are seen
    #[arg(long, value_name = "LOC", num_args = 1.., conflicts_with = "initial")]
    through: Vec<String>,
    /// The displacement field: a Zarr array
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Mask of the fixed volume: only voxels above 0 are used
    #[arg(long, value_name = "LOC")]
    fixed_mask: Option<String>,
    /// Mask of the moving volume: only voxels above 0 are used
    #[arg(long, value_name = "LOC")]
    moving_mask: Option<String>,
    #[command(flatten)]
    search: Flags,
    #[command(flatten)]
    fixed_args: FixedArgs,
    #[command(flatten)]
    moving_args: MovingArgs,
}

impl Program for Flow {
    const NAME: &'static str = "flow";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const BLOCK_SIZE: Option<&'static str> =
        Some("Number of patches that a task compares [default: chosen from --memory]");
    const EXAMPLE: &'static str =
        "flow fixed.png moving.png --fixed-spacing 1,1 --moving-spacing 1,1 -o flow.zarr";

    fn written(&self) -> Vec<PathBuf> {
        vec![transform::document_beside(&self.output)]
    }

    fn pipes(&self) -> Vec<&'static str> {
        vec!["initial", "through"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let fixed = Volume::open(&self.fixed, &self.fixed_args.select())?;
        let moving = Volume::open(&self.moving, &self.moving_args.select())?;
        let open = |mask: &Option<String>, of: &Volume| {
            mask.as_ref().map(|mask| Volume::open_mask(mask, of)).transpose()
        };
        let fixed_mask = open(&self.fixed_mask, &fixed)?;
        let moving_mask = open(&self.moving_mask, &moving)?;
        let masks = Masks { fixed: fixed_mask.as_ref(), moving: moving_mask.as_ref() };
        let is_through = !self.through.is_empty();
        let locations = if is_through { self.through } else { self.initial };
        let StoredChain { chain, steps } =
            transform::read_stored(&locations, Direction::FixedToMoving)
                .context(if is_through { "reading --through" } else { "reading --initial" })?;
        locations.iter().for_each(|location| ctx.input_file(location));
        let options = self.search.options(&fixed.grid(), is_through);
        flow::flow(&fixed, &moving, masks, &chain, &steps, &self.output, &options, ctx)?;
        Ok(())
    }
}

fn main() -> ExitCode {
    cli::main::<Flow>()
}
