//! How a volume is stored, from its metadata files: only to be shown. Reading is `volume`'s work.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// What the metadata of an array says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Storage {
    /// The format's name.
    pub format: &'static str,
    /// All axes, also channels and time; empty where they have no names.
    pub axes: Vec<String>,
    /// The full shape, in the order of the axes.
    pub shape: Vec<u64>,
    /// The chunk (of a shard the inner one), in the order of the axes.
    pub chunk: Vec<u64>,
    /// The shard.
    pub shard: Option<Vec<u64>>,
    /// How chunks are compressed.
    pub codec: String,
    /// The levels of the pyramid that it belongs to, with their shapes.
    pub levels: Vec<(String, Vec<u64>)>,
    /// Bytes of its files.
    pub stored: u64,
}

/// What is known of the array that is shown for `location`; None for formats without metadata
/// files of their own and for locations that are not in the file system.
pub(super) fn storage(location: &str) -> Option<Storage> {
    let given = Path::new(location);
    if given.is_file() {
        return Some(single_file(given));
    }
    let folder = array_folder(given)?;
    let mut this = array(&folder)?;
    let group =
        if folder == given { folder.parent().map(Path::to_owned) } else { Some(given.into()) };
    if let Some(group) = group {
        pyramid(&group, &folder, &mut this);
    }
    this.stored = stored(&folder);
    Some(this)
}

fn json(path: PathBuf) -> Option<Value> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The multiscales of a group's metadata: OME-Zarr 0.5, then 0.4.
fn multiscale(group: &Path) -> Option<Value> {
    let new = json(group.join("zarr.json"))
        .and_then(|meta| meta.pointer("/attributes/ome/multiscales/0").cloned());
    new.or_else(|| json(group.join(".zattrs"))?.pointer("/multiscales/0").cloned())
}

/// The array itself, or level 0 of a group.
fn array_folder(given: &Path) -> Option<PathBuf> {
    if array(given).is_some() {
        return Some(given.to_owned());
    }
    let level = multiscale(given)
        .and_then(|m| Some(m.pointer("/datasets/0/path")?.as_str()?.to_owned()))
        .or_else(|| given.join("s0/attributes.json").exists().then(|| "s0".to_owned()))?;
    Some(given.join(level))
}

fn array(folder: &Path) -> Option<Storage> {
    let zarr3 = json(folder.join("zarr.json")).and_then(|meta| of_zarr3(&meta));
    let zarr2 = || of_zarr2(&json(folder.join(".zarray"))?);
    let n5 = || of_n5(&json(folder.join("attributes.json"))?);
    zarr3.or_else(zarr2).or_else(n5)
}

fn counts(value: Option<&Value>) -> Option<Vec<u64>> {
    value?.as_array()?.iter().map(Value::as_u64).collect()
}

fn names(value: Option<&Value>) -> Vec<String> {
    let name =
        |axis: &Value| Some(axis.as_str().or_else(|| axis.get("name")?.as_str())?.to_owned());
    value
        .and_then(Value::as_array)
        .and_then(|axes| axes.iter().map(name).collect())
        .unwrap_or_default()
}

fn of_zarr3(meta: &Value) -> Option<Storage> {
    let outer = counts(meta.pointer("/chunk_grid/configuration/chunk_shape"))?;
    let codecs = meta.get("codecs")?.as_array()?;
    let sharding = codecs.iter().find(|c| c["name"] == "sharding_indexed");
    let (chunk, shard, inner) = match sharding {
        Some(sharding) => {
            let inside = &sharding["configuration"];
            (counts(inside.get("chunk_shape"))?, Some(outer), inside.get("codecs")?.as_array()?)
        }
        None => (outer, None, codecs),
    };
    let shown: Vec<_> = inner
        .iter()
        .filter(|c| c["name"] != "bytes")
        .map(|c| codec(c["name"].as_str().unwrap_or("unknown"), &c["configuration"]))
        .collect();
    Some(Storage {
        format: "zarr3",
        axes: names(meta.get("dimension_names")),
        shape: counts(meta.get("shape"))?,
        chunk,
        shard,
        codec: if shown.is_empty() { "raw".to_owned() } else { shown.join(", ") },
        ..Storage::default()
    })
}

fn of_zarr2(meta: &Value) -> Option<Storage> {
    let compressor = &meta["compressor"];
    Some(Storage {
        format: "zarr2",
        shape: counts(meta.get("shape"))?,
        chunk: counts(meta.get("chunks"))?,
        codec: compressor["id"].as_str().map_or("raw".to_owned(), |id| codec(id, compressor)),
        ..Storage::default()
    })
}

/// N5 counts its axes from the fastest.
fn of_n5(meta: &Value) -> Option<Storage> {
    let reversed = |key: &str| {
        let mut values = counts(meta.get(key))?;
        values.reverse();
        Some(values)
    };
    let compression = &meta["compression"];
    let name = compression["type"].as_str().or_else(|| meta["compressionType"].as_str());
    Some(Storage {
        format: "n5",
        shape: reversed("dimensions")?,
        chunk: reversed("blockSize")?,
        codec: name.map_or("raw".to_owned(), |name| codec(name, compression)),
        ..Storage::default()
    })
}

/// A codec with what is worth knowing of its settings: `blosc (zstd, level 1, shuffle)`.
fn codec(name: &str, settings: &Value) -> String {
    let shuffle = match &settings["shuffle"] {
        Value::Number(n) => match n.as_i64() {
            Some(0) => None,
            Some(2) => Some("bitshuffle".to_owned()),
            _ => Some("shuffle".to_owned()),
        },
        Value::String(s) if s != "noshuffle" => Some(s.clone()),
        _ => None,
    };
    let level = settings.get("clevel").or_else(|| settings.get("level"));
    let parts: Vec<String> = [
        settings["cname"].as_str().map(str::to_owned),
        level.and_then(Value::as_i64).map(|level| format!("level {level}")),
        shuffle,
    ]
    .into_iter()
    .flatten()
    .collect();
    if parts.is_empty() { name.to_owned() } else { format!("{name} ({})", parts.join(", ")) }
}

/// Adds the axes and the levels that the group says.
fn pyramid(group: &Path, folder: &Path, this: &mut Storage) {
    if let Some(multiscale) = multiscale(group) {
        let paths: Vec<_> = multiscale["datasets"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|level| level["path"].as_str())
            .collect();
        if !paths.iter().any(|path| group.join(path) == folder) {
            return; // an array beside the pyramid
        }
        if this.axes.is_empty() {
            this.axes = names(multiscale.get("axes"));
        }
        let level = |path: &&str| Some(((*path).to_owned(), array(&group.join(path))?.shape));
        this.levels = paths.iter().filter_map(level).collect();
    } else if this.format == "n5" {
        let level = |i: usize| Some((format!("s{i}"), array(&group.join(format!("s{i}")))?.shape));
        this.levels = (0..).map_while(level).collect();
    }
}

/// Bytes of all files below `folder`, other arrays left out.
fn stored(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.metadata().ok()?)))
        .map(|(path, metadata)| {
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if metadata.is_dir() {
                if hidden || array(&path).is_some() { 0 } else { stored(&path) }
            } else if hidden || path.extension().is_some_and(|e| e == "json") {
                0
            } else {
                metadata.len()
            }
        })
        .sum()
}

fn single_file(path: &Path) -> Storage {
    use std::io::Read;
    let mut head = [0; 6];
    let _ = std::fs::File::open(path).and_then(|mut file| file.read(&mut head));
    let format = match &head {
        b"\x93NUMPY" => "npy",
        [b'I', b'I', b'*', 0, ..] | [b'M', b'M', 0, b'*', ..] => "tiff",
        [b'I', b'I', b'+', 0, ..] | [b'M', b'M', 0, b'+', ..] => "tiff (big)",
        [0x89, b'P', b'N', b'G', ..] => "png",
        _ => "file",
    };
    Storage { format, stored: std::fs::metadata(path).map_or(0, |m| m.len()), ..Storage::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(path: &Path, value: &Value) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, value.to_string()).unwrap();
    }

    #[test]
    fn a_sharded_zarr_v3_pyramid_shows_its_levels_chunks_and_codecs() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("a.zarr");
        let level = |shape: [u64; 4]| {
            json!({ "node_type": "array", "shape": shape, "data_type": "uint16",
                "dimension_names": ["c", "z", "y", "x"],
                "chunk_grid": { "configuration": { "chunk_shape": [1, 64, 64, 64] } },
                "codecs": [{ "name": "sharding_indexed", "configuration": {
                    "chunk_shape": [1, 32, 32, 32],
                    "codecs": [{ "name": "bytes" }, { "name": "blosc", "configuration":
                        { "cname": "zstd", "clevel": 1, "shuffle": "shuffle" } }] } }] })
        };
        put(&group.join("0/zarr.json"), &level([2, 100, 80, 60]));
        put(&group.join("1/zarr.json"), &level([2, 50, 40, 30]));
        put(
            &group.join("zarr.json"),
            &json!({ "node_type": "group", "attributes": { "ome": { "multiscales": [{
                "datasets": [{ "path": "0" }, { "path": "1" }] }] } } }),
        );
        std::fs::create_dir_all(group.join("0/c/0")).unwrap();
        std::fs::write(group.join("0/c/0/1"), [0; 123]).unwrap();
        std::fs::write(group.join("1/extra"), [0; 7]).unwrap();
        let want = Storage {
            format: "zarr3",
            axes: ["c", "z", "y", "x"].map(str::to_owned).to_vec(),
            shape: vec![2, 100, 80, 60],
            chunk: vec![1, 32, 32, 32],
            shard: Some(vec![1, 64, 64, 64]),
            codec: "blosc (zstd, level 1, shuffle)".to_owned(),
            levels: vec![
                ("0".to_owned(), vec![2, 100, 80, 60]),
                ("1".to_owned(), vec![2, 50, 40, 30]),
            ],
            stored: 123,
        };
        assert_eq!(storage(group.to_str().unwrap()), Some(want.clone()));
        assert_eq!(storage(group.join("0").to_str().unwrap()), Some(want));
    }

    #[test]
    fn zarr_v2_and_n5_show_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.zarr/0");
        put(
            &path.join(".zarray"),
            &json!({ "shape": [9, 8, 7], "chunks": [4, 4, 4],
                "compressor": { "id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 2 } }),
        );
        let zarr2 = storage(path.to_str().unwrap()).unwrap();
        assert_eq!(zarr2.codec, "blosc (lz4, level 5, bitshuffle)");
        assert_eq!((zarr2.format, zarr2.shape, zarr2.levels.len()), ("zarr2", vec![9, 8, 7], 0));

        for (level, x) in [("s0", 70), ("s1", 35)] {
            put(
                &folder.path().join(format!("c.n5/{level}/attributes.json")),
                &json!({ "dimensions": [x, 80, 90], "blockSize": [64, 32, 16],
                    "compression": { "type": "gzip", "level": -1 } }),
            );
        }
        let n5 = storage(folder.path().join("c.n5").to_str().unwrap()).unwrap();
        assert_eq!((n5.shape, n5.chunk), (vec![90, 80, 70], vec![16, 32, 64]));
        assert_eq!((n5.codec.as_str(), n5.levels.len()), ("gzip (level -1)", 2));
        assert_eq!(storage(folder.path().join("none").to_str().unwrap()), None);
    }
}
