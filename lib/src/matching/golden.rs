//! Comparison with BigStream's own results on its tutorial data (`reference/bigstream`).

use std::collections::HashSet;

use n5::ndarray::prelude::*;
use n5::prelude::*;

use super::*;
use crate::geom::{FitError, Model, fit};
use crate::golden::npz::{Array, read_npz};
use crate::golden::shared;

const SPACING: Point = [1.68, 1.84, 1.84];

fn reference(name: &str) -> impl Fn(&str) -> Array {
    let path = shared("reference/bigstream").join(name);
    move |key: &str| read_npz(&path).remove(key).unwrap()
}

const TUTORIAL: &str = "tutorial_global_2021/keypoints_matches_affine.npz";

/// A volume of the tutorial in C order `(z, y, x)`, and its grid.
fn volume(container: &str) -> (Vec<u16>, Grid) {
    let root = shared("data/bigstream-tutorial").join(container);
    let container = N5Filesystem::open(root.to_str().unwrap()).unwrap();
    let attributes = container.get_dataset_attributes("lowres").unwrap();
    let size: Vec<u64> = attributes.get_dimensions().to_vec();
    let all = BoundingBox::new(smallvec_zero(), size.iter().copied().collect());
    let voxels = container.read_ndarray::<u16>("lowres", &attributes, &all).unwrap();
    let shape = [2, 1, 0].map(|a| size[a] as usize);
    // x varies fastest in N5
    (voxels.as_slice_memory_order().unwrap().to_vec(), Grid::new(shape, SPACING, [0.0; 3]))
}

fn smallvec_zero() -> n5::GridCoord {
    [0, 0, 0].iter().copied().collect()
}

/// Converts a table row x, y, z to a point z, y, x.
fn zyx(row: &[f64]) -> Point {
    [row[2], row[1], row[0]]
}

/// Converts a matrix with rows and columns x, y, z.
fn matrix(table: &Array) -> Affine {
    Affine::from_rows(std::array::from_fn(|r| {
        let row = table.row(2 - r);
        [row[2], row[1], row[0], row[3]]
    }))
}

/// Spots in micrometres, brightest first.
fn spots(table: &Array) -> Vec<Point> {
    let mut order: Vec<usize> = (0..table.rows()).collect();
    order.sort_by(|&a, &b| table.row(b)[3].total_cmp(&table.row(a)[3]));
    let place = |&i: &usize| {
        let at = zyx(table.row(i));
        std::array::from_fn(|a| at[a] * SPACING[a])
    };
    order.iter().map(place).collect()
}

fn given_matches(fixed: &Array, moving: &Array) -> Vec<Match> {
    (0..fixed.rows())
        .map(|i| Match {
            fixed: zyx(fixed.row(i)),
            moving: zyx(moving.row(i)),
            correlation: 1.0,
            inlier: false,
            residual: 0.0,
        })
        .collect()
}

fn key(one: &Match) -> [i64; 6] {
    std::array::from_fn(|a| {
        let p = if a < 3 { one.fixed } else { one.moving };
        (p[a % 3] / SPACING[a % 3]).round() as i64
    })
}

/// The smaller of the fractions of `wanted` found in `got` and of `got` found in `wanted`.
fn agreement(got: &[Match], wanted: &[Match]) -> f64 {
    let [got, wanted] = [got, wanted].map(|list| list.iter().map(key).collect::<HashSet<_>>());
    got.intersection(&wanted).count() as f64 / got.len().max(wanted.len()) as f64
}

fn exact(threshold: f64) -> MatchOptions {
    MatchOptions { match_threshold: threshold, exact: true, ..MatchOptions::default() }
}

fn two_micrometres() -> EstimateOptions {
    EstimateOptions { align_threshold: Some(2.0), ..EstimateOptions::default() }
}

fn largest_difference(a: &Affine, b: &Affine) -> f64 {
    let (a, b) = (a.rows(), b.rows());
    a.iter().flatten().zip(b.iter().flatten()).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_exact_mode_finds_the_matches_of_the_tutorial() {
    let (data, fixed, moving) = (reference(TUTORIAL), volume("fix.n5"), volume("mov.n5"));
    let fixed_spots = spots(&data("fix_spots"))[..5000].to_vec();
    let moving_spots = spots(&data("mov_spots"));
    let fixed = SpotVolume { voxels: &fixed.0, grid: fixed.1, positions: &fixed_spots };
    let moving = SpotVolume { voxels: &moving.0, grid: moving.1, positions: &moving_spots };
    let got = match_in_memory(&fixed, &moving, &exact(0.75)).unwrap();
    let wanted = given_matches(&data("match_fix_um"), &data("match_mov_um"));
    // spots of equal brightness at the limit of 5000 are chosen arbitrarily
    let same = agreement(&got, &wanted);
    assert!(same >= 0.999, "{same} of {} matches", got.len());
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_exact_mode_finds_the_matches_of_the_crop() {
    let (data, fixed, moving) =
        (reference("keypoints_affine_2021_crop/outputs.npz"), volume("fix.n5"), volume("mov.n5"));
    let crop = |(voxels, grid): (Vec<u16>, Grid), [z0, y0, x0]: [usize; 3]| {
        let mut out = Vec::new();
        for z in z0..z0 + 100 {
            for y in y0..y0 + 128 {
                let from = (z * grid.shape[1] + y) * grid.shape[2] + x0;
                out.extend_from_slice(&voxels[from..from + 128]);
            }
        }
        (out, Grid::new([100, 128, 128], SPACING, [0.0; 3]))
    };
    let (fixed, moving) = (crop(fixed, [20, 64, 176]), crop(moving, [16, 50, 130]));
    let (fixed_spots, moving_spots) = (spots(&data("fix_spots")), spots(&data("mov_spots")));
    let fixed = SpotVolume { voxels: &fixed.0, grid: fixed.1, positions: &fixed_spots };
    let moving = SpotVolume { voxels: &moving.0, grid: moving.1, positions: &moving_spots };
    let got = match_in_memory(&fixed, &moving, &exact(0.75)).unwrap();
    let wanted = given_matches(&data("match_fix"), &data("match_mov"));
    assert_eq!(agreement(&got, &wanted), 1.0);
}

fn opencv_gives_the_reference(data: impl Fn(&str) -> Array, names: [&str; 2]) -> Estimate {
    let matches = given_matches(&data(names[0]), &data(names[1]));
    let options = EstimateOptions { compat: Some(Compat::Opencv), ..two_micrometres() };
    let got = estimate(&matches, &options, 0).unwrap();
    let wanted: Vec<bool> = data("inliers").values.iter().map(|&v| v > 0.0).collect();
    assert_eq!(got.inliers, wanted);
    let error = largest_difference(&got.affine, &matrix(&data("affine_xyz")));
    assert!(error < 1e-6, "{error}");
    got
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_opencv_estimator_gives_the_matrix_of_the_tutorial() {
    let data = reference(TUTORIAL);
    let got = opencv_gives_the_reference(data, ["match_fix_um", "match_mov_um"]);
    assert_eq!((got.inlier_count, got.iterations), (992, 171));
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_opencv_estimator_gives_the_matrix_of_the_crop() {
    let data = reference("keypoints_affine_2021_crop/outputs.npz");
    opencv_gives_the_reference(data, ["match_fix", "match_mov"]);
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn least_squares_on_the_inliers_of_the_tutorial_gives_its_refit() {
    let data = reference(TUTORIAL);
    let matches = given_matches(&data("match_fix_um"), &data("match_mov_um"));
    let [fixed, moving]: [Vec<Point>; 2] =
        [matches.iter().map(|m| m.fixed).collect(), matches.iter().map(|m| m.moving).collect()];
    let inliers = data("inliers").values;
    let got: Result<_, FitError> = fit(Model::Affine, &fixed, &moving, Some(&inliers), false);
    let error = largest_difference(&got.unwrap(), &matrix(&data("affine_lsq_on_inliers")));
    assert!(error < 1e-6, "{error}");
}

/// The correlation of two volumes where the moving one, resampled through `map`, is positive
/// (BigStream specification, 9.4).
fn overlap_correlation(fixed: &(Vec<u16>, Grid), moving: &(Vec<u16>, Grid), map: &Affine) -> f64 {
    let mut sums = [0.0; 6];
    let [nz, ny, nx] = fixed.1.shape;
    for z in 0..nz {
        for y in 0..ny {
            for x in 0..nx {
                let at = map.apply(fixed.1.position([z as f64, y as f64, x as f64]));
                let pulled = sample(&moving.0, moving.1.shape, moving.1.index(at));
                if pulled > 0.0 {
                    let here = f64::from(fixed.0[(z * ny + y) * nx + x]);
                    let terms = [1.0, here, pulled, here * here, pulled * pulled, here * pulled];
                    sums = std::array::from_fn(|i| sums[i] + terms[i]);
                }
            }
        }
    }
    let [n, a, b, aa, bb, ab] = sums;
    (ab - a * b / n) / ((aa - a * a / n) * (bb - b * b / n)).sqrt()
}

/// Trilinear interpolation, 0 outside the volume.
fn sample(voxels: &[u16], shape: [usize; 3], at: Point) -> f64 {
    if (0..3).any(|a| !(at[a] >= 0.0 && at[a] < shape[a] as f64 - 1.0)) {
        return 0.0;
    }
    let base = at.map(|v| v as usize);
    let part: Point = std::array::from_fn(|a| at[a] - base[a] as f64);
    let mut sum = 0.0;
    for corner in 0..8 {
        let bit = |a: usize| corner >> a & 1;
        let weight: f64 =
            (0..3).map(|a| if bit(a) == 1 { part[a] } else { 1.0 - part[a] }).product();
        let index =
            ((base[0] + bit(0)) * shape[1] + base[1] + bit(1)) * shape[2] + base[2] + bit(2);
        sum += weight * f64::from(voxels[index]);
    }
    sum
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn the_global_map_of_the_tutorial_aligns_the_images_better_than_the_reference_does() {
    let (data, fixed, moving) = (reference(TUTORIAL), volume("fix.n5"), volume("mov.n5"));
    let fixed_spots = spots(&data("fix_spots"))[..5000].to_vec();
    let moving_spots = spots(&data("mov_spots"));
    let one = SpotVolume { voxels: &fixed.0, grid: fixed.1, positions: &fixed_spots };
    let two = SpotVolume { voxels: &moving.0, grid: moving.1, positions: &moving_spots };
    let matches = match_in_memory(&one, &two, &MatchOptions::default()).unwrap();
    let got = estimate(&matches, &two_micrometres(), 0).unwrap();
    let correlation = overlap_correlation(&fixed, &moving, &got.affine);
    let reference = overlap_correlation(&fixed, &moving, &matrix(&data("affine_xyz")));
    assert!((reference - 0.773).abs() < 0.002, "{reference}");
    assert!(correlation >= 0.83, "{correlation}");
    // nearly all matches with sub-voxel positions are inliers, half of those with whole voxels
    assert!(got.inlier_count * 10 > matches.len() * 9, "{}", got.inlier_count);
}
