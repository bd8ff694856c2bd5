//! Entry point for fuzzers: reads `--config` files.

use std::path::Path;

use clap::{Arg, ArgAction, Command};

use super::{FlagSet, config, shared};

/// Reads the parameters file at `path` for a program with flags of each kind.
///
/// # Errors
/// The error message that a user would see.
pub fn parameters(path: &Path) -> Result<(), String> {
    let own = Command::new("extract-spots")
        .arg(Arg::new("volume").required(true))
        .arg(Arg::new("radius").long("radius"))
        .arg(Arg::new("mask").long("mask").num_args(1..).action(ArgAction::Append));
    let command = shared::add(own, FlagSet::Blocks);
    let mut arguments = ["extract-spots", "v.zarr", "--config"].map(Into::into).to_vec();
    arguments.push(path.into());
    let _ = config::selects_a_volume(path);
    let all = config::apply(&command, arguments).map_err(|error| error.to_string())?;
    command.try_get_matches_from(all.arguments).map(drop).map_err(|error| error.kind().to_string())
}
