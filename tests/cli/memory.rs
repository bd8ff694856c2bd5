//! The memory limit, and what `--plan` reports about it.
//!
//! Linux reports the current and the peak memory of a process (`VmHWM`); on other systems these
//! tests cannot measure it.
#![cfg(target_os = "linux")]

use std::process::{Command, Stdio};
use std::time::Duration;

use voxloom::geom::{Box3, Grid};
use voxloom::volume::{
    Codec, Dtype, Existing, FieldOutput, Format, Output, Select, Spec, Volume, Voxel,
};

use crate::scene::{PhantomPair, Scene, executable, program};

/// Memory limit in the tests, bytes; the program itself needs some 15 MB of it.
const CEILING: u64 = 48 << 20;

/// Runs a program; returns its peak memory in bytes, polled while it runs and as recorded in its
/// receipt.
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

/// A synthetic volume that is fast to make and to store, but has no two equal chunks.
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

/// Shapes of data that are difficult for memory accounting in different ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Data {
    /// Chunks of the usual size, all different.
    Dense,
    /// No chunk is stored.
    Empty,
    /// Chunks smaller than their table entries.
    Tiny,
    /// A few chunks, each larger than a block.
    Huge,
}

impl Data {
    const ALL: [Self; 4] = [Self::Dense, Self::Empty, Self::Tiny, Self::Huge];

    fn chunk(self) -> [usize; 3] {
        match self {
            Self::Dense | Self::Empty => [32; 3],
            Self::Tiny => [8; 3],
            Self::Huge => [128; 3],
        }
    }

    /// A volume of such data, shifted by `shift` voxels along x.
    fn volume(self, scene: &Scene, name: &str, shape: [usize; 3], shift: f64) -> String {
        let spec = Spec {
            grid: Grid::new(shape, [1.0; 3], [0.0; 3]),
            dtype: Dtype::U16,
            chunk: self.chunk(),
            shard: None,
            codec: Codec::Lz4,
            format: Format::Zarr3,
        };
        let location = scene.at(name);
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        let bounds = Box3::of_shape(shape);
        let tiles = bounds.tiles(self.chunk());
        for part in tiles.take(if self == Self::Empty { 0 } else { usize::MAX }) {
            let mut voxels = Vec::with_capacity(part.len());
            for z in part.min[0]..part.max[0] {
                for y in part.min[1]..part.max[1] {
                    for x in part.min[2]..part.max[2] {
                        let [z, y, x] = [z as f64, y as f64, x as f64 - shift];
                        let waves =
                            (x * 0.31).sin() * (y * 0.23).cos() * (z * 0.27 + x * 0.05).sin();
                        voxels.push(
                            (900.0 + 800.0 * waves + (x * 7.3 + y * 3.1).sin() * 40.0) as u16,
                        );
                    }
                }
            }
            output.write(&part, &voxels).unwrap();
        }
        location
    }
}

/// The memory that `--plan` predicts for a program, bytes.
fn planned(name: &str, arguments: &[&str]) -> u64 {
    let plan = program(name).args(arguments).args(["--plan", "--threads", "2"]).assert().success();
    let message: serde_json::Value = serde_json::from_slice(&plan.get_output().stdout).unwrap();
    message["memory"]["needed"].as_u64().unwrap()
}

/// Runs a program on all shapes of data. Its peak memory must not exceed `--memory`, nor its plan
/// by more than a tenth; on dense data the plan must exceed the peak by at most a half. The flag
/// `-o` with the output is added to `arguments`.
fn keeps_to_its_plan(
    name: &str,
    shape: [usize; 3],
    memory: &str,
    arguments: impl Fn(&Scene, Data) -> Vec<String>,
) {
    keep_to_the_plan(Data::ALL, name, shape, memory, arguments);
}

fn keep_to_the_plan(
    shapes: impl IntoIterator<Item = Data>,
    name: &str,
    shape: [usize; 3],
    memory: &str,
    arguments: impl Fn(&Scene, Data) -> Vec<String>,
) {
    let ceiling: u64 = memory.trim_end_matches('M').parse::<u64>().unwrap() * 1_000_000;
    let mut wrong = Vec::new();
    for data in shapes {
        let scene = Scene::new();
        data.volume(&scene, "fixed.zarr", shape, 0.0);
        data.volume(&scene, "moving.zarr", shape, 1.5);
        let mut all = arguments(&scene, data);
        all.extend(["-o".into(), scene.at("out.zarr"), "--memory".into(), memory.into()]);
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let plan = planned(name, &all);
        let held = peak(name, &all, &scene.at("receipt.json"));
        eprintln!("{name} {data:?}: {held} held, {plan} planned, {ceiling} allowed");
        if held > plan + plan / 10 || plan > ceiling || held > ceiling {
            wrong.push(format!("{data:?}: {held} held, {plan} planned, {ceiling} allowed"));
        }
        if data == Data::Dense && plan > held + held / 2 {
            wrong.push(format!("{data:?}: {plan} planned, and only {held} held"));
        }
    }
    assert!(wrong.is_empty(), "{name}: {}", wrong.join("; "));
}

const SHAPE: [usize; 3] = [128, 192, 256];

#[test]
fn transcode_keeps_to_its_plan() {
    keeps_to_its_plan("transcode", SHAPE, "100M", |scene, _| {
        vec![
            scene.at("fixed.zarr"),
            "--to".into(),
            "zarr3".into(),
            "--chunk".into(),
            "40,40,40".into(),
        ]
    });
}

#[test]
fn downsample_keeps_to_its_plan() {
    keeps_to_its_plan("downsample", SHAPE, "100M", |scene, _| {
        let one = ["--levels", "1", "--chunk", "32,32,32"].map(str::to_owned);
        [vec![scene.at("fixed.zarr")], one.to_vec()].concat()
    });
}

#[test]
fn apply_transform_keeps_to_its_plan() {
    keeps_to_its_plan("apply-transform", SHAPE, "100M", |scene, _| {
        let map = "1 0.02 0 1.5\n-0.01 1 0 -2\n0 0.01 1 0.7\n0 0 0 1\n";
        let map = scene.file("map.txt", map);
        let onto = ["--onto".into(), scene.at("fixed.zarr"), "--transform".into(), map];
        let chunk = ["--chunk", "32,32,32"].map(str::to_owned);
        [vec![scene.at("moving.zarr")], onto.to_vec(), chunk.to_vec()].concat()
    });
}

/// A smooth field with the chunk size of the data.
fn field(scene: &Scene, data: Data, shape: [usize; 3]) -> String {
    let location = scene.at("field.zarr");
    let grid = Grid::new(shape, [2.0; 3], [0.0; 3]);
    let chunk = data.chunk().map(|n| n.min(64));
    let field = FieldOutput::create(&location, &grid, chunk, Existing::Refuse).unwrap();
    for part in grid.bounds().tiles(chunk) {
        let vectors = part.tiles([1; 3]).map(|v| {
            let [z, y, x] = v.min.map(|v| v as f32 * 0.06);
            [(y.sin() + x) * 0.3, z.cos() + x.sin(), (z + y).sin()]
        });
        field.write(&part, &vectors.collect::<Vec<_>>()).unwrap();
    }
    location
}

#[test]
fn invmap_keeps_to_its_plan() {
    keeps_to_its_plan("invmap", [8; 3], "120M", |scene, data| {
        vec![field(scene, data, [72, 100, 120])]
    });
}

#[test]
fn flow_keeps_to_its_plan() {
    // a constant volume has no match
    let some = Data::ALL.into_iter().filter(|data| *data != Data::Empty);
    keep_to_the_plan(some, "flow", [96, 128, 160], "220M", |scene, _| {
        let mut all = vec![scene.at("fixed.zarr"), scene.at("moving.zarr")];
        let patches =
            ["--patch", "16", "--stride", "8", "--search", "4", "--block-size", "13,16,16"];
        all.extend(patches.map(str::to_owned));
        all
    });
}

#[test]
fn deform_keeps_to_its_plan() {
    // a constant volume cannot be deformed
    let some = Data::ALL.into_iter().filter(|data| *data != Data::Empty);
    keep_to_the_plan(some, "deform", [96, 96, 160], "180M", |scene, _| {
        let initial = scene.file("initial.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
        let mut all = vec![scene.at("fixed.zarr"), scene.at("moving.zarr")];
        all.extend(["--initial".into(), initial, "--block-size".into(), "64,64,64".into()]);
        all.extend(["--overlap", "16", "--allow-failed", "1"].map(str::to_owned));
        all
    });
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let scene = Scene::new();
    let image = scene.volume("image.zarr", [64, 256, 256], |[z, y, x]| (z + y + x) as u16);
    let out = scene.at("out.zarr");
    let refused = |name: &str, arguments: &[&str], words: &[&str]| {
        let before = scene.contents();
        let assert = program(name).args(arguments).args(["-o", &out]).assert().code(2);
        let message = String::from_utf8_lossy(&assert.get_output().stderr).into_owned();
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
        assert!(scene.contents() == before, "{name} has written something");
    };
    let block = ["--block-size", "64,256,256", "--memory", "10M", "--chunk", "32,32,32"];
    let chunk = ["--memory", "10M", "--chunk", "64,256,256"];
    let map = scene.file("map.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    for (name, first) in [
        ("transcode", vec![image.as_str(), "--to", "zarr3"]),
        ("downsample", vec![&image, "--levels", "1", "--factor", "1,1,2"]),
        ("apply-transform", vec![&image, "--onto", &image, "--transform", &map]),
    ] {
        refused(name, &[&first[..], &block].concat(), &["--block-size", "MB", "--memory"]);
        refused(name, &[&first[..], &chunk].concat(), &["--chunk", "MB", "--memory"]);
    }
    refused("deform", &[&image, &image, "--initial", &map, "--memory", "40M"], &["MB", "--memory"]);
    let plane = scene.at("out.tif");
    program("transcode")
        .args([&image, "--to", "tiff", "-o", &plane, "--memory", "1M"])
        .assert()
        .code(2);
}

#[test]
fn programs_without_blocks_say_what_they_would_hold_and_refuse_what_does_not_fit() {
    let scene = Scene::new();
    let image =
        scene.volume("image.zarr", [32, 64, 64], |[z, y, x]| ((z * y + x * x) % 251) as u16);
    for arguments in [vec!["inspect", &image], vec!["inspect", "--suggest", &image, &image]] {
        assert!(planned(arguments[0], &arguments[1..]) > 1_000_000, "{arguments:?}");
        let refused = program(arguments[0]).args(&arguments[1..]).args(["--memory", "2M"]).assert();
        let message = String::from_utf8_lossy(&refused.code(2).get_output().stderr).into_owned();
        assert!(message.contains("--memory"), "{message}");
    }
    let pair = PhantomPair::get();
    let spots = [pair.at("fixed.csv"), pair.at("moving.csv")];
    let (fixed, moving) = (pair.at("fixed.zarr"), pair.at("moving.zarr"));
    let out = scene.at("map.json");
    let ransac =
        [&fixed, &moving, "--fixed-spots", &spots[0], "--moving-spots", &spots[1], "-o", &out];
    let refine = [fixed.as_str(), &moving, "-o", &out];
    for (name, arguments) in [("ransac", &ransac[..]), ("refine", &refine)] {
        assert!(planned(name, arguments) > 1_000_000, "{name}");
        assert!(!std::path::Path::new(&out).exists());
    }
    let page = scene.at("page.html");
    let report = ["--fixed", &fixed, "--moving", &moving, "-o", &page];
    assert!(planned("report", &report) > 1_000_000);
    assert!(!std::path::Path::new(&page).exists());
    assert!(planned("phantom", &["rounds", "--size", "64", "-o", &scene.at("pair")]) > 1_000_000);
    assert!(!std::path::Path::new(&scene.at("pair")).exists());
}

/// Whether two volumes hold the same voxels, compared slab by slab.
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
    reduce(&roomy, &[]);
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
    let message: serde_json::Value = serde_json::from_slice(&plan.get_output().stdout).unwrap();
    let planned = message["memory"]["needed"].as_u64().unwrap();
    let held = peak("apply-transform", &arguments, &scene.at("receipt.json"));
    assert!(held <= planned + planned / 20, "{held} held, {planned} planned");
    assert!(held * 10 >= planned * 7, "{held} held, {planned} planned");
    assert_eq!(Volume::open(&out, &Select::default()).unwrap().dtype(), Dtype::U16);
}

/// A volume with a blob in every chunk, of random position and size.
fn with_blobs(scene: &Scene, name: &str, shape: [usize; 3]) -> String {
    let spec = Spec {
        grid: Grid::new(shape, [1.0; 3], [0.0; 3]),
        dtype: Dtype::F64,
        chunk: [32; 3],
        shard: None,
        codec: Codec::Lz4,
        format: Format::Zarr3,
    };
    let location = scene.at(name);
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    let mut state = 1_u64;
    let mut roll = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (state >> 40) as f64 / f64::from(1 << 24)
    };
    for part in Box3::of_shape(shape).tiles([32; 3]) {
        let centre = [(); 3].map(|()| 10.0 + 12.0 * roll());
        let (sigma, height) = (1.5 + 1.5 * roll(), 200.0 + 800.0 * roll());
        let [_, ny, nx] = part.shape();
        let voxels: Vec<f64> = (0..part.len())
            .map(|i| {
                let at = [i / (ny * nx), i / nx % ny, i % nx];
                let far: f64 = (0..3).map(|a| (at[a] as f64 - centre[a]).powi(2)).sum();
                100.0 + height * (-0.5 * far / (sigma * sigma)).exp()
            })
            .collect();
        output.write(&part, &voxels).unwrap();
    }
    location
}

#[test]
fn spots_of_a_volume_larger_than_memory_are_those_of_one_block_and_stay_under_the_ceiling() {
    const ALLOWED: u64 = 96 << 20;
    let scene = Scene::new();
    let shape = [128, 384, 448];
    assert!(shape.iter().product::<usize>() as u64 * 8 > ALLOWED * 3 / 2);
    let image = with_blobs(&scene, "image.zarr", shape);
    let extract = |out: &str, more: &[&str]| {
        let table = scene.at(out);
        let mut arguments = vec![image.as_str(), "-o", &table, "--threshold", "20", "--overwrite"];
        arguments.extend(more);
        let held = peak("extract-spots", &arguments, &scene.at("receipt.json"));
        (held, std::fs::read_to_string(table).unwrap())
    };
    let allowed = ALLOWED.to_string();
    let (held, tight) = extract("tight.csv", &["--memory", &allowed]);
    assert!(held < ALLOWED, "extract-spots held {held}");
    // most chunks contain a detected blob
    assert!(tight.lines().count() > 400, "{}", tight.lines().count());
    let (unbounded, whole) = extract("whole.csv", &["--block-size", "128,384,448"]);
    assert!(unbounded > ALLOWED, "the test shows nothing: {unbounded}");
    assert!(tight == whole);
    let (_, cut) = extract("cut.csv", &["--block-size", "50,130,200", "--memory", "2G"]);
    assert!(tight == cut);
}

#[test]
fn exact_spots_that_do_not_fit_are_refused_with_the_number_that_would() {
    let scene = Scene::new();
    let image = with_blobs(&scene, "image.zarr", [96, 160, 160]);
    let done = program("extract-spots")
        .args([image.as_str(), "--exact", "-o", &scene.at("spots.csv"), "--memory", "20M"])
        .assert()
        .failure();
    let message = String::from_utf8_lossy(&done.get_output().stderr).into_owned();
    assert!(message.contains("--memory") && message.contains("voxels"), "{message}");
    assert!(!std::path::Path::new(&scene.at("spots.csv")).exists());
}
