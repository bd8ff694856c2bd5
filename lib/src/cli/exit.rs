//! How a program ends: the one place that knows exit codes.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::blocks::{Verdict, is_passing, sentence};

/// Trying again will not help.
const FAILED: u8 = 1;
/// The command line is wrong.
const USAGE: u8 = 2;
/// Done, but too many blocks failed or fell back.
const TOO_MANY_FAILED: u8 = 3;
/// A passing fault: `EX_TEMPFAIL` of sysexits(3).
const PASSING: u8 = 75;

/// Whoever read our stdout has gone: they have what they wanted.
#[derive(Debug, thiserror::Error)]
#[error("stdout was closed")]
struct StdoutClosed;

/// Writes data to stdout.
///
/// # Errors
/// Stdout cannot be written; that its reader is gone ends the program quietly.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
        Err(e) => Err(anyhow::Error::from(e).context("cannot write to stdout")),
        Ok(()) => Ok(()),
    }
}

/// The exit code that an error stands for.
pub(super) fn code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if let Some(verdict) = cause.downcast_ref::<Verdict>() {
            return match verdict {
                Verdict::Usage => USAGE,
                Verdict::TooManyFailed => TOO_MANY_FAILED,
                Verdict::Interrupted(signal) => 128_u8.wrapping_add(*signal as u8),
            };
        }
        if cause.is::<StdoutClosed>() {
            return 0;
        }
    }
    if is_passing(error.as_ref()) { PASSING } else { FAILED }
}

/// Says on stderr what went wrong, in one sentence, and ends with its code.
pub(super) fn fail(program: &str, error: &anyhow::Error, json: bool) -> ExitCode {
    let code = code(error);
    if code != 0 {
        let said = sentence(error.as_ref());
        if json {
            tracing::error!(program, exit_code = code, "{said}");
        } else {
            // where stderr cannot be written there is nobody to tell
            let _ = writeln!(io::stderr(), "{program}: error: {said}");
        }
    }
    ExitCode::from(code)
}

/// Shows what clap has to say: help and version on stdout, the rest on stderr.
pub(super) fn clap(error: &clap::Error) -> ExitCode {
    // a closed stdout or stderr changes nothing
    let _ = error.print();
    ExitCode::from(error.exit_code() as u8)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::blocks::Error;

    #[test]
    fn each_kind_of_error_has_its_code() {
        let io = |number| io::Error::from_raw_os_error(number);
        let block = |source| Error::Block { index: [0; 3], source };
        let cases: [(anyhow::Error, u8); 8] = [
            (anyhow::anyhow!("singular"), 1),
            (Error::Usage("--a without --b".into()).into(), 2),
            (Error::Interrupted { signal: 2 }.into(), 130),
            (Error::Interrupted { signal: 15 }.into(), 143),
            (io(libc::ENOSPC).into(), 75),
            (block(io(libc::EIO).into()).into(), 75),
            (io(libc::EACCES).into(), 1),
            (StdoutClosed.into(), 0),
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
