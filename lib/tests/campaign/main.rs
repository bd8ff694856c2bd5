//! Damages valid files of every supported kind in thousands of ways. Each damaged file must be
//! read, or refused with a message, without a panic or a hang and with little memory.
//!
//! The valid files, called seeds, are in `fuzz/seeds`, from which fuzzers start too. They are files
//! of our own writers, files written by hand, and, named `found-...`, files that caused a failure
//! in the past. `VOXLOOM_CAMPAIGN=N` tries N damaged copies of each seed; `VOXLOOM_WRITE_SEEDS=1`
//! writes the seeds anew.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

mod damage;
#[path = "../../../fuzz/src/lib.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a crate of its own, too")]
mod fuzz;
mod seeds;

use fuzz::{TARGETS, Target};

/// Number of damaged copies of each seed, unless `VOXLOOM_CAMPAIGN` is set.
const COPIES: usize = 200;
/// Time limit for reading any file, even on a busy machine. A longer time counts as a hang.
const TIME_LIMIT: Duration = Duration::from_mins(1);

/// Memory is measured for the whole process, so campaigns run one at a time.
static TURN: Mutex<()> = Mutex::new(());

fn folder_of_seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds")
}

/// The seeds of a target: their names and bytes.
fn seeds_of(target: &Target) -> Vec<(String, Vec<u8>)> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder_of_seeds().join(target.name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.iter().map(|path| (name(path), fs::read(path).unwrap())).collect()
}

/// Reads `bytes` as a file of `target`. If reading hangs or panics, the bytes are saved for
/// inspection.
fn read(target: &Target, folder: &Path, bytes: &[u8]) -> fuzz::Read {
    let begun = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(|| fuzz::run(target, folder, bytes)));
    let keep = || {
        let path = folder.with_extension(target.name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    assert!(begun.elapsed() < TIME_LIMIT, "{} hangs: {}", target.name, keep());
    result.unwrap_or_else(|_| panic!("{}: {}", target.name, keep()))
}

/// Damages the seeds of the targets `names`; returns how many copies were read and how many were
/// refused.
fn campaign(names: &[&str]) -> [usize; 2] {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let copies = std::env::var("VOXLOOM_CAMPAIGN").map_or(COPIES, |n| n.parse().unwrap());
    let mut counts = [0; 2];
    for target in TARGETS.iter().filter(|target| names.contains(&target.name)) {
        let folder = tempfile::tempdir().unwrap();
        for (number, (name, seed)) in seeds_of(target).into_iter().enumerate() {
            let whole = read(target, folder.path(), &seed);
            assert!(
                name.starts_with("found-") || whole.is_ok(),
                "{}/{name}: {whole:?}",
                target.name
            );
            let mut random = damage::Random(number as u64 + 7);
            for _ in 0..copies {
                let mut bytes = seed.clone();
                damage::damage(&mut bytes, &mut random);
                counts[usize::from(read(target, folder.path(), &bytes).is_err())] += 1;
            }
        }
    }
    counts
}

#[test]
fn damaged_images_are_read_or_refused() {
    let [read, refused] = campaign(&["tiff", "png", "npy"]);
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

#[test]
fn damaged_containers_are_read_or_refused() {
    let [read, refused] = campaign(&["zarr3", "zarr2", "ome", "n5"]);
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

#[test]
fn damaged_transforms_are_read_or_refused() {
    let [read, refused] = campaign(&[
        "field",
        "chain",
        "matrix",
        "nifti",
        "nrrd",
        "metaimage",
        "hdf5",
        "elastix",
        "itk",
        "matlab",
        "bigwarp",
        "ngff",
        "transform",
    ]);
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

#[test]
fn damaged_tables_ledgers_parameters_and_receipts_are_read_or_refused() {
    let [read, refused] = campaign(&["ledger", "table", "parameters", "receipt"]);
    assert!(read > 100 && refused > 100, "{read} read, {refused} refused");
}

#[test]
fn every_target_has_a_fuzzer_and_a_few_kilobytes_of_seeds() {
    if std::env::var_os("VOXLOOM_WRITE_SEEDS").is_some() {
        seeds::write(&folder_of_seeds());
    }
    let fuzz = folder_of_seeds().with_file_name("");
    let manifest = fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for target in TARGETS {
        let seeds = seeds_of(target);
        let bytes: usize = seeds.iter().map(|(_, seed)| seed.len()).sum();
        assert!(!seeds.is_empty() && bytes < 20_000, "{}: {bytes} bytes of seeds", target.name);
        let fuzzer = fs::read_to_string(fuzz.join(format!("fuzz_targets/{}.rs", target.name)));
        assert!(fuzzer.unwrap().contains(&format!("fuzz!(\"{}\")", target.name)));
        assert!(manifest.contains(&format!("name = \"{}\"", target.name)));
    }
}
