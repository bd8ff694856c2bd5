//! Public functions outside `cli` return typed errors, not those of `anyhow`.

use std::fs;
use std::path::Path;

use super::rust_files;

/// The return types of the public functions and methods of a source.
fn return_types(text: &str) -> Vec<String> {
    let mut types = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if !line.trim_start().starts_with("pub fn ") {
            continue;
        }
        let mut signature = line.to_owned();
        while !signature.ends_with(['{', ';', '}']) {
            let Some(more) = lines.next() else { break };
            signature.push_str(more.trim());
        }
        // closures among the arguments have return types of their own
        types.extend(signature.rsplit_once(") -> ").map(|(_, last)| last.to_owned()));
    }
    types
}

#[test]
fn public_functions_outside_the_command_line_return_typed_errors() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut count = 0;
    for file in rust_files(&source) {
        let name = file.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let types = return_types(&fs::read_to_string(&file).unwrap());
        count += types.len();
        if !name.starts_with("cli/") && types.iter().any(|one| one.contains("anyhow")) {
            found.push(name);
        }
    }
    assert!(count > 300, "{count} return types were read");
    assert_eq!(found, [""; 0], "return an error type of the module in place of anyhow::Result");
}

#[test]
fn a_closure_among_the_arguments_is_no_return_type() {
    let text = "pub fn a(\n    f: impl Fn() -> anyhow::Result<()>,\n) -> Result<u8, Error> {\n}\n\
                pub fn b() {}\npub(super) fn c() -> anyhow::Result<()> {\npub fn d(x: u8) -> anyhow::Result<u8> {";
    assert_eq!(return_types(text), ["Result<u8, Error> {", "anyhow::Result<u8> {"]);
}
