use std::io::Read;

use zarrs::array::codec::{blosc_decompress_bytes, blosc_validate};

use super::Size;

/// The memory limit of the LZMA decoder in bytes: enough for its highest preset.
const LZMA_MEMORY: u64 = 80 << 20;
/// The decoded size in bytes up to which Zstandard data are decoded in one call, if the frame
/// states the size of the chunk. Larger data are decoded as a stream, unless they expand at most
/// 64-fold.
const AT_ONCE: usize = 64 << 20;
/// The maximum expansion of LZ4: decoded bytes per input byte.
const LZ4_RATIO: usize = 255;
/// The maximum expansion of Zstandard, also within blosc: a block of 128 KiB takes at least four
/// bytes.
const ZSTD_RATIO: usize = 1 << 15;

/// A general-purpose compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::volume) enum Stream {
    /// gzip (RFC 1952), with one or several members.
    Gzip,
    /// zlib (RFC 1950).
    Zlib,
    /// bzip2, with one or several streams.
    Bzip2,
    /// LZMA in the `.xz` or `.lzma` container.
    Xz,
    /// An LZ4 block, preceded by its decoded size as 32 bits, little endian (numcodecs).
    Lz4,
    /// Zstandard, with one or several frames.
    Zstd,
    /// blosc version 1, with any of its compressors.
    Blosc,
}

impl Stream {
    /// Decodes `input` into `out`, replacing its content.
    ///
    /// # Errors
    /// A message about what is invalid in `input`, or that it does not decode to `size` bytes.
    pub(in crate::volume) fn decode(
        self,
        input: &[u8],
        size: Size,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        match self {
            Self::Gzip => {
                read_to_end(flate2::bufread::MultiGzDecoder::new(input), input, size, out)
            }
            Self::Zlib => zlib(input, size, out),
            Self::Bzip2 => {
                read_to_end(bzip2::bufread::MultiBzDecoder::new(input), input, size, out)
            }
            Self::Xz => {
                let stream =
                    xz2::stream::Stream::new_auto_decoder(LZMA_MEMORY, xz2::stream::CONCATENATED);
                let stream = stream.map_err(|error| error.to_string())?;
                read_to_end(xz2::bufread::XzDecoder::new_stream(input, stream), input, size, out)
            }
            Self::Lz4 => lz4(input, size, out),
            Self::Zstd => zstd(input, size, out),
            Self::Blosc => blosc(input, size, out),
        }
    }
}

/// Reads from a decoder to its end, so that checksums are verified, or until the output exceeds
/// `size` by one byte.
fn read_to_end(
    decoder: impl Read,
    input: &[u8],
    size: Size,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    out.clear();
    out.reserve_exact(size.max().min(input.len().saturating_mul(64)));
    decoder.take(size.max() as u64 + 1).read_to_end(out).map_err(|error| error.to_string())?;
    size.check(out.len())?;
    // reading may have doubled the capacity, and the caller keeps the buffer
    if out.capacity() > out.len() + out.len() / 8 {
        out.shrink_to_fit();
    }
    Ok(())
}

/// Inflates zlib data and requires that the stream is complete, unlike the readers of `flate2`.
fn zlib(input: &[u8], size: Size, out: &mut Vec<u8>) -> Result<(), String> {
    let mut inflate = flate2::Decompress::new(true);
    out.clear();
    loop {
        if out.len() == out.capacity() {
            // one byte beyond the permitted size is enough to detect excess data
            let left = (size.max() + 1).saturating_sub(out.len());
            out.reserve_exact(left.min(out.len().max(input.len().saturating_mul(8)).max(64)));
        }
        let rest = &input[inflate.total_in() as usize..];
        let before = (inflate.total_in(), out.len());
        let status = inflate.decompress_vec(rest, out, flate2::FlushDecompress::None);
        let status = status.map_err(|error| error.to_string())?;
        if status == flate2::Status::StreamEnd || out.len() > size.max() {
            return size.check(out.len());
        }
        if before == (inflate.total_in(), out.len()) && out.len() < out.capacity() {
            return Err("it ends early".into());
        }
    }
}

/// Checks that `input` bytes can decode to `claimed` bytes at the compressor's maximum `ratio`.
fn check_ratio(input: usize, claimed: usize, ratio: usize) -> Result<(), String> {
    if claimed / ratio > input {
        return Err(format!("its {input} bytes cannot decode to the {claimed} that it claims"));
    }
    Ok(())
}

fn lz4(input: &[u8], size: Size, out: &mut Vec<u8>) -> Result<(), String> {
    let (head, body) = input.split_first_chunk::<4>().ok_or("it ends within its header")?;
    let claimed = u32::from_le_bytes(*head) as usize;
    size.check(claimed)?;
    check_ratio(body.len(), claimed, LZ4_RATIO)?;
    out.resize(claimed, 0);
    let found = lz4_flex::block::decompress_into(body, out).map_err(|error| error.to_string())?;
    Size::Exactly(claimed).check(found)
}

fn zstd(input: &[u8], size: Size, out: &mut Vec<u8>) -> Result<(), String> {
    let claimed = zstd::zstd_safe::get_frame_content_size(input).ok().flatten();
    if let Size::Exactly(wanted) = size
        && claimed == Some(wanted as u64)
        && wanted <= AT_ONCE.max(input.len().saturating_mul(64))
    {
        check_ratio(input.len(), wanted, ZSTD_RATIO)?;
        out.resize(wanted, 0);
        let found = zstd::bulk::decompress_to_buffer(input, out);
        return size.check(found.map_err(|error| error.to_string())?);
    }
    let decoder = zstd::stream::read::Decoder::with_buffer(input);
    read_to_end(decoder.map_err(|error| error.to_string())?, input, size, out)
}

fn blosc(input: &[u8], size: Size, out: &mut Vec<u8>) -> Result<(), String> {
    let claimed = blosc_validate(input).ok_or("it is no blosc buffer of its header's size")?;
    size.check(claimed)?;
    check_ratio(input.len(), claimed, ZSTD_RATIO)?;
    if claimed == 0 {
        out.clear();
        return Ok(());
    }
    let bytes = blosc_decompress_bytes(input, claimed, 1).map_err(|error| error.to_string())?;
    Size::Exactly(claimed).check(bytes.len())?;
    // reuse the buffer: replacing long-lived buffers again and again would fragment the heap
    let known = out.capacity();
    if known >= claimed && known <= claimed + claimed / 8 {
        out.clear();
        out.extend_from_slice(&bytes);
    } else {
        *out = bytes;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// `bytes`, compressed by each stream.
    fn packed(bytes: &[u8]) -> Vec<(Stream, Vec<u8>)> {
        use zarrs::array::codec::{BloscCompressor, BloscShuffleMode, blosc_compress_bytes};
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(bytes).unwrap();
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
        zlib.write_all(bytes).unwrap();
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
        bzip2.write_all(bytes).unwrap();
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(bytes).unwrap();
        let mut lz4 = (bytes.len() as u32).to_le_bytes().to_vec();
        lz4.extend(lz4_flex::block::compress(bytes));
        let blosc = blosc_compress_bytes(
            bytes,
            5u8.try_into().unwrap(),
            BloscShuffleMode::Shuffle,
            2,
            BloscCompressor::Zstd,
            0,
            1,
        );
        vec![
            (Stream::Gzip, gzip.finish().unwrap()),
            (Stream::Zlib, zlib.finish().unwrap()),
            (Stream::Bzip2, bzip2.finish().unwrap()),
            (Stream::Xz, xz.finish().unwrap()),
            (Stream::Lz4, lz4),
            (Stream::Zstd, zstd::bulk::compress(bytes, 3).unwrap()),
            (Stream::Zstd, zstd::stream::encode_all(bytes, 3).unwrap()),
            (Stream::Blosc, blosc.unwrap()),
        ]
    }

    #[test]
    fn every_stream_comes_back_at_its_size_and_at_no_other() {
        let bytes: Vec<u8> = (0..4096u32).map(|i| (i / 5 % 251) as u8).collect();
        for (stream, packed) in packed(&bytes) {
            let mut out = vec![7; 10];
            for size in [Size::Exactly(4096), Size::AtMost(4096), Size::AtMost(9999)] {
                stream.decode(&packed, size, &mut out).unwrap();
                assert_eq!(out, bytes, "{stream:?}");
            }
            for size in [Size::Exactly(4095), Size::Exactly(4097), Size::AtMost(100)] {
                assert!(stream.decode(&packed, size, &mut out).is_err(), "{stream:?} {size:?}");
            }
            for length in [0, 1, 5, packed.len() / 2, packed.len() - 1] {
                let cut = stream.decode(&packed[..length], Size::Exactly(4096), &mut out);
                assert!(cut.is_err(), "{stream:?} {length}");
            }
        }
    }

    #[test]
    fn a_bomb_ends_at_the_size_of_a_chunk_and_takes_no_more_memory() {
        let zeros = vec![0; 8 << 20];
        for (stream, packed) in packed(&zeros) {
            let mut out = Vec::new();
            let error = stream.decode(&packed, Size::Exactly(5000), &mut out).unwrap_err();
            assert!(out.capacity() <= 20_000, "{stream:?}: {} bytes, {error}", out.capacity());
        }
    }

    #[test]
    fn a_size_that_a_few_bytes_claim_is_not_allocated() {
        let huge = 1 << 34;
        let mut frame = zstd::bulk::compress(&[1, 2, 3], 3).unwrap();
        frame.splice(4..6, [0xe0].into_iter().chain((huge as u64).to_le_bytes()));
        let lz4 = [&u32::MAX.to_le_bytes()[..], &[0; 40]].concat();
        for (stream, input) in [(Stream::Zstd, frame), (Stream::Lz4, lz4)] {
            for size in [Size::Exactly(huge), Size::AtMost(huge)] {
                let mut out = Vec::new();
                stream.decode(&input, size, &mut out).unwrap_err();
                assert!(out.capacity() < 1 << 20, "{stream:?}: {}", out.capacity());
            }
        }
    }
}
