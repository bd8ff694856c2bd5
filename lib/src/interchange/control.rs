//! Control point grids of NiftyReg: cubic B-splines whose coefficients are positions
//! (`reg_f3d -cpp`; Modat et al., Computer Methods and Programs in Biomedicine 98(3), 2010).

use super::bspline::BSpline;
use super::map_steps::Payload;
use super::read_error::ReadError;
use super::world::{Placement, World};

/// A grid of control points with more numbers than this is refused.
const MAX_NUMBERS: usize = 6 << 20;

/// The spline whose control points lie at `placement` and whose coefficients are the positions in
/// `payload`, both in the coordinates `world`. In `payload`, all x components come first, then y,
/// then z.
///
/// If the coefficients are the positions of the control points, the spline is the identity. The
/// coefficients of the displacement are therefore `payload` minus the control point positions.
pub(super) fn spline(
    placement: &Placement,
    world: World,
    components: usize,
    payload: &Payload,
) -> Result<BSpline, ReadError> {
    let mut numbers = payload.numbers(MAX_NUMBERS)?;
    let [_, ny, nx] = placement.shape;
    let count = numbers.len() / components.max(1);
    for (c, positions) in numbers.chunks_mut(count.max(1)).enumerate() {
        for (i, value) in positions.iter_mut().enumerate() {
            let at = [i % nx, i / nx % ny, i / nx / ny];
            let steps = (0..3).map(|a| at[a] as f64 * placement.steps[a][c]);
            *value -= placement.origin[c] + steps.sum::<f64>();
        }
    }
    // the image's first voxel lies at the border of the valid region, up to single precision
    Ok(BSpline::new(placement, world, 3, components, &numbers)?.in_single_precision())
}

#[cfg(test)]
mod tests {
    use super::super::map_steps::SmoothMap;
    use super::super::world::AnatomicalFrame;
    use super::*;
    use crate::volume::{ByteOrder, Dtype, FlatVectors};

    const RAS: World = World { frame: AnatomicalFrame::Ras, micrometres: 1e3 };

    /// NiftyReg's definition: the weighted sum of the positions of the 64 control points around
    /// `p`, x, y, z in millimetres.
    fn slowly(placement: &Placement, numbers: &[f64], p: [f64; 3]) -> [f64; 3] {
        let shape = placement.shape;
        let count = shape.iter().product::<usize>();
        let basis = |t: f64| -> [f64; 4] {
            [
                (1.0 - t).powi(3) / 6.0,
                (3.0 * t.powi(3) - 6.0 * t * t + 4.0) / 6.0,
                (-3.0 * t.powi(3) + 3.0 * t * t + 3.0 * t + 1.0) / 6.0,
                t.powi(3) / 6.0,
            ]
        };
        let index: [f64; 3] =
            std::array::from_fn(|a| (p[a] - placement.origin[a]) / placement.steps[a][a]);
        let mut sum = [0.0; 3];
        for k in 0..4 {
            for j in 0..4 {
                for i in 0..4 {
                    let at: [usize; 3] =
                        std::array::from_fn(|a| index[a].floor() as usize - 1 + [i, j, k][a]);
                    let weight: f64 =
                        (0..3).map(|a| basis(index[a].fract())[[i, j, k][a]]).product();
                    let n = (at[2] * shape[1] + at[1]) * shape[2] + at[0];
                    for c in 0..3 {
                        sum[c] += weight * numbers[c * count + n];
                    }
                }
            }
        }
        sum
    }

    #[test]
    fn control_points_take_points_where_niftyreg_takes_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("raw");
        // x is mirrored, as in many NIfTI files
        let cosines = [[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let placement = Placement::new([6, 7, 8], [0.5, 0.4, 0.3], [2.0, -0.4, -0.3], &cosines);
        let numbers: Vec<f64> = (0..3 * 336)
            .map(|n: usize| {
                let (c, i) = (n / 336, n % 336);
                let at = [i % 8, i / 8 % 7, i / 56];
                let place = placement.origin[c] + at[c] as f64 * placement.steps[c][c];
                place + ((n * 7919) % 101) as f64 * 1e-3 - 0.05
            })
            .collect();
        std::fs::write(&path, numbers.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
            .unwrap();
        let payload = Payload::Flat(FlatVectors {
            location: "raw".into(),
            path,
            offset: 0,
            dtype: Dtype::F64,
            order: ByteOrder::Little,
            shape: placement.shape,
            components: 3,
            planar: true,
        });
        let spline = spline(&placement, RAS, 3, &payload).unwrap();
        for p in [[0.1, 0.2, 0.3], [-0.55, 0.9, 0.61], [1.2, 0.05, 0.2]] {
            let (got, want) = (spline.apply(RAS.vector(p)), slowly(&placement, &numbers, p));
            let want = RAS.vector(want);
            assert!((0..3).all(|a| (got[a] - want[a]).abs() < 1e-9), "{got:?} {want:?}");
        }
    }
}
