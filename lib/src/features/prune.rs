//! The steps that need all spots: threshold, pruning of overlapping spots, ranking.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::{Options, Rank, SpotVoxel};
use crate::geom::Point;

/// Selects spots by threshold, overlap and rank, best first.
///
/// The order is total (rank, then response, then position), so that the result does not depend on
/// the order in which blocks were processed.
pub(super) fn select(
    mut spots: Vec<SpotVoxel>,
    greatest: f64,
    spacing: Point,
    options: &Options,
) -> Vec<SpotVoxel> {
    let floor = options.floor(greatest);
    spots.retain(|spot| spot.response > floor && options.is_signal(spot.response, spot.intensity));
    let mut spots = prune(spots, spacing, options);
    let rank = |spot: &SpotVoxel| match options.rank {
        Rank::Intensity => [spot.intensity, spot.response],
        Rank::Response => [spot.response, spot.intensity],
    };
    spots.sort_unstable_by(|a, b| {
        let [a_rank, b_rank] = [rank(a), rank(b)];
        compare(&b_rank, &a_rank).then_with(|| compare(&a.position, &b.position))
    });
    spots.truncate(options.max_spots);
    spots
}

fn compare(a: &[f64], b: &[f64]) -> Ordering {
    let differing = a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne());
    differing.unwrap_or(Ordering::Equal)
}

/// Keeps only the larger of any two spots that share more than `overlap` of the smaller sphere.
///
/// In order of decreasing radius, each spot is compared with those already kept, so that a dropped
/// spot suppresses no other. Of two spots of equal radius, the one with the stronger response is
/// kept. With [`Options::exact`], the weaker one is kept, as in scikit-image, which drops the first
/// of a pair.
fn prune(mut spots: Vec<SpotVoxel>, spacing: Point, options: &Options) -> Vec<SpotVoxel> {
    if options.overlap >= 1.0 {
        return spots;
    }
    let spacing = if options.exact {
        // as in BigStream: voxels are treated as cubes
        [spacing.iter().product::<f64>().cbrt(); 3]
    } else {
        spacing
    };
    spots.sort_unstable_by(|a, b| {
        let strength = a.response.total_cmp(&b.response);
        b.radius
            .total_cmp(&a.radius)
            .then(if options.exact { strength } else { strength.reverse() })
            .then_with(|| compare(&a.position, &b.position))
    });
    let centre =
        |spot: &SpotVoxel| -> Point { std::array::from_fn(|a| spot.position[a] * spacing[a]) };
    let mut kept = KeptSpheres::default();
    spots.retain(|spot| {
        let (centre, radius) = (centre(spot), spot.radius);
        let free = !kept.any_near(centre, radius, |other, large| {
            overlap_fraction(distance(centre, other), large, radius) > options.overlap
        });
        if free {
            kept.insert(centre, radius);
        }
        free
    });
    spots
}

fn distance(a: Point, b: Point) -> f64 {
    (0..3).map(|i| (a[i] - b[i]).powi(2)).sum::<f64>().sqrt()
}

/// The fraction of the smaller of two spheres that lies inside the other (lens volume over sphere
/// volume).
///
/// * `distance`: between the centres; `large`, `small`: the radii
fn overlap_fraction(distance: f64, large: f64, small: f64) -> f64 {
    let (d, sum) = (distance, large + small);
    if d >= sum {
        return 0.0;
    }
    if d <= (large - small).abs() {
        return 1.0;
    }
    let squares = large * large + small * small;
    let lens = std::f64::consts::PI / (12.0 * d)
        * (sum - d).powi(2)
        * (d * d + 2.0 * d * sum - 3.0 * squares + 6.0 * large * small);
    lens / (4.0 / 3.0 * std::f64::consts::PI * small.powi(3))
}

/// The kept spheres in hashed grids, one grid per doubling of the radius. The cell size grows with
/// the radius, so that a sphere is compared with few cells of each grid, however large the other
/// spheres are.
#[derive(Default)]
struct KeptSpheres {
    /// Keyed by floor(log2(radius)); each grid maps a cell to the spheres centred in it.
    grids: HashMap<i32, HashMap<[i64; 3], Vec<(Point, f64)>>>,
}

impl KeptSpheres {
    fn insert(&mut self, centre: Point, radius: f64) {
        let doubling = radius.log2().floor() as i32;
        let cell = cell(centre, side(doubling));
        self.grids.entry(doubling).or_default().entry(cell).or_default().push((centre, radius));
    }

    /// Whether `hit` holds for any kept sphere that can overlap the sphere with `centre` and
    /// `radius`.
    fn any_near(&self, centre: Point, radius: f64, hit: impl Fn(Point, f64) -> bool) -> bool {
        self.grids.iter().any(|(&doubling, grid)| {
            // the radii in this grid are below half the cell size, so all overlapping spheres are
            // centred within `reach`; the given sphere is no larger than the kept ones, so `reach`
            // is at most one cell
            let reach = 0.5 * side(doubling) + radius;
            let [low, high] =
                [-reach, reach].map(|by| cell(centre.map(|v| v + by), side(doubling)));
            (low[0]..=high[0]).any(|z| {
                (low[1]..=high[1]).any(|y| {
                    (low[2]..=high[2]).any(|x| {
                        grid.get(&[z, y, x])
                            .is_some_and(|near| near.iter().any(|&(c, r)| hit(c, r)))
                    })
                })
            })
        })
    }
}

/// The cell size of a grid; the radii of its spheres are between a quarter and half of it.
fn side(doubling: i32) -> f64 {
    2.0 * 2.0_f64.powi(doubling + 1)
}

fn cell(point: Point, side: f64) -> [i64; 3] {
    point.map(|v| (v / side).floor() as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spot(position: Point, radius: f64, response: f64) -> SpotVoxel {
        SpotVoxel { position, radius, response, intensity: response }
    }

    /// A brute-force version of [`prune`] that compares all pairs.
    fn prune_slowly(mut spots: Vec<SpotVoxel>, overlap: f64) -> Vec<SpotVoxel> {
        spots.sort_by(|a, b| b.radius.total_cmp(&a.radius).then(b.response.total_cmp(&a.response)));
        let mut kept: Vec<SpotVoxel> = Vec::new();
        for spot in spots {
            let hits = |other: &SpotVoxel| {
                overlap_fraction(distance(spot.position, other.position), other.radius, spot.radius)
                    > overlap
            };
            if !kept.iter().any(hits) {
                kept.push(spot);
            }
        }
        kept
    }

    proptest! {
        #[test]
        fn pruning_by_cells_equals_comparing_each_with_each(
            places in prop::collection::vec(([0.0..30.0, 0.0..30.0, 0.0..30.0], 0.3..9.0), 0..80),
            overlap in 0.0..1.0,
        ) {
            let spots: Vec<_> = places
                .iter()
                .enumerate()
                .map(|(i, &(position, radius))| spot(position, radius, i as f64))
                .collect();
            let options = Options { overlap, ..Options::new([1.0; 3]) };
            let fast = prune(spots.clone(), [1.0; 3], &options);
            prop_assert_eq!(fast, prune_slowly(spots, overlap));
        }
    }

    #[test]
    fn spheres_share_all_when_nested_half_a_lens_when_touching_and_nothing_when_apart() {
        assert_eq!(overlap_fraction(0.5, 2.0, 1.0), 1.0);
        assert_eq!(overlap_fraction(3.0, 2.0, 1.0), 0.0);
        // equal spheres at a distance of one radius overlap by 5/16
        assert!((overlap_fraction(1.0, 1.0, 1.0) - 5.0 / 16.0).abs() < 1e-12);
    }

    #[test]
    fn the_brightest_are_kept_unless_the_strongest_are_asked_for() {
        let spots = vec![
            SpotVoxel { intensity: 9.0, ..spot([0.0; 3], 1.0, 1.0) },
            SpotVoxel { intensity: 2.0, ..spot([50.0; 3], 1.0, 5.0) },
        ];
        let mut options = Options { max_spots: 1, ..Options::new([1.0; 3]) };
        assert_eq!(select(spots.clone(), 5.0, [1.0; 3], &options)[0].intensity, 9.0);
        options.rank = Rank::Response;
        assert_eq!(select(spots.clone(), 5.0, [1.0; 3], &options)[0].response, 5.0);
        options.threshold_relative = 0.5;
        options.max_spots = 2;
        assert_eq!(select(spots, 5.0, [1.0; 3], &options).len(), 1);
    }
}
