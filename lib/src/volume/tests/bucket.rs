//! Volumes in a bucket. The tests use the store in memory, which behaves like a bucket.

use std::path::PathBuf;

use serde_json::Map;

use super::*;

/// A location and a spec for each kind of array, all in one bucket with the name `test`.
fn kinds(test: &str) -> Vec<(String, Spec)> {
    let spec = |format, codec, shard| Spec { shard, codec, ..spec([6, 17, 18], [2, 4, 6], format) };
    [
        ("a.zarr", spec(Format::Zarr3, Codec::Blosc, None)),
        ("b.zarr", spec(Format::Zarr3, Codec::Zstd, Some([4, 8, 12]))),
        ("c.zarr", spec(Format::Zarr2, Codec::Gzip, None)),
        ("d.zarr", spec(Format::Zarr3, Codec::Raw, None)),
        ("e.n5", spec(Format::N5, Codec::Gzip, None)),
    ]
    .into_iter()
    .map(|(name, spec)| (format!("memory://{test}/deep/{name}"), spec))
    .collect()
}

fn open(location: &str) -> Volume {
    Volume::open(location, &Select::default()).unwrap()
}

#[test]
fn a_volume_in_a_bucket_is_refused_resumed_read_and_replaced_as_on_the_disk() {
    for (location, spec) in kinds("volumes") {
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        fill::<u16>(&output, spec.grid.shape);
        assert_ramp::<u16>(&open(&location));
        let refused = Output::create(&location, &spec, Existing::Refuse).unwrap_err();
        assert!(matches!(refused, Error::Exists { .. }), "{location}: {refused}");
        Output::create(&location, &spec, Existing::Resume).unwrap();
        assert_ramp::<u16>(&open(&location));
        let other = Spec { grid: grid([4, 9, 10]), ..spec.clone() };
        let output = Output::create(&location, &other, Existing::Overwrite).unwrap();
        fill::<u16>(&output, other.grid.shape);
        let volume = open(&location);
        assert_eq!(volume.grid(), other.grid);
        assert_ramp::<u16>(&volume);
        assert!(store::list(Path::new("memory://volumes")).unwrap().len() == 1);
    }
}

#[test]
fn a_field_and_a_small_array_are_written_to_a_bucket() {
    use crate::geom::FieldSource as _;
    let location = "memory://fields/field.zarr";
    let grid = grid([3, 4, 5]);
    let output = FieldOutput::create(location, &grid, [2, 2, 5], Existing::Refuse).unwrap();
    let vector = |at: [i64; 3]| at.map(|v| v as f32 / 4.0);
    for tile in grid.bounds().tiles(output.unit()) {
        let vectors: Vec<_> = tile.tiles([1; 3]).map(|voxel| vector(voxel.min)).collect();
        output.write(&tile, &vectors).unwrap();
    }
    let field = FieldFile::open(location).unwrap();
    let wanted: Vec<_> = grid.bounds().tiles([1; 3]).map(|voxel| vector(voxel.min)).collect();
    assert_eq!(field.read(&grid.bounds()).unwrap(), wanted);
    for data in [vec![1.5, 2.5], vec![-3.0; 6]] {
        let shape = [data.len() as u64];
        write_small_array("memory://fields/small.zarr", &shape, &data, Map::new()).unwrap();
        let read = read_small_array("memory://fields/small.zarr").unwrap();
        assert_eq!((&read.0[..], read.1), (&shape[..], data));
    }
}

#[test]
fn another_content_has_another_fingerprint_and_the_same_has_the_same() {
    for (location, spec) in kinds("fingerprints") {
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        fill::<u16>(&output, spec.grid.shape);
        let content = || fingerprint(&location).unwrap();
        let before = content();
        assert_eq!(content(), before);
        let tile = Box3::of_shape(spec.grid.shape).tiles(output.unit()).next().unwrap();
        output.write(&tile, &vec![7u16; tile.len()]).unwrap();
        assert_ne!(content(), before, "{location}");
    }
    // the fingerprint of a document does not depend on where it is stored
    let folder = tempfile::tempdir().unwrap();
    let local = at(&folder, "a.json");
    for location in [&local, "memory://fingerprints/a.json"] {
        store::put(Path::new(location), b"{}").unwrap();
    }
    assert_eq!(fingerprint(&local).unwrap(), fingerprint("memory://fingerprints/a.json").unwrap());
}

/// Copies files of a folder into a bucket.
fn copy(folder: &tempfile::TempDir, names: &[&str], bucket: &str) {
    for name in names {
        let bytes = std::fs::read(at(folder, name)).unwrap();
        store::put(&Path::new(bucket).join(name), &bytes).unwrap();
    }
}

#[test]
fn tiff_and_npy_are_read_by_range() {
    let folder = tempfile::tempdir().unwrap();
    let shape = [6, 40, 50];
    for (name, format) in [("a.tif", Format::Tiff), ("a.npy", Format::Npy)] {
        let spec = spec(shape, [1, 40, 50], format);
        let output = Output::create(&at(&folder, name), &spec, Existing::Refuse).unwrap();
        fill::<u16>(&output, shape);
        drop(output);
    }
    formats::pages(&at(&folder, "strips.tif"), shape, "", 0..6);
    let ome = |own: &str| {
        let plane = |z: usize| {
            let name = if z < 4 { "one.ome.tif" } else { "two.ome.tif" };
            format!(
                r#"<TiffData FirstZ="{z}" IFD="{}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:{name}</UUID></TiffData>"#,
                z % 4
            )
        };
        let planes: String = (0..6).map(plane).collect();
        format!(
            r#"<OME UUID="urn:uuid:{own}"><Image><Pixels DimensionOrder="XYZCT" SizeX="50" SizeY="40"
            SizeZ="6" SizeC="1" SizeT="1">{planes}</Pixels></Image></OME>"#
        )
    };
    formats::pages(&at(&folder, "one.ome.tif"), shape, &ome("one.ome.tif"), 0..4);
    formats::pages(&at(&folder, "two.ome.tif"), shape, &ome("two.ome.tif"), 4..6);
    let names = ["a.tif", "a.npy", "strips.tif", "one.ome.tif"];
    copy(&folder, &names, "memory://files/deep");
    let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
    let open = |location: &str| Volume::open(location, &select);
    let lacks = open("memory://files/deep/one.ome.tif").unwrap_err().to_string();
    assert!(lacks.contains("'two.ome.tif', which is not beside it"), "{lacks}");
    copy(&folder, &["two.ome.tif"], "memory://files/deep");
    for name in names {
        let location = format!("memory://files/deep/{name}");
        let volume = open(&location).unwrap_or_else(|error| panic!("{location}: {error}"));
        assert_ramp::<u16>(&volume);
        let watch = volume.watch();
        let local = open(&at(&folder, name)).unwrap();
        if !name.contains("ome") {
            // an array of one small file is identified by its content, an array of several files
            // by their entity tags
            assert_eq!(volume.identity().unwrap(), local.identity().unwrap(), "{name}");
        }
        // the object is replaced by its first half, and then removed
        let at = Path::new(&location);
        let bytes = store::get(at).unwrap().unwrap();
        store::put(at, &bytes[..bytes.len() / 2]).unwrap();
        assert!(watch.check().is_err(), "{name}");
        let cut = open(&location).and_then(|v| v.read::<u16>(&v.grid().bounds()));
        let message = cut.unwrap_err().to_string();
        assert!(message.contains("truncated") || message.contains("ends"), "{message}");
        store::delete(at).unwrap();
        let gone = open(&location).unwrap_err().to_string();
        assert!(gone.contains("not found") || gone.contains("not there"), "{gone}");
    }
}

#[test]
fn an_input_in_a_bucket_that_changes_while_it_is_read_is_noticed() {
    for (location, spec) in kinds("watched") {
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        fill::<u16>(&output, spec.grid.shape);
        let volume = open(&location);
        let watch = volume.watch();
        assert_ramp::<u16>(&volume);
        watch.check().unwrap();
        store::delete_folder(Path::new(&location)).unwrap();
        let error = watch.check().unwrap_err().to_string();
        assert!(error.contains("went away"), "{error}");
    }
}

#[test]
fn a_bucket_says_what_is_there_instead() {
    let (location, spec) = kinds("hints").remove(0);
    fill::<u16>(&Output::create(&location, &spec, Existing::Refuse).unwrap(), spec.grid.shape);
    store::put(&PathBuf::from("memory://hints/deep/plane.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    store::put(&PathBuf::from("memory://hints/deep/plane.tif"), b"II*\0").unwrap();
    for (location, message) in [
        ("memory://hints/deep/b.zarr", "memory://hints/deep is there"),
        ("memory://hints/deep/a.zarr/3", "memory://hints/deep/a.zarr holds 0"),
        ("memory://hints/deep/plane.png", "copy it to a local path"),
        ("memory://hints/deep/plane.tif", "is truncated"),
    ] {
        let error = Volume::open(location, &Select::default()).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let plane = Spec { format: Format::Tiff, ..spec };
    let error = Output::create("memory://hints/a.tif", &plane, Existing::Refuse).unwrap_err();
    assert!(error.to_string().contains("cannot be written to a bucket"), "{error}");
}
