//! A volume resampled to a coarser spacing.
//!
//! Two volumes whose voxel sizes differ are compared at the coarser size along each axis. A voxel
//! of the coarser grid is the mean of the finer voxels around it, weighted by a triangle as wide as
//! two coarse voxels (linear interpolation, widened to avoid aliasing).

use crate::geom::{Box3, Grid, Point};
use crate::volume::{Error, Volume, Voxel};

/// A volume, on its own grid or on a coarser one.
#[derive(Clone, Copy, Debug)]
pub struct Regridded<'a> {
    volume: &'a Volume,
    grid: Grid,
}

impl<'a> Regridded<'a> {
    /// Resamples to `spacing` (micrometres), or keeps the volume's own grid if `spacing` is `None`.
    /// The outer faces of the volume stay where they are, except for a remainder of less than one
    /// voxel.
    pub fn new(volume: &'a Volume, spacing: Option<Point>) -> Self {
        let own = volume.grid();
        let grid = spacing.map_or(own, |spacing| coarser(&own, spacing));
        Self { volume, grid }
    }

    /// The grid of the voxels that are returned.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The underlying volume.
    pub fn volume(&self) -> &'a Volume {
        self.volume
    }

    /// Whether the voxels are read as stored, without resampling.
    pub fn is_stored(&self) -> bool {
        self.grid == self.volume.grid()
    }

    /// Shape of the volume's chunks in voxels of the grid, rounded up to at least 1 along each
    /// axis.
    pub fn chunk(&self) -> [usize; 3] {
        let (chunk, own) = (self.volume.chunk(), self.volume.grid());
        std::array::from_fn(|a| {
            let voxels = chunk[a] as f64 * own.spacing[a] / self.grid.spacing[a];
            if own.spacing[a] == self.grid.spacing[a] { chunk[a] } else { voxels.ceil() as usize }
        })
    }

    /// Approximate number of stored voxels that are read for a box of `shape` voxels of the grid;
    /// the margin that the weighted means need is not counted.
    pub fn stored_voxels(&self, shape: [usize; 3]) -> usize {
        let own = self.volume.grid();
        let along = |a: usize| (shape[a] as f64 * self.grid.spacing[a] / own.spacing[a]).ceil();
        if self.is_stored() {
            shape.iter().product()
        } else {
            (0..3).map(along).product::<f64>() as usize
        }
    }

    /// Reads a box, C order `(z, y, x)`; voxels outside the grid are 0.
    ///
    /// # Errors
    /// As for [`Volume::read`].
    pub fn read<T: Voxel>(&self, part: &Box3) -> Result<Vec<T>, Error> {
        let mut out = vec![T::default(); part.len()];
        self.read_into(part, &mut out)?;
        Ok(out)
    }

    /// Like [`Regridded::read`], into a slice of as many voxels.
    ///
    /// # Errors
    /// As for [`Volume::read`].
    pub fn read_into<T: Voxel>(&self, part: &Box3, out: &mut [T]) -> Result<(), Error> {
        if self.is_stored() {
            return self.volume.read_into(part, out);
        }
        let inside = part.intersect(&self.grid.bounds());
        if inside.is_empty() {
            out.fill(T::default());
            return Ok(());
        }
        let own = self.volume.grid();
        let taps: [Taps; 3] =
            std::array::from_fn(|a| Taps::new([&own, &self.grid], a, inside.min[a]..inside.max[a]));
        let source = Box3::new(
            taps.each_ref().map(|taps| taps.first),
            taps.each_ref().map(|taps| taps.first + taps.len as i64),
        );
        let voxels = self.volume.read::<f32>(&source)?;
        let values = average(voxels, source.shape(), &taps);
        copy(&values, &inside, part, out);
        Ok(())
    }
}

/// The grid with `spacing` that covers a volume on the grid `own`.
fn coarser(own: &Grid, spacing: Point) -> Grid {
    let mut grid = *own;
    for a in 0..3 {
        if own.shape[a] > 1 && spacing[a] != own.spacing[a] {
            let length = own.shape[a] as f64 * own.spacing[a];
            grid.shape[a] = ((length / spacing[a] + 1e-6) as usize).max(1);
            grid.spacing[a] = spacing[a];
            grid.origin[a] = own.origin[a] + 0.5 * (spacing[a] - own.spacing[a]);
        }
    }
    grid
}

/// The source voxels of each voxel along one axis, and their weights.
struct Taps {
    /// The index of the first source voxel that is read, and the number of source voxels.
    first: i64,
    len: usize,
    /// For each voxel, the index of its first source voxel, relative to `first`, and the weights.
    voxels: Vec<(usize, Vec<f32>)>,
}

impl Taps {
    fn new([own, grid]: [&Grid; 2], a: usize, range: std::ops::Range<i64>) -> Self {
        let last = own.shape[a] as i64 - 1;
        let half = (grid.spacing[a] / own.spacing[a]).max(1.0);
        let centre =
            |i: i64| (grid.origin[a] + i as f64 * grid.spacing[a] - own.origin[a]) / own.spacing[a];
        let weights = |i: i64| -> (i64, Vec<f32>) {
            if own.spacing[a] == grid.spacing[a] {
                return (i, vec![1.0]);
            }
            let at = centre(i);
            let (low, high) = ((at - half).ceil() as i64, (at + half).floor() as i64);
            let first = low.clamp(0, last);
            let triangle = |j: i64| 1.0 - (j as f64 - at).abs() / half;
            // if the ratio of the spacings is not an integer, the centroid of the triangle's
            // weights is not at `at`: a linear factor moves it there
            let moment = |n: i32, about: f64| -> f64 {
                (low..=high).map(|j| triangle(j) * (j as f64 - about).powi(n)).sum()
            };
            let centre = at + moment(1, at) / moment(0, at);
            let slope = (centre - at) * moment(0, at) / moment(2, centre).max(f64::MIN_POSITIVE);
            let mut sums = vec![0.0; (high.clamp(0, last) - first + 1) as usize];
            for j in low..=high {
                let weight = triangle(j) * (1.0 - slope * (j as f64 - centre));
                // the outermost voxel is repeated beyond the faces
                sums[(j.clamp(0, last) - first) as usize] += weight;
            }
            let total: f64 = sums.iter().sum();
            (first, sums.iter().map(|w| (w / total.max(f64::MIN_POSITIVE)) as f32).collect())
        };
        let all: Vec<(i64, Vec<f32>)> = range.map(weights).collect();
        let first = all.iter().map(|(first, _)| *first).min().unwrap_or(0);
        let end = all.iter().map(|(first, w)| first + w.len() as i64).max().unwrap_or(0);
        let voxels = all.into_iter().map(|(at, w)| ((at - first) as usize, w)).collect();
        Self { first, len: (end - first) as usize, voxels }
    }
}

/// The weighted means along x, then y, then z.
fn average(voxels: Vec<f32>, mut shape: [usize; 3], taps: &[Taps; 3]) -> Vec<f32> {
    let mut voxels = voxels;
    for a in [2, 1, 0] {
        let inner: usize = shape[a + 1..].iter().product();
        let mut to = shape;
        to[a] = taps[a].voxels.len();
        let mut out = vec![0.0; to.iter().product()];
        let slabs = out.chunks_exact_mut((to[a] * inner).max(1));
        for (slab, from) in slabs.zip(voxels.chunks_exact((shape[a] * inner).max(1))) {
            for (row, (first, weights)) in slab.chunks_exact_mut(inner).zip(&taps[a].voxels) {
                for (k, weight) in weights.iter().enumerate() {
                    let source = &from[(first + k) * inner..][..inner];
                    for (sum, v) in row.iter_mut().zip(source) {
                        *sum += weight * v;
                    }
                }
            }
        }
        (voxels, shape) = (out, to);
    }
    voxels
}

/// Copies the box `inside` into the box `part`, which contains it; the rest is 0.
fn copy<T: Voxel>(values: &[f32], inside: &Box3, part: &Box3, out: &mut [T]) {
    out.fill(T::default());
    let [_, height, width] = part.shape();
    let [_, rows, columns] = inside.shape();
    for (i, row) in values.chunks_exact(columns).enumerate() {
        let z = (inside.min[0] - part.min[0]) as usize + i / rows;
        let y = (inside.min[1] - part.min[1]) as usize + i % rows;
        let at = (z * height + y) * width + (inside.min[2] - part.min[2]) as usize;
        for (out, v) in out[at..at + columns].iter_mut().zip(row) {
            *out = T::from_f32(*v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::volume::{Codec, Dtype, Existing, Format, Output, Select, Spec};

    fn stored(folder: &std::path::Path, grid: Grid, value: impl Fn(Point) -> f32) -> Volume {
        let location = folder.join("v.zarr").to_string_lossy().into_owned();
        let spec = Spec {
            grid,
            dtype: Dtype::F32,
            chunk: [8, 9, 10],
            shard: None,
            codec: Codec::Raw,
            format: Format::Zarr3,
        };
        let out = Output::create(&location, &spec, Existing::Refuse).unwrap();
        let whole = grid.bounds();
        let voxels: Vec<f32> = whole
            .tiles([1; 3])
            .map(|voxel| value(grid.position(voxel.min.map(|v| v as f64))))
            .collect();
        for part in whole.tiles(out.unit()) {
            let values: Vec<f32> = part
                .tiles([1; 3])
                .map(|voxel| {
                    let [z, y, x] = voxel.min.map(|v| v as usize);
                    voxels[(z * grid.shape[1] + y) * grid.shape[2] + x]
                })
                .collect();
            out.write(&part, &values).unwrap();
        }
        Volume::open(&location, &Select::default()).unwrap()
    }

    #[test]
    fn a_linear_image_is_the_same_on_a_coarser_grid_and_reads_alike_in_any_box() {
        let folder = tempfile::tempdir().unwrap();
        let grid = Grid::new([20, 33, 41], [1.0, 0.5, 0.5], [3.0, -1.0, 0.0]);
        let ramp = |p: Point| (10.0 + p[0] - 2.0 * p[1] + 0.5 * p[2]) as f32;
        let volume = stored(folder.path(), grid, ramp);
        let seen = Regridded::new(&volume, Some([2.0, 0.5, 1.3]));
        let coarse = seen.grid();
        assert_eq!((coarse.shape, coarse.spacing), ([10, 33, 15], [2.0, 0.5, 1.3]));
        let whole: Vec<f32> = seen.read(&coarse.bounds()).unwrap();
        for (i, value) in whole.iter().enumerate() {
            let at = [i / (33 * 15), i / 15 % 33, i % 15];
            let rim = (0..3).any(|a| at[a] < 1 || at[a] + 2 > coarse.shape[a]);
            let wanted = ramp(coarse.position(at.map(|v| v as f64)));
            assert!(rim || (value - wanted).abs() < 1e-4, "{value} {wanted} at {at:?}");
        }
        let part = Box3::new([2, -1, 3], [5, 30, 17]);
        let some: Vec<f32> = seen.read(&part).unwrap();
        for (i, value) in some.iter().enumerate() {
            let at = [2 + i / (31 * 14), i / 14 % 31, 3 + i % 14];
            let [z, y, x] = at;
            let inside = y > 0 && x < 15;
            let wanted = if inside { whole[(z * 33 + y - 1) * 15 + x] } else { 0.0 };
            assert_eq!(*value, wanted, "at {at:?}");
        }
    }

    #[test]
    fn without_a_spacing_voxels_are_those_that_are_stored() {
        let folder = tempfile::tempdir().unwrap();
        let grid = Grid::new([4, 5, 6], [1.0; 3], [0.0; 3]);
        let volume = stored(folder.path(), grid, |p| (p[0] * 30.0 + p[1] * 6.0 + p[2]) as f32);
        let seen = Regridded::new(&volume, None);
        assert!(seen.is_stored());
        let voxels: Vec<u16> = seen.read(&grid.bounds()).unwrap();
        assert_eq!(voxels, (0..120).collect::<Vec<u16>>());
    }
}
