//! `apply-transform`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, GridArgs, MovingChannelsArgs, OutputArgs, Program, Purpose, Shape};
use voxloom::transform::{self, Direction};
use voxloom::volume::Dtype;
use voxloom::warp::{self, Flags, points};

/// Pulls a volume onto a grid, or carries points, through a chain of transforms.
///
/// Transforms take points of the fixed (output) space to the moving one and are given in the order
/// in which they are applied: matrices, local affines, displacement fields. With --inverse-transform the
/// volume is one of the fixed space and the grid one of the moving space: voxels that the transforms take
/// from nowhere, or from where they fold, get the fill value and are counted in the receipt. Points of a CSV
/// table (columns `z_um`, `y_um`, `x_um`; others are kept) go from fixed to moving, or with
/// --inverse-transform from moving to fixed.
#[derive(clap::Args)]
pub(crate) struct ApplyTransform {
    /// The volume to be resampled
    #[arg(value_name = "MOVING", required_unless_present = "points", conflicts_with = "points")]
    moving: Option<String>,
    /// Chains, fields, local affines or 4x4 text matrices, first applied first
    #[arg(short, long, value_name = "LOC", required = true, num_args = 1..)]
    transform: Vec<String>,
    /// A table of points to be carried, in place of a volume
    #[arg(long, value_name = "CSV")]
    points: Option<PathBuf>,
    /// Apply the inverse of the whole chain, whatever it is made of
    #[arg(long)]
    inverse_transform: bool,
    /// Which way the transforms take points: fixed-to-moving, or moving-to-fixed as `invmap` writes
    /// them (the volume to be resampled is then the fixed one)
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    direction: Direction,
    /// The volume or table that is written
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Element type of the output [default: that of the moving volume]
    #[arg(long, value_parser = cli::dtypes())]
    dtype: Option<Dtype>,
    #[command(flatten)]
    onto: GridArgs,
    #[command(flatten)]
    resample: Flags,
    #[command(flatten)]
    write: OutputArgs,
    #[command(flatten)]
    moving_args: MovingChannelsArgs,
}

impl Program for ApplyTransform {
    const NAME: &'static str = "apply-transform";
    const PURPOSE: Purpose = Purpose::Align;
    const SHAPE: Shape = Shape::Blocks;
    const EXAMPLE: &'static str =
        "apply-transform moving.zarr --onto fixed.zarr --transform local.json -o aligned.zarr";

    fn pipes(&self) -> Vec<&'static str> {
        let output = self.points.as_ref().map(|_| "output");
        ["transform", "points"].into_iter().chain(output).collect()
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let chain = transform::read_chain_in(&self.transform, self.direction)?;
        self.transform.iter().for_each(|location| ctx.input_file(location));
        if let Some(table) = &self.points {
            let to = Path::new(&self.output);
            return Ok(points::carry(table, to, &chain, self.inverse_transform, ctx)?);
        }
        let moving = self.moving_args.open(&self.moving.unwrap_or_default())?;
        let dtype = self.dtype.unwrap_or_else(|| moving[0].dtype());
        let spec = self.write.spec(&self.output, self.onto.grid(ctx)?, dtype);
        let backwards = self.inverse_transform;
        let options = warp::Options { backwards, ..self.resample.options() };
        Ok(warp::resample(&moving, &chain, &self.output, &spec, &options, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<ApplyTransform>()
}
