//! The file in which a process stores the rows of its tasks (see [`super::TaskRows`]), one after
//! the other. In a bucket, where nothing can be appended, it is a few objects.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::unique;
use crate::{files, store};

/// Size in bytes at which a pending object is written without waiting for the next sync.
const OBJECT: usize = 8 << 20;

/// The rows that this process has written. A pack is held in an `Arc`, because [`Pack::append`]
/// adds it to the queue of writers that are to be synced.
pub(super) struct Pack {
    path: PathBuf,
    state: Mutex<PackState>,
}

#[derive(Default)]
struct PackState {
    /// The local file; `None` before the first append, and in a bucket.
    file: Option<File>,
    /// Length of the file up to the last successful write, or of the pending object, bytes.
    length: u64,
    /// The bytes of the pending object.
    held: Vec<u8>,
    /// The number of objects written so far.
    objects: usize,
}

impl Pack {
    /// A pack in `folder`. Nothing is created before rows are appended.
    pub(super) fn new(folder: &Path) -> Self {
        Self { path: folder.join(format!("rows-{}", unique())), state: Mutex::default() }
    }

    /// The path of the file, or the prefix of the objects' names.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends rows; returns the name of their file or object, and their offset in it. The rows are
    /// on the disk, or in the bucket, after [`files::sync_pending`].
    pub(super) fn append(self: &Arc<Self>, bytes: &[u8]) -> io::Result<(String, u64)> {
        let mut state = self.lock();
        let is_remote = store::is_remote(&self.path);
        let path = if is_remote { self.object(state.objects) } else { self.path.clone() };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let start = state.length;
        if is_remote {
            state.held.extend_from_slice(bytes);
        } else {
            self.write(&mut state, bytes)?;
        }
        state.length += bytes.len() as u64;
        if state.held.len() >= OBJECT {
            self.put(&mut state)?;
        }
        drop(state);
        files::queue_step(Arc::clone(self) as Arc<dyn files::SyncStep>);
        Ok((name, start))
    }

    fn write(&self, state: &mut PackState, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        if state.file.is_none() {
            if let Some(folder) = self.path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            state.file = Some(File::create_new(&self.path)?);
        }
        let start = state.length;
        state.file.as_ref().map_or(Ok(()), |file| file.write_all_at(bytes, start))
    }

    /// Writes the pending object. If the write fails, the object stays pending.
    fn put(&self, state: &mut PackState) -> io::Result<()> {
        store::put(&self.object(state.objects), &state.held)?;
        state.objects += 1;
        state.held.clear();
        state.length = 0;
        Ok(())
    }

    fn object(&self, number: usize) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        name.into()
    }

    fn lock(&self) -> MutexGuard<'_, PackState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl files::SyncStep for Pack {
    fn path(&self) -> &Path {
        &self.path
    }

    fn sync_pending(&self) -> io::Result<[PathBuf; 2]> {
        let mut state = self.lock();
        if !state.held.is_empty() {
            self.put(&mut state)?;
        }
        let file = state.file.as_ref().map(File::try_clone).transpose()?;
        drop(state);
        file.as_ref().map_or(Ok(()), files::sync)?;
        let folder = self.path.parent().unwrap_or(&self.path).to_path_buf();
        Ok([folder.clone(), folder])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path, (name, start): (String, u64), length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let wanted = store::ReadRange::Range { start, length };
        store::read(&folder.join(name), wanted, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn rows_are_appended_to_one_file_or_to_few_objects() {
        let local = tempfile::tempdir().unwrap();
        let bucket = Path::new("memory://packs/out.csv.voxloom");
        // three full objects, and one more for each `sync_pending` that another test calls
        // meanwhile
        for (folder, most) in [(local.path(), 1), (bucket, 50)] {
            let pack = Arc::new(Pack::new(folder));
            let rows: Vec<Vec<u8>> = (0..300).map(|i| vec![i as u8; 100 * i + 70_000]).collect();
            let places: Vec<_> = rows.iter().map(|rows| pack.append(rows).unwrap()).collect();
            files::SyncStep::sync_pending(&*pack).unwrap();
            files::SyncStep::sync_pending(&*pack).unwrap();
            for (rows, place) in rows.iter().zip(places) {
                assert!(read(folder, place, rows.len()) == *rows);
            }
            let count = store::list(folder).unwrap().len();
            assert!(count <= most + 1, "{count}");
        }
    }
}
