//! Results do not depend on the number of threads, the parts or the block size.

use crate::recovery::chunks;
use crate::scene::{PhantomPair, Scene, program};

/// All voxels of an array, as bytes.
fn voxels(location: &str) -> Vec<u8> {
    let volume =
        voxloom::volume::Volume::open(location, &voxloom::volume::Select::default()).unwrap();
    let bounds = volume.grid().bounds();
    volume.read::<u16>(&bounds).unwrap().iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn apply(out: &str, more: &[&str]) {
    let pair = PhantomPair::get();
    program("apply-transform")
        .args([&pair.at("moving.zarr"), "--onto", &pair.at("fixed.zarr")])
        .args(["--transform", &pair.at("global.json"), "-o", out, "--chunk", "16,16,16"])
        .args(more)
        .assert()
        .success();
}

#[test]
fn resampling_does_not_depend_on_threads_parts_or_blocks() {
    let scene = Scene::new();
    let one = scene.at("one.zarr");
    apply(&one, &["--threads", "1"]);
    let two = scene.at("two.zarr");
    apply(&two, &["--threads", "2"]);
    assert!(voxels(&one) == voxels(&two));
    let parts = scene.at("parts.zarr");
    for k in [5, 1, 7, 2, 3, 6, 4] {
        apply(&parts, &["--block-size", "32,32,32", "--part", &format!("{k}/7"), "--resume"]);
    }
    apply(&parts, &["--block-size", "32,32,32", "--finish"]);
    let blocks = scene.at("blocks.zarr");
    apply(&blocks, &["--block-size", "32,32,32"]);
    // positions refer to the grids of the whole volumes, independent of blocks
    assert!(voxels(&one) == voxels(&parts));
    assert!(voxels(&one) == voxels(&blocks));
}

#[test]
fn spots_do_not_depend_on_threads_parts_or_blocks() {
    let pair = PhantomPair::get();
    let scene = Scene::new();
    let fixed = pair.at("fixed.zarr");
    let spots = |name: &str, more: &[&str]| {
        let out = scene.at(name);
        program("extract-spots").args([&fixed, "-o", &out]).args(more).assert().success();
        out
    };
    let whole = std::fs::read(spots("a.csv", &["--threads", "1"])).unwrap();
    assert!(whole.len() > 500);
    for (name, more) in [
        ("b.csv", ["--threads", "2"]),
        ("c.csv", ["--block-size", "32,64,32"]),
        ("d.csv", ["--block-size", "96,32,64"]),
    ] {
        assert!(whole == std::fs::read(spots(name, &more)).unwrap(), "{more:?}");
    }
    let parts = scene.at("e.csv");
    for k in 1..=7 {
        program("extract-spots")
            .args([&fixed, "-o", &parts, "--block-size", "32,32,32", "--resume"])
            .args(["--part", &format!("{k}/7")])
            .assert()
            .success();
    }
    program("extract-spots")
        .args([&fixed, "-o", &parts, "--block-size", "32,32,32", "--finish"])
        .assert()
        .success();
    assert!(whole == std::fs::read(parts).unwrap());
}

#[test]
fn fields_and_their_inverses_do_not_depend_on_threads_or_parts() {
    let pair = PhantomPair::get();
    let scene = Scene::new();
    let find = |name: &str, more: &[&str]| {
        let out = scene.at(name);
        program("deform")
            .args([&pair.at("fixed.zarr"), &pair.at("moving.zarr")])
            .args(["--initial", &pair.at("global.json"), "-o", &out])
            .args(["--block-size", "32,32,32", "--overlap", "8"])
            .args(more)
            .assert()
            .success();
        chunks(&out)
    };
    let one = find("one.zarr", &["--threads", "1"]);
    assert!(!one.is_empty());
    assert!(one == find("two.zarr", &["--threads", "2"]));
    for k in 1..=3 {
        let part = format!("{k}/3");
        program("deform")
            .args([&pair.at("fixed.zarr"), &pair.at("moving.zarr")])
            .args(["--initial", &pair.at("global.json"), "-o", &scene.at("parts.zarr")])
            .args(["--block-size", "32,32,32", "--overlap", "8", "--part", &part, "--resume"])
            .assert()
            .success();
    }
    assert!(one == find("parts.zarr", &["--finish", "--resume"]));
    let invert = |name: &str, more: &[&str]| {
        program("invmap")
            .args([&scene.at("one.json"), "--onto", &pair.at("moving.zarr")])
            .args(["-o", &scene.at(name)])
            .args(more)
            .assert()
            .success();
        chunks(&scene.at(name))
    };
    let one = invert("inverse-one.zarr", &["--threads", "1"]);
    assert!(!one.is_empty());
    assert!(one == invert("inverse-two.zarr", &["--threads", "2"]));
}

#[test]
fn local_affines_do_not_depend_on_threads_or_parts() {
    let pair = PhantomPair::get();
    let scene = Scene::new();
    let fit = |name: &str, more: &[&str]| {
        let out = scene.at(name);
        program("local-affine")
            .args([&pair.at("fixed.zarr"), &pair.at("moving.zarr")])
            .args(["--initial", &pair.at("global.json"), "-o", &out, "--block-size", "32,32,32"])
            .args(more)
            .assert()
            .success();
        out
    };
    let read = |location: &str| voxloom::volume::read_small_array(location).unwrap().1;
    let one = read(&fit("one.zarr", &["--threads", "1"]));
    assert_eq!(one, read(&fit("two.zarr", &["--threads", "2"])));
    let parts = scene.at("parts.zarr");
    for k in 1..=7 {
        fit("parts.zarr", &["--part", &format!("{k}/7"), "--resume"]);
    }
    fit("parts.zarr", &["--finish"]);
    assert_eq!(one, read(&parts));
}
