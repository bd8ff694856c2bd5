//! `transcode`.

use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, Program, Purpose, Shape, VolumeArgs};
use voxloom::transcode::{self, Layout, Target};
use voxloom::transform::Axes;
use voxloom::volume::Codec;

/// Writes a volume or a transform in another format.
///
/// Volumes are copied voxel for voxel. Transforms are our JSON or 4x4 text as BigStream has it, which
/// does not say the order of its axes: current BigStream writes z,y,x, that of 2021 x,y,z. Which one
/// was assumed is logged.
#[derive(clap::Args)]
pub(crate) struct Transcode {
    /// The volume or transform
    #[arg(value_name = "SRC")]
    source: String,
    /// zarr3, zarr2, n5, tiff, npy; for transforms json, bigstream-zyx, bigstream-xyz
    #[arg(long, value_name = "FORMAT")]
    to: Target,
    /// What is written
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Chunk, voxels [default: that of the source, or 64,64,64]
    #[arg(long, value_name = "Z,Y,X", value_parser = cli::parse_size3)]
    chunk: Option<[usize; 3]>,
    /// Shard, voxels, a multiple of the chunk (zarr3)
    #[arg(long, value_name = "Z,Y,X", value_parser = cli::parse_size3)]
    shard: Option<[usize; 3]>,
    /// How chunks are compressed: blosc, raw, gzip, zstd, lz4
    #[arg(long, default_value = "blosc", value_parser = transcode::parse_codec)]
    codec: Codec,
    /// Order of the axes of a text matrix: zyx or xyz [default: zyx]
    #[arg(long, value_name = "AXES", value_parser = transcode::parse_axes)]
    from_axes: Option<Axes>,
    /// The transform takes moving points to fixed ones: write its inverse
    #[arg(long)]
    invert: bool,
    #[command(flatten)]
    volume: VolumeArgs,
}

impl Program for Transcode {
    const NAME: &'static str = "transcode";
    const PURPOSE: Purpose = Purpose::Convert;
    const SHAPE: Shape = Shape::Blocks;
    const EXAMPLE: &'static str = "transcode stack.tif --to zarr3 -o stack.zarr";

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let (source, output) = (&self.source, &self.output);
        if let Target::Volume(format) = self.to {
            let layout = Layout { chunk: self.chunk, shard: self.shard, codec: self.codec };
            transcode::volume(source, &self.volume.select(), output, format, &layout, ctx)?;
        } else {
            transcode::transform(source, self.from_axes, self.invert, output, self.to, ctx)?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    cli::main::<Transcode>()
}
