//! The keys that a parameters file can hold for any program.
//!
//! The flags of the running program are those of its clap command. The flags of all programs are in
//! `flags.txt`, which is generated from their commands: see [`FLAGS`].

use clap::{Arg, Command};

use crate::cli::{FlagSet, shared};

/// The programs and their long flags except the shared flags, one program per line. A test of
/// `bins/voxloom.rs` compares the text with the commands, and `make flags` regenerates it.
pub const FLAGS: &str = include_str!("flags.txt");

/// The keys that only the workflows use.
const WORKFLOW_KEYS: [&str; 4] = ["outdir", "parts", "samplesheet", "until"];

/// The line of [`FLAGS`] for a program.
pub(in crate::cli) fn line_of(command: &Command) -> String {
    let flags = command.get_arguments().filter_map(Arg::get_long);
    let mut own: Vec<&str> = flags.filter(|flag| !is_shared(flag) && *flag != "config").collect();
    own.sort_unstable();
    format!("{}: {}\n", command.get_name(), own.join(" "))
}

/// The programs, each with its flags except the shared flags.
fn programs() -> impl Iterator<Item = (&'static str, &'static str)> {
    FLAGS.lines().filter_map(|line| line.split_once(": "))
}

/// The names of the programs; a parameters file can have a section for each.
pub(super) fn program_names() -> impl Iterator<Item = &'static str> {
    programs().map(|(name, _)| name)
}

/// The flags of a program except the shared flags; `None` if there is no such program.
pub(super) fn flags_of(
    program: &str,
) -> Option<impl Iterator<Item = &'static str> + Clone + use<>> {
    let (_, flags) = programs().find(|(name, _)| *name == program)?;
    Some(flags.split(' '))
}

/// The keys that are accepted at the top level for any program, except the shared flags. The
/// iterator can return a key several times.
pub(super) fn keys() -> impl Iterator<Item = &'static str> {
    programs().flat_map(|(_, flags)| flags.split(' ')).chain(WORKFLOW_KEYS)
}

/// Whether a key is the long name of a shared flag; [`FlagSet::Blocks`] contains all shared flags.
pub(super) fn is_shared(key: &str) -> bool {
    let all = shared::add(Command::new("all"), FlagSet::Blocks);
    key != "config" && all.get_arguments().any(|arg| arg.get_long() == Some(key))
}
