//! Uncompressed TIFF whose layout is fixed before any voxel is known: first all directories, then
//! the planes one after another, which ImageJ can read as a contiguous stack. `BigTIFF` is used
//! where 32-bit offsets are too small.

use crate::geom::Grid;
use crate::volume::Dtype;

/// The layout of a file.
pub(in crate::volume) struct Plan {
    /// Everything before the first plane.
    pub(in crate::volume) head: Vec<u8>,
}

const SHORT: u16 = 3;
const LONG: u16 = 4;
const RATIONAL: u16 = 5;
const ASCII: u16 = 2;
const LONG8: u16 = 16;

/// The field widths of TIFF or `BigTIFF`.
struct Dialect {
    big: bool,
}

impl Dialect {
    fn word(&self, out: &mut Vec<u8>, value: u64) {
        if self.big {
            out.extend(value.to_le_bytes());
        } else {
            out.extend((value as u32).to_le_bytes());
        }
    }

    fn entry(&self, out: &mut Vec<u8>, tag: u16, kind: u16, count: u64, value: u64) {
        out.extend(tag.to_le_bytes());
        out.extend(kind.to_le_bytes());
        self.word(out, count);
        self.word(out, value);
    }

    fn header_size(&self) -> u64 {
        if self.big { 16 } else { 8 }
    }

    fn directory_size(&self, entries: u64) -> u64 {
        if self.big { 8 + 20 * entries + 8 } else { 2 + 12 * entries + 4 }
    }
}

impl Plan {
    /// Lays out the file for a volume of this grid and element type.
    pub(in crate::volume) fn new(grid: &Grid, dtype: Dtype) -> Self {
        let [planes, height, width] = grid.shape.map(|n| n as u64);
        let plane = height * width * dtype.size() as u64;
        let text = description(grid);
        // a directory has at most 300 bytes
        let size = planes * (plane + 300) + text.len() as u64;
        let dialect = Dialect { big: size > u64::from(u32::MAX) - (1 << 20) };
        let entries = 14;
        let first = dialect.header_size();
        let directory = dialect.directory_size(entries);
        let text_at = first + directory * planes;
        let resolutions_at = (text_at + text.len() as u64).next_multiple_of(8);
        let data_at = (resolutions_at + 16).next_multiple_of(64);
        let resolutions = [grid.spacing[2], grid.spacing[1]].map(per_micrometer);
        // a rational has eight bytes, which BigTIFF stores inline in the directory
        let resolution_field = |a: u64| {
            if dialect.big { resolutions[a as usize] } else { resolutions_at + 8 * a }
        };
        let offset = if dialect.big { LONG8 } else { LONG };

        let mut head = Vec::with_capacity(data_at as usize);
        head.extend(if dialect.big { b"II\x2b\0\x08\0\0\0".as_slice() } else { b"II\x2a\0" });
        dialect.word(&mut head, first);
        for z in 0..planes {
            let next = if z + 1 < planes { first + (z + 1) * directory } else { 0 };
            if dialect.big {
                head.extend(entries.to_le_bytes());
            } else {
                head.extend((entries as u16).to_le_bytes());
            }
            for (tag, kind, count, value) in [
                (256, LONG, 1, width),
                (257, LONG, 1, height),
                (258, SHORT, 1, 8 * dtype.size() as u64),
                (259, SHORT, 1, 1), // no compression
                (262, SHORT, 1, 1), // black is zero
                (270, ASCII, text.len() as u64, text_at),
                (273, offset, 1, data_at + z * plane),
                (277, SHORT, 1, 1), // samples per pixel
                (278, LONG, 1, height),
                (279, offset, 1, plane),
                (282, RATIONAL, 1, resolution_field(0)),
                (283, RATIONAL, 1, resolution_field(1)),
                (296, SHORT, 1, 1), // the unit of the resolutions is in the description
                (339, SHORT, 1, sample_format(dtype)),
            ] {
                dialect.entry(&mut head, tag, kind, count, value);
            }
            dialect.word(&mut head, next);
        }
        head.extend(text.as_bytes());
        head.resize(resolutions_at as usize, 0);
        head.extend(resolutions.iter().flat_map(|r| r.to_le_bytes()));
        head.resize(data_at as usize, 0);
        Self { head }
    }
}

/// The `SampleFormat` code: unsigned, signed or floating-point.
fn sample_format(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64 => 2,
        Dtype::F16 | Dtype::F32 | Dtype::F64 => 3,
        _ => 1,
    }
}

/// ImageJ's description, NUL-terminated. Its origin is the index of the voxel at position 0.
fn description(grid: &Grid) -> String {
    let slices = grid.shape[0];
    let mut text = format!("ImageJ=1.53t\nimages={slices}\nslices={slices}\nunit=micron\n");
    if !grid.planar {
        text.push_str(&format!("spacing={}\n", grid.spacing[0]));
    }
    text.push_str("loop=false\n");
    for (a, name) in ["zorigin", "yorigin", "xorigin"].into_iter().enumerate() {
        if grid.origin[a] != 0.0 {
            text.extend([name, "=", &(-grid.origin[a] / grid.spacing[a]).to_string(), "\n"]);
        }
    }
    text.push('\0');
    text
}

/// Pixels per micrometre as a TIFF rational: the best fraction whose terms fit 32 bits, by
/// continued fractions.
fn per_micrometer(spacing: f64) -> u64 {
    let (mut p, mut q) = ([1.0, 0.0], [0.0, 1.0]);
    let mut x = spacing;
    for _ in 0..64 {
        let whole = x.floor();
        let (next_p, next_q) = (whole * p[0] + p[1], whole * q[0] + q[1]);
        if next_p > f64::from(u32::MAX) || next_q > f64::from(u32::MAX) {
            break;
        }
        (p, q) = ([next_p, p[0]], [next_q, q[0]]);
        if x - whole < 1e-12 || (p[0] / q[0] - spacing).abs() <= f64::EPSILON * spacing {
            break;
        }
        x = 1.0 / (x - whole);
    }
    // the fraction p / q approximates the spacing: its inverse has the numerator q, which comes
    // first
    q[0] as u64 | (p[0] as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spacing_survives_as_a_rational() {
        for spacing in [1.68, 0.23, 1.0, 40.0, 0.006_5, 1.0 / 3.0] {
            let packed = per_micrometer(spacing);
            let back = f64::from((packed >> 32) as u32) / f64::from(packed as u32);
            assert!((back - spacing).abs() < 1e-12 * spacing, "{spacing} {back}");
        }
    }
}
