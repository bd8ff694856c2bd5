//! Arrays of other programs: their metadata are interpreted, or an error names what is not
//! supported.

use std::fs;
use std::io::Write;

use serde_json::{Value, json};

use super::*;

const SHAPE: [usize; 3] = [3, 4, 6];

/// The voxels in C order; the value of each voxel is its index.
fn numbers() -> Vec<u16> {
    (0..SHAPE.iter().product::<usize>() as u16).collect()
}

fn bytes() -> Vec<u8> {
    numbers().iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An array in a temporary folder, with the given metadata and chunk files (mostly one).
struct Array {
    folder: tempfile::TempDir,
}

impl Array {
    fn new(file: &str, mut metadata: Value, changes: Value, chunks: &[(&str, &[u8])]) -> Self {
        let array = Self { folder: tempfile::tempdir().unwrap() };
        let Value::Object(changes) = changes else { panic!("{changes} is no object") };
        for (key, value) in changes {
            metadata[key] = value;
        }
        array.file(file, metadata.to_string().as_bytes());
        for (name, bytes) in chunks {
            array.file(name, bytes);
        }
        array
    }

    fn zarr3(changes: Value, chunk: &[u8]) -> Self {
        let metadata = json!({
            "zarr_format": 3, "node_type": "array", "shape": SHAPE, "data_type": "uint16",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": SHAPE}},
            "chunk_key_encoding": {"name": "default"}, "fill_value": 0,
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        });
        Self::new("zarr.json", metadata, changes, &[("c/0/0/0", chunk)])
    }

    fn zarr2(changes: Value, chunks: &[(&str, &[u8])]) -> Self {
        let metadata = json!({
            "zarr_format": 2, "shape": SHAPE, "chunks": SHAPE, "dtype": "<u2",
            "compressor": null, "fill_value": 0, "order": "C", "filters": null,
        });
        Self::new(".zarray", metadata, changes, chunks)
    }

    fn n5(changes: Value) -> Self {
        let metadata = json!({
            "dimensions": [6, 4, 3], "blockSize": [6, 4, 3], "dataType": "uint16",
            "compression": {"type": "raw"},
        });
        let head = [0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 4, 0, 0, 0, 3];
        let big: Vec<u8> = numbers().iter().flat_map(|v| v.to_be_bytes()).collect();
        let block = [&head[..], &big].concat();
        Self::new("attributes.json", metadata, changes, &[("0/0/0", &block)])
    }

    fn file(&self, name: &str, bytes: &[u8]) {
        let path = self.folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn open(&self) -> Result<Volume, Error> {
        let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
        Volume::open(&at(&self.folder, ""), &select)
    }

    /// Opens the array without `--spacing`, so that the voxel size is that of its metadata.
    fn as_it_says(&self) -> Volume {
        Volume::open_any(&at(&self.folder, ""), &Select::default()).unwrap()
    }

    /// All voxels, or the error message of opening or reading.
    fn read(&self) -> Result<Vec<u16>, String> {
        let volume = self.open().map_err(|error| error.to_string())?;
        volume.read(&volume.grid().bounds()).map_err(|error| error.to_string())
    }

    /// The error message of opening.
    fn refusal(&self) -> String {
        let error = self.open().map(|_| ()).expect_err("it is opened").to_string();
        assert!(!error.contains("damaged") && error.len() < 500, "{error}");
        error
    }
}

#[test]
fn chunks_of_version_2_are_found_where_no_separator_is_named() {
    for name in ["0/0/0", "0.0.0"] {
        let array = Array::zarr2(json!({}), &[(name, &bytes())]);
        assert_eq!(array.read().unwrap(), numbers(), "{name}");
    }
    assert_eq!(Array::zarr2(json!({}), &[]).read().unwrap(), vec![0; 72]);
}

#[test]
fn an_array_whose_chunks_have_other_names_is_not_taken_for_an_empty_one() {
    let separator = json!({"dimension_separator": "/"});
    let message = Array::zarr2(separator, &[("0.0.0", &bytes())]).refusal();
    assert!(message.contains("0.0.0") && message.contains("0/0/0"), "{message}");
    let message =
        Array::zarr2(json!({"dimension_separator": "."}), &[("0/0/0", &bytes())]).refusal();
    assert!(message.contains("0/0/0"), "{message}");
    let keys = json!({"chunk_key_encoding": {"name": "v2"}});
    let message = Array::zarr3(keys, &bytes()).refusal();
    assert!(message.contains("c/0/0/0"), "{message}");
    let array = Array::n5(json!({}));
    fs::rename(array.folder.path().join("0"), array.folder.path().join("c")).unwrap();
    let message = array.refusal();
    assert!(message.contains("c/0/0"), "{message}");
}

#[test]
fn codecs_of_numcodecs_are_read_with_their_default_configuration() {
    let plain = bytes();
    let crc = [&crc32c::crc32c(&plain).to_le_bytes()[..], &plain].concat();
    let end = [&plain[..], &crc32c::crc32c(&plain).to_le_bytes()].concat();
    let size = (plain.len() as u32).to_le_bytes();
    let lz4 = [&size[..], &lz4_flex::block::compress(&plain)].concat();
    let shuffled: Vec<u8> = (0..2).flat_map(|j| plain.iter().skip(j).step_by(2).copied()).collect();
    let zstd = zstd::bulk::compress(&plain, 1).unwrap();
    for (codecs, chunk) in [
        (json!([{"name": "numcodecs.zstd"}]), zstd.clone()),
        (json!([{"name": "zstd", "configuration": {}}]), zstd),
        (json!([{"name": "numcodecs.gzip"}]), gzip(&plain)),
        (json!([{"name": "numcodecs.lz4", "configuration": {}}]), lz4),
        (json!([{"name": "numcodecs.crc32c"}]), end.clone()),
        (json!(["crc32c"]), end),
        (json!([{"name": "numcodecs.crc32c", "configuration": {"location": "start"}}]), crc),
        (
            json!([{"name": "numcodecs.shuffle", "configuration": {"elementsize": 2}},
                   {"name": "numcodecs.gzip"}]),
            gzip(&shuffled),
        ),
    ] {
        let mut all = json!([{"name": "bytes", "configuration": {"endian": "little"}}]);
        all.as_array_mut().unwrap().extend(codecs.as_array().unwrap().clone());
        let array = Array::zarr3(json!({"codecs": all}), &chunk);
        assert_eq!(array.read().as_ref(), Ok(&numbers()), "{codecs}");
    }
}

#[test]
fn filters_of_version_2_are_undone_and_unknown_ones_named() {
    let differences: Vec<u8> =
        (0..72u16).map(|i| u16::from(i > 0)).flat_map(u16::to_le_bytes).collect();
    let halves: Vec<u8> = (0..72u8).collect();
    for (filters, chunk) in [
        (json!([{"id": "delta", "dtype": "<u2"}]), differences),
        (json!([{"id": "delta", "dtype": "<u2", "astype": "|i1"}]), {
            (0..72u8).map(|i| u8::from(i > 0)).collect()
        }),
        (
            json!([{"id": "fixedscaleoffset", "dtype": "<u2", "astype": "|u1",
                    "scale": 1, "offset": 0}]),
            halves,
        ),
    ] {
        let changes = json!({"filters": filters, "compressor": {"id": "gzip"}});
        let array = Array::zarr2(changes, &[("0.0.0", &gzip(&chunk))]);
        assert_eq!(array.read().as_ref(), Ok(&numbers()), "{filters}");
    }
    let filters = json!({"filters": [{"id": "categorize", "labels": ["a"]}]});
    assert!(Array::zarr2(filters, &[]).refusal().contains("'categorize'"));
    let compressor = json!({"compressor": {"id": "imagecodecs_jpegxl"}});
    assert!(Array::zarr2(compressor, &[]).refusal().contains("'imagecodecs_jpegxl'"));
}

#[test]
fn what_is_not_supported_is_named_when_the_array_is_opened() {
    let bytes_codec = json!({"name": "bytes", "configuration": {"endian": "little"}});
    for (changes, word) in [
        (json!({"codecs": [bytes_codec, {"name": "zfp"}]}), "'zfp'"),
        (json!({"codecs": [{"name": "numcodecs.pcodec"}]}), "'numcodecs.pcodec'"),
        (json!({"codecs": [{"name": "gzip"}, bytes_codec]}), "before its elements"),
        (json!({"codecs": []}), "no codec 'bytes'"),
        (json!({"codecs": [{"name": "bytes"}]}), "endian"),
        (
            json!({"codecs": [{"name": "transpose", "configuration": {"order": [0, 0, 1]}}]}),
            "order",
        ),
        (json!({"storage_transformers": [{"name": "secret"}]}), "'secret'"),
        (json!({"crystals": {"name": "new"}}), "'crystals'"),
        (json!({"zarr_format": 4}), "zarr_format 4"),
        (json!({"data_type": "numpy.datetime64"}), "numpy.datetime64"),
        (json!({"chunk_grid": {"name": "rectilinear"}}), "regular"),
        (json!({"chunk_key_encoding": {"name": "fanout"}}), "fanout"),
        (json!({"fill_value": -1}), "fill_value -1"),
        (json!({"shape": [1u64 << 40, 1u64 << 40, 1u64 << 40]}), "shape"),
        (json!({"shape": [3, 4]}), "2 dimensions"),
        (json!({"shape": [3, 4, "x"]}), "'shape'"),
    ] {
        let message = Array::zarr3(changes.clone(), &bytes()).refusal();
        assert!(message.contains(word), "no {word} in: {message}");
    }
}

#[test]
fn what_may_be_ignored_is_ignored_and_noted() {
    let codecs = json!([{"name": "bytes", "configuration": {"endian": "little"}},
                        {"name": "hint", "must_understand": false}]);
    for changes in [
        json!({"codecs": codecs}),
        json!({"storage_transformers": [{"name": "hint", "must_understand": false}]}),
        json!({"hint": {"must_understand": false}}),
    ] {
        let array = Array::zarr3(changes.clone(), &bytes());
        assert_eq!(array.read().as_ref(), Ok(&numbers()), "{changes}");
        let notes = array.open().unwrap().describe()["notes"].to_string();
        assert!(notes.contains("'hint' is ignored"), "{notes}");
    }
}

#[test]
fn booleans_and_half_floats_are_read_with_their_fill_values() {
    let set: Vec<u8> = (0..72).map(|i| u8::from(i % 3 == 0)).collect();
    let array = Array::zarr3(json!({"data_type": "bool", "fill_value": true}), &set);
    let wanted: Vec<u16> = set.iter().map(|v| u16::from(*v)).collect();
    assert_eq!(array.read().unwrap(), wanted);
    fs::remove_file(array.folder.path().join("c/0/0/0")).unwrap();
    assert_eq!(array.read().unwrap(), [1; 72]);
    let halves: Vec<u8> =
        (0..72u8).flat_map(|v| half::f16::from_f32(v.into()).to_le_bytes()).collect();
    for codecs in [json!([]), json!([{"name": "gzip", "configuration": {"level": 1}}])] {
        let mut all = json!([{"name": "bytes", "configuration": {"endian": "little"}}]);
        all.as_array_mut().unwrap().extend(codecs.as_array().unwrap().clone());
        let coded = codecs != json!([]);
        let chunk = if coded { gzip(&halves) } else { halves.clone() };
        let changes = json!({"data_type": "float16", "fill_value": "0x4200", "codecs": all});
        let array = Array::zarr3(changes, &chunk);
        assert_eq!(array.read().unwrap(), numbers());
        assert_eq!(array.open().unwrap().dtype(), Dtype::F32);
        fs::remove_file(array.folder.path().join("c/0/0/0")).unwrap();
        assert_eq!(array.read().unwrap(), [3; 72]);
    }
}

#[test]
fn a_chunk_that_decodes_to_more_or_less_than_a_chunk_is_damaged() {
    let all =
        |codec: Value| json!([{"name": "bytes", "configuration": {"endian": "little"}}, codec]);
    let changes = json!({"codecs": all(json!({"name": "gzip"}))});
    for wrong in [gzip(&vec![0; 1 << 24]), gzip(&bytes()[..143]), gzip(&[]), Vec::new()] {
        let message = Array::zarr3(changes.clone(), &wrong).read().unwrap_err();
        assert!(message.contains("damaged") && message.contains("c/0/0/0"), "{message}");
    }
    for wrong in [&bytes()[..143], &[bytes(), vec![0]].concat(), &[]] {
        let message = Array::zarr3(json!({}), wrong).read().unwrap_err();
        assert!(message.contains("damaged") && message.contains("144"), "{message}");
    }
    // a file that exceeds the maximum encoded size of a chunk is not read
    let message = Array::zarr3(changes, &vec![0; 1 << 20]).read().unwrap_err();
    assert!(message.contains("1048576 bytes"), "{message}");
}

/// An array with one shard of 3 x 4 x 6 and inner chunks of 3 x 4 x 2.
fn sharded(changes: &Value, shard: &[u8]) -> Array {
    let mut config = json!({
        "chunk_shape": [3, 4, 2],
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "index_location": "end",
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    let codecs = json!([{"name": "sharding_indexed", "configuration": config}]);
    Array::zarr3(json!({"codecs": codecs}), shard)
}

#[test]
fn an_index_that_its_shard_cannot_hold_is_damage_that_names_the_inner_chunk() {
    let inner = |c: usize| -> Vec<u8> {
        let all = numbers();
        let of = |row: usize| all[row * 6 + 2 * c..row * 6 + 2 * c + 2].to_vec();
        (0..12).flat_map(of).flat_map(u16::to_le_bytes).collect()
    };
    let shard = |entries: [[u64; 2]; 3]| -> Vec<u8> {
        let index = entries.into_iter().flatten().flat_map(u64::to_le_bytes);
        (0..3).flat_map(inner).chain(index).collect()
    };
    let good = [[0, 48], [48, 48], [96, 48]];
    assert_eq!(sharded(&json!({}), &shard(good)).read().unwrap(), numbers());
    let missing = [[0, 48], [u64::MAX, u64::MAX], [96, 48]];
    assert_eq!(sharded(&json!({}), &shard(missing)).read().unwrap()[2..5], [0, 0, 4]);
    for entry in [[0, 1 << 40], [1 << 40, 48], [u64::MAX - 10, 48], [150, 48], [0, 47], [0, 0]] {
        let entries = [good[0], entry, good[2]];
        let message = sharded(&json!({}), &shard(entries)).read().unwrap_err();
        assert!(message.contains("damaged") && message.contains("chunk 0,0,1"), "{message}");
    }
    for length in [0, 10, 47] {
        let message = sharded(&json!({}), &vec![0; length]).read().unwrap_err();
        assert!(message.contains("index"), "{message}");
    }
}

#[test]
fn inner_chunks_that_do_not_fit_their_shard_are_refused() {
    for (changes, word) in [
        (json!({"chunk_shape": [3, 4, 2, 5]}), "of 4"),
        (json!({"chunk_shape": [3, 4, 4]}), "multiples"),
        (json!({"chunk_shape": [3, 4, 0]}), "multiples"),
        (json!({"chunk_shape": null}), "chunk_shape"),
        (json!({"index_location": "middle"}), "middle"),
        (
            json!({"index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}},
                                 {"name": "gzip"}]}),
            "index",
        ),
        (json!({"codecs": [{"name": "zfpy"}]}), "'zfpy'"),
    ] {
        let message = sharded(&changes, &[]).refusal();
        assert!(message.contains(word), "no {word} in: {message}");
    }
}

#[test]
fn the_axes_units_and_resolution_of_n5_are_read_fastest_first() {
    let array = Array::n5(json!({
        "axes": ["x", "y", "z"], "units": ["nm", "nm", "um"], "resolution": [200, 300, 1.5]
    }));
    let volume = array.as_it_says();
    assert_eq!(volume.grid(), Grid::new(SHAPE, [1.5, 0.3, 0.2], [0.0; 3]));
    assert_eq!(volume.read::<u16>(&volume.grid().bounds()).unwrap(), numbers());
    // an array with z as the fastest dimension
    let array = Array::n5(json!({
        "axes": ["z", "y", "x"], "units": ["um", "um", "um"], "resolution": [1, 2, 3]
    }));
    let volume = array.as_it_says();
    assert_eq!(volume.grid(), Grid::new([6, 4, 3], [1.0, 2.0, 3.0], [0.0; 3]));
    let first: Vec<u16> = volume.read(&Box3::new([0; 3], [1, 1, 3])).unwrap();
    assert_eq!(first, [0, 24, 48]);
}

#[test]
fn a_resolution_without_a_unit_is_taken_as_micrometres_and_that_is_said() {
    let array = Array::n5(json!({"resolution": [0.2, 0.3, 1.5]}));
    let volume = array.as_it_says();
    assert_eq!(volume.grid().spacing, [1.5, 0.3, 0.2]);
    let facts = volume.describe();
    assert!(facts["spacing_from"].as_str().unwrap().contains("no unit"), "{facts}");
    assert!(facts["notes"].to_string().contains("taken as micrometres"), "{facts}");
    let message = Array::n5(json!({"resolution": [1, 2, 3], "units": ["px", "px", "px"]}));
    assert!(!message.as_it_says().has_spacing());
}

#[test]
fn a_level_of_n5_lies_in_the_middle_of_the_voxels_that_it_is_made_of() {
    let resolution = json!({"unit": "um", "dimensions": [0.25, 0.25, 0.5]});
    let array = Array::n5(json!({"pixelResolution": resolution, "downsamplingFactors": [4, 4, 4]}));
    let grid = array.as_it_says().grid();
    assert_eq!(grid, Grid::new(SHAPE, [2.0, 1.0, 1.0], [0.75, 0.375, 0.375]));
    // an explicit offset takes precedence
    let array = Array::n5(json!({
        "pixelResolution": {"unit": "nm", "dimensions": [250, 250, 500]},
        "downsamplingFactors": [4, 4, 4], "offset": [1000, 2000, 3000]
    }));
    assert_eq!(array.as_it_says().grid().origin, [3.0, 2.0, 1.0]);
}

#[test]
fn the_transform_of_cosem_is_read_by_the_names_of_its_axes() {
    let transform = |axes: [&str; 3], scale: [f64; 3]| {
        json!({"transform": {"axes": axes, "scale": scale, "translate": [8, 4, 2],
                             "units": ["nm", "nm", "nm"]}})
    };
    let grid = Array::n5(transform(["z", "y", "x"], [3000.0, 2000.0, 1000.0])).as_it_says().grid();
    assert_eq!((grid.shape, grid.spacing), (SHAPE, [3.0, 2.0, 1.0]));
    assert_eq!(grid.origin, [0.008, 0.004, 0.002]);
    let grid = Array::n5(transform(["x", "y", "z"], [1000.0, 2000.0, 3000.0])).as_it_says().grid();
    assert_eq!((grid.shape, grid.spacing), (SHAPE, [3.0, 2.0, 1.0]));
    assert_eq!(grid.origin, [0.002, 0.004, 0.008]);
    // a transform that cannot be used is mentioned in the notes
    let mut bad = transform(["z", "y", "x"], [1.0; 3]);
    bad["transform"]["units"] = json!(["px", "px", "px"]);
    let facts = Array::n5(bad).as_it_says().describe();
    assert!(facts["spacing"].is_null() && facts["notes"].to_string().contains("px"), "{facts}");
}

#[test]
fn the_dimensions_and_pixels_of_fiji_are_read() {
    let array = Array::n5(json!({
        "numChannels": 3, "numSlices": 1, "numFrames": 1,
        "pixelWidth": 0.5, "pixelHeight": 0.25, "pixelDepth": 1.0, "pixelUnit": "\u{b5}m",
    }));
    let select = Select { channel: Some(2), ..Select::default() };
    let volume = Volume::open(&at(&array.folder, ""), &select).unwrap();
    assert_eq!(volume.grid(), Grid::plane([4, 6], [0.25, 0.5], [0.0; 2]));
    assert_eq!(volume.read::<u16>(&volume.grid().bounds()).unwrap(), numbers()[48..]);
}

#[test]
fn dimensions_that_nobody_names_are_named_in_a_note() {
    let array = Array::n5(json!({"dimensions": [6, 4, 3, 1], "blockSize": [6, 4, 3, 1]}));
    fs::remove_dir_all(array.folder.path().join("0")).unwrap();
    let notes = array.open().unwrap().describe()["notes"].to_string();
    assert!(notes.contains("x, y, z, c"), "{notes}");
    let array = Array::n5(json!({"axes": ["i", "j", "k"]}));
    let notes = array.open().unwrap().describe()["notes"].to_string();
    assert!(notes.contains("k, j, i") && notes.contains("ignored"), "{notes}");
}

#[test]
fn metadata_above_an_array_that_cannot_be_read_are_an_error() {
    let array = Array::n5(json!({}));
    let root = array.folder.path();
    fs::create_dir(root.join("s0")).unwrap();
    for file in ["attributes.json", "0"] {
        fs::rename(root.join(file), root.join("s0").join(file)).unwrap();
    }
    array.file("attributes.json", b"{\"pixelResolution\": [1, 2,");
    let error = Volume::open_any(&at(&array.folder, "s0"), &Select::default()).unwrap_err();
    assert!(error.to_string().contains("attributes.json"), "{error}");
    assert!(error.to_string().len() < 400, "{error}");
}

#[test]
fn a_block_of_n5_that_claims_more_than_a_block_is_damaged() {
    let array = Array::n5(json!({}));
    let path = array.folder.path().join("0/0/0");
    let whole = fs::read(&path).unwrap();
    for (place, byte) in [(4, 0x7f), (7, 7), (11, 0), (15, 2), (1, 2), (3, 4), (1, 1)] {
        let mut bytes = whole.clone();
        bytes[place] = byte;
        fs::write(&path, bytes).unwrap();
        let message = array.read().unwrap_err();
        assert!(message.contains("damaged") && message.contains("0,0,0"), "{place}: {message}");
    }
}
