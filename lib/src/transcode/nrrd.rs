//! Displacement fields in NRRD (<https://teem.sourceforge.net/nrrd/format.html>): one axis holds vectors.
//! Heads only; vectors are read where they lie.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::Error;
use super::world::{Frame, Placement};
use crate::geom::FieldSource;
use crate::volume::{ByteOrder, Dtype};

/// What a file begins with, before its version.
pub(super) const MAGIC: &[u8] = b"NRRD000";

/// A head longer than this is none.
const LONGEST: usize = 1 << 20;

/// What a head says.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) placement: Placement,
    /// The frame of the positions.
    pub(super) frame: Frame,
    pub(super) components: usize,
    /// All first components come first.
    pub(super) planar: bool,
    pub(super) dtype: Dtype,
    pub(super) order: ByteOrder,
    /// Where the elements, or the compressed ones, begin.
    pub(super) file: PathBuf,
    pub(super) offset: u64,
    pub(super) gzip: bool,
    /// Micrometres of the unit of its lengths, where it has one.
    pub(super) micrometres: Option<f64>,
}

type Fields = BTreeMap<String, String>;

/// Reads the head of a file.
pub(super) fn read(path: &Path) -> Result<Head, String> {
    let (fields, end) = fields(path)?;
    let get = |key: &str| fields.get(key).map(String::as_str);
    let rank = whole(get("dimension").ok_or("has no 'dimension'")?)?;
    let sizes: Vec<usize> = get("sizes")
        .ok_or("has no 'sizes'")?
        .split_whitespace()
        .map(whole)
        .collect::<Result<_, _>>()?;
    if sizes.len() != rank || !matches!(rank, 3 | 4) {
        return Err(format!("has the sizes {sizes:?}; a displacement field has 3, x, y, z"));
    }
    let vector = vector_axis(&fields, &sizes)?;
    if sizes[vector] != rank - 1 {
        return Err(format!(
            "has vectors of {} components on {} axes; as many are wanted",
            sizes[vector],
            rank - 1
        ));
    }
    let dtype = match get("type").unwrap_or_default() {
        "float" => Dtype::F32,
        "double" => Dtype::F64,
        other => {
            return Err(format!("holds elements of type '{other}'; float and double can be read"));
        }
    };
    let order = match get("endian") {
        Some("big") => ByteOrder::Big,
        _ => ByteOrder::Little,
    };
    let gzip = match get("encoding").unwrap_or_default() {
        "raw" => false,
        "gzip" | "gz" => true,
        other => return Err(format!("is encoded as '{other}'; raw and gzip can be read")),
    };
    for key in ["lineskip", "byteskip"] {
        if get(key).is_some_and(|skip| skip.trim() != "0") {
            return Err(format!("has '{key}', which is not supported"));
        }
    }
    let (file, offset) = data_file(path, &fields, end)?;
    let (placement, frame) = placement(&fields, &sizes, vector)?;
    let micrometres = unit(&fields)?;
    let (components, planar) = (sizes[vector], vector != 0);
    Ok(Head { placement, frame, components, planar, dtype, order, file, offset, gzip, micrometres })
}

/// Keys without blanks and in small letters, and where the head ends.
fn fields(path: &Path) -> Result<(Fields, u64), String> {
    let file = File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mut reader = BufReader::new(file);
    let (mut fields, mut end, mut bytes) = (BTreeMap::new(), 0, Vec::new());
    loop {
        bytes.clear();
        let count =
            reader.read_until(b'\n', &mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
        end += count;
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches(['\n', '\r']);
        if count == 0 || line.is_empty() {
            return Ok((fields, end as u64));
        }
        if end > LONGEST {
            return Err("is a damaged NRRD file: its header does not end".to_owned());
        }
        // `key:=value` is a remark of its own
        if line.starts_with('#') || line.contains(":=") {
            continue;
        }
        if let Some((key, value)) = line.split_once(':') {
            let key = key.to_lowercase().replace(' ', "");
            fields.insert(key, value.trim().to_owned());
        }
    }
}

fn whole(word: &str) -> Result<usize, String> {
    match word.trim().parse() {
        Ok(n @ 1..=0x7fff_ffff) => Ok(n),
        _ => Err(format!("has the size '{word}', wanted whole numbers from 1")),
    }
}

fn vector_axis(fields: &Fields, sizes: &[usize]) -> Result<usize, String> {
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

/// The file beside this one that holds the elements, or this one.
fn data_file(path: &Path, fields: &Fields, end: u64) -> Result<(PathBuf, u64), String> {
    let Some(name) = fields.get("datafile") else { return Ok((path.to_owned(), end)) };
    if name.starts_with("LIST") || name.contains('%') {
        return Err("is spread over several files, which cannot be read".to_owned());
    }
    let file = path.with_file_name("").join(name);
    if file.is_file() {
        Ok((file, 0))
    } else {
        Err(format!("refers to {name}, which is not beside it"))
    }
}

/// `(1,2,3)` or `none`, in the order of the axes.
fn vectors(text: &str) -> Result<Vec<Option<Vec<f64>>>, String> {
    let wrong = || format!("has '{text}', which is no list of vectors");
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

/// The steps along the axes of space: `space directions`, or plain `spacings`.
fn steps(fields: &Fields, axes: usize, vector: usize) -> Result<Vec<Vec<f64>>, String> {
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
        return Err(format!("has the axes {steps:?}, wanted {axes} vectors of {axes} numbers"));
    }
    Ok(steps)
}

fn placement(
    fields: &Fields,
    sizes: &[usize],
    vector: usize,
) -> Result<(Placement, Frame), String> {
    let axes = sizes.len() - 1;
    let frame = match fields.get("space").map(|s| s.to_lowercase()).as_deref() {
        None | Some("left-posterior-superior" | "lps") => Frame::Lps,
        Some("right-anterior-superior" | "ras") => Frame::Ras,
        Some(other) => {
            return Err(format!(
                "is in the space '{other}'; left-posterior-superior and right-anterior-superior can be read"
            ));
        }
    };
    if let Some(measured) = fields.get("measurementframe") {
        let frame = vectors(measured)?;
        let unit = |i: usize, v: &[f64]| (0..axes).all(|j| v.get(j) == Some(&f64::from(i == j)));
        if frame.iter().flatten().enumerate().any(|(i, v)| !unit(i, v)) {
            return Err(format!("has the measurement frame {measured}, wanted none"));
        }
    }
    let steps = steps(fields, axes, vector)?;
    let origin = match fields.get("spaceorigin") {
        Some(text) => vectors(text)?.into_iter().flatten().next().unwrap_or_default(),
        None => vec![0.0; axes],
    };
    let at = |v: &[f64], a: usize| v.get(a).copied().unwrap_or(0.0);
    let step = |s: usize| -> [f64; 3] {
        match steps.get(s) {
            Some(step) => std::array::from_fn(|a| at(step, a)),
            None => [0.0, 0.0, 1.0], // across a plane
        }
    };
    let space: Vec<usize> = (0..sizes.len()).filter(|d| *d != vector).map(|d| sizes[d]).collect();
    let shape = [space.get(2).copied().unwrap_or(1), space[1], space[0]];
    let origin = std::array::from_fn(|a| at(&origin, a));
    Ok((Placement { shape, steps: std::array::from_fn(step), origin }, frame))
}

fn unit(fields: &Fields) -> Result<Option<f64>, String> {
    let Some(text) = fields.get("spaceunits") else { return Ok(None) };
    let mut words: Vec<&str> = text.split('"').map(str::trim).filter(|w| !w.is_empty()).collect();
    words.dedup();
    Ok(match words.as_slice() {
        ["mm" | "millimeter"] => Some(1e3),
        ["um" | "\u{b5}m" | "\u{3bc}m" | "micrometer" | "micron"] => Some(1.0),
        ["nm" | "nanometer"] => Some(1e-3),
        _ => return Err(format!("has the space units {text}, wanted mm, um or nm; give --unit")),
    })
}

/// Writes a field as raw NRRD, left-posterior-superior, its numbers in `micrometres` per unit.
pub(super) fn write(path: &Path, field: &dyn FieldSource, micrometres: f64) -> Result<(), Error> {
    let grid = field.grid();
    let scaled = |v: f64| v / micrometres;
    let [z, y, x] = grid.shape;
    let [dz, dy, dx] = grid.spacing.map(scaled);
    let [oz, oy, ox] = grid.origin.map(scaled);
    let mut head = String::from("NRRD0004\ntype: float\ndimension: 4\n");
    let _ = writeln!(head, "space: left-posterior-superior\nsizes: 3 {x} {y} {z}"); // a String takes all
    let _ = writeln!(head, "space directions: none ({dx},0,0) (0,{dy},0) (0,0,{dz})");
    head.push_str("kinds: vector domain domain domain\nendian: little\nencoding: raw\n");
    if let Some(unit) = [("mm", 1e3), ("um", 1.0), ("nm", 1e-3)].iter().find(|u| u.1 == micrometres)
    {
        let _ = writeln!(head, "space units: \"{0}\" \"{0}\" \"{0}\"", unit.0);
    }
    let _ = writeln!(head, "space origin: ({ox},{oy},{oz})\n");
    let io = |source| Error::Io { action: "write", path: path.display().to_string(), source };
    super::fields::write_beside(path, |out| {
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
mod tests {
    use super::super::world::World;
    use super::*;
    use crate::geom::Grid;

    const WORLD: World = World { frame: Frame::Lps, micrometres: 1e3 };

    fn read_text(text: &str) -> Result<Head, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.nrrd");
        std::fs::write(&path, text).unwrap();
        std::fs::write(folder.path().join("a.raw"), b"").unwrap();
        read(&path)
    }

    const HEAD: &str = "NRRD0005\n# a remark\ntype: double\ndimension: 4\nsizes: 3 6 5 4\n\
                        space: left-posterior-superior\nkinds: vector domain domain domain\n\
                        space directions: none (1,0,0) (0,2,0) (0,0,3)\nspace origin: (9,-8,7)\n\
                        endian: big\nencoding: raw\nkey:=value: of a user\n\n";

    #[test]
    fn a_head_is_read_with_its_vectors_first_or_last() {
        let want = Grid::new([4, 5, 6], [3000.0, 2000.0, 1000.0], [7000.0, -8000.0, 9000.0]);
        let head = read_text(HEAD).unwrap();
        assert_eq!(head.placement.grid(WORLD), (want, None));
        assert_eq!((head.dtype, head.order, head.planar), (Dtype::F64, ByteOrder::Big, false));
        assert_eq!(head.offset, HEAD.len() as u64);
        let last = HEAD
            .replace("3 6 5 4", "6 5 4 3")
            .replace("vector domain domain domain", "domain domain domain vector")
            .replace("none (1,0,0) (0,2,0) (0,0,3)", "(1,0,0) (0,2,0) (0,0,3) none");
        let head = read_text(&last).unwrap();
        assert_eq!((head.placement.grid(WORLD), head.planar), ((want, None), true));
    }

    #[test]
    fn plain_spacings_units_and_detached_data_are_read() {
        let text = HEAD
            .replace("space directions: none (1,0,0) (0,2,0) (0,0,3)", "spacings: nan 1 2 3")
            .replace(
                "endian: big",
                "endian: little\nspace units: \"um\" \"um\" \"um\"\ndata file: a.raw",
            );
        let head = read_text(&text).unwrap();
        assert_eq!((head.micrometres, head.offset), (Some(1.0), 0));
        assert!(head.file.ends_with("a.raw"));
        let lost = text.replace("a.raw", "b.raw");
        assert!(read_text(&lost).unwrap_err().contains("b.raw, which is not beside it"));
    }

    #[test]
    fn what_cannot_be_read_of_a_head_is_said() {
        for (from, to, words) in [
            ("double", "short", "'short'"),
            ("raw", "bzip2", "'bzip2'"),
            ("left-posterior-superior", "scanner-xyz", "scanner-xyz"),
            ("endian", "byte skip: 4\nendian", "byteskip"),
            ("3 6 5 4", "3 6 5", "sizes"),
            ("3 6 5 4", "5 6 5 4", "5 components"),
            ("(0,2,0)", "(0,2", "no list of vectors"),
            ("(0,2,0)", "(0,nan,0)", "no list of vectors"),
            ("endian", "measurement frame: (0,1,0) (1,0,0) (0,0,1)\nendian", "measurement frame"),
        ] {
            let said = read_text(&HEAD.replace(from, to)).unwrap_err();
            assert!(said.contains(words), "{said}");
        }
    }
}
