//! Arguments shared by all programs, logging, exit codes, and the multicall executable.
//!
//! A program is one file in `bins/`:
//!
//! ```no_run
//! use std::process::ExitCode;
//! use voxloom::blocks::Context;
//! use voxloom::cli::{self, FlagSet, Program, Purpose, VolumeArgs};
//!
//! /// Says what is in a volume.
//! #[derive(clap::Args)]
//! pub(crate) struct Inspect {
//!     /// The volume.
//!     #[arg(value_name = "LOC")]
//!     location: String,
//!     #[command(flatten)]
//!     volume: VolumeArgs,
//! }
//!
//! impl Program for Inspect {
//!     const NAME: &'static str = "inspect";
//!     const PURPOSE: Purpose = Purpose::Inspect;
//!     const FLAG_SET: FlagSet = FlagSet::Inspect;
//!     const EXAMPLE: &'static str = "inspect image.zarr/0";
//!
//!     fn run(self, _ctx: &Context) -> anyhow::Result<()> {
//!         let select = self.volume.select();
//!         cli::print(&format!("{} {:?}\n", self.location, select.channel))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     cli::main::<Inspect>()
//! }
//! ```
//!
//! The first sentence of the struct's doc comment opens `--help` and appears in the overview of
//! `voxloom`; the rest of the comment follows the options. A program declares its own
//! `-o, --output` and receives the shared flags through [`Context`].

mod completed;
mod config;
mod exit;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod grid;
mod limits;
mod logging;
mod multicall;
mod output;
mod path_conflicts;
mod run;
mod shared;
mod streams;
mod values;
mod volumes;

use std::path::PathBuf;
use std::process::ExitCode;

pub use config::vocabulary::FLAGS;
pub use config::{read_parameters, selects_a_volume};
pub use exit::print;
pub use grid::{GridArgs, SampleArgs};
pub use multicall::{ProgramEntry, multicall};
pub use output::{OutputArgs, dtypes};
pub use values::{Channels, Length3, parse_bytes, parse_shape3, parse_size3, parse_spacing};
pub use volumes::{FixedArgs, MovingArgs, MovingChannelsArgs, TileArgs, VolumeArgs};

use crate::blocks::Context;

/// The purpose of a program. `voxloom --help` groups the programs by purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Inspect data before or after processing.
    Inspect,
    /// Align one volume to another.
    Align,
    /// Change format or resolution.
    Convert,
    /// Make test data.
    Test,
}

/// The set of shared flags that a program accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagSet {
    /// For programs that read and print: only the flags of all programs, such as `--threads`,
    /// `--memory`, `--plan`, `--config` and those of logging.
    Inspect,
    /// For programs that process the input as a whole: the flags of [`FlagSet::Inspect`], and
    /// `--resume`, `--overwrite`, `--no-sync`, `--receipt`, `--seed` and `--device`.
    Whole,
    /// For programs that process block by block: the flags of [`FlagSet::Whole`], and
    /// `--block-size`, `--part`, `--finish` and `--allow-failed`.
    Blocks,
}

/// A program: a struct of its own flags (a `clap::Args`, whose doc comment is the text of
/// `--help`), and [`Program::run`], which does the work.
pub trait Program: clap::Args + 'static {
    /// The executable's name.
    const NAME: &'static str;
    /// The group in which `voxloom --help` lists the program.
    const PURPOSE: Purpose;
    /// The shared flags that the program accepts.
    const FLAG_SET: FlagSet;
    /// One working example, shown below the first sentence of `--help`.
    const EXAMPLE: &'static str;
    /// The help text of `--block-size`, if the flag is not the size of the output block of a task.
    const BLOCK_SIZE: Option<&'static str> = None;
    /// Whether the program has a second pass over the volume, which `--finish --part K/N` divides
    /// into parts.
    const SECOND_PASS: bool = false;
    /// The paths of outputs that no flag names, such as a file beside `--output`.
    fn written(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    /// The ids of the arguments that accept a pipe or `-` (standard input or output): tables, and
    /// transforms that are a single text file.
    fn pipes(&self) -> Vec<&'static str> {
        Vec::new()
    }
    /// Runs the program with the flags in `self`; `ctx` holds the shared flags.
    ///
    /// # Errors
    /// Any error of the program; `cli/exit.rs` derives the exit code from it.
    fn run(self, ctx: &Context) -> anyhow::Result<()>;
}

/// Runs the program `P` with the command line of this process. The `main` function of each program
/// is a call of this function.
pub fn main<P: Program>() -> ExitCode {
    run::run::<P>(std::env::args_os().collect())
}
