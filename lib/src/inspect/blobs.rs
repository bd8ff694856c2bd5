//! How large the bright blobs of a block are: maxima of a difference-of-Gaussians scale space.
//!
//! Only good for a proposal: `extract-spots` has the exact detector.

/// The ratio of neighbouring scales: three to an octave.
const RATIO: f64 = 1.259_921_049_894_873_2;
/// Blobs that stand out less from the noise of their scale are left out.
const NOISE: f32 = 6.0;

/// A bright blob.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Blob {
    /// Its centre, voxels.
    pub at: [usize; 3],
    /// Its radius, micrometres: that of a solid ball with its largest response at this scale.
    pub radius: f64,
    /// Scale-normalised response.
    pub response: f32,
}

/// The blobs of a block, strongest first, those inside of a stronger one left out.
///
/// Radii from about the larger voxel edge to a fifth of the block's shortest side are looked for.
pub(super) fn blobs(voxels: &[f32], shape: [usize; 3], spacing: [f64; 3]) -> Vec<Blob> {
    let coarsest = spacing.iter().copied().fold(0.0, f64::max);
    let shortest = (0..3).map(|a| shape[a] as f64 * spacing[a]).fold(f64::INFINITY, f64::min);
    // a solid ball of radius r responds most to a Gaussian of r / sqrt(3) in three dimensions
    let scales: Vec<f64> = std::iter::successors(Some(0.7 * coarsest), |s| Some(s * RATIO))
        .take_while(|s| s * 3f64.sqrt() <= shortest / 5.0 * RATIO)
        .collect();
    let mut found = Vec::new();
    let mut smooth = voxels.to_vec();
    let mut before = 0.0;
    let mut layers: Vec<Vec<f32>> = Vec::new();
    for (k, &scale) in scales.iter().enumerate() {
        let step = (scale * scale - before * before).sqrt();
        before = scale;
        let mut next = smooth.clone();
        for a in 0..3 {
            next = blur(&next, shape, a, step / spacing[a]);
        }
        if k > 0 {
            layers.push(smooth.iter().zip(&next).map(|(fine, coarse)| fine - coarse).collect());
        }
        smooth = next;
        if let [fine, here, coarse] = layers.as_slice() {
            // the middle layer is the difference of scales k - 2 and k - 1
            let radius = 3f64.sqrt() * scales[k - 2] * RATIO.sqrt();
            maxima(here, [fine, coarse], shape, |at, response| {
                found.push(Blob { at, radius, response });
            });
            layers.remove(0);
        }
    }
    prune(found, spacing)
}

/// Calls `found` for each voxel of `here` that exceeds its 80 neighbours and the noise.
fn maxima(
    here: &[f32],
    beside: [&Vec<f32>; 2],
    shape: [usize; 3],
    mut found: impl FnMut([usize; 3], f32),
) {
    let threshold = NOISE * noise(here);
    let [nz, ny, nx] = shape;
    let offsets: Vec<isize> = (0..27)
        .map(|i: isize| ((i / 9 - 1) * ny as isize + i / 3 % 3 - 1) * nx as isize + i % 3 - 1)
        .collect();
    for z in 1..nz.saturating_sub(1) {
        for y in 1..ny.saturating_sub(1) {
            for x in 1..nx.saturating_sub(1) {
                let i = (z * ny + y) * nx + x;
                let v = here[i];
                let tops = |layer: &[f32], own: bool| {
                    let other = |o: isize| layer[i.wrapping_add_signed(o)];
                    offsets.iter().all(|&o| (own && o == 0) || v > other(o))
                };
                if v > threshold
                    && tops(here, true)
                    && tops(beside[0], false)
                    && tops(beside[1], false)
                {
                    found([z, y, x], v);
                }
            }
        }
    }
}

/// The standard deviation of the noise, from the median of absolute values (Donoho 1994).
fn noise(layer: &[f32]) -> f32 {
    let step = layer.len().div_ceil(1 << 16).max(1) | 1;
    let mut sizes: Vec<f32> = layer.iter().step_by(step).map(|v| v.abs()).collect();
    if sizes.is_empty() {
        return f32::INFINITY;
    }
    let middle = sizes.len() / 2;
    *sizes.select_nth_unstable_by(middle, f32::total_cmp).1 / 0.6745
}

fn prune(mut found: Vec<Blob>, spacing: [f64; 3]) -> Vec<Blob> {
    found.sort_by(|a, b| b.response.total_cmp(&a.response).then(a.at.cmp(&b.at)));
    // enough to know their size; more would only cost time
    found.truncate(4000);
    let mut kept: Vec<Blob> = Vec::new();
    for blob in found {
        let covered = kept.iter().any(|other| {
            let square: f64 = (0..3)
                .map(|a| ((other.at[a] as f64 - blob.at[a] as f64) * spacing[a]).powi(2))
                .sum();
            square < other.radius.max(blob.radius).powi(2)
        });
        if !covered {
            kept.push(blob);
        }
    }
    kept
}

/// A Gaussian of `sigma` voxels along one axis, mirrored about the edge voxels' outer faces.
fn blur(voxels: &[f32], shape: [usize; 3], axis: usize, sigma: f64) -> Vec<f32> {
    let radius = (3.0 * sigma).ceil() as isize;
    let weights: Vec<f64> =
        (-radius..=radius).map(|i| (-0.5 * (i as f64 / sigma).powi(2)).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let weights: Vec<f32> = weights.iter().map(|w| (w / sum) as f32).collect();
    let count = shape[axis] as isize;
    let inner: usize = shape[axis + 1..].iter().product();
    let mut out = vec![0.0f32; voxels.len()];
    let line = count as usize * inner;
    for (from, to) in voxels.chunks_exact(line).zip(out.chunks_exact_mut(line)) {
        for i in 0..count {
            let row = &mut to[i as usize * inner..(i as usize + 1) * inner];
            for (weight, offset) in weights.iter().zip(-radius..) {
                let at = mirrored(i + offset, count);
                for (sum, v) in row.iter_mut().zip(&from[at * inner..(at + 1) * inner]) {
                    *sum += weight * v;
                }
            }
        }
    }
    out
}

fn mirrored(i: isize, count: isize) -> usize {
    let i = i.rem_euclid(2 * count);
    (if i < count { i } else { 2 * count - 1 - i }) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Solid balls of one radius on a faint deterministic noise.
    fn balls(shape: [usize; 3], spacing: [f64; 3], radius: f64, centres: &[[f64; 3]]) -> Vec<f32> {
        let mut state = 1u32;
        (0..shape.iter().product())
            .map(|i| {
                let index = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
                let inside = centres.iter().any(|c| {
                    (0..3).map(|a| (index[a] as f64 * spacing[a] - c[a]).powi(2)).sum::<f64>()
                        <= radius * radius
                });
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                100.0 + (state >> 24) as f32 * 0.05 + if inside { 300.0 } else { 0.0 }
            })
            .collect()
    }

    #[test]
    fn the_radius_of_solid_balls_is_found_whatever_the_spacing() {
        for (shape, spacing) in [([48, 48, 48], [1.0; 3]), ([24, 48, 48], [2.0, 1.0, 1.0])] {
            let centres =
                [[12.0, 12.0, 12.0], [34.0, 12.0, 34.0], [12.0, 34.0, 34.0], [34.0, 34.0, 12.0]];
            let found = blobs(&balls(shape, spacing, 5.0, &centres), shape, spacing);
            assert!(found.len() >= 4, "{found:?}");
            for blob in &found[..4] {
                assert!((3.7..6.5).contains(&blob.radius), "{blob:?} at {spacing:?}");
                let near = centres
                    .iter()
                    .any(|c| (0..3).all(|a| (blob.at[a] as f64 * spacing[a] - c[a]).abs() <= 2.0));
                assert!(near, "{blob:?}");
            }
        }
    }

    #[test]
    fn noise_alone_has_hardly_a_blob_and_a_constant_none() {
        assert!(blobs(&balls([32; 3], [1.0; 3], 0.0, &[]), [32; 3], [1.0; 3]).len() <= 2);
        assert_eq!(blobs(&vec![7.0; 32 * 32 * 32], [32; 3], [1.0; 3]), []);
    }

    #[test]
    fn blurring_keeps_the_sum_and_mirrors_at_the_border() {
        let shape = [3, 4, 5];
        let voxels: Vec<f32> = (0..60).map(|i| (i * 7 % 11) as f32).collect();
        for axis in 0..3 {
            let sum: f32 = blur(&voxels, shape, axis, 2.5).iter().sum();
            assert!((sum - voxels.iter().sum::<f32>()).abs() < 1e-2);
        }
        assert_eq!([-1, -3, 0, 2, 3, 6].map(|i| mirrored(i, 3)), [0, 2, 0, 2, 2, 0]);
    }
}
