//! The flags that have the same meaning in every program.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::FlagSet;
use super::values::{
    parse_bytes, parse_device, parse_fraction, parse_part, parse_size3, parse_threads,
};
use crate::blocks::{Cancel, Context, Error, Part, Progress, memory_allowed};
use crate::device::Device;
#[cfg(feature = "cloud")]
use crate::store;
use crate::volume::Existing;

/// Adds the shared flags of `flag_set`, except those that the program defines itself.
pub(super) fn add(mut command: Command, flag_set: FlagSet) -> Command {
    let mut flags = Vec::new();
    if flag_set == FlagSet::Blocks {
        flags.extend(block_flags());
    }
    if flag_set != FlagSet::Inspect {
        flags.extend(writing_flags());
    }
    flags.extend(common_flags());
    flags.extend(cloud_flags());
    for flag in flags {
        let own = command
            .get_arguments()
            .any(|arg| arg.get_id() == flag.get_id() || arg.get_long() == flag.get_long());
        if !own {
            command = command.arg(flag.help_heading("Shared options"));
        }
    }
    command
}

fn value(name: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).value_name(value).help(help)
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
}

fn block_flags() -> Vec<Arg> {
    vec![
        value(
            "block-size",
            "Z,Y,X",
            "Size of the output block of a task, voxels; a multiple of the chunk; Y,X of a plane",
        )
        .value_parser(parse_size3),
        value("part", "K/N", "Do only the K-th of N equal parts of the blocks, K from 1")
            .long_help(
                "Do only the K-th of N equal parts of the blocks, K from 1. Work that needs all \
                 blocks is left to --finish; an output that other parts have begun is continued",
            )
            .value_parser(parse_part),
        switch("finish", "After all parts: check that all blocks are done, then do the rest"),
        value(
            "allow-failed",
            "FRACTION",
            "Fraction of blocks that may fail or fall back before exit code 3",
        )
        .value_parser(parse_fraction)
        .default_value("0"),
    ]
}

fn writing_flags() -> Vec<Arg> {
    vec![
        switch("resume", "Continue an output that an earlier run began: do only what is missing"),
        switch("overwrite", "Replace an existing output").conflicts_with("resume"),
        switch("no-sync", "Do not wait until written data are on the disk").long_help(
            "Do not wait until written data are on the disk, for example on a scratch disk: a \
             little faster, but a power cut may lose finished work, and a later --resume may \
             not notice",
        ),
        value("receipt", "JSON", "Write the record of the run as JSON [default: with the output]")
            .value_parser(clap::value_parser!(PathBuf)),
        value("seed", "N", "Seed of the random numbers, where any are used")
            .value_parser(clap::value_parser!(u64))
            .default_value("0"),
        value("device", "DEVICE", "Device that computes: auto, cpu, cuda[:N]")
            .value_parser(parse_device)
            .default_value("auto"),
    ]
}

fn common_flags() -> Vec<Arg> {
    vec![
        value("threads", "N", "Number of threads that compute [default: the CPUs that may be used]")
            .value_parser(parse_threads),
        value("memory", "SIZE", "Upper limit of memory, such as 8GB [default: half of the machine's, or 80 % of a job's limit]")
            .value_parser(parse_bytes),
        switch("plan", "Print tasks, parts and memory by purpose as JSON; compute nothing"),
        switch("allow-unfinished", "Also read volumes and fields with missing blocks"),
        value("config", "FILE", "YAML or JSON with any long flags; the command line takes priority")
            .value_parser(clap::value_parser!(PathBuf)),
        value("progress", "HOW", "Show progress: auto, bar, line, json, none")
            .value_parser(["auto", "bar", "line", "json", "none"])
            .hide_possible_values(true)
            .default_value("auto"),
        switch("verbose", "Print more messages; twice, all of them")
            .short('v')
            .action(ArgAction::Count),
        switch("quiet", "Print only errors").short('q').conflicts_with("verbose"),
        switch("log-json", "Log as JSON, one object per line"),
    ]
}

/// The flags that exist only in builds with support for buckets.
fn cloud_flags() -> Vec<Arg> {
    #[cfg(feature = "cloud")]
    return vec![
        value("endpoint", "URL", "Address of the server for s3:// [default: AWS_ENDPOINT_URL]")
            .value_parser(parse_endpoint),
    ];
    #[cfg(not(feature = "cloud"))]
    Vec::new()
}

#[cfg(feature = "cloud")]
fn parse_endpoint(text: &str) -> Result<String, String> {
    store::check_endpoint(text).map(|()| text.to_owned())
}

/// The values of the shared flags. A flag that the program's flag set lacks, or that the program has
/// redefined, has its default value.
pub(super) struct SharedFlags<'a>(pub(super) &'a ArgMatches);

impl SharedFlags<'_> {
    fn get<T: Clone + Send + Sync + 'static>(&self, name: &str) -> Option<T> {
        self.0.try_get_one::<T>(name).ok().flatten().cloned()
    }

    fn is_set(&self, name: &str) -> bool {
        self.get::<bool>(name).unwrap_or(false)
    }

    /// The number of times that `-v` was given.
    pub(super) fn verbose(&self) -> u8 {
        self.get::<u8>("verbose").unwrap_or(0)
    }

    pub(super) fn quiet(&self) -> bool {
        self.is_set("quiet")
    }

    pub(super) fn log_json(&self) -> bool {
        self.is_set("log-json")
    }

    pub(super) fn allow_unfinished(&self) -> bool {
        self.is_set("allow-unfinished")
    }

    pub(super) fn no_sync(&self) -> bool {
        self.is_set("no-sync")
    }

    /// Sets the address of the server for `s3://`, if one is given.
    pub(super) fn set_endpoint(&self) {
        #[cfg(feature = "cloud")]
        self.get("endpoint").into_iter().for_each(store::set_endpoint);
    }

    pub(super) fn receipt(&self) -> Option<PathBuf> {
        self.get("receipt")
    }

    /// Builds the context that is passed to operations from the values of the flags.
    pub(super) fn context(&self, cancel: Cancel) -> Result<Context, Error> {
        let part = self.get::<Part>("part");
        let finish = self.is_set("finish");
        let shares = part.is_some() || finish;
        let existing = match (self.is_set("overwrite"), self.is_set("resume") || shares) {
            (true, _) if shares => {
                return Err(Error::Usage(
                    "--overwrite with --part or --finish would delete what the parts have done; \
                     remove the output first"
                        .to_owned(),
                ));
            }
            (true, _) => Existing::Overwrite,
            (false, true) => Existing::Resume,
            (false, false) => Existing::Refuse,
        };
        let cpus = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Context {
            threads: self.get("threads").unwrap_or_else(cpus),
            memory: self.get("memory").unwrap_or_else(memory_allowed),
            device: self.get::<Device>("device").unwrap_or_default(),
            block_size: self.get("block-size"),
            part: part.unwrap_or_default(),
            scattered: part.is_some(),
            finish,
            plan_only: self.is_set("plan"),
            existing,
            allow_failed: self.get("allow-failed").unwrap_or(0.0),
            seed: self.get("seed").unwrap_or(0),
            progress: self.progress(),
            cancel,
            ..Context::default()
        })
    }

    fn progress(&self) -> Progress {
        match self.get::<String>("progress").as_deref() {
            Some("bar") => Progress::Bar,
            Some("line") => Progress::Line,
            Some("json") => Progress::Json,
            Some("none") => Progress::None,
            _ if self.quiet() => Progress::None,
            _ => Progress::Auto,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(flag_set: FlagSet, arguments: &[&str]) -> Result<Context, String> {
        let command = add(Command::new("x").no_binary_name(true), flag_set);
        let matches = command.try_get_matches_from(arguments).map_err(|e| e.to_string())?;
        SharedFlags(&matches).context(Cancel::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn defaults_are_a_whole_run_within_what_the_machine_has() {
        let ctx = context(FlagSet::Blocks, &[]).unwrap();
        assert!(ctx.threads >= 1 && ctx.memory > 0 && ctx.memory <= memory_allowed());
        assert_eq!((ctx.part, ctx.existing), (Part { k: 1, n: 1 }, Existing::Refuse));
        assert!(ctx.gathers());
    }

    #[test]
    fn a_part_goes_on_with_what_others_began_and_leaves_the_rest_to_finish() {
        let ctx = context(FlagSet::Blocks, &["--part", "1/1"]).unwrap();
        assert_eq!(ctx.existing, Existing::Resume);
        assert!(!ctx.gathers(), "even where it is the only one");
        assert!(context(FlagSet::Blocks, &["--finish"]).unwrap().gathers());
        let share = context(FlagSet::Blocks, &["--finish", "--part", "1/2"]).unwrap();
        assert!(share.reaches_second_pass() && !share.gathers());
        for wrong in [["--part=0/4", ""], ["--part=5/4", ""], ["--part=1/2", "--overwrite"]] {
            let wrong: Vec<&str> = wrong.into_iter().filter(|flag| !flag.is_empty()).collect();
            assert!(context(FlagSet::Blocks, &wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_shape_has_its_flags_and_no_others() {
        assert!(context(FlagSet::Inspect, &["--threads", "2", "-q"]).is_ok());
        assert!(context(FlagSet::Inspect, &["--resume"]).is_err());
        assert!(context(FlagSet::Whole, &["--resume", "--seed", "3"]).is_ok());
        assert!(context(FlagSet::Whole, &["--part", "1/2"]).is_err());
        assert!(context(FlagSet::Blocks, &["--resume", "--overwrite"]).is_err());
        assert!(context(FlagSet::Blocks, &["--threads", "0"]).is_err());
    }

    #[test]
    fn a_program_may_have_a_flag_of_its_own_in_place_of_a_shared_one() {
        let own = Arg::new("block-size").long("block-size").value_parser(parse_threads);
        let command = add(Command::new("x").no_binary_name(true).arg(own), FlagSet::Blocks);
        let matches = command.try_get_matches_from(["--block-size", "7"]).unwrap();
        assert_eq!(matches.get_one::<usize>("block-size"), Some(&7));
        assert_eq!(SharedFlags(&matches).context(Cancel::default()).unwrap().block_size, None);
    }
}
