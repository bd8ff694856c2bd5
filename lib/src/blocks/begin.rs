//! How a run starts an output: it is refused, resumed, replaced, or shared with an equal active
//! run.

use std::path::Path;

use super::{Context, Error, Plan, live};
use crate::volume::{self, Begin, Existing};

/// A run of a plan, in the form that an output needs while it is created.
struct Run<'a> {
    plan: &'a Plan,
    ctx: &'a Context,
}

impl Plan {
    /// This run, for [`volume::Output::begin`] and [`volume::FieldOutput::begin`]. It claims the
    /// output with its identity before anything is written, so that of two different runs one is
    /// refused; an output that an equal active run has claimed is shared.
    pub fn as_run<'a>(&'a self, ctx: &'a Context) -> impl Begin + use<'a> {
        Run { plan: self, ctx }
    }
}

impl Begin for Run<'_> {
    fn existing(&self, folder: &Path) -> Result<Existing, volume::Error> {
        let own = self.plan.is_claimed_in(folder).filter(|_| live::is_at_work(folder));
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
        claimed.map_err(|error| match error {
            Error::Io { action, path, source } => volume::Error::Io { action, path, source },
            error => volume::Error::Claimed(error.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::blocks::{Identity, Outcome};
    use crate::geom::{Box3, Grid};
    use crate::volume::{Codec, Dtype, Format, Output, Spec};

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
            // a run counts as active until its context is dropped, as a process does until it ends
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
