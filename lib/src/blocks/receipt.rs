use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::files::write_whole;
use super::{BlockCounts, Context, Error, IDENTITY_ATTRIBUTE, Identity, ledger, process};
use crate::store::{self, document};
use crate::volume::{self, Existing, Watch};
use crate::{files, fingerprint};

/// The record of a run, written as JSON at its end (see `docs/formats.md`).
#[derive(Clone, Default)]
pub struct Receipt {
    /// Results of this program, such as inliers, residuals and NCC.
    pub results: Map<String, Value>,
    /// The program's name.
    pub program: String,
    /// The program's version.
    pub version: String,
    /// The command line.
    pub command: String,
    /// All parameters, defaults included.
    pub parameters: Map<String, Value>,
    /// The identity of the run, if the output is a file in which it cannot be stored.
    pub run: Option<Identity>,
    /// Why the run ended without an acceptable result, if it did.
    pub failure: Option<String>,
    /// The outcomes of the blocks.
    pub blocks: BlockCounts,
    /// `--plan`: the plans to be printed.
    pub plans: Vec<Value>,
    pub(super) inputs: Vec<InputRecord>,
    /// Checks that the input volumes and folders are unchanged.
    pub(super) watched: Vec<Arc<Watch>>,
    pub(super) outputs: Vec<String>,
    /// Bytes read and bytes written; 0 if the operation does not count them.
    pub(super) bytes: [u64; 2],
    /// Seconds in the read, compute and write closures, summed over threads.
    pub(super) stages: [f64; 3],
    /// Where the receipt is written.
    pub(super) sinks: Vec<ReceiptSink>,
    /// The ledger folders of this run.
    pub(super) folders: Vec<PathBuf>,
    /// The folders whose ledgers and rows are removed at the end.
    pub(super) sweeps: Vec<PathBuf>,
    earlier: ResourceUsage,
    started: Option<Instant>,
}

/// An input file or volume.
#[derive(Clone, Debug, Serialize)]
pub(super) struct InputRecord {
    pub(super) location: String,
    pub(super) shape: Option<[usize; 3]>,
    pub(super) dtype: Option<&'static str>,
    pub(super) spacing: Option<[f64; 3]>,
    pub(super) fingerprint: Option<String>,
}

/// A destination of the receipt.
#[derive(Clone)]
pub(super) enum ReceiptSink {
    /// The file `<output>.receipt.json` beside the output with this path.
    File(PathBuf),
    /// The attributes of an array.
    Attribute(Arc<dyn Fn(Value) -> Result<(), Error> + Send + Sync>),
}

/// Resources used by a process; over parts they are summed, except that `peak_memory` is the
/// maximum.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct ResourceUsage {
    seconds: StageSeconds,
    bytes: ByteCounts,
    peak_memory: Option<u64>,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct StageSeconds {
    wall: f64,
    cpu: Option<f64>,
    read: f64,
    compute: f64,
    write: f64,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
struct ByteCounts {
    read: u64,
    written: u64,
}

/// The path of the receipt of an output that has no attributes.
pub fn receipt_path(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".receipt.json");
    name.into()
}

impl Receipt {
    /// The receipt of a run that starts now.
    pub fn begin(
        program: &str,
        version: &str,
        command: String,
        parameters: Map<String, Value>,
    ) -> Self {
        Self {
            program: program.to_owned(),
            version: version.to_owned(),
            command,
            parameters,
            started: Some(Instant::now()),
            ..Self::default()
        }
    }

    /// Refuses a run if more than the fraction `allowed` of its blocks failed or fell back.
    ///
    /// # Errors
    /// [`Error::TooManyFailed`], with the numbers of these blocks and the first few reasons.
    pub fn verdict(&self, allowed: f64) -> Result<(), Error> {
        self.blocks.check(allowed, true)
    }

    /// The receipt as the JSON document that is written.
    pub fn to_json(&self) -> Value {
        let ResourceUsage { seconds, bytes, peak_memory } = self.spent();
        let mut receipt = json!({
            "program": self.program,
            "version": self.version,
            "command": self.command,
            "parameters": self.parameters,
            "inputs": self.inputs,
            "outputs": self.outputs,
            "blocks": self.blocks,
            "results": self.results,
            "seconds": seconds,
            "bytes": bytes,
            "peak_memory": peak_memory,
        });
        if let Some(reason) = &self.failure {
            receipt["failed"] = reason.as_str().into();
        }
        if let Some(run) = &self.run {
            receipt[IDENTITY_ATTRIBUTE] = run.to_json();
            receipt["content"] = self.content().into();
        }
        receipt
    }

    /// The fingerprints of the output files. A later run uses them to tell whether the files are
    /// unchanged.
    fn content(&self) -> Map<String, Value> {
        let is_file = |path: &&String| {
            let there = store::stat_file(Path::new(path)).ok().flatten();
            there.is_some_and(|there| there.kind == store::EntryKind::File)
        };
        self.outputs
            .iter()
            .filter(is_file)
            .filter_map(|path| Some((path.clone(), volume::fingerprint(path).ok()?.into())))
            .collect()
    }

    /// The inputs without duplicates: locations, and for volumes also shape, element type and
    /// spacing.
    pub fn inputs_read(&self) -> Vec<Value> {
        let mut found: Vec<Value> = Vec::new();
        for input in &self.inputs {
            let InputRecord { location, shape, dtype, spacing, .. } = input;
            let one =
                json!({"location": location, "shape": shape, "dtype": dtype, "spacing": spacing});
            if !found.contains(&one) {
                found.push(one);
            }
        }
        found
    }

    /// Writes the receipt to `file` and to its destinations: the attributes of output arrays and,
    /// if there is no `file`, a file beside each output file. The receipt of one part among several
    /// is written beside the ledger, from which `--finish` collects it.
    ///
    /// # Errors
    /// [`Error::NoReceipt`] if a file that is not a receipt would be replaced; an error if the
    /// receipt cannot be written to one of its destinations.
    pub fn write(&self, ctx: &Context, file: Option<&Path>) -> Result<(), Error> {
        let value = self.to_json();
        let mut text = format!("{value:#}").into_bytes();
        text.push(b'\n');
        if let Some(file) = file {
            ctx.refuse_receipt(file)?;
            write_whole(file, &text)?;
        }
        if !ctx.gathers() {
            let name = format!("receipt-{:05}-of-{:05}.json", ctx.part.k, ctx.part.n);
            for folder in self.folders.iter().filter(|folder| store::is_folder(folder)) {
                write_whole(&folder.join(&name), &text)?;
            }
            return Ok(());
        }
        for sink in &self.sinks {
            match sink {
                ReceiptSink::File(path) if file.is_none() => {
                    let path = receipt_path(path);
                    ctx.refuse_receipt(&path)?;
                    write_whole(&path, &text)?;
                }
                ReceiptSink::File(_) => {}
                ReceiptSink::Attribute(set) => set(value.clone())?,
            }
        }
        Ok(())
    }

    /// Adds the resources used by the parts whose receipts are in `folder`.
    pub(super) fn gather(&mut self, folder: &Path) -> Result<(), Error> {
        let paths = ledger::files(folder, "receipt-")?;
        for (path, text) in paths.iter().zip(store::get_several(&paths)) {
            let text = text.map_err(Error::io("read", path))?.unwrap_or_default();
            let part: ResourceUsage =
                serde_json::from_slice(&text).map_err(|e| Error::io("read", path)(e.into()))?;
            self.earlier = self.earlier.plus(&part);
        }
        Ok(())
    }

    fn spent(&self) -> ResourceUsage {
        let moved = process::moved_bytes().unwrap_or_default();
        let bytes = |i: usize| if self.bytes[i] > 0 { self.bytes[i] } else { moved[i] };
        let [read, compute, write] = self.stages;
        let wall = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        let cpu = process::cpu_seconds();
        self.earlier.plus(&ResourceUsage {
            seconds: StageSeconds { wall, cpu, read, compute, write },
            bytes: ByteCounts { read: bytes(0), written: bytes(1) },
            peak_memory: process::peak_memory(),
        })
    }
}

impl ResourceUsage {
    fn plus(&self, other: &Self) -> Self {
        let (a, b) = (&self.seconds, &other.seconds);
        Self {
            seconds: StageSeconds {
                wall: a.wall + b.wall,
                cpu: a.cpu.into_iter().chain(b.cpu).reduce(|a, b| a + b),
                read: a.read + b.read,
                compute: a.compute + b.compute,
                write: a.write + b.write,
            },
            bytes: ByteCounts {
                read: self.bytes.read + other.bytes.read,
                written: self.bytes.written + other.bytes.written,
            },
            peak_memory: self.peak_memory.max(other.peak_memory),
        }
    }
}

impl InputRecord {
    pub(super) fn new(location: &str) -> Self {
        Self {
            location: location.to_owned(),
            shape: None,
            dtype: None,
            spacing: None,
            fingerprint: if files::is_pipe(location) {
                document::read(location).ok().map(|bytes| fingerprint::of(&bytes))
            } else {
                volume::fingerprint(location).ok()
            },
        }
    }
}

impl Context {
    /// The present block counts and results, for an attribute of a finished output. A later run for
    /// which nothing remains to be done reads them with [`Context::restore`].
    pub fn results(&self) -> Value {
        let receipt = self.receipt();
        json!({"blocks": receipt.blocks, "results": receipt.results})
    }

    /// Sets the block counts and results to those of a value that [`Context::results`] returned.
    ///
    /// # Errors
    /// If `value` has another form than the values that [`Context::results`] returns.
    pub fn restore(&self, value: &Value) -> serde_json::Result<()> {
        let part = |name: &str| value.get(name).cloned().unwrap_or_default();
        let (blocks, results) =
            (serde_json::from_value(part("blocks"))?, serde_json::from_value(part("results"))?);
        self.update_receipt(|receipt| (receipt.blocks, receipt.results) = (blocks, results));
        Ok(())
    }

    /// Refuses to replace a file that is not a receipt, unless `--overwrite` is given.
    ///
    /// # Errors
    /// [`Error::NoReceipt`].
    pub fn refuse_receipt(&self, path: &Path) -> Result<(), Error> {
        if self.existing == Existing::Overwrite || !store::exists(path) {
            return Ok(());
        }
        let text = store::get(path).ok().flatten().unwrap_or_default();
        let found: Value = serde_json::from_slice(&text).unwrap_or_default();
        if text.is_empty() || found.get("program").is_some_and(Value::is_string) {
            return Ok(());
        }
        Err(Error::NoReceipt { path: path.display().to_string() })
    }

    /// A copy of the present receipt.
    pub fn receipt(&self) -> Receipt {
        let mut copy = Receipt::default();
        self.update_receipt(|receipt| copy = receipt.clone());
        copy
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::Part;
    use super::*;

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn begun() -> Receipt {
        Receipt::begin("spots", "1.0", "spots a -o b".into(), Map::new())
    }

    #[test]
    fn a_receipt_has_the_fields_of_the_manual_in_their_order() {
        let ctx = Context { receipt: begun().into(), ..Context::default() };
        ctx.record("inliers", 7);
        ctx.add_bytes_read(12);
        let value = ctx.receipt().to_json();
        let fields: Vec<_> = value.as_object().unwrap().keys().collect();
        let wanted = "program version command parameters inputs outputs blocks results seconds \
                      bytes peak_memory";
        assert_eq!(fields, wanted.split_whitespace().collect::<Vec<_>>());
        assert_eq!(value["blocks"], json!({"done": 0, "empty": 0, "fallback": 0, "failed": []}));
        assert_eq!(value["results"]["inliers"], 7);
        assert_eq!(value["bytes"]["read"], 12);
        assert!(value["seconds"]["wall"].as_f64().unwrap() >= 0.0);
    }

    #[test]
    fn a_receipt_lies_beside_the_file_unless_another_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("spots.csv");
        let ctx = Context { receipt: begun().into(), ..Context::default() };
        ctx.output_file(&output);
        let named = folder.path().join("named.json");
        let path = folder.path().join("spots.csv.receipt.json");
        ctx.receipt().write(&ctx, Some(&named)).unwrap();
        assert!(named.exists() && !path.exists());
        ctx.receipt().write(&ctx, None).unwrap();
        assert_eq!(read(&path)["outputs"][0], output.display().to_string());
    }

    #[test]
    fn a_part_leaves_its_receipt_with_the_ledger_and_the_finish_adds_them() {
        let folder = tempfile::tempdir().unwrap();
        for k in 1..=2 {
            let mut receipt = begun();
            receipt.folders.push(folder.path().to_path_buf());
            receipt.bytes = [100, 10];
            receipt.stages = [1.0, 2.0, 3.0];
            receipt.sinks.push(ReceiptSink::File(folder.path().join("x")));
            let ctx = Context { part: Part { k, n: 2 }, ..Context::default() };
            receipt.write(&ctx, None).unwrap();
        }
        assert!(!folder.path().join("x.receipt.json").exists());
        let mut receipt = begun();
        receipt.bytes = [1, 1];
        receipt.gather(folder.path()).unwrap();
        let value = receipt.to_json();
        assert_eq!(value["bytes"], json!({"read": 201, "written": 21}));
        assert_eq!(value["seconds"]["compute"], 4.0);
    }

    #[test]
    fn the_attribute_is_set_even_where_a_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let seen = Arc::new(std::sync::Mutex::new(Value::Null));
        let mut receipt = begun();
        let copy = Arc::clone(&seen);
        receipt.sinks.push(ReceiptSink::Attribute(Arc::new(move |value| {
            *copy.lock().unwrap() = value;
            Ok(())
        })));
        receipt.write(&Context::default(), Some(&folder.path().join("r.json"))).unwrap();
        assert_eq!(seen.lock().unwrap()["program"], "spots");
    }
}
