//! Planes: two numbers, along y and x, suffice where a volume needs three.

use serde_json::Value;
use voxloom::geom::{Box3, Grid};
use voxloom::volume::{Codec, Dtype, Existing, FieldFile, Format, Output, Select, Spec, Volume};

use crate::faults::refused;
use crate::scene::{Scene, program};

/// A plane of 40 x 50 pixels of 0.5 um.
fn plane(scene: &Scene, name: &str) -> String {
    let grid = Grid::plane([40, 50], [0.5, 0.5], [0.0, 0.0]);
    let location = scene.at(name);
    let (chunk, shard, codec) = ([1, 64, 64], None, Codec::Raw);
    let spec = Spec { grid, dtype: Dtype::U8, chunk, shard, codec, format: Format::Zarr3 };
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    let part = Box3::of_shape(grid.shape);
    let voxels: Vec<u8> = (0..part.len()).map(|i| (i % 50 * 5) as u8).collect();
    output.write(&part, &voxels).unwrap();
    location
}

fn run(name: &str, arguments: &[&str]) -> String {
    let run = program(name).args(arguments).output().unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success(), "{name} {arguments:?}: {message}");
    String::from_utf8(run.stdout).unwrap() + &message
}

/// A rotation and a translation in the plane, as a 4x4 matrix.
const TURN: &str = "1 0 0 0\n0 0.8 0.6 3\n0 -0.6 0.8 4\n0 0 0 1\n";

#[test]
fn two_numbers_do_for_a_plane_and_are_refused_for_a_volume() {
    let scene = Scene::new();
    let flat = plane(&scene, "flat.zarr");
    let turn = scene.file("turn.txt", TURN);
    let grid = |location: &str| Volume::open(location, &Select::default()).unwrap().grid();
    let out = scene.at("grid.zarr");
    let numbers = ["--shape", "20,30", "--out-spacing", "2,1um", "--out-origin", "-1,3"];
    let pull = [flat.as_str(), "-t", &turn, "-o", &out, "--chunk", "16,16"];
    run("apply-transform", &[pull.as_slice(), &numbers, &["--block-size", "16,32"]].concat());
    assert_eq!(grid(&out), Grid::plane([20, 30], [2.0, 1.0], [-1.0, 3.0]));
    let moved = scene.at("moved.zarr");
    run("transcode", &[&flat, "-o", &moved, "--origin", "7,-8", "--spacing", "2,2"]);
    assert_eq!(grid(&moved), Grid::plane([40, 50], [2.0, 2.0], [7.0, -8.0]));
    let small = scene.at("small.zarr");
    run("downsample", &[&flat, "-o", &small, "--factor", "2,5", "--levels", "1"]);
    assert_eq!(grid(&small).shape, [1, 20, 10]);

    let cube = scene.volume::<u8>("cube.zarr", [8; 3], |_| 1);
    let out = scene.at("out.zarr");
    for (line, code, words) in [
        (vec!["--origin", "1,2"], 1, "has 8 planes; an origin [1.0, 2.0] along y,x is for one"),
        (vec!["--spacing", "1,2"], 1, "has 8 planes; --spacing y,x is for one"),
    ] {
        refused(
            &scene,
            "transcode",
            &[&[cube.as_str(), "-o", &out], &line[..]].concat(),
            code,
            &[words],
        );
    }
    for (line, words) in [
        (["--shape", "8,8,8", "--out-spacing", "1,1"], "--shape has several"),
        (["--shape", "8,8", "--out-spacing", "1"], "or two along y,x for a plane"),
        (["--shape", "8", "--out-spacing", "1,1"], "or two along y,x for a plane"),
    ] {
        let pull = [cube.as_str(), "-t", &turn, "-o", &out];
        refused(&scene, "apply-transform", &[&pull, &line[..]].concat(), 2, &[words]);
    }
}

#[test]
fn a_table_of_a_plane_needs_no_z_unless_points_leave_it() {
    let scene = Scene::new();
    let turn = scene.file("turn.txt", TURN);
    let points = scene.file("points.csv", "name,y_um,x_um\na,10,20\nb,0,0\n");
    let message = run("apply-transform", &["--points", &points, "-t", &turn, "-o", "-", "-q"]);
    assert_eq!(message, "name,y_um,x_um\na,23.000000,14.000000\nb,3.000000,4.000000\n");
    let lift = scene.file("lift.txt", &TURN.replacen("1 0 0 0", "1 0 0 2", 1));
    let out = scene.at("out.csv");
    let words = ["line 2", "has no z_um", "to z 2.000 um"];
    refused(&scene, "apply-transform", &["--points", &points, "-t", &lift, "-o", &out], 1, &words);
    let words = ["has no column x_um", "of a plane y_um, x_um"];
    let table = scene.file("half.csv", "y_um\n1\n");
    refused(&scene, "apply-transform", &["--points", &table, "-t", &turn, "-o", &out], 1, &words);
}

#[test]
fn maps_of_a_plane_are_written_with_two_axes() {
    let scene = Scene::new();
    let flat = plane(&scene, "flat.zarr");
    let turn = scene.file("turn.txt", TURN);
    let text = run("transcode", &[&turn, "--to", "elastix", "--onto", &flat, "-o", "-", "-q"]);
    for line in [
        "(NumberOfParameters 6)",
        "(TransformParameters 0.8 -0.6 0.6 0.8 0.004 0.003)",
        "(FixedImageDimension 2)",
        "(MovingImageDimension 2)",
        "(CenterOfRotationPoint 0 0)",
        "(Size 50 40)",
        "(Index 0 0)",
        "(Spacing 0.0005 0.0005)",
        "(Origin 0 0)",
        "(Direction 1 0 0 1)",
    ] {
        assert!(text.contains(line), "no '{line}' in {text}");
    }
    let file = scene.file("elastix.txt", &text);
    let back = scene.at("back.json");
    run("transcode", &[&file, "-o", &back]);
    let map = voxloom::transform::read_affine(&[back]).unwrap();
    let off = map.apply([5.0, 10.0, 20.0]);
    assert!((off[0] - 5.0).abs() < 1e-9 && (off[1] - 23.0).abs() < 1e-9, "{off:?}");
    let lift = scene.file("lift.txt", &TURN.replacen("1 0 0 0", "1 0 0 2", 1));
    let line = [lift.as_str(), "--to", "elastix", "--onto", &flat, "-o", "-"];
    refused(&scene, "transcode", &line, 1, &["takes points out of the plane"]);

    let field = scene.at("field.zarr");
    run("transcode", &[&turn, "--to", "field", "--onto", &flat, "-o", &field]);
    let grid = voxloom::geom::FieldSource::grid(&FieldFile::open(&field).unwrap());
    assert!(grid.planar, "{grid:?}");
    let page = run("inspect", &[&field]);
    assert!(page.contains("40 x 50 vectors, 0.5 x 0.5 um apart, from 0, 0"), "{page}");
    let page: Value = serde_json::from_str(&run("inspect", &[&field, "--json", "-q"])).unwrap();
    assert_eq!(page["steps"][0]["grid"]["spacing"], serde_json::json!([0.5, 0.5]));
}

#[test]
fn a_page_of_unknown_pixel_size_asks_for_two_numbers() {
    let scene = Scene::new();
    // a grey PNG of one pixel
    let png = "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c63\
               600700000900082023c38c0000000049454e44ae426082";
    let byte = |i: usize| u8::from_str_radix(&png[i..i + 2], 16).unwrap();
    let png: Vec<u8> = (0..png.len()).step_by(2).map(byte).collect();
    std::fs::write(scene.at("dot.png"), png).unwrap();
    let page = run("inspect", &[&scene.at("dot.png")]);
    assert!(page.contains("--spacing y,x") && !page.contains("--spacing z,y,x"), "{page}");
}
