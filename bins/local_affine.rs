//! Fits one affine per block.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use voxloom::blocks::Context;
use voxloom::cli::{self, FixedArgs, MovingArgs, Program, Purpose, Shape};
use voxloom::local_affine::{self, Options};
use voxloom::matching::ContextRadius;
use voxloom::transform;
use voxloom::volume::Volume;

/// Fits one affine per block, consistent with its neighbours, after a first affine.
///
/// Every spot of the fixed volume is looked for in the moving one, seen through --initial; the
/// affines of all blocks are then fitted together. The result holds total maps, fixed to moving,
/// --initial included. --block-size is the block of one affine [default: 64,64,64].
#[derive(clap::Args)]
pub(crate) struct LocalAffine {
    /// The fixed volume
    fixed: String,
    /// The moving volume
    moving: String,
    /// Affine chain that takes the fixed volume to the moving one roughly, as of `ransac`
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    initial: Vec<String>,
    /// The local affines: a Zarr array
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Each block's status, matches and residual, as CSV
    #[arg(long, value_name = "CSV")]
    table: Option<PathBuf>,
    /// Radii of the spots, micrometres [default: 3 to 10 voxels]
    #[arg(long, value_name = "MIN..MAX", value_parser = cli::parse_range)]
    radius: Option<[f64; 2]>,
    /// Half the side of the cubes that are compared: micrometres, or voxels as 10vox
    #[arg(long, value_name = "UM", default_value = "10vox")]
    context_radius: ContextRadius,
    /// How far --initial may be off, micrometres [default: 6 voxels]
    #[arg(long, value_name = "UM")]
    max_distance: Option<f64>,
    /// Least correlation of a match
    #[arg(long, value_name = "R", default_value_t = 0.7)]
    match_threshold: f64,
    /// How strongly neighbours agree: a face weighs like so many matches
    #[arg(long, value_name = "N", default_value_t = 0.3)]
    stiffness: f64,
    /// Matches that make a block `fitted`, and that the volume needs
    #[arg(long, value_name = "N", default_value_t = 12)]
    min_matches: usize,
    /// Half the width of the blend between blocks, as a fraction of a block
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5)]
    overlap: f64,
    #[command(flatten)]
    fixed_args: FixedArgs,
    #[command(flatten)]
    moving_args: MovingArgs,
}

impl Program for LocalAffine {
    const NAME: &'static str = "local-affine";
    const PURPOSE: Purpose = Purpose::Align;
    const SHAPE: Shape = Shape::Blocks;
    const EXAMPLE: &'static str =
        "local-affine fixed.zarr moving.zarr --initial global.json -o local.zarr";

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let fixed = Volume::open(&self.fixed, &self.fixed_args.select())?;
        let moving = Volume::open(&self.moving, &self.moving_args.select())?;
        let initial = transform::read_chain(&self.initial).context("reading --initial")?;
        let usual = Options::new(fixed.grid().spacing);
        let options = Options {
            initial: self.initial.join(" "),
            radius: self.radius.unwrap_or(usual.radius),
            context_radius: self.context_radius,
            max_distance: self.max_distance.unwrap_or(usual.max_distance),
            match_threshold: self.match_threshold,
            stiffness: self.stiffness,
            min_matches: self.min_matches,
            overlap: self.overlap,
        };
        let (output, table) = (&self.output, self.table.as_deref());
        local_affine::align(&fixed, &moving, &initial, output, table, &options, ctx)
    }
}

fn main() -> ExitCode {
    cli::main::<LocalAffine>()
}
