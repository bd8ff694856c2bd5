//! Inputs and outputs in buckets and on web servers.

use std::path::Path;
use std::time::Duration;

use crate::recovery::chunks;
use crate::scene::{PhantomPair, Scene, program};

#[path = "../../lib/src/store/tests/web.rs"]
mod web;

use web::Web;

/// The arguments of `apply-transform` for a pair of volumes at a location.
fn resampling(from: &str, transform: &str, output: &str) -> Vec<String> {
    let words = [&format!("{from}/moving.zarr"), "--onto", &format!("{from}/fixed.zarr")];
    let more = ["--transform", transform, "-o", output, "--chunk", "32,32,32"];
    let quiet = ["--block-size", "64,64,64", "--progress", "none", "--overwrite"];
    words.into_iter().chain(more).chain(quiet).map(str::to_owned).collect()
}

/// Resamples the pair on the disk, and returns the chunks.
fn on_disk(scene: &Scene) -> Vec<(String, Vec<u8>)> {
    let output = scene.at("local.zarr");
    let pair = PhantomPair::get();
    let arguments = resampling(pair.at("").trim_end_matches('/'), &pair.at("global.json"), &output);
    program("apply-transform").args(arguments).assert().success();
    chunks(&output)
}

#[test]
fn a_volume_on_a_web_server_is_the_one_on_the_disk() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let web = Web::serve(Path::new(&pair.at("")), 0.0);
    let from = web.location().display().to_string();
    let facts = |location: &str| {
        let output = program("inspect").args([location, "--json"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut facts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for name in ["location", "levels", "bytes_stored"] {
            facts.as_object_mut().unwrap().remove(name);
        }
        facts
    };
    assert_eq!(facts(&format!("{from}/fixed.zarr")), facts(&pair.at("fixed.zarr")));
    let output = scene.at("remote.zarr");
    let arguments = resampling(&from, &pair.at("global.json"), &output);
    program("apply-transform").args(arguments).assert().success();
    assert!(chunks(&output) == on_disk(&scene));
}

/// A server that lists folders, or answers with a page where nothing is, is read like any other.
#[test]
fn pages_of_a_web_server_are_no_files() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let web = Web::with_pages(Path::new(&pair.at("")));
    let from = web.location().display().to_string();
    for location in ["fixed.zarr", "fixed.zarr/0"] {
        let location = format!("{from}/{location}");
        let output = program("inspect").args([&location, "--json"]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{location}: {stderr}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("uint16"), "{location}");
    }
    let output = scene.at("remote.zarr");
    let arguments = resampling(&from, &format!("{from}/global.json"), &output);
    program("apply-transform").args(arguments).assert().success();
    assert!(chunks(&output) == on_disk(&scene));
}

/// Failed requests are repeated: the program succeeds, and its voxels are right.
#[test]
fn a_faulty_web_server_gives_the_same_volume() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let wanted = on_disk(&scene);
    let web = Web::serve(Path::new(&pair.at("")), 0.05);
    let from = web.location().display().to_string();
    let output = scene.at("remote.zarr");
    let arguments = resampling(&from, &pair.at("global.json"), &output);
    program("apply-transform")
        .env("VOXLOOM_STORE_DEADLINE", "30")
        .args(arguments)
        .timeout(Duration::from_mins(5))
        .assert()
        .success();
    assert!(chunks(&output) == wanted);
    let faults: usize = web.injected().iter().sum();
    assert!(faults > 0, "no fault in {} requests", web.requests());
}

#[test]
fn a_server_that_always_fails_ends_in_exit_code_75() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let web = Web::serve(Path::new(&pair.at("")), 1.0);
    let from = web.location().display().to_string();
    let arguments = resampling(&from, &pair.at("global.json"), &scene.at("remote.zarr"));
    let output = program("apply-transform")
        .env("VOXLOOM_STORE_DEADLINE", "1")
        .args(arguments)
        .timeout(Duration::from_mins(2))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{stderr}");
    assert!(stderr.contains(&from) && stderr.contains("when it answers"), "{stderr}");
    assert!(!Path::new(&scene.at("remote.zarr")).exists());
}

#[test]
fn a_server_that_is_lost_in_the_middle_costs_no_finished_block() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let output = scene.at("remote.zarr");
    let done = || {
        let ledgers = Path::new(&output).join("0/.voxloom");
        let names = std::fs::read_dir(ledgers).into_iter().flatten().flatten();
        let texts = names.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
        texts.map(|text| text.matches("\"end\":\"done\"").count()).sum::<usize>()
    };
    let arguments = |web: &Web| {
        let from = web.location().display().to_string();
        let mut all = resampling(&from, &format!("{from}/global.json"), &output);
        all.retain(|word| word != "--overwrite");
        all.iter_mut()
            .filter(|word| *word == "64,64,64")
            .for_each(|word| *word = "32,32,32".into());
        all
    };
    // one chunk is never sent
    let web = Web::dying(Path::new(&pair.at("")), chunks(&pair.at("moving.zarr")).len() - 1);
    let mut command = program("apply-transform");
    command.args(arguments(&web)).args(["--threads", "1", "--resume"]);
    command.env("VOXLOOM_STORE_DEADLINE", "1");
    let ended = command.timeout(Duration::from_mins(5)).output().unwrap();
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(75), "{stderr}");
    assert!(!stderr.contains("cannot remove"), "{stderr}");
    let before = done();
    assert!(before > 0, "{stderr}");
    let web = Web::serve(Path::new(&pair.at("")), 0.0);
    program("apply-transform").args(arguments(&web)).args(["--resume"]).assert().success();
    assert!(chunks(&output) == on_disk(&scene));
}

#[test]
fn what_a_web_server_denies_lacks_or_holds_otherwise_is_told() {
    let scene = Scene::new();
    scene.file("a.tif", "II*\0");
    let web = Web::serve(Path::new(&scene.at("")), 0.0);
    let from = web.location().display().to_string();
    for (location, message) in [
        (format!("{from}/denied.zarr"), "access denied"),
        (format!("{from}/missing.zarr"), "not found"),
        (format!("{from}/a.tif"), "is truncated"),
        (format!("{from}/a.zarr?x=1"), "query"),
        ("s3://".to_owned(), "names no bucket"),
        ("ftp://host/a.zarr".to_owned(), "s3://"),
    ] {
        let output = program("inspect").arg(&location).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{location}: {stderr}");
        assert!(stderr.contains(message) && stderr.contains(&location), "{location}: {stderr}");
    }
    for wrong in ["localhost", "http://localhost/bucket"] {
        let wrong = program("inspect").args(["a.zarr", "--endpoint", wrong]).output().unwrap();
        assert_eq!(wrong.status.code(), Some(2));
    }
}

/// The output is refused before any work, and nothing is written.
#[test]
fn an_output_that_cannot_be_written_where_it_is_named_is_refused_at_once() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let fixed = pair.at("fixed.zarr");
    let web = Web::serve(Path::new(&scene.at("")), 0.0);
    let page = web.location().join("a").display().to_string();
    for (name, arguments, message) in [
        ("transcode", vec![&*fixed, "-o", &format!("{page}.zarr")], "can only be read"),
        ("downsample", vec![&*fixed, "-o", &format!("{page}.zarr")], "can only be read"),
        ("extract-spots", vec![&*fixed, "-o", &format!("{page}.csv")], "can only be read"),
        (
            "report",
            vec!["--fixed", &fixed, "--moving", &fixed, "-o", &format!("{page}.html"), "r.json"],
            "can only be read",
        ),
        ("extract-spots", vec![&*fixed, "-o", &scene.at("folder/")], "one file is written"),
        ("transcode", vec![&*fixed, "-o", "s3:/bucket/a.zarr"], "one slash"),
    ] {
        let output = program(name).args(&arguments).current_dir(scene.at("")).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{name} {arguments:?}: {stderr}");
        assert!(stderr.contains(message), "{name} {arguments:?}: {stderr}");
    }
    let finish =
        program("transcode").args([&*fixed, "-o", &scene.at("b.zarr"), "--finish"]).output();
    let stderr = String::from_utf8_lossy(&finish.unwrap().stderr).into_owned();
    assert!(stderr.contains("run its parts"), "{stderr}");
    let left: Vec<_> = std::fs::read_dir(scene.at("")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(web.requests(), 0, "nothing is asked of a server to which nothing can be written");
}

/// The web server ignores range requests, as that of Python does.
#[test]
fn a_web_server_without_ranges_gives_volumes_fields_and_chains() {
    let (scene, pair) = (Scene::new(), PhantomPair::get());
    let web = Web::without_ranges(Path::new(&pair.at("")));
    let from = web.location().display().to_string();
    let output = scene.at("remote.zarr");
    let arguments = resampling(&from, &format!("{from}/global.json"), &output);
    program("apply-transform").args(arguments).assert().success();
    assert!(chunks(&output) == on_disk(&scene));
    // few requests are needed, since a missing file is looked for only once
    let before = web.requests();
    program("inspect").arg(format!("{from}/fixed.zarr")).assert().success();
    assert!(web.requests() - before < 60, "{} requests", web.requests() - before);
}

/// The folder of one test in the bucket of `tests/cloud.sh`.
fn in_bucket(test: &str) -> String {
    let bucket = std::env::var("VOXLOOM_TEST_BUCKET").expect("tests/cloud.sh sets it");
    format!("{bucket}/{test}-{}", std::process::id())
}

/// Runs a program that must succeed.
fn succeeds(name: &str, arguments: &[&str]) {
    program(name).args(arguments).args(["--progress", "none", "-q"]).assert().success();
}

/// Copies an array to the disk, and returns its chunks.
fn copied(scene: &Scene, location: &str, name: &str) -> Vec<(String, Vec<u8>)> {
    let to = scene.at(name);
    succeeds("transcode", &[location, "-o", &to, "--overwrite"]);
    chunks(&to)
}

/// Copies the phantom pair and its transform to `to`, a folder in the bucket.
fn upload(to: &str) {
    let pair = PhantomPair::get();
    for round in ["fixed", "moving"] {
        let [from, to] = [pair.at(round), format!("{to}/{round}")].map(|at| format!("{at}.zarr"));
        succeeds("transcode", &[&from, "-o", &to]);
    }
    succeeds("transcode", &[&pair.at("global.json"), "-o", &format!("{to}/global.json")]);
}

#[test]
#[ignore = "needs a server that speaks S3: run tests/cloud.sh"]
fn s3_to_s3_gives_what_the_disk_gives_also_in_parts_and_after_a_kill() {
    let scene = Scene::new();
    let at = in_bucket("parts");
    upload(&at);
    on_disk(&scene);
    let wanted = copied(&scene, &scene.at("local.zarr"), "wanted.zarr");
    let out = |name: &str| format!("{at}/{name}.zarr");
    let arguments = |name: &str| {
        let mut arguments = resampling(&at, &format!("{at}/global.json"), &out(name));
        arguments.retain(|word| word != "--overwrite");
        arguments
    };
    let apply = |name: &str, more: &[&str]| {
        let output = program("apply-transform").args(arguments(name)).args(more).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let apply_in_time = |name: &str, more: &[&str]| {
        let mut arguments = arguments(name);
        let size = arguments.iter().position(|word| word == "--block-size").unwrap();
        arguments.drain(size..size + 2);
        let mut program = program("apply-transform");
        program
            .args(arguments)
            .args(more)
            .timeout(Duration::from_mins(5))
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(apply("whole", &[]).0, Some(0));
    assert!(copied(&scene, &out("whole"), "whole.zarr") == wanted);
    // an existing output is refused, and replaced if that is asked for
    let (code, stderr) = apply("whole", &[]);
    assert!(code == Some(1) && stderr.contains("exists already"), "{stderr}");
    assert_eq!(apply("whole", &["--overwrite"]).0, Some(0));
    assert!(copied(&scene, &out("whole"), "whole.zarr") == wanted);
    // with one, two and three threads; one thread writes one chunk at a time
    for threads in ["1", "2", "3"] {
        let more = ["--overwrite", "--block-size", "32,32,32", "--threads", threads];
        assert_eq!(apply_in_time("whole", &more), Some(0));
        assert!(copied(&scene, &out("whole"), "whole.zarr") == wanted);
    }
    // in parts, of which one is killed
    assert_eq!(apply("parts", &["--part", "1/3"]).0, Some(0));
    let (code, stderr) = apply("parts", &["--finish"]);
    assert!(code == Some(1) && stderr.contains("blocks not done yet"), "{stderr}");
    let killed = program("apply-transform")
        .env("VOXLOOM_TEST_KILL", "after:1")
        .args(arguments("parts"))
        .args(["--part", "2/3"])
        .output()
        .unwrap();
    assert_ne!(killed.status.code(), Some(0));
    for part in ["2/3", "3/3"] {
        assert_eq!(apply("parts", &["--part", part]).0, Some(0));
    }
    let (code, stderr) = apply("parts", &["--part", "3/3", "--interpolation", "nearest"]);
    assert!(code == Some(1) && stderr.contains("interpolation"), "{stderr}");
    let (code, stderr) = apply("parts", &["--finish"]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(copied(&scene, &out("parts"), "parts.zarr") == wanted);
    // all blocks are done already
    assert_eq!(apply("parts", &["--resume"]).0, Some(0));
}

#[test]
#[ignore = "needs a server that speaks S3: run tests/cloud.sh"]
fn s3_holds_phantoms_and_their_score_and_transforms_without_a_trace_on_the_disk() {
    let scene = Scene::new();
    let at = in_bucket("phantom");
    let run = |name: &str, arguments: &[&str]| {
        program(name).args(arguments).args(["-q"]).current_dir(scene.at("")).assert().success();
    };
    let pair = format!("{at}/pair");
    run("phantom", &["rounds", "--size", "48", "-o", &pair]);
    let truth = format!("{pair}/truth.json");
    run("phantom", &["score", "--truth", &pair, "--transform", &truth]);
    let nrrd = format!("{at}/field.nrrd");
    let onto = format!("{pair}/fixed.zarr");
    let refused = program("transcode")
        .args([&truth, "-o", &nrrd, "--onto", &onto])
        .current_dir(scene.at(""))
        .output();
    let stderr = String::from_utf8_lossy(&refused.unwrap().stderr).into_owned();
    assert!(stderr.contains("cannot be written to a bucket"), "{stderr}");
    let left: Vec<_> = std::fs::read_dir(scene.at("")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let inside = program("inspect").arg(&at).output().unwrap();
    let stderr = String::from_utf8_lossy(&inside.stdout).into_owned();
    assert!(!stderr.contains("scratch"), "{stderr}");
    // a bucket that does not exist, and a user who does not exist
    let none = program("inspect").arg("s3://voxloom-none/a.zarr").output().unwrap();
    let stderr = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(stderr.contains("there is no bucket") && !stderr.contains("<?xml"), "{stderr}");
    let unknown_user = program("inspect")
        .arg(format!("{pair}/fixed.zarr"))
        .env("AWS_ACCESS_KEY_ID", "nobody")
        .output();
    let stderr = String::from_utf8_lossy(&unknown_user.unwrap().stderr).into_owned();
    assert!(stderr.contains("access denied") && !stderr.contains("<?xml"), "{stderr}");
}

#[test]
#[ignore = "needs a server that speaks S3: run tests/cloud.sh"]
fn s3_behind_a_faulty_proxy_gives_the_same_volume() {
    let scene = Scene::new();
    let at = in_bucket("faulty");
    upload(&at);
    on_disk(&scene);
    let wanted = copied(&scene, &scene.at("local.zarr"), "wanted.zarr");
    let endpoint = std::env::var("AWS_ENDPOINT_URL").unwrap();
    let upstream = endpoint.trim_start_matches("http://").parse().unwrap();
    let proxy = Web::proxy(upstream, 0.05);
    let out = format!("{at}/out.zarr");
    program("apply-transform")
        .env("VOXLOOM_STORE_DEADLINE", "30")
        .args(resampling(&at, &format!("{at}/global.json"), &out))
        .args(["--endpoint", &format!("http://{}", proxy.host())])
        .timeout(Duration::from_mins(5))
        .assert()
        .success();
    assert!(copied(&scene, &out, "out.zarr") == wanted);
    let faults: usize = proxy.injected().iter().sum();
    assert!(faults > 5, "{faults} faults in {} requests", proxy.requests());
}
