//! Shortens text, numbers and lists that messages quote from files.

use serde_json::Value;

/// Maximum number of characters that a message quotes.
const MAX_LETTERS: usize = 100;

/// The first 100 characters of a text; if it has more, they are followed by its length in bytes.
/// Control characters are escaped, since a terminal would interpret them.
pub fn shorten(text: &str) -> String {
    let (start, cut) = match text.char_indices().nth(MAX_LETTERS) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    };
    let mut shown = String::with_capacity(start.len());
    for letter in start.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    if cut { format!("{shown} ... ({} bytes)", text.len()) } else { shown }
}

/// The text of a JSON value, shortened as by [`shorten`].
pub fn json(value: &Value) -> String {
    shorten(&value.to_string())
}

/// The first few of a list of words, and how many more there are.
pub fn list<T: AsRef<str>>(words: &[T]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<String> = words.iter().take(SHOWN).map(|word| shorten(word.as_ref())).collect();
    match words.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A number in a short form: with a power of ten if it would otherwise have more than 12
/// characters.
pub fn number(value: f64) -> String {
    let digits = value.to_string();
    if digits.len() > 12 && value.is_finite() { format!("{value:e}") } else { digits }
}

/// A measured number with three decimal places, or with four significant digits if it is large.
pub fn rounded(value: f64) -> String {
    if value.abs() < 1e9 { format!("{value:.3}") } else { format!("{value:.3e}") }
}

/// Why a text is not valid JSON.
pub fn json_error(error: &serde_json::Error) -> String {
    let message = error.to_string();
    if message.contains("recursion limit") {
        return format!("it is nested too deeply (line {})", error.line());
    }
    message
}

/// The first few of a list of numbers, in Rust's syntax.
pub fn numbers<T: std::fmt::Debug>(values: &[T]) -> String {
    const SHOWN: usize = 8;
    if values.len() <= SHOWN {
        return format!("{values:?}");
    }
    let shown: Vec<String> = values[..SHOWN].iter().map(|value| format!("{value:?}")).collect();
    format!("[{}, ... ({} numbers)]", shown.join(", "), values.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotation_is_short_whole_letters_and_no_orders_to_a_terminal() {
        assert_eq!(shorten("a 'word'"), "a 'word'");
        let long = "\u{b5}".repeat(3_000_000);
        let shown = shorten(&long);
        assert_eq!(shown, format!("{} ... (6000000 bytes)", "\u{b5}".repeat(MAX_LETTERS)));
        assert_eq!(shorten("\u{1b}[31mred\n"), "\\u{1b}[31mred\\n");
        assert_eq!(json(&serde_json::json!(["a", 1])), "[\"a\",1]");
    }

    #[test]
    fn of_many_words_or_numbers_the_first_are_shown() {
        assert_eq!(list(&["a", "b"]), "a, b");
        assert_eq!(list(&["a"; 20]), "a, a, a, a, a, a, a, a and 12 more");
        let shown = [1e30, 0.1, -65536.0, 1e-9, f64::NAN, 4_294_967_295.0].map(number);
        assert_eq!(shown, ["1e30", "0.1", "-65536", "0.000000001", "NaN", "4294967295"]);
        assert_eq!([1e30, 0.5].map(rounded), ["1.000e30", "0.500"]);
        let deep = serde_json::from_str::<Value>(&"[".repeat(1000)).unwrap_err();
        assert_eq!(json_error(&deep), "it is nested too deeply (line 1)");
        assert_eq!(numbers(&[1.5, 2.0]), "[1.5, 2.0]");
        assert_eq!(numbers(&[7; 300]), "[7, 7, 7, 7, 7, 7, 7, 7, ... (300 numbers)]");
    }
}
