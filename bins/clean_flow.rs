//! `clean-flow`: removes wrong vectors of patch flow and merges fields.

use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, Program, Purpose};
use voxloom::flow::{self, CleanFlags};
use voxloom::transform;

/// Removes the vectors of patch flow that are not to be believed, and merges several fields.
///
/// Each field is cleaned by the quality and the neighbours of its vectors. Unknown vectors of the
/// first field are then taken from the others, in order, and vectors that do not fit to each other
/// are removed. OUT.json, beside OUT.zarr, contains the whole chain with the initial map.
#[derive(clap::Args)]
pub(crate) struct CleanFlow {
    /// Outputs of `flow` (OUT.json), the preferred one first; fields that are merged must have been
    /// measured with the same --initial
    #[arg(value_name = "FLOW", required = true, num_args = 1..)]
    fields: Vec<String>,
    /// The cleaned field: a Zarr array
    #[arg(short, long, value_name = "LOC")]
    output: String,
    #[command(flatten)]
    clean: CleanFlags,
}

impl Program for CleanFlow {
    const NAME: &'static str = "clean-flow";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "clean-flow flow.json --fill -o clean.zarr";

    fn written(&self) -> Vec<PathBuf> {
        vec![transform::document_beside(&self.output)]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        Ok(flow::clean_fields(&self.fields, &self.output, &self.clean.options(), ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<CleanFlow>()
}
