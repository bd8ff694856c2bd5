//! Matching of the spots of two volumes on disk.
//!
//! If both volumes fit into `--memory`, contexts are taken directly from them. Otherwise the
//! volumes are read tile by tile, and only the surroundings of each spot are kept.

use std::borrow::Cow;

use rayon::prelude::*;

use super::contexts::{ContextSpot, Contexts, MARGIN, Store, places};
use super::orientations::Orientation;
use super::pair::{check, pair};
use super::threading::Threading;
use super::{Error, MatchOptions};
use crate::blocks::{Budget, Context, Reads};
use crate::device::Cost;
use crate::filter::{Regridded, spikes};
use crate::geom::{Box3, Point, defaults};
use crate::table::{Match, Spot};
use crate::volume::{Dtype, Volume, Voxel};

/// Bytes of a spot's description: its coefficients and the lists that hold them.
const DESCRIPTION: u64 = 1024;

/// Matches the spots of two volumes, in the order of the fixed spots. Spots too close to the faces
/// for a complete context are ignored. The residuals are NaN until [`super::estimate`] computes
/// them.
///
/// # Errors
/// [`Error`]: an invalid flag, different voxel sizes, no complete context, too little memory, or a
/// failure to read the volumes.
pub fn match_spots(
    fixed: &Volume,
    moving: &Volume,
    fixed_spots: &[Spot],
    moving_spots: &[Spot],
    options: &MatchOptions,
    ctx: &Context,
) -> Result<Vec<Match>, Error> {
    ctx.record("fixed_spots", fixed_spots.len());
    ctx.record("moving_spots", moving_spots.len());
    let spots = [fixed_spots, moving_spots];
    let mut found = match_turned([fixed, moving], spots, options, &[Orientation::STORED], ctx)?;
    Ok(found.pop().unwrap_or_default())
}

/// [`match_spots`] for each of several orientations of the moving volume.
pub(super) fn match_turned(
    [fixed, moving]: [&Volume; 2],
    [fixed_spots, moving_spots]: [&[Spot]; 2],
    options: &MatchOptions,
    frames: &[Orientation],
    ctx: &Context,
) -> Result<Vec<Vec<Match>>, Error> {
    // in other orientations, volumes are compared only at their stored voxel sizes
    let stored = frames == [Orientation::STORED] && !options.exact;
    let common = defaults::common_spacing(&fixed.grid(), &moving.grid()).filter(|_| stored);
    if let Some(spacing) = common {
        tracing::info!(
            "the voxels differ in size: contexts are compared at {spacing:?} um (z, y, x)"
        );
        ctx.record("compared_at_um", serde_json::json!(spacing));
    }
    let seen = [fixed, moving].map(|volume| Regridded::new(volume, common));
    let budget = Budget::of(ctx);
    let mut found = vec![Vec::new(); frames.len()];
    let mut left: Vec<usize> = (0..frames.len()).collect();
    // orientations that need the same shape of context in the moving volume are processed together
    while let Some(&first) = left.first() {
        let radius = check(options, &seen[0].grid(), &frames[first].grid(&seen[1].grid()))?;
        let there = frames[first].stored(radius);
        let mut group = Vec::new();
        for &i in &left {
            let own = check(options, &seen[0].grid(), &frames[i].grid(&seen[1].grid()))?;
            if frames[i].stored(own) == there {
                group.push(i);
            }
        }
        left.retain(|i| !group.contains(i));
        let sides = [
            ContextSource::new("fixed", seen[0], fixed_spots, radius, options.exact)?,
            ContextSource::new("moving", seen[1], moving_spots, there, options.exact)?,
        ];
        let turned: Vec<Orientation> = group.iter().map(|&i| frames[i]).collect();
        let layout = ContextStorage::choose(&sides, turned != [Orientation::STORED], ctx.memory)?;
        let reads = [fixed, moving].map(Reads::Volume);
        let cost = layout.cost(&sides, turned != [Orientation::STORED]);
        let kept = budget.caches(&reads.map(|volume| (volume, ctx.memory / 16)), &Cost::default());
        let threads = Budget::each_thread(&reads, 0) * budget.threads() as u64;
        if ctx.is_plan_asked("matching the spots", &budget, &(cost + kept + threads))? {
            return Ok(found);
        }
        let [one, two] = &sides;
        let matches = budget.install(|| match (one.narrow(), two.narrow()) {
            (true, true) => run::<u16, u16>(one, two, layout, &turned, options),
            (true, false) => run::<u16, f32>(one, two, layout, &turned, options),
            (false, true) => run::<f32, u16>(one, two, layout, &turned, options),
            (false, false) => run::<f32, f32>(one, two, layout, &turned, options),
        })??;
        group.into_iter().zip(matches).for_each(|(i, matches)| found[i] = matches);
    }
    Ok(found)
}

fn run<T: Voxel, U: Voxel>(
    fixed: &ContextSource<'_>,
    moving: &ContextSource<'_>,
    layout: ContextStorage,
    frames: &[Orientation],
    options: &MatchOptions,
) -> Result<Vec<Vec<Match>>, Error> {
    let grids = [&fixed.volume.grid(), &moving.volume.grid()];
    let fixed_voxels = fixed.voxels::<T>(layout, options.exact)?;
    let fixed_contexts = fixed.contexts(&fixed_voxels, Orientation::STORED);
    let moving_voxels = moving.voxels::<U>(layout, options.exact)?;
    let each = |frame: &Orientation| {
        let contexts = moving.contexts(&moving_voxels, *frame);
        pair(&fixed_contexts, &contexts, grids, *frame, options, Threading::Pool)
    };
    Ok(frames.iter().map(each).collect())
}

/// The voxels around the spots of a volume, in the orientation in which they are stored.
struct ContextVoxels<T> {
    voxels: Vec<T>,
    /// The box of voxels read; `None` if there is a cube for each spot instead.
    part: Option<Box3>,
}

/// The voxels that are held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ContextStorage {
    /// One box per volume that contains all contexts.
    Whole,
    /// A cube for each spot, cut from tiles of at most this many bytes.
    Cubes { tile: u64 },
}

impl ContextStorage {
    /// Chooses whole boxes if these and the descriptions of the spots fit into four fifths of
    /// `memory` (bytes), else cubes.
    ///
    /// * `turned`: whether the moving voxels are also held in another orientation
    fn choose(sides: &[ContextSource<'_>; 2], turned: bool, memory: u64) -> Result<Self, Error> {
        let copies = [1, 1 + u64::from(turned)];
        let spots: usize = sides.iter().map(|side| side.places.len()).sum();
        // the remaining fifth is reserved for the matrix product and the memory of each thread
        let left = (memory / 10 * 8).saturating_sub(spots as u64 * DESCRIPTION);
        let sides_copies = || sides.iter().zip(copies);
        let whole: u64 =
            sides_copies().map(|(side, n)| n * side.size() * side.reach().len() as u64).sum();
        if whole <= left {
            return Ok(Self::Whole);
        }
        let cube = cube(sides[0].radius).iter().product::<usize>() as u64;
        let cubes: u64 =
            sides_copies().map(|(side, n)| n * side.size() * cube * side.places.len() as u64).sum();
        // a tile consists of at least one chunk
        let chunk =
            |side: &ContextSource<'_>| side.size() * side.tile(1).iter().product::<usize>() as u64;
        let tile = left.saturating_sub(cubes).max(sides.iter().map(chunk).max().unwrap_or(0));
        if cubes + tile > left {
            let (wanted, found) = ((cubes + tile).div_ceil(1_000_000), left / 1_000_000);
            return Err(Error::Memory { spots, wanted, found });
        }
        Ok(Self::Cubes { tile })
    }
}

impl ContextStorage {
    /// The memory needed while spots are matched.
    fn cost(self, sides: &[ContextSource<'_>; 2], turned: bool) -> Cost {
        let copies = [1, 1 + u64::from(turned)];
        let spots: usize = sides.iter().map(|side| side.places.len()).sum();
        let descriptions = Cost::bytes("descriptions of the spots", spots as u64 * DESCRIPTION);
        let all = |bytes: &dyn Fn(&ContextSource<'_>) -> u64| {
            sides.iter().zip(copies).map(|(side, n)| n * bytes(side)).sum()
        };
        descriptions
            + match self {
                Self::Whole => Cost::bytes(
                    "voxels around the spots",
                    all(&|side| side.size() * side.reach().len() as u64),
                ),
                Self::Cubes { tile } => {
                    let cubes = all(&|side| {
                        let cube = cube(side.radius).iter().product::<usize>() as u64;
                        side.size() * cube * side.places.len() as u64
                    });
                    Cost::bytes("contexts of the spots", cubes) + Cost::bytes("tile", tile)
                }
            }
    }
}

/// One of the two volumes, and its spots with complete contexts.
struct ContextSource<'a> {
    volume: Regridded<'a>,
    places: Vec<ContextSpot>,
    /// The half width of a context, voxels along z, y, x.
    radius: [usize; 3],
}

impl<'a> ContextSource<'a> {
    fn new(
        side: &'static str,
        volume: Regridded<'a>,
        spots: &[Spot],
        radius: [usize; 3],
        exact: bool,
    ) -> Result<Self, Error> {
        if spots.is_empty() {
            return Err(Error::NoSpots { side });
        }
        let positions: Vec<Point> = spots.iter().map(|s| s.position).collect();
        let places = places(&volume.grid(), &positions, radius, exact);
        if places.is_empty() {
            let shape = volume.grid().shape;
            return Err(Error::NoContexts { side, spots: spots.len(), radius, shape });
        }
        Ok(Self { volume, places, radius })
    }

    /// Whether the voxels are compared as stored, and are unsigned integers of at most 16 bits.
    fn narrow(&self) -> bool {
        self.volume.is_stored() && matches!(self.volume.volume().dtype(), Dtype::U8 | Dtype::U16)
    }

    /// Bytes per voxel in memory.
    fn size(&self) -> u64 {
        if self.narrow() { 2 } else { 4 }
    }

    /// The box that contains all contexts and the voxels that the sub-voxel search can reach.
    fn reach(&self) -> Box3 {
        let middle = |p: &ContextSpot| {
            let min = p.voxel.map(|v| v as i64);
            Box3::new(min, min.map(|v| v + 1))
        };
        let boxes = self.places.iter().map(middle);
        let all = boxes.reduce(|a, b| a.union(&b)).unwrap_or(Box3::of_shape([0; 3]));
        all.grow(margin(self.radius)).intersect(&self.volume.grid().bounds())
    }

    /// Reads the voxels that the contexts need and replaces [`spikes`] unless `exact` is set.
    fn voxels<T: Voxel>(
        &self,
        layout: ContextStorage,
        exact: bool,
    ) -> Result<ContextVoxels<T>, Error> {
        match layout {
            ContextStorage::Whole => {
                let part = self.reach();
                let voxels = read::<T>(&self.volume, &part, exact)?;
                Ok(ContextVoxels { voxels, part: Some(part) })
            }
            ContextStorage::Cubes { tile } => {
                Ok(ContextVoxels { voxels: self.cubes(tile, exact)?, part: None })
            }
        }
    }

    /// The contexts in the orientation `frame`.
    fn contexts<'v, T: Voxel>(
        &self,
        of: &'v ContextVoxels<T>,
        frame: Orientation,
    ) -> Contexts<'v, T> {
        let shape = self.volume.grid().shape;
        let radius = frame.turned(self.radius);
        let mut places = self.places.clone();
        places.iter_mut().for_each(|place| place.voxel = frame.voxel(place.voxel, shape));
        let turn = |voxels: &'v [T], shape: [usize; 3]| -> Cow<'v, [T]> {
            if frame == Orientation::STORED {
                Cow::Borrowed(voxels)
            } else {
                Cow::Owned(frame.array(voxels, shape))
            }
        };
        let store = if let Some(part) = &of.part {
            let [min, max] = [part.min, part.max.map(|v| v - 1)]
                .map(|corner| frame.voxel(corner.map(|v| v as usize), shape));
            let origin = std::array::from_fn(|a| min[a].min(max[a]));
            let voxels = turn(&of.voxels, part.shape());
            Store::array(voxels, frame.turned(part.shape()), origin, &places)
        } else {
            let size = cube(self.radius);
            let voxels = if frame == Orientation::STORED {
                Cow::Borrowed(&of.voxels[..])
            } else {
                let cubes = of.voxels.par_chunks(size.iter().product());
                Cow::Owned(cubes.flat_map_iter(|one| frame.array(one, size)).collect())
            };
            Store::cubes(voxels, cube(radius), places.len())
        };
        Contexts::describe(store, frame.turned(shape), &places, radius, Threading::Pool)
    }

    /// The shape of a tile of whole chunks (at least one per axis) with its margins, at most
    /// `bytes` large if possible.
    fn tile(&self, bytes: u64) -> [usize; 3] {
        let (chunk, margin) = (self.volume.chunk(), margin(self.radius));
        let grown = |n: usize| -> [usize; 3] {
            std::array::from_fn(|a| n * chunk[a] + 2 * margin[a] as usize)
        };
        let fits =
            |n: &usize| grown(*n).iter().map(|&v| v as u64).product::<u64>() * self.size() <= bytes;
        grown((1..=16).take_while(fits).last().unwrap_or(1))
    }

    /// The surroundings of each spot, read tile by tile.
    fn cubes<T: Voxel>(&self, tile: u64, exact: bool) -> Result<Vec<T>, Error> {
        let [cz, cy, cx] = cube(self.radius);
        let margin = margin(self.radius);
        let grown = self.tile(tile);
        let core = std::array::from_fn(|a| grown[a] - 2 * margin[a] as usize);
        let mut voxels = vec![T::default(); self.places.len() * cz * cy * cx];
        for core in self.volume.grid().bounds().tiles(core) {
            let held = |p: &ContextSpot| core.contains(p.voxel.map(|v| v as i64));
            let members: Vec<usize> =
                (0..self.places.len()).filter(|&i| held(&self.places[i])).collect();
            if members.is_empty() {
                continue;
            }
            let part = core.grow(margin);
            let [_, ny, nx] = part.shape();
            let all = read::<T>(&self.volume, &part, exact)?;
            for i in members {
                let [z, y, x]: [usize; 3] = std::array::from_fn(|a| {
                    self.places[i].voxel[a] - core.min[a] as usize // the margins cancel
                });
                let out = &mut voxels[i * cz * cy * cx..][..cz * cy * cx];
                for (line, out) in out.chunks_exact_mut(cx).enumerate() {
                    let from = ((z + line / cy) * ny + y + line % cy) * nx + x;
                    out.copy_from_slice(&all[from..from + cx]);
                }
            }
        }
        Ok(voxels)
    }
}

/// The number of voxels on each side of a spot that are read.
fn margin(radius: [usize; 3]) -> [i64; 3] {
    radius.map(|r| (r + MARGIN) as i64)
}

/// The shape of the cube kept for a spot.
fn cube(radius: [usize; 3]) -> [usize; 3] {
    radius.map(|r| 2 * (r + MARGIN) + 1)
}

/// Reads a box on all threads of the pool, one slab of chunks per task, and replaces [`spikes`]
/// unless `exact` is set.
fn read<T: Voxel>(volume: &Regridded<'_>, part: &Box3, exact: bool) -> Result<Vec<T>, Error> {
    let mut voxels = vec![T::default(); part.len()];
    let [_, ny, nx] = part.shape();
    let chunk = volume.chunk()[0].max(1) as i64;
    let mut slabs = Vec::new();
    let (mut rest, mut z) = (voxels.as_mut_slice(), part.min[0]);
    while z < part.max[0] {
        let end = ((z.div_euclid(chunk) + 1) * chunk).min(part.max[0]);
        let slab = Box3::new([z, part.min[1], part.min[2]], [end, part.max[1], part.max[2]]);
        let (out, other) = rest.split_at_mut((end - z) as usize * ny * nx);
        slabs.push((slab, out));
        (rest, z) = (other, end);
    }
    slabs.into_par_iter().try_for_each(|(slab, out)| volume.read_into(&slab, out))?;
    if !exact {
        let shape = part.shape();
        let planes = (0..shape[0]).into_par_iter();
        let found: Vec<(usize, T)> =
            planes.flat_map_iter(|z| spikes(&voxels, shape, z..z + 1)).collect();
        found.into_iter().for_each(|(at, value)| voxels[at] = value);
    }
    Ok(voxels)
}
