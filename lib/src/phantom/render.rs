use super::map::TrueMap;
use super::random::{mix, normal_of};
use super::world::{Nucleus, RIM, World, smooth_step};
use crate::device::Cost;
use crate::geom::{Box3, Grid, Point};

/// The parameters with which a round of imaging renders the world.
#[derive(Clone, Debug)]
pub(super) struct Camera<'a> {
    pub(super) world: &'a World,
    /// The map from the world to the moving round; `None` for the fixed round, whose coordinates
    /// are those of the world.
    pub(super) map: Option<&'a TrueMap>,
    pub(super) grid: Grid,
    /// 0 for the fixed round, 1 for the moving one.
    pub(super) round: usize,
    /// Counts per unit of brightness.
    pub(super) gain: f32,
    /// Counts without light.
    pub(super) offset: f32,
    /// Factor by which the background is multiplied.
    pub(super) haze: f32,
    /// Relative difference in illumination between the last and the first voxel along y.
    pub(super) shading: f32,
    /// Strength of the noise; 1 corresponds to a good camera.
    pub(super) noise: f32,
    pub(super) seed: u64,
}

/// Standard deviation of the microscope's blur along z, y, x, voxels.
const BLUR: [f32; 3] = [0.95, 0.7, 0.7];
/// Half-width of the blur kernel, voxels.
const MARGIN: usize = 3;
/// Positions are computed at every `STEP`-th voxel, with cubic interpolation in between. For
/// displacements of 8 voxels at wavelengths of 128 voxels or more, the error is at most 3e-4 voxel.
const STEP: i64 = 4;
/// Counts per photon.
const PHOTON: f32 = 1.6;
/// Standard deviation of the electronic noise, counts.
const ELECTRONICS: f32 = 6.0;

/// World positions, tissue and slowly varying background of the voxels of a box.
struct BoxScene {
    part: Box3,
    positions: Vec<Point>,
    tissue: Vec<f32>,
    background: Vec<f32>,
}

impl Camera<'_> {
    /// Peak memory of [`Camera::render`] for a box of `block` voxels.
    pub(super) fn memory(block: [usize; 3]) -> Cost {
        let voxels: usize = block.iter().map(|n| n + 2 * MARGIN).product();
        // interpolation gives one array of positions, tissue and background, which is then split
        // into three
        Cost::of::<[f64; 5]>("positions and background, interpolated", voxels)
            + Cost::of::<[f64; 3]>("positions", voxels)
            + Cost::of::<[f32; 2]>("tissue and background", voxels)
    }

    /// The image of `part`, in C order.
    pub(super) fn render(&self, part: &Box3) -> Vec<u16> {
        let scene = self.scene(part.grow([MARGIN as i64; 3]));
        let mut light: Vec<f32> = scene
            .positions
            .iter()
            .zip(scene.tissue.iter().zip(&scene.background))
            .map(|(&p, (&tissue, &background))| {
                // skip the texture of empty space, which is expensive and invisible
                if tissue < 1e-3 {
                    return 0.0;
                }
                self.haze * (background + tissue * self.world.texture(p)).max(0.0)
            })
            .collect();
        for nucleus in self.world.nuclei(scene.extent(self.world.reach())) {
            self.add_nucleus(&nucleus, &scene, &mut light);
        }
        let shape = scene.part.shape();
        for axis in 0..3 {
            blur(&mut light, shape, axis);
        }
        self.expose(part, &scene.part, &light)
    }

    fn world_of(&self, q: Point) -> Point {
        self.map.map_or(q, |map| map.invert(q))
    }

    fn scene(&self, part: Box3) -> BoxScene {
        let low = part.min.map(|v| v.div_euclid(STEP) - 1);
        let nodes: [usize; 3] =
            std::array::from_fn(|a| ((part.max[a] - 1).div_euclid(STEP) + 3 - low[a]) as usize);
        let mut lattice = Vec::with_capacity(nodes.iter().product());
        for z in 0..nodes[0] {
            for y in 0..nodes[1] {
                for x in 0..nodes[2] {
                    let at = [z, y, x];
                    let q = self
                        .grid
                        .position(std::array::from_fn(|a| ((low[a] + at[a] as i64) * STEP) as f64));
                    let p = self.world_of(q);
                    let (tissue, background) = (self.world.tissue(p), self.world.background(p));
                    lattice.push([p[0], p[1], p[2], tissue, background]);
                }
            }
        }
        // interpolate along one axis after the other, so that only the last pass works on full-size
        // arrays
        let shape = part.shape();
        let along_x = refine(&lattice, [nodes[0] * nodes[1], nodes[2], 1], part.min[2], shape[2]);
        let along_y = refine(&along_x, [nodes[0], nodes[1], shape[2]], part.min[1], shape[1]);
        let all = refine(&along_y, [1, nodes[0], shape[1] * shape[2]], part.min[0], shape[0]);
        BoxScene {
            part,
            positions: all.iter().map(|v| [v[0], v[1], v[2]]).collect(),
            tissue: all.iter().map(|v| v[3] as f32).collect(),
            background: all.iter().map(|v| v[4] as f32).collect(),
        }
    }

    /// The voxels of the scene within `reach` micrometres of the world position `centre`.
    fn footprint(&self, centre: Point, reach: f64, scene: &BoxScene) -> Box3 {
        let (at, half) = match self.map {
            None => (centre, [reach; 3]),
            Some(map) => {
                let rows = map.jacobian(centre);
                // the Jacobian varies little over a nucleus; a margin of 10 % allows for its
                // variation
                let half = rows.map(|r| 1.1 * reach * r.iter().map(|v| v * v).sum::<f64>().sqrt());
                (map.apply(centre), half)
            }
        };
        self.grid
            .enclosing([
                std::array::from_fn(|a| at[a] - half[a]),
                std::array::from_fn(|a| at[a] + half[a]),
            ])
            .intersect(&scene.part)
    }

    fn add_nucleus(&self, nucleus: &Nucleus, scene: &BoxScene, light: &mut [f32]) {
        let brightness = nucleus.brightness[self.round] as f32;
        if brightness > 0.0 {
            let part = self.footprint(nucleus.centre, nucleus.reach * RIM, scene);
            scene.each(&part, |at| {
                let p = scene.positions[at];
                let offset: Point = std::array::from_fn(|a| p[a] - nucleus.centre[a]);
                let own =
                    nucleus.shape.map(|r| r[0] * offset[0] + r[1] * offset[1] + r[2] * offset[2]);
                let radius = own.iter().map(|v| v * v).sum::<f64>();
                if radius < RIM * RIM {
                    light[at] += brightness * stain(self.world, nucleus, p, own, radius.sqrt());
                }
            });
        }
        let width = self.world.punctum_width();
        for punctum in nucleus.puncta.iter().filter(|p| p.shows[self.round]) {
            let part = self.footprint(punctum.centre, 3.5 * width, scene);
            scene.each(&part, |at| {
                let p = scene.positions[at];
                let square = (0..3).map(|a| (p[a] - punctum.centre[a]).powi(2)).sum::<f64>();
                let fall = -square / (2.0 * width * width);
                if fall > -6.2 {
                    light[at] += (punctum.brightness * fall.exp()) as f32;
                }
            });
        }
    }

    /// Converts light to counts: shading, shot noise, electronic noise.
    fn expose(&self, part: &Box3, rim: &Box3, light: &[f32]) -> Vec<u16> {
        let (shape, outer) = (part.shape(), rim.shape());
        let mut counts = Vec::with_capacity(part.len());
        let seed = mix(self.seed ^ 0x0C0F_FEE0 ^ self.round as u64);
        for z in 0..shape[0] {
            for y in 0..shape[1] {
                let row = ((z + MARGIN) * outer[1] + y + MARGIN) * outer[2] + MARGIN;
                let (zz, yy) = (part.min[0] as u64 + z as u64, part.min[1] as u64 + y as u64);
                let across = yy as f32 / self.grid.shape[1] as f32 - 0.5;
                let lit = self.gain * (1.0 + self.shading * across);
                let base = mix(seed ^ mix(zz << 32 | yy));
                for x in 0..shape[2] {
                    let mean = lit * light[row + x].max(0.0);
                    let a = mix(base.wrapping_add(part.min[2] as u64 + x as u64));
                    let chance = normal_of(a, mix(a ^ 0x5DEE_CE66));
                    let spread = (mean * PHOTON + ELECTRONICS * ELECTRONICS).sqrt() * self.noise;
                    counts.push((self.offset + mean + spread * chance).round() as u16);
                }
            }
        }
        counts
    }
}

impl BoxScene {
    /// The bounding box of the scene in the world, grown by `margin`, both in micrometres.
    fn extent(&self, margin: f64) -> [Point; 2] {
        let mut extent = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
        for p in &self.positions {
            for a in 0..3 {
                extent[0][a] = extent[0][a].min(p[a] - margin);
                extent[1][a] = extent[1][a].max(p[a] + margin);
            }
        }
        extent
    }

    fn each(&self, part: &Box3, mut visit: impl FnMut(usize)) {
        let shape = self.part.shape();
        let local = part.shift(self.part.min.map(|v| -v));
        for z in local.min[0]..local.max[0] {
            for y in local.min[1]..local.max[1] {
                let row = (z as usize * shape[1] + y as usize) * shape[2];
                for x in local.min[2]..local.max[2] {
                    visit(row + x as usize);
                }
            }
        }
    }
}

/// Brightness of a nucleus at `p`: soft rim, chromatin texture and hollows.
fn stain(world: &World, nucleus: &Nucleus, p: Point, own: Point, radius: f64) -> f32 {
    let rim = smooth_step((RIM - radius) / (2.0 * (RIM - 1.0))) as f32;
    let hollows = nucleus.hollows.iter().fold(1.0, |left, hollow| {
        let square = (0..3).map(|a| (own[a] - hollow.centre[a]).powi(2)).sum::<f64>();
        left * (1.0 - 0.7 * (-square / (hollow.width * hollow.width)).exp())
    }) as f32;
    rim * hollows * (1.0 + world.chromatin(p))
}

/// Interpolates from every `STEP`-th voxel to each voxel, along the middle axis of `shape`, which
/// is `[outer, nodes, inner]`.
///
/// The result covers `count` voxels, beginning with voxel `first`. Node 1 is the last node at or
/// before `first`. Interpolation is cubic through four nodes (Lagrange).
fn refine(values: &[[f64; 5]], shape: [usize; 3], first: i64, count: usize) -> Vec<[f64; 5]> {
    let [outer, nodes, inner] = shape;
    let low = first.div_euclid(STEP);
    let mut out = Vec::with_capacity(outer * count * inner);
    for o in 0..outer {
        for i in 0..count as i64 {
            let node = ((first + i).div_euclid(STEP) - low) as usize;
            let t = (first + i).rem_euclid(STEP) as f64 / STEP as f64;
            let weights = [
                -t * (t - 1.0) * (t - 2.0) / 6.0,
                (t + 1.0) * (t - 1.0) * (t - 2.0) / 2.0,
                -(t + 1.0) * t * (t - 2.0) / 2.0,
                (t + 1.0) * t * (t - 1.0) / 6.0,
            ];
            let row = (o * nodes + node) * inner;
            for k in 0..inner {
                out.push(std::array::from_fn(|c| {
                    (0..4).map(|n| weights[n] * values[row + n * inner + k][c]).sum()
                }));
            }
        }
    }
    out
}

/// Gaussian blur along one axis; the box is padded by repeating its edge values.
fn blur(values: &mut [f32], shape: [usize; 3], axis: usize) {
    let mut kernel = [0.0; 2 * MARGIN + 1];
    for (i, weight) in kernel.iter_mut().enumerate() {
        let x = (i as f32 - MARGIN as f32) / BLUR[axis];
        *weight = (-x * x / 2.0).exp();
    }
    let sum: f32 = kernel.iter().sum();
    let kernel = kernel.map(|w| w / sum);
    let inner: usize = shape[axis + 1..].iter().product();
    let length = shape[axis];
    let mut padded = vec![0.0; (length + 2 * MARGIN) * inner];
    for slab in values.chunks_exact_mut(length * inner) {
        for i in 0..length + 2 * MARGIN {
            let from = i.saturating_sub(MARGIN).min(length - 1) * inner;
            padded[i * inner..(i + 1) * inner].copy_from_slice(&slab[from..from + inner]);
        }
        slab.fill(0.0);
        for (tap, &weight) in kernel.iter().enumerate() {
            let shifted = &padded[tap * inner..];
            for (out, &value) in slab.iter_mut().zip(shifted) {
                *out += weight * value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::map::Deformation;
    use super::*;

    fn setting() -> (World, TrueMap, Grid) {
        let grid = Grid::new([96, 80, 88], [1.0, 0.8, 0.8], [0.0; 3]);
        let deformation = Deformation::random(5, &grid, 6.0, 200.0);
        (World::new(5, &grid), TrueMap::random(5, &grid, &grid, deformation), grid)
    }

    fn camera<'a>(world: &'a World, map: Option<&'a TrueMap>, grid: Grid) -> Camera<'a> {
        let round = usize::from(map.is_some());
        Camera {
            world,
            map,
            grid,
            round,
            gain: 900.0,
            offset: 100.0,
            haze: 1.0,
            shading: 0.1,
            noise: 0.0,
            seed: 5,
        }
    }

    #[test]
    fn an_image_is_the_same_however_it_is_cut_into_blocks() {
        let (world, map, grid) = setting();
        let camera = Camera { noise: 1.0, ..camera(&world, Some(&map), grid) };
        let whole = camera.render(&Box3::new([30, 20, 10], [62, 52, 58]));
        let part = Box3::new([37, 25, 21], [49, 38, 55]);
        let cut = camera.render(&part);
        let (shape, mut i) = ([32, 32, 48], 0);
        for z in 7..19 {
            for y in 5..18 {
                for x in 11..45 {
                    assert_eq!(cut[i], whole[(z * shape[1] + y) * shape[2] + x]);
                    i += 1;
                }
            }
        }
    }

    #[test]
    fn a_moving_voxel_shows_the_world_where_the_map_came_from() {
        let (world, map, grid) = setting();
        let camera = camera(&world, Some(&map), grid);
        let part = Box3::new([33, 41, 26], [45, 52, 38]);
        let scene = camera.scene(part);
        let mut worst = 0f64;
        for (i, p) in scene.positions.iter().enumerate() {
            let at = [i / 132, i / 12 % 11, i % 12];
            let q = map.apply(*p);
            let want = grid.position(std::array::from_fn(|a| part.min[a] as f64 + at[a] as f64));
            worst = (0..3).map(|a| (q[a] - want[a]).abs()).fold(worst, f64::max);
        }
        assert!(worst < 2e-4, "{worst} um from its place");
    }

    #[test]
    fn tissue_is_brighter_than_darkness_and_noise_adds_spread() {
        let (world, _, grid) = setting();
        let part = Box3::new([32, 24, 28], [64, 56, 60]);
        let quiet = camera(&world, None, grid).render(&part);
        let loud = Camera { noise: 1.0, ..camera(&world, None, grid) }.render(&part);
        let mean = quiet.iter().map(|&v| f64::from(v)).sum::<f64>() / quiet.len() as f64;
        assert!(mean > 150.0, "{mean}");
        assert!(quiet.iter().max() > Some(&500));
        let spread = quiet
            .iter()
            .zip(&loud)
            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
            .sum::<f64>()
            / quiet.len() as f64;
        assert!((100.0..3000.0).contains(&spread), "variance {spread}");
    }
}
