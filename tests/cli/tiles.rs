//! `stitch` and `fuse`: tiles become planes.

use std::fs;
use std::path::Path;

use serde_json::Value;
use voxloom::volume::{Select, Volume};

use crate::faults::refused;
use crate::scene::{Scene, program};
use crate::stacks::run;

/// Makes tiles of a known world in the folder `t` of a scene, and returns their table.
fn tiles(scene: &Scene, more: &[&str]) -> String {
    let folder = scene.at("t");
    let size = ["tiles", "--size", "1,360,380", "--tile", "128,140", "--overlap", "0.25"];
    run("phantom", &[&size[..], more, &["-o", &folder]].concat());
    format!("{folder}/tiles.csv")
}

fn json(location: &str) -> Value {
    serde_json::from_slice(&fs::read(location).unwrap()).unwrap()
}

#[test]
fn tiles_of_two_planes_become_two_planes_without_seams() {
    let scene = Scene::new();
    let size = ["--size", "2,360,380", "--noise", "0"];
    let folder = scene.at("t");
    let tile = ["tiles", "--tile", "128,140", "--overlap", "0.25", "-o", &folder];
    run("phantom", &[&tile[..], &size].concat());
    let (stitched, planes) = (scene.at("stitched.json"), scene.at("planes.zarr"));
    run("stitch", &[&format!("{folder}/tiles.csv"), "-o", &stitched]);
    let line = ["score", "--truth", &folder, "--transform", &stitched];
    let score = program("phantom").args(line).output().unwrap().stdout;
    let score: Value = serde_json::from_slice(&score).unwrap();
    assert!(score["worst_tile"].as_f64().unwrap() < 0.15, "{score}");
    let read = |blend: &str, to: &str| -> Vec<f32> {
        run("fuse", &[&stitched, "-o", to, "--blend", blend, "--dtype", "float32"]);
        let volume = Volume::open(to, &Select::default()).unwrap();
        assert_eq!(volume.grid().shape[0], 2);
        assert_eq!(volume.grid().spacing, [0.05, 0.01, 0.01]);
        volume.read(&volume.grid().bounds()).unwrap()
    };
    // gains of 3 % and shading of 10 % remain; tiles that are one pixel away differ by far more
    let [first, last] = [read("first", &planes), read("last", &scene.at("last.zarr"))];
    let shown = first.iter().zip(&last).filter(|(a, b)| **a > 0.0 && **b > 0.0);
    let (sum, count) = shown.fold((0.0, 0), |(sum, n), (a, b)| (sum + (a - b).abs(), n + 1));
    assert!(sum / (count as f32) < 4.0, "{}", sum / count as f32);
}

#[test]
fn a_tile_without_anything_is_named_and_can_be_left_out() {
    let scene = Scene::new();
    let table = tiles(&scene, &["--empty", "1"]);
    let (stitched, receipt) = (scene.at("stitched.json"), scene.at("receipt.json"));
    let message = run("stitch", &[&table, "-o", &stitched, "--receipt", &receipt]);
    assert!(message.contains("the positions of the stage place them: z000_r"), "{message}");
    let receipt = json(&receipt);
    assert_eq!(receipt["results"]["by_stage"].as_array().unwrap().len(), 1);
    let linked: Vec<bool> = json(&stitched)["tiles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tile| tile["linked"].as_bool().unwrap())
        .collect();
    assert_eq!(linked.iter().filter(|linked| !**linked).count(), 1);
    let shown = |more: &[&str], name: &str| {
        let receipt = scene.at("fuse.json");
        let to = scene.at(name);
        let line = ["-o", &to, "--receipt", &receipt, "--overwrite"];
        run("fuse", &[&[stitched.as_str()][..], &line, more].concat());
        let results = json(&receipt)["results"].clone();
        (results["tiles"].as_u64().unwrap(), results["shown"].as_f64().unwrap())
    };
    let (all, without) = (shown(&[], "all.zarr"), shown(&["--linked-only"], "linked.zarr"));
    assert_eq!((all.0, without.0), (16, 15));
    assert!(without.1 < all.1, "{all:?} {without:?}");
}

#[test]
fn wrong_projects_and_flags_are_refused_in_words() {
    let scene = Scene::new();
    let table = tiles(&scene, &[]);
    let out = scene.at("out.json");
    let no_table = scene.file("notes.txt", "tiles are in the other folder\n");
    let gone = scene.file("gone.csv", "z,location,offset_y,offset_x\n0,none.tif,0,0\n");
    let apart = scene.file(
        "apart.csv",
        "# spacing: 1,1 um\nz,location,offset_y,offset_x\n0,t/tiles/z000_r00_c00.tif,0,0\n\
         0,t/tiles/z000_r00_c01.tif,0,900\n",
    );
    for (words, code, wanted) in [
        (vec![no_table.as_str()], 1, "wanted a table with the columns z,location"),
        (vec![&gone], 1, "gone.csv, line 2"),
        (vec![&apart], 2, "none of the 2 tiles"),
        (vec![&table, "--search", "0"], 2, "--search 0 is out of range"),
        (vec![&table, "--patch", "3"], 2, "--patch 3 is out of range"),
        (vec![&table, "--min-correlation", "1"], 2, "--min-correlation 1 is out of range"),
        (vec![&table, "--max-residual", "0"], 2, "--max-residual 0 is out of range"),
    ] {
        let line = [&words[..], &["-o", &out]].concat();
        refused(&scene, "stitch", &line, code, &[wanted]);
    }
    let plane = scene.at("plane.zarr");
    for (words, code, wanted) in [
        (vec![no_table.as_str()], 1, "wanted a table with the columns z,location"),
        (vec![&table, "--blend-width", "0"], 2, "--blend-width 0 is out of range"),
        (vec![&table, "--linked-only"], 2, "no tile of"),
        (vec![&table, "--fill", "300"], 2, "--fill 300 is no uint8"),
    ] {
        let line = [&words[..], &["-o", &plane]].concat();
        refused(&scene, "fuse", &line, code, &[wanted]);
    }
    // a table of tiles is no stack
    let words = [table.as_str(), "-o", &plane];
    refused(&scene, "transcode", &words, 1, &["with stitch and fuse"]);
}

#[test]
fn what_a_project_refers_to_is_read_and_never_replaced() {
    let scene = Scene::new();
    let table = tiles(&scene, &[]);
    let stitched = scene.at("stitched.json");
    run("stitch", &[&table, "-o", &stitched, "--lens", "yes"]);
    let text = "t/tiles/z000_r00_c00.tif 0 0 0\nt/tiles/z000_r00_c01.tif 105 0 0\n";
    let layout = scene.file("layout.txt", text);
    let (tile, fields) = (scene.at("t/tiles/z000_r00_c01.tif"), scene.at("stitched.zarr"));
    for (project, onto) in
        [(&table, &tile), (&stitched, &tile), (&layout, &tile), (&stitched, &fields)]
    {
        refused(&scene, "fuse", &[project, "-o", onto, "--overwrite"], 2, &[]);
    }
    // a finished run knows when a tile has changed
    let out = scene.at("again.json");
    let line = [layout.as_str(), "-o", &out, "--spacing", "1,1"];
    run("stitch", &line);
    fs::copy(scene.at("t/tiles/z000_r01_c01.tif"), &tile).unwrap();
    refused(&scene, "stitch", &[&line[..], &["--resume"]].concat(), 1, &["other content"]);
}

#[test]
fn tiles_that_do_not_fit_are_no_success() {
    let scene = Scene::new();
    let table = tiles(&scene, &["--lens", "4"]);
    let out = scene.at("out.json");
    let line =
        [&table, "-o", &out, "--model", "translation", "--lens", "no", "--max-residual", "0.1"];
    let output = program("stitch").args(line).output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("do not fit together"), "{message}");
    assert!(!Path::new(&out).exists() && !Path::new(&scene.at("out.zarr")).exists());
}
