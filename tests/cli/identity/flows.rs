//! The identity of runs of `mask`, `rough`, `flow`, `clean-flow` and `relax`.

use super::line::{Line, only_itself};
use super::{field, matrix, texture, tied_pair, two_channels};
use crate::scene::Scene;

#[test]
fn flow_is_tied_to_every_flag() {
    let changes = [
        ("patch", "6"),
        ("stride", "2,2,1"),
        ("search", "3"),
        ("min-correlation", "0.1"),
        ("min-sharpness", "0.1"),
        ("max-ratio", "0.8"),
        ("min-evidence", "2"),
        ("block-size", "16,16,32"),
    ];
    // planes have other patches, which count by themselves
    tied_pair(
        "flow",
        &changes,
        &[
            "fixed-time",
            "moving-time",
            "fixed-image",
            "moving-image",
            "seed",
            "planes",
            "distance",
            "through",
        ],
    );
}

#[test]
fn flow_through_a_map_is_not_flow_after_it() {
    let scene = Scene::new();
    let [fixed, moving] =
        ["fixed.zarr", "moving.zarr"].map(|name| scene.volume(name, [32, 40, 48], texture));
    let [map, other] = [matrix(&scene, "map.txt", "0.25"), matrix(&scene, "other.txt", "0.5")];
    let out = scene.at("out.zarr");
    let line = |flag, map| {
        let flags =
            [("output", out.as_str()), ("patch", "8"), ("block-size", "16,16,16"), (flag, map)];
        Line::new("flow", &[&fixed, &moving], &flags)
    };
    line("through", &map).succeeds(&["--part", "1/2"]);
    line("initial", &map).is_another_run("--initial in place of --through", &scene);
    line("through", &other).is_another_run("another --through", &scene);
}

#[test]
fn clean_flow_is_tied_to_every_flag() {
    let scene = Scene::new();
    let (first, other) = (field(&scene, "first.zarr", 0.75), field(&scene, "other.zarr", 0.76));
    let out = scene.at("out.zarr");
    let line = Line::new("clean-flow", &[&first], &[("output", &out), ("min-patches", "2")]);
    line.succeeds(&["--part", "1/2"]);
    let another = line.reading(other);
    another.is_another_run("a vector of the field", &scene);
    let changes = [
        ("min-correlation", "0.1"),
        ("min-sharpness", "0.1"),
        ("max-ratio", "0.8"),
        ("min-evidence", "2"),
        ("max-magnitude", "9"),
        ("max-deviation", "3"),
        ("max-strain", "0.4"),
        ("min-patches", "3"),
        ("fill", ""),
    ];
    // a plane, or a volume, is one task
    only_itself(&scene, &line, &changes, &["block-size", "seed"]);
}

#[test]
fn rough_is_tied_to_every_flag() {
    let scene = Scene::new();
    let (stack, out) = (two_channels(&scene, "stack.zarr"), scene.at("out.zarr"));
    let mask = scene.volume("mask.zarr", [32, 40, 48], |_| 1u8);
    let flags = [
        ("output", out.as_str()),
        ("channel", "0"),
        ("max-rotation", "3"),
        ("distance", "1"),
        ("min-evidence", "0"),
    ];
    let line = Line::new("rough", &[&stack], &flags);
    let changes = [
        ("channel", "1"),
        ("spacing", "1,1,2"),
        ("origin", "0,0,5"),
        ("mask", &mask),
        ("distance", "2"),
        ("max-rotation", "4"),
        ("scale-range", "0.9..1.1"),
        ("allow-reflection", ""),
        ("pieces", "1"),
        ("metric", "mean-squares"),
        ("min-overlap", "0.4"),
        ("min-evidence", "5"),
        ("reference", "2"),
        ("seed", "7"),
    ];
    only_itself(&scene, &line, &changes, &["time", "image", "block-size"]);
}

#[test]
fn mask_is_tied_to_every_flag() {
    let scene = Scene::new();
    let (stack, out) = (two_channels(&scene, "stack.zarr"), scene.at("out.zarr"));
    let drawn = scene.volume("drawn.zarr", [32, 40, 48], |[z, ..]| u8::from(z == 3));
    let other = scene.volume("other.zarr", [32, 40, 48], |[z, ..]| u8::from(z == 4));
    let flags = [("output", out.as_str()), ("channel", "0"), ("drawn", drawn.as_str())];
    let line = Line::new("mask", &[&stack], &flags);
    let changes = [
        ("channel", "1"),
        ("spacing", "1,1,2"),
        ("origin", "0,0,5"),
        ("drawn", &other),
        ("reduce", "2"),
        ("min-contrast", "1"),
        ("close", "4"),
        ("min-area", "10"),
        ("outlier", "0.5"),
        ("wrinkles", "none"),
        ("tears", "none"),
        ("min-defect", "10"),
        ("grow", "1"),
        ("edge", "3"),
    ];
    // sections are masked whole; nothing is random
    only_itself(&scene, &line, &changes, &["time", "image", "block-size", "seed"]);
}

#[test]
fn relax_of_planes_is_tied_to_the_mask_and_the_materials() {
    let scene = Scene::new();
    let stack = scene.volume("stack.zarr", [4, 64, 64], texture);
    let [mask, other] = [3, 4].map(|row| {
        scene.volume(&format!("mask{row}.zarr"), [4, 64, 64], |[_, y, _]| i8::from(y > row))
    });
    let (flow, out) = (scene.at("flow.zarr"), scene.at("out.zarr"));
    let patches = [("output", flow.as_str()), ("planes", ""), ("distance", "1"), ("patch", "16")];
    Line::new("flow", &[&stack, &stack], &patches).succeeds(&[]);
    let line = |flags: &[(&'static str, &str)]| {
        let flags = [&[("output", out.as_str()), ("stack", "")], flags].concat();
        Line::new("relax", &[&scene.at("flow.json")], &flags)
    };
    let masked = line(&[("mask", &mask)]);
    masked.succeeds(&["--plan"]);
    line(&[]).succeeds(&["--block-size", "4,64,64", "--part", "1/2"]);
    masked.with("block-size", "4,64,64").is_another_run("a mask where there was none", &scene);
    line(&[("mask", &mask), ("block-size", "4,64,64"), ("materials", "tear=0.5")])
        .is_another_run("other materials", &scene);
    line(&[("mask", &other), ("block-size", "4,64,64")]).is_another_run("another mask", &scene);
}

#[test]
fn relax_is_tied_to_every_flag() {
    let scene = Scene::new();
    let first = field(&scene, "first.zarr", 0.75);
    let out = scene.at("out.zarr");
    let line = Line::new("relax", &[&first], &[("output", &out)]);
    line.succeeds(&["--part", "1/2"]);
    let another = line.reading(field(&scene, "other.zarr", 0.76));
    another.is_another_run("a vector of the field", &scene);
    let changes = [("stiffness", "2"), ("unweighted", ""), ("hold-out", "0.1")];
    // a volume is one task; --through must be that of flow; the other flags are for stacks of planes
    let others =
        ["block-size", "seed", "through", "stack", "fixed", "outlier-length", "mask", "materials"];
    only_itself(&scene, &line, &changes, &others);
}
