//! The result of a task as the ledger stores it: its outcome, and its contribution to reductions
//! over all tasks.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::entries::Entries;
use super::rows::StoredRows;
use super::{Error, Outcome};

/// The outcome of a task and what the ledger stores with it.
///
/// Values in a receipt or an attribute that describe the whole output must be reduced from the
/// summaries in [`TaskResults`]. Variables of this process do not suffice, because other parts and
/// earlier runs may have done some of the tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskResult {
    /// How the task ended.
    pub outcome: Outcome,
    pub(super) summary: Option<Value>,
    pub(super) rows: Option<StoredRows>,
    /// The number of files of the output that hold the result, if known.
    pub(super) files: Option<u64>,
}

impl From<Outcome> for TaskResult {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, summary: None, rows: None, files: None }
    }
}

impl TaskResult {
    /// Adds a summary of the task's result: numbers, extremes, counts, or the first few items.
    ///
    /// # Errors
    /// If JSON cannot represent the value, such as a map whose keys are not strings.
    pub fn with_summary(mut self, summary: &impl Serialize) -> serde_json::Result<Self> {
        self.summary = Some(serde_json::to_value(summary)?);
        Ok(self)
    }

    /// Adds the location, length and hash of the rows that the task wrote, as returned by
    /// [`super::TaskRows::write`].
    #[must_use]
    pub fn with_rows(mut self, stored: StoredRows) -> Self {
        self.rows = Some(stored);
        self
    }
}

/// The results of the tasks of a plan, including those of earlier runs and of other parts.
#[derive(Debug, Default)]
pub struct TaskResults {
    pub(super) folder: PathBuf,
    pub(super) entries: Entries,
}

impl TaskResults {
    pub(super) fn new(folder: &Path, entries: Entries) -> Self {
        Self { folder: folder.to_path_buf(), entries }
    }

    /// Whether at least one task has an entry, and all tasks with an entry have this outcome.
    pub fn are_all(&self, outcome: &Outcome) -> bool {
        !self.entries.is_empty() && self.entries.outcomes().all(|ended| ended == Ok(outcome))
    }

    /// The summaries of the tasks, each with the number of its task, in plan order. Because of this
    /// order, sums over them do not depend on threads, parts or interruptions.
    ///
    /// # Errors
    /// [`Error::Io`] if a summary does not deserialize to `T`.
    pub fn summaries<T: DeserializeOwned>(
        &self,
    ) -> impl Iterator<Item = Result<(usize, T), Error>> {
        self.entries.summaries().map(|(task, summary)| {
            let unread =
                |e: serde_json::Error| Error::io("read the ledger in", &self.folder)(e.into());
            Ok((task, T::deserialize(summary).map_err(unread)?))
        })
    }
}
