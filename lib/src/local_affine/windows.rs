//! Cubes of voxels, and their correlation with cubes of another block.

use crate::filter::lines::{multiply_add, vectorised};
use crate::filter::{self, Kernel};

/// A block of voxels, C order `(z, y, x)`.
#[derive(Clone, Copy)]
pub(super) struct VoxelBlock<'a> {
    /// The voxels.
    pub(super) voxels: &'a [f32],
    /// The number of voxels along z, y, x.
    pub(super) shape: [usize; 3],
}

/// Rows are padded with zeros to a multiple of this length, for vectorisation.
const LANES: usize = 8;

/// A block prepared for correlation with cubes of one size. `voxels` are the voxels of the block (0
/// for NaN and infinity) with padding at the end. `inverse_norms` has, for every voxel, the
/// reciprocal norm of the cube around the voxel after the mean of the cube is subtracted, or 0
/// where the correlation is undefined.
pub(super) struct CorrelationBlock {
    voxels: Vec<f32>,
    inverse_norms: Vec<f32>,
    shape: [usize; 3],
    radius: [usize; 3],
}

impl CorrelationBlock {
    /// Prepares for cubes of `2 * radius + 1` voxels. The correlation is undefined for cubes that
    /// contain a non-finite voxel or are constant.
    pub(super) fn new(block: VoxelBlock, radius: [usize; 3]) -> Self {
        let shape = block.shape;
        let kernels = radius.map(Kernel::uniform);
        let mean = |image: &[f32]| filter::smooth(image, shape, &kernels, [1; 3]).0;
        let mut inverse_norms = mean(&block.voxels.iter().map(|v| v * v).collect::<Vec<f32>>());
        let means = mean(block.voxels);
        let n = radius.iter().map(|r| 2 * r + 1).product::<usize>() as f32;
        for (square, mean) in inverse_norms.iter_mut().zip(&means) {
            let spread = *square - mean * mean;
            // the variance of constant values is not exactly 0, because of rounding errors; NaN
            // fails this test too
            *square = if spread > 1e-5 * *square { (spread * n).sqrt().recip() } else { 0.0 };
        }
        drop(means);
        let mut voxels: Vec<f32> = Vec::with_capacity(block.voxels.len() + LANES);
        voxels.extend(block.voxels.iter().map(|v| if v.is_finite() { *v } else { 0.0 }));
        voxels.resize(block.voxels.len() + LANES, 0.0);
        Self { voxels, inverse_norms, shape, radius }
    }

    /// The Pearson correlation of `window` with the cube around `place`; `None` if that cube
    /// extends beyond the block, contains a non-finite voxel or is constant.
    pub(super) fn correlate(&self, window: &NormalisedCube, place: [i64; 3]) -> Option<f64> {
        let inside = (0..3).all(|a| {
            let r = self.radius[a] as i64;
            place[a] >= r && place[a] + r < self.shape[a] as i64
        });
        if !inside {
            return None;
        }
        let at = place.map(|v| v as usize);
        let index = |p: [usize; 3]| (p[0] * self.shape[1] + p[1]) * self.shape[2] + p[2];
        let norm = self.inverse_norms[index(at)];
        if norm == 0.0 {
            return None;
        }
        let corner = index(std::array::from_fn(|a| at[a] - self.radius[a]));
        let steps = [self.shape[1] * self.shape[2], self.shape[2]];
        let mut sum = [0.0];
        product(&window.values, &self.voxels[corner..], window.rows, steps, &mut sum);
        Some(f64::from(sum[0]) * f64::from(norm))
    }
}

/// The cube around a voxel, normalised to mean 0 and norm 1.
pub(super) struct NormalisedCube {
    /// The rows along x, each padded with zeros to a multiple of [`LANES`].
    values: Vec<f32>,
    /// The number of planes of the cube, and of rows per plane.
    rows: [usize; 2],
}

impl NormalisedCube {
    /// `None` if the cube extends beyond the block, contains a non-finite voxel or is constant.
    pub(super) fn new(block: VoxelBlock, at: [i64; 3], radius: [usize; 3]) -> Option<Self> {
        let low: [i64; 3] = std::array::from_fn(|a| at[a] - radius[a] as i64);
        let size = radius.map(|r| 2 * r + 1);
        let inside =
            (0..3).all(|a| low[a] >= 0 && low[a] + size[a] as i64 <= block.shape[a] as i64);
        if !inside {
            return None;
        }
        let [z, y, x] = low.map(|v| v as usize);
        let rows: Vec<&[f32]> = (0..size[0] * size[1])
            .map(|i| {
                let plane = z + i / size[1];
                let start = (plane * block.shape[1] + y + i % size[1]) * block.shape[2] + x;
                &block.voxels[start..start + size[2]]
            })
            .collect();
        let n = size.iter().product::<usize>() as f64;
        let all = || rows.iter().flat_map(|row| row.iter()).map(|&v| f64::from(v));
        let mean = all().sum::<f64>() / n;
        let squares = all().map(|v| (v - mean).powi(2)).sum::<f64>();
        if !squares.is_finite() || squares <= 1e-10 * mean * mean * n || squares == 0.0 {
            return None;
        }
        let scale = squares.sqrt().recip();
        let width = size[2].next_multiple_of(LANES);
        let mut values = vec![0.0; rows.len() * width];
        for (own, row) in values.chunks_exact_mut(width).zip(&rows) {
            for (value, &v) in own.iter_mut().zip(*row) {
                *value = ((f64::from(v) - mean) * scale) as f32;
            }
        }
        Some(Self { values, rows: [size[0], size[1]] })
    }
}

vectorised! {
    /// Writes the dot product of a padded cube with the cube that begins at `voxels[0]` to
    /// `sum[0]`.
    ///
    /// * `values`: `rows[0] * rows[1]` rows, each padded with zeros
    /// * `steps`: the strides from plane to plane and from row to row
    fn product(
        values: &[f32],
        voxels: &[f32],
        rows: [usize; 2],
        steps: [usize; 2],
        sum: &mut [f32; 1],
    ) => product_body
}

#[inline(always)]
fn product_body<const FUSED: bool>(
    values: &[f32],
    voxels: &[f32],
    rows: [usize; 2],
    steps: [usize; 2],
    sum: &mut [f32; 1],
) {
    let width = values.len() / (rows[0] * rows[1]).max(1);
    // two partial sums, so that one multiplication need not wait for the addition before it
    let mut lanes = [[0.0f32; LANES]; 2];
    for (i, own) in values.chunks_exact(width).enumerate() {
        let start = i / rows[1] * steps[0] + i % rows[1] * steps[1];
        let row = &voxels[start..start + width];
        for (k, (a, b)) in own.chunks_exact(LANES).zip(row.chunks_exact(LANES)).enumerate() {
            let lane = &mut lanes[k % 2];
            for j in 0..LANES {
                lane[j] = multiply_add::<FUSED>(a[j], b[j], lane[j]);
            }
        }
    }
    sum[0] = lanes[0].iter().zip(&lanes[1]).map(|(a, b)| a + b).sum();
}
