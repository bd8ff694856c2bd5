//! Flags with which a program specifies the output grid. The structs have no doc comments, because
//! clap would use them as the program's own description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::values::{parse_place, parse_shape3, parse_voxel_size};
use super::{FixedArgs, Length3};
use crate::blocks::{self, Context};
use crate::geom::{Grid, Point};
use crate::volume::Volume;

#[derive(clap::Args, Clone, Debug)]
pub struct GridArgs {
    /// The volume whose grid the output gets
    #[arg(long, value_name = "LOC", required_unless_present_any = ["shape", "points"])]
    pub onto: Option<String>,
    /// Shape of the output grid, in voxels, instead of --onto; Y,X for a plane
    #[arg(long, value_name = "Z,Y,X", value_parser = parse_shape3, conflicts_with = "onto",
          requires = "out_spacing")]
    pub shape: Option<[usize; 3]>,
    /// Voxel size of the output grid; Y,X for a plane
    #[arg(long, value_name = "Z,Y,X[UNIT]", value_parser = parse_voxel_size, requires = "shape")]
    pub out_spacing: Option<Length3>,
    /// Centre of the first voxel of the output grid [default: 0,0,0]
    #[arg(long, value_name = "Z,Y,X[UNIT]", allow_hyphen_values = true, requires = "shape",
          value_parser = parse_place)]
    pub out_origin: Option<Length3>,
    #[command(flatten)]
    pub fixed: FixedArgs,
}

impl GridArgs {
    /// The grid that the flags specify; the volume of `--onto` is recorded as an input.
    ///
    /// # Errors
    /// Those of opening `--onto`; [`blocks::Error::Usage`] if `y,x` and `z,y,x` values are mixed.
    pub fn grid(&self, ctx: &Context) -> anyhow::Result<Grid> {
        if let (None, Some(shape), Some(spacing)) = (&self.onto, self.shape, self.out_spacing) {
            return Ok(explicit_grid(shape, spacing.0, self.out_origin.map(|o| o.0))?);
        }
        let onto = self.onto.as_deref().unwrap_or_default();
        let onto = Volume::open(onto, &self.fixed.select())?;
        ctx.input(&onto);
        Ok(onto.grid())
    }
}

/// The grid with this shape (voxels), spacing and origin (micrometres), each along z, y, x. If the
/// spacing along z is NaN, the grid is a plane.
fn explicit_grid(
    shape: [usize; 3],
    spacing: Point,
    origin: Option<Point>,
) -> Result<Grid, blocks::Error> {
    let is_plane = spacing[0].is_nan();
    let [z, y, x] = origin.unwrap_or(if is_plane { [f64::NAN, 0.0, 0.0] } else { [0.0; 3] });
    let wrong = if is_plane && shape[0] != 1 {
        "--out-spacing y,x is for a plane, and --shape has several; give --out-spacing z,y,x"
    } else if z.is_nan() && !is_plane {
        "--out-origin y,x is for a plane, and --out-spacing has z; give --out-origin z,y,x"
    } else if is_plane && !z.is_nan() {
        "--out-origin has z, and --out-spacing none; give --out-origin y,x, or --out-spacing z,y,x"
    } else if is_plane {
        let [_, rows, columns] = shape;
        return Ok(Grid::plane([rows, columns], [spacing[1], spacing[2]], [y, x]));
    } else {
        return Ok(Grid::new(shape, spacing, [z, y, x]));
    };
    Err(blocks::Error::Usage(wrong.to_owned()))
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Grid on which a map is sampled")]
pub struct SampleArgs {
    /// The volume on whose grid the map is sampled
    #[arg(long, value_name = "LOC")]
    pub onto: Option<String>,
    /// Shape of the grid, in voxels, instead of --onto; Y,X for a plane
    #[arg(long, value_name = "Z,Y,X", value_parser = parse_shape3, conflicts_with = "onto",
          requires = "out_spacing")]
    pub shape: Option<[usize; 3]>,
    /// Voxel size of the grid; Y,X for a plane
    #[arg(long, value_name = "Z,Y,X[UNIT]", value_parser = parse_voxel_size, requires = "shape")]
    pub out_spacing: Option<Length3>,
    /// Centre of the first voxel of the grid [default: 0,0,0]
    #[arg(long, value_name = "Z,Y,X[UNIT]", allow_hyphen_values = true, requires = "shape",
          value_parser = parse_place)]
    pub out_origin: Option<Length3>,
    #[command(flatten)]
    pub fixed: FixedArgs,
}

impl SampleArgs {
    /// The grid that the flags specify; `None` if neither `--onto` nor `--shape` is given.
    ///
    /// # Errors
    /// Those of [`GridArgs::grid`].
    pub fn grid(&self, ctx: &Context) -> anyhow::Result<Option<Grid>> {
        let Self { onto, shape, out_spacing, out_origin, fixed } = self.clone();
        if onto.is_none() && shape.is_none() {
            return Ok(None);
        }
        GridArgs { onto, shape, out_spacing, out_origin, fixed }.grid(ctx).map(Some)
    }
}
