//! Claims on outputs: a run claims the folder of its ledger with its identity before it writes
//! anything.
//!
//! The claim file is created atomically (as a hard link to a complete file), so that of two
//! different runs that start at the same moment one is refused. Equal runs share one claim.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::files::unique;
use super::{Error, Identity};

/// The name of the claim file.
pub(super) const NAME: &str = "claim.json";

/// How often, and at which interval, a claim that is being written or removed is read again.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);

/// The claim of this run on a folder.
#[derive(Debug)]
pub(super) struct Claim {
    folder: PathBuf,
    run: Identity,
    /// Device, inode and change time (seconds, nanoseconds) of the file when it was last read. As
    /// long as they are unchanged, so is the content. The change time is needed because inode
    /// numbers are reused.
    seen: Mutex<Option<[i64; 4]>>,
}

impl Claim {
    /// Claims `folder`, which is created if absent, for this run, or shares the claim of an equal
    /// run.
    ///
    /// # Errors
    /// [`Error::OtherPlan`] if a different run has claimed the folder; [`Error::Io`].
    pub(super) fn take(folder: &Path, run: Identity) -> Result<Self, Error> {
        let claim = Self { folder: folder.to_path_buf(), run, seen: Mutex::default() };
        claim.hold()?;
        Ok(claim)
    }

    /// The identity of the run that has claimed `folder`, if any has.
    pub(super) fn owner(folder: &Path) -> Option<Identity> {
        let text = fs::read(folder.join(NAME)).ok()?;
        Identity::from_json(&serde_json::from_slice(&text).ok()?)
    }

    /// Checks that the claim is still valid: a run with `--overwrite` may have replaced the output.
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
                        // without hard links, the file may be half written
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

    /// Writes the claim file if there is none; a file that another process wrote first is kept.
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
            // some file systems do not support hard links
            Err(error)
                if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied) =>
            {
                match fs::File::create_new(path).and_then(|mut file| file.write_all(&text)) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
                    _ => Ok(()),
                }
            }
            // a run with --overwrite removed the folder: the caller tries again
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
        // a claim that was removed is taken again
        fs::remove_file(folder.path().join(NAME)).unwrap();
        one.hold().unwrap();
    }
}
