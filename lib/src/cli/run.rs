//! Runs a program, from parsing its command line to its exit code.

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{ArgMatches, Command};
use serde_json::{Map, Value, json};

use super::shared::SharedFlags;
use super::{
    FlagSet, Program, completed, config, exit, limits, logging, path_conflicts, shared, streams,
};
use crate::blocks::{
    Cancel, Context, Error, ExitReason, KillPoint, Receipt, abort_if_selected, receipt_path,
    sentence,
};
use crate::{files, store, volume};

/// The voxloom release, common to all programs.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The clap command of a program: its own flags, the shared flags and the help text.
pub(super) fn command<P: Program>() -> Command {
    let command = P::augment_args(Command::new(P::NAME).version(VERSION));
    // clap parses negative numbers as values, so that the error of a refused number names the flag
    let mut command = shared::add(command, P::FLAG_SET).mut_args(|arg| {
        let is_flag = arg.get_long().is_some() && !arg.is_allow_hyphen_values_set();
        let has_value = arg.get_action().takes_values();
        let arg = limits::bounded(arg);
        if is_flag && has_value { arg.allow_negative_numbers(true) } else { arg }
    });
    if P::SECOND_PASS {
        command = command.mut_arg("finish", |arg| {
            arg.long_help(
                "After all parts: check that all blocks are done, then do the rest. With --part K/N, \
                 do only that part of the second pass; run --finish alone last",
            )
        });
    }
    if let Some(help) = P::BLOCK_SIZE {
        command = command.mut_arg("block-size", |arg| arg.help(help));
    }
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    let rest = long.strip_prefix(about.trim_end_matches('.')).unwrap_or_default();
    let rest = rest.trim_start_matches('.').trim().to_owned();
    // the sentence and the example come first, the rest of the description last
    command.about(about.clone()).long_about(about).after_long_help(rest).help_template(format!(
        "{{about-with-newline}}\nExample:\n  {}\n\n{{usage-heading}} {{usage}}\n\n\
         {{all-args}}{{after-help}}",
        P::EXAMPLE
    ))
}

/// Runs a program; the first element of `arguments` is its name.
pub(super) fn run<P: Program>(arguments: Vec<OsString>) -> ExitCode {
    let command = command::<P>();
    let command_line = shell_words(P::NAME, &arguments);
    let config::Configured { arguments, unused } = match config::apply(&command, arguments) {
        Ok(configured) => configured,
        Err(error) => return exit::fail(P::NAME, &error.into(), false),
    };
    let matches = match command.clone().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(error) => return exit::clap(P::NAME, &error),
    };
    let flags = SharedFlags(&matches);
    logging::start(flags.verbose(), flags.quiet(), flags.log_json());
    unused.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    match attempt::<P>(&command, &matches, command_line) {
        Ok(()) => exit::end(0),
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(error) => exit::clap(P::NAME, &error),
            Err(error) => exit::fail(P::NAME, &error, flags.log_json()),
        },
    }
}

fn attempt<P: Program>(
    command: &Command,
    matches: &ArgMatches,
    command_line: String,
) -> anyhow::Result<()> {
    let flags = SharedFlags(matches);
    let program = P::from_arg_matches(matches)?;
    files::set_sync(!flags.no_sync());
    flags.set_endpoint();
    store::remember();
    streams::check(&program, command, matches)?;
    path_conflicts::check(&program, command, matches)?;
    // programs that only inspect are allowed to read unfinished volumes, and report them as
    // unfinished
    volume::allow_unfinished(flags.allow_unfinished() || P::FLAG_SET == FlagSet::Inspect);
    let mut ctx = flags.context(Cancel::on_signals()?)?;
    if path_conflicts::path_arguments(command, matches)
        .iter()
        .any(path_conflicts::PathArgument::is_remote)
    {
        ctx.io_threads = Some(store::IN_FLIGHT.max(ctx.threads.div_ceil(2)));
    }
    if ctx.finish && ctx.scattered && !P::SECOND_PASS {
        let message = format!(
            "--finish with --part: {} does nothing after all parts that could be shared; give --finish alone",
            P::NAME
        );
        return Err(Error::Usage(message).into());
    }
    refuse_receipts(&ctx, &flags, matches)?;
    let mut parameters = parameters(command, matches);
    let only_inspects = P::FLAG_SET == FlagSet::Inspect || ctx.plan_only;
    let run =
        completed::identity(P::NAME, command, matches, &parameters).filter(|_| !only_inspects);
    if let Some(run) = &run
        && completed::is_done(command, matches, flags.receipt(), run, &ctx)?
    {
        tracing::info!("an earlier run has done this; nothing is left to do");
        return Ok(());
    }
    parameters.insert("threads".to_owned(), json!(ctx.threads));
    parameters.insert("memory".to_owned(), json!(ctx.memory));
    let mut receipt = Receipt::begin(P::NAME, VERSION, command_line, parameters);
    receipt.run = run;
    ctx.receipt = receipt.into();
    for place in path_conflicts::referred_to(command, matches) {
        ctx.watch(&place.to_string_lossy());
    }
    // this fails only if a thread pool already exists; that pool is then used
    let _ = rayon::ThreadPoolBuilder::new().num_threads(ctx.threads).build_global();

    if !cfg!(test) {
        std::panic::set_hook(Box::new(|panic| tracing::debug!("{panic}")));
    }
    let done = catch_unwind(AssertUnwindSafe(|| program.run(&ctx)))
        .unwrap_or_else(|panic| Err(panic_error(&*panic)));
    conclude(P::NAME, &ctx, &flags, done)
}

/// Refuses, before the work begins, to replace a file that is not a receipt by the receipt, unless
/// `--overwrite` is given.
fn refuse_receipts(ctx: &Context, flags: &SharedFlags, matches: &ArgMatches) -> anyhow::Result<()> {
    let output = matches.try_get_raw("output").ok().flatten().and_then(|mut values| values.next());
    let receipt = output.filter(|output| !files::is_stream(output));
    let receipt = receipt.map(|output| receipt_path(output.as_ref()));
    Ok(flags.receipt().or(receipt).map_or(Ok(()), |path| ctx.refuse_receipt(&path))?)
}

/// With `--plan`, prints the plan; otherwise writes the receipt. Returns the error of the run, or
/// an error if more blocks failed or fell back than `--allow-failed` permits.
fn conclude(
    name: &str,
    ctx: &Context,
    flags: &SharedFlags,
    done: anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut receipt = ctx.receipt();
    let gaps = |error: &anyhow::Error| {
        error.chain().any(|e| e.downcast_ref::<ExitReason>() == Some(&ExitReason::TooManyFailed))
    };
    match &done {
        Ok(()) if ctx.plan_only => {
            return super::print(&format!("{:#}\n", plan(name, ctx, &receipt)));
        }
        Ok(()) => {}
        Err(error) if gaps(error) => {}
        Err(_) => return done,
    }
    receipt.failure = match &done {
        Err(error) => Some(sentence(error.as_ref())),
        Ok(()) => receipt.verdict(ctx.allow_failed).err().map(|error| error.to_string()),
    };
    // sync first: results that the receipt and the exit code report must survive a power failure
    files::SyncMark::start().sync_pending()?;
    abort_if_selected(KillPoint::Receipt);
    receipt.write(ctx, flags.receipt().as_deref())?;
    files::sync_pending()?;
    abort_if_selected(KillPoint::Cleanup);
    ctx.sweep();
    done?;
    Ok(receipt.verdict(ctx.allow_failed)?)
}

/// All plans of a program as one JSON object.
fn plan(name: &str, ctx: &Context, receipt: &Receipt) -> Value {
    let plans = &receipt.plans;
    let numbers = |path: &str| -> Vec<u64> {
        plans.iter().filter_map(|plan| plan.pointer(path)?.as_u64()).collect()
    };
    let most = |path: &str| numbers(path).into_iter().max();
    json!({
        "program": name,
        "version": VERSION,
        "tasks": numbers("/tasks").iter().sum::<u64>(),
        "parts": ctx.part.n,
        "inputs": receipt.inputs_read(),
        "bytes_per_task": most("/bytes_per_task"),
        "memory": {"allowed": ctx.memory, "needed": most("/memory/needed")},
        "threads": most("/threads"),
        "plans": plans,
    })
}

/// The error for a panic, which is a bug in this program and is reported like any other error.
fn panic_error(panic: &(dyn std::any::Any + Send)) -> anyhow::Error {
    let command_line = panic.downcast_ref::<String>().map(String::as_str);
    let command_line =
        command_line.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    anyhow::anyhow!(
        "a mistake in this program: {command_line}; please report it with the command line"
    )
}

/// Every flag and its value, defaults included.
fn parameters(command: &Command, matches: &ArgMatches) -> Map<String, Value> {
    let mut parameters = Map::new();
    for flag in command.get_arguments() {
        let id = flag.get_id().as_str();
        let Ok(values) = matches.try_get_raw(id) else { continue };
        let many = flag.get_num_args().is_some_and(|range| range.max_values() > 1)
            || matches!(flag.get_action(), clap::ArgAction::Append);
        let mut values = values.into_iter().flatten().map(|word| typed(&word.to_string_lossy()));
        let value = match (many, flag.get_action()) {
            (_, clap::ArgAction::SetTrue) => json!(matches.get_flag(id)),
            (_, clap::ArgAction::Count) => json!(matches.get_count(id)),
            (true, _) => Value::Array(values.collect()),
            (false, _) => values.next().unwrap_or_default(),
        };
        parameters.insert(flag.get_long().unwrap_or(id).to_owned(), value);
    }
    parameters
}

/// A JSON number or Boolean if the text is a number or Boolean, otherwise a string.
fn typed(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => value,
        _ => json!(text),
    }
}

/// A command line, quoted for a shell.
fn shell_words(name: &str, arguments: &[OsString]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,+@%".contains(c);
    let mut words = vec![name.to_owned()];
    words.extend(arguments.iter().skip(1).map(|word| {
        let word = word.to_string_lossy();
        if !word.is_empty() && word.chars().all(plain) {
            word.into_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    }));
    words.join(" ")
}

#[cfg(test)]
mod tests;
