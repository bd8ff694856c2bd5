//! Command lines for the tests of `identity.rs`, and checks that no flag of a program is forgotten.

use std::collections::{BTreeMap, BTreeSet};

use crate::scene::{Scene, program};

/// Flags that do not affect the result, or only its location.
const NEUTRAL: [&str; 21] = [
    "allow-unfinished",
    "endpoint",
    "output",
    "part",
    "finish",
    "plan",
    "allow-failed",
    "resume",
    "overwrite",
    "receipt",
    "device",
    "threads",
    "memory",
    "config",
    "progress",
    "verbose",
    "quiet",
    "log-json",
    "help",
    "version",
    "no-sync",
];

/// A command line: its positional arguments, and each flag with its values.
#[derive(Clone)]
pub(crate) struct Line {
    program: &'static str,
    bare: Vec<String>,
    flags: BTreeMap<&'static str, String>,
}

impl Line {
    pub(crate) fn new(
        program: &'static str,
        bare: &[&str],
        flags: &[(&'static str, &str)],
    ) -> Self {
        Self {
            program,
            bare: bare.iter().map(|word| (*word).to_owned()).collect(),
            flags: flags.iter().map(|(flag, value)| (*flag, (*value).to_owned())).collect(),
        }
    }

    pub(crate) fn with(&self, flag: &'static str, value: &str) -> Self {
        let mut line = self.clone();
        for alternative in ["onto", "shape", "fill", "extrapolate"] {
            let pair = [("shape", "onto"), ("extrapolate", "fill")];
            if pair.contains(&(flag, alternative)) {
                line.flags.remove(alternative);
            }
        }
        line.flags.insert(flag, value.to_owned());
        line
    }

    /// The same command line with another input.
    pub(crate) fn reading(&self, input: String) -> Self {
        Self { bare: vec![input], ..self.clone() }
    }

    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = self.bare.clone();
        for (flag, value) in &self.flags {
            words.push(format!("--{flag}"));
            words.extend(value.split_whitespace().map(str::to_owned));
        }
        words
    }

    /// Runs the command line with more arguments; returns whether it succeeded, and its stderr.
    pub(crate) fn run(&self, more: &[&str]) -> (bool, String) {
        let output = program(self.program).args(self.words()).args(more).output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }

    pub(crate) fn succeeds(&self, more: &[&str]) {
        let (succeeded, message) = self.run(more);
        assert!(succeeded, "{} {:?} {more:?}: {message}", self.program, self.words());
    }

    /// Asserts that `--part 2/2` of this command line is refused as part of another run than the
    /// existing output, and that nothing is written.
    pub(crate) fn is_another_run(&self, why: &str, scene: &Scene) {
        let before = scene.contents();
        let (succeeded, message) = self.run(&["--part", "2/2"]);
        assert!(!succeeded, "{} mixes runs: {why}", self.program);
        let names =
            message.contains("was begun with other") || message.contains("cannot be resumed");
        assert!(names, "{} {why}: {message}", self.program);
        assert!(scene.contents() == before, "{} wrote before it refused: {why}", self.program);
    }
}

/// The long flags that `--help` lists.
fn flags_of(program_name: &str) -> BTreeSet<String> {
    let help = program(program_name).arg("--help").output().unwrap().stdout;
    let help = String::from_utf8(help).unwrap();
    help.lines()
        .filter_map(|line| {
            let line = line.trim_start();
            let line = line.strip_prefix('-').filter(|rest| !rest.is_empty())?;
            let at = line.find("--").map(|at| at + 2).or(line.starts_with('-').then_some(1))?;
            let name =
                line[at..].split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).next()?;
            (!name.is_empty()).then(|| name.to_owned())
        })
        .collect()
}

/// Runs the first part of `line`, then the second part with each of `changes`, which must be
/// refused every time. Every flag of the program must be in `changes`, in `NEUTRAL` or in `unused`.
///
/// `unused` are flags that have no effect on this input.
pub(crate) fn no_other_run(
    scene: &Scene,
    line: &Line,
    changes: &[(&'static str, &str)],
    unused: &[&str],
) {
    let changed = changes.iter().map(|(flag, _)| *flag);
    let known: BTreeSet<&str> = changed.chain(NEUTRAL).chain(unused.iter().copied()).collect();
    for flag in flags_of(line.program) {
        let program = line.program;
        assert!(known.contains(flag.as_str()), "{program}: is --{flag} part of its identity?");
    }
    line.succeeds(&["--part", "1/2"]);
    for (flag, value) in changes {
        line.with(flag, value).is_another_run(&format!("--{flag} {value}"), scene);
    }
}

/// Like [`no_other_run`], followed by the second part without changes.
pub(crate) fn only_itself(
    scene: &Scene,
    line: &Line,
    changes: &[(&'static str, &str)],
    unused: &[&str],
) {
    no_other_run(scene, line, changes, unused);
    let neutral =
        ["--part", "2/2", "--threads", "2", "--progress", "line", "--allow-failed", "0.1"];
    line.succeeds(&neutral);
    line.succeeds(&["--finish"]);
}
