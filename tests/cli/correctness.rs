//! Wrong results of older systems that ours must not reproduce; `docs/correctness.md` lists them
//! all.

use voxloom::geom::{Box3, Grid, Point};
use voxloom::volume::{Codec, Dtype, Existing, FieldOutput, Format, Output, Select, Spec, Volume};

use crate::scene::{Scene, program};

/// A field in our format whose displacement is a function of the position.
fn field(scene: &Scene, name: &str, grid: Grid, u: impl Fn(Point) -> Point) -> String {
    let location = scene.at(name);
    let output = FieldOutput::create(&location, &grid, grid.shape, Existing::Refuse).unwrap();
    let vectors: Vec<[f32; 3]> = grid
        .bounds()
        .tiles([1; 3])
        .map(|voxel| u(grid.position(voxel.min.map(|v| v as f64))).map(|v| v as f32))
        .collect();
    output.write(&grid.bounds(), &vectors).unwrap();
    location
}

/// The points to which `apply-transform` maps `points`, (z, y, x).
fn carried(scene: &Scene, transforms: &[&str], points: &[Point]) -> Vec<Point> {
    let rows: Vec<String> = points.iter().map(|[z, y, x]| format!("{z},{y},{x}")).collect();
    let table = scene.file("in.csv", &format!("z_um,y_um,x_um\n{}\n", rows.join("\n")));
    let out = scene.at("out.csv");
    program("apply-transform")
        .args(["--points", &table, "-o", &out, "--overwrite"])
        .args(transforms.iter().flat_map(|t| ["--transform", t]))
        .assert()
        .success();
    let text = std::fs::read_to_string(out).unwrap();
    let point = |line: &str| -> Point {
        let numbers: Vec<f64> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        [numbers[0], numbers[1], numbers[2]]
    };
    text.lines().skip(1).map(point).collect()
}

fn distance(p: Point, q: Point) -> f64 {
    (0..3).map(|a| (p[a] - q[a]).abs()).fold(0.0, f64::max)
}

fn values(location: &str) -> Vec<u16> {
    let volume = Volume::open(location, &Select::default()).unwrap();
    volume.read::<u16>(&volume.grid().bounds()).unwrap()
}

const TEXTURE: fn([i64; 3]) -> u16 =
    |[z, y, x]| (1000 + (z * 13) % 31 * 20 + (y * 7) % 29 * 15 + (x * 11) % 37 * 10) as u16;

/// BigStream reads the scale of OME-Zarr and ignores its translation.
#[test]
fn a_translation_in_the_metadata_is_part_of_every_position() {
    let scene = Scene::new();
    let moving = scene.volume("moving.zarr", [16; 3], TEXTURE);
    let grid = Grid::new([4, 5, 6], [1.0; 3], [3.0, 2.0, 7.0]);
    let spec = Spec {
        grid,
        dtype: Dtype::U16,
        chunk: [4, 5, 6],
        shard: None,
        codec: Codec::Raw,
        format: Format::Zarr3,
    };
    let onto = scene.at("onto.zarr");
    let output = Output::create(&onto, &spec, Existing::Refuse).unwrap();
    output.write(&grid.bounds(), &[0u16; 120]).unwrap();
    let same = scene.file("same.txt", "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n");
    let out = scene.at("out.zarr");
    program("apply-transform")
        .args([&moving, "--onto", &onto, "--transform", &same, "-o", &out])
        .assert()
        .success();
    let want: Vec<u16> =
        Box3::new([3, 2, 7], [7, 7, 13]).tiles([1; 3]).map(|v| TEXTURE(v.min)).collect();
    assert_eq!(values(&out), want);
}

/// BigStream 5 uses the origins of several transforms in the wrong order, composes fields as if all
/// had origin 0, and uses one spacing too few if there are several matrices.
#[test]
fn fields_and_matrices_with_places_of_their_own_follow_each_other() {
    let scene = Scene::new();
    let first = field(
        &scene,
        "first.zarr",
        Grid::new([6, 7, 8], [4.0, 3.0, 2.0], [-5.0, 10.0, 20.0]),
        |p| [0.1 * p[0], 0.2, -0.1 * p[1]],
    );
    let second =
        field(&scene, "second.zarr", Grid::new([9, 9, 9], [3.0, 5.0, 7.0], [1.0, 2.0, 3.0]), |p| {
            [0.3, 0.05 * p[2], 0.1 * p[0]]
        });
    let turn = scene.file("turn.txt", "0 1 0 2\n1 0 0 -3\n0 0 1 0.5\n0 0 0 1\n");
    let shift = scene.file("shift.txt", "1 0 0 1\n0 1 0 1\n0 0 1 1\n0 0 0 1\n");
    let points = [[4.0, 13.0, 25.0], [8.5, 20.25, 30.125]];
    let got = carried(&scene, &[&first, &turn, &shift, &second], &points);
    for (p, got) in points.iter().zip(got) {
        let q = [p[0] + 0.1 * p[0], p[1] + 0.2, p[2] - 0.1 * p[1]];
        let q = [q[1] + 2.0 + 1.0, q[0] - 3.0 + 1.0, q[2] + 0.5 + 1.0];
        let q = [q[0] + 0.3, q[1] + 0.05 * q[2], q[2] + 0.1 * q[0]];
        assert!(distance(q, got) < 1e-5, "{q:?} {got:?}");
    }
}

/// BigStream 5's launcher resamples coarse fields with the spacing of the image, and determines the
/// region of the moving image to read from the corners of a block alone, without a margin.
#[test]
fn a_coarse_field_with_a_bump_in_a_block_is_the_same_for_every_block_size() {
    let scene = Scene::new();
    let moving = scene.volume("moving.zarr", [64; 3], TEXTURE);
    // 8 voxels between nodes; inside a block of 32 the displacement is up to 14 voxels, at its
    // corners 0
    let grid = Grid::new([9; 3], [8.0; 3], [0.0; 3]);
    let bump = |p: Point| {
        let wave = |v: f64| (std::f64::consts::PI * v / 32.0).sin();
        let height = 14.0 * wave(p[0]) * wave(p[1]) * wave(p[2]);
        [height, -height, 0.5 * height]
    };
    let coarse = field(&scene, "coarse.zarr", grid, bump);
    let resample = |name: &str, block: &str| {
        let out = scene.at(name);
        program("apply-transform")
            .args([&moving, "--onto", &moving, "--transform", &coarse, "-o", &out])
            .args(["--chunk", "16,16,16", "--block-size", block])
            .assert()
            .success();
        values(&out)
    };
    let (whole, blocks) = (resample("whole.zarr", "64,64,64"), resample("blocks.zarr", "32,32,32"));
    // positions within a block are in single precision, so values may differ by rounding
    assert!(whole.iter().zip(&blocks).all(|(a, b)| a.abs_diff(*b) <= 1));
    // at the centre of the first block, the image is sampled where the displacement points
    let at = |p: [i64; 3]| whole[((p[0] * 64 + p[1]) * 64 + p[2]) as usize];
    let [z, y, x] = [16, 16, 16];
    assert_eq!(at([z, y, x]), TEXTURE([z + 14, y - 14, x + 7]));
}

/// BigStream 5 groups points in cubes; points on the far boundary can be lost, and coplanar points
/// fail.
#[test]
fn points_on_the_far_rim_and_in_one_place_are_all_carried() {
    let scene = Scene::new();
    let grid = Grid::new([3, 3, 3], [30.0; 3], [0.0; 3]);
    let moved = field(&scene, "field.zarr", grid, |_| [1.0, 2.0, 3.0]);
    let rim = [[0.0; 3], [60.0; 3], [30.0; 3], [60.0, 0.0, 30.0], [0.0, 60.0, 60.0]];
    let place = [[30.0, 12.0, 5.0]; 4];
    for points in [&rim[..], &place[..]] {
        let got = carried(&scene, &[&moved], points);
        assert_eq!(got.len(), points.len());
        for (p, q) in points.iter().zip(got) {
            assert!(distance(q, [p[0] + 1.0, p[1] + 2.0, p[2] + 3.0]) < 1e-6);
        }
    }
}

/// BigStream 5 extrapolates a field for points, but not for images.
#[test]
fn outside_a_field_points_and_images_agree() {
    let scene = Scene::new();
    let moving = scene.volume("moving.zarr", [16; 3], TEXTURE);
    let half =
        field(&scene, "half.zarr", Grid::new([8, 16, 16], [1.0; 3], [0.0; 3]), |_| [2.0, 0.0, 0.0]);
    let got = carried(&scene, &[&half], &[[7.0, 3.0, 3.0], [9.0, 3.0, 3.0]]);
    assert_eq!(got, [[9.0, 3.0, 3.0], [9.0, 3.0, 3.0]]);
    let out = scene.at("out.zarr");
    program("apply-transform")
        .args([&moving, "--onto", &moving, "--transform", &half, "-o", &out])
        .assert()
        .success();
    let values = values(&out);
    let at = |z: usize| values[(z * 16 + 3) * 16 + 3];
    assert_eq!((at(7), at(9)), (TEXTURE([9, 3, 3]), TEXTURE([9, 3, 3])));
}

/// ITK, and an early version of voxloom, return points outside a field unchanged and without a
/// warning.
#[test]
fn points_outside_a_field_are_told_and_all_of_them_are_an_error() {
    let scene = Scene::new();
    let half = Grid::new([8, 16, 16], [1.0; 3], [0.0; 3]);
    let half = field(&scene, "half.zarr", half, |_| [2.0, 0.0, 0.0]);
    let carry = |points: &str, more: &[&str]| {
        let table = scene.file("in.csv", &format!("z_um,y_um,x_um\n{points}"));
        let run = program("apply-transform")
            .args(["--points", &table, "-o", &scene.at("out.csv"), "--overwrite"])
            .args(["--transform", &half])
            .args(more)
            .output()
            .unwrap();
        (run.status.code(), String::from_utf8(run.stderr).unwrap())
    };
    for more in [&[][..], &["--inverse-transform"]] {
        let (code, stderr) = carry("5,3,3\n90,3,3\n", more);
        assert!(code == Some(0) && stderr.contains("1 of 2 points lie outside"), "{stderr}");
        let (code, stderr) = carry("90,3,3\n91,3,3\n", more);
        assert!(code == Some(1) && stderr.contains("nothing in common"), "{stderr}");
        let (code, stderr) = carry("5,3,3\n6,3,3\n", more);
        assert!(code == Some(0) && !stderr.contains("outside"), "{stderr}");
    }
}

/// BigStream 5 subtracts origins in the caller's own array; its cluster helper rewrites and deletes
/// a file in the user's home.
#[test]
fn what_was_given_is_left_as_it_was_and_nothing_is_left_at_home() {
    let scene = Scene::new();
    let home = scene.at("home");
    std::fs::create_dir(&home).unwrap();
    let table = scene.file("in.csv", "z_um,y_um,x_um,name\n1,2,3,a\n");
    let shift = scene.file("shift.txt", "1 0 0 1\n0 1 0 1\n0 0 1 1\n0 0 0 1\n");
    let before = std::fs::read(&table).unwrap();
    program("apply-transform")
        .args(["--points", &table, "--transform", &shift, "-o", &scene.at("out.csv")])
        .env("HOME", &home)
        .assert()
        .success();
    assert_eq!(std::fs::read(&table).unwrap(), before);
    assert_eq!(std::fs::read_dir(&home).unwrap().count(), 0);
}
