//! A test whether a map folds space, by the sign of its Jacobian determinant.

use crate::geom::{LocalAffines, Point};

/// The minimum Jacobian determinant of the blended map, and the number of sample points where it is
/// not positive.
///
/// The sample points lie a quarter of a block apart along each axis and cover the domain; the last
/// ones can lie up to a quarter of a block beyond it. The derivatives are central differences over
/// a sixteenth of a block to each side.
pub(super) fn folds(maps: &LocalAffines) -> (f64, usize) {
    let step: Point = std::array::from_fn(|a| maps.block[a] as f64 * maps.domain.spacing[a] / 16.0);
    let counts: [usize; 3] =
        std::array::from_fn(|a| (4 * maps.domain.shape[a]).div_ceil(maps.block[a]) + 1);
    let (mut least, mut folded) = (f64::INFINITY, 0);
    for i in 0..counts.iter().product() {
        let index = [i / (counts[1] * counts[2]), i / counts[2] % counts[1], i % counts[2]];
        let p = maps
            .domain
            .position(std::array::from_fn(|a| (index[a] * maps.block[a]) as f64 / 4.0 - 0.5));
        let columns: [Point; 3] = std::array::from_fn(|a| {
            let (mut low, mut high) = (p, p);
            low[a] -= step[a];
            high[a] += step[a];
            let (q, r) = (maps.apply(low), maps.apply(high));
            std::array::from_fn(|c| (r[c] - q[c]) / (2.0 * step[a]))
        });
        let determinant = nalgebra::Matrix3::from_fn(|r, c| columns[c][r]).determinant();
        least = least.min(determinant);
        folded += usize::from(determinant <= 0.0);
    }
    (least, folded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geom::{Affine, Grid};

    #[test]
    fn a_block_thrown_over_its_neighbour_folds_and_the_identity_does_not() {
        let mut maps = LocalAffines {
            domain: Grid::new([10, 10, 30], [1.0; 3], [0.0; 3]),
            block: [10; 3],
            overlap: [5.0; 3],
            affines: vec![Affine::IDENTITY; 3],
        };
        assert_eq!(folds(&maps), (1.0, 0));
        maps.affines[0] = Affine::translation([0.0, 0.0, 25.0]);
        let (least, folded) = folds(&maps);
        assert!(least < 0.0 && folded > 0);
    }
}
