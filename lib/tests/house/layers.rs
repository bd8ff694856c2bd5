//! The table of layers, and tests that modules depend only on modules of lower layers.

use std::fs;
use std::path::{Path, PathBuf};

use super::rust_files;

/// The layers from bottom to top; modules of one layer do not depend on each other.
const LAYERS: &[&[&str]] = &[
    &["fingerprint", "golden", "quote"],
    &["geom", "device", "files"],
    &["store"],
    &["table"],
    &["volume"],
    &["blocks", "transform"],
    &["filter", "tiles"],
    &[
        "features",
        "matching",
        "warp",
        "downsample",
        "metric",
        "phantom",
        "transcode",
        "interchange",
    ],
    &["refine", "local_affine", "deform", "invmap", "flow", "mesh", "mask"],
    &["stitch", "fuse"],
    &["report", "inspect"],
    &["cli"],
];

/// The modules that kernels are allowed to use besides their own; of `volume`, only
/// [`ELEMENT_TYPES`]. `warp` is allowed for kernels that need inverted points; at present no kernel
/// uses it.
const KERNELS_KNOW: &[&str] = &["geom", "device", "filter", "warp"];
const ELEMENT_TYPES: &[&str] = &["Dtype", "Voxel"];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The top-level module of a file.
fn module_of(file: &Path) -> String {
    let path = file.strip_prefix(source()).unwrap();
    path.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

/// The modules that a source names after `crate::`.
fn looks(text: &str) -> Vec<String> {
    names_after("crate::", text)
}

/// The names that follow `path` in a source text, outside comments.
fn names_after(path: &str, text: &str) -> Vec<String> {
    let code: Vec<&str> =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let code = code.join("\n");
    let mut names = Vec::new();
    for (at, path) in code.match_indices(path) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue; // a longer identifier that ends in the same word
        }
        let rest = code[at + path.len()..].trim_start();
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.push(head(rest)),
        }
    }
    names
}

fn head(path: &str) -> String {
    path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first name of each path in `a::b, c::{d, e}, f}`.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut starts) = (0, vec![0]);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => starts.push(at + 1),
            _ => {}
        }
    }
    starts.into_iter().map(|at| head(&group[at..])).filter(|name| !name.is_empty()).collect()
}

/// A message for each use of another module that `allowed` (own module, file, used module) refuses.
fn offences(allowed: impl Fn(&str, &Path, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for file in rust_files(&source()) {
        let own = module_of(&file);
        if own == "lib" {
            continue;
        }
        for name in looks(&fs::read_to_string(&file).unwrap()) {
            // a name that is not a module of ours is a macro at the crate root
            let is_module = layer(&name).is_some() || source().join(&name).exists();
            if is_module && name != own && !allowed(&own, &file, &name) {
                let file = file.strip_prefix(source()).unwrap().display();
                found.push(format!("{file} looks at crate::{name}"));
            }
        }
    }
    found
}

#[test]
fn every_module_has_a_layer() {
    for entry in fs::read_dir(source()).unwrap() {
        let module = module_of(&entry.unwrap().path());
        assert!(module == "lib" || layer(&module).is_some(), "{module} is in no layer");
    }
}

#[test]
fn modules_look_down_only() {
    let found = offences(|own, _, name| layer(name).is_some() && layer(name) < layer(own));
    assert!(found.is_empty(), "upward or sideways:\n{}", found.join("\n"));
}

#[test]
fn kernels_know_geometry_and_filters_only() {
    let is_kernel =
        |file: &Path| file.file_name().is_some_and(|name| name == "cpu.rs" || name == "cuda.rs");
    let only_elements = |file: &Path| {
        let names = names_after("crate::volume::", &fs::read_to_string(file).unwrap());
        names.iter().all(|name| ELEMENT_TYPES.contains(&name.as_str()))
    };
    let found = offences(|_, file, name| {
        !is_kernel(file)
            || KERNELS_KNOW.contains(&name)
            || (name == "volume" && only_elements(file))
    });
    assert!(found.is_empty(), "kernels that know too much:\n{}", found.join("\n"));
}

#[test]
fn looks_are_found_in_every_spelling() {
    let text = "use crate::geom::Box3;\nuse crate::{blocks::{Plan, Task}, volume,\n  table::Spot};\n\
                // use crate::cli;\n/// [`crate::report`]\nlet x = crate::warp::go(mycrate::y);";
    assert_eq!(looks(text), ["geom", "blocks", "volume", "table", "warp"]);
    assert!(layer("cli") > layer("blocks") && layer("nothing").is_none());
}
