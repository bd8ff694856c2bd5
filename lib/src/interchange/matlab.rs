//! MATLAB level 4 files, in which ITK writes transforms: a sequence of named matrices of numbers
//! (MAT-File Format, chapter 1, "Level 4 MAT-files").

/// A named matrix with its numbers in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) numbers: Vec<f64>,
}

/// The contents of a matrix header of 20 bytes.
struct MatrixHeader {
    big: bool,
    single: bool,
    count: usize,
    name: usize,
}

const HEAD: usize = 20;

fn head(bytes: &[u8]) -> Option<MatrixHeader> {
    let field = |i: usize, big: bool| {
        let four: [u8; 4] = bytes.get(4 * i..4 * i + 4)?.try_into().ok()?;
        Some(if big { i32::from_be_bytes(four) } else { i32::from_le_bytes(four) })
    };
    // type MOPT: M is the byte order (0 or 1), O is 0 (MATLAB) or 1 (row order, ITK), P the
    // precision
    for big in [false, true] {
        let kind = field(0, big)?;
        let [order, precision] = [kind / 1000, kind / 10 % 10];
        let fits = kind >= 0 && kind % 10 == 0 && order == i32::from(big) && precision <= 1;
        let [rows, columns, imaginary, name] =
            [field(1, big)?, field(2, big)?, field(3, big)?, field(4, big)?];
        let sane = |n: i32| (0..=1 << 28).contains(&n);
        if fits && imaginary == 0 && sane(rows) && sane(columns) && (1..=1024).contains(&name) {
            let count = (rows as usize).checked_mul(columns as usize)?;
            return Some(MatrixHeader { big, single: precision == 1, count, name: name as usize });
        }
    }
    None
}

/// Whether a file begins like a MATLAB level 4 file.
pub(super) fn is_level_4(start: &[u8]) -> bool {
    head(start).is_some_and(|head| {
        let name = start.get(HEAD..(HEAD + head.name - 1).min(start.len())).unwrap_or_default();
        !name.is_empty() && name.iter().all(|c| c.is_ascii_alphanumeric() || *c == b'_')
    })
}

/// Reads all matrices of a file.
pub(super) fn read(mut bytes: &[u8]) -> Result<Vec<Variable>, String> {
    let mut variables = Vec::new();
    while !bytes.is_empty() {
        let damaged =
            || format!("is a damaged MATLAB file: matrix {} is cut off", variables.len() + 1);
        let head = head(bytes).ok_or_else(damaged)?;
        let width = if head.single { 4 } else { 8 };
        let end = HEAD + head.name + head.count * width;
        let name = bytes.get(HEAD..HEAD + head.name).ok_or_else(damaged)?;
        let data = bytes.get(HEAD + head.name..end).ok_or_else(damaged)?;
        let number = |b: &[u8]| -> f64 {
            let mut eight = [0; 8];
            eight[..width].copy_from_slice(b);
            if head.big {
                eight[..width].reverse();
            }
            if head.single {
                f64::from(f32::from_le_bytes([eight[0], eight[1], eight[2], eight[3]]))
            } else {
                f64::from_le_bytes(eight)
            }
        };
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        variables.push(Variable { name, numbers: data.chunks_exact(width).map(number).collect() });
        bytes = &bytes[end..];
    }
    Ok(variables)
}

/// Writes column vectors of little-endian doubles.
pub(super) fn write(variables: &[Variable]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for variable in variables {
        let name = variable.name.len() as i32 + 1;
        for field in [0, variable.numbers.len() as i32, 1, 0, name] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(variable.name.as_bytes());
        bytes.push(0);
        bytes.extend(variable.numbers.iter().flat_map(|v| v.to_le_bytes()));
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Variable> {
        vec![
            Variable { name: "AffineTransform_double_3_3".into(), numbers: vec![1.0, 0.1, 1e-300] },
            Variable { name: "fixed".into(), numbers: vec![4.0, 5.0, 6.0] },
        ]
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = write(&sample());
        assert!(is_level_4(&bytes) && is_level_4(&bytes[..60]));
        assert_eq!(read(&bytes).unwrap(), sample());
    }

    #[test]
    fn single_precision_and_the_other_byte_order_are_read() {
        let mut bytes = Vec::new();
        for field in [1010, 2, 1, 0, 2] {
            bytes.extend(i32::to_be_bytes(field));
        }
        bytes.extend(b"a\0");
        bytes.extend([1.5f32, -2.0].iter().flat_map(|v| v.to_be_bytes()));
        let want = Variable { name: "a".into(), numbers: vec![1.5, -2.0] };
        assert_eq!(read(&bytes).unwrap(), [want]);
    }

    #[test]
    fn a_file_that_is_cut_off_or_is_another_is_told() {
        let bytes = write(&sample());
        assert!(read(&bytes[..bytes.len() - 1]).unwrap_err().contains("matrix 2 is cut off"));
        assert!(!is_level_4(b"MATLAB 5.0 MAT-file, Platform: GLNXA64"));
        assert!(!is_level_4(b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"));
    }
}
