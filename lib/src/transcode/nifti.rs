//! Displacement fields in NIfTI-1 and NIfTI-2 (<https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields>):
//! dimension 5 counts components, intent 1007 (or 1006). Heads only; vectors are read where they lie.
//!
//! The header's positions are RAS. Vectors of intent 1007 are LPS, as ITK, ANTs and greedy write them;
//! those of intent 1006 (displacements) are RAS (ITK: `NiftiImageIO`, `ConvertRASDisplacementVectors`).

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use super::Error;
use super::world::{Frame, Placement};
use crate::geom::{Box3, FieldSource, Grid};
use crate::volume::{ByteOrder, Dtype};

const VECTOR: i32 = 1007;
const DISPLACEMENT: i32 = 1006;

/// What a head says.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) placement: Placement,
    pub(super) components: usize,
    pub(super) dtype: Dtype,
    pub(super) order: ByteOrder,
    pub(super) offset: u64,
    /// What stored numbers are multiplied with.
    pub(super) slope: f64,
    /// Micrometres of the unit of its lengths, where it has one.
    pub(super) micrometres: Option<f64>,
    /// The frame of the vectors, where the intent says it.
    pub(super) vectors: Option<Frame>,
    pub(super) intent: i32,
    pub(super) gzip: bool,
}

/// Bytes of a head, of which each version has its own layout.
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
}

/// The fields that matter, of either version.
struct Fields {
    dims: [i64; 8],
    datatype: i32,
    intent: i32,
    pixdim: [f64; 8],
    offset: f64,
    slope: f64,
    intercept: f64,
    units: i32,
    codes: [i32; 2],
    quaternion: [f64; 6],
    rows: [[f64; 4]; 3],
}

/// Whether a (decompressed) file begins as NIfTI does.
pub(super) fn is_nifti(start: &[u8]) -> bool {
    version(start).is_some()
}

/// The version, and the byte order that its first number has.
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

/// The first `count` bytes of a file, decompressed where it is gzip; and whether it is.
pub(super) fn start_of(path: &Path, count: u64) -> std::io::Result<(Vec<u8>, bool)> {
    let mut start = Vec::new();
    File::open(path)?.take(count).read_to_end(&mut start)?;
    if !start.starts_with(&[0x1f, 0x8b]) {
        return Ok((start, false));
    }
    let mut inside = Vec::new();
    let decoder = flate2::read::MultiGzDecoder::new(BufReader::new(File::open(path)?));
    // what is no gzip after all is told by whoever looks for something in it
    let _ = decoder.take(count).read_to_end(&mut inside);
    Ok((inside, true))
}

/// Reads the head of a file.
pub(super) fn read(path: &Path) -> Result<Head, String> {
    let (data, gzip) = start_of(path, 544).map_err(|e| format!("cannot be read: {e}"))?;
    let (version, order) = version(&data).ok_or("is no NIfTI file")?;
    let need = if version == 1 { 348 } else { 540 };
    if data.len() < need {
        return Err("is a damaged NIfTI file: it ends within its header".to_owned());
    }
    let bytes = Bytes { data: &data, order };
    let fields = if version == 1 { first(&bytes) } else { second(&bytes) };
    if matches!(&data[344..347], b"ni1") || (version == 2 && &data[4..7] == b"ni2") {
        return Err("is a pair of .hdr and .img; write it as one .nii file".to_owned());
    }
    head(&fields, order, gzip)
}

fn first(b: &Bytes) -> Fields {
    Fields {
        dims: std::array::from_fn(|i| i64::from(b.short(40 + 2 * i))),
        datatype: b.short(70),
        intent: b.short(68),
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

fn second(b: &Bytes) -> Fields {
    Fields {
        dims: std::array::from_fn(|i| b.long(16 + 8 * i)),
        datatype: b.short(12),
        intent: b.int(504),
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

fn head(f: &Fields, order: ByteOrder, gzip: bool) -> Result<Head, String> {
    let rank = f.dims[0];
    if !(1..=7).contains(&rank) {
        return Err(format!("is a damaged NIfTI file: it has {rank} dimensions"));
    }
    let dim = |i: usize| if i as i64 <= rank { f.dims[i].max(1) } else { 1 };
    // some writers leave the dimension of time out
    let components = if rank == 4 { dim(4) } else { dim(5) };
    let times = if rank == 4 { 1 } else { dim(4) };
    if !matches!(components, 2 | 3) || times != 1 || dim(6) * dim(7) != 1 {
        return Err(format!(
            "has the dimensions {:?}; a displacement field has x, y, z, 1, 3",
            &f.dims[1..=rank as usize]
        ));
    }
    let dtype = match f.datatype {
        16 => Dtype::F32,
        64 => Dtype::F64,
        other => {
            return Err(format!("holds elements of type {other}; float32 and float64 can be read"));
        }
    };
    if f.intercept != 0.0 {
        return Err(format!("adds {} to what it stores, which vectors cannot mean", f.intercept));
    }
    let offset = if f.offset >= 348.0 { f.offset as u64 } else { 352 };
    Ok(Head {
        placement: placement(f, [dim(3), dim(2), dim(1)].map(|n| n as usize))?,
        components: components as usize,
        dtype,
        order,
        offset,
        slope: if f.slope == 0.0 { 1.0 } else { f.slope },
        micrometres: match f.units & 7 {
            1 => Some(1e6),
            2 => Some(1e3),
            3 => Some(1.0),
            _ => None,
        },
        vectors: match f.intent {
            VECTOR => Some(Frame::Lps),
            DISPLACEMENT => Some(Frame::Ras),
            _ => None,
        },
        intent: f.intent,
        gzip,
    })
}

/// The sform where there is one, else the qform.
fn placement(f: &Fields, shape: [usize; 3]) -> Result<Placement, String> {
    let [q, s] = f.codes;
    if s > 0 {
        let steps = std::array::from_fn(|c| f.rows.map(|row| row[c]));
        return Ok(Placement { shape, steps, origin: f.rows.map(|row| row[3]) });
    }
    if q <= 0 {
        return Err("does not say where its samples lie (its qform and sform codes are 0); write it with an \
                    origin and a direction"
            .to_owned());
    }
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
    Ok(Placement::new(shape, spacing, origin, &turn))
}

/// Writes a field as NIfTI-1 with intent 1007, its numbers in `micrometres` per unit; compressed where
/// the name ends with `.gz`. Components come one after another, so the field is read three times.
pub(super) fn write(path: &Path, field: &dyn FieldSource, micrometres: f64) -> Result<(), Error> {
    let grid = field.grid();
    let unfit = |message: String| Error::Unfit { location: path.display().to_string(), message };
    if let Some(long) = grid.shape.iter().find(|n| **n > 32767) {
        return Err(unfit(format!(
            "NIfTI holds at most 32767 samples along an axis, not {long}; use nrrd"
        )));
    }
    let io = |source| Error::Io { action: "write", path: path.display().to_string(), source };
    let compressed = path.extension().is_some_and(|e| e == "gz");
    let fill = |out: &mut dyn Write| {
        out.write_all(&compose(&grid, micrometres)).map_err(io)?;
        for c in 0..3 {
            for part in super::fields::slabs(&grid) {
                let bytes = component(field, &part, c, micrometres)?;
                out.write_all(&bytes).map_err(io)?;
            }
        }
        Ok(())
    };
    super::fields::write_beside(path, |out| {
        if !compressed {
            return fill(out);
        }
        let mut packed = flate2::write::GzEncoder::new(out, flate2::Compression::new(4));
        fill(&mut packed)?;
        // dropping it would hide that its last bytes could not be written
        packed.finish().map(drop).map_err(io)
    })
}

/// Component x, y or z of a part, little endian.
fn component(field: &dyn FieldSource, part: &Box3, c: usize, um: f64) -> Result<Vec<u8>, Error> {
    let vectors = field.read(part).map_err(Error::Field)?;
    Ok(vectors.iter().flat_map(|v| ((f64::from(v[2 - c]) / um) as f32).to_le_bytes()).collect())
}

/// A head of 352 bytes: LPS axes are minus RAS ones along x and y.
fn compose(grid: &Grid, micrometres: f64) -> Vec<u8> {
    let mut head = vec![0u8; 352];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &348i32.to_le_bytes());
    let [z, y, x] = grid.shape.map(|n| n as i16);
    for (i, n) in [5, x, y, z, 1, 3, 1, 1].into_iter().enumerate() {
        put(40 + 2 * i, &n.to_le_bytes());
    }
    for (at, value) in [(68, VECTOR as i16), (70, 16), (72, 32), (252, 1), (254, 1)] {
        put(at, &value.to_le_bytes());
    }
    let lengths = grid.spacing.map(|s| (s / micrometres) as f32);
    let corner = grid.origin.map(|o| (o / micrometres) as f32);
    let [dz, dy, dx] = lengths;
    for (i, value) in [1.0, dx, dy, dz, 0.0, 1.0].into_iter().enumerate() {
        put(76 + 4 * i, &f32::to_le_bytes(value));
    }
    put(108, &352f32.to_le_bytes());
    put(112, &1f32.to_le_bytes());
    let unit = if micrometres == 1e3 {
        2
    } else if micrometres == 1.0 {
        3
    } else {
        0
    };
    put(123, &[unit]);
    let [oz, oy, ox] = corner;
    // half a turn about z
    for (i, value) in [0.0, 0.0, 1.0, -ox, -oy, oz].into_iter().enumerate() {
        put(256 + 4 * i, &f32::to_le_bytes(value));
    }
    let rows = [[-dx, 0.0, 0.0, -ox], [0.0, -dy, 0.0, -oy], [0.0, 0.0, dz, oz]];
    for (i, value) in rows.into_iter().flatten().enumerate() {
        put(280 + 4 * i, &value.to_le_bytes());
    }
    put(344, b"n+1\0");
    head
}

#[cfg(test)]
mod tests {
    use super::super::world::World;
    use super::*;

    const RAS: World = World { frame: Frame::Ras, micrometres: 1e3 };

    fn grid() -> Grid {
        Grid::new([4, 5, 6], [3000.0, 2000.0, 1000.0], [7000.0, -8000.0, 9000.0])
    }

    fn read_bytes(bytes: &[u8]) -> Result<Head, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nii");
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    }

    #[test]
    fn a_head_of_ours_is_read_back() {
        let head = read_bytes(&compose(&grid(), 1e3)).unwrap();
        assert_eq!(head.placement.grid(RAS), (grid(), None));
        assert_eq!((head.components, head.dtype, head.offset), (3, Dtype::F32, 352));
        assert_eq!((head.vectors, head.micrometres), (Some(Frame::Lps), Some(1e3)));
    }

    #[test]
    fn a_qform_places_as_the_sform_does_and_neither_is_refused() {
        let mut bytes = compose(&grid(), 1e3);
        bytes[254..256].fill(0);
        let (there, turned) = read_bytes(&bytes).unwrap().placement.grid(RAS);
        assert!(turned.is_none(), "{turned:?}");
        for a in 0..3 {
            assert!((there.origin[a] - grid().origin[a]).abs() < 1e-9);
            assert!((there.spacing[a] - grid().spacing[a]).abs() < 1e-9);
        }
        bytes[252..254].fill(0);
        assert!(read_bytes(&bytes).unwrap_err().contains("where its samples lie"));
    }

    /// The same fields at the places of version 2 (nifti2.h).
    fn second_version(bytes: &[u8]) -> Vec<u8> {
        let b = Bytes { data: bytes, order: ByteOrder::Little };
        let mut out = vec![0u8; 544];
        let mut put = |at: usize, value: &[u8]| out[at..at + value.len()].copy_from_slice(value);
        put(0, &540i32.to_le_bytes());
        put(4, b"n+2\0\r\n\x1a\n");
        put(12, &(b.short(70) as i16).to_le_bytes());
        for i in 0..8 {
            put(16 + 8 * i, &i64::from(b.short(40 + 2 * i)).to_le_bytes());
            put(104 + 8 * i, &b.float(76 + 4 * i).to_le_bytes());
        }
        put(168, &544i64.to_le_bytes());
        put(176, &b.float(112).to_le_bytes());
        put(344, &b.short(252).to_le_bytes());
        put(348, &b.short(254).to_le_bytes());
        for i in 0..6 {
            put(352 + 8 * i, &b.float(256 + 4 * i).to_le_bytes());
        }
        for i in 0..12 {
            put(400 + 8 * i, &b.float(280 + 4 * i).to_le_bytes());
        }
        put(500, &i32::from(bytes[123]).to_le_bytes());
        put(504, &b.short(68).to_le_bytes());
        out
    }

    #[test]
    fn version_2_says_the_same_at_other_places() {
        let head = read_bytes(&second_version(&compose(&grid(), 1e3))).unwrap();
        assert_eq!(head.placement.grid(RAS), (grid(), None));
        assert_eq!((head.components, head.offset, head.intent), (3, 544, VECTOR));
    }

    #[test]
    fn no_damage_to_a_head_makes_a_panic() {
        let whole = compose(&grid(), 1e3);
        for length in 0..whole.len() {
            let _ = read_bytes(&whole[..length]);
        }
        for at in 0..whole.len() {
            for value in [0, 0xff, 0x80] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = read_bytes(&bytes);
            }
        }
    }
}
