//! Tests of detection on volumes with known blobs.

use proptest::prelude::*;

use super::block::PaddedBlock;
use super::cpu::{Detection, Preprocessing, detect, maxima_of_block};
use super::scheme::{Scales, Scheme};
use super::testing::{TestRandom, blobs, crop};
use super::{Detector, Options, SpotVoxel, detect_in_memory, oracle};
use crate::geom::{Box3, Point};

/// Blobs at random positions, at least `separation` micrometres from each other and from the faces.
fn scatter(
    shape: [usize; 3],
    spacing: Point,
    separation: f64,
    dice: &mut TestRandom,
) -> Vec<Point> {
    let mut centres: Vec<Point> = Vec::new();
    for _ in 0..4000 {
        let place: Point = std::array::from_fn(|a| {
            let margin = separation / spacing[a];
            margin + dice.roll() * (shape[a] as f64 - 1.0 - 2.0 * margin)
        });
        if centres.iter().all(|other| distance(place, *other, spacing) > separation) {
            centres.push(place);
        }
    }
    centres
}

fn distance(a: Point, b: Point, spacing: Point) -> f64 {
    (0..3).map(|i| ((a[i] - b[i]) * spacing[i]).powi(2)).sum::<f64>().sqrt()
}

fn noisy(mut image: Vec<f32>, noise: f64, dice: &mut TestRandom) -> Vec<f32> {
    image.iter_mut().for_each(|v| *v = 100.0 + 1000.0 * *v + (noise * dice.normal()) as f32);
    image
}

/// Detects synthetic blobs at random positions. Returns three numbers: the distance of the detected
/// from the true position along one axis in voxels, averaged over the axes and the blobs; the mean
/// ratio of the detected to the true radius; and the number of blobs that were detected, divided by
/// the number of blobs or of detected spots, whichever is larger.
fn accuracy(
    shape: [usize; 3],
    spacing: Point,
    sigma: f64,
    noise: f64,
    detector: Detector,
) -> [f64; 3] {
    let mut dice = TestRandom::new(7);
    let centres = scatter(shape, spacing, 7.0 * sigma, &mut dice);
    let image = noisy(blobs(shape, spacing, &centres, sigma), noise, &mut dice);
    // the response to a Gaussian of variance v is greatest at the variance 2 v / 3, that to a solid
    // ball of radius r at r^2 / 3; `radius` is that of the ball with the same scale
    let radius = sigma * 2.0_f64.sqrt();
    let options = Options {
        radius: [0.6 * radius, 1.8 * radius],
        detector,
        background_subtract: false,
        threshold_relative: 0.4,
        ..Options::new(spacing)
    };
    let spots = detect_in_memory(&image, shape, spacing, &options).unwrap();
    let (mut error, mut size, mut hits) = (0.0, 0.0, 0.0);
    for centre in &centres {
        let near = |s: &&SpotVoxel| distance(s.position, *centre, spacing) < 2.0 * sigma;
        if let Some(spot) = spots.iter().find(near) {
            hits += 1.0;
            error += (0..3).map(|a| (spot.position[a] - centre[a]).abs()).sum::<f64>() / 3.0;
            size += spot.radius / radius;
        }
    }
    eprintln!("{} blobs, {} spots, {hits} hits", centres.len(), spots.len());
    [error / hits, size / hits, hits / centres.len().max(spots.len()) as f64]
}

#[test]
fn noisy_blobs_between_voxels_are_found_to_a_tenth_of_a_voxel() {
    for detector in [Detector::Log, Detector::Dog] {
        for (spacing, sigma) in
            [([1.0; 3], 2.0), ([1.0; 3], 4.0), ([2.0, 1.0, 1.0], 3.0), ([0.3, 0.3, 0.3], 1.5)]
        {
            let [error, size, found] = accuracy([72, 80, 96], spacing, sigma, 30.0, detector);
            eprintln!("{detector:?} {spacing:?} {sigma}: {error:.4} voxel, {size:.3}, {found:.3}");
            assert!(error < 0.1, "{detector:?} {spacing:?} {sigma}: {error} voxel");
            assert!((size - 1.0).abs() < 0.15, "{detector:?} {spacing:?} {sigma}: size {size}");
            assert!(found > 0.97, "{detector:?} {spacing:?} {sigma}: {found} found");
        }
    }
}

#[test]
fn radii_are_told_apart() {
    for sigma in [2.0, 3.0, 4.5] {
        let centres = [[40.3, 39.8, 40.1]];
        let image = noisy(blobs([80; 3], [1.0; 3], &centres, sigma), 1.0, &mut TestRandom::new(1));
        let options =
            Options { radius: [2.0, 9.0], background_subtract: false, ..Options::new([1.0; 3]) };
        let spots = detect_in_memory(&image, [80; 3], [1.0; 3], &options).unwrap();
        let ratio = spots[0].radius / (sigma * 2.0_f64.sqrt());
        assert!((ratio - 1.0).abs() < 0.06, "{sigma}: {ratio}");
        assert!(distance(spots[0].position, centres[0], [1.0; 3]) < 0.1);
    }
}

/// Structure at all scales: noise on blobs of several sizes.
fn texture(shape: [usize; 3], seed: u64) -> Vec<f32> {
    let mut dice = TestRandom::new(seed);
    let mut image = vec![0.0; shape.iter().product()];
    for sigma in [1.3, 2.5, 5.0] {
        let centres: Vec<Point> = (0..12).map(|_| shape.map(|n| dice.roll() * n as f64)).collect();
        let more = blobs(shape, [1.0; 3], &centres, sigma);
        image.iter_mut().zip(more).for_each(|(v, more)| *v += more);
    }
    noisy(image, 40.0, &mut dice)
}

fn in_blocks(
    voxels: &[f32],
    shape: [usize; 3],
    spacing: Point,
    options: &Options,
    size: [usize; 3],
) -> Vec<SpotVoxel> {
    let scheme = Scheme::new(options, spacing);
    let volume = Box3::of_shape(shape);
    let mut spots: Vec<SpotVoxel> = volume
        .tiles(size)
        .flat_map(|core| match &scheme.scales {
            Scales::Exact(sigmas) => cut_out(voxels, shape, &core, &scheme, sigmas, spacing),
            Scales::Pyramid(_) => {
                detect(voxels, shape, &core, &scheme, Preprocessing::default(), spacing).spots
            }
        })
        .collect();
    spots.sort_by(|a, b| a.position.partial_cmp(&b.position).unwrap());
    spots
}

/// The spots of the exact detector for a block that holds only its core and the halo.
fn cut_out(
    voxels: &[f32],
    shape: [usize; 3],
    core: &Box3,
    scheme: &Scheme,
    sigmas: &[f64],
    spacing: Point,
) -> Vec<SpotVoxel> {
    let volume = Box3::of_shape(shape);
    let bounds = scheme.input(sigmas, core, &volume);
    let part = crop(voxels, shape, &bounds);
    let block = PaddedBlock { voxels: &part, bounds, core: *core, volume };
    let found =
        maxima_of_block(&block, scheme, sigmas, Preprocessing::default()).unwrap_or_default();
    let (mut spots, _) = scheme.spots(&found, &volume, spacing);
    for spot in &mut spots {
        let [z, y, x] = spot.position.map(|v| v as usize);
        spot.intensity = f64::from(voxels[(z * shape[1] + y) * shape[2] + x]);
    }
    spots
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn spots_are_the_same_bit_for_bit_for_every_block_size(
        size in [9_usize..90, 9_usize..90, 9_usize..120],
        shape in [20_usize..50, 20_usize..60, 60_usize..150],
        dog in any::<bool>(),
        background in any::<bool>(),
        seed in 0_u64..1000,
    ) {
        let voxels = texture(shape, seed);
        let spacing = [1.5, 1.0, 0.8];
        let options = Options {
            radius: [2.0, 5.5],
            detector: if dog { Detector::Dog } else { Detector::Log },
            background_subtract: background,
            border: 0.0,
            ..Options::new(spacing)
        };
        let whole = in_blocks(&voxels, shape, spacing, &options, shape);
        prop_assert!(!whole.is_empty());
        prop_assert!(whole == in_blocks(&voxels, shape, spacing, &options, size));
    }

    #[test]
    fn exact_spots_are_the_same_bit_for_bit_for_every_block_size(
        size in [9_usize..90, 9_usize..90, 9_usize..120],
        shape in [20_usize..40, 20_usize..40, 60_usize..120],
        seed in 0_u64..1000,
    ) {
        let voxels = texture(shape, seed);
        let options = Options { radius: [2.0, 5.0], border: 1.0, ..Options::exact() };
        let whole = in_blocks(&voxels, shape, [1.0; 3], &options, shape);
        prop_assert!(!whole.is_empty());
        prop_assert!(whole == in_blocks(&voxels, shape, [1.0; 3], &options, size));
    }

    #[test]
    fn exact_spots_are_those_of_plain_loops(
        shape in [8_usize..16, 8_usize..18, 8_usize..40],
        seed in 0_u64..1000,
    ) {
        let voxels = texture(shape, seed);
        let options = Options { radius: [2.0, 4.0], border: 1.0, ..Options::exact() };
        let slow = oracle::detect(&voxels, shape, &options);
        let fast = in_blocks(&voxels, shape, [1.0; 3], &options, shape);
        prop_assert_eq!(fast.len(), slow.len());
        for spot in &slow {
            let same = fast.iter().find(|s| s.position == spot.position && (s.radius - spot.radius).abs() < 1e-9);
            let same = same.expect("the same voxel at the same scale");
            prop_assert!((same.response - spot.response).abs() < 1e-2);
            prop_assert_eq!(same.intensity, spot.intensity);
        }
    }
}

#[test]
fn voxels_that_are_no_numbers_are_counted_and_count_as_zero() {
    let shape = [30, 30, 40];
    let mut clean = texture(shape, 3);
    clean[500] = 0.0;
    clean[20_000] = 0.0;
    let mut broken = clean.clone();
    (broken[500], broken[20_000]) = (f32::NAN, f32::NEG_INFINITY);
    let scheme = Scheme::new(&Options::new([1.0; 3]), [1.0; 3]);
    let find = |voxels: &[f32]| {
        detect(voxels, shape, &Box3::of_shape(shape), &scheme, Preprocessing::default(), [1.0; 3])
    };
    let wanted = find(&clean);
    assert!(!wanted.spots.is_empty());
    assert_eq!(find(&broken), Detection { not_finite: 2, ..wanted });
}

#[test]
fn a_constant_volume_has_no_spots_and_costs_nothing() {
    let options = Options::new([1.0; 3]);
    let spots = detect_in_memory(&vec![7.0; 64 * 64 * 64], [64; 3], [1.0; 3], &options).unwrap();
    assert!(spots.is_empty());
}

#[test]
fn flat_surroundings_of_a_blob_give_no_further_spots() {
    let image = blobs([64; 3], [1.0; 3], &[[31.0, 32.4, 30.7]], 2.5);
    let image: Vec<f32> = image.iter().map(|v| 300.0 + 100.0 * v).collect();
    for background_subtract in [false, true] {
        let options = Options { background_subtract, ..Options::new([1.0; 3]) };
        let spots = detect_in_memory(&image, [64; 3], [1.0; 3], &options).unwrap();
        assert_eq!(spots.len(), 1, "{:?}", spots.get(1));
        assert_eq!(spots[0].intensity, f64::from(image[(31 * 64 + 32) * 64 + 31]));
    }
}

#[test]
fn options_that_cannot_be_name_their_flag() {
    let bad = |change: fn(&mut Options)| {
        let mut options = Options::new([1.0; 3]);
        change(&mut options);
        options.check().unwrap_err().to_string()
    };
    assert!(bad(|o| o.radius = [5.0, 3.0]).contains("--radius 5..3"));
    assert!(bad(|o| (o.exact, o.radius) = (true, [5.0, 5.5])).contains("--exact"));
    assert!(bad(|o| o.overlap = 1.5).contains("--overlap 1.5"));
    assert!(bad(|o| o.threshold = f64::NAN).contains("--threshold"));
    assert!(bad(|o| o.winsorize = Some([0.6, 0.5])).contains("--winsorize"));
    assert!(bad(|o| o.max_spots = 0).contains("--max-spots"));
}
