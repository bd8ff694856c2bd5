//! Element types of files that volumes do not have; they are converted when read.

use half::f16;

use super::Dtype;
use super::dtype::ByteOrder;

/// The type of the elements in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// One of the types of volumes.
    As(Dtype),
    /// One byte, 0 or 1; read as `uint8`.
    Bool,
    /// Half precision (IEEE 754 binary16); read as `float32`, which represents all its values.
    F16,
}

impl Element {
    /// The type by the name that NumPy, Zarr v3 and N5 share: `uint16`, `bool`, `float16`.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        match name {
            "bool" => Some(Self::Bool),
            "float16" => Some(Self::F16),
            _ => Dtype::from_name(name).map(Self::As),
        }
    }

    /// The type and byte order of a NumPy or Zarr v2 `descr`: `>u2`, `|b1`.
    pub(super) fn from_descr(descr: &str) -> Option<(Self, ByteOrder)> {
        let order = match descr.as_bytes().first()? {
            b'>' => ByteOrder::Big,
            b'=' => ByteOrder::NATIVE,
            _ => ByteOrder::Little,
        };
        let name = descr.trim_start_matches(['<', '>', '|', '=']);
        let stored = match name {
            "b1" | "?" => Self::Bool,
            "f2" => Self::F16,
            _ => Self::As(Dtype::ALL.into_iter().find(|dtype| &dtype.descr()[1..] == name)?),
        };
        Some((stored, order))
    }

    /// The type of the elements after reading.
    pub(super) fn dtype(self) -> Dtype {
        match self {
            Self::As(dtype) => dtype,
            Self::Bool => Dtype::U8,
            Self::F16 => Dtype::F32,
        }
    }

    /// Bytes of one element in the file.
    pub(super) fn size(self) -> usize {
        match self {
            Self::F16 => 2,
            other => other.dtype().size(),
        }
    }

    /// The name of the type as in the file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::As(dtype) => dtype.name(),
            Self::Bool => "bool",
            Self::F16 => "float16",
        }
    }

    /// Converts elements of a file to [`Element::dtype`], in the same byte order.
    pub(super) fn widen(self, data: &mut Vec<u8>, order: ByteOrder) {
        if self != Self::F16 {
            return;
        }
        let count = data.len() / 2;
        data.resize(4 * count, 0);
        // backwards, so that nothing is overwritten before it is read
        for i in (0..count).rev() {
            let raw = [data[2 * i], data[2 * i + 1]];
            let wide = match order {
                ByteOrder::Little => f16::from_le_bytes(raw).to_f32().to_le_bytes(),
                ByteOrder::Big => f16::from_be_bytes(raw).to_f32().to_be_bytes(),
            };
            data[4 * i..4 * i + 4].copy_from_slice(&wide);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_becomes_single_in_either_byte_order() {
        let values = [0.0, -0.0, 1.0, -2.5, 65_504.0, 5.960_464_5e-8, f32::INFINITY];
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let halves = values.iter().map(|v| f16::from_f32(*v));
            let mut data: Vec<u8> = match order {
                ByteOrder::Little => halves.flat_map(f16::to_le_bytes).collect(),
                ByteOrder::Big => halves.flat_map(f16::to_be_bytes).collect(),
            };
            Element::F16.widen(&mut data, order);
            let found = data.chunks_exact(4).map(|c| <f32 as super::super::Voxel>::get(c, order));
            assert!(found.zip(values).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }

    #[test]
    fn every_type_is_found_by_both_its_names() {
        for dtype in Dtype::ALL {
            assert_eq!(Element::from_name(dtype.name()), Some(Element::As(dtype)));
            let little = Some((Element::As(dtype), ByteOrder::Little));
            assert_eq!(Element::from_descr(dtype.descr()), little);
        }
        assert_eq!(Element::from_descr(">f2"), Some((Element::F16, ByteOrder::Big)));
        assert_eq!(Element::from_descr("|b1"), Some((Element::Bool, ByteOrder::Little)));
        assert_eq!(Element::from_descr("<c8"), None);
    }
}
