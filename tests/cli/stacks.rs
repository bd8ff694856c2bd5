//! A stack of sections is aligned by `flow`, `clean-flow` and `relax`.

use serde_json::Value;
use voxloom::geom::FieldSource;
use voxloom::volume::{FieldFile, Select, Volume};

use crate::faults::refused;
use crate::scene::{Scene, program};

/// The shift of the pattern in each section along y and x, pixels.
const SHIFTS: [[f64; 2]; 6] =
    [[0.0, 0.0], [3.0, -2.0], [-4.0, 1.0], [2.0, 5.0], [5.0, -3.0], [-1.0, 2.0]];

/// A smooth pattern without repetition.
pub(crate) fn pattern(y: f64, x: f64) -> f64 {
    let wave = |k: u32| {
        let (angle, length) = (f64::from(k) * 2.399_963, 0.25 + 0.012 * f64::from(k));
        (length * (angle.cos() * y + angle.sin() * x) + f64::from(k * k)).sin()
    };
    128.0 + 12.0 * (1..40).map(wave).sum::<f64>()
}

/// Six sections of 120 x 130 pixels of a shifted pattern. The sections in `blank` are constant, and
/// those from `apart` on show another part of the pattern.
fn stack(scene: &Scene, name: &str, blank: &[i64], apart: i64) -> String {
    scene.volume::<u8>(name, [6, 120, 130], |[z, y, x]| {
        if blank.contains(&z) {
            return 128;
        }
        let [sy, sx] = SHIFTS[z as usize];
        let far = if z >= apart { 1000.0 } else { 0.0 };
        pattern(y as f64 - sy + far, x as f64 - sx).clamp(0.0, 255.0) as u8
    })
}

pub(crate) fn run(name: &str, arguments: &[&str]) -> String {
    let run = program(name).args(arguments).output().unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success(), "{name} {arguments:?}: {message}");
    message
}

/// The cleaned flow of all sections at a distance.
fn flow(scene: &Scene, stack: &str, distance: &str, more: &[&str]) -> String {
    let pass = more.len();
    let (raw, clean) = (format!("raw{pass}-{distance}"), format!("clean{pass}-{distance}"));
    let (out, cleaned) = (scene.at(&format!("{raw}.zarr")), scene.at(&format!("{clean}.zarr")));
    let patches = ["--patch", "32", "--stride", "8", "--search", "12"];
    let pair = [stack, stack, "-o", &out, "--planes", "--distance", distance];
    let is_through = more.first() == Some(&"--through");
    run("flow", &[&pair[..], &patches, if is_through { more } else { &[] }].concat());
    let raw = scene.at(&format!("{raw}.json"));
    let line = [raw.as_str(), "-o", &cleaned, "--max-deviation", "2"];
    run("clean-flow", &[&line[..], if is_through { &[] } else { more }].concat());
    scene.at(&format!("{clean}.json"))
}

/// The displacement of the middle node of each section.
fn middle(location: &str) -> Vec<[f32; 3]> {
    let field = FieldFile::open(location).unwrap();
    let [nz, ny, nx] = field.grid().shape;
    let all = field.read(&field.grid().bounds()).unwrap();
    (0..nz).map(|z| all[(z * ny + ny / 2) * nx + nx / 2]).collect()
}

#[test]
fn the_sections_of_a_stack_are_aligned_across_a_blank_one() {
    let scene = Scene::new();
    let stack = stack(&scene, "stack.zarr", &[2], 6);
    let flows = [flow(&scene, &stack, "1", &[]), flow(&scene, &stack, "2", &[])];
    let out = scene.at("aligned.zarr");
    let receipt = scene.at("receipt.json");
    let line = [flows[0].as_str(), &flows[1], "--stack", "--fixed", "0", "-o", &out];
    let message = run("relax", &[&line[..], &["--receipt", &receipt]].concat());
    assert!(message.contains("sections 2; they follow their neighbours"), "{message}");
    for (z, found) in middle(&out).into_iter().enumerate().filter(|(z, _)| *z != 2) {
        for a in 0..2 {
            let away = (f64::from(found[1 + a]) - SHIFTS[z][a]).abs();
            assert!(away < 0.15, "section {z}: {found:?}, wanted {:?}", SHIFTS[z]);
        }
    }
    let receipt: Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
    let pairs = receipt["results"]["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 5 + 4);
    for pair in pairs {
        let [section, distance] = ["section", "distance"].map(|name| pair[name].as_u64().unwrap());
        let is_blank = section == 2 || section - distance == 2;
        assert_eq!(pair["matched"].as_u64().unwrap() == 0, is_blank, "{pair}");
        assert!(pair["rms_um"].as_f64().unwrap() < 0.3, "{pair}");
    }

    // as they lie now, the sections differ by nothing, and another pass changes nothing
    let chain = scene.at("aligned.json");
    let through = ["--through", chain.as_str()];
    let second = ["1", "2"].map(|distance| flow(&scene, &stack, distance, &through));
    let finer = scene.at("finer.zarr");
    run(
        "relax",
        &[&[second[0].as_str(), &second[1], "--stack", "-o", &finer], &through[..]].concat(),
    );
    let forgotten = [second[0].as_str(), &second[1], "--stack", "-o", &scene.at("none.zarr")];
    refused(&scene, "relax", &forgotten, 2, &["give those that flow had as --through"]);
    for (z, found) in middle(&finer).into_iter().enumerate().filter(|(z, _)| *z != 2) {
        assert!(found[1].hypot(found[2]) < 0.1, "section {z}: {found:?}");
    }
    let chain: Value =
        serde_json::from_slice(&std::fs::read(scene.at("finer.json")).unwrap()).unwrap();
    assert!(chain.to_string().contains("finer.zarr"), "{chain}");
    assert!(chain.to_string().contains("aligned.zarr"), "{chain}");

    let moved = scene.at("moved.zarr");
    let chain = scene.at("finer.json");
    run("apply-transform", &[&stack, "--onto", &stack, "-t", &chain, "-o", &moved]);
    let volume = Volume::open(&moved, &Select::default()).unwrap();
    let voxels = volume.read::<u8>(&volume.grid().bounds()).unwrap();
    let plane = |z: usize| &voxels[z * 120 * 130..][..120 * 130];
    for z in [1, 3, 4, 5] {
        let mut sum = 0.0;
        for y in 20..100 {
            for x in 20..110 {
                sum += f64::from(plane(z)[y * 130 + x].abs_diff(plane(0)[y * 130 + x]));
            }
        }
        assert!(sum / (80.0 * 90.0) < 6.0, "section {z}: {sum}");
    }
}

#[test]
fn a_stack_that_falls_apart_is_not_taken_for_an_aligned_one() {
    let scene = Scene::new();
    let stack = stack(&scene, "stack.zarr", &[], 4);
    let flow = flow(&scene, &stack, "1", &[]);
    let out = scene.at("aligned.zarr");
    let line = [flow.as_str(), "--stack", "-o", &out];
    let run = program("relax").args(line).output().unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(3), "{message}");
    assert!(message.contains("only sections 0-3 | 4-5 are connected"), "{message}");
    assert!(!std::path::Path::new(&scene.at("aligned.json")).exists());
}

#[test]
fn a_stack_in_tiles_is_aligned_as_a_whole_one_is() {
    let scene = Scene::new();
    let stack = stack(&scene, "stack.zarr", &[], 6);
    let (out, flow) = (scene.at("flow.zarr"), scene.at("flow.json"));
    let patches = ["--patch", "32", "--stride", "1", "--search", "10"];
    let pair = [stack.as_str(), &stack, "-o", &out, "--planes", "--distance", "1"];
    run("flow", &[&pair[..], &patches].concat());
    let grid = FieldFile::open(&out).unwrap().grid();
    let relaxed = |name: &str, more: &[&[&str]]| {
        let out = scene.at(name);
        for more in more {
            run("relax", &[&[&flow, "--stack", "--hold-out", "0.1", "-o", &out], *more].concat());
        }
        let field = FieldFile::open(&out).unwrap();
        field.read(&field.grid().bounds()).unwrap()
    };
    let whole = relaxed("whole.zarr", &[&[]]);
    let size = ["--block-size", "6,64,64"];
    let tiles = relaxed("tiles.zarr", &[&size]);
    let part = |part| [&size[..], &["--part", part, "--resume"]].concat();
    let finish = [&size[..], &["--finish", "--resume"]].concat();
    let parts = relaxed("parts.zarr", &[&part("1/2"), &part("2/2"), &finish]);
    assert!(tiles == parts);
    // the nodes up to the faces have no matches, and what lies there is extrapolated
    let (rim, [_, ny, nx]) = (16, grid.shape);
    let is_matched = |i: &usize| {
        let (y, x) = (i / nx % ny, i % nx);
        (rim..ny - rim).contains(&y) && (rim..nx - rim).contains(&x)
    };
    let worst = |other: &[[f32; 3]], most_of: &dyn Fn(&usize) -> bool| {
        let away = |i: usize| (1..3).map(|a| (whole[i][a] - other[i][a]).abs()).fold(0.0, f32::max);
        (0..whole.len()).filter(most_of).map(away).fold(0.0, f32::max)
    };
    let [inside, anywhere] = [worst(&tiles, &is_matched), worst(&tiles, &|_| true)];
    assert!(inside < 0.05 && anywhere < 0.5, "{inside} {anywhere}");
    // a stack that does not fit into memory is divided
    let little = worst(&relaxed("little.zarr", &[&["--memory", "60MB"]]), &is_matched);
    assert!(little > 0.0 && little < 0.05, "{little}");
}

#[test]
fn estimated_vectors_do_not_pull_at_a_mesh() {
    let scene = Scene::new();
    let stack = scene.volume::<u8>("half.zarr", [2, 120, 130], |[z, y, x]| {
        if z == 1 && x > 60 { 128 } else { pattern(y as f64, x as f64).clamp(0.0, 255.0) as u8 }
    });
    let matched = |more: &[&str]| {
        let flow = flow(&scene, &stack, "1", more);
        let out = scene.at(&format!("relaxed{}.zarr", more.len()));
        let receipt = scene.at("receipt.json");
        run("relax", &[&flow, "--stack", "-o", &out, "--receipt", &receipt]);
        let receipt: Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
        let count = |name: &str| receipt["results"]["pairs"][0][name].as_u64().unwrap();
        (count("matched"), count("nodes"))
    };
    let (measured, nodes) = matched(&[]);
    assert!(measured > 20 && measured < nodes / 2, "{measured} of {nodes}");
    assert_eq!(matched(&["--fill"]).0, measured);
}

#[test]
fn fields_that_do_not_fit_the_flags_are_refused() {
    let scene = Scene::new();
    let stack = stack(&scene, "stack.zarr", &[], 6);
    let distant = flow(&scene, &stack, "1", &[]);
    let pair = flow(&scene, &stack, "0", &[]);
    let out = scene.at("out.zarr");
    for (line, words) in [
        (
            vec![distant.as_str()],
            "compares sections of one stack, at a distance of 1; give --stack",
        ),
        (vec![&pair, "--stack"], "does not compare sections of one stack"),
        (
            vec![&distant, "--stack", "--fixed", "6"],
            "--fixed 6 is out of range: the stack has 6 sections",
        ),
        (vec![&pair, "--fixed", "0"], "--fixed is for --stack"),
        (vec![&pair, "--stiffness", "1e10"], "--stiffness 10000000000 is out of range"),
        (vec![&pair, "--outlier-length", "0"], "--outlier-length is out of range"),
        (vec![&pair, "--hold-out", "0.9"], "--hold-out 0.9 is out of range"),
        (vec![&pair, &distant, "--stack"], "does not compare sections of one stack"),
    ] {
        refused(&scene, "relax", &[&line[..], &["-o", &out]].concat(), 2, &[words]);
    }
}

#[test]
fn flags_and_folders_of_another_phantom_are_refused() {
    let scene = Scene::new();
    let (pair, map) =
        (scene.at("pair"), scene.file("map.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"));
    let rounds = ["rounds", "--max-shift", "5", "-o", &pair];
    refused(&scene, "phantom", &rounds, 2, &["--max-shift is for sections"]);
    let score = ["score", "--truth", &pair, "--transform", &map];
    refused(&scene, "phantom", &score, 1, &["holds neither truth_points.csv nor sections.json"]);
}
