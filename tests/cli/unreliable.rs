//! Unreliable maps: exit code 3, no map is written, and the receipt states the reason.

use std::path::Path;

use voxloom::geom::{Affine, Grid, Point};
use voxloom::volume::{Codec, Dtype, Existing, Format, Output, Spec};

use crate::scene::{PhantomPair, Scene, program};

/// A pseudorandom number in `0..1`, determined by the seed and an index.
fn chance(seed: u64, question: u64) -> f64 {
    let mut v =
        seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ question.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    for _ in 0..3 {
        v = (v ^ (v >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB);
    }
    (v >> 11) as f64 / (1u64 << 53) as f64
}

/// The intensity as a function of the position: 90 blobs of various sizes at random positions
/// within 50 um.
fn blobs(seed: u64) -> impl Fn(Point) -> f64 {
    let blobs: Vec<(Point, f64, f64)> = (0..90)
        .map(|b| {
            let at = |a: u64| 50.0 * chance(seed, 8 * b + a) - 1.0;
            let width = 1.6 + 1.6 * chance(seed, 8 * b + 3);
            ([at(0), at(1), at(2)], width, 200.0 + 700.0 * chance(seed, 8 * b + 4))
        })
        .collect();
    move |p| {
        let mut sum = 100.0;
        for (centre, width, height) in &blobs {
            let square: f64 = (0..3).map(|a| (p[a] - centre[a]).powi(2)).sum();
            if square < 16.0 * width * width {
                sum += height * (-0.5 * square / (width * width)).exp();
            }
        }
        sum
    }
}

/// A volume with the value of `of` at the index and position of each voxel.
fn volume(scene: &Scene, name: &str, grid: Grid, of: impl Fn(usize, Point) -> f64) -> String {
    let (codec, format, dtype) = (Codec::Raw, Format::Zarr3, Dtype::U16);
    let spec = Spec { grid, dtype, chunk: grid.shape, shard: None, codec, format };
    let output = Output::create(&scene.at(name), &spec, Existing::Refuse).unwrap();
    let voxels: Vec<u16> = grid
        .bounds()
        .tiles([1; 3])
        .enumerate()
        .map(|(i, v)| of(i, grid.position(v.min.map(|c| c as f64))).round() as u16)
        .collect();
    output.write(&grid.bounds(), &voxels).unwrap();
    scene.at(name)
}

/// Whether an orientation is tested: two of the eight mirror images for each order of the axes,
/// such that every mirror image is tested; all 48 if `VOXLOOM_ORIENTATIONS` is set, which takes
/// minutes.
fn is_tried(order: usize, flip: usize) -> bool {
    flip % 4 == order % 4 || std::env::var_os("VOXLOOM_ORIENTATIONS").is_some()
}

const AXES: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Writes the volume of `blobs(1)` with its axes permuted and flipped, the voxel size permuted
/// accordingly, and noise; returns its path and the map from the original volume to it.
fn turned(scene: &Scene, grid: Grid, axes: [usize; 3], flip: usize) -> (String, Affine) {
    let of = blobs(1);
    let shape = axes.map(|a| grid.shape[a]);
    let spacing = axes.map(|a| grid.spacing[a]);
    let there = Grid::new(shape, spacing, [0.0; 3]);
    let mut rows = [[0.0; 4]; 3];
    for a in 0..3 {
        let length = (shape[a] - 1) as f64 * spacing[a];
        let back = flip >> a & 1 == 1;
        rows[a][axes[a]] = if back { -1.0 } else { 1.0 };
        rows[a][3] = if back { length } else { 0.0 };
    }
    let map = Affine::from_rows(rows);
    let inverse = map.inverse().unwrap();
    let name = format!("turned-{axes:?}-{flip}.zarr").replace(['[', ']', ',', ' '], "");
    let location =
        volume(scene, &name, there, |i, q| of(inverse.apply(q)) + 8.0 * chance(77, i as u64));
    (location, map)
}

fn found(output: &str) -> Affine {
    voxloom::transform::read_chain(&[output.to_owned()]).unwrap().as_affine().unwrap()
}

fn receipt(output: &str) -> serde_json::Value {
    let text = std::fs::read_to_string(format!("{output}.receipt.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn results(output: &str) -> serde_json::Value {
    receipt(output)["results"].clone()
}

/// The grid of a volume with anisotropic voxels, and the allowed error of a map.
fn uneven() -> (Grid, f64) {
    (Grid::new([24, 44, 46], [2.0, 1.0, 1.0], [0.0; 3]), 1.0)
}

#[test]
fn refine_finds_an_image_turned_and_mirrored_any_of_48_ways() {
    let scene = Scene::new();
    let (grid, allowed) = uneven();
    let of = blobs(1);
    let fixed = volume(&scene, "fixed.zarr", grid, |i, p| of(p) + 8.0 * chance(5, i as u64));
    for (order, axes) in AXES.into_iter().enumerate() {
        for flip in (0..8).filter(|flip| is_tried(order, *flip)) {
            let (moving, truth) = turned(&scene, grid, axes, flip);
            let out = scene.at("out.json");
            program("refine")
                .args([&fixed, &moving, "-o", &out, "--overwrite", "--model", "rigid"])
                .args(["--search", "20", "--allow-reflection", "-q"])
                .assert()
                .success();
            let error = found(&out).distance(&truth, grid.extent(&grid.bounds()));
            assert!(error < allowed, "axes {axes:?}, flip {flip:03b}: {error} um");
            assert_eq!(results(&out)["believed"], true);
            assert!(receipt(&out)["failed"].is_null());
            std::fs::remove_dir_all(moving).unwrap();
        }
    }
}

#[test]
fn ransac_finds_an_image_turned_and_mirrored_any_of_48_ways() {
    let scene = Scene::new();
    let (grid, allowed) = uneven();
    let of = blobs(1);
    let fixed = volume(&scene, "fixed.zarr", grid, |i, p| of(p) + 8.0 * chance(5, i as u64));
    let spots = |volume: &str| {
        let table = format!("{volume}.csv");
        program("extract-spots")
            .args([volume, "-o", &table, "--radius", "1.5..6", "--border", "2"])
            .assert()
            .success();
        table
    };
    let fixed_spots = spots(&fixed);
    for (order, axes) in AXES.into_iter().enumerate() {
        // other orientations than in the test of `refine`
        for flip in (0..8).filter(|flip| is_tried(order + 2, *flip)) {
            let (moving, truth) = turned(&scene, grid, axes, flip);
            let (moving_spots, out) = (spots(&moving), scene.at("out.json"));
            program("ransac")
                .args([&fixed, &moving, "-o", &out, "--overwrite", "--allow-reflection", "-q"])
                .args(["--fixed-spots", &fixed_spots, "--moving-spots", &moving_spots])
                .args(["--context-radius", "6", "--model", "rigid", "--align-threshold", "1.5"])
                .assert()
                .success();
            let error = found(&out).distance(&truth, grid.extent(&grid.bounds()));
            assert!(error < allowed, "axes {axes:?}, flip {flip:03b}: {error} um");
            std::fs::remove_dir_all(moving).unwrap();
        }
    }
}

/// Runs a program on unrelated volumes; the program must write no map and state the reason.
fn doubted(program_name: &str, arguments: &[&str], out: &str) {
    let run = program(program_name).args(arguments).args(["-o", out, "-q"]).output().unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(3), "{program_name} {arguments:?}: {stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    assert!(!Path::new(out).exists());
    let results = results(out);
    assert_eq!(results["believed"], false);
    let why = receipt(out)["failed"].clone();
    assert!(why.as_str().is_some_and(|why| stderr.contains(why)), "{stderr} {why}");
    assert!(stderr.contains(results["refusal"].as_str().unwrap()), "{stderr} {results}");
}

#[test]
fn volumes_that_have_nothing_in_common_are_told_from_those_that_have() {
    let scene = Scene::new();
    let (grid, _) = uneven();
    let show = |name: &str, seed: u64| {
        let of = blobs(seed);
        volume(&scene, name, grid, move |i, p| of(p) + 8.0 * chance(seed + 99, i as u64))
    };
    let fixed = show("fixed.zarr", 1);
    for seed in 2..4 {
        let other = show(&format!("{seed}.zarr"), seed);
        let out = |name: &str| scene.at(&format!("{name}{seed}.json"));
        for model in ["translation", "rigid", "affine"] {
            doubted("refine", &[&fixed, &other, "--model", model], &out(model));
        }
        let search = ["--model", "rigid", "--search", "20", "--allow-reflection"];
        doubted("refine", &[&[&fixed[..], &other], &search[..]].concat(), &out("search"));
    }
    // no field is found between them either, whichever options are used
    let field = scene.at("field.zarr");
    for more in [&[][..], &["--elasticity", "auto"], &["--metric", "mi"], &["--metric", "ssq"]] {
        let other = scene.at("3.zarr");
        doubted("deform", &[&[&fixed[..], &other, "--overlap", "8"], more].concat(), &field);
    }
    let noise = |name: &str, seed: u64| {
        volume(&scene, name, grid, |i, _| 100.0 + 50.0 * chance(seed, i as u64))
    };
    let (one, two) = (noise("noise1.zarr", 7), noise("noise2.zarr", 8));
    doubted("deform", &[&one, &two, "--elasticity", "auto", "--overlap", "8"], &field);
    // a refused map can be written on request
    program("refine")
        .args([&fixed, &scene.at("2.zarr"), "-o", &scene.at("any.json"), "--min-evidence", "0"])
        .assert()
        .success();
}

#[test]
fn an_outline_and_padding_that_two_samples_share_are_no_evidence() {
    let scene = Scene::new();
    let grid = Grid::new([48, 56, 60], [1.0, 0.9, 0.8], [0.0; 3]);
    // a ball in black padding, one side of it cut off
    let inside = |p: Point| {
        let square: f64 = (0..3).map(|a| (p[a] - [24.0, 25.0, 22.0][a]).powi(2)).sum();
        square < 400.0 && p[2] < 36.0
    };
    let show = |name: &str, seed: u64| {
        let of = blobs(seed % 10);
        volume(&scene, name, grid, move |i, p| {
            if inside(p) { of(p) + 8.0 * chance(seed + 99, i as u64) } else { 0.0 }
        })
    };
    let (fixed, again) = (show("fixed.zarr", 1), show("again.zarr", 11));
    let (map, field) = (scene.at("map.json"), scene.at("field.zarr"));
    for seed in 2..4 {
        let other = show(&format!("{seed}.zarr"), seed);
        doubted("refine", &[&fixed, &other, "--overwrite"], &map);
        doubted("deform", &[&fixed, &other, "--overlap", "8", "--overwrite"], &field);
    }
    // the same sample is recognised
    program("refine").args([&fixed, &again, "-o", &map, "--overwrite"]).assert().success();
    let deform = [&fixed[..], &again, "-o", &field, "--overlap", "8", "--overwrite"];
    program("deform").args(deform).assert().success();
}

#[test]
fn ransac_believes_nothing_of_another_sample_and_leaves_no_map_behind() {
    let (pair, scene) = (PhantomPair::get(), Scene::new());
    let other = scene.at("other");
    program("phantom")
        .args(["rounds", "--size", "96", "--max-displacement", "2", "--seed", "9", "-o", &other])
        .assert()
        .success();
    let (moving, spots) = (format!("{other}/moving.zarr"), scene.at("other.csv"));
    program("extract-spots").args([&moving, "-o", &spots]).assert().success();
    let (fixed, table) = (pair.at("fixed.zarr"), pair.at("fixed.csv"));
    let volumes = [&fixed[..], &moving, "--fixed-spots", &table, "--moving-spots", &spots];
    for (i, threshold) in ["0.7", "0.3"].into_iter().enumerate() {
        let out = scene.at(&format!("{i}.json"));
        let flags = ["--match-threshold", threshold, "--overwrite"];
        // the file of an earlier run is not a result of this one
        std::fs::write(&out, "{}").unwrap();
        doubted("ransac", &[&volumes[..], &flags[..]].concat(), &out);
    }
}

#[test]
fn a_thin_stack_that_fits_is_believed_with_any_seed() {
    let scene = Scene::new();
    let (grid, of) = (Grid::new([4, 64, 64], [1.0, 0.8, 0.8], [0.0; 3]), blobs(4));
    let at =
        |p: Point, shift: Point| of([p[0] + 20.0 + shift[0], p[1] + shift[1], p[2] + shift[2]]);
    let fixed =
        volume(&scene, "thin.zarr", grid, |i, p| at(p, [0.0; 3]) + 4.0 * chance(1, i as u64));
    let moving = volume(&scene, "moved.zarr", grid, |i, p| {
        at(p, [0.0, -1.6, -0.8]) + 4.0 * chance(2, i as u64)
    });
    for seed in 0..8 {
        let out = scene.at(&format!("{seed}.json"));
        program("refine")
            .args([&fixed, &moving, "-o", &out, "--seed", &seed.to_string(), "-q"])
            .assert()
            .success();
        let wanted = Affine::translation([0.0, 1.6, 0.8]);
        let error = found(&out).distance(&wanted, grid.extent(&grid.bounds()));
        assert!(error < 1.0, "seed {seed}: {error} um");
    }
}

#[test]
fn hot_voxels_leave_the_map_where_it_was() {
    let scene = Scene::new();
    let (grid, of) = (Grid::new([40, 56, 56], [1.2, 0.9, 0.9], [0.0; 3]), blobs(3));
    let (sin, cos) = 0.03f64.sin_cos();
    let linear = [[1.01, 0.0, 0.0], [0.0, cos, -sin], [0.0, sin, cos]];
    let truth = Affine::from_parts(linear, [0.7, 1.1, -1.6]);
    let back = truth.inverse().unwrap();
    let noise = |seed: u64, i: usize| 8.0 * chance(seed, i as u64);
    let fixed = volume(&scene, "fixed.zarr", grid, |i, p| of(p) + noise(1, i));
    let clean = volume(&scene, "clean.zarr", grid, |i, q| of(back.apply(q)) + noise(2, i));
    let hot = volume(&scene, "hot.zarr", grid, |i, q| {
        if chance(9, i as u64) < 1e-3 { 65535.0 } else { of(back.apply(q)) + noise(2, i) }
    });
    let error = |moving: &str| {
        for volume in [&fixed[..], moving] {
            program("extract-spots")
                .args([volume, "-o", &format!("{volume}.csv"), "--overwrite"])
                .args(["--radius", "1.5..6", "--border", "2"])
                .assert()
                .success();
        }
        let out = format!("{moving}.json");
        program("ransac")
            .args([&fixed[..], moving, "-o", &out, "--context-radius", "6"])
            .args(["--fixed-spots", &format!("{fixed}.csv")])
            .args(["--moving-spots", &format!("{moving}.csv")])
            .assert()
            .success();
        found(&out).distance(&truth, grid.extent(&grid.bounds()))
    };
    let (without, with) = (error(&clean), error(&hot));
    assert!(without < 0.9 && with < (2.0 * without).max(0.3), "{without} um, then {with} um");
}

#[test]
fn a_result_of_nothing_but_nan_is_no_success() {
    let scene = Scene::new();
    let unknown = scene.volume::<f32>("unknown.zarr", [16, 24, 24], |_| f32::NAN);
    let half = scene.volume::<f32>("half.zarr", [16, 24, 24], |[z, y, x]| {
        if x < 12 { f32::NAN } else { (z + y + x) as f32 }
    });
    let same = scene.file("same.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    let run = |moving: &str, out: &str| {
        let arguments = [moving, "--onto", &half, "--transform", &same, "-o", out, "-q"];
        program("apply-transform").args(arguments).output().unwrap()
    };
    let done = run(&unknown, &scene.at("a.zarr"));
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("NaN") && stderr.contains("a.zarr"), "{stderr}");
    assert_eq!(run(&half, &scene.at("b.zarr")).status.code(), Some(0));
}

/// `align.sh` regards a receipt as the mark of a finished step.
#[test]
fn a_step_that_is_not_believed_runs_again() {
    let scene = Scene::new();
    let (grid, _) = uneven();
    let show = |name: &str, seed: u64| {
        let of = blobs(seed);
        volume(&scene, name, grid, move |i, p| of(p) + 8.0 * chance(seed + 99, i as u64))
    };
    let (fixed, moving, out) = (show("fixed.zarr", 1), show("moving.zarr", 2), scene.at("out"));
    let params = "extract-spots: {radius: \"1.5..6\", border: 2}\nransac: {context-radius: 6}\n";
    let params = scene.file("params.yaml", params);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../workflows/align.sh");
    for _ in 0..2 {
        let run = std::process::Command::new("bash")
            .arg(&script)
            .args([&fixed, &moving, &out, "--params", &params, "--until", "global"])
            .env("VOXLOOM_BIN", crate::scene::executable("ransac").parent().unwrap())
            .output()
            .unwrap();
        let stderr = String::from_utf8(run.stderr).unwrap();
        assert_eq!(run.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains("align.sh: ransac\n"), "it did not run again: {stderr}");
        assert!(!Path::new(&out).join("transforms/global.json").exists());
        assert!(Path::new(&out).join("receipts/ransac.failed.json").exists());
    }
}
