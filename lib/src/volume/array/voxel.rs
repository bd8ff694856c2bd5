//! The Rust types of elements, and the conversions between the stored types and those used for
//! computation.

use half::{bf16, f16};

use crate::volume::dtype::{ByteOrder, Dtype};

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
    /// The nearest value of this type. For integer types, `value` is rounded half away from zero
    /// and clamped, and NaN becomes 0. For `bool`, values of 0.5 and above are true.
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
/// `bytes` starts at the first element and extends at least to the end of the last element.
pub(in crate::volume) fn convert<T: Voxel>(
    bytes: &[u8],
    step: usize,
    stored: Dtype,
    order: ByteOrder,
    out: &mut [T],
) {
    /// Decodes every `step`-th element of `bytes` as an `S`, and writes it, converted by `to`, to
    /// `out`. Callers pass a constant `order`, so that the compiler can make a copy of the loop
    /// where nothing is converted.
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
            // `f32` represents all values of these types exactly
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

/// Rounds half away from zero. The saturating cast of the caller then clamps, so that the bounds
/// are not needed.
#[inline]
fn rounded(value: f32, _min: f32, _max: f32) -> f32 {
    value.round()
}

/// Rounds half away from zero, clamps to the bounds `min` and `max` of a type of up to 16 bits, and
/// returns the integer in the low bits. NaN becomes 0.
///
/// The addition of 1.5 * 2^23 moves an integer of magnitude below 2^22 into the low bits of the
/// `f32`. Unlike a saturating cast, the addition compiles to vector instructions, with which
/// resampling runs 1.5 times as fast.
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

/// The 16-bit float types, for use by the macro [`with_element`](crate::with_element).
#[doc(hidden)]
pub mod halves {
    pub use half::{bf16, f16};
}

/// Evaluates an expression with `$T` bound to the Rust type in which programs compute with elements
/// of a [`Dtype`]: the type of its [`Dtype::read_as`].
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
            others => $crate::with_voxel!(others, $T => $body),
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
    fn half_precision_becomes_single_in_either_byte_order() {
        let values = [0.0, -0.0, 1.0, -2.5, 65_504.0, 5.960_464_5e-8, f32::INFINITY];
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let mut data = Vec::new();
            f16::put(&values.map(f16::from_f32), order, &mut data);
            let mut found = [0.0f32; 7];
            convert(&data, 1, Dtype::F16, order, &mut found);
            assert_eq!(found.map(f32::to_bits), values.map(f32::to_bits));
            // a `bfloat16` consists of the upper 16 bits of an `f32`
            let mut data = Vec::new();
            bf16::put(&[bf16::from_bits(0x3fc0)], order, &mut data);
            let mut found = [0.0f64];
            convert(&data, 1, Dtype::BF16, order, &mut found);
            assert_eq!(found, [1.5]);
        }
        assert_eq!(
            [-1.0, 0.4, 0.5, 7.0, f32::NAN].map(bool::from_f32),
            [false, false, true, true, false]
        );
    }
}
