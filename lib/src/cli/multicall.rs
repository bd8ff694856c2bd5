//! `voxloom`: all programs in one executable.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::Context as _;
use clap::{Arg, Command};
use clap_complete::Shell;

use super::config::{nearest, vocabulary};
use super::run::{self, VERSION};
use super::{Program, Purpose, exit, print};
use crate::blocks::{Error, write_whole};

const NAME: &str = "voxloom";

/// A program of the multicall executable.
pub struct ProgramEntry {
    name: &'static str,
    purpose: Purpose,
    example: &'static str,
    command: fn() -> Command,
    run: fn(Vec<OsString>) -> ExitCode,
}

impl ProgramEntry {
    /// Creates the entry of the program `P`.
    pub const fn of<P: Program>() -> Self {
        Self {
            name: P::NAME,
            purpose: P::PURPOSE,
            example: P::EXAMPLE,
            command: run::command::<P>,
            run: run::run::<P>,
        }
    }

    /// The program's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The program's name and its long flags except the shared flags, as a line of
    /// [`super::FLAGS`].
    pub fn flags(&self) -> String {
        vocabulary::line_of(&(self.command)())
    }

    fn sentence(&self) -> String {
        (self.command)().get_about().map(ToString::to_string).unwrap_or_default()
    }
}

/// The `main` function of the multicall executable. The program is selected by the name of the link
/// through which the executable is called, or else by the first argument.
pub fn multicall(programs: &[ProgramEntry]) -> ExitCode {
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let called = words.first().map(Path::new).and_then(Path::file_stem);
    let called = called.and_then(|name| name.to_str()).unwrap_or(NAME);
    if let Some(program) = programs.iter().find(|program| program.name == called) {
        return (program.run)(words);
    }
    let first = words.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    if let Some(program) = programs.iter().find(|program| program.name == first) {
        words.remove(0);
        return (program.run)(words);
    }
    let rest: Vec<String> =
        words.iter().skip(2).map(|word| word.to_string_lossy().into_owned()).collect();
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    match answer(programs, first, &rest) {
        Ok(code) => code,
        Err(error) => exit::fail(NAME, &error, false),
    }
}

fn answer(programs: &[ProgramEntry], first: &str, rest: &[&str]) -> anyhow::Result<ExitCode> {
    match (first, rest) {
        ("" | "help" | "-h" | "--help", []) => print(&overview(programs))?,
        ("help", [name]) => {
            let program = find(programs, name)?;
            return Ok((program.run)(vec![program.name.into(), "--help".into()]));
        }
        ("-V" | "--version", []) => print(&format!("{NAME} {VERSION}\n"))?,
        ("completions", [shell]) => print(&completions(programs, shell, None)?)?,
        ("completions", [shell, name]) => print(&completions(programs, shell, Some(name))?)?,
        ("man", [folder]) => write_manual(programs, Path::new(folder))?,
        ("completions", _) => {
            return Err(usage("wanted voxloom completions bash|zsh|fish [PROGRAM]".to_owned()));
        }
        ("man", _) => return Err(usage("wanted voxloom man DIR".to_owned())),
        (name, _) => {
            find(programs, name)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn usage(message: String) -> anyhow::Error {
    Error::Usage(message).into()
}

fn find<'a>(programs: &'a [ProgramEntry], name: &str) -> anyhow::Result<&'a ProgramEntry> {
    programs.iter().find(|program| program.name == name).ok_or_else(|| {
        let meant = nearest(name, programs.iter().map(|program| program.name));
        let meant = meant.map_or_else(String::new, |meant| format!(", did you mean {meant}?"));
        usage(format!("no program {name}{meant} (voxloom --help lists them)"))
    })
}

/// The text of `voxloom --help`: all programs by purpose, with one sentence about each.
fn overview(programs: &[ProgramEntry]) -> String {
    let mut text = format!(
        "{NAME} {VERSION} aligns and warps volumes too large for one machine\n\
         \nUsage: {NAME} PROGRAM ...   (each program is also an executable: PROGRAM ...)\n"
    );
    let width = programs.iter().map(|program| program.name.len()).max().unwrap_or_default();
    for (purpose, heading) in [
        (Purpose::Inspect, "Look at data before and after"),
        (Purpose::Align, "Align one volume to another"),
        (Purpose::Convert, "Change format or resolution"),
        (Purpose::Test, "Make test data"),
    ] {
        let mut of_purpose =
            programs.iter().filter(|program| program.purpose == purpose).peekable();
        if of_purpose.peek().is_some() {
            text.extend(["\n", heading, ":\n"]);
        }
        for program in of_purpose {
            let name = format!("  {:width$}  ", program.name);
            text.extend([&name, &program.sentence(), "\n"]);
        }
    }
    text.push_str(
        "\nvoxloom PROGRAM --help explains a program; voxloom completions bash|zsh|fish prints \
         shell completions, voxloom man DIR writes man pages.\n",
    );
    text
}

/// The multicall executable as a clap command, with the programs as subcommands.
fn tree(programs: &[ProgramEntry]) -> Command {
    let shells = ["bash", "zsh", "fish"];
    Command::new(NAME)
        .version(VERSION)
        .about("Aligns and warps volumes too large for one machine")
        .subcommands(programs.iter().map(|program| (program.command)()))
        .subcommand(
            Command::new("completions")
                .about("Prints shell completions")
                .arg(Arg::new("shell").required(true).value_parser(shells))
                .arg(Arg::new("program")),
        )
        .subcommand(
            Command::new("man")
                .about("Writes man pages")
                .arg(Arg::new("folder").required(true).value_hint(clap::ValueHint::DirPath)),
        )
}

/// The completion script of the program `name`. Without a name, the script is that of the multicall
/// executable; for bash and fish, it also completes each program (a zsh script serves one command).
fn completions(
    programs: &[ProgramEntry],
    shell: &str,
    name: Option<&str>,
) -> anyhow::Result<String> {
    let shell = Shell::from_str(shell)
        .ok()
        .filter(|shell| matches!(shell, Shell::Bash | Shell::Zsh | Shell::Fish))
        .ok_or_else(|| usage(format!("no completions for {shell}; wanted bash, zsh or fish")))?;
    let mut script = Vec::new();
    let mut add = |mut command: Command| {
        let name = command.get_name().to_owned();
        clap_complete::generate(shell, &mut command, name, &mut script);
    };
    match name {
        Some(name) if name != NAME => add((find(programs, name)?.command)()),
        _ => add(tree(programs)),
    }
    if name.is_none() && shell != Shell::Zsh {
        for program in programs {
            add((program.command)());
        }
    }
    String::from_utf8(script).context("the completions are no text")
}

/// Writes the man pages: `voxloom.1`, and one page per program.
fn write_manual(programs: &[ProgramEntry], folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let mut page = Vec::new();
    clap_mangen::Man::new(tree(programs)).render(&mut page)?;
    write_whole(&folder.join(format!("{NAME}.1")), &page)?;
    for program in programs {
        let mut page = Vec::new();
        clap_mangen::Man::new((program.command)()).render(&mut page)?;
        let example = program.example.replace('\\', r"\\").replace('-', r"\-");
        writeln!(page, ".SH EXAMPLE\n.nf\n\\&{example}\n.fi")?;
        write_whole(&folder.join(format!("{}.1", program.name)), &page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::FlagSet;
    use super::*;
    use crate::blocks::Context;

    /// Looks at things.
    #[derive(clap::Args)]
    struct Look {
        /// At what.
        #[arg(long)]
        thing: Option<String>,
    }

    impl Program for Look {
        const NAME: &'static str = "look";
        const PURPOSE: Purpose = Purpose::Inspect;
        const FLAG_SET: FlagSet = FlagSet::Inspect;
        const EXAMPLE: &'static str = "look --thing moon";

        fn run(self, _: &Context) -> anyhow::Result<()> {
            Ok(())
        }
    }

    const PROGRAMS: [ProgramEntry; 1] = [ProgramEntry::of::<Look>()];

    #[test]
    fn the_overview_has_a_sentence_for_each_program() {
        let text = overview(&PROGRAMS);
        assert!(
            text.contains("Look at data before and after:\n  look  Looks at things\n"),
            "{text}"
        );
        assert!(!text.contains("Make test data"));
    }

    #[test]
    fn an_unknown_program_is_exit_2_and_names_the_nearest() {
        let error = answer(&PROGRAMS, "lok", &["x"]).unwrap_err();
        assert!(error.to_string().contains("did you mean look?"), "{error}");
        assert_eq!(exit::code(&error), 2);
        assert_eq!(exit::code(&answer(&PROGRAMS, "completions", &["tcsh"]).unwrap_err()), 2);
    }

    #[test]
    fn completions_know_the_flags_of_a_program() {
        for shell in ["bash", "zsh", "fish"] {
            let script = completions(&PROGRAMS, shell, Some("look")).unwrap();
            assert!(script.contains("thing") && script.contains("threads"), "{shell}");
            assert!(completions(&PROGRAMS, shell, None).unwrap().contains("look"), "{shell}");
        }
    }

    #[test]
    fn the_manual_has_a_page_per_program_with_its_example() {
        let folder = tempfile::tempdir().unwrap();
        write_manual(&PROGRAMS, folder.path()).unwrap();
        let page = std::fs::read_to_string(folder.path().join("look.1")).unwrap();
        assert!(
            page.contains("Looks at things") && page.contains(r"look \-\-thing moon"),
            "{page}"
        );
        assert!(folder.path().join("voxloom.1").exists());
    }

    #[test]
    fn own_flags_are_told_from_the_shared() {
        assert_eq!(PROGRAMS[0].flags(), "look: thing\n");
        assert_eq!(PROGRAMS[0].name(), "look");
    }
}
