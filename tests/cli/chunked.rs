//! Chunked arrays with wrong sizes in their metadata, which are refused early and with little
//! memory; and special cases of `downsample`.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::faults::refused;
use crate::scene::{Scene, executable, program};

/// A Zarr v3 array of 32 x 40 x 40 uint16 in one chunk, with changes to its metadata.
fn array(scene: &Scene, name: &str, changes: &Value, chunk: &[u8]) -> String {
    let mut metadata = json!({
        "zarr_format": 3, "node_type": "array", "shape": [32, 40, 40], "data_type": "uint16",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [32, 40, 40]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "fill_value": 0, "dimension_names": ["z", "y", "x"],
        "attributes": {"spacing": [1, 1, 1], "origin": [0, 0, 0], "unit": "micrometer"},
    });
    for (key, value) in changes.as_object().unwrap() {
        metadata[key] = value.clone();
    }
    let location = scene.at(name);
    std::fs::create_dir_all(format!("{location}/c/0/0")).unwrap();
    std::fs::write(format!("{location}/zarr.json"), metadata.to_string()).unwrap();
    std::fs::write(format!("{location}/c/0/0/0"), chunk).unwrap();
    location
}

#[test]
fn shapes_that_nothing_can_back_are_refused_by_every_reader() {
    let scene = Scene::new();
    let raw = vec![1; 32 * 40 * 40 * 2];
    let chunk = |n: u64| json!({"name": "regular", "configuration": {"chunk_shape": [n, n, n]}});
    for (i, changes) in [
        json!({"shape": [1_000_000, 1_000_000, 1_000_000]}),
        json!({"shape": [1_000_000_000_000u64, 1_000_000_000_000u64, 1_000_000_000_000u64]}),
        json!({"shape": [1u64 << 63, 40, 40]}),
        json!({"shape": [1u64 << 62, 1u64 << 62, 4]}),
        json!({"shape": [1 << 21, 1 << 21, 1 << 21], "chunk_grid": chunk(1 << 21)}),
        json!({"chunk_grid": chunk(1 << 21)}),
        json!({"chunk_grid": chunk(u64::MAX)}),
    ]
    .iter()
    .enumerate()
    {
        let location = array(&scene, &format!("{i}.zarr"), changes, &raw);
        let (zarr, csv) = (scene.at("o.zarr"), scene.at("o.csv"));
        refused(&scene, "transcode", &[&location, "--to", "zarr3", "-o", &zarr], 1, &[&location]);
        let spots = [location.as_str(), "-o", &csv, "--radius", "2..3"];
        refused(&scene, "extract-spots", &spots, 1, &[&location]);
        refused(&scene, "inspect", &[&location], 1, &[&location]);
    }
}

/// Gzip members that each decompress to 16 MiB of zeros.
fn bomb(members: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![0; 1 << 24]).unwrap();
    encoder.finish().unwrap().repeat(members)
}

#[test]
fn a_chunk_that_would_decode_to_gigabytes_is_damage_that_takes_no_memory() {
    let scene = Scene::new();
    let bytes = json!({"name": "bytes", "configuration": {"endian": "little"}});
    let gzip = json!({"name": "gzip", "configuration": {"level": 1}});
    // the second file is larger than a compressed chunk of this shape can be, so it is not decoded
    for packed in [bomb(8), bomb(128)] {
        let plain = array(&scene, "plain.zarr", &json!({"codecs": [bytes, gzip]}), &packed);
        let index = [0, packed.len() as u64].map(u64::to_le_bytes).concat();
        let shard = json!({"codecs": [{"name": "sharding_indexed", "configuration": {
        "chunk_shape": [32, 40, 40], "codecs": [bytes, gzip], "index_codecs": [bytes],
        "index_location": "end"}}]});
        let within = array(&scene, "within.zarr", &shard, &[packed, index].concat());
        for location in [plain, within] {
            // the address space is limited to 1.5 GB; the 128 gzip members would decode to 2 GiB
            let output = Command::new("sh")
                .args(["-c", "ulimit -v 1500000; exec \"$@\"", "sh"])
                .arg(executable("inspect"))
                .args([&location, "--threads", "2"])
                .output()
                .unwrap();
            let message = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{message}");
            assert!(message.contains("damaged") && message.contains("c/0/0/0"), "{message}");
        }
    }
}

#[test]
fn a_volume_of_one_chunk_is_said_to_need_no_level() {
    let scene = Scene::new();
    let image = scene.volume::<u16>("image.zarr", [16; 3], |[z, y, x]| (z + y + x) as u16);
    let out = scene.at("out.zarr");
    let message = program("downsample").args([&image, "-o", &out]).output().unwrap();
    let stderr = String::from_utf8(message.stderr).unwrap();
    assert_eq!(message.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("no level to make") && stderr.contains("out.zarr"), "{stderr}");
    assert!(!std::path::Path::new(&out).exists());
    let one = ["--level", "1"];
    let message = program("downsample").args([&image, "-o", &out]).args(one).output().unwrap();
    assert_eq!(message.status.code(), Some(2));
    program("downsample").args([&image, "-o", &out, "--with-original"]).assert().success();
    assert!(std::path::Path::new(&out).exists());
}

#[test]
fn levels_that_were_made_from_replaced_ones_do_not_stay() {
    let scene = Scene::new();
    let image = scene.volume::<u16>("image.zarr", [64; 3], |[z, y, x]| (z + y + x) as u16);
    let pyramid = ["--levels", "2", "--method", "max"];
    program("downsample").arg(&image).args(pyramid).assert().success();
    let first = std::fs::read(scene.at("image.zarr/1/c/0/0/0")).unwrap();
    let fewer = [image.as_str(), "--levels", "1", "--method", "mean", "--overwrite"];
    refused(&scene, "downsample", &fewer, 2, &["image.zarr/2 was made from", "--levels 2"]);
    assert!(first == std::fs::read(scene.at("image.zarr/1/c/0/0/0")).unwrap());
    let both = ["--levels", "2", "--method", "mean", "--overwrite"];
    program("downsample").arg(&image).args(both).assert().success();
    assert!(first != std::fs::read(scene.at("image.zarr/1/c/0/0/0")).unwrap());
    // an image that was written with -o is replaced as a whole
    let out = scene.at("out.zarr");
    for (levels, is_there) in [("2", true), ("1", false)] {
        let new = [image.as_str(), "-o", &out, "--levels", levels, "--overwrite"];
        program("downsample").args(new).assert().success();
        assert_eq!(Path::new(&out).join("1").exists(), is_there);
    }
}
