//! Flags by which a program says which grid is to be filled. Their struct has no doc comment beyond
//! this line, as clap would take it for the program's own.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::values::{parse_shape3, parse_spacing};
use super::{FixedArgs, Length3};
use crate::blocks::Context;
use crate::geom::Grid;
use crate::volume::{Error, Volume};

#[derive(clap::Args, Clone, Debug)]
pub struct GridArgs {
    /// The volume whose grid is filled
    #[arg(long, value_name = "LOC", required_unless_present_any = ["shape", "points"])]
    pub onto: Option<String>,
    /// The grid's shape, in place of --onto
    #[arg(long, value_name = "Z,Y,X", value_parser = parse_shape3, conflicts_with = "onto",
          requires = "out_spacing")]
    pub shape: Option<[usize; 3]>,
    /// The grid's voxel size
    #[arg(long, value_name = "Z,Y,X[UNIT]", value_parser = parse_spacing, requires = "shape")]
    pub out_spacing: Option<Length3>,
    /// The centre of the grid's first voxel [default: 0,0,0]
    #[arg(long, value_name = "Z,Y,X[UNIT]", allow_hyphen_values = true, requires = "shape")]
    pub out_origin: Option<Length3>,
    #[command(flatten)]
    pub fixed: FixedArgs,
}

impl GridArgs {
    /// The grid that is meant; `--onto` is an input of the run.
    ///
    /// # Errors
    /// Those of opening `--onto`.
    pub fn grid(&self, ctx: &Context) -> Result<Grid, Error> {
        if let (None, Some(shape), Some(spacing)) = (&self.onto, self.shape, self.out_spacing) {
            return Ok(Grid::new(shape, spacing.0, self.out_origin.map_or([0.0; 3], |o| o.0)));
        }
        let onto = self.onto.as_deref().unwrap_or_default();
        let onto = Volume::open(onto, &self.fixed.select())?;
        ctx.input(&onto);
        Ok(onto.grid())
    }
}

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Grid on which a map is sampled")]
pub struct SampleArgs {
    /// The volume whose grid is sampled
    #[arg(long, value_name = "LOC")]
    pub onto: Option<String>,
    /// The grid's shape, in place of --onto
    #[arg(long, value_name = "Z,Y,X", value_parser = parse_shape3, conflicts_with = "onto",
          requires = "out_spacing")]
    pub shape: Option<[usize; 3]>,
    /// The grid's voxel size
    #[arg(long, value_name = "Z,Y,X[UNIT]", value_parser = parse_spacing, requires = "shape")]
    pub out_spacing: Option<Length3>,
    /// The centre of the grid's first voxel [default: 0,0,0]
    #[arg(long, value_name = "Z,Y,X[UNIT]", allow_hyphen_values = true, requires = "shape")]
    pub out_origin: Option<Length3>,
    #[command(flatten)]
    pub fixed: FixedArgs,
}

impl SampleArgs {
    /// The grid that is meant, if one is.
    ///
    /// # Errors
    /// Those of opening `--onto`.
    pub fn grid(&self, ctx: &Context) -> Result<Option<Grid>, Error> {
        let Self { onto, shape, out_spacing, out_origin, fixed } = self.clone();
        if onto.is_none() && shape.is_none() {
            return Ok(None);
        }
        GridArgs { onto, shape, out_spacing, out_origin, fixed }.grid(ctx).map(Some)
    }
}
