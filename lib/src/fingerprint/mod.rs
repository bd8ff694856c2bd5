//! Fingerprints: short strings that are equal for equal contents and, in practice, differ for
//! different contents.
//!
//! The hash is XXH3 with 128 bits (<https://github.com/Cyan4973/xxHash>, "xxHash fast digest
//! algorithm", version 0.2.0). Its value is the same on every machine and does not depend on the
//! compiler or on the release of the library.

use serde::Serializer;
use twox_hash::xxhash3_128::Hasher;

/// Computes the fingerprint of content that is added in pieces.
#[derive(Default)]
pub struct Fingerprint(Hasher);

impl Fingerprint {
    /// Adds one piece of content, preceded by its length, so that `["ab", "c"]` and `["a", "bc"]`
    /// differ.
    pub fn add(&mut self, piece: &[u8]) -> &mut Self {
        self.0.write(&(piece.len() as u64).to_le_bytes());
        self.0.write(piece);
        self
    }

    /// Adds sizes or other counts.
    pub fn add_counts(&mut self, counts: impl IntoIterator<Item = u64>) -> &mut Self {
        for count in counts {
            self.0.write(&count.to_le_bytes());
        }
        self
    }

    /// Adds numbers by their bit patterns, so that 0 and -0 differ and identical NaNs are equal.
    pub fn add_numbers(&mut self, numbers: impl IntoIterator<Item = f64>) -> &mut Self {
        self.add_counts(numbers.into_iter().map(f64::to_bits))
    }

    /// The fingerprint of everything added so far: 32 hexadecimal digits.
    pub fn hex(&self) -> String {
        format!("{:032x}", self.0.finish_128())
    }
}

/// The fingerprint of one text or file.
pub fn of(bytes: &[u8]) -> String {
    let mut fingerprint = Fingerprint::default();
    fingerprint.add(bytes);
    fingerprint.hex()
}

/// Serialises a number. NaN and infinite numbers become strings, because JSON would write all of
/// them as `null`.
///
/// # Errors
/// Those of the serialiser.
pub fn any_number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_finite() {
        serializer.serialize_f64(*number)
    } else {
        serializer.serialize_str(&number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_xxh3_of_128_bits() {
        // test vector of the reference implementation: the empty input with seed 0
        assert_eq!(Hasher::default().finish_128(), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }

    #[test]
    fn pieces_do_not_run_into_each_other() {
        let of = |pieces: &[&str]| {
            let mut fingerprint = Fingerprint::default();
            for piece in pieces {
                fingerprint.add(piece.as_bytes());
            }
            fingerprint.hex()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
    }

    #[test]
    fn numbers_that_json_does_not_know_stay_apart() {
        #[derive(serde::Serialize)]
        struct Fill(#[serde(serialize_with = "any_number")] f64);
        let text = |v: f64| serde_json::to_string(&Fill(v)).unwrap();
        assert_eq!(text(f64::NAN), "\"NaN\"");
        assert_ne!(text(f64::INFINITY), text(f64::NEG_INFINITY));
        assert_eq!(text(0.1), "0.1");
    }
}
