//! What the tissue of a section is made of: how much weaker springs are in it.

use serde::Serialize;

use super::springs::springs;
use crate::blocks;
use crate::geom::{Box3, Chain, Grid, Point};
use crate::volume::{Label, Volume};
use crate::warp::points;

/// The side of the tiles of nodes whose springs are looked up at once.
const TILE: usize = 16;
/// The greatest number of places of a spring that are looked up.
const SAMPLES: f64 = 1000.0;

/// The factors of the constants of springs in labelled places, relative to those in tissue.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Materials {
    /// Of what is excluded.
    pub excluded: f64,
    /// Of soft tissue.
    pub soft: f64,
    /// Of tears.
    pub tear: f64,
    /// Of wrinkles.
    pub wrinkle: f64,
}

impl Default for Materials {
    fn default() -> Self {
        Self { excluded: 1.0, soft: 0.1, tear: 1e-4, wrinkle: 1e-2 }
    }
}

impl std::str::FromStr for Materials {
    type Err = String;

    /// Parses factors by name, such as `soft=0.2,tear=0.001`; the others are the default.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut materials = Self::default();
        for part in text.split(',') {
            let wanted = "wanted NAME=FACTOR,... with excluded, soft, tear or wrinkle";
            let (name, factor) = part.split_once('=').ok_or(wanted)?;
            let factor: f64 = factor.trim().parse().map_err(|_| wanted)?;
            if !(1e-6..=1e3).contains(&factor) {
                return Err(format!("{factor} is out of range; wanted 0.000001 to 1000"));
            }
            *match name.trim() {
                "excluded" => &mut materials.excluded,
                "soft" => &mut materials.soft,
                "tear" => &mut materials.tear,
                "wrinkle" => &mut materials.wrinkle,
                _ => return Err(wanted.to_owned()),
            } = factor;
        }
        Ok(materials)
    }
}

impl Materials {
    fn factor(&self, label: Label) -> f64 {
        match label {
            Label::Tissue => 1.0,
            Label::Excluded => self.excluded,
            Label::Soft => self.soft,
            Label::Tear => self.tear,
            Label::Wrinkle => self.wrinkle,
        }
    }
}

/// The labels of the sections, or of the moving volume, and the chain that takes the nodes there.
#[derive(Clone, Copy)]
pub(super) struct Tissue<'a> {
    pub(super) mask: &'a Volume,
    pub(super) through: &'a Chain,
    pub(super) materials: &'a Materials,
}

impl Tissue<'_> {
    /// The factors of the springs of meshes of planes, spring by spring, in the order of a layout.
    ///
    /// * `grid`: the nodes; one mesh for each z
    ///
    /// Springs in series add their compliances: the factor of a spring is the harmonic mean of those
    /// of the pixels below it. Beyond the mask, it is 1.
    pub(super) fn factors(&self, grid: &Grid) -> Result<Vec<Vec<f32>>, blocks::Error> {
        let [sections, ny, nx] = grid.shape;
        let offsets: Vec<[isize; 3]> =
            springs::<2>(grid.spacing, 1.0).iter().map(|spring| spring.offset).collect();
        let mut factors = vec![vec![1.0_f32; sections * ny * nx]; offsets.len()];
        for tile in grid.bounds().tiles([1, TILE, TILE]) {
            let around = tile.grow([0, 1, 1]).intersect(&grid.bounds());
            let Some(seen) = self.seen(grid, &around)? else { continue };
            for node in tile.tiles([1; 3]) {
                let from = seen.place(node.min);
                for (offset, factors) in offsets.iter().zip(&mut factors) {
                    let to: [i64; 3] = std::array::from_fn(|a| node.min[a] + offset[a] as i64);
                    if around.contains(to) {
                        let [z, y, x] = node.min.map(|v| v as usize);
                        // the order of a layout
                        let i = (y * sections + z) * nx + x;
                        factors[i] = seen.factor(from, seen.place(to), self.materials) as f32;
                    }
                }
            }
        }
        Ok(factors)
    }

    /// The part of the mask below some nodes of one section; `None` if they are all outside.
    fn seen(&self, grid: &Grid, nodes: &Box3) -> Result<Option<Seen>, blocks::Error> {
        let own = self.mask.grid();
        let positions: Vec<Point> =
            nodes.tiles([1; 3]).map(|node| grid.position(node.min.map(|v| v as f64))).collect();
        let images = points::forward(self.through, &positions)
            .map_err(|e| blocks::Error::Field(e.into()))?;
        let places: Vec<Point> = images.iter().map(|image| own.index(*image)).collect();
        let mut part: Option<Box3> = None;
        for place in places.iter().filter(|place| place.iter().all(|v| v.abs() < 1e15)) {
            let at = place.map(|v| v.round() as i64);
            let pixel = Box3::new(at, at.map(|v| v + 1));
            part = Some(part.map_or(pixel, |part| part.union(&pixel)));
        }
        let part = part.map(|part| part.intersect(&own.bounds()));
        let Some(part) = part.filter(|part| !part.is_empty()) else { return Ok(None) };
        let values = self.mask.read::<f32>(&part).map_err(|e| blocks::Error::Field(e.into()))?;
        Ok(Some(Seen { nodes: *nodes, places, part, values }))
    }
}

/// A part of a mask, and where some nodes lie in it.
struct Seen {
    nodes: Box3,
    /// The place of each node in the mask, pixels.
    places: Vec<Point>,
    part: Box3,
    values: Vec<f32>,
}

impl Seen {
    fn place(&self, node: [i64; 3]) -> Point {
        let [_, _, nx] = self.nodes.shape();
        let [_, y, x] = std::array::from_fn(|a| (node[a] - self.nodes.min[a]) as usize);
        self.places[y * nx + x]
    }

    /// The factor of the spring between two places.
    fn factor(&self, from: Point, to: Point, materials: &Materials) -> f64 {
        let length = (1..3).map(|a| (to[a] - from[a]).abs()).fold(0.0, f64::max);
        if !length.is_finite() {
            return 1.0;
        }
        let samples = length.ceil().clamp(1.0, SAMPLES);
        let compliance: f64 = (0..samples as usize)
            .map(|i| {
                let share = (i as f64 + 0.5) / samples;
                let at =
                    std::array::from_fn(|a| (from[a] + share * (to[a] - from[a])).round() as i64);
                self.part
                    .contains(at)
                    .then(|| self.value(at))
                    .map_or(1.0, |value| materials.factor(Label::of(value)).recip())
            })
            .sum();
        samples / compliance
    }

    fn value(&self, at: [i64; 3]) -> f32 {
        let [_, ny, nx] = self.part.shape();
        let [z, y, x]: [usize; 3] = std::array::from_fn(|a| (at[a] - self.part.min[a]) as usize);
        self.values[(z * ny + y) * nx + x]
    }
}
