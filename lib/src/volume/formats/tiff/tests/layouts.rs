//! For every page layout, reading a box gives the same samples as slicing the whole array.

use half::f16;
use proptest::prelude::*;

use super::*;

/// A sample type: bits per sample, sample format (tag 339), and a function from a number to the
/// value of a sample and its bit pattern.
type Kind = (usize, u64, fn(i64) -> (f64, u64));

const KINDS: [Kind; 15] = [
    (8, 1, |v| ((v & 255) as f64, v as u64 & 255)),
    (16, 1, |v| ((v & 0xffff) as f64, v as u64 & 0xffff)),
    (32, 1, |v| ((v & 0xffff_ffff) as f64, v as u64 & 0xffff_ffff)),
    (64, 1, |v| ((v & 0xfff_ffff_ffff) as f64, v as u64 & 0xfff_ffff_ffff)),
    (8, 2, |v| (f64::from(v as i8), v as i8 as u64)),
    (16, 2, |v| (f64::from(v as i16), v as i16 as u64)),
    (32, 2, |v| (f64::from(v as i32), v as i32 as u64)),
    (64, 2, |v| (v as f64, v as u64)),
    (16, 3, |v| (f64::from(v as i8), f16::from_f64(f64::from(v as i8)).to_bits().into())),
    (32, 3, |v| (f64::from(v as i16) / 4.0, (f32::from(v as i16) / 4.0).to_bits().into())),
    (64, 3, |v| (v as f64 / 3.0, (v as f64 / 3.0).to_bits())),
    (1, 1, |v| ((v & 1) as f64, v as u64 & 1)),
    (4, 1, |v| ((v & 15) as f64, v as u64 & 15)),
    (12, 1, |v| ((v & 0xfff) as f64, v as u64 & 0xfff)),
    (24, 1, |v| ((v & 0xff_ffff) as f64, v as u64 & 0xff_ffff)),
];

#[derive(Clone, Debug)]
struct Layout {
    chunk: Chunk,
    compression: u64,
    predictor: bool,
    separate: bool,
    reversed: bool,
}

prop_compose! {
    fn layout()(
        tile in any::<bool>(),
        rows in 1usize..20,
        columns in 1usize..4,
        compression in prop::sample::select(vec![1u64, 5, 8, 32946, 32773, 34925, 50000]),
        predictor in any::<bool>(),
        separate in any::<bool>(),
        reversed in any::<bool>(),
    ) -> Layout {
        let chunk = if tile {
            Chunk::Tile(8 * rows.div_ceil(8), 8 * columns)
        } else {
            Chunk::Strip(rows)
        };
        Layout { chunk, compression, predictor, separate, reversed }
    }
}

fn page(size: [usize; 3], kind: Kind, layout: &Layout, seed: i64) -> (PageSpec, Vec<f64>) {
    let (bits, format, make) = kind;
    let numbers = (0..size.iter().product::<usize>() as i64)
        .map(|i| make((i + seed).wrapping_mul(0x9e37_79b9) >> 7));
    let (values, samples): (Vec<f64>, Vec<u64>) = numbers.unzip();
    let predictor = match (layout.predictor, format, bits) {
        (true, 3, _) => 3,
        (true, _, 8 | 16 | 32 | 64) => 2,
        _ => 1,
    };
    let spec = PageSpec {
        size,
        bits,
        format,
        samples,
        compression: layout.compression,
        predictor,
        chunk: layout.chunk,
        separate: layout.separate && size[2] > 1,
        reversed: layout.reversed,
        ..PageSpec::counting(1, 1, 0)
    };
    (spec, values)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn a_box_of_any_layout_of_pages_is_that_box_of_the_whole(
        kind in 0..KINDS.len(),
        size in [1usize..20, 1usize..30, 1usize..4],
        layouts in prop::collection::vec(layout(), 1..4),
        mixed in any::<bool>(),
        big in any::<bool>(),
        order in prop::sample::select(vec![ByteOrder::Little, ByteOrder::Big]),
        corner in [-2i64..20, -2i64..32],
        extent in [1i64..12, 1i64..20],
    ) {
        let [height, width, samples] = size;
        let (mut pages, mut values) = (Vec::new(), Vec::new());
        for (z, layout) in layouts.iter().enumerate() {
            let layout = if mixed { layout } else { &layouts[0] };
            let (page, of_page) = page(size, KINDS[kind], layout, z as i64 * 1000);
            pages.push(page);
            values.push(of_page);
        }
        let folder = Folder::new();
        let location = folder.bytes("a.tif", &file(&pages, order, big));
        for c in 0..samples {
            let select = Select { channel: (samples > 1).then_some(c), ..spaced() };
            let volume = Volume::open(&location, &select).unwrap();
            prop_assert_eq!(volume.grid().shape, [pages.len(), height, width]);
            let min = [0, corner[0], corner[1]];
            let part = Box3::new(min, [pages.len() as i64, corner[0] + extent[0], corner[1] + extent[1]]);
            let mut wanted = Vec::new();
            for page in &values {
                for y in part.min[1]..part.max[1] {
                    for x in part.min[2]..part.max[2] {
                        let inside = (0..height as i64).contains(&y) && (0..width as i64).contains(&x);
                        let at = (y * width as i64 + x) * samples as i64 + c as i64;
                        wanted.push(if inside { page[at as usize] } else { 0.0 });
                    }
                }
            }
            prop_assert_eq!(volume.read::<f64>(&part).unwrap(), wanted);
        }
    }
}

#[test]
fn strips_and_tiles_of_each_page_are_its_own() {
    let folder = Folder::new();
    let chunks = [Chunk::Strip(64), Chunk::Tile(16, 16), Chunk::Strip(8), Chunk::Tile(32, 16)];
    for compression in [1, 8] {
        let pages: Vec<PageSpec> = (0..4)
            .map(|z| PageSpec {
                chunk: chunks[z],
                compression,
                ..PageSpec::counting(64, 48, 64 * 48 * z as u64)
            })
            .collect();
        let volume = open(&folder.pages("a.tif", &pages)).unwrap();
        let wanted: Vec<f64> = (0..4 * 64 * 48).map(f64::from).collect();
        assert_eq!(read_whole(&volume), wanted);
    }
}

#[test]
fn stored_values_are_read_whatever_colour_they_are_said_to_be() {
    let folder = Folder::new();
    for interpretation in [0, 1, 3, 4, 32803, 34892] {
        let page = PageSpec { interpretation, ..PageSpec::counting(3, 5, 7) };
        let volume = open(&folder.pages("a.tif", &[page])).unwrap();
        assert_eq!(read_whole(&volume), (7..22).map(f64::from).collect::<Vec<_>>());
    }
    let page = PageSpec {
        format: 3,
        bits: 32,
        interpretation: 0,
        samples: (0..6).map(|i| (i as f32 / 2.0).to_bits().into()).collect(),
        ..PageSpec::counting(2, 3, 0)
    };
    let volume = open(&folder.pages("a.tif", &[page])).unwrap();
    assert_eq!(read_whole(&volume), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]);
}

#[test]
fn colours_are_channels_one_of_which_is_chosen() {
    let folder = Folder::new();
    let page = PageSpec {
        size: [2, 3, 3],
        bits: 8,
        samples: (0..18).collect(),
        interpretation: 2,
        ..PageSpec::counting(1, 1, 0)
    };
    let location = folder.pages("a.tif", &[page]);
    assert!(refusal(&location).contains("3 channels"));
    for c in 0..3u8 {
        let wanted: Vec<f64> = (0..6).map(|i| f64::from(3 * i + c)).collect();
        assert_eq!(read_whole(&channel(&location, c.into())), wanted);
    }
}
