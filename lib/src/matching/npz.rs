//! Reads the arrays of a NumPy `.npz` archive, for tests against reference data.

use std::io::Read;
use std::path::Path;

/// One array, converted to `f64`.
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f64>,
}

impl Array {
    /// Row `i` of a table.
    pub(super) fn row(&self, i: usize) -> &[f64] {
        let width = self.shape[1];
        &self.values[i * width..][..width]
    }

    pub(super) fn rows(&self) -> usize {
        self.shape[0]
    }
}

/// Reads the array `name` of the archive.
pub(super) fn array(path: &Path, name: &str) -> Array {
    let file = std::fs::read(path).unwrap();
    npy(&member(&file, &format!("{name}.npy")))
}

/// One file of a zip archive, found through its central directory.
fn member(zip: &[u8], name: &str) -> Vec<u8> {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes(zip[at..at + 2].try_into().unwrap()));
    let u32_at = |at: usize| u32::from_le_bytes(zip[at..at + 4].try_into().unwrap()) as usize;
    let end = zip.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
    let (count, mut at) = (u16_at(end + 10), u32_at(end + 16));
    for _ in 0..count {
        let (method, packed, length) = (u16_at(at + 10), u32_at(at + 20), u16_at(at + 28));
        if &zip[at + 46..at + 46 + length] == name.as_bytes() {
            let local = u32_at(at + 42);
            let from = local + 30 + u16_at(local + 26) + u16_at(local + 28);
            let data = &zip[from..from + packed];
            if method == 0 {
                return data.to_vec();
            }
            let mut out = Vec::new();
            flate2::read::DeflateDecoder::new(data).read_to_end(&mut out).unwrap();
            return out;
        }
        at += 46 + length + u16_at(at + 30) + u16_at(at + 32);
    }
    panic!("no {name} in the archive");
}

fn npy(bytes: &[u8]) -> Array {
    let length = usize::from(u16::from_le_bytes(bytes[8..10].try_into().unwrap()));
    let header = std::str::from_utf8(&bytes[10..10 + length]).unwrap();
    let between = |a: &str, b: &str| header.split(a).nth(1).unwrap().split(b).next().unwrap();
    let shape: Vec<usize> =
        between("'shape': (", ")").split(',').filter_map(|n| n.trim().parse().ok()).collect();
    let data = &bytes[10 + length..];
    let values: Vec<f64> = match between("'descr': '", "'") {
        "<f8" => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
        "<f4" => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
        "<i8" => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
        "|u1" => data.iter().map(|&b| f64::from(b)).collect(),
        other => panic!("dtype {other}"),
    };
    assert_eq!(values.len(), shape.iter().product::<usize>());
    if header.contains("'fortran_order': True") && shape.len() == 2 {
        let at = |i: usize| values[i % shape[1] * shape[0] + i / shape[1]];
        return Array { values: (0..values.len()).map(at).collect(), shape };
    }
    Array { shape, values }
}
