//! Command lines of all programs that divide their work into tasks, small enough for many runs.

use std::path::Path;

use crate::scene::{PhantomPair, Scene, program};

/// A command of one of our programs; `arguments` makes its arguments in a scene.
pub(crate) struct ProgramRun {
    pub(crate) name: &'static str,
    pub(crate) arguments: fn(&Scene) -> Vec<String>,
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn pair(names: [&str; 2]) -> [String; 2] {
    names.map(|name| PhantomPair::get().at(name))
}

pub(crate) const SPOTS: ProgramRun = ProgramRun {
    name: "extract-spots",
    arguments: |scene| {
        let [fixed, _] = pair(["fixed.zarr", ""]);
        words([&fixed, "-o", &scene.at("spots.csv"), "--block-size", "48,48,48", "--threads", "1"])
    },
};

pub(crate) const LOCAL: ProgramRun = ProgramRun {
    name: "local-affine",
    arguments: |scene| {
        let [fixed, moving] = pair(["fixed.zarr", "moving.zarr"]);
        let initial = PhantomPair::get().at("global.json");
        let mut all =
            words([&fixed, &moving, "--initial", &initial, "-o", &scene.at("local.zarr")]);
        // by default, small blocks are combined into tasks of 192 voxels, which is larger than the
        // volume; this size gives several tasks
        all.extend(words(["--table", &scene.at("blocks.csv"), "--block-size", "32,32,32"]));
        all.extend(words(["--threads", "1"]));
        all
    },
};

pub(crate) const DEFORM: ProgramRun = ProgramRun {
    name: "deform",
    arguments: |scene| {
        let [fixed, moving] = pair(["fixed.zarr", "moving.zarr"]);
        let initial = PhantomPair::get().at("global.json");
        let mut all =
            words([&fixed, &moving, "--initial", &initial, "-o", &scene.at("deform.zarr")]);
        all.extend(words(["--block-size", "48,48,48", "--overlap", "8", "--threads", "1"]));
        all.extend(words(["--iterations", "2", "--levels", "2"]));
        all
    },
};

pub(crate) const FLOW: ProgramRun = ProgramRun {
    name: "flow",
    arguments: |scene| {
        let [fixed, moving] = pair(["fixed.zarr", "moving.zarr"]);
        let initial = PhantomPair::get().at("global.json");
        let mut all = words([&fixed, &moving, "--initial", &initial, "-o", &scene.at("flow.zarr")]);
        all.extend(words(["--patch", "16", "--stride", "4", "--search", "2"]));
        all.extend(words(["--block-size", "16,16,16", "--threads", "1"]));
        all
    },
};

/// Ten planes of flow, each of which is a task for the programs that read them.
fn flow_of_planes(scene: &Scene) -> String {
    let [fixed, moving] = pair(["fixed.zarr", "moving.zarr"]);
    let flow = scene.at("planes.zarr");
    if !Path::new(&flow).exists() {
        let patches = ["--planes", "--patch", "24", "--stride", "6", "--search", "4"];
        program("flow").args([&fixed, &moving, "-o", &flow, "-q"]).args(patches).assert().success();
    }
    scene.at("planes.json")
}

/// A stack of nine sections; with the given flaws.
fn sections(scene: &Scene, defects: &str) -> String {
    let folder = scene.at("stack");
    if !Path::new(&folder).exists() {
        let size = ["sections", "--size", "9,96,96", "--defects", defects, "--wavelength", "100"];
        let size = size.iter().chain(&["--max-displacement", "2", "--max-shift", "8"]);
        program("phantom").args(size).args(["-o", &folder, "-q"]).assert().success();
    }
    format!("{folder}/sections.zarr")
}

pub(crate) const MASK: ProgramRun = ProgramRun {
    name: "mask",
    arguments: |scene| {
        let mut all = words([&sections(scene, "4"), "-o", &scene.at("mask.zarr")]);
        all.extend(words(["--min-area", "100", "--threads", "1"]));
        all
    },
};

pub(crate) const ROUGH: ProgramRun = ProgramRun {
    name: "rough",
    arguments: |scene| {
        let stack = sections(scene, "0");
        let mut all = words([&stack, "-o", &scene.at("rough.zarr"), "--max-rotation", "3"]);
        all.extend(words(["--distance", "1", "--threads", "1"]));
        all
    },
};

/// A table of nine tiles of a plane.
fn tiles(scene: &Scene) -> String {
    let folder = scene.at("tiles");
    if !Path::new(&folder).exists() {
        let size = ["tiles", "--size", "1,240,240", "--tile", "96,96", "--overlap", "0.25"];
        let more = ["--lens", "1", "-o", &folder, "-q"];
        program("phantom").args(size).args(more).assert().success();
    }
    format!("{folder}/tiles.csv")
}

pub(crate) const STITCH: ProgramRun = ProgramRun {
    name: "stitch",
    arguments: |scene| {
        let mut all = words([&tiles(scene), "-o", &scene.at("stitched.json")]);
        all.extend(words(["--lens", "yes", "--threads", "1"]));
        all
    },
};

pub(crate) const FUSE: ProgramRun = ProgramRun {
    name: "fuse",
    arguments: |scene| {
        let stitched = scene.at("s/stitched.json");
        if !Path::new(&stitched).exists() {
            std::fs::create_dir_all(scene.at("s")).unwrap();
            program("stitch").args([&tiles(scene), "-o", &stitched, "-q"]).assert().success();
        }
        let mut all = words([&stitched, "-o", &scene.at("plane.zarr"), "--chunk", "1,64,64"]);
        all.extend(words(["--block-size", "1,64,64", "--threads", "1"]));
        all
    },
};

pub(crate) const RELAX: ProgramRun = ProgramRun {
    name: "relax",
    arguments: |scene| {
        let mut all = words([&flow_of_planes(scene), "-o", &scene.at("relaxed.zarr")]);
        all.extend(words(["--hold-out", "0.1", "--threads", "1"]));
        all
    },
};

pub(crate) const CLEAN: ProgramRun = ProgramRun {
    name: "clean-flow",
    arguments: |scene| {
        let mut all = words([&flow_of_planes(scene), "-o", &scene.at("clean.zarr")]);
        all.extend(words(["--fill", "--min-patches", "2", "--threads", "1"]));
        all
    },
};

pub(crate) const INVMAP: ProgramRun = ProgramRun {
    name: "invmap",
    arguments: |scene| {
        let [truth, moving] = pair(["truth.json", "moving.zarr"]);
        let mut all = words([&truth, "--onto", &moving, "-o", &scene.at("inverse.zarr")]);
        all.extend(words(["--block-size", "64,64,64", "--threads", "1"]));
        all
    },
};

pub(crate) const INVERSE: ProgramRun = ProgramRun {
    name: "apply-transform",
    arguments: |scene| {
        let [fixed, moving] = pair(["fixed.zarr", "moving.zarr"]);
        let truth = PhantomPair::get().at("truth.json");
        let mut all =
            words([&fixed, "--onto", &moving, "--transform", &truth, "--inverse-transform"]);
        all.extend(words(["-o", &scene.at("out.zarr"), "--block-size", "48,48,48"]));
        all.extend(words(["--chunk", "48,48,48", "--threads", "1"]));
        all
    },
};

pub(crate) const DOWNSAMPLE: ProgramRun = ProgramRun {
    name: "downsample",
    arguments: |scene| {
        let [fixed, _] = pair(["fixed.zarr", ""]);
        let mut all = words([&fixed, "-o", &scene.at("small.zarr"), "--levels", "1"]);
        all.extend(words(["--block-size", "16,16,16", "--chunk", "16,16,16", "--threads", "1"]));
        all
    },
};

pub(crate) const TRANSCODE: ProgramRun = ProgramRun {
    name: "transcode",
    arguments: |scene| {
        let [fixed, _] = pair(["fixed.zarr", ""]);
        let mut all = words([&fixed, "--to", "n5", "-o", &scene.at("copy.n5")]);
        all.extend(words(["--block-size", "48,48,48", "--chunk", "48,48,48", "--threads", "1"]));
        all
    },
};

pub(crate) const SAMPLED: ProgramRun = ProgramRun {
    name: "transcode",
    arguments: |scene| {
        let [truth, fixed] = pair(["truth.json", "fixed.zarr"]);
        let mut all = words([&truth, "--to", "field", "-o", &scene.at("field.zarr")]);
        all.extend(words(["--onto", &fixed, "--block-size", "64,64,64", "--threads", "1"]));
        all
    },
};
