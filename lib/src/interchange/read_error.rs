//! The error of the readers of foreign files.

use std::fmt;
use std::io;

use crate::volume;

/// Why a file of another program cannot be read. The message is the predicate of a sentence whose
/// subject is the file, such as "is no NIfTI file".
///
/// If the operating system or the network failed, the error keeps this cause as its source, since
/// the exit code depends on it ([`crate::blocks::is_passing`]).
#[derive(Debug)]
pub(super) struct ReadError {
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl ReadError {
    /// The error of a failed system call on the file.
    pub(super) fn io(source: io::Error) -> Self {
        Self { message: format!("cannot be read: {source}"), source: Some(source.into()) }
    }

    /// The error `source` of the array or group at `location`, which is the subject of the sentence.
    pub(super) fn volume(location: &str, source: volume::Error) -> Self {
        let message = source.to_string();
        let message = message.strip_prefix(&format!("{location}: ")).unwrap_or(&message).to_owned();
        Self { message, source: Some(source.into()) }
    }

    /// An error with the given message and cause.
    pub(super) fn because(
        message: String,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self { message, source: Some(source.into()) }
    }

    /// The same error with its message replaced by `context(message)`.
    pub(super) fn within(self, context: impl FnOnce(&str) -> String) -> Self {
        Self { message: context(&self.message), ..self }
    }

    /// The error for the user, with the file's `location` as the subject.
    pub(super) fn of(self, location: &str) -> super::Error {
        super::Error::Unfit {
            location: location.to_owned(),
            message: self.message,
            source: self.source,
        }
    }
}

impl From<String> for ReadError {
    fn from(message: String) -> Self {
        Self { message, source: None }
    }
}

impl From<&str> for ReadError {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
