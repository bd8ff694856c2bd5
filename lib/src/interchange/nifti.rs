//! Displacement fields in NIfTI-1 and NIfTI-2
//! (<https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields>): dimension 5 is the vector
//! components, the intent is 1007 (or 1006). Only headers are read here; vectors are read in boxes
//! when needed.
//!
//! Positions in the header are RAS. Vectors of intent 1007 are LPS, as ITK, ANTs and greedy write
//! them; those of intent 1006 (displacements) are RAS (ITK: `NiftiImageIO`,
//! `ConvertRASDisplacementVectors`). NiftyReg and SPM, whose vectors have other meanings, are
//! recognised by `intent_name`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::read_error::ReadError;
use super::world::Placement;
use crate::volume::{ByteOrder, Dtype};

mod meaning;
#[cfg(test)]
mod tests;
mod write;

pub(super) use meaning::{Doubt, Meaning};
pub(super) use write::write;

const VECTOR: i32 = 1007;

/// The contents of a header.
#[derive(Clone, Debug)]
pub(super) struct NiftiHeader {
    pub(super) placement: Placement,
    pub(super) components: usize,
    pub(super) dtype: Dtype,
    pub(super) order: ByteOrder,
    pub(super) offset: u64,
    /// The factor by which stored numbers are multiplied.
    pub(super) slope: f64,
    /// Micrometres per unit of length, if stated.
    pub(super) micrometres: Option<f64>,
    /// The meaning of the vectors, or why it cannot be determined.
    pub(super) meaning: Result<Meaning, Doubt>,
    pub(super) gzip: bool,
    /// Whether an extension follows the header.
    pub(super) extended: bool,
    /// Assumptions, for warnings.
    pub(super) notes: Vec<String>,
}

/// The bytes of a header; each version has its own layout.
struct Bytes<'a> {
    data: &'a [u8],
    order: ByteOrder,
}

impl Bytes<'_> {
    fn take<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.data[at..at + N]);
        if self.order == ByteOrder::Big {
            bytes.reverse();
        }
        bytes
    }

    fn short(&self, at: usize) -> i32 {
        i32::from(i16::from_le_bytes(self.take(at)))
    }

    fn int(&self, at: usize) -> i32 {
        i32::from_le_bytes(self.take(at))
    }

    fn long(&self, at: usize) -> i64 {
        i64::from_le_bytes(self.take(at))
    }

    fn float(&self, at: usize) -> f64 {
        f64::from(f32::from_le_bytes(self.take(at)))
    }

    fn double(&self, at: usize) -> f64 {
        f64::from_le_bytes(self.take(at))
    }

    /// Reads a text of up to 16 characters.
    fn text(&self, at: usize) -> String {
        let bytes = &self.data[at..at + 16];
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
    }
}

/// The relevant header fields of either version.
struct RawHeader {
    dims: [i64; 8],
    datatype: i32,
    intent: i32,
    /// The first parameter of the intent.
    parameter: f64,
    name: String,
    pixdim: [f64; 8],
    offset: f64,
    slope: f64,
    intercept: f64,
    units: i32,
    codes: [i32; 2],
    quaternion: [f64; 6],
    rows: [[f64; 4]; 3],
}

/// Whether a file begins like NIfTI; `start` is decompressed.
pub(super) fn is_nifti(start: &[u8]) -> bool {
    version(start).is_some()
}

/// Whether a file begins like NIfTI and ends within its header; `start` is decompressed.
pub(super) fn is_cut(start: &[u8]) -> bool {
    let sizes = [348, 540].into_iter().filter(|size: &i32| (start.len() as i64) < i64::from(*size));
    let words: Vec<[u8; 4]> =
        sizes.flat_map(|size| [size.to_le_bytes(), size.to_be_bytes()]).collect();
    version(start).is_none() && words.iter().any(|word| start.starts_with(word))
}

/// The version, and the byte order as determined from the first number.
fn version(start: &[u8]) -> Option<(u8, ByteOrder)> {
    let first = start.get(..4)?;
    let size = [first[0], first[1], first[2], first[3]];
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let size = match order {
            ByteOrder::Little => i32::from_le_bytes(size),
            ByteOrder::Big => i32::from_be_bytes(size),
        };
        match size {
            348 if matches!(start.get(344..347), Some(b"n+1" | b"ni1")) => return Some((1, order)),
            540 if matches!(start.get(4..7), Some(b"n+2" | b"ni2")) => return Some((2, order)),
            _ => {}
        }
    }
    None
}

/// The first `count` bytes of a file, decompressed if it is gzip; and whether the file is gzip.
pub(super) fn start_of(path: &Path, count: u64) -> std::io::Result<(Vec<u8>, bool)> {
    let mut start = Vec::new();
    File::open(path)?.take(count).read_to_end(&mut start)?;
    if !start.starts_with(&[0x1f, 0x8b]) {
        return Ok((start, false));
    }
    let mut inside = Vec::new();
    let decoder = flate2::read::MultiGzDecoder::new(BufReader::new(File::open(path)?));
    match decoder.take(count).read_to_end(&mut inside) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && inside.len() < 544 => {
            let message = "it is gzip that is cut off; copy it again";
            Err(std::io::Error::new(error.kind(), message))
        }
        // another error is ignored; without a valid header, the caller refuses the file
        _ => Ok((inside, true)),
    }
}

/// Reads the header of a file.
pub(super) fn read(path: &Path) -> Result<NiftiHeader, ReadError> {
    let (data, gzip) = start_of(path, 544).map_err(ReadError::io)?;
    let (version, order) = version(&data).ok_or("is no NIfTI file")?;
    let need = if version == 1 { 348 } else { 540 };
    if data.len() < need {
        return Err("is a damaged NIfTI file: it ends within its header".into());
    }
    let bytes = Bytes { data: &data, order };
    let fields = if version == 1 { first(&bytes) } else { second(&bytes) };
    if matches!(&data[344..347], b"ni1") || (version == 2 && &data[4..7] == b"ni2") {
        return Err("is a pair of .hdr and .img; write it as one .nii file".into());
    }
    let extended = data.get(need).is_some_and(|flag| *flag != 0);
    Ok(NiftiHeader { extended, ..head(&fields, order, gzip)? })
}

fn first(b: &Bytes) -> RawHeader {
    RawHeader {
        dims: std::array::from_fn(|i| i64::from(b.short(40 + 2 * i))),
        datatype: b.short(70),
        intent: b.short(68),
        parameter: b.float(56),
        name: b.text(328),
        pixdim: std::array::from_fn(|i| b.float(76 + 4 * i)),
        offset: b.float(108),
        slope: b.float(112),
        intercept: b.float(116),
        units: i32::from(b.data[123]),
        codes: [b.short(252), b.short(254)],
        quaternion: std::array::from_fn(|i| b.float(256 + 4 * i)),
        rows: std::array::from_fn(|r| std::array::from_fn(|c| b.float(280 + 16 * r + 4 * c))),
    }
}

fn second(b: &Bytes) -> RawHeader {
    RawHeader {
        dims: std::array::from_fn(|i| b.long(16 + 8 * i)),
        datatype: b.short(12),
        intent: b.int(504),
        parameter: b.double(80),
        name: b.text(508),
        pixdim: std::array::from_fn(|i| b.double(104 + 8 * i)),
        offset: b.long(168) as f64,
        slope: b.double(176),
        intercept: b.double(184),
        units: b.int(500),
        codes: [b.int(344), b.int(348)],
        quaternion: std::array::from_fn(|i| b.double(352 + 8 * i)),
        rows: std::array::from_fn(|r| std::array::from_fn(|c| b.double(400 + 32 * r + 8 * c))),
    }
}

fn head(f: &RawHeader, order: ByteOrder, gzip: bool) -> Result<NiftiHeader, String> {
    let (shape, components) = shape(f)?;
    let meaning = meaning::of(f.intent, &f.name, f.parameter);
    let (slope, mut notes) = slope(f)?;
    let placement = placement(f, shape, &mut notes)?;
    let unit = f.units & 7;
    if !(0..=3).contains(&unit) {
        notes.push(format!("has the unit {unit} of lengths, which NIfTI does not know"));
    }
    Ok(NiftiHeader {
        placement,
        components,
        dtype: dtype(f.datatype)?,
        order,
        offset: if f.offset >= 348.0 { f.offset as u64 } else { 352 },
        slope,
        micrometres: match unit {
            1 => Some(1e6),
            2 => Some(1e3),
            3 => Some(1.0),
            _ => None,
        },
        meaning,
        gzip,
        extended: false,
        notes,
    })
}

/// The number of samples along z, y, x, and the number of components: dimension 5, or dimension 4
/// for writers that omit the time dimension.
fn shape(f: &RawHeader) -> Result<([usize; 3], usize), String> {
    let rank = f.dims[0];
    if !(1..=7).contains(&rank) {
        return Err(format!("is a damaged NIfTI file: it has {rank} dimensions"));
    }
    let listed = &f.dims[1..=rank as usize];
    if let Some(bad) = listed.iter().find(|n| **n < 1) {
        return Err(format!("is a damaged NIfTI file: it has the dimension {bad}"));
    }
    let dim = |i: usize| if i as i64 <= rank { f.dims[i] } else { 1 };
    let components = if rank == 4 { dim(4) } else { dim(5) };
    let times = if rank == 4 { 1 } else { dim(4) };
    if !matches!(components, 2 | 3) || times != 1 || dim(6) != 1 || dim(7) != 1 {
        return Err(format!(
            "has the dimensions {listed:?}; a displacement field has x, y, z, 1, 3"
        ));
    }
    Ok(([dim(3), dim(2), dim(1)].map(|n| n as usize), components as usize))
}

fn dtype(code: i32) -> Result<Dtype, String> {
    Ok(match code {
        2 => Dtype::U8,
        4 => Dtype::I16,
        8 => Dtype::I32,
        16 => Dtype::F32,
        64 => Dtype::F64,
        256 => Dtype::I8,
        512 => Dtype::U16,
        768 => Dtype::U32,
        other => {
            return Err(format!(
                "holds elements of type {other}; float32, float64 and integers of 8 to 32 bits can be read"
            ));
        }
    })
}

/// The factor by which stored numbers are multiplied: 1 if the slope is 0 or not finite (nifti1.h;
/// some writers leave NaN). Returns notes for warnings too.
fn slope(f: &RawHeader) -> Result<(f64, Vec<String>), String> {
    if f.slope == 0.0 || !f.slope.is_finite() {
        let is_invalid = !f.slope.is_finite();
        let note = || format!("has the slope {}, which means that numbers are not scaled", f.slope);
        return Ok((1.0, is_invalid.then(note).into_iter().collect()));
    }
    if f.intercept != 0.0 {
        return Err(format!("adds {} to what it stores, which vectors cannot mean", f.intercept));
    }
    Ok((f.slope, Vec::new()))
}

/// The sform if there is one, else the qform; a difference between them is noted.
fn placement(
    f: &RawHeader,
    shape: [usize; 3],
    notes: &mut Vec<String>,
) -> Result<Placement, String> {
    let sform = || Placement {
        shape,
        steps: std::array::from_fn(|c| f.rows.map(|row| row[c])),
        origin: f.rows.map(|row| row[3]),
    };
    match f.codes.map(|code| code > 0) {
        [true, true] => {
            let (one, other) = (sform(), qform(f, shape));
            let off = max_distance(&one, &other);
            if off > 0.01 {
                notes.push(format!(
                    "has a qform and an sform that differ by {off:.3} samples; the sform is taken"
                ));
            }
            Ok(one)
        }
        [false, true] => Ok(sform()),
        [true, false] => Ok(qform(f, shape)),
        [false, false] => Err("does not say where its samples lie (its qform and sform codes are 0); write it with an \
                  origin and a direction"
            .to_owned()),
    }
}

fn qform(f: &RawHeader, shape: [usize; 3]) -> Placement {
    let [b, c, d, ..] = f.quaternion;
    let a = (1.0 - b * b - c * c - d * d).max(0.0).sqrt();
    let mirrored = if f.pixdim[0] < 0.0 { -1.0 } else { 1.0 };
    let mut turn = [
        [a * a + b * b - c * c - d * d, 2.0 * (b * c - a * d), 2.0 * (b * d + a * c)],
        [2.0 * (b * c + a * d), a * a + c * c - b * b - d * d, 2.0 * (c * d - a * b)],
        [2.0 * (b * d - a * c), 2.0 * (c * d + a * b), a * a + d * d - c * c - b * b],
    ];
    for row in &mut turn {
        row[2] *= mirrored;
    }
    let spacing = [f.pixdim[1], f.pixdim[2], f.pixdim[3]];
    let origin = [f.quaternion[3], f.quaternion[4], f.quaternion[5]];
    Placement::new(shape, spacing, origin, &turn)
}

/// The largest distance between corresponding corners of two placements, in units of the smallest
/// step of `one`.
fn max_distance(one: &Placement, other: &Placement) -> f64 {
    let length = |v: [f64; 3]| v.iter().map(|v| v * v).sum::<f64>().sqrt();
    let step = one.steps.map(length).into_iter().fold(f64::INFINITY, f64::min);
    let [z, y, x] = one.shape;
    let mut most: f64 = 0.0;
    for corner in 0..8 {
        let at = [x, y, z].map(|n| n as f64 - 1.0);
        let at: [f64; 3] = std::array::from_fn(|a| if corner >> a & 1 == 1 { at[a] } else { 0.0 });
        let place = |p: &Placement| -> [f64; 3] {
            std::array::from_fn(|c| {
                p.origin[c] + (0..3).map(|a| at[a] * p.steps[a][c]).sum::<f64>()
            })
        };
        let (p, q) = (place(one), place(other));
        most = most.max(length(std::array::from_fn(|c| p[c] - q[c])) / step);
    }
    most
}
