//! Reads planes of volumes and colours them.

use super::agreement::quantile;
use super::picture::Picture;
use super::source::ReportVolume;
use super::windows::Windows;
use crate::geom::Box3;
use crate::volume;

/// Maximum number of pixels of a plane along each side.
const PIXELS: usize = 560;

/// A plane of a volume, downsampled by averaging over integer factors to at most [`PIXELS`] pixels
/// along each side.
#[derive(Clone, Debug)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) values: Vec<f32>,
}

/// The value that is shown as black (`low`) and the value that is shown as white (`high`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Contrast {
    pub(super) low: f32,
    pub(super) high: f32,
}

impl Contrast {
    /// Percentiles of sorted samples: 1 % of the values are black, 0.4 % are white.
    pub(super) fn of(sorted: &[f32]) -> Self {
        let low = quantile(sorted, 0.01).unwrap_or(0.0);
        let high = quantile(sorted, 0.996).unwrap_or(1.0);
        Self { low, high: if high > low { high } else { low + 1.0 } }
    }

    /// The brightness of a value, 0 to 1, with a gamma of 0.75 that lifts dark parts.
    fn shade(self, value: f32) -> f32 {
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        // 64 levels suffice for noisy images and halve the size of the PNG
        (share.powf(0.75) * 63.0).round() / 63.0
    }
}

impl Plane {
    /// Reads the plane of `source` perpendicular to `axis` at voxel `at`.
    ///
    /// Rows and columns are the other two axes in order, except perpendicular to x, where rows are
    /// y and columns are z, so that this panel can stand beside the panel perpendicular to z.
    pub(super) fn read(
        source: &dyn ReportVolume,
        axis: usize,
        at: usize,
    ) -> Result<Self, volume::Error> {
        let shape = source.grid().shape;
        let (row_axis, column_axis) = [(1, 2), (0, 2), (1, 0)][axis];
        let factor = [shape[row_axis], shape[column_axis]].map(|n| n.div_ceil(PIXELS));
        let [height, width] =
            [shape[row_axis].div_ceil(factor[0]), shape[column_axis].div_ceil(factor[1])];
        let mut sums = vec![0f64; height * width];
        let mut counts = vec![0u32; height * width];
        let mut plane = Box3::of_shape(shape);
        plane.min[axis] = at as i64;
        plane.max[axis] = at as i64 + 1;
        // the plane is read in parts, because a plane of a huge volume can exceed the memory
        for part in plane.tiles([512, 512, 512]) {
            let values = source.read(&part)?;
            let [_, ny, nx] = part.shape();
            for (i, &value) in values.iter().enumerate() {
                let local = [i / (ny * nx), i / nx % ny, i % nx];
                let place = |a: usize| part.min[a] as usize + local[a];
                let pixel = place(row_axis) / factor[0] * width + place(column_axis) / factor[1];
                sums[pixel] += f64::from(value);
                counts[pixel] += 1;
            }
        }
        let values =
            sums.iter().zip(&counts).map(|(s, &n)| (s / f64::from(n.max(1))) as f32).collect();
        Ok(Self { height, width, values })
    }

    fn picture(&self, pixel: impl Fn(usize) -> [u8; 4]) -> Picture {
        let pixels = (0..self.values.len()).map(pixel).collect();
        Picture { height: self.height, width: self.width, pixels }
    }

    /// Shows this plane in magenta and `other` in green; where the planes agree, the sum is grey.
    pub(super) fn overlay(&self, ours: Contrast, other: &Self, theirs: Contrast) -> Picture {
        self.picture(|i| {
            let f = byte(ours.shade(self.values[i]));
            let m = byte(stage_shade(theirs, other.values[i]));
            [f, m, f, 255]
        })
    }

    /// Shows squares of `side` pixels, alternately of this plane and of `other`.
    pub(super) fn checkerboard(
        &self,
        ours: Contrast,
        other: &Self,
        theirs: Contrast,
        side: usize,
    ) -> Picture {
        self.picture(|i| {
            let [y, x] = [i / self.width, i % self.width];
            if (y / side + x / side).is_multiple_of(2) {
                let v = byte(ours.shade(self.values[i]));
                [v, v, v, 255]
            } else {
                let v = byte(stage_shade(theirs, other.values[i]));
                [v, v, v, 255]
            }
        })
    }
}

/// The brightness of a value of a stage. The value 0 means "outside the stage" and is black,
/// whatever the contrast.
fn stage_shade(contrast: Contrast, value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { contrast.shade(value) }
}

fn byte(share: f32) -> u8 {
    (share * 255.0).round() as u8
}

/// A plane in grey.
pub(super) fn plain(plane: &Plane, contrast: Contrast) -> Picture {
    plane.picture(|i| {
        let v = byte(stage_shade(contrast, plane.values[i]));
        [v, v, v, 255]
    })
}

/// A projection in grey, dimmed so that spots drawn on top of it stand out.
pub(super) fn grey(shape: [usize; 2], values: &[f32], contrast: Contrast) -> Picture {
    let pixels = values
        .iter()
        .map(|&v| {
            let v = byte(contrast.shade(v) * 0.62);
            [v, v, v, 255]
        })
        .collect();
    Picture { height: shape[0], width: shape[1], pixels }
}

/// Draws the correlations of the layer of windows that is perpendicular to `axis` and contains
/// voxel `at`, one pixel per window. Rows and columns are as in [`Plane::read`].
pub(super) fn local_map(local: &[f32], windows: &Windows, axis: usize, at: usize) -> Picture {
    let (row_axis, column_axis) = [(1, 2), (0, 2), (1, 0)][axis];
    let (height, width) = (windows.counts[row_axis], windows.counts[column_axis]);
    let mut pixels = Vec::with_capacity(height * width);
    for row in 0..height {
        for column in 0..width {
            let mut index = [0; 3];
            index[axis] = (at / windows.every[axis]).min(windows.counts[axis] - 1);
            index[row_axis] = row;
            index[column_axis] = column;
            let place = (index[0] * windows.counts[1] + index[1]) * windows.counts[2] + index[2];
            pixels.push(agreement_colour(local[place]));
        }
    }
    Picture { height, width, pixels }
}

/// The colour of a correlation: darkest at -0.2 and below, brightest at 1, transparent if NaN.
pub(super) fn agreement_colour(correlation: f32) -> [u8; 4] {
    if !correlation.is_finite() {
        return [0; 4];
    }
    let share =
        ((correlation - LOCAL_RANGE[0]) / (LOCAL_RANGE[1] - LOCAL_RANGE[0])).clamp(0.0, 1.0);
    let at = share * (VIRIDIS.len() - 1) as f32;
    let low = (at as usize).min(VIRIDIS.len() - 2);
    let part = at - low as f32;
    let channel = |c: usize| {
        let (a, b) = (f32::from(VIRIDIS[low][c]), f32::from(VIRIDIS[low + 1][c]));
        (a + (b - a) * part).round() as u8
    };
    [channel(0), channel(1), channel(2), 255]
}

/// The correlations at the ends of the colour scale.
pub(super) const LOCAL_RANGE: [f32; 2] = [-0.2, 1.0];

/// Viridis (Smith and van der Walt, 2015; CC0), sampled at nine equidistant points.
const VIRIDIS: [[u8; 3]; 9] = [
    [68, 1, 84],
    [71, 44, 122],
    [59, 81, 139],
    [44, 113, 142],
    [33, 144, 141],
    [39, 173, 129],
    [92, 200, 99],
    [170, 220, 50],
    [253, 231, 37],
];

#[cfg(test)]
mod tests {
    use super::super::source::MemoryVolume;
    use super::*;
    use crate::geom::Grid;

    #[test]
    fn planes_across_each_axis_hold_the_right_voxels() {
        let grid = Grid::new([4, 5, 6], [1.0; 3], [0.0; 3]);
        let volume = MemoryVolume::new(grid, |p| (100.0 * p[0] + 10.0 * p[1] + p[2]) as f32);
        let across = |axis, at| Plane::read(&volume, axis, at).unwrap();
        let z = across(0, 2);
        assert_eq!((z.height, z.width, z.values[6 + 4]), (5, 6, 214.0));
        let y = across(1, 3);
        assert_eq!((y.height, y.width, y.values[6 + 4]), (4, 6, 134.0));
        let x = across(2, 5);
        assert_eq!((x.height, x.width, x.values[4 * 2 + 3]), (5, 4, 325.0));
    }

    #[test]
    fn a_large_plane_is_reduced_by_its_mean() {
        let grid = Grid::new([1, 3, 1200], [1.0; 3], [0.0; 3]);
        let volume = MemoryVolume::new(grid, |p| p[2] as f32);
        let plane = Plane::read(&volume, 0, 0).unwrap();
        assert_eq!((plane.height, plane.width), (3, 400));
        assert_eq!(plane.values[1], 4.0);
    }

    #[test]
    fn what_agrees_is_white_and_what_is_missing_has_no_green() {
        let plane = Plane { height: 1, width: 3, values: vec![100.0, 0.0, 100.0] };
        let other = Plane { height: 1, width: 3, values: vec![50.0, 50.0, 0.0] };
        let (a, b) = (Contrast { low: 0.0, high: 100.0 }, Contrast { low: -50.0, high: 50.0 });
        let picture = plane.overlay(a, &other, b);
        assert_eq!(picture.pixels, [[255; 4], [0, 255, 0, 255], [255, 0, 255, 255]]);
        let squares = plane.checkerboard(a, &other, b, 1);
        assert_eq!(squares.pixels, [[255; 4], [255; 4], [255; 4]]);
    }

    #[test]
    fn colours_run_from_dark_to_bright_and_leave_the_unknown_clear() {
        assert_eq!(agreement_colour(f32::NAN)[3], 0);
        assert_eq!(agreement_colour(-1.0), [68, 1, 84, 255]);
        assert_eq!(agreement_colour(1.0), [253, 231, 37, 255]);
    }
}
