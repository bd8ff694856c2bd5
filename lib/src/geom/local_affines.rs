use super::affine::corners;
use super::{Affine, Box3, Grid, Point};
use crate::fingerprint::Fingerprint;

/// One affine per block, blended into a continuous map.
///
/// The core of block `i` along an axis covers `[i * block, (i + 1) * block)` voxels of `domain`;
/// the last core ends with the domain. Along each axis, the weight of a block is 1 in its core and
/// 0 elsewhere, except near a face between two blocks: over the `2 * overlap` voxels centred on the
/// face, the weight of each block falls linearly from 1 on its side to 0 on the other side. The
/// weights of the two blocks sum to 1 (the ramps of BigStream). An overlap of half a block blends
/// across the whole block. Outside the domain, the affines of the outermost blocks extrapolate.
///
/// ```
/// use voxloom::geom::{Affine, Grid, LocalAffines};
///
/// // two blocks side by side, whose maps are blended over two voxels on each side of their face
/// let domain = Grid::new([1, 1, 20], [1.0; 3], [0.0; 3]);
/// let affines = vec![Affine::IDENTITY, Affine::translation([0.0, 0.0, 4.0])];
/// let maps = LocalAffines { domain, block: [1, 1, 10], overlap: [0.0, 0.0, 2.0], affines };
/// assert_eq!(maps.apply([0.0, 0.0, 2.0]), [0.0, 0.0, 2.0]);
/// assert_eq!(maps.apply([0.0, 0.0, 9.5]), [0.0, 0.0, 11.5]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LocalAffines {
    /// The fixed grid that is divided into blocks.
    pub domain: Grid,
    /// The size of a block's core, in voxels of `domain`.
    pub block: [usize; 3],
    /// Half the width of a blending ramp, in voxels of `domain`; at most half a block.
    pub overlap: [f64; 3],
    /// One affine per block in C order, each from fixed to moving physical coordinates.
    pub affines: Vec<Affine>,
}

impl LocalAffines {
    /// The number of blocks along each axis of a domain of `shape` voxels.
    pub fn counts(shape: [usize; 3], block: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|a| shape[a].div_ceil(block[a]).max(1))
    }

    /// The fingerprint of the domain, blocks and matrices.
    pub fn fingerprint(&self) -> String {
        let mut fingerprint = Fingerprint::default();
        self.domain.add_to(&mut fingerprint);
        fingerprint.add_counts(self.block.map(|n| n as u64)).add_numbers(self.overlap);
        fingerprint.add_numbers(self.affines.iter().flat_map(|map| map.rows().concat()));
        fingerprint.hex()
    }

    /// The image of `p` under the blended map.
    pub fn apply(&self, p: Point) -> Point {
        let mut sum = [0.0; 3];
        for (block, weight) in self.shares(p) {
            if weight != 0.0 {
                let q = self.affines[block].apply(p);
                for a in 0..3 {
                    sum[a] += weight * q[a];
                }
            }
        }
        sum
    }

    /// The eight blocks that can contribute at `p`, as indices in C order, with their weights,
    /// which sum to 1.
    ///
    /// If fewer blocks contribute, the remaining entries have weight 0.
    pub fn shares(&self, p: Point) -> [(usize, f64); 8] {
        let counts = Self::counts(self.domain.shape, self.block);
        let index = self.domain.index(p);
        let pairs: [_; 3] =
            std::array::from_fn(|a| ramp(index[a], self.block[a], counts[a], self.overlap[a]));
        std::array::from_fn(|corner| {
            let mut weight = 1.0;
            let mut block = 0;
            for a in 0..3 {
                let (low, share) = pairs[a];
                let upper = corner >> a & 1;
                weight *= if upper == 1 { share } else { 1.0 - share };
                block = block * counts[a] + (low + upper).min(counts[a] - 1);
            }
            (block, weight)
        })
    }

    /// An extent that contains the image of every point of the extent `[low, high]`.
    ///
    /// The blended image of a point is a convex combination of its images under the contributing
    /// affines, so the images of the extent under these affines bound it.
    pub fn image_of(&self, [low, high]: [Point; 2]) -> [Point; 2] {
        let mut image = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
        for map in self.reaching([low, high]) {
            for q in corners([low, high]).map(|p| map.apply(p)) {
                for a in 0..3 {
                    image[0][a] = image[0][a].min(q[a]);
                    image[1][a] = image[1][a].max(q[a]);
                }
            }
        }
        image
    }

    fn reaching(&self, [low, high]: [Point; 2]) -> impl Iterator<Item = &Affine> {
        let counts = Self::counts(self.domain.shape, self.block);
        let (low, high) = (self.domain.index(low), self.domain.index(high));
        let first: [usize; 3] =
            std::array::from_fn(|a| ramp(low[a], self.block[a], counts[a], self.overlap[a]).0);
        let last: [usize; 3] = std::array::from_fn(|a| {
            let (at, share) = ramp(high[a], self.block[a], counts[a], self.overlap[a]);
            at + usize::from(share > 0.0)
        });
        let range = Box3::new(first.map(|v| v as i64), last.map(|v| v as i64 + 1));
        range
            .tiles([1, 1, 1])
            .map(|t| t.min.map(|v| v as usize))
            .collect::<Vec<_>>()
            .into_iter()
            .map(move |[z, y, x]| &self.affines[(z * counts[1] + y) * counts[2] + x])
    }
}

/// The lower of the two blocks that contribute at voxel `index` along an axis, and the weight of
/// the upper block.
fn ramp(index: f64, block: usize, count: usize, overlap: f64) -> (usize, f64) {
    let block = block as f64;
    let overlap = overlap.clamp(1e-9, block / 2.0);
    // a face lies halfway between two voxel centres; the nearest face between blocks is used
    let face = ((index + 0.5) / block).round().clamp(1.0, (count.max(2) - 1) as f64);
    if count < 2 {
        return (0, 0.0);
    }
    let share = ((index + 0.5 - face * block + overlap) / (2.0 * overlap)).clamp(0.0, 1.0);
    // NaN coordinates map to block 0 with weight NaN
    ((face as usize).saturating_sub(1), share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_blocks(overlap: f64) -> LocalAffines {
        LocalAffines {
            domain: Grid::new([1, 1, 20], [1.0; 3], [0.0; 3]),
            block: [1, 1, 10],
            overlap: [0.0, 0.0, overlap],
            affines: vec![
                Affine::translation([0.0, 0.0, 1.0]),
                Affine::translation([0.0, 0.0, 3.0]),
            ],
        }
    }

    #[test]
    fn the_blend_is_each_block_in_its_core_and_the_mean_on_the_face() {
        let maps = two_blocks(2.0);
        assert_eq!(maps.apply([0.0, 0.0, 3.0])[2], 4.0);
        assert_eq!(maps.apply([0.0, 0.0, 15.0])[2], 18.0);
        assert!((maps.apply([0.0, 0.0, 9.5])[2] - 11.5).abs() < 1e-12);
        assert_eq!(maps.apply([0.0, 0.0, 100.0])[2], 103.0);
    }

    #[test]
    fn a_position_that_is_not_a_number_stays_so() {
        let mapped = two_blocks(2.0).apply([0.0, 0.0, f64::NAN]);
        assert!(mapped[2].is_nan());
    }

    #[test]
    fn the_image_of_an_extent_holds_every_point_of_it() {
        let maps = two_blocks(5.0);
        let [low, high] = maps.image_of([[0.0, 0.0, 2.0], [0.0, 0.0, 16.0]]);
        for i in 0..=140 {
            let q = maps.apply([0.0, 0.0, 2.0 + f64::from(i) * 0.1])[2];
            assert!(low[2] <= q && q <= high[2]);
        }
    }
}
