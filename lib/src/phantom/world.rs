use super::noise::gradient_noise;
use super::random::{Random, mix};
use crate::geom::{Grid, Point};

/// The imaged object: a piece of tissue with nuclei, defined at every point of space.
///
/// Nothing is stored. Space is divided into cells, and the contents of a cell are generated from a
/// hash of the seed and the cell's index, so that each block of a volume of any size can be
/// rendered from its surroundings alone.
#[derive(Clone, Debug)]
pub(super) struct World {
    seed: u64,
    /// The unit of object sizes, in micrometres: the mean voxel spacing.
    unit: f64,
    centre: Point,
    half: Point,
}

/// A small bright spot, such as a transcript.
#[derive(Clone, Copy, Debug)]
pub(super) struct Punctum {
    pub(super) centre: Point,
    pub(super) brightness: f64,
    /// Whether the spot is visible in the fixed and in the moving round.
    pub(super) shows: [bool; 2],
}

/// A dark spot in a nucleus, in the normalised coordinates of [`Nucleus::shape`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Hollow {
    pub(super) centre: Point,
    pub(super) width: f64,
}

/// An ellipsoidal nucleus with texture.
#[derive(Clone, Debug)]
pub(super) struct Nucleus {
    pub(super) centre: Point,
    /// Maps an offset from the centre, in micrometres, to normalised coordinates in which the
    /// nucleus is the unit ball.
    pub(super) shape: [Point; 3],
    /// Largest semi-axis of the nucleus without its soft rim, micrometres.
    pub(super) reach: f64,
    /// Brightness in the fixed and in the moving round; 0 where the nucleus is missing.
    pub(super) brightness: [f64; 2],
    pub(super) hollows: Vec<Hollow>,
    pub(super) puncta: Vec<Punctum>,
}

/// Edge length of a cell, in units of [`World::unit`]; a cell holds at most one nucleus.
const CELL: f64 = 13.0;
/// Radius at which the soft rim of a nucleus ends, as a multiple of its semi-axes.
pub(super) const RIM: f64 = 1.15;
/// Largest semi-axis of a nucleus including its soft rim, in units of [`World::unit`].
const MAX_NUCLEUS: f64 = 8.0 * 1.25 * RIM;
/// Standard deviation of a punctum's Gaussian profile, in units of [`World::unit`].
const PUNCTUM: f64 = 0.9;

impl World {
    pub(super) fn new(seed: u64, fixed: &Grid) -> Self {
        Self {
            seed,
            unit: fixed.mean_spacing(),
            centre: fixed.position(fixed.shape.map(|n| (n as f64 - 1.0) / 2.0)),
            half: std::array::from_fn(|a| fixed.shape[a] as f64 * fixed.spacing[a] / 2.0),
        }
    }

    /// The largest distance, in micrometres, that any object extends from its centre.
    pub(super) fn reach(&self) -> f64 {
        (MAX_NUCLEUS + 4.0 * PUNCTUM) * self.unit
    }

    /// Standard deviation of a punctum's Gaussian profile, micrometres.
    pub(super) fn punctum_width(&self) -> f64 {
        PUNCTUM * self.unit
    }

    fn noise(&self, purpose: u64, width: f64, p: Point) -> f64 {
        let scale = 1.0 / (width * self.unit);
        f64::from(gradient_noise(mix(self.seed ^ purpose) as u32, p.map(|v| v * scale)))
    }

    /// The amount of tissue at `p`, 0 to 1: a rounded piece with empty corners.
    pub(super) fn tissue(&self, p: Point) -> f64 {
        let distance =
            (0..3).map(|a| ((p[a] - self.centre[a]) / self.half[a]).powi(2)).sum::<f64>().sqrt();
        let rim = 1.42 + 0.12 * self.noise(11, 60.0, p);
        smooth_step((rim - distance) / 0.07)
    }

    /// The slowly varying part of the unstained background at `p`: gradients and regions.
    pub(super) fn background(&self, p: Point) -> f64 {
        let tilt = (0..3)
            .zip([0.02, 0.035, -0.03])
            .map(|(a, slope)| slope * (p[a] - self.centre[a]) / self.half[a])
            .sum::<f64>();
        self.tissue(p) * (0.14 + tilt + 0.07 * self.noise(12, 75.0, p)).max(0.02)
    }

    /// The fine texture of the background at `p`, with mean about 0, to be multiplied by
    /// [`World::tissue`].
    pub(super) fn texture(&self, p: Point) -> f32 {
        0.06 * self.noise(13, 8.0, p) as f32
    }

    /// The chromatin texture at `p`, with mean about 0.
    pub(super) fn chromatin(&self, p: Point) -> f32 {
        0.55 * self.noise(14, 3.6, p) as f32
    }

    /// The probability that a cell at `p` holds a nucleus. It varies from layer to layer, and is 0
    /// in vessels and outside the tissue.
    fn density(&self, p: Point) -> f64 {
        let vessel = smooth_step((self.noise(15, 48.0, p).abs() - 0.03) / 0.08);
        let layers = 0.8 + 0.5 * self.noise(16, 95.0, p);
        self.tissue(p) * vessel * layers.clamp(0.15, 0.97)
    }

    /// The nuclei whose centres lie in cells that intersect the box `[low, high]`, micrometres.
    pub(super) fn nuclei(&self, [low, high]: [Point; 2]) -> Vec<Nucleus> {
        let side = CELL * self.unit;
        let first = low.map(|v| (v / side).floor() as i64);
        let last = high.map(|v| (v / side).floor() as i64);
        let mut nuclei = Vec::new();
        for z in first[0]..=last[0] {
            for y in first[1]..=last[1] {
                for x in first[2]..=last[2] {
                    nuclei.extend(self.nucleus([z, y, x]));
                }
            }
        }
        nuclei
    }

    fn nucleus(&self, cell: [i64; 3]) -> Option<Nucleus> {
        let mut random = Random::of_cell(self.seed, cell);
        let centre: Point = std::array::from_fn(|a| {
            (cell[a] as f64 + 0.5 + random.between(-0.42, 0.42)) * CELL * self.unit
        });
        if !random.chance(self.density(centre)) {
            return None;
        }
        // radius 3 to 8 units, median 4.3: many small, few large nuclei
        let radius = (3.0 + 5.0 * random.between(0.0, 1.0).powi(2)) * self.unit;
        let axes: Point = std::array::from_fn(|_| radius * random.between(0.78, 1.25));
        let turn = frame(random.direction(), random.direction());
        let shape = std::array::from_fn(|r| turn[r].map(|v| v / axes[r]));
        let stain = random.between(0.55, 1.3);
        let mut brightness: [f64; 2] =
            std::array::from_fn(|_| stain * (1.0 + 0.15 * random.normal()).max(0.3));
        let fate = random.between(0.0, 1.0);
        if fate < 0.05 {
            brightness[1] = 0.0; // lost between the rounds
        } else if fate < 0.08 {
            brightness[0] = 0.0; // hidden in the first round
        } else if fate < 0.12 {
            brightness[1] *= 0.4; // torn or bleached
        }
        let hollows = (0..random.between(0.0, 3.6) as usize)
            .map(|_| Hollow {
                centre: random.in_ball().map(|v| 0.6 * v),
                width: random.between(0.22, 0.36),
            })
            .collect();
        let puncta = self.puncta(&mut random, centre, radius, brightness);
        let reach = axes.iter().copied().fold(0.0, f64::max);
        Some(Nucleus { centre, shape, reach, brightness, hollows, puncta })
    }

    fn puncta(
        &self,
        random: &mut Random,
        centre: Point,
        radius: f64,
        brightness: [f64; 2],
    ) -> Vec<Punctum> {
        (0..random.between(0.0, 5.0) as usize)
            .map(|_| {
                let offset = random.in_ball();
                let both = random.chance(0.5);
                let first = random.chance(0.5);
                Punctum {
                    centre: std::array::from_fn(|a| centre[a] + 1.1 * radius * offset[a]),
                    brightness: random.between(0.4, 1.5),
                    shows: [(both || first), (both || !first)]
                        .iter()
                        .zip(brightness)
                        .map(|(&shows, brightness)| shows && brightness > 0.0)
                        .collect::<Vec<_>>()
                        .try_into()
                        .unwrap_or([false; 2]),
                }
            })
            .collect()
    }
}

/// Smooth step: 0 for `t <= 0`, 1 for `t >= 1`, with a continuous derivative.
pub(super) fn smooth_step(t: f64) -> f64 {
    let t = t.clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

/// Three orthonormal vectors, the first along `a`.
fn frame(a: Point, b: Point) -> [Point; 3] {
    let cross = |a: Point, b: Point| {
        [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
    };
    let across = cross(a, b);
    let length = across.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
    let across = across.map(|v| v / length);
    [a, across, cross(a, across)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world() -> World {
        World::new(1, &Grid::new([256; 3], [1.0; 3], [0.0; 3]))
    }

    #[test]
    fn a_piece_of_tissue_has_thousands_of_nuclei_and_empty_corners() {
        let world = world();
        let nuclei = world.nuclei([[0.0; 3], [255.0; 3]]);
        assert!((2500..7500).contains(&nuclei.len()), "{}", nuclei.len());
        assert!(world.nuclei([[0.0; 3], [12.0; 3]]).is_empty());
        let lost = nuclei.iter().filter(|n| n.brightness.contains(&0.0)).count();
        assert!(lost * 100 / nuclei.len() >= 4, "{lost} of {}", nuclei.len());
    }

    #[test]
    fn a_part_of_space_holds_the_same_nuclei_whoever_asks() {
        let world = world();
        let all = world.nuclei([[100.0; 3], [160.0; 3]]);
        let part = world.nuclei([[110.0; 3], [130.0; 3]]);
        assert!(!part.is_empty());
        for nucleus in &part {
            assert!(all.iter().any(|n| n.centre == nucleus.centre));
        }
        assert!(all.iter().all(|n| n.reach <= world.reach()));
    }
}
