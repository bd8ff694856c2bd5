//! A run as a whole, in parts with `--finish`, killed at any moment and resumed, and twice
//! concurrently: always the same chunks, tables, attributes and receipts.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::jobs::{
    CLEAN, DEFORM, DOWNSAMPLE, FLOW, FUSE, INVERSE, INVMAP, LOCAL, MASK, ProgramRun, RELAX, ROUGH,
    SAMPLED, SPOTS, STITCH, TRANSCODE,
};
use crate::scene::{Scene, executable, files, program};

/// The variable that aborts a run at a chosen moment (see `CONTRIBUTING.md`).
const KILL: &str = "VOXLOOM_TEST_KILL";

/// Moments among the tasks: between a result and its ledger entry, and after some tasks.
const AMONG: [&str; 4] = ["unentered", "after:1", "unentered:2", "after:2"];
/// Moments at the end: after the last task of a plan, before the receipt, and before temporary
/// files are removed.
const AT_THE_END: [&str; 3] = ["plan", "receipt", "cleanup"];

fn is_sampled(job: &ProgramRun) -> bool {
    (job.arguments)(&Scene::new()).contains(&"field".to_owned())
}

/// The content of a file.
#[derive(PartialEq)]
enum FileContent {
    Json(Value),
    Bytes(Vec<u8>),
}

type RemainingFiles = BTreeMap<String, FileContent>;

/// The files that a run leaves in its scene, by name; JSON without values that differ between runs.
/// Ledgers and other files in `.voxloom` are ignored.
fn left(scene: &Scene) -> RemainingFiles {
    let here = scene.at("");
    let of = |(path, bytes): (std::path::PathBuf, Vec<u8>)| {
        let name = path.strip_prefix(&here).unwrap().to_str().unwrap().to_owned();
        let text = String::from_utf8(bytes.clone())
            .ok()
            .filter(|_| Path::new(&name).extension().is_some_and(|e| e == "json"));
        let json = text.and_then(|text| serde_json::from_str(&text.replace(&here, "HERE/")).ok());
        let content =
            json.map_or_else(|| FileContent::Bytes(bytes), |json| FileContent::Json(lasting(json)));
        (name, content)
    };
    files(Path::new(&here))
        .into_iter()
        .filter(|(path, _)| !path.to_str().unwrap().contains(".voxloom"))
        .map(of)
        .collect()
}

/// A copy of a value in which receipts keep only the fields that describe the result, not the run.
fn lasting(value: Value) -> Value {
    match value {
        Value::Object(mut map) => {
            if map.contains_key("program") && map.contains_key("seconds") {
                for name in ["command", "parameters", "seconds", "bytes", "peak_memory"] {
                    map.remove(name);
                }
            }
            Value::Object(map.into_iter().map(|(name, value)| (name, lasting(value))).collect())
        }
        Value::Array(all) => all.into_iter().map(lasting).collect(),
        other => other,
    }
}

fn assert_same(wanted: &RemainingFiles, found: &RemainingFiles, what: &str) {
    let names = |all: &RemainingFiles| all.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(wanted), names(found), "{what}: other files");
    for (name, value) in wanted {
        let text = |content: &FileContent| match content {
            FileContent::Bytes(bytes) => format!("{} other bytes", bytes.len()),
            FileContent::Json(json) => format!("{json:#}"),
        };
        assert!(
            *value == found[name],
            "{what}: {name} is {}, wanted {}",
            text(&found[name]),
            text(value)
        );
    }
}

fn run(job: &ProgramRun, scene: &Scene, more: &[&str]) {
    program(job.name).args((job.arguments)(scene)).args(more).assert().success();
}

/// The files that a run without parts and without kills leaves.
fn whole(job: &ProgramRun) -> RemainingFiles {
    let scene = Scene::new();
    run(job, &scene, &[]);
    let left = left(&scene);
    assert!(!left.is_empty());
    left
}

/// Runs with `more` until it aborts at `moment`; returns whether it did.
fn dies(job: &ProgramRun, scene: &Scene, more: &[&str], moment: &str) -> bool {
    let mut command = program(job.name);
    command.args((job.arguments)(scene)).args(more).env(KILL, moment);
    let status = command.output().unwrap().status;
    assert!(status.code().is_none() || status.success(), "{} {moment}: {status}", job.name);
    status.code().is_none()
}

/// Compares a whole run with one in three parts, and with runs killed at each moment and resumed.
fn is_the_same_in_parts_and_after_kills(job: &ProgramRun) {
    let wanted = whole(job);
    let parts = Scene::new();
    for part in ["3/3", "1/3", "2/3"] {
        dies(job, &parts, &["--part", part], "after:1");
        run(job, &parts, &["--part", part]);
    }
    run(job, &parts, &["--finish"]);
    assert_same(&wanted, &left(&parts), &format!("{} in parts", job.name));
    run(job, &parts, &["--finish"]);
    assert_same(&wanted, &left(&parts), &format!("{} finished twice", job.name));
    let rough = Scene::new();
    let kills = AMONG.iter().filter(|moment| dies(job, &rough, &["--resume"], moment)).count();
    assert!(kills >= 1, "{}: no kill among the tasks", job.name);
    run(job, &rough, &["--resume"]);
    assert_same(&wanted, &left(&rough), &format!("{} killed again and again", job.name));
    for moment in AT_THE_END {
        let scene = Scene::new();
        assert!(dies(job, &scene, &[], moment), "{} survives {moment}", job.name);
        run(job, &scene, &["--resume"]);
        assert_same(&wanted, &left(&scene), &format!("{} killed at {moment}", job.name));
    }
}

#[test]
fn spots_are_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&SPOTS);
}

#[test]
fn local_affines_are_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&LOCAL);
}

#[test]
fn a_field_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&DEFORM);
}

#[test]
fn flow_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&FLOW);
}

#[test]
fn cleaned_flow_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&CLEAN);
}

#[test]
fn a_mask_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&MASK);
}

#[test]
fn a_rough_alignment_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&ROUGH);
}

#[test]
fn stitched_tiles_are_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&STITCH);
}

#[test]
fn fused_tiles_are_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&FUSE);
}

#[test]
fn relaxed_planes_are_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&RELAX);
}

#[test]
fn an_inverse_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&INVMAP);
}

#[test]
fn a_volume_carried_back_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&INVERSE);
}

#[test]
fn a_level_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&DOWNSAMPLE);
}

#[test]
fn a_copy_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&TRANSCODE);
}

#[test]
fn a_sampled_transform_is_the_same_in_parts_and_after_kills() {
    is_the_same_in_parts_and_after_kills(&SAMPLED);
}

#[test]
fn a_field_that_is_being_replaced_has_no_chain() {
    for (job, chain) in
        [(&DEFORM, "deform.json"), (&ROUGH, "rough.json"), (&STITCH, "stitched.json")]
    {
        let scene = Scene::new();
        run(job, &scene, &[]);
        assert!(Path::new(&scene.at(chain)).exists());
        assert!(dies(job, &scene, &["--overwrite"], "after:1"), "{} is not killed", job.name);
        assert!(!Path::new(&scene.at(chain)).exists(), "{} leaves the old chain", job.name);
    }
}

#[test]
fn the_second_pass_of_a_field_is_shared_and_resumed_too() {
    let wanted = whole(&DEFORM);
    let scene = Scene::new();
    for part in ["1/2", "2/2"] {
        run(&DEFORM, &scene, &["--part", part]);
    }
    // how many chunks the field has depends on the spacing of its nodes; if it is one, no task may
    // be left for the kill below
    run(&DEFORM, &scene, &["--finish", "--part", "2/2"]);
    assert!(!scene.at("deform.json").is_empty() && !Path::new(&scene.at("deform.json")).exists());
    assert!(
        dies(&DEFORM, &scene, &["--finish"], "unentered")
            || Path::new(&scene.at("deform.json")).exists()
    );
    run(&DEFORM, &scene, &["--finish"]);
    assert_same(&wanted, &left(&scene), "second pass in parts");
}

#[test]
fn what_has_no_second_pass_to_share_refuses_to_finish_a_part() {
    let scene = Scene::new();
    let run = program(SPOTS.name)
        .args((SPOTS.arguments)(&scene))
        .args(["--finish", "--part", "1/2"])
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(2));
    let message = String::from_utf8(run.stderr).unwrap();
    assert!(message.contains("--finish") && message.contains("--part"), "{message}");
    assert!(left(&scene).is_empty());
}

fn start(job: &ProgramRun, scene: &Scene, more: &[&str]) -> Child {
    Command::new(executable(job.name))
        .args((job.arguments)(scene))
        .args(more)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts the same command twice concurrently, several times; both must succeed with the right
/// result.
fn two_at_once(job: &ProgramRun, more: &[&str]) {
    let wanted = whole(job);
    for delay in [0, 30, 200] {
        let scene = Scene::new();
        let first = start(job, &scene, more);
        std::thread::sleep(Duration::from_millis(delay));
        let both = [start(job, &scene, more), first].map(|run| run.wait_with_output().unwrap());
        for run in both {
            let message = String::from_utf8_lossy(&run.stderr);
            assert!(run.status.success(), "{} {more:?} after {delay} ms: {message}", job.name);
        }
        assert_same(&wanted, &left(&scene), &format!("{} twice at once", job.name));
        let folders = std::fs::read_dir(scene.at("")).unwrap().flatten();
        let leftover =
            folders.filter(|entry| entry.file_name().to_string_lossy().ends_with(".voxloom"));
        assert_eq!(leftover.count(), 0, "{}: ledger and rows stay behind", job.name);
    }
}

#[test]
fn two_whole_runs_at_once_do_no_harm_to_each_other() {
    for job in [SPOTS, LOCAL, DEFORM, FLOW, INVMAP, INVERSE, DOWNSAMPLE, TRANSCODE] {
        two_at_once(&job, &["--resume"]);
    }
}

#[test]
fn two_whole_runs_at_once_need_no_resume() {
    for job in [SPOTS, LOCAL, DEFORM] {
        two_at_once(&job, &[]);
    }
}

fn signal(run: &Child, name: &str) {
    let sent = Command::new("kill").args([name, &run.id().to_string()]).status().unwrap();
    assert!(sent.success());
}

/// Whether a run has claimed an output below a folder; files may appear and vanish meanwhile.
fn holds_a_claim(folder: &Path) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .any(|path| path.ends_with("claim.json") || (path.is_dir() && holds_a_claim(&path)))
}

/// Starts a run and suspends it once it has claimed its output; `None` if it ended before that.
fn held(job: &ProgramRun, scene: &Scene) -> Option<Child> {
    let mut run = start(job, scene, &[]);
    while !holds_a_claim(Path::new(&scene.at(""))) {
        if run.try_wait().unwrap().is_some() {
            return None;
        }
    }
    signal(&run, "-STOP");
    if run.try_wait().unwrap().is_some() { None } else { Some(run) }
}

/// Like [`held`], but a run that ended too early is repeated.
fn surely_held(job: &ProgramRun) -> (Scene, Child) {
    (0..20)
        .find_map(|_| {
            let scene = Scene::new();
            held(job, &scene).map(|run| (scene, run))
        })
        .expect("a run is held before it ends")
}

/// Jobs whose tasks write directly into an array, which is claimed when it is created.
const ARRAYS: [ProgramRun; 6] = [FLOW, INVMAP, INVERSE, DOWNSAMPLE, TRANSCODE, SAMPLED];

#[test]
fn a_run_joins_an_equal_one_that_has_just_begun() {
    for job in &ARRAYS {
        let wanted = whole(job);
        let (scene, first) = surely_held(job);
        let second = start(job, &scene, &[]).wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&second.stderr);
        assert!(second.status.success(), "{}: {message}", job.name);
        signal(&first, "-CONT");
        let first = first.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&first.stderr);
        assert!(first.status.success(), "{}: {message}", job.name);
        assert_same(&wanted, &left(&scene), &format!("{} joined", job.name));
    }
}

#[test]
fn a_run_is_refused_by_a_different_one_that_has_just_begun() {
    for job in &ARRAYS {
        let wanted = whole(job);
        let other: &[&str] = match job.name {
            "transcode" if is_sampled(job) => &["--from", "json", "--direction", "moving-to-fixed"],
            "flow" => &["--max-ratio", "0.8"],
            "invmap" => &["--tolerance", "0.3"],
            "downsample" => &["--method", "max"],
            "apply-transform" => &["--interpolation", "nearest"],
            _ => &["--no-sync", "--spacing", "7,7,7"],
        };
        let (scene, first) = surely_held(job);
        let before = files(Path::new(&scene.at("")));
        let second = start(job, &scene, other).wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&second.stderr);
        assert!(!second.status.success() && !message.is_empty(), "{}: {message}", job.name);
        assert!(files(Path::new(&scene.at(""))) == before, "{} {other:?} has written", job.name);
        signal(&first, "-CONT");
        assert!(first.wait_with_output().unwrap().status.success(), "{}", job.name);
        assert_same(&wanted, &left(&scene), &format!("{} beside another", job.name));
    }
}
