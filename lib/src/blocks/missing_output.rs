//! Finds tasks whose output files were removed after the tasks were done.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::entries::Entries;
use super::{Plan, Task};
use crate::store;

/// A function that returns all files that can hold the result of a task.
pub(super) type Files<'a> = dyn Fn(&Task) -> Vec<PathBuf> + Sync + 'a;

/// Number of tasks whose files are looked up together; the file names take about a megabyte.
const BATCH: usize = 8192;

impl Plan {
    /// Removes from `known` those of `tasks` that have fewer output files than were written, so
    /// that they are done again. A file that cannot be examined counts as existing.
    pub(super) fn remove_missing(&self, tasks: &[usize], known: &mut Entries, files: &Files<'_>) {
        let mut lost = Vec::new();
        for some in tasks.chunks(BATCH) {
            let written = |task: &usize| {
                let count = known.files(*task).filter(|count| *count > 0)?;
                Some((*task, count, files(&self.tasks().get(*task))))
            };
            let wanted: Vec<(usize, u64, Vec<PathBuf>)> =
                some.par_iter().filter_map(written).collect();
            let paths: Vec<&Path> =
                wanted.iter().flat_map(|(_, _, paths)| paths).map(PathBuf::as_path).collect();
            let mut there = store::present(&paths).into_iter();
            for (task, count, paths) in &wanted {
                let there = there.by_ref().take(paths.len());
                let there = there.filter(|there| *there != Some(false)).count();
                if (there as u64) < *count {
                    lost.push(*task);
                }
            }
        }
        if let Some(first) = lost.first() {
            tracing::warn!(
                "chunks of {} blocks are gone, of block {first} first: these blocks are not done",
                lost.len()
            );
        }
        for task in lost {
            known.remove(task);
        }
    }
}
