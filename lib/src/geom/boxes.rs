use std::fmt;

/// A half-open box of voxels, `[z, y, x]`: `min` is included and `max` is not.
///
/// Boxes may extend beyond the array that they refer to, as halos do; [`Box3::intersect`] clips
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Box3 {
    /// The first voxel.
    pub min: [i64; 3],
    /// One past the last voxel.
    pub max: [i64; 3],
}

impl Box3 {
    /// The box from `min` (included) to `max` (excluded).
    pub fn new(min: [i64; 3], max: [i64; 3]) -> Self {
        Self { min, max }
    }

    /// The box that covers a whole array of `shape`.
    pub fn of_shape(shape: [usize; 3]) -> Self {
        Self { min: [0; 3], max: shape.map(|n| n as i64) }
    }

    /// The size in voxels; 0 along an axis in which the box is empty.
    pub fn shape(&self) -> [usize; 3] {
        std::array::from_fn(|a| (self.max[a] - self.min[a]).max(0) as usize)
    }

    /// The number of voxels.
    pub fn len(&self) -> usize {
        self.shape().iter().product()
    }

    /// Whether the box holds no voxel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The intersection of both boxes. Its shape is 0, never negative, where they do not overlap.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let min = std::array::from_fn(|a| self.min[a].max(other.min[a]));
        let max = std::array::from_fn(|a| self.max[a].min(other.max[a]).max(min[a]));
        Self { min, max }
    }

    /// The smallest box that encloses both.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self {
            min: std::array::from_fn(|a| self.min[a].min(other.min[a])),
            max: std::array::from_fn(|a| self.max[a].max(other.max[a])),
        }
    }

    /// The box enlarged by `margin` voxels on each side.
    #[must_use]
    pub fn grow(&self, margin: [i64; 3]) -> Self {
        Self {
            min: std::array::from_fn(|a| self.min[a] - margin[a]),
            max: std::array::from_fn(|a| self.max[a] + margin[a]),
        }
    }

    /// The box shifted by `by` voxels.
    #[must_use]
    pub fn shift(&self, by: [i64; 3]) -> Self {
        Self {
            min: std::array::from_fn(|a| self.min[a] + by[a]),
            max: std::array::from_fn(|a| self.max[a] + by[a]),
        }
    }

    /// Whether the voxel `at` lies inside.
    pub fn contains(&self, at: [i64; 3]) -> bool {
        (0..3).all(|a| self.min[a] <= at[a] && at[a] < self.max[a])
    }

    /// Whether every voxel of `other` lies inside; true if `other` is empty.
    pub fn covers(&self, other: &Self) -> bool {
        other.is_empty()
            || (0..3).all(|a| self.min[a] <= other.min[a] && other.max[a] <= self.max[a])
    }

    /// The tiles of `size` voxels that cover this box, in C order. The last tile along an axis is
    /// smaller if `size` does not divide the shape of the box.
    ///
    /// ```
    /// use voxloom::geom::Box3;
    ///
    /// let tiles: Vec<Box3> = Box3::of_shape([1, 4, 6]).tiles([1, 4, 4]).collect();
    /// assert_eq!(tiles[1], Box3::new([0, 0, 4], [1, 4, 6]));
    /// // the tile with a halo of two voxels along x, clipped to the whole box
    /// let whole = Box3::of_shape([1, 4, 6]);
    /// assert_eq!(tiles[1].grow([0, 0, 2]).intersect(&whole), Box3::new([0, 0, 2], [1, 4, 6]));
    /// ```
    pub fn tiles(&self, size: [usize; 3]) -> impl Iterator<Item = Box3> + '_ {
        let whole = *self;
        let counts: [usize; 3] = std::array::from_fn(|a| self.shape()[a].div_ceil(size[a].max(1)));
        (0..counts.iter().product::<usize>()).map(move |i| {
            let index = [i / (counts[1] * counts[2]), i / counts[2] % counts[1], i % counts[2]];
            let min = std::array::from_fn(|a| whole.min[a] + (index[a] * size[a]) as i64);
            let max = std::array::from_fn(|a| (min[a] + size[a] as i64).min(whole.max[a]));
            Box3 { min, max }
        })
    }
}

impl fmt::Display for Box3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [z, y, x] = self.min;
        let [zz, yy, xx] = self.max;
        write!(f, "{z}..{zz},{y}..{yy},{x}..{xx}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_a_box_once_and_stay_inside() {
        let whole = Box3::new([1, -2, 0], [6, 5, 4]);
        let tiles: Vec<_> = whole.tiles([2, 3, 4]).collect();
        assert_eq!(tiles.len(), 3 * 3);
        assert_eq!(tiles.iter().map(Box3::len).sum::<usize>(), whole.len());
        assert!(tiles.iter().all(|t| whole.covers(t) && !t.is_empty()));
    }

    #[test]
    fn boxes_that_are_apart_share_nothing() {
        let a = Box3::of_shape([2, 2, 2]);
        assert!(a.intersect(&a.shift([5, 0, 0])).is_empty());
        assert_eq!(a.intersect(&a.shift([1, 0, 0])), Box3::new([1, 0, 0], [2, 2, 2]));
    }
}
