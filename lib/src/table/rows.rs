//! Tables as text: columns are found by name; errors name the file, the line and the column.

use std::path::Path;

use super::Error;
use crate::quote::shorten;
use crate::store::document::{self, write_whole};

/// A table as stored in a CSV file: a header and rows of text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The names of the columns.
    pub header: Vec<String>,
    /// The cells, one vector per row, each as long as the header.
    pub rows: Vec<Vec<String>>,
    /// The line of each row in its file, counted from 1; empty if no file was read.
    lines: Vec<u64>,
    /// The file that was read, for error messages.
    path: String,
}

impl Table {
    /// An empty table with these columns.
    pub fn new(header: &[&str]) -> Self {
        Self { header: header.iter().map(|&name| name.to_owned()).collect(), ..Self::default() }
    }

    /// Reads a CSV file with a header. Empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`] with the line.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let name = path.display().to_string();
        let bytes = document::read(path).map_err(|source| Error::Io {
            action: "read",
            path: name.clone(),
            source,
        })?;
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(&*bytes);
        let header = reader.headers().map_err(|e| from_csv(&name, &e))?;
        let header: Vec<String> = header.iter().map(str::to_owned).collect();
        check_header(&name, &header)?;
        let mut table = Self { header, path: name, ..Self::default() };
        for record in reader.records() {
            let record = record.map_err(|e| from_csv(&table.path, &e))?;
            table.lines.push(record.position().map_or(0, |start| line_of(&bytes, start)));
            table.rows.push(record.iter().map(str::to_owned).collect());
        }
        Ok(table)
    }

    /// Writes the table as CSV, atomically.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] for a row that is not as long as the header. `path` is then
    /// unchanged.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let refused =
            |source| Error::Io { action: "write", path: path.display().to_string(), source };
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(&self.header).map_err(|e| from_csv(&path.display().to_string(), &e))?;
        for row in &self.rows {
            writer.write_record(row).map_err(|e| from_csv(&path.display().to_string(), &e))?;
        }
        let bytes = writer.into_inner().map_err(|e| refused(e.into_error()))?;
        write_whole(path, &bytes).map_err(refused)
    }

    /// The line of a row in its file, counted from 1; 0 if no file was read.
    pub fn line(&self, row: usize) -> u64 {
        self.lines.get(row).copied().unwrap_or_default()
    }

    /// The index of the column with this name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    /// The index of the column with this name, or an error that lists the columns.
    ///
    /// # Errors
    /// [`Error::Format`].
    pub fn required_column(&self, name: &str) -> Result<usize, Error> {
        self.column(name).ok_or_else(|| Error::Format {
            path: self.path.clone(),
            line: Some(1),
            message: format!(
                "has no column '{name}' (found: {}); name the columns in its first line",
                shorten(&self.header.join(","))
            ),
        })
    }

    /// Parses a cell as a number, which may be NaN or infinite.
    ///
    /// # Errors
    /// [`Error::Format`] with the line and the text found.
    pub fn number(&self, row: usize, column: usize) -> Result<f64, Error> {
        let text = &self.rows[row][column];
        text.parse().map_err(|_| self.bad_cell(row, column, "a number"))
    }

    /// Parses a cell as a finite number.
    ///
    /// # Errors
    /// [`Error::Format`] with the line and the text found.
    pub fn finite(&self, row: usize, column: usize) -> Result<f64, Error> {
        let value = self.number(row, column)?;
        if value.is_finite() {
            Ok(value)
        } else {
            Err(self.bad_cell(row, column, "a finite number"))
        }
    }

    /// Parses a cell as a non-negative integer.
    ///
    /// # Errors
    /// [`Error::Format`] with the line and the text found.
    pub fn count(&self, row: usize, column: usize) -> Result<usize, Error> {
        let text = &self.rows[row][column];
        text.parse().map_err(|_| self.bad_cell(row, column, "a whole number from 0"))
    }

    /// The error for a cell with unexpected content; `wanted` describes what was expected.
    pub fn bad_cell(&self, row: usize, column: usize, wanted: &str) -> Error {
        Error::Format {
            path: self.path.clone(),
            line: self.lines.get(row).copied(),
            message: format!(
                "column {} holds '{}', wanted {wanted}; correct or delete the line",
                shorten(&self.header[column]),
                shorten(&self.rows[row][column])
            ),
        }
    }
}

/// Formats a number with the fewest significant digits that read back as the same double. The
/// notation is scientific if the absolute value is below 1e-5 (but not 0) or at least 1e16.
pub fn number(value: f64) -> String {
    if value == 0.0 || (1e-5..1e16).contains(&value.abs()) {
        format!("{value}")
    } else {
        format!("{value:e}")
    }
}

/// The line of a record. The csv crate reports the position `start` at which it began to look for
/// the record, which is before any empty lines and comments that it skipped.
fn line_of(bytes: &[u8], start: &csv::Position) -> u64 {
    let rest = bytes.get(start.byte() as usize..).unwrap_or_default();
    let skipped = rest
        .split(|&b| b == b'\n')
        .take_while(|line| line.first() == Some(&b'#') || line.trim_ascii().is_empty());
    start.line() + skipped.count() as u64
}

fn check_header(path: &str, header: &[String]) -> Result<(), Error> {
    let message = if header.is_empty() {
        "is empty; wanted a first line with the names of the columns".to_owned()
    } else if header.iter().all(|cell| cell.parse::<f64>().is_ok()) {
        format!(
            "has no header (its first line is '{}'); put the names of the columns above it, such as \
             z_um,y_um,x_um",
            shorten(&header.join(","))
        )
    } else if let Some(twice) = (1..header.len()).find(|&i| header[..i].contains(&header[i])) {
        format!("has two columns '{}'; rename one of them", shorten(&header[twice]))
    } else {
        return Ok(());
    };
    Err(Error::Format { path: path.to_owned(), line: Some(1), message })
}

fn from_csv(path: &str, error: &csv::Error) -> Error {
    let line = error.position().map(csv::Position::line);
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("has {len} cells and the header has {expected_len}; correct or delete the line")
        }
        csv::ErrorKind::Utf8 { .. } => {
            "is not text in UTF-8; give a comma-separated table".to_owned()
        }
        _ => error.to_string(),
    };
    Error::Format { path: path.to_owned(), line, message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Table, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        std::fs::write(&path, text).unwrap();
        Table::read(&path).map_err(|e| e.to_string().replace(&path.display().to_string(), "t.csv"))
    }

    proptest! {
        #[test]
        fn a_number_reads_back_bit_for_bit(bits in any::<u64>()) {
            let value = f64::from_bits(bits);
            let back: f64 = number(value).parse().unwrap();
            prop_assert!(back.to_bits() == bits || (back.is_nan() && value.is_nan()));
        }
    }

    #[test]
    fn numbers_are_written_short() {
        let texts = [12.0, 0.1, -0.0, 1e-7, 1e300, f64::NAN].map(number);
        assert_eq!(texts, ["12", "0.1", "-0", "1e-7", "1e300", "NaN"]);
    }

    #[test]
    fn what_is_wrong_with_a_table_is_one_sentence() {
        assert_eq!(
            read(b"").unwrap_err(),
            "t.csv, line 1: is empty; wanted a first line with the names of the columns"
        );
        assert_eq!(
            read(b"1,2,3\n4,5,6\n").unwrap_err(),
            "t.csv, line 1: has no header (its first line is '1,2,3'); put the names of the columns \
             above it, such as z_um,y_um,x_um"
        );
        assert_eq!(
            read(b"a,b\n1,2\n1\n").unwrap_err(),
            "t.csv, line 3: has 1 cells and the header has 2; correct or delete the line"
        );
        assert_eq!(
            read(b"a,a\n").unwrap_err(),
            "t.csv, line 1: has two columns 'a'; rename one of them"
        );
        assert_eq!(
            read(b"a,b\n1,\xff\xfe\n").unwrap_err(),
            "t.csv, line 2: is not text in UTF-8; give a comma-separated table"
        );
        assert_eq!(
            read(b"a,b\n")
                .unwrap()
                .required_column("c")
                .unwrap_err()
                .to_string()
                .split_once(": ")
                .unwrap()
                .1,
            "has no column 'c' (found: a,b); name the columns in its first line"
        );
    }

    #[test]
    fn a_byte_order_mark_spaces_and_comments_do_no_harm() {
        let table = read(b"\xef\xbb\xbfa, b\n# a remark\n 1 , 2\n\n3,4\n").unwrap();
        assert_eq!(table.header, ["a", "b"]);
        assert_eq!(table.rows, [["1", "2"], ["3", "4"]]);
        assert!(table.bad_cell(0, 1, "x").to_string().contains("line 3: "));
        assert!(table.bad_cell(1, 1, "x").to_string().contains("line 5: "));
    }
}
