//! The blending of tiles: weights by the distance to the border of a tile, and weighted means.
//!
//! Numbers: `f32`; the result of a pixel depends on the tiles that show it, in their order, and on
//! nothing else. Border: the border of a tile is half a pixel beyond the centres of its outermost
//! pixels. Checked by: `oracle.rs`.

use super::Blend;

/// The least weight of a pixel that a tile shows.
pub(super) const LEAST_WEIGHT: f32 = 1e-6;

/// What the tiles of a block have given so far.
pub(super) struct Sums {
    blend: Blend,
    values: Vec<f32>,
    /// The sums of weights; for [`Blend::Closest`] the greatest weight. 0 where no tile shows anything.
    weights: Vec<f32>,
}

/// A row of pixels of a tile.
pub(super) struct TileRow<'a> {
    /// The index of the first pixel in the block.
    pub(super) first: usize,
    /// The values; NaN where the tile shows nothing.
    pub(super) values: &'a [f32],
    /// The places of the pixels in the tile along y and x, pixels.
    pub(super) places: [&'a [f64]; 2],
    /// The numbers of rows and columns of the tile.
    pub(super) shape: [usize; 2],
    /// The width of the ramps at the border of the tile, pixels.
    pub(super) width: f64,
}

impl TileRow<'_> {
    /// The distance of a pixel from the nearest border of the tile along each axis, pixels.
    fn distances(&self, i: usize) -> [f32; 2] {
        std::array::from_fn(|a| {
            let at = self.places[a][i];
            (at + 0.5).min(self.shape[a] as f64 - 0.5 - at) as f32
        })
    }

    /// The weight of a pixel for [`Blend::Linear`]: ramps from the borders, which begin and end
    /// smoothly.
    fn ramp(&self, i: usize) -> f32 {
        let of = |distance: f32| {
            let t = (distance / self.width as f32).clamp(0.0, 1.0);
            t * t * (3.0 - 2.0 * t)
        };
        let [y, x] = self.distances(i);
        (of(y) * of(x)).max(LEAST_WEIGHT)
    }
}

impl Sums {
    pub(super) fn new(blend: Blend, pixels: usize) -> Self {
        Self { blend, values: vec![0.0; pixels], weights: vec![0.0; pixels] }
    }

    /// Adds a row of a tile.
    pub(super) fn add(&mut self, row: &TileRow<'_>) {
        let range = row.first..row.first + row.values.len();
        let (sums, weights) = (&mut self.values[range.clone()], &mut self.weights[range]);
        for (i, value) in row.values.iter().copied().enumerate() {
            if value.is_nan() {
                continue;
            }
            let (sum, weight) = (&mut sums[i], &mut weights[i]);
            match self.blend {
                Blend::Linear => {
                    let by = row.ramp(i);
                    *sum += by * value;
                    *weight += by;
                }
                Blend::Mean => {
                    *sum += value;
                    *weight += 1.0;
                }
                Blend::Max if *weight == 0.0 || value > *sum => (*sum, *weight) = (value, 1.0),
                Blend::First if *weight == 0.0 => (*sum, *weight) = (value, 1.0),
                Blend::Last => (*sum, *weight) = (value, 1.0),
                Blend::Closest => {
                    let [y, x] = row.distances(i);
                    let by = y.min(x).max(LEAST_WEIGHT);
                    if by > *weight {
                        (*sum, *weight) = (value, by);
                    }
                }
                Blend::Max | Blend::First => {}
            }
        }
    }

    /// The blended values, NaN where no tile shows anything, and the number of pixels that are shown.
    pub(super) fn finish(mut self) -> (Vec<f32>, u64) {
        let is_sum = matches!(self.blend, Blend::Linear | Blend::Mean);
        let mut shown = 0;
        for (value, weight) in self.values.iter_mut().zip(self.weights) {
            if weight == 0.0 {
                *value = f32::NAN;
            } else {
                shown += 1;
                *value = if is_sum { *value / weight } else { *value };
            }
        }
        (self.values, shown)
    }
}
