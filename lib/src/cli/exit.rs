//! Ends a program: the only module that maps errors to exit codes.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use crate::blocks::{
    ExitReason, flush_stderr, is_passing, remove_folder_of_stream, sentence, shorten, write_stderr,
};
use crate::files;

/// Exit code of a failure that a retry will not fix.
const FAILED: u8 = 1;
/// Exit code of a wrong command line.
const USAGE: u8 = 2;
/// Exit code of a run that completed, but in which too many blocks failed or fell back, or whose
/// result was rejected.
const TOO_MANY_FAILED: u8 = 3;
/// Exit code of a transient fault: `EX_TEMPFAIL` of sysexits(3).
const TEMPORARY_FAILURE: u8 = 75;

/// Maximum time that a program waits for its queued output on stderr to be written, at its end and
/// before it writes to stdout.
const STDERR_TIMEOUT: Duration = Duration::from_secs(2);
/// Maximum length of a line of a usage error, in bytes.
const MAX_LINE: usize = 1200;

/// Writes text to stdout, after the queued output on stderr.
///
/// # Errors
/// If stdout cannot be written. If the reader of stdout has closed it, the error leads to exit code
/// 0 and no message.
pub fn print(text: &str) -> anyhow::Result<()> {
    // on a terminal, stderr and stdout then appear in the order in which they were written
    flush_stderr(STDERR_TIMEOUT);
    files::write_out(text.as_bytes())
        .map_err(|e| anyhow::Error::from(e).context("cannot write to stdout"))
}

/// The exit code of an error.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(verdict) = cause.downcast_ref::<ExitReason>() {
            return match verdict {
                ExitReason::Usage => USAGE,
                ExitReason::TooManyFailed => TOO_MANY_FAILED,
                ExitReason::Interrupted(signal) => 128_u8.wrapping_add(*signal as u8),
            };
        }
    }
    if files::is_reader_gone(error.as_ref()) {
        return 0;
    }
    if is_passing(error.as_ref()) { TEMPORARY_FAILURE } else { FAILED }
}

/// Reports an error on stderr in one sentence, and returns its exit code.
pub(super) fn fail(program: &str, error: &anyhow::Error, json: bool) -> ExitCode {
    let code = code(error);
    if code != 0 {
        let message = sentence(error.as_ref());
        if json {
            tracing::error!(program, exit_code = code, "{message}");
        } else {
            write_stderr(&format!("{program}: error: {message}\n"));
        }
    }
    end(code)
}

/// Removes the temporary folder of this process, waits until stderr is written or a timeout ends,
/// and returns the exit code.
pub(super) fn end(code: u8) -> ExitCode {
    remove_folder_of_stream();
    flush_stderr(STDERR_TIMEOUT);
    ExitCode::from(code)
}

/// Prints clap's output: help and version on stdout, errors on stderr.
pub(super) fn clap(program: &str, error: &clap::Error) -> ExitCode {
    let code = error.exit_code() as u8;
    if code == 0 {
        return match error.print() {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                fail(program, &anyhow::Error::from(e).context("cannot write to stdout"), false)
            }
            _ => ExitCode::SUCCESS,
        };
    }
    let message = error.render().to_string();
    if io::stderr().is_terminal() && message.lines().all(|line| line.len() <= MAX_LINE) {
        // clap prints in colour here; an error because the terminal is closed is ignored
        let _ = error.print();
        return ExitCode::from(code);
    }
    let short: Vec<_> = message.lines().map(|line| shorten(line, MAX_LINE)).collect();
    write_stderr(&format!("{}\n", short.join("\n")));
    end(code)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::blocks::{Error, Key};

    #[test]
    fn each_kind_of_error_has_its_code() {
        let io = |number| io::Error::from_raw_os_error(number);
        let block = |source| Error::Block { key: Key::default(), source };
        let cases: [(anyhow::Error, u8); 8] = [
            (anyhow::anyhow!("singular"), 1),
            (Error::Usage("--a without --b".into()).into(), 2),
            (Error::Interrupted { signal: 2 }.into(), 130),
            (Error::Interrupted { signal: 15 }.into(), 143),
            (io(libc::ENOSPC).into(), 75),
            (block(io(libc::EIO).into()).into(), 75),
            (io(libc::EACCES).into(), 1),
            (io::Error::new(io::ErrorKind::BrokenPipe, files::ReaderGone).into(), 0),
        ];
        for (error, wanted) in cases {
            let text = format!("{error:#}");
            assert_eq!(code(&error.context("while aligning")), wanted, "{text}");
        }
        let many = Error::TooManyFailed {
            failed: 1,
            fallback: 0,
            total: 2,
            allowed: 0.0,
            reasons: vec!["damaged".into()],
        };
        assert_eq!(code(&Err::<(), _>(many).context("streaming").unwrap_err()), 3);
    }
}
