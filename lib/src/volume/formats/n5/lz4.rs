//! LZ4 in the framing of N5: lz4-java's `LZ4BlockOutputStream`. The LZ4 frame format, which some
//! tools write instead, can be read, too.

use std::io::Read;

/// The first bytes of each block of lz4-java.
const MAGIC: &[u8] = b"LZ4Block";
/// The first bytes of an LZ4 frame.
const FRAME: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
/// The seed of the checksums of lz4-java, which stores only their low 28 bits.
const SEED: u32 = 0x9747_b28c;
const RAW: u8 = 0x10;
const COMPRESSED: u8 = 0x20;

/// The maximum expansion of LZ4: decoded bytes per input byte.
const RATIO: usize = 255;

/// Decodes a payload, which must decode to exactly `size` bytes, into `out`.
pub(super) fn decode(payload: &[u8], size: usize, out: &mut Vec<u8>) -> Result<(), String> {
    if size / RATIO > payload.len() {
        return Err(format!("its {} bytes cannot decode to the {size} wanted", payload.len()));
    }
    out.resize(size, 0);
    if payload.starts_with(&FRAME) {
        let mut decoder = lz4_flex::frame::FrameDecoder::new(payload);
        decoder.read_exact(out).map_err(|error| error.to_string())?;
        return match decoder.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err("it is longer than its header says".into()),
            Err(error) => Err(error.to_string()),
        };
    }
    blocks(payload, out)
}

/// Decodes the blocks of lz4-java.
fn blocks(payload: &[u8], out: &mut [u8]) -> Result<(), String> {
    let mut rest = payload;
    let mut filled = 0;
    while filled < out.len() {
        let body = rest.strip_prefix(MAGIC).ok_or("an LZ4 block is missing or damaged")?;
        let (head, body) = body.split_first_chunk::<13>().ok_or("an LZ4 block has no header")?;
        let number = |at: usize| {
            u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
        };
        let (packed, size, check) = (number(1), number(5), number(9) as u32);
        let (bytes, after) = body.split_at_checked(packed).ok_or("an LZ4 block ends early")?;
        let target = out.get_mut(filled..filled + size);
        let target = target.ok_or("an LZ4 block is longer than the header says")?;
        if size == 0 {
            return Err("its LZ4 blocks end early".into());
        }
        match head[0] & 0xf0 {
            RAW if packed == size => target.copy_from_slice(bytes),
            COMPRESSED => {
                let found = lz4_flex::block::decompress_into(bytes, target);
                if found.map_err(|error| error.to_string())? != size {
                    return Err("an LZ4 block is shorter than it says".into());
                }
            }
            _ => return Err("an LZ4 block has an unknown method".into()),
        }
        if xxh32(target, SEED) & 0x0fff_ffff != check {
            return Err("the checksum of an LZ4 block is wrong".into());
        }
        filled += size;
        rest = after;
    }
    // the stream ends with an empty block, which some writers omit
    if rest.is_empty() || rest.starts_with(MAGIC) && rest.len() >= MAGIC.len() + 13 {
        return Ok(());
    }
    Err("its LZ4 blocks do not end as they should".into())
}

/// Appends the payload for `bytes` to `out`, in blocks of `block` bytes.
pub(super) fn encode(bytes: &[u8], block: usize, out: &mut Vec<u8>) {
    // the low nibble of the token is the base-2 logarithm of the block size, rounded up, minus 10
    let level = (usize::BITS - (block - 1).leading_zeros()).saturating_sub(10) as u8;
    let mut put = |method: u8, packed: &[u8], size: usize, check: u32| {
        out.extend_from_slice(MAGIC);
        out.push(method | level);
        for number in [packed.len() as u32, size as u32, check] {
            out.extend(number.to_le_bytes());
        }
        out.extend_from_slice(packed);
    };
    for part in bytes.chunks(block) {
        let check = xxh32(part, SEED) & 0x0fff_ffff;
        let packed = lz4_flex::block::compress(part);
        if packed.len() < part.len() {
            put(COMPRESSED, &packed, part.len(), check);
        } else {
            put(RAW, part, part.len(), check);
        }
    }
    put(RAW, &[], 0, 0);
}

/// 32-bit xxHash, according to its specification
/// (<https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>).
fn xxh32(input: &[u8], seed: u32) -> u32 {
    const P: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
    let (stripes, tail) = input.as_chunks::<16>();
    let mut hash = if stripes.is_empty() {
        seed.wrapping_add(P[4])
    } else {
        let mut lanes = [
            seed.wrapping_add(P[0]).wrapping_add(P[1]),
            seed.wrapping_add(P[1]),
            seed,
            seed.wrapping_sub(P[0]),
        ];
        for stripe in stripes {
            let (words, _) = stripe.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                let word = u32::from_le_bytes(*word).wrapping_mul(P[1]);
                *lane = lane.wrapping_add(word).rotate_left(13).wrapping_mul(P[0]);
            }
        }
        [1, 7, 12, 18]
            .into_iter()
            .zip(lanes)
            .fold(0u32, |sum, (bits, lane)| sum.wrapping_add(lane.rotate_left(bits)))
    };
    hash = hash.wrapping_add(input.len() as u32);
    let (words, bytes) = tail.as_chunks::<4>();
    for word in words {
        hash = hash.wrapping_add(u32::from_le_bytes(*word).wrapping_mul(P[2]));
        hash = hash.rotate_left(17).wrapping_mul(P[3]);
    }
    for byte in bytes {
        hash = hash.wrapping_add(u32::from(*byte).wrapping_mul(P[4]));
        hash = hash.rotate_left(11).wrapping_mul(P[0]);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(P[1]);
    hash = (hash ^ (hash >> 13)).wrapping_mul(P[2]);
    hash ^ (hash >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xxh32_gives_the_values_of_its_reference() {
        assert_eq!(xxh32(b"", 0), 0x02cc_5d05);
        assert_eq!(xxh32(b"abc", 0), 0x32d1_53ff);
        assert_eq!(xxh32(b"Nobody inspects the spammish repetition", 0), 0xe229_3b2f);
    }

    #[test]
    fn blocks_of_lz4_come_back_and_a_wrong_checksum_is_seen() {
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i / 7 % 251) as u8).collect();
        let mut packed = Vec::new();
        encode(&bytes, 65_536, &mut packed);
        let mut out = Vec::new();
        decode(&packed, bytes.len(), &mut out).unwrap();
        assert_eq!(out, bytes);
        packed[17] ^= 1;
        assert!(decode(&packed, bytes.len(), &mut out).unwrap_err().contains("checksum"));
    }
}
