//! The ledger entries of all tasks of a plan, in little memory: most have only an outcome.

use serde_json::Value;

use super::ledger::LedgerEntry;
use super::rows::StoredRows;
use super::{Outcome, TaskResult};

/// The ledger entry of each task that has one: its outcome with the summary, rows and number of
/// files, if any, or the reason why it failed.
#[derive(Clone, Debug, Default)]
pub(super) struct Entries {
    slots: Vec<CompactEntry>,
    count: usize,
}

#[derive(Clone, Debug, Default)]
enum CompactEntry {
    #[default]
    Unknown,
    /// Done; the number of output files, if it is known.
    Done(Option<u32>),
    /// Empty; the number of output files, if it is known.
    Empty(Option<u32>),
    Other(Box<LedgerEntry>),
}

impl CompactEntry {
    fn new(entry: LedgerEntry) -> Self {
        let LedgerEntry::Ended(TaskResult { outcome, summary: None, rows: None, files }) = &entry
        else {
            return Self::Other(Box::new(entry));
        };
        let files = match files.map(u32::try_from) {
            None => None,
            Some(Ok(files)) => Some(files),
            Some(Err(_)) => return Self::Other(Box::new(entry)),
        };
        match outcome {
            Outcome::Done => Self::Done(files),
            Outcome::Empty => Self::Empty(files),
            Outcome::Fallback(_) => Self::Other(Box::new(entry)),
        }
    }
}

impl Entries {
    /// Sets the entry of a task.
    pub(super) fn insert(&mut self, task: usize, entry: LedgerEntry) {
        if self.slots.len() <= task {
            self.slots.resize_with(task + 1, CompactEntry::default);
        }
        self.count += usize::from(matches!(self.slots[task], CompactEntry::Unknown));
        self.slots[task] = CompactEntry::new(entry);
    }

    /// Removes the entry of a task, so that the task is done again.
    pub(super) fn remove(&mut self, task: usize) {
        if let Some(slot) = self.slots.get_mut(task)
            && !matches!(slot, CompactEntry::Unknown)
        {
            *slot = CompactEntry::Unknown;
            self.count -= 1;
        }
    }

    /// The number of tasks with an entry.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Whether no task has an entry.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a task has an entry.
    pub(super) fn contains(&self, task: usize) -> bool {
        !matches!(self.slots.get(task), None | Some(CompactEntry::Unknown))
    }

    /// How a task ended, or the reason why it failed; `None` if it has no entry.
    pub(super) fn outcome(&self, task: usize) -> Option<Result<&Outcome, &str>> {
        match self.slots.get(task)? {
            CompactEntry::Unknown => None,
            CompactEntry::Done(_) => Some(Ok(&Outcome::Done)),
            CompactEntry::Empty(_) => Some(Ok(&Outcome::Empty)),
            CompactEntry::Other(entry) => Some(match &**entry {
                LedgerEntry::Ended(result) => Ok(&result.outcome),
                LedgerEntry::Failed(reason) => Err(reason),
            }),
        }
    }

    /// Whether a task has a result, that is, an entry other than a failure.
    pub(super) fn has_ended(&self, task: usize) -> bool {
        matches!(self.outcome(task), Some(Ok(_)))
    }

    /// The outcomes, or the reasons of failure, of all tasks that have an entry, in plan order.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = Result<&Outcome, &str>> {
        (0..self.slots.len()).filter_map(|task| self.outcome(task))
    }

    fn result(&self, task: usize) -> Option<&TaskResult> {
        match self.slots.get(task)? {
            CompactEntry::Other(entry) => match &**entry {
                LedgerEntry::Ended(result) => Some(result),
                LedgerEntry::Failed(_) => None,
            },
            _ => None,
        }
    }

    /// Where the rows of a task are stored; `None` if it wrote no rows.
    pub(super) fn rows(&self, task: usize) -> Option<&StoredRows> {
        self.result(task)?.rows.as_ref()
    }

    /// The number of output files that hold the result of a task, if it is known.
    pub(super) fn files(&self, task: usize) -> Option<u64> {
        match self.slots.get(task)? {
            CompactEntry::Done(files) | CompactEntry::Empty(files) => files.map(u64::from),
            _ => self.result(task)?.files,
        }
    }

    /// The tasks that have a summary, in plan order, each with its summary.
    pub(super) fn summaries(&self) -> impl Iterator<Item = (usize, &Value)> {
        let summary = |task| Some((task, self.result(task)?.summary.as_ref()?));
        (0..self.slots.len()).filter_map(summary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_kept_whatever_they_hold_and_most_in_sixteen_bytes() {
        assert!(size_of::<CompactEntry>() <= 16);
        let ended = |outcome: Outcome, files| TaskResult { files, ..outcome.into() };
        let with_summary = TaskResult::from(Outcome::Done).with_summary(&3).unwrap();
        let all = [
            (2, LedgerEntry::Ended(ended(Outcome::Done, Some(4)))),
            (3, LedgerEntry::Ended(ended(Outcome::Empty, None))),
            (4, LedgerEntry::Ended(ended(Outcome::Done, Some(u64::from(u32::MAX) + 1)))),
            (6, LedgerEntry::Ended(with_summary)),
            (7, LedgerEntry::Failed("damaged".into())),
            (8, LedgerEntry::Ended(Outcome::Fallback("no match".into()).into())),
        ];
        let mut entries = Entries::default();
        assert!(entries.is_empty());
        for (task, entry) in all {
            entries.insert(task, entry);
        }
        assert_eq!(entries.len(), 6);
        let files: Vec<_> = (0..10).map(|task| entries.files(task)).collect();
        assert_eq!(files[2..5], [Some(4), None, Some(u64::from(u32::MAX) + 1)]);
        let ended: Vec<usize> = (0..10).filter(|task| entries.has_ended(*task)).collect();
        assert_eq!(ended, [2, 3, 4, 6, 8]);
        assert_eq!(entries.outcome(7), Some(Err("damaged")));
        assert_eq!(entries.summaries().collect::<Vec<_>>(), [(6, &Value::from(3))]);
        entries.remove(7);
        entries.remove(7);
        assert_eq!((entries.len(), entries.contains(7)), (5, false));
    }
}
