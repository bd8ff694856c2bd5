//! Changing formats: volumes between Zarr, N5, TIFF and NumPy; transforms between our JSON and
//! BigStream's 4x4 text.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::blocks::{self, Context, Outcome, Plan};
use crate::geom::Affine;
use crate::transform::{self, Axes, Direction, Kind, Step};
use crate::volume::{self, Codec, Format, Output, Select, Spec, Volume, Voxel};
use crate::with_voxel;

/// Why something could not be written in another format.
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
    Transform(#[from] transform::Error),
    /// The source cannot become what was asked for.
    #[error("{location}: {message}")]
    Unfit {
        /// The source.
        location: String,
        /// What it is, what was wanted, the way out.
        message: String,
    },
}

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A volume.
    Volume(Format),
    /// A transform as a chain's JSON.
    Json,
    /// A matrix as BigStream's text.
    Matrix(Axes),
}

impl Target {
    /// Their names on the command line.
    pub const NAMES: [(&'static str, Self); 8] = [
        ("zarr3", Self::Volume(Format::Zarr3)),
        ("zarr2", Self::Volume(Format::Zarr2)),
        ("n5", Self::Volume(Format::N5)),
        ("tiff", Self::Volume(Format::Tiff)),
        ("npy", Self::Volume(Format::Npy)),
        ("json", Self::Json),
        ("bigstream-zyx", Self::Matrix(Axes::Zyx)),
        ("bigstream-xyz", Self::Matrix(Axes::Xyz)),
    ];
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, target)| *target).ok_or_else(|| {
            format!("'{text}' is no format; known are {}", Self::NAMES.map(|n| n.0).join(", "))
        })
    }
}

/// A codec by its name.
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

/// The order of axes by its name.
pub fn parse_axes(text: &str) -> Result<Axes, String> {
    match text {
        "zyx" => Ok(Axes::Zyx),
        "xyz" => Ok(Axes::Xyz),
        _ => Err(format!("'{text}' is neither zyx nor xyz")),
    }
}

/// How a volume is to be stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Layout {
    /// The chunk; None for that of the source, where it is of a usual size.
    pub chunk: Option<[usize; 3]>,
    /// The shard, a multiple of the chunk.
    pub shard: Option<[usize; 3]>,
    /// How chunks are compressed.
    pub codec: Codec,
}

/// Writes the volume at `source` to `destination` in another format, voxel for voxel.
pub fn volume(
    source: &str,
    select: &Select,
    destination: &str,
    format: Format,
    layout: &Layout,
    ctx: &Context,
) -> Result<(), Error> {
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
    let bytes = |block: [usize; 3]| (block.iter().product::<usize>() * size_of::<T>()) as u64;
    let unit = spec.shard.unwrap_or(spec.chunk);
    let block = Plan::choose_block(bounds, unit, bytes, ctx)?;
    let fingerprint = format!("transcode {} {spec:?}", input.location());
    let plan = Plan::tile(bounds, block, bytes(block), fingerprint);
    if plan.is_all_asked(ctx) {
        return Ok(());
    }
    let output = Arc::new(Output::create(destination, spec, ctx.existing)?);
    ctx.input(input);
    ctx.output_array(&output);
    plan.stream(
        ctx,
        &output.ledger_folder(),
        |task| Ok(input.read::<T>(&task.core)?),
        |_, voxels| Ok(voxels),
        |task, voxels| {
            output.write(&task.core, &voxels)?;
            Ok(Outcome::Done)
        },
    )?;
    Ok(())
}

/// The chunk of the source where the format has chunks and it is of a usual size; planes for
/// files of planes.
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

/// Reads the transform at `source` and writes it as a chain's JSON or as text.
///
/// `axes` is the order of axes where `source` is text, which does not say it; with `invert`, `source`
/// takes moving points to fixed ones, and its inverse is written.
pub fn transform(
    source: &str,
    axes: Option<Axes>,
    invert: bool,
    destination: &str,
    target: Target,
    ctx: &Context,
) -> Result<(), Error> {
    let path = Path::new(destination);
    let steps = read_steps(source, axes, invert)?;
    ctx.refuse_existing(path)?;
    if ctx.plan_only {
        return Ok(());
    }
    ctx.input_file(source);
    match target {
        Target::Json => transform::write_document(path, &steps)?,
        Target::Matrix(axes) => {
            let map = one_matrix(&steps).ok_or_else(|| Error::Unfit {
                location: source.to_owned(),
                message:
                    "holds a field or local affines, which no matrix can say; write it --to json"
                        .to_owned(),
            })?;
            transform::write_matrix_text(path, &map, axes)?;
        }
        Target::Volume(_) => {
            return Err(Error::Unfit {
                location: source.to_owned(),
                message: "is a transform; write it --to json, bigstream-zyx or bigstream-xyz"
                    .to_owned(),
            });
        }
    }
    ctx.output_file(path);
    Ok(())
}

fn read_steps(source: &str, axes: Option<Axes>, invert: bool) -> Result<Vec<Step>, Error> {
    let direction = if invert { Direction::MovingToFixed } else { Direction::FixedToMoving };
    let unfit =
        |message: &str| Error::Unfit { location: source.to_owned(), message: message.to_owned() };
    Ok(match transform::kind_of(source)? {
        Kind::Document if axes.is_some() => {
            return Err(unfit("says its own axes; leave --from-axes out"));
        }
        Kind::Document => transform::read_document(Path::new(source), direction)?,
        Kind::MatrixText => {
            let order = axes.unwrap_or_default();
            let map = transform::read_matrix_text(Path::new(source), order)?;
            tracing::info!(
                "{source}: a text matrix, taken as {} in axes {} and micrometres{}",
                if invert { "moving to fixed" } else { "fixed to moving" },
                if order == Axes::Zyx { "z,y,x" } else { "x,y,z" },
                if axes.is_none() { " (--from-axes says otherwise)" } else { "" },
            );
            let map = if invert { map.inverse().map_err(|e| unfit(&e.to_string()))? } else { map };
            vec![Step::Affine(map)]
        }
        _ if invert => return Err(unfit("is an array, and only matrices can be inverted here")),
        Kind::LocalAffines => vec![Step::LocalAffines(source.to_owned())],
        Kind::Field => vec![Step::Field(source.to_owned())],
    })
}

fn one_matrix(steps: &[Step]) -> Option<Affine> {
    steps.iter().try_fold(Affine::IDENTITY, |sum, step| match step {
        Step::Affine(map) => Some(sum.then(map)),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
