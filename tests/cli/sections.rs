//! A table of sections, or a folder of images, is a volume for every program.

use serde_json::Value;
use voxloom::geom::{Box3, Grid};
use voxloom::volume::{Codec, Dtype, Existing, Format, Output, Select, Spec, Volume};

use crate::faults::refused;
use crate::scene::{Scene, program};

/// Writes a section of 8-bit pixels, whose values depend on `z`.
fn section(scene: &Scene, name: &str, z: i64, [height, width]: [usize; 2]) {
    let grid = Grid::plane([height, width], [0.5, 0.5], [0.0; 2]);
    let is_tiff = std::path::Path::new(name).extension().is_some_and(|end| end == "tif");
    let format = if is_tiff { Format::Tiff } else { Format::Zarr3 };
    let (chunk, shard, codec) = ([1, 16, 16], None, Codec::Blosc);
    let spec = Spec { grid, dtype: Dtype::U8, chunk, shard, codec, format };
    let output = Output::create(&scene.at(name), &spec, Existing::Overwrite).unwrap();
    let value = |i: usize| pixel(z, i / width, i % width);
    let pixels: Vec<u8> = (0..height * width).map(value).collect();
    output.write(&Box3::of_shape(grid.shape), &pixels).unwrap();
}

fn pixel(z: i64, y: usize, x: usize) -> u8 {
    (z as usize * 50 + y * 3 + x) as u8 | 1
}

/// Writes three sections of two sizes and their table; one section is at an offset, and z 2 and 3
/// have none. The volume has 5 x 40 x 48 voxels.
fn table(scene: &Scene) -> String {
    section(scene, "a.tif", 0, [40, 44]);
    section(scene, "b.zarr", 1, [30, 44]);
    section(scene, "c.tif", 4, [40, 44]);
    let text = "# spacing: 1,0.5,0.5 um\nz,location,offset_y,offset_x\n0,a.tif,0,0\n4,c.tif,0,0\n\
                1,b.zarr,10,4\n";
    scene.file("sections.csv", text)
}

fn expected([z, y, x]: [i64; 3]) -> u8 {
    let [oy, ox, height] = if z == 1 { [10, 4, 30] } else { [0, 0, 40] };
    let is_inside = (y - oy) >= 0 && (y - oy) < height && (x - ox) >= 0 && (x - ox) < 44;
    let has_section = [0, 1, 4].contains(&z);
    if is_inside && has_section { pixel(z, (y - oy) as usize, (x - ox) as usize) } else { 0 }
}

fn run(name: &str, arguments: &[&str]) -> String {
    let run = program(name).args(arguments).output().unwrap();
    let message = String::from_utf8(run.stderr).unwrap();
    assert!(run.status.success(), "{name} {arguments:?}: {message}");
    String::from_utf8(run.stdout).unwrap() + &message
}

#[test]
fn a_table_of_sections_is_a_volume_for_every_program() {
    let scene = Scene::new();
    let table = table(&scene);
    let message = run("inspect", &[&table]);
    for words in ["sections", "5 x 40 x 48", "1 x 0.5 x 0.5 um", "no section at z 2..3"] {
        assert!(message.contains(words), "no '{words}' in {message}");
    }
    let out = scene.at("out.zarr");
    run("transcode", &[&table, "-o", &out, "--chunk", "2,16,16"]);
    let volume = Volume::open(&out, &Select::default()).unwrap();
    let grid = Grid::new([5, 40, 48], [1.0, 0.5, 0.5], [0.0; 3]);
    assert_eq!(volume.grid(), grid);
    let wanted: Vec<u8> = grid.bounds().tiles([1; 3]).map(|voxel| expected(voxel.min)).collect();
    assert_eq!(volume.read::<u8>(&grid.bounds()).unwrap(), wanted);

    let shift = scene.file("shift.txt", "1 0 0 0\n0 1 0 1\n0 0 1 -2\n0 0 0 1\n");
    let of = |location: &str, name: &str| {
        let out = scene.at(name);
        run("apply-transform", &[location, "-t", &shift, "--onto", location, "-o", &out]);
        let small = scene.at(&format!("small-{name}"));
        run("downsample", &[location, "-o", &small, "--factor", "1,2,2", "--levels", "1"]);
        [out, small].map(|at| {
            let volume = Volume::open(&at, &Select::default()).unwrap();
            volume.read::<u8>(&volume.grid().bounds()).unwrap()
        })
    };
    assert_eq!(of(&table, "sections.zarr"), of(&out, "copy.zarr"));
}

#[test]
fn a_changed_section_is_another_input_and_no_section_is_overwritten() {
    let scene = Scene::new();
    let table = table(&scene);
    let out = scene.at("out.tif");
    run("transcode", &[&table, "-o", &out]);
    let receipt = std::fs::read_to_string(format!("{out}.receipt.json")).unwrap();
    let receipt: Value = serde_json::from_str(&receipt).unwrap();
    assert_eq!(receipt["inputs"][0]["shape"], serde_json::json!([5, 40, 48]));
    assert!(run("transcode", &[&table, "-o", &out, "--resume"]).contains("nothing is left to do"));
    section(&scene, "b.zarr", 2, [30, 44]);
    let again = [table.as_str(), "-o", &out, "--resume"];
    refused(&scene, "transcode", &again, 1, &["sections.csv has other content"]);
    for name in ["c.tif", "b.zarr", "sections.csv", "b.zarr/more.zarr"] {
        let line = [table.as_str(), "-o", &scene.at(name), "--overwrite", "--to", "zarr3"];
        let line = if name.ends_with("tif") { &line[..4] } else { &line };
        refused(&scene, "transcode", line, 2, &["would be written by --output"]);
    }
}

#[test]
fn a_folder_of_images_is_a_volume_and_takes_no_output() {
    let scene = Scene::new();
    std::fs::create_dir(scene.at("stack")).unwrap();
    for z in [1, 2, 10] {
        section(&scene, "next.tif", z, [20, 30]);
        let to = scene.at(&format!("stack/s{z}.tif"));
        std::fs::rename(scene.at("next.tif"), to).unwrap();
    }
    let (stack, out) = (scene.at("stack"), scene.at("out.zarr"));
    refused(&scene, "transcode", &[&stack, "-o", &out], 1, &["how far apart", "--spacing z,y,x"]);
    run("transcode", &[&stack, "-o", &out, "--spacing", "2,0.5,0.5"]);
    let volume = Volume::open(&out, &Select::default()).unwrap();
    let part = Box3::new([2, 19, 29], [3, 20, 30]);
    assert_eq!(volume.read::<u8>(&part).unwrap(), [pixel(10, 19, 29)]);
    let inside = scene.at("stack/out.tif");
    let line = [stack.as_str(), "-o", &inside, "--spacing", "2,1,1"];
    refused(&scene, "transcode", &line, 2, &["would be written by --output"]);
    section(&scene, "stack/s11.tif", 11, [20, 31]);
    let line = [stack.as_str(), "-o", &scene.at("b.zarr"), "--spacing", "2,1,1"];
    refused(&scene, "transcode", &line, 1, &["s11.tif", "table of sections"]);
}
