//! Conversion of formats: volumes between Zarr, N5, TIFF and NumPy; transforms between the native
//! format and those of BigStream, ITK and ANTs, greedy, elastix, BigWarp and OME-NGFF.
//!
//! A transform of another program is read as a list of pieces: matrices, splines, and vector fields
//! on their own samples. Each reader converts axes, frames and units to `[z, y, x]` micrometres,
//! and the writers start from these pieces.

use std::sync::Arc;

use crate::blocks::{self, Budget, Context, Identity, Outcome, Plan, Reads, WriteUnit};
use crate::device::Cost;
use crate::geom::SourceError;
use crate::transform::Axes;
use crate::volume::{self, Codec, Format, Output, Select, Spec, Volume, Voxel};
use crate::{files, with_voxel};

mod bigwarp;
mod bspline;
mod control;
mod detect;
mod dfield;
mod elastix;
mod export;
mod fields;
mod flags;
mod flat;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod hdf5;
mod itk;
mod look;
mod matlab;
mod matrices;
mod metaimage;
mod models;
mod ngff;
mod nifti;
mod nrrd;
mod pieces;
mod reading;
mod target;
mod tps;
mod unpack;
mod world;

pub use bigwarp::Fit;
pub use detect::Source;
pub use flags::Flags;
pub use look::{Look, Map, is_foreign, look};
pub use reading::Reading;
pub use target::Target;
pub use world::{Frame, Unit};

/// Why something could not be converted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A volume's error.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the run.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// A transform's error.
    #[error(transparent)]
    Transform(#[from] crate::transform::Error),
    /// A displacement field could not be read.
    #[error("the displacement field cannot be read: {0}")]
    Field(SourceError),
    /// The operating system reported an error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// Every vector that was written is NaN.
    #[error("{location}: every vector is NaN; look at where the field comes from")]
    Unknown {
        /// The field that was written.
        location: String,
        /// The verdict that determines the exit status.
        #[source]
        verdict: blocks::Verdict,
    },
    /// The source cannot be converted as requested.
    #[error("{location}: {message}")]
    Unfit {
        /// The source.
        location: String,
        /// What it is, what was wanted and how to proceed.
        message: String,
    },
}

/// Parses the name of a codec.
///
/// # Errors
/// A sentence that lists the names.
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

/// Parses the name of an axis order.
///
/// # Errors
/// A sentence that lists the names.
pub fn parse_axes(text: &str) -> Result<Axes, String> {
    match text {
        "zyx" => Ok(Axes::Zyx),
        "xyz" => Ok(Axes::Xyz),
        _ => Err(format!("'{text}' is neither zyx nor xyz")),
    }
}

/// How a volume is stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// The chunk shape, voxels along z, y, x; `None` for that of the source, if it is a usual one.
    pub chunk: Option<[usize; 3]>,
    /// The shard shape, a multiple of the chunk shape.
    pub shard: Option<[usize; 3]>,
    /// The codec of the chunks.
    pub codec: Codec,
}

/// The target format that the name of an output implies; `source` is the location of its source.
///
/// # Errors
/// [`blocks::Error::Usage`] with the possible formats if the name does not determine one.
pub fn target_of(output: &str, source: &str, from: Option<Source>) -> Result<Target, Error> {
    if files::is_stream(output) {
        let texts = Target::NAMES.into_iter().filter(|(_, target)| target.is_one_text());
        let message = format!(
            "standard output has no name that tells the format; say one with --to: {}",
            texts.map(|(name, _)| name).collect::<Vec<_>>().join(", ")
        );
        return Err(blocks::Error::Usage(message).into());
    }
    let is_transform = || from.is_some() || detect::is_transform(source);
    let message = match target::of_name(output, is_transform).as_slice() {
        [one] => return Ok(*one),
        [] => format!(
            "the name {output} does not tell the format{}; say one with --to: {}",
            if output.to_lowercase().ends_with(".png") {
                " (PNG is read and not written)"
            } else {
                ""
            },
            Target::NAMES.map(|(name, _)| name).join(", ")
        ),
        several => format!(
            "the name {output} may mean several formats; say with --to which one: {}",
            several.iter().map(|target| target.name()).collect::<Vec<_>>().join(", ")
        ),
    };
    Err(blocks::Error::Usage(message).into())
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
    layout: &Layout,
    ctx: &Context,
) -> Result<(), Error> {
    target::check_name(destination, Target::Volume(format))?;
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
    let kept = budget.caches(&[(reads, blocks::worth_keeping(input, block, [0; 3]))], &cost(block));
    let plan = Plan::tile(bounds, block, cost(block), &identity).beside(
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

/// The chunk of the source if the format has chunks and its size is usual; whole planes for formats
/// that store planes.
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

/// Reads the transform at `source`, a native one or one of another program, and writes it to
/// `destination` as `target`. Lengths are written in `to_unit` if the target allows a choice.
///
/// The interpretation of the source (direction, axes, LPS or RAS, unit) is logged and recorded in
/// the receipt. If `reading` has a grid, every map is sampled on it, and splines require one: the
/// result is a displacement field that is exact at the voxels of the grid, followed by a matrix
/// that extrapolates outside it.
///
/// # Errors
/// [`Error`] if the source cannot be read, does not fit the flags, or cannot be expressed in the
/// target's format.
pub fn transform(
    source: &str,
    reading: &Reading,
    destination: &str,
    target: Target,
    to_unit: Option<Unit>,
    ctx: &Context,
) -> Result<(), Error> {
    export::transform(source, reading, destination, target, to_unit, ctx)
}

#[cfg(test)]
mod golden;
#[cfg(test)]
mod tests;
