use std::fmt;
use std::io;
use std::path::Path;

use super::Key;
use super::files::output_of;
use crate::volume;

/// Why a block-wise run could not begin, ended early, or has an unacceptable result.
#[derive(Debug)]
pub enum Error {
    /// SIGINT (Ctrl-C) or SIGTERM was received; finished blocks are kept.
    Interrupted {
        /// The signal's number.
        signal: i32,
    },
    /// A block failed because of a transient fault, which would affect the other blocks too.
    Block {
        /// The block that failed.
        key: Key,
        /// The cause.
        source: anyhow::Error,
    },
    /// More blocks failed or fell back than `--allow-failed` allows.
    TooManyFailed {
        /// Blocks without a result.
        failed: usize,
        /// Blocks with a fallback result.
        fallback: usize,
        /// The number of blocks that had to be done.
        total: usize,
        /// The maximum fraction of bad blocks, as given by `--allow-failed`.
        allowed: f64,
        /// The first few reasons, each with its block.
        reasons: Vec<String>,
    },
    /// `--finish` found blocks that are not done yet.
    Missing {
        /// Blocks without an entry.
        missing: usize,
        /// Blocks in the plan.
        total: usize,
        /// The number of the first block without an entry.
        first: usize,
    },
    /// The rows that a task wrote for the second pass are missing, truncated or altered.
    Rows {
        /// The block whose task wrote the rows.
        key: Key,
        /// The file, or the folder if the ledger names no file.
        path: String,
        /// The state of the rows, such as `missing` or `altered`.
        found: String,
        /// A description of the rows that the task wrote.
        wanted: String,
    },
    /// An output, or the unfinished work of an earlier run, exists.
    Exists {
        /// The file or folder.
        path: String,
    },
    /// The file at the receipt's path is not a receipt.
    NoReceipt {
        /// The file.
        path: String,
    },
    /// A file was changed after the run that wrote it.
    Changed {
        /// The file.
        path: String,
    },
    /// The output was begun with other parameters or other input.
    OtherPlan {
        /// The folder of the ledger, or the finished output.
        folder: String,
        /// The first difference between the identity with which the output was begun and that of
        /// this run, as by [`super::Identity::difference`].
        difference: [String; 2],
    },
    /// Another run has replaced the output that this run was writing.
    Replaced {
        /// The folder of the output's ledger.
        folder: String,
    },
    /// The output is to be replaced while another run is writing it.
    AtWork {
        /// The folder of that run's ledger.
        folder: String,
    },
    /// The result is not credible and was not written; the text is the reason.
    Rejected(String),
    /// A displacement field of a transform could not be read.
    Field(crate::geom::SourceError),
    /// The system cannot start more threads.
    Threads {
        /// The number of threads that were requested.
        threads: usize,
        /// The system's error.
        source: rayon::ThreadPoolBuildError,
    },
    /// An input volume has changed since it was opened.
    Input(volume::Error),
    /// The value of a flag is not usable.
    Usage(String),
    /// A file-system operation failed.
    Io {
        /// The operation as a verb, such as `read`.
        action: &'static str,
        /// The file or folder.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

/// The kind of an error, if it determines the exit code.
///
/// An [`Error`] of such a kind returns this value as its source. The value is therefore found in
/// the chain of causes even if a transparent wrapper hides the [`Error`]. The message of the value
/// is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// The command line is wrong.
    Usage,
    /// A signal was received.
    Interrupted(i32),
    /// The run completed, but too many blocks failed or fell back, or its result was rejected.
    TooManyFailed,
}

impl fmt::Display for ExitReason {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

impl std::error::Error for ExitReason {}

static USAGE: ExitReason = ExitReason::Usage;
static TOO_MANY_FAILED: ExitReason = ExitReason::TooManyFailed;
/// One value for each signal that [`super::Cancel`] listens to.
static INTERRUPTED: [ExitReason; 2] =
    [ExitReason::Interrupted(libc::SIGINT), ExitReason::Interrupted(libc::SIGTERM)];

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Interrupted { signal } => INTERRUPTED
                .iter()
                .find(|verdict| **verdict == ExitReason::Interrupted(*signal))
                .map(|verdict| verdict as _),
            Self::TooManyFailed { .. } | Self::Rejected(_) => Some(&TOO_MANY_FAILED),
            Self::Usage(_) => Some(&USAGE),
            Self::Block { source, .. } => Some(source.as_ref()),
            Self::Io { source, .. } => Some(source),
            Self::Field(source) => Some(source.as_ref()),
            Self::Threads { source, .. } => Some(source),
            Self::Input(error) => error.source(),
            Self::Missing { .. }
            | Self::Rows { .. }
            | Self::Exists { .. }
            | Self::NoReceipt { .. }
            | Self::Changed { .. }
            | Self::OtherPlan { .. }
            | Self::Replaced { .. }
            | Self::AtWork { .. } => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted { .. } => f.write_str(
                "interrupted; run the same command with --resume (not --overwrite) to go on",
            ),
            Self::Block { key, source } => write!(
                f,
                "{key} failed: {}; run the same command with --resume (not --overwrite) to go on",
                sentence(source.as_ref())
            ),
            Self::TooManyFailed { failed, fallback, total, allowed, reasons } => {
                write!(f, "{failed} of {total} blocks failed and {fallback} fell back (")?;
                f.write_str(&reasons.join("; "))?;
                write!(f, "), more than --allow-failed {allowed} accepts")?;
                if *failed > 0 {
                    f.write_str("; --resume tries the failed ones again")?;
                }
                Ok(())
            }
            Self::Missing { missing, total, first } => write!(
                f,
                "blocks not done yet: {missing} of {total} (the first is number {first}); run their parts, \
                 then --finish again"
            ),
            Self::Rows { key, path, found, wanted } => write!(
                f,
                "{path} should hold what {key} wrote for the second pass ({wanted}), but it is \
                 {found}; delete it if it exists, and run the command of its part, or of the whole, \
                 again with --resume"
            ),
            Self::Exists { path } => write!(
                f,
                "{path} exists already; give --resume to go on with it or \
                 --overwrite to replace it"
            ),
            Self::NoReceipt { path } => write!(
                f,
                "{path} exists and is no receipt of a run; give another --receipt, or --overwrite to \
                 replace it"
            ),
            Self::Changed { path } => write!(
                f,
                "{path} is no longer what the run with these parameters wrote; move it away to have it \
                 made again, or give --overwrite to replace it"
            ),
            Self::OtherPlan { folder, difference: [input, asked] } if asked.is_empty() => write!(
                f,
                "{folder} was begun with other input ({input}); give the same to go on with it or \
                 --overwrite to start anew"
            ),
            Self::OtherPlan { folder, difference: [begun, asked] } => write!(
                f,
                "{folder} was begun with other parameters ({begun}, now {asked}); give the same \
                 ones to go on with it or --overwrite to start anew"
            ),
            Self::AtWork { folder } => write!(
                f,
                "another run is writing {} at this moment; wait until it has ended, or give another \
                 --output",
                output_of(Path::new(folder))
            ),
            Self::Replaced { folder } => write!(
                f,
                "another run has replaced {} (with --overwrite), so that this one ends; give another \
                 --output to keep both results",
                output_of(Path::new(folder))
            ),
            Self::Field(source) => {
                write!(f, "cannot read a displacement field of the transform: {source}")
            }
            Self::Threads { threads, source } => {
                write!(f, "cannot start {threads} threads ({source}); give fewer --threads")
            }
            Self::Usage(message) | Self::Rejected(message) => f.write_str(message),
            Self::Input(error) => error.fmt(f),
            Self::Io { action, path, source } => write!(f, "cannot {action} {path}: {source}"),
        }
    }
}

impl Error {
    pub(super) fn io(
        action: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::Io { action, path, source }
    }
}

/// Whether an error is transient, so that the same command may succeed later: it was caused by full
/// or failing storage, by the network, or by a shortage of memory, and not by the data.
pub fn is_passing(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(is_passing_io)
}

fn is_passing_io(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    let by_kind = matches!(
        error.kind(),
        Kind::StorageFull
            | Kind::QuotaExceeded
            | Kind::StaleNetworkFileHandle
            | Kind::TimedOut
            | Kind::WouldBlock
            | Kind::OutOfMemory
            | Kind::ResourceBusy
            | Kind::Interrupted
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::ConnectionRefused
            | Kind::NotConnected
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
    );
    // error numbers of POSIX and Linux for which std has no `ErrorKind`
    let by_number = match error.raw_os_error() {
        Some(libc::EIO | libc::ENOLCK | libc::ENFILE | libc::ENOTCONN) => true,
        #[cfg(target_os = "linux")]
        Some(libc::EREMOTEIO) => true,
        _ => false,
    };
    let inner = error.get_ref().is_some_and(|inner| is_passing(inner));
    by_kind || by_number || inner
}

/// Maximum length of a sentence, in bytes. The texts that a sentence quotes may have any length.
const MAX_SENTENCE: usize = 1200;

/// An error and its causes in one line. A cause is omitted if the text already contains it, because
/// many errors end with the text of their cause. Long text is shortened in the middle.
pub fn sentence(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    for cause in std::iter::successors(Some(error), |error| error.source()) {
        let cause_text = cause.to_string();
        let cause_text = super::shorten(&cause_text, MAX_SENTENCE).replace('\n', " ");
        if !text.contains(cause_text.trim()) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(cause_text.trim());
        }
    }
    super::shorten(&text, MAX_SENTENCE).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error(transparent)]
        Blocks(#[from] Error),
    }

    #[test]
    fn a_full_disk_passes_and_a_missing_file_does_not() {
        for (number, passes) in [
            (libc::ENOSPC, true),
            (libc::EDQUOT, true),
            (libc::EIO, true),
            (libc::ESTALE, true),
            (libc::ETIMEDOUT, true),
            (libc::EAGAIN, true),
            (libc::ENOMEM, true),
            (libc::ENOENT, false),
            (libc::EACCES, false),
            (libc::EROFS, false),
        ] {
            let error =
                anyhow::Error::from(io::Error::from_raw_os_error(number)).context("writing");
            assert_eq!(is_passing(error.as_ref()), passes, "errno {number}");
        }
    }

    #[test]
    fn an_io_error_inside_an_io_error_is_found() {
        let inner = io::Error::from_raw_os_error(libc::ENOSPC);
        assert!(is_passing(&io::Error::other(inner)));
        assert!(!is_passing(&io::Error::other("damaged")));
    }

    #[test]
    fn a_sentence_says_each_cause_once() {
        let source = io::Error::other("disk on fire");
        let error = Error::Io { action: "read", path: "a".into(), source };
        let error = anyhow::Error::from(error).context("reading --mask");
        assert_eq!(sentence(error.as_ref()), "reading --mask: cannot read a: disk on fire");
    }

    #[test]
    fn a_transparent_wrapper_does_not_hide_the_verdict() {
        for (error, verdict) in [
            (Error::Usage("no".into()), ExitReason::Usage),
            (Error::Interrupted { signal: 15 }, ExitReason::Interrupted(15)),
        ] {
            let wrapped = anyhow::Error::from(Outer::from(error)).context("aligning");
            assert!(wrapped.chain().any(|e| e.downcast_ref::<ExitReason>() == Some(&verdict)));
        }
    }
}
