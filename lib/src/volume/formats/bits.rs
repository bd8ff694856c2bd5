//! Unpacking of samples whose size is not a multiple of 8 bits.

use crate::volume::dtype::ByteOrder;

/// Unpacks `count` samples of `bits` bits each, most significant bit first, and appends them to
/// `out` as elements of `size` bytes.
///
/// The first bit of `row` is the first bit of the first sample.
pub(in crate::volume) fn unpack(
    row: &[u8],
    bits: u32,
    count: usize,
    size: usize,
    order: ByteOrder,
    out: &mut Vec<u8>,
) {
    let mask = (1u64 << bits) - 1;
    let (mut held, mut have) = (0u64, 0);
    let mut bytes = row.iter();
    for _ in 0..count {
        while have < bits {
            held = held << 8 | u64::from(bytes.next().copied().unwrap_or_default());
            have += 8;
        }
        have -= bits;
        let value = held >> have & mask;
        match order {
            ByteOrder::Little => out.extend_from_slice(&value.to_le_bytes()[..size]),
            ByteOrder::Big => out.extend_from_slice(&value.to_be_bytes()[8 - size..]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_bits_and_single_ones_are_told_apart() {
        let mut out = Vec::new();
        unpack(&[0xab, 0xcd, 0xef], 12, 2, 2, ByteOrder::Big, &mut out);
        assert_eq!(out, [0x0a, 0xbc, 0x0d, 0xef]);
        out.clear();
        unpack(&[0b1010_0000], 1, 3, 1, ByteOrder::Little, &mut out);
        assert_eq!(out, [1, 0, 1]);
    }
}
