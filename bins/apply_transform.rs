//! `apply-transform`: resamples a volume, or maps points, by a chain of transforms.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use voxloom::blocks::{Context, Error};
use voxloom::cli::{self, FlagSet, GridArgs, MovingChannelsArgs, OutputArgs, Program, Purpose};
use voxloom::transform::{self, Direction};
use voxloom::volume::Dtype;
use voxloom::warp::{self, Flags, points};

/// Resamples a volume onto a grid, or transforms points, by a chain of transforms.
///
/// Transforms map points of the fixed (output) space to the moving space and are given in the order
/// in which they are applied: matrices, local affines, displacement fields. With
/// --inverse-transform the volume lies in the fixed space and the grid in the moving space: voxels
/// to which the chain maps no point, or at which it folds, get the fill value and are counted in
/// the receipt. Points of a CSV table (columns `z_um`, `y_um`, `x_um`; others are kept) are
/// transformed from fixed to moving, or with --inverse-transform from moving to fixed.
#[derive(clap::Args)]
pub(crate) struct ApplyTransform {
    /// The volume to resample
    #[arg(value_name = "MOVING", required_unless_present = "points", conflicts_with = "points")]
    moving: Option<String>,
    /// Chains, fields, local affines or 4x4 text matrices, in the order in which they are applied
    #[arg(short, long, value_name = "LOC", required = true, num_args = 1..)]
    transform: Vec<String>,
    /// A table of points to transform, instead of a volume
    #[arg(long, value_name = "CSV")]
    points: Option<PathBuf>,
    /// Apply the inverse of the whole chain, whichever transforms it contains
    #[arg(long)]
    inverse_transform: bool,
    /// Direction of the given transforms: fixed-to-moving, or moving-to-fixed as `invmap` writes
    /// them (the volume to resample is then the fixed one)
    #[arg(long, value_enum, default_value_t, hide_possible_values = true)]
    direction: Direction,
    /// The volume or table to write
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
    const FLAG_SET: FlagSet = FlagSet::Blocks;
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
            if self.onto.onto.is_some() || self.onto.shape.is_some() {
                let message = "--points are not resampled: --onto and --shape have no effect on them; leave them out";
                return Err(Error::Usage(message.to_owned()).into());
            }
            let to = Path::new(&self.output);
            return Ok(points::map_table(table, to, &chain, self.inverse_transform, ctx)?);
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
