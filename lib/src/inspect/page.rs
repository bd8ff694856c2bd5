use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A list of facts about a location, to be shown as text or as JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    title: String,
    facts: Vec<(String, String, Value)>,
}

impl Page {
    /// An empty page about `title`.
    pub(super) fn new(title: &str) -> Self {
        Self { title: title.to_owned(), facts: Vec::new() }
    }

    /// Adds a fact: its name, its text for people and its value for programs.
    pub(super) fn add(&mut self, name: &str, text: impl Into<String>, value: impl Into<Value>) {
        self.facts.push((name.to_owned(), text.into(), value.into()));
    }

    /// Adds a fact whose value is its text.
    pub(super) fn add_text(&mut self, name: &str, text: impl Into<String>) {
        let text = text.into();
        self.add(name, text.clone(), text);
    }

    /// The page as text: one line per fact, further lines of a fact are indented.
    pub fn text(&self) -> String {
        let width = self.facts.iter().map(|fact| fact.0.len()).max().unwrap_or(0);
        let mut page = format!("{}\n", self.title);
        for (name, text, _) in &self.facts {
            let name = if name.ends_with("_um") { name.clone() } else { name.replace('_', " ") };
            let text = text.replace('\n', &format!("\n{}", " ".repeat(width + 4)));
            let _ = writeln!(page, "  {name:width$}  {text}"); // writing to a String cannot fail
        }
        page
    }

    /// The page as JSON.
    pub fn json(&self) -> Value {
        let mut map = Map::new();
        map.insert("location".to_owned(), self.title.as_str().into());
        for (name, _, value) in &self.facts {
            map.insert(name.clone(), value.clone());
        }
        Value::Object(map)
    }
}

/// Numbers along z, y, x in the form `149 x 241 x 456`.
pub(super) fn times<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" x ")
}

/// A number with four significant digits, or with all digits before the decimal point if there are
/// more than four. It has no trailing zeros after the point.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let exponent = value.abs().log10().floor() as i32;
    if !(-6..15).contains(&exponent) {
        return format!("{value:.3e}");
    }
    let digits = (3 - exponent).max(0);
    let text = format!("{value:.*}", digits as usize);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// A number of bytes with a decimal unit prefix.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{} {}", short(value), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_sizes_have_units() {
        let numbers = [0.0, 1.84, 123.456, 65535.0, 0.000_123_46, 1e30].map(short);
        assert_eq!(numbers, ["0", "1.84", "123.5", "65535", "0.0001235", "1.000e30"]);
        assert_eq!([999, 1500, 18_300_000].map(size), ["999 B", "1.5 kB", "18.3 MB"]);
    }

    #[test]
    fn a_page_is_read_by_people_and_by_programs() {
        let mut page = Page::new("a.zarr");
        page.add_text("kind", "volume");
        page.add("shape", times(&[1, 2, 3]), vec![1, 2, 3]);
        page.add("long_name", "two\nlines", 7);
        assert_eq!(
            page.text(),
            "a.zarr\n  kind       volume\n  shape      1 x 2 x 3\n  long name  two\n             lines\n"
        );
        assert_eq!(
            page.json().to_string(),
            r#"{"location":"a.zarr","kind":"volume","shape":[1,2,3],"long_name":7}"#
        );
    }
}
