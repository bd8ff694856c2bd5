//! Labels drawn by hand.

use super::Error;
use crate::geom::{Box3, Grid};
use crate::volume::{Label, Volume};

/// What the values of a drawing mean; where it is 0, labels stay as they were found.
const MEANINGS: [Label; 5] =
    [Label::Tissue, Label::Soft, Label::Tear, Label::Wrinkle, Label::Excluded];
/// The number of rows of a mask that are looked up at once.
const ROWS: usize = 64;

/// A volume with labels drawn by hand, on any grid.
pub(super) struct Drawn {
    pub(super) volume: Volume,
}

impl Drawn {
    pub(super) fn open(location: &str, of: &Volume) -> Result<Self, Error> {
        Ok(Self { volume: Volume::open_mask(location, of)? })
    }

    /// Replaces the labels of a section where something is drawn. A pixel of the mask takes the
    /// greatest value that is drawn in it.
    ///
    /// * `grid`: the grid of the mask
    pub(super) fn replace(
        &self,
        labels: &mut [Label],
        grid: &Grid,
        section: usize,
    ) -> anyhow::Result<()> {
        let [_, height, width] = grid.shape;
        let mask = Box3::of_shape([1, height, width]).shift([section as i64, 0, 0]);
        for band in mask.tiles([1, ROWS, width]) {
            let last = band.max.map(|v| v - 1);
            let inside = self.below(grid, band.min).union(&self.below(grid, last));
            let inside = inside.intersect(&self.volume.grid().bounds());
            if inside.is_empty() {
                continue;
            }
            let values = self.volume.read::<f32>(&inside)?;
            let [_, ny, nx] = inside.shape();
            for pixel in band.tiles([1; 3]) {
                let mut drawn = 0;
                for voxel in self.below(grid, pixel.min).intersect(&inside).tiles([1; 3]) {
                    let [z, y, x] =
                        std::array::from_fn(|a| (voxel.min[a] - inside.min[a]) as usize);
                    drawn = drawn.max(self.meaning(values[(z * ny + y) * nx + x], section)?);
                }
                if let Some(label) = drawn.checked_sub(1).and_then(|i| MEANINGS.get(i)) {
                    labels[pixel.min[1] as usize * width + pixel.min[2] as usize] = *label;
                }
            }
        }
        Ok(())
    }

    /// The drawn pixels in a pixel of the mask; at least the nearest one.
    fn below(&self, grid: &Grid, at: [i64; 3]) -> Box3 {
        let own = self.volume.grid();
        let along = |a: usize| -> [i64; 2] {
            if grid.shape[a] == 1 && own.shape[a] == 1 {
                return [0, 1];
            }
            let place = |by: f64| {
                let position = grid.origin[a] + (at[a] as f64 + by) * grid.spacing[a];
                (position - own.origin[a]) / own.spacing[a]
            };
            // rounding errors must not add the neighbours
            let (low, high) = ((place(-0.5) + 1e-6).ceil(), (place(0.5) - 1e-6).floor() + 1.0);
            if low < high {
                [low as i64, high as i64]
            } else {
                let nearest = place(0.0).round() as i64;
                [nearest, nearest + 1]
            }
        };
        let [z, y, x] = [0, 1, 2].map(along);
        Box3::new([z[0], y[0], x[0]], [z[1], y[1], x[1]])
    }

    /// The value of a drawn pixel, if it has a meaning. Tears and wrinkles have their values in masks
    /// too, so that a mask can be edited and given back.
    fn meaning(&self, value: f32, section: usize) -> Result<usize, Error> {
        let of_mask =
            [Label::Tear, Label::Wrinkle].into_iter().find(|l| f32::from(l.value()) == value);
        if let Some(place) = of_mask.and_then(|label| MEANINGS.iter().position(|m| *m == label)) {
            return Ok(place + 1);
        }
        let whole = value as usize;
        if whole as f32 == value && whole <= MEANINGS.len() {
            return Ok(whole);
        }
        Err(Error::Drawn { location: self.volume.location().to_owned(), value, section })
    }
}
