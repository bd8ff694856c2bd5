//! The storage format of a page's samples, from the page's own tags: TIFF 6.0 and its supplements.

use super::directory::{BufferedFile, Directory, TiffError};
use super::names;
use crate::volume::dtype::ByteOrder;
use crate::volume::{Dtype, READABLE};

/// The compression of strips and tiles.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Compression {
    None,
    Lzw,
    Deflate,
    PackBits,
    Zstd,
    Lzma,
    Jpeg,
    Fax4,
}

impl Compression {
    fn of(code: u64) -> Option<Self> {
        Some(match code {
            1 => Self::None,
            4 => Self::Fax4,
            5 => Self::Lzw,
            7 => Self::Jpeg,
            8 | 32946 => Self::Deflate,
            32773 => Self::PackBits,
            34925 => Self::Lzma,
            34926 | 50000 => Self::Zstd,
            _ => return None,
        })
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lzw => "lzw",
            Self::Deflate => "deflate",
            Self::PackBits => "packbits",
            Self::Zstd => "zstd",
            Self::Lzma => "xz",
            Self::Jpeg => "jpeg",
            Self::Fax4 => "fax4",
        }
    }

    /// The maximum expansion: decoded bytes per stored byte. Sizes that would exceed it are refused
    /// before memory is allocated.
    pub(super) fn expansion(self) -> u64 {
        match self {
            Self::None => 1,
            Self::PackBits => 64,
            // 258 bytes for two bits: one length code and one distance code
            Self::Deflate => 1032,
            // a code of 12 bits stands for a run of less than 4096 bytes
            Self::Lzw => 2731,
            // a block of 128 KiB takes four bytes
            Self::Zstd => 1 << 15,
            Self::Lzma => 1 << 14,
            // a block of 64 samples takes two codes of one bit each; progressive JPEG also has
            // codes for runs of blocks
            Self::Jpeg => 1 << 12,
            // a row can take a single bit, so that the bound is the row width, a 16-bit number
            Self::Fax4 => 1 << 16,
        }
    }
}

/// The prediction that was subtracted from samples before compression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Predictor {
    None,
    /// The sample to the left.
    Left,
    /// The byte to the left, for floats whose bytes are grouped by significance.
    Float,
}

/// The stored form of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Sample {
    /// A type of whole bytes.
    As(Dtype),
    /// An unsigned integer of this many bits, packed with the most significant bit first (24 bits:
    /// in the byte order of the file). Rows begin at byte boundaries.
    Bits(u64),
}

impl Sample {
    fn of(format: u64, bits: u64) -> Result<Self, String> {
        let stored = match (format, bits) {
            // format 4 is "undefined"; all readers take it as unsigned integers
            (1 | 4, 8) => Dtype::U8,
            (1 | 4, 16) => Dtype::U16,
            (1 | 4, 32) => Dtype::U32,
            (1 | 4, 64) => Dtype::U64,
            (2, 8) => Dtype::I8,
            (2, 16) => Dtype::I16,
            (2, 32) => Dtype::I32,
            (2, 64) => Dtype::I64,
            (3, 16) => Dtype::F16,
            (3, 32) => Dtype::F32,
            (3, 64) => Dtype::F64,
            (1 | 4, 1..=31) => return Ok(Self::Bits(bits)),
            (format, bits) => {
                let name = match format {
                    1 | 4 => "whole numbers",
                    2 => "signed whole numbers",
                    3 => "floating-point numbers",
                    5 | 6 => "complex numbers",
                    _ => "an unknown sample format",
                };
                return Err(format!(
                    "has samples of {bits} bits, {name} (sample format {format}); {READABLE} can be read, \
                     and unsigned integers of 1 to 32 bits: convert it to one of them"
                ));
            }
        };
        Ok(Self::As(stored))
    }

    pub(super) fn bits(self) -> u64 {
        match self {
            Self::As(stored) => 8 * stored.size() as u64,
            Self::Bits(bits) => bits,
        }
    }

    /// The type of decoded samples.
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::As(stored) => stored,
            Self::Bits(1..=8) => Dtype::U8,
            Self::Bits(9..=16) => Dtype::U16,
            Self::Bits(_) => Dtype::U32,
        }
    }
}

/// The storage format of a page.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PageForm {
    /// The number of rows and columns.
    pub(super) size: [u64; 2],
    /// The number of samples per pixel.
    pub(super) samples: u64,
    pub(super) sample: Sample,
    pub(super) order: ByteOrder,
    pub(super) compression: Compression,
    pub(super) predictor: Predictor,
    /// Whether the first bit of a byte is its least significant one (`FillOrder` 2).
    pub(super) reversed: bool,
    /// Whether each sample has separate strips or tiles (`PlanarConfiguration` 2).
    pub(super) separate: bool,
    /// The rows and columns of a strip or tile.
    pub(super) chunk: [u64; 2],
    pub(super) interpretation: u64,
    pub(super) orientation: u64,
    /// JPEG tables shared by all strips or tiles.
    pub(super) tables: Vec<u8>,
}

impl PageForm {
    pub(super) fn parse(
        input: &mut BufferedFile,
        directory: &Directory,
    ) -> Result<Self, TiffError> {
        let mut number = |tag: u16, default: u64| {
            Ok::<_, TiffError>(directory.number(input, tag)?.unwrap_or(default))
        };
        let size = [number(257, 0)?, number(256, 0)?];
        let samples = number(277, 1)?;
        if size.contains(&0) || samples == 0 {
            let [height, width] = size;
            return Err(
                format!("has a page of {height} x {width} pixels, {samples} samples").into()
            );
        }
        let code = number(259, 1)?;
        let interpretation = number(262, 1)?;
        let separate = number(284, 1)? == 2 && samples > 1;
        let (predictor, reversed) = (number(317, 1)?, number(266, 1)? == 2);
        let orientation = number(274, 1)?;
        let (tile_width, tile_height, rows) =
            (number(322, 0)?, number(323, 0)?, number(278, u64::MAX)?);
        let tiled = directory.field(324).is_some() || directory.field(322).is_some();
        let chunk = if tiled { [tile_height, tile_width] } else { [rows.min(size[0]), size[1]] };
        if chunk.contains(&0) {
            return Err("is damaged: it has strips or tiles of no size".to_owned().into());
        }
        let Some(compression) = Compression::of(code) else {
            let name = names::compression(code);
            let text = format!(
                "is compressed with {name}, which cannot be read; save it with LZW, deflate or zstd, or \
                 uncompressed"
            );
            return Err(text.into());
        };
        let tables = match directory.field(347) {
            Some(field) if compression == Compression::Jpeg => field.bytes(input)?.to_vec(),
            _ => Vec::new(),
        };
        let form = Self {
            size,
            samples,
            sample: sample(input, directory, samples)?,
            order: directory.order,
            compression,
            predictor: match predictor {
                1 => Predictor::None,
                2 => Predictor::Left,
                3 => Predictor::Float,
                other => {
                    let text =
                        format!("uses the predictor {other}; 1, 2 and 3 can be read: save it anew");
                    return Err(text.into());
                }
            },
            reversed,
            separate,
            chunk,
            interpretation,
            orientation,
            tables,
        };
        form.check()?;
        Ok(form)
    }

    /// Refuses combinations of tags that are meaningless or not supported.
    fn check(&self) -> Result<(), String> {
        let bits = self.sample.bits();
        let refuse = |what: String| {
            Err(format!("{what}, which cannot be read; save it with LZW, deflate or zstd"))
        };
        let float = !self.sample.dtype().is_integer();
        match (self.predictor, self.sample) {
            (Predictor::Left, Sample::Bits(_)) => {
                return refuse(format!("uses the predictor 2 on samples of {bits} bits"));
            }
            (Predictor::Float, _) if !float => {
                return refuse("uses the predictor of floats on whole numbers".into());
            }
            _ => {}
        }
        match self.compression {
            Compression::Jpeg if bits != 8 || float => {
                return refuse(format!("is compressed with JPEG of {bits} bits (compression 7)"));
            }
            Compression::Jpeg if !matches!(self.chunk_samples(), 1 | 3) => {
                return refuse(format!(
                    "is compressed with JPEG of {} samples per pixel (compression 7)",
                    self.samples
                ));
            }
            Compression::Fax4 if bits != 1 || self.samples != 1 || self.chunk[1] > 65_535 => {
                return refuse(format!("is compressed as fax (compression 4) of {bits} bits"));
            }
            // YCbCr may have subsampled chroma, which is decoded in JPEG only
            _ if self.interpretation == 6 && self.compression != Compression::Jpeg => {
                return refuse(format!("has colours as {}", names::interpretation(6)));
            }
            _ => {}
        }
        let [height, width] = self.size;
        let whole = self.chunk_bytes(self.chunk[0]).is_some();
        let all =
            height.checked_mul(width).and_then(|n| n.checked_mul(self.samples)?.checked_mul(8));
        if !whole || all.is_none_or(|n| n > i64::MAX as u64) {
            return Err(format!(
                "has pages of {height} x {width} pixels, more than any file or memory holds"
            ));
        }
        Ok(())
    }

    /// The samples per pixel in one strip or tile.
    pub(super) fn chunk_samples(&self) -> u64 {
        if self.separate { 1 } else { self.samples }
    }

    /// Bytes of a decompressed row of a strip or tile; `None` on overflow.
    pub(super) fn row_bytes(&self) -> Option<u64> {
        let samples = self.chunk[1].checked_mul(self.chunk_samples())?;
        Some(samples.checked_mul(self.sample.bits())?.div_ceil(8))
    }

    /// Bytes of `rows` decompressed rows of a strip or tile; `None` on overflow.
    pub(super) fn chunk_bytes(&self, rows: u64) -> Option<u64> {
        self.row_bytes()?.checked_mul(rows).filter(|bytes| *bytes <= i64::MAX as u64 / 4)
    }

    /// The number of strips or tiles along y and x.
    pub(super) fn chunks(&self) -> [u64; 2] {
        [0, 1].map(|a| self.size[a].div_ceil(self.chunk[a]))
    }

    /// The number of rows that the strips or tiles in row `y` of their grid have within the page.
    pub(super) fn rows(&self, y: u64) -> u64 {
        self.chunk[0].min(self.size[0] - y * self.chunk[0])
    }

    /// Whether samples are stored uncompressed in a form that needs no conversion.
    pub(super) fn is_plain(&self) -> bool {
        self.compression == Compression::None
            && self.predictor == Predictor::None
            && !self.reversed
            && matches!(self.sample, Sample::As(_))
    }

    /// Whether JPEG colours are converted from `YCbCr` to RGB.
    pub(super) fn is_ycbcr(&self) -> bool {
        self.interpretation == 6 && self.chunk_samples() == 3
    }
}

/// The sample type, which must be the same for all samples of a pixel.
fn sample(
    input: &mut BufferedFile,
    directory: &Directory,
    samples: u64,
) -> Result<Sample, TiffError> {
    let mut all = |tag: u16, default: u64, what: &str| {
        let Some(field) = directory.field(tag) else { return Ok(default) };
        let first = field.number(input, directory.order, 0)?;
        for i in 1..field.count.min(samples) {
            let other = field.number(input, directory.order, i)?;
            if other != first {
                let text = format!(
                    "has samples of different {what} in one pixel ({first} and {other}); split it into \
                     channels"
                );
                return Err(TiffError::Message(text));
            }
        }
        Ok(first)
    };
    let bits = all(258, 1, "sizes")?;
    let format = all(339, 1, "formats")?;
    Ok(Sample::of(format, bits)?)
}
