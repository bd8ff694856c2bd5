//! Unusual fields: with unknown (NaN) vectors, with folds, far from the volume, without a unit, or
//! with other axes.

use serde_json::{Value, json};
use voxloom::geom::{Grid, Point};
use voxloom::volume::{Existing, FieldOutput, Select, Volume};

use crate::faults::refused;
use crate::scene::{Scene, program};

const GRID: fn() -> Grid = || Grid::new([12, 14, 16], [2.0; 3], [0.0; 3]);

/// A field whose displacement is a function of the position.
fn field(scene: &Scene, name: &str, u: impl Fn(Point) -> Point) -> String {
    let (location, grid) = (scene.at(name), GRID());
    let output = FieldOutput::create(&location, &grid, grid.shape, Existing::Refuse).unwrap();
    let vectors: Vec<[f32; 3]> = grid
        .bounds()
        .tiles([1; 3])
        .map(|node| u(grid.position(node.min.map(|v| v as f64))).map(|v| v as f32))
        .collect();
    output.write(&grid.bounds(), &vectors).unwrap();
    location
}

/// Changes the metadata of a field.
fn change(location: &str, how: impl Fn(&mut Value)) {
    let path = format!("{location}/zarr.json");
    let mut text: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    how(&mut text);
    std::fs::write(path, text.to_string()).unwrap();
}

fn texture([z, y, x]: [i64; 3]) -> u16 {
    (1000 + (z * 13) % 31 * 20 + (y * 7) % 29 * 15 + (x * 11) % 37 * 10) as u16
}

/// A volume covered by a field on [`GRID`].
fn volume(scene: &Scene) -> String {
    scene.volume("volume.zarr", [20, 24, 28], texture)
}

/// Asserts that `apply-transform`, `deform` and `refine` refuse the field with these words.
fn all_refuse(scene: &Scene, volume: &str, field: &str, words: &[&str]) {
    let out = scene.at("out.zarr");
    let onto = ["--onto", volume, "-o", &out];
    let apply = [&[volume, "--transform", field], &onto[..]].concat();
    refused(scene, "apply-transform", &apply, 1, words);
    refused(scene, "deform", &[volume, volume, "--initial", field, "-o", &out], 1, words);
    let map = scene.at("out.json");
    refused(scene, "refine", &[volume, volume, "--initial", field, "-o", &map], 1, words);
}

#[test]
fn a_field_that_does_not_say_its_unit_axes_or_place_is_refused() {
    let scene = Scene::new();
    let volume = volume(&scene);
    let lacking = ["unit", "axes", "components", "origin", "spacing", "direction"];
    for name in lacking {
        let field = field(&scene, &format!("no-{name}.zarr"), |_| [0.0; 3]);
        change(&field, |text| drop(text["attributes"].as_object_mut().unwrap().remove(name)));
        all_refuse(&scene, &volume, &field, &[&format!("no-{name}.zarr"), name]);
        let out = scene.at("out.zarr");
        refused(&scene, "invmap", &[&field, "--onto", &volume, "-o", &out], 1, &[name]);
    }
    for (name, value) in [("unit", json!("voxel")), ("axes", json!(["x", "y", "z", "component"]))] {
        let field = field(&scene, &format!("other-{name}.zarr"), |_| [0.0; 3]);
        change(&field, |text| text["attributes"][name] = value.clone());
        all_refuse(&scene, &volume, &field, &[name, "wanted"]);
    }
}

#[test]
fn a_field_elsewhere_is_refused_with_both_extents() {
    let scene = Scene::new();
    let volume = volume(&scene);
    let far = field(&scene, "far.zarr", |_| [0.0; 3]);
    change(&far, |text| text["attributes"]["origin"] = json!([9000.0, 0.0, 0.0]));
    all_refuse(&scene, &volume, &far, &["9000.0..9022.0", "nothing in common", "origin and unit"]);
    let out = scene.at("out.zarr");
    refused(&scene, "invmap", &[&far, "--onto", &volume, "-o", &out], 1, &["nothing in common"]);
}

#[test]
fn a_search_does_not_start_from_a_field() {
    let scene = Scene::new();
    let (volume, out) = (volume(&scene), scene.at("out.json"));
    let start = field(&scene, "start.zarr", |_| [0.5; 3]);
    let search = [&volume, &volume, "--initial", &start, "--search", "20", "-o", &out];
    refused(&scene, "refine", &search, 1, &["--initial", "start.zarr", "--search"]);
}

#[test]
fn what_a_field_does_not_know_is_filled_named_and_no_more() {
    let scene = Scene::new();
    let volume = volume(&scene);
    let unknown = |p: Point| if p[2] > 16.0 { [f64::NAN; 3] } else { [0.0; 3] };
    let holed = field(&scene, "holed.zarr", unknown);
    let out = scene.at("out.zarr");
    program("apply-transform")
        .args([&volume, "--onto", &volume, "--transform", &holed, "-o", &out, "--fill", "7"])
        .assert()
        .success();
    let aligned = Volume::open(&out, &Select::default()).unwrap();
    let values = aligned.read::<u16>(&aligned.grid().bounds()).unwrap();
    for (i, value) in values.iter().enumerate() {
        let at = [i / (24 * 28), i / 28 % 24, i % 28].map(|v| v as i64);
        // between the last known node and the first unknown one, either value is accepted
        if at[2] != 17 {
            let wanted = if at[2] > 16 { 7 } else { texture(at) };
            assert_eq!(*value, wanted, "{at:?}");
        }
    }
    let table = scene.file("in.csv", "z_um,y_um,x_um\n5,5,5\n5,5,25\n");
    let carried = scene.at("carried.csv");
    let run = program("apply-transform")
        .args(["--points", &table, "--transform", &holed, "-o", &carried])
        .output()
        .unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert!(
        run.status.success() && stderr.contains("line 3: the transform is unknown at"),
        "{stderr}"
    );
    let inverse = scene.at("inverse.zarr");
    let run = program("invmap").args([&holed, "--onto", &volume, "-o", &inverse]).output().unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success() && stderr.contains("have no inverse"), "{stderr}");
}

#[test]
fn a_field_that_folds_is_inverted_where_it_does_not_and_named() {
    let scene = Scene::new();
    let volume = volume(&scene);
    let folding = field(&scene, "folding.zarr", |p| [0.0, 0.0, 9.0 * (p[2] / 3.0).sin()]);
    let inverse = scene.at("inverse.zarr");
    let run =
        program("invmap").args([&folding, "--onto", &volume, "-o", &inverse]).output().unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success() && stderr.contains("folds"), "{stderr}");
    let out = scene.at("out.zarr");
    let run = program("apply-transform")
        .args([&volume, "--onto", &volume, "--transform", &folding, "-o", &out])
        .arg("--inverse-transform")
        .output()
        .unwrap();
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success() && stderr.contains("has no inverse at"), "{stderr}");
}
