//! The element types of arrays: the one table of their names, sizes and conversions.

use half::{bf16, f16};

use super::Format;

/// The element types of arrays.
///
/// Programs compute with the types that [`Dtype::read_as`] gives: volumes of `bool`, `float16` and
/// `bfloat16` are read as a wider type, and can be written.
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
    /// 16-bit float with the exponent of a 32-bit one (`bfloat16` of `ml_dtypes`).
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

    /// Whether it is an integer type; `bool` is one, of 0 and 1.
    pub fn is_integer(self) -> bool {
        !matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }

    /// The type as which programs compute with it, which represents all its values: `uint8` for
    /// `bool`, `float32` for floats of 16 bits, otherwise the type itself.
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

    /// The type of that [`Dtype::name`].
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// The type and byte order of a NumPy or Zarr v2 `descr`: `>u2`, `|b1`.
    pub(super) fn from_descr(descr: &str) -> Option<(Self, ByteOrder)> {
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

    /// NumPy's `descr` of the type (also used by Zarr v2), little endian: `<u2`. NumPy itself has no
    /// `bfloat16`; tensorstore writes this name in Zarr v2.
    pub(super) fn descr(self) -> &'static str {
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

/// A Rust type for the elements of a volume.
pub trait Voxel:
    Copy + Default + PartialOrd + PartialEq + Send + Sync + std::fmt::Debug + 'static
{
    /// The corresponding element type.
    const DTYPE: Dtype;
    /// Converts to `f32`.
    fn to_f32(self) -> f32;
    /// Converts to `f64`.
    fn to_f64(self) -> f64;
    /// The nearest value of this type: integers are rounded half away from zero and clamped, NaN
    /// becomes 0.
    fn from_f32(value: f32) -> Self;
    /// As [`Voxel::from_f32`].
    fn from_f64(value: f64) -> Self;
    /// Reads the value at the start of `bytes`.
    #[doc(hidden)]
    fn get(bytes: &[u8], order: ByteOrder) -> Self;
    /// Appends the bytes of `voxels` to `out`.
    #[doc(hidden)]
    fn put(voxels: &[Self], order: ByteOrder, out: &mut Vec<u8>);
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
    pub(super) const NATIVE: Self =
        if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

macro_rules! bytes {
    ($t:ty) => {
        #[inline]
        fn get(bytes: &[u8], order: ByteOrder) -> Self {
            let mut raw = [0; size_of::<$t>()];
            raw.copy_from_slice(&bytes[..size_of::<$t>()]);
            match order {
                ByteOrder::Little => <$t>::from_le_bytes(raw),
                ByteOrder::Big => <$t>::from_be_bytes(raw),
            }
        }
        #[inline]
        fn put(voxels: &[Self], order: ByteOrder, out: &mut Vec<u8>) {
            let start = out.len();
            out.resize(start + size_of_val(voxels), 0);
            let places = out[start..].chunks_exact_mut(size_of::<$t>());
            match order {
                ByteOrder::Little => {
                    places.zip(voxels).for_each(|(o, v)| o.copy_from_slice(&v.to_le_bytes()));
                }
                ByteOrder::Big => {
                    places.zip(voxels).for_each(|(o, v)| o.copy_from_slice(&v.to_be_bytes()));
                }
            }
        }
    };
}

/// Converts elements of type `stored`, which are `step` elements apart, to the elements of `out`.
///
/// `bytes` starts at the first element and extends at least to the end of the last one.
pub(super) fn convert<T: Voxel>(
    bytes: &[u8],
    step: usize,
    stored: Dtype,
    order: ByteOrder,
    out: &mut [T],
) {
    /// The loop for one pair of types. Callers pass a constant `order`, so that it compiles to a
    /// copy.
    fn each<S: Voxel, T: Voxel>(
        bytes: &[u8],
        step: usize,
        order: ByteOrder,
        out: &mut [T],
        to: impl Fn(S) -> T,
    ) {
        let size = size_of::<S>();
        if step == 1 {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks_exact(size)) {
                *out = to(S::get(bytes, order));
            }
        } else {
            for (out, bytes) in out.iter_mut().zip(bytes.chunks(step * size)) {
                *out = to(S::get(bytes, order));
            }
        }
    }
    fn in_order<S: Voxel, T: Voxel>(
        bytes: &[u8],
        step: usize,
        order: ByteOrder,
        out: &mut [T],
        to: impl Fn(S) -> T,
    ) {
        match order {
            ByteOrder::Little => each(bytes, step, ByteOrder::Little, out, to),
            ByteOrder::Big => each(bytes, step, ByteOrder::Big, out, to),
        }
    }
    if T::DTYPE == stored {
        in_order(bytes, step, order, out, |v: T| v);
    } else {
        crate::with_element!(stored, S => match S::DTYPE {
            // these types are exact in f32
            Dtype::U8
            | Dtype::I8
            | Dtype::U16
            | Dtype::I16
            | Dtype::F32
            | Dtype::Bool
            | Dtype::F16
            | Dtype::BF16 => {
                in_order(bytes, step, order, out, |v: S| T::from_f32(v.to_f32()));
            }
            _ => in_order(bytes, step, order, out, |v: S| T::from_f64(v.to_f64())),
        });
    }
}

macro_rules! integers {
    ($($t:ty => $d:ident, $from_f32:path);*) => {$(
        impl Voxel for $t {
            const DTYPE: Dtype = Dtype::$d;
            bytes!($t);
            #[inline]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline]
            fn from_f32(value: f32) -> Self {
                $from_f32(value, Self::MIN as f32, Self::MAX as f32) as $t
            }
            #[inline]
            fn from_f64(value: f64) -> Self {
                // `as` saturates; `round` rounds half away from zero
                value.round() as $t
            }
        }
    )*};
}
integers!(
    u8 => U8, rounded_16; i8 => I8, rounded_16; u16 => U16, rounded_16; i16 => I16, rounded_16;
    u32 => U32, rounded; i32 => I32, rounded; u64 => U64, rounded; i64 => I64, rounded
);

/// Rounds half away from zero; the saturating cast that follows clamps.
#[inline]
fn rounded(value: f32, _min: f32, _max: f32) -> f32 {
    value.round()
}

/// Rounds half away from zero and clamps to 16-bit bounds, returned in the low bits. NaN becomes 0.
///
/// An integer of magnitude below 2^22 appears in the low bits of its sum with 1.5 * 2^23. Unlike a
/// saturating cast, this compiles to vector instructions: resampling runs 1.5 times as fast.
#[inline]
fn rounded_16(value: f32, min: f32, max: f32) -> u32 {
    let value = if value.is_nan() { 0.0 } else { value.round() };
    let value = if value > min { value } else { min };
    let value = if value < max { value } else { max };
    (value + 12_582_912.0).to_bits()
}

macro_rules! floats {
    ($($t:ty => $d:ident),*) => {$(
        impl Voxel for $t {
            const DTYPE: Dtype = Dtype::$d;
            bytes!($t);
            #[inline]
            fn to_f32(self) -> f32 {
                self as f32
            }
            #[inline]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline]
            fn from_f32(value: f32) -> Self {
                value as $t
            }
            #[inline]
            fn from_f64(value: f64) -> Self {
                value as $t
            }
        }
    )*};
}
floats!(f32 => F32, f64 => F64);

macro_rules! halves {
    ($($t:ty => $d:ident),*) => {$(
        impl Voxel for $t {
            const DTYPE: Dtype = Dtype::$d;
            bytes!($t);
            #[inline]
            fn to_f32(self) -> f32 {
                <$t>::to_f32(self)
            }
            #[inline]
            fn to_f64(self) -> f64 {
                <$t>::to_f64(self)
            }
            #[inline]
            fn from_f32(value: f32) -> Self {
                <$t>::from_f32(value)
            }
            #[inline]
            fn from_f64(value: f64) -> Self {
                <$t>::from_f64(value)
            }
        }
    )*};
}
halves!(f16 => F16, bf16 => BF16);

impl Voxel for bool {
    const DTYPE: Dtype = Dtype::Bool;

    fn to_f32(self) -> f32 {
        f32::from(u8::from(self))
    }

    fn to_f64(self) -> f64 {
        f64::from(u8::from(self))
    }

    fn from_f32(value: f32) -> Self {
        value >= 0.5
    }

    fn from_f64(value: f64) -> Self {
        value >= 0.5
    }

    fn get(bytes: &[u8], _: ByteOrder) -> Self {
        bytes[0] != 0
    }

    fn put(voxels: &[Self], _: ByteOrder, out: &mut Vec<u8>) {
        out.extend(voxels.iter().map(|v| u8::from(*v)));
    }
}

/// The 16-bit float types, as [`with_element`](crate::with_element) names them.
#[doc(hidden)]
pub mod halves {
    pub use half::{bf16, f16};
}

/// Evaluates an expression with `$T` bound to the Rust type as which programs compute with elements
/// of a [`Dtype`]: that of [`Dtype::read_as`].
#[macro_export]
macro_rules! with_voxel {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::volume::Dtype::U8 => {
                type $T = u8;
                $body
            }
            $crate::volume::Dtype::I8 => {
                type $T = i8;
                $body
            }
            $crate::volume::Dtype::U16 => {
                type $T = u16;
                $body
            }
            $crate::volume::Dtype::I16 => {
                type $T = i16;
                $body
            }
            $crate::volume::Dtype::U32 => {
                type $T = u32;
                $body
            }
            $crate::volume::Dtype::I32 => {
                type $T = i32;
                $body
            }
            $crate::volume::Dtype::U64 => {
                type $T = u64;
                $body
            }
            $crate::volume::Dtype::I64 => {
                type $T = i64;
                $body
            }
            $crate::volume::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::volume::Dtype::F64 => {
                type $T = f64;
                $body
            }
            $crate::volume::Dtype::Bool => {
                type $T = u8;
                $body
            }
            $crate::volume::Dtype::F16 | $crate::volume::Dtype::BF16 => {
                type $T = f32;
                $body
            }
        }
    };
}

/// Evaluates an expression with `$T` bound to the Rust type of the stored elements of a [`Dtype`].
#[macro_export]
macro_rules! with_element {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::volume::Dtype::U8 => {
                type $T = u8;
                $body
            }
            $crate::volume::Dtype::I8 => {
                type $T = i8;
                $body
            }
            $crate::volume::Dtype::U16 => {
                type $T = u16;
                $body
            }
            $crate::volume::Dtype::I16 => {
                type $T = i16;
                $body
            }
            $crate::volume::Dtype::U32 => {
                type $T = u32;
                $body
            }
            $crate::volume::Dtype::I32 => {
                type $T = i32;
                $body
            }
            $crate::volume::Dtype::U64 => {
                type $T = u64;
                $body
            }
            $crate::volume::Dtype::I64 => {
                type $T = i64;
                $body
            }
            $crate::volume::Dtype::F32 => {
                type $T = f32;
                $body
            }
            $crate::volume::Dtype::F64 => {
                type $T = f64;
                $body
            }
            $crate::volume::Dtype::Bool => {
                type $T = bool;
                $body
            }
            $crate::volume::Dtype::F16 => {
                type $T = $crate::volume::halves::f16;
                $body
            }
            $crate::volume::Dtype::BF16 => {
                type $T = $crate::volume::halves::bf16;
                $body
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_become_the_nearest_integer_that_there_is() {
        for value in [-1e9, -32_769.0, -2.5, -0.5, -0.4, 0.499_999_97, 0.5, 2.5, 254.5, 300.0, 1e9]
        {
            assert_eq!(u8::from_f32(value), value.round() as u8);
            assert_eq!(u16::from_f32(value), value.round() as u16);
            assert_eq!(i8::from_f32(value), value.round() as i8);
            assert_eq!(i16::from_f32(value), value.round() as i16);
            assert_eq!(i32::from_f32(value), value.round() as i32);
            assert_eq!(u32::from_f32(value), value.round() as u32);
        }
        assert_eq!(u16::from_f32(f32::INFINITY), u16::MAX);
        assert_eq!((i16::from_f32(f32::NAN), u64::from_f32(f32::NAN)), (0, 0));
    }

    #[test]
    fn a_type_holds_what_it_can_store_and_nothing_else() {
        for dtype in Dtype::ALL {
            let [least, greatest] = dtype.range();
            for value in [0.0, least, greatest] {
                assert!(dtype.holds(value), "{dtype} {value}");
                crate::with_element!(dtype, T => assert_eq!(T::from_f64(value).to_f64(), value));
            }
            for value in [0.5, f64::NAN, f64::INFINITY] {
                assert_eq!(dtype.holds(value), !dtype.is_integer(), "{dtype} {value}");
            }
            assert_eq!(dtype.holds(1e300), dtype == Dtype::F64);
        }
        assert!(!Dtype::U16.holds(-1.0) && !Dtype::U16.holds(65_536.0));
        assert!(Dtype::F16.holds(65_504.0) && !Dtype::F16.holds(65_536.0));
        assert!(Dtype::Bool.holds(1.0) && !Dtype::Bool.holds(2.0));
    }

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

    #[test]
    fn halves_become_single_precision_exactly_in_either_byte_order() {
        let values = [0.0, -0.0, 1.0, -2.5, 65_504.0, 5.960_464_5e-8, f32::INFINITY];
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let mut data = Vec::new();
            f16::put(&values.map(f16::from_f32), order, &mut data);
            let mut found = [0.0f32; 7];
            convert(&data, 1, Dtype::F16, order, &mut found);
            assert_eq!(found.map(f32::to_bits), values.map(f32::to_bits));
            // bfloat16 is the upper half of a float
            let mut data = Vec::new();
            bf16::put(&[bf16::from_bits(0x3fc0)], order, &mut data);
            let mut found = [0.0f64];
            convert(&data, 1, Dtype::BF16, order, &mut found);
            assert_eq!(found, [1.5]);
        }
        assert_eq!([-1.0, 0.4, 0.5, 7.0, f32::NAN].map(bool::from_f32), [false, false, true, true, false]);
    }
}
