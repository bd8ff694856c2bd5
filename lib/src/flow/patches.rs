//! The geometry of patches.

use crate::geom::{Box3, Grid};

/// Patches of one size at regular distances, and the shifts that are searched. All lengths are in
/// voxels along z, y, x; for planes, the size and the stride along z are 1 and the radius is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Patches {
    /// The size of a patch.
    pub size: [usize; 3],
    /// The distance between neighbouring patches.
    pub stride: [usize; 3],
    /// The maximum shift in both directions along each axis.
    pub radius: [usize; 3],
}

impl Patches {
    /// The number of patches in a volume of this shape, along z, y, x. Patch `i` begins at voxel
    /// `i * stride`.
    pub fn count(&self, shape: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|a| match shape[a].checked_sub(self.size[a]) {
            Some(rest) => rest / self.stride[a] + 1,
            None => 0,
        })
    }

    /// The number of nodes before the centre of the first patch along each axis, so that the nodes
    /// reach the face of the volume.
    pub fn padding(&self) -> [usize; 3] {
        std::array::from_fn(|a| match self.size[a] {
            1 => 0,
            size => size.div_ceil(2).div_ceil(self.stride[a]),
        })
    }

    /// The nodes of the field of a volume on `grid`: the centres of the patches, and further nodes
    /// on all sides up to the faces of the volume, where vectors are unknown.
    pub fn nodes(&self, grid: &Grid) -> Grid {
        let (count, padding) = (self.count(grid.shape), self.padding());
        let centre =
            |a: usize, i: usize| (self.size[a] as f64 - 1.0) / 2.0 + (i * self.stride[a]) as f64;
        let beyond = |a: usize| {
            // from the centre of the last patch to the face
            let rest = grid.shape[a] as f64 - 0.5 - centre(a, count[a].saturating_sub(1));
            if self.size[a] == 1 { 0 } else { (rest / self.stride[a] as f64).ceil() as usize }
        };
        let first = std::array::from_fn(|a| centre(a, 0) - (padding[a] * self.stride[a]) as f64);
        Grid {
            shape: std::array::from_fn(|a| padding[a] + count[a] + beyond(a)),
            spacing: std::array::from_fn(|a| grid.spacing[a] * self.stride[a] as f64),
            origin: grid.position(first),
            planar: grid.planar,
        }
    }

    /// The patches whose centres are among the nodes of a box.
    ///
    /// * `shape`: the shape of the volume
    pub(super) fn among(&self, nodes: &Box3, shape: [usize; 3]) -> Box3 {
        let padding = self.padding().map(|n| -(n as i64));
        nodes.shift(padding).intersect(&Box3::of_shape(self.count(shape)))
    }

    /// The voxels of a box of patches.
    pub(super) fn voxels(&self, part: &Box3) -> Box3 {
        let first = std::array::from_fn(|a| part.min[a] * self.stride[a] as i64);
        let end = std::array::from_fn(|a| {
            (part.max[a] - 1) * self.stride[a] as i64 + self.size[a] as i64
        });
        Box3::new(first, end)
    }

    /// The size of a cell: the largest box of which both the patches and the strides are multiples.
    pub(super) fn cell(&self) -> [usize; 3] {
        std::array::from_fn(|a| greatest_common_divisor(self.size[a], self.stride[a]))
    }

    /// The number of shifts along each axis.
    pub(super) fn shifts(&self) -> [usize; 3] {
        self.radius.map(|r| 2 * r + 1)
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}
