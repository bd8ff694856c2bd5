use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::files::write_whole;
use super::ledger::{self, Entry};
use super::{Context, Error, Outcome, Plan, Task};

/// Scratch for programs whose output is a table: one file per task, whole or not at all, in the
/// folder that [`Plan::stream`] keeps its ledger in.
pub struct Rows {
    folder: PathBuf,
}

impl Rows {
    /// Makes the folder where it is absent; what it holds stays.
    pub fn create(folder: &Path) -> Result<Self, Error> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Writes the rows of a task, replacing those of an earlier try. An empty task needs none.
    pub fn write(&self, task: &Task, bytes: &[u8]) -> Result<(), Error> {
        write_whole(&self.path(task.id), bytes)
    }

    /// The rows of a task; empty where it wrote none or failed.
    pub fn read(&self, task: &Task) -> Result<Vec<u8>, Error> {
        let path = self.path(task.id);
        match fs::read(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            rows => rows.map_err(Error::io("read", &path)),
        }
    }

    /// The rows of every task, in the order of the plan; empty where a task wrote none or failed.
    ///
    /// # Errors
    /// [`Error::Missing`] where a task is not done, or its rows have vanished.
    pub fn read_all(&self, plan: &Plan) -> Result<Vec<Vec<u8>>, Error> {
        let known = ledger::load(&self.folder, plan)?;
        let mut all = Vec::with_capacity(plan.tasks.len());
        let mut missing = Vec::new();
        for task in &plan.tasks {
            let path = self.path(task.id);
            let rows = match (known.get(&task.id), fs::read(&path)) {
                (Some(Entry::Ended(_)), Ok(rows)) => rows,
                (Some(Entry::Failed(_)), _) => Vec::new(),
                (_, Err(e)) if e.kind() != ErrorKind::NotFound => {
                    return Err(Error::io("read", &path)(e));
                }
                (Some(Entry::Ended(Outcome::Empty)), _) => Vec::new(),
                _ => {
                    missing.push(task.id);
                    continue;
                }
            };
            all.push(rows);
        }
        match missing.first() {
            None => Ok(all),
            Some(&first) => {
                Err(Error::Missing { missing: missing.len(), total: plan.tasks.len(), first })
            }
        }
    }

    /// Removes rows and ledger, and the folder if nothing else is in it: the table is written.
    /// After `--finish` they stay, so that it can be run twice.
    pub fn remove(self, ctx: &Context) -> Result<(), Error> {
        if ctx.finish {
            return Ok(());
        }
        ledger::clear(&self.folder)?;
        match fs::remove_dir(&self.folder) {
            Err(e) if !matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
                Err(Error::io("remove", &self.folder)(e))
            }
            _ => Ok(()),
        }
    }

    /// Removes what a run that is done has left in `folder`, if it was stopped before its last step.
    pub fn sweep(folder: &Path, ctx: &Context) -> Result<(), Error> {
        if ctx.gathers() && folder.exists() {
            Self { folder: folder.to_path_buf() }.remove(ctx)?;
        }
        Ok(())
    }

    fn path(&self, task: usize) -> PathBuf {
        self.folder.join(format!("rows-{task:08}"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Identity, Part};
    use super::*;
    use crate::geom::Box3;
    use crate::volume::Existing;

    fn plan() -> Plan {
        Plan::tile(Box3::of_shape([6, 1, 1]), [1; 3], 1, &Identity::of("rows"))
    }

    fn run(folder: &Path, part: Part) {
        let rows = Rows::create(folder).unwrap();
        let ctx = Context { part, existing: Existing::Resume, ..Context::default() };
        let write = |task: &Task, text: String| {
            if task.id == 4 {
                return Ok(Outcome::Empty);
            }
            rows.write(task, text.as_bytes())?;
            Ok(Outcome::Done)
        };
        plan()
            .stream(&ctx, folder, |task| Ok(task.id), |_, id| Ok(format!("{id}\n")), write)
            .unwrap();
    }

    #[test]
    fn rows_of_all_parts_come_back_in_task_order_and_then_go() {
        let parent = tempfile::tempdir().unwrap();
        let folder = super::super::folder_beside(&parent.path().join("spots.csv"));
        run(&folder, Part { k: 2, n: 2 });
        let rows = Rows::create(&folder).unwrap();
        assert!(matches!(
            rows.read_all(&plan()),
            Err(Error::Missing { missing: 3, total: 6, first: 0 })
        ));
        run(&folder, Part { k: 1, n: 2 });
        assert_eq!(rows.read_all(&plan()).unwrap().concat(), b"0\n1\n2\n3\n5\n");
        let finish = Context { finish: true, ..Context::default() };
        Rows::create(&folder).unwrap().remove(&finish).unwrap();
        assert!(rows.read_all(&plan()).is_ok(), "a second finish finds them");
        rows.remove(&Context::default()).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn rows_that_vanished_are_missed() {
        let folder = tempfile::tempdir().unwrap();
        run(folder.path(), Part::default());
        let rows = Rows::create(folder.path()).unwrap();
        fs::remove_file(rows.path(2)).unwrap();
        assert!(matches!(rows.read_all(&plan()), Err(Error::Missing { missing: 1, first: 2, .. })));
    }
}
