//! Arguments shared by all programs, logging, exit codes, the multicall.

use std::process::ExitCode;

use crate::blocks::Context;

/// What a program does, for the overview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Look before, look after.
    Look,
    /// Align one volume to another.
    Align,
    /// Change format or resolution.
    Convert,
    /// Make test data.
    Test,
}

/// Which of the shared flags a program takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Reads and prints: logging and `--threads --memory` only.
    Look,
    /// Whole to whole: also output, receipt, seed, resume and overwrite.
    Whole,
    /// Block by block: also block size, part, finish, plan, allow-failed.
    Blocks,
}

/// One program: its own flags (a `clap::Args`, whose doc comment is its `--help`) and its work.
pub trait Program: clap::Args + 'static {
    /// The executable's name.
    const NAME: &'static str;
    /// Where it stands in the overview.
    const PURPOSE: Purpose;
    /// Which shared flags it takes.
    const SHAPE: Shape;
    /// One example that works, shown under the first sentence of `--help`.
    const EXAMPLE: &'static str;
    /// Does it.
    fn run(self, ctx: &Context) -> anyhow::Result<()>;
}

/// The whole of a program's `main`.
pub fn main<P: Program>() -> ExitCode {
    todo!()
}
