//! The identity of a run: it contains everything on which the result depends, and nothing else, and
//! must be the same for all parts of a run. A part with a different flag or input is refused, and
//! the message names the difference.

use std::path::Path;

use voxloom::geom::{Affine, Box3, Grid, LocalAffines};
use voxloom::transform;
use voxloom::volume::{Codec, Dtype, Existing, FieldOutput, Format, Output, Spec};

use crate::scene::{Scene, files};

#[path = "identity/flows.rs"]
mod flows;
#[path = "identity/line.rs"]
mod line;
#[path = "identity/tiles.rs"]
mod tiles;

use line::{Line, no_other_run, only_itself};

fn texture([z, y, x]: [i64; 3]) -> u16 {
    (1000 + (z * 13) % 31 * 20 + (y * 7) % 29 * 15 + (x * 11) % 37 * 10) as u16
}

const GRID: fn() -> Grid = || Grid::new([32, 40, 48], [1.0; 3], [0.0; 3]);

/// An image of two channels.
fn two_channels(scene: &Scene, name: &str) -> String {
    let location = scene.at(name);
    let spec = Spec {
        grid: GRID(),
        dtype: Dtype::U16,
        chunk: [16; 3],
        shard: None,
        codec: Codec::Raw,
        format: Format::Zarr3,
    };
    let output = Output::create_channels(&location, &spec, 2, Existing::Refuse).unwrap();
    for part in GRID().bounds().tiles([16; 3]) {
        for channel in 0..2u16 {
            let value = |voxel: Box3| texture(voxel.min) + 500 * channel;
            let voxels: Vec<u16> = part.tiles([1; 3]).map(value).collect();
            output.write_channel(channel.into(), &part, &voxels).unwrap();
        }
    }
    location
}

fn field(scene: &Scene, name: &str, shift: f32) -> String {
    let (location, grid) = (scene.at(name), Grid::new([9, 11, 13], [4.0; 3], [0.0; 3]));
    let output = FieldOutput::create(&location, &grid, grid.shape, Existing::Refuse).unwrap();
    let mut vectors = vec![[0.5, 0.0, 0.0]; grid.bounds().len()];
    vectors[700] = [shift, 0.0, 0.25];
    output.write(&grid.bounds(), &vectors).unwrap();
    location
}

fn matrix(scene: &Scene, name: &str, last: &str) -> String {
    scene.file(name, &format!("1 0 0 0.5\n0 1 0 0\n0 0 1 {last}\n0 0 0 1\n"))
}

#[test]
fn apply_transform_is_tied_to_every_flag() {
    let scene = Scene::new();
    let (moving, map) = (two_channels(&scene, "moving.zarr"), matrix(&scene, "map.txt", "0.25"));
    let (other, field) = (matrix(&scene, "other.txt", "0.26"), field(&scene, "field.zarr", 0.75));
    let onto = scene.volume("onto.zarr", [32, 40, 48], texture);
    let large = scene.volume("large.zarr", [32, 40, 64], texture);
    let out = scene.at("out.zarr");
    let line = Line::new(
        "apply-transform",
        &[&moving],
        &[
            ("transform", &map),
            ("onto", &onto),
            ("output", &out),
            ("moving-channel", "0"),
            ("block-size", "16,16,16"),
            ("chunk", "16,16,16"),
        ],
    );
    let changes = [
        ("transform", other.as_str()),
        ("transform", &field),
        ("transform", &format!("{map} {field}")),
        ("inverse-transform", ""),
        ("dtype", "float32"),
        ("onto", &large),
        ("shape", "32,40,48 --out-spacing 1,1,2"),
        ("shape", "32,40,48 --out-spacing 1,1,1 --out-origin 0,0,3"),
        ("fixed-spacing", "1,1,2"),
        ("fixed-origin", "0,0,5"),
        ("interpolation", "cubic"),
        ("fill", "7"),
        ("extrapolate", ""),
        ("rounding", "truncate"),
        ("moving-channel", "1"),
        ("moving-spacing", "1,1,2"),
        ("moving-origin", "0,0,5"),
        ("block-size", "32,16,16"),
        ("chunk", "8,8,8"),
        ("shard", "16,16,16 --codec raw"),
        ("codec", "gzip"),
        ("zarr-format", "2"),
    ];
    // a text matrix has no direction of its own; spacing and origin of the output require --shape
    let unused = [
        "points",
        "direction",
        "fixed-channel",
        "fixed-image",
        "moving-image",
        "image",
        "fixed-time",
        "moving-time",
        "seed",
        "out-spacing",
        "out-origin",
    ];
    only_itself(&scene, &line, &changes, &unused);
}

#[test]
fn transcode_is_tied_to_every_flag() {
    let scene = Scene::new();
    let source = two_channels(&scene, "source.zarr");
    let out = scene.at("out.zarr");
    let flags = [
        ("to", "zarr3"),
        ("output", out.as_str()),
        ("channel", "0"),
        ("chunk", "16,16,16"),
        ("block-size", "16,16,16"),
    ];
    let line = Line::new("transcode", &[&source], &flags);
    let changes = [
        ("channel", "1"),
        ("spacing", "1,1,2"),
        ("origin", "0,0,5"),
        ("chunk", "8,8,8"),
        ("codec", "raw"),
        ("shard", "16,16,16 --codec raw"),
        ("to", "zarr2"),
        ("block-size", "32,16,16"),
    ];
    let of_transforms = [
        "time",
        "image",
        "seed",
        "from",
        "from-axes",
        "invert",
        "unit",
        "frame",
        "model",
        "name",
        "to-unit",
        "onto",
        "shape",
        "out-spacing",
        "out-origin",
        "fixed-channel",
        "fixed-image",
        "moving-image",
        "image",
        "fixed-time",
        "fixed-spacing",
        "fixed-origin",
    ];
    only_itself(&scene, &line, &changes, &of_transforms);
}

#[test]
fn downsample_is_tied_to_every_flag() {
    let scene = Scene::new();
    let source = two_channels(&scene, "source.zarr");
    let out = scene.at("out.zarr");
    let flags = [
        ("output", out.as_str()),
        ("level", "1"),
        ("channel", "0"),
        ("chunk", "8,8,8"),
        ("block-size", "16,16,16"),
    ];
    let line = Line::new("downsample", &[&source], &flags);
    let changes = [
        ("channel", "1"),
        ("spacing", "1,1,2"),
        ("origin", "0,0,5"),
        ("method", "max"),
        ("factor", "1,2,2"),
        ("chunk", "4,4,4"),
        ("codec", "gzip"),
        ("shard", "16,16,16 --codec gzip"),
        ("zarr-format", "2"),
        ("block-size", "16,16,8"),
    ];
    only_itself(
        &scene,
        &line,
        &changes,
        &["time", "image", "seed", "levels", "level", "with-original"],
    );
}

#[test]
fn invmap_is_tied_to_every_flag() {
    let scene = Scene::new();
    let map = field(&scene, "map.zarr", 0.75);
    let other = field(&scene, "other.zarr", 0.76);
    let onto = scene.volume("onto.zarr", [80, 40, 48], texture);
    let large = scene.volume("large.zarr", [80, 40, 64], texture);
    let out = scene.at("out.zarr");
    let flags = [("onto", onto.as_str()), ("output", out.as_str()), ("block-size", "64,64,64")];
    let line = Line::new("invmap", &[&map], &flags);
    line.succeeds(&["--part", "1/2"]);
    let another = line.reading(other);
    another.is_another_run("a vector of the field", &scene);
    let changes = [
        ("onto", large.as_str()),
        ("moving-spacing", "1,1,2"),
        ("moving-origin", "0,0,5"),
        ("tolerance", "0.01"),
        ("block-size", "128,64,64"),
    ];
    only_itself(
        &scene,
        &line,
        &changes,
        &["moving-channel", "moving-time", "moving-image", "seed"],
    );
}

#[test]
fn extract_spots_is_tied_to_every_flag() {
    let scene = Scene::new();
    let source = two_channels(&scene, "source.zarr");
    let mask = scene.volume("mask.zarr", [32, 40, 48], |_| 1u8);
    let out = scene.at("out.csv");
    let flags = [
        ("output", out.as_str()),
        ("channel", "0"),
        ("radius", "2..3"),
        ("block-size", "16,40,48"),
    ];
    let line = Line::new("extract-spots", &[&source], &flags);
    let changes = [
        ("channel", "1"),
        ("spacing", "1,1,2"),
        ("origin", "0,0,5"),
        ("radius", "2..3.5"),
        ("max-spots", "7"),
        ("rank", "response"),
        ("border", "1"),
        ("background-subtract", "false"),
        ("winsorize", "0,0.01"),
        ("threshold", "0.5"),
        ("threshold-relative", "0.1"),
        ("overlap", "0.9"),
        ("detector", "dog"),
        ("exact", ""),
        ("mask", &mask),
        ("block-size", "32,40,48"),
    ];
    only_itself(&scene, &line, &changes, &["time", "image", "seed"]);
}

/// Checks a program that takes a pair of volumes, with the flags of both.
fn tied_pair(name: &'static str, changes: &[(&'static str, &str)], unused: &[&str]) {
    let scene = Scene::new();
    let (fixed, moving) = (two_channels(&scene, "fixed.zarr"), two_channels(&scene, "moving.zarr"));
    let (map, other) = (matrix(&scene, "map.txt", "0.25"), matrix(&scene, "other.txt", "0.26"));
    let mask = scene.volume("mask.zarr", [32, 40, 48], |_| 1u8);
    let out = scene.at("out.zarr");
    let mut flags = vec![
        ("initial", map.as_str()),
        ("output", &out),
        ("fixed-channel", "0"),
        ("moving-channel", "0"),
    ];
    flags.extend(match name {
        "deform" => vec![("overlap", "4"), ("block-size", "16,20,24")],
        "flow" => vec![("patch", "8"), ("stride", "2"), ("block-size", "16,16,16")],
        _ => vec![("overlap", "0.5"), ("block-size", "16,20,24")],
    });
    let line = Line::new(name, &[&fixed, &moving], &flags);
    let mut all = vec![
        ("initial", other.as_str()),
        ("fixed-channel", "1"),
        ("fixed-spacing", "1,1,2"),
        ("fixed-origin", "0,0,5"),
        ("moving-channel", "1"),
        ("moving-spacing", "1,1,2"),
        ("moving-origin", "0,0,5"),
    ];
    if name != "local-affine" {
        all.extend([("fixed-mask", mask.as_str()), ("moving-mask", mask.as_str())]);
    }
    all.extend(changes.iter().copied());
    no_other_run(&scene, &line, &all, unused);
}

#[test]
fn deform_is_tied_to_every_flag() {
    let changes = [
        ("metric", "ssq"),
        ("model", "dense"),
        ("control-spacing", "9 --model bspline"),
        ("levels", "2"),
        ("iterations", "3"),
        ("tolerance", "0.01"),
        ("correlation-radius", "5"),
        ("smoothing", "3 --model dense"),
        ("elasticity", "2"),
        ("damping", "2"),
        ("overlap", "8"),
        ("foreground", "0.2"),
        ("min-evidence", "3"),
        ("block-size", "16,20,48"),
    ];
    tied_pair(
        "deform",
        &changes,
        &["fixed-time", "moving-time", "fixed-image", "moving-image", "seed"],
    );
}

#[test]
fn local_affine_is_tied_to_every_flag() {
    let changes = [
        ("radius", "2..3"),
        ("context-radius", "4vox"),
        ("max-distance", "3"),
        ("match-threshold", "0.5"),
        ("stiffness", "1"),
        ("min-matches", "13"),
        ("overlap", "0.25"),
        ("block-size", "16,20,48"),
    ];
    tied_pair(
        "local-affine",
        &changes,
        &["fixed-time", "moving-time", "fixed-image", "moving-image", "seed", "table"],
    );
}

/// Flips one bit of a file, in the byte `from_end` before its end.
fn flip(path: &Path, from_end: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() - from_end;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_run_is_tied_to_every_byte_of_its_inputs() {
    let scene = Scene::new();
    let moving = scene.volume("moving.zarr", [32, 40, 48], texture);
    let onto = scene.volume("onto.zarr", [32, 40, 48], texture);
    let (map, shift) = (matrix(&scene, "map.txt", "0.25"), field(&scene, "field.zarr", 0.75));
    let local = scene.at("local.zarr");
    let affines = LocalAffines {
        domain: GRID(),
        block: [16, 20, 24],
        overlap: [8.0, 10.0, 12.0],
        affines: (0..8).map(|i| Affine::translation([0.01 * f64::from(i), 0.0, 0.0])).collect(),
    };
    transform::write_local_affines(&local, &affines, serde_json::Map::new(), Existing::Refuse)
        .unwrap();
    let out = scene.at("out.zarr");
    let transforms = format!("{map} {local} {shift}");
    let flags = [
        ("transform", transforms.as_str()),
        ("onto", &onto),
        ("output", &out),
        ("block-size", "16,16,16"),
        ("chunk", "16,16,16"),
    ];
    let line = Line::new("apply-transform", &[&moving], &flags);
    line.succeeds(&["--part", "1/2"]);
    // the last byte of every chunk of the inputs, then the last digit of a matrix
    for input in [&moving, &local, &shift] {
        let chunks = files(Path::new(input)).into_iter().map(|(path, _)| path);
        for path in chunks.filter(|path| path.extension().is_none()) {
            flip(&path, 1);
            let (succeeded, message) = line.run(&["--part", "2/2"]);
            assert!(!succeeded, "{} changed and the run went on", path.display());
            let is_told =
                message.contains("was begun with other") || message.contains("cannot be read");
            assert!(is_told || message.contains("damaged"), "{}: {message}", path.display());
            flip(&path, 1);
        }
    }
    std::fs::write(&map, "1 0 0 0.5\n0 1 0 0\n0 0 1 0.2500000001\n0 0 0 1\n").unwrap();
    line.is_another_run("the last digit of a matrix", &scene);
    matrix(&scene, "map.txt", "0.25");
    let group = Path::new(&moving).join("zarr.json");
    let text = std::fs::read_to_string(&group).unwrap();
    std::fs::write(&group, text.replacen("1.0", "1.5", 1)).unwrap();
    line.is_another_run("the voxel size in the image's metadata", &scene);
    // a change that does not affect the result is accepted: more white space in the same metadata
    std::fs::write(&group, format!("{text}\n \n")).unwrap();
    line.succeeds(&["--part", "2/2"]);
}

#[test]
fn channels_do_not_mix_in_one_output() {
    let scene = Scene::new();
    let source = two_channels(&scene, "source.zarr");
    let out = scene.at("out.zarr");
    let line = |channel: &str| {
        Line::new(
            "transcode",
            &[&source],
            &[("to", "zarr3"), ("output", &out), ("channel", channel)],
        )
        .with("block-size", "16,16,16")
        .with("chunk", "16,16,16")
    };
    line("0").succeeds(&["--part", "1/2"]);
    let (succeeded, message) = line("1").run(&["--part", "2/2", "--resume"]);
    assert!(!succeeded && message.contains("volume at"), "{message}");
    // an input that was written again between parts is a different input
    std::fs::remove_dir_all(&source).unwrap();
    scene.volume("source.zarr", [32, 40, 48], |at| texture(at) + 1);
    line("0").is_another_run("the input was made anew", &scene);
}
