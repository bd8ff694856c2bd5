//! Displacement fields in MetaImage (<https://itk.org/Wiki/ITK/MetaIO/Documentation>): `.mhd` with
//! a separate data file, or `.mha` in one file. Only headers are read here; vectors are read in
//! boxes when needed.
//!
//! Positions and vectors are LPS and in millimetres unless `DistanceUnits` says otherwise, as in
//! ITK.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::flat::{self, FlatHeader, parse_positive};
use super::read_error::ReadError;
use super::unpack::Packing;
use super::world::{AnatomicalFrame, Placement};
use crate::quote::{self, shorten};
use crate::volume::{ByteOrder, Dtype};

/// Keys that are not reported as unknown. Some are read, such as `headersize`; the others have no
/// effect on positions and values.
const IGNORED_KEYS: [&str; 25] = [
    "acquisitiondate",
    "anatomicalorientation",
    "binarydata",
    "centerofrotation",
    "color",
    "comment",
    "compresseddatasize",
    "compressionlevel",
    "elementmax",
    "elementmin",
    "elementnbits",
    "elementsize",
    "elementsizevalid",
    "headersize",
    "id",
    "imagepositionpatient",
    "itk_inputfiltername",
    "modality",
    "name",
    "ndims",
    "objectsubtype",
    "objecttype",
    "parentid",
    "sequenceid",
    "transformtype",
];

/// Keys and values in the order of the file.
struct HeaderFields(Vec<(String, String)>);

impl HeaderFields {
    fn get(&self, keys: &[&str]) -> Option<&str> {
        let found = self.0.iter().find(|(key, _)| keys.contains(&key.as_str()));
        found.map(|(_, value)| value.as_str())
    }

    fn is(&self, keys: &[&str]) -> bool {
        self.get(keys).is_some_and(|value| value.starts_with(['T', 't', 'Y', 'y', '1']))
    }

    /// The value of the first of `keys` that is present, as `count` finite numbers.
    fn numbers(&self, keys: &[&str], count: usize) -> Result<Option<Vec<f64>>, String> {
        let Some(text) = self.get(keys) else { return Ok(None) };
        let number = |word: &str| word.parse::<f64>().ok().filter(|v| v.is_finite());
        let numbers: Option<Vec<f64>> = text.split_whitespace().map(number).collect();
        match numbers.filter(|numbers| numbers.len() == count) {
            Some(numbers) => Ok(Some(numbers)),
            None => Err(format!("has the {} '{}', wanted {count} numbers", keys[0], shorten(text))),
        }
    }
}

/// Whether a file begins like MetaImage.
pub(super) fn is_metaimage(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let keys = text.lines().take(40).filter_map(|line| line.split_once('='));
    let mut keys = keys.map(|(key, _)| key.trim().to_lowercase());
    let first = keys.next().unwrap_or_default();
    matches!(first.as_str(), "objecttype" | "ndims" | "comment")
        && (first != "comment" || keys.any(|key| key == "objecttype" || key == "ndims"))
}

/// Reads the header of a file.
pub(super) fn read(path: &Path) -> Result<FlatHeader, ReadError> {
    let (fields, end) = fields(path)?;
    if let Some(kind) = fields.get(&["objecttype"])
        && !kind.eq_ignore_ascii_case("image")
    {
        return Err(
            format!("is a MetaIO object of the type '{}', and no image", shorten(kind)).into()
        );
    }
    let axes = parse_positive(fields.get(&["ndims"]).ok_or("is MetaImage without NDims")?)?;
    if !matches!(axes, 2 | 3) {
        return Err(
            format!("is MetaImage of {axes} dimensions; a displacement field has 2 or 3").into()
        );
    }
    let sizes = fields.get(&["dimsize"]).ok_or("is MetaImage without DimSize")?;
    let sizes: Vec<usize> =
        sizes.split_whitespace().map(parse_positive).collect::<Result<_, _>>()?;
    if sizes.len() != axes {
        return Err(format!("is MetaImage of {axes} dimensions with {} sizes", sizes.len()).into());
    }
    let channels = fields.get(&["elementnumberofchannels"]).unwrap_or("1");
    if parse_positive(channels)? != axes {
        return Err(format!(
            "is MetaImage with {} values at each of its samples; a displacement field of {axes} dimensions has \
             {axes}",
            shorten(channels)
        ).into());
    }
    let dtype = dtype(fields.get(&["elementtype"]).unwrap_or_default())?;
    let msb = ["binarydatabyteordermsb", "elementbyteordermsb"];
    let order = if fields.is(&msb) { ByteOrder::Big } else { ByteOrder::Little };
    let need =
        sizes.iter().chain([&axes]).try_fold(dtype.size() as u64, |n, s| n.checked_mul(*s as u64));
    let need = need.ok_or_else(|| format!("has the sizes {sizes:?}, which cannot be"))?;
    check_values(&fields)?;
    let placement = placement(&fields, &sizes)?;
    let (file, offset, packing) = data(path, &fields, end, need)?;
    Ok(FlatHeader {
        placement,
        frame: AnatomicalFrame::Lps,
        components: axes,
        planar: false,
        dtype,
        order,
        file,
        offset,
        packing,
        micrometres: unit(&fields),
        notes: notes(&fields),
    })
}

fn fields(path: &Path) -> Result<(HeaderFields, u64), ReadError> {
    let mut fields = Vec::new();
    let mut whole = false;
    let end = flat::lines(path, "MetaImage", |line| {
        if let Some((key, value)) = line.split_once('=') {
            let key = key.trim().to_lowercase();
            whole = key == "elementdatafile";
            fields.push((key, value.trim().to_owned()));
        }
        !whole
    })?;
    if !whole {
        return Err("is MetaImage without ElementDataFile, which ends its header".into());
    }
    Ok((HeaderFields(fields), end))
}

fn dtype(name: &str) -> Result<Dtype, String> {
    let name = name.strip_suffix("_ARRAY").unwrap_or(name);
    Ok(match name {
        "MET_FLOAT" => Dtype::F32,
        "MET_DOUBLE" => Dtype::F64,
        "MET_CHAR" => Dtype::I8,
        "MET_UCHAR" => Dtype::U8,
        "MET_SHORT" => Dtype::I16,
        "MET_USHORT" => Dtype::U16,
        "MET_INT" => Dtype::I32,
        "MET_UINT" => Dtype::U32,
        other => {
            return Err(format!(
                "is MetaImage with elements of type '{}'; MET_FLOAT, MET_DOUBLE and integers of 8 to 32 bits \
                 can be read",
                shorten(other)
            ));
        }
    })
}

/// Refuses an intensity slope or offset, because vectors must be stored unscaled.
fn check_values(fields: &HeaderFields) -> Result<(), String> {
    for (key, plain) in
        [("elementtointensityfunctionslope", 1.0), ("elementtointensityfunctionoffset", 0.0)]
    {
        if let Some(numbers) = fields.numbers(&[key], 1)?
            && numbers[0] != plain
        {
            return Err(format!("has the {key} {}, which vectors cannot mean", numbers[0]));
        }
    }
    Ok(())
}

fn placement(fields: &HeaderFields, sizes: &[usize]) -> Result<Placement, String> {
    let axes = sizes.len();
    let three = |values: Option<Vec<f64>>, rest: f64| -> [f64; 3] {
        std::array::from_fn(|a| {
            values.as_ref().and_then(|values| values.get(a)).copied().unwrap_or(rest)
        })
    };
    let spacing = three(fields.numbers(&["elementspacing", "elementsize"], axes)?, 1.0);
    let origin = three(fields.numbers(&["offset", "position", "origin"], axes)?, 0.0);
    let turned = fields.numbers(&["transformmatrix", "orientation", "rotation"], axes * axes)?;
    // the matrix lists the direction vectors of the axes, one after the other
    let cosines = std::array::from_fn(|r| {
        std::array::from_fn(|c| match &turned {
            Some(turned) if r < axes && c < axes => turned[axes * c + r],
            _ => f64::from(r == c),
        })
    });
    let shape = [sizes.get(2).copied().unwrap_or(1), sizes[1], sizes[0]];
    Ok(Placement::new(shape, spacing, origin, &cosines))
}

fn unit(fields: &HeaderFields) -> Result<Option<f64>, String> {
    match fields.get(&["distanceunits"]) {
        None | Some("" | "?" | "unknown") => Ok(None),
        Some(name) => match flat::unit(name) {
            Some(micrometres) => Ok(Some(micrometres)),
            None => Err(format!(
                "has the DistanceUnits '{}', wanted mm, um or cm; give --unit",
                shorten(name)
            )),
        },
    }
}

fn notes(fields: &HeaderFields) -> Vec<String> {
    const READ_KEYS: [&str; 20] = [
        "dimsize",
        "elementnumberofchannels",
        "elementtype",
        "binarydatabyteordermsb",
        "elementbyteordermsb",
        "elementspacing",
        "offset",
        "position",
        "origin",
        "transformmatrix",
        "orientation",
        "rotation",
        "distanceunits",
        "compresseddata",
        "elementdatafile",
        "elementtointensityfunctionslope",
        "elementtointensityfunctionoffset",
        "binarydata",
        "headersize",
        "elementsize",
    ];
    let unknown: Vec<&str> = fields
        .0
        .iter()
        .map(|(key, _)| key.as_str())
        .filter(|key| !READ_KEYS.contains(key) && !IGNORED_KEYS.contains(key))
        .collect();
    let mut notes = Vec::new();
    if !unknown.is_empty() {
        notes.push(format!("has the fields {}, which are not known", quote::list(&unknown)));
    }
    if fields.get(&["elementspacing", "elementsize"]).is_none() {
        notes.push("does not say how far apart its samples lie, taken as 1".to_owned());
    }
    notes
}

/// The file that contains the elements, their offset, and their encoding with the offset at which
/// encoded data begin.
fn data(
    path: &Path,
    fields: &HeaderFields,
    end: u64,
    need: u64,
) -> Result<(PathBuf, u64, Option<(Packing, u64)>), ReadError> {
    let name = fields.get(&["elementdatafile"]).unwrap_or_default();
    if name.eq_ignore_ascii_case("list") || name.starts_with("LIST") || name.contains('%') {
        return Err(
            "is MetaImage that is spread over several files, which cannot be read; write it as one"
                .into(),
        );
    }
    let local = name.eq_ignore_ascii_case("local");
    let file = if local { path.to_owned() } else { flat::data_file(path, name)? };
    let length = std::fs::metadata(&file).map_err(ReadError::io)?.len();
    let begin = if local { end } else { 0 };
    let begin = match fields.get(&["headersize"]).map(|text| (text, text.parse::<i64>())) {
        None => begin,
        Some((_, Ok(-1))) if length >= need && !fields.is(&["compresseddata"]) => length - need,
        Some((_, Ok(size @ 0..))) => begin.saturating_add(size as u64),
        Some((text, _)) => {
            return Err(
                format!("has the HeaderSize '{}', which does not fit", shorten(text)).into()
            );
        }
    };
    if fields.get(&["binarydata"]).is_some() && !fields.is(&["binarydata"]) {
        return Ok((file, 0, Some((Packing::Words, begin))));
    }
    if !fields.is(&["compresseddata"]) {
        return Ok((file, begin, None));
    }
    let mut magic = Vec::new();
    let mut opened = File::open(&file).map_err(ReadError::io)?;
    opened.seek(SeekFrom::Start(begin)).map_err(ReadError::io)?;
    opened.take(2).read_to_end(&mut magic).map_err(ReadError::io)?;
    let packing = if magic == [0x1f, 0x8b] { Packing::Gzip } else { Packing::Zlib };
    Ok((file, 0, Some((packing, begin))))
}

#[cfg(test)]
mod tests {
    use super::super::world::World;
    use super::*;
    use crate::geom::Grid;

    const WORLD: World = World { frame: AnatomicalFrame::Lps, micrometres: 1e3 };

    const HEAD: &str = "ObjectType = Image\nNDims = 3\nBinaryData = True\n\
                        BinaryDataByteOrderMSB = False\nCompressedData = False\n\
                        TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 9 -8 7\nElementSpacing = 1 2 3\n\
                        DimSize = 6 5 4\nElementNumberOfChannels = 3\nElementType = MET_FLOAT\n\
                        ElementDataFile = LOCAL\n";

    fn read_text(text: &str) -> Result<FlatHeader, ReadError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.mha");
        std::fs::write(&path, text).unwrap();
        std::fs::write(folder.path().join("a.raw"), [7; 4000]).unwrap();
        read(&path)
    }

    #[test]
    fn a_head_is_read_with_its_data_in_it_or_beside_it() {
        assert!(is_metaimage(HEAD.as_bytes()));
        assert!(is_metaimage(b"Comment = of ours\nNDims = 3\n"));
        assert!(!is_metaimage(b"Comment = a = b\n") && !is_metaimage(b"1 0 0 0\n"));
        let want = Grid::new([4, 5, 6], [3000.0, 2000.0, 1000.0], [7000.0, -8000.0, 9000.0]);
        let head = read_text(HEAD).unwrap();
        assert_eq!(head.placement.grid(WORLD), (want, None));
        assert_eq!((head.dtype, head.order, head.planar), (Dtype::F32, ByteOrder::Little, false));
        assert_eq!((head.offset, head.packing), (HEAD.len() as u64, None));
        assert_eq!((head.micrometres, head.notes), (Ok(None), vec![]));
        let detached = HEAD.replace("LOCAL", "a.raw").replace("MSB = False", "MSB = True");
        let head = read_text(&detached).unwrap();
        assert_eq!((head.offset, head.order), (0, ByteOrder::Big));
        assert!(head.file.ends_with("a.raw"));
        // 6 x 5 x 4 x 3 floats of 4 bytes at the end of 4000 bytes
        let end = detached.replace("Offset", "HeaderSize = -1\nOffset");
        assert_eq!(read_text(&end).unwrap().offset, 4000 - 1440);
        let packed = HEAD.replace("CompressedData = False", "CompressedData = True");
        let begin = packed.len() as u64;
        assert_eq!(read_text(&packed).unwrap().packing, Some((Packing::Zlib, begin)));
        let text = HEAD.replace("BinaryData = True", "BinaryData = False");
        assert!(matches!(read_text(&text).unwrap().packing, Some((Packing::Words, _))));
    }

    #[test]
    fn axes_stand_one_after_the_other_and_units_count() {
        let turned = HEAD.replace("1 0 0 0 1 0 0 0 1", "0 1 0 -1 0 0 0 0 1");
        let head = read_text(&turned.replace("NDims", "DistanceUnits = um\nNDims")).unwrap();
        assert_eq!(head.micrometres, Ok(Some(1.0)));
        // the first axis points along y, the second along -x
        assert_eq!(head.placement.steps[0], [0.0, 1.0, 0.0]);
        assert_eq!(head.placement.steps[1], [-2.0, 0.0, 0.0]);
    }

    #[test]
    fn what_cannot_be_read_of_a_head_is_said() {
        for (from, to, words) in [
            ("Image", "Tube", "MetaIO object of the type 'Tube'"),
            ("NDims = 3", "NDims = 4", "4 dimensions"),
            ("DimSize = 6 5 4", "DimSize = 6 5", "2 sizes"),
            ("DimSize = 6 5 4", "DimSize = 6 5 -4", "'-4'"),
            ("DimSize = 6 5 4", "DimSize = 2000000000 2000000000 2000000000", "cannot be"),
            ("Channels = 3", "Channels = 1", "1 values"),
            ("MET_FLOAT", "MET_LONG_LONG", "'MET_LONG_LONG'"),
            ("LOCAL", "LIST", "several files"),
            ("LOCAL", "slice%03d.raw 1 9 1", "several files"),
            ("LOCAL", "b.raw", "b.raw, which is not beside it"),
            ("ElementDataFile = LOCAL", "", "without ElementDataFile"),
            ("Spacing = 1 2 3", "Spacing = 1 2 x", "'1 2 x', wanted 3 numbers"),
            ("Offset", "HeaderSize = -7\nOffset", "HeaderSize '-7'"),
            ("Offset", "ElementToIntensityFunctionSlope = 2\nOffset", "cannot mean"),
        ] {
            let refusal = read_text(&HEAD.replace(from, to)).unwrap_err().to_string();
            assert!(refusal.contains(words), "{refusal}");
        }
        let notes = read_text(&HEAD.replace("Offset", "Weather = fine\nOffset")).unwrap().notes;
        assert!(notes[0].contains("weather"), "{notes:?}");
        let unit = read_text(&HEAD.replace("Offset", "DistanceUnits = inch\nOffset")).unwrap();
        assert!(unit.micrometres.unwrap_err().contains("'inch'"));
    }
}
