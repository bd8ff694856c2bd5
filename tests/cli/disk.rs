//! Power failures and failing writes, simulated by a preloaded library of ours
//! (`tests/tools/disk.c`) between a program and the disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::recovery::chunks;
use crate::scene::{PhantomPair, Scene, executable, files, program};

/// The library, compiled once with the system's C compiler, which the build needs too.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = LIBRARY.get_or_init(|| {
        let folder = TempDir::new().unwrap();
        let library = folder.path().join("disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tools/disk.c");
        let made = Command::new("cc")
            .args(["-O1", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .arg("-ldl")
            .status();
        assert!(made.unwrap().success(), "tests/tools/disk.c does not compile");
        (folder, library)
    });
    library
}

/// A folder on a simulated disk that can fail.
struct Disk {
    scene: Scene,
    library: &'static Path,
}

impl Disk {
    fn new() -> Self {
        let disk = Self { scene: Scene::new(), library: library() };
        std::fs::create_dir(disk.at("")).unwrap();
        disk
    }

    fn at(&self, name: &str) -> String {
        self.scene.at(&format!("disk/{name}"))
    }

    /// Runs a program on the simulated disk.
    fn run(&self, name: &str, arguments: &[String], settings: &[(&str, &str)]) -> Output {
        let shadow = self.scene.at("shadow");
        std::fs::remove_dir_all(&shadow).ok();
        std::fs::create_dir(&shadow).unwrap();
        Command::new(executable(name))
            .args(arguments)
            .args(["-q", "--threads", "1"])
            .env("LD_PRELOAD", self.library)
            .env("DISK_DIR", self.at("").trim_end_matches('/'))
            .env("DISK_SHADOW", &shadow)
            .envs(settings.iter().copied())
            .output()
            .unwrap()
    }

    /// The number of calls of the last run that changed the disk (`calls`), or that `DISK_FAIL`
    /// named (`failing`).
    fn count(&self, calls: &str) -> usize {
        let count = std::fs::read_to_string(self.scene.at(&format!("shadow/{calls}")));
        count.unwrap().parse().unwrap()
    }

    /// Simulates the power cut: leaves only what was synced, and all that was written to ledgers
    /// and lists, since a disk may write them before the data that they name.
    fn cut(&self) {
        let disk = PathBuf::from(self.at(""));
        let says = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("ledger-") || name == "planes"
        };
        let message: Vec<_> = files(&disk).into_iter().filter(|(path, _)| says(path)).collect();
        std::fs::remove_dir_all(&disk).unwrap();
        self.restore("d1", &disk);
        for (path, bytes) in message {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
    }

    fn restore(&self, id: &str, folder: &Path) {
        std::fs::create_dir_all(folder).unwrap();
        let names = std::fs::read_to_string(self.scene.at(&format!("shadow/{id}")));
        for line in names.unwrap_or_default().lines() {
            let [kind, number, name]: [&str; 3] =
                line.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
            let (id, path) = (format!("{kind}{number}"), folder.join(name));
            if kind == "d" {
                self.restore(&id, &path);
            } else {
                // a file whose name was synced but not its bytes is empty
                let bytes = std::fs::read(self.scene.at(&format!("shadow/{id}")));
                std::fs::write(path, bytes.unwrap_or_default()).unwrap();
            }
        }
    }
}

/// The output of a program, by file name: chunks, tables, files of planes.
fn result(location: &str) -> BTreeMap<String, Vec<u8>> {
    if Path::new(location).is_dir() {
        return chunks(location).into_iter().collect();
    }
    let bytes = std::fs::read(location).unwrap_or_default();
    BTreeMap::from([(String::new(), bytes)])
}

/// Programs that write block by block, each with the name of its output: arrays of three formats,
/// files of planes, a field, a table made of rows.
fn writers() -> Vec<(&'static str, &'static str, Vec<String>)> {
    let pair = PhantomPair::get();
    let (fixed, moving, global) =
        (pair.at("fixed.zarr"), pair.at("moving.zarr"), pair.at("global.json"));
    let apply = [&moving, "--onto", &fixed, "-t", &global, "--chunk", "16,16,16"];
    let copy = |to| [fixed.as_str(), "--to", to, "--chunk", "16,16,16"];
    let blocks = ["--block-size", "48,48,48"];
    let text = |words: &[&[&str]]| words.concat().into_iter().map(str::to_owned).collect();
    vec![
        ("apply-transform", "a.zarr", text(&[&apply, &blocks])),
        ("transcode", "a.n5", text(&[&copy("n5"), &blocks])),
        ("transcode", "a.tif", text(&[&[&fixed, "--to", "tiff", "--block-size", "12,96,96"]])),
        (
            "transcode",
            "t.zarr",
            text(&[&[&global, "--to", "field", "--onto", &fixed, "--block-size", "64,64,64"]]),
        ),
        ("extract-spots", "a.csv", text(&[&[&fixed], &blocks])),
    ]
}

fn onto(arguments: &[String], more: &[&str], output: &str) -> Vec<String> {
    let more = more.iter().copied().chain(["-o", output]).map(str::to_owned);
    arguments.iter().cloned().chain(more).collect()
}

/// Runs a program until a power failure at each of several moments, then again with `--resume`.
/// Returns how often the result differed, or the ledger recorded blocks whose chunks were lost.
fn wrong_after_cuts(name: &str, output: &str, arguments: &[String], more: &[&str]) -> usize {
    let disk = Disk::new();
    let calm = disk.scene.at(output);
    program(name).args(onto(arguments, &[], &calm)).arg("-q").assert().success();
    let out = disk.at(output);
    let whole = disk.run(name, &onto(arguments, more, &out), &[]);
    assert!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    assert!(result(&calm) == result(&out), "{name} is not the same without a cut");
    let calls = disk.count("calls");
    assert!(calls > 30, "{name}: only {calls} calls");
    let (mut wrong, mut cuts) = (0, 0);
    for moment in 1..=10 {
        std::fs::remove_dir_all(disk.at("")).unwrap();
        std::fs::create_dir(disk.at("")).unwrap();
        // not at the very end: the number of writes to the ledger depends on the duration of a run,
        // and a fast run may end before the cut
        let cut = (calls * moment / 12).to_string();
        let run = disk.run(name, &onto(arguments, more, &out), &[("DISK_CUT", &cut)]);
        if run.status.success() {
            assert!(result(&calm) == result(&out), "{name} is not the same without a cut");
            continue;
        }
        assert_eq!(run.status.code(), Some(99), "{name}: cut at {cut} of {calls}");
        cuts += 1;
        disk.cut();
        let resumed = program(name).args(onto(arguments, &["--resume"], &out)).output();
        let resumed = resumed.unwrap();
        // lost blocks are done again, but the ledger should not have recorded them
        let lost = String::from_utf8_lossy(&resumed.stderr).contains(" are gone");
        let same = resumed.status.success() && result(&calm) == result(&out);
        wrong += usize::from(lost || !same);
    }
    assert!(cuts >= 5, "{name}: {cuts} power cuts");
    wrong
}

#[test]
fn after_a_power_cut_at_any_moment_a_resumed_run_has_the_right_bytes() {
    for (name, output, arguments) in writers() {
        assert_eq!(wrong_after_cuts(name, output, &arguments, &[]), 0, "{name} -o {output}");
    }
}

#[test]
fn without_synchronisation_a_power_cut_loses_what_the_ledger_names() {
    let (name, output, arguments) = &writers()[0];
    assert!(wrong_after_cuts(name, output, arguments, &["--no-sync"]) > 0);
}

#[test]
fn what_a_program_has_written_when_it_ends_well_is_on_the_disk() {
    for (name, output, arguments) in writers() {
        let disk = Disk::new();
        let out = disk.at(output);
        let run = disk.run(name, &onto(&arguments, &[], &out), &[]);
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let there = files(Path::new(&disk.at("")));
        disk.cut();
        let kept = files(Path::new(&disk.at("")));
        let scratch = |path: &Path| path.to_string_lossy().contains(".voxloom");
        for (path, bytes) in there.iter().filter(|(path, _)| !scratch(path)) {
            let found = kept.iter().find(|(other, _)| other == path);
            assert!(found.is_some_and(|(_, kept)| kept == bytes), "{} is lost", path.display());
        }
        // without syncing, only ledgers and lists reach the disk
        std::fs::remove_dir_all(disk.at("")).unwrap();
        std::fs::create_dir(disk.at("")).unwrap();
        let run = disk.run(name, &onto(&arguments, &["--no-sync"], &out), &[]);
        assert!(run.status.success());
        disk.cut();
        assert!(result(&out).values().all(Vec::is_empty), "{name}");
    }
}

/// The [`writers`], and further formats and programs, on small volumes, since each runs many times.
fn all_writers() -> Vec<(&'static str, &'static str, Vec<String>)> {
    let pair = PhantomPair::get();
    let (fixed, moving, global) =
        (pair.at("fixed.zarr"), pair.at("moving.zarr"), pair.at("global.json"));
    let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut all = writers();
    for (to, output) in
        [("zarr2", "2.zarr"), ("npy", "a.npy"), ("itk", "a.txt"), ("nifti", "a.nii.gz")]
    {
        let volume = ["zarr2", "npy"].contains(&to);
        let source = if volume { &fixed } else { &global };
        let mut line: Vec<String> = text(&[source, "--to", to]);
        if !volume && to != "itk" {
            line.extend(["--onto".to_owned(), fixed.clone()]);
        }
        all.push(("transcode", output, line));
    }
    all.push(("transcode", "a.nrrd", text(&[&global, "--to", "nrrd", "--onto", &fixed])));
    all.push(("downsample", "d.zarr", text(&[&fixed, "--chunk", "16,16,16"])));
    all.push((
        "ransac",
        "g.json",
        text(&[
            &fixed,
            &moving,
            "--fixed-spots",
            &pair.at("fixed.csv"),
            "--moving-spots",
            &pair.at("moving.csv"),
        ]),
    ));
    all
}

#[test]
fn a_write_that_fails_is_a_failure_whenever_that_is_told() {
    for (number, (name, output, arguments)) in all_writers().into_iter().enumerate() {
        let disk = Disk::new();
        let calm = disk.scene.at(output);
        program(name).args(onto(&arguments, &[], &calm)).arg("-q").assert().success();
        let moments = if number % 2 == 0 { [1, 3, 9] } else { [1, 2, 17] };
        for (call, more) in
            [("write", ""), ("behind", ""), ("fsync", ""), ("rename", ""), ("behind", "--no-sync")]
        {
            let mut seen = 0;
            for at in moments {
                std::fs::remove_dir_all(disk.at("")).unwrap();
                std::fs::create_dir(disk.at("")).unwrap();
                let more: Vec<&str> =
                    Some(more).filter(|more| !more.is_empty()).into_iter().collect();
                let line = onto(&arguments, &more, &disk.at(output));
                let at = at.to_string();
                let run = disk.run(name, &line, &[("DISK_FAIL", call), ("DISK_AT", &at)]);
                let message = String::from_utf8_lossy(&run.stderr);
                let code = run.status.code();
                let what = format!("{name} -o {output}, {call} {at} {more:?}: {code:?} {message}");
                seen += usize::from(code != Some(0));
                assert!(matches!(code, Some(0 | 75)), "{what}");
                if code == Some(0) {
                    assert!(result(&calm) == result(&disk.at(output)), "{what}");
                }
            }
            assert!(seen > 0, "{name} -o {output}: no {call} failed");
        }
    }
}

#[test]
fn a_full_disk_is_one_sentence_exit_75_and_resumable() {
    for (name, output, arguments) in writers() {
        let disk = Disk::new();
        let calm = disk.scene.at(output);
        program(name).args(onto(&arguments, &[], &calm)).arg("-q").assert().success();
        let line = onto(&arguments, &[], &disk.at(output));
        let run = disk.run(name, &line, &[("DISK_FAIL", "write"), ("DISK_AT", "9")]);
        let stderr = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(75), "{name} -o {output}: {stderr}");
        assert_eq!(stderr.trim_end().lines().count(), 1, "{name} -o {output}: {stderr}");
        assert!(stderr.contains("space"), "{name} -o {output}: {stderr}");
        let line = onto(&arguments, &["--resume"], &disk.at(output));
        assert!(disk.run(name, &line, &[]).status.success(), "{name} -o {output}");
        assert!(result(&calm) == result(&disk.at(output)), "{name} -o {output}");
    }
}

#[test]
fn the_last_bytes_of_a_compressed_file_count_too() {
    let pair = PhantomPair::get();
    let (fixed, global) = (pair.at("fixed.zarr"), pair.at("global.json"));
    for (to, output) in [("nifti", "a.nii.gz"), ("nifti", "a.nii"), ("nrrd", "a.nrrd")] {
        let disk = Disk::new();
        let line = [&global, "--to", to, "--onto", &fixed].map(str::to_owned);
        let out = disk.at(output);
        assert!(disk.run("transcode", &onto(&line, &[], &out), &[]).status.success());
        let size = std::fs::metadata(&out).unwrap().len();
        for short in [1, 4, 8, 100] {
            std::fs::remove_dir_all(disk.at("")).unwrap();
            std::fs::create_dir(disk.at("")).unwrap();
            let room = (size - short).to_string();
            let line = onto(&line, &["--receipt", &disk.scene.at("r.json")], &out);
            let run = disk.run("transcode", &line, &[("DISK_ROOM", &room)]);
            assert_eq!(run.status.code(), Some(75), "{output}, {short} bytes short");
            assert!(!Path::new(&out).exists());
        }
    }
}

/// Transforms and volumes in all formats that are written here: the name of the file on the disk,
/// the volume or transform of which it is made, and the value of `--to`.
const READABLE: [(&str, &str, &str); 17] = [
    ("v.zarr", "fixed.zarr", "zarr3"),
    ("2.zarr", "fixed.zarr", "zarr2"),
    ("v.n5", "fixed.zarr", "n5"),
    ("v.tif", "fixed.zarr", "tiff"),
    ("v.npy", "fixed.zarr", "npy"),
    ("t.json", "global.txt", "json"),
    ("t.tfm", "global.txt", "itk"),
    ("ants.mat", "global.txt", "ants"),
    ("greedy.mat", "global.txt", "greedy"),
    ("elastix.txt", "global.txt", "elastix"),
    ("matrix.txt", "global.txt", "bigstream-zyx"),
    ("b.csv", "global.txt", "bigwarp"),
    ("f.zarr", "global.txt", "field"),
    ("f.nii", "global.txt", "nifti"),
    ("f.nii.gz", "global.txt", "nifti"),
    ("f.nrrd", "global.txt", "nrrd"),
    ("ngff.zarr", "global.txt", "ngff"),
];

#[test]
fn a_read_that_fails_is_exit_75_and_is_not_taken_for_another_format() {
    let mut failed = 0;
    for (name, source, to) in READABLE {
        let disk = Disk::new();
        let fixed = disk.scene.volume("fixed.zarr", [20, 24, 28], |[z, y, x]| (z * y + x) as u16);
        let map = "1 0.02 0 1.5\n-0.01 1 0 -2\n0 0.01 1 0.7\n0 0 0 1\n";
        disk.scene.file("global.txt", map);
        let (input, is_volume) = (disk.at(name), source == "fixed.zarr");
        let onto = ["--onto", &fixed].map(str::to_owned);
        let more = if is_volume { &[] } else { &onto[..] };
        let copy = |from: &str, to: &str, output: &str| -> Vec<String> {
            let line = [from, "--to", to, "-o", output, "--overwrite"].map(str::to_owned);
            line.into_iter().chain(more.iter().cloned()).collect()
        };
        let make = copy(&disk.scene.at(source), to, &input);
        program("transcode").args(make).arg("-q").assert().success();
        let output = disk.scene.at(if is_volume { "out.npy" } else { "out.zarr" });
        let mut line = copy(&input, if is_volume { "npy" } else { "field" }, &output);
        if name == "v.npy" {
            line.extend(["--spacing", "1,1,1"].map(str::to_owned));
        }
        assert!(disk.run("transcode", &line, &[]).status.success(), "{name}");
        let calm = result(&output);
        failed += read_faults(&disk, "transcode", &line, &output, &calm);
        if to == "field" {
            let text = [&fixed, "--onto", &fixed, "-t", &input, "--overwrite", "-o", &output];
            let line = text.map(str::to_owned);
            assert!(disk.run("apply-transform", &line, &[]).status.success());
            failed += read_faults(&disk, "apply-transform", &line, &output, &result(&output));
        }
    }
    assert!(failed > 2 * READABLE.len(), "{failed}");
}

/// Runs a command line with one failing read of the disk after the other, and returns how often it
/// failed. It must fail with exit 75, or give the output `calm`.
fn read_faults(
    disk: &Disk,
    name: &str,
    line: &[String],
    output: &str,
    calm: &BTreeMap<String, Vec<u8>>,
) -> usize {
    let mut failed = 0;
    for call in ["read", "open"] {
        for at in (1..8).chain([11, 17, 31]) {
            let number = at.to_string();
            let run = disk.run(name, line, &[("DISK_FAIL", call), ("DISK_AT", &number)]);
            if disk.count("failing") < at {
                break;
            }
            let code = run.status.code();
            let message = String::from_utf8_lossy(&run.stderr);
            let what = format!("{name} {line:?}, {call} {at}: {code:?} {message}");
            assert!(matches!(code, Some(0 | 75)), "{what}");
            assert!(code == Some(75) || *calm == result(output), "{what}");
            failed += usize::from(code == Some(75));
        }
    }
    failed
}
