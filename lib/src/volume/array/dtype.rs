//! The element types of arrays, with their names, sizes and ranges.

use half::{bf16, f16};

use crate::volume::Format;

/// The element types of arrays.
///
/// Programs compute with the types that [`Dtype::read_as`] gives: elements of `bool`, `float16` and
/// `bfloat16` are converted to a wider type on reading, and back on writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub enum Dtype {
    /// 8-bit unsigned.
    U8,
    /// 8-bit signed.
    I8,
    /// 16-bit unsigned.
    U16,
    /// 16-bit signed.
    I16,
    /// 32-bit unsigned.
    U32,
    /// 32-bit signed.
    I32,
    /// 64-bit unsigned.
    U64,
    /// 64-bit signed.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// `true` or `false`, one byte.
    Bool,
    /// 16-bit float, IEEE 754 binary16.
    F16,
    /// 16-bit float with as many exponent bits as a 32-bit float (`bfloat16` of `ml_dtypes`).
    BF16,
}

impl Dtype {
    /// All element types.
    pub const ALL: [Self; 13] = [
        Self::U8,
        Self::I8,
        Self::U16,
        Self::I16,
        Self::U32,
        Self::I32,
        Self::U64,
        Self::I64,
        Self::F32,
        Self::F64,
        Self::Bool,
        Self::F16,
        Self::BF16,
    ];

    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::BF16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether this is an integer type; `bool` counts as an integer type with the values 0 and 1.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }

    /// The type in which programs compute with elements of this type. It represents all their
    /// values: `uint8` for `bool`, `float32` for floats of 16 bits, otherwise the type itself.
    #[must_use]
    pub fn read_as(self) -> Self {
        match self {
            Self::Bool => Self::U8,
            Self::F16 | Self::BF16 => Self::F32,
            other => other,
        }
    }

    /// The least and the greatest finite value.
    pub fn range(self) -> [f64; 2] {
        match self {
            Self::U8 => [0.0, f64::from(u8::MAX)],
            Self::I8 => [f64::from(i8::MIN), f64::from(i8::MAX)],
            Self::U16 => [0.0, f64::from(u16::MAX)],
            Self::I16 => [f64::from(i16::MIN), f64::from(i16::MAX)],
            Self::U32 => [0.0, f64::from(u32::MAX)],
            Self::I32 => [f64::from(i32::MIN), f64::from(i32::MAX)],
            Self::U64 => [0.0, u64::MAX as f64],
            Self::I64 => [i64::MIN as f64, i64::MAX as f64],
            Self::F32 => [f64::from(f32::MIN), f64::from(f32::MAX)],
            Self::F64 => [f64::MIN, f64::MAX],
            Self::Bool => [0.0, 1.0],
            Self::F16 => [f16::MIN.to_f64(), f16::MAX.to_f64()],
            Self::BF16 => [bf16::MIN.to_f64(), bf16::MAX.to_f64()],
        }
    }

    /// Whether a value can be stored: integer types hold the integers within their range; float
    /// types hold all values within their range (rounded), NaN and infinity.
    pub fn holds(self, value: f64) -> bool {
        let [least, greatest] = self.range();
        let within = (least..=greatest).contains(&value);
        if self.is_integer() {
            within && value.fract() == 0.0
        } else {
            within || !value.is_finite()
        }
    }

    /// Whether files of a format can have elements of this type.
    pub fn fits(self, format: Format) -> bool {
        match (self, format) {
            (Self::Bool, Format::N5 | Format::Tiff) | (Self::F16, Format::N5) => false,
            (Self::BF16, format) => format == Format::Zarr3,
            _ => true,
        }
    }

    /// The type with this [`Dtype::name`]; `None` for other names.
    pub(in crate::volume) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The type and byte order of a NumPy or Zarr v2 `descr`, such as `>u2` or `|b1`; `None` for
    /// unsupported types.
    pub(in crate::volume) fn from_descr(descr: &str) -> Option<(Self, ByteOrder)> {
        let order = match descr.as_bytes().first()? {
            b'>' => ByteOrder::Big,
            b'=' => ByteOrder::NATIVE,
            _ => ByteOrder::Little,
        };
        let bare = |descr: &str| descr.trim_start_matches(['<', '>', '|', '=']).to_owned();
        let name = bare(descr);
        if name == "?" {
            return Some((Self::Bool, order));
        }
        Some((Self::ALL.into_iter().find(|dtype| bare(dtype.descr()) == name)?, order))
    }

    /// NumPy's `descr` of the type (also used by Zarr v2), little endian, such as `<u2`. NumPy
    /// itself has no `bfloat16`; tensorstore writes `bfloat16` in Zarr v2.
    pub(in crate::volume) fn descr(self) -> &'static str {
        match self {
            Self::U8 => "|u1",
            Self::I8 => "|i1",
            Self::U16 => "<u2",
            Self::I16 => "<i2",
            Self::U32 => "<u4",
            Self::I32 => "<i4",
            Self::U64 => "<u8",
            Self::I64 => "<i8",
            Self::F32 => "<f4",
            Self::F64 => "<f8",
            Self::Bool => "|b1",
            Self::F16 => "<f2",
            Self::BF16 => "bfloat16",
        }
    }

    /// The name that NumPy, Zarr v3 and N5 share, such as `uint16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::U8 => "uint8",
            Self::I8 => "int8",
            Self::U16 => "uint16",
            Self::I16 => "int16",
            Self::U32 => "uint32",
            Self::I32 => "int32",
            Self::U64 => "uint64",
            Self::I64 => "int64",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::Bool => "bool",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The byte order of a stored number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// Least significant first.
    Little,
    /// Most significant first.
    Big,
}

impl ByteOrder {
    /// The byte order of this machine.
    pub(in crate::volume) const NATIVE: Self =
        if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_by_both_its_names_and_read_as_one_that_has_its_values() {
        for dtype in Dtype::ALL {
            assert_eq!(Dtype::from_name(dtype.name()), Some(dtype));
            assert_eq!(Dtype::from_descr(dtype.descr()), Some((dtype, ByteOrder::Little)));
            let wide = dtype.read_as();
            assert_eq!(wide.is_integer(), dtype.is_integer());
            assert!(dtype.range().into_iter().all(|value| wide.holds(value)), "{dtype}");
            assert_eq!(wide.read_as(), wide);
        }
        assert_eq!(Dtype::from_descr(">f2"), Some((Dtype::F16, ByteOrder::Big)));
        assert_eq!(Dtype::from_descr("?"), Some((Dtype::Bool, ByteOrder::Little)));
        assert_eq!(Dtype::from_descr("<c8"), None);
    }
}
