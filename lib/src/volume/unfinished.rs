//! Outputs that are not whole say so, and are not read as if they were.
//!
//! An array carries the attribute `voxloom_unfinished` from its creation until all its blocks are
//! there; a file of planes, which takes its name when it is whole, carries it in `attributes.json` of
//! the folder beside it where blocks of it have failed and that was allowed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use super::{Error, Existing, node, planes};
use crate::geom::Box3;

/// The attribute.
pub(super) const MARK: &str = "voxloom_unfinished";

static ALLOWED: AtomicBool = AtomicBool::new(false);

/// Lets what is unfinished be read, with a warning (`--allow-unfinished`).
pub fn allow_unfinished(allow: bool) {
    ALLOWED.store(allow, Ordering::SeqCst);
}

/// Whether what is unfinished is read.
pub(super) fn is_allowed() -> bool {
    ALLOWED.load(Ordering::SeqCst)
}

/// The run that begins an output: asked between the last check and the first write.
pub trait Begin {
    /// What becomes of an output that is there.
    fn existing(&self) -> Existing;

    /// Whether an equal run is at work on the output whose ledger is in `folder`: it is then shared.
    fn is_shared(&self, folder: &Path) -> bool;

    /// Takes the output whose ledger is in `folder` for this run. Nothing of it was written before.
    ///
    /// # Errors
    /// [`Error::Claimed`] where another run has taken it; [`Error::Io`].
    fn claim(&self, folder: &Path) -> Result<(), Error>;
}

/// Nobody in particular.
impl Begin for Existing {
    fn existing(&self) -> Existing {
        *self
    }

    fn is_shared(&self, _: &Path) -> bool {
        false
    }

    fn claim(&self, _: &Path) -> Result<(), Error> {
        Ok(())
    }
}

/// What is written block by block.
pub trait Unfinished {
    /// Where the ledger of its blocks is.
    fn ledger_folder(&self) -> PathBuf;

    /// How many files hold the chunks of a box, each of which may be in none where all of it is zero; none
    /// for what is one file.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn stored(&self, part: &Box3) -> Result<u64, Error>;

    /// Says in its metadata how many blocks it lacks, and of how many; `None`: it is whole. A file that
    /// lacks some takes its name where that is accepted.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn set_lacking(&self, lacking: Option<[usize; 2]>, accepted: bool) -> Result<(), Error>;
}

/// The value of [`MARK`] for something that has just been made.
pub(super) fn begun() -> Value {
    json!({"state": "begun"})
}

/// Sets or removes the attribute.
pub(super) fn set(attributes: &mut Map<String, Value>, lacking: Option<[usize; 2]>) {
    match lacking {
        Some([failed, blocks]) => {
            let value = json!({"state": "ended", "failed": failed, "blocks": blocks});
            attributes.insert(MARK.to_owned(), value);
        }
        None => {
            attributes.shift_remove(MARK);
        }
    }
}

/// What is said of an array or a file with these attributes, where it is unfinished.
pub(super) fn said(attributes: &Map<String, Value>) -> Option<String> {
    let mark = attributes.get(MARK)?;
    let count = |name: &str| mark.get(name).and_then(Value::as_u64);
    Some(match (count("failed"), count("blocks")) {
        (Some(failed), Some(blocks)) => format!("{failed} of its {blocks} blocks failed"),
        _ => "the run that writes it has not ended".to_owned(),
    })
}

/// Refuses what is unfinished, or warns where that is allowed.
///
/// # Errors
/// [`Error::Format`] with the way out.
pub(super) fn check(location: &str, attributes: &Map<String, Value>) -> Result<(), Error> {
    let Some(why) = said(attributes) else { return Ok(()) };
    if is_allowed() {
        tracing::warn!("{location}: is unfinished: {why}");
        return Ok(());
    }
    let message = format!(
        "is unfinished: {why}; run that command again with --resume (or all its parts, then \
         --finish), or give --allow-unfinished to read it as it is"
    );
    Err(Error::format(location, message))
}

/// The attributes that are kept beside a file.
pub(super) fn of_file(path: &Path) -> Result<Map<String, Value>, Error> {
    let beside = planes::folder_of(path).join(planes::ATTRIBUTES);
    Ok(node::read_object(&beside)?.unwrap_or_default())
}
