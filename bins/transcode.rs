//! `transcode`: converts a volume or a transform to another format.

use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, Program, Purpose, SampleArgs, VolumeArgs};
use voxloom::interchange::{self, Flags, TargetFormat};
use voxloom::transcode::{self, VolumeStorage};
use voxloom::volume::Codec;

/// Converts a volume or a transform to another format.
///
/// Volumes are copied voxel for voxel. Transforms are those of voxloom (a chain in JSON, a field,
/// local affines) or of BigStream, ITK, ANTs, greedy, elastix, NiftyReg, SPM, BigWarp or OME-NGFF;
/// the format is detected from the content. How a transform was interpreted (direction, axes, LPS
/// or RAS, unit) is logged and stored in the receipt. Splines are sampled on the grid of --onto.
#[derive(clap::Args)]
pub(crate) struct Transcode {
    /// The volume or transform to convert
    #[arg(value_name = "SRC")]
    source: String,
    /// Output format: zarr3, zarr2, n5, tiff, npy; for transforms json, field, ngff, itk, ants,
    /// nifti, nrrd, greedy, elastix, bigwarp, bigstream-zyx, bigstream-xyz [default: according to
    /// the name of the output]
    #[arg(long, value_name = "FORMAT")]
    to: Option<TargetFormat>,
    /// The volume or transform to write
    #[arg(short, long, value_name = "LOC")]
    output: String,
    /// Chunk size, voxels; Y,X of a plane [default: that of the source, or 64,64,64]
    #[arg(long, value_name = "Z,Y,X", value_parser = cli::parse_size3)]
    chunk: Option<[usize; 3]>,
    /// Shard size, voxels, a multiple of the chunk (zarr3)
    #[arg(long, value_name = "Z,Y,X", value_parser = cli::parse_size3)]
    shard: Option<[usize; 3]>,
    /// Compression of the chunks: blosc, raw, gzip, zstd, lz4
    #[arg(long, default_value = "blosc", value_parser = transcode::parse_codec)]
    codec: Codec,
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    onto: SampleArgs,
    #[command(flatten)]
    volume: VolumeArgs,
}

impl Program for Transcode {
    const NAME: &'static str = "transcode";
    const PURPOSE: Purpose = Purpose::Convert;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "transcode stack.tif -o stack.zarr";

    fn pipes(&self) -> Vec<&'static str> {
        match self.to {
            Some(TargetFormat::Volume(_)) => vec![],
            Some(to) if !to.is_one_text() => vec!["source"],
            _ => vec!["source", "output"],
        }
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let (source, output, select) = (&self.source, &self.output, self.volume.select());
        let to = match self.to {
            Some(to) => to,
            None => interchange::target_of(output, source, self.flags.from)?,
        };
        if let TargetFormat::Volume(format) = to
            && self.flags.from.is_none()
        {
            let layout = VolumeStorage { chunk: self.chunk, shard: self.shard, codec: self.codec };
            transcode::volume(source, &select, output, format, &layout, ctx)?;
        } else {
            let reading = self.flags.reading(&select, self.onto.grid(ctx)?);
            interchange::transform(source, &reading, output, to, self.flags.to_unit, ctx)?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    cli::main::<Transcode>()
}
