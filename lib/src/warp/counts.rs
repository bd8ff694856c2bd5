//! Counts that are collected while a volume is resampled, and reported at the end. Each task stores
//! its counts in the ledger, so that the totals cover the whole output, whichever process did which
//! task.

use serde::{Deserialize, Serialize};

use super::Error;
use crate::blocks::{Context, ExitReason, TaskResults};
use crate::volume::{Dtype, Voxel};

/// Counts of one task, or their sum over all tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct ValueCounts {
    /// Voxels for which the chain, or its inverse, is undefined.
    #[serde(skip_serializing_if = "is_zero")]
    lost: u64,
    /// Voxels written that are NaN.
    #[serde(skip_serializing_if = "is_zero")]
    unknown: u64,
    /// Least and greatest finite value that was read, if the output's type cannot represent all
    /// values of the input's type.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<[f64; 2]>,
    /// Whether values were read that are not whole numbers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    has_fractions: bool,
    /// Whether infinity was read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    has_infinity: bool,
    /// Whether NaN was read and the output's type cannot represent it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    has_nan: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl ValueCounts {
    pub(super) fn of_lost(lost: u64) -> Self {
        Self { lost, ..Self::default() }
    }

    /// Examines values that will be converted to a type that cannot represent all of them.
    pub(super) fn of_narrowed<T: Voxel>(voxels: &[T]) -> Self {
        let mut tally = Self::default();
        for v in voxels.iter().map(|v| v.to_f64()) {
            if v.is_nan() {
                tally.has_nan = true;
            } else if v.is_infinite() {
                // JSON cannot represent infinity, so that `range` must not contain it
                tally.has_infinity = true;
            } else {
                let [low, high] = tally.range.unwrap_or([v; 2]);
                tally.range = Some([low.min(v), high.max(v)]);
                tally.has_fractions |= v.fract() != 0.0;
            }
        }
        tally
    }

    /// Adds `voxels`, the number of voxels at which a field of the chain is unknown.
    pub(super) fn count_unmapped(&mut self, voxels: u64) {
        self.lost += voxels;
    }

    /// Counts the NaN voxels of a block that was resampled.
    pub(super) fn count_written<O: Voxel>(&mut self, voxels: &[O]) {
        let unknown = voxels.iter().filter(|v| v.partial_cmp(v).is_none()).count();
        self.unknown += unknown as u64;
    }

    pub(super) fn and(self, other: Self) -> Self {
        let range = match (self.range, other.range) {
            (Some(a), Some(b)) => Some([a[0].min(b[0]), a[1].max(b[1])]),
            (a, b) => a.or(b),
        };
        Self {
            lost: self.lost + other.lost,
            unknown: self.unknown + other.unknown,
            range,
            has_fractions: self.has_fractions || other.has_fractions,
            has_infinity: self.has_infinity || other.has_infinity,
            has_nan: self.has_nan || other.has_nan,
        }
    }

    /// The sum over all tasks.
    pub(super) fn of_all(results: &TaskResults) -> Result<Self, Error> {
        let mut sum = Self::default();
        for summary in results.summaries() {
            sum = sum.and(summary?.1);
        }
        Ok(sum)
    }

    /// Records the counts, and warns of results that a user would not expect. An output that is NaN
    /// everywhere is an error.
    ///
    /// * `to`: the output, of `voxels` voxels of type `dtype`
    pub(super) fn report(
        &self,
        to: &str,
        dtype: Dtype,
        voxels: u64,
        backwards: bool,
        ctx: &Context,
    ) -> Result<(), Error> {
        if backwards {
            ctx.record("voxels_without_inverse", self.lost);
        } else if self.lost > 0 {
            ctx.record("voxels_without_transform", self.lost);
        }
        if self.lost > 0 {
            let state = if backwards { "has no inverse" } else { "is unknown" };
            tracing::warn!(
                "the transform {state} at {} voxels of {to}, which have the fill value",
                self.lost
            );
        }
        if let Some(range) = self.range {
            ctx.record("values_read", serde_json::json!(range));
        }
        for surprise in self.conversion_warnings(dtype) {
            tracing::warn!("{to} is {dtype}: {surprise}");
        }
        let unknown = self.unknown;
        if unknown > 0 {
            ctx.record("voxels_nan", unknown);
        }
        if unknown > 0 && unknown == voxels {
            let (output, verdict) = (to.to_owned(), ExitReason::TooManyFailed);
            return Err(Error::Unknown { output, verdict });
        }
        if unknown > 0 {
            tracing::warn!("{unknown} of {voxels} voxels of {to} are NaN");
        }
        Ok(())
    }

    /// Describes how the conversion to a type changes the values that were read.
    fn conversion_warnings(&self, dtype: Dtype) -> Vec<String> {
        let mut found = Vec::new();
        let [least, greatest] = dtype.range();
        if let Some([low, high]) = self.range {
            if low < least || high > greatest {
                found.push(format!(
                    "the values read range from {low} to {high}, and those below {least} or above {greatest} \
                     are set to these limits"
                ));
            } else if dtype.is_integer() && self.has_fractions && high - low < 2.0 {
                found.push(format!(
                    "the values read range from {low} to {high} and are rounded to whole numbers"
                ));
            }
        }
        if self.has_infinity {
            found.push(format!("infinity becomes {least} or {greatest}"));
        }
        if self.has_nan {
            found.push("NaN becomes 0".to_owned());
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_type_does_not_hold_is_told_once_for_all_tasks() {
        let warnings = |voxels: &[f32], dtype| {
            let halves = voxels.split_at(voxels.len() / 2);
            let tally = ValueCounts::of_narrowed(halves.0).and(ValueCounts::of_narrowed(halves.1));
            tally.conversion_warnings(dtype).join("; ")
        };
        assert_eq!(warnings(&[0.0, 255.0, 17.4, 3.0], Dtype::U8), "");
        assert!(warnings(&[0.0, -3.0, 17.4, 300.0], Dtype::U8).contains("from -3 to 300"));
        assert!(warnings(&[0.0, 0.5, 0.25, 1.0], Dtype::U16).contains("rounded"));
        assert_eq!(warnings(&[0.0, 1.0, 1.0, 0.0], Dtype::U16), "");
        assert_eq!(warnings(&[4.0, f32::NAN, 90.0, 1.0], Dtype::U16), "NaN becomes 0");
        let infinite = [4.0, f32::INFINITY, 90.0, f32::NEG_INFINITY];
        assert_eq!(warnings(&infinite, Dtype::U8), "infinity becomes 0 or 255");
        let tally = ValueCounts::of_narrowed(&infinite);
        let stored = serde_json::to_string(&tally).unwrap();
        assert_eq!(serde_json::from_str::<ValueCounts>(&stored).unwrap(), tally);
    }
}
