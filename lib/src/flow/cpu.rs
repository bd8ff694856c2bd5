//! The normalised correlation of patches with the moving image at all shifts.
//!
//! Neighbouring patches share most of their voxels. The image is therefore divided into cells, of
//! which each patch is a union ([`Patches::cell`]). The products of a cell with the moving image are
//! summed once for each shift, and the sums of a patch are the sums of those of its cells. The cost
//! of a patch is that of one cell, `stride^d * (2 * radius + 1)^d` multiplications, however large
//! the patch is; a correlation by Fourier transforms costs `(size + 2 * radius)^d` operations times
//! a logarithm, separately for each patch.
//!
//! Numbers: products and their sums over a row of a cell are `f32`, all other sums are `f64`, and no
//! fused multiply-add is used: the surfaces are bit-identical on all processors, and do not depend
//! on how the patches are divided into blocks except through the mean that is subtracted first.
//! Border: NaN voxels, and voxels outside the images, are unknown; a shift at which fewer than
//! [`MIN_OVERLAP`] of the voxels of a patch are known in both images has the correlation NaN.
//! Checked by: `oracle::surface`.

use super::cells::{CellProducts, LANES, cell_products};
use super::patches::Patches;
use crate::filter::lines::for_avx2;
use crate::geom::Box3;

/// The minimum fraction of the voxels of a patch that must be known in both images.
pub(super) const MIN_OVERLAP: f64 = 0.3;

/// The variance of a patch is taken for 0 below this fraction of its mean square.
const MIN_VARIANCE: f64 = 1e-10;

/// The voxels of a block of patches, C order `(z, y, x)`, NaN where unknown.
#[derive(Clone, Debug)]
pub(crate) struct BlockPair {
    /// The number of patches along z, y, x.
    pub(crate) nodes: [usize; 3],
    /// The fixed image within the box of the patches.
    pub(crate) fixed: Vec<f32>,
    /// The moving image within the same box, wider by the radius on each side.
    pub(crate) moving: Vec<f32>,
}

/// An image in C order and its shape.
#[derive(Clone, Copy)]
struct View<'a> {
    voxels: &'a [f32],
    shape: [usize; 3],
}

impl View<'_> {
    fn crop(&self, part: &Box3) -> Vec<f32> {
        let [_, ny, nx] = part.shape();
        let row = |i: usize| {
            let at = [i / ny, i % ny, 0];
            index(std::array::from_fn(|a| part.min[a] as usize + at[a]), self.shape)
        };
        (0..part.len() / nx).flat_map(|i| &self.voxels[row(i)..row(i) + nx]).copied().collect()
    }

    /// The sum of the values, or of their squares, over the box of the given size that begins at each
    /// voxel at which it fits into the image.
    fn box_sums(&self, size: [usize; 3], square: bool) -> Vec<f64> {
        let value = |v: &f32| if square { f64::from(*v) * f64::from(*v) } else { f64::from(*v) };
        let mut sums: Vec<f64> = self.voxels.iter().map(value).collect();
        let mut shape = self.shape;
        for axis in 0..3 {
            let stride: usize = shape[axis + 1..].iter().product();
            let n = shape[axis];
            let left = n - size[axis] + 1;
            let mut next = Vec::with_capacity(sums.len() / n * left);
            let mut running = vec![0.0; stride];
            for slab in sums.chunks_exact(n * stride) {
                running.fill(0.0);
                for (i, row) in slab.chunks_exact(stride).enumerate() {
                    running.iter_mut().zip(row).for_each(|(sum, v)| *sum += v);
                    if let Some(start) = (i + 1).checked_sub(size[axis]) {
                        next.extend_from_slice(&running);
                        let first = &slab[start * stride..(start + 1) * stride];
                        running.iter_mut().zip(first).for_each(|(sum, v)| *sum -= v);
                    }
                }
            }
            shape[axis] = left;
            sums = next;
        }
        sums
    }
}

/// The sums over a cell that one of the moments needs at each shift.
enum CellSums<'a> {
    /// The same sum at all shifts.
    Constant(f64),
    /// The sums of the boxes that begin at each voxel of the moving image.
    Boxes(&'a [f64]),
    /// The sums must be computed from the products.
    Products,
}

impl BlockPair {
    /// The voxels of some of the patches.
    pub(super) fn crop(&self, part: &Box3, patches: &Patches) -> Self {
        let shape = extent(self.nodes, patches);
        let voxels = patches.voxels(part);
        let wide = std::array::from_fn(|a| shape[a] + 2 * patches.radius[a]);
        // the moving image begins one radius before the fixed one
        let window = Box3::new(
            voxels.min,
            std::array::from_fn(|a| voxels.max[a] + 2 * patches.radius[a] as i64),
        );
        Self {
            nodes: part.shape(),
            fixed: View { voxels: &self.fixed, shape }.crop(&voxels),
            moving: View { voxels: &self.moving, shape: wide }.crop(&window),
        }
    }
}

/// The number of sums that [`surfaces`] holds for each moment.
pub(super) fn sums(nodes: [usize; 3], patches: &Patches) -> usize {
    let cell = patches.cell();
    let cells =
        extent(nodes, patches).iter().zip(cell).map(|(n, cell)| n / cell).collect::<Vec<_>>();
    let shifts: usize = patches.shifts().iter().product();
    (cells[0] * cells[1] * nodes[2] + cells[2]) * shifts
}

/// The shape of the box of these patches.
pub(super) fn extent(nodes: [usize; 3], patches: &Patches) -> [usize; 3] {
    std::array::from_fn(|a| (nodes[a] - 1) * patches.stride[a] + patches.size[a])
}

/// Calls `found` with each patch of the block, in C order, and its correlation surface: the
/// correlation coefficient at each shift, C order `(z, y, x)` from the lowest shift, NaN where it is
/// unknown.
pub(crate) fn surfaces(pair: BlockPair, patches: &Patches, mut found: impl FnMut(usize, &[f32])) {
    let BlockPair { nodes, mut fixed, mut moving } = pair;
    let shape = extent(nodes, patches);
    let wide = std::array::from_fn(|a| shape[a] + 2 * patches.radius[a]);
    let mut known = [centre(&mut fixed), centre(&mut moving)];
    // rows are read in whole lanes, also beyond the end of the last row
    for image in [Some(&mut moving), known[1].as_mut()].into_iter().flatten() {
        image.extend([0.0; LANES]);
    }
    let sums = MomentSums {
        patches,
        nodes,
        fixed: View { voxels: &fixed, shape },
        moving: View { voxels: &moving, shape: wide },
    };
    let shifts = patches.shifts().iter().product::<usize>();
    let mut surface = vec![0.0; shifts];
    if known.iter().all(Option::is_none) {
        sums.of_complete_images(|i, moments| {
            moments.correlate(&mut surface);
            found(i, &surface);
        });
    } else {
        let known = known.map(Option::unwrap_or_default);
        sums.of_incomplete_images(&known, |i, moments| {
            moments.correlate(&mut surface);
            found(i, &surface);
        });
    }
}

/// Subtracts the mean of the known voxels and sets the unknown voxels to 0. Returns 1 for each known
/// and 0 for each unknown voxel; `None` if all are known.
fn centre(image: &mut [f32]) -> Option<Vec<f32>> {
    let known = image.iter().filter(|v| v.is_finite());
    let (count, sum) = known.fold((0u64, 0.0), |(n, sum), v| (n + 1, sum + f64::from(*v)));
    let mean = if count > 0 { (sum / count as f64) as f32 } else { 0.0 };
    if count == image.len() as u64 {
        image.iter_mut().for_each(|v| *v -= mean);
        return None;
    }
    let mut known = vec![0.0; image.len()];
    for (v, known) in image.iter_mut().zip(&mut known) {
        if v.is_finite() {
            (*v, *known) = (*v - mean, 1.0);
        } else {
            *v = 0.0;
        }
    }
    Some(known)
}

/// The sums over the voxels of one patch that are known in both images, at each shift.
struct Moments<'a> {
    /// The number of voxels of a patch.
    size: f64,
    /// The number of known voxels, the sums of the fixed values and of their squares. One element if
    /// these do not depend on the shift.
    fixed: [&'a [f64]; 3],
    /// The sums of the moving values and of their squares.
    moving: [&'a [f64]; 2],
    /// The sums of the products.
    product: &'a [f64],
}

impl Moments<'_> {
    fn correlate(&self, out: &mut [f32]) {
        let [n, sum, square] = self.fixed;
        if n.len() == 1 {
            let variance = square[0] - sum[0] * sum[0] / n[0];
            if variance <= MIN_VARIANCE * square[0] {
                out.fill(f32::NAN);
                return;
            }
            correlate_complete(
                n[0],
                sum[0],
                variance,
                self.moving[0],
                self.moving[1],
                self.product,
                out,
            );
            return;
        }
        for (i, out) in out.iter_mut().enumerate() {
            let (n, f, ff) = (n[i], sum[i], square[i]);
            let (m, mm) = (self.moving[0][i], self.moving[1][i]);
            let [vf, vm] = [ff - f * f / n, mm - m * m / n];
            let is_known =
                n >= MIN_OVERLAP * self.size && vf > MIN_VARIANCE * ff && vm > MIN_VARIANCE * mm;
            let r = (self.product[i] - f * m / n) / (vf * vm).sqrt();
            *out = if is_known { r as f32 } else { f32::NAN };
        }
    }
}

for_avx2! {
    /// The correlation at each shift of a patch whose voxels are all known.
    fn correlate_complete(
        n: f64,
        sum: f64,
        variance: f64,
        moving: &[f64],
        squares: &[f64],
        product: &[f64],
        out: &mut [f32],
    ) => correlate_complete_any
}

#[inline(always)]
fn correlate_complete_any(
    n: f64,
    sum: f64,
    variance: f64,
    moving: &[f64],
    squares: &[f64],
    product: &[f64],
    out: &mut [f32],
) {
    for (((out, m), mm), fm) in out.iter_mut().zip(moving).zip(squares).zip(product) {
        let vm = mm - m * m / n;
        let r = (fm - sum * m / n) / (variance * vm).sqrt();
        *out = if vm > MIN_VARIANCE * mm { r as f32 } else { f32::NAN };
    }
}

/// The images from which moments are summed.
struct MomentSums<'a> {
    patches: &'a Patches,
    nodes: [usize; 3],
    /// Values minus their mean, 0 where unknown.
    fixed: View<'a>,
    moving: View<'a>,
}

impl MomentSums<'_> {
    fn of_complete_images(&self, mut found: impl FnMut(usize, Moments)) {
        let size = self.patches.size;
        let count: f64 = size.iter().product::<usize>() as f64;
        let product =
            self.over_patches(self.fixed.voxels, self.moving.voxels, |_| CellSums::Products);
        let [f, ff] = [false, true].map(|square| self.fixed.box_sums(size, square));
        let [m, mm] = [false, true].map(|square| self.moving.box_sums(size, square));
        let shifts = self.patches.shifts();
        let length: usize = shifts.iter().product();
        let mut moving = [vec![0.0; length], vec![0.0; length]];
        let boxes: [usize; 3] = std::array::from_fn(|a| self.fixed.shape[a] - size[a] + 1);
        let wide: [usize; 3] = std::array::from_fn(|a| self.moving.shape[a] - size[a] + 1);
        for (i, product) in product.chunks_exact(length).enumerate() {
            let first = self.position(i);
            let at = index(first, boxes);
            copy_box(&m, wide, first, shifts, &mut moving[0]);
            copy_box(&mm, wide, first, shifts, &mut moving[1]);
            found(
                i,
                Moments {
                    size: count,
                    fixed: [&[count], &f[at..=at], &ff[at..=at]],
                    moving: [&moving[0], &moving[1]],
                    product,
                },
            );
        }
    }

    fn of_incomplete_images(&self, known: &[Vec<f32>; 2], found: impl FnMut(usize, Moments)) {
        // an image without unknown voxels comes without a mask
        let full = |known: &[f32], len: usize| -> Vec<f32> {
            if known.is_empty() { vec![1.0; len] } else { known.to_vec() }
        };
        let inside =
            [full(&known[0], self.fixed.voxels.len()), full(&known[1], self.moving.voxels.len())];
        let squares = [self.fixed, self.moving]
            .map(|image| image.voxels.iter().map(|v| v * v).collect::<Vec<f32>>());
        let (fixed, moving) = (self.fixed.voxels, self.moving.voxels);
        let cell = self.patches.cell();
        let window = std::array::from_fn(|a| cell[a] + 2 * self.patches.radius[a]);
        let in_window = View { voxels: &inside[1], ..self.moving }.box_sums(window, false);
        let in_cell = View { voxels: &inside[0], ..self.fixed }.box_sums(cell, false);
        let boxes: [usize; 3] = std::array::from_fn(|a| self.fixed.shape[a] - cell[a] + 1);
        let volume = |size: [usize; 3]| size.iter().product::<usize>() as f64;
        // a sum over a window without unknown voxels does not depend on the shift
        let fixed_sums = |values: &[f32]| {
            let sums = View { voxels: values, shape: self.fixed.shape }.box_sums(cell, false);
            self.over_patches(values, &inside[1], |first| {
                let at = index(first, boxes);
                if in_cell[at] == 0.0 || in_window[at] == volume(window) {
                    CellSums::Constant(sums[at])
                } else {
                    CellSums::Products
                }
            })
        };
        let moving_sums = |values: &[f32]| {
            let sums = View { voxels: values, shape: self.moving.shape }.box_sums(cell, false);
            self.over_patches(&inside[0], values, |first| {
                let at = index(first, boxes);
                if in_cell[at] == 0.0 {
                    CellSums::Constant(0.0)
                } else if in_cell[at] == volume(cell) {
                    CellSums::Boxes(&sums)
                } else {
                    CellSums::Products
                }
            })
        };
        let f = [&inside[0], fixed, &squares[0]].map(fixed_sums);
        let m = [moving, &squares[1]].map(moving_sums);
        let product = self.over_patches(fixed, moving, |first| {
            if in_cell[index(first, boxes)] == 0.0 {
                CellSums::Constant(0.0)
            } else {
                CellSums::Products
            }
        });
        self.emit(&f, &m, &product, found);
    }

    /// Calls `found` with the moments of each patch, of which there is one for each shift.
    fn emit(
        &self,
        f: &[Vec<f64>; 3],
        m: &[Vec<f64>; 2],
        product: &[f64],
        mut found: impl FnMut(usize, Moments),
    ) {
        let length: usize = self.patches.shifts().iter().product();
        for (i, product) in product.chunks_exact(length).enumerate() {
            let range = i * length..(i + 1) * length;
            let moments = Moments {
                size: self.patches.size.iter().product::<usize>() as f64,
                fixed: [&f[0][range.clone()], &f[1][range.clone()], &f[2][range.clone()]],
                moving: [&m[0][range.clone()], &m[1][range.clone()]],
                product,
            };
            found(i, moments);
        }
    }

    /// The first voxel of patch `i`.
    fn position(&self, i: usize) -> [usize; 3] {
        let [_, ny, nx] = self.nodes;
        let node = [i / (ny * nx), i / nx % ny, i % nx];
        std::array::from_fn(|a| node[a] * self.patches.stride[a])
    }

    /// The sums over each patch of the products of `fixed` and `moving`, which have the shapes of
    /// the images, at each shift: `(patch, shift)`. `how` says, for the cell that begins at a voxel,
    /// how its sums are found.
    fn over_patches<'a>(
        &self,
        fixed: &[f32],
        moving: &[f32],
        how: impl Fn([usize; 3]) -> CellSums<'a>,
    ) -> Vec<f64> {
        let cell = self.patches.cell();
        let cells: [usize; 3] = std::array::from_fn(|a| self.fixed.shape[a] / cell[a]);
        let kernel = CellProducts {
            cell,
            shifts: self.patches.shifts(),
            fixed: self.fixed.shape,
            moving: self.moving.shape,
        };
        let length = kernel.len();
        let boxes: [usize; 3] = std::array::from_fn(|a| self.moving.shape[a] - cell[a] + 1);
        let per_patch: [usize; 3] = std::array::from_fn(|a| self.patches.size[a] / cell[a]);
        let per_stride: [usize; 3] = std::array::from_fn(|a| self.patches.stride[a] / cell[a]);
        let [_, ny, nx] = self.nodes;
        let mut row = vec![0.0; cells[2] * length];
        let mut sums = vec![0.0; cells[0] * cells[1] * nx * length];
        for (i, sums) in sums.chunks_exact_mut(nx * length).enumerate() {
            for (x, out) in row.chunks_exact_mut(length).enumerate() {
                let first = [i / cells[1] * cell[0], i % cells[1] * cell[1], x * cell[2]];
                match how(first) {
                    CellSums::Constant(sum) => out.fill(sum),
                    CellSums::Boxes(sums) => copy_box(sums, boxes, first, kernel.shifts, out),
                    CellSums::Products => {
                        out.fill(0.0);
                        cell_products(&kernel, fixed, moving, first, out);
                    }
                }
            }
            add_runs(&mut row, length, per_patch[2], per_stride[2], nx);
            sums.copy_from_slice(&row[..nx * length]);
        }
        for plane in sums.chunks_exact_mut(cells[1] * nx * length) {
            add_runs(plane, nx * length, per_patch[1], per_stride[1], ny);
        }
        // move the planes together
        let (plane, used) = (cells[1] * nx * length, ny * nx * length);
        for z in 1..cells[0] {
            sums.copy_within(z * plane..z * plane + used, z * used);
        }
        add_runs(&mut sums, used, per_patch[0], per_stride[0], self.nodes[0]);
        sums.truncate(self.nodes[0] * used);
        sums
    }
}

/// Replaces item `i`, for each `i < items`, by the sum of `count` items from item `i * step` on. An
/// item has `length` elements.
fn add_runs(values: &mut [f64], length: usize, count: usize, step: usize, items: usize) {
    for i in 0..items {
        let from = i * step * length;
        if from > 0 {
            values.copy_within(from..from + length, i * length);
        }
        for k in 1..count {
            let (head, tail) = values.split_at_mut(from + k * length);
            let target = &mut head[i * length..(i + 1) * length];
            for (sum, value) in target.iter_mut().zip(&tail[..length]) {
                *sum += value;
            }
        }
    }
}

/// The linear index of an element.
pub(super) fn index(at: [usize; 3], shape: [usize; 3]) -> usize {
    (at[0] * shape[1] + at[1]) * shape[2] + at[2]
}

/// Copies the box of the given size that begins at `first` from an array of the given shape.
fn copy_box(from: &[f64], shape: [usize; 3], first: [usize; 3], size: [usize; 3], to: &mut [f64]) {
    for (i, row) in to.chunks_exact_mut(size[2]).enumerate() {
        let at = index([first[0] + i / size[1], first[1] + i % size[1], first[2]], shape);
        row.copy_from_slice(&from[at..at + size[2]]);
    }
}
