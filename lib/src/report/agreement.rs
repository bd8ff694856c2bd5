//! Measures how well volumes agree: global correlations and correlations in small windows, in one
//! pass.

use rayon::prelude::*;
use serde::Serialize;

use super::source::ReportVolume;
use super::windows::{Windows, spread, windows_in};
use crate::device::Cost;
use crate::geom::{Box3, Grid};
use crate::metric::PairSums;
use crate::volume;

/// The agreement of one stage with the fixed volume.
///
/// The overlap is the set of voxels where the stage is not 0 and both volumes are finite. The
/// foreground is the part of the overlap where the fixed volume exceeds its median over the overlap
/// (BigStream specification, 9.4).
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Agreement {
    /// Normalised cross-correlation in the overlap.
    pub ncc_overlap: Option<f64>,
    /// Normalised cross-correlation in the foreground.
    pub ncc_foreground: Option<f64>,
    /// The fraction of the fixed grid's voxels that is in the overlap.
    pub overlap: f64,
    /// The threshold that fixed values in the foreground exceed.
    pub foreground_above: Option<f64>,
    /// Median correlation of the small windows in the foreground.
    pub local_median: Option<f64>,
    /// 10th percentile of the correlation of the small windows in the foreground.
    pub local_p10: Option<f64>,
}

/// The results of one pass over all volumes.
pub(super) struct Survey {
    pub(super) windows: Windows,
    /// Correlation of each window, per stage; NaN if it is undefined or if less than half of the
    /// window is in the overlap.
    pub(super) local: Vec<Vec<f32>>,
    pub(super) agreements: Vec<Agreement>,
    /// Sorted samples of the fixed volume and of each stage, without zeros of the stages.
    pub(super) samples: Vec<Vec<f32>>,
    /// Maximum projection of the fixed volume along z, with reduced resolution.
    pub(super) projection: Projection,
    /// The fixed voxel at the centre of the last stage's overlap.
    pub(super) centre: [usize; 3],
}

/// A maximum projection along z.
pub(super) struct Projection {
    /// Number of voxels along y, and along x, that share a pixel.
    pub(super) factor: usize,
    pub(super) shape: [usize; 2],
    pub(super) values: Vec<f32>,
}

const BINS: usize = 65_536;
/// Intended number of samples per volume for percentiles.
const SAMPLES: usize = 400_000;
/// Maximum number of pixels of a projection along each side.
const PIXELS: usize = 640;

/// Sums over pairs of a fixed and a stage value, in bins of the fixed value. One pass then suffices
/// for the overlap and for the foreground, although the median is known only after the pass. The
/// median and the foreground are exact if the fixed values are integers of at most 16 bits.
struct SumHistogram {
    low: f32,
    scale: f32,
    bins: Vec<PairSums>,
}

impl SumHistogram {
    fn new([low, high]: [f32; 2]) -> Self {
        let scale = if high > low { (BINS - 1) as f32 / (high - low) } else { 0.0 };
        Self { low, scale, bins: vec![PairSums::default(); BINS] }
    }

    #[inline]
    fn add(&mut self, f: f32, m: f32) {
        let bin = ((f - self.low) * self.scale + 0.5) as usize;
        self.bins[bin.min(BINS - 1)].add(f64::from(f), f64::from(m));
    }

    fn merge(&mut self, other: &Self) {
        for (own, bin) in self.bins.iter_mut().zip(&other.bins) {
            if bin.n > 0.0 {
                own.merge(bin);
            }
        }
    }

    fn sum_from(&self, first: usize) -> PairSums {
        self.bins[first..].iter().fold(PairSums::default(), |mut sum, bin| {
            sum.merge(bin);
            sum
        })
    }

    /// The bin of the median fixed value.
    fn median(&self) -> Option<usize> {
        let total: f64 = self.bins.iter().map(|b| b.n).sum();
        let mut seen = 0.0;
        (total > 0.0).then_some(())?;
        self.bins.iter().position(|bin| {
            seen += bin.n;
            seen >= total / 2.0
        })
    }

    fn value(&self, bin: usize) -> f64 {
        // the mean of the bin's voxels, which is exact if the bin holds a single value
        let sums = self.bins[bin];
        if sums.n > 0.0 { sums.f / sums.n } else { f64::from(self.low) }
    }
}

/// The contribution of one tile to a [`Survey`].
struct TileResult {
    joints: Vec<SumHistogram>,
    local: Vec<Vec<f32>>,
    covered: Vec<f64>,
    samples: Vec<Vec<f32>>,
}

/// The memory of [`survey`] for this number of stages.
pub(super) fn memory_needed(grid: &Grid, stages: usize, threads: usize) -> Cost {
    let windows = Windows::of(grid);
    Cost::of::<f32>("tiles", threads * (stages + 2) * windows.tile().iter().product::<usize>())
        + Cost::of::<PairSums>("sums by intensity", (threads + 1) * stages * BINS)
        + Cost::of::<f32>("windows", (stages + 3) * windows.len())
        + Cost::of::<[f32; 2]>("samples", (stages + 1) * SAMPLES)
}

/// Reads all volumes once and measures how they agree. `stages` must have the grid of `fixed`.
pub(super) fn survey(
    fixed: &dyn ReportVolume,
    stages: &[&dyn ReportVolume],
    threads: usize,
) -> Result<Survey, volume::Error> {
    let grid = fixed.grid();
    let windows = Windows::of(&grid);
    let tiles: Vec<Box3> = grid.bounds().tiles(windows.tile()).collect();
    let range = match fixed.range() {
        Some(range) => range,
        None => extremes(fixed, &tiles)?,
    };
    let stride = (grid.bounds().len() / SAMPLES).max(1);
    let mut survey = Survey::empty(&grid, windows, stages.len());
    let mut joints: Vec<SumHistogram> = stages.iter().map(|_| SumHistogram::new(range)).collect();
    let mut covered = vec![0.0; windows.len()];
    let mut bright = vec![0f32; windows.len()];
    // tiles run in parallel but are merged in order, so that the sums are the same for any thread
    // count
    for batch in tiles.chunks(threads.max(1)) {
        let shares: Vec<_> = batch
            .par_iter()
            .map(|tile| {
                let values = fixed.read(tile)?;
                let pulled = stages.iter().map(|s| s.read(tile)).collect::<Result<Vec<_>, _>>()?;
                Ok((share(tile, &values, &pulled, &windows, range, stride), values))
            })
            .collect::<Result<_, volume::Error>>()?;
        for (tile, (share, values)) in batch.iter().zip(shares) {
            for (joint, own) in joints.iter_mut().zip(&share.joints) {
                joint.merge(own);
            }
            survey.place(tile, &share);
            spread(&mut covered, &share.covered, tile, &windows);
            spread(&mut bright, &window_means(tile, &values, &windows), tile, &windows);
            survey.projection.add(tile, &values);
        }
    }
    for samples in &mut survey.samples {
        samples.sort_by(f32::total_cmp);
    }
    survey.centre = middle(&covered, &windows, grid.shape);
    let voxels = grid.bounds().len() as f64;
    survey.agreements = joints
        .iter()
        .zip(&survey.local)
        .map(|(joint, local)| agreement(joint, local, &bright, voxels))
        .collect();
    Ok(survey)
}

impl Survey {
    fn empty(grid: &Grid, windows: Windows, stages: usize) -> Self {
        let [_, ny, nx] = grid.shape;
        let factor = ny.max(nx).div_ceil(PIXELS);
        let shape = [ny.div_ceil(factor), nx.div_ceil(factor)];
        Self {
            windows,
            local: vec![vec![f32::NAN; windows.len()]; stages],
            agreements: Vec::new(),
            samples: vec![Vec::new(); stages + 1],
            projection: Projection { factor, shape, values: vec![0.0; shape[0] * shape[1]] },
            centre: [0; 3],
        }
    }

    fn place(&mut self, tile: &Box3, share: &TileResult) {
        for (all, own) in self.local.iter_mut().zip(&share.local) {
            spread(all, own, tile, &self.windows);
        }
        for (all, own) in self.samples.iter_mut().zip(&share.samples) {
            all.extend_from_slice(own);
        }
    }
}

impl Projection {
    fn add(&mut self, tile: &Box3, values: &[f32]) {
        let [nz, ny, nx] = tile.shape();
        for y in 0..ny {
            let row = (tile.min[1] as usize + y) / self.factor * self.shape[1];
            for x in 0..nx {
                let pixel = &mut self.values[row + (tile.min[2] as usize + x) / self.factor];
                for z in 0..nz {
                    *pixel = pixel.max(values[(z * ny + y) * nx + x]);
                }
            }
        }
    }
}

/// Calls `visit` with the linear index of each voxel of `part`, a box within an array of `shape`.
fn each(part: &Box3, shape: [usize; 3], mut visit: impl FnMut(usize)) {
    for z in part.min[0] as usize..part.max[0] as usize {
        for y in part.min[1] as usize..part.max[1] as usize {
            let row = (z * shape[1] + y) * shape[2];
            (row + part.min[2] as usize..row + part.max[2] as usize).for_each(&mut visit);
        }
    }
}

fn share(
    tile: &Box3,
    fixed: &[f32],
    stages: &[Vec<f32>],
    windows: &Windows,
    range: [f32; 2],
    stride: usize,
) -> TileResult {
    let shape = tile.shape();
    let parts = windows_in(tile, windows);
    let mut out = TileResult {
        joints: stages.iter().map(|_| SumHistogram::new(range)).collect(),
        local: vec![Vec::with_capacity(parts.len()); stages.len()],
        covered: vec![0.0; parts.iter().filter(|part| windows.keeps(tile, part)).count()],
        samples: vec![fixed.iter().step_by(stride).copied().filter(|v| v.is_finite()).collect()],
    };
    for (s, stage) in stages.iter().enumerate() {
        let seen = |v: &f32| v.is_finite() && *v != 0.0;
        out.samples.push(stage.iter().step_by(stride).copied().filter(seen).collect());
        let mut kept = 0;
        for part in &parts {
            let mut sums = PairSums::default();
            each(part, shape, |i| {
                let (f, m) = (fixed[i], stage[i]);
                if m != 0.0 && m.is_finite() && f.is_finite() {
                    out.joints[s].add(f, m);
                    sums.add(f64::from(f), f64::from(m));
                }
            });
            if !windows.keeps(tile, part) {
                continue;
            }
            // ignore windows of which less than half is in the overlap
            let enough = sums.n * 2.0 >= part.len() as f64;
            let local = sums.correlation().filter(|_| enough);
            out.local[s].push(local.map_or(f32::NAN, |v| v as f32));
            out.covered[kept] = sums.n;
            kept += 1;
        }
    }
    out
}

fn window_means(tile: &Box3, values: &[f32], windows: &Windows) -> Vec<f32> {
    windows_in(tile, windows)
        .iter()
        .filter(|part| windows.keeps(tile, part))
        .map(|part| {
            let mut sum = 0.0;
            each(part, tile.shape(), |i| sum += f64::from(values[i]));
            (sum / part.len() as f64) as f32
        })
        .collect()
}

fn extremes(source: &dyn ReportVolume, tiles: &[Box3]) -> Result<[f32; 2], volume::Error> {
    let mut range = [f32::INFINITY, f32::NEG_INFINITY];
    for tile in tiles {
        for v in source.read(tile)?.into_iter().filter(|v| v.is_finite()) {
            range = [range[0].min(v), range[1].max(v)];
        }
    }
    Ok(if range[0] <= range[1] { range } else { [0.0, 1.0] })
}

/// The voxel at the centroid of the overlap, or at the volume's centre if there is no overlap.
fn middle(covered: &[f64], windows: &Windows, shape: [usize; 3]) -> [usize; 3] {
    let total: f64 = covered.iter().sum();
    let counts = windows.counts;
    let mut sum = [0.0; 3];
    for (i, &weight) in covered.iter().enumerate() {
        let at = [i / (counts[1] * counts[2]), i / counts[2] % counts[1], i % counts[2]];
        for a in 0..3 {
            sum[a] += weight * (at[a] as f64 + 0.5) * windows.every[a] as f64;
        }
    }
    std::array::from_fn(|a| {
        let at = if total > 0.0 { sum[a] / total } else { shape[a] as f64 / 2.0 };
        (at as usize).min(shape[a].saturating_sub(1))
    })
}

fn agreement(joint: &SumHistogram, local: &[f32], bright: &[f32], voxels: f64) -> Agreement {
    let all = joint.sum_from(0);
    let median = joint.median();
    let above = median.map(|bin| joint.value(bin));
    let mut inside: Vec<f32> = local
        .iter()
        .zip(bright)
        .filter(|(v, mean)| v.is_finite() && above.is_some_and(|a| f64::from(**mean) > a))
        .map(|(v, _)| *v)
        .collect();
    inside.sort_by(f32::total_cmp);
    let at = |share: f64| quantile(&inside, share).map(f64::from);
    Agreement {
        ncc_overlap: all.correlation(),
        ncc_foreground: median.and_then(|bin| joint.sum_from((bin + 1).min(BINS)).correlation()),
        overlap: all.n / voxels,
        foreground_above: above,
        local_median: at(0.5),
        local_p10: at(0.1),
    }
}

/// The quantile of sorted values at the fraction `share`; `None` if there are no values.
pub(super) fn quantile(sorted: &[f32], share: f64) -> Option<f32> {
    sorted.get((share * sorted.len().saturating_sub(1) as f64).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::super::source::MemoryVolume;
    use super::*;

    fn grid() -> Grid {
        Grid::new([150, 40, 33], [1.0, 1.0, 1.0], [0.0; 3])
    }

    fn texture(p: [f64; 3]) -> f32 {
        (900.0 + 200.0 * ((p[0] * 0.7).sin() + (p[1] * 0.9).cos() + (p[2] * 0.5).sin())) as f32
    }

    #[test]
    fn windows_that_are_spread_agree_with_all_of_them() {
        let (all, some) = (Windows::of(&grid()), Windows::spread([16; 3], grid().shape, 20));
        assert!(some.len() <= 20 && some.len() < all.len());
        let tile = grid().bounds();
        let values = MemoryVolume::new(grid(), texture).voxels;
        let of = |windows: &Windows| window_means(&tile, &values, windows);
        let (every, few) = (of(&all), of(&some));
        assert_eq!(few.len(), some.len());
        for (i, mean) in few.iter().enumerate() {
            let [_, ny, nx] = some.counts;
            let at = [i / (ny * nx), i / nx % ny, i % nx];
            let at: [usize; 3] = std::array::from_fn(|a| at[a] * some.every[a] / some.size[a]);
            let [_, ny, nx] = all.counts;
            assert_eq!(*mean, every[(at[0] * ny + at[1]) * nx + at[2]]);
        }
    }

    /// A slow reference implementation for the voxels where `stage` is not 0. It returns their
    /// correlation, the correlation of the voxels whose value in `fixed` exceeds the median, and
    /// this median.
    fn plain(fixed: &MemoryVolume, stage: &MemoryVolume) -> (f64, f64, f64) {
        let pairs: Vec<(f64, f64)> = fixed
            .voxels
            .iter()
            .zip(&stage.voxels)
            .filter(|(_, m)| **m != 0.0)
            .map(|(&f, &m)| (f64::from(f), f64::from(m)))
            .collect();
        let mut values: Vec<f64> = pairs.iter().map(|p| p.0).collect();
        values.sort_by(f64::total_cmp);
        let median = values[(values.len() - 1) / 2];
        let pearson = |pairs: &[(f64, f64)]| {
            let n = pairs.len() as f64;
            let (f, m) = (
                pairs.iter().map(|p| p.0).sum::<f64>() / n,
                pairs.iter().map(|p| p.1).sum::<f64>() / n,
            );
            let cov: f64 = pairs.iter().map(|p| (p.0 - f) * (p.1 - m)).sum();
            let (ff, mm): (f64, f64) = (
                pairs.iter().map(|p| (p.0 - f).powi(2)).sum(),
                pairs.iter().map(|p| (p.1 - m).powi(2)).sum(),
            );
            cov / (ff * mm).sqrt()
        };
        let above: Vec<_> = pairs.iter().copied().filter(|p| p.0 > median).collect();
        (pearson(&pairs), pearson(&above), median)
    }

    #[test]
    fn correlations_are_those_of_the_definition() {
        let fixed = MemoryVolume::new(grid(), |p| texture(p).round());
        let stage = MemoryVolume::new(grid(), |p| {
            if p[1] < 7.0 { 0.0 } else { (texture([p[0] + 0.6, p[1], p[2] - 0.4]) * 0.5).round() }
        });
        for threads in [1, 3] {
            let survey = survey(&fixed, &[&stage], threads).unwrap();
            let got = survey.agreements[0];
            let (overlap, foreground, median) = plain(&fixed, &stage);
            assert!((got.ncc_overlap.unwrap() - overlap).abs() < 1e-9);
            assert!((got.ncc_foreground.unwrap() - foreground).abs() < 1e-9);
            assert_eq!(got.foreground_above, Some(median));
            assert!((got.overlap - 33.0 / 40.0).abs() < 1e-12);
        }
    }

    #[test]
    fn windows_show_where_a_stage_agrees() {
        let fixed = MemoryVolume::new(grid(), texture);
        let stage =
            MemoryVolume::new(
                grid(),
                |p| if p[0] < 64.0 { texture(p) } else { 2000.0 - texture(p) },
            );
        let survey = survey(&fixed, &[&stage], 2).unwrap();
        let [_, ny, nx] = survey.windows.counts;
        assert_eq!(survey.windows.counts, [10, 3, 3]);
        assert!(survey.local[0][0] > 0.999);
        assert!(survey.local[0][8 * ny * nx] < -0.999);
    }

    #[test]
    fn a_stage_that_shows_nothing_has_no_correlation() {
        let fixed = MemoryVolume { range: None, ..MemoryVolume::new(grid(), texture) };
        let stage = MemoryVolume::new(grid(), |_| 0.0);
        let got = survey(&fixed, &[&stage], 1).unwrap().agreements[0];
        assert_eq!((got.ncc_overlap, got.ncc_foreground, got.overlap), (None, None, 0.0));
        let constant = MemoryVolume::new(grid(), |_| 7.0);
        let got = survey(&fixed, &[&constant], 1).unwrap().agreements[0];
        assert_eq!((got.ncc_overlap, got.overlap), (None, 1.0));
    }
}
