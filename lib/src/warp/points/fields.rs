//! Which points a chain's fields reach.

use super::{Error, forward};
use crate::geom::{Chain, FieldApart, Point, Transform};

/// How many of some points a field of a chain reaches.
pub(in crate::warp) struct Reached {
    /// The field's step in the chain, counted from 1.
    pub(in crate::warp) step: usize,
    /// The number of points that have a displacement.
    pub(in crate::warp) inside: usize,
    /// The number of points outside the field; points that are already NaN do not count.
    pub(in crate::warp) outside: usize,
    /// What the field does with these, for messages.
    pub(in crate::warp) effect: &'static str,
}

/// Counts, for each field of `chain`, the points that it reaches.
///
/// * `points`: in the fixed space, `[z, y, x]` in micrometres
///
/// # Errors
/// [`Error::Apart`] if a field reaches none of the points, [`Error::Field`] if a field cannot be
/// read.
pub(in crate::warp) fn reached_fields(
    chain: &Chain,
    points: &[Point],
) -> Result<Vec<Reached>, Error> {
    let mut all = Vec::new();
    for (i, step) in chain.steps.iter().enumerate() {
        let Transform::Field(field) = step else { continue };
        let grid = field.grid();
        let before = Chain { steps: chain.steps[..i].to_vec() };
        let mut at = forward(&before, points)?;
        at.retain(|p| p.iter().all(|v| v.is_finite()));
        let outside = at.iter().filter(|p| !grid.reaches(**p)).count();
        if outside > 0 && outside == at.len() {
            let axis = |a: usize| at.iter().map(move |p| p[a]);
            let low = std::array::from_fn(|a| axis(a).fold(f64::INFINITY, f64::min));
            let high = std::array::from_fn(|a| axis(a).fold(f64::NEG_INFINITY, f64::max));
            let field = grid.extent(&grid.bounds());
            return Err(FieldApart { step: i + 1, field, points: [low, high] }.into());
        }
        let effect = if field.exterior() == 0.0 { "moves nothing" } else { "is unknown" };
        all.push(Reached { step: i + 1, inside: at.len() - outside, outside, effect });
    }
    Ok(all)
}
