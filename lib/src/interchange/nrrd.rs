//! Displacement fields in NRRD (<https://teem.sourceforge.net/nrrd/format.html>), with vectors
//! along one axis. Only headers are read here; vectors are read in boxes when needed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Error;
use super::flat::{self, FlatHeader, parse_positive};
use super::read_error::ReadError;
use super::unpack::Packing;
use super::world::{AnatomicalFrame, Placement};
use crate::geom::FieldSource;
use crate::quote::{self, shorten};
use crate::volume::{ByteOrder, Dtype};

/// The signature at the beginning of a file, before the version.
pub(super) const MAGIC: &[u8] = b"NRRD000";

/// The names of known fields, in lower case and with spaces removed, including fields without
/// effect on positions and values.
const KNOWN_FIELDS: [&str; 38] = [
    "axismaxs",
    "axismins",
    "blocksize",
    "byteskip",
    "centerings",
    "centers",
    "content",
    "datafile",
    "dimension",
    "encoding",
    "endian",
    "kinds",
    "labels",
    "lineskip",
    "max",
    "measurementframe",
    "min",
    "number",
    "oldmax",
    "oldmin",
    "sampleunits",
    "sizes",
    "space",
    "spacedimension",
    "spacedirections",
    "spaceorigin",
    "spaceunits",
    "spacings",
    "thicknesses",
    "type",
    "units",
    // written by some programs, not part of the format
    "modality",
    "creator",
    "date",
    "acquisitiondate",
    "acquisitiontime",
    "history",
    "comment",
];

type HeaderFields = BTreeMap<String, String>;

/// Reads the header of a file.
pub(super) fn read(path: &Path) -> Result<FlatHeader, ReadError> {
    let (fields, end) = fields(path)?;
    let get = |key: &str| fields.get(key).map(String::as_str);
    let rank = parse_positive(get("dimension").ok_or("has no 'dimension'")?)?;
    let words: Vec<&str> = get("sizes").ok_or("has no 'sizes'")?.split_whitespace().collect();
    if words.len() != rank || !matches!(rank, 3 | 4) {
        return Err(format!(
            "has {rank} dimensions of the sizes {}; a displacement field has 3, x, y, z",
            quote::list(&words)
        )
        .into());
    }
    let sizes: Vec<usize> = words.into_iter().map(parse_positive).collect::<Result<_, _>>()?;
    let vector = vector_axis(&fields, &sizes)?;
    if sizes[vector] != rank - 1 {
        return Err(format!(
            "has vectors of {} components on {} axes; as many are wanted",
            sizes[vector],
            rank - 1
        )
        .into());
    }
    check_direction(&fields)?;
    let dtype = dtype(get("type").unwrap_or_default())?;
    let mut notes = notes(&fields);
    let order = match get("endian").map(str::to_lowercase).as_deref() {
        Some("big") => ByteOrder::Big,
        Some("little") => ByteOrder::Little,
        Some(other) => return Err(format!("has the byte order '{}'", shorten(other)).into()),
        None => {
            if dtype.size() > 1 && !matches!(get("encoding"), Some("ascii" | "text" | "txt")) {
                notes.push("does not say its byte order, taken as little endian".to_owned());
            }
            ByteOrder::Little
        }
    };
    let (placement, frame) = placement(&fields, &sizes, vector)?;
    let (file, begin) = data_file(path, &fields, end)?;
    let need = sizes.iter().try_fold(dtype.size() as u64, |n, s| n.checked_mul(*s as u64));
    let need = need.ok_or_else(|| format!("has the sizes {sizes:?}, which cannot be"))?;
    let (offset, packing) = data(&fields, &file, begin, need)?;
    Ok(FlatHeader {
        placement,
        frame,
        components: sizes[vector],
        planar: vector != 0,
        dtype,
        order,
        file,
        offset,
        packing,
        micrometres: unit(&fields),
        notes,
    })
}

fn dtype(name: &str) -> Result<Dtype, String> {
    Ok(match name {
        "float" => Dtype::F32,
        "double" => Dtype::F64,
        "signed char" | "int8" | "int8_t" => Dtype::I8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => Dtype::U8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => {
            Dtype::I16
        }
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => Dtype::U16,
        "int" | "signed int" | "int32" | "int32_t" => Dtype::I32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => Dtype::U32,
        other => {
            return Err(format!(
                "holds elements of type '{}'; float, double and integers of 8 to 32 bits can be read",
                shorten(other)
            ));
        }
    })
}

/// Checks that the field maps fixed to moving points, if the header states its direction, as Slicer
/// does.
fn check_direction(fields: &HeaderFields) -> Result<(), String> {
    match fields.get("displacementfieldtype:=").map(String::as_str) {
        None | Some("resampling") => Ok(()),
        Some("modeling") => Err(
            "is a modeling displacement field of Slicer, which takes moving points to fixed ones; save it in \
             Slicer as a resampling field, or give it to invmap as a field of ours"
                .to_owned(),
        ),
        Some(other) => Err(format!(
            "has the displacement field type '{}'; Slicer knows resampling and modeling",
            shorten(other)
        )),
    }
}

/// Warnings about unknown fields, and about values that the header lacks and that are assumed.
fn notes(fields: &HeaderFields) -> Vec<String> {
    let mut notes = Vec::new();
    let unknown: Vec<&str> = fields
        .keys()
        .map(String::as_str)
        .filter(|key| !key.ends_with(":=") && !KNOWN_FIELDS.contains(key))
        .collect();
    if !unknown.is_empty() {
        notes.push(format!("has the fields {}, which are not known", quote::list(&unknown)));
    }
    match fields.get("space").map(|space| space.to_lowercase()).as_deref() {
        None => notes.push("does not name its space, taken as left-posterior-superior".to_owned()),
        Some("left-posterior-superior" | "lps") => {}
        Some(_) => notes.push(
            "has positions of another space than its vectors, which are taken as LPS, as ITK takes them"
                .to_owned(),
        ),
    }
    if !fields.contains_key("spaceorigin") {
        notes.push("does not say where its first sample lies, taken as 0".to_owned());
    }
    notes
}

/// The fields of the header by lower-case name without spaces (names of key/value pairs end in
/// `:=`), and the offset of the header's end.
fn fields(path: &Path) -> Result<(HeaderFields, u64), ReadError> {
    let mut fields = BTreeMap::new();
    let end = flat::lines(path, "NRRD", |line| {
        if line.starts_with('#') {
            return true;
        }
        let key = |key: &str| key.to_lowercase().replace(' ', "");
        if let Some((name, value)) = line.split_once(":=") {
            fields.insert(format!("{}:=", key(name)), value.trim().to_owned());
        } else if let Some((name, value)) = line.split_once(':') {
            fields.insert(key(name), value.trim().to_owned());
        }
        !line.is_empty()
    })?;
    Ok((fields, end))
}

fn vector_axis(fields: &HeaderFields, sizes: &[usize]) -> Result<usize, String> {
    let words = |key: &str| -> Vec<&str> {
        fields.get(key).map(|value| value.split_whitespace().collect()).unwrap_or_default()
    };
    let kinds = words("kinds");
    let named = kinds.iter().position(|k| k.ends_with("vector") || *k == "list" || *k == "point");
    let none = words("spacedirections").iter().position(|d| *d == "none");
    match named.or(none) {
        Some(axis) if axis == 0 || axis + 1 == sizes.len() => Ok(axis),
        Some(axis) => {
            Err(format!("has its vectors along axis {axis}, wanted the first or the last"))
        }
        None => Err("has no axis of vectors ('kinds: vector domain domain domain')".to_owned()),
    }
}

/// The file that contains the elements, which is `path` or a file next to it, and the offset from
/// which `line skip` and `byte skip` count.
fn data_file(path: &Path, fields: &HeaderFields, end: u64) -> Result<(PathBuf, u64), ReadError> {
    let Some(name) = fields.get("datafile") else { return Ok((path.to_owned(), end)) };
    if name.starts_with("LIST") || name.contains('%') {
        return Err("is spread over several files, which cannot be read; write it as one".into());
    }
    Ok((flat::data_file(path, name)?, 0))
}

/// The offset of the elements, and their encoding with the offset at which encoded data begin.
fn data(
    fields: &HeaderFields,
    file: &Path,
    begin: u64,
    need: u64,
) -> Result<(u64, Option<(Packing, u64)>), ReadError> {
    let number = |key: &str| match fields.get(key) {
        None => Ok(0),
        Some(text) => text
            .trim()
            .parse::<i64>()
            .map_err(|_| format!("has the {key} '{}', wanted a whole number", shorten(text))),
    };
    let begin = match number("lineskip")? {
        0 => begin,
        lines => after_lines(file, begin, lines).map_err(ReadError::io)?,
    };
    let packing = match fields.get("encoding").map(|e| e.to_lowercase()).as_deref() {
        Some("raw") => None,
        Some("gzip" | "gz") => Some(Packing::Gzip),
        Some("bzip2" | "bz2") => Some(Packing::Bzip2),
        Some("ascii" | "text" | "txt") => Some(Packing::Words),
        Some("hex") => Some(Packing::Hex),
        other => {
            return Err(format!(
                "is encoded as '{}'; raw, gzip, bzip2, ascii and hex can be read",
                shorten(other.unwrap_or_default())
            )
            .into());
        }
    };
    let length = std::fs::metadata(file).map_err(ReadError::io)?.len();
    match (number("byteskip")?, packing) {
        // in compressed data, `byte skip` counts decompressed bytes
        (0.., Some(Packing::Gzip | Packing::Bzip2)) | (0, Some(_)) => {
            Ok((number("byteskip")? as u64, packing.map(|packing| (packing, begin))))
        }
        (skip @ 0.., None) => Ok((begin.saturating_add(skip as u64), None)),
        (-1, None) if length >= need => Ok((length - need, None)),
        (skip, _) => Err(format!("has the byteskip {skip}, which does not fit its data").into()),
    }
}

/// The offset after skipping `lines` lines.
fn after_lines(file: &Path, begin: u64, lines: i64) -> std::io::Result<u64> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(begin))?;
    let mut reader = BufReader::new(file);
    let mut end = begin;
    for _ in 0..lines.max(0) {
        let count = reader.skip_until(b'\n')?;
        if count == 0 {
            break;
        }
        end += count as u64;
    }
    Ok(end)
}

/// Parses a list of vectors such as `(1,2,3)` or `none`, one for each axis.
fn vectors(text: &str) -> Result<Vec<Option<Vec<f64>>>, String> {
    let wrong = || format!("has '{}', which is no list of vectors", shorten(text));
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("none") {
            found.push(None);
            rest = after.trim_start();
            continue;
        }
        let inner = rest.strip_prefix('(').ok_or_else(wrong)?;
        let (numbers, after) = inner.split_once(')').ok_or_else(wrong)?;
        let numbers: Result<Vec<f64>, String> = numbers
            .split(',')
            .map(|n| n.trim().parse::<f64>().ok().filter(|v| v.is_finite()).ok_or_else(wrong))
            .collect();
        found.push(Some(numbers?));
        rest = after.trim_start();
    }
    Ok(found)
}

/// The steps along the spatial axes: `space directions`, or `spacings`.
fn steps(fields: &HeaderFields, axes: usize, vector: usize) -> Result<Vec<Vec<f64>>, String> {
    let steps: Vec<Vec<f64>> = if let Some(text) = fields.get("spacedirections") {
        vectors(text)?.into_iter().flatten().collect()
    } else {
        let text = fields.get("spacings").ok_or("has neither 'space directions' nor 'spacings'")?;
        let all: Vec<f64> =
            text.split_whitespace().map(|w| w.parse().unwrap_or(f64::NAN)).collect();
        let own = all.iter().enumerate().filter(|(i, _)| *i != vector).map(|(_, s)| *s);
        own.enumerate()
            .map(|(i, s)| (0..axes).map(|j| if i == j { s } else { 0.0 }).collect())
            .collect()
    };
    let fits = |step: &Vec<f64>| step.len() == axes && step.iter().all(|v| v.is_finite());
    if steps.len() != axes || !steps.iter().all(fits) {
        let lengths: Vec<usize> = steps.iter().map(Vec::len).collect();
        return Err(format!(
            "has {} axes of {} numbers, wanted {axes} vectors of {axes} finite numbers",
            steps.len(),
            quote::numbers(&lengths)
        ));
    }
    Ok(steps)
}

fn placement(
    fields: &HeaderFields,
    sizes: &[usize],
    vector: usize,
) -> Result<(Placement, AnatomicalFrame), String> {
    let axes = sizes.len() - 1;
    // LAS is LPS with y reversed
    let (frame, mirrored) = match fields.get("space").map(|s| s.to_lowercase()).as_deref() {
        None | Some("left-posterior-superior" | "lps") => (AnatomicalFrame::Lps, false),
        Some("right-anterior-superior" | "ras") => (AnatomicalFrame::Ras, false),
        Some("left-anterior-superior" | "las") => (AnatomicalFrame::Lps, true),
        Some(other) => {
            return Err(format!(
                "is in the space '{}'; left-posterior-superior, right-anterior-superior and \
                 left-anterior-superior can be read",
                shorten(other)
            ));
        }
    };
    if let Some(measured) = fields.get("measurementframe") {
        let frame = vectors(measured)?;
        let unit = |i: usize, v: &[f64]| (0..axes).all(|j| v.get(j) == Some(&f64::from(i == j)));
        if frame.iter().flatten().enumerate().any(|(i, v)| !unit(i, v)) {
            return Err(format!("has the measurement frame {}, wanted none", shorten(measured)));
        }
    }
    let steps = steps(fields, axes, vector)?;
    let origin = match fields.get("spaceorigin") {
        Some(text) => vectors(text)?.into_iter().flatten().next().unwrap_or_default(),
        None => vec![0.0; axes],
    };
    let at = |v: &[f64], a: usize| {
        let value = v.get(a).copied().unwrap_or(0.0);
        if mirrored && a == 1 { -value } else { value }
    };
    let step = |s: usize| -> [f64; 3] {
        match steps.get(s) {
            Some(step) => std::array::from_fn(|a| at(step, a)),
            None => [0.0, 0.0, 1.0], // the axis perpendicular to a plane
        }
    };
    let space: Vec<usize> = (0..sizes.len()).filter(|d| *d != vector).map(|d| sizes[d]).collect();
    let shape = [space.get(2).copied().unwrap_or(1), space[1], space[0]];
    let origin = std::array::from_fn(|a| at(&origin, a));
    Ok((Placement { shape, steps: std::array::from_fn(step), origin }, frame))
}

/// Micrometres in the unit of the spatial axes, which must be the same for all; `None` if not
/// stated.
fn unit(fields: &HeaderFields) -> Result<Option<f64>, String> {
    let text = fields.get("spaceunits").or(fields.get("units"));
    let Some(text) = text else { return Ok(None) };
    let mut words: Vec<&str> = text.split('"').map(str::trim).filter(|w| !w.is_empty()).collect();
    words.retain(|word| *word != "???" && *word != "none");
    words.dedup();
    match words.as_slice() {
        [] => Ok(None),
        [name] if flat::unit(name).is_some() => Ok(flat::unit(name)),
        _ => {
            Err(format!("has the space units {}, wanted mm, um or nm; give --unit", shorten(text)))
        }
    }
}

/// Writes a field as raw NRRD in left-posterior-superior space, with lengths in units of
/// `micrometres`.
pub(super) fn write(path: &Path, field: &dyn FieldSource, micrometres: f64) -> Result<(), Error> {
    let grid = field.grid();
    let scaled = |v: f64| v / micrometres;
    let [z, y, x] = grid.shape;
    let [dz, dy, dx] = grid.spacing.map(scaled);
    let [oz, oy, ox] = grid.origin.map(scaled);
    let mut head = String::from("NRRD0004\ntype: float\ndimension: 4\n");
    let _ = writeln!(head, "space: left-posterior-superior\nsizes: 3 {x} {y} {z}"); // cannot fail
    let _ = writeln!(head, "space directions: none ({dx},0,0) (0,{dy},0) (0,0,{dz})");
    head.push_str("kinds: vector domain domain domain\nendian: little\nencoding: raw\n");
    if let Some(unit) = [("mm", 1e3), ("um", 1.0), ("nm", 1e-3)].iter().find(|u| u.1 == micrometres)
    {
        let _ = writeln!(head, "space units: \"{0}\" \"{0}\" \"{0}\"", unit.0);
    }
    let _ = writeln!(head, "space origin: ({ox},{oy},{oz})\n");
    let io = |source| Error::Io { action: "write", path: path.display().to_string(), source };
    super::fields::write_atomically(path, |out| {
        out.write_all(head.as_bytes()).map_err(io)?;
        for part in super::fields::slabs(&grid) {
            let vectors = field.read(&part).map_err(Error::Field)?;
            let bytes: Vec<u8> = vectors
                .iter()
                .flat_map(|v| [v[2], v[1], v[0]])
                .flat_map(|v| ((f64::from(v) / micrometres) as f32).to_le_bytes())
                .collect();
            out.write_all(&bytes).map_err(io)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests;
