//! `local-affine`: fits one affine per block.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use voxloom::blocks::Context;
use voxloom::cli::{self, FixedArgs, FlagSet, MovingArgs, Program, Purpose};
use voxloom::local_affine::{self, Flags};
use voxloom::transform;
use voxloom::volume::Volume;

/// Fits one affine per block, consistent with its neighbours, after an initial affine.
///
/// Every spot of the fixed volume is searched for in the moving volume near the place that
/// --initial gives; the affines of all blocks are then fitted together. The result contains
/// complete maps from fixed to moving, with --initial included.
#[derive(clap::Args)]
pub(crate) struct LocalAffine {
    /// The fixed volume
    fixed: String,
    /// The moving volume
    moving: String,
    /// Initial affine chain, which maps the fixed volume roughly to the moving one, as from
    /// `ransac`
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    initial: Vec<String>,
    /// The local affines: a Zarr array
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Status, matches and residual of each block, as CSV
    #[arg(long, value_name = "CSV")]
    table: Option<PathBuf>,
    #[command(flatten)]
    fit: Flags,
    #[command(flatten)]
    fixed_args: FixedArgs,
    #[command(flatten)]
    moving_args: MovingArgs,
}

impl Program for LocalAffine {
    const NAME: &'static str = "local-affine";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const BLOCK_SIZE: Option<&'static str> =
        Some("Size of the block of one affine, voxels of the fixed volume [default: 64,64,64]");
    const EXAMPLE: &'static str =
        "local-affine fixed.zarr moving.zarr --initial global.json -o local.zarr";

    fn pipes(&self) -> Vec<&'static str> {
        vec!["initial", "table"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let fixed = Volume::open(&self.fixed, &self.fixed_args.select())?;
        let moving = Volume::open(&self.moving, &self.moving_args.select())?;
        let initial = transform::read_chain(&self.initial).context("reading --initial")?;
        self.initial.iter().for_each(|location| ctx.input_file(location));
        let options = self.fit.options(&fixed.grid(), &moving.grid(), self.initial.join(" "));
        let (output, table) = (&self.output, self.table.as_deref());
        Ok(local_affine::align(&fixed, &moving, &initial, output, table, &options, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<LocalAffine>()
}
