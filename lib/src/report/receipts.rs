use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::Error;
use crate::quote;

/// A program's record of its run. Missing fields are tolerated, so that receipts of older or newer
/// versions are shown as far as possible.
#[derive(Clone, Debug)]
pub(super) struct Receipt {
    body: Map<String, Value>,
}

/// Reads a text file; an error names the path.
pub(super) fn read_text(path: &Path) -> Result<String, Error> {
    crate::store::document::read_text(path).map_err(|source| Error::Io {
        action: "read",
        path: path.display().to_string(),
        source,
    })
}

impl Receipt {
    /// Reads a receipt: a JSON file, or a container with an array that holds the receipt in its
    /// attribute `voxloom`.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |message: &str| Error::Input {
            path: path.display().to_string(),
            message: format!("{message}; wanted a receipt, or an array that carries one"),
        };
        if !crate::store::is_folder(path) {
            let body = serde_json::from_str(&read_text(path)?)
                .map_err(|e| wrong(&quote::json_error(&e)))?;
            return Self::find(&body).ok_or_else(|| wrong("there is no \"program\" in it"));
        }
        let names = ["zarr.json", ".zattrs", "attributes.json"];
        let files = [path.to_owned(), path.join("0"), path.join("s0")]
            .into_iter()
            .flat_map(|folder| names.map(|name| folder.join(name)));
        for file in files.filter(|file| crate::store::exists(file)) {
            let body: Value = serde_json::from_str(&read_text(&file)?)
                .map_err(|e| wrong(&quote::json_error(&e)))?;
            let attributes = body.get("attributes").unwrap_or(&body);
            if let Some(receipt) = attributes.get("voxloom").and_then(Self::find) {
                return Ok(receipt);
            }
        }
        Err(wrong("its attributes hold no \"voxloom\""))
    }

    fn find(value: &Value) -> Option<Self> {
        let body = value.as_object()?;
        if body.get("program").is_some_and(Value::is_string) {
            return Some(Self { body: body.clone() });
        }
        body.get("receipt").and_then(Self::find)
    }

    fn text(&self, name: &str) -> String {
        match self.body.get(name) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(words)) => words
                .iter()
                .map(|w| w.as_str().map_or(w.to_string(), str::to_owned))
                .collect::<Vec<_>>()
                .join(" "),
            Some(Value::Null) | None => String::new(),
            Some(other) => other.to_string(),
        }
    }

    pub(super) fn program(&self) -> String {
        self.text("program")
    }

    /// A value among the results.
    pub(super) fn result(&self, name: &str) -> Option<&Value> {
        self.body.get("results")?.get(name)
    }

    fn number(&self, pointer: [&str; 2]) -> Option<f64> {
        self.body.get(pointer[0])?.get(pointer[1])?.as_f64()
    }

    pub(super) fn wall(&self) -> Option<f64> {
        self.number(["seconds", "wall"])
    }

    pub(super) fn cpu(&self) -> Option<f64> {
        self.number(["seconds", "cpu"])
    }

    pub(super) fn peak_memory(&self) -> Option<f64> {
        self.body.get("peak_memory").and_then(Value::as_f64)
    }

    /// The number of blocks with the outcome `how`. The receipt stores either this number or a list
    /// of these blocks.
    fn blocks(&self, how: &str) -> u64 {
        match self.body.get("blocks").and_then(|b| b.get(how)) {
            Some(Value::Array(blocks)) => blocks.len() as u64,
            Some(value) => value.as_u64().unwrap_or(0),
            None => 0,
        }
    }

    /// Warnings: blocks that failed or fell back, with reasons, and the program's own warnings.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        let program = self.program();
        for (how, words) in [("failed", "failed"), ("fallback", "fell back to the stated rule")] {
            let count = self.blocks(how);
            if count == 0 {
                continue;
            }
            let total: u128 = ["done", "empty", "failed", "fallback"]
                .map(|how| self.blocks(how).into())
                .iter()
                .sum();
            let reasons = self.reasons(how);
            let why = if reasons.is_empty() { String::new() } else { format!(": {reasons}") };
            out.push(format!("{program}: {count} of {total} blocks {words}{why}"));
        }
        if let Some(Value::Array(own)) = self.body.get("warnings") {
            out.extend(own.iter().filter_map(Value::as_str).map(|w| format!("{program}: {w}")));
        }
        out
    }

    /// The reasons of the first few blocks with the outcome `how`, each with the index of its
    /// block.
    fn reasons(&self, how: &str) -> String {
        const SHOWN: usize = 4;
        let Some(Value::Array(blocks)) = self.body.get("blocks").and_then(|b| b.get(how)) else {
            return String::new();
        };
        let mut out: Vec<String> = blocks
            .iter()
            .take(SHOWN)
            .map(|b| {
                let index = b.get("index").map(plain).unwrap_or_default();
                let reason = b.get("reason").and_then(Value::as_str).unwrap_or("no reason given");
                format!("[{index}] {reason}")
            })
            .collect();
        if blocks.len() > SHOWN {
            out.push(format!("and {} more", blocks.len() - SHOWN));
        }
        out.join("; ")
    }

    /// The whole receipt, arranged in rows for the page.
    pub(super) fn view(&self) -> Value {
        let rows = |name: &str| -> Vec<[String; 2]> {
            match self.body.get(name) {
                Some(Value::Object(map)) => {
                    let mut rows = Vec::new();
                    flatten("", map, &mut rows);
                    rows
                }
                _ => Vec::new(),
            }
        };
        let places = |name: &str| -> Vec<String> {
            let Some(Value::Array(list)) = self.body.get(name) else { return Vec::new() };
            list.iter().map(place).collect()
        };
        let counts = ["done", "empty", "fallback", "failed"]
            .map(|how| json!({ "how": how, "count": self.blocks(how) }));
        json!({
            "program": self.program(),
            "version": self.text("version"),
            "command": self.text("command"),
            "parameters": rows("parameters"),
            "results": rows("results"),
            "inputs": places("inputs"),
            "outputs": places("outputs"),
            "blocks": counts,
            "has_blocks": self.body.get("blocks").is_some_and(Value::is_object),
        })
    }
}

/// An input or output on one line.
fn place(value: &Value) -> String {
    let Some(body) = value.as_object() else { return plain(value) };
    let get = |name: &str| body.get(name).filter(|v| !v.is_null()).map(plain);
    let mut line = get("location").or_else(|| get("path")).unwrap_or_else(|| plain(value));
    if let Some(shape) = get("shape") {
        line += &format!(" · {}", shape.replace(", ", " × "));
    }
    for (name, unit) in [("dtype", ""), ("spacing", " µm")] {
        if let Some(text) = get(name) {
            line += &format!(" · {}{unit}", text.replace(", ", " × "));
        }
    }
    line
}

/// A JSON value as text for the page.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".to_owned(),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(", "),
        Value::Number(number) if number.is_f64() => {
            super::figures::short(number.as_f64().unwrap_or(f64::NAN))
        }
        other => other.to_string(),
    }
}

fn flatten(prefix: &str, map: &Map<String, Value>, rows: &mut Vec<[String; 2]>) {
    for (name, value) in map {
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                flatten(&format!("{prefix}{name}."), inner, rows);
            }
            _ => rows.push([format!("{prefix}{name}"), plain(value)]),
        }
    }
}

/// Reads all receipts, in the given order.
pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<Receipt>, Error> {
    paths.iter().map(|path| Receipt::read(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Value {
        json!({
            "program": "local-affine", "version": "0.1.0",
            "command": ["local-affine", "a", "b"],
            "parameters": {"block_size": [64, 64, 64], "nested": {"x": 0.25}},
            "blocks": {"done": 6, "empty": 1, "fallback": 0,
                       "failed": [{"index": [0, 1, 1], "reason": "chunk 0/1/1 is damaged"}]},
            "seconds": {"wall": 2.5, "cpu": 4.75}, "peak_memory": 1_000_000,
        })
    }

    #[test]
    fn a_receipt_is_found_in_a_file_and_in_the_attributes_of_an_array() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("r.json");
        std::fs::write(&file, example().to_string()).unwrap();
        let array = folder.path().join("a.zarr");
        std::fs::create_dir_all(array.join("0")).unwrap();
        std::fs::write(array.join("zarr.json"), "{\"attributes\": {\"ome\": {}}}").unwrap();
        let inner = json!({"attributes": {"voxloom": {"receipt": example()}}});
        std::fs::write(array.join("0/zarr.json"), inner.to_string()).unwrap();
        for path in [file, array] {
            let receipt = Receipt::read(&path).unwrap();
            assert_eq!((receipt.wall(), receipt.cpu()), (Some(2.5), Some(4.75)));
            assert_eq!(receipt.view()["command"], "local-affine a b");
            assert_eq!(receipt.view()["parameters"][1], json!(["nested.x", "0.25"]));
        }
    }

    #[test]
    fn failed_blocks_are_warned_of_with_their_reasons() {
        let receipt = Receipt::find(&example()).unwrap();
        let warnings = receipt.warnings();
        assert_eq!(
            warnings,
            ["local-affine: 1 of 8 blocks failed: [0, 1, 1] chunk 0/1/1 is damaged"]
        );
    }

    #[test]
    fn counts_of_blocks_that_no_run_had_do_not_overflow() {
        let blocks = json!({"done": u64::MAX, "empty": u64::MAX, "failed": u64::MAX});
        let receipt = Receipt::find(&json!({"program": "deform", "blocks": blocks})).unwrap();
        let warning = receipt.warnings().concat();
        assert!(warning.contains("of 55340232221128654845 blocks"), "{warning}");
    }

    #[test]
    fn what_is_no_receipt_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.json");
        std::fs::write(&file, "{\"a\": 1}").unwrap();
        for path in [file.as_path(), folder.path()] {
            let message = Receipt::read(path).unwrap_err().to_string();
            assert!(message.contains("receipt"), "{message}");
        }
    }
}
