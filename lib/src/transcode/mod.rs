//! Copying of volumes between Zarr, N5, TIFF and NumPy. Transforms are converted by
//! `interchange`.

use std::sync::Arc;

use crate::blocks::{self, Budget, Context, Identity, Outcome, Plan, Reads, WriteUnit};
use crate::device::Cost;
use crate::volume::{self, Codec, Format, Output, Select, Spec, Volume, Voxel};
use crate::with_voxel;

#[cfg(test)]
mod tests;

/// Why a volume could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume could not be opened, read or written.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// The blocks could not be planned, or some of them failed.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
}

/// Parses the name of a codec.
///
/// # Errors
/// A message that lists the known names, if `text` is none of them.
pub fn parse_codec(text: &str) -> Result<Codec, String> {
    Ok(match text {
        "blosc" => Codec::Blosc,
        "raw" => Codec::Raw,
        "gzip" => Codec::Gzip,
        "zstd" => Codec::Zstd,
        "lz4" => Codec::Lz4,
        _ => return Err(format!("'{text}' is no codec; known are blosc, raw, gzip, zstd, lz4")),
    })
}

/// How a volume is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct VolumeStorage {
    /// The chunk shape, voxels along z, y, x. If `None`, it is one plane for TIFF and `.npy`,
    /// otherwise that of the source, or 64 voxels along each axis if the source's chunks are too
    /// small or too large.
    pub chunk: Option<[usize; 3]>,
    /// The shard shape, a multiple of the chunk shape. If `None`, there are no shards.
    pub shard: Option<[usize; 3]>,
    /// The codec of the chunks.
    pub codec: Codec,
}

/// Writes the volume at `source` to `destination` in another format, without changing voxels.
///
/// # Errors
/// [`Error`]. Blocks that failed are listed in the receipt.
pub fn volume(
    source: &str,
    select: &Select,
    destination: &str,
    format: Format,
    layout: &VolumeStorage,
    ctx: &Context,
) -> Result<(), Error> {
    volume::check_name(destination, format)?;
    let input = Volume::open(source, select)?;
    let spec = Spec {
        grid: input.grid(),
        dtype: input.dtype(),
        chunk: layout.chunk.unwrap_or_else(|| usual_chunk(&input, format)),
        shard: layout.shard,
        codec: layout.codec,
        format,
    };
    with_voxel!(spec.dtype, T => copy::<T>(&input, destination, &spec, ctx))
}

fn copy<T: Voxel>(
    input: &Volume,
    destination: &str,
    spec: &Spec,
    ctx: &Context,
) -> Result<(), Error> {
    let bounds = spec.grid.bounds();
    let budget = Budget::of(ctx);
    let cost = |block: [usize; 3]| {
        let core = (0..3).map(|a| block[a].min(spec.grid.shape[a])).product();
        Cost::of::<T>("voxels", core)
    };
    let block = Plan::choose_block(bounds, WriteUnit::of(spec), cost, ctx)?;
    let identity = Identity::of("transcode").with_volume("volume", input)?.with("output", spec);
    let reads = Reads::Volume(input);
    let kept =
        budget.caches(&[(reads, blocks::useful_cache_bytes(input, block, [0; 3]))], &cost(block));
    let plan = Plan::tile(bounds, block, cost(block), &identity).with_overhead(
        &budget,
        kept,
        Budget::each_thread(&[reads], spec.writing_bytes(destination)),
    );
    ctx.input(input);
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let output = Arc::new(Output::begin(destination, spec, 1, &plan.as_run(ctx))?);
    ctx.output_array(&output);
    plan.stream_to::<_, _, _, Error>(
        ctx,
        &*output,
        |task| Ok(input.read::<T>(&task.core)?),
        |_, voxels| Ok(voxels),
        |task, voxels| {
            output.write(&task.core, &voxels)?;
            Ok(Outcome::Done)
        },
    )?;
    Ok(())
}

/// The default chunk shape: whole planes for TIFF and `.npy`; otherwise that of the source, or 64
/// voxels along each axis if the source has chunks of fewer than 2^12 or more than 2^24 voxels, or
/// of only one voxel along an axis.
fn usual_chunk(input: &Volume, format: Format) -> [usize; 3] {
    let shape = input.grid().shape;
    match format {
        Format::Tiff | Format::Npy => [1, shape[1], shape[2]],
        _ => {
            let chunk = input.chunk();
            let usual = (1 << 12..=1 << 24).contains(&chunk.iter().product::<usize>())
                && chunk.iter().all(|n| *n > 1);
            if usual { chunk } else { [64; 3] }
        }
    }
}
