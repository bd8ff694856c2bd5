//! The attribute that marks incomplete outputs, which are not read by default.
//!
//! An array carries the attribute `voxloom_unfinished` from its creation until all its blocks are
//! written. A single-file volume (TIFF, `.npy`) gets its final name when it is complete. If some of
//! its blocks failed, the attribute is in `attributes.json` in the folder next to the file, and the
//! file gets its final name only if the run accepts that many failures.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value, json};

use super::{Error, Existing, node, planes};
use crate::geom::Box3;

/// The name of the attribute that marks an unfinished array or file.
pub(super) const UNFINISHED_ATTRIBUTE: &str = "voxloom_unfinished";

static IS_ALLOWED: AtomicBool = AtomicBool::new(false);

/// Allows unfinished volumes to be read, with a warning (`--allow-unfinished`).
pub fn allow_unfinished(allow: bool) {
    IS_ALLOWED.store(allow, Ordering::SeqCst);
}

/// Whether reading unfinished volumes is allowed.
pub(super) fn is_allowed() -> bool {
    IS_ALLOWED.load(Ordering::SeqCst)
}

/// A run that begins an output: it decides what happens to an existing output, and claims the
/// output before the first write.
pub trait Begin {
    /// What to do if the output whose ledger is in `folder` exists. This is [`Existing::Resume`] if
    /// a run with the same identity is working on the output: the two runs then write it together.
    ///
    /// # Errors
    /// [`Error::Claimed`] if the output is to be replaced while a different run is working on it.
    fn existing(&self, folder: &Path) -> Result<Existing, Error>;

    /// Claims the output whose ledger is in `folder` for this run, before any of it is written.
    ///
    /// # Errors
    /// [`Error::Claimed`] if another run has claimed it; [`Error::Io`].
    fn claim(&self, folder: &Path) -> Result<(), Error>;

    /// Replaces the claim on an output that is about to be removed, so that a run that is still
    /// writing it ends.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn replace_claim(&self, folder: &Path) -> Result<(), Error>;
}

/// Begins an output outside a run: the value states how an existing output is treated, and no claim
/// is made.
impl Begin for Existing {
    fn existing(&self, _: &Path) -> Result<Existing, Error> {
        Ok(*self)
    }

    fn claim(&self, _: &Path) -> Result<(), Error> {
        Ok(())
    }

    fn replace_claim(&self, _: &Path) -> Result<(), Error> {
        Ok(())
    }
}

/// An output that is written block by block.
pub trait Unfinished {
    /// The folder of the ledger of its blocks.
    fn ledger_folder(&self) -> PathBuf;

    /// The number of existing files for the chunks of a box. A chunk that is entirely zero may have
    /// no file. 0 for an output that is a single file.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn stored(&self, part: &Box3) -> Result<u64, Error>;

    /// The files for the chunks of a box, which need not exist. Empty if the output is a single
    /// file.
    fn files(&self, part: &Box3) -> Vec<PathBuf>;

    /// Records `lacking`, the number of missing blocks and the total number of blocks, in the
    /// metadata; `None` marks the output as complete. An incomplete single file gets its final name
    /// only if `accepted` is true.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn set_missing_blocks(&self, lacking: Option<[usize; 2]>, accepted: bool) -> Result<(), Error>;
}

/// The value of [`UNFINISHED_ATTRIBUTE`] for a new output.
pub(super) fn begun() -> Value {
    json!({"state": "begun"})
}

/// Sets the attribute [`UNFINISHED_ATTRIBUTE`] to the number of failed blocks and the total number
/// of blocks; removes the attribute if `lacking` is `None`.
pub(super) fn set(attributes: &mut Map<String, Value>, lacking: Option<[usize; 2]>) {
    match lacking {
        Some([failed, blocks]) => {
            let value = json!({"state": "ended", "failed": failed, "blocks": blocks});
            attributes.insert(UNFINISHED_ATTRIBUTE.to_owned(), value);
        }
        None => {
            attributes.shift_remove(UNFINISHED_ATTRIBUTE);
        }
    }
}

/// Why an array or file with these attributes is unfinished; `None` if it is finished.
pub(super) fn unfinished_reason(attributes: &Map<String, Value>) -> Option<String> {
    let mark = attributes.get(UNFINISHED_ATTRIBUTE)?;
    let count = |name: &str| mark.get(name).and_then(Value::as_u64);
    Some(match (count("failed"), count("blocks")) {
        (Some(failed), Some(blocks)) => format!("{failed} of its {blocks} blocks failed"),
        _ => "the run that writes it has not ended".to_owned(),
    })
}

/// Refuses an unfinished volume, or warns if reading it is allowed.
///
/// # Errors
/// [`Error::Format`], which says how to proceed.
pub(super) fn check(location: &str, attributes: &Map<String, Value>) -> Result<(), Error> {
    let Some(why) = unfinished_reason(attributes) else { return Ok(()) };
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

/// The attributes that are stored next to a single file.
pub(super) fn of_file(path: &Path) -> Result<Map<String, Value>, Error> {
    let attributes_file = planes::folder_of(path).join(planes::ATTRIBUTES);
    Ok(node::read_object(&attributes_file)?.unwrap_or_default())
}
