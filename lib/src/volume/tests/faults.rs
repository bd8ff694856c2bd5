use std::fs;
use std::path::{Path, PathBuf};

use super::*;

fn open(location: &str) -> Result<Volume, Error> {
    Volume::open(location, &Select::default())
}

/// The message of the error with which opening fails.
fn refusal(location: &str) -> String {
    open(location).unwrap_err().to_string()
}

/// The files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

/// The last chunk file of an array.
fn last_chunk(array: &Path) -> PathBuf {
    let digits =
        |f: &PathBuf| f.file_name().unwrap().as_encoded_bytes().iter().all(u8::is_ascii_digit);
    files(array).into_iter().rfind(digits).unwrap()
}

fn layouts() -> Vec<(&'static str, Spec)> {
    let mut layouts = Vec::new();
    for codec in [Codec::Blosc, Codec::Raw, Codec::Gzip, Codec::Zstd, Codec::Lz4] {
        for (name, format) in
            [("a.zarr", Format::Zarr3), ("a.zarr", Format::Zarr2), ("a.n5", Format::N5)]
        {
            layouts.push((name, Spec { codec, ..spec([16; 3], [8; 3], format) }));
        }
    }
    let shard = Some([16; 3]);
    layouts.push(("a.zarr", Spec { shard, ..spec([16; 3], [8; 3], Format::Zarr3) }));
    layouts
}

#[test]
fn a_truncated_chunk_is_an_error_that_names_file_and_chunk() {
    for (name, spec) in layouts() {
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, name);
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        fill::<u16>(&output, spec.grid.shape);
        let array = output.ledger_folder().parent().unwrap().to_owned();
        let chunk = last_chunk(&array);
        let whole = fs::read(&chunk).unwrap();
        for length in [whole.len() - 1, whole.len() / 2, 3, 0] {
            fs::write(&chunk, &whole[..length]).unwrap();
            let volume = open(&location).unwrap();
            let read = volume.read::<u16>(&spec.grid.bounds()).map(|_| ());
            assert!(matches!(read, Err(Error::Chunk { .. })), "{spec:?} {length}: {read:?}");
            let error = read.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&*chunk.to_string_lossy()), "{text}");
            let index = if spec.shard.is_some() { "0,0,0" } else { "1,1,1" };
            assert!(text.contains(index), "{text}");
        }
    }
}

#[test]
fn no_damage_makes_a_reader_panic() {
    for (name, spec) in layouts() {
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, name);
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        fill::<u16>(&output, spec.grid.shape);
        let array = output.ledger_folder().parent().unwrap().to_owned();
        let chunk = last_chunk(&array);
        let whole = fs::read(&chunk).unwrap();
        let mut seed = 12_345u64;
        for _ in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..3 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // change mainly the ends, where headers and indices are
                let place = (seed >> 33) as usize;
                let place = match seed >> 61 {
                    0..3 => place % bytes.len(),
                    3..6 => place % 64.min(bytes.len()),
                    _ => bytes.len() - 1 - place % 64.min(bytes.len()),
                };
                bytes[place] = (seed >> 40) as u8;
            }
            fs::write(&chunk, &bytes).unwrap();
            // correct voxels, wrong voxels (without a checksum) or an error; no panic
            let _ = open(&location).unwrap().read::<u16>(&spec.grid.bounds());
        }
    }
}

#[test]
fn a_wrong_checksum_is_seen() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.zarr");
    let spec = Spec { codec: Codec::Raw, ..spec([4; 3], [4; 3], Format::Zarr3) };
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    // append the codec crc32c to the codecs of the array
    let file = folder.path().join("a.zarr/0/zarr.json");
    let text = fs::read_to_string(&file).unwrap();
    let mut metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
    metadata["codecs"].as_array_mut().unwrap().push(serde_json::json!({"name": "crc32c"}));
    fs::write(&file, metadata.to_string()).unwrap();
    drop(output);
    let output = Output::open_existing(&location).unwrap();
    fill::<u16>(&output, spec.grid.shape);
    assert_ramp::<u16>(&open(&location).unwrap());
    let chunk = folder.path().join("a.zarr/0/c/0/0/0");
    let mut bytes = fs::read(&chunk).unwrap();
    assert_eq!(bytes.len(), 128 + 4);
    bytes[5] ^= 1;
    fs::write(&chunk, bytes).unwrap();
    let error = open(&location).unwrap().read::<u16>(&spec.grid.bounds()).unwrap_err();
    assert!(matches!(&error, Error::Chunk { chunk, .. } if chunk == "0,0,0"), "{error}");
}

#[test]
fn a_missing_chunk_is_the_fill_value() {
    for (name, spec) in layouts() {
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, name);
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        let part = Box3::of_shape(output.unit());
        output.write(&part, &ramp::<u16>(&part)).unwrap();
        let found = open(&location).unwrap().read::<u16>(&spec.grid.bounds()).unwrap();
        for (i, found) in found.into_iter().enumerate() {
            let at = [i as i64 / 256, i as i64 / 16 % 16, i as i64 % 16];
            let wanted = if part.contains(at) { value(at[0], at[1], at[2]) } else { 0u16 };
            assert_eq!(found, wanted, "{spec:?} {at:?}");
        }
    }
}

#[test]
fn what_is_no_volume_is_refused_in_words_that_help() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("photos")).unwrap();
    fs::write(folder.path().join("photos/a.txt"), "x").unwrap();
    assert!(refusal(&at(&folder, "nothing.zarr")).contains("not found"));
    assert!(refusal(&at(&folder, "photos")).contains("zarr.json"));
    for (name, wanted) in [
        ("photos/a.txt", "text by its name"),
        ("photos/brain.nii.gz", "NIfTI by its name"),
        ("photos/cut.tif", "no TIFF file"),
        ("photos/unknown", "no known format"),
    ] {
        fs::write(folder.path().join(name), "x").unwrap();
        let message = refusal(&at(&folder, name));
        assert!(message.contains(wanted), "{message}");
    }
    assert!(refusal(&at(&folder, "photos/*.png")).contains("no file matches"));
    assert!(refusal("s3://bucket/img.zarr").contains("s3://"));
    assert!(refusal("").contains("empty"));
}

#[test]
fn a_group_of_several_arrays_names_them() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["pair.n5/fixed", "pair.n5/moving"] {
        let spec = spec([4; 3], [4; 3], Format::N5);
        Output::create(&at(&folder, name), &spec, Existing::Refuse).unwrap();
    }
    let text = refusal(&at(&folder, "pair.n5"));
    assert!(text.contains("pair.n5/fixed") && text.contains("pair.n5/moving"), "{text}");
    let text = refusal(&at(&folder, "pair.n5/other"));
    assert!(text.contains("fixed, moving"), "{text}");
}

#[test]
fn types_that_are_none_of_ours_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (number, dtype) in ["complex64", "int4", "float8_e5m2", "r16"].into_iter().enumerate() {
        let location = at(&folder, &format!("{number}.zarr"));
        let spec = spec([4; 3], [4; 3], Format::Zarr3);
        Output::create(&location, &spec, Existing::Refuse).unwrap();
        let file = format!("{location}/0/zarr.json");
        let text = fs::read_to_string(&file).unwrap().replace("uint16", dtype);
        fs::write(&file, text).unwrap();
        let text = refusal(&location);
        assert!(text.contains(dtype) && text.contains("float32"), "{text}");
    }
    let location = at(&folder, "structured.zarr");
    let spec = spec([4; 3], [4; 3], Format::Zarr2);
    Output::create(&location, &spec, Existing::Refuse).unwrap();
    let file = format!("{location}/0/.zarray");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("\"<u2\"", "[[\"a\", \"<u2\"], [\"b\", \"<f4\"]]")).unwrap();
    assert!(refusal(&location).contains("\"<f4\""), "{}", refusal(&location));
}

#[test]
fn a_volume_without_a_voxel_size_names_the_flag_that_gives_it() {
    let folder = tempfile::tempdir().unwrap();
    let location = at(&folder, "a.npy");
    let spec = spec([2, 3, 4], [2, 3, 4], Format::Npy);
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    fill::<u16>(&output, spec.grid.shape);
    assert!(refusal(&location).contains("--spacing"));
    let select = Select { spacing: Some([3.0, 2.0, 1.0]), ..Select::default() };
    assert_eq!(Volume::open(&location, &select).unwrap().grid().spacing, [3.0, 2.0, 1.0]);
    let select = Select { spacing: Some([3.0, 0.0, 1.0]), ..Select::default() };
    assert!(Volume::open(&location, &select).unwrap_err().to_string().contains("--spacing"));
}

#[test]
fn an_input_that_goes_away_or_changes_is_an_error() {
    for (name, spec) in layouts() {
        let folder = tempfile::tempdir().unwrap();
        let location = at(&folder, name);
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        fill::<u16>(&output, spec.grid.shape);
        let array = output.ledger_folder().parent().unwrap().to_owned();
        let first = Box3::of_shape([8; 3]);
        let read = |volume: &Volume| volume.read::<u16>(&spec.grid.bounds());
        let opened = || {
            let volume = open(&location).unwrap();
            volume.keep(0);
            volume.read::<u16>(&first).unwrap();
            volume.watch().check().unwrap();
            volume
        };
        // a change of attributes is no error
        let volume = opened();
        output.set_attribute("note", "x".into()).unwrap();
        volume.watch().check().unwrap();
        // a change of other metadata is an error
        let volume = opened();
        let metadata = ["zarr.json", ".zarray", "attributes.json"].map(|name| array.join(name));
        let metadata = metadata.into_iter().find(|path| path.exists()).unwrap();
        let text = fs::read(&metadata).unwrap();
        fs::write(&metadata, String::from_utf8_lossy(&text).replace("16", "24")).unwrap();
        assert!(volume.watch().check().unwrap_err().to_string().contains("changed"));
        fs::write(&metadata, &text).unwrap();
        // all chunks are removed after opening
        let volume = opened();
        for file in files(&array).into_iter().filter(|file| *file != metadata) {
            fs::remove_file(file).unwrap();
        }
        assert!(read(&volume).is_err(), "{spec:?}");
        assert!(volume.watch().check().unwrap_err().to_string().contains("chunks"));
        // one chunk is removed after it was read
        fill::<u16>(&output, spec.grid.shape);
        let volume = opened();
        read(&volume).unwrap();
        let lost = last_chunk(&array);
        let bytes = fs::read(&lost).unwrap();
        fs::remove_file(&lost).unwrap();
        assert!(volume.watch().check().unwrap_err().to_string().contains("lost chunks"));
        // restoring the same chunk is no error; a longer chunk is an error
        fs::write(&lost, &bytes).unwrap();
        volume.watch().check().unwrap();
        fs::write(&lost, [bytes, vec![0]].concat()).unwrap();
        assert!(volume.watch().check().unwrap_err().to_string().contains("changed"));
        // the whole array is removed
        let volume = open(&location).unwrap();
        fs::remove_dir_all(&array).unwrap();
        assert!(read(&volume).is_err(), "{spec:?}");
        assert!(volume.watch().check().unwrap_err().to_string().contains("went away"));
    }
}
