//! Boxes of elements of arrays, and copies from one box to another.

use std::fmt;

use crate::geom::Box3;

/// A half-open box with `N` axes: `min` is included and `max` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::volume) struct BoxN<const N: usize> {
    pub(in crate::volume) min: [i64; N],
    pub(in crate::volume) max: [i64; N],
}

impl From<&Box3> for BoxN<3> {
    fn from(part: &Box3) -> Self {
        Self { min: part.min, max: part.max }
    }
}

impl<const N: usize> BoxN<N> {
    /// The box that covers a whole array.
    pub(in crate::volume) fn of_shape(shape: [usize; N]) -> Self {
        Self { min: [0; N], max: shape.map(|n| n as i64) }
    }

    /// The size along each axis; 0 where the box is empty.
    pub(in crate::volume) fn shape(&self) -> [usize; N] {
        std::array::from_fn(|a| (self.max[a] - self.min[a]).max(0) as usize)
    }

    /// The number of elements.
    pub(in crate::volume) fn len(&self) -> usize {
        self.shape().iter().product()
    }

    pub(in crate::volume) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The intersection of the two boxes. Along an axis where they do not overlap, its size is 0.
    pub(in crate::volume) fn intersect(&self, other: &Self) -> Self {
        let min = std::array::from_fn(|a| self.min[a].max(other.min[a]));
        let max = std::array::from_fn(|a| self.max[a].min(other.max[a]).max(min[a]));
        Self { min, max }
    }

    /// The offset of an element in a buffer that holds this box in C order.
    pub(in crate::volume) fn offset(&self, at: [i64; N]) -> usize {
        (0..N).fold(0, |sum, a| {
            sum * (self.max[a] - self.min[a]) as usize + (at[a] - self.min[a]) as usize
        })
    }

    /// All positions in the box, in C order.
    pub(in crate::volume) fn positions(&self) -> impl Iterator<Item = [i64; N]> + use<N> {
        let whole = *self;
        let mut next = (!self.is_empty()).then_some(self.min);
        std::iter::from_fn(move || {
            let at = next?;
            let mut following = at;
            next = (0..N).rev().find_map(|a| {
                following[a] += 1;
                if following[a] < whole.max[a] {
                    return Some(following);
                }
                following[a] = whole.min[a];
                None
            });
            Some(at)
        })
    }

    /// The first position of each row; rows run along the last axis.
    pub(in crate::volume) fn rows(&self) -> impl Iterator<Item = [i64; N]> + use<N> {
        let mut starts = *self;
        if !self.is_empty() {
            starts.max[N - 1] = starts.min[N - 1] + 1;
        }
        starts.positions()
    }
}

/// The maximum rank of an [`Array`](crate::volume::Array).
pub(in crate::volume) const RANK: usize = 6;

/// A half-open box of elements of an array of rank 1 to 6: `min` is included and `max` is not. Each
/// holds one index per axis, in the order of the array's axes. A box can extend beyond the array.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// The index of the first element along each axis.
    pub min: Vec<i64>,
    /// One past the index of the last element along each axis.
    pub max: Vec<i64>,
}

impl Bounds {
    /// The box from `min` (included) to `max` (excluded).
    pub fn new(min: &[i64], max: &[i64]) -> Self {
        Self { min: min.to_vec(), max: max.to_vec() }
    }

    /// The number of axes.
    pub fn rank(&self) -> usize {
        self.min.len().min(self.max.len())
    }

    /// The size along each axis; 0 where the box is empty.
    pub fn shape(&self) -> Vec<usize> {
        self.min.iter().zip(&self.max).map(|(min, max)| (max - min).max(0) as usize).collect()
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether the box holds no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The box shifted by `by` elements along each axis.
    #[must_use]
    pub fn shift(&self, by: &[i64]) -> Self {
        let moved = |at: &[i64]| at.iter().zip(by).map(|(v, by)| v + by).collect();
        Self { min: moved(&self.min), max: moved(&self.max) }
    }

    /// The intersection of the two boxes. Along an axis where they do not overlap, its size is 0.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let min: Vec<i64> = self.min.iter().zip(&other.min).map(|(a, b)| *a.max(b)).collect();
        let ends = self.max.iter().zip(&other.max).zip(&min);
        let max = ends.map(|((a, b), min)| *a.min(b).max(min)).collect();
        Self { min, max }
    }

    /// Copies the elements that both boxes contain from one buffer to another.
    ///
    /// * `from`: the elements of this box, in C order
    /// * `to`: the elements of `target`, in C order; elements outside this box are unchanged
    ///
    /// # Panics
    /// If a buffer does not have the size of its box, or the boxes differ in rank or exceed rank 6.
    ///
    /// ```
    /// use voxloom::volume::Bounds;
    ///
    /// let row = Bounds::new(&[0, -1], &[1, 3]);
    /// let column = Bounds::new(&[-1, 1], &[2, 2]);
    /// let mut found = [0; 3];
    /// row.copy_to(&[1, 2, 3, 4], &column, &mut found);
    /// assert_eq!(found, [0, 3, 0]);
    /// ```
    pub fn copy_to<T: Copy>(&self, from: &[T], target: &Self, to: &mut [T]) {
        assert_eq!(
            (from.len(), to.len()),
            (self.len(), target.len()),
            "buffers are as long as boxes"
        );
        assert_eq!(self.rank(), target.rank(), "both boxes have the same axes");
        let (own, other): (BoxN<RANK>, BoxN<RANK>) = (self.padded(), target.padded());
        let shared = own.intersect(&other);
        let width = shared.shape()[RANK - 1];
        for at in shared.rows() {
            let (start, end) = (own.offset(at), other.offset(at));
            to[end..end + width].copy_from_slice(&from[start..start + width]);
        }
    }

    /// The box with the rank raised to `N` by leading axes of one element, with the index 0.
    ///
    /// # Panics
    /// If the rank is above `N`.
    pub(in crate::volume) fn padded<const N: usize>(&self) -> BoxN<N> {
        let (rank, mut whole) = (self.rank(), BoxN { min: [0; N], max: [1; N] });
        assert!(rank <= N, "an array has at most {N} axes");
        whole.min[N - rank..].copy_from_slice(&self.min[..rank]);
        whole.max[N - rank..].copy_from_slice(&self.max[..rank]);
        whole
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.min.iter().zip(&self.max).map(|(min, max)| format!("{min}..{max}"));
        f.write_str(&ranges.collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_copy_between_boxes_is_a_copy_element_by_element(
            axes in prop::collection::vec((-3i64..3, 0i64..4, -3i64..3, 0i64..4), 1..=4),
        ) {
            let of = |pick: &dyn Fn(&(i64, i64, i64, i64)) -> (i64, i64)| {
                let ends: Vec<(i64, i64)> = axes.iter().map(pick).collect();
                let (min, max): (Vec<_>, Vec<_>) = ends.iter().map(|(a, n)| (*a, a + n)).unzip();
                Bounds { min, max }
            };
            let (own, other) = (of(&|v| (v.0, v.1)), of(&|v| (v.2, v.3)));
            let from: Vec<usize> = (1..=own.len()).collect();
            let mut to = vec![0; other.len()];
            own.copy_to(&from, &other, &mut to);
            let (own, other): (BoxN<RANK>, BoxN<RANK>) = (own.padded(), other.padded());
            for (i, at) in other.positions().enumerate() {
                let inside = (0..RANK).all(|a| own.min[a] <= at[a] && at[a] < own.max[a]);
                prop_assert_eq!(to[i], if inside { from[own.offset(at)] } else { 0 });
            }
        }
    }
}
