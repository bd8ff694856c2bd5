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
        let own = self.volume.grid();
        // the drawn pixels in the pixels from `first` to `last`, and no fewer than the nearest
        let range = |a: usize, first: usize, last: usize| -> [i64; 2] {
            let at =
                |i: f64| (grid.origin[a] + i * grid.spacing[a] - own.origin[a]) / own.spacing[a];
            if grid.shape[a] == 1 && own.shape[a] == 1 {
                return [0, 1];
            }
            let (low, high) = (at(first as f64 - 0.5), at(last as f64 + 0.5));
            let (low, high) = (low.ceil() as i64, (high - 1e-6).floor() as i64 + 1);
            if low < high {
                [low, high]
            } else {
                let nearest = at(f64::midpoint(first as f64, last as f64)).round() as i64;
                [nearest, nearest + 1]
            }
        };
        let [_, height, width] = grid.shape;
        let of_section = range(0, section, section);
        for first in (0..height).step_by(ROWS) {
            let last = (first + ROWS).min(height) - 1;
            let [rows, columns] = [range(1, first, last), range(2, 0, width - 1)];
            let part = Box3::new(
                [of_section[0], rows[0], columns[0]],
                [of_section[1], rows[1], columns[1]],
            );
            let inside = part.intersect(&own.bounds());
            if inside.is_empty() {
                continue;
            }
            let values = self.volume.read::<f32>(&inside)?;
            let [_, ny, nx] = inside.shape();
            for y in first..=last {
                for x in 0..width {
                    let (of_y, of_x) = (range(1, y, y), range(2, x, x));
                    let mut drawn = 0;
                    let voxels = Box3::new(
                        [inside.min[0], of_y[0], of_x[0]],
                        [inside.max[0], of_y[1], of_x[1]],
                    );
                    for voxel in voxels.intersect(&inside).tiles([1; 3]) {
                        let [z, y, x] =
                            std::array::from_fn(|a| (voxel.min[a] - inside.min[a]) as usize);
                        let value = values[(z * ny + y) * nx + x];
                        drawn = drawn.max(self.meaning(value, section)?);
                    }
                    if let Some(label) = drawn.checked_sub(1).and_then(|i| MEANINGS.get(i)) {
                        labels[y * width + x] = *label;
                    }
                }
            }
        }
        Ok(())
    }

    /// The value of a drawn pixel, if it has a meaning.
    fn meaning(&self, value: f32, section: usize) -> Result<usize, Error> {
        let whole = value as usize;
        if whole as f32 == value && whole <= MEANINGS.len() {
            return Ok(whole);
        }
        Err(Error::Drawn { location: self.volume.location().to_owned(), value, section })
    }
}
