//! The inverse of a transform.

use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, MovingArgs, Program, Purpose, Shape};
use voxloom::invmap::{self, Options};
use voxloom::transform;
use voxloom::volume::Volume;

/// Turns a transform round: the displacement field that takes moving points back to the fixed ones.
///
/// Takes whole chains: fields, local affines and matrices. Where no fixed point leads to a node, or the
/// map folds, the field is unknown (NaN), which the receipt counts. Use the result with
/// `apply-transform --direction moving-to-fixed`.
#[derive(clap::Args)]
pub(crate) struct Invmap {
    /// Transforms from the fixed to the moving space, first applied first
    #[arg(value_name = "LOC", required = true, num_args = 1..)]
    transform: Vec<String>,
    /// The inverse: a Zarr array
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Volume whose grid the inverse is computed on, of the moving space [default: the grid of the
    /// chain's field, as the chain takes it there]
    #[arg(long, value_name = "LOC")]
    onto: Option<String>,
    /// How near the transform must take what is found to its node, in node spacings
    #[arg(long, value_name = "VOXELS", default_value_t = 1e-4)]
    tolerance: f64,
    #[command(flatten)]
    moving_args: MovingArgs,
}

impl Program for Invmap {
    const NAME: &'static str = "invmap";
    const PURPOSE: Purpose = Purpose::Align;
    const SHAPE: Shape = Shape::Blocks;
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
