use super::random::Random;
use crate::geom::{Affine, Grid, Point};

/// One plane wave of a deformation.
#[derive(Clone, Copy, Debug)]
struct Wave {
    /// Wave vector, radians per micrometre.
    vector: Point,
    /// Amplitude along each axis, micrometres.
    amplitude: Point,
    phase: f64,
}

/// A smooth displacement `u(p)` in micrometres: a sum of plane waves.
#[derive(Clone, Debug)]
pub(super) struct Deformation {
    waves: Vec<Wave>,
}

/// The true map from the fixed to the moving volume: `T(p) = A(p + u(p))`.
#[derive(Clone, Debug)]
pub(super) struct TrueMap {
    /// The affine `A`.
    pub(super) affine: Affine,
    /// The displacement `u`.
    pub(super) deformation: Deformation,
    back: Affine,
}

const WAVES: usize = 7;

impl Deformation {
    /// A random deformation whose largest displacement on `grid` is `most` voxels long, with
    /// wavelengths from `wavelength` voxels to twice that.
    pub(super) fn random(seed: u64, grid: &Grid, most: f64, wavelength: f64) -> Self {
        let mut random = Random::new(seed, 2);
        let waves = (0..WAVES)
            .map(|_| {
                let turn = std::f64::consts::TAU / (wavelength * random.between(1.0, 2.0));
                let (along, push) = (random.direction(), random.direction());
                Wave {
                    vector: std::array::from_fn(|a| turn * along[a] / grid.spacing[a]),
                    amplitude: std::array::from_fn(|a| push[a] * grid.spacing[a]),
                    phase: random.between(0.0, std::f64::consts::TAU),
                }
            })
            .collect();
        let mut this = Self { waves };
        let max_displacement = this.max_displacement(grid);
        for wave in &mut this.waves {
            wave.amplitude = wave.amplitude.map(|v| v * most / max_displacement);
        }
        this
    }

    /// The displacement at `p`, micrometres.
    pub(super) fn at(&self, p: Point) -> Point {
        let mut sum = [0.0; 3];
        for wave in &self.waves {
            let height = wave.angle(p).sin();
            for a in 0..3 {
                sum[a] += wave.amplitude[a] * height;
            }
        }
        sum
    }

    /// The displacement and its Jacobian matrix: rows are components, columns are directions.
    fn with_slope(&self, p: Point) -> (Point, [Point; 3]) {
        let (mut sum, mut slope) = ([0.0; 3], [[0.0; 3]; 3]);
        for wave in &self.waves {
            let (sin, cos) = wave.angle(p).sin_cos();
            for a in 0..3 {
                sum[a] += wave.amplitude[a] * sin;
                for b in 0..3 {
                    slope[a][b] += wave.amplitude[a] * cos * wave.vector[b];
                }
            }
        }
        (sum, slope)
    }

    /// The Jacobian matrix of `p + u(p)`, without translation.
    pub(super) fn jacobian(&self, p: Point) -> Affine {
        let (_, mut slope) = self.with_slope(p);
        for a in 0..3 {
            slope[a][a] += 1.0;
        }
        Affine::from_parts(slope, [0.0; 3])
    }

    /// The smallest Jacobian determinant of `p + u(p)` at sample points of `grid`. The determinant
    /// is the local change of volume; where it is 0 or less, the deformation folds.
    pub(super) fn min_jacobian(&self, grid: &Grid) -> f64 {
        samples(grid).map(|p| self.jacobian(p).determinant()).fold(f64::INFINITY, f64::min)
    }

    /// The length of the largest displacement at sample points of `grid`, in voxels.
    pub(super) fn max_displacement(&self, grid: &Grid) -> f64 {
        samples(grid)
            .map(|p| {
                let u = self.at(p);
                (0..3).map(|a| (u[a] / grid.spacing[a]).powi(2)).sum::<f64>().sqrt()
            })
            .fold(0.0, f64::max)
    }

    /// An upper bound of the displacement along each axis, micrometres.
    pub(super) fn reach(&self) -> Point {
        std::array::from_fn(|a| self.waves.iter().map(|w| w.amplitude[a].abs()).sum())
    }

    /// Solves `p + u(p) = target` for `p` by Newton's method, to within 1e-9 micrometres.
    pub(super) fn invert(&self, target: Point) -> Point {
        let (first, _) = self.with_slope(target);
        let mut p: Point = std::array::from_fn(|a| target[a] - first[a]);
        for _ in 0..30 {
            let (u, mut slope) = self.with_slope(p);
            let miss: Point = std::array::from_fn(|a| p[a] + u[a] - target[a]);
            if miss.iter().all(|v| v.abs() < 1e-9) {
                break;
            }
            for a in 0..3 {
                slope[a][a] += 1.0;
            }
            // where the Jacobian is singular, take a fixed-point step; `Rounds::pair` ensures that
            // the Jacobian can be singular only outside the fixed volume
            let step = Affine::from_parts(slope, [0.0; 3])
                .inverse()
                .map_or(miss, |inverse| inverse.apply_vector(miss));
            for a in 0..3 {
                p[a] -= step[a];
            }
        }
        p
    }
}

impl Wave {
    #[inline]
    fn angle(&self, p: Point) -> f64 {
        self.vector[0] * p[0] + self.vector[1] * p[1] + self.vector[2] * p[2] + self.phase
    }
}

/// Positions on a lattice of 21 points along each axis of `grid`.
fn samples(grid: &Grid) -> impl Iterator<Item = Point> {
    let grid = *grid;
    const STEPS: usize = 20;
    (0..=STEPS.pow(3) + 3 * STEPS.pow(2) + 3 * STEPS).map(move |i| {
        let n = STEPS + 1;
        let at = [i / (n * n), i / n % n, i % n];
        grid.position(std::array::from_fn(|a| {
            at[a] as f64 / STEPS as f64 * (grid.shape[a] as f64 - 1.0)
        }))
    })
}

impl TrueMap {
    /// A map typical of a second round of staining: a rotation by 2 to 5 degrees, a scaling by
    /// 2 to 4 %, about 1 % of shear, a shift by 6 to 10 % of the size, and `deformation`.
    pub(super) fn random(seed: u64, fixed: &Grid, moving: &Grid, deformation: Deformation) -> Self {
        let mut random = Random::new(seed, 3);
        let turn = rotation(random.direction(), random.between(2f64, 5.0).to_radians());
        let grows = random.sign();
        let mut stretch = [[0.0; 3]; 3];
        for a in 0..3 {
            stretch[a][a] = 1.0 + grows * random.between(0.02, 0.04);
            for row in stretch.iter_mut().take(a) {
                row[a] = random.sign() * random.between(0.005, 0.015);
            }
        }
        let centre = |grid: &Grid| grid.position(grid.shape.map(|n| (n as f64 - 1.0) / 2.0));
        let (from, to) = (centre(fixed), centre(moving));
        let to: Point = std::array::from_fn(|a| {
            let size = fixed.shape[a] as f64 * fixed.spacing[a];
            to[a] + random.sign() * random.between(0.06, 0.10) * size
        });
        let affine = Affine::translation(from.map(|v| -v))
            .then(&Affine::from_parts(stretch, [0.0; 3]))
            .then(&Affine::from_parts(turn, to));
        // a rotation times a stretch within 6 % of the identity is invertible
        let back = affine.inverse().unwrap_or(Affine::IDENTITY);
        Self { affine, deformation, back }
    }

    /// Maps the fixed point `p` to the moving volume, micrometres.
    pub(super) fn apply(&self, p: Point) -> Point {
        let u = self.deformation.at(p);
        self.affine.apply(std::array::from_fn(|a| p[a] + u[a]))
    }

    /// Maps the moving point `q` to the fixed volume, micrometres.
    pub(super) fn invert(&self, q: Point) -> Point {
        self.deformation.invert(self.back.apply(q))
    }

    /// The Jacobian matrix at the fixed point `p`.
    pub(super) fn jacobian(&self, p: Point) -> [Point; 3] {
        self.deformation.jacobian(p).then(&self.affine).linear()
    }
}

/// The matrix of the rotation by `angle` about `axis` (Rodrigues), with the axis order of `axis`.
fn rotation(axis: Point, angle: f64) -> [Point; 3] {
    let (sin, cos) = angle.sin_cos();
    let [a, b, c] = axis;
    let cross = [[0.0, -c, b], [c, 0.0, -a], [-b, a, 0.0]];
    std::array::from_fn(|r| {
        std::array::from_fn(|k| {
            let one = if r == k { cos } else { 0.0 };
            one + (1.0 - cos) * axis[r] * axis[k] + sin * cross[r][k]
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(seed: u64) -> (Grid, TrueMap) {
        let grid = Grid::new([256, 200, 300], [1.0, 0.8, 0.8], [0.0; 3]);
        let deformation = Deformation::random(seed, &grid, 8.0, 256.0);
        (grid, TrueMap::random(seed, &grid, &grid, deformation))
    }

    #[test]
    fn the_map_back_undoes_the_map() {
        for seed in 0..5 {
            let (grid, map) = map(seed);
            for p in samples(&grid).step_by(97) {
                let back = map.invert(map.apply(p));
                assert!((0..3).all(|a| (back[a] - p[a]).abs() < 1e-6), "{p:?} {back:?}");
            }
        }
    }

    #[test]
    fn the_deformation_is_as_long_as_asked_and_does_not_fold() {
        for seed in 0..20 {
            let (grid, map) = map(seed);
            assert!((map.deformation.max_displacement(&grid) - 8.0).abs() < 1e-9);
            assert!(map.deformation.min_jacobian(&grid) > 0.4);
            let parts = map.affine.decompose();
            assert!((1.5..6.0).contains(&parts.angle.to_degrees()), "{}", parts.angle);
        }
    }

    #[test]
    fn the_derivative_is_that_of_the_map() {
        let (_, map) = map(3);
        let p = [100.0, 60.0, 120.0];
        let jacobian = map.jacobian(p);
        for b in 0..3 {
            let mut shifted = p;
            shifted[b] += 1e-4;
            let (here, there) = (map.apply(p), map.apply(shifted));
            for a in 0..3 {
                assert!(((there[a] - here[a]) / 1e-4 - jacobian[a][b]).abs() < 1e-4);
            }
        }
    }
}
