//! Distances of the pixels of a plane from a set of pixels.

/// The Euclidean distance of each pixel of a plane from the nearest pixel of a set, pixels; infinity
/// if the set is empty.
///
/// * `set`: whether each pixel belongs to the set, `(y, x)` of `shape`
///
/// Distances along the columns first, then the lower envelope of the parabolas that they put on each
/// row (Felzenszwalb and Huttenlocher, Theory of Computing 8, 2012), in a time proportional to the
/// number of pixels. Checked by: `oracle::distance` (equal).
pub fn distance(set: &[bool], shape: [usize; 2]) -> Vec<f32> {
    let width = shape[1];
    let mut squares: Vec<f64> = set.iter().map(|is_in| if *is_in { 0.0 } else { FAR }).collect();
    // along the columns: down, then up
    for i in width..squares.len() {
        squares[i] = squares[i].min(squares[i - width] + 1.0);
    }
    for i in (0..squares.len().saturating_sub(width)).rev() {
        squares[i] = squares[i].min(squares[i + width] + 1.0);
    }
    squares.iter_mut().for_each(|d| *d *= *d);
    let mut envelope = Envelope::default();
    let mut out = Vec::with_capacity(squares.len());
    for row in squares.chunks_exact(width.max(1)) {
        envelope.of(row);
        let mut parabola = 0;
        out.extend((0..width).map(|x| {
            while envelope.ends[parabola] < x as f64 {
                parabola += 1;
            }
            let centre = envelope.centres[parabola];
            let square = (x as f64 - centre as f64).powi(2) + row[centre];
            if square < FAR { square.sqrt() as f32 } else { f32::INFINITY }
        }));
    }
    out
}

/// Stands for the distance from an empty set: more than any side of a plane.
const FAR: f64 = 1e9;

/// The least of the parabolas `(x - c)^2 + row[c]` for each x.
#[derive(Default)]
struct Envelope {
    /// The centres of the parabolas that are the least somewhere, in ascending order.
    centres: Vec<usize>,
    /// Where each of them ends.
    ends: Vec<f64>,
}

impl Envelope {
    fn of(&mut self, row: &[f64]) {
        self.centres.clear();
        self.ends.clear();
        for c in 0..row.len() {
            while let Some(&last) = self.centres.last() {
                // where the new parabola becomes less than the last one
                let (near, far) = (last as f64, c as f64);
                let cross = (far * far + row[c] - near * near - row[last]) / (2.0 * (far - near));
                let begin = self.ends.len().checked_sub(2).map(|i| self.ends[i]);
                if begin.is_some_and(|begin| cross <= begin) {
                    self.centres.pop();
                    self.ends.pop();
                    continue;
                }
                if let Some(end) = self.ends.last_mut() {
                    *end = cross;
                }
                break;
            }
            self.centres.push(c);
            self.ends.push(f64::INFINITY);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::filter::oracle;

    proptest! {
        #[test]
        fn distances_equal_the_slow_ones(
            shape in [1_usize..20, 1_usize..30],
            share in 0.0_f32..0.3,
            seed in any::<u32>(),
        ) {
            let noise = oracle::noise([1, shape[0], shape[1]], seed);
            let set: Vec<bool> = noise.iter().map(|v| *v < share).collect();
            prop_assert_eq!(distance(&set, shape), oracle::distance(&set, shape));
        }
    }
}
