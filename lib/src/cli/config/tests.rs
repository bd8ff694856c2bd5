use clap::value_parser;

use super::*;
use crate::cli::{FlagSet, shared};

fn command() -> Command {
    let own = Command::new("extract-spots")
        .arg(Arg::new("volume").required(true))
        .arg(Arg::new("max_spots").long("max-spots").value_parser(value_parser!(u32)))
        .arg(Arg::new("radius").long("radius"))
        .arg(Arg::new("output").long("output").short('o').required(true))
        .arg(Arg::new("mask").long("mask").num_args(1..).action(ArgAction::Append));
    shared::add(own, FlagSet::Blocks)
}

/// Parses `arguments` with a parameters file of this text; an error is returned as its text.
fn parse(name: &str, text: &str, arguments: &[&str]) -> Result<ArgMatches, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    let mut all: Vec<OsString> = ["extract-spots", "v.zarr"].map(Into::into).into();
    all.extend(arguments.iter().map(Into::into));
    all.extend(["--config".into(), path.into()]);
    let all = apply(&command(), all).map_err(|e| e.to_string())?;
    command().try_get_matches_from(all.arguments).map_err(|e| e.to_string())
}

fn text(matches: &ArgMatches, id: &str) -> Option<String> {
    matches.get_raw(id)?.next().map(|word| word.to_string_lossy().into_owned())
}

#[test]
fn flags_come_from_the_file_in_either_spelling_and_even_required_ones() {
    let file = "output: a.csv\nmax_spots: 7\nextract-spots:\n  radius: 1..4um\n";
    let matches = parse("p.yaml", file, &[]).unwrap();
    assert_eq!(text(&matches, "output").unwrap(), "a.csv");
    assert_eq!(matches.get_one::<u32>("max_spots"), Some(&7));
    assert_eq!(text(&matches, "radius").unwrap(), "1..4um");
    let json = r#"{"output": "a.csv", "max-spots": 7}"#;
    assert_eq!(text(&parse("p.json", json, &[]).unwrap(), "max_spots").unwrap(), "7");
}

#[test]
fn the_command_line_wins_over_the_section_and_the_section_over_the_top() {
    let file = "max-spots: 1\nextract_spots: {max-spots: 2, overwrite: true}\noutput: top.csv\n";
    let matches = parse("p.yaml", file, &[]).unwrap();
    assert_eq!(text(&matches, "max_spots").unwrap(), "2");
    assert!(matches.get_flag("overwrite"));
    let matches = parse("p.yaml", file, &["--max-spots", "3", "-o", "x", "--resume"]).unwrap();
    assert_eq!(text(&matches, "max_spots").unwrap(), "3");
    assert_eq!(text(&matches, "output").unwrap(), "x");
    assert!(matches.get_flag("resume") && !matches.get_flag("overwrite"));
}

#[test]
fn an_output_that_a_section_names_in_vain_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.yaml");
    let unused = |text: &str, arguments: &[&str]| {
        std::fs::write(&path, text).unwrap();
        let mut all: Vec<OsString> = ["extract-spots", "v.zarr"].map(Into::into).into();
        all.extend(arguments.iter().map(Into::into));
        all.extend(["--config".into(), path.clone().into()]);
        apply(&command(), all).unwrap().unused
    };
    let own = "extract-spots: {output: mine.csv, max-spots: 3}\n";
    let found = unused(own, &["-o", "x", "--max-spots", "2"]);
    assert!(
        matches!(&found[..], [one] if one.contains("extract-spots: output is not used")),
        "{found:?}"
    );
    assert!(unused(own, &[]).is_empty());
    assert!(unused("output: top.csv\nransac: {output: b.json}\n", &["-o", "x"]).is_empty());
}

#[test]
fn an_unknown_key_in_the_section_of_a_later_program_is_found_by_the_first() {
    let error = parse("p.yaml", "deform: {elasticty: 4}\n", &["-o", "x"]).unwrap_err();
    assert!(error.contains("deform: unknown key elasticty; did you mean elasticity?"), "{error}");
    // `max-spots` is a flag of another program
    let error = parse("p.yaml", "deform: {max-spots: 4}\n", &["-o", "x"]).unwrap_err();
    assert!(error.contains("deform: unknown key max-spots"), "{error}");
    for fine in ["deform: {elasticity: 4, verbose: 1, allow-failed: 1}\n", "deform:\n"] {
        parse("p.yaml", fine, &["-o", "x"]).unwrap();
    }
}

#[test]
fn a_key_that_names_a_program_and_a_flag_is_a_section_if_it_is_a_mapping() {
    let matches = parse("p.yaml", "mask: {outlier: 2}\nmax-spots: 7\n", &["-o", "x"]).unwrap();
    assert_eq!(text(&matches, "mask"), None);
    assert_eq!(matches.get_one::<u32>("max_spots"), Some(&7));
    let matches = parse("p.yaml", "mask: tissue.zarr\n", &["-o", "x"]).unwrap();
    assert_eq!(text(&matches, "mask").unwrap(), "tissue.zarr");
    let error = parse("p.yaml", "mask: {outlyer: 2}\n", &["-o", "x"]).unwrap_err();
    assert!(error.contains("mask: unknown key outlyer; did you mean outlier?"), "{error}");
    // a program without this flag
    let other = shared::add(Command::new("ransac"), FlagSet::Blocks);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.yaml");
    std::fs::write(&path, "mask: tissue.zarr\n").unwrap();
    apply(&other, vec!["ransac".into(), "--config".into(), path.into()]).unwrap();
}

#[test]
fn lists_are_values_with_commas_or_repeated_flags() {
    let file = "block-size: [64, 128, 128]\nmask: [a, b]\nverbose: 2\nquiet: false\nradius: null\n";
    let matches = parse("p.yaml", file, &["-o", "x"]).unwrap();
    assert_eq!(matches.get_one::<[usize; 3]>("block-size"), Some(&[64, 128, 128]));
    assert_eq!(matches.get_many::<String>("mask").unwrap().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((matches.get_count("verbose"), text(&matches, "radius")), (2, None));
    assert_eq!(text(&matches, "volume").unwrap(), "v.zarr");
}

#[test]
fn keys_of_other_programs_and_of_the_workflow_pass() {
    let file = "fixed: a\nmoving: b\noutdir: c\nransac: {model: rigid}\nonto: d\ndownsample:\n\
                max-false-alarms: 0.1\n";
    assert!(parse("p.yaml", file, &["-o", "x"]).is_ok());
    assert!(parse("p.yaml", "", &["-o", "x"]).is_ok());
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest() {
    for (file, words) in [
        ("extract-spots: {max-spotts: 1}", ["max-spotts", "max-spots?"]),
        ("max-spotts: 1", ["max-spotts", "max-spots?"]),
        ("extract-spot: {max-spots: 1}", ["extract-spot", "extract-spots?"]),
        ("theads: 1", ["theads", "threads?"]),
        ("extract-spots: 5", ["extract-spots is a program", "a mapping"]),
        ("ransac: 5", ["ransac is a program", "a mapping"]),
        ("extract-spots: {resume: 3}", ["resume", "true or false"]),
        ("extract-spots: {radius: {a: 1}}", ["radius", "a value"]),
        ("max-spots: 1\nmax-spots: 2", ["p.yaml", "max-spots"]),
        ("- 1", ["p.yaml", "flag: value"]),
    ] {
        let error = parse("p.yaml", file, &["-o", "x"]).unwrap_err();
        assert!(words.iter().all(|word| error.contains(word)), "{file}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert!(parse("p.json", "{", &["-o", "x"]).is_err());
}
