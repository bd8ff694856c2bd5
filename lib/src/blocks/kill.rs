//! Points of a run at which tests can abort it.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The environment variable that selects where a run aborts: `<moment>` or `<moment>:<n>`, for the
/// n-th time that the run reaches this moment (see `CONTRIBUTING.md`).
const VARIABLE: &str = "VOXLOOM_TEST_KILL";

/// A point of a run at which tests can abort it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KillPoint {
    /// The result of a task is written, but its ledger entry is not.
    Unentered,
    /// The ledger entry of a task is written.
    After,
    /// All tasks of a plan that this run does are done, and the next step has not begun.
    Plan,
    /// All results are written, but the receipt is not.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "`cli` writes receipts"))]
    Receipt,
    /// The receipt is written, but files that are no longer needed still exist.
    #[cfg_attr(not(feature = "cli"), expect(dead_code, reason = "`cli` writes receipts"))]
    Cleanup,
}

impl KillPoint {
    fn name(self) -> &'static str {
        match self {
            Self::Unentered => "unentered",
            Self::After => "after",
            Self::Plan => "plan",
            Self::Receipt => "receipt",
            Self::Cleanup => "cleanup",
        }
    }
}

fn selected() -> Option<&'static (String, usize)> {
    static SELECTED: OnceLock<Option<(String, usize)>> = OnceLock::new();
    SELECTED.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?)).as_ref()
}

/// Whether a test asked for an abort at `moment`. For [`KillPoint::After`], the pipeline then
/// writes each ledger line without delay.
pub(super) fn is_selected(moment: KillPoint) -> bool {
    selected().is_some_and(|(name, _)| name == moment.name())
}

/// Aborts the process, without any clean-up, if a test asked for an abort at `moment`.
pub(crate) fn abort_if_selected(moment: KillPoint) {
    static COUNTS: Mutex<BTreeMap<KillPoint, usize>> = Mutex::new(BTreeMap::new());
    let Some((name, number)) = selected().filter(|(name, _)| name == moment.name()) else {
        return;
    };
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let count = counts.entry(moment).or_default();
    *count += 1;
    if *count == *number {
        tracing::warn!("{VARIABLE}={name}:{number}: this run dies now");
        std::process::abort();
    }
}

fn parse(text: &str) -> Option<(String, usize)> {
    let (name, number) = text.split_once(':').unwrap_or((text, "1"));
    Some((name.to_owned(), number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_named_with_or_without_a_number() {
        assert_eq!(parse("after:3"), Some(("after".to_owned(), 3)));
        assert_eq!(parse("receipt"), Some(("receipt".to_owned(), 1)));
        assert_eq!(parse("after:soon"), None);
    }
}
