//! Fill values, in all the spellings that occur in files.

use serde_json::Value;

use crate::volume::{ByteOrder, Dtype, Voxel, shorten};

/// The fill value as one stored element in the byte order `order`.
///
/// Version 3 allows numbers, `true` and `false`, `"NaN"`, `"Infinity"`, `"-Infinity"`, and the bits
/// of a float as `"0x7fc00000"`. Version 2 also allows `null` (undefined), which is read as 0.
/// n5-zarr writes numbers as strings.
///
/// # Errors
/// A value that the type cannot represent.
pub(super) fn fill(
    value: Option<&Value>,
    dtype: Dtype,
    order: ByteOrder,
) -> Result<Vec<u8>, String> {
    let bytes = match value {
        None | Some(Value::Null) => Some(vec![0; dtype.size()]),
        Some(Value::Bool(set)) => integer(i128::from(*set), dtype),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => integer(value.into(), dtype),
            (_, Some(value)) => integer(value.into(), dtype),
            _ => number.as_f64().and_then(|value| float(value, dtype)),
        },
        Some(Value::String(text)) => of_text(text.trim(), dtype),
        Some(_) => None,
    };
    let mut bytes = bytes.ok_or_else(|| {
        let shown = value.map(|value| shorten(&value.to_string())).unwrap_or_default();
        format!("has the fill_value {shown}, which is no {}", dtype.name())
    })?;
    if order == ByteOrder::Big {
        bytes.reverse();
    }
    Ok(bytes)
}

/// The fill value that a string denotes, little endian.
fn of_text(text: &str, dtype: Dtype) -> Option<Vec<u8>> {
    if let Some(digits) = text.strip_prefix("0x") {
        // `from_str_radix` would accept a sign
        let bits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let bits = bits.then(|| u64::from_str_radix(digits, 16).ok())??;
        let size = dtype.size();
        let fits = size == 8 || bits >> (8 * size) == 0;
        return fits.then(|| bits.to_le_bytes()[..size].to_vec());
    }
    match text {
        "NaN" | "Infinity" | "-Infinity" => float(text.parse().ok()?, dtype),
        "" => Some(vec![0; dtype.size()]),
        "true" | "True" => integer(1, dtype),
        "false" | "False" => integer(0, dtype),
        _ => match text.parse::<i128>() {
            Ok(value) => integer(value, dtype),
            Err(_) => float(text.parse().ok()?, dtype),
        },
    }
}

fn integer(value: i128, dtype: Dtype) -> Option<Vec<u8>> {
    let (bits, signed) = (8 * dtype.size() as u32, dtype.name().starts_with('i'));
    let range = match dtype {
        _ if !dtype.is_integer() => return float(value as f64, dtype),
        Dtype::Bool => 0..=1,
        _ if signed => -(1i128 << (bits - 1))..=(1i128 << (bits - 1)) - 1,
        _ => 0..=(1i128 << bits) - 1,
    };
    range.contains(&value).then(|| value.to_le_bytes()[..dtype.size()].to_vec())
}

fn float(value: f64, dtype: Dtype) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    match dtype {
        Dtype::F32 => f32::put(&[value as f32], ByteOrder::Little, &mut bytes),
        Dtype::F64 => f64::put(&[value], ByteOrder::Little, &mut bytes),
        Dtype::F16 => bytes.extend(half::f16::from_f64(value).to_le_bytes()),
        Dtype::BF16 => bytes.extend(half::bf16::from_f64(value).to_le_bytes()),
        Dtype::Bool if value == 0.0 || value == 1.0 => bytes.push(value as u8),
        _ if value.fract() == 0.0 && value.abs() < 1e18 => {
            return integer(value as i128, dtype);
        }
        _ => return None,
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn little(value: &Value, name: &str) -> Result<Vec<u8>, String> {
        fill(Some(value), Dtype::from_name(name).unwrap(), ByteOrder::Little)
    }

    #[test]
    fn every_spelling_of_a_fill_value_is_read() {
        for (value, name, bytes) in [
            (json!("0"), "uint8", vec![0]),
            (json!("7"), "uint16", vec![7, 0]),
            (json!(7.0), "uint16", vec![7, 0]),
            (json!(-2), "int16", vec![0xfe, 0xff]),
            (json!(null), "uint16", vec![0, 0]),
            (json!(""), "uint8", vec![0]),
            (json!(u64::MAX), "uint64", vec![0xff; 8]),
            (json!(true), "bool", vec![1]),
            (json!(1), "bool", vec![1]),
            (json!("NaN"), "float32", f32::NAN.to_le_bytes().to_vec()),
            (json!("-Infinity"), "float64", f64::NEG_INFINITY.to_le_bytes().to_vec()),
            (json!("0x7f800000"), "float32", f32::INFINITY.to_le_bytes().to_vec()),
            (json!("0x3c00"), "float16", vec![0, 0x3c]),
            (json!(1.5), "float32", 1.5f32.to_le_bytes().to_vec()),
            (json!("1.5"), "float64", 1.5f64.to_le_bytes().to_vec()),
        ] {
            assert_eq!(little(&value, name), Ok(bytes.clone()), "{value} {name}");
            let big = fill(Some(&value), Dtype::from_name(name).unwrap(), ByteOrder::Big);
            assert_eq!(big.unwrap().into_iter().rev().collect::<Vec<_>>(), bytes);
        }
        assert_eq!(fill(None, Dtype::Bool, ByteOrder::Little), Ok(vec![0]));
    }

    #[test]
    fn a_fill_value_that_the_type_cannot_have_is_named() {
        for (value, name) in [
            (json!(256), "uint8"),
            (json!(-1), "uint16"),
            (json!("NaN"), "uint16"),
            (json!(0.5), "uint8"),
            (json!(2), "bool"),
            (json!("0x123456789"), "float32"),
            (json!("0x+1"), "float32"),
            (json!("some"), "float32"),
            (json!([0]), "uint8"),
        ] {
            let error = little(&value, name).unwrap_err();
            assert!(error.contains("fill_value") && error.contains(name), "{error}");
        }
    }
}
