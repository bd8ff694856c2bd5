//! Damages files pseudo-randomly; the same seed always gives the same damage.

/// The pseudo-random generator `SplitMix64`, with its state.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Numbers at limits of integer types and of file formats.
const ODD: [u64; 12] = [
    0,
    1,
    2,
    0x7fff,
    0xffff,
    0x0001_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_ffff,
];

/// Numbers and words that are known to confuse parsers of text.
const WORDS: [&str; 34] = [
    "0",
    "-1",
    "1",
    "2",
    "3",
    "65536",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e30",
    "1e308",
    "-1e308",
    "0.5",
    "NaN",
    "inf",
    "null",
    "true",
    "[]",
    "{}",
    "\"\"",
    "\"F\"",
    "\"NaN\"",
    "\"<u2\"",
    "\"bool\"",
    "\"float64\"",
    "\"x\"",
    "\"gzip\"",
    "\"blosc\"",
    "\"transpose\"",
    "\"sequence\"",
    "\"\u{b5}m\"",
    "\\u",
    "..",
    "",
];

/// Damages `bytes` one to three times: replaces a number or a word of the text at the beginning, or
/// changes, inserts, copies or removes some bytes.
pub(crate) fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let text = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        let tokens = tokens(&bytes[..text]);
        if tokens.len() > 3 && random.below(3) > 0 {
            let (start, end) = *random.of(&tokens);
            bytes.splice(start..end, random.of(&WORDS).bytes());
        } else if !bytes.is_empty() {
            change(bytes, random);
        }
    }
}

fn change(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = place(bytes.len(), random);
    match random.below(8) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = random.below(256) as u8,
        2 => bytes.truncate(at),
        3 | 4 => {
            let odd = random.of(&ODD);
            let odd = if random.below(2) == 0 { odd.to_le_bytes() } else { odd.to_be_bytes() };
            let width = *random.of(&[1, 2, 4, 8]);
            let end = bytes.len().min(at + width);
            let from = if odd[0] == 0 { 8 - width } else { 0 };
            bytes[at..end].copy_from_slice(&odd[from..from + end - at]);
        }
        5 => {
            let from = random.below(bytes.len());
            let length = random.below(40).min(bytes.len() - from.max(at));
            bytes.copy_within(from..from + length, at);
        }
        6 => {
            let piece = bytes[at..bytes.len().min(at + random.below(60))].to_vec();
            bytes.splice(at..at, piece);
        }
        _ => {
            let count = random.below(20);
            bytes.splice(at..at, std::iter::repeat_n(b'9', count));
        }
    }
}

/// A random position, preferably near the ends, where headers and indices are.
fn place(length: usize, random: &mut Random) -> usize {
    let near = length.min(64);
    match random.below(3) {
        0 => random.below(length),
        1 => random.below(near),
        _ => length - 1 - random.below(near),
    }
}

/// The ranges of the values in a text: numbers, words, and quoted strings that are not keys.
fn tokens(text: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let start = at;
        if text[at] == b'"' {
            at += 1;
            while at < text.len() && text[at] != b'"' {
                at += 1;
            }
            at += 1;
            if text.get(at) != Some(&b':') {
                found.push((start, at.min(text.len())));
            }
        } else if text[at].is_ascii_alphanumeric() || text[at] == b'-' {
            while at < text.len()
                && (text[at].is_ascii_alphanumeric() || b"+-.".contains(&text[at]))
            {
                at += 1;
            }
            found.push((start, at));
        } else {
            at += 1;
        }
    }
    found
}
