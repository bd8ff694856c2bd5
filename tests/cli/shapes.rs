//! The programs align volumes of all shapes and voxel sizes with their default parameters: planes,
//! thin stacks, voxels of 1 and of 100 um, rounds of different voxel sizes. `pick-level` picks the
//! resolution.

use std::f64::consts::TAU;

use voxloom::geom::{Affine, Grid, Point};
use voxloom::volume::{Codec, Dtype, Existing, Format, Output, Spec};

use crate::scene::{Scene, program};

/// A pseudorandom number from 0 to 1, determined by the state.
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as f64 / 2f64.powi(31)
}

/// A bright blob: centre, radius (standard deviation), height.
type Blob = (Point, f64, f64);

/// Random blobs within an extent in micrometres; their radii are multiples of `unit`.
fn blobs(extent: Point, count: usize, unit: f64) -> Vec<Blob> {
    let mut state = 7;
    (0..count)
        .map(|_| {
            let centre = std::array::from_fn(|a| {
                if extent[a] == 0.0 { 0.0 } else { random(&mut state) * extent[a] }
            });
            let radius = unit * (2.2 + 1.8 * random(&mut state));
            (centre, radius, 300.0 + 2200.0 * random(&mut state))
        })
        .collect()
}

/// Renders blobs, moved by a map, on a grid, with noise, as a volume of this name.
fn render(scene: &Scene, name: &str, grid: Grid, blobs: &[Blob], map: &Affine, seed: u64) {
    let [_, height, width] = grid.shape;
    let mut state = seed;
    let mut voxels = vec![0.0; grid.shape.iter().product()];
    for voxel in &mut voxels {
        // the sum of two uniform numbers (a triangular distribution) is sufficient noise
        *voxel = 100.0 + 5.0 * (random(&mut state) + random(&mut state) - 1.0);
    }
    for &(centre, radius, height_of) in blobs {
        let centre = grid.index(map.apply(centre));
        let reach =
            |a: usize| if grid.shape[a] == 1 { 0.0 } else { 4.0 * radius / grid.spacing[a] };
        let range = |a: usize| {
            let low = (centre[a] - reach(a)).ceil().max(0.0) as usize;
            let high = (centre[a] + reach(a)).floor().min(grid.shape[a] as f64 - 1.0);
            if high < 0.0 { 0..0 } else { low..high as usize + 1 }
        };
        let bell = |a: usize, i: usize| {
            let d = (i as f64 - centre[a]) * grid.spacing[a];
            (-d * d / (2.0 * radius * radius)).exp()
        };
        for z in range(0) {
            for y in range(1) {
                for x in range(2) {
                    voxels[(z * height + y) * width + x] +=
                        height_of * bell(0, z) * bell(1, y) * bell(2, x);
                }
            }
        }
    }
    let spec = Spec {
        grid,
        dtype: Dtype::U16,
        chunk: grid.shape,
        shard: None,
        codec: Codec::Raw,
        format: Format::Zarr3,
    };
    let output = Output::create(&scene.at(name), &spec, Existing::Refuse).unwrap();
    let voxels: Vec<u16> = voxels.iter().map(|v| v.round().max(0.0) as u16).collect();
    output.write(&grid.bounds(), &voxels).unwrap();
}

/// A rotation in the plane by `degrees` about the middle of an extent, with stretch and shift.
fn moved(extent: Point, degrees: f64, stretch: Point, shift: Point) -> Affine {
    let (sine, cosine) = (TAU * degrees / 360.0).sin_cos();
    let linear = [
        [stretch[0], 0.0, 0.0],
        [0.0, cosine * stretch[1], -sine * stretch[2]],
        [0.0, sine * stretch[1], cosine * stretch[2]],
    ];
    let turned = Affine::from_parts(linear, [0.0; 3]);
    let middle = extent.map(|v| v / 2.0);
    let to = turned.apply(middle);
    Affine::from_parts(linear, std::array::from_fn(|a| middle[a] + shift[a] - to[a]))
}

/// A pair of volumes with known truth.
struct Rounds {
    scene: Scene,
    truth: Affine,
    points: Vec<Point>,
}

impl Rounds {
    /// `fixed` shows `count` random blobs within its extent, `moving` the same blobs moved by
    /// `truth`.
    fn new(fixed: Grid, moving: Grid, count: usize, unit: f64, truth: Affine) -> Self {
        let scene = Scene::new();
        let extent = std::array::from_fn(|a| (fixed.shape[a] - 1) as f64 * fixed.spacing[a]);
        let blobs = blobs(extent, count, unit);
        render(&scene, "fixed.zarr", fixed, &blobs, &Affine::IDENTITY, 1);
        render(&scene, "moving.zarr", moving, &blobs, &truth, 2);
        let mut state = 9;
        let points: Vec<Point> = (0..100)
            .map(|_| extent.map(|length| length * (0.25 + 0.5 * random(&mut state))))
            .collect();
        let rows = points.iter().map(|[z, y, x]| format!("{z},{y},{x}\n"));
        scene.file("points.csv", &format!("z_um,y_um,x_um\n{}", rows.collect::<String>()));
        Self { scene, truth, points }
    }

    fn at(&self, name: &str) -> String {
        self.scene.at(name)
    }

    fn run(&self, name: &str, args: &[&str]) {
        program(name).current_dir(self.at("")).args(args).assert().success();
    }

    /// Runs `extract-spots`, `ransac` and `local-affine` with their defaults.
    fn fit(&self) {
        for round in ["fixed", "moving"] {
            self.run("extract-spots", &[&format!("{round}.zarr"), "-o", &format!("{round}.csv")]);
        }
        let pair = ["fixed.zarr", "moving.zarr"];
        let spots = ["--fixed-spots", "fixed.csv", "--moving-spots", "moving.csv"];
        let out = ["-o", "global.json", "--matches", "matches.csv"];
        self.run("ransac", &[&pair[..], &spots, &out].concat());
        let out = ["--initial", "global.json", "-o", "local.zarr", "--table", "blocks.csv"];
        self.run("local-affine", &[&pair[..], &out].concat());
    }

    /// The median distance of transformed points from the truth, and the maximum error along z, in
    /// um.
    fn error(&self, transform: &str) -> (f64, f64) {
        let out = self.at(&format!("{transform}.csv"));
        self.run(
            "apply-transform",
            &["--points", "points.csv", "--transform", transform, "-o", &out],
        );
        let text = std::fs::read_to_string(&out).unwrap();
        let carried = text.lines().skip(1).map(|line| -> Point {
            let numbers: Vec<f64> = line.split(',').map(|v| v.parse().unwrap()).collect();
            [numbers[0], numbers[1], numbers[2]]
        });
        let (mut errors, mut along_z) = (Vec::new(), 0.0f64);
        for (p, q) in self.points.iter().zip(carried) {
            let wanted = self.truth.apply(*p);
            let distance = (0..3).map(|a| (q[a] - wanted[a]).powi(2)).sum::<f64>().sqrt();
            assert!(distance.is_finite(), "{p:?} went to {q:?}");
            errors.push(distance);
            along_z = along_z.max((q[0] - wanted[0]).abs());
        }
        assert_eq!(errors.len(), self.points.len());
        errors.sort_by(f64::total_cmp);
        (errors[errors.len() / 2], along_z)
    }
}

#[test]
fn planes_go_through_every_program_and_keep_their_z() {
    plane_goes_through_every_program(Grid::new([1, 160, 160], [5.0, 0.8, 0.8], [0.0; 3]));
}

#[test]
fn planes_without_z_go_through_every_program() {
    plane_goes_through_every_program(Grid::plane([160, 160], [0.8, 0.8], [0.0; 2]));
}

fn plane_goes_through_every_program(grid: Grid) {
    let extent = [0.0, 127.2, 127.2];
    let truth = moved(extent, 3.0, [1.0, 1.03, 0.98], [0.0, 5.0, -4.0]);
    let rounds = Rounds::new(grid, grid, 250, 1.0, truth);
    rounds.run("inspect", &["--suggest", "fixed.zarr", "moving.zarr"]);
    rounds.fit();
    let pair = ["fixed.zarr", "moving.zarr"];
    rounds
        .run("refine", &[&pair[..], &["--initial", "global.json", "-o", "refined.json"]].concat());
    rounds.run("deform", &[&pair[..], &["--initial", "local.zarr", "-o", "deform.zarr"]].concat());
    for transform in ["global.json", "refined.json", "local.zarr", "deform.json"] {
        let (median, along_z) = rounds.error(transform);
        assert!(median < 0.2 && along_z < 1e-6, "{transform}: {median} um, {along_z} um along z");
    }
    rounds.run("invmap", &["deform.json", "--onto", "moving.zarr", "-o", "inverse.zarr"]);
    let onto = ["--onto", "fixed.zarr", "--transform", "deform.json", "-o", "aligned.zarr"];
    rounds.run("apply-transform", &[&["moving.zarr"][..], &onto].concat());
    rounds.run("downsample", &["aligned.zarr", "--levels", "2"]);
    let page = ["--stage", "deform=aligned.zarr", "--matches", "matches.csv", "-o", "report.html"];
    let receipts = ["global.json.receipt.json", "aligned.zarr"];
    let volumes =
        ["--fixed", "fixed.zarr", "--moving", "moving.zarr", "--blocks-table", "blocks.csv"];
    rounds.run("report", &[&receipts[..], &volumes, &page].concat());
    let report = std::fs::read_to_string(rounds.at("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert!(report.to_string().contains("ncc"), "{report}");
}

#[test]
fn thin_stacks_are_aligned_by_defaults() {
    for planes in [2, 3, 5, 12] {
        let grid = Grid::new([planes, 160, 160], [8.0, 0.8, 0.8], [0.0; 3]);
        let extent = [(planes - 1) as f64 * 8.0, 127.2, 127.2];
        let truth = moved(extent, 2.0, [1.0, 1.01, 0.99], [0.0, -5.0, 4.0]);
        let rounds = Rounds::new(grid, grid, 60 * planes + 100, 1.0, truth);
        rounds.fit();
        for transform in ["global.json", "local.zarr"] {
            let (median, _) = rounds.error(transform);
            assert!(median < 3.0, "{planes} planes, {transform}: {median} um");
        }
    }
}

#[test]
fn a_thin_stack_is_not_given_more_planes_than_it_has() {
    let grid = Grid::new([12, 160, 160], [8.0, 0.8, 0.8], [0.0; 3]);
    let rounds = Rounds::new(grid, grid, 500, 1.0, Affine::IDENTITY);
    let message = program("inspect")
        .current_dir(rounds.at(""))
        .args(["--suggest", "fixed.zarr", "moving.zarr", "--json"])
        .assert()
        .success();
    let message: serde_json::Value = serde_json::from_slice(&message.get_output().stdout).unwrap();
    let radius = message["ransac"]["context-radius"]["value"].as_str().unwrap();
    let planes: usize = radius.trim_end_matches("vox").split(',').next().unwrap().parse().unwrap();
    assert!(2 * planes < 12, "{radius}");
}

#[test]
fn defaults_are_lengths_of_voxels_whatever_these_measure() {
    let medians = [1.0, 100.0].map(|unit| {
        let grid = Grid::new([64, 80, 80], [unit; 3], [0.0; 3]);
        let extent = [63.0 * unit, 79.0 * unit, 79.0 * unit];
        let truth = moved(extent, 2.0, [1.02, 1.01, 0.99], [3.0, -5.0, 4.0].map(|v| v * unit));
        let rounds = Rounds::new(grid, grid, 300, unit, truth);
        rounds.fit();
        rounds.error("local.zarr").0 / unit
    });
    assert!(medians.iter().all(|median| *median < 0.3), "{medians:?} voxels");
    assert!((medians[0] - medians[1]).abs() < 0.02, "{medians:?} voxels");
}

#[test]
fn rounds_of_different_voxel_sizes_are_aligned() {
    let extent = [70.0, 90.0, 90.0];
    let over = |spacing: Point| {
        let shape = std::array::from_fn(|a| (extent[a] / spacing[a]) as usize + 1);
        Grid::new(shape, spacing, [0.0; 3])
    };
    let truth = moved(extent, 2.0, [1.02, 1.01, 0.99], [2.0, -4.0, 3.0]);
    let cases =
        [([1.0; 3], [1.6; 3]), ([1.0; 3], [2.0, 0.7, 0.7]), ([2.0, 0.8, 0.8], [1.0, 1.0, 1.3])];
    for (fixed, moving) in cases {
        let rounds = Rounds::new(over(fixed), over(moving), 350, 1.0, truth);
        rounds.fit();
        let files = ["fixed.zarr", "moving.zarr", "--initial", "local.zarr", "-o", "deform.zarr"];
        rounds.run("deform", &files);
        for transform in ["global.json", "local.zarr", "deform.json"] {
            let (median, _) = rounds.error(transform);
            assert!(median < 0.6, "{fixed:?} and {moving:?}, {transform}: {median} um");
        }
    }
}

/// The location that `pick-level` chooses for a volume.
fn picked(scene: &Scene, volume: &str, name: &str, more: &[&str]) -> String {
    let (out, scratch) = (scene.at(name), scene.at(&format!("{name}.zarr")));
    program("pick-level")
        .args([volume, "-o", &out, "--scratch", &scratch])
        .args(more)
        .assert()
        .success();
    let text = std::fs::read_to_string(out).unwrap();
    assert!(text.ends_with('\n'), "{text}");
    text.trim_end().to_owned()
}

#[test]
fn the_working_resolution_is_a_level_that_is_there_or_one_that_is_made() {
    let scene = Scene::new();
    let volume = scene.volume::<u16>("v.zarr", [64, 128, 128], |[z, y, x]| (z + y * x % 97) as u16);
    assert_eq!(picked(&scene, &volume, "as-it-is", &[]), volume);
    assert!(!std::path::Path::new(&scene.at("as-it-is.zarr")).exists());
    let reduced = picked(&scene, &volume, "reduced", &["--level", "1"]);
    assert_eq!(reduced, scene.at("reduced.zarr/0"));
    let grid = |location: &str| {
        voxloom::volume::Volume::open(location, &voxloom::volume::Select::default()).unwrap().grid()
    };
    assert_eq!((grid(&reduced).shape, grid(&reduced).spacing), ([32, 64, 64], [2.0; 3]));
    assert_eq!(grid(&reduced).origin, [0.5; 3]);
    assert_eq!(picked(&scene, &volume, "like", &["--like", &reduced]), scene.at("like.zarr/0"));
    program("downsample").args([&volume, "--levels", "2"]).assert().success();
    assert_eq!(picked(&scene, &volume, "there", &["--level", "2"]), format!("{volume}/2"));
    // if the parameters file sets a voxel size, the volume is used as it is
    let parameters = scene.file("p.yaml", "ransac:\n  fixed-spacing: 1,1,1\n");
    let flags = ["--like", &reduced, "--parameters", &parameters];
    assert_eq!(picked(&scene, &volume, "selected", &flags), volume);
}
