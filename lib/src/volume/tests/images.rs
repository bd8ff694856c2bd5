//! PNG images of every kind, and `.npy` files of types that are read as a wider type.

use std::fs;
use std::io::Write;

use super::*;

/// A PNG file, built chunk by chunk.
struct Png {
    size: [usize; 2],
    depth: u8,
    color: u8,
    interlaced: bool,
    /// The chunks between header and data.
    more: Vec<(&'static [u8; 4], Vec<u8>)>,
}

impl Png {
    fn grey(height: usize, width: usize, depth: u8) -> Self {
        Self { size: [height, width], depth, color: 0, interlaced: false, more: Vec::new() }
    }

    /// The bytes of a file with these samples, each of which must be less than `1 << depth`.
    fn bytes(&self, samples: &[u16]) -> Vec<u8> {
        let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
        let mut chunk = |name: &[u8; 4], data: &[u8]| {
            out.extend((data.len() as u32).to_be_bytes());
            let body = [name.as_slice(), data].concat();
            let mut crc = flate2::Crc::new();
            crc.update(&body);
            out.extend(body);
            out.extend(crc.sum().to_be_bytes());
        };
        let [height, width] = self.size;
        let mut head = [(width as u32).to_be_bytes(), (height as u32).to_be_bytes()].concat();
        head.extend([self.depth, self.color, 0, 0, u8::from(self.interlaced)]);
        chunk(b"IHDR", &head);
        self.more.iter().for_each(|(name, data)| chunk(name, data));
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&self.rows(samples)).unwrap();
        chunk(b"IDAT", &encoder.finish().unwrap());
        chunk(b"IEND", &[]);
        out
    }

    /// The rows of the image or, if it is interlaced, of the seven passes of Adam7; each row has
    /// the filter type "none".
    fn rows(&self, samples: &[u16]) -> Vec<u8> {
        const PASSES: [[usize; 4]; 7] = [
            [0, 0, 8, 8],
            [0, 4, 8, 8],
            [4, 0, 8, 4],
            [0, 2, 4, 4],
            [2, 0, 4, 2],
            [0, 1, 2, 2],
            [1, 0, 2, 1],
        ];
        let [height, width] = self.size;
        let each = samples.len() / (height * width);
        let passes = if self.interlaced { PASSES.to_vec() } else { vec![[0, 0, 1, 1]] };
        let mut out = Vec::new();
        for [y0, x0, dy, dx] in passes {
            for y in (y0..height).step_by(dy).filter(|_| x0 < width) {
                out.push(0);
                let (mut held, mut have) = (0u32, 0);
                for v in
                    (x0..width).step_by(dx).flat_map(|x| &samples[(y * width + x) * each..][..each])
                {
                    held = held << self.depth | u32::from(*v);
                    have += self.depth;
                    while have >= 8 {
                        have -= 8;
                        out.push((held >> have) as u8);
                    }
                }
                if have > 0 {
                    out.push((held << (8 - have)) as u8);
                }
            }
        }
        out
    }
}

fn read(bytes: &[u8], channel: Option<usize>) -> Vec<f64> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(at(&folder, "a.png"), bytes).unwrap();
    let select = Select { spacing: Some([1.0; 3]), channel, ..Select::default() };
    let volume = Volume::open(&at(&folder, "a.png"), &select).unwrap();
    volume.read::<f64>(&volume.grid().bounds()).unwrap()
}

#[test]
fn greys_of_any_depth_interlaced_or_not_are_read() {
    for depth in [1u8, 2, 4, 8, 16] {
        let most = (1u32 << depth) - 1;
        let samples: Vec<u16> = (0..11 * 13u32).map(|i| (i * 7 % (most + 1)) as u16).collect();
        // a grey sample of fewer than 8 bits is scaled to 0..=255
        let share = f64::from(if depth < 8 { 255 / most } else { 1 });
        let wanted: Vec<f64> = samples.iter().map(|v| f64::from(*v) * share).collect();
        for interlaced in [false, true] {
            let png = Png { interlaced, ..Png::grey(11, 13, depth) };
            assert_eq!(read(&png.bytes(&samples), None), wanted, "{depth} {interlaced}");
        }
        if depth < 16 {
            let more = vec![(b"tRNS", vec![0, 1])];
            let png = Png { more, ..Png::grey(11, 13, depth) };
            assert_eq!(read(&png.bytes(&samples), None), wanted, "{depth}, one grey transparent");
        }
    }
}

#[test]
fn a_palette_is_read_as_its_indices_and_colours_as_channels() {
    for depth in [2u8, 4, 8] {
        let samples: Vec<u16> = (0..5 * 7).map(|i| i % 4).collect();
        let wanted: Vec<f64> = samples.iter().map(|v| f64::from(*v)).collect();
        let more =
            vec![(b"PLTE", vec![9, 8, 7, 200, 100, 0, 1, 2, 3, 4, 5, 6]), (b"tRNS", vec![0])];
        let png = Png { color: 3, more, ..Png::grey(5, 7, depth) };
        assert_eq!(read(&png.bytes(&samples), None), wanted);
    }
    for (color, each) in [(2u8, 3usize), (4, 2), (6, 4)] {
        for depth in [8, 16] {
            let samples: Vec<u16> = (0..(5 * 7 * each) as u16).collect();
            let bytes = Png { color, ..Png::grey(5, 7, depth) }.bytes(&samples);
            for c in 0..each {
                let wanted: Vec<f64> =
                    samples.iter().skip(c).step_by(each).map(|v| f64::from(*v)).collect();
                assert_eq!(read(&bytes, Some(c)), wanted);
            }
        }
    }
}

#[test]
fn a_png_that_is_cut_or_claims_too_much_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let samples: Vec<u16> = (0..11 * 13).collect();
    let bytes = Png::grey(11, 13, 16).bytes(&samples);
    let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
    let refused = |bytes: &[u8]| {
        fs::write(at(&folder, "a.png"), bytes).unwrap();
        Volume::open(&at(&folder, "a.png"), &select).unwrap_err().to_string()
    };
    for length in [40, 100, bytes.len() - 9] {
        let error = refused(&bytes[..length]);
        assert!(error.contains("cannot be read as PNG"), "{error}");
    }
    assert!(refused(&bytes[..bytes.len() - 9]).contains("truncated"));
    let wide = Png::grey(1 << 20, 1 << 20, 8);
    assert!(refused(&wide.bytes_of_nothing()).contains("has only"));
}

impl Png {
    /// The bytes of a file whose header states `size`, but whose data are those of one pixel.
    fn bytes_of_nothing(&self) -> Vec<u8> {
        let small = Self::grey(1, 1, 8).bytes(&[0]);
        let mut out = small.clone();
        out[16..20].copy_from_slice(&(self.size[1] as u32).to_be_bytes());
        out[20..24].copy_from_slice(&(self.size[0] as u32).to_be_bytes());
        let mut crc = flate2::Crc::new();
        crc.update(&out[12..29]);
        out[29..33].copy_from_slice(&crc.sum().to_be_bytes());
        out
    }
}

/// The bytes of a `.npy` file.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((text.len() as u16).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn npy_of_bool_and_half_precision_is_read_as_the_next_wider_type() {
    let folder = tempfile::tempdir().unwrap();
    let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
    let halves = [0.5, -2.0, 65_504.0, 0.0, 1.0, 3.0].map(half::f16::from_f64);
    for (descr, dtype, data, wanted) in [
        ("|b1", Dtype::U8, vec![1, 0, 0, 1, 1, 0], [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]),
        ("<f2", Dtype::F32, halves.map(half::f16::to_le_bytes).concat(), halves.map(f64::from)),
        (">f2", Dtype::F32, halves.map(half::f16::to_be_bytes).concat(), halves.map(f64::from)),
        ("|i1", Dtype::I8, vec![255, 0, 1, 2, 128, 127], [-1.0, 0.0, 1.0, 2.0, -128.0, 127.0]),
    ] {
        fs::write(at(&folder, "a.npy"), npy(descr, "(1, 2, 3)", &data)).unwrap();
        let volume = Volume::open(&at(&folder, "a.npy"), &select).unwrap();
        assert_eq!(volume.dtype(), dtype);
        assert_eq!(volume.read::<f64>(&volume.grid().bounds()).unwrap(), wanted, "{descr}");
        let part = volume.read::<f64>(&Box3::new([0, 1, 1], [1, 2, 3])).unwrap();
        assert_eq!(part, wanted[4..], "{descr}");
    }
}

#[test]
fn npy_whose_shape_nothing_backs_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let select = Select { spacing: Some([1.0; 3]), ..Select::default() };
    let long = format!("({}4, 4)", "1, ".repeat(20_000));
    for (descr, shape, word) in [
        ("<u2", "(1000000, 1000000, 1000000)", "truncated"),
        ("<u2", "(4611686018427387904, 4, 2)", "truncated"),
        ("<u2", "(9223372036854775808, 1, 2)", "truncated"),
        ("<u2", "(0, 3, 4)", "no element"),
        ("<u2", "(2, 3)", "truncated"),
        ("<c8", "(1, 1, 1)", "\"<c8\""),
        ("<u2", "(1, -1, 1)", "no list of numbers"),
        ("<u2", &long, ""),
    ] {
        fs::write(at(&folder, "a.npy"), npy(descr, shape, &[0; 8])).unwrap();
        let error = Volume::open(&at(&folder, "a.npy"), &select).unwrap_err().to_string();
        assert!(error.contains(word) && error.len() < 600, "{error}");
    }
}
