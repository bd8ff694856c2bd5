//! Low-frequency description of a context by its discrete cosine coefficients.
//!
//! Contexts are smooth blobs: of the 15625 coefficients of a context of 25^3 voxels, 222 hold four
//! fifths of the energy. By Parseval's theorem and the Cauchy-Schwarz inequality, the dot product
//! of the omitted parts of two contexts is at most the product of their norms. This bounds the
//! correlation of the contexts without computing it.

use super::cpu::{CoefficientRow, expand_lines, expand_rows};

/// The maximum number of coefficients along each axis.
const AXIS: usize = 7;

/// The maximum squared length of the wave vectors that are kept, of which there are then 222. Of
/// the 22.5 million pairs of spots of BigStream's tutorial, 6100 must then be correlated voxel by
/// voxel to find 2515 matches, counting both directions.
const RADIUS_SQUARED: usize = 45;

/// An orthonormal basis of low-frequency cosines (DCT-II) on a box of voxels.
pub(super) struct Basis {
    /// The shape of the box, z, y, x.
    size: [usize; 3],
    /// The cosines, indexed by `[axis][position][coefficient]`.
    cosines: [Vec<CoefficientRow>; 3],
    /// The number of coefficients along each axis.
    counts: [usize; 3],
    /// The wave vectors that are kept, `[z, y, x]`; `[0, 0, 0]`, the mean, is not kept.
    kept: Vec<[usize; 3]>,
}

impl Basis {
    pub(super) fn new(size: [usize; 3]) -> Self {
        let counts = size.map(|n| n.min(AXIS));
        let mut kept = Vec::new();
        for z in 0..counts[0] {
            for y in 0..counts[1] {
                for x in 0..counts[2] {
                    if (1..=RADIUS_SQUARED).contains(&(z * z + y * y + x * x)) {
                        kept.push([z, y, x]);
                    }
                }
            }
        }
        Self { size, cosines: size.map(cosines), counts, kept }
    }

    /// The number of coefficients per context.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Computes the coefficients of a context of the basis' size; `lines` is scratch memory.
    pub(super) fn project(
        &self,
        context: &[f32],
        lines: &mut Vec<CoefficientRow>,
        out: &mut [f32],
    ) {
        let [nz, ny, _] = self.size;
        let [kz, ky, _] = self.counts;
        let [bz, by, bx] = &self.cosines;
        lines.clear();
        lines.resize(nz * ny, [0.0; 8]);
        expand_lines(context, bx, lines);
        // in each plane, the first ky rows are replaced by the ky cosine coefficients along y
        for plane in lines.chunks_exact_mut(ny) {
            let mut short = [[0.0; 8]; AXIS];
            expand_rows(plane, 1, by, &mut short[..ky]);
            plane[..ky].copy_from_slice(&short[..ky]);
        }
        let mut all = [[[0.0; 8]; AXIS]; AXIS];
        for y in 0..ky {
            expand_rows(&lines[y..], ny, bz, &mut all[y][..kz]);
        }
        for (out, &[z, y, x]) in out.iter_mut().zip(&self.kept) {
            *out = all[y][z][x];
        }
    }
}

/// The first [`AXIS`] cosines at `n` positions, or the first `n` if `n` is smaller, each of norm 1.
fn cosines(n: usize) -> Vec<CoefficientRow> {
    let wave = |i: usize, k: usize| {
        let scale = if k == 0 { 1.0 / n as f64 } else { 2.0 / n as f64 }.sqrt();
        scale * (std::f64::consts::PI * k as f64 * (i as f64 + 0.5) / n as f64).cos()
    };
    (0..n)
        .map(|i| std::array::from_fn(|k| if k < n.min(AXIS) { wave(i, k) as f32 } else { 0.0 }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vector_of_the_basis_has_length_one_and_is_at_right_angles_to_the_others() {
        let size = [5, 9, 4];
        let basis = Basis::new(size);
        let voxels: usize = size.iter().product();
        // row v contains the coefficients of the unit impulse at voxel v
        let mut table = vec![0.0; voxels * basis.len()];
        let mut lines = Vec::new();
        for (v, out) in table.chunks_mut(basis.len()).enumerate() {
            let mut impulse = vec![0.0; voxels];
            impulse[v] = 1.0;
            basis.project(&impulse, &mut lines, out);
        }
        for a in 0..basis.len() {
            for b in 0..=a {
                let product: f32 = table.chunks(basis.len()).map(|row| row[a] * row[b]).sum();
                let wanted = if a == b { 1.0 } else { 0.0 };
                assert!((product - wanted).abs() < 1e-5, "{a} {b}: {product}");
            }
        }
    }

    #[test]
    fn a_constant_has_no_coefficients() {
        let basis = Basis::new([7, 5, 9]);
        let mut out = vec![1.0; basis.len()];
        basis.project(&vec![3.0; 7 * 5 * 9], &mut Vec::new(), &mut out);
        assert!(out.iter().all(|v| v.abs() < 1e-4));
    }
}
