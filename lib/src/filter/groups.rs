//! Groups of connected voxels.

/// The groups of voxels of a set that are connected through faces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// The number of the group of each voxel, from 1 on in the order of their first voxels; 0 outside
    /// the set.
    pub of: Vec<u32>,
    /// The number of voxels of each group; that of group 1 is the first.
    pub sizes: Vec<usize>,
}

impl Groups {
    /// Finds the groups.
    ///
    /// * `shape`: voxels along z, y, x
    /// * `planar`: whether voxels of different planes are not connected
    /// * `is_member`: whether a voxel belongs to the set
    ///
    /// Checked by: `oracle::groups` (equal).
    pub fn find(shape: [usize; 3], planar: bool, is_member: impl Fn(usize) -> bool) -> Self {
        let [_, ny, nx] = shape;
        let count = shape.iter().product();
        let mut groups = Self { of: vec![0; count], sizes: Vec::new() };
        let mut open = Vec::new();
        for first in 0..count {
            if groups.of[first] != 0 || !is_member(first) {
                continue;
            }
            let group = groups.sizes.len() as u32 + 1;
            groups.of[first] = group;
            open.push(first);
            let mut size = 0;
            while let Some(i) = open.pop() {
                size += 1;
                let at = [i / (ny * nx), i / nx % ny, i % nx];
                for (a, stride) in [(0, ny * nx), (1, nx), (2, 1)] {
                    if planar && a == 0 {
                        continue;
                    }
                    let below = (at[a] > 0).then(|| i - stride);
                    let above = (at[a] + 1 < shape[a]).then(|| i + stride);
                    for j in below.into_iter().chain(above) {
                        if groups.of[j] == 0 && is_member(j) {
                            groups.of[j] = group;
                            open.push(j);
                        }
                    }
                }
            }
            groups.sizes.push(size);
        }
        groups
    }

    /// The number of voxels of the group of a voxel; 0 outside the set.
    pub fn size(&self, voxel: usize) -> usize {
        match self.of[voxel] {
            0 => 0,
            group => self.sizes[group as usize - 1],
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
        fn groups_equal_the_slow_ones(
            shape in [1_usize..4, 1_usize..9, 1_usize..9],
            planar in any::<bool>(),
            share in 0.2_f32..0.8,
            seed in any::<u32>(),
        ) {
            let noise = oracle::noise(shape, seed);
            let set: Vec<bool> = noise.iter().map(|v| *v < share).collect();
            let found = Groups::find(shape, planar, |i| set[i]);
            prop_assert_eq!(&found.of, &oracle::groups(shape, planar, &set));
            prop_assert_eq!(found.sizes.iter().sum::<usize>(), set.iter().filter(|v| **v).count());
        }
    }
}
