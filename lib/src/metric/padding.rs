//! Padding: a constant margin around the imaged region. The margins of two images can have the same
//! outline although their contents are unrelated.

/// Values that differ by less than this fraction of the range of values count as equal, because
/// averages of equal values have rounding errors.
const EQUAL_TOLERANCE: f32 = 1e-6;
/// Minimum fraction of the border voxels that must have the same value; otherwise there is no
/// padding.
const MIN_COMMON_FRACTION: f64 = 0.1;
/// Minimum fraction of the known voxels outside the padding that lie in one connected piece. A
/// constant background around many separate objects is not padding: it shows where they lie.
const MIN_CONNECTED_FRACTION: f64 = 0.9;

/// Sets padding to NaN, and also the voxels next to padding, because blurring can have mixed their
/// values with the padding. Padding consists of the voxels that have the most common value of the
/// border and are connected to the border of the known voxels.
///
/// The image is changed only if known voxels remain and nearly all of them form one connected
/// piece.
///
/// * `voxels`: C order `(z, y, x)` of `shape`; NaN where unknown
/// * returns whether there was padding
pub fn mark(shape: [usize; 3], voxels: &mut [f32]) -> bool {
    let all = Neighbourhood { shape };
    let Some((value, tolerance)) = common_value(&all, voxels) else { return false };
    let is_padding = |v: f32| (v - value).abs() <= tolerance;
    let mut padding = vec![false; voxels.len()];
    let border = (0..voxels.len()).filter(|&i| is_padding(voxels[i]) && all.is_border(i, voxels));
    all.flood_fill(border.collect(), &mut padding, |i| is_padding(voxels[i]));
    let adjacent: Vec<usize> = (0..voxels.len())
        .filter(|&i| !padding[i] && all.neighbours(i).any(|j| padding[j]))
        .collect();
    for i in adjacent {
        padding[i] = true;
    }
    let known = |i: usize| !padding[i] && voxels[i].is_finite();
    let count = (0..voxels.len()).filter(|&i| known(i)).count();
    if !all.is_connected(count, known) {
        return false;
    }
    for (v, _) in voxels.iter_mut().zip(padding).filter(|(_, padding)| *padding) {
        *v = f32::NAN;
    }
    true
}

/// The most common value of the border, and the tolerance within which values are equal to it;
/// `None` if no value is common, or if all values of the image are equal.
fn common_value(all: &Neighbourhood, voxels: &[f32]) -> Option<(f32, f32)> {
    let finite = voxels.iter().filter(|v| v.is_finite());
    let (low, high) = finite
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)));
    let tolerance = EQUAL_TOLERANCE * (high - low);
    if !(tolerance > 0.0 && tolerance.is_finite()) {
        return None;
    }
    let mut border: Vec<f32> =
        (0..voxels.len()).filter(|&i| all.is_border(i, voxels)).map(|i| voxels[i]).collect();
    border.sort_unstable_by(f32::total_cmp);
    let run = border.chunk_by(|a, b| b - a <= tolerance).max_by_key(|run| run.len())?;
    let is_common = run.len() as f64 >= MIN_COMMON_FRACTION * border.len() as f64;
    let middle = run[run.len() / 2];
    // a run in which each value differs little from the next can span a wide range; its values then
    // do not count as equal
    let is_narrow = run[run.len() - 1] - run[0] <= 4.0 * tolerance;
    (is_common && is_narrow).then_some((middle, 4.0 * tolerance))
}

/// Neighbours and border of the voxels of an image in C order `(z, y, x)`.
struct Neighbourhood {
    shape: [usize; 3],
}

impl Neighbourhood {
    fn at(&self, i: usize) -> [usize; 3] {
        let [_, ny, nx] = self.shape;
        [i / (ny * nx), i / nx % ny, i % nx]
    }

    /// The up to six voxels that share a face with a voxel.
    fn neighbours(&self, i: usize) -> impl Iterator<Item = usize> {
        let (at, shape) = (self.at(i), self.shape);
        let strides = [shape[1] * shape[2], shape[2], 1];
        (0..3).flat_map(move |a| {
            let low = (at[a] > 0).then(|| i - strides[a]);
            let high = (at[a] + 1 < shape[a]).then(|| i + strides[a]);
            low.into_iter().chain(high)
        })
    }

    /// Whether voxel `i` is known and lies at a face of the image or beside an unknown voxel. Faces
    /// of axes with few voxels do not count, because all voxels of a thin stack lie at a face.
    fn is_border(&self, i: usize, voxels: &[f32]) -> bool {
        const FEW: usize = 8;
        let at = self.at(i);
        let at_face = |a: usize| self.shape[a] >= FEW && (at[a] == 0 || at[a] + 1 == self.shape[a]);
        voxels[i].is_finite()
            && ((0..3).any(at_face) || self.neighbours(i).any(|j| !voxels[j].is_finite()))
    }

    /// Marks all voxels that are connected to those of `open` through voxels that `take` accepts;
    /// returns their number.
    fn flood_fill(
        &self,
        mut open: Vec<usize>,
        marked: &mut [bool],
        take: impl Fn(usize) -> bool,
    ) -> usize {
        let mut count = 0;
        for &i in &open {
            marked[i] = true;
        }
        while let Some(i) = open.pop() {
            count += 1;
            for j in self.neighbours(i) {
                if !marked[j] && take(j) {
                    marked[j] = true;
                    open.push(j);
                }
            }
        }
        count
    }

    /// Whether one connected piece has at least the fraction [`MIN_CONNECTED_FRACTION`] of the
    /// `count` voxels that are known.
    fn is_connected(&self, count: usize, known: impl Fn(usize) -> bool) -> bool {
        let mut seen = vec![false; self.shape.iter().product()];
        let mut left = count;
        for i in 0..seen.len() {
            if seen[i] || !known(i) {
                continue;
            }
            let piece = self.flood_fill(vec![i], &mut seen, &known);
            if piece as f64 >= MIN_CONNECTED_FRACTION * count as f64 {
                return true;
            }
            left -= piece;
            if (left as f64) < MIN_CONNECTED_FRACTION * count as f64 {
                return false;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::super::{hash, unit};
    use super::*;

    const SHAPE: [usize; 3] = [20, 24, 28];

    /// Noise between 10 and 11 where `inside` is true, 3 elsewhere.
    fn image(inside: impl Fn([f64; 3]) -> bool) -> Vec<f32> {
        let all = Neighbourhood { shape: SHAPE };
        (0..SHAPE.iter().product())
            .map(|i| {
                let at = all.at(i).map(|v| v as f64);
                if inside(at) { 10.0 + unit(hash(1, i as u64), 0) as f32 } else { 3.0 }
            })
            .collect()
    }

    fn ball(at: [f64; 3], centre: [f64; 3], radius: f64) -> bool {
        (0..3).map(|a| (at[a] - centre[a]).powi(2)).sum::<f64>() < radius * radius
    }

    #[test]
    fn a_margin_is_marked_with_one_voxel_of_what_it_surrounds() {
        let inside = |at| ball(at, [9.0, 11.0, 14.0], 8.0);
        let mut voxels = image(inside);
        let before = voxels.clone();
        assert!(mark(SHAPE, &mut voxels));
        let all = Neighbourhood { shape: SHAPE };
        for (i, (v, was)) in voxels.iter().zip(&before).enumerate() {
            let is_rim = all.neighbours(i).any(|j| before[j] == 3.0);
            assert_eq!(v.is_nan(), *was == 3.0 || is_rim, "{:?}", all.at(i));
        }
        // in a second call, the voxels next to the unknown margin have no common value
        assert!(!mark(SHAPE, &mut voxels));
    }

    #[test]
    fn a_background_of_many_objects_and_images_without_padding_stay() {
        let centre = |i: usize| [5.0 + 10.0 * (i / 2) as f64, 12.0, 7.0 + 14.0 * (i % 2) as f64];
        let blobs = image(|at| (0..4).any(|i| ball(at, centre(i), 4.0)));
        let noise = image(|_| true);
        for before in [blobs, noise, vec![3.0; 20 * 24 * 28], vec![f32::NAN; 20 * 24 * 28]] {
            let mut voxels = before.clone();
            assert!(!mark(SHAPE, &mut voxels));
            assert!(voxels.iter().zip(before).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}
