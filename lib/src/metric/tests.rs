//! Tests that compare values, gradients and derivatives with slow sums and finite differences.

use proptest::prelude::*;

use super::image::{crop, tiled};
use super::{
    AffineSimilarity, Error, Image, Normalisation, SampleLocations, Samples, Scorer,
    SimilarityMeasure, Workspace, hash, oracle, sample,
};
use crate::geom::{Affine, Box3, Grid};

fn image(shape: [usize; 3], value: impl Fn([f64; 3]) -> f64) -> Image {
    let grid = Grid::new(shape, [1.5, 1.0, 0.8], [3.0, -2.0, 1.0]);
    let bounds = grid.bounds();
    let voxels = bounds.tiles([1; 3]).map(|v| value(v.min.map(|c| c as f64)) as f32).collect();
    Image { grid, voxels }
}

fn smooth_scene(shape: [usize; 3], shift: f64) -> Image {
    image(shape, |[z, y, x]| {
        100.0
            + 20.0 * ((z + shift) * 0.6).sin() * (y * 0.4).cos()
            + 15.0 * ((x - shift) * 0.5 + 0.1 * y).cos()
            + 8.0 * ((y + shift) * 0.7).sin()
    })
}

fn noise(shape: [usize; 3], seed: u64) -> Image {
    let mut image = image(shape, |_| 0.0);
    let numbers = image.voxels.iter_mut().enumerate();
    numbers.for_each(|(i, v)| *v = (hash(seed, i as u64) % 1000) as f32);
    image
}

proptest! {
    #[test]
    fn a_sample_equals_the_slow_sum_and_its_slope_the_difference(
        shape in [1_usize..5, 1_usize..5, 1_usize..6],
        at in [-0.5..4.5_f64, -0.5..4.5, -0.5..5.5],
        seed in any::<u64>(),
    ) {
        let image = noise(shape, seed);
        let at = at.map(|v| f64::from(v as f32));
        let (value, slope) = sample(&image, at.map(|v| v as f32));
        let near_rim = (0..3).any(|a| {
            let last = shape[a] as f64 - 1.0;
            at[a].abs() < 2e-3 || (at[a] - last).abs() < 2e-3
        });
        prop_assume!(!near_rim);
        let Some(slow) = oracle::sample(&image, at) else {
            prop_assert!(value.is_nan());
            return Ok(());
        };
        prop_assert!((f64::from(value) - slow).abs() < 0.01, "{value} {slow}");
        for a in 0..3 {
            // within one cell the value is linear along each axis
            let (low, high) = (at[a].floor(), at[a].floor() + 1.0);
            let (mut one, mut two) = (at, at);
            (one[a], two[a]) = (low, high);
            if shape[a] == 1 {
                prop_assert_eq!(slope[a], 0.0);
            } else if let (Some(one), Some(two)) =
                (oracle::sample(&image, one), oracle::sample(&image, two))
            {
                prop_assert!((f64::from(slope[a]) - (two - one)).abs() < 0.02);
            }
        }
    }
}

/// Calls `check` with a pair of images, a map near the best one, and the normalisation of this map.
fn compare(
    kind: SimilarityMeasure,
    check: impl Fn(&AffineSimilarity<'_>, &Affine, &Normalisation),
) {
    let (fixed, moving) = (smooth_scene([12, 14, 16], 0.0), smooth_scene([12, 14, 16], 0.4));
    let samples = Samples::choose(&fixed, |_| true, None, 0);
    let scorer = Scorer::new(kind, &samples, &moving).unwrap();
    let pair = AffineSimilarity::new(&samples, &fixed.grid, &moving, &Affine::IDENTITY, &scorer);
    // all samples fall between voxel centres, where gradients are continuous, and inside the image
    let map = Affine::from_rows([
        [0.9, 0.01, 0.02, 0.937],
        [-0.015, 0.91, 0.01, 0.433],
        [0.012, -0.02, 0.88, 0.861],
    ]);
    let mut work = Workspace::default();
    pair.score(&map, &mut work).unwrap();
    let normalisation = pair.normalisation(&map, &work).unwrap();
    check(&pair, &map, &normalisation);
}

#[test]
fn gradients_equal_differences_of_the_energy() {
    for kind in [
        SimilarityMeasure::Correlation,
        SimilarityMeasure::MutualInformation,
        SimilarityMeasure::MeanSquares,
    ] {
        compare(kind, |pair, map, normalisation| {
            let found = pair.linearise(map, normalisation, &mut Workspace::default()).unwrap();
            let wanted = oracle::gradient(pair, map, normalisation, 1e-4).unwrap();
            let size = wanted.iter().map(|v| v.abs()).fold(0.0, f64::max);
            assert!(size > 0.0);
            for (found, wanted) in found.gradient.iter().zip(wanted) {
                assert!((found - wanted).abs() < 0.03 * size, "{kind:?}: {found} {wanted}");
            }
        });
    }
}

#[test]
fn curvatures_are_positive_semidefinite() {
    for kind in [
        SimilarityMeasure::Correlation,
        SimilarityMeasure::MutualInformation,
        SimilarityMeasure::MeanSquares,
    ] {
        compare(kind, |pair, map, normalisation| {
            let here = pair.linearise(map, normalisation, &mut Workspace::default()).unwrap();
            let matrix = nalgebra::SMatrix::<f64, 12, 12>::from_fn(|i, j| here.curvature[i][j]);
            assert!((matrix - matrix.transpose()).norm() < 1e-9 * matrix.norm());
            let values = matrix.symmetric_eigenvalues();
            assert!(values.min() > -1e-6 * values.max(), "{kind:?}: {values}");
        });
    }
}

#[test]
fn a_newton_step_of_each_measure_goes_most_of_the_way() {
    for (kind, share) in [
        (SimilarityMeasure::Correlation, 0.3),
        (SimilarityMeasure::MeanSquares, 0.3),
        (SimilarityMeasure::MutualInformation, 0.6),
    ] {
        // the same scene, shifted along x by so little that the energy is nearly quadratic
        let (fixed, moving) = (smooth_scene([10, 20, 24], 0.0), {
            let mut moving = smooth_scene([10, 20, 24], 0.0);
            moving.grid.origin[2] += 0.3;
            moving
        });
        let samples = Samples::choose(&fixed, |_| true, None, 0);
        let scorer = Scorer::new(kind, &samples, &moving).unwrap();
        let pair =
            AffineSimilarity::new(&samples, &fixed.grid, &moving, &Affine::IDENTITY, &scorer);
        let normalisation = Normalisation { centre: [10.0, 8.0, 10.0], size: 1.0 };
        let found =
            pair.linearise(&Affine::IDENTITY, &normalisation, &mut Workspace::default()).unwrap();
        // the step is along x alone: parameter 8 is the shift along x
        let step = -found.gradient[8] / found.curvature[8][8];
        assert!((step - 0.3).abs() < 0.3 * share, "{kind:?}: {step}");
    }
}

#[test]
fn samples_of_points_and_of_voxels_give_the_same_energy() {
    compare(SimilarityMeasure::Correlation, |pair, map, _| {
        let wanted = pair.score(map, &mut Workspace::default()).unwrap();
        let moving = smooth_scene([12, 14, 16], 0.4);
        let fixed = smooth_scene([12, 14, 16], 0.0);
        let mut samples = Samples::choose(&fixed, |_| true, None, 0);
        let bounds = fixed.grid.bounds();
        let voxels = bounds.tiles([1; 3]).map(|v| v.min.map(|c| c as f32)).collect();
        samples.places = SampleLocations::Points(voxels);
        let scorer = Scorer::new(SimilarityMeasure::Correlation, &samples, &moving).unwrap();
        let points =
            AffineSimilarity::new(&samples, &fixed.grid, &moving, &Affine::IDENTITY, &scorer);
        let found = points.score(map, &mut Workspace::default()).unwrap();
        assert_eq!(found.count, wanted.count);
        assert!((found.energy - wanted.energy).abs() < 1e-6);
    });
}

#[test]
fn correlation_and_information_see_through_brightness_and_contrast() {
    let fixed = smooth_scene([10, 12, 14], 0.0);
    let samples = Samples::choose(&fixed, |_| true, None, 0);
    let mut moving = fixed.clone();
    moving.voxels.iter_mut().for_each(|v| *v = 40.0 + 3.0 * *v);
    let energy = |kind| {
        let scorer = Scorer::new(kind, &samples, &moving).unwrap();
        let pair =
            AffineSimilarity::new(&samples, &fixed.grid, &moving, &Affine::IDENTITY, &scorer);
        pair.score(&Affine::IDENTITY, &mut Workspace::default()).unwrap().energy
    };
    assert!(energy(SimilarityMeasure::Correlation).abs() < 1e-6);
    assert!(energy(SimilarityMeasure::MutualInformation) < -1.0);
    assert!(energy(SimilarityMeasure::MeanSquares) > 1000.0);
}

#[test]
fn unknown_and_constant_images_are_named() {
    let fixed = smooth_scene([4, 5, 6], 0.0);
    let flat = image([4, 5, 6], |_| 7.0);
    let unknown = image([4, 5, 6], |_| f64::NAN);
    let samples = |image: &Image| Samples::choose(image, |_| true, None, 0);
    for kind in [
        SimilarityMeasure::Correlation,
        SimilarityMeasure::MutualInformation,
        SimilarityMeasure::MeanSquares,
    ] {
        let error = |a, b| Scorer::new(kind, &samples(a), b).unwrap_err();
        assert_eq!(error(&flat, &fixed), Error::Constant { side: "fixed" });
        assert_eq!(error(&fixed, &flat), Error::Constant { side: "moving" });
        assert_eq!(error(&unknown, &fixed), Error::Nothing { side: "fixed" });
        assert_eq!(error(&fixed, &unknown), Error::Nothing { side: "moving" });
    }
}

#[test]
fn samples_are_spread_and_the_same_for_the_same_seed() {
    let image = noise([20, 30, 40], 5);
    let few = |seed| Samples::choose(&image, |at| at % 2 == 0, Some(500), seed);
    let one = few(3);
    assert!((400..600).contains(&one.len()), "{}", one.len());
    assert_eq!(one.usable, 12_000);
    assert_eq!(one.values, few(3).values);
    assert_ne!(one.values, few(4).values);
    let SampleLocations::Voxels(voxels) = &one.places else { panic!("voxels") };
    assert!(voxels.is_sorted() && voxels.iter().all(|v| v % 2 == 0));
    let upper = voxels.iter().filter(|&&v| v >= 12_000).count();
    assert!((200..300).contains(&upper), "{upper}");
}

#[test]
fn shrinking_tile_by_tile_equals_shrinking_at_once() {
    let image = noise([33, 47, 61], 9);
    let whole = image.downsampled([1.0, 2.0, 0.5], [2, 3, 1]);
    assert_eq!(whole.grid.shape, [17, 16, 61]);
    assert_eq!(whole.grid.spacing, [3.0, 3.0, 0.8]);
    for size in [[17, 16, 61], [3, 16, 61], [1, 5, 7], [17, 4, 32]] {
        let read = |part: &Box3| Ok::<_, ()>(crop(&image, part));
        let again = tiled(&image.grid, [1.0, 2.0, 0.5], [2, 3, 1], size, read).unwrap();
        assert!(whole.voxels == again.voxels, "{size:?}");
    }
}

#[test]
fn unknown_voxels_do_not_spread_further_than_they_must() {
    let mut image = image([1, 40, 40], |_| 5.0);
    for y in 0..40 {
        for x in 0..10 {
            image.voxels[y * 40 + x] = f32::NAN;
        }
    }
    let small = image.downsampled([0.0, 2.0, 2.0], [1, 2, 2]);
    for (i, v) in small.voxels.iter().enumerate() {
        assert_eq!(v.is_nan(), i % 20 < 5, "{i}: {v}");
        assert!(v.is_nan() || (v - 5.0).abs() < 1e-5);
    }
}
