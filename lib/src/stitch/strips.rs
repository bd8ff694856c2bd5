//! The parts of tiles that are compared.

use crate::filter::{Kernel, smooth_known};
use crate::geom::Box3;

/// A box of the pixels of a tile, NaN where nothing is known. Coordinates are z, y, x with z = 0.
#[derive(Clone, Debug)]
pub(super) struct Strip {
    /// The pixels; after [`Strip::halved`], those of the reduced tile.
    pub(super) part: Box3,
    pub(super) values: Vec<f32>,
}

impl Strip {
    /// The mean of each square of 2 x 2 pixels, of those that are known.
    pub(super) fn halved(&self) -> Self {
        let [_, height, width] = self.part.shape();
        let shape = [height / 2, width / 2];
        let mut values = Vec::with_capacity(shape[0] * shape[1]);
        for y in 0..shape[0] {
            let rows = [2 * y, 2 * y + 1].map(|y| &self.values[y * width..][..2 * shape[1]]);
            let [(upper, _), (lower, _)] = rows.map(<[f32]>::as_chunks::<2>);
            values.extend(upper.iter().zip(lower).map(|(u, l)| mean([u[0], u[1], l[0], l[1]])));
        }
        let [_, y, x] = self.part.min;
        let part = Box3::new([0, y, x], [1, y + shape[0] as i64, x + shape[1] as i64]);
        Self { part, values }
    }

    /// Subtracts the mean around each pixel, which differs between tiles by shading.
    pub(super) fn without_shading(&mut self, width: f64) {
        let [_, rows, columns] = self.part.shape();
        if rows * columns == 0 {
            return;
        }
        let means = smooth_known(&self.values, [rows, columns], &Kernel::discrete(width * width));
        self.values.iter_mut().zip(means).for_each(|(value, mean)| *value -= mean);
    }

    /// The values of a box, NaN outside.
    pub(super) fn crop(&self, part: &Box3) -> Vec<f32> {
        let [_, height, width] = part.shape();
        let mut out = vec![f32::NAN; height * width];
        let inside = part.intersect(&self.part);
        let columns = self.part.shape()[2];
        let length = inside.shape()[2];
        for y in inside.min[1]..inside.max[1] {
            let offset = |of: &Box3, columns: usize| {
                (y - of.min[1]) as usize * columns + (inside.min[2] - of.min[2]) as usize
            };
            let (from, to) = (offset(&self.part, columns), offset(part, width));
            out[to..to + length].copy_from_slice(&self.values[from..from + length]);
        }
        out
    }
}

/// The mean of the values that are known; NaN if fewer than two are.
fn mean(values: [f32; 4]) -> f32 {
    let sum = values.iter().sum::<f32>();
    if !sum.is_nan() {
        return sum / 4.0;
    }
    let known = values.iter().filter(|v| !v.is_nan());
    let (sum, count) = known.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
    if count >= 2.0 { sum / count } else { f32::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strip(min: [i64; 2], shape: [usize; 2], value: impl Fn(i64, i64) -> f32) -> Strip {
        let max = [min[0] + shape[0] as i64, min[1] + shape[1] as i64];
        let part = Box3::new([0, min[0], min[1]], [1, max[0], max[1]]);
        let values = (min[0]..max[0]).flat_map(|y| (min[1]..max[1]).map(move |x| (y, x)));
        Strip { part, values: values.map(|(y, x)| value(y, x)).collect() }
    }

    #[test]
    fn a_crop_has_the_values_of_its_pixels_and_nan_outside() {
        let strip = strip([3, -2], [4, 5], |y, x| (10 * y + x) as f32);
        let part = Box3::new([0, 5, -3], [1, 8, 0]);
        let found = strip.crop(&part);
        for (i, value) in found.iter().enumerate() {
            let (y, x) = (5 + i as i64 / 3, -3 + i as i64 % 3);
            let known = strip.part.contains([0, y, x]);
            assert_eq!(known.then_some((10 * y + x) as f32), (!value.is_nan()).then_some(*value));
        }
    }

    #[test]
    fn half_a_strip_has_the_means_of_what_is_known() {
        let whole = strip([0, 0], [3, 5], |y, x| if y == 0 && x < 3 { f32::NAN } else { x as f32 });
        let half = whole.halved();
        assert_eq!(half.part, Box3::of_shape([1, 1, 2]));
        assert_eq!(half.values, [0.5, 8.0 / 3.0]);
    }
}
