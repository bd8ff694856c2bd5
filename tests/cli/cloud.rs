//! Inputs and outputs in buckets and on web servers.

use std::path::Path;
use std::time::Duration;

use crate::recovery::chunks;
use crate::scene::{Pair, Scene, program};

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
    let pair = Pair::get();
    let arguments = resampling(pair.at("").trim_end_matches('/'), &pair.at("global.json"), &output);
    program("apply-transform").args(arguments).assert().success();
    chunks(&output)
}

#[test]
fn a_volume_on_a_web_server_is_the_one_on_the_disk() {
    let (scene, pair) = (Scene::new(), Pair::get());
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

/// The right voxels, or exit code 75; never other voxels.
#[test]
fn a_faulty_web_server_gives_the_same_volume() {
    let (scene, pair) = (Scene::new(), Pair::get());
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
    let (scene, pair) = (Scene::new(), Pair::get());
    let web = Web::serve(Path::new(&pair.at("")), 1.0);
    let from = web.location().display().to_string();
    let arguments = resampling(&from, &pair.at("global.json"), &scene.at("remote.zarr"));
    let output = program("apply-transform")
        .env("VOXLOOM_STORE_DEADLINE", "1")
        .args(arguments)
        .timeout(Duration::from_mins(2))
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{talk}");
    assert!(talk.contains(&from) && talk.contains("again later"), "{talk}");
    assert!(!Path::new(&scene.at("remote.zarr")).exists());
}

#[test]
fn what_a_web_server_denies_lacks_or_holds_otherwise_is_told() {
    let scene = Scene::new();
    scene.file("a.tif", "II*\0");
    let web = Web::serve(Path::new(&scene.at("")), 0.0);
    let from = web.location().display().to_string();
    for (location, said) in [
        (format!("{from}/denied.zarr"), "access denied"),
        (format!("{from}/missing.zarr"), "not found"),
        (format!("{from}/a.tif"), "copy it to a local path"),
        (format!("{from}/a.zarr?x=1"), "query"),
        ("s3://".to_owned(), "names no bucket"),
        ("ftp://host/a.zarr".to_owned(), "s3://"),
    ] {
        let output = program("inspect").arg(&location).output().unwrap();
        let talk = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{location}: {talk}");
        assert!(talk.contains(said) && talk.contains(&location), "{location}: {talk}");
    }
    let wrong = program("inspect").args(["a.zarr", "--endpoint", "localhost"]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
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

/// The phantom pair and its transform in the bucket.
fn upload(to: &str) {
    let pair = Pair::get();
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
    assert_eq!(apply("whole", &[]).0, Some(0));
    assert!(copied(&scene, &out("whole"), "whole.zarr") == wanted);
    // an existing output is refused, and replaced if that is asked for
    let (code, talk) = apply("whole", &[]);
    assert!(code == Some(1) && talk.contains("exists already"), "{talk}");
    assert_eq!(apply("whole", &["--overwrite"]).0, Some(0));
    assert!(copied(&scene, &out("whole"), "whole.zarr") == wanted);
    // in parts, of which one is killed
    assert_eq!(apply("parts", &["--part", "1/3"]).0, Some(0));
    let (code, talk) = apply("parts", &["--finish"]);
    assert!(code == Some(1) && talk.contains("blocks not done yet"), "{talk}");
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
    let (code, talk) = apply("parts", &["--part", "3/3", "--interpolation", "nearest"]);
    assert!(code == Some(1) && talk.contains("interpolation"), "{talk}");
    let (code, talk) = apply("parts", &["--finish"]);
    assert_eq!(code, Some(0), "{talk}");
    assert!(copied(&scene, &out("parts"), "parts.zarr") == wanted);
    // all is done already
    assert_eq!(apply("parts", &["--resume"]).0, Some(0));
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
