//! Sizes of the bright blobs of a block: local maxima in a difference-of-Gaussians scale space.
//!
//! This detector is only accurate enough to suggest parameters; `extract-spots` uses a more
//! accurate one.

use crate::filter::{self, Kernel};
use crate::geom::Grid;

/// The ratio of successive scales: three per octave.
const RATIO: f64 = 1.259_921_049_894_873_2;
/// Blobs whose response is below this multiple of the noise at their scale are ignored.
const MIN_RESPONSE_TO_NOISE: f32 = 6.0;
/// Sides shorter than this many voxels do not limit the radii.
const MIN_LIMITING_SIDE: usize = 32;

/// A bright blob.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Blob {
    /// Centre of the blob, voxel index `[z, y, x]`.
    pub at: [usize; 3],
    /// Radius of the blob, micrometres: that of the solid ball whose response is largest at the
    /// blob's scale.
    pub radius: f64,
    /// Scale-normalised response.
    pub response: f32,
}

/// The response of a block at each scale.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Spectrum {
    /// Radii of the scales, micrometres.
    pub radii: Vec<f64>,
    /// The variance of the response minus the variance of the noise, per scale.
    pub signal: Vec<f64>,
    /// The variance of the noise, per scale.
    pub noise: Vec<f64>,
}

impl Spectrum {
    /// Adds the spectrum of another block of the same shape.
    pub(super) fn add(&mut self, other: &Self) {
        if self.radii.is_empty() {
            self.clone_from(other);
            return;
        }
        for (sum, more) in self.signal.iter_mut().zip(&other.signal) {
            *sum += more;
        }
        for (sum, more) in self.noise.iter_mut().zip(&other.noise) {
            *sum += more;
        }
    }

    /// The radius of the strongest response, and the radii on either side at which its amplitude
    /// has fallen to the fraction `share`: `[lower, peak, upper]`, micrometres. `None` if no scale
    /// stands out from the noise.
    pub(super) fn range(&self, share: f64) -> Option<[f64; 3]> {
        let peak =
            (0..self.signal.len()).max_by(|&a, &b| self.signal[a].total_cmp(&self.signal[b]))?;
        if self.signal[peak] <= 0.1 * self.noise[peak] {
            return None;
        }
        let level = self.signal[peak] * share * share;
        // interpolate between the last scale above the level and the first below it, in log radius
        let crossing = |inside: usize, outside: usize| {
            let (high, low) = (self.signal[inside], self.signal[outside]);
            let way = (high - level) / (high - low);
            self.radii[inside] * (self.radii[outside] / self.radii[inside]).powf(way)
        };
        let below = (0..peak).rev().find(|&i| self.signal[i] < level);
        let above = (peak + 1..self.signal.len()).find(|&i| self.signal[i] < level);
        Some([
            below.map_or(self.radii[0], |i| crossing(i + 1, i)),
            self.radii[peak],
            above.map_or(self.radii[self.radii.len() - 1], |i| crossing(i - 1, i)),
        ])
    }
}

/// Detects the blobs of a block, and measures the response at each scale. The blobs are sorted by
/// decreasing response. Of two blobs whose distance is less than the larger of their radii, only
/// the stronger one is kept.
///
/// * `voxels`: C order, of `shape`; `spacing` in micrometres along z, y, x
///
/// The radii of the scales range from about 1.4 voxels to about a fifth of the block's shortest
/// side, where sides shorter than [`MIN_LIMITING_SIDE`] voxels count only if no side is longer.
pub(super) fn blobs(voxels: &[f32], shape: [usize; 3], spacing: [f64; 3]) -> (Vec<Blob>, Spectrum) {
    let edge = Grid::new(shape, spacing, [0.0; 3]).mean_spacing();
    let longest = shape.iter().max().copied().unwrap_or(0);
    let shortest = (0..3)
        .filter(|&a| shape[a] >= MIN_LIMITING_SIDE.min(longest))
        .map(|a| shape[a] as f64 * spacing[a])
        .fold(f64::INFINITY, f64::min);
    // in three dimensions, the response of a solid ball of radius r is greatest at a sigma of
    // r / sqrt(3)
    let scales: Vec<f64> = std::iter::successors(Some(0.7 * edge), |s| Some(s * RATIO))
        .take_while(|s| s * 3f64.sqrt() <= shortest / 5.0 * RATIO)
        .collect();
    let (mut found, mut spectrum) = (Vec::new(), Spectrum::default());
    let mut smooth = voxels.to_vec();
    let mut before = 0.0;
    let mut layers: Vec<Vec<f32>> = Vec::new();
    for (k, &scale) in scales.iter().enumerate() {
        let step = (scale * scale - before * before).sqrt();
        before = scale;
        let kernels = spacing.map(|voxel| Kernel::discrete((step / voxel).powi(2)));
        let (next, _) = filter::smooth(&smooth, shape, &kernels, [1; 3]);
        if k > 0 {
            let layer: Vec<f32> =
                smooth.iter().zip(&next).map(|(fine, coarse)| fine - coarse).collect();
            let noise = f64::from(noise(&layer)).powi(2);
            let sum: f64 = layer.iter().map(|v| f64::from(*v).powi(2)).sum();
            spectrum.radii.push(3f64.sqrt() * scales[k - 1] * RATIO.sqrt());
            spectrum.signal.push((sum / layer.len() as f64 - noise).max(0.0));
            spectrum.noise.push(noise);
            layers.push(layer);
        }
        smooth = next;
        if let [fine, here, coarse] = layers.as_slice() {
            // the middle layer is the difference of scales k - 2 and k - 1
            let radius = spectrum.radii[k - 2];
            maxima(here, [fine, coarse], shape, |at, response| {
                found.push(Blob { at, radius, response });
            });
            layers.remove(0);
        }
    }
    (prune(found, spacing), spectrum)
}

/// Calls `found` for each voxel of `here` that exceeds its 80 neighbours in space and scale, and
/// [`MIN_RESPONSE_TO_NOISE`] times the noise. Along an axis of fewer than five voxels, neighbours
/// are not compared.
fn maxima(
    here: &[f32],
    neighbours: [&Vec<f32>; 2],
    shape: [usize; 3],
    mut found: impl FnMut([usize; 3], f32),
) {
    let threshold = MIN_RESPONSE_TO_NOISE * noise(here);
    let [nz, ny, nx] = shape;
    let inner = |n: usize| if n < 5 { 0..n } else { 1..n - 1 };
    let offsets: Vec<isize> = (0..27)
        .map(|i: isize| [i / 9 - 1, i / 3 % 3 - 1, i % 3 - 1])
        .filter(|step| (0..3).all(|a| shape[a] >= 5 || step[a] == 0))
        .map(|[z, y, x]| (z * ny as isize + y) * nx as isize + x)
        .collect();
    for z in inner(nz) {
        for y in inner(ny) {
            for x in inner(nx) {
                let i = (z * ny + y) * nx + x;
                let v = here[i];
                let tops = |layer: &[f32], own: bool| {
                    let other = |o: isize| layer[i.wrapping_add_signed(o)];
                    offsets.iter().all(|&o| (own && o == 0) || v > other(o))
                };
                if v > threshold
                    && tops(here, true)
                    && tops(neighbours[0], false)
                    && tops(neighbours[1], false)
                {
                    found([z, y, x], v);
                }
            }
        }
    }
}

/// The standard deviation of the noise, from the median of the absolute values (Donoho 1994).
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
    // a few thousand suffice to estimate sizes, and pruning takes quadratic time
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Solid balls of one radius over faint deterministic noise.
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
            let (found, spectrum) = blobs(&balls(shape, spacing, 5.0, &centres), shape, spacing);
            let [low, peak, high] = spectrum.range(0.85).unwrap();
            assert!(low < 4.5 && (4.2..6.0).contains(&peak) && high > 5.5, "{spectrum:?}");
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
    fn blobs_of_a_plane_and_of_a_thin_stack_are_found() {
        let centres = [[0.0, 14.0, 12.0], [0.0, 40.0, 44.0], [0.0, 12.0, 46.0], [0.0, 46.0, 14.0]];
        for (shape, spacing) in [([1, 64, 64], [30.0, 1.0, 1.0]), ([3, 64, 64], [1.0; 3])] {
            let (found, spectrum) = blobs(&balls(shape, spacing, 6.0, &centres), shape, spacing);
            let [_, peak, _] = spectrum.range(0.85).unwrap();
            assert!((4.5..9.0).contains(&peak), "{spectrum:?}");
            let near =
                |blob: &Blob, c: &[f64; 3]| (1..3).all(|a| (blob.at[a] as f64 - c[a]).abs() <= 2.0);
            assert!(centres.iter().all(|c| found.iter().any(|b| near(b, c))), "{found:?}");
        }
    }

    #[test]
    fn noise_alone_has_hardly_a_blob_and_a_constant_none() {
        let (found, spectrum) = blobs(&balls([32; 3], [1.0; 3], 0.0, &[]), [32; 3], [1.0; 3]);
        assert!(found.len() <= 2 && spectrum.range(0.85).is_none(), "{found:?} {spectrum:?}");
        let (found, spectrum) = blobs(&vec![7.0; 32 * 32 * 32], [32; 3], [1.0; 3]);
        assert_eq!((found.len(), spectrum.range(0.85)), (0, None));
    }
}
