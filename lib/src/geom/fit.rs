use nalgebra::{Matrix3, SVD, SymmetricEigen, Vector3};

use super::{Affine, Point};

/// The kind of map that is fitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Model {
    /// Translation.
    Translation,
    /// Translation and rotation.
    Rigid,
    /// Translation, rotation and one scale.
    Similarity,
    /// Any affine map: also scale along each axis, and shear.
    Affine,
    /// For points in a plane of constant z: any affine map within the plane; lengths along z do not
    /// change.
    #[cfg_attr(feature = "cli", value(skip))]
    PlanarAffine,
}

impl Model {
    /// The minimum number of point pairs that determine the model.
    pub fn pairs(self) -> usize {
        match self {
            Self::Translation => 1,
            Self::Rigid | Self::Similarity | Self::PlanarAffine => 3,
            Self::Affine => 4,
        }
    }

    /// The number of dimensions that the points must span.
    fn axes(self) -> usize {
        match self {
            Self::Translation => 0,
            Self::Rigid | Self::Similarity | Self::PlanarAffine => 2,
            Self::Affine => 3,
        }
    }

    /// The name of the model as spelled in command-line flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Translation => "translation",
            Self::Rigid => "rigid",
            Self::Similarity => "similarity",
            Self::Affine | Self::PlanarAffine => "affine",
        }
    }
}

/// The reason why no map could be fitted.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum FitError {
    /// Too few pairs of points for the model.
    #[error("{found} pairs of points, and the model needs {wanted}")]
    TooFew {
        /// The number of pairs given that have positive weight.
        found: usize,
        /// The number of pairs that the model needs.
        wanted: usize,
    },
    /// All points coincide.
    #[error("all points lie in one place: they do not determine the map")]
    Coincident,
    /// The points lie on a line.
    #[error("the points lie on a line: they do not determine the map")]
    Collinear,
    /// The points lie in a plane, which does not determine the model.
    #[error("the points lie in a plane: they do not determine an affine map")]
    Coplanar,
    /// The points spread widely enough, but their cross-covariance does not determine a rotation.
    #[error("the two sets of points have no common orientation: they do not determine the map")]
    Degenerate,
    /// A coordinate or a weight is not a finite number.
    #[error("a coordinate or a weight is not a finite number")]
    NotFinite,
}

/// The extent along a principal axis, relative to the largest extent, below which the points count
/// as flat: the square root of the rounding error of the second moments, with some margin.
const MIN_RELATIVE_EXTENT: f64 = 1e-7;

/// The map of `model` that takes `from` to `to` with the least (weighted) sum of squared residuals.
///
/// Pairs with a weight of 0 or less are ignored. The method for rigid maps is that of Kabsch (Acta
/// Cryst. A32, 1976) with weights, and for similarities that of Umeyama (IEEE TPAMI 13(4), 1991).
/// Unless `allow_reflection` is set, both exclude reflections; affine maps can always reflect.
///
/// # Errors
/// [`FitError`] if the points do not determine a map, or a coordinate or weight is not finite.
///
/// ```
/// use voxloom::geom::{Model, fit};
///
/// let from = [[0.0, 0.0, 0.0], [9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]];
/// let to = from.map(|[z, y, x]| [z + 1.0, y - 2.0, x]);
/// let map = fit(Model::Rigid, &from, &to, None, false)?;
/// assert!(map.offset().iter().zip([1.0, -2.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-9));
/// # Ok::<(), voxloom::geom::FitError>(())
/// ```
pub fn fit(
    model: Model,
    from: &[Point],
    to: &[Point],
    weights: Option<&[f64]>,
    allow_reflection: bool,
) -> Result<Affine, FitError> {
    let moments = Moments::of(model, from, to, weights)?;
    let linear = match model {
        Model::Translation => Matrix3::identity(),
        Model::Rigid => moments.rotation(allow_reflection)?.0,
        Model::Similarity => {
            let (rotation, alignment) = moments.rotation(allow_reflection)?;
            rotation * (alignment / moments.from_from.trace())
        }
        Model::PlanarAffine => moments.keeping_z().linear()?,
        Model::Affine => {
            let linear = moments.linear()?;
            // one step of iterative refinement recovers the precision lost by forming the normal
            // equations
            let mut error = Matrix3::zeros();
            for (x, y, w) in moments.centred(from, to, weights) {
                error += (y - linear * x) * x.transpose() * w;
            }
            linear + moments.solve(error)?
        }
    };
    let offset = moments.to_mean - linear * moments.from_mean;
    let map = Affine::from_parts(
        std::array::from_fn(|r| std::array::from_fn(|c| linear[(r, c)])),
        offset.into(),
    );
    if map.rows().iter().flatten().all(|v| v.is_finite()) {
        Ok(map)
    } else {
        Err(FitError::NotFinite)
    }
}

/// The root mean square extents of a point cloud along its principal axes, largest first: a measure
/// of its flatness.
pub(crate) fn principal_extents(points: impl Iterator<Item = Point> + Clone) -> Point {
    let count = points.clone().count().max(1) as f64;
    let mean = points.clone().map(Vector3::from).sum::<Vector3<f64>>() / count;
    let mut moments = Matrix3::zeros();
    for p in points {
        let x = Vector3::from(p) - mean;
        moments += x * x.transpose() / count;
    }
    extents(moments)
}

/// The square roots of the eigenvalues of a matrix of second moments, largest first.
fn extents(moments: Matrix3<f64>) -> Point {
    let mut values: Point =
        SymmetricEigen::new(moments).eigenvalues.map(|v| v.max(0.0).sqrt()).into();
    values.sort_by(|a, b| b.total_cmp(a));
    values
}

/// Weighted means and second moments of point pairs.
struct Moments {
    /// The sum of the weights.
    total: f64,
    from_mean: Vector3<f64>,
    to_mean: Vector3<f64>,
    /// The weighted sum of `x xᵀ`, with `x` a point of `from` minus the mean; the weights sum to 1.
    from_from: Matrix3<f64>,
    /// The weighted sum of `y xᵀ`, with `y` a point of `to` minus the mean.
    to_from: Matrix3<f64>,
}

impl Moments {
    fn of(
        model: Model,
        from: &[Point],
        to: &[Point],
        weights: Option<&[f64]>,
    ) -> Result<Self, FitError> {
        let weight = |i: usize| weights.map_or(1.0, |w| w[i]);
        let count = from.len().min(to.len()).min(weights.map_or(usize::MAX, <[f64]>::len));
        let used = || (0..count).filter(|&i| weight(i) > 0.0);
        let finite = (0..count)
            .all(|i| weight(i).is_finite() && from[i].iter().chain(&to[i]).all(|v| v.is_finite()));
        if !finite {
            return Err(FitError::NotFinite);
        }
        let (found, wanted) = (used().count(), model.pairs());
        if found < wanted {
            return Err(FitError::TooFew { found, wanted });
        }
        let total = used().map(weight).sum::<f64>();
        let mean = |points: &[Point]| {
            used().map(|i| Vector3::from(points[i]) * (weight(i) / total)).sum::<Vector3<f64>>()
        };
        let mut moments = Self {
            total,
            from_mean: mean(from),
            to_mean: mean(to),
            from_from: Matrix3::zeros(),
            to_from: Matrix3::zeros(),
        };
        let mut to_to = Matrix3::zeros();
        let (mut from_from, mut to_from) = (Matrix3::zeros(), Matrix3::zeros());
        for (x, y, w) in moments.centred(from, to, weights) {
            from_from += x * x.transpose() * w;
            to_from += y * x.transpose() * w;
            to_to += y * y.transpose() * w;
        }
        (moments.from_from, moments.to_from) = (from_from, to_from);
        // the extent that rounding errors produce where the true extent is 0
        let noise = |points: &[Point]| {
            1e-12 * used().flat_map(|i| points[i]).fold(0.0, |most: f64, v| most.max(v.abs()))
        };
        spans(from_from, model.axes(), noise(from))?;
        if matches!(model, Model::Rigid | Model::Similarity) {
            spans(to_to, model.axes(), noise(to))?;
        }
        Ok(moments)
    }

    /// The point pairs relative to their means, with their normalized weights.
    fn centred<'a>(
        &self,
        from: &'a [Point],
        to: &'a [Point],
        weights: Option<&'a [f64]>,
    ) -> impl Iterator<Item = (Vector3<f64>, Vector3<f64>, f64)> + 'a {
        let Self { total, from_mean, to_mean, .. } = *self;
        let count = from.len().min(to.len()).min(weights.map_or(usize::MAX, <[f64]>::len));
        (0..count).filter_map(move |i| {
            let w = weights.map_or(1.0, |w| w[i]);
            (w > 0.0).then(|| {
                (Vector3::from(from[i]) - from_mean, Vector3::from(to[i]) - to_mean, w / total)
            })
        })
    }

    /// The rotation that best aligns the two point sets, and the sum of the singular values of
    /// `to_from`, of which the least is negated if a reflection is turned into a rotation.
    fn rotation(&self, allow_reflection: bool) -> Result<(Matrix3<f64>, f64), FitError> {
        let svd = SVD::new(self.to_from, true, true);
        let (Some(mut u), Some(v_t)) = (svd.u, svd.v_t) else {
            return Err(FitError::Degenerate);
        };
        let mut values = svd.singular_values;
        let least = values.imin();
        let most = values.max();
        let flat = MIN_RELATIVE_EXTENT * MIN_RELATIVE_EXTENT * most;
        if values.iter().filter(|&&v| v > flat).count() < 2 {
            return Err(FitError::Degenerate);
        }
        // for points in a plane, a reflection and a rotation fit equally: choose the rotation
        let free = allow_reflection && values[least] > flat;
        if (u * v_t).determinant() < 0.0 && !free {
            u.column_mut(least).neg_mut();
            values[least] = -values[least];
        }
        Ok((u * v_t, values.sum()))
    }

    /// The moments of points in a plane of constant z, modified so that the fitted linear part is
    /// the identity along z.
    fn keeping_z(&self) -> Self {
        let only_within = |mut moments: Matrix3<f64>| {
            moments.row_mut(0).fill(0.0);
            moments.column_mut(0).fill(0.0);
            moments[(0, 0)] = 1.0;
            moments
        };
        let (from_from, to_from) = (only_within(self.from_from), only_within(self.to_from));
        Self { from_from, to_from, ..*self }
    }

    fn linear(&self) -> Result<Matrix3<f64>, FitError> {
        self.solve(self.to_from)
    }

    fn solve(&self, right: Matrix3<f64>) -> Result<Matrix3<f64>, FitError> {
        let inverse = self.from_from.cholesky().ok_or(FitError::Coplanar)?.inverse();
        Ok(right * inverse)
    }
}

/// Checks that points with these second moments span at least `axes` dimensions. Extents up to
/// `noise` count as 0.
fn spans(moments: Matrix3<f64>, axes: usize, noise: f64) -> Result<(), FitError> {
    let extents = extents(moments);
    let rank = extents.iter().filter(|&&v| v > noise.max(MIN_RELATIVE_EXTENT * extents[0])).count();
    match rank {
        _ if rank >= axes => Ok(()),
        0 => Err(FitError::Coincident),
        1 => Err(FitError::Collinear),
        _ => Err(FitError::Coplanar),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn points_of_a_plane_determine_an_affine_within_it_and_keep_what_lies_along_z() {
        let truth =
            |p: Point| [7.5, 1.1 * p[1] - 0.2 * p[2] + 3.0, 0.15 * p[1] + 0.9 * p[2] - 40.0];
        let from: Vec<Point> = (0..9)
            .map(|i| [2.5, f64::from(i / 3) * 30.0, f64::from(i % 3) * 20.0 + 500.0])
            .collect();
        let to: Vec<Point> = from.iter().map(|p| truth(*p)).collect();
        let map = fit(Model::PlanarAffine, &from, &to, None, false).unwrap();
        for p in from {
            let (found, wanted) = (map.apply(p), truth(p));
            assert!((0..3).all(|a| (found[a] - wanted[a]).abs() < 1e-9), "{found:?} {wanted:?}");
        }
        let up = map.apply([12.5, 10.0, 500.0]);
        assert!((up[0] - 17.5).abs() < 1e-12, "z is stretched: {up:?}");
        let line: Vec<Point> = to.iter().map(|p| [p[0], p[1], 4.0]).collect();
        let refused = fit(Model::PlanarAffine, &line, &to, None, false);
        assert_eq!(refused, Err(FitError::Collinear));
    }

    const MODELS: [Model; 4] = [Model::Translation, Model::Rigid, Model::Similarity, Model::Affine];

    fn points(count: usize) -> impl Strategy<Value = Vec<Point>> {
        prop::collection::vec(prop::array::uniform3(-50.0..50.0f64), count)
    }

    /// The map of `model` with the rotation vector `turn` (radians), scale, shear and offset;
    /// parameters that the model does not have are ignored.
    fn map_of(model: Model, turn: Point, scale: f64, shear: Point, offset: Point) -> Affine {
        let rotation = nalgebra::Rotation3::new(Vector3::from(turn)).into_inner();
        let linear = match model {
            Model::Translation => Matrix3::identity(),
            Model::Rigid => rotation,
            Model::Similarity => rotation * scale,
            Model::Affine | Model::PlanarAffine => {
                let [a, b, c] = shear;
                rotation * Matrix3::new(scale, a, b, 0.0, 1.0, c, 0.0, 0.0, 1.0 + a)
            }
        };
        Affine::from_parts(std::array::from_fn(|r| std::array::from_fn(|c| linear[(r, c)])), offset)
    }

    fn cost(map: &Affine, from: &[Point], to: &[Point], weights: &[f64]) -> f64 {
        let squares = |p: Point, q: Point| (0..3).map(|a| (p[a] - q[a]).powi(2)).sum::<f64>();
        (0..from.len()).map(|i| weights[i] * squares(map.apply(from[i]), to[i])).sum()
    }

    proptest! {
        #[test]
        fn points_moved_by_a_map_give_that_map_back(
            from in points(9), turn in prop::array::uniform3(-1.5..1.5f64), scale in 0.3..3.0f64,
            shear in prop::array::uniform3(-0.4..0.4f64),
            offset in prop::array::uniform3(-500.0..500.0f64),
            weights in prop::collection::vec(0.1..2.0f64, 9),
        ) {
            for model in MODELS {
                let truth = map_of(model, turn, scale, shear, offset);
                let to: Vec<_> = from.iter().map(|&p| truth.apply(p)).collect();
                let got = fit(model, &from, &to, Some(&weights), false).unwrap();
                prop_assert!(got.distance(&truth, [[-50.0; 3], [50.0; 3]]) < 1e-8);
            }
        }

        #[test]
        fn no_map_of_the_model_nearby_fits_better(
            from in points(8), noise in points(8), turn in prop::array::uniform3(-1.5..1.5f64),
            weights in prop::collection::vec(0.1..2.0f64, 8),
            by in prop::array::uniform3(-1.0..1.0f64), grow in -0.01..0.01f64,
            lean in prop::array::uniform3(-0.01..0.01f64),
        ) {
            let truth = map_of(Model::Rigid, turn, 1.0, [0.0; 3], [3.0, -2.0, 1.0]);
            let to: Vec<Point> = (0..8)
                .map(|i| {
                    let q = truth.apply(from[i]);
                    std::array::from_fn(|a| q[a] + 0.1 * noise[i][a])
                })
                .collect();
            for model in MODELS {
                let best = fit(model, &from, &to, Some(&weights), false).unwrap();
                let small = by.map(|v| 0.01 * v);
                let nudge = map_of(model, small, 1.0 + grow, lean, by);
                let other = best.then(&nudge);
                let (least, more) =
                    (cost(&best, &from, &to, &weights), cost(&other, &from, &to, &weights));
                prop_assert!(least <= more * (1.0 + 1e-12), "{model:?}: {least} > {more}");
            }
        }

        #[test]
        fn a_pair_of_weight_two_counts_as_two_pairs(from in points(6), to in points(6)) {
            for model in [Model::Translation, Model::Affine] {
                let weighted = fit(model, &from, &to, Some(&[2.0, 1.0, 1.0, 1.0, 1.0, 1.0]), false);
                let twice = |v: &[Point]| [&v[..1], v].concat();
                let repeated = fit(model, &twice(&from), &twice(&to), None, false).unwrap();
                let error = weighted.unwrap().distance(&repeated, [[-50.0; 3], [50.0; 3]]);
                prop_assert!(error < 1e-6, "{error}");
            }
        }
    }

    fn corner(count: usize) -> Vec<Point> {
        let all = [[0.0; 3], [9.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 7.0], [5.0, 5.0, 5.0]];
        all[..count].to_vec()
    }

    #[test]
    fn a_mirror_is_found_only_where_it_is_allowed() {
        let from = corner(5);
        let to: Vec<Point> = from.iter().map(|p| [-p[0], p[1], p[2]]).collect();
        let free = fit(Model::Rigid, &from, &to, None, true).unwrap();
        assert!((free.determinant() + 1.0).abs() < 1e-9);
        assert!((free.apply([1.0, 2.0, 3.0])[0] + 1.0).abs() < 1e-9);
        let held = fit(Model::Rigid, &from, &to, None, false).unwrap();
        assert!((held.determinant() - 1.0).abs() < 1e-9);
    }

    #[test]
    fn too_few_pairs_are_counted() {
        for model in MODELS {
            let (wanted, found) = (model.pairs(), model.pairs() - 1);
            let few = corner(found);
            assert_eq!(
                fit(model, &few, &few, None, false),
                Err(FitError::TooFew { found, wanted })
            );
        }
        let zero = [0.0, 1.0, 1.0, 1.0, 0.0];
        let got = fit(Model::Affine, &corner(5), &corner(5), Some(&zero), false);
        assert_eq!(got, Err(FitError::TooFew { found: 3, wanted: 4 }));
    }

    #[test]
    fn flat_points_are_named_for_what_they_are() {
        let line: Vec<Point> = (0..9).map(|i| [300.0 + f64::from(i), 400.1, 7.3]).collect();
        let plane: Vec<Point> =
            (0..9).map(|i| [f64::from(i / 3), f64::from(i % 3), f64::from(i / 3) + 0.1]).collect();
        let place = vec![[123.4, 567.8, 910.1]; 9];
        for (model, points, error) in [
            (Model::Affine, &line, FitError::Collinear),
            (Model::Rigid, &line, FitError::Collinear),
            (Model::Affine, &plane, FitError::Coplanar),
            (Model::Affine, &place, FitError::Coincident),
            (Model::Similarity, &place, FitError::Coincident),
        ] {
            assert_eq!(fit(model, points, points, None, false), Err(error));
        }
        let turned = fit(Model::Rigid, &plane, &plane, None, true).unwrap();
        assert!(turned.distance(&Affine::IDENTITY, [[-5.0; 3], [5.0; 3]]) < 1e-9);
    }

    #[test]
    fn numbers_that_are_none_are_refused() {
        let mut bad = corner(5);
        bad[2][1] = f64::NAN;
        assert_eq!(fit(Model::Affine, &bad, &corner(5), None, false), Err(FitError::NotFinite));
        let weights = [1.0, 1.0, f64::INFINITY, 1.0, 1.0];
        let got = fit(Model::Rigid, &corner(5), &corner(5), Some(&weights), false);
        assert_eq!(got, Err(FitError::NotFinite));
    }

    #[test]
    fn the_spread_of_a_plate_is_flat_along_one_axis() {
        let plate = (0..100).map(|i| [5.0, f64::from(i % 10), f64::from(i / 10)]);
        let [wide, also, flat] = principal_extents(plate);
        assert!((wide - also).abs() < 1e-9 && wide > 2.0 && flat < 1e-9);
    }
}
