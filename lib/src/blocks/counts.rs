//! The number of blocks by outcome, and the blocks that failed.

use serde::{Deserialize, Serialize};

use super::entries::Entries;
use super::{Error, Key, Outcome, Task};

/// Maximum number of reasons that an error lists.
const SHOWN_REASONS: usize = 3;

/// The number of blocks by outcome.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BlockCounts {
    /// Blocks whose computed result was written.
    pub done: usize,
    /// Blocks whose input contains no data.
    pub empty: usize,
    /// Blocks with a fallback result.
    pub fallback: usize,
    /// Blocks without a result.
    pub failed: Vec<FailedBlock>,
    #[serde(skip)]
    fallback_reasons: Vec<String>,
}

/// A block without a result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FailedBlock {
    /// The name of the block: `index` (z, y, x) in the grid of blocks, or `name`.
    #[serde(flatten)]
    pub key: Key,
    /// The reason why the block failed.
    pub reason: String,
}

impl BlockCounts {
    /// Counts the blocks of `tasks` by their outcome in `entries`.
    pub(super) fn add(&mut self, tasks: impl Iterator<Item = Task>, entries: &Entries) {
        for task in tasks {
            match entries.outcome(task.id) {
                None => {}
                Some(Err(reason)) => {
                    self.failed.push(FailedBlock { key: task.key, reason: reason.to_owned() });
                }
                Some(Ok(Outcome::Done)) => self.done += 1,
                Some(Ok(Outcome::Empty)) => self.empty += 1,
                Some(Ok(Outcome::Fallback(reason))) => {
                    self.fallback += 1;
                    if self.fallback_reasons.len() < SHOWN_REASONS {
                        self.fallback_reasons.push(named(&task.key, reason));
                    }
                }
            }
        }
    }

    /// Adds the counts and the failed blocks of another value.
    pub(super) fn extend(&mut self, other: Self) {
        self.done += other.done;
        self.empty += other.empty;
        self.fallback += other.fallback;
        self.failed.extend(other.failed);
        let room = SHOWN_REASONS.saturating_sub(self.fallback_reasons.len());
        self.fallback_reasons.extend(other.fallback_reasons.into_iter().take(room));
    }

    /// Refuses a run if more than the fraction `allowed` of its blocks are bad. A block is bad if
    /// it failed or, with `with_fallback`, if it has a fallback result.
    pub(super) fn check(&self, allowed: f64, with_fallback: bool) -> Result<(), Error> {
        let failed = self.failed.len();
        let total = self.done + self.empty + self.fallback + failed;
        let bad = failed + if with_fallback { self.fallback } else { 0 };
        if bad as f64 <= allowed * total as f64 {
            return Ok(());
        }
        let failures = self.failed.iter().map(|failure| named(&failure.key, &failure.reason));
        let reasons = failures.chain(self.fallback_reasons.iter().cloned()).take(SHOWN_REASONS);
        Err(Error::TooManyFailed {
            failed,
            fallback: self.fallback,
            total,
            allowed,
            reasons: reasons.collect(),
        })
    }
}

fn named(key: &Key, reason: &str) -> String {
    format!("{key}: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fallback_counts_against_the_verdict_but_leaves_no_gap() {
        let mut tally = BlockCounts { done: 3, fallback: 1, ..BlockCounts::default() };
        assert!(tally.check(0.0, false).is_ok());
        assert!(tally.check(0.0, true).is_err());
        assert!(tally.check(0.25, true).is_ok());
        tally.failed.push(FailedBlock { key: Key::Block([0, 1, 2]), reason: "damaged".into() });
        let message = tally.check(0.25, true).unwrap_err().to_string();
        assert!(
            message.contains("1 of 5") && message.contains("block 0,1,2: damaged"),
            "{message}"
        );
    }
}
