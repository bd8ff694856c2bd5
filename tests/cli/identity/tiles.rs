//! The identity of runs of `stitch` and `fuse`.

use std::fs;

use super::line::{Line, only_itself};
use crate::scene::{Scene, program};

/// A table of nine tiles, and the same with one tile somewhere else.
fn tables(scene: &Scene) -> [String; 2] {
    let folder = scene.at("tiles");
    let size = ["tiles", "--size", "1,240,240", "--tile", "96,96", "--overlap", "0.25"];
    program("phantom").args(size).args(["-o", &folder, "-q"]).assert().success();
    let table = format!("{folder}/tiles.csv");
    let text = fs::read_to_string(&table).unwrap();
    let moved = text.replace("z000_r01_c01.tif,72,72", "z000_r01_c01.tif,73,72");
    assert_ne!(moved, text);
    let other = format!("{folder}/moved.csv");
    fs::write(&other, moved).unwrap();
    [table, other]
}

#[test]
fn stitch_is_tied_to_every_flag() {
    let scene = Scene::new();
    let [table, other] = tables(&scene);
    let out = scene.at("stitched.json");
    let line = Line::new("stitch", &[&table], &[("output", &out)]);
    line.succeeds(&["--part", "1/2"]);
    line.reading(other).is_another_run("another position", &scene);
    let changes = [
        ("spacing", "0.02,0.02"),
        ("model", "affine"),
        ("lens", "yes"),
        ("search", "9"),
        ("patch", "32"),
        ("min-correlation", "0.3"),
        ("max-residual", "4"),
    ];
    // tiles have one channel; a task is a number of pairs
    only_itself(&scene, &line, &changes, &["channel", "seed", "block-size"]);
}

#[test]
fn fuse_is_tied_to_every_flag() {
    let scene = Scene::new();
    let [table, other] = tables(&scene);
    let out = scene.at("plane.zarr");
    let flags = [("output", out.as_str()), ("chunk", "1,64,64"), ("block-size", "1,64,64")];
    let line = Line::new("fuse", &[&table], &flags);
    line.succeeds(&["--part", "1/2"]);
    line.reading(other).is_another_run("another position", &scene);
    let changes = [
        ("spacing", "0.02,0.02"),
        ("blend", "mean"),
        ("blend-width", "5"),
        ("interpolation", "nearest"),
        ("fill", "3"),
        ("dtype", "uint16"),
        ("chunk", "1,32,32"),
        ("shard", "1,64,64"),
        ("codec", "gzip"),
        ("zarr-format", "2"),
        ("block-size", "1,128,128"),
    ];
    // tiles have one channel, and a table says of none that it is not linked
    only_itself(&scene, &line, &changes, &["channel", "seed", "linked-only"]);
}
