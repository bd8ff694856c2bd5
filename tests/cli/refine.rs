//! `refine`: its results, and its messages for bad input.

use crate::faults::refused;
use crate::scene::{PhantomPair, Scene, program};

/// A smooth image of 16-bit values that does not repeat itself.
fn waves([z, y, x]: [i64; 3]) -> u16 {
    let [z, y, x] = [z, y, x].map(|v| v as f64);
    (1000.0
        + 300.0 * (0.2 * z + 0.014 * z * z + 0.2 * y).sin()
        + 300.0 * (0.15 * y + 0.011 * y * y - 0.1 * x).sin()
        + 300.0 * (0.1 * x + 0.012 * x * x + 0.15 * z).cos()) as u16
}

/// The same image, shifted by two voxels along x.
fn moved([z, y, x]: [i64; 3]) -> u16 {
    waves([z, y, x - 2])
}

fn results(output: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(format!("{output}.receipt.json")).unwrap();
    serde_json::from_str::<serde_json::Value>(&text).unwrap()["results"].clone()
}

fn affine(output: &str) -> [[f64; 4]; 3] {
    let chain = voxloom::transform::read_chain(&[output.to_owned()]).unwrap();
    chain.as_affine().unwrap().rows()
}

#[test]
fn a_shift_is_found_and_the_receipt_says_how() {
    let scene = Scene::new();
    let fixed = scene.volume("fixed.zarr", [24, 32, 32], waves);
    let moving = scene.volume("moving.zarr", [24, 32, 32], moved);
    let out = scene.at("out.json");
    program("refine")
        .args([&fixed, &moving, "-o", &out, "--model", "translation"])
        .assert()
        .success()
        .stdout("");
    let found = affine(&out);
    assert!((found[2][3] - 2.0).abs() < 0.05 && found[0][3].abs() < 0.05, "{found:?}");
    let results = results(&out);
    assert_eq!(results["accepted"], true);
    assert!(results["metric_after"].as_f64() > Some(0.99));
    assert!(results["metric_before"].as_f64() < results["metric_after"].as_f64());
    assert!(results["iterations"].as_u64() > Some(0) && results["overlap_after"].is_f64());
}

#[test]
fn refining_improves_what_ransac_found_the_same_for_any_threads() {
    let (pair, scene) = (PhantomPair::get(), Scene::new());
    let refine = |name: &str, threads: &str| {
        let out = scene.at(name);
        program("refine")
            .args([&pair.at("fixed.zarr"), &pair.at("moving.zarr"), "-o", &out])
            .args(["--initial", &pair.at("global.json"), "--threads", threads])
            .args(["--samples", "50000", "--seed", "5"])
            .assert()
            .success();
        out
    };
    let (one, two) = (refine("one.json", "1"), refine("two.json", "2"));
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let results = results(&one);
    assert!(results["metric_after"].as_f64() > results["metric_before"].as_f64());
}

#[test]
fn a_search_is_the_same_for_any_threads_and_finds_a_mirrored_plane() {
    let scene = Scene::new();
    let fixed = scene.volume("fixed.zarr", [1, 48, 48], |[_, y, x]| waves([y / 3, y, x]));
    let moving = scene.volume("moving.zarr", [1, 48, 48], |[_, y, x]| waves([y / 3, y, 47 - x]));
    let search = |name: &str, threads: &str| {
        let out = scene.at(name);
        program("refine")
            .args([&fixed, &moving, "-o", &out, "--model", "rigid", "--threads", threads])
            .args(["--search", "200", "--allow-reflection"])
            .assert()
            .success();
        out
    };
    let (one, two) = (search("one.json", "1"), search("two.json", "2"));
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&two).unwrap());
    let found = affine(&one);
    assert!((found[2][2] + 1.0).abs() < 0.02 && (found[2][3] - 47.0).abs() < 1.0, "{found:?}");
}

/// Runs `refine` on two volumes, which must be refused.
fn refine_refused(scene: &Scene, volumes: [&str; 2], more: &[&str], code: i32, words: &[&str]) {
    let out = scene.at("out.json");
    let arguments: Vec<&str> =
        volumes.into_iter().chain(["-o", &out]).chain(more.iter().copied()).collect();
    refused(scene, "refine", &arguments, code, words);
}

#[test]
fn images_that_say_nothing_are_named() {
    let scene = Scene::new();
    let good = scene.volume("good.zarr", [16, 24, 24], waves);
    let flat = scene.volume::<u16>("flat.zarr", [16, 24, 24], |_| 7);
    let unknown = scene.volume::<f32>("unknown.zarr", [16, 24, 24], |_| f32::NAN);
    refine_refused(&scene, [&flat, &good], &[], 1, &["fixed", "constant"]);
    refine_refused(&scene, [&good, &flat], &[], 1, &["moving", "constant"]);
    refine_refused(&scene, [&good, &unknown], &[], 1, &["moving", "NaN"]);
    refine_refused(&scene, [&flat, &flat], &["--search", "20"], 1, &["constant"]);
}

#[test]
fn masks_of_zeros_and_maps_that_lead_astray_are_named() {
    let scene = Scene::new();
    let good = scene.volume("good.zarr", [16, 24, 24], waves);
    let empty = scene.volume::<u8>("empty.zarr", [16, 24, 24], |_| 0);
    for flag in ["--fixed-mask", "--moving-mask"] {
        refine_refused(&scene, [&good, &good], &[flag, &empty], 1, &["mask", "empty.zarr"]);
    }
    let far = scene.file("far.txt", "1 0 0 0\n0 1 0 900\n0 0 1 0\n0 0 0 1\n");
    let flat = scene.file("flat.txt", "1 0 0 0\n0 1 0 0\n0 0 0 0\n0 0 0 1\n");
    refine_refused(
        &scene,
        [&good, &good],
        &["--initial", &far],
        1,
        &["nothing in common", "far.txt"],
    );
    refine_refused(&scene, [&good, &good], &["--initial", &flat], 1, &["singular", "flat.txt"]);
    let none = scene.at("none.json");
    refine_refused(&scene, [&good, &good], &["--initial", &none], 1, &["none.json", "not found"]);
}

#[test]
fn a_plane_and_a_volume_are_told_apart() {
    let scene = Scene::new();
    let volume = scene.volume("volume.zarr", [16, 24, 24], waves);
    let plane = scene.volume("plane.zarr", [1, 24, 24], waves);
    refine_refused(&scene, [&plane, &volume], &[], 1, &["plane.zarr", "2-D", "16 planes"]);
    refine_refused(&scene, [&volume, &plane], &[], 1, &["plane.zarr", "2-D"]);
}

#[test]
fn flags_and_files_that_do_not_fit_are_refused() {
    let scene = Scene::new();
    let good = scene.volume("good.zarr", [16, 24, 24], waves);
    for (flags, word) in [
        (["--levels", "0"], "--levels"),
        (["--scale-range", "5..2"], "5..2"),
        (["--samples", "few"], "few"),
        (["--min-overlap", "2"], "--min-overlap"),
    ] {
        refine_refused(&scene, [&good, &good], &flags, 2, &[word]);
    }
    scene.file("out.json", "precious");
    refine_refused(&scene, [&good, &good], &[], 1, &["out.json", "--overwrite"]);
    // an array without attributes
    std::fs::create_dir(scene.at("bare")).unwrap();
    let array: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(format!("{good}/0/zarr.json")).unwrap())
            .unwrap();
    let mut array = array;
    array["attributes"] = serde_json::json!({});
    let bare = scene.at("bare");
    std::fs::write(format!("{bare}/zarr.json"), array.to_string()).unwrap();
    std::fs::remove_file(scene.at("out.json")).unwrap();
    refine_refused(&scene, [&bare, &good], &[], 1, &["bare", "--spacing"]);
    refine_refused(&scene, [&good, &good], &["--memory", "1MB"], 1, &["--memory"]);
}

#[test]
fn a_result_that_is_not_to_be_believed_leaves_the_initial_map_and_says_why() {
    let scene = Scene::new();
    let fixed = scene.volume("fixed.zarr", [16, 32, 32], waves);
    let moving = scene.volume("moving.zarr", [16, 32, 32], |[z, y, x]| waves([z, y, x * 6 / 5]));
    let initial = scene.file("initial.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0.5\n0 0 0 1\n");
    let out = scene.at("out.json");
    let run = program("refine")
        .args([&fixed, &moving, "-o", &out, "--initial", &initial, "--max-scale", "1.01", "-q"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("--max-scale") && stderr.trim_end().lines().count() == 1, "{stderr}");
    assert_eq!(affine(&out)[2][3], 0.5);
    let results = results(&out);
    assert_eq!(results["accepted"], false);
    assert!(results["refusal"].as_str().unwrap().contains("--max-scale"));
}
