use std::io::{self, Write};

use serde_json::{Map, Value, json};
use zarrs::array::codec::{
    BloscCompressionLevel, BloscCompressor, BloscShuffleMode, blosc_compress_bytes,
};

use super::lz4;
use crate::volume::codecs::{Size, Stream};
use crate::volume::{Codec, Error, shorten};

/// The compression of blocks: the `compression` object of the attributes.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::volume) enum Compression {
    Raw,
    Gzip { level: u32, zlib: bool },
    Bzip2 { level: u32 },
    Lz4 { block: usize },
    Xz { preset: u32 },
    Zstd { level: i32 },
    Blosc { cname: String, level: u8, shuffle: u8 },
}

impl Compression {
    /// The N5 compression for a [`Codec`].
    pub(super) fn of(codec: Codec) -> Self {
        match codec {
            Codec::Raw => Self::Raw,
            Codec::Gzip => Self::Gzip { level: 5, zlib: false },
            Codec::Blosc | Codec::Zstd => Self::Zstd { level: 1 },
            Codec::Lz4 => Self::Lz4 { block: 65_536 },
        }
    }

    pub(super) fn from_attributes(
        location: &str,
        attributes: &Map<String, Value>,
    ) -> Result<Self, Error> {
        let value = attributes.get("compression");
        // version 1 stored only the name, as `compressionType`
        let name = value
            .and_then(|v| v.get("type"))
            .or(attributes.get("compressionType"))
            .and_then(Value::as_str)
            .unwrap_or("raw");
        let value = value.unwrap_or(&Value::Null);
        let number = |key: &str| value.get(key).and_then(Value::as_i64);
        let level = |default: i64, range: std::ops::RangeInclusive<i64>| {
            number("level").filter(|level| range.contains(level)).unwrap_or(default)
        };
        Ok(match name {
            "raw" => Self::Raw,
            "gzip" => Self::Gzip {
                level: level(6, 0..=9) as u32,
                zlib: value.get("useZlib").and_then(Value::as_bool).unwrap_or(false),
            },
            "bzip2" => {
                let size = number("blockSize").filter(|size| (1..=9).contains(size));
                Self::Bzip2 { level: size.unwrap_or(9) as u32 }
            }
            "lz4" => {
                let size = number("blockSize").filter(|size| (64..=32 << 20).contains(size));
                Self::Lz4 { block: size.unwrap_or(65_536) as usize }
            }
            "xz" => {
                let preset = number("preset").filter(|preset| (0..=9).contains(preset));
                Self::Xz { preset: preset.unwrap_or(6) as u32 }
            }
            "zstd" => Self::Zstd { level: level(3, -7..=22) as i32 },
            "blosc" => Self::Blosc {
                cname: value.get("cname").and_then(Value::as_str).unwrap_or("blosclz").into(),
                level: number("clevel").filter(|l| (0..=9).contains(l)).unwrap_or(6) as u8,
                shuffle: number("shuffle").filter(|s| (0..=2).contains(s)).unwrap_or(0) as u8,
            },
            other => {
                let other = shorten(other);
                let message = format!(
                    "is compressed with '{other}'; raw, gzip, bzip2, lz4, xz, zstd and blosc can be \
                     read"
                );
                return Err(Error::format(location, message));
            }
        })
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Raw => json!({"type": "raw"}),
            Self::Gzip { level, zlib } => {
                json!({"type": "gzip", "level": level, "useZlib": zlib})
            }
            Self::Bzip2 { level } => json!({"type": "bzip2", "blockSize": level}),
            Self::Lz4 { block } => json!({"type": "lz4", "blockSize": block}),
            Self::Xz { preset } => json!({"type": "xz", "preset": preset}),
            Self::Zstd { level } => json!({"type": "zstd", "level": level}),
            Self::Blosc { cname, level, shuffle } => json!({
                "type": "blosc", "cname": cname, "clevel": level, "shuffle": shuffle,
                "blocksize": 0, "nthreads": 1
            }),
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Blosc { cname, .. } => format!("blosc:{cname}"),
            _ => self.to_json()["type"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Decodes a payload, which must decode to exactly `size` bytes, into `out`.
    pub(super) fn decode(
        &self,
        payload: &[u8],
        size: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let size = Size::Exactly(size);
        let stream = match self {
            Self::Raw => {
                size.check(payload.len())?;
                out.clear();
                out.extend_from_slice(payload);
                return Ok(());
            }
            Self::Lz4 { .. } => return lz4::decode(payload, size.max(), out),
            Self::Gzip { zlib: false, .. } => Stream::Gzip,
            Self::Gzip { zlib: true, .. } => Stream::Zlib,
            Self::Bzip2 { .. } => Stream::Bzip2,
            Self::Xz { .. } => Stream::Xz,
            Self::Zstd { .. } => Stream::Zstd,
            Self::Blosc { .. } => Stream::Blosc,
        };
        stream.decode(payload, size, out)
    }

    /// The maximum size of the payload for `size` bytes.
    pub(super) fn encoded(&self, size: usize) -> usize {
        match self {
            Self::Raw => size,
            // an upper bound of the expansion of incompressible data, for all compressors
            _ => size.saturating_add(size / 4).saturating_add(1 << 16),
        }
    }

    /// Appends the payload for `bytes`, elements of `size` bytes, to `out`.
    pub(super) fn encode(&self, bytes: &[u8], size: usize, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Raw => out.extend_from_slice(bytes),
            Self::Gzip { level, zlib } => {
                let level = flate2::Compression::new(*level);
                if *zlib {
                    let mut encoder = flate2::write::ZlibEncoder::new(out, level);
                    encoder.write_all(bytes)?;
                    encoder.finish()?;
                } else {
                    let mut encoder = flate2::write::GzEncoder::new(out, level);
                    encoder.write_all(bytes)?;
                    encoder.finish()?;
                }
            }
            Self::Bzip2 { level } => {
                let level = bzip2::Compression::new(*level);
                let mut encoder = bzip2::write::BzEncoder::new(out, level);
                encoder.write_all(bytes)?;
                encoder.finish()?;
            }
            Self::Xz { preset } => {
                let mut encoder = xz2::write::XzEncoder::new(out, *preset);
                encoder.write_all(bytes)?;
                encoder.finish()?;
            }
            Self::Lz4 { block } => lz4::encode(bytes, *block, out),
            Self::Zstd { level } => out.extend(zstd::bulk::compress(bytes, *level)?),
            Self::Blosc { cname, level, shuffle } => {
                let invalid = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
                let compressor = blosc_compressor(cname)
                    .ok_or_else(|| invalid(format!("blosc knows no compressor '{cname}'")))?;
                let level = BloscCompressionLevel::try_from(*level)
                    .map_err(|level| invalid(format!("blosc knows no level {level}")))?;
                let shuffle = match shuffle {
                    0 => BloscShuffleMode::NoShuffle,
                    1 => BloscShuffleMode::Shuffle,
                    _ => BloscShuffleMode::BitShuffle,
                };
                let encoded = blosc_compress_bytes(bytes, level, shuffle, size, compressor, 0, 1);
                out.extend(encoded.map_err(|error| invalid(error.to_string()))?);
            }
        }
        Ok(())
    }
}

fn blosc_compressor(name: &str) -> Option<BloscCompressor> {
    serde_json::from_value(name.into()).ok()
}
