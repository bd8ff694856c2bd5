//! The table of a stack of sections: its columns, and the comments that hold metadata.

use std::path::{Path, PathBuf};

use crate::files;
use crate::geom::Point;
use crate::store::{self, document};
use crate::table::{self, Table};
use crate::volume::calibration::micrometers;
use crate::volume::{Error, shorten};

/// The maximum magnitude of `z` and of offsets, so that sums of several of them do not overflow.
const MAX_POSITION: i64 = 1 << 40;

/// The number of bytes at the start of a file that are searched for the header of a table.
const HEAD_BYTES: usize = 1 << 16;

/// An image of a section, or of a tile of a section, as its row describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRow {
    /// The index of the plane.
    pub z: i64,
    /// The location of the image.
    pub image: PathBuf,
    /// The location of the mask, if there is one.
    pub mask: Option<PathBuf>,
    /// The position of the image's first pixel along y, x, in pixels.
    pub offset: [f64; 2],
    /// The line in the table, counted from 1.
    pub line: u64,
}

/// A table of images: its rows in order of `z`, and the metadata in its comments.
#[derive(Debug, Default)]
pub struct ImageTable {
    /// The images.
    pub rows: Vec<ImageRow>,
    /// `# spacing:` along z, y, x in micrometres; NaN along z if only y, x are given.
    pub spacing: Option<Point>,
    /// `# origin:` along z, y, x in micrometres.
    pub origin: Option<Point>,
    /// `# fill:`, the value of pixels outside all images.
    pub fill: f64,
}

/// A section, as its row describes it: an image at an offset of whole pixels.
pub(super) struct SectionRow<'a> {
    pub(super) row: &'a ImageRow,
    /// The position of the image's first pixel along y, x, in pixels.
    pub(super) offset: [i64; 2],
}

impl ImageTable {
    /// The rows as sections.
    ///
    /// # Errors
    /// [`Error`] for two rows of one z, and for an offset that is not a whole number of pixels.
    pub(super) fn sections<'a>(&'a self, path: &Path) -> Result<Vec<SectionRow<'a>>, Error> {
        let mut pairs = self.rows.iter().zip(self.rows.iter().skip(1));
        if let Some((first, second)) = pairs.find(|(first, second)| first.z == second.z) {
            let message = format!(
                "has z {} already in line {}; correct or delete one, or make one image of the tiles of a section with \
                 stitch and fuse",
                second.z, first.line
            );
            return Err(at_line(path, second.line, message));
        }
        let section = |row: &'a ImageRow| match row.offset.iter().find(|v| v.fract() != 0.0) {
            None => Ok(SectionRow { row, offset: row.offset.map(|v| v as i64) }),
            Some(part) => {
                let message = format!("has the offset {part}, wanted a whole number of pixels");
                Err(at_line(path, row.line, message))
            }
        };
        self.rows.iter().map(section).collect()
    }
}

/// Whether a text begins with the header of a table of sections, which has the columns `z` and
/// `location`. Comments may precede it.
fn is_header(start: &[u8]) -> bool {
    let text = String::from_utf8_lossy(start);
    let mut lines = text.trim_start_matches('\u{feff}').lines().map(str::trim);
    let Some(line) = lines.find(|line| !line.is_empty() && !line.starts_with('#')) else {
        return false;
    };
    let has = |name: &str| line.split(',').any(|cell| cell.trim().trim_matches('"') == name);
    has("z") && has("location")
}

/// Whether the file at `path` is a table of sections. False for pipes, and for a file that cannot
/// be read; the error is reported when the file is opened.
pub(in crate::volume) fn is_table(path: &Path) -> bool {
    !files::is_pipe(path)
        && document::read_start(path, HEAD_BYTES).is_ok_and(|start| is_header(&start))
}

/// Reads a table of images.
///
/// # Errors
/// [`Error`] with the line that is damaged.
pub fn read_images(path: &Path) -> Result<ImageTable, Error> {
    let text = document::read(path).map_err(|source| Error::io("read", path, source))?;
    let mut list = comments(path, &String::from_utf8_lossy(&text))?;
    let table = Table::read(path).map_err(of_table)?;
    let [z, location] = ["z", "location"].map(|name| table.required_column(name).map_err(of_table));
    let (z, location, mask) = (z?, location?, table.column("mask"));
    let offsets = ["offset_y", "offset_x"].map(|name| table.column(name));
    let folder = store::parent(path).unwrap_or(Path::new(""));
    let place = |text: &str| {
        let own = Path::new(text);
        if store::is_remote(own) { own.to_owned() } else { store::resolve(folder, text) }
    };
    for (number, cells) in table.rows.iter().enumerate() {
        let whole = |column: usize| -> Result<i64, Error> {
            let value = cells[column].parse().ok().filter(|v: &i64| v.abs() <= MAX_POSITION);
            value.ok_or_else(|| of_table(table.bad_cell(number, column, "a whole number")))
        };
        let pixels = |column: usize| -> Result<f64, Error> {
            let value = cells[column].parse().ok();
            let value = value.filter(|v: &f64| v.abs() <= MAX_POSITION as f64);
            value.ok_or_else(|| of_table(table.bad_cell(number, column, "a number of pixels")))
        };
        if cells[location].is_empty() {
            let wanted = "the location of an image (a section that is missing has no line)";
            return Err(of_table(table.bad_cell(number, location, wanted)));
        }
        let offset = offsets.map(|column| column.map_or(Ok(0.0), pixels));
        let [offset_y, offset_x] = offset;
        list.rows.push(ImageRow {
            z: whole(z)?,
            image: place(&cells[location]),
            mask: mask
                .map(|column| &cells[column])
                .filter(|cell| !cell.is_empty())
                .map(|m| place(m)),
            offset: [offset_y?, offset_x?],
            line: table.line(number),
        });
    }
    list.rows.sort_by_key(|row| row.z);
    if list.rows.is_empty() {
        return Err(Error::format(path.display(), "lists no section; it needs a line for each"));
    }
    Ok(list)
}

/// The error for a line of the table.
pub(super) fn at_line(path: &Path, line: u64, message: impl Into<String>) -> Error {
    Error::format(format!("{}, line {line}", path.display()), message)
}

fn of_table(error: table::Error) -> Error {
    match error {
        table::Error::Io { action, path, source } => Error::Io { action, path, source },
        table::Error::Format { path, line: Some(line), message } => {
            at_line(Path::new(&path), line, message)
        }
        table::Error::Format { path, line: None, message } => Error::format(path, message),
    }
}

/// The metadata in the comments of a table; other comments are ignored.
fn comments(path: &Path, text: &str) -> Result<ImageTable, Error> {
    let mut list = ImageTable::default();
    let (mut seen, lines) = (Vec::new(), text.trim_start_matches('\u{feff}').lines());
    for (number, line) in lines.enumerate() {
        let Some((key, value)) = line.strip_prefix('#').and_then(|line| line.split_once(':'))
        else {
            continue;
        };
        let (key, value) = (key.trim().to_lowercase(), value.trim());
        if !["spacing", "origin", "fill"].contains(&&*key) {
            continue;
        }
        let bad = |wanted: &str| {
            let value = shorten(value);
            let message = format!("has the {key} '{value}', wanted {wanted}; correct or delete it");
            at_line(path, number as u64 + 1, message)
        };
        match key.as_str() {
            "fill" => list.fill = value.parse().map_err(|_| bad("a number"))?,
            "origin" => {
                let found = lengths(value).filter(|found| !found[0].is_nan());
                list.origin = Some(found.ok_or_else(|| bad("z,y,x and a unit (nm, um, mm)"))?);
            }
            _ => {
                let above = |found: &Point| found.iter().all(|v| v.is_nan() || *v > 0.0);
                let found = lengths(value).filter(above);
                let wanted = "z,y,x (or y,x) above 0 and a unit (nm, um, mm)";
                list.spacing = Some(found.ok_or_else(|| bad(wanted))?);
            }
        }
        if seen.contains(&key) {
            return Err(bad("one of its kind"));
        }
        seen.push(key);
    }
    Ok(list)
}

/// Parses lengths along z, y, x, such as `40,8,8 nm`, or along y, x, such as `8,8 nm`; the length
/// along z is then NaN. The result is in micrometres, which is also the unit of a text without a
/// unit.
fn lengths(text: &str) -> Option<Point> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (numbers, unit) = (&text[..end], text[end..].trim());
    let unit = if unit.is_empty() { 1.0 } else { micrometers(unit)? };
    let numbers: Option<Vec<f64>> = numbers
        .split(',')
        .map(|number| number.trim().parse().ok().filter(|v: &f64| v.is_finite()))
        .collect();
    // for units smaller than a micrometre, a division by an integer keeps decimal fractions short:
    // 40 nm are 0.04 um
    let scaled = |value: f64| if unit < 1.0 { value / (1.0 / unit).round() } else { value * unit };
    match numbers?[..] {
        [z, y, x] => Some([z, y, x].map(scaled)),
        [y, x] => Some([f64::NAN, scaled(y), scaled(x)]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_known_below_comments_and_in_quotes() {
        for (text, known) in [
            ("z,location\n", true),
            ("\u{feff}# a\n\n location , z ,mask\n", true),
            ("\"z\",\"location\"\n", true),
            ("z_um,y_um,x_um\n", false),
            ("z,location_of\n", false),
            ("# z,location\n", false),
            ("", false),
        ] {
            assert_eq!(is_header(text.as_bytes()), known, "{text}");
        }
    }

    #[test]
    fn lengths_have_a_unit_or_are_micrometres() {
        assert_eq!(lengths("40,8,8 nm"), Some([0.04, 0.008, 0.008]));
        assert_eq!(lengths("0.04, 8e-3 ,0.008"), Some([0.04, 0.008, 0.008]));
        assert_eq!(lengths("1,2,3mm"), Some([1000.0, 2000.0, 3000.0]));
        assert!(lengths("8,8nm").is_some_and(|found| found[0].is_nan() && found[1] == 0.008));
        for bad in ["", "1", "1,2,3,4", "1,2,3 px", "a,b,c", "1,,2"] {
            assert_eq!(lengths(bad), None, "{bad}");
        }
    }
}
