//! `downsample`: makes the resolution pyramid of a volume.

use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, OutputArgs, Program, Purpose, VolumeArgs};
use voxloom::downsample::{self, Factor, LevelStorage, Method, Options};

/// Makes the resolution pyramid of a volume, in the volume's own image or as a new image.
///
/// Each level is computed from the previous one and records its true voxel size and origin. A run
/// that is divided into parts makes one --level at a time.
#[derive(clap::Args)]
pub(crate) struct Downsample {
    /// The volume
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// Write the levels as a new image [default: add them to the volume's image]
    #[arg(short, long, value_name = "LOC")]
    output: Option<String>,
    /// With -o: also copy the volume itself, as level 0
    #[arg(long, requires = "output")]
    with_original: bool,
    /// How a block of voxels is reduced to one
    #[arg(long, value_enum, default_value = "mean")]
    method: Method,
    /// Reduction factors z,y,x (y,x of a plane), or auto: 2 along axes whose spacing is within
    /// sqrt(2) of the smallest
    #[arg(long, value_name = "auto|Z,Y,X", default_value = "auto")]
    factor: Factor,
    /// Number of levels below the volume [default: until one fits into a chunk]
    #[arg(long, value_name = "N")]
    levels: Option<usize>,
    /// Make only this level, counted from 1; the previous level must exist
    #[arg(long, value_name = "L")]
    level: Option<usize>,
    #[command(flatten)]
    write: OutputArgs,
    #[command(flatten)]
    volume_args: VolumeArgs,
}

impl Program for Downsample {
    const NAME: &'static str = "downsample";
    const PURPOSE: Purpose = Purpose::Convert;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "downsample image.zarr";

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let options = Options {
            method: self.method,
            factor: self.factor,
            levels: self.levels,
            only: self.level,
            with_original: self.with_original,
        };
        let write = &self.write;
        let layout = LevelStorage { chunk: write.chunk, shard: write.shard, codec: write.codec };
        let to = self.output.as_deref().map(|to| (to, write.format(to)));
        let select = self.volume_args.select();
        Ok(downsample::pyramid(&self.volume, &select, to, &layout, &options, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Downsample>()
}
