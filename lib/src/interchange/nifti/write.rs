//! Writes displacement fields as NIfTI-1.

use std::io::Write;
use std::path::Path;

use super::super::read_error::ReadError;
use super::super::{Error, fields};
use super::VECTOR;
use crate::geom::{Box3, FieldSource, Grid};

/// Writes a field as NIfTI-1 with intent 1007 and lengths in units of `micrometres`, compressed if
/// the name ends with `.gz`. The format stores one component after the other, so the field is read
/// three times.
pub(in crate::interchange) fn write(
    path: &Path,
    field: &dyn FieldSource,
    micrometres: f64,
) -> Result<(), Error> {
    let grid = field.grid();
    let unfit = |message: String| ReadError::from(message).of(&path.display().to_string());
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
            for part in fields::slabs(&grid) {
                let bytes = component(field, &part, c, micrometres)?;
                out.write_all(&bytes).map_err(io)?;
            }
        }
        Ok(())
    };
    fields::write_atomically(path, |out| {
        if !compressed {
            return fill(out);
        }
        let mut packed = flate2::write::GzEncoder::new(out, flate2::Compression::new(4));
        fill(&mut packed)?;
        // `finish` reports errors of the last write, which dropping the encoder would hide
        packed.finish().map(drop).map_err(io)
    })
}

/// Component x, y or z (`c` is 0, 1 or 2) of the vectors of `part`, as little-endian
/// `f32` in units of `um` micrometres.
fn component(field: &dyn FieldSource, part: &Box3, c: usize, um: f64) -> Result<Vec<u8>, Error> {
    let vectors = field.read(part).map_err(Error::Field)?;
    Ok(vectors.iter().flat_map(|v| ((f64::from(v[2 - c]) / um) as f32).to_le_bytes()).collect())
}

/// The header of 352 bytes. Its axes are RAS, so x and y of LPS are negated.
pub(super) fn compose(grid: &Grid, micrometres: f64) -> Vec<u8> {
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
    // quaternion of a rotation by 180 degrees about z, then the offset
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
