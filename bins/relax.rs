//! `relax`: relaxes elastic meshes that the displacements of patches pull at.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use voxloom::blocks::Context;
use voxloom::cli::{self, FlagSet, Program, Purpose};
use voxloom::mesh::{self, Flags};
use voxloom::transform::{self, Direction};
use voxloom::volume::{Select, Volume};

/// Relaxes elastic meshes that the displacements of patches pull at.
///
/// The result is a smooth field without gaps and folds, which fits to the outputs of flow or
/// clean-flow. With --stack, the sections of a stack are aligned to each other: the field takes each
/// point of the aligned stack to its section. OUT.json, beside OUT.zarr, contains the whole chain.
#[derive(clap::Args)]
pub(crate) struct Relax {
    /// Outputs of `flow` or `clean-flow` (OUT.json); the mesh has the nodes of the first
    #[arg(value_name = "FLOW", required = true, num_args = 1..)]
    fields: Vec<String>,
    /// Transforms through which `flow` saw the volumes (its --through); they become part of OUT.json
    #[arg(long, value_name = "LOC", num_args = 1..)]
    through: Vec<String>,
    /// Mask of the sections, or of the moving plane (mask): the mesh is cut at tears and wrinkles
    #[arg(long, value_name = "LOC")]
    mask: Option<String>,
    /// The displacement field: a Zarr array
    #[arg(short, long, value_name = "LOC")]
    output: String,
    #[command(flatten)]
    mesh: Flags,
}

impl Program for Relax {
    const NAME: &'static str = "relax";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const BLOCK_SIZE: Option<&'static str> = Some(
        "Number of nodes of a plane, or of all sections of a stack, that are relaxed at once [default: all, \
         if they fit into --memory]",
    );
    const EXAMPLE: &'static str = "relax distance1.json distance2.json --stack -o aligned.zarr";

    fn written(&self) -> Vec<PathBuf> {
        vec![transform::document_beside(&self.output)]
    }

    fn pipes(&self) -> Vec<&'static str> {
        vec!["through"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let through = transform::read_stored(&self.through, Direction::FixedToMoving)
            .context("reading --through")?;
        self.through.iter().for_each(|location| ctx.input_file(location));
        let mask = self.mask.map(|mask| Volume::open(&mask, &Select::default())).transpose();
        let mask = mask.context("reading --mask")?;
        let options = self.mesh.options();
        Ok(mesh::relax(&self.fields, &through, mask.as_ref(), &self.output, &options, ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Relax>()
}
