//! Shortens text, numbers and lists that messages quote from files.

use serde_json::Value;

/// Maximum number of characters that a message quotes.
const MAX_LETTERS: usize = 100;

/// The beginning of a text, at most 100 characters. If the text is longer, its length in bytes
/// follows. Control characters are escaped, because a terminal would interpret them.
pub fn shorten(text: &str) -> String {
    beginning(text, MAX_LETTERS)
}

/// As [`shorten`], with at most `most` characters after escaping.
pub(crate) fn beginning(text: &str, most: usize) -> String {
    let (mut shown, mut count) = (String::new(), 0);
    for letter in text.chars() {
        let before = shown.len();
        if letter.is_control() {
            shown.extend(letter.escape_default());
            count += shown.len() - before;
        } else {
            shown.push(letter);
            count += 1;
        }
        if count > most {
            shown.truncate(before);
            return format!("{shown} ... ({} bytes)", text.len());
        }
    }
    shown
}

/// The text of a JSON value, shortened as by [`shorten`].
pub fn json(value: &Value) -> String {
    shorten(&value.to_string())
}

/// The first 8 words of a list, each shortened, and the number of further words.
pub fn list<T: AsRef<str>>(words: &[T]) -> String {
    const SHOWN: usize = 8;
    let each = |word: &T| beginning(word.as_ref(), MAX_LETTERS / 2);
    let shown: Vec<String> = words.iter().take(SHOWN).map(each).collect();
    match words.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Numbers in ascending order as text, with ranges: "0-4, 7".
pub(crate) fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<[usize; 2]> = Vec::new();
    for n in numbers {
        match parts.last_mut() {
            Some([_, last]) if *last + 1 == *n => *last = *n,
            _ => parts.push([*n, *n]),
        }
    }
    let text = |[first, last]: &[usize; 2]| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// A number in a short form: with a power of ten if it would otherwise have more than 12
/// characters.
pub fn number(value: f64) -> String {
    let digits = value.to_string();
    if digits.len() > 12 && value.is_finite() { format!("{value:e}") } else { digits }
}

/// A measured number with three decimal places, or with four significant digits if its magnitude is
/// 1e9 or more.
pub fn rounded(value: f64) -> String {
    if value.abs() < 1e9 { format!("{value:.3}") } else { format!("{value:.3e}") }
}

/// The reason why a text is not valid JSON, for messages.
pub fn json_error(error: &serde_json::Error) -> String {
    let message = error.to_string();
    if message.contains("recursion limit") {
        return format!("it is nested too deeply (line {})", error.line());
    }
    message
}

/// The first 8 numbers of a list in Rust's syntax; if there are more, the length of the list
/// follows.
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
    fn numbers_in_sequence_are_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
        assert_eq!(ranges(&[]), "");
    }

    #[test]
    fn a_quotation_is_short_whole_letters_and_no_orders_to_a_terminal() {
        assert_eq!(shorten("a 'word'"), "a 'word'");
        let long = "\u{b5}".repeat(3_000_000);
        let shown = shorten(&long);
        assert_eq!(shown, format!("{} ... (6000000 bytes)", "\u{b5}".repeat(MAX_LETTERS)));
        assert_eq!(shorten("\u{1b}[31mred\n"), "\\u{1b}[31mred\\n");
        // each NUL takes five characters when it is escaped
        let shown = shorten(&"\0".repeat(300));
        assert_eq!(shown, format!("{} ... (300 bytes)", "\\u{0}".repeat(MAX_LETTERS / 5)));
        assert_eq!(json(&serde_json::json!(["a", 1])), "[\"a\",1]");
    }

    #[test]
    fn of_many_words_or_numbers_the_first_are_shown() {
        assert_eq!(list(&["a", "b"]), "a, b");
        assert_eq!(list(&["a"; 20]), "a, a, a, a, a, a, a, a and 12 more");
        let escaped = vec!["\0".repeat(500); 20];
        assert!(list(&escaped).len() < 8 * (MAX_LETTERS / 2 + 25));
        let shown = [1e30, 0.1, -65536.0, 1e-9, f64::NAN, 4_294_967_295.0].map(number);
        assert_eq!(shown, ["1e30", "0.1", "-65536", "0.000000001", "NaN", "4294967295"]);
        assert_eq!([1e30, 0.5].map(rounded), ["1.000e30", "0.500"]);
        let deep = serde_json::from_str::<Value>(&"[".repeat(1000)).unwrap_err();
        assert_eq!(json_error(&deep), "it is nested too deeply (line 1)");
        assert_eq!(numbers(&[1.5, 2.0]), "[1.5, 2.0]");
        assert_eq!(numbers(&[7; 300]), "[7, 7, 7, 7, 7, 7, 7, 7, ... (300 numbers)]");
    }
}
