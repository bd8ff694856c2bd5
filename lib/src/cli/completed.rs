//! Checks whether an earlier run has already done the same work, for programs whose output is a
//! file.
//!
//! An array stores the identity of its run in an attribute ([`crate::blocks::Plan`]). A file (a
//! table, a transform, a page) has no attributes, so its receipt contains the identity: the value
//! of every flag, and the fingerprints of the inputs.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use super::path_conflicts::{self, OUTPUT_FLAGS, PathArgument};
use crate::blocks::{Context, Error, IDENTITY_ATTRIBUTE, Identity, ledger_folder_of, receipt_path};
use crate::files;
use crate::store::{self, EntryKind};
use crate::volume::{self, Existing, Select, Volume};

/// The long names of the flags on which no result depends.
const NEUTRAL_FLAGS: [&str; 18] = [
    "allow-failed",
    "allow-unfinished",
    "config",
    "device",
    "endpoint",
    "finish",
    "log-json",
    "memory",
    "no-sync",
    "overwrite",
    "part",
    "plan",
    "progress",
    "quiet",
    "receipt",
    "resume",
    "threads",
    "verbose",
];

/// Whether a location names a volume in a folder rather than a file.
fn is_folder(output: &Path) -> bool {
    let ends = |path: &Path| {
        let extension = path.extension().and_then(|extension| extension.to_str());
        ["zarr", "n5"].contains(&extension.unwrap_or_default().to_ascii_lowercase().as_str())
    };
    output.ancestors().any(ends) || store::is_folder(output)
}

/// The identity of a run that writes a file: the values of all flags except [`NEUTRAL_FLAGS`].
/// Fingerprints of the content stand in for the paths of inputs, and an output is represented only
/// by whether it is requested. `None` if the output is a folder or standard output, or if an input
/// is a pipe.
///
/// * `parameters`: every flag and its value, defaults included
pub(super) fn identity(
    name: &str,
    command: &Command,
    matches: &ArgMatches,
    parameters: &Map<String, Value>,
) -> Option<Identity> {
    let output = output(matches).filter(|output| !is_folder(output))?;
    let named = path_conflicts::path_arguments(command, matches);
    let mut identity = Identity::of(name);
    for flag in command.get_arguments() {
        let id = flag.get_id().as_str();
        let name = flag.get_long().unwrap_or(id);
        let (Some(value), false) = (parameters.get(name), NEUTRAL_FLAGS.contains(&name)) else {
            continue;
        };
        identity = if OUTPUT_FLAGS.contains(&id) {
            // the result depends on whether this output is requested, but not on its location
            identity.with(name, !value.is_null())
        } else {
            let streams = |value: &Value| value.as_str().is_some_and(files::is_pipe);
            if streams(value) || value.as_array().is_some_and(|list| list.iter().any(streams)) {
                // the content of a pipe is unknown until the program reads the pipe
                return None;
            }
            let read: Vec<Value> =
                named.iter().filter(|named| named.id == id).filter_map(content).collect();
            if read.is_empty() { identity.with(name, value) } else { identity.with(name, read) }
        };
    }
    Some(identity.with("kind", output.extension().map(|kind| kind.to_string_lossy().into_owned())))
}

fn is_file(path: &Path) -> bool {
    let there = store::stat_file(path).ok().flatten();
    there.is_some_and(|there| there.kind == EntryKind::File)
}

/// The file that `--output` names; `None` for standard output.
fn output(matches: &ArgMatches) -> Option<PathBuf> {
    let output = matches.try_get_raw("output").ok().flatten()?.next()?;
    Some(PathBuf::from(output)).filter(|output| !files::is_stream(output))
}

/// Whether an earlier run with the same `identity` has completed the output and its receipt. If so,
/// the present run has nothing to do.
///
/// # Errors
/// [`Error::OtherPlan`] if the receipt is that of a different run; [`Error::Changed`] if an output
/// was changed after the run that wrote it.
pub(super) fn is_done(
    command: &Command,
    matches: &ArgMatches,
    receipt: Option<PathBuf>,
    identity: &Identity,
    ctx: &Context,
) -> Result<bool, Error> {
    let Some(output) = output(matches) else { return Ok(false) };
    let is_whole = ctx.existing == Existing::Resume && !ctx.plan_only && is_file(&output);
    if !is_whole || store::exists(&ledger_folder_of(&output)) {
        return Ok(false);
    }
    let receipt = receipt.unwrap_or_else(|| receipt_path(&output));
    let text = store::get(&receipt).ok().flatten().unwrap_or_default();
    let earlier: Value = serde_json::from_slice(&text).unwrap_or_default();
    let Some(run) = earlier.get(IDENTITY_ATTRIBUTE).and_then(Identity::from_json) else {
        return Ok(false);
    };
    if run != *identity {
        let folder = output.display().to_string();
        let named = path_conflicts::path_arguments(command, matches);
        let difference = input(&run.differs_at(identity), &named)
            .map_or_else(|| run.difference(identity), |input| [input, String::new()]);
        return Err(Error::OtherPlan { folder, difference });
    }
    let failed = earlier.pointer("/blocks/failed").and_then(Value::as_array);
    let believed = earlier.pointer("/results/believed") != Some(&Value::Bool(false));
    let mut outputs = earlier["outputs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let done = failed.is_none_or(Vec::is_empty)
        && believed
        && outputs.all(|path| store::exists(Path::new(path)));
    let content = earlier["content"].as_object().into_iter().flatten();
    let mut changed = content.filter(|(path, then)| {
        volume::fingerprint(path).is_ok_and(|now| then.as_str() != Some(&*now))
    });
    match changed.next() {
        Some((path, _)) if done => Err(Error::Changed { path: path.clone() }),
        _ => Ok(done),
    }
}

/// A sentence that names the input whose content differs from that in the earlier run; `None` if
/// the identities differ elsewhere.
///
/// * `at`: the names and indices that lead to the difference, beginning with a name used by
///   [`identity`]
fn input(at: &[String], named: &[PathArgument]) -> Option<String> {
    let [flag, number, _, ..] = at else { return None };
    let number: usize = number.parse().ok()?;
    let of_flag = |named: &&PathArgument| named.id == flag || named.id.replace('_', "-") == *flag;
    let named =
        named.iter().filter(of_flag).filter(|named| content(named).is_some()).nth(number)?;
    Some(format!("{} has other content than it had", named.text))
}

/// The label of a value, and the fingerprints of the file that the value names and of the files to
/// which that file refers; `None` if none of these files can be read.
fn content(named: &PathArgument) -> Option<Value> {
    let read = named.clone().members().into_iter().flat_map(PathArgument::with_references);
    let read: Vec<Value> = read.filter_map(|named| fingerprint(&named.path)).collect();
    let name = named.label.clone();
    (!read.is_empty()).then(|| json!({"name": name, "content": read}))
}

/// The fingerprint of the file or array at a path; `None` if it cannot be read.
fn fingerprint(path: &Path) -> Option<Value> {
    let location = path.to_str()?;
    if is_file(path) {
        return volume::fingerprint(location).ok().map(Value::from);
    }
    let volume = Volume::open_any(location, &Select::default());
    let known = volume.and_then(|volume| volume.identity());
    known.ok().or_else(|| volume::fingerprint(location).ok().map(Value::from))
}
