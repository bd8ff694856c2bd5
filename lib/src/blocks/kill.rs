//! Moments at which tests let a run die.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The environment variable that says where a run dies: `<moment>` or `<moment>:<n>`, the n-th time
/// that the moment comes (see `CONTRIBUTING.md`).
const VARIABLE: &str = "VOXLOOM_TEST_KILL";

/// A moment in the life of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// A task is written and not yet in the ledger.
    Unentered,
    /// A task is in the ledger.
    After,
    /// The last task of a plan is done, and what follows has not begun.
    Plan,
    /// All results are written, and the receipt is not.
    Receipt,
    /// The receipt is written, and what is no longer needed is still there.
    Cleanup,
}

impl Moment {
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

fn asked() -> Option<&'static (String, usize)> {
    static ASKED: OnceLock<Option<(String, usize)>> = OnceLock::new();
    ASKED.get_or_init(|| parse(&std::env::var(VARIABLE).ok()?)).as_ref()
}

/// Whether a test asked for a kill at this moment: what comes before it is then not held back.
pub(super) fn may_come(moment: Moment) -> bool {
    asked().is_some_and(|(name, _)| name == moment.name())
}

/// Ends the process as a kill would, without any clean-up, where a test asked for it at this moment.
pub(crate) fn may_die(moment: Moment) {
    static COUNTS: Mutex<BTreeMap<Moment, usize>> = Mutex::new(BTreeMap::new());
    let Some((name, number)) = asked().filter(|(name, _)| name == moment.name()) else {
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
