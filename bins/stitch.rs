//! `stitch`: finds the places of overlapping tiles.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, Program, Purpose, TileArgs};
use voxloom::stitch::{self, Flags};
use voxloom::tiles::Project;

/// Finds the places of the overlapping tiles of one or several planes.
///
/// TILES is a table with the columns `z,location,offset_y,offset_x` (pixels) and, if there are masks,
/// `mask`; a comment '# spacing: y,x um' may state the pixel size. A TileConfiguration.txt of Fiji, and
/// lines of 'file x y plane', are read too. Each plane is stitched on its own. The result lists all
/// tiles with their maps, for `fuse`; if these are not affine, OUT.zarr, beside OUT.json, has their
/// fields. Tiles that no link connects to the others are placed by the stage, and named.
#[derive(clap::Args)]
pub(crate) struct Stitch {
    /// The tiles and their positions
    #[arg(value_name = "TILES")]
    tiles: String,
    /// The tiles with their maps: a JSON file
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    #[command(flatten)]
    stitch: Flags,
    #[command(flatten)]
    tile: TileArgs,
}

impl Program for Stitch {
    const NAME: &'static str = "stitch";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "stitch tiles.csv -o stitched.json";

    fn written(&self) -> Vec<PathBuf> {
        vec![stitch::fields_beside(&self.output)]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let project = Project::open(&self.tiles, &self.tile.select())?;
        ctx.input_file(&self.tiles);
        let options = self.stitch.options(self.tile.channel);
        Ok(stitch::stitch(&project, Path::new(&self.output), &options, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Stitch>()
}
