//! Incomplete outputs are not treated as complete, neither when written nor when read.

use std::path::Path;

use crate::faults::refused;
use crate::recovery::chunks;
use crate::scene::{PhantomPair, Scene, program};

const RAMP: fn([i64; 3]) -> u16 = |[z, y, x]| (z * 31 + y * 7 + x) as u16;

/// The arguments of a run that writes `output` in two blocks.
fn apply(output: &str) -> Vec<String> {
    let pair = PhantomPair::get();
    [&pair.at("moving.zarr"), "--onto", &pair.at("fixed.zarr"), "-t", &pair.at("global.json")]
        .into_iter()
        .chain(["-o", output, "--block-size", "48,96,96"])
        .map(str::to_owned)
        .collect()
}

#[test]
fn half_an_array_is_refused_by_the_next_program_and_named_by_inspect() {
    let scene = Scene::new();
    for (name, more) in [("a.zarr", "3"), ("b.zarr", "2"), ("c.n5", "3")] {
        let out = scene.at(name);
        let run = |part: &[&str]| {
            let mut line = apply(&out);
            line.extend(["--chunk", "48,48,48", "--zarr-format", more].map(str::to_owned));
            program("apply-transform").args(line).args(part).assert().success();
        };
        run(&["--part", "1/2"]);
        let copy = scene.at("copy.npy");
        let words = ["unfinished", "--resume", "--allow-unfinished"];
        refused(&scene, "transcode", &[&out, "--to", "npy", "-o", &copy], 1, &words);
        refused(&scene, "extract-spots", &[&out, "-o", &scene.at("a.csv")], 1, &words);
        refused(&scene, "downsample", &[&out], 1, &words);
        let page = program("inspect").arg(&out).output().unwrap();
        assert!(String::from_utf8_lossy(&page.stdout).contains("unfinished"));
        program("transcode")
            .args([&out, "--to", "npy", "-o", &copy, "--allow-unfinished"])
            .assert()
            .success();
        // the last part completes it
        run(&["--part", "2/2"]);
        let page = program("inspect").arg(&out).output().unwrap();
        assert!(!String::from_utf8_lossy(&page.stdout).contains("unfinished"));
        program("transcode")
            .args([&out, "--to", "npy", "-o", &copy, "--overwrite"])
            .assert()
            .success();
        std::fs::remove_file(&copy).unwrap();
        assert!(!Path::new(&format!("{copy}.voxloom")).exists());
    }
}

/// A copy of a volume with a damaged chunk.
fn damaged(scene: &Scene) -> String {
    let volume = scene.volume::<u16>("damaged.zarr", [32; 3], RAMP);
    std::fs::write(format!("{volume}/0/c/1/1/1"), "short").unwrap();
    volume
}

#[test]
fn failed_blocks_stay_written_in_what_lacks_them() {
    let scene = Scene::new();
    let volume = damaged(&scene);
    let whole = std::fs::read(format!("{volume}/0/c/0/0/0")).unwrap();
    for (to, name, block) in
        [("zarr3", "a.zarr", "16,16,16"), ("n5", "a.n5", "16,16,16"), ("tiff", "a.tif", "16,32,32")]
    {
        let out = scene.at(name);
        let line = [volume.as_str(), "--to", to, "-o", &out, "--block-size", block];
        program("transcode").args(line).assert().code(3);
        let allowed = ["--resume", "--allow-failed", "0.6"];
        program("transcode").args(line).args(allowed).assert().success();
        let copy = scene.at("copy.npy");
        let words = ["unfinished", "1 of its", "--allow-unfinished"];
        refused(&scene, "transcode", &[&out, "--to", "npy", "-o", &copy], 1, &words);
        // a repaired input is a different input: the result of the damaged one must be made anew
        std::fs::write(format!("{volume}/0/c/1/1/1"), &whole).unwrap();
        let resumed = program("transcode").args(line).arg("--resume").assert().code(1);
        let message = String::from_utf8_lossy(&resumed.get_output().stderr).into_owned();
        assert!(
            message.contains("volume has other content") && message.contains("--overwrite"),
            "{message}"
        );
        program("transcode").args(line).arg("--overwrite").assert().success();
        program("transcode").args([&out, "--to", "npy", "-o", &copy]).assert().success();
        std::fs::remove_file(&copy).unwrap();
        assert!(!Path::new(&format!("{copy}.voxloom")).exists());
        damaged_again(&volume);
    }
}

fn damaged_again(volume: &str) {
    std::fs::write(format!("{volume}/0/c/1/1/1"), "short").unwrap();
}

#[test]
fn metadata_above_an_array_that_cannot_be_read_are_an_error() {
    let scene = Scene::new();
    let image = scene.volume::<u16>("image.zarr", [32; 3], RAMP);
    let path = format!("{image}/zarr.json");
    let text = std::fs::read(&path).unwrap();
    let array = format!("{image}/0");
    program("inspect").arg(&array).assert().success();
    for length in [0, 1, text.len() / 2, text.len() - 3] {
        std::fs::write(&path, &text[..length]).unwrap();
        let words = ["image.zarr/zarr.json", "no JSON object"];
        refused(&scene, "inspect", &[&array], 1, &words);
        refused(&scene, "extract-spots", &[&array, "-o", &scene.at("a.csv")], 1, &words);
    }
}

#[test]
fn an_input_whose_chunks_went_away_between_parts_is_no_longer_the_input() {
    let scene = Scene::new();
    let moving = scene.at("m.zarr");
    let pair = PhantomPair::get();
    program("transcode")
        .args([&pair.at("moving.zarr"), "--to", "zarr3", "--chunk", "16,16,16", "-o", &moving])
        .assert()
        .success();
    let out = scene.at("out.zarr");
    let mut line = apply(&out);
    line[0].clone_from(&moving);
    line.extend(["--chunk", "48,48,48"].map(str::to_owned));
    program("apply-transform").args(&line).args(["--part", "1/2"]).assert().success();
    let before = chunks(&out);
    std::fs::remove_dir_all(Path::new(&moving).join("0/c")).unwrap();
    program("apply-transform").args(&line).args(["--part", "2/2"]).assert().failure();
    assert!(chunks(&out) == before);
}
