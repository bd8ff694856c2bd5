//! Tests of the fit, on matches whose map is known.

use proptest::prelude::*;

use super::*;
use crate::geom::Model;

/// Pseudo-random numbers from -1 to 1.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// `good` matches under `map`, each with an error of up to `error` along each axis, then `bad`
/// wrong ones.
fn matches(map: &Affine, good: usize, bad: usize, error: f64, seed: u64) -> Vec<Match> {
    let mut next = noise(seed);
    (0..good + bad)
        .map(|i| {
            let fixed = [100.0 * next(), 300.0 * next(), 300.0 * next()];
            let mut moving = map.apply(fixed).map(|v| v + error * next());
            if i >= good {
                moving = [100.0 * next(), 300.0 * next(), 300.0 * next()];
            }
            Match { fixed, moving, correlation: 0.9, inlier: false, residual: 0.0 }
        })
        .collect()
}

const EXTENT: [Point; 2] = [[-100.0, -300.0, -300.0], [100.0, 300.0, 300.0]];

fn turned(scale: f64) -> Affine {
    let (sin, cos) = 0.2_f64.sin_cos();
    Affine::from_parts(
        [[scale, 0.0, 0.0], [0.0, scale * cos, -scale * sin], [0.0, scale * sin, scale * cos]],
        [5.0, -40.0, 12.0],
    )
}

fn options(model: Model) -> EstimateOptions {
    EstimateOptions { model, align_threshold: Some(2.0), ..EstimateOptions::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_true_map_is_found_among_twice_as_many_wrong_matches(seed in any::<u64>()) {
        let truths = [
            (Model::Translation, Affine::translation([5.0, -40.0, 12.0])),
            (Model::Rigid, turned(1.0)),
            (Model::Similarity, turned(1.1)),
            (Model::Affine, Affine::from_rows([
                [0.97, 0.02, -0.01, -3.0], [0.01, 1.04, 0.03, 60.0], [-0.02, -0.03, 0.99, -80.0],
            ])),
        ];
        for (model, truth) in truths {
            let matches = matches(&truth, 100, 200, 0.5, seed);
            let got = estimate(&matches, &options(model), seed).unwrap();
            prop_assert!((100..110).contains(&got.inlier_count), "{}", got.inlier_count);
            prop_assert!(got.inliers[..100].iter().all(|&inlier| inlier));
            let error = got.affine.distance(&truth, EXTENT);
            prop_assert!(error < 0.7, "{model:?}: {error} um");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_map_and_any_seed_nearly_so() {
    let matches = matches(&turned(1.02), 80, 120, 0.8, 5);
    let one = estimate(&matches, &options(Model::Affine), 1).unwrap();
    assert_eq!(one, estimate(&matches, &options(Model::Affine), 1).unwrap());
    let two = estimate(&matches, &options(Model::Affine), 2).unwrap();
    assert!(one.affine.distance(&two.affine, EXTENT) < 1e-3);
}

#[test]
fn what_fits_is_marked_and_summed_up() {
    let mut matches = matches(&turned(1.0), 40, 5, 0.5, 9);
    let got = estimate(&matches, &options(Model::Affine), 0).unwrap();
    got.mark(&mut matches);
    let mut residuals: Vec<f64> = matches.iter().filter(|m| m.inlier).map(|m| m.residual).collect();
    residuals.sort_by(f64::total_cmp);
    assert_eq!(residuals.len(), got.inlier_count);
    assert!((residuals[residuals.len() / 2] - got.median_residual).abs() < 1e-12);
    let mean = residuals.iter().map(|r| r * r).sum::<f64>() / residuals.len() as f64;
    assert!((mean.sqrt() - got.rms_residual).abs() < 1e-12);
    assert!(residuals.iter().all(|&r| r <= 2.0));
    assert!(matches.iter().filter(|m| !m.inlier).all(|m| m.residual > 2.0));
}

/// The error of a fit that must fail; its message must name the flag.
fn refusal(matches: &[Match], options: &EstimateOptions, flag: &str) -> Error {
    let error = estimate(matches, options, 0).unwrap_err();
    let message = error.to_string();
    assert!(message.contains(flag), "{message}");
    error
}

#[test]
fn few_matches_and_few_that_fit_are_refused_by_count() {
    let few = matches(&turned(1.0), 11, 0, 0.1, 3);
    let error = refusal(&few, &options(Model::Affine), "--min-matches");
    assert!(matches!(error, Error::TooFewMatches { found: 11, wanted: 12, .. }));
    let lenient = EstimateOptions { min_matches: 0, ..options(Model::Affine) };
    let error = refusal(&few[..3], &lenient, "--min-matches");
    assert!(matches!(error, Error::TooFewMatches { found: 3, wanted: 4, .. }));
    let wrong = matches(&turned(1.0), 0, 30, 0.0, 3);
    let error = refusal(&wrong, &options(Model::Affine), "--min-inliers");
    assert!(matches!(error, Error::TooFewInliers { wanted: 8, matches: 30, .. }));
    let rigid = refusal(&wrong, &options(Model::Rigid), "--min-inliers");
    assert!(matches!(rigid, Error::TooFewInliers { .. }));
}

#[test]
fn flat_matches_are_refused_where_the_model_needs_more() {
    let mut line = matches(&turned(1.0), 30, 0, 0.0, 4);
    for (i, one) in line.iter_mut().enumerate() {
        one.fixed = [7.0, 2.0 * i as f64, 3.0 * i as f64];
        one.moving = one.fixed;
    }
    for model in [Model::Affine, Model::Rigid] {
        let error = refusal(&line, &options(model), "--model translation");
        assert!(matches!(error, Error::Flat { shape: "line", .. }));
    }
    assert!(estimate(&line, &options(Model::Translation), 0).is_ok());
    let mut plane = matches(&turned(1.0), 30, 0, 0.0, 4);
    for one in &mut plane {
        // the plane is tilted, because points of constant z would be fitted by a planar affine
        one.fixed[0] = 3.0 + 0.5 * one.fixed[1];
        one.moving = turned(1.0).apply(one.fixed);
    }
    let error = refusal(&plane, &options(Model::Affine), "--model rigid");
    assert!(matches!(error, Error::Flat { shape: "plane", .. }));
    assert!(estimate(&plane, &options(Model::Rigid), 0).is_ok());
    // the inliers can lie in a plane even if all matches together do not
    plane.extend(matches(&turned(1.0), 0, 20, 0.0, 6));
    assert!(estimate(&plane, &options(Model::Affine), 0).is_err());
}

#[test]
fn maps_beyond_belief_are_refused_by_name_and_number() {
    let affine = options(Model::Affine);
    let large = matches(&turned(2.5), 40, 10, 0.1, 7);
    let error = refusal(&large, &affine, "--max-scale");
    assert!(matches!(error, Error::Scale { found, .. } if (found - 2.5).abs() < 0.05));
    assert!(estimate(&large, &EstimateOptions { max_scale: 3.0, ..affine.clone() }, 0).is_ok());
    let small = matches(&turned(0.4), 40, 0, 0.1, 7);
    let error = refusal(&small, &affine, "--max-scale");
    assert!(matches!(error, Error::Scale { found, .. } if (found - 0.4).abs() < 0.05));
    let slant = Affine::from_parts([[1.0, 0.0, 0.0], [0.0, 1.0, 0.9], [0.0, 0.0, 1.0]], [0.0; 3]);
    let sheared = matches(&slant, 40, 10, 0.1, 8);
    let error = refusal(&sheared, &affine, "--max-shear");
    assert!(matches!(error, Error::Shear { found, .. } if found > 0.5));
    let mirror = Affine::from_parts([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0; 3]);
    let mirrored = matches(&mirror, 40, 10, 0.1, 8);
    let error = refusal(&mirrored, &affine, "--allow-reflection");
    assert!(matches!(error, Error::Reflection { determinant } if determinant < 0.0));
    let free = EstimateOptions { allow_reflection: true, ..affine.clone() };
    assert!(estimate(&mirrored, &free, 0).unwrap().affine.determinant() < 0.0);
    assert!(estimate(&mirrored, &EstimateOptions { model: Model::Rigid, ..free }, 0).is_ok());
    let wall = Affine::from_parts([[0.0; 3], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [4.0, 0.0, 0.0]);
    let flattened = matches(&wall, 40, 0, 0.0, 8);
    assert!(estimate(&flattened, &affine, 0).is_err());
}

#[test]
fn a_flag_that_makes_no_sense_is_refused_before_anything_is_done() {
    let some = matches(&turned(1.0), 40, 0, 0.1, 2);
    let affine = options(Model::Affine);
    refusal(
        &some,
        &EstimateOptions { align_threshold: Some(0.0), ..affine.clone() },
        "--align-threshold",
    );
    refusal(&some, &EstimateOptions { max_scale: 0.5, ..affine.clone() }, "--max-scale");
    refusal(&some, &EstimateOptions { confidence: 1.0, ..affine.clone() }, "--confidence");
    let compat = EstimateOptions { compat: Some(Compat::Opencv), ..options(Model::Rigid) };
    refusal(&some, &compat, "--compat");
    let mut bad = some.clone();
    bad[7].moving[1] = f64::INFINITY;
    assert!(matches!(estimate(&bad, &affine, 0), Err(Error::NotFinite { row: 7 })));
}

#[test]
fn matching_refuses_what_it_cannot_compare() {
    let grid = Grid::new([20; 3], [1.0; 3], [0.0; 3]);
    let voxels = vec![0u16; 8000];
    let block = SpotVolume { voxels: &voxels, grid, positions: &[[10.0; 3]] };
    let check = |options: &MatchOptions, other: &SpotVolume<'_, u16>, flag: &str| {
        let message = match_in_memory(&block, other, options).unwrap_err().to_string();
        assert!(message.contains(flag), "{message}");
    };
    let default = MatchOptions::default();
    check(&MatchOptions { match_threshold: 1.0, ..default.clone() }, &block, "--match-threshold");
    check(
        &MatchOptions { context_radius: Some(ContextRadius::Voxels([0, 0, 5])), ..default.clone() },
        &block,
        "--context-radius",
    );
    check(&MatchOptions { max_distance: Some(-1.0), ..default.clone() }, &block, "--max-distance");
    let coarse = SpotVolume { grid: Grid::new([20; 3], [2.0, 1.0, 1.0], [0.0; 3]), ..block };
    check(&default, &coarse, "apply-transform");
    // a constant context matches nothing, which is not an error
    assert!(match_in_memory(&block, &block, &default).unwrap().is_empty());
}
