//! Finished work is not repeated, interrupted runs can be resumed, and signals end a program at
//! once (`whole.rs` has further tests of kills and concurrent runs).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::scene::{PhantomPair, Scene, executable, files, program};

/// The stored voxels of a container: its chunks, without metadata (which hold run times) and
/// ledger.
pub(crate) fn chunks(location: &str) -> Vec<(String, Vec<u8>)> {
    files(Path::new(location))
        .into_iter()
        .map(|(path, bytes)| {
            (path.strip_prefix(location).unwrap().to_str().unwrap().to_owned(), bytes)
        })
        .filter(|(name, _)| {
            let metadata = ["zarr.json", ".zattrs", "attributes.json"];
            !name.contains(".voxloom") && !metadata.iter().any(|end| name.ends_with(end))
        })
        .collect()
}

fn start(name: &str, arguments: &[String]) -> Child {
    Command::new(executable(name))
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn names(location: &str) -> Vec<String> {
    chunks(location).into_iter().map(|(name, _)| name).collect()
}

fn apply(out: &str) -> Vec<String> {
    let pair = PhantomPair::get();
    [&pair.at("moving.zarr"), "--onto", &pair.at("fixed.zarr")]
        .into_iter()
        .chain(["--transform", &pair.at("global.json"), "-o", out, "--block-size", "32,32,32"])
        .chain(["--chunk", "16,16,16", "--threads", "1"])
        .map(str::to_owned)
        .collect()
}

fn local(out: &str) -> Vec<String> {
    let pair = PhantomPair::get();
    [&pair.at("fixed.zarr"), &pair.at("moving.zarr"), "--initial", &pair.at("global.json")]
        .into_iter()
        .map(str::to_owned)
        .chain(["-o", out, "--block-size", "32,32,32", "--threads", "1"].map(str::to_owned))
        .collect()
}

#[test]
fn a_kill_between_the_last_steps_of_local_affine_leaves_nothing_undone() {
    let scene = Scene::new();
    let (out, table) = (scene.at("local.zarr"), scene.at("blocks.csv"));
    let run = |more: &[&str]| {
        let mut command = program("local-affine");
        command.args(local(&out)).args(["--table", &table]).args(more).assert()
    };
    // after --finish the rows are kept, as after a kill before their removal
    run(&["--part", "1/1"]).success();
    run(&["--finish"]).success();
    let left = format!("{out}.voxloom");
    assert!(Path::new(&left).exists());
    let (maps, rows) = (chunks(&out), std::fs::read(&table).unwrap());
    run(&["--resume"]).success();
    assert!(!Path::new(&left).exists() && chunks(&out) == maps);
    // a missing table is written
    std::fs::remove_file(&table).unwrap();
    run(&["--resume"]).success();
    assert!(std::fs::read(&table).unwrap() == rows && chunks(&out) == maps);
    // but an existing one is not overwritten
    std::fs::remove_dir_all(&out).unwrap();
    run(&[]).failure();
    assert!(std::fs::read(&table).unwrap() == rows && !Path::new(&out).exists());
}

fn deform(out: &str) -> Vec<String> {
    let pair = PhantomPair::get();
    [&pair.at("fixed.zarr"), &pair.at("moving.zarr"), "--initial", &pair.at("global.json")]
        .into_iter()
        .chain(["-o", out, "--block-size", "32,32,32", "--overlap", "8", "--threads", "1"])
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_field_that_is_done_is_not_made_again_and_nothing_beside_it_is_overwritten() {
    let scene = Scene::new();
    let out = scene.at("deform.zarr");
    let run = |more: &[&str]| program("deform").args(deform(&out)).args(more).assert();
    let document = scene.file("deform.json", "{}");
    run(&[]).failure();
    assert!(std::fs::read(&document).unwrap() == b"{}" && !Path::new(&out).exists());
    std::fs::remove_file(&document).unwrap();
    run(&["--part", "1/1"]).success();
    run(&["--finish"]).success();
    let left = format!("{out}.voxloom");
    assert!(Path::new(&left).exists());
    let (chain, before) = (std::fs::read(&document).unwrap(), modified(&out));
    run(&["--resume"]).success();
    assert!(!Path::new(&left).exists() && modified(&out) == before);
    let other = run(&["--resume", "--elasticity", "7"]).failure();
    let message = String::from_utf8_lossy(&other.get_output().stderr).into_owned();
    assert!(message.contains("elasticity") && message.contains("--overwrite"), "{message}");
    assert!(std::fs::read(&document).unwrap() == chain && modified(&out) == before);
    std::fs::remove_file(&document).unwrap();
    run(&["--resume"]).success();
    assert!(std::fs::read(&document).unwrap() == chain);
}

#[test]
fn finished_work_is_not_done_again() {
    let scene = Scene::new();
    let out = scene.at("out.zarr");
    program("apply-transform").args(apply(&out)).assert().success();
    let before: Vec<_> = modified(&out);
    program("apply-transform").args(apply(&out)).arg("--resume").assert().success();
    assert_eq!(before, modified(&out));
    assert!(before.len() > 8);
}

/// The modification time of each chunk.
fn modified(location: &str) -> Vec<(String, std::time::SystemTime)> {
    names(location)
        .into_iter()
        .map(|name| {
            let time = Path::new(location).join(&name).metadata().unwrap().modified().unwrap();
            (name, time)
        })
        .collect()
}

#[test]
fn two_processes_on_one_part_at_once_end_in_the_right_bytes() {
    let scene = Scene::new();
    let (alone, together) = (scene.at("alone.zarr"), scene.at("together.zarr"));
    program("apply-transform").args(apply(&alone)).assert().success();
    let mut arguments = apply(&together);
    arguments.push("--resume".to_owned());
    let both = [start("apply-transform", &arguments), start("apply-transform", &arguments)];
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(names(&alone), names(&together));
    assert!(chunks(&alone) == chunks(&together));
}

#[test]
fn ctrl_c_is_exit_130_and_resumable() {
    let scene = Scene::new();
    let (calm, out) = (scene.at("calm.csv"), scene.at("spots.csv"));
    let fixed = PhantomPair::get().at("fixed.zarr");
    let spots = |out: &str| {
        [&fixed, "-o", out, "--block-size", "16,16,16", "--threads", "1"].map(str::to_owned)
    };
    program("extract-spots").args(spots(&calm)).assert().success();
    let child = start("extract-spots", &spots(&out));
    std::thread::sleep(Duration::from_millis(300));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let status = { child }.wait().unwrap();
    // on a fast machine the run may end before the signal
    assert!(matches!(status.code(), Some(130 | 0)), "{status}");
    assert_eq!(status.code() == Some(0), Path::new(&out).exists());
    program("extract-spots").args(spots(&out)).arg("--resume").assert().success();
    assert!(std::fs::read(calm).unwrap() == std::fs::read(out).unwrap());
}

#[test]
fn a_signal_does_not_wait_for_a_long_block() {
    let scene = Scene::new();
    let (pair, out) = (PhantomPair::get(), scene.at("deform.zarr"));
    let line = [&pair.at("fixed.zarr"), &pair.at("moving.zarr"), "-o", &out]
        .into_iter()
        .chain(["--initial", &pair.at("global.json"), "--threads", "1", "-q"])
        .chain(["--iterations", "65000", "--tolerance", "1e-300"])
        .map(str::to_owned)
        .collect::<Vec<_>>();
    let mut child = start("deform", &line);
    let folder = format!("{out}.voxloom");
    let ledger = || {
        let names = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let mut paths = names.map(|entry| entry.path());
        paths.find(|path| path.file_name().unwrap().to_string_lossy().starts_with("ledger-"))
    };
    while ledger().is_none() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
        std::thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    // the run did not wait for its block: the ledger has only its first line
    assert_eq!(std::fs::read_to_string(ledger().unwrap()).unwrap().lines().count(), 1);
}
