//! Checksums that are stored with the data.

/// A checksum of 32 bits, stored little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::volume) enum Sum {
    /// CRC-32C (RFC 3720).
    Crc32c,
    /// CRC-32, as in gzip.
    Crc32,
    /// Adler-32 (RFC 1950).
    Adler32,
    /// Fletcher-32, as HDF5 computes it.
    Fletcher32,
}

impl Sum {
    /// The checksum of `bytes`.
    pub(super) fn of(self, bytes: &[u8]) -> u32 {
        match self {
            Self::Crc32c => crc32c::crc32c(bytes),
            Self::Crc32 => {
                let mut crc = flate2::Crc::new();
                crc.update(bytes);
                crc.sum()
            }
            Self::Adler32 => adler32(bytes),
            Self::Fletcher32 => fletcher32(bytes),
        }
    }
}

fn adler32(bytes: &[u8]) -> u32 {
    const MODULUS: u32 = 65_521;
    let (mut a, mut b) = (1u32, 0u32);
    // sums of this many bytes cannot overflow 32 bits (RFC 1950, section 9)
    for part in bytes.chunks(5552) {
        for byte in part {
            a += u32::from(*byte);
            b += a;
        }
        a %= MODULUS;
        b %= MODULUS;
    }
    (b << 16) | a
}

/// `H5_checksum_fletcher32` of HDF5, on big-endian 16-bit words.
fn fletcher32(bytes: &[u8]) -> u32 {
    let fold = |sum: u32| (sum & 0xffff) + (sum >> 16);
    let (mut a, mut b) = (0u32, 0u32);
    let (words, rest) = bytes.as_chunks::<2>();
    for part in words.chunks(360) {
        for word in part {
            a += u32::from(u16::from_be_bytes(*word));
            b += a;
        }
        (a, b) = (fold(a), fold(b));
    }
    if let [last] = rest {
        a += u32::from(*last) << 8;
        b += a;
        (a, b) = (fold(a), fold(b));
    }
    (fold(b) << 16) | fold(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_have_their_published_values() {
        // expected values: RFC 3720, B.4; the usual check values of the other algorithms
        assert_eq!(Sum::Crc32c.of(&[0; 32]), 0x8a91_36aa);
        assert_eq!(Sum::Crc32.of(b"123456789"), 0xcbf4_3926);
        assert_eq!(Sum::Adler32.of(b"Wikipedia"), 0x11e6_0398);
        // computed by hand from the words 0x0102 and 0x0304; tests/interop compares with numcodecs
        assert_eq!(Sum::Fletcher32.of(b""), 0);
        assert_eq!(Sum::Fletcher32.of(&[1, 2, 3, 4]), 0x0508_0406);
    }
}
