//! Bad input: each case has its own message and the right exit code, and nothing is written or
//! changed.

use std::path::Path;

use crate::recovery::chunks;
use crate::scene::{PhantomPair, Scene, program};

/// Runs a program that must fail: with this exit code, a message on stderr that contains all these
/// words (one line, unless the code is 2), nothing on stdout, and no change to the scene.
pub(crate) fn refused(scene: &Scene, name: &str, arguments: &[&str], code: i32, words: &[&str]) {
    let before = scene.contents();
    let output = program(name).args(arguments).args(["--progress", "none", "-q"]).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{name} {arguments:?}: {stderr}");
    assert!(output.stdout.is_empty());
    assert!(!stderr.contains("panicked"), "{stderr}");
    if code != 2 {
        assert_eq!(stderr.trim_end().lines().count(), 1, "not one sentence: {stderr}");
    }
    for word in words {
        assert!(stderr.contains(word), "no '{word}' in: {stderr}");
    }
    assert!(before == scene.contents(), "{name} {arguments:?} changed something");
}

const RAMP: fn([i64; 3]) -> u16 = |[z, y, x]| (z * 31 + y * 7 + x) as u16;

#[test]
fn a_path_that_does_not_exist_is_named() {
    let scene = Scene::new();
    refused(&scene, "inspect", &[&scene.at("none.zarr")], 1, &["none.zarr", "not found"]);
    refused(
        &scene,
        "extract-spots",
        &[&scene.at("none.n5/lowres"), "-o", &scene.at("spots.csv")],
        1,
        &["none.n5", "not found"],
    );
}

#[test]
fn a_folder_that_is_no_container_is_named() {
    let scene = Scene::new();
    scene.file("notes.txt", "hello");
    let folder = scene.at("");
    refused(&scene, "downsample", &[&folder], 1, &["zarr.json", "attributes.json"]);
}

#[test]
fn a_volume_without_voxel_size_names_spacing() {
    let scene = Scene::new();
    let bare = scene.volume::<u16>("image.zarr", [16; 3], RAMP);
    // the bare array, without its group's metadata
    std::fs::copy(format!("{bare}/0/zarr.json"), scene.at("array.json")).unwrap();
    std::fs::rename(format!("{bare}/0"), scene.at("bare")).unwrap();
    std::fs::remove_dir_all(&bare).unwrap();
    let meta = std::fs::read_to_string(scene.at("bare/zarr.json")).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&meta).unwrap();
    json["attributes"] = serde_json::json!({});
    scene.file("bare/zarr.json", &json.to_string());
    refused(
        &scene,
        "extract-spots",
        &[&scene.at("bare"), "-o", &scene.at("spots.csv")],
        1,
        &["--spacing"],
    );
}

#[test]
fn a_truncated_a_corrupt_and_a_missing_chunk_are_told_apart() {
    let scene = Scene::new();
    let pair = scene.volume::<u16>("image.zarr", [32; 3], RAMP);
    let chunk = format!("{pair}/0/c/1/1/1");
    let whole = std::fs::read(&chunk).unwrap();
    std::fs::write(&chunk, &whole[..100]).unwrap();
    let out = scene.at("out.npy");
    let transcode = [pair.as_str(), "--to", "npy", "-o", &out];
    let message = program("transcode").args(transcode).output().unwrap();
    assert_ne!(message.status.code(), Some(0));
    let stderr = String::from_utf8(message.stderr).unwrap();
    assert!(stderr.contains("c/1/1/1") && stderr.contains("damaged"), "{stderr}");
    assert!(!Path::new(&out).exists(), "a damaged volume was written on");
    // a missing chunk is read as the fill value
    std::fs::remove_file(&chunk).unwrap();
    program("transcode").args(transcode).arg("--overwrite").assert().success();
}

/// A Zarr v2 array of this data type, without chunks.
fn array_of(scene: &Scene, name: &str, dtype: &str) -> String {
    std::fs::create_dir_all(scene.at(name)).unwrap();
    scene.file(
        &format!("{name}/.zarray"),
        &format!(
            r#"{{"zarr_format":2,"shape":[16,16,16],"chunks":[16,16,16],"dtype":{dtype},
            "compressor":null,"fill_value":0,"order":"C","filters":null}}"#
        ),
    );
    scene.at(name)
}

#[test]
fn a_type_that_no_volume_holds_is_named() {
    let scene = Scene::new();
    let complex = array_of(&scene, "complex.zarr", r#""<c8""#);
    let structured = array_of(&scene, "structured.zarr", r#"[["a","<u2"],["b","<f4"]]"#);
    let flag = ["--spacing", "1,1,1"];
    refused(&scene, "inspect", &[&complex, flag[0], flag[1]], 1, &["integers of 8 to 64 bits"]);
    refused(&scene, "inspect", &[&structured, flag[0], flag[1]], 1, &["integers of 8 to 64 bits"]);
}

#[test]
fn several_channels_and_none_chosen_is_an_error_that_names_the_flag() {
    let scene = Scene::new();
    let group = scene.at("c.zarr");
    std::fs::create_dir_all(format!("{group}/0")).unwrap();
    std::fs::write(format!("{group}/.zgroup"), r#"{"zarr_format":2}"#).unwrap();
    std::fs::write(
        format!("{group}/.zattrs"),
        serde_json::json!({"multiscales": [{"version": "0.4",
            "axes": [{"name": "c", "type": "channel"},
                     {"name": "z", "type": "space", "unit": "micrometer"},
                     {"name": "y", "type": "space", "unit": "micrometer"},
                     {"name": "x", "type": "space", "unit": "micrometer"}],
            "datasets": [{"path": "0", "coordinateTransformations":
                [{"type": "scale", "scale": [1.0, 2.0, 1.0, 1.0]}]}]}]})
        .to_string(),
    )
    .unwrap();
    std::fs::write(
        format!("{group}/0/.zarray"),
        r#"{"zarr_format":2,"shape":[2,16,16,16],"chunks":[1,16,16,16],"dtype":"<u2",
            "compressor":null,"fill_value":0,"order":"C","filters":null,
            "dimension_separator":"/"}"#,
    )
    .unwrap();
    refused(
        &scene,
        "extract-spots",
        &[&group, "-o", &scene.at("spots.csv")],
        1,
        &["--channel", "2"],
    );
    program("inspect").args([&group, "--channel", "1"]).assert().success();
}

#[test]
fn a_volume_without_structure_gives_no_spots_and_says_so() {
    let scene = Scene::new();
    let flat = scene.volume::<u16>("flat.zarr", [48; 3], |_| 100);
    refused(&scene, "extract-spots", &[&flat, "-o", &scene.at("spots.csv")], 1, &["no spots"]);
}

#[test]
fn voxels_that_are_not_numbers_do_not_poison_the_rest() {
    let scene = Scene::new();
    let blob = |[z, y, x]: [i64; 3]| {
        let r2 = [z - 24, y - 24, x - 24].map(|d| (d * d) as f32).iter().sum::<f32>();
        1000.0 * (-r2 / 40.0).exp() + ((z * 7 + y * 13 + x * 29) % 11) as f32
    };
    let holes = scene.volume::<f32>("holes.zarr", [48; 3], |at| match at {
        [2, 2, 2] => f32::NAN,
        [3, 40, 3] => f32::INFINITY,
        _ => blob(at),
    });
    let out = scene.at("spots.csv");
    program("extract-spots").args([&holes, "-o", &out, "--radius", "4..12"]).assert().success();
    let text = std::fs::read_to_string(out).unwrap();
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
    assert!(text.lines().count() > 1);
}

/// A table of `n` spots along a line, or scattered.
fn spots(n: usize, scattered: bool) -> String {
    let mut text = String::from("z_um,y_um,x_um,radius_um,response,intensity\n");
    for i in 0..n {
        let t = 20.0 + 40.0 * i as f64 / n as f64;
        let [y, x] = if scattered {
            [20.0 + (i * 17 % 40) as f64, 20.0 + (i * 29 % 40) as f64]
        } else {
            [t, t]
        };
        text.push_str(&format!("{t},{y},{x},4,1,100\n"));
    }
    text
}

fn ransac_refused(scene: &Scene, fixed: &str, moving: &str, code: i32, words: &[&str]) {
    let pair = PhantomPair::get();
    let (f, m) = (pair.at("fixed.zarr"), pair.at("moving.zarr"));
    let out = scene.at("global.json");
    let mut arguments = vec![f.as_str(), &m, "--fixed-spots", fixed, "--moving-spots", moving];
    arguments.extend(["-o", out.as_str()]);
    refused(scene, "ransac", &arguments, code, words);
}

#[test]
fn too_few_spots_or_matches_are_counted_in_the_message() {
    let scene = Scene::new();
    let few = scene.file("few.csv", &spots(2, true));
    let none = scene.file("none.csv", &spots(0, true));
    ransac_refused(&scene, &none, &few, 1, &["no spots"]);
    let (volume, out) = (PhantomPair::get().at("fixed.zarr"), scene.at("global.json"));
    let run = program("ransac")
        .args([&volume, &volume, "--fixed-spots", &few, "--moving-spots", &few, "-o", &out])
        .output()
        .unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.code() == Some(3) && stderr.contains("matches"), "{stderr}");
    assert!(!Path::new(&out).exists());
}

#[test]
fn spots_on_a_line_do_not_determine_a_map() {
    let pair = PhantomPair::get();
    let scene = Scene::new();
    let line = scene.file("line.csv", &spots(60, false));
    let (volume, out) = (pair.at("fixed.zarr"), scene.at("global.json"));
    let ran = program("ransac")
        .args([&volume, &volume, "--fixed-spots", &line, "--moving-spots", &line, "-o", &out])
        .args(["--context-radius", "8"])
        .output()
        .unwrap();
    let message = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(3), "{message}");
    assert!(message.contains("does not determine"), "{message}");
    assert!(!Path::new(&out).exists(), "a map that is not determined is not written");
}

fn apply_refused(scene: &Scene, transform: &str, code: i32, words: &[&str]) {
    let pair = PhantomPair::get();
    let arguments = [
        pair.at("moving.zarr"),
        "--onto".into(),
        pair.at("fixed.zarr"),
        "--transform".into(),
        transform.into(),
        "-o".into(),
        scene.at("out.zarr"),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    refused(scene, "apply-transform", &arguments, code, words);
}

#[test]
fn transforms_that_cannot_be_used_are_refused_before_anything_is_written() {
    let scene = Scene::new();
    let flat = scene.file("flat.txt", "1 0 0 0\n0 1 0 0\n0 0 0 0\n0 0 0 1\n");
    let pair = PhantomPair::get();
    let inverse = [
        &pair.at("moving.zarr"),
        "--onto",
        &pair.at("fixed.zarr"),
        "--transform",
        &flat,
        "--inverse-transform",
        "-o",
        &scene.at("out.zarr"),
    ];
    refused(&scene, "apply-transform", &inverse, 1, &["singular"]);
    let backward = scene.file(
        "backward.json",
        &std::fs::read_to_string(pair.at("global.json"))
            .unwrap()
            .replace("fixed-to-moving", "moving-to-fixed"),
    );
    apply_refused(&scene, &backward, 1, &["moving-to-fixed"]);
    let axes = scene.file(
        "axes.json",
        &std::fs::read_to_string(pair.at("global.json")).unwrap().replacen("\"z\"", "\"t\"", 1),
    );
    apply_refused(&scene, &axes, 1, &["axes"]);
    let three = scene.file("three.txt", "1 0 0\n0 1 0\n0 0 1\n");
    apply_refused(&scene, &three, 1, &["three.txt"]);
}

#[test]
fn an_output_that_exists_names_both_ways_on() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let out = scene.volume::<u16>("out.zarr", [16; 3], RAMP);
    apply_refused(&scene, &pair.at("global.json"), 1, &[&out, "--resume", "--overwrite"]);
    // resuming a different output is refused too
    let (moving, fixed, global) =
        (pair.at("moving.zarr"), pair.at("fixed.zarr"), pair.at("global.json"));
    refused(
        &scene,
        "apply-transform",
        &[&moving, "--onto", &fixed, "--transform", &global, "-o", &out, "--resume"],
        1,
        &["shape"],
    );
    // and an unrelated folder is not deleted
    let precious = scene.file("precious.txt", "thesis");
    let folder = scene.at("");
    refused(
        &scene,
        "apply-transform",
        &[&moving, "--onto", &fixed, "--transform", &global, "-o", &folder, "--overwrite"],
        1,
        &["not replaced"],
    );
    assert_eq!(std::fs::read_to_string(precious).unwrap(), "thesis");
}

#[test]
fn what_is_read_is_never_replaced() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let (fixed, global) = (pair.at("fixed.zarr"), scene.at("global.json"));
    std::fs::copy(pair.at("global.json"), &global).unwrap();
    let moving = scene.volume::<u16>("image.zarr", [16; 3], RAMP);
    let level = format!("{moving}/0");
    let before = chunks(&moving);
    let onto = ["--onto", &fixed, "--transform", &global, "--overwrite", "-o"];
    for (read, written) in [(&moving, &moving), (&level, &moving), (&level, &level)] {
        let line: Vec<&str> =
            [read.as_str()].into_iter().chain(onto).chain([written.as_str()]).collect();
        refused(&scene, "apply-transform", &line, 2, &["--output", "another name"]);
    }
    let line = [&moving, "--onto", &fixed, "--transform", &global, "-o", &global, "--overwrite"];
    refused(&scene, "apply-transform", &line, 2, &["--output", "--transform"]);
    // the chain that is written beside a field is an output, too
    let field = scene.at("global.zarr");
    let line = [&fixed, &moving, "--initial", &global, "-o", &field, "--overwrite"];
    refused(&scene, "deform", &line, 2, &["global.json", "--initial"]);
    assert!(chunks(&moving) == before);
    assert_eq!(std::fs::read(&global).unwrap(), std::fs::read(pair.at("global.json")).unwrap());
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    refused(
        &scene,
        "extract-spots",
        &[&pair.at("fixed.zarr"), "-o", "/proc/none/spots.csv"],
        1,
        &["/proc/none"],
    );
}

#[test]
fn flags_that_do_not_fit_are_exit_2() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let (moving, fixed, global) =
        (pair.at("moving.zarr"), pair.at("fixed.zarr"), pair.at("global.json"));
    let out = scene.at("out.zarr");
    let apply = [&moving, "--onto", &fixed, "--transform", &global, "-o", &out];
    for (flag, value, word) in [
        ("--part", "0/4", "0/4"),
        ("--part", "5/4", "5/4"),
        ("--block-size", "50,50,50", "multiple"),
        ("--memory", "lots", "lots"),
        ("--threads", "0", "threads"),
    ] {
        let arguments: Vec<&str> = apply.into_iter().chain([flag, value]).collect();
        refused(&scene, "apply-transform", &arguments, 2, &[word]);
    }
}

#[test]
fn an_unknown_key_of_a_config_file_names_the_nearest() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let config = scene.file("params.yaml", "extract-spots:\n  max-spotts: 100\n");
    refused(
        &scene,
        "extract-spots",
        &[&pair.at("fixed.zarr"), "-o", &scene.at("spots.csv"), "--config", &config],
        2,
        &["max-spotts", "max-spots"],
    );
}

#[test]
fn volumes_that_do_not_overlap_say_so() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let far = scene.file("far.txt", "1 0 0 9000\n0 1 0 9000\n0 0 1 9000\n0 0 0 1\n");
    refused(
        &scene,
        "local-affine",
        &[&pair.at("fixed.zarr"), &pair.at("moving.zarr"), "--initial", &far, "-o"]
            .into_iter()
            .chain([scene.at("local.zarr").as_str()])
            .collect::<Vec<_>>(),
        1,
        &["overlap"],
    );
}

#[test]
fn a_field_that_cannot_be_had_is_refused_with_the_way_out() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let (fixed, moving, global) =
        (pair.at("fixed.zarr"), pair.at("moving.zarr"), pair.at("global.json"));
    let out = scene.at("deform.zarr");
    let deform = |more: &[&str], code: i32, words: &[&str]| {
        let arguments: Vec<&str> =
            [fixed.as_str(), &moving, "-o", &out].into_iter().chain(more.iter().copied()).collect();
        refused(&scene, "deform", &arguments, code, words);
    };
    deform(&["--initial", "nowhere.json"], 1, &["nowhere.json"]);
    deform(&["--initial", &global, "--smoothing", "-1"], 2, &["smoothing"]);
    deform(
        &["--initial", &global, "--block-size", "16,16,16", "--overlap", "32"],
        1,
        &["--overlap 32"],
    );
    deform(&["--initial", &global, "--fixed-mask", "no-mask.zarr"], 1, &["no-mask.zarr"]);
    let far = scene.file("far.txt", "1 0 0 9000\n0 1 0 9000\n0 0 1 9000\n0 0 0 1\n");
    deform(
        &["--initial", &far],
        1,
        &["no block of the fixed volume could be aligned", "--initial"],
    );
}

#[test]
fn an_inverse_that_cannot_be_had_is_refused_with_the_way_out() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let out = scene.at("inverse.zarr");
    let global = pair.at("global.json");
    refused(&scene, "invmap", &[&global, "-o", &out], 1, &["--onto"]);
    refused(&scene, "invmap", &["nowhere.zarr", "-o", &out], 1, &["nowhere.zarr"]);
    let volume = pair.at("moving.zarr");
    refused(&scene, "invmap", &[&volume, "-o", &out], 1, &["moving.zarr"]);
    let moving = ["--onto", &volume, "-o", &out];
    let tolerance: Vec<&str> =
        [global.as_str()].into_iter().chain(moving).chain(["--tolerance", "0"]).collect();
    refused(&scene, "invmap", &tolerance, 2, &["--tolerance"]);
    // the wrong direction
    program("invmap").args([global.as_str()]).args(moving).assert().success();
    refused(
        &scene,
        "apply-transform",
        &[&volume, "--onto", &volume, "-t", &out, "-o", &scene.at("x.zarr")],
        1,
        &["moving-to-fixed"],
    );
}
