//! Decoding of vectors that are stored compressed or as text.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use super::Error;
use super::read_error::ReadError;
use crate::files;
use crate::quote::shorten;

/// The encoding of stored vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// gzip, with one or several members.
    Gzip,
    /// zlib.
    Zlib,
    /// bzip2.
    Bzip2,
    /// Decimal numbers as text; each is decoded to a little-endian double.
    Words,
    /// Two hexadecimal digits per byte.
    Hex,
}

impl Packing {
    /// The largest number of bytes that `stored` bytes can decode to, if the format limits it.
    fn max_decoded(self, stored: u64) -> Option<u64> {
        match self {
            // zlib's documentation: deflate expands one byte to at most 1032 bytes
            Self::Gzip | Self::Zlib => Some(stored.saturating_mul(1032)),
            Self::Bzip2 => None,
            // the shortest number takes two bytes, as in "0 "
            Self::Words => Some((stored / 2 + 1).saturating_mul(8)),
            Self::Hex => Some(stored / 2),
        }
    }

    /// Refuses a file whose bytes after byte `from` are too few to decode to `wanted` bytes.
    pub(super) fn check(self, file: &Path, from: u64, wanted: u64) -> Result<(), ReadError> {
        let length = std::fs::metadata(file).map_err(ReadError::io)?.len();
        match self.max_decoded(length.saturating_sub(from)) {
            Some(most) if most < wanted => Err(format!(
                "claims {wanted} bytes of vectors, which its {length} bytes cannot hold; copy it again"
            ).into()),
            _ => Ok(()),
        }
    }

    /// Decodes a file from byte `from` on, which must yield exactly `wanted` bytes.
    pub(super) fn unpack(
        self,
        file: &Path,
        from: u64,
        wanted: u64,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let mut input = File::open(file)?;
        input.seek(SeekFrom::Start(from))?;
        let mut input = BufReader::new(input);
        match self {
            Self::Gzip => copy(flate2::bufread::MultiGzDecoder::new(input), wanted, out),
            Self::Zlib => copy(flate2::bufread::ZlibDecoder::new(input), wanted, out),
            Self::Bzip2 => copy(bzip2::bufread::MultiBzDecoder::new(input), wanted, out),
            Self::Words => words(&mut input, wanted, out),
            Self::Hex => copy(Hex { input }, wanted, out),
        }
    }
}

fn bad(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Explains an unexpected end of file.
fn cut_off(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            bad("it is cut off within its compressed data; copy it again".into())
        }
        _ => error,
    }
}

/// Copies `wanted` bytes and checks that no more follow.
fn copy(mut input: impl Read, wanted: u64, out: &mut dyn Write) -> io::Result<()> {
    let found = io::copy(&mut input.by_ref().take(wanted), out).map_err(cut_off)?;
    if found < wanted {
        return Err(bad(format!("it is cut off: it has {found} bytes of {wanted}; copy it again")));
    }
    // this read also verifies the checksum, which follows the data
    if input.read(&mut [0]).map_err(cut_off)? > 0 {
        return Err(bad(format!("it has more than the {wanted} bytes that its header speaks of")));
    }
    Ok(())
}

/// Decodes numbers separated by white space to doubles.
fn words(input: &mut impl BufRead, wanted: u64, out: &mut dyn Write) -> io::Result<()> {
    const MAX_WORD: u64 = 512;
    let mut left = wanted / 8;
    let mut line = Vec::new();
    loop {
        line.clear();
        let gap = |byte: u8| byte.is_ascii_whitespace();
        skip(input, gap)?;
        let mut word = input.by_ref().take(MAX_WORD);
        take(&mut word, &mut line, gap)?;
        if line.is_empty() {
            break;
        }
        let text = String::from_utf8_lossy(&line);
        let number = text.parse::<f64>().ok().filter(|_| text.len() < MAX_WORD as usize);
        let number = number
            .ok_or_else(|| bad(format!("it holds '{}', which is no number", shorten(&text))))?;
        left = left.checked_sub(1).ok_or_else(|| {
            bad(format!("it has more than the {} numbers that its header speaks of", wanted / 8))
        })?;
        out.write_all(&number.to_le_bytes())?;
    }
    match left {
        0 => Ok(()),
        _ => Err(bad(format!("it is cut off: it lacks {left} numbers of {}", wanted / 8))),
    }
}

/// Skips bytes for which `gap` is true.
fn skip(input: &mut impl BufRead, gap: impl Fn(u8) -> bool) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let length = buffer.len();
        match buffer.iter().position(|byte| !gap(*byte)) {
            Some(at) => {
                input.consume(at);
                return Ok(());
            }
            None if length == 0 => return Ok(()),
            None => input.consume(length),
        }
    }
}

/// Appends the bytes up to the next gap to `word`.
fn take(input: &mut impl BufRead, word: &mut Vec<u8>, gap: impl Fn(u8) -> bool) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let length = buffer.len();
        let end = buffer.iter().position(|byte| gap(*byte));
        word.extend_from_slice(&buffer[..end.unwrap_or(length)]);
        input.consume(end.unwrap_or(length));
        if end.is_some() || length == 0 {
            return Ok(());
        }
    }
}

/// Decodes hexadecimal digits to bytes; white space is skipped.
struct Hex<R> {
    input: R,
}

impl<R: BufRead> Hex<R> {
    fn digit(&mut self) -> io::Result<Option<u8>> {
        skip(&mut self.input, |byte| byte.is_ascii_whitespace())?;
        let Some(byte) = self.input.fill_buf()?.first().copied() else { return Ok(None) };
        self.input.consume(1);
        let digit = char::from(byte).to_digit(16);
        let digit = digit.ok_or_else(|| bad("it holds what is no hexadecimal digit".to_owned()))?;
        Ok(Some(digit as u8))
    }
}

impl<R: BufRead> Read for Hex<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for i in 0..buffer.len() {
            let Some(high) = self.digit()? else { return Ok(i) };
            let low = self.digit()?;
            let low = low.ok_or_else(|| bad("it ends within a byte".to_owned()))?;
            buffer[i] = 16 * high + low;
        }
        Ok(buffer.len())
    }
}

/// Decodes `file` from byte `from` on into the file `path`.
pub(super) fn to_file(
    packing: Packing,
    file: &Path,
    from: u64,
    wanted: u64,
    path: &Path,
) -> Result<(), Error> {
    let refused = |action: &'static str, path: &Path| {
        let path = path.display().to_string();
        move |source| Error::Io { action, path: path.clone(), source }
    };
    let output = File::create(path).map_err(refused("write", path))?;
    let mut output = BufWriter::with_capacity(1 << 20, output);
    packing.unpack(file, from, wanted, &mut output).map_err(refused("decode", file))?;
    let output = output.into_inner().map_err(|e| refused("write", path)(e.into_error()))?;
    files::finish(output).map_err(refused("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpack(packing: Packing, bytes: &[u8], wanted: u64) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("packed");
        std::fs::write(&path, bytes).unwrap();
        packing.check(&path, 0, wanted).map_err(|e| e.to_string())?;
        let mut out = Vec::new();
        packing.unpack(&path, 0, wanted, &mut out).map_err(|e| e.to_string())?;
        Ok(out)
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn bzip2(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_packing_gives_the_bytes_back_and_no_more_or_less() {
        let bytes: Vec<u8> = (0..2000u32).map(|i| ((i * 7919) >> 3) as u8).collect();
        let hex = bytes.iter().map(|b| format!("{b:02X}\n")).collect::<Vec<_>>().concat();
        for (packing, packed) in [
            (Packing::Gzip, gzip(&bytes)),
            (Packing::Zlib, zlib(&bytes)),
            (Packing::Bzip2, bzip2(&bytes)),
            (Packing::Hex, hex.into_bytes()),
        ] {
            assert_eq!(unpack(packing, &packed, 2000).unwrap(), bytes, "{packing:?}");
            let more = unpack(packing, &packed, 1999).unwrap_err();
            assert!(more.contains("more than the 1999 bytes"), "{packing:?}: {more}");
            let less = unpack(packing, &packed, 2001).unwrap_err();
            assert!(less.contains("2000 bytes of 2001") || less.contains("cannot hold"), "{less}");
            assert!(unpack(packing, &packed[..packed.len() - 3], 2000).is_err(), "{packing:?}");
        }
        let members = [gzip(&bytes[..700]), gzip(&bytes[700..])].concat();
        assert_eq!(unpack(Packing::Gzip, &members, 2000).unwrap(), bytes);
    }

    #[test]
    fn words_become_doubles_and_what_is_none_is_quoted_shortly() {
        let want: Vec<u8> = [1.5, -2.0, 1e-3].iter().flat_map(|v: &f64| v.to_le_bytes()).collect();
        assert_eq!(unpack(Packing::Words, b" 1.5\n-2 1e-3\n", 24).unwrap(), want);
        let refusal = |bytes: &[u8]| unpack(Packing::Words, bytes, 24).unwrap_err();
        assert!(refusal(b"1 2 3 4").contains("more than the 3 numbers"));
        assert!(refusal(b"1     2").contains("lacks 1 numbers of 3"));
        assert!(refusal(b"1 two 3").contains("'two', which is no number"));
        assert!(refusal(&vec![b'x'; 3_000_000]).len() < 300);
    }

    #[test]
    fn a_claim_that_the_file_cannot_back_is_refused_at_once() {
        for packing in [Packing::Gzip, Packing::Zlib, Packing::Words, Packing::Hex] {
            let refusal = unpack(packing, &gzip(&[0; 64]), 1 << 40).unwrap_err();
            assert!(refusal.contains("cannot hold"), "{packing:?}: {refusal}");
        }
    }
}
