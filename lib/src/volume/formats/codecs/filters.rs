//! The filters of numcodecs that transform element values.

use serde_json::Value;

use crate::volume::dtype::ByteOrder;
use crate::volume::voxel::convert;
use crate::volume::{Dtype, Voxel};

/// An element type and byte order from a filter's configuration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::volume) struct Number {
    dtype: Dtype,
    order: ByteOrder,
}

impl Number {
    /// The type under `key` of a configuration; `None` if it is absent, or not a type that the
    /// filters support (`bool` and 16-bit floats are not).
    pub(super) fn of(config: &Value, key: &str) -> Option<Self> {
        match Dtype::from_descr(config.get(key)?.as_str()?)? {
            (dtype, order) if dtype.read_as() == dtype => Some(Self { dtype, order }),
            _ => None,
        }
    }

    /// Size of one element in bytes.
    pub(super) fn size(self) -> usize {
        self.dtype.size()
    }

    fn is_float(self) -> bool {
        matches!(self.dtype, Dtype::F32 | Dtype::F64)
    }

    /// Whether the delta filter supports elements of this type with differences stored as `other`.
    pub(super) fn can_be_kept_as(self, other: Self) -> bool {
        self.dtype == other.dtype || (!self.is_float() && !other.is_float())
    }

    fn read<T: Voxel>(self, bytes: &[u8]) -> Vec<T> {
        let mut out = vec![T::default(); bytes.len() / self.size()];
        convert(bytes, 1, self.dtype, self.order, &mut out);
        out
    }

    /// Appends an integer in this type and byte order; bytes that exceed the type are dropped.
    fn put(self, value: i64, out: &mut Vec<u8>) {
        let size = self.size();
        match self.order {
            ByteOrder::Little => out.extend_from_slice(&value.to_le_bytes()[..size]),
            ByteOrder::Big => out.extend_from_slice(&value.to_be_bytes()[8 - size..]),
        }
    }
}

/// Decodes `numcodecs.Delta`: the cumulative sum of differences of type `kept`, as type `wanted`.
pub(super) fn cumulative_sum(input: &[u8], kept: Number, wanted: Number, out: &mut Vec<u8>) {
    out.clear();
    match kept.dtype {
        Dtype::F32 => floats::<f32>(input, kept, out),
        Dtype::F64 => floats::<f64>(input, kept, out),
        _ => {
            // integers wrap around, as in NumPy
            let mut sum = 0i64;
            for bytes in input.chunks_exact(kept.size()) {
                sum = sum.wrapping_add(read_integer(bytes, kept));
                wanted.put(sum, out);
            }
        }
    }
}

fn floats<T: Voxel + std::ops::Add<Output = T>>(input: &[u8], kept: Number, out: &mut Vec<u8>) {
    let mut values: Vec<T> = kept.read(input);
    for i in 1..values.len() {
        values[i] = values[i - 1] + values[i];
    }
    T::put(&values, kept.order, out);
}

/// Reads an integer, with sign extension for signed types.
fn read_integer(bytes: &[u8], number: Number) -> i64 {
    let mut wide = [0; 8];
    match number.order {
        ByteOrder::Little => wide[..bytes.len()].copy_from_slice(bytes),
        ByteOrder::Big => wide.iter_mut().zip(bytes.iter().rev()).for_each(|(w, b)| *w = *b),
    }
    let shift = 64 - 8 * bytes.len() as u32;
    let value = u64::from_le_bytes(wide) << shift;
    if number.dtype.name().starts_with('u') {
        (value >> shift) as i64
    } else {
        (value as i64) >> shift
    }
}

/// Decodes `numcodecs.FixedScaleOffset` from type `kept` to type `wanted`. The result is
/// `value / scale + offset`, truncated for integer types.
pub(super) fn rescale(
    input: &[u8],
    (kept, wanted): (Number, Number),
    (scale, offset): (f64, f64),
    out: &mut Vec<u8>,
) {
    out.clear();
    let values = kept.read::<f64>(input).into_iter().map(|value| value / scale + offset);
    match wanted.dtype {
        Dtype::F32 => f32::put(&values.map(|v| v as f32).collect::<Vec<_>>(), wanted.order, out),
        Dtype::F64 => f64::put(&values.collect::<Vec<_>>(), wanted.order, out),
        _ => values.for_each(|value| wanted.put(value as i64, out)),
    }
}
