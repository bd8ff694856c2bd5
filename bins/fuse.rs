//! `fuse`: makes planes of tiles.

use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, OutputArgs, Program, Purpose, TileArgs};
use voxloom::fuse::{Flags, Tiles};
use voxloom::tiles::Project;
use voxloom::volume::Dtype;

/// Makes planes of overlapping tiles.
///
/// TILES is what `stitch` wrote, or a table of tiles, whose positions are then taken as they are. The
/// output has a plane for each z from the first to the last, and holds all tiles; `downsample` adds a
/// pyramid.
#[derive(clap::Args)]
pub(crate) struct Fuse {
    /// The tiles with their maps, or a table of tiles
    #[arg(value_name = "TILES")]
    tiles: String,
    /// The volume to write
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Element type of the output [default: that of the tiles]
    #[arg(long, value_parser = cli::dtypes())]
    dtype: Option<Dtype>,
    #[command(flatten)]
    fuse: Flags,
    #[command(flatten)]
    write: OutputArgs,
    #[command(flatten)]
    tile: TileArgs,
}

impl Program for Fuse {
    const NAME: &'static str = "fuse";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "fuse stitched.json -o montage.zarr";

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let project = Project::open(&self.tiles, &self.tile.select())?;
        ctx.input_file(&self.tiles);
        let tiles = Tiles::open(&project, &self.fuse.options(self.tile.channel))?;
        let dtype = self.dtype.unwrap_or(tiles.dtype());
        let spec = self.write.spec(&self.output, tiles.grid(), dtype);
        Ok(tiles.fuse(&self.output, &spec, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Fuse>()
}
