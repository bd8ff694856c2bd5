//! Reading of arbitrary bytes as each kind of file: one function per kind, all listed in
//! [`TARGETS`]. The fuzzers of `fuzz_targets/` call them, and so does `lib/tests/campaign`, on
//! stable Rust.

use std::fs;
use std::path::{Path, PathBuf};

use peak_alloc::PeakAlloc;
use voxloom::geom::{Box3, Chain};
use voxloom::interchange::fuzzing::SourceFormat;
use voxloom::transform::{self, AxisOrder, Direction};
use voxloom::volume::{Select, Volume};
use voxloom::{blocks, cli, interchange, report, table, volume};

/// Counts the memory that Rust code allocates.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Bytes of memory that reading may take even for a tiny file: buffers of decoders, the voxels that
/// are read here, and the entries of an HDF5 symbol table or the records of a B-tree, for which
/// `hdf5-reader` reserves as many as a 16-bit count in the file states (up to 9.4 MB, which it does
/// not fill).
const BASE: usize = 12 << 20;
/// Every error message must be shorter than this, in bytes: it may quote only a limited part of a
/// file.
const MAX_MESSAGE: usize = 1200;

/// The result of reading a file: success, or the error message.
pub type Read = Result<(), String>;

/// A kind of file.
pub struct Target {
    /// The name of its fuzzer and of its folder of seeds.
    pub name: &'static str,
    /// Reads bytes as a file of this kind, in a folder of its own.
    pub read: fn(&Path, &[u8]) -> Read,
}

/// Every kind of file that we read.
pub const TARGETS: &[Target] = &[
    Target { name: "zarr3", read: zarr3 },
    Target { name: "zarr2", read: zarr2 },
    Target { name: "ome", read: ome },
    Target { name: "n5", read: n5 },
    Target { name: "tiff", read: |folder, bytes| image(folder, "a.tif", bytes) },
    Target { name: "png", read: |folder, bytes| image(folder, "a.png", bytes) },
    Target { name: "npy", read: |folder, bytes| image(folder, "a.npy", bytes) },
    Target { name: "field", read: field },
    Target { name: "chain", read: chain },
    Target { name: "matrix", read: matrix },
    Target { name: "nifti", read: |folder, bytes| foreign(folder, "a.nii", None, bytes) },
    Target {
        name: "nrrd",
        read: |folder, bytes| foreign(folder, "a.nrrd", Some(SourceFormat::Nrrd), bytes),
    },
    Target {
        name: "elastix",
        read: |folder, bytes| foreign(folder, "a.txt", Some(SourceFormat::Elastix), bytes),
    },
    Target {
        name: "itk",
        read: |folder, bytes| foreign(folder, "a.tfm", Some(SourceFormat::Itk), bytes),
    },
    Target {
        name: "matlab",
        read: |folder, bytes| foreign(folder, "a.mat", Some(SourceFormat::Ants), bytes),
    },
    Target {
        name: "bigwarp",
        read: |folder, bytes| foreign(folder, "a.csv", Some(SourceFormat::Bigwarp), bytes),
    },
    Target {
        name: "ngff",
        read: |folder, bytes| foreign(folder, "a.json", Some(SourceFormat::Ngff), bytes),
    },
    Target {
        name: "metaimage",
        read: |folder, bytes| foreign(folder, "a.mha", Some(SourceFormat::Metaimage), bytes),
    },
    Target { name: "hdf5", read: |folder, bytes| foreign(folder, "a.h5", None, bytes) },
    Target { name: "transform", read: |folder, bytes| foreign(folder, "a", None, bytes) },
    Target { name: "ledger", read: ledger },
    Target { name: "table", read: tables },
    Target { name: "parameters", read: parameters },
    Target { name: "receipt", read: receipt },
];

/// The target with this name.
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target {name}"))
}

/// Reads bytes as a file of this kind, in `folder`, which only this target uses.
///
/// # Panics
/// If the library panics, if it allocates more than 64 times the length of `bytes` plus [`BASE`],
/// or if an error message has 1200 bytes or more.
pub fn run(target: &Target, folder: &Path, bytes: &[u8]) -> Read {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let read = (target.read)(folder, bytes);
    let most = MEMORY.peak_usage().saturating_sub(before);
    assert!(most < 64 * bytes.len() + BASE, "{most} bytes of memory for {} of a file", bytes.len());
    if let Err(message) = &read {
        assert!(message.len() < MAX_MESSAGE, "a message of {} letters: {message}", message.len());
    }
    read
}

/// Defines the fuzzer of the target with this name.
#[macro_export]
macro_rules! fuzz {
    ($name:literal) => {
        use std::sync::OnceLock;

        use libfuzzer_sys::{Corpus, fuzz_target};

        fuzz_target!(|bytes: &[u8]| -> Corpus {
            static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
            let folder = FOLDER.get_or_init(|| tempfile::tempdir().expect("TMPDIR can be written"));
            let _ = $crate::run($crate::target($name), folder.path(), bytes);
            Corpus::Keep
        });
    };
}

fn message(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Splits bytes at zero bytes into `N` parts; the last holds the rest. Texts contain no zero bytes.
fn parts<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let mut parts = bytes.splitn(N, |byte| *byte == 0);
    std::array::from_fn(|_| parts.next().unwrap_or_default())
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), String> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(message)?;
    }
    fs::write(path, bytes).map_err(message)
}

fn text_of(path: &Path) -> String {
    path.display().to_string()
}

/// Opens a volume and reads boxes at its first and last corners.
fn corners(location: &str) -> Read {
    let select =
        |channel, time| Select { channel, time, spacing: Some([1.0; 3]), ..Select::default() };
    let first = Some(0);
    let tried = [(None, None), (first, None), (None, first), (first, first)];
    let mut refused = String::new();
    let volume = tried.into_iter().find_map(|(channel, time)| {
        Volume::open(location, &select(channel, time)).map_err(|e| refused = message(e)).ok()
    });
    let Some(volume) = volume else { return Err(refused) };
    let _ = (volume.describe(), volume.watch(), volume.codec());
    let bounds = volume.grid().bounds();
    let low = Box3::new([-1; 3], bounds.max.map(|n| n.min(15)));
    let high = Box3::new(bounds.max.map(|n| (n - 15).max(0)), bounds.max.map(|n| n + 1));
    for part in [low, high] {
        volume.read::<f64>(&part).map_err(message)?;
    }
    volume.identity().map_err(message).map(drop)
}

fn image(folder: &Path, name: &str, bytes: &[u8]) -> Read {
    let path = folder.join(name);
    put(&path, bytes)?;
    corners(&text_of(&path))
}

/// `zarr.json` and a chunk, separated by a zero byte.
fn zarr3(folder: &Path, bytes: &[u8]) -> Read {
    let [metadata, chunk] = parts(bytes);
    let array = folder.join("a.zarr");
    put(&array.join("zarr.json"), metadata)?;
    for name in ["c/0/0/0", "c.0.0.0", "0.0.0"] {
        put(&array.join(name), chunk)?;
    }
    corners(&text_of(&array))
}

/// `.zarray`, `.zattrs` and a chunk, separated by zero bytes.
fn zarr2(folder: &Path, bytes: &[u8]) -> Read {
    let [metadata, attributes, chunk] = parts(bytes);
    let array = folder.join("a.zarr");
    put(&array.join(".zarray"), metadata)?;
    let file = array.join(".zattrs");
    if attributes.is_empty() {
        fs::remove_file(&file).ok();
    } else {
        put(&file, attributes)?;
    }
    for name in ["0.0.0", "0/0/0"] {
        put(&array.join(name), chunk)?;
    }
    corners(&text_of(&array))
}

/// The attributes of the group, those of an array in it, and a block, separated by zero bytes.
fn n5(folder: &Path, bytes: &[u8]) -> Read {
    let [group, array, block] = parts(bytes);
    let root = folder.join("a.n5");
    put(&root.join("attributes.json"), group)?;
    put(&root.join("s0/attributes.json"), array)?;
    put(&root.join("s0/0/0/0"), block)?;
    let whole = volume::levels(&text_of(&root)).map_err(message).map(drop);
    let read = corners(&text_of(&root.join("s0")));
    read.and(whole)
}

/// A Zarr v2 array of 4 x 4 x 4 bytes.
const SMALL: &str = r#"{"zarr_format": 2, "shape": [4, 4, 4], "chunks": [4, 4, 4], "dtype": "|u1",
 "compressor": null, "fill_value": 0, "order": "C", "filters": null}"#;

/// The attributes of an image with two levels, read as OME-Zarr version 0.4 and as version 0.5.
fn ome(folder: &Path, bytes: &[u8]) -> Read {
    let (old, new) = (folder.join("old.zarr"), folder.join("new.zarr"));
    for (group, level) in [(&old, "0"), (&old, "1"), (&new, "0"), (&new, "1")] {
        put(&group.join(level).join(".zarray"), SMALL.as_bytes())?;
        put(&group.join(level).join("0.0.0"), &[7; 64])?;
    }
    put(&old.join(".zgroup"), br#"{"zarr_format": 2}"#)?;
    put(&old.join(".zattrs"), bytes)?;
    let head = r#"{"zarr_format": 3, "node_type": "group", "attributes": "#;
    put(&new.join("zarr.json"), &[head.as_bytes(), bytes, b"}"].concat())?;
    // the arrays of both groups are Zarr v2, which is sufficient here
    let mut read = Err(String::new());
    for group in [&old, &new] {
        for location in [text_of(group), text_of(&group.join("0"))] {
            let _ = volume::levels(&location);
            let _ = volume::attributes(&location);
            read = read.or(corners(&location));
        }
    }
    read
}

/// The points at which maps are evaluated: near the origin, and far away.
const POINTS: [[f64; 3]; 4] =
    [[0.0; 3], [1.5, 2.5, 3.5], [-1e9, 1e9, 0.0], [1e300, -1e300, f64::MAX]];

/// Applies a chain to [`POINTS`].
fn apply(chain: &Chain) -> Read {
    for p in POINTS {
        let (local, _) = chain.localise([p, p]).map_err(message)?;
        let _ = local.apply(p);
    }
    let _ = (chain.as_affine(), chain.check_fields([[0.0; 3], [9.0; 3]]));
    Ok(())
}

fn both_ways(location: &str) -> Read {
    let backward = transform::read_chain_in(&[location.to_owned()], Direction::MovingToFixed);
    let forward = transform::read_chain(&[location.to_owned()]).map_err(message)?;
    if let Ok(chain) = backward {
        apply(&chain)?;
    }
    apply(&forward)
}

/// `zarr.json` of a field or of local affines, and a chunk, separated by a zero byte. The chunk is
/// stored once under the keys of an array of four axes, and once under those of five.
fn field(folder: &Path, bytes: &[u8]) -> Read {
    let [metadata, chunk] = parts(bytes);
    let read = |array: &str, first_chunks: [&str; 2]| {
        let array = folder.join(array);
        put(&array.join("zarr.json"), metadata)?;
        for name in first_chunks {
            put(&array.join(name), chunk)?;
        }
        let location = text_of(&array);
        let read = both_ways(&location);
        let foreign = interchange::fuzzing::read(&location, None, folder);
        read.or(foreign)
    };
    let vectors = read("vectors.zarr", ["c/0/0/0/0", "c.0.0.0.0"]);
    let affines = read("affines.zarr", ["c/0/0/0/0/0", "c.0.0.0.0.0"]);
    vectors.or(affines)
}

/// The JSON of a chain; it may refer to `field.zarr`, which does not exist, and to itself.
fn chain(folder: &Path, bytes: &[u8]) -> Read {
    let path = folder.join("chain.json");
    put(&path, bytes)?;
    let steps =
        transform::read_steps(&text_of(&path), Direction::FixedToMoving).map_err(message)?;
    let chain = both_ways(&text_of(&path));
    // a chain that can be read can be written, and is read back unchanged
    if let Ok(()) = chain {
        let copy = folder.join("copy.json");
        transform::write_document(&copy, &steps).map_err(message)?;
        let again = transform::read_document(&copy, Direction::FixedToMoving).map_err(message)?;
        assert_eq!(steps, again, "a chain changes when it is written");
    }
    chain
}

fn matrix(folder: &Path, bytes: &[u8]) -> Read {
    let path = folder.join("matrix.txt");
    put(&path, bytes)?;
    let greedy = interchange::fuzzing::read(&text_of(&path), Some(SourceFormat::Greedy), folder);
    let turned = transform::read_matrix_text(&path, AxisOrder::Xyz);
    let read = both_ways(&text_of(&path));
    read.or(greedy).or(turned.map(drop).map_err(message))
}

/// A transform of another program, read with the given format and with the format detected from its
/// content.
fn foreign(folder: &Path, name: &str, from: Option<SourceFormat>, bytes: &[u8]) -> Read {
    let path = folder.join(name);
    put(&path, bytes)?;
    let location = text_of(&path);
    let result = interchange::fuzzing::read(&location, None, folder);
    let read = match from {
        Some(_) => interchange::fuzzing::read(&location, from, folder),
        None => result,
    };
    let _ = transform::read_chain(&[location]);
    read
}

fn ledger(folder: &Path, bytes: &[u8]) -> Read {
    blocks::fuzzing::ledger(folder, bytes)
}

/// A table, read as each kind of table.
fn tables(folder: &Path, bytes: &[u8]) -> Read {
    let path: PathBuf = folder.join("a.csv");
    put(&path, bytes)?;
    let spots = table::read_spots(&path).map(drop);
    let matches = table::read_matches(&path).map(drop);
    let blocks = table::read_blocks(&path).map(drop);
    let points = table::read_points(&path);
    if let Ok(points) = &points {
        let copy = folder.join("copy.csv");
        if table::write_points(&copy, points).is_ok() {
            let again = table::read_points(&copy).map_err(message)?;
            assert_eq!(again.positions, points.positions, "points change when they are written");
        }
    }
    spots.or(matches).or(blocks).or(points.map(drop)).map_err(message)
}

/// A parameters file, read as YAML and as JSON.
fn parameters(folder: &Path, bytes: &[u8]) -> Read {
    let (yaml, json) = (folder.join("a.yaml"), folder.join("a.json"));
    put(&yaml, bytes)?;
    put(&json, bytes)?;
    let read = cli::fuzzing::parameters(&yaml);
    read.or(cli::fuzzing::parameters(&json))
}

fn receipt(folder: &Path, bytes: &[u8]) -> Read {
    let path = folder.join("a.receipt.json");
    put(&path, bytes)?;
    report::fuzzing::receipt(&path)
}
