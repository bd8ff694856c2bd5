//! Flags with which a program specifies how a volume is written. The struct has no doc comment,
//! because clap would use it as the program's own description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use std::path::Path;

use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::values::parse_size3;
use crate::geom::Grid;
use crate::volume::{Codec, Dtype, Format, Spec};

/// Default edge of a chunk, in voxels.
const CHUNK: usize = 128;

const CODECS: [(&str, Codec); 5] = [
    ("blosc", Codec::Blosc),
    ("raw", Codec::Raw),
    ("gzip", Codec::Gzip),
    ("zstd", Codec::Zstd),
    ("lz4", Codec::Lz4),
];

#[derive(clap::Args, Clone, Debug)]
pub struct OutputArgs {
    /// Version of Zarr to write (names that end in .n5, .tif or .npy select those formats instead)
    #[arg(long, value_name = "2|3", default_value = "3", value_parser = zarr_versions())]
    pub zarr_format: Format,
    /// Chunk size, voxels; Y,X of a plane [default: 128 along each axis, less along a short one]
    #[arg(long, value_name = "Z,Y,X", value_parser = parse_size3)]
    pub chunk: Option<[usize; 3]>,
    /// Shard size, voxels, a multiple of the chunk (Zarr 3)
    #[arg(long, value_name = "Z,Y,X", value_parser = parse_size3)]
    pub shard: Option<[usize; 3]>,
    /// Compression of the chunks [default: blosc, or that of the image to which levels are added]
    #[arg(long, value_parser = codecs())]
    pub codec: Option<Codec>,
}

fn zarr_versions() -> impl TypedValueParser<Value = Format> {
    let versions = PossibleValuesParser::new(["2", "3"]);
    versions.map(|version| if version == "2" { Format::Zarr2 } else { Format::Zarr3 })
}

fn codecs() -> impl TypedValueParser<Value = Codec> {
    PossibleValuesParser::new(CODECS.map(|(name, _)| name)).map(|text| {
        CODECS.iter().find(|(name, _)| *name == text).map_or(Codec::Blosc, |(_, codec)| *codec)
    })
}

/// A clap parser of an element type from its name, such as `uint16`.
pub fn dtypes() -> impl TypedValueParser<Value = Dtype> {
    PossibleValuesParser::new(Dtype::ALL.map(Dtype::name))
        .map(|text| Dtype::ALL.into_iter().find(|dtype| dtype.name() == text).unwrap_or(Dtype::U16))
}

impl OutputArgs {
    /// The specification of the volume to be written. The name of `location` selects the format, as
    /// in [`OutputArgs::format`].
    pub fn spec(&self, location: &str, grid: Grid, dtype: Dtype) -> Spec {
        let format = self.format(location);
        let [_, height, width] = grid.shape;
        let chunk = match format {
            Format::Tiff | Format::Npy => [1, height, width],
            _ => self.chunk.unwrap_or_else(|| grid.shape.map(chunk_along)),
        };
        Spec {
            grid,
            dtype,
            chunk,
            shard: self.shard,
            codec: self.codec.unwrap_or_default(),
            format,
        }
    }

    /// The format given by the name of `location`: TIFF, NPY, N5, or else Zarr of the chosen
    /// version.
    pub fn format(&self, location: &str) -> Format {
        let path = Path::new(location);
        let ends = |path: &Path, ends: &[&str]| {
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            ends.iter().any(|end| extension.eq_ignore_ascii_case(end))
        };
        if ends(path, &["tif", "tiff"]) {
            Format::Tiff
        } else if ends(path, &["npy"]) {
            Format::Npy
        } else if path.ancestors().any(|parent| ends(parent, &["n5"])) {
            Format::N5
        } else {
            self.zarr_format
        }
    }
}

/// The chunk size along an axis of `n` voxels: `n` if this is at most 128, otherwise 128, or 64 if
/// padding to a multiple of 128 would add more than a quarter of the axis.
fn chunk_along(n: usize) -> usize {
    if n <= CHUNK {
        n
    } else if n.next_multiple_of(CHUNK) * 4 <= n * 5 {
        CHUNK
    } else {
        CHUNK / 2
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        output: OutputArgs,
        #[arg(long, value_parser = dtypes())]
        dtype: Option<Dtype>,
    }

    #[test]
    fn the_name_says_the_format_and_flags_the_rest() {
        let only = Only::parse_from(["x", "--zarr-format=2", "--codec=raw", "--dtype=int16"]);
        assert_eq!(only.dtype, Some(Dtype::I16));
        let grid = Grid::new([149, 241, 456], [1.0; 3], [0.0; 3]);
        let spec = |location: &str| only.output.spec(location, grid, Dtype::U8);
        assert_eq!((spec("a.zarr").format, spec("a.zarr").codec), (Format::Zarr2, Codec::Raw));
        assert_eq!(spec("a.zarr").chunk, [64, 128, 128]);
        assert_eq!(spec("a.n5/c0/s0").format, Format::N5);
        assert_eq!((spec("b.TIFF").format, spec("b.TIFF").chunk), (Format::Tiff, [1, 241, 456]));
        assert!(Only::try_parse_from(["x", "--codec", "rar"]).is_err());
    }
}
