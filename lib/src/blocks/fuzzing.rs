//! Functions with which fuzzers read damaged ledgers.

use std::fs;
use std::path::Path;

use super::{Context, Identity, Plan, TaskResults, TaskRows, ledger};
use crate::geom::Box3;

/// The name of the file that stores the rows of all tasks.
const ROWS: &str = "rows-x";

/// The plan to which the ledgers of the fuzzer belong.
fn plan() -> Plan {
    let identity = Identity::of("fuzz").with("radius", 1);
    Plan::tile(Box3::of_shape([4, 1, 1]), [1; 3], 1_u64, &identity)
}

/// A valid ledger of the plan, as a seed for the fuzzer.
///
/// # Errors
/// The message of [`super::Error`].
pub fn seed(folder: &Path) -> Result<Vec<u8>, String> {
    let plan = plan();
    let rows = TaskRows::new(folder).write(b"rows").map_err(|error| error.to_string())?;
    let results = [
        super::TaskResult::from(super::Outcome::Done),
        super::TaskResult { rows: Some(rows), ..super::Outcome::Done.into() },
        super::Outcome::Fallback("no match".into()).into(),
    ];
    let ledger = ledger::Ledger::create(folder, &plan, &Context::default())
        .map_err(|error| error.to_string())?;
    for (task, end) in results.into_iter().enumerate() {
        ledger.enter(task, &ledger::LedgerEntry::Ended(end)).map_err(|error| error.to_string())?;
    }
    ledger
        .enter(3, &ledger::LedgerEntry::Failed("a chunk is damaged".into()))
        .map_err(|error| error.to_string())?;
    ledger.sync_pending().map_err(|error| error.to_string())?;
    let path = ledger::files(folder, "ledger-").map_err(|error| error.to_string())?.remove(0);
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let rows = ledger::files(folder, "rows-").map_err(|error| error.to_string())?.remove(0);
    let rows = rows.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(text.replace(&rows, ROWS).into_bytes())
}

/// Reads `bytes` as a ledger of the plan, and the rows that the ledger refers to.
///
/// # Errors
/// The message of [`super::Error`].
pub fn ledger(folder: &Path, bytes: &[u8]) -> Result<(), String> {
    let plan = plan();
    for (name, bytes) in [("ledger-0-1of1-x.jsonl", bytes), (ROWS, b"rows")] {
        fs::write(folder.join(name), bytes).map_err(|error| error.to_string())?;
    }
    let entries = ledger::load(folder, &plan).map_err(|error| error.to_string())?;
    let results = TaskResults::new(folder, entries);
    let rows = TaskRows::new(folder);
    plan.tasks()
        .iter()
        .try_for_each(|task| rows.read(&task, &results).map(drop))
        .map_err(|error| error.to_string())
}
