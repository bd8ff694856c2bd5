//! `invmap`: computes the inverse of a chain of transforms.

use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, MovingArgs, Program, Purpose};
use voxloom::invmap::{self, Options};
use voxloom::transform;
use voxloom::volume::Volume;

/// Inverts a chain of transforms: writes the displacement field from moving to fixed points.
///
/// The chain may contain fields, local affines and matrices. Where it maps no fixed point to a
/// node, or folds, the field is unknown (NaN); the receipt counts these nodes. Use the result with
/// `apply-transform --direction moving-to-fixed`.
#[derive(clap::Args)]
pub(crate) struct Invmap {
    /// Transforms from the fixed to the moving space, in the order in which they are applied
    #[arg(value_name = "LOC", required = true, num_args = 1..)]
    transform: Vec<String>,
    /// The inverse: a Zarr array
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Volume in the moving space on whose grid the inverse is computed [default: the grid of the
    /// chain's first field, moved and resized to cover its image]
    #[arg(long, value_name = "LOC")]
    onto: Option<String>,
    /// Maximum distance between a node and the point to which the transform maps its inverse, in
    /// node spacings
    #[arg(long, value_name = "VOXELS", default_value_t = 1e-4)]
    tolerance: f64,
    #[command(flatten)]
    moving_args: MovingArgs,
}

impl Program for Invmap {
    const NAME: &'static str = "invmap";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "invmap deform.json --onto moving.zarr -o inverse.zarr";

    fn pipes(&self) -> Vec<&'static str> {
        vec!["transform"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let chain = transform::read_chain(&self.transform)?;
        self.transform.iter().for_each(|location| ctx.input_file(location));
        let options = Options { transform: self.transform.join(" "), tolerance: self.tolerance };
        let grid = match &self.onto {
            Some(onto) => {
                let onto = Volume::open(onto, &self.moving_args.select())?;
                ctx.input(&onto);
                onto.grid()
            }
            None => invmap::grid_of(&chain, &options)?,
        };
        Ok(invmap::invert(&chain, &grid, &self.output, &options, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Invmap>()
}
