use crate::filter::Regridded;
use crate::geom::{Box3, Grid};
use crate::volume::{self, Dtype, Volume};

/// A volume that the report reads: on disk, resampled, or in memory.
pub(super) trait ReportVolume: Sync {
    fn grid(&self) -> Grid;
    /// The value range of the voxel type, if it is an integer type of at most 16 bits.
    fn range(&self) -> Option<[f32; 2]>;
    /// Reads a box in C order; voxels outside the volume are 0.
    fn read(&self, part: &Box3) -> Result<Vec<f32>, volume::Error>;
}

impl ReportVolume for Volume {
    fn grid(&self) -> Grid {
        Self::grid(self)
    }

    fn range(&self) -> Option<[f32; 2]> {
        match self.dtype() {
            Dtype::U8 => Some([0.0, 255.0]),
            Dtype::I8 => Some([-128.0, 127.0]),
            Dtype::U16 => Some([0.0, 65_535.0]),
            Dtype::I16 => Some([-32_768.0, 32_767.0]),
            _ => None,
        }
    }

    fn read(&self, part: &Box3) -> Result<Vec<f32>, volume::Error> {
        Self::read(self, part)
    }
}

impl ReportVolume for Regridded<'_> {
    fn grid(&self) -> Grid {
        Self::grid(self)
    }

    fn range(&self) -> Option<[f32; 2]> {
        ReportVolume::range(self.volume())
    }

    fn read(&self, part: &Box3) -> Result<Vec<f32>, volume::Error> {
        Self::read(self, part)
    }
}

/// A volume sampled on the fixed grid by physical position, with trilinear interpolation; voxels
/// outside the volume are 0. It is used for the moving volume before alignment and for stages on a
/// grid that is finer than the fixed grid.
pub(super) struct Unaligned<'a> {
    pub(super) moving: &'a dyn ReportVolume,
    pub(super) onto: Grid,
}

impl ReportVolume for Unaligned<'_> {
    fn grid(&self) -> Grid {
        self.onto
    }

    fn range(&self) -> Option<[f32; 2]> {
        self.moving.range()
    }

    fn read(&self, part: &Box3) -> Result<Vec<f32>, volume::Error> {
        let grid = self.moving.grid();
        let input = grid.enclosing(self.onto.extent(part));
        let visible = input.intersect(&grid.bounds());
        let shape = part.shape();
        let mut out = vec![0.0; part.len()];
        if visible.is_empty() {
            return Ok(out);
        }
        let voxels = self.moving.read(&visible)?;
        let taps: [Vec<Option<LinearWeights>>; 3] = std::array::from_fn(|a| {
            (0..shape[a] as i64)
                .map(|i| {
                    let place =
                        self.onto.origin[a] + (part.min[a] + i) as f64 * self.onto.spacing[a];
                    let at = (place - grid.origin[a]) / grid.spacing[a];
                    LinearWeights::new(at, grid.shape[a], visible.min[a])
                })
                .collect()
        });
        let [_, ny, nx] = visible.shape();
        let mut i = 0;
        for z in &taps[0] {
            for y in &taps[1] {
                for x in &taps[2] {
                    if let (Some(z), Some(y), Some(x)) = (z, y, x) {
                        let row = |z: usize, y: usize| {
                            let at = (z * ny + y) * nx;
                            x.blend(voxels[at + x.low], voxels[at + x.high])
                        };
                        let plane = |z: usize| y.blend(row(z, y.low), row(z, y.high));
                        out[i] = z.blend(plane(z.low), plane(z.high));
                    }
                    i += 1;
                }
            }
        }
        Ok(out)
    }
}

/// The indices (in the box that is read) of the two samples that enclose a position along one axis,
/// and the weight of the upper sample.
struct LinearWeights {
    low: usize,
    high: usize,
    share: f32,
}

impl LinearWeights {
    fn new(at: f64, length: usize, first: i64) -> Option<Self> {
        let last = length as f64 - 1.0;
        // the tolerance, in voxels, keeps the outermost voxels of two grids that are equal up to
        // rounding
        if !(at >= -1e-6 && at <= last + 1e-6) {
            return None;
        }
        let at = at.clamp(0.0, last);
        let low = at.floor();
        let high = if at > low { low + 1.0 } else { low };
        Some(Self {
            low: (low as i64 - first) as usize,
            high: (high as i64 - first) as usize,
            share: (at - low) as f32,
        })
    }

    fn blend(&self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.share
    }
}

/// A volume in memory.
#[cfg(test)]
pub(super) struct MemoryVolume {
    pub(super) grid: Grid,
    pub(super) voxels: Vec<f32>,
    pub(super) range: Option<[f32; 2]>,
}

#[cfg(test)]
impl MemoryVolume {
    pub(super) fn new(grid: Grid, value: impl Fn(crate::geom::Point) -> f32) -> Self {
        let [_, ny, nx] = grid.shape;
        let voxels = (0..grid.bounds().len())
            .map(|i| {
                let at = [i / (ny * nx), i / nx % ny, i % nx];
                value(grid.position(at.map(|v| v as f64)))
            })
            .collect();
        Self { grid, voxels, range: Some([0.0, 65_535.0]) }
    }
}

#[cfg(test)]
impl ReportVolume for MemoryVolume {
    fn grid(&self) -> Grid {
        self.grid
    }

    fn range(&self) -> Option<[f32; 2]> {
        self.range
    }

    fn read(&self, part: &Box3) -> Result<Vec<f32>, volume::Error> {
        let shape = self.grid.shape;
        let mut out = Vec::with_capacity(part.len());
        for z in part.min[0]..part.max[0] {
            for y in part.min[1]..part.max[1] {
                for x in part.min[2]..part.max[2] {
                    let inside = self.grid.bounds().contains([z, y, x]);
                    let at = (z * shape[1] as i64 + y) * shape[2] as i64 + x;
                    out.push(if inside { self.voxels[at as usize] } else { 0.0 });
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_voxels_are_those_at_the_same_position_and_0_outside() {
        let moving_grid = Grid::new([10, 12, 14], [2.0, 1.0, 0.5], [1.0, 0.0, -1.0]);
        let value = |p: [f64; 3]| (100.0 + p[0] + 2.0 * p[1] + 3.0 * p[2]) as f32;
        let moving = MemoryVolume::new(moving_grid, value);
        let onto = Grid::new([9, 9, 9], [1.5, 1.5, 1.0], [0.0, 1.0, -0.5]);
        let pulled = Unaligned { moving: &moving, onto };
        let part = Box3::new([0, 2, 1], [9, 9, 8]);
        let got = pulled.read(&part).unwrap();
        let shape = part.shape();
        let [low, high] = moving_grid.extent(&moving_grid.bounds());
        let (mut inside, mut outside) = (0, 0);
        for (i, &v) in got.iter().enumerate() {
            let at = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
            let p = onto.position(std::array::from_fn(|a| part.min[a] as f64 + at[a] as f64));
            if (0..3).all(|a| low[a] <= p[a] && p[a] <= high[a]) {
                assert!((v - value(p)).abs() < 1e-3, "{v} at {p:?}");
                inside += 1;
            } else {
                assert_eq!(v, 0.0);
                outside += 1;
            }
        }
        assert!(inside > 50 && outside > 20);
    }

    #[test]
    fn on_the_same_grid_unaligned_is_the_volume_itself() {
        let grid = Grid::new([5, 6, 7], [0.3, 0.23, 0.23], [0.1, 0.0, 0.7]);
        let moving =
            MemoryVolume::new(grid, |p| (p[0] * 31.0 + p[1] * 17.0 + p[2] * 5.0).sin() as f32);
        let pulled = Unaligned { moving: &moving, onto: grid };
        let got = pulled.read(&grid.bounds()).unwrap();
        assert!(got.iter().zip(&moving.voxels).all(|(a, b)| (a - b).abs() < 1e-4));
    }
}
