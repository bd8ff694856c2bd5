//! Reads NumPy's `.npy` and `.npz` files, for reference data.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// An array converted to `f64` and to C order, with the shape that NumPy reports.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Array {
    /// Row `i` of a table.
    pub(crate) fn row(&self, i: usize) -> &[f64] {
        let width = self.shape[1];
        &self.values[i * width..][..width]
    }

    /// The number of rows of a table.
    pub(crate) fn rows(&self) -> usize {
        self.shape[0]
    }

    /// The first three values, such as a spacing or a shape.
    pub(crate) fn three(&self) -> [f64; 3] {
        self.values[..3].try_into().unwrap()
    }

    /// The array with its first three axes reversed, from x, y, z to z, y, x.
    pub(crate) fn reversed(&self) -> Self {
        let [nx, ny, nz] = self.shape[..3].try_into().unwrap();
        let tail: usize = self.shape[3..].iter().product();
        let mut values = Vec::with_capacity(self.values.len());
        for z in 0..nz {
            for y in 0..ny {
                for x in 0..nx {
                    let at = ((x * ny + y) * nz + z) * tail;
                    values.extend_from_slice(&self.values[at..at + tail]);
                }
            }
        }
        let mut shape = self.shape.clone();
        shape[..3].reverse();
        Self { shape, values }
    }
}

/// Reads the arrays of an `.npz` archive, by name.
pub(crate) fn read_npz(path: &Path) -> BTreeMap<String, Array> {
    let bytes = std::fs::read(path).unwrap();
    let number =
        |at: usize, n: usize| (0..n).rev().fold(0, |sum, i| sum << 8 | usize::from(bytes[at + i]));
    // the end record is at the end of the file and points to the central directory
    let end = bytes.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
    let (count, mut at) = (number(end + 10, 2), number(end + 16, 4));
    let mut arrays = BTreeMap::new();
    for _ in 0..count {
        let (method, packed) = (number(at + 10, 2), number(at + 20, 4));
        let [name_len, extra, comment] = [28, 30, 32].map(|o| number(at + o, 2));
        let name = std::str::from_utf8(&bytes[at + 46..at + 46 + name_len]).unwrap();
        let local = number(at + 42, 4);
        let start = local + 30 + number(local + 26, 2) + number(local + 28, 2);
        let stored = &bytes[start..start + packed];
        let mut plain = Vec::new();
        if method == 8 {
            flate2::read::DeflateDecoder::new(stored).read_to_end(&mut plain).unwrap();
        } else {
            plain.extend_from_slice(stored);
        }
        arrays.insert(name.trim_end_matches(".npy").to_owned(), parse(&plain));
        at += 46 + name_len + extra + comment;
    }
    arrays
}

/// Reads the array of an `.npy` file.
pub(crate) fn read_npy(path: &Path) -> Array {
    parse(&std::fs::read(path).unwrap())
}

fn parse(bytes: &[u8]) -> Array {
    let header_len = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..10 + header_len]).unwrap();
    let after = |key: &str| header[header.find(key).unwrap() + key.len()..].trim_start();
    let descr = after("'descr':").split('\'').nth(1).unwrap();
    let shape: Vec<usize> = after("'shape': (")
        .split(')')
        .next()
        .unwrap()
        .split(',')
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    let data = &bytes[10 + header_len..];
    let values: Vec<f64> = match descr {
        "<u2" => data.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b).into()).collect(),
        "<f4" => data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
        "<f8" => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        "<i8" => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        "|u1" | "|b1" => data.iter().map(|b| (*b).into()).collect(),
        other => panic!("no reader for {other}"),
    };
    assert_eq!(values.len(), shape.iter().product::<usize>());
    if after("'fortran_order':").starts_with("True") {
        in_c_order(&Array { shape, values })
    } else {
        Array { shape, values }
    }
}

fn in_c_order(array: &Array) -> Array {
    let values = (0..array.values.len())
        .map(|mut i| {
            let mut at = 0;
            let mut stride = array.values.len();
            for n in array.shape.iter().rev() {
                stride /= n;
                at += i % n * stride;
                i /= n;
            }
            array.values[at]
        })
        .collect();
    Array { shape: array.shape.clone(), values }
}
