//! Claims on outputs: a run claims the folder of its ledger with its identity before it writes
//! anything.
//!
//! The claim file is created atomically ([`store::put_if_absent`]), so that if two different runs
//! start at the same moment, one is refused. Equal runs share one claim.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{Error, Identity};
use crate::store::{self, Stat};

/// The name of the claim file.
pub(super) const NAME: &str = store::CLAIM;

/// Maximum number of attempts to read a claim that another process writes or removes meanwhile.
/// [`READ_INTERVAL`] is the pause after an attempt that found an incomplete file.
const MAX_READS: usize = 50;
const READ_INTERVAL: Duration = Duration::from_millis(20);

/// The claim of this run on a folder.
#[derive(Debug)]
pub(super) struct Claim {
    folder: PathBuf,
    run: Identity,
    /// Inode (or entity tag), time and length of the file when it was last read. As long as they
    /// are unchanged, so is the content. The time is needed because inode numbers are reused.
    seen: Mutex<Option<Stat>>,
}

impl Claim {
    /// Claims `folder`, which is created if absent, for this run, or shares the claim of an equal
    /// run.
    ///
    /// # Errors
    /// [`Error::OtherPlan`] if a different run has claimed the folder; [`Error::Io`].
    pub(super) fn take(folder: &Path, run: Identity) -> Result<Self, Error> {
        let claim = Self { folder: folder.to_path_buf(), run, seen: Mutex::default() };
        claim.verify()?;
        Ok(claim)
    }

    /// The identity of the run that has claimed `folder`, if any has.
    pub(super) fn owner(folder: &Path) -> Option<Identity> {
        let text = store::get(&folder.join(NAME)).ok()??;
        Identity::from_json(&serde_json::from_slice(&text).ok()?)
    }

    /// Replaces any claim on `folder` with that of `run`, before the output is removed. A run that
    /// holds the old claim then ends, and does not write into the new output.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn replace_claim(folder: &Path, run: Identity) -> Result<(), Error> {
        let claim = Self { folder: folder.to_path_buf(), run, seen: Mutex::default() };
        let path = folder.join(NAME);
        store::put(&path, &claim.text()).map_err(Error::io("write", &path))
    }

    /// Checks that the claim is still valid: a run with `--overwrite` may have replaced the output.
    ///
    /// # Errors
    /// As [`Claim::take`]; [`Error::Replaced`] if the claim was valid before.
    pub(super) fn verify(&self) -> Result<(), Error> {
        let path = self.folder.join(NAME);
        let read = |source| Error::io("read", &path)(source);
        // the lock is not held during requests, so that threads do not wait for each other
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = || Error::Replaced { folder: self.folder.display().to_string() };
        let is_remote = store::is_remote(&self.folder);
        for _ in 0..MAX_READS {
            let there = store::stat_file(&path).map_err(read)?;
            if there.is_some() && *seen() == there {
                return Ok(());
            }
            let Some(text) = store::get(&path).map_err(read)? else {
                if is_remote && seen().is_some() {
                    return Err(replaced());
                }
                // a run with --overwrite may have removed the folder: the next attempt creates it
                // again
                match store::put_if_absent(&path, &self.text()) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        return Err(Error::io("write", &path)(error));
                    }
                    _ => continue,
                }
            };
            match serde_json::from_slice::<Value>(&text) {
                Ok(value) => {
                    self.compare(&value)
                        .map_err(|e| if seen().is_some() { replaced() } else { e })?;
                    *seen() = there;
                    return Ok(());
                }
                // on a file system without hard links, another process may still be writing the
                // file
                Err(_) => std::thread::sleep(READ_INTERVAL),
            }
        }
        let source = std::io::Error::other("it was replaced again and again, or is damaged");
        Err(Error::io("read", &path)(source))
    }

    /// The content of the claim file.
    fn text(&self) -> Vec<u8> {
        let mut text = self.run.to_json().to_string().into_bytes();
        text.push(b'\n');
        text
    }

    fn compare(&self, found: &Value) -> Result<(), Error> {
        let difference = match Identity::from_json(found) {
            Some(other) if other == self.run => return Ok(()),
            Some(other) => other.difference(&self.run),
            None => ["by another release".to_owned(), "by this one".to_owned()],
        };
        Err(Error::OtherPlan { folder: self.folder.display().to_string(), difference })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn run(what: usize) -> Identity {
        Identity::of("test").with("what", what)
    }

    #[test]
    fn of_many_different_runs_at_once_one_is_let_in() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let barrier = std::sync::Barrier::new(8);
            let taken: Vec<bool> = std::thread::scope(|scope| {
                let run = |i: usize| {
                    let (barrier, folder) = (&barrier, folder.path().join("deep"));
                    scope.spawn(move || {
                        barrier.wait();
                        Claim::take(&folder, run(i)).is_ok()
                    })
                };
                let threads: Vec<_> = (0..8).map(run).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
        }
    }

    #[test]
    fn in_a_bucket_one_of_many_different_runs_is_let_in() {
        let folder = Path::new("memory://claims/out.zarr/.voxloom");
        let taken: Vec<bool> = std::thread::scope(|scope| {
            let claim = |i| scope.spawn(move || Claim::take(folder, run(i)).is_ok());
            let threads: Vec<_> = (0..8).map(claim).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
        let winner = taken.iter().position(|taken| *taken).unwrap();
        let claim = Claim::take(folder, run(winner)).unwrap();
        // a run with --overwrite removes the claim and makes its own
        store::delete_folder(folder).unwrap();
        Claim::take(folder, run(winner + 1)).unwrap();
        assert!(matches!(claim.verify(), Err(Error::Replaced { .. })));
        // a claim that another run is just replacing is not taken again either
        let claim = Claim::take(folder, run(winner + 1)).unwrap();
        store::delete(&folder.join(NAME)).unwrap();
        assert!(matches!(claim.verify(), Err(Error::Replaced { .. })));
        Claim::replace_claim(folder, run(winner)).unwrap();
        Claim::take(folder, run(winner)).unwrap();
    }

    #[test]
    fn equal_runs_share_a_claim_and_another_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let one = Claim::take(folder.path(), run(1)).unwrap();
        let same = Claim::take(folder.path(), run(1)).unwrap();
        one.verify().and_then(|()| same.verify()).unwrap();
        let message = Claim::take(folder.path(), run(2)).unwrap_err().to_string();
        assert!(message.contains("what 1") && message.contains("what 2"), "{message}");
    }

    #[test]
    fn a_claim_that_another_run_replaced_no_longer_holds() {
        let folder = tempfile::tempdir().unwrap();
        let one = Claim::take(folder.path(), run(1)).unwrap();
        fs::remove_file(folder.path().join(NAME)).unwrap();
        Claim::take(folder.path(), run(2)).unwrap();
        assert!(matches!(one.verify(), Err(Error::Replaced { .. })));
        // a claim that was removed is taken again
        fs::remove_file(folder.path().join(NAME)).unwrap();
        one.verify().unwrap();
    }
}
