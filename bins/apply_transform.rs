//! `apply-transform`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FixedArgs, Length3, MovingArgs, OutputArgs, Program, Purpose, Shape};
use voxloom::geom::Grid;
use voxloom::transform;
use voxloom::volume::{Dtype, Volume};
use voxloom::warp::{self, Interpolation, Options, Rounding, points};

/// Pulls a volume onto a grid, or carries points, through a chain of transforms.
///
/// Transforms take points of the fixed (output) space to the moving one and are given in the order
/// in which they are applied: matrices, local affines, displacement fields. Points of a CSV table
/// (columns `z_um`, `y_um`, `x_um`; others are kept) go from fixed to moving, or with --inverse-transform
/// from moving to fixed.
#[derive(clap::Args)]
pub(crate) struct ApplyTransform {
    /// The volume to be resampled
    #[arg(value_name = "MOVING", required_unless_present = "points", conflicts_with = "points")]
    moving: Option<String>,
    /// Chains, fields, local affines or 4x4 text matrices, first applied first
    #[arg(short, long, value_name = "LOC", required = true, num_args = 1..)]
    transform: Vec<String>,
    /// The volume whose grid is filled
    #[arg(long, value_name = "LOC", required_unless_present_any = ["shape", "points"])]
    onto: Option<String>,
    /// The grid's shape, in place of --onto
    #[arg(long, value_name = "Z,Y,X", value_parser = cli::parse_size3, conflicts_with = "onto",
          requires = "out_spacing")]
    shape: Option<[usize; 3]>,
    /// The grid's voxel size
    #[arg(long, value_name = "Z,Y,X[UNIT]", value_parser = cli::parse_spacing, requires = "shape")]
    out_spacing: Option<Length3>,
    /// The centre of the grid's first voxel [default: 0,0,0]
    #[arg(long, value_name = "Z,Y,X[UNIT]", allow_hyphen_values = true, requires = "shape")]
    out_origin: Option<Length3>,
    /// A table of points to be carried, in place of a volume
    #[arg(long, value_name = "CSV")]
    points: Option<PathBuf>,
    /// Apply the inverse of the whole chain (volumes: chains of matrices only)
    #[arg(long)]
    inverse_transform: bool,
    /// The volume or table that is written
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// How a value between voxels is made
    #[arg(long, value_enum, default_value = "linear")]
    interpolation: Interpolation,
    /// What is written outside the moving volume
    #[arg(long, value_name = "VALUE", default_value_t = 0.0, allow_negative_numbers = true)]
    fill: f64,
    /// Let the nearest voxel go on outside the moving volume
    #[arg(long, conflicts_with = "fill")]
    extrapolate: bool,
    /// How a value becomes an integer
    #[arg(long, value_enum, default_value = "nearest")]
    rounding: Rounding,
    /// Element type of the output [default: that of the moving volume]
    #[arg(long, value_parser = cli::dtypes())]
    dtype: Option<Dtype>,
    #[command(flatten)]
    write: OutputArgs,
    #[command(flatten)]
    moving_args: MovingArgs,
    #[command(flatten)]
    fixed_args: FixedArgs,
}

impl Program for ApplyTransform {
    const NAME: &'static str = "apply-transform";
    const PURPOSE: Purpose = Purpose::Align;
    const SHAPE: Shape = Shape::Blocks;
    const EXAMPLE: &'static str =
        "apply-transform moving.zarr --onto fixed.zarr --transform local.json -o aligned.zarr";

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let chain = transform::read_chain(&self.transform)?;
        self.transform.iter().for_each(|location| ctx.input_file(location));
        if let Some(table) = &self.points {
            let to = Path::new(&self.output);
            return Ok(points::carry(table, to, &chain, self.inverse_transform, ctx)?);
        }
        let moving = Volume::open(&self.moving.unwrap_or_default(), &self.moving_args.select())?;
        let chain = if self.inverse_transform { points::inverse_chain(&chain)? } else { chain };
        let onto = match (&self.onto, self.shape, self.out_spacing) {
            (None, Some(shape), Some(spacing)) => {
                Grid::new(shape, spacing.0, self.out_origin.map_or([0.0; 3], |o| o.0))
            }
            (onto, ..) => {
                let onto = onto.as_deref().unwrap_or_default();
                Volume::open(onto, &self.fixed_args.select())?.grid()
            }
        };
        let spec = self.write.spec(&self.output, onto, self.dtype.unwrap_or(moving.dtype()));
        let options = Options {
            interpolation: self.interpolation,
            rounding: self.rounding,
            fill: self.fill,
            extrapolate: self.extrapolate,
        };
        Ok(warp::resample(&moving, &chain, &self.output, &spec, &options, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<ApplyTransform>()
}
