//! Documents, tables and other texts that are read or written as a whole: at a location, on
//! standard input and output (`-`), or from a pipe.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::{ReadRange, get, put, read as read_bytes, stat_file};
use crate::files::{is_pipe, is_stream, read_pipe, write_out};

fn missing() -> io::Error {
    io::Error::from_raw_os_error(libc::ENOENT)
}

/// All bytes of a document. The bytes of a pipe are cached, because they can be read only once.
///
/// # Errors
/// As [`super::read`]; [`io::ErrorKind::NotFound`] if there is no document; an error if a pipe
/// contains more than 2 GiB.
pub fn read(at: impl AsRef<Path>) -> io::Result<Arc<[u8]>> {
    if is_pipe(&at) {
        return read_pipe(at.as_ref());
    }
    Ok(get(at.as_ref())?.ok_or_else(missing)?.into())
}

/// The first bytes of a document, at most `most`.
///
/// # Errors
/// As [`read`].
pub fn read_start(at: impl AsRef<Path>, most: usize) -> io::Result<Vec<u8>> {
    if is_pipe(&at) {
        let bytes = read_pipe(at.as_ref())?;
        return Ok(bytes[..bytes.len().min(most)].to_vec());
    }
    let mut start = Vec::new();
    let wanted = ReadRange::Range { start: 0, length: most };
    let size = read_bytes(at.as_ref(), wanted, &mut start)?.ok_or_else(missing)?;
    if size < most as u64 {
        read_bytes(at.as_ref(), ReadRange::Whole(most as u64), &mut start)?;
    }
    Ok(start)
}

/// All of a document as text, which must be UTF-8.
///
/// # Errors
/// As [`read`], and [`io::ErrorKind::InvalidData`] if the bytes are not valid UTF-8.
pub fn read_text(at: impl AsRef<Path>) -> io::Result<String> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
    if is_pipe(&at) {
        let bytes = read_pipe(at.as_ref())?;
        return std::str::from_utf8(&bytes).map(str::to_owned).map_err(invalid);
    }
    let bytes = get(at.as_ref())?.ok_or_else(missing)?;
    String::from_utf8(bytes).map_err(|e| invalid(e.utf8_error()))
}

/// The length of a document in bytes.
///
/// # Errors
/// As [`read`].
pub fn length(at: impl AsRef<Path>) -> io::Result<u64> {
    if is_pipe(&at) {
        return Ok(read_pipe(at.as_ref())?.len() as u64);
    }
    Ok(stat_file(at.as_ref())?.ok_or_else(missing)?.length)
}

/// Writes a document atomically and durably; `-` is standard output.
///
/// # Errors
/// As [`super::put`].
pub fn write_whole(at: &Path, bytes: &[u8]) -> io::Result<()> {
    if is_stream(at) { write_out(bytes) } else { put(at, bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_and_written_the_same_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        for root in [folder.path(), Path::new("memory://documents")] {
            let at = root.join("deep/a.csv");
            assert_eq!(read(&at).unwrap_err().kind(), io::ErrorKind::NotFound);
            assert_eq!(length(&at).unwrap_err().kind(), io::ErrorKind::NotFound);
            write_whole(&at, b"z,y,x\n1,2,3\n").unwrap();
            assert_eq!((&*read(&at).unwrap(), length(&at).unwrap()), (&b"z,y,x\n1,2,3\n"[..], 12));
            assert_eq!(read_text(&at).unwrap(), "z,y,x\n1,2,3\n");
            assert_eq!(read_start(&at, 3).unwrap(), b"z,y");
            assert_eq!(read_start(&at, 4096).unwrap(), b"z,y,x\n1,2,3\n");
            write_whole(&at, b"\xff").unwrap();
            assert_eq!(read_text(&at).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
