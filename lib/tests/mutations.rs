//! Thousands of damaged copies of small volumes: none makes a reader panic, hang, or ask for much
//! memory. Right voxels, an error, or, where the format has no checksum, wrong voxels are all that
//! may come of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::{Path, PathBuf};

use voxloom::geom::{Box3, Grid};
use voxloom::volume::{Codec, Dtype, Existing, Format, Output, Select, Spec, Volume};

/// Damaged copies of each volume.
const COPIES: usize = 500;
/// Voxels that a damaged volume is read up to, in a box at its start.
const SIDE: i64 = 24;

/// Numbers that look random, and are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as usize % bound
    }
}

/// The files of a volume, with their bytes; ledgers left out.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    found
}

fn volume(location: &str, format: Format, codec: Codec, shard: Option<[usize; 3]>) {
    let grid = Grid::new([12, 14, 16], [2.0, 1.0, 1.0], [0.0; 3]);
    let spec = Spec { grid, dtype: Dtype::U16, chunk: [6, 7, 8], shard, codec, format };
    let output = Output::create(location, &spec, Existing::Refuse).unwrap();
    for part in grid.bounds().tiles(output.unit()) {
        let voxel = |v: Box3| (v.min[0] * 400 + v.min[1] * 17 + v.min[2] % 5) as u16;
        output.write(&part, &part.tiles([1; 3]).map(voxel).collect::<Vec<_>>()).unwrap();
    }
}

/// Numbers and words that metadata are known to stumble over.
const WORDS: [&str; 24] = [
    "0",
    "-1",
    "1",
    "2",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e30",
    "0.5",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"F\"",
    "\"NaN\"",
    "\"<u2\"",
    "\"bool\"",
    "\"float64\"",
    "\"x\"",
    "\"gzip\"",
    "\"blosc\"",
    "\"transpose\"",
    "65536",
];

/// Replaces a number or word of a text of JSON, or some of its bytes.
fn damage(bytes: &mut Vec<u8>, is_text: bool, random: &mut Random) {
    let tokens: Vec<(usize, usize)> = if is_text { tokens(bytes) } else { Vec::new() };
    if !tokens.is_empty() && random.below(4) > 0 {
        let (start, end) = tokens[random.below(tokens.len())];
        bytes.splice(start..end, WORDS[random.below(WORDS.len())].bytes());
        return;
    }
    match random.below(6) {
        0 => bytes.truncate(random.below(bytes.len() + 1)),
        1 => bytes.extend((0..random.below(40)).map(|i| i as u8)),
        _ => {
            for _ in 0..=random.below(4) {
                // headers and indices are at the ends
                let near = bytes.len().min(48);
                let place = match random.below(3) {
                    0 => random.below(bytes.len()),
                    1 => random.below(near),
                    _ => bytes.len() - 1 - random.below(near),
                };
                bytes[place] = random.below(256) as u8;
            }
        }
    }
}

/// Where the values of a text of JSON stand that are no lists or objects: numbers, words, texts.
fn tokens(text: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let start = at;
        if text[at] == b'"' {
            at += 1;
            while at < text.len() && text[at] != b'"' {
                at += 1;
            }
            at += 1;
            if text.get(at) != Some(&b':') {
                found.push((start, at.min(text.len())));
            }
        } else if text[at].is_ascii_alphanumeric() || text[at] == b'-' {
            while at < text.len()
                && (text[at].is_ascii_alphanumeric() || b"+-.".contains(&text[at]))
            {
                at += 1;
            }
            found.push((start, at));
        } else {
            at += 1;
        }
    }
    found
}

/// The most address space that this process ever had, bytes.
fn most_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// Opens a volume and reads the box at its start.
fn read(location: &str) -> bool {
    let Ok(volume) = Volume::open(location, &Select::default()) else { return false };
    volume.keep(1 << 20);
    let part = Box3::new([-1; 3], [SIDE; 3]);
    let voxels = volume.read::<f32>(&part);
    let _ = volume.describe();
    voxels.is_ok()
}

#[test]
fn no_damage_makes_a_reader_panic_hang_or_ask_for_much_memory() {
    let mut random = Random(7);
    let formats = [("a.zarr", Format::Zarr3), ("a.zarr", Format::Zarr2), ("a.n5", Format::N5)];
    let codecs = [Codec::Raw, Codec::Blosc, Codec::Gzip, Codec::Zstd, Codec::Lz4];
    let mut layouts: Vec<_> =
        formats.iter().flat_map(|f| codecs.map(|codec| (f.0, f.1, codec, None))).collect();
    layouts.push(("a.zarr", Format::Zarr3, Codec::Gzip, Some([12, 14, 16])));
    layouts.push(("a.zarr", Format::Zarr3, Codec::Raw, Some([12, 14, 16])));
    let (mut refused, mut taken, mut before) = (0, 0, None);
    for (name, format, codec, shard) in layouts {
        let folder = tempfile::tempdir().unwrap();
        let location = folder.path().join(name).display().to_string();
        volume(&location, format, codec, shard);
        assert!(read(&location));
        before = before.or_else(most_memory);
        let files = files(folder.path());
        let text = |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with(".z") || Path::new(name).extension().is_some_and(|e| e == "json")
        };
        let (metadata, chunks): (Vec<_>, Vec<_>) = files.iter().partition(|file| text(&file.0));
        for copy in 0..COPIES {
            let of = if copy % 3 < 2 { &metadata } else { &chunks };
            let (path, whole) = of[random.below(of.len())];
            let mut bytes = whole.clone();
            damage(&mut bytes, text(path), &mut random);
            fs::write(path, &bytes).unwrap();
            let count = if read(&location) { &mut taken } else { &mut refused };
            *count += 1;
            fs::write(path, whole).unwrap();
        }
        assert!(read(&location), "the volume is not what it was");
    }
    assert!(refused > 1000 && taken > 1000, "{refused} refused, {taken} taken");
    // the files of each volume have some 10 kB; the box that is read has 62 kB, decoders their tables
    if let (Some(before), Some(after)) = (before, most_memory()) {
        assert!(after - before < 48 << 20, "{} bytes more than before", after - before);
    }
}
