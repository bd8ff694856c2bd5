//! Checks that the tests that `docs/correctness.md` names exist, and that no check in a shell
//! script fails unnoticed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::rust_files;

/// The names of all functions in a source text.
fn functions(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split("fn ")
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
}

/// The tests of a shell script: the quoted words after `it`.
fn shell_tests(text: &str) -> impl Iterator<Item = String> + '_ {
    text.lines().filter_map(|line| Some(line.strip_prefix("it \"")?.split_once('"')?.0.to_owned()))
}

/// The texts between backticks in the last cell of each table row.
fn named(text: &str) -> Vec<String> {
    let cells = text.lines().filter_map(|line| line.strip_suffix('|')?.rsplit('|').next());
    cells
        .flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

#[test]
fn every_wrong_result_of_the_past_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = ["lib", "bins", "tests"].map(|name| root.join(name));
    let files = folders.map(|folder| rust_files(&folder)).concat();
    let mut known: BTreeSet<String> = files
        .iter()
        .flat_map(|file| functions(&fs::read_to_string(file).unwrap()).collect::<Vec<_>>())
        .collect();
    known.extend(shell_tests(&fs::read_to_string(root.join("tests/workflows/run.sh")).unwrap()));
    let text = fs::read_to_string(root.join("docs/correctness.md")).unwrap();
    let named = named(&text);
    assert!(named.len() > 40, "only {} tests are named", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !known.contains(*name)).collect();
    assert!(missing.is_empty(), "docs/correctness.md names tests that do not exist: {missing:?}");
}

/// Whether a line contains a check whose failure bash ignores under `set -e`. Bash ignores every
/// failure of `! COMMAND`, and in `A && B` the failure of all commands but the last.
fn may_fail_unseen(line: &str) -> bool {
    let line = line.trim();
    let is_check = |text: &str| ["[ ", "grep ", "fails "].iter().any(|word| text.starts_with(word));
    let all: Vec<&str> = line.split(" && ").collect();
    line.starts_with("! ") || all.len() > 1 && all.iter().all(|text| is_check(text))
}

#[test]
fn no_check_of_a_shell_test_fails_unseen() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("tests");
    let mut seen = 0;
    for folder in [root.clone(), root.join("workflows")] {
        for file in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if file.extension().is_none_or(|extension| extension != "sh") {
                continue;
            }
            seen += 1;
            for line in fs::read_to_string(&file).unwrap().lines() {
                // the last line of a script sets its exit code
                let is_end = line.starts_with("[ \"$failed\"");
                assert!(is_end || !may_fail_unseen(line), "{}: {line}", file.display());
            }
        }
    }
    assert!(seen >= 4, "only {seen} scripts were read");
    assert!(may_fail_unseen("  ! grep -q x y") && may_fail_unseen("[ -e a ] && [ -e b ]"));
    assert!(!may_fail_unseen("[ -e a ] && rm a") && !may_fail_unseen("fails grep -q x y"));
}
