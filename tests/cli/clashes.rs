//! Inputs are never overwritten, and existing outputs are only replaced with `--overwrite`.

use std::path::Path;
use std::process::Command;

use crate::faults::refused;
use crate::recovery::chunks;
use crate::scene::{PhantomPair, Scene, files, program};

const RAMP: fn([i64; 3]) -> u16 = |[z, y, x]| (z * 31 + y * 7 + x) as u16;

/// Copies a folder of the pair into a scene.
fn copied(scene: &Scene, name: &str) -> String {
    let (from, to) = (PhantomPair::get().at(name), scene.at(name));
    for (path, bytes) in files(Path::new(&from)) {
        let path = Path::new(&to).join(path.strip_prefix(&from).unwrap());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    to
}

#[test]
fn a_field_that_a_chain_refers_to_is_read_too() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let (fixed, moving) = (pair.at("fixed.zarr"), pair.at("moving.zarr"));
    let field = copied(&scene, "truth.zarr");
    let chain = scene.at("chain.json");
    std::fs::copy(pair.at("truth.json"), &chain).unwrap();
    std::os::unix::fs::symlink(&field, scene.at("link.zarr")).unwrap();
    std::fs::create_dir(scene.at("sub")).unwrap();
    let apply = ["apply-transform", &moving, "--onto", &fixed, "-t", &chain];
    let invert = ["invmap", &chain, "--onto", &moving];
    let copy = ["transcode", &chain, "--to", "field", "--onto", &fixed];
    let align = ["deform", &fixed, &moving, "--initial", &chain];
    let beside = ["apply-transform", "--points", &pair.at("truth_points.csv"), "-t", &chain];
    for line in [&apply[..], &invert, &copy, &align, &beside] {
        for output in [&field, &scene.at("link.zarr"), &scene.at("sub/../truth.zarr"), &chain] {
            let more = [&line[1..], &["--overwrite", "-o", output]].concat();
            refused(&scene, line[0], &more, 2, &["--output", "another name"]);
        }
        let more = [&line[1..], &["--overwrite", "-o", &scene.at("x.zarr"), "--receipt", &chain]];
        refused(&scene, line[0], &more.concat(), 2, &["--receipt", "another name"]);
    }
}

#[test]
fn what_lies_in_an_image_is_read_when_the_image_is() {
    let scene = Scene::new();
    let pair = PhantomPair::get();
    let (fixed, global) = (pair.at("fixed.zarr"), pair.at("global.json"));
    let image = scene.volume::<u16>("image.zarr", [32; 3], RAMP);
    let inside = format!("{image}/0");
    let metadata = format!("{image}/0/zarr.json");
    let new = format!("{image}/spots.csv");
    let table = scene.at("spots.csv");
    let lines: [&[&str]; 6] = [
        &["transcode", &image, "--to", "zarr3", "--codec", "gzip", "-o", &inside],
        &["apply-transform", &image, "--onto", &fixed, "-t", &global, "-o", &inside],
        &["extract-spots", &image, "-o", &metadata],
        &["extract-spots", &image, "-o", &new],
        &["extract-spots", &inside, "-o", &metadata],
        &["extract-spots", &image, "-o", &table, "--receipt", &metadata],
    ];
    for line in lines {
        let line = [line, &["--overwrite"]].concat();
        refused(&scene, line[0], &line[1..], 2, &["another name"]);
    }
}

#[test]
fn members_of_a_stack_and_receipts_of_a_report_are_read_too() {
    let scene = Scene::new();
    let volume = scene.volume::<u16>("a.zarr", [16; 3], RAMP);
    std::fs::create_dir(scene.at("planes")).unwrap();
    let plane = scene.at("planes/a.tif");
    program("transcode").args([&volume, "--to", "tiff", "-o", &plane]).assert().success();
    std::fs::remove_file(scene.at("planes/a.tif.receipt.json")).unwrap();
    let stack = ["--to", "tiff", "--spacing", "1,1,1", "--overwrite"];
    let pattern = scene.at("planes/*.tif");
    let line = [&[pattern.as_str(), "-o", &plane][..], &stack].concat();
    refused(&scene, "transcode", &line, 2, &["planes/a.tif", "another name"]);
    let receipt = scene.file("page.json", r#"{"program": "x"}"#);
    let page = scene.at("page.html");
    let line = [&receipt, "--fixed", &volume, "--moving", &volume, "-o", &page, "--overwrite"];
    refused(&scene, "report", &line, 2, &["page.json", "another name"]);
    let stage = format!("after={}", scene.at("page.html"));
    scene.file("page.html", "x");
    let line = ["--fixed", &volume, "--moving", &volume, "--stage", &stage, "-o", &page];
    refused(&scene, "report", &[&line[..], &["--overwrite"]].concat(), 2, &["--stage"]);
}

#[test]
fn two_outputs_of_one_name_are_refused() {
    let scene = Scene::new();
    let (fixed, out) = (PhantomPair::get().at("fixed.zarr"), scene.at("a.csv"));
    let line = [fixed.as_str(), "-o", &out, "--receipt", &out];
    refused(&scene, "extract-spots", &line, 2, &["--output", "--receipt"]);
}

#[test]
fn a_receipt_replaces_receipts_only() {
    let scene = Scene::new();
    let fixed = PhantomPair::get().at("fixed.zarr");
    let precious = scene.file("a.json", "precious");
    let out = scene.at("a.csv");
    let line = [fixed.as_str(), "-o", &out, "--receipt", &precious];
    refused(&scene, "extract-spots", &line, 1, &["a.json", "--receipt", "--overwrite"]);
    scene.file("a.csv.receipt.json", "{\"mine\": 1}");
    let plain = [fixed.as_str(), "-o", &out];
    refused(&scene, "extract-spots", &plain, 1, &["a.csv.receipt.json", "--overwrite"]);
    program("extract-spots").args(plain).arg("--overwrite").assert().success();
    let receipt = || std::fs::read_to_string(scene.at("a.csv.receipt.json")).unwrap();
    assert!(receipt().contains("extract-spots"));
    // a receipt of an earlier run is replaced even without --overwrite
    std::fs::remove_file(&out).unwrap();
    program("extract-spots").args(plain).assert().success();
}

#[test]
fn overwriting_a_volume_removes_a_volume_and_nothing_else() {
    let scene = Scene::new();
    let moving = PhantomPair::get().at("moving.zarr");
    for (to, name) in [("zarr3", "a.zarr"), ("zarr2", "b.zarr"), ("n5", "c.n5")] {
        let out = scene.at(name);
        let line = [moving.as_str(), "--to", to, "-o", &out, "--overwrite"];
        program("transcode").args(line).assert().success();
        let before = chunks(&out);
        for foreign in ["notes.txt", "OME/METADATA.ome.xml", "0/notes.txt", "s0/notes.txt"] {
            let path = format!("{out}/{foreign}");
            let folder = Path::new(&path).parent().unwrap().to_owned();
            if foreign.contains("0/") && !folder.exists() {
                continue;
            }
            let made = !folder.exists();
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, "precious").unwrap();
            let last = Path::new(foreign).components().next_back().unwrap();
            let message = if foreign.starts_with("OME") { "OME" } else { "notes.txt" };
            assert!(path.ends_with(&*last.as_os_str().to_string_lossy()));
            refused(&scene, "transcode", &line, 1, &[message, "not replaced"]);
            std::fs::remove_file(&path).unwrap();
            if made {
                std::fs::remove_dir(&folder).unwrap();
            }
        }
        program("transcode").args(line).assert().success();
        assert!(chunks(&out) == before);
    }
}

#[test]
fn devices_pipes_and_sockets_are_refused_at_once_and_stay() {
    let scene = Scene::new();
    let fixed = PhantomPair::get().at("fixed.zarr");
    let (pipe, socket) = (scene.at("pipe"), scene.at("socket"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let refuse = |name: &str, line: &[&str], word: &str| {
        let output = program(name)
            .args(line)
            .arg("-q")
            .timeout(std::time::Duration::from_mins(1))
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name} {line:?}: {message}");
        assert!(message.contains(word), "{message}");
    };
    for (path, what) in
        [(pipe.as_str(), "a pipe"), (&socket, "a socket"), ("/dev/null", "a device")]
    {
        refuse("transcode", &[&fixed, "--to", "npy", "-o", path, "--overwrite"], what);
        refuse("transcode", &[path, "--to", "npy", "-o", &scene.at("a.npy")], what);
        refuse("extract-spots", &[path, "-o", &scene.at("a.csv")], what);
        // a table can be read from a pipe
        let out = scene.at("b.csv");
        if path != pipe {
            refuse("apply-transform", &["--points", path, "-t", path, "-o", &out], what);
        }
        refuse("apply-transform", &["--points", &fixed, "-t", &fixed, "-o", path], what);
    }
    use std::os::unix::fs::FileTypeExt;
    assert!(std::fs::metadata("/dev/null").unwrap().file_type().is_char_device());
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
}
