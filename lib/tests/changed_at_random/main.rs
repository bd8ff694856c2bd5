//! Small good files, changed at random: whatever comes of them is a volume or a sentence, in little
//! memory.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;
use tiff::encoder::{Compression, DeflateLevel, TiffEncoder, colortype};
use tiff::tags::Tag;
use voxloom::geom::Box3;
use voxloom::volume::{Select, Volume};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Memory is that of the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Changes of each file.
const CHANGES: usize = 500;

/// Numbers that mean something somewhere.
const ODD: [u32; 10] =
    [0, 1, 2, 0x7fff, 0xffff, 0x0001_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff];

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.below(256) as u8,
                2 => bytes.truncate(at.max(4)),
                3 => {
                    let odd = ODD[self.below(ODD.len())].to_le_bytes();
                    let end = bytes.len().min(at + 4);
                    bytes[at..end].copy_from_slice(&odd[..end - at]);
                }
                4 => {
                    let from = self.below(bytes.len());
                    let length = self.below(40).min(bytes.len() - from.max(at));
                    bytes.copy_within(from..from + length, at);
                }
                _ => {
                    let count = self.below(20);
                    bytes.splice(at..at, std::iter::repeat_n(b'9', count));
                }
            }
        }
    }
}

fn tiff(description: &str, pages: usize, compression: Compression) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    let mut encoder = TiffEncoder::new(&mut out).unwrap().with_compression(compression);
    for page in 0..pages as u16 {
        let mut image = encoder.new_image::<colortype::Gray16>(8, 6).unwrap();
        image.rows_per_strip(4).unwrap();
        if page == 0 {
            image.encoder().write_tag(Tag::ImageDescription, description).unwrap();
        }
        image.write_data(&(0..48).map(|i| i * page).collect::<Vec<u16>>()).unwrap();
    }
    out.into_inner()
}

fn png(color: png::ColorType, depth: png::BitDepth, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = png::Encoder::new(&mut out, 8, 6);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == png::ColorType::Indexed {
        encoder.set_palette(vec![1; 12]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    out
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let ome = r#"<OME><Image ID="a"><Pixels DimensionOrder="XYZCT" SizeX="8" SizeY="6" SizeZ="2" SizeC="2" SizeT="1"><TiffData IFD="0" PlaneCount="4"/></Pixels></Image></OME>"#;
    let imagej = "ImageJ=1.54f\nimages=4\nchannels=2\nslices=2\nunit=um\nspacing=2\n";
    let tifffile = r#"{"shape": [2, 2, 6, 8], "axes": "CZYX"}"#;
    let mut npy =
        b"\x93NUMPY\x01\x00\x39\x00{'descr': '<u2', 'fortran_order': False, 'shape': (6, 8)}"
            .to_vec();
    npy.extend([7; 96]);
    vec![
        ("tif", tiff(ome, 4, Compression::Lzw)),
        ("tif", tiff(imagej, 4, Compression::Deflate(DeflateLevel::Fast))),
        ("tif", tiff(tifffile, 4, Compression::Packbits)),
        ("tif", tiff("", 3, Compression::Uncompressed)),
        ("png", png(png::ColorType::Grayscale, png::BitDepth::Sixteen, &[3; 96])),
        ("png", png(png::ColorType::Indexed, png::BitDepth::Two, &[0b1101; 12])),
        ("png", png(png::ColorType::Rgba, png::BitDepth::Eight, &[9; 192])),
        ("npy", npy),
    ]
}

/// Opens a file and reads its first and last corners.
fn read(location: &str) -> Result<(), String> {
    let select = |channel| Select { channel, spacing: Some([1.0; 3]), ..Select::default() };
    let open = |channel| Volume::open(location, &select(channel));
    let volume = open(None).or_else(|_| open(Some(0))).map_err(|error| error.to_string())?;
    let bounds = volume.grid().bounds();
    let low = Box3::new([0; 3], bounds.max.map(|n| n.min(16)));
    let high = Box3::new(bounds.max.map(|n| (n - 16).max(0)), bounds.max);
    for part in [low, high] {
        volume.read::<f64>(&part).map_err(|error| error.to_string())?;
    }
    Ok(())
}

#[test]
fn files_changed_at_random_give_a_volume_or_a_sentence_in_little_memory() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let (mut good, mut bad) = (0, 0);
    for (number, (ending, seed)) in seeds().into_iter().enumerate() {
        let path = folder.path().join(format!("a.{ending}"));
        let location = path.display().to_string();
        fs::write(&path, &seed).unwrap();
        read(&location).unwrap();
        let mut random = Random(number as u64);
        for change in 0..CHANGES {
            let mut bytes = seed.clone();
            random.change(&mut bytes);
            fs::write(&path, &bytes).unwrap();
            let before = MEMORY.current_usage();
            MEMORY.reset_peak_usage();
            let result = catch_unwind(AssertUnwindSafe(|| read(&location)));
            let most = MEMORY.peak_usage() - before;
            let keep = || keep(folder.path(), &bytes, ending);
            let Ok(result) = result else { panic!("file {number}, change {change}: {}", keep()) };
            assert!(
                most < 64 * bytes.len() + (1 << 20),
                "file {number}, change {change} took {most} bytes: {}",
                keep()
            );
            match result {
                Ok(()) => good += 1,
                Err(text) => {
                    bad += 1;
                    assert!(text.len() < 800, "file {number}, change {change}: {text}");
                }
            }
        }
    }
    assert!(good > CHANGES && bad > CHANGES, "{good} read, {bad} refused");
}

/// Leaves what made it fail where it can be looked at.
fn keep(folder: &Path, bytes: &[u8], ending: &str) -> String {
    let path = folder.with_extension(ending);
    fs::write(&path, bytes).unwrap();
    path.display().to_string()
}
