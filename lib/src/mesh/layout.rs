//! The order of the nodes of several meshes in memory.

use rayon::prelude::*;

/// Meshes of one shape, one for each section. The nodes of all sections at one z and y are a row,
/// section by section, so that the nodes at one z, y, x (a column) lie in one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// The number of nodes of one mesh along z, y, x; 1 along z for planes.
    pub(super) shape: [usize; 3],
    /// The number of meshes.
    pub(super) sections: usize,
}

impl Layout {
    /// The number of nodes of all meshes.
    pub(super) fn len(&self) -> usize {
        self.rows() * self.width()
    }

    /// The number of rows.
    pub(super) fn rows(&self) -> usize {
        self.shape[0] * self.shape[1]
    }

    /// The number of nodes of a row.
    pub(super) fn width(&self) -> usize {
        self.sections * self.shape[2]
    }

    /// The index of a node in memory.
    pub(super) fn index(&self, section: usize, [z, y, x]: [usize; 3]) -> usize {
        ((z * self.shape[1] + y) * self.sections + section) * self.shape[2] + x
    }

    /// The section and the position of a node.
    pub(super) fn position(&self, i: usize) -> (usize, [usize; 3]) {
        let (row, rest) = (i / self.width(), i % self.width());
        let [_, ny, nx] = self.shape;
        (rest / nx, [row / ny, row % ny, rest % nx])
    }

    /// Calls `run(here, there, length)` for the runs of nodes of a row whose neighbours at `offset`
    /// (z, y, x) exist: `length` nodes from `here` on have the neighbours from `there` on.
    #[inline]
    pub(super) fn beside(
        &self,
        row: usize,
        offset: [isize; 3],
        mut run: impl FnMut(usize, usize, usize),
    ) {
        let [nz, ny, nx] = self.shape;
        let within = |at: usize, by: isize, n: usize| at.checked_add_signed(by).filter(|v| *v < n);
        let (Some(z), Some(y)) = (within(row / ny, offset[0], nz), within(row % ny, offset[1], ny))
        else {
            return;
        };
        let Some(length) = nx.checked_sub(offset[2].unsigned_abs()) else { return };
        let first = usize::try_from(-offset[2]).unwrap_or(0);
        let shifted = usize::try_from(offset[2]).unwrap_or(0);
        for section in 0..self.sections {
            let here = row * self.width() + section * nx;
            let there = (z * ny + y) * self.width() + section * nx;
            run(here + first, there + shifted, length);
        }
    }

    /// Calls `fill(row, elements)` for the elements of each row of `out`, in parallel, and returns the
    /// sum of its results in the order of the rows.
    pub(super) fn fill_rows<T: Send>(
        &self,
        out: &mut [T],
        fill: impl Fn(usize, &mut [T]) -> f64 + Sync,
    ) -> f64 {
        let sums: Vec<f64> = out
            .par_chunks_mut(self.width().max(1))
            .enumerate()
            .map(|(row, elements)| fill(row, elements))
            .collect();
        sums.into_iter().sum()
    }
}
