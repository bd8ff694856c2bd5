//! Whose output it is: a run claims the folder of its ledger with its identity before it writes anything.
//!
//! The claim is a file that appears with its content or not at all (a hard link to a finished file), so that
//! of two different runs that begin at the same moment one is refused. Equal runs share one claim.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::files::unique;
use super::{Error, Identity};

/// The name of the file.
pub(super) const NAME: &str = "claim.json";

/// How often a claim that is being written, or that goes away, is looked at again.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// The claim of this run on a folder.
#[derive(Debug)]
pub(super) struct Claim {
    folder: PathBuf,
    run: Identity,
    /// Device, inode and time of change of the file when it was last read (a number of an inode that was
    /// removed is used again): while they stay, so does the content.
    seen: Mutex<Option<[i64; 4]>>,
}

impl Claim {
    /// Claims `folder`, which is made where it is absent, for this run, or joins an equal one.
    ///
    /// # Errors
    /// [`Error::OtherPlan`] where another run has claimed it; [`Error::Io`].
    pub(super) fn take(folder: &Path, run: Identity) -> Result<Self, Error> {
        let claim = Self { folder: folder.to_path_buf(), run, seen: Mutex::default() };
        claim.hold()?;
        Ok(claim)
    }

    /// Whether `folder` is claimed by such a run.
    pub(super) fn is_of(folder: &Path, run: &Identity) -> bool {
        let text = fs::read(folder.join(NAME)).unwrap_or_default();
        let found = serde_json::from_slice::<Value>(&text).ok();
        found.and_then(|found| Identity::from_json(&found)).as_ref() == Some(run)
    }

    /// Checks that the claim still stands: `--overwrite` elsewhere may have replaced the output.
    ///
    /// # Errors
    /// As [`Claim::take`].
    pub(super) fn hold(&self) -> Result<(), Error> {
        let path = self.folder.join(NAME);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES {
            let file = fs::metadata(&path).map(|about| {
                [about.dev() as i64, about.ino() as i64, about.ctime(), about.ctime_nsec()]
            });
            match file {
                Ok(now) if *seen == Some(now) => return Ok(()),
                Ok(now) => match fs::read(&path) {
                    Ok(text) => match serde_json::from_slice::<Value>(&text) {
                        Ok(value) => {
                            self.compare(&value)?;
                            *seen = Some(now);
                            return Ok(());
                        }
                        // where there are no hard links it may be half written
                        Err(_) => std::thread::sleep(PAUSE),
                    },
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::io("read", &path)(error)),
                },
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    self.write(&path).map_err(Error::io("write", &path))?;
                }
                Err(error) => return Err(Error::io("read", &path)(error)),
            }
        }
        let source = std::io::Error::other("it is damaged, or other runs keep replacing it");
        Err(Error::io("read", &path)(source))
    }

    fn compare(&self, found: &Value) -> Result<(), Error> {
        let difference = match Identity::from_json(found) {
            Some(other) if other == self.run => return Ok(()),
            Some(other) => other.difference(&self.run),
            None => ["by another release".to_owned(), "by this one".to_owned()],
        };
        Err(Error::OtherPlan { folder: self.folder.display().to_string(), difference })
    }

    /// Writes the file where there is none; another's that came first stays.
    fn write(&self, path: &Path) -> std::io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        let mut text = self.run.to_json().to_string().into_bytes();
        text.push(b'\n');
        let temporary = self.folder.join(format!(".claim-{}.tmp", unique()));
        let mut file = fs::File::create_new(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()?;
        let linked = fs::hard_link(&temporary, path);
        let removed = fs::remove_file(&temporary);
        match linked {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            // some file systems have no hard links
            Err(error)
                if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) =>
            {
                match fs::File::create_new(path).and_then(|mut file| file.write_all(&text)) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                    _ => Ok(()),
                }
            }
            // the folder was removed by a run with --overwrite: the caller looks again
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => match removed {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn equal_runs_share_a_claim_and_another_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let one = Claim::take(folder.path(), run(1)).unwrap();
        let same = Claim::take(folder.path(), run(1)).unwrap();
        one.hold().and_then(|()| same.hold()).unwrap();
        let message = Claim::take(folder.path(), run(2)).unwrap_err().to_string();
        assert!(message.contains("what 1") && message.contains("what 2"), "{message}");
    }

    #[test]
    fn a_claim_that_another_run_replaced_no_longer_holds() {
        let folder = tempfile::tempdir().unwrap();
        let one = Claim::take(folder.path(), run(1)).unwrap();
        fs::remove_file(folder.path().join(NAME)).unwrap();
        Claim::take(folder.path(), run(2)).unwrap();
        assert!(matches!(one.hold(), Err(Error::OtherPlan { .. })));
        // one that went away is taken again
        fs::remove_file(folder.path().join(NAME)).unwrap();
        one.hold().unwrap();
    }
}
