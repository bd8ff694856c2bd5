//! Decodes the bytes of a strip or tile to samples.

use std::io::Read;

use weezl::{BitOrder, LzwStatus};
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::form::{Compression, PageForm, Predictor, Sample};
use crate::volume::bits;
use crate::volume::dtype::ByteOrder;

/// The memory limit of the xz decoder in bytes, besides its output: the largest preset needs 65 MB.
const XZ_MEMORY: u64 = 128 << 20;

/// Decodes the first `rows` rows of a strip or tile into `out`, samples in the page's byte order.
///
/// # Errors
/// A message about what is invalid.
pub(super) fn decode(
    form: &PageForm,
    raw: &mut [u8],
    rows: u64,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let row = form.row_bytes().unwrap_or_default() as usize;
    let wanted = row * rows as usize;
    out.clear();
    // the tag FillOrder does not apply to JPEG data
    if form.reversed && form.compression != Compression::Jpeg {
        raw.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
    }
    if form.compression == Compression::Fax4 {
        return fax(form, raw, rows, out);
    }
    decompress(form, raw, rows, wanted, out)?;
    if out.len() < wanted {
        return Err(format!("it holds {} of {wanted} bytes", out.len()));
    }
    out.truncate(wanted);
    let samples = form.chunk_samples() as usize;
    match (form.predictor, form.sample.bits()) {
        (Predictor::None, _) => {}
        (Predictor::Left, bits) => {
            out.chunks_exact_mut(row).for_each(|row| add_left(row, bits, samples, form.order));
        }
        (Predictor::Float, bits) => {
            let mut sorted = vec![0; row];
            for row in out.chunks_exact_mut(row) {
                sorted.copy_from_slice(row);
                float_row(&mut sorted, row, (bits / 8) as usize, samples, form.order);
            }
        }
    }
    match form.sample {
        Sample::As(_) => {}
        Sample::Bits(bits) => {
            let count = form.chunk[1] as usize * samples;
            let packed = std::mem::take(out);
            let size = form.sample.dtype().size();
            out.reserve_exact(rows as usize * count * size);
            for row in packed.chunks_exact(row) {
                match bits {
                    // samples of whole bytes have the file's byte order
                    24 => row.chunks_exact(3).for_each(|v| match form.order {
                        ByteOrder::Little => out.extend([v[0], v[1], v[2], 0]),
                        ByteOrder::Big => out.extend([0, v[0], v[1], v[2]]),
                    }),
                    _ => bits::unpack(row, bits as u32, count, size, form.order, out),
                }
            }
        }
    }
    Ok(())
}

/// Decompresses up to `wanted` bytes; the buffer grows with the decoded bytes.
fn decompress(
    form: &PageForm,
    raw: &[u8],
    rows: u64,
    wanted: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let fill = |reader: &mut dyn Read, out: &mut Vec<u8>| {
        let read = reader.take(wanted as u64).read_to_end(out);
        read.map(drop)
            .map_err(|error| format!("{} cannot be undone: {error}", form.compression.name()))
    };
    match form.compression {
        Compression::None => out.extend_from_slice(&raw[..raw.len().min(wanted)]),
        Compression::Deflate => fill(&mut flate2::bufread::ZlibDecoder::new(raw), out)?,
        Compression::Zstd => {
            let reader = zstd::stream::read::Decoder::with_buffer(raw);
            fill(&mut reader.map_err(|error| error.to_string())?, out)?;
        }
        Compression::Lzma => {
            let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, 0);
            let stream = stream.map_err(|error| error.to_string())?;
            fill(&mut xz2::bufread::XzDecoder::new_stream(raw, stream), out)?;
        }
        Compression::Lzw => lzw(raw, wanted, out)?,
        Compression::PackBits => pack_bits(raw, wanted, out)?,
        Compression::Jpeg => jpeg(form, raw, rows, out)?,
        Compression::Fax4 => fax(form, raw, rows, out)?,
    }
    Ok(())
}

fn lzw(mut raw: &[u8], wanted: usize, out: &mut Vec<u8>) -> Result<(), String> {
    // libtiff before 1991 stored LZW codes in the reverse bit order
    if raw.len() > 1 && raw[0] == 0 && raw[1] & 1 == 1 {
        return Err("it is LZW as before TIFF 6.0; save it anew".into());
    }
    let mut decoder = weezl::decode::Configuration::with_tiff_size_switch(BitOrder::Msb, 8)
        .with_yield_on_full_buffer(true)
        .build();
    while out.len() < wanted {
        let from = out.len();
        out.resize(wanted.min(from + from.max(1 << 14)), 0);
        let found = decoder.decode_bytes(raw, &mut out[from..]);
        out.truncate(from + found.consumed_out);
        raw = &raw[found.consumed_in..];
        match found.status {
            Err(error) => return Err(format!("lzw cannot be undone: {error}")),
            Ok(LzwStatus::Done | LzwStatus::NoProgress) => break,
            Ok(LzwStatus::Ok) if found.consumed_in + found.consumed_out == 0 => break,
            Ok(LzwStatus::Ok) => {}
        }
    }
    Ok(())
}

/// Decodes `PackBits`: TIFF 6.0, section 9.
fn pack_bits(mut raw: &[u8], wanted: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let short = || "packbits cannot be undone: it ends within a run".to_owned();
    while out.len() < wanted
        && let [head, rest @ ..] = raw
    {
        raw = rest;
        match *head as i8 {
            -128 => {}
            count @ 0.. => {
                let (run, rest) = raw.split_at_checked(count as usize + 1).ok_or_else(short)?;
                out.extend_from_slice(run);
                raw = rest;
            }
            count => {
                let (byte, rest) = raw.split_first().ok_or_else(short)?;
                out.resize(out.len() + 1 + count.unsigned_abs() as usize, *byte);
                raw = rest;
            }
        }
    }
    Ok(())
}

/// Decodes a JPEG whose tables may be stored separately: TIFF Technical Note 2.
fn jpeg(form: &PageForm, raw: &[u8], rows: u64, out: &mut Vec<u8>) -> Result<(), String> {
    let tables = form.tables.get(..form.tables.len().saturating_sub(2)).unwrap_or_default();
    let joined;
    let data = if tables.is_empty() {
        raw
    } else {
        joined = [tables, raw.get(2..).unwrap_or_default()].concat();
        joined.as_slice()
    };
    let bad = |error: &dyn std::fmt::Display| format!("jpeg cannot be undone: {error}");
    let samples = form.chunk_samples();
    let space = match (samples, form.is_ycbcr()) {
        (1, _) => ColorSpace::Luma,
        (_, true) => ColorSpace::RGB,
        // requesting YCbCr avoids a colour conversion: samples are returned as they are stored
        (_, false) => ColorSpace::YCbCr,
    };
    // check the header first, as its size is untrusted
    let head = DecoderOptions::default().set_max_width(1 << 16).set_max_height(1 << 16);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(data), head);
    decoder.decode_headers().map_err(|error| bad(&error))?;
    let info = decoder.info().ok_or_else(|| bad(&"it has no head"))?;
    let found = [u64::from(info.height), u64::from(info.width), u64::from(info.components)];
    if found[0] < rows || found[0] > form.chunk[0] || found[1..] != [form.chunk[1], samples] {
        return Err(bad(&format!(
            "it has {} x {} pixels of {} samples, its page speaks of {} x {} of {samples}",
            found[0], found[1], found[2], form.chunk[0], form.chunk[1]
        )));
    }
    decoder.set_options(head.jpeg_set_out_colorspace(space).set_strict_mode(true));
    *out = decoder.decode().map_err(|error| bad(&error))?;
    Ok(())
}

/// Decodes CCITT group 4, one byte per pixel: 1 for black, like the bits of libtiff.
fn fax(form: &PageForm, raw: &[u8], rows: u64, out: &mut Vec<u8>) -> Result<(), String> {
    let width = form.chunk[1] as u16;
    let mut count = 0;
    let height = u16::try_from(rows).map_err(|_| format!("fax of {rows} rows cannot be read"))?;
    let read = fax::decoder::decode_g4(raw.iter().copied(), width, Some(height), |line| {
        count += 1;
        out.extend(
            fax::decoder::pels(line, width).map(|c| u8::from(matches!(c, fax::Color::Black))),
        );
    });
    if read.is_none() || count < rows {
        return Err(format!("fax cannot be undone: {count} of {rows} rows are there"));
    }
    Ok(())
}

/// Inverts horizontal differencing (predictor 2): TIFF 6.0, section 14.
fn add_left(row: &mut [u8], bits: u64, samples: usize, order: ByteOrder) {
    macro_rules! sums {
        ($t:ty, $from:ident, $to:ident) => {{
            const SIZE: usize = size_of::<$t>();
            let at = |row: &[u8], i: usize| {
                let mut raw = [0; SIZE];
                raw.copy_from_slice(&row[i * SIZE..(i + 1) * SIZE]);
                <$t>::$from(raw)
            };
            for i in samples..row.len() / SIZE {
                let sum = at(row, i).wrapping_add(at(row, i - samples));
                row[i * SIZE..(i + 1) * SIZE].copy_from_slice(&sum.$to());
            }
        }};
    }
    match (bits, order) {
        (8, _) => sums!(u8, from_le_bytes, to_le_bytes),
        (16, ByteOrder::Little) => sums!(u16, from_le_bytes, to_le_bytes),
        (16, ByteOrder::Big) => sums!(u16, from_be_bytes, to_be_bytes),
        (32, ByteOrder::Little) => sums!(u32, from_le_bytes, to_le_bytes),
        (32, ByteOrder::Big) => sums!(u32, from_be_bytes, to_be_bytes),
        (_, ByteOrder::Little) => sums!(u64, from_le_bytes, to_le_bytes),
        (_, ByteOrder::Big) => sums!(u64, from_be_bytes, to_be_bytes),
    }
}

/// Inverts Adobe's floating-point predictor (TIFF Technical Note 3): byte differences along a row
/// in which the most significant bytes of all samples come first.
fn float_row(sorted: &mut [u8], row: &mut [u8], size: usize, samples: usize, order: ByteOrder) {
    for i in samples..sorted.len() {
        sorted[i] = sorted[i].wrapping_add(sorted[i - samples]);
    }
    let count = row.len() / size;
    for (i, value) in row.chunks_exact_mut(size).enumerate() {
        for (b, byte) in value.iter_mut().enumerate() {
            let weight = if order == ByteOrder::Big { b } else { size - 1 - b };
            *byte = sorted[weight * count + i];
        }
    }
}
