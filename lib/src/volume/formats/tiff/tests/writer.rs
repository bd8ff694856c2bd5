//! TIFF files built byte by byte, with arbitrary tags.

use std::io::Write;

use crate::volume::dtype::ByteOrder;

pub(super) const SHORT: u16 = 3;
pub(super) const LONG: u16 = 4;

/// The specification of a page.
#[derive(Clone, Debug)]
pub(super) struct PageSpec {
    /// Rows, columns, samples per pixel.
    pub(super) size: [usize; 3],
    pub(super) bits: usize,
    /// The sample format, tag 339.
    pub(super) format: u64,
    /// The bit patterns of the samples, in the order rows, columns, samples.
    pub(super) samples: Vec<u64>,
    pub(super) compression: u64,
    pub(super) predictor: u64,
    /// The rows of a strip, or the rows and columns of a tile.
    pub(super) chunk: Chunk,
    pub(super) separate: bool,
    pub(super) reversed: bool,
    pub(super) interpretation: u64,
    pub(super) description: Vec<u8>,
    /// Additional tags: number, type, values.
    pub(super) more: Vec<(u16, u16, Vec<u64>)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Chunk {
    Strip(usize),
    Tile(usize, usize),
}

impl PageSpec {
    /// An uncompressed page of 16-bit samples that count up from `first`.
    pub(super) fn counting(height: usize, width: usize, first: u64) -> Self {
        Self {
            size: [height, width, 1],
            bits: 16,
            format: 1,
            samples: (0..(height * width) as u64).map(|i| (first + i) & 0xffff).collect(),
            compression: 1,
            predictor: 1,
            chunk: Chunk::Strip(height),
            separate: false,
            reversed: false,
            interpretation: 1,
            description: Vec::new(),
            more: Vec::new(),
        }
    }

    /// The encoded strips or tiles.
    fn chunks(&self, order: ByteOrder) -> Vec<Vec<u8>> {
        let [height, width, samples] = self.size;
        let [down, across] = match self.chunk {
            Chunk::Strip(rows) => [rows, width],
            Chunk::Tile(rows, columns) => [rows, columns],
        };
        let planes: Vec<Vec<usize>> = if self.separate {
            (0..samples).map(|s| vec![s]).collect()
        } else {
            vec![(0..samples).collect()]
        };
        let mut out = Vec::new();
        for plane in planes {
            for y in (0..height).step_by(down) {
                for x in (0..width).step_by(across) {
                    let end =
                        if matches!(self.chunk, Chunk::Strip(_)) { height } else { usize::MAX };
                    let rows = (y..y + down).filter(|y| *y < end).map(|y| {
                        let columns = (x..x + across).flat_map(|x| {
                            plane.iter().map(move |s| {
                                let inside = y < height && x < width;
                                if inside { self.samples[(y * width + x) * samples + s] } else { 7 }
                            })
                        });
                        self.row(columns.collect(), plane.len(), order)
                    });
                    out.push(self.compress(rows.flatten().collect()));
                }
            }
        }
        out
    }

    fn row(&self, mut row: Vec<u64>, step: usize, order: ByteOrder) -> Vec<u8> {
        if self.predictor == 2 {
            for i in (step..row.len()).rev() {
                row[i] = row[i].wrapping_sub(row[i - step]);
            }
        }
        let size = self.bits / 8;
        if !self.bits.is_multiple_of(8) {
            return pack(&row, self.bits);
        }
        if self.predictor == 3 {
            let mut sorted: Vec<u8> = (0..size)
                .flat_map(|b| row.iter().map(move |v| (v >> (8 * (size - 1 - b))) as u8))
                .collect();
            for i in (step..sorted.len()).rev() {
                sorted[i] = sorted[i].wrapping_sub(sorted[i - step]);
            }
            return sorted;
        }
        row.iter().flat_map(|v| number(*v, size, order)).collect()
    }

    fn compress(&self, bytes: Vec<u8>) -> Vec<u8> {
        let mut stored = match self.compression {
            5 => weezl::encode::Encoder::with_tiff_size_switch(weezl::BitOrder::Msb, 8)
                .encode(&bytes)
                .unwrap(),
            8 | 32946 => {
                let mut encoder =
                    flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&bytes).unwrap();
                encoder.finish().unwrap()
            }
            32773 => pack_bits(&bytes),
            34925 => {
                let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(&bytes).unwrap();
                encoder.finish().unwrap()
            }
            50000 => zstd::encode_all(bytes.as_slice(), 1).unwrap(),
            // other compressions are refused, so their content does not matter
            _ => bytes,
        };
        if self.reversed {
            stored.iter_mut().for_each(|byte| *byte = byte.reverse_bits());
        }
        stored
    }
}

fn pack(row: &[u64], bits: usize) -> Vec<u8> {
    let mut out = vec![0u8; (row.len() * bits).div_ceil(8)];
    for (i, v) in row.iter().enumerate() {
        for b in 0..bits {
            let at = i * bits + b;
            out[at / 8] |= ((v >> (bits - 1 - b) & 1) as u8) << (7 - at % 8);
        }
    }
    out
}

/// `PackBits` encoding: repeated bytes as runs, others as single bytes.
fn pack_bits(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        for run in run.chunks(128) {
            out.extend([(1 - run.len() as i32) as u8, run[0]]);
        }
    }
    out
}

fn number(v: u64, size: usize, order: ByteOrder) -> Vec<u8> {
    match order {
        ByteOrder::Little => v.to_le_bytes()[..size].to_vec(),
        ByteOrder::Big => v.to_be_bytes()[8 - size..].to_vec(),
    }
}

/// A file with these pages; each directory follows its data.
pub(super) fn file(pages: &[PageSpec], order: ByteOrder, big: bool) -> Vec<u8> {
    let word = if big { 8 } else { 4 };
    let mut out = if order == ByteOrder::Little { b"II".to_vec() } else { b"MM".to_vec() };
    out.extend(number(if big { 43 } else { 42 }, 2, order));
    if big {
        out.extend(number(8, 2, order));
        out.extend([0, 0]);
    }
    let mut link = out.len();
    out.extend(vec![0; word]);
    for page in pages {
        let mut places = Vec::new();
        for chunk in page.chunks(order) {
            places.push((out.len() as u64, chunk.len() as u64));
            out.extend(chunk);
        }
        let mut tags = tags(page, &places);
        tags.sort_by_key(|(tag, _, _)| *tag);
        let mut entries = Vec::new();
        for (tag, kind, values) in tags {
            let size = match kind {
                1 | 2 | 7 => 1,
                SHORT => 2,
                LONG | 5 => 4,
                _ => 8,
            };
            let bytes: Vec<u8> = values.iter().flat_map(|v| number(*v, size, order)).collect();
            entries.extend(number(tag.into(), 2, order));
            entries.extend(number(kind.into(), 2, order));
            entries.extend(number(
                values.len() as u64 / if kind == 5 { 2 } else { 1 },
                word,
                order,
            ));
            if bytes.len() <= word {
                entries.extend(&bytes);
                entries.extend(vec![0; word - bytes.len()]);
            } else {
                entries.extend(number(out.len() as u64, word, order));
                out.extend(bytes);
            }
        }
        let here = number(out.len() as u64, word, order);
        out[link..link + word].copy_from_slice(&here);
        let count = entries.len() / if big { 20 } else { 12 };
        out.extend(number(count as u64, if big { 8 } else { 2 }, order));
        out.extend(entries);
        link = out.len();
        out.extend(vec![0; word]);
    }
    out
}

fn tags(page: &PageSpec, places: &[(u64, u64)]) -> Vec<(u16, u16, Vec<u64>)> {
    let [height, width, samples] = page.size;
    let one = |tag, value| (tag, LONG, vec![value]);
    let each = |tag, value| (tag, SHORT, vec![value; samples]);
    let mut tags = vec![
        one(256, width as u64),
        one(257, height as u64),
        each(258, page.bits as u64),
        one(259, page.compression),
        one(262, page.interpretation),
        one(277, samples as u64),
        each(339, page.format),
    ];
    let offsets = places.iter().map(|p| p.0).collect();
    let counts = places.iter().map(|p| p.1).collect();
    match page.chunk {
        Chunk::Strip(rows) => {
            tags.push(one(278, rows as u64));
            tags.extend([(273, LONG, offsets), (279, LONG, counts)]);
        }
        Chunk::Tile(rows, columns) => {
            tags.extend([one(322, columns as u64), one(323, rows as u64)]);
            tags.extend([(324, LONG, offsets), (325, LONG, counts)]);
        }
    }
    if page.separate {
        tags.push(one(284, 2));
    }
    if page.predictor != 1 {
        tags.push(one(317, page.predictor));
    }
    if page.reversed {
        tags.push(one(266, 2));
    }
    if !page.description.is_empty() {
        let text = page.description.iter().map(|b| u64::from(*b)).chain([0]);
        tags.push((270, 2, text.collect()));
    }
    tags.retain(|(tag, _, _)| page.more.iter().all(|(other, _, _)| other != tag));
    tags.extend(page.more.iter().filter(|(_, _, values)| !values.is_empty()).cloned());
    tags
}
