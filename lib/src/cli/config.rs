//! `--config`: one file of parameters for a program or for all programs of a workflow.
//!
//! The top level holds long flags, in kebab or snake case, which apply to every program that has
//! them. A mapping under a program's name applies to that program alone and takes precedence. The
//! command line takes precedence over the file.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::{Map, Value};

use self::vocabulary::is_shared;
use crate::blocks::Error;
use crate::quote;
use crate::store::document;

pub(super) mod vocabulary;

/// Maximum size of a parameters file, in bytes.
const MAX_FILE_SIZE: usize = 1 << 20;
/// Maximum count that a file can give for a counted flag such as `verbose`.
const MAX_COUNT: u64 = 10;

/// Reads a mapping from YAML, or from JSON if the extension is `.json`. This is the only function
/// that uses the YAML crate (`docs/decisions/0002`).
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Usage`] if it does not contain a mapping.
pub fn read_parameters(path: &Path) -> Result<Map<String, Value>, Error> {
    let shown = path.display();
    let refused = |source| Error::Io { action: "read", path: shown.to_string(), source };
    let bytes = document::read_start(path, MAX_FILE_SIZE + 1).map_err(refused)?;
    if bytes.len() > MAX_FILE_SIZE {
        let message =
            format!("{shown}: has more than {MAX_FILE_SIZE} bytes; wanted `flag: value` lines");
        return Err(Error::Usage(message));
    }
    let text = String::from_utf8(bytes)
        .map_err(|e| Error::Usage(format!("{shown}: is no text in UTF-8 ({e})")))?;
    let value: Result<Value, String> = if path.extension().is_some_and(|e| e == "json") {
        serde_json::from_str(&text).map_err(|e| quote::json_error(&e))
    } else if text.trim().is_empty() {
        Ok(Value::Null)
    } else {
        serde_saphyr::from_str(&text).map_err(|e| {
            // the first line holds the line, the column and the description; later lines quote the
            // file
            let message = e.to_string();
            let message = message.lines().next().unwrap_or_default();
            let message = message.trim_start_matches("error: ");
            match message.split_once("budget breached") {
                Some((place, _)) => format!(
                    "{place}has more values than parameters, or nested too deeply; wanted `flag: value` \
                     lines"
                ),
                None => message.to_owned(),
            }
        })
    };
    match value {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Error::Usage(format!("{shown}: wanted `flag: value` lines"))),
        Err(message) => Err(Error::Usage(format!("{shown}: {message}"))),
    }
}

/// Whether a parameters file selects a channel, time point, image, spacing or origin of a volume,
/// for any program. The selection must not be applied again to a volume that was made from the
/// selected part.
///
/// # Errors
/// [`Error`] if the file cannot be read or does not hold parameters.
pub fn selects_a_volume(path: &Path) -> Result<bool, Error> {
    let selects = |key: &String| {
        let key = key.replace('_', "-");
        let name = key.trim_start_matches("fixed-").trim_start_matches("moving-");
        matches!(name, "channel" | "time" | "image" | "spacing" | "origin")
    };
    let parameters = read_parameters(path)?;
    let sections = parameters.values().filter_map(Value::as_object);
    let selects = parameters.keys().chain(sections.flat_map(Map::keys)).any(selects);
    if selects {
        tracing::info!("{}: says which part of a volume is meant", path.display());
    }
    Ok(selects)
}

/// A command line, combined with the parameters of its `--config` file.
pub(super) struct Configured {
    /// The command line, with the flags of the file added.
    pub(super) arguments: Vec<OsString>,
    /// A sentence for each output in the program's section that the command line overrides.
    pub(super) unused: Vec<String>,
}

/// Adds the parameters of the file that follows `--config` to a command line, as flags.
///
/// # Errors
/// [`Error`] if the file cannot be read, or holds a key or a value that is not known.
pub(super) fn apply(command: &Command, arguments: Vec<OsString>) -> Result<Configured, Error> {
    let as_given = |arguments| Configured { arguments, unused: Vec::new() };
    let Some(path) = file(&arguments) else { return Ok(as_given(arguments)) };
    // errors of the command line are ignored here, and reported when all arguments are parsed
    let lenient = command.clone().ignore_errors(true);
    let Ok(given) = lenient.try_get_matches_from(&arguments) else {
        return Ok(as_given(arguments));
    };
    let chosen = choose(command, &path, read_parameters(Path::new(&path))?)?;
    let (mut all, mut unused) = (Vec::new(), Vec::new());
    all.extend(arguments.iter().take(1).cloned());
    for (key, value) in chosen.parameters {
        let Some(flag) = flag(command, &key) else { continue };
        let words = words(flag, &value).map_err(|wanted| {
            Error::Usage(format!("{}: {key}: wanted {wanted}", path.display()))
        })?;
        if !is_given(command, &given, flag) {
            all.extend(words);
        } else if key == "output" && chosen.own.contains(&key) {
            unused.push(format!(
                "{}: {}: output is not used, as the command line gives --output",
                path.display(),
                command.get_name()
            ));
        }
    }
    all.extend(arguments.into_iter().skip(1));
    Ok(Configured { arguments: all, unused })
}

/// The path that follows `--config`.
fn file(arguments: &[OsString]) -> Option<std::path::PathBuf> {
    let mut words = arguments.iter().skip(1).take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        if word == "--config" {
            return words.next().map(Into::into);
        }
        if let Some(path) = word.to_str().and_then(|word| word.strip_prefix("--config=")) {
            return Some(path.into());
        }
    }
    None
}

fn flag<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(key) && key != "config")
}

/// Whether the command line gives the flag, or a flag that conflicts with it.
fn is_given(command: &Command, given: &ArgMatches, flag: &Arg) -> bool {
    let says =
        |arg: &Arg| given.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let excludes = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
    };
    says(flag)
        || command
            .get_arguments()
            .any(|arg| says(arg) && (excludes(arg, flag) || excludes(flag, arg)))
}

/// The parameters of a program.
struct Chosen {
    parameters: Map<String, Value>,
    /// The keys that are in the program's own section.
    own: Vec<String>,
}

/// The parameters of this program. An unknown key is an error, which suggests the most similar
/// known key.
fn choose(command: &Command, path: &Path, file: Map<String, Value>) -> Result<Chosen, Error> {
    let own: Vec<&str> = command.get_arguments().filter_map(Arg::get_long).collect();
    let is_known = |key: &str| {
        flag(command, key).is_some() || vocabulary::keys().any(|k| k == key) || is_shared(key)
    };
    let (mut chosen, mut section) = (Map::new(), Map::new());
    for (key, value) in file {
        let key = key.replace('_', "-");
        let is_mapping = value.is_object() || value.is_null();
        if key == command.get_name() && is_mapping {
            for (key, value) in value.as_object().into_iter().flatten() {
                let key = key.replace('_', "-");
                if flag(command, &key).is_none() {
                    return Err(unknown(path, &format!("{}: ", command.get_name()), &key, &own));
                }
                section.insert(key, value.clone());
            }
        } else if is_mapping && let Some(flags) = vocabulary::flags_of(&key) {
            for inner in value.as_object().into_iter().flat_map(Map::keys) {
                let inner = inner.replace('_', "-");
                if !flags.clone().any(|flag| flag == inner) && !is_shared(&inner) {
                    let flags: Vec<&str> = flags.collect();
                    return Err(unknown(path, &format!("{key}: "), &inner, &flags));
                }
            }
        } else if vocabulary::program_names().any(|name| name == key)
            && !vocabulary::keys().any(|flag| flag == key)
        {
            return Err(Error::Usage(format!(
                "{}: {key} is a program, and a mapping of its flags is wanted, such as {key}: {{flag: value}}",
                path.display()
            )));
        } else if flag(command, &key).is_some() {
            chosen.insert(key, value);
        } else if !is_known(&key) {
            let mut known = own.clone();
            for key in vocabulary::keys().chain(vocabulary::program_names()) {
                known.push(key);
            }
            return Err(unknown(path, "", &key, &known));
        }
    }
    let own = section.keys().cloned().collect();
    chosen.extend(section);
    Ok(Chosen { parameters: chosen, own })
}

fn unknown(path: &Path, section: &str, key: &str, known: &[&str]) -> Error {
    let meant = nearest(key, known.iter().copied().filter(|known| *known != "config"));
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    Error::Usage(format!("{}: {section}unknown key {key}{meant}", path.display()))
}

/// The known word that is most similar to `word`; `None` if no Jaro-Winkler similarity exceeds 0.7.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::jaro_winkler(word, known), known))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// Converts a value of the file to command-line arguments for `flag`. The error is a phrase that
/// states the expected kind of value.
fn words(flag: &Arg, value: &Value) -> Result<Vec<OsString>, &'static str> {
    let long = flag.get_long().unwrap_or_default();
    let with = |text: &str| {
        let mut word = OsString::from(format!("--{long}="));
        word.push(OsStr::new(text));
        word
    };
    let repeated = |times: u64| (0..times).map(|_| OsString::from(format!("--{long}"))).collect();
    match (flag.get_action(), value) {
        (_, Value::Null) => Ok(Vec::new()),
        (ArgAction::SetTrue | ArgAction::Count, Value::Bool(on)) => Ok(repeated(u64::from(*on))),
        (ArgAction::SetTrue, _) => Err("true or false"),
        (ArgAction::Count, _) => value
            .as_u64()
            .filter(|times| *times <= MAX_COUNT)
            .map(repeated)
            .ok_or("a number from 0 to 10"),
        (action, Value::Array(values)) => {
            let texts: Vec<String> = values.iter().map(scalar).collect::<Result<_, _>>()?;
            Ok(match action {
                ArgAction::Append => texts.iter().map(|text| with(text)).collect(),
                // one value with commas, such as z,y,x
                _ => vec![with(&texts.join(","))],
            })
        }
        (_, value) => Ok(vec![with(&scalar(value)?)]),
    }
}

fn scalar(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(on) => Ok(on.to_string()),
        _ => Err("a value or a list of values"),
    }
}

#[cfg(test)]
mod tests;
