//! How a run creates an output: an existing output is refused, resumed or replaced, or is shared
//! with an equal run that is active.

use std::path::Path;

use super::files::output_of;
use super::{Context, Error, Plan, active_runs};
use crate::store;
use crate::volume::{self, Begin, Existing};

/// A run of a plan, in the form that an output needs while it is created.
struct OutputRun<'a> {
    plan: &'a Plan,
    ctx: &'a Context,
}

impl Plan {
    /// This run, as an argument of [`volume::Output::begin`] and [`volume::FieldOutput::begin`].
    /// The output is claimed with the identity of the run before anything is written. If two
    /// different runs begin, one of them is therefore refused; equal runs share the output.
    pub fn as_run<'a>(&'a self, ctx: &'a Context) -> impl Begin + use<'a> {
        OutputRun { plan: self, ctx }
    }
}

impl Begin for OutputRun<'_> {
    fn existing(&self, folder: &Path) -> Result<Existing, volume::Error> {
        let output = output_of(folder);
        if self.ctx.finish && !store::exists(folder) && !store::exists(Path::new(&output)) {
            let message =
                format!("{output} is not there: run its parts (--part K/N) before --finish");
            return Err(volume::Error::Claimed(message));
        }
        let own = self.plan.is_claimed_in(folder).filter(|_| active_runs::is_active(folder));
        match (own, self.ctx.existing) {
            (Some(true), _) => Ok(Existing::Resume),
            (Some(false), Existing::Overwrite) => {
                let error = Error::AtWork { folder: folder.display().to_string() };
                Err(volume::Error::Claimed(error.to_string()))
            }
            (_, existing) => Ok(existing),
        }
    }

    fn claim(&self, folder: &Path) -> Result<(), volume::Error> {
        let claimed = self.ctx.enter(folder).and_then(|_| self.plan.claim(folder));
        claimed.map_err(of_volume)
    }

    fn replace_claim(&self, folder: &Path) -> Result<(), volume::Error> {
        self.plan.replace_claim(folder).map_err(of_volume)
    }
}

fn of_volume(error: Error) -> volume::Error {
    match error {
        Error::Io { action, path, source } => volume::Error::Io { action, path, source },
        error => volume::Error::Claimed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::*;
    use crate::blocks::{Identity, Outcome, Task};
    use crate::geom::{Box3, Grid};
    use crate::volume::{Codec, Dtype, Format, Output, Select, Spec, Volume};

    #[test]
    fn in_a_bucket_a_run_whose_output_is_replaced_ends_and_what_an_interrupted_removal_left_is_removed()
     {
        let location = "memory://replaced/out.zarr";
        let (grid, dtype, codec) = (Grid::new([8; 3], [1.0; 3], [0.0; 3]), Dtype::U8, Codec::Raw);
        let spec = Spec { grid, dtype, chunk: [4; 3], shard: None, codec, format: Format::Zarr3 };
        let write = |value: u8, existing, before: &(dyn Fn(usize) + Sync)| {
            let ctx = Context { existing, ..Context::default() };
            let identity = Identity::of("bucket").with("value", value);
            let plan = Plan::tile(grid.bounds(), [4; 3], 1_u64, &identity);
            let output = Output::begin(location, &spec, 1, &plan.as_run(&ctx))?;
            let compute = |task: &Task, ()| {
                before(task.id);
                Ok(())
            };
            let write = |task: &Task, ()| {
                output.write(&task.core, &[value; 64])?;
                Ok(Outcome::Done)
            };
            let done =
                plan.stream_to::<_, _, _, anyhow::Error>(&ctx, &output, |_| Ok(()), compute, write);
            done.map(drop)
        };
        let replaced = write(1, Existing::Refuse, &|task| {
            if task == 3 {
                write(2, Existing::Overwrite, &|_| ()).unwrap();
            }
        });
        let message = replaced.unwrap_err().to_string();
        assert!(
            message.contains("another run has replaced memory://replaced/out.zarr"),
            "{message}"
        );
        let read = || {
            let volume = Volume::open(location, &Select::default()).unwrap();
            volume.read::<u8>(&grid.bounds()).unwrap()
        };
        assert!(read().iter().all(|v| *v == 2));
        // simulates an interrupted removal: the metadata are gone, some chunks and the claim are
        // left
        for name in ["zarr.json", "0/zarr.json", "0/c/0/0/0"] {
            store::delete(&Path::new(location).join(name)).unwrap();
        }
        for existing in [Existing::Refuse, Existing::Resume] {
            let message = write(3, existing, &|_| ()).unwrap_err().to_string();
            assert!(message.contains("give --overwrite"), "{message}");
        }
        write(3, Existing::Overwrite, &|_| ()).unwrap();
        assert!(read().iter().all(|v| *v == 3));
        // other files are never removed
        store::delete(&Path::new(location).join("zarr.json")).unwrap();
        store::delete(&Path::new(location).join("0/zarr.json")).unwrap();
        store::put(&Path::new(location).join("0/notes.txt"), b"mine").unwrap();
        let message = write(4, Existing::Overwrite, &|_| ()).unwrap_err().to_string();
        assert!(message.contains("it is not replaced"), "{message}");
    }

    #[test]
    fn any_number_of_threads_writes_blocks_of_one_or_many_chunks_to_a_bucket() {
        let (to, from) = mpsc::channel();
        for (number, (threads, block)) in
            [(1, 4), (2, 4), (3, 4), (1, 8), (2, 8)].into_iter().enumerate()
        {
            let to = to.clone();
            // if there is a deadlock, the thread never ends and sends nothing
            std::thread::spawn(move || {
                let location = format!("memory://threads/{number}.zarr");
                let (grid, dtype, codec) =
                    (Grid::new([8; 3], [1.0; 3], [0.0; 3]), Dtype::U8, Codec::Raw);
                let spec =
                    Spec { grid, dtype, chunk: [4; 3], shard: None, codec, format: Format::Zarr3 };
                let ctx = Context { threads, ..Context::default() };
                let plan = Plan::tile(grid.bounds(), [block; 3], 1_u64, &Identity::of("bucket"));
                let output = Output::begin(&location, &spec, 1, &plan.as_run(&ctx)).unwrap();
                let done = plan.stream_to::<_, _, _, anyhow::Error>(
                    &ctx,
                    &output,
                    |_| Ok(()),
                    |_, ()| Ok(()),
                    |task, ()| {
                        output.write(&task.core, &vec![7u8; task.core.len()])?;
                        Ok(Outcome::Done)
                    },
                );
                to.send(done.map(drop).map_err(|error| error.to_string())).unwrap();
            });
        }
        for _ in 0..5 {
            from.recv_timeout(Duration::from_mins(1)).unwrap().unwrap();
        }
    }

    #[test]
    fn an_output_that_another_run_is_writing_is_not_replaced_under_it() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["out.zarr", "out.tif"] {
            let to = folder.path().join(name).to_str().unwrap().to_owned();
            let spec = Spec {
                grid: Grid::new([4; 3], [1.0; 3], [0.0; 3]),
                dtype: Dtype::U8,
                chunk: [4; 3],
                shard: None,
                codec: Codec::Raw,
                format: if name == "out.tif" { Format::Tiff } else { Format::Zarr3 },
            };
            let write = |what: &str, ctx: &Context| {
                let identity = Identity::of("test").with("what", what);
                let plan = Plan::tile(Box3::of_shape([4; 3]), [4; 3], 1_u64, &identity);
                let output = Arc::new(Output::begin(&to, &spec, 1, &plan.as_run(ctx))?);
                let done = plan.stream_to::<_, _, _, anyhow::Error>(
                    ctx,
                    &*output,
                    |_| Ok(()),
                    |_, ()| Ok(()),
                    |task, ()| {
                        output.write(&task.core, &[7u8; 64])?;
                        Ok(Outcome::Done)
                    },
                );
                done.map(drop)
            };
            let replace =
                || Context { existing: Existing::Overwrite, threads: 1, ..Context::default() };
            // a run is active until its context is dropped, which in a program is when the process
            // ends
            let first = replace();
            write("one", &first).unwrap();
            let refused = write("two", &replace()).unwrap_err().to_string();
            assert!(refused.contains("another run is writing"), "{refused}");
            write("one", &replace()).unwrap();
            drop(first);
            write("two", &replace()).unwrap();
        }
    }
}
