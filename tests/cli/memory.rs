//! The ceiling of memory, and what `--plan` says about it.
//!
//! Linux counts a process's memory, the most it ever held too (`VmHWM`); elsewhere there is nothing to
//! look at.
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};
use std::time::Duration;

use voxloom::geom::{Box3, Grid};
use voxloom::volume::{
    Codec, Dtype, Existing, FieldOutput, Format, Output, Select, Spec, Volume, Voxel,
};

use crate::scene::{Scene, executable, program};

/// What the tests allow a process, bytes; the program itself is some 15 MB of it.
const CEILING: u64 = 48 << 20;

/// Runs a program; the most memory that it held, bytes: by looking while it runs, and by what it read
/// there itself at its end.
fn peak(name: &str, arguments: &[&str], receipt: &str) -> u64 {
    let mut child = Command::new(executable(name))
        .args(arguments)
        .args(["--receipt", receipt, "--progress", "none", "--threads", "2"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut most = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        most = most.max(number.unwrap_or(0) * 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.wait().unwrap().success(), "{name} {arguments:?}");
    let receipt: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(receipt).unwrap()).unwrap();
    most.max(receipt["peak_memory"].as_u64().unwrap())
}

/// A volume of nothing that is quickly made and quickly stored, yet of no two equal chunks.
fn large<T: Voxel>(scene: &Scene, name: &str, shape: [usize; 3], make: fn(u32) -> T) -> String {
    let spec = Spec {
        grid: Grid::new(shape, [1.0; 3], [0.0; 3]),
        dtype: T::DTYPE,
        chunk: [32; 3],
        shard: None,
        codec: Codec::Lz4,
        format: Format::Zarr3,
    };
    let location = scene.at(name);
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    for part in Box3::of_shape(shape).tiles([32; 3]) {
        let [z, y, x] = part.min.map(|v| v as u32);
        let voxels: Vec<T> = (0..part.len() as u32)
            .map(|i| make(1000 + z + y / 2 + x / 4 + i / 1024 + i % 32))
            .collect();
        output.write(&part, &voxels).unwrap();
    }
    location
}

/// Whether two volumes hold the same voxels, slab by slab.
fn same<T: Voxel + PartialEq>(one: &str, other: &str) -> bool {
    let open = |location: &str| Volume::open(location, &Select::default()).unwrap();
    let (one, other) = (open(one), open(other));
    let [_, height, width] = one.grid().shape;
    assert_eq!(one.grid(), other.grid());
    one.grid()
        .bounds()
        .tiles([32, height, width])
        .all(|slab| one.read::<T>(&slab).unwrap() == other.read::<T>(&slab).unwrap())
}

#[test]
fn a_volume_ten_times_larger_than_memory_goes_through_under_the_ceiling() {
    let scene = Scene::new();
    let shape = [200, 512, 640];
    let image = large::<f64>(&scene, "image.zarr", shape, f64::from);
    assert!(shape.iter().product::<usize>() as u64 * 8 > 10 * CEILING);
    let map = scene.file("map.txt", "1 0.02 0 1.5\n-0.01 1 0 -2\n0 0.01 1 0.7\n0 0 0 1\n");
    let ceiling = CEILING.to_string();
    let (tight, roomy) = (scene.at("tight.zarr"), scene.at("roomy.zarr"));
    let apply = |out: &str, more: &[&str]| {
        let mut arguments = vec![image.as_str(), "--onto", &image, "--transform", &map, "-o", out];
        arguments.extend(["--chunk", "32,32,32", "--codec", "lz4"]);
        arguments.extend(more);
        peak("apply-transform", &arguments, &scene.at("receipt.json"))
    };
    let held = apply(&tight, &["--memory", &ceiling]);
    assert!(held < CEILING, "apply-transform held {held}");
    let unbounded = apply(&roomy, &[]);
    assert!(unbounded > CEILING, "the test shows nothing: {unbounded}");
    assert!(same::<f64>(&tight, &roomy));
    for location in [&tight, &roomy] {
        std::fs::remove_dir_all(location).unwrap();
    }
    let reduce = |out: &str, more: &[&str]| {
        let mut arguments = vec![image.as_str(), "-o", out, "--levels", "1", "--chunk", "32,32,32"];
        arguments.extend(more);
        peak("downsample", &arguments, &scene.at("receipt.json"))
    };
    let held = reduce(&tight, &["--memory", &ceiling]);
    assert!(held < CEILING, "downsample held {held}");
    let unbounded = reduce(&roomy, &[]);
    assert!(unbounded > CEILING, "the test shows nothing: {unbounded}");
    assert!(same::<f64>(&tight, &roomy));
}

#[test]
fn the_plan_says_what_resampling_through_a_field_will_hold() {
    let scene = Scene::new();
    let image = large::<u16>(&scene, "image.zarr", [128, 448, 512], |v| v as u16);
    let grid = Grid::new([34, 114, 130], [4.0; 3], [-2.0; 3]);
    let location = scene.at("field.zarr");
    let field = FieldOutput::create(&location, &grid, [34; 3], Existing::Refuse).unwrap();
    for part in grid.bounds().tiles([34; 3]) {
        let vectors = part.tiles([1; 3]).map(|v| {
            let [z, y, x] = v.min.map(|v| v as f32 * 0.12);
            [(y.sin() + x) * 0.3, z.cos() + x.sin(), (z + y).sin()]
        });
        field.write(&part, &vectors.collect::<Vec<_>>()).unwrap();
    }
    let out = scene.at("out.zarr");
    let arguments = [image.as_str(), "--onto", &image, "--transform", &location, "-o", &out];
    let plan = program("apply-transform")
        .args(arguments)
        .args(["--plan", "--threads", "2"])
        .assert()
        .success();
    let said: serde_json::Value = serde_json::from_slice(&plan.get_output().stdout).unwrap();
    let planned = said["memory"]["needed"].as_u64().unwrap();
    let held = peak("apply-transform", &arguments, &scene.at("receipt.json"));
    assert!(held <= planned + planned / 20, "{held} held, {planned} planned");
    assert!(held * 10 >= planned * 7, "{held} held, {planned} planned");
    assert_eq!(Volume::open(&out, &Select::default()).unwrap().dtype(), Dtype::U16);
}
