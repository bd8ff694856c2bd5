//! `mask` finds tissue and its defects, and `relax` cuts its meshes at them.

use serde_json::Value;
use voxloom::geom::{Box3, FieldSource, Grid};
use voxloom::volume::{FieldFile, Select, Volume, Voxel};

use crate::faults::refused;
use crate::scene::{Scene, program};
use crate::stacks::{pattern, run};

fn read<T: Voxel>(location: &str) -> Vec<T> {
    let volume = Volume::open(location, &Select::default()).unwrap();
    volume.read(&volume.grid().bounds()).unwrap()
}

/// Twelve flawed sections and their true mask.
fn sections(scene: &Scene) -> [String; 2] {
    let folder = scene.at("phantom");
    let size = ["sections", "--size", "12,384,384", "--defects", "3", "--seed", "2", "-o", &folder];
    run("phantom", &size);
    ["sections", "labels"].map(|name| format!("{folder}/{name}.zarr"))
}

#[test]
fn the_mask_of_flawed_sections_is_near_the_true_one() {
    let scene = Scene::new();
    let [stack, truth] = sections(&scene);
    let out = scene.at("mask.zarr");
    let receipt = scene.at("receipt.json");
    let message = run("mask", &[&stack, "-o", &out, "--receipt", &receipt]);
    let (found, truth): (Vec<i8>, Vec<i8>) = (read(&out), read(&truth));
    let count = |is: &dyn Fn(i8, i8) -> bool| {
        truth.iter().zip(&found).filter(|(truth, found)| is(**truth, **found)).count() as f64
    };
    let both = count(&|truth, found| truth > 0 && found > 0);
    let either = count(&|truth, found| truth > 0 || found > 0);
    assert!(both / either > 0.99, "tissue: {both} of {either}");
    for (label, name) in [(-1, "tears"), (-2, "wrinkles")] {
        let (hit, all) = (count(&|t, f| t == label && f == label), count(&|t, _| t == label));
        assert!(all > 500.0 && hit / all > 0.6, "{name}: {hit} of {all}");
        let wrong = count(&|t, f| t == 0 && f == label);
        assert_eq!(wrong, 0.0, "{name} in resin");
    }
    // sections without tissue are named
    let plane = found.len() / 12;
    let empty = found.chunks(plane).filter(|plane| plane.iter().all(|v| *v <= 0)).count();
    assert!(empty > 0 && message.contains("these sections have no tissue: "), "{message}");
    let receipt: Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
    let rows = receipt["results"]["sections"].as_array().unwrap();
    assert_eq!(rows.len(), 12);
    for (row, plane) in rows.iter().zip(found.chunks(plane)) {
        let tissue = plane.iter().filter(|v| **v == 1).count() as f64 / plane.len() as f64;
        assert!((row["tissue"].as_f64().unwrap() - tissue).abs() < 1e-9, "{row}");
    }
}

#[test]
fn what_is_drawn_replaces_what_is_found() {
    let scene = Scene::new();
    let [stack, _] = sections(&scene);
    let out = scene.at("mask.zarr");
    run("mask", &[&stack, "-o", &out]);
    let found: Vec<i8> = read(&out);
    // at a third of the resolution, as one draws
    let drawing = |value: u8| {
        let grid = Grid::new([12, 128, 128], [0.05, 0.03, 0.03], [0.0, 0.01, 0.01]);
        let label = |[z, y, x]: [i64; 3]| {
            if z == 2 && (40..70).contains(&y) && x >= 100 { value } else { 0 }
        };
        scene.volume_on(&format!("drawn{value}.zarr"), grid, label)
    };
    for (value, label) in [(1, 1), (2, 2), (3, -1), (4, -2), (5, 0)] {
        let drawn = drawing(value);
        run("mask", &[&stack, "-o", &out, "--drawn", &drawn, "--overwrite"]);
        for (i, (now, before)) in read::<i8>(&out).into_iter().zip(&found).enumerate() {
            let (z, y, x) = (i / 384 / 384, i / 384 % 384, i % 384);
            let is_drawn = z == 2 && (120..210).contains(&y) && x >= 300;
            assert_eq!(now, if is_drawn { label } else { *before }, "{z} {y} {x}");
        }
    }
    let none = scene.at("none.zarr");
    let wrong = [stack.as_str(), "-o", &none, "--drawn", &drawing(9)];
    let run = program("mask").args(wrong).output().unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(3), "{message}");
    assert!(message.contains("has the value 9 in section 2; wanted 0 (as found)"), "{message}");
    // a mask can be edited and given back
    run_mask(&scene, &stack, &drawing(0));
    let edited = scene.at("found.zarr");
    std::fs::rename(scene.at("again.zarr"), &edited).unwrap();
    run_mask(&scene, &stack, &edited);
    assert!(read::<i8>(&scene.at("again.zarr")) == found);
}

fn run_mask(scene: &Scene, stack: &str, drawn: &str) {
    run("mask", &[stack, "-o", &scene.at("again.zarr"), "--drawn", drawn]);
}

/// The exit code of a program, and its messages.
fn message(name: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let run = program(name).args(arguments).output().unwrap();
    (run.status.code(), String::from_utf8(run.stderr).unwrap())
}

#[test]
fn stacks_without_tissue_and_masks_of_other_stacks_are_named() {
    let scene = Scene::new();
    let out = scene.at("mask.zarr");
    for grey in [0u8, 77] {
        let flat = scene.volume(&format!("flat{grey}.zarr"), [3, 64, 64], |_| grey);
        let (code, found) = message("mask", &[&flat, "-o", &out, "--overwrite"]);
        assert_eq!(code, Some(3), "{found}");
        assert!(found.contains("none of the 3 sections has tissue"), "{found}");
        assert!(read::<i8>(&out).iter().all(|v| *v == 0));
    }
    let stack = scene.volume::<u8>("stack.zarr", [4, 64, 64], |[z, y, x]| {
        pattern(y as f64, (x + z) as f64).clamp(0.0, 255.0) as u8
    });
    let flow = scene.at("flow.zarr");
    let flow_with = |mask: &str| {
        let patches = ["--planes", "--distance", "1", "--patch", "24", "--stride", "8"];
        let line = [stack.as_str(), &stack, "-o", &flow, "--fixed-mask", mask, "--overwrite"];
        message("flow", &[&line[..], &patches].concat()).1
    };
    let whole = scene.volume("whole.zarr", [4, 64, 64], |_| 1u8);
    assert!(!flow_with(&whole).contains("does not reach"));
    let (code, _) =
        message("mask", &[&stack, "-o", &out, "--overwrite", "--reduce", "3", "--min-area", "50"]);
    assert_eq!(code, Some(0));
    assert!(!flow_with(&out).contains("does not reach"));
    let short = scene.volume("short.zarr", [3, 64, 40], |_| 1u8);
    let found = flow_with(&short);
    let wanted = "stack.zarr along z and x; is it the mask of another volume?";
    assert!(
        found.contains("short.zarr does not reach as far as ") && found.contains(wanted),
        "{found}"
    );
}

#[test]
fn a_crack_of_a_twentieth_of_a_section_is_found() {
    let scene = Scene::new();
    let crack = |y: i64, x: i64| (90..106).contains(&(x + y / 8));
    let stack = scene.volume::<u8>("stack.zarr", [2, 256, 256], |[z, y, x]| {
        let value = 70.0 + 0.3 * pattern(y as f64, (x + z) as f64);
        if z == 1 && crack(y, x) { 235 } else { value as u8 }
    });
    let out = scene.at("mask.zarr");
    run("mask", &[&stack, "-o", &out]);
    let found: Vec<i8> = read(&out);
    let (mut hit, mut all, mut wrong) = (0, 0, 0);
    for (i, value) in found.iter().enumerate() {
        let (z, y, x) = (i as i64 / 65536, i as i64 / 256 % 256, i as i64 % 256);
        let is_crack = z == 1 && crack(y, x);
        all += i32::from(is_crack);
        hit += i32::from(is_crack && *value == -1);
        wrong += i32::from(z == 0 && *value == -1);
    }
    assert!(all > 65536 / 20 && hit > 9 * all / 10 && wrong == 0, "{hit} of {all}, {wrong} wrong");
}

#[test]
fn masks_of_impossible_flags_and_outputs_are_refused() {
    let scene = Scene::new();
    let stack = scene.volume::<u8>("stack.zarr", [3, 64, 64], |[z, y, x]| (z + 7 * y + x) as u8);
    let (out, image) = (scene.at("out.zarr"), scene.at("out.tif"));
    for (more, words) in [
        (vec!["-o", &out, "--reduce", "0"], "--reduce 0 is out of range; wanted 1 to 256 pixels"),
        (
            vec!["-o", &out, "--reduce", "65"],
            "--reduce 65 leaves nothing of sections of 64 x 64 pixels",
        ),
        (vec!["-o", &out, "--min-contrast=-1"], "--min-contrast -1 is out of range"),
        (vec!["-o", &out, "--outlier=-1"], "--outlier -1 is out of range"),
        (vec!["-o", &out, "--close=-1"], "--close -1 is out of range; wanted 0 to 10000 pixels"),
        (vec!["-o", &out, "--wrinkles", "bright"], "--wrinkles and --tears have the same tone"),
        (vec!["-o", &out, "--block-size", "1,64,64"], "--block-size has no effect"),
        (vec!["-o", &image], "out.tif"),
    ] {
        let code = if more.contains(&"-o") && more.len() == 2 { 1 } else { 2 };
        refused(&scene, "mask", &[&[stack.as_str()], &more[..]].concat(), code, &[words]);
    }
}

#[test]
fn a_mesh_that_is_cut_at_a_tear_follows_both_pieces() {
    let scene = Scene::new();
    // the right part of the second section has moved by 5 pixels along y and 6 along x
    let stack = scene.volume::<u8>("stack.zarr", [3, 160, 160], |[z, y, x]| {
        let (y, x) = (y as f64, x as f64);
        match (z, x) {
            (1, 80.0..86.0) => 255,
            (1, 86.0..) => pattern(y - 5.0, x - 6.0).clamp(0.0, 250.0) as u8,
            _ => pattern(y, x).clamp(0.0, 250.0) as u8,
        }
    });
    let mask = scene.volume::<i8>("mask.zarr", [3, 160, 160], |[z, _, x]| {
        if z == 1 && (80..86).contains(&x) { -1 } else { 1 }
    });
    let flow = scene.at("flow.zarr");
    let patches =
        ["--patch", "24", "--stride", "8", "--search", "12", "--planes", "--distance", "1"];
    let masks = ["--fixed-mask", &mask, "--moving-mask", &mask];
    run("flow", &[&[stack.as_str(), &stack, "-o", &flow], &patches[..], &masks].concat());
    let clean = scene.at("clean.zarr");
    run("clean-flow", &[&scene.at("flow.json"), "-o", &clean, "--max-deviation", "8"]);
    let out = scene.at("relaxed.zarr");
    // the greatest distance of a node of the second section from its place, away from the tear and
    // from the faces along it, where there are no matches
    let worst = |more: &[&str]| {
        let line = [scene.at("clean.json"), "--stack".to_owned(), "-o".to_owned(), out.clone()];
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let stiff = ["--stiffness", "1", "--fixed", "0", "--overwrite"];
        run("relax", &[&line[..], &stiff, more].concat());
        let field = FieldFile::open(&out).unwrap();
        let grid = field.grid();
        let vectors = field.read(&grid.bounds()).unwrap();
        let away = |(node, by): (Box3, &[f32; 3])| {
            let [z, y, x] = grid.position(node.min.map(|v| v as f64));
            let wanted = if x >= 80.0 { [5.0, 6.0] } else { [0.0; 2] };
            let counts = z == 1.0 && (x - 83.0).abs() > 16.0 && (24.0..136.0).contains(&y);
            let away = (f64::from(by[1]) - wanted[0]).hypot(f64::from(by[2]) - wanted[1]);
            if counts { away } else { 0.0 }
        };
        grid.bounds().tiles([1; 3]).zip(&vectors).map(away).fold(0.0, f64::max)
    };
    // nothing fits to a mesh that is too stiff
    let chain = scene.at("clean.json");
    let stiff = [chain.as_str(), "--stack", "-o", &out, "--stiffness", "100", "--fixed", "0"];
    let run = program("relax").args(stiff).output().unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(3), "{message}");
    assert!(message.contains("the stack falls apart: no sections are connected"), "{message}");
    let (without, with) = (worst(&[]), worst(&["--mask", &mask]));
    assert!(with < 0.5 && without > 8.0 * with, "{with} with the mask, {without} without");
    // a tear as stiff as tissue is none
    let stiff = worst(&["--mask", &mask, "--materials", "tear=1"]);
    assert!((stiff - without).abs() < 1e-3, "{stiff}, wanted {without}");
}

#[test]
fn materials_without_a_mask_or_with_wrong_names_are_refused() {
    let scene = Scene::new();
    let stack = scene.volume::<u8>("stack.zarr", [3, 64, 64], |[z, y, x]| {
        pattern(y as f64, (x + z) as f64).clamp(0.0, 255.0) as u8
    });
    let flow = scene.at("flow.zarr");
    let patches = ["--planes", "--distance", "1", "--patch", "24", "--stride", "8"];
    run("flow", &[&[stack.as_str(), &stack, "-o", &flow], &patches[..]].concat());
    let (chain, out) = (scene.at("flow.json"), scene.at("out.zarr"));
    let line = |more: &[&'static str]| [&[chain.as_str(), "--stack", "-o", &out], more].concat();
    for (more, words) in [
        (&["--materials", "tear=0.1"][..], "--mask"),
        (&["--mask", "x.zarr", "--materials", "rip=0.1"], "wanted NAME=FACTOR"),
        (
            &["--mask", "x.zarr", "--materials", "tear=0"],
            "0 is out of range; wanted 0.000001 to 1000",
        ),
    ] {
        refused(&scene, "relax", &line(more), 2, &[words]);
    }
    refused(&scene, "relax", &line(&["--mask", "x.zarr"]), 1, &["x.zarr", "not found"]);
}

#[test]
fn a_mask_is_used_above_0_alone() {
    let scene = Scene::new();
    let shape = [24, 40, 40];
    let volume = |name: &str, by: f64| {
        scene.volume::<u8>(name, shape, |[z, y, x]| {
            let middle = [[8.0, 10.0], [12.0, 28.0], [16.0, 18.0], [10.0, 19.0]];
            let bright = middle.iter().enumerate().map(|(i, [cz, cy])| {
                let d = [z as f64 - cz, y as f64 - cy - by, x as f64 - 8.0 * i as f64 - 7.0];
                190.0 * (-d.iter().map(|d| d * d).sum::<f64>() / 8.0).exp()
            });
            (20.0 + bright.sum::<f64>() + 0.2 * pattern(y as f64 - by, (x + z) as f64)).min(255.0)
                as u8
        })
    };
    let (fixed, moving) = (volume("fixed.zarr", 0.0), volume("moving.zarr", 1.0));
    let masks =
        [0, -1].map(|outside| {
            scene.volume::<i8>(&format!("mask{outside}.zarr"), shape, |[_, _, x]| {
                if x < 22 { 1 } else { outside }
            })
        });
    let small = ["--patch", "8,16,16", "--stride", "4,8,8", "--search", "3", "-o"];
    let results = masks.map(|mask| {
        let both = ["--fixed-mask", &mask, "--moving-mask", &mask];
        let folder = if mask.ends_with("-1.zarr") { "labels" } else { "zeros" };
        std::fs::create_dir(scene.at(folder)).unwrap();
        let out = |name: &str| scene.at(&format!("{folder}/{name}"));
        let [spots, map, flow] = ["spots.csv", "map.json", "flow.zarr"].map(out);
        run("extract-spots", &[&fixed, "--radius", "2..3", "--mask", &mask, "-o", &spots]);
        run("refine", &[&[fixed.as_str(), &moving, "-o", &map], &both[..]].concat());
        run("flow", &[&[fixed.as_str(), &moving], &small[..], &[flow.as_str()], &both].concat());
        let field = FieldFile::open(&flow).unwrap();
        let vectors = field.read(&field.grid().bounds()).unwrap();
        let spots = std::fs::read_to_string(&spots).unwrap();
        let rows: Vec<String> =
            spots.lines().filter(|l| !l.starts_with('#')).map(str::to_owned).collect();
        let text = std::fs::read_to_string(&map).unwrap();
        let map: Value = serde_json::from_str(&text).unwrap();
        (
            rows,
            map["matrix"].clone(),
            vectors.iter().map(|v| v.map(f32::to_bits)).collect::<Vec<_>>(),
        )
    });
    assert!(results[0].0.len() > 2, "{:?}", results[0].0);
    assert!(
        results[0] == results[1],
        "{:?}\n{:?}",
        (&results[0].0, &results[0].1),
        (&results[1].0, &results[1].1)
    );
}
