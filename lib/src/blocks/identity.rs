//! The identity of a run: everything that its result depends on.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Error;
use crate::device;
use crate::fingerprint;
use crate::geom::{Chain, Transform};
use crate::volume::{self, Volume};

/// Version of the content of an identity; identities of different versions differ.
const FORMAT: u32 = 1;

/// Everything that the result of a run depends on, by name: the content and the selection of every
/// input, and every option.
///
/// `--resume`, `--part` and `--finish` compare identities. Each [`super::Plan`] contains the
/// identity of its run, and the ledger and the finished output store it. A run with a different
/// identity is refused, and the message names the first difference. Values are serialised (never as
/// `Debug` output, which can change between compilers), and content is hashed by [`fingerprint`],
/// so that an identity is the same on every machine.
///
/// ```
/// use voxloom::blocks::Identity;
/// let one = Identity::of("downsample").with("method", "mean");
/// let other = Identity::of("downsample").with("method", "mode");
/// assert_eq!(one.difference(&other), ["method \"mean\"", "method \"mode\""]);
/// assert_eq!(one.differs_at(&other), ["method"]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Identity(Map<String, Value>);

impl Identity {
    /// The identity of an operation, before inputs and options are added.
    pub fn of(operation: &str) -> Self {
        let mut fields = Map::new();
        fields.insert("operation".to_owned(), operation.into());
        fields.insert("format".to_owned(), FORMAT.into());
        Self(fields)
    }

    /// Adds an option, or a set of options, under this name.
    ///
    /// Numbers that can be NaN or infinite must be serialised by [`fingerprint::any_number`].
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        // serialisation fails only for a map whose keys are not strings; the text of the error then
        // replaces the value
        let value = serde_json::to_value(value).unwrap_or_else(|error| error.to_string().into());
        self.0.insert(name.to_owned(), value);
        self
    }

    /// Adds whether kernels use fused multiply-add on this processor, for operations whose last
    /// bits depend on it.
    #[must_use]
    pub fn with_processor(self) -> Self {
        self.with("fused multiply-add", device::fuses_multiply_add())
    }

    /// Adds an input volume.
    ///
    /// # Errors
    /// [`volume::Error::Io`] if one of its files cannot be read.
    pub fn with_volume(self, name: &str, volume: &Volume) -> Result<Self, volume::Error> {
        Ok(self.with(name, volume.identity()?))
    }

    /// Adds an optional input volume; `None` is stored as null.
    ///
    /// # Errors
    /// As [`Identity::with_volume`].
    pub fn with_optional(self, name: &str, volume: Option<&Volume>) -> Result<Self, volume::Error> {
        match volume {
            Some(volume) => self.with_volume(name, volume),
            None => Ok(self.with(name, Value::Null)),
        }
    }

    /// Adds a chain of transforms: matrices by their elements, fields and local affines by their
    /// content.
    ///
    /// # Errors
    /// [`Error::Field`] if a field cannot be read.
    pub fn with_chain(self, name: &str, chain: &Chain) -> Result<Self, Error> {
        let steps: Result<Vec<Value>, Error> = chain
            .steps
            .iter()
            .map(|step| {
                Ok(match step {
                    Transform::Affine(map) => json!({"affine": map.rows()}),
                    Transform::LocalAffines(maps) => json!({"local_affines": maps.fingerprint()}),
                    Transform::Field(field) => {
                        json!({"field": field.fingerprint().map_err(Error::Field)?})
                    }
                })
            })
            .collect();
        Ok(self.with(name, steps?))
    }

    /// A short name of a chain of transforms, by the content of its fields.
    ///
    /// # Errors
    /// As [`Identity::with_chain`].
    pub fn of_chain(chain: &Chain) -> Result<String, Error> {
        Ok(Self::of("chain").with_chain("chain", chain)?.hex())
    }

    /// Adds the content of an input file, or of an input array in a folder.
    ///
    /// # Errors
    /// [`volume::Error`] if `location` does not exist or is not an array.
    pub fn with_file(self, name: &str, location: &str) -> Result<Self, volume::Error> {
        Ok(self.with(name, volume::fingerprint(location)?))
    }

    /// The identity in its stored form.
    pub fn to_json(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// A short name of the identity: the hexadecimal fingerprint of its JSON text.
    pub fn hex(&self) -> String {
        fingerprint::of(self.to_json().to_string().as_bytes())
    }

    /// The inverse of [`Identity::to_json`]; `None` if `value` is not a JSON object.
    pub fn from_json(value: &Value) -> Option<Self> {
        value.as_object().cloned().map(Self)
    }

    /// The first difference between two identities: for each identity, the name of the entry that
    /// differs and its value. If the entry is a fingerprint of content, the first text is a
    /// sentence and the second is empty.
    pub fn difference(&self, other: &Self) -> [String; 2] {
        let Some((path, values)) = self.first_difference(other) else {
            return [String::new(), String::new()];
        };
        match content_of(&path) {
            Some(name) => [format!("{} has other content", describe_path(name)), String::new()],
            None => {
                values.map(|value| format!("{} {}", describe_path(&path), shorten_value(value)))
            }
        }
    }

    /// The path to the first difference of two identities: names and list indices, outermost first.
    pub fn differs_at(&self, other: &Self) -> Vec<String> {
        self.first_difference(other).map(|(path, _)| path).unwrap_or_default()
    }

    fn first_difference<'a>(&'a self, other: &'a Self) -> Option<(Vec<String>, [&'a Value; 2])> {
        let names = self.0.keys().chain(other.0.keys());
        let differs = |name: &&String| self.0.get(*name) != other.0.get(*name);
        let name = names.into_iter().find(differs)?;
        let values = [self, other].map(|identity| identity.0.get(name).unwrap_or(&Value::Null));
        let mut path = vec![name.clone()];
        let values = innermost(&mut path, values);
        Some((path, values))
    }
}

/// Descends into two JSON values to their first difference, as long as both have the same
/// structure; returns the two values found there. The keys on the way are appended to `path`. A
/// list of three numbers, such as a position or a shape, is treated as one value.
fn innermost<'a>(path: &mut Vec<String>, [a, b]: [&'a Value; 2]) -> [&'a Value; 2] {
    let deeper = match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys = a.keys().chain(b.keys());
            let key = keys.find(|key| a.get(*key) != b.get(*key));
            key.map(|key| (key.clone(), [a, b].map(|map| map.get(key).unwrap_or(&Value::Null))))
        }
        (Value::Array(a), Value::Array(b))
            if a.len() == b.len() && (a.len() != 3 || !a.iter().all(Value::is_number)) =>
        {
            let at = (0..a.len()).find(|&i| a[i] != b[i]);
            at.map(|i| (i.to_string(), [&a[i], &b[i]]))
        }
        _ => None,
    };
    let Some((key, values)) = deeper else { return [a, b] };
    path.push(key);
    innermost(path, values)
}

/// The start of `path` up to the file, volume or field whose content differs; `None` if the
/// difference is not in the fingerprint of a content.
fn content_of(path: &[String]) -> Option<&[String]> {
    const CONTENT: [&str; 3] = ["content", "field", "local_affines"];
    let named = path.iter().skip(1).position(|key| CONTENT.contains(&key.as_str()))?;
    Some(&path[..=named])
}

/// A path in words; list indices are counted from 1.
fn describe_path(path: &[String]) -> String {
    let words = path.iter().map(|key| match key.parse::<usize>() {
        Ok(number) => format!("number {}", number + 1),
        Err(_) => key.clone(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A value as text for messages: at most 80 characters. A list that contains other values than
/// numbers and strings is replaced by its length.
fn shorten_value(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Array(list) if list.iter().any(|v| !v.is_number() && !v.is_string()) => {
            format!("{} of them", list.len())
        }
        _ => value.to_string().chars().take(80).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::geom::{Affine, Field, Grid};

    fn field(value: f32, at: usize) -> Field {
        let grid = Grid::new([3, 4, 5], [1.0; 3], [0.0; 3]);
        let mut vectors = vec![[0.0; 3]; 60];
        vectors[at][1] = value;
        Field { grid, vectors }
    }

    #[test]
    fn a_difference_is_named_as_deep_as_it_goes() {
        let of = |shape: [usize; 3], mean: &str| {
            Identity::of("x").with("input", json!({"grid": {"shape": shape}})).with("method", mean)
        };
        let difference = of([1, 2, 3], "a").difference(&of([1, 2, 4], "a"));
        assert_eq!(difference, ["input grid shape [1,2,3]", "input grid shape [1,2,4]"]);
        let difference = of([1, 2, 3], "a").difference(&of([1, 2, 3], "b"));
        assert_eq!(difference, ["method \"a\"", "method \"b\""]);
        let longer = of([1, 2, 3], "a").with("mask", "m");
        assert_eq!(of([1, 2, 3], "a").difference(&longer), ["mask none", "mask \"m\""]);
        let input = |content: &str| {
            let volume = json!({"content": content, "grid": 1});
            let list = json!([{"name": null, "content": ["a", content]}, "b", "c"]);
            [Identity::of("x").with("fixed", volume), Identity::of("x").with("receipts", list)]
        };
        let [fixed, list] = input("c0ffee");
        let [other, others] = input("facade");
        assert_eq!(fixed.difference(&other), ["fixed has other content", ""]);
        assert_eq!(list.difference(&others), ["receipts number 1 has other content", ""]);
        assert_eq!(list.differs_at(&others), ["receipts", "0", "content", "1"]);
    }

    #[test]
    fn an_identity_comes_back_from_its_text() {
        let identity = Identity::of("x")
            .with("numbers", [0.1, 1.0 / 3.0, 1e-300, 5.0])
            .with("count", usize::MAX)
            .with("single", 0.1f32);
        let text = identity.to_json().to_string();
        let back = Identity::from_json(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!(back, identity);
        assert_eq!(back.hex(), identity.hex());
    }

    #[test]
    fn the_name_of_an_identity_is_the_same_in_every_release() {
        let identity = Identity::of("x").with("radius", [1.0, 2.5]).with("seed", 3);
        assert_eq!(identity.hex(), "ce068b96013508c6bef918fed7c8e5a4");
    }

    proptest! {
        #[test]
        fn any_vector_of_a_field_counts(value in 0.001f32..9.0, at in 0usize..60) {
            let chain = |field| Chain { steps: vec![Transform::Field(Arc::new(field))] };
            let of = |field| Identity::of("x").with_chain("chain", &chain(field)).unwrap();
            prop_assert_ne!(of(field(0.0, 0)), of(field(value, at)));
            prop_assert_eq!(of(field(value, at)), of(field(value, at)));
        }

        #[test]
        fn any_number_of_a_matrix_counts(value in 0.001f64..9.0, row in 0usize..3, column in 0usize..4) {
            let mut rows = Affine::IDENTITY.rows();
            rows[row][column] += value;
            let of = |map| Identity::of("x").with_chain("chain", &Chain::affine(map)).unwrap();
            prop_assert_ne!(of(Affine::IDENTITY), of(Affine::from_rows(rows)));
        }
    }
}
