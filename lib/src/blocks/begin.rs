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
    fn existing(&self) -> Existing {
        self.ctx.existing
    }

    fn is_shared(&self, folder: &Path) -> bool {
        live::is_at_work(folder) && self.plan.has_claimed(folder)
    }

    fn claim(&self, folder: &Path) -> Result<(), volume::Error> {
        let claimed = self.ctx.enter(folder).and_then(|_| self.plan.claim(folder));
        claimed.map_err(|error| match error {
            Error::Io { action, path, source } => volume::Error::Io { action, path, source },
            error => volume::Error::Claimed(error.to_string()),
        })
    }
}
