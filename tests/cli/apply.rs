//! The program `apply-transform`: inverses, channels, shards, warnings, element types.

use voxloom::geom::{Box3, Grid};
use voxloom::volume::{Codec, Dtype, Existing, Format, Output, Select, Spec, Volume};

use crate::faults::refused;
use crate::scene::{PhantomPair, Scene, program};

fn voxels(location: &str, channel: Option<usize>) -> Vec<u16> {
    let volume = Volume::open(location, &Select { channel, ..Select::default() }).unwrap();
    volume.read::<u16>(&volume.grid().bounds()).unwrap()
}

/// Aligns the pair with `deform`; returns the path of the chain of the field and the affine.
fn bent(scene: &Scene) -> String {
    let pair = PhantomPair::get();
    program("deform")
        .args([&pair.at("fixed.zarr"), &pair.at("moving.zarr")])
        .args(["--initial", &pair.at("global.json"), "-o", &scene.at("deform.zarr")])
        .assert()
        .success();
    scene.at("deform.json")
}

#[test]
fn a_volume_goes_back_through_a_field_alike_for_threads_parts_and_blocks() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let chain = bent(&scene);
    let run = |name: &str, more: &[&str]| {
        let out = scene.at(name);
        program("apply-transform")
            .args([&pair.at("fixed.zarr"), "--onto", &pair.at("moving.zarr"), "-o", &out])
            .args(["--transform", &chain, "--inverse-transform", "--chunk", "16,16,16"])
            .args(more)
            .assert()
            .success();
        out
    };
    let back = |name: &str, more: &[&str]| voxels(&run(name, more), None);
    let one = back("one.zarr", &["--threads", "1", "--receipt", &scene.at("one.json")]);
    let receipt = std::fs::read_to_string(scene.at("one.json")).unwrap();
    let receipt: serde_json::Value = serde_json::from_str(&receipt).unwrap();
    assert!(receipt["results"]["voxels_without_inverse"].is_u64(), "{receipt}");
    assert!(one == back("two.zarr", &["--threads", "2", "--block-size", "32,48,64"]));
    for k in [3, 1, 2] {
        let part = format!("{k}/3");
        run("parts.zarr", &["--part", &part, "--resume", "--block-size", "32,32,32"]);
    }
    assert!(one == back("parts.zarr", &["--finish", "--block-size", "32,32,32"]));
    // the resampled fixed volume is much more similar to the moving volume than the original is
    let moving = voxels(&pair.at("moving.zarr"), None);
    let fixed = voxels(&pair.at("fixed.zarr"), None);
    let similarity = |a: &[u16]| {
        let pairs = a.iter().zip(&moving).filter(|(a, _)| **a > 0);
        let pairs: Vec<[f64; 2]> = pairs.map(|(a, b)| [f64::from(*a), f64::from(*b)]).collect();
        let mean = |i: usize| pairs.iter().map(|p| p[i]).sum::<f64>() / pairs.len() as f64;
        let (ma, mb) = (mean(0), mean(1));
        let sum = |f: &dyn Fn(f64, f64) -> f64| {
            pairs.iter().map(|p| f(p[0] - ma, p[1] - mb)).sum::<f64>()
        };
        sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
    };
    let (before, after) = (similarity(&fixed), similarity(&one));
    assert!(after > 0.7 && after > before + 0.2, "{before} {after}");
}

/// An image of three channels, one of which holds only the labels 0 and 7.
fn channels(scene: &Scene) -> String {
    let shape = [24, 30, 40];
    let spec = Spec {
        grid: Grid::new(shape, [2.0, 1.0, 1.0], [0.0; 3]),
        dtype: Dtype::U16,
        chunk: [16; 3],
        shard: None,
        codec: Codec::Blosc,
        format: Format::Zarr3,
    };
    let location = scene.at("channels.zarr");
    let output = Output::create_channels(&location, &spec, 3, Existing::Refuse).unwrap();
    for c in 0..3 {
        let value = |[z, y, x]: [i64; 3]| match c {
            2 => 7 * ((z / 5 + y / 5 + x / 5) % 2) as u16,
            _ => (100 + z * 30 + y * 3 * (c as i64 + 1) + x) as u16,
        };
        for part in Box3::of_shape(shape).tiles([16; 3]) {
            let voxels: Vec<u16> = part.tiles([1; 3]).map(|v| value(v.min)).collect();
            output.write_channel(c, &part, &voxels).unwrap();
        }
    }
    location
}

#[test]
fn several_channels_go_through_in_one_pass_as_each_would_by_itself() {
    let scene = Scene::new();
    let image = channels(&scene);
    let map = scene.file("map.txt", "1 0.02 0 1.5\n-0.01 1 0 -2\n0 0.01 1 0.7\n0 0 0 1\n");
    let apply = |name: &str, channel: &str, more: &[&str]| {
        let out = scene.at(name);
        program("apply-transform")
            .args([&image, "--onto", &image, "--fixed-channel", "0", "-o", &out])
            .args(["--transform", &map, "--moving-channel", channel])
            .args(more)
            .assert()
            .success();
        out
    };
    for (name, more) in
        [("a", &["--interpolation", "lanczos"][..]), ("b", &["--zarr-format", "2"][..])]
    {
        let all = apply(&format!("{name}-all.zarr"), "all", more);
        let some = apply(&format!("{name}-some.zarr"), "2,0", more);
        for c in 0..3usize {
            let one = apply(&format!("{name}-{c}.zarr"), &c.to_string(), more);
            let want = voxels(&one, None);
            assert!(want.iter().any(|v| *v > 0));
            assert!(voxels(&all, Some(c)) == want, "{name} {c}");
            if let Some(at) = [2, 0].iter().position(|n| *n == c) {
                assert!(voxels(&some, Some(at)) == want, "{name} {c}");
            }
        }
    }
    let labels = voxels(&apply("n.zarr", "2", &["--interpolation", "nearest"]), None);
    assert!(labels.iter().all(|v| [0, 7].contains(v)) && labels.contains(&7));
}

#[test]
fn channels_that_are_not_there_or_cannot_be_written_are_named() {
    let scene = Scene::new();
    let image = channels(&scene);
    let map = scene.file("map.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    let run = |out: &str, channel: &str, code: i32, words: &[&str]| {
        let out = scene.at(out);
        let flags = ["--onto", &image, "--fixed-channel", "0", "--transform", &map, "-o", &out];
        let mut arguments = vec![image.as_str(), "--moving-channel", channel];
        arguments.extend(flags);
        refused(&scene, "apply-transform", &arguments, code, words);
    };
    run("out.zarr", "0,3", 1, &["3 channels", "last is 2"]);
    run("out.zarr", "1,1", 2, &["twice"]);
    run("out.zarr", "first", 2, &["0,2", "all"]);
    run("out.n5", "all", 1, &["out.n5", "OME-Zarr", ".zarr"]);
    run("out.tif", "0,1", 1, &["out.tif", "OME-Zarr"]);
}

#[test]
fn a_shard_that_is_no_multiple_of_the_chunk_names_the_flags() {
    let scene = Scene::new();
    let image = scene.volume::<u16>("image.zarr", [32; 3], |[z, y, x]| (z + y + x) as u16);
    let map = scene.file("map.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    let out = scene.at("out.zarr");
    let arguments = [&image, "--onto", &image, "--transform", &map, "-o", &out];
    let mut arguments: Vec<&str> = arguments.iter().map(std::convert::AsRef::as_ref).collect();
    arguments.extend(["--shard", "24,32,32", "--chunk", "16,16,16"]);
    refused(&scene, "apply-transform", &arguments, 1, &["24", "16", "--chunk", "--shard"]);
}

#[test]
fn a_volume_that_maps_nowhere_is_warned_of() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let (fixed, moving) = (pair.at("fixed.zarr"), pair.at("moving.zarr"));
    let run = |shift: f64| {
        let matrix = format!("1 0 0 {shift}\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
        scene.file("shift.txt", &matrix);
        let mut apply = program("apply-transform");
        apply.args([&moving, "--onto", &fixed, "--transform", &scene.at("shift.txt")]);
        let done = apply.args(["-o", &scene.at("out.zarr"), "--overwrite"]).output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stderr).unwrap()
    };
    let words = "out.zarr maps into";
    let message = run(1e5);
    assert!(message.contains(words) && message.contains("all have the fill value 0"), "{message}");
    assert!(!run(1.0).contains(words));
}

#[test]
fn a_type_that_does_not_hold_the_values_is_told_whole_and_in_parts() {
    let scene = Scene::new();
    let signed = scene.volume("signed.zarr", [32; 3], |[z, y, _]| (10 * z - y) as f32);
    let unit = scene.volume("unit.zarr", [32; 3], |[z, y, _]| (z * y) as f32 / 1000.0);
    let holed = scene.volume(
        "holed.zarr",
        [32; 3],
        |[z, y, x]| if x == 5 { f32::NAN } else { (z + y) as f32 },
    );
    let labels = scene.volume("labels.zarr", [32; 3], |[z, _, _]| 70_000 * u32::from(z == 9));
    let fine = scene.volume("fine.zarr", [32; 3], |[z, _, _]| z as u32);
    let still = scene.file("still.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    let run = |volume: &str, out: &str, more: &[&str]| {
        let run = program("apply-transform")
            .args([volume, "--onto", volume, "-t", &still, "-o", &scene.at(out)])
            .args(["--dtype", "uint16", "--chunk", "16,16,16", "--block-size", "16,16,16"])
            .args(more)
            .output()
            .unwrap();
        let stderr = String::from_utf8(run.stderr).unwrap();
        assert!(run.status.success(), "{stderr}");
        stderr
    };
    let nearest = ["--interpolation", "nearest"];
    for (volume, more, words) in [
        (&signed, &[][..], "range from -31 to 310"),
        (&signed, &nearest, "range from -31 to 310"),
        (&unit, &[], "rounded to whole numbers"),
        (&holed, &[], "NaN becomes 0"),
        (&labels, &nearest, "range from 0 to 70000"),
    ] {
        let stderr = run(volume, "out.zarr", &[&["--overwrite"], more].concat());
        assert!(stderr.contains(words), "{volume} {more:?}: {stderr}");
    }
    let stderr = run(&fine, "fine16.zarr", &nearest);
    assert!(!stderr.contains("WARN"), "{stderr}");
    // --finish reports the range of the values that all parts have read
    for k in ["1/2", "2/2"] {
        run(&signed, "parts.zarr", &["--part", k]);
    }
    let stderr = run(&signed, "parts.zarr", &["--finish"]);
    assert!(stderr.contains("range from -31 to 310"), "{stderr}");
}
