//! Standard input and output, given as `-` in place of a file name, and pipes that are read by
//! name, such as those of the shell's `<(command)`.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of bytes read from a pipe: tables and transforms are held in memory.
const MAX_PIPE_BYTES: u64 = 2 << 30;

/// The reader of standard output has closed it, and needs no more data.
#[derive(Debug, thiserror::Error)]
#[error("whoever read standard output has gone")]
pub struct ReaderGone;

/// Whether a location stands for standard input or output. A file with this name is `./-`.
pub fn is_stream(path: impl AsRef<Path>) -> bool {
    path.as_ref().as_os_str() == "-"
}

/// Whether a location can only be read once, sequentially: `-`, or a named pipe.
pub fn is_pipe(path: impl AsRef<Path>) -> bool {
    is_stream(&path) || std::fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo())
}

/// All bytes of a pipe, which are read once and cached. Other names of standard input are treated
/// as `-`.
///
/// # Errors
/// The system's error, or [`io::ErrorKind::FileTooLarge`] if the pipe has more than 2 GiB.
pub(crate) fn read_pipe(path: &Path) -> io::Result<Arc<[u8]>> {
    const INPUT: [&str; 4] = ["-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];
    static PIPE_CACHE: Mutex<BTreeMap<PathBuf, Arc<[u8]>>> = Mutex::new(BTreeMap::new());
    let path =
        if INPUT.iter().any(|name| path.as_os_str() == *name) { Path::new("-") } else { path };
    let mut read = PIPE_CACHE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = read.get(path) {
        return Ok(Arc::clone(bytes));
    }
    let mut bytes = Vec::new();
    if is_stream(path) {
        io::stdin().lock().take(MAX_PIPE_BYTES + 1).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?.take(MAX_PIPE_BYTES + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_PIPE_BYTES {
        let message = "the pipe has more than 2 GiB; write them to a file and name that";
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let bytes: Arc<[u8]> = bytes.into();
    read.insert(path.to_owned(), Arc::clone(&bytes));
    Ok(bytes)
}

/// Writes data to standard output.
///
/// # Errors
/// The system's error; it contains [`ReaderGone`] if the reader of a pipe has closed it.
pub fn write_out(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => {
            Err(io::Error::new(e.kind(), ReaderGone))
        }
        written => written,
    }
}

/// Whether an error means that the reader of standard output has closed it.
pub fn is_reader_gone(error: &(dyn std::error::Error + 'static)) -> bool {
    let inner = |error: &io::Error| match error.get_ref() {
        Some(inner) => inner.is::<ReaderGone>(),
        None => false,
    };
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.is::<ReaderGone>() || error.downcast_ref().is_some_and(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bare_sign_is_a_stream() {
        assert!(is_stream("-"));
        for file in ["./-", "-.csv", "--", ""] {
            assert!(!is_stream(file), "{file}");
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_found_below_other_errors() {
        let gone = io::Error::new(io::ErrorKind::BrokenPipe, ReaderGone);
        let error = anyhow::Error::from(gone).context("cannot write -");
        assert!(is_reader_gone(error.as_ref()));
        let other = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(!is_reader_gone(other.as_ref()), "a pipe of another kind");
    }
}
