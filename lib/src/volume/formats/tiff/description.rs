//! Parses the description of a file's first page: ImageJ's lines, tifffile's JSON or OME-XML.

use serde_json::Value;

use super::ome::Ome;
use crate::volume::calibration::micrometers;

/// The stack formed by the pages of a file, and its voxel size.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Description {
    /// The dimensions other than y and x with their sizes, slowest first, named `t`, `c`, `z`.
    pub(super) pages: Vec<(char, u64)>,
    /// Spacing along z, y, x in micrometres, as far as stated.
    pub(super) spacing: [Option<f64>; 3],
    /// ImageJ's origin: the index (z, y, x) of the voxel at position 0.
    pub(super) zero: [f64; 3],
    /// The length in micrometres of the unit of the resolution tags along y and x, if it is stated.
    pub(super) unit: [Option<f64>; 2],
    /// Whether planes may follow the first one without directories of their own.
    pub(super) contiguous: bool,
    /// A warning for the user about an ambiguous description.
    pub(super) remark: Option<String>,
    /// The name of the metadata, for messages.
    pub(super) source: &'static str,
}

/// A description in one of the supported formats.
pub(super) enum ParsedDescription {
    /// The single stack of a file.
    Stack(Description),
    /// The images of OME-XML.
    Images(Ome),
    /// No known description.
    Nothing,
}

/// Parses a description; `page` holds the numbers of rows, columns and samples per pixel of the
/// first page.
///
/// # Errors
/// A message about a contradiction between the description and the pages.
pub(super) fn parse(bytes: &[u8], page: [u64; 3]) -> Result<ParsedDescription, String> {
    let text = text(bytes);
    if text.starts_with("ImageJ=") {
        return Ok(ParsedDescription::Stack(imagej(&text)));
    }
    if text.trim_start().starts_with('{') {
        let value = serde_json::from_str::<Value>(text.trim());
        if let Some(shape) = value.as_ref().ok().and_then(|value| numbers(value.get("shape")?)) {
            return tifffile(&value.unwrap_or_default(), &shape, page)
                .map(ParsedDescription::Stack);
        }
    }
    // the spelling of tifffile before 2017
    if let Some(shape) = text.strip_prefix("shape=(").and_then(|rest| rest.split_once(')')) {
        let shape: Result<Vec<u64>, _> =
            shape.0.split(',').map(str::trim).filter(|n| !n.is_empty()).map(str::parse).collect();
        if let Ok(shape) = shape {
            return tifffile(&Value::Null, &shape, page).map(ParsedDescription::Stack);
        }
    }
    if text.contains("<OME") || text.contains(":OME") {
        return Ome::parse(&text).map(ParsedDescription::Images);
    }
    Ok(ParsedDescription::Nothing)
}

/// Decodes UTF-8 or, as ImageJ writes it, Latin-1.
fn text(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Replaces Java's escapes for non-ASCII characters, such as `\u00B5`.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\u") {
        let code = after.get(..4).and_then(|code| u32::from_str_radix(code, 16).ok());
        out.push_str(before);
        if let Some(letter) = code.and_then(char::from_u32) {
            out.push(letter);
            rest = &after[4..];
        } else {
            out.push_str("\\u");
            rest = after;
        }
    }
    out + rest
}

/// Parses `key=value` lines; pages are in the order channels (fastest), slices, frames.
fn imagej(text: &str) -> Description {
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=').map(str::trim))
    };
    let count = |key: &str| value(key).and_then(|v| v.parse::<u64>().ok());
    let number = |key: &str| value(key).and_then(|v| v.parse::<f64>().ok());
    let (channels, slices, frames) = (count("channels"), count("slices"), count("frames"));
    let pages = if channels.is_none() && slices.is_none() && frames.is_none() {
        vec![('z', count("images").unwrap_or(1))]
    } else {
        let (t, z, c) = (frames.unwrap_or(1), slices.unwrap_or(1), channels.unwrap_or(1));
        vec![('t', t), ('z', z), ('c', c)]
    };
    let unit = |key: &str| value(key).map(|unit| micrometers(&unescape(unit)));
    let all = unit("unit");
    // axes may have individual units
    let [unit_z, unit_y] = ["zunit", "yunit"].map(|key| unit(key).or(all).flatten());
    let depth = number("spacing").zip(unit_z).map(|(spacing, unit)| (spacing * unit).abs());
    Description {
        pages,
        spacing: [depth, None, None],
        zero: ["zorigin", "yorigin", "xorigin"]
            .map(|key| number(key).filter(|v| v.is_finite()).unwrap_or(0.0)),
        unit: [unit_y, all.flatten()],
        contiguous: true,
        source: "ImageJ metadata",
        ..Description::default()
    }
}

/// The elements of a JSON array of integers.
fn numbers(value: &Value) -> Option<Vec<u64>> {
    value.as_array()?.iter().map(Value::as_u64).collect()
}

/// Parses `{"shape": [...], "axes": "..."}`: all dimensions except rows, columns and samples are
/// pages.
fn tifffile(value: &Value, shape: &[u64], page: [u64; 3]) -> Result<Description, String> {
    let axes = value.get("axes").and_then(Value::as_str).map(str::to_lowercase);
    let named = axes.filter(|axes| axes.chars().count() == shape.len());
    let [height, width, samples] = page;
    let (pages, remark) = if let Some(axes) = named {
        let all = || axes.chars().zip(shape.iter().copied());
        let inside = [('y', height), ('x', width), ('s', samples)];
        for (name, found) in inside {
            if let Some((_, stated)) = all().find(|(axis, _)| *axis == name)
                && stated != found
            {
                return Err(format!(
                    "says that its dimension {name} has {stated} elements, its pages have {found}"
                ));
            }
        }
        (rename(all().filter(|(axis, _)| !"yxs".contains(*axis)).collect()), None)
    } else {
        unnamed(shape, page)?
    };
    let unit = value.get("unit").and_then(Value::as_str).and_then(micrometers);
    let depth = value.get("spacing").and_then(Value::as_f64);
    Ok(Description {
        pages,
        spacing: [depth.zip(unit).map(|(depth, unit)| (depth * unit).abs()), None, None],
        unit: [unit; 2],
        contiguous: value.get("truncated").and_then(Value::as_bool).unwrap_or(false),
        remark,
        source: "tifffile's metadata",
        ..Description::default()
    })
}

/// Renames a single dimension of unknown meaning to z, if there is no z.
fn rename(mut pages: Vec<(char, u64)>) -> Vec<(char, u64)> {
    if pages.iter().all(|(name, _)| *name != 'z')
        && let [only] = pages
            .iter_mut()
            .filter(|(name, _)| "qi".contains(*name))
            .collect::<Vec<_>>()
            .as_mut_slice()
    {
        only.0 = 'z';
    }
    pages
}

/// The page dimensions of a shape whose dimensions have no names: those before rows and columns,
/// combined to one, z. Also returns a warning if several dimensions were combined.
fn unnamed(shape: &[u64], page: [u64; 3]) -> Result<(Vec<(char, u64)>, Option<String>), String> {
    let [height, width, samples] = page;
    let endings: [&[u64]; 3] =
        [&[height, width, samples], &[samples, height, width], &[height, width]];
    let ending = endings.iter().find(|ending| {
        // the endings with samples are tried only if a pixel has several samples
        shape.ends_with(ending) && (ending.len() == 2 || samples > 1)
    });
    let Some(ending) = ending else {
        return Err(format!(
            "says that its shape is {}, and its pages have {height} x {width} pixels",
            crate::volume::shorten(&format!("{shape:?}"))
        ));
    };
    let before = &shape[..shape.len() - ending.len()];
    let several = before.iter().filter(|n| **n > 1).count();
    let count = before.iter().try_fold(1u64, |a, b| a.checked_mul(*b));
    let count = count.ok_or("says that it has more pages than can be counted")?;
    let remark = (several > 1).then(|| {
        format!(
            "its {} dimensions {shape:?} have no names: those before rows and columns are taken as one, z, of \
             {count} planes; save it with axes=... where they are channels or time points",
            shape.len()
        )
    });
    Ok((vec![('z', count)], remark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(bytes: &[u8], page: [u64; 3]) -> Description {
        match parse(bytes, page).unwrap() {
            ParsedDescription::Stack(description) => description,
            _ => panic!("no stack"),
        }
    }

    #[test]
    fn imagej_lines_say_how_pages_count_and_how_far_apart_slices_are() {
        let text = "ImageJ=1.53t\nimages=12\nchannels=2\nslices=6\nhyperstack=true\nunit=\\u00B5m\n\
                    spacing=0.5\nloop=false\nzorigin=3\n";
        let found = stack(text.as_bytes(), [4, 4, 1]);
        assert_eq!(found.pages, [('t', 1), ('z', 6), ('c', 2)]);
        assert_eq!(found.spacing, [Some(0.5), None, None]);
        assert_eq!(found.unit, [Some(1.0); 2]);
        assert_eq!(found.zero, [3.0, 0.0, 0.0]);
    }

    #[test]
    fn imagej_s_letters_are_bytes_of_latin_1_and_its_units_one_for_each_axis() {
        let text =
            b"ImageJ=1.54f\nimages=3\nslices=3\nunit=\xb5m\nyunit=nm\nzunit=mm\nspacing=0.5\n";
        let found = stack(text, [4, 4, 1]);
        assert_eq!(found.spacing, [Some(500.0), None, None]);
        assert_eq!(found.unit, [Some(1e-3), Some(1.0)]);
        assert_eq!(unescape("\\u00B5m \\u"), "\u{b5}m \\u");
    }

    #[test]
    fn tifffile_s_axes_are_honoured_and_a_shape_without_them_is_remarked() {
        let found = stack(br#"{"shape": [2, 5, 12, 16], "axes": "CZYX"}"#, [12, 16, 1]);
        assert_eq!((found.pages, found.remark), (vec![('c', 2), ('z', 5)], None));
        let found = stack(br#"{"shape": [2, 5, 12, 16]}"#, [12, 16, 1]);
        assert_eq!(found.pages, [('z', 10)]);
        assert!(found.remark.unwrap().contains("4 dimensions"));
        let found = stack(b"shape=(7, 12, 16, 3)", [12, 16, 3]);
        assert_eq!((found.pages, found.remark), (vec![('z', 7)], None));
        let found = stack(br#"{"shape": [7, 12, 16], "axes": "QYX"}"#, [12, 16, 1]);
        assert_eq!(found.pages, [('z', 7)]);
        assert!(parse(br#"{"shape": [2, 5, 12, 17]}"#, [12, 16, 1]).is_err());
        assert!(parse(br#"{"shape": [2, 12, 17], "axes": "ZYX"}"#, [12, 16, 1]).is_err());
    }
}
