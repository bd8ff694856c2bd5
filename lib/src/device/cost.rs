use std::borrow::Cow;
use std::fmt;
use std::ops::{Add, Mul};

use serde_json::{Map, Value};

/// Bytes of memory as a sum of named terms, such as `fixed voxels` and `moving voxels`.
///
/// Terms that exist at the same time are added with `+`. For consecutive phases, each of which
/// frees the memory of the one before, [`Cost::or`] takes the larger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    terms: Vec<(Cow<'static, str>, u64)>,
}

impl Cost {
    /// The memory of `count` elements of type `T`.
    pub fn of<T>(name: impl Into<Cow<'static, str>>, count: usize) -> Self {
        Self::bytes(name, (count as u64).saturating_mul(size_of::<T>() as u64))
    }

    /// A single term of `bytes` bytes.
    pub fn bytes(name: impl Into<Cow<'static, str>>, bytes: u64) -> Self {
        Self { terms: vec![(name.into(), bytes)] }
    }

    /// The sum of all terms.
    pub fn total(&self) -> u64 {
        self.terms.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// The larger of two costs, for phases that do not overlap in time.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if other.total() > self.total() { other } else { self }
    }

    /// The terms, in the order in which they were added.
    pub fn terms(&self) -> impl Iterator<Item = (&str, u64)> {
        self.terms.iter().map(|(name, bytes)| (name.as_ref(), *bytes))
    }

    /// The terms that are not 0 as a JSON object: bytes by name.
    pub fn to_json(&self) -> Value {
        let terms = self.terms.iter().filter(|(_, bytes)| *bytes > 0);
        terms.map(|(name, bytes)| (name.to_string(), (*bytes).into())).collect::<Map<_, _>>().into()
    }
}

impl Add for Cost {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        for (name, bytes) in other.terms {
            match self.terms.iter_mut().find(|(known, _)| *known == name) {
                Some((_, sum)) => *sum = sum.saturating_add(bytes),
                None => self.terms.push((name, bytes)),
            }
        }
        self
    }
}

impl Mul<u64> for Cost {
    type Output = Self;

    fn mul(mut self, times: u64) -> Self {
        self.terms.iter_mut().for_each(|(_, bytes)| *bytes = bytes.saturating_mul(times));
        self
    }
}

impl std::iter::Sum for Cost {
    fn sum<I: Iterator<Item = Self>>(costs: I) -> Self {
        costs.fold(Self::default(), Add::add)
    }
}

impl From<u64> for Cost {
    fn from(bytes: u64) -> Self {
        Self::bytes("task", bytes)
    }
}

impl fmt::Display for Cost {
    /// For example `300 MB (fixed voxels 100 MB, moving voxels 200 MB)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&megabytes(self.total()))?;
        let named: Vec<_> = self.terms.iter().filter(|(_, bytes)| *bytes > 0).collect();
        if named.len() < 2 {
            return Ok(());
        }
        let terms = named.iter().map(|(name, bytes)| format!("{name} {}", megabytes(*bytes)));
        write!(f, " ({})", terms.collect::<Vec<_>>().join(", "))
    }
}

/// A number of bytes in megabytes, such as `76.3 MB`.
pub fn megabytes(bytes: u64) -> String {
    let mega = bytes as f64 / 1e6;
    if mega < 100.0 { format!("{mega:.1} MB") } else { format!("{mega:.0} MB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_of_one_name_are_added_and_the_greater_phase_counts() {
        let read = Cost::of::<u16>("voxels", 10) + Cost::of::<f32>("mask", 5);
        let both = read.clone() + Cost::bytes("voxels", 7);
        assert_eq!(both.terms().collect::<Vec<_>>(), [("voxels", 27), ("mask", 20)]);
        assert_eq!(both.total(), 47);
        assert_eq!(read.clone().or(both.clone()), both);
        assert_eq!(both.clone().or(read), both);
        assert_eq!((both.clone() * 2).total(), 94);
        assert_eq!(both.to_json()["mask"], 20);
    }

    #[test]
    fn a_sum_that_no_number_can_hold_is_the_greatest_number() {
        let huge = Cost::of::<f64>("voxels", usize::MAX) + Cost::bytes("mask", u64::MAX);
        assert_eq!(huge.total(), u64::MAX);
        assert_eq!((huge * 3).total(), u64::MAX);
    }

    #[test]
    fn a_cost_is_told_with_its_terms() {
        let cost =
            Cost::bytes("fixed voxels", 1_500_000) + Cost::bytes("moving voxels", 200_000_000);
        assert_eq!(cost.to_string(), "202 MB (fixed voxels 1.5 MB, moving voxels 200 MB)");
        assert_eq!(Cost::from(1_000_000).to_string(), "1.0 MB");
    }
}
