//! Checks `-` on the command line, which stands for standard input or output in place of a file
//! with a table or a transform.

use std::ffi::OsStr;

use clap::{Arg, ArgMatches, Command};

use super::Program;
use super::path_conflicts::OUTPUT_FLAGS;
use crate::blocks::Error;
use crate::files;

/// Shared flags that accept `-` in every program.
pub(super) const SHARED: [&str; 2] = ["config", "receipt"];
/// Parts of the names of clap values that mark a value as a path.
const PATH_VALUE_NAMES: [&str; 6] = ["LOC", "FILE", "CSV", "JSON", "HTML", "DIR"];

/// Refuses `-` where a volume or a folder is required, more than one input or more than one output
/// that is `-`, and `--part`, `--finish` or `--resume` with an output (other than the receipt) on
/// standard output.
///
/// # Errors
/// [`Error::Usage`], which names the flags.
pub(super) fn check<P: Program>(
    program: &P,
    command: &Command,
    matches: &ArgMatches,
) -> Result<(), Error> {
    let refuse = |message: String| Err(Error::Usage(message));
    let (mut read, mut written) = (Vec::new(), Vec::new());
    let may = program.pipes();
    for flag in command.get_arguments().filter(|flag| is_path(flag)) {
        let id = flag.get_id().as_str();
        let is_written = OUTPUT_FLAGS.contains(&id);
        for _ in 0..streams(matches, id) {
            let name = flag_name(flag);
            if !may.contains(&id) && !SHARED.contains(&id) {
                let (what, way) = if is_written {
                    ("only tables and transforms that are one text can be written to", "output")
                } else {
                    ("only tables and transforms can be read from", "input")
                };
                return refuse(format!(
                    "{name} is -, and {what} standard {way}; name a file or a folder (one that is called - \
                     is ./-)"
                ));
            }
            if is_written { &mut written } else { &mut read }.push(name);
        }
    }
    for (names, way) in [(&read, "input can be read"), (&written, "output can be written")] {
        if names.len() > 1 {
            return refuse(format!(
                "{} are -, and standard {way} once only; write the others to files",
                names.join(" and ")
            ));
        }
    }
    let shared = ["part", "finish", "resume"].into_iter().find(|id| is_given(matches, id));
    match (shared, written.first()) {
        (Some(shared), Some(name)) if name != "--receipt" => refuse(format!(
            "{name} is -, which --{shared} cannot go on with, as a part of the work is kept beside the \
             output; name a file"
        )),
        _ => Ok(()),
    }
}

fn is_path(flag: &Arg) -> bool {
    let names = flag.get_value_names().unwrap_or_default();
    let is_place = |name: &str| PATH_VALUE_NAMES.iter().any(|place| name.contains(place));
    flag.is_positional() || names.iter().any(|name| is_place(name))
}

/// The number of values of a flag that are `-` or have the form `NAME=-`.
fn streams(matches: &ArgMatches, id: &str) -> usize {
    let values = matches.try_get_raw(id).ok().flatten().into_iter().flatten();
    let is_stream = |value: &OsStr| {
        let named = value.to_str().and_then(|text| text.split_once('='));
        files::is_stream(named.map_or(value, |(_, place)| OsStr::new(place)))
    };
    values.filter(|value| is_stream(value)).count()
}

fn flag_name(flag: &Arg) -> String {
    match flag.get_long() {
        Some(long) => format!("--{long}"),
        None => flag.get_value_names().and_then(<[_]>::first).map_or_else(
            || flag.get_id().as_str().to_uppercase(),
            std::string::ToString::to_string,
        ),
    }
}

fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).is_ok()
        && matches.value_source(id) == Some(clap::parser::ValueSource::CommandLine)
}
