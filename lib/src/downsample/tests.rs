//! Tests of pyramids written to disk.

use std::path::Path;

use super::*;
use crate::blocks::Part;
use crate::volume::{Dtype, Existing, levels};

const GRID: Grid =
    Grid { shape: [21, 50, 37], spacing: [2.0, 1.0, 1.0], origin: [5.0, 0.0, -3.0], planar: false };

fn voxels() -> Vec<u16> {
    (0..GRID.bounds().len()).map(|i| (i * i / 7 % 60_000) as u16).collect()
}

fn volume(folder: &Path, format: Format) -> String {
    let name = if format == Format::N5 { "a.n5" } else { "a.zarr" };
    let location = folder.join(name).display().to_string();
    let spec = Spec {
        grid: GRID,
        dtype: Dtype::U16,
        chunk: [16; 3],
        shard: None,
        codec: Codec::Zstd,
        format,
    };
    let out = Output::create(&location, &spec, Existing::Refuse).unwrap();
    let whole = GRID.bounds();
    let all = voxels();
    for part in whole.tiles([16; 3]) {
        let inside = |v: Box3| {
            let [z, y, x] = v.min.map(|v| v as usize);
            all[(z * GRID.shape[1] + y) * GRID.shape[2] + x]
        };
        let part_voxels: Vec<u16> = part.tiles([1; 3]).map(inside).collect();
        out.write(&part, &part_voxels).unwrap();
    }
    location
}

fn read(location: &str) -> (Vec<u16>, Grid) {
    let volume = Volume::open(location, &Select::default()).unwrap();
    (volume.read(&volume.grid().bounds()).unwrap(), volume.grid())
}

fn make(location: &str, to: Option<(&str, Format)>, options: &Options, ctx: &Context) {
    pyramid(location, &Select::default(), to, &LevelStorage::default(), options, ctx).unwrap();
}

#[test]
fn an_image_gets_levels_that_hold_the_right_voxels_at_the_right_places() {
    for format in [Format::Zarr3, Format::Zarr2, Format::N5] {
        let folder = tempfile::tempdir().unwrap();
        let location = volume(folder.path(), format);
        make(&location, None, &Options::default(), &Context::default());
        let found = levels(&location).unwrap();
        assert_eq!(found.len(), 3, "{format:?}");
        let first = reduce_block(&voxels(), &GRID, Method::Mean, [1, 2, 2]);
        let second = reduce_block(&first.0, &first.1, Method::Mean, [2, 2, 2]);
        assert_eq!(second.1.spacing, [4.0; 3]);
        assert_eq!(second.1.origin, [6.0, 1.5, -1.5]);
        for (level, want) in found[1..].iter().zip([first, second]) {
            let (voxels, grid) = read(&level.location);
            assert!(voxels == want.0, "{format:?}: {}", level.location);
            assert_eq!((grid, level.grid), (want.1, want.1), "{format:?}");
        }
    }
}

#[test]
fn a_pyramid_elsewhere_leaves_the_volume_alone_and_may_begin_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let location = volume(folder.path(), Format::Zarr3);
    for (name, with_original) in [("b.zarr", false), ("c.zarr", true), ("plain", true)] {
        let to = folder.path().join(name).display().to_string();
        let options = Options { with_original, levels: Some(2), ..Options::default() };
        make(&location, Some((&to, Format::Zarr3)), &options, &Context::default());
        let found = levels(&to).unwrap();
        assert_eq!(found.len(), 2 + usize::from(with_original), "{name}");
        let (first, _) = read(&found[0].location);
        let small = reduce_block(&voxels(), &GRID, Method::Mean, [1, 2, 2]).0;
        assert!(first == if with_original { voxels() } else { small }, "{name}");
    }
    assert_eq!(levels(&location).unwrap().len(), 1);
}

#[test]
fn levels_made_one_by_one_in_parts_are_those_of_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (folder.path().join("one"), folder.path().join("other"));
    let (one, other) = (volume(&one, Format::Zarr3), volume(&other, Format::Zarr3));
    make(&one, None, &Options::default(), &Context::default());
    for only in [1, 2] {
        let options = Options { only: Some(only), ..Options::default() };
        for k in [2, 3, 1] {
            let part = Part { k, n: 3 };
            let ctx = Context { part, existing: Existing::Resume, ..Context::default() };
            make(&other, None, &options, &ctx);
        }
        let ctx = Context { finish: true, existing: Existing::Resume, ..Context::default() };
        make(&other, None, &options, &ctx);
    }
    for (a, b) in levels(&one).unwrap().iter().zip(levels(&other).unwrap()) {
        assert_eq!(read(&a.location), read(&b.location));
    }
    assert_eq!(levels(&other).unwrap().len(), 3);
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let location = volume(folder.path(), Format::Zarr3);
    let before = levels(&location).unwrap();
    let ctx = Context::default();
    let fails = |options: Options, to: Option<(&str, Format)>, ctx: &Context| {
        let select = Select::default();
        let made = pyramid(&location, &select, to, &LevelStorage::default(), &options, ctx);
        made.unwrap_err().to_string()
    };
    let message = fails(Options { only: Some(9), ..Options::default() }, None, &ctx);
    assert!(message.contains("--level 9"), "{message}");
    let part = Context { part: Part { k: 1, n: 2 }, ..Context::default() };
    let message = fails(Options::default(), None, &part);
    assert!(message.contains("--level 1"), "{message}");
    let file = folder.path().join("x.tif").display().to_string();
    let message = fails(Options::default(), Some((&file, Format::Tiff)), &ctx);
    assert!(message.contains("--levels 1"), "{message}");
    let coarse = Options { levels: Some(1), ..Options::default() };
    make(&location, Some((&file, Format::Tiff)), &coarse, &ctx);
    let alone = pyramid(&file, &Select::default(), None, &LevelStorage::default(), &coarse, &ctx);
    let message = alone.unwrap_err().to_string();
    assert!(message.contains("-o"), "{message}");
    assert_eq!(levels(&location).unwrap(), before);
}

#[test]
fn a_plan_of_all_levels_needs_none_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let location = volume(folder.path(), Format::Zarr3);
    let ctx = Context { plan_only: true, ..Context::default() };
    make(&location, None, &Options::default(), &ctx);
    assert_eq!(levels(&location).unwrap().len(), 1);
    assert_eq!(ctx.receipt.lock().unwrap().plans.len(), 2);
}
