//! `deform`: finds a smooth displacement field.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use voxloom::blocks::{Context, Error};
use voxloom::cli::{self, FixedArgs, FlagSet, MovingArgs, Program, Purpose};
use voxloom::deform::{self, Flags};
use voxloom::transform::{self, Direction, StoredChain};
use voxloom::volume::{Masks, Volume};

/// Finds the smooth displacement field that remains after an initial transform.
///
/// The field is applied first, then --initial; OUT.json, beside OUT.zarr, contains this whole
/// chain, from fixed to moving, for `apply-transform --transform`.
#[derive(clap::Args)]
pub(crate) struct Deform {
    /// The fixed volume
    fixed: String,
    /// The moving volume
    moving: String,
    /// Initial transforms, which map the fixed volume roughly to the moving one, in the order in
    /// which they are applied
    #[arg(long, value_name = "LOC", num_args = 1..)]
    initial: Vec<String>,
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

impl Program for Deform {
    const NAME: &'static str = "deform";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const SECOND_PASS: bool = true;
    const BLOCK_SIZE: Option<&'static str> =
        Some("Size of the aligned blocks, voxels of the fixed volume [default: about 160]");
    const EXAMPLE: &'static str =
        "deform fixed.zarr moving.zarr --initial local.zarr -o deform.zarr";

    fn written(&self) -> Vec<PathBuf> {
        vec![transform::document_beside(&self.output)]
    }

    fn pipes(&self) -> Vec<&'static str> {
        vec!["initial"]
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
        let initial = transform::read_stored(&self.initial, Direction::FixedToMoving)
            .context("reading --initial")?;
        self.initial.iter().for_each(|location| ctx.input_file(location));
        let initial_name = match self.initial.as_slice() {
            [] => "the identity (no --initial is given)".to_owned(),
            given => format!("--initial {}", given.join(" ")),
        };
        let options = self.search.options(initial_name).map_err(Error::Usage)?;
        let StoredChain { chain, steps } = &initial;
        deform::align(&fixed, &moving, masks, chain, steps, &self.output, &options, ctx)?;
        Ok(())
    }
}

fn main() -> ExitCode {
    cli::main::<Deform>()
}
