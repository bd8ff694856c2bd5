use std::fs;

use serde_json::{Map, Value, json};

use super::*;

fn json_of(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn plain() -> Grid {
    Grid::new([10, 20, 30], [0.84, 0.23, 0.25], [1.0, 0.0, -2.0])
}

#[test]
fn zarr_version_3_is_written_with_ome_zarr_0_5() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "img.zarr");
    let spec = Spec { grid: plain(), ..spec([1; 3], [8, 16, 32], Format::Zarr3) };
    Output::create(&location, &spec, Existing::Refuse).unwrap();
    assert_eq!(
        json_of(&format!("{location}/zarr.json")),
        json!({
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {"ome": {"version": "0.5", "multiscales": [{
                "name": "img",
                "axes": [
                    {"name": "z", "type": "space", "unit": "micrometer"},
                    {"name": "y", "type": "space", "unit": "micrometer"},
                    {"name": "x", "type": "space", "unit": "micrometer"}
                ],
                "datasets": [{"path": "0", "coordinateTransformations": [
                    {"type": "scale", "scale": [0.84, 0.23, 0.25]},
                    {"type": "translation", "translation": [1.0, 0.0, -2.0]}
                ]}]
            }]}}
        })
    );
    assert_eq!(
        json_of(&format!("{location}/0/zarr.json")),
        json!({
            "zarr_format": 3,
            "node_type": "array",
            "shape": [10, 20, 30],
            "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [8, 16, 32]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "blosc", "configuration": {"cname": "zstd", "clevel": 1,
                    "shuffle": "shuffle", "typesize": 2, "blocksize": 0}}
            ],
            "dimension_names": ["z", "y", "x"],
            "attributes": {}
        })
    );
}

#[test]
fn zarr_version_2_is_written_with_ome_zarr_0_4() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "img.zarr");
    let spec = Spec { grid: plain(), ..spec([1; 3], [8, 16, 32], Format::Zarr2) };
    Output::create(&location, &spec, Existing::Refuse).unwrap();
    assert_eq!(json_of(&format!("{location}/.zgroup")), json!({"zarr_format": 2}));
    let attributes = json_of(&format!("{location}/.zattrs"));
    assert_eq!(attributes["multiscales"][0]["version"], "0.4");
    assert_eq!(attributes["multiscales"][0]["datasets"][0]["path"], "0");
    assert_eq!(
        json_of(&format!("{location}/0/.zarray")),
        json!({
            "zarr_format": 2, "shape": [10, 20, 30], "chunks": [8, 16, 32], "dtype": "<u2",
            "compressor": {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 1,
                "blocksize": 0},
            "fill_value": 0, "order": "C", "filters": null, "dimension_separator": "/"
        })
    );
}

#[test]
fn n5_is_written_with_its_resolution_fastest_axis_first() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "img.n5");
    let spec = Spec { grid: plain(), ..spec([1; 3], [8, 16, 32], Format::N5) };
    Output::create(&location, &spec, Existing::Refuse).unwrap();
    assert_eq!(json_of(&format!("{location}/attributes.json")), json!({"n5": "2.0.0"}));
    assert_eq!(
        json_of(&format!("{location}/s0/attributes.json")),
        json!({
            "dimensions": [30, 20, 10], "blockSize": [32, 16, 8], "dataType": "uint16",
            "compression": {"type": "zstd", "level": 1},
            "pixelResolution": [0.25, 0.23, 0.84], "downsamplingFactors": [1, 1, 1],
            "transform": {"axes": ["z", "y", "x"], "units": ["um", "um", "um"],
                "scale": [0.84, 0.23, 0.25], "translate": [1.0, 0.0, -2.0]}
        })
    );
}

/// Writes an uncompressed Zarr v2 array of any rank by hand; each voxel is its index in C order.
fn by_hand(folder: &str, shape: &[u64], dtype: &str, group: &Value) {
    fs::create_dir_all(format!("{folder}/0")).unwrap();
    let array = json!({
        "zarr_format": 2, "shape": shape, "chunks": shape, "dtype": dtype, "compressor": null,
        "fill_value": 0, "order": "C", "filters": null, "dimension_separator": "."
    });
    fs::write(format!("{folder}/.zgroup"), r#"{"zarr_format": 2}"#).unwrap();
    fs::write(format!("{folder}/.zattrs"), group.to_string()).unwrap();
    fs::write(format!("{folder}/0/.zarray"), array.to_string()).unwrap();
    let count = shape.iter().product::<u64>() as u16;
    let bytes: Vec<u8> = (0..count)
        .flat_map(|v| if dtype.starts_with('>') { v.to_be_bytes() } else { v.to_le_bytes() })
        .collect();
    let key = vec!["0"; shape.len()].join(".");
    fs::write(format!("{folder}/0/{key}"), bytes).unwrap();
}

fn multiscales(axes: &[(&str, Option<&str>)], scale: &[f64]) -> Value {
    let axes: Vec<Value> = axes
        .iter()
        .map(|(name, unit)| match unit {
            Some(unit) => json!({"name": name, "unit": unit}),
            None => json!({"name": name}),
        })
        .collect();
    json!({"multiscales": [{"version": "0.4", "axes": axes, "datasets": [{"path": "0",
        "coordinateTransformations": [{"type": "scale", "scale": scale}]}]}]})
}

#[test]
fn one_channel_and_time_of_five_dimensions_is_chosen_and_must_be() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "five.zarr");
    let um = Some("micrometer");
    let axes = [("t", None), ("c", None), ("z", um), ("y", Some("nanometer")), ("x", um)];
    by_hand(&location, &[2, 3, 4, 5, 6], ">u2", &multiscales(&axes, &[1.0, 1.0, 2.0, 500.0, 0.25]));
    let open =
        |channel, time| Volume::open(&location, &Select { channel, time, ..Select::default() });
    let error = open(None, Some(0)).unwrap_err().to_string();
    assert!(error.contains("3 channels") && error.contains("--channel"), "{error}");
    let error = open(Some(0), None).unwrap_err().to_string();
    assert!(error.contains("2 time points") && error.contains("--time"), "{error}");
    assert!(open(Some(3), Some(0)).unwrap_err().to_string().contains("--channel 3"));
    let volume = open(Some(2), Some(1)).unwrap();
    assert_eq!(volume.grid().shape, [4, 5, 6]);
    assert_eq!(volume.grid().spacing, [2.0, 0.5, 0.25]);
    let first = 6 * 5 * 4 * (3 + 2);
    let wanted: Vec<u16> = (first..first + 120).collect();
    assert_eq!(volume.read::<u16>(&volume.grid().bounds()).unwrap(), wanted);
    let part = Box3::new([1, 2, 3], [3, 4, 5]);
    assert_eq!(volume.read::<u16>(&part).unwrap()[0], first + 30 + 12 + 3);
}

#[test]
fn a_plane_is_a_volume_of_one_plane() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "plane.zarr");
    let um = Some("micrometer");
    by_hand(&location, &[3, 4], "<u2", &multiscales(&[("y", um), ("x", um)], &[0.5, 0.25]));
    let volume = Volume::open(&location, &Select::default()).unwrap();
    assert_eq!(volume.grid(), Grid::plane([3, 4], [0.5, 0.25], [0.0; 2]));
    assert_eq!(volume.read::<u16>(&volume.grid().bounds()).unwrap(), (0..12).collect::<Vec<_>>());
}

#[test]
fn axes_in_another_order_are_turned() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "turned.zarr");
    let um = Some("micrometer");
    let axes = [("x", um), ("y", um), ("z", um)];
    by_hand(&location, &[2, 3, 4], "<u2", &multiscales(&axes, &[0.1, 0.2, 0.3]));
    let volume = Volume::open(&location, &Select::default()).unwrap();
    assert_eq!(volume.grid(), Grid::new([4, 3, 2], [0.3, 0.2, 0.1], [0.0; 3]));
    let wanted: Vec<u16> = (0..4)
        .flat_map(|z| (0..3).flat_map(move |y| (0..2).map(move |x| x * 12 + y * 4 + z)))
        .collect();
    assert_eq!(volume.read::<u16>(&volume.grid().bounds()).unwrap(), wanted);
}

#[test]
fn a_unit_that_is_no_length_is_no_voxel_size() {
    let folder = tempfile::tempdir().unwrap();
    for (name, unit) in [("a.zarr", Some("pixel")), ("b.zarr", None)] {
        let location = at(&folder, name);
        let axes = [("z", unit), ("y", unit), ("x", unit)];
        by_hand(&location, &[2, 3, 4], "<u2", &multiscales(&axes, &[1.0; 3]));
        let error = Volume::open(&location, &Select::default()).unwrap_err().to_string();
        assert!(error.contains("unit") && error.contains("--spacing"), "{error}");
    }
}

#[test]
fn both_spellings_of_the_resolution_of_n5_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let root = at(&folder, "a.n5");
    let spec = spec([2, 3, 4], [2, 3, 4], Format::N5);
    let set = |path: &str, attributes: Value| {
        let path = format!("{path}/attributes.json");
        let mut all: Map<String, Value> = json_of(&path).as_object().unwrap().clone();
        for key in ["pixelResolution", "downsamplingFactors", "transform"] {
            all.remove(key);
        }
        all.extend(attributes.as_object().unwrap().clone());
        fs::write(path, Value::Object(all).to_string()).unwrap();
    };
    let level = format!("{root}/c0/s1");
    Output::create(&level, &spec, Existing::Refuse).unwrap();
    let spacing = || Volume::open(&level, &Select::default()).map(|v| v.grid().spacing);
    set(&level, json!({}));
    assert!(spacing().unwrap_err().to_string().contains("--spacing"));
    set(
        &root,
        json!({"pixelResolution": {"dimensions": [250, 500, 1000], "unit": "nm"},
        "scales": [[1, 1, 1], [2, 4, 1]]}),
    );
    // `scales` applies only to levels directly in the group that has it, so not to `c0/s1`
    assert_eq!(spacing().unwrap(), [1.0, 0.5, 0.25]);
    set(&level, json!({"downsamplingFactors": [2, 2, 1]}));
    assert_eq!(spacing().unwrap(), [1.0, 1.0, 0.5]);
    set(&level, json!({"pixelResolution": [0.92, 0.92, 0.84], "downsamplingFactors": [2, 2, 2]}));
    assert_eq!(spacing().unwrap(), [1.68, 1.84, 1.84]);
}

#[test]
fn a_new_image_beside_another_in_a_group_is_an_image_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec([4; 3], [4; 3], Format::Zarr3);
    for name in ["fixed", "moving"] {
        Output::create(&at(&folder, &format!("pair.zarr/{name}")), &spec, Existing::Refuse)
            .unwrap();
    }
    let group = json_of(&at(&folder, "pair.zarr/zarr.json"));
    let images = group["attributes"]["ome"]["multiscales"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert_eq!(images[1]["name"], "moving");
    let volume = Volume::open(&at(&folder, "pair.zarr/moving"), &Select::default()).unwrap();
    assert_eq!(volume.grid(), spec.grid);
    let both = Volume::open(&at(&folder, "pair.zarr"), &Select::default()).unwrap_err().to_string();
    assert!(both.contains("2 images") && both.contains("pair.zarr/moving"), "{both}");
}

#[test]
fn a_description_says_what_a_volume_is_and_an_identity_that_it_changed() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    let spec = Spec { shard: Some([8; 3]), ..spec([8; 3], [4; 3], Format::Zarr3) };
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    fill::<u16>(&output, [8; 3]);
    let volume = Volume::open(&location, &Select::default()).unwrap();
    let facts = volume.describe();
    assert_eq!(
        facts["codecs"],
        json!(["sharding_indexed", "bytes", "blosc:zstd", "bytes", "crc32c"][..3])
    );
    assert_eq!(facts["shard"], json!([8, 8, 8]));
    assert_eq!(facts["axes"], json!(["z", "y", "x"]));
    assert_eq!(facts["levels"].as_array().unwrap().len(), 1);
    assert!(facts["stored_bytes"].as_u64().unwrap() > 100);
    let identity = || Volume::open(&location, &Select::default()).unwrap().identity().unwrap();
    let before = identity();
    output.set_attribute("a", json!(1)).unwrap();
    assert_eq!(before, identity(), "an attribute is no content");
    output.write(&Box3::of_shape([8; 3]), &[7u16; 512]).unwrap();
    assert_ne!(before["content"], identity()["content"]);
}
