//! The detector of BigStream 2021 on one block: scikit-image's `blob_log`, voxel for voxel.

use super::block::{PaddedBlock, ResponseMaximum};
use super::maxima::{FlatImage, PlateauRule, ScaleStack};
use crate::filter::LaplacianOfGaussian;

/// The local maxima, over position and the `sigmas` (voxels), of `-sigma^2` times the Laplacian of
/// Gaussian.
///
/// The responses are computed only in the block's core and a margin of one voxel around it. The
/// responses at only three scales are in memory at a time.
pub(super) fn maxima(
    block: &PaddedBlock<'_>,
    image: &[f32],
    sigmas: &[f64],
) -> Vec<ResponseMaximum> {
    let target = block.core.grow([1; 3]).intersect(&block.volume);
    let local = target.shift(block.bounds.min.map(|v| -v));
    let inner = block.core.shift(target.min.map(|v| -v));
    let (shape, mut found) = (target.shape(), Vec::new());
    // `held` has the responses at three successive scales; the middle one is searched for maxima
    let mut filter = LaplacianOfGaussian::default();
    let mut held: [Vec<f32>; 3] = Default::default();
    for next in 0..=sigmas.len() {
        held.rotate_left(1);
        if let Some(&sigma) = sigmas.get(next) {
            filter.filter(image, block.bounds.shape(), sigma, &local, &mut held[2]);
            held[2].iter_mut().for_each(|v| *v *= -(sigma * sigma) as f32);
        }
        let Some(index) = next.checked_sub(1) else { continue };
        let extent = [shape[1], shape[2]];
        let [below, here, above] = held.each_ref().map(|voxels| FlatImage { voxels, extent });
        let stack = ScaleStack {
            shape,
            below: (index > 0).then_some(&below),
            here: &here,
            above: (next < sigmas.len()).then_some(&above),
        };
        for at in stack.maxima(&inner, PlateauRule::All) {
            let [z, y, x] = at;
            found.push(ResponseMaximum {
                position: std::array::from_fn(|a| (target.min[a] + at[a] as i64) as f64),
                sigma: sigmas[index],
                response: f64::from(here.voxels[(z * shape[1] + y) * shape[2] + x]),
            });
        }
    }
    found
}
