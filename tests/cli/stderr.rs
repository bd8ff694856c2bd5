//! Output on stderr never affects the work, even without a reader, and a signal ends every
//! program.

use std::io::{PipeReader, Read as _, Write as _, pipe};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::scene::{PhantomPair, Scene, executable, program};

/// Capacity of a pipe on Linux, in bytes, beyond which a writer blocks.
const FULL: usize = 1 << 16;

/// A volume of 27 chunks of which one is truncated: a run reports it, and ends with code 3.
fn damaged(scene: &Scene) -> String {
    let value = |[z, y, x]: [i64; 3]| ((z * z + y * 5 + x * x) % 251) as u16;
    let volume = scene.volume::<u16>("in.zarr", [48; 3], value);
    let chunk = std::fs::File::options().write(true).open(format!("{volume}/0/c/0/0/0")).unwrap();
    chunk.set_len(40).unwrap();
    volume
}

/// Programs that read the volume, with their arguments.
fn readers(scene: &Scene, volume: &str) -> Vec<(&'static str, Vec<String>)> {
    let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let identity = scene.file("t.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    let blocks = ["--block-size", "16,16,16", "--threads", "2"];
    let of = |own: &[&str]| words(&[&[volume], own, &blocks].concat());
    vec![
        ("transcode", of(&["--chunk", "16,16,16", "-o", &scene.at("o.zarr")])),
        ("extract-spots", of(&["--radius", "2..5", "-o", &scene.at("o.csv")])),
        (
            "apply-transform",
            of(&[
                "--onto",
                volume,
                "-t",
                &identity,
                "--chunk",
                "16,16,16",
                "-o",
                &scene.at("p.zarr"),
            ]),
        ),
    ]
}

/// Waits for a program that must not hang; after three minutes the test fails.
fn wait(child: &mut Child, what: &str) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > Duration::from_mins(3) {
            let _ = child.kill();
            panic!("{what} hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&vec![b'.'; FULL]).unwrap();
    (reader, writer.into())
}

#[test]
fn a_run_whose_talk_nobody_reads_ends_with_the_code_of_its_work() {
    let scene = Scene::new();
    let volume = damaged(&scene);
    for (name, arguments) in readers(&scene, &volume) {
        for progress in ["auto", "json"] {
            let command = |stderr: Stdio| {
                let mut command = Command::new(executable(name));
                command.args(&arguments).args(["--overwrite", "-v", "--progress", progress]);
                command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap()
            };
            // a pipe whose reader is closed
            let (reader, writer) = pipe().unwrap();
            drop(reader);
            let status = wait(&mut command(writer.into()), name);
            assert_eq!(status.code(), Some(3), "{name}, a pipe without a reader");
            // a pipe whose reader is open but does not read
            let (reader, writer) = full_pipe();
            let status = wait(&mut command(writer), name);
            assert_eq!(status.code(), Some(3), "{name}, a full pipe");
            drop(reader);
        }
    }
}

#[test]
fn closed_streams_and_full_devices_are_no_reason_to_fail() {
    let scene = Scene::new();
    let volume = damaged(&scene);
    for (name, arguments) in readers(&scene, &volume) {
        for streams in ["2>&-", ">&- 2>&-", "<&- >&- 2>&-", "2>/dev/full"] {
            let script = format!("exec \"$0\" \"$@\" {streams}");
            let mut shell = Command::new("sh");
            shell.args(["-c", &script]).arg(executable(name)).args(&arguments).arg("--overwrite");
            let status = wait(&mut shell.spawn().unwrap(), name);
            assert_eq!(status.code(), Some(3), "{name} {streams}");
        }
    }
    // data on stdout that cannot be written are an error
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut help = Command::new(executable("inspect"));
    help.arg("--help").stdout(full).stderr(Stdio::null());
    assert_ne!(help.status().unwrap().code(), Some(0), "a help that could not be written");
}

#[test]
fn a_message_of_any_length_is_some_hundred_letters() {
    let scene = Scene::new();
    let digits = scene.file("digits.txt", &"1".repeat(3_000_000));
    let points = scene.file("p.csv", "z_um,y_um,x_um\n1,2,3\n");
    let class = format!(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: {}_double_3_3\nParameters: 1 0 0 0 1 0 0 0 1 0 0 0\n\
         FixedParameters: 0 0 0\n",
        "A".repeat(20_000)
    );
    let class = scene.file("class.tfm", &class);
    let key = scene.file("key.yaml", &format!("{}: 1\n", "k".repeat(100_000)));
    let value = scene.file("value.yaml", &format!("radius: {}\n", "r".repeat(100_000)));
    let table = scene.file("t.csv", &format!("z_um,y_um,x_um\n1,2,{}\n", "x".repeat(1_000_000)));
    let header = scene.file("h.csv", &format!("a{}\n1\n", ",column".repeat(100_000)));
    let out = scene.at("out.json");
    let long = "9".repeat(100_000);
    for (name, arguments) in [
        ("inspect", vec![&*digits]),
        ("apply-transform", vec!["--points", &points, "-t", &digits, "-o", &out]),
        ("apply-transform", vec!["--points", &table, "-t", &points, "-o", &out]),
        ("apply-transform", vec!["--points", &table, "-t", &class, "-o", &out]),
        ("transcode", vec![&class, "--to", "json", "-o", &out]),
        ("inspect", vec![&header]),
        ("extract-spots", vec!["a.zarr", "-o", &out, "--config", &key]),
        ("extract-spots", vec!["a.zarr", "-o", &out, "--config", &value]),
        ("extract-spots", vec!["a.zarr", "-o", &out, "--max-spots", &long]),
        ("extract-spots", vec!["a.zarr", "-o", &out, "--detector", &long]),
        ("extract-spots", vec![&long, "-o", &out]),
        ("voxloom", vec![&long]),
    ] {
        let message = program(name).args(&arguments).output().unwrap();
        let shown: Vec<_> = arguments.iter().map(|word| &word[..word.len().min(40)]).collect();
        assert!(
            matches!(message.status.code(), Some(1 | 2)),
            "{name} {shown:?}: {:?}",
            message.status
        );
        let length = message.stderr.len();
        assert!(length < 3000 && length > 20, "{name} {shown:?}: {length} bytes of message");
    }
    assert!(!Path::new(&out).exists());
}

#[test]
fn a_log_in_json_is_json_whatever_it_quotes() {
    let scene = Scene::new();
    let digits = scene.file("digits.txt", &"1".repeat(1_000_000));
    let message = program("inspect").args([&digits, "--log-json", "-vv"]).output().unwrap();
    let stderr = String::from_utf8(message.stderr).unwrap();
    let lines: Vec<Value> =
        stderr.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let error = lines.iter().find(|line| line["level"] == "ERROR").unwrap();
    assert_eq!(error["exit_code"], 1);
    assert!(stderr.len() < 6000, "{} bytes", stderr.len());
}

/// Long runs of each program, with their arguments.
fn long_runs(scene: &Scene) -> Vec<(&'static str, Vec<String>)> {
    let pair = PhantomPair::get();
    let [fixed, moving, global, truth] =
        ["fixed.zarr", "moving.zarr", "global.json", "truth.json"].map(|name| pair.at(name));
    let at = |name: &str| scene.at(name);
    let [spots, spots2] = ["fixed.csv", "moving.csv"].map(|name| pair.at(name));
    let run = |name, words: &[&str]| (name, words.iter().map(ToString::to_string).collect());
    vec![
        run("extract-spots", &[&fixed, "-o", &at("s.csv")]),
        run(
            "ransac",
            &[
                &fixed,
                &moving,
                "--fixed-spots",
                &spots,
                "--moving-spots",
                &spots2,
                "-o",
                &at("r.json"),
            ],
        ),
        run("refine", &[&fixed, &moving, "--search", "200", "-o", &at("f.json")]),
        run(
            "local-affine",
            &[
                &fixed,
                &moving,
                "--initial",
                &global,
                "--block-size",
                "32,32,32",
                "-o",
                &at("l.zarr"),
            ],
        ),
        run("deform", &[&fixed, &moving, "--initial", &global, "-o", &at("d.zarr")]),
        run("invmap", &[&truth, "--onto", &moving, "-o", &at("i.zarr")]),
        run(
            "apply-transform",
            &[
                &moving,
                "--onto",
                &fixed,
                "-t",
                &truth,
                "--interpolation",
                "lanczos",
                "--chunk",
                "16,16,16",
                "--block-size",
                "16,16,16",
                "-o",
                &at("a.zarr"),
            ],
        ),
        run("downsample", &[&fixed, "-o", &at("p.zarr"), "--chunk", "16,16,16", "--levels", "2"]),
        run("transcode", &[&fixed, "--chunk", "16,16,16", "--codec", "gzip", "-o", &at("t.zarr")]),
        run("phantom", &["rounds", "--size", "160", "-o", &at("ph")]),
        run("inspect", &["--suggest", &fixed, &moving]),
        run(
            "pick-level",
            &[&fixed, "-o", &at("k.txt"), "--scratch", &at("k.zarr"), "--level", "1"],
        ),
        run("report", &["--fixed", &fixed, "--moving", &moving, "-o", &at("r.html")]),
    ]
}

#[test]
fn a_signal_ends_every_program_and_resume_goes_on() {
    let scene = Scene::new();
    for (name, arguments) in long_runs(&scene) {
        for after in [0, 300] {
            let mut command = Command::new(executable(name));
            command.args(&arguments).args(["--threads", "2", "-q"]);
            if !matches!(name, "inspect") {
                command.arg(if name == "report" { "--overwrite" } else { "--resume" });
            }
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(after));
            Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
            let status = wait(&mut child, name);
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            // until the handlers are installed, the default action of the signal ends the process
            use std::os::unix::process::ExitStatusExt as _;
            let by_signal = status.signal() == Some(15) || status.code() == Some(143);
            assert!(by_signal || status.success(), "{name}: {status} {stderr}");
            assert!(
                !stderr.contains("panicked") && !stderr.contains("mistake"),
                "{name}: {stderr}"
            );
        }
        // `whole.rs` tests for every program that unfinished work is resumed
        if matches!(name, "transcode" | "downsample" | "pick-level") {
            program(name).args(&arguments).args(["-q", "--resume"]).assert().success();
        }
    }
}
