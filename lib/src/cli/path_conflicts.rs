//! Checks that no program writes to its own inputs, or replaces a device, pipe or socket by a file.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};

use super::{Program, streams};
use crate::blocks::{Error, receipt_path};
use crate::store::{self, document};
use crate::transform::{self, Direction, Step};
use crate::{files, tiles, volume};

/// The ids of the flags that name outputs, in all programs.
pub(super) const OUTPUT_FLAGS: [&str; 5] = ["output", "table", "matches", "receipt", "scratch"];
/// Maximum size of a transform document, in bytes.
const MAX_DOCUMENT: u64 = 16 << 20;
/// Maximum number of bytes of another program's text file that are searched for names of files.
const MAX_SEARCHED_TEXT: usize = 1 << 16;
/// Maximum number of words in the searched text that are tried as names of files.
const MAX_NAMES: usize = 1000;

/// Refuses a command line that would replace an input or write into an input, that would write to a
/// web server or under the name of another format, or that names a device, a pipe or a socket where
/// a file is required.
///
/// # Errors
/// [`Error::Usage`], which names the path and the flags.
pub(super) fn check<P: Program>(
    program: &P,
    command: &Command,
    matches: &ArgMatches,
) -> Result<(), Error> {
    let named = path_arguments(command, matches);
    let (mut written, read): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|flag| OUTPUT_FLAGS.contains(&flag.id));
    let given = written.len();
    let read = expand_existing(read);
    let mut implied = program.written();
    if matches.try_get_raw("receipt").ok().flatten().is_none() {
        let outputs = written.iter().filter(|flag| flag.id == "output");
        implied.extend(outputs.map(|flag| receipt_path(Path::new(&flag.text))));
    }
    for path in implied {
        let text = path.display().to_string();
        written.extend(PathArgument::new("output", text, usize::MAX - written.len()));
    }
    for (number, out) in written.iter().enumerate() {
        if store::is_remote(&out.path) && !store::is_listable(&out.path) {
            return Err(Error::Usage(format!(
                "{} would be written by --{}, and a web server can only be read; give a local path, or an \
                 address in a bucket",
                out.text, out.id
            )));
        }
        check_kind(out, false)?;
        let others = written[number + 1..].iter().filter(|other| other.path == out.path);
        let clash = read.iter().find(|read| out.harms(read)).or(others.into_iter().next());
        if let Some(read) = clash {
            return Err(Error::Usage(format!(
                "{} would be written by --{} and is {} too; write to another name",
                out.text,
                out.id,
                read.describe(command)
            )));
        }
    }
    // the extension is checked only for names given by the user: this program chooses the names of
    // implied outputs
    written.iter().take(given).try_for_each(|out| check_extension(out, command))?;
    let pipes = program.pipes();
    read.iter().try_for_each(|read| {
        let is_text = pipes.contains(&read.id) || streams::SHARED.contains(&read.id);
        check_kind(read, is_text && read.by.is_none())
    })
}

/// Refuses the name of an output table, transform or HTML page if it has the extension of another
/// format or ends in a slash.
fn check_extension(out: &PathArgument<'_>, command: &Command) -> Result<(), Error> {
    let flag = command.get_arguments().find(|arg| arg.get_id() == out.id);
    let kind = flag.and_then(|flag| flag.get_value_names()).and_then(|names| names.first());
    let own: &[&str] = match kind.map(clap::builder::Str::as_str) {
        Some("CSV") => &["csv", "tsv", "txt"],
        Some("JSON") => &["json"],
        Some("HTML") => &["html"],
        _ => return Ok(()),
    };
    if out.text.ends_with('/') {
        return Err(Error::Usage(format!(
            "--{} {} is the name of a folder, and one file is written; give it a name that ends in .{}",
            out.id, out.text, own[0]
        )));
    }
    let Some((_, other)) = volume::other_format(&out.text, own) else { return Ok(()) };
    Err(Error::Usage(format!(
        "--{} {} would be {}, but its name is that of {other}; let it end in .{}",
        out.id,
        out.text,
        kind.map_or("", clap::builder::Str::as_str),
        own[0]
    )))
}

/// Adds the files that match glob patterns and the files to which the values refer, and keeps the
/// paths that exist.
fn expand_existing(named: Vec<PathArgument<'_>>) -> Vec<PathArgument<'_>> {
    let all =
        named.into_iter().flat_map(PathArgument::members).flat_map(PathArgument::with_references);
    let all = all.flat_map(PathArgument::with_sections);
    all.filter(|flag| store::exists(&flag.path)).collect()
}

/// The paths of inputs that are not on the command line: those to which a transform chain, a table
/// of sections or a folder of images refers.
pub(super) fn referred_to(command: &Command, matches: &ArgMatches) -> Vec<PathBuf> {
    let read = path_arguments(command, matches)
        .into_iter()
        .filter(|flag| !OUTPUT_FLAGS.contains(&flag.id));
    let read = expand_existing(read.collect()).into_iter().filter(|named| named.by.is_some());
    read.map(|named| named.path).collect()
}

/// A value of the command line that names a path.
#[derive(Clone)]
pub(super) struct PathArgument<'a> {
    pub(super) id: &'a str,
    /// The NAME of a value NAME=LOCATION.
    pub(super) label: Option<String>,
    pub(super) text: String,
    /// The absolute path; symbolic links are resolved in the part of it that exists.
    pub(super) path: PathBuf,
    /// The document or folder that refers to the path, unless the flag names the path itself.
    by: Option<String>,
    /// The index among all values that name paths; implied outputs count from `usize::MAX`.
    at: usize,
}

impl<'a> PathArgument<'a> {
    fn new(id: &'a str, text: String, at: usize) -> Option<Self> {
        let path = store::parse(&text).ok()?;
        let path = resolve_links(&path)?;
        Some(Self { id, label: None, text, path, by: None, at })
    }

    /// Whether the path is in a bucket or on a web server.
    pub(super) fn is_remote(&self) -> bool {
        store::is_remote(&self.path)
    }

    fn describe(&self, command: &Command) -> String {
        let flag = command.get_arguments().find(|flag| flag.get_id() == self.id);
        let flag = match flag.and_then(clap::Arg::get_long) {
            Some(long) => format!("named by --{long}"),
            None => "read".to_owned(),
        };
        match &self.by {
            Some(document) => format!("{flag} (by way of {document})"),
            None => flag,
        }
    }

    /// The files that match a glob pattern, or the path itself.
    pub(super) fn members(self) -> Vec<Self> {
        if !self.text.contains(['*', '?', '[']) || store::exists(&self.path) {
            return vec![self];
        }
        let files = glob::glob(&self.text).into_iter().flatten().flatten();
        files
            .filter_map(|path| Some(Self { path: resolve_links(&path)?, ..self.clone() }))
            .collect()
    }

    /// The path itself and, for a transform chain of this project or in another program's text
    /// format, the arrays and files to which the chain refers; for a project of tiles, its images, masks
    /// and fields.
    pub(super) fn with_references(self) -> Vec<Self> {
        let about = store::stat_file(&self.path).ok().flatten();
        let mut all = vec![self.clone()];
        if volume::is_sections(&self.path.to_string_lossy()) {
            return all;
        }
        let is_document = |about: &store::Stat| {
            about.kind == store::EntryKind::File
                && about.length <= MAX_DOCUMENT
                && !files::is_pipe(&self.path)
        };
        if about.as_ref().is_some_and(is_document) {
            let tiles = tiles::members(&self.path);
            all.extend(tiles.iter().filter_map(|path| self.refers_to(path)));
        }
        if !about.as_ref().is_some_and(is_document) {
            return all;
        }
        let steps = [Direction::FixedToMoving, Direction::MovingToFixed]
            .into_iter()
            .find_map(|direction| transform::read_steps(&self.text, direction).ok());
        for step in steps.into_iter().flatten() {
            let (Step::Field(location) | Step::LocalAffines(location)) = step else { continue };
            all.extend(self.refers_to(Path::new(&location)));
        }
        let start = document::read_start(&self.path, MAX_SEARCHED_TEXT).ok();
        let Some(text) = start.and_then(|start| String::from_utf8(start).ok()) else { return all };
        if text.trim_start().starts_with('{') {
            return all;
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        let is_separator = |c: char| c.is_whitespace() || "\"()=,;".contains(c);
        let words = text.split(is_separator).filter(|word| word.contains('.'));
        for word in words.filter(|word| word.parse::<f64>().is_err()).take(MAX_NAMES) {
            let names = [folder.join(word), PathBuf::from(word)];
            all.extend(
                names.iter().filter(|name| name.is_file()).filter_map(|n| self.refers_to(n)),
            );
        }
        all
    }

    /// The path itself, and its sections: the images that a table of sections lists, or that a
    /// folder of images contains.
    fn with_sections(self) -> Vec<Self> {
        let members = volume::members(&self.path.to_string_lossy());
        let members: Vec<_> = members.iter().filter_map(|path| self.refers_to(path)).collect();
        std::iter::once(self).chain(members).collect()
    }

    fn refers_to(&self, path: &Path) -> Option<Self> {
        Some(Self { path: resolve_links(path)?, by: Some(self.text.clone()), ..self.clone() })
    }

    /// Whether writing this path would remove or change data of the input `read`.
    fn harms(&self, read: &Self) -> bool {
        // replacing a folder removes its content, and a file added to an image becomes part of the
        // image
        read.at != self.at
            && (read.path.starts_with(&self.path)
                || (self.path.starts_with(&read.path) && is_container(&read.path)))
    }
}

/// Whether a folder is a Zarr or N5 group or array, or a folder of images, where an added file
/// would be read as a section.
fn is_container(path: &Path) -> bool {
    let location = path.display().to_string();
    store::is_folder(path)
        && (!matches!(volume::attributes(&location), Ok(None))
            || !volume::members(&location).is_empty())
}

/// Refuses a path that is neither a file nor a folder, except a pipe if `is_text_read`.
fn check_kind(named: &PathArgument, is_text_read: bool) -> Result<(), Error> {
    let Ok(about) = fs::metadata(&named.path) else { return Ok(()) };
    let kind = about.file_type();
    let what = if kind.is_fifo() && is_text_read {
        return Ok(());
    } else if kind.is_fifo() && !OUTPUT_FLAGS.contains(&named.id) {
        "a pipe, and only tables and transforms can be read from one"
    } else if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        return Ok(());
    };
    Err(Error::Usage(format!("{} is {what}; name a file or a folder", named.text)))
}

/// The absolute path without symbolic links and dots; components that do not exist are kept as
/// given. A URL is returned unchanged.
fn resolve_links(path: &Path) -> Option<PathBuf> {
    if store::is_remote(path) {
        return Some(path.to_owned());
    }
    let path = std::path::absolute(path).ok()?;
    path.ancestors().find_map(|above| {
        let found = above.canonicalize().ok()?;
        let rest = path.strip_prefix(above).ok()?;
        Some(if rest.as_os_str().is_empty() { found } else { found.join(rest) })
    })
}

/// All values of the command line that can name an output or an input: those of flags that accept a
/// path, except numbers and `-`.
pub(super) fn path_arguments<'a>(
    command: &'a Command,
    matches: &ArgMatches,
) -> Vec<PathArgument<'a>> {
    let mut found = Vec::new();
    // a URL, such as the address of a server, is not a location that a program reads or writes
    let is_url = |flag: &clap::Arg| {
        flag.get_value_names().is_some_and(|names| names.iter().any(|name| name.as_str() == "URL"))
    };
    let names_files = |flag: &&clap::Arg| flag.get_possible_values().is_empty() && !is_url(flag);
    for flag in command.get_arguments().filter(names_files) {
        let id = flag.get_id().as_str();
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        for value in values {
            let text = value.to_string_lossy().into_owned();
            if text.is_empty() || text.parse::<f64>().is_ok() {
                continue;
            }
            // some values have the form NAME=LOCATION
            let labelled = text.split_once('=').filter(|_| !Path::new(&text).exists());
            let (label, location) = labelled.map_or((None, text.as_str()), |(a, b)| (Some(a), b));
            if files::is_stream(location) {
                continue;
            }
            let named = PathArgument::new(id, location.to_owned(), found.len());
            found.extend(
                named.map(|named| PathArgument { label: label.map(str::to_owned), ..named }),
            );
        }
    }
    found
}
