//! What the ledger keeps of a task: how it ended, and what it leaves for a reduction over all tasks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::ledger::Entry;
use super::rows::Stored;
use super::{Error, Outcome, Task};

/// How a task ended and what it leaves in the ledger.
///
/// Whatever a receipt or an attribute says of the whole output must be reduced from the summaries in
/// [`Ends`], never from variables of this process: other parts and earlier runs did tasks too.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    /// How the task ended.
    pub outcome: Outcome,
    pub(super) summary: Option<Value>,
    pub(super) rows: Option<Stored>,
    /// How many files of an output hold the result.
    pub(super) files: Option<u64>,
}

impl From<Outcome> for Ending {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, summary: None, rows: None, files: None }
    }
}

impl Ending {
    /// With a summary of the task's result: numbers, extremes, tallies, a small head.
    ///
    /// # Errors
    /// A value that JSON cannot hold, such as a map whose keys are no text.
    pub fn with_summary(mut self, summary: &impl Serialize) -> serde_json::Result<Self> {
        self.summary = Some(serde_json::to_value(summary)?);
        Ok(self)
    }

    /// With the length and the hash of the rows that the task wrote, which [`super::Rows`] returned.
    #[must_use]
    pub fn with_rows(mut self, stored: Stored) -> Self {
        self.rows = Some(stored);
        self
    }
}

/// How the tasks of a plan have ended: in this run, in earlier ones and in other parts.
#[derive(Debug, Default)]
pub struct Ends {
    pub(super) folder: PathBuf,
    pub(super) entries: BTreeMap<usize, Entry>,
}

impl Ends {
    pub(super) fn new(folder: &Path, entries: BTreeMap<usize, Entry>) -> Self {
        Self { folder: folder.to_path_buf(), entries }
    }

    /// How a task ended; `None` where it is not done yet.
    pub fn entry(&self, task: &Task) -> Option<&Entry> {
        self.entries.get(&task.id)
    }

    /// The summaries that tasks left, each with the number of its task, in the order of the plan: sums
    /// over them do not depend on threads, parts or interruptions.
    ///
    /// # Errors
    /// [`Error::Io`] for a summary of another form.
    pub fn summaries<T: DeserializeOwned>(
        &self,
    ) -> impl Iterator<Item = Result<(usize, T), Error>> {
        self.entries.iter().filter_map(|(&task, entry)| match entry {
            Entry::Ended(Ending { summary: Some(summary), .. }) => {
                let summary = T::deserialize(summary);
                let read =
                    |e: serde_json::Error| Error::io("read the ledger in", &self.folder)(e.into());
                Some(summary.map(|summary| (task, summary)).map_err(read))
            }
            _ => None,
        })
    }
}
