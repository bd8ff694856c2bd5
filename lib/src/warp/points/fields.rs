//! Counts of the points that lie inside and outside the fields of a chain.

use super::{Error, forward};
use crate::geom::{Chain, Grid, Point, Transform, UnreachedField};

/// The numbers of given points inside and outside one field of a chain.
pub(in crate::warp) struct Reached {
    /// The field's step in the chain, counted from 1.
    pub(in crate::warp) step: usize,
    /// The number of points inside the field.
    pub(in crate::warp) inside: usize,
    /// The number of points outside the field; points that are already NaN do not count.
    pub(in crate::warp) outside: usize,
    /// The effect of the field on the points outside, for messages.
    pub(in crate::warp) effect: &'static str,
    /// The extents of the field and of the points, each as `[low, high]` corners, micrometres.
    extents: [[Point; 2]; 2],
}

impl Reached {
    /// Returns an error if all points lie outside the field.
    ///
    /// # Errors
    /// [`UnreachedField`] if no point is inside and at least one is outside.
    pub(super) fn check(&self) -> Result<(), UnreachedField> {
        let [field, points] = self.extents;
        let is_outside = self.inside == 0 && self.outside > 0;
        if is_outside { Err(UnreachedField { step: self.step, field, points }) } else { Ok(()) }
    }
}

/// Warns if a part of the grid `onto` lies outside a field of `chain`, judged by the points of
/// `Grid::sample`. It is not an error if none of these points is inside, because a small field can
/// lie between them.
///
/// # Errors
/// [`Error::Field`] if a field cannot be read.
pub(in crate::warp) fn warn_outside(to: &str, chain: &Chain, onto: &Grid) -> Result<(), Error> {
    for Reached { step, inside, outside, effect, .. } in reached_fields(chain, &onto.sample())? {
        if outside > 0 {
            let share = (100 * outside / (inside + outside)).clamp(1, 99);
            tracing::warn!(
                "about {share} % of {to} lies outside the displacement field of step {step}, which {effect} there"
            );
        }
    }
    Ok(())
}

/// Counts, for each field of `chain`, the points that lie inside and outside it.
///
/// * `points`: in the fixed space, `[z, y, x]` in micrometres
///
/// # Errors
/// [`Error::Field`] if a field cannot be read.
pub(super) fn reached_fields(chain: &Chain, points: &[Point]) -> Result<Vec<Reached>, Error> {
    let mut all = Vec::new();
    for (i, step) in chain.steps.iter().enumerate() {
        let Transform::Field(field) = step else { continue };
        let grid = field.grid();
        let before = Chain { steps: chain.steps[..i].to_vec() };
        let mut at = forward(&before, points)?;
        at.retain(|p| p.iter().all(|v| v.is_finite()));
        let outside = at.iter().filter(|p| !grid.reaches(**p)).count();
        let axis = |a: usize| at.iter().map(move |p| p[a]);
        let low = std::array::from_fn(|a| axis(a).fold(f64::INFINITY, f64::min));
        let high = std::array::from_fn(|a| axis(a).fold(f64::NEG_INFINITY, f64::max));
        let extents = [grid.extent(&grid.bounds()), [low, high]];
        let effect = if field.exterior() == 0.0 { "moves nothing" } else { "is unknown" };
        all.push(Reached { step: i + 1, inside: at.len() - outside, outside, effect, extents });
    }
    Ok(all)
}
