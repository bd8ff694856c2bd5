//! What a program reads is never what it writes.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};

use super::Program;
use crate::blocks::Error;

/// Flags that name what is written, of any program.
const WRITTEN: [&str; 4] = ["output", "table", "matches", "receipt"];

/// Refuses a command line by which something that is read would be replaced.
///
/// # Errors
/// [`Error::Usage`] that names both flags.
pub(super) fn check<P: Program>(
    program: &P,
    command: &Command,
    matches: &ArgMatches,
) -> Result<(), Error> {
    let named = places(command, matches);
    let is_written = |flag: &Named| WRITTEN.contains(&flag.id);
    let beside = program.written().into_iter().filter_map(|path| {
        let place = path.canonicalize().ok()?;
        Some(Named { id: "output", text: path.display().to_string(), place, at: usize::MAX })
    });
    for out in named.iter().filter(|flag| is_written(flag)).cloned().chain(beside) {
        // what lies in a folder that is replaced goes with it
        let goes = |other: &&Named| other.at != out.at && other.place.starts_with(&out.place);
        if let Some(read) = named.iter().find(goes) {
            return Err(Error::Usage(format!(
                "{} would be written by --{} and is {} too; write to another name",
                out.text,
                out.id,
                read.said(command)
            )));
        }
    }
    Ok(())
}

/// A value that names something that exists.
#[derive(Clone)]
struct Named<'a> {
    id: &'a str,
    text: String,
    place: PathBuf,
    /// Which of all values it is.
    at: usize,
}

impl Named<'_> {
    fn said(&self, command: &Command) -> String {
        let flag = command.get_arguments().find(|flag| flag.get_id() == self.id);
        match flag.and_then(clap::Arg::get_long) {
            Some(long) => format!("named by --{long}"),
            None => "read".to_owned(),
        }
    }
}

/// All values that name something that exists.
fn places<'a>(command: &'a Command, matches: &ArgMatches) -> Vec<Named<'a>> {
    let mut found = Vec::new();
    let names_files = |flag: &&clap::Arg| flag.get_possible_values().is_empty();
    for flag in command.get_arguments().filter(names_files) {
        let id = flag.get_id().as_str();
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        for value in values {
            let text = value.to_string_lossy();
            let path = Path::new(text.strip_prefix("file://").unwrap_or(&text));
            if text.parse::<f64>().is_err()
                && let Ok(place) = path.canonicalize()
            {
                found.push(Named { id, text: text.into_owned(), place, at: found.len() });
            }
        }
    }
    found
}
