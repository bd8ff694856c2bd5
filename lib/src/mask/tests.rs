use proptest::prelude::*;

use super::{Defects, Label, Options, Tone, cpu, oracle};

const SHAPE: [usize; 2] = [160, 200];

/// Grey values of tissue: noise between 80 and 160 in cells of 3 x 3 pixels.
fn tissue(seed: u64) -> Vec<f32> {
    (0..SHAPE[0] * SHAPE[1])
        .map(|i| {
            let cell = (i / SHAPE[1] / 3 * 1000 + i % SHAPE[1] / 3) as u64;
            80.0 + 80.0 * crate::metric::unit(crate::metric::hash(seed, cell), 0) as f32
        })
        .collect()
}

fn options() -> Options {
    Options { min_area: 100, ..Options::default() }
}

fn labels(image: &[f32], options: &Options) -> Vec<Label> {
    cpu::labels(image, SHAPE, 3.0, options)
}

fn at(labels: &[Label], [y, x]: [usize; 2]) -> Label {
    labels[y * SHAPE[1] + x]
}

fn share(labels: &[Label], of: Label) -> f64 {
    labels.iter().filter(|label| **label == of).count() as f64 / labels.len() as f64
}

/// Sets the pixels of a line of the given width from (20, 30) to (110, 120).
fn draw(image: &mut [f32], width: usize, grey: f32) {
    for i in 0..90 {
        for k in 0..width {
            image[(20 + i) * SHAPE[1] + 30 + i + k] = grey;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn contrasts_equal_the_slow_ones(
        shape in [1_usize..24, 1_usize..24],
        unknown in 0.0..0.4,
        seed in any::<u64>(),
    ) {
        let unit = |i: usize, purpose: u64| crate::metric::unit(crate::metric::hash(seed, i as u64), purpose);
        let image: Vec<f32> = (0..shape[0] * shape[1])
            .map(|i| if unit(i, 1) < unknown { f32::NAN } else { 200.0 * unit(i, 2) as f32 })
            .collect();
        let (fast, slow) = (cpu::contrast(&image, shape), oracle::contrast(&image, shape));
        for (fast, slow) in fast.iter().zip(slow) {
            let is_same = (f64::from(*fast) - slow).abs() < 1e-3 || (fast.is_nan() && slow.is_nan());
            prop_assert!(is_same, "{} {}", fast, slow);
        }
    }

    #[test]
    fn more_or_less_light_changes_nothing(gain in 0.5_f32..1.5, offset in -30.0_f32..40.0) {
        let mut image = tissue(3);
        draw(&mut image, 8, 20.0);
        let other: Vec<f32> = image.iter().map(|v| gain * v + offset).collect();
        let threshold = 3.0 * f64::from(gain);
        let (a, b) = (labels(&image, &options()), cpu::labels(&other, SHAPE, threshold, &options()));
        // rounding errors move single pixels
        let differing = a.iter().zip(&b).filter(|(a, b)| a != b).count();
        prop_assert!(differing < 20, "{}", differing);
    }
}

#[test]
fn tissue_is_tissue_and_resin_beside_it_is_not() {
    let mut image = tissue(1);
    assert_eq!(share(&labels(&image, &options()), Label::Tissue), 1.0);
    for row in image.chunks_exact_mut(SHAPE[1]) {
        row[120..].fill(140.0);
    }
    let found = labels(&image, &options());
    assert_eq!(at(&found, [80, 60]), Label::Tissue);
    assert_eq!(at(&found, [80, 180]), Label::Excluded);
    let tissue = share(&found, Label::Tissue);
    assert!((tissue - 0.6).abs() < 0.06, "{tissue}");
}

#[test]
fn a_dark_line_is_a_wrinkle_and_a_bright_one_a_tear() {
    for (grey, wanted) in [(5.0, Label::Wrinkle), (235.0, Label::Tear)] {
        let mut image = tissue(2);
        draw(&mut image, 8, grey);
        let found = labels(&image, &options());
        assert_eq!(at(&found, [60, 74]), wanted);
        assert_eq!(at(&found, [60, 120]), Label::Tissue);
        let share = share(&found, wanted);
        assert!(share > 0.02 && share < 0.05, "{share}");
        // the other way round
        let defects = Defects {
            wrinkles: Some(Tone::Bright),
            tears: Some(Tone::Dark),
            ..Options::default().defects
        };
        let found = labels(&image, &Options { defects, ..options() });
        assert_eq!(
            at(&found, [60, 74]),
            if wanted == Label::Tear { Label::Wrinkle } else { Label::Tear }
        );
        // without a name, it is excluded
        let defects = Defects { wrinkles: None, tears: None, ..Options::default().defects };
        let found = labels(&image, &Options { defects, ..options() });
        assert_eq!(at(&found, [60, 74]), Label::Excluded);
    }
}

#[test]
fn a_dark_blob_is_dirt() {
    let mut image = tissue(4);
    for y in 60..85 {
        image[y * SHAPE[1] + 90..y * SHAPE[1] + 118].fill(4.0);
    }
    let found = labels(&image, &options());
    assert_eq!(at(&found, [72, 104]), Label::Excluded);
    assert_eq!(at(&found, [72, 140]), Label::Tissue);
    // no limit, no dirt; what is flat is not tissue all the same
    let all = Options { outlier: f64::INFINITY, ..options() };
    assert!(share(&labels(&image, &all), Label::Tissue) > 0.98);
}

#[test]
fn unknown_pixels_are_excluded_and_edges_on_demand() {
    let mut image = tissue(5);
    for row in image.chunks_exact_mut(SHAPE[1]) {
        row[..40].fill(f32::NAN);
    }
    let found = labels(&image, &options());
    assert_eq!([at(&found, [80, 39]), at(&found, [80, 40])], [Label::Excluded, Label::Tissue]);
    let found = labels(&image, &Options { edge: 5.0, ..options() });
    assert_eq!([at(&found, [80, 44]), at(&found, [80, 45])], [Label::Excluded, Label::Tissue]);
    assert_eq!([at(&found, [4, 100]), at(&found, [5, 100])], [Label::Excluded, Label::Tissue]);
    let nothing = vec![f32::NAN; SHAPE[0] * SHAPE[1]];
    assert_eq!(share(&labels(&nothing, &options()), Label::Excluded), 1.0);
}

#[test]
fn small_islands_and_holes_do_not_count() {
    let mut image = vec![120.0; SHAPE[0] * SHAPE[1]];
    let texture = tissue(6);
    for y in 0..SHAPE[0] {
        for x in 0..100_usize {
            let is_hole = y.abs_diff(80) < 14 && x.abs_diff(50) < 14;
            if !is_hole {
                image[y * SHAPE[1] + x] = texture[y * SHAPE[1] + x];
            }
        }
    }
    let island = 40 * SHAPE[1] + 170;
    image[island..island + 6].copy_from_slice(&texture[island..island + 6]);
    let without = Options { close: 0.0, outlier: f64::INFINITY, min_area: 1, ..options() };
    let found = labels(&image, &without);
    assert_eq!(at(&found, [80, 50]), Label::Excluded);
    let found = labels(&image, &Options { min_area: 2000, ..without });
    assert_eq!(at(&found, [80, 50]), Label::Tissue);
    assert_eq!(at(&found, [40, 172]), Label::Excluded);
}

#[test]
fn labels_and_values_are_one_to_one() {
    for label in Label::ALL {
        assert_eq!(Label::of(f32::from(label.value())), label);
        assert_eq!(label.value() > 0, matches!(label, Label::Tissue | Label::Soft));
    }
    // masks of others
    assert_eq!([Label::of(255.0), Label::of(0.5)], [Label::Tissue; 2]);
    assert_eq!([Label::of(f32::NAN), Label::of(-7.0)], [Label::Excluded; 2]);
}
