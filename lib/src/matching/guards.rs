//! Plausibility checks of matches and maps. Each failure has an error of its own.

use super::error::usage;
use super::{Error, EstimateOptions};
use crate::geom::{Affine, Model, Point, principal_extents};

/// The extent along a principal axis, relative to the largest extent, below which a set of points
/// counts as flat along that axis.
const MIN_RELATIVE_EXTENT: f64 = 1e-3;

/// Checks that the values of the flags are in range, and that `--compat` supports the model.
pub(super) fn options(options: &EstimateOptions) -> Result<(), Error> {
    let positive = |flag, value: f64, least: f64, wanted| {
        if value > least && value.is_finite() {
            Ok(())
        } else {
            Err(usage(flag, &value.to_string(), wanted))
        }
    };
    positive("--align-threshold", options.threshold(), 0.0, "wanted a length above 0 um")?;
    positive("--max-scale", options.max_scale, 1.0, "wanted a factor above 1")?;
    positive("--max-shear", options.max_shear, 0.0, "wanted a share above 0")?;
    if !(options.confidence > 0.0 && options.confidence < 1.0) {
        let found = options.confidence.to_string();
        let wanted = "wanted a chance between 0 and 1";
        return Err(usage("--confidence", &found, wanted));
    }
    let limit = options.max_false_alarms;
    positive("--max-false-alarms", limit, 0.0, "wanted a number above 0, such as 1e-4")?;
    if options.compat.is_some() && options.model != Model::Affine {
        let found = format!("with --model {}", options.model.name());
        let wanted = "that estimator fits affine maps only";
        return Err(usage("--compat", &found, wanted));
    }
    Ok(())
}

/// Checks that the matches are numerous enough, finite, and sufficient to determine a map of the
/// model.
pub(super) fn matches(
    fixed: &[Point],
    moving: &[Point],
    options: &EstimateOptions,
) -> Result<(), Error> {
    let (found, wanted) = (fixed.len(), options.min_matches.max(options.model.pairs()));
    if found < wanted {
        return Err(Error::TooFewMatches { found, wanted, model: options.model });
    }
    let finite = |i: &usize| fixed[*i].iter().chain(&moving[*i]).all(|v| v.is_finite());
    if let Some(row) = (0..found).find(|i| !finite(i)) {
        return Err(Error::NotFinite { row });
    }
    fills("matches", fixed.iter().copied(), options.model)?;
    fills("matches", moving.iter().copied(), options.model)
}

/// Checks that the inliers are numerous enough and determine the map by themselves.
pub(super) fn inliers(
    fixed: &[Point],
    inliers: &[bool],
    options: &EstimateOptions,
) -> Result<(), Error> {
    let points = fixed.iter().zip(inliers).filter(|(_, inlier)| **inlier).map(|(p, _)| *p);
    let found = points.clone().count();
    let wanted = options.min_inliers.max(options.model.pairs());
    if found < wanted {
        let threshold = options.threshold();
        return Err(Error::TooFewInliers { found, wanted, matches: fixed.len(), threshold });
    }
    fills("matches that fit", points, options.model)
}

/// Checks that a map would hardly fit random matches equally well. `false_alarms` is the decimal
/// logarithm of the number of false alarms.
pub(super) fn false_alarms(
    inliers: &[bool],
    false_alarms: f64,
    options: &EstimateOptions,
) -> Result<(), Error> {
    // written so that NaN is rejected
    if false_alarms <= options.max_false_alarms.log10() {
        return Ok(());
    }
    Err(Error::Chance {
        found: inliers.iter().filter(|inlier| **inlier).count(),
        matches: inliers.len(),
        expected: 10f64.powf(false_alarms.min(300.0)),
        limit: options.max_false_alarms,
    })
}

/// Checks that points extend along as many axes as the model needs.
fn fills(
    what: &'static str,
    points: impl Iterator<Item = Point> + Clone,
    model: Model,
) -> Result<(), Error> {
    let extents = principal_extents(points);
    let wanted = match model {
        Model::Translation => 0,
        Model::Rigid | Model::Similarity | Model::PlanarAffine => 2,
        Model::Affine => 3,
    };
    let found = extents.iter().filter(|&&v| v > MIN_RELATIVE_EXTENT * extents[0]).count();
    let (shape, instead) = match found {
        _ if found >= wanted => return Ok(()),
        0 => ("point", "translation"),
        1 => ("line", "translation"),
        _ => ("plane", "rigid or similarity"),
    };
    Err(Error::Flat { what, shape, extents, instead })
}

/// Checks that a map is plausible between two images of the same object.
pub(super) fn map(map: &Affine, options: &EstimateOptions) -> Result<(), Error> {
    let parts = match options.model {
        Model::PlanarAffine => with_mean_z_scale(map).decompose(),
        _ => map.decompose(),
    };
    let determinant = parts.determinant;
    let [most, _, least] = parts.scales.map(f64::abs);
    // written so that NaN is rejected
    if !(least > 1e-6 * most && most.is_finite()) {
        return Err(Error::Singular { determinant });
    }
    if determinant < 0.0 && !options.allow_reflection {
        return Err(Error::Reflection { determinant });
    }
    let limit = options.max_scale;
    let worst = if most * least > 1.0 { most } else { least };
    if most > limit || least < 1.0 / limit {
        return Err(Error::Scale { found: worst, limit });
    }
    if parts.shear > options.max_shear {
        return Err(Error::Shear { found: parts.shear, limit: options.max_shear });
    }
    Ok(())
}

/// A map within a plane, with its scale along z set to the mean scale within the plane, so that z
/// does not affect the measured scales and shear.
fn with_mean_z_scale(map: &Affine) -> Affine {
    let mut rows = map.rows();
    rows[0][0] = (rows[1][1] * rows[2][2] - rows[1][2] * rows[2][1]).abs().sqrt();
    Affine::from_rows(rows)
}
