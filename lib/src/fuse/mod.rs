//! Fusion of tiles into planes.
//!
//! Each block of the output samples all tiles that show it through their maps, and blends them
//! (`cpu.rs`). What a tile shows is decided by its shape and its mask, never by its grey values.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;
use serde_json::json;

use crate::blocks::{self, Budget, Context, Identity, Outcome, Plan, TaskResult, WriteUnit};
use crate::device::Cost;
use crate::geom::{Affine, Box3, Chain, Grid, Point, SourceError, Transform};
use crate::tiles::{self, Project, TileImage};
use crate::volume::{self, Dtype, Output, Spec, Voxel};
use crate::warp::{self, Interpolation, PartOf};
use crate::with_voxel;

mod cpu;
#[cfg(feature = "cli")]
mod flags;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

#[cfg(feature = "cli")]
pub use flags::Flags;

use cpu::{Sums, TileRow};

/// By default, the width of ramps as a fraction of the shorter side of the tiles.
const WIDTH: f64 = 0.1;
/// The greatest number of tiles that are open at once.
const OPEN: usize = 64;
/// The memory of a block per pixel, bytes: a tile, sums and weights.
const PER_PIXEL: usize = 20;
/// The number of points of a side of a tile whose places give its extent.
const SIDE_POINTS: usize = 9;

/// Why tiles were not fused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The project could not be read.
    #[error(transparent)]
    Tiles(#[from] tiles::Error),
    /// A volume could not be read or written.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the run, such as an invalid option or an output that exists.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// A field could not be read.
    #[error("the field of a tile cannot be read: {0}")]
    Field(#[source] SourceError),
    /// No pixel of the output shows a tile.
    #[error(
        "{output} is written, and no pixel of it shows a tile; look at the maps in the project"
    )]
    Nothing {
        /// The output.
        output: String,
        /// The exit reason: the run is complete but not successful.
        #[source]
        verdict: blocks::ExitReason,
    },
}

/// What a pixel becomes that several tiles show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Blend {
    /// The mean, weighted by ramps at the borders of tiles
    #[default]
    Linear,
    /// The mean
    Mean,
    /// The maximum
    Max,
    /// The value of the first tile, in the order of the project
    First,
    /// The value of the last tile
    Last,
    /// The value of the tile whose border is farthest
    Closest,
}

/// How tiles are fused.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// What a pixel becomes that several tiles show.
    pub blend: Blend,
    /// The width of the ramps of [`Blend::Linear`], pixels; `None` for 10 % of the shorter side of
    /// the tiles.
    pub width: Option<f64>,
    /// The interpolation.
    pub interpolation: Interpolation,
    /// The value of pixels that no tile shows.
    pub fill: f64,
    /// Whether tiles that are not linked are left out.
    pub linked_only: bool,
    /// The channel of the tiles; `None` if they have one.
    pub channel: Option<usize>,
}

/// A tile with its map.
struct Placed {
    /// Its number in the project.
    number: usize,
    chain: Chain,
    /// The pixels of the output that it can show.
    place: Box3,
}

/// The tiles of a project, ready to be fused.
pub struct Tiles<'a> {
    project: &'a Project,
    placed: Vec<Placed>,
    grid: Grid,
    dtype: Dtype,
    options: Options,
}

impl<'a> Tiles<'a> {
    /// Opens the fields of all tiles and finds the grid that holds them: whole pixels of the plane.
    ///
    /// # Errors
    /// [`Error`] if a tile or a field cannot be opened, or no tile is left.
    pub fn open(project: &'a Project, options: &Options) -> Result<Self, Error> {
        let width = options.width.unwrap_or(1.0);
        if !(width > 0.0 && width.is_finite()) {
            let message = format!("--blend-width {width} is out of range; wanted above 0 pixels");
            return Err(blocks::Error::Usage(message).into());
        }
        let used = |tile: &tiles::Tile| tile.linked || !options.linked_only;
        let numbers: Vec<usize> =
            (0..project.tiles.len()).filter(|i| used(&project.tiles[*i])).collect();
        let Some(first) = numbers.first() else {
            let message =
                format!("no tile of {} is linked; leave out --linked-only", project.location);
            return Err(blocks::Error::Usage(message).into());
        };
        let dtype = project.image(&project.tiles[*first], options.channel)?.image.dtype();
        let mut fields = HashMap::new();
        let (mut all, mut placed) = (None::<Box3>, Vec::new());
        for number in numbers {
            let tile = &project.tiles[number];
            let chain = opened(tile, project, &mut fields)?;
            let place = extent(&chain, tile, project.spacing).ok_or_else(|| {
                let message = format!("the map of {} cannot be inverted", tile.name());
                blocks::Error::Usage(message)
            })?;
            all = Some(all.map_or(place, |all| all.union(&place)));
            placed.push(Placed { number, chain, place });
        }
        let all = all.unwrap_or(Box3::of_shape([1; 3]));
        let spacing = project.spacing;
        let origin: Point = std::array::from_fn(|a| all.min[a] as f64 * spacing[a]);
        let planar = !project.has_depth && all.shape()[0] == 1;
        let grid = Grid { planar, ..Grid::new(all.shape(), spacing, origin) };
        let back = all.min.map(|v| -v);
        placed.iter_mut().for_each(|placed| placed.place = placed.place.shift(back));
        Ok(Self { project, placed, grid, dtype, options: options.clone() })
    }

    /// The grid that holds all tiles.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The element type of the tiles.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Fuses the tiles into the volume `to`, described by `spec`, whose grid is [`Tiles::grid`].
    ///
    /// # Errors
    /// [`Error`].
    pub fn fuse(&self, to: &str, spec: &Spec, ctx: &Context) -> Result<(), Error> {
        if !spec.dtype.holds(self.options.fill) {
            let message = format!("--fill {} is no {}", self.options.fill, spec.dtype);
            return Err(blocks::Error::Usage(message).into());
        }
        with_voxel!(spec.dtype, O => self.run::<O>(to, spec, ctx))
    }

    fn width(&self) -> f64 {
        let sides = self.project.tiles.iter().flat_map(|tile| tile.shape);
        let shortest = sides.min().unwrap_or_default() as f64;
        self.options.width.unwrap_or((WIDTH * shortest).max(1.0))
    }

    fn run<O: Voxel>(&self, to: &str, spec: &Spec, ctx: &Context) -> Result<(), Error> {
        let (plan, images) = self.plan(to, spec, ctx)?;
        for placed in &self.placed {
            let tile = &self.project.tiles[placed.number];
            ctx.input_file(&tile.location);
            tile.mask.iter().for_each(|mask| ctx.input_file(mask));
        }
        if plan.is_all_asked(ctx)? {
            return Ok(());
        }
        let out = Arc::new(Output::begin(to, spec, 1, &plan.as_run(ctx))?);
        ctx.output_array(&out);
        let fill = O::from_f64(self.options.fill);
        let results = plan.stream_to::<_, _, _, Error>(
            ctx,
            &*out,
            |_| Ok(()),
            |task, ()| Ok(self.block(&task.core, &images)?),
            |task, (values, shown)| {
                let value = |v: &f32| if v.is_nan() { fill } else { O::from_f32(*v) };
                let voxels: Vec<O> = values.iter().map(value).collect();
                out.write(&task.core, &voxels)?;
                let done = if shown > 0 { Outcome::Done } else { Outcome::Empty };
                Ok(TaskResult::from(done).with_summary(&shown)?)
            },
        )?;
        if !ctx.gathers() {
            return Ok(());
        }
        let shown: Result<Vec<u64>, _> =
            results.summaries().map(|summary| summary.map(|(_, shown)| shown)).collect();
        let shown: u64 = shown?.iter().sum();
        let pixels = self.grid.bounds().len() as f64;
        ctx.record("tiles", self.placed.len());
        ctx.record("shown", json!(shown as f64 / pixels));
        tracing::info!(
            "{} tiles; they show {:.1} % of the pixels of {to}",
            self.placed.len(),
            100.0 * shown as f64 / pixels
        );
        if shown == 0 {
            let verdict = blocks::ExitReason::TooManyFailed;
            return Err(Error::Nothing { output: to.to_owned(), verdict });
        }
        Ok(())
    }

    fn plan(&self, to: &str, spec: &Spec, ctx: &Context) -> Result<(Plan, Images<'_>), Error> {
        let mut tiles = Vec::with_capacity(self.placed.len());
        let mut largest = 0;
        for placed in &self.placed {
            let tile = &self.project.tiles[placed.number];
            let image = self.project.image(tile, self.options.channel)?;
            let bounds = image.image.grid().bounds();
            largest = largest.max(image.image.decoded_bytes(&bounds));
            tiles.push(json!([image.identity()?, Identity::of_chain(&placed.chain)?]));
        }
        let identity = Identity::of("fuse")
            .with("tiles", tiles)
            .with("output", spec)
            .with("options", &self.options);
        let unit = WriteUnit::of(spec);
        let support = warp::support(self.options.interpolation) as usize;
        let cost = |block: [usize; 3]| {
            // a tile may be turned or stretched a little
            let side = |n: usize| n + n / 8 + 2 * support + 16;
            Cost::bytes("pixels", (block[0] * side(block[1]) * side(block[2]) * PER_PIXEL) as u64)
        };
        let block = Plan::choose_block(self.grid.bounds(), unit, cost, ctx)?;
        let kept = (ctx.memory / 4) / largest.max(1);
        let images = Images {
            tiles: self,
            most: (kept as usize).clamp(2, OPEN),
            each: ctx.memory / 4,
            open: Mutex::default(),
        };
        let open = Cost::bytes("decoded tiles", images.most as u64 * largest.min(images.each));
        let plan = Plan::tile(self.grid.bounds(), block, cost(block), &identity).with_overhead(
            &Budget::of(ctx),
            open,
            Budget::each_thread(&[], spec.writing_bytes(to)),
        );
        Ok((plan, images))
    }

    /// The blended values of a block, NaN where no tile shows anything, and the number of pixels that
    /// are shown.
    fn block(&self, core: &Box3, images: &Images<'_>) -> Result<(Vec<f32>, u64), Error> {
        let mut sums = Sums::new(self.options.blend, core.len());
        let interpolation = self.options.interpolation;
        let plane = core.shape()[1] * core.shape()[2];
        for placed in &self.placed {
            let shown = placed.place.intersect(core);
            if shown.is_empty() {
                continue;
            }
            let tile = &self.project.tiles[placed.number];
            let grid = tile.grid(self.project.spacing);
            // a tile shows one plane of the block
            let mut part = *core;
            (part.min[0], part.max[0]) = (shown.min[0], shown.max[0]);
            let before = (shown.min[0] - core.min[0]) as usize * plane;
            let local = placed.chain.localise(self.grid.extent(&part));
            let (chain, image) = local.map_err(Error::Field)?;
            let mut needed = grid.enclosing(image).grow([warp::support(interpolation); 3]);
            needed = needed.intersect(&grid.bounds());
            if needed.is_empty() {
                continue;
            }
            let voxels = images.tile(placed.number)?.read(&needed)?;
            let moving = PartOf { voxels: &voxels, part: needed, grid };
            warp::each_sampled_row(
                &moving,
                &chain,
                (&self.grid, &part),
                interpolation,
                &mut |row| {
                    let [_, y, x] = row.positions;
                    sums.add(&TileRow {
                        first: before + row.first,
                        values: row.values,
                        places: [y, x],
                        shape: tile.shape,
                        width: self.width(),
                    });
                },
            );
        }
        Ok(sums.finish())
    }
}

/// The chain of a tile; fields that several tiles share are opened once.
fn opened(
    tile: &tiles::Tile,
    project: &Project,
    fields: &mut HashMap<String, Transform>,
) -> Result<Chain, Error> {
    let mut steps = Vec::new();
    for step in &tile.map {
        let crate::transform::Step::Field(location) = step else {
            let one = tiles::Tile { map: vec![step.clone()], ..tile.clone() };
            steps.extend(one.chain(&project.location)?.steps);
            continue;
        };
        if !fields.contains_key(location) {
            let one = tiles::Tile { map: vec![step.clone()], ..tile.clone() };
            let field = one.chain(&project.location)?.steps.into_iter().next();
            fields.extend(field.map(|field| (location.clone(), field)));
        }
        steps.extend(fields.get(location).cloned());
    }
    Ok(Chain { steps })
}

/// The pixels of the plane that a tile can show; `None` if its map has no inverse.
fn extent(chain: &Chain, tile: &tiles::Tile, spacing: Point) -> Option<Box3> {
    let affine = |step: &Transform| match step {
        Transform::Affine(map) => Some(*map),
        Transform::Field(_) => Some(Affine::IDENTITY),
        Transform::LocalAffines(_) => None,
    };
    let maps: Option<Vec<Affine>> = chain.steps.iter().map(affine).collect();
    let whole = maps?.iter().fold(Affine::IDENTITY, |sum, map| sum.then(map));
    let back = whole.inverse().ok()?;
    let mut reach = [0.0; 3];
    for step in &chain.steps {
        if let Transform::Field(field) = step {
            let by = field.reach().unwrap_or_default();
            (0..3).for_each(|a| reach[a] += by[a] / spacing[a]);
        }
    }
    let grid = tile.grid(spacing);
    let [rows, columns] = tile.shape.map(|n| n as f64 - 1.0);
    let mut range = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
    for i in 0..SIDE_POINTS * SIDE_POINTS {
        let at = [i / SIDE_POINTS, i % SIDE_POINTS].map(|v| v as f64 / (SIDE_POINTS - 1) as f64);
        let p = back.apply(grid.position([0.0, at[0] * rows, at[1] * columns]));
        for a in 0..3 {
            range[0][a] = range[0][a].min(p[a] / spacing[a] - reach[a]);
            range[1][a] = range[1][a].max(p[a] / spacing[a] + reach[a]);
        }
    }
    // places on whole pixels stay there in spite of rounding errors
    let low = range[0].map(|v| (v + 1e-6).floor() as i64);
    let high = range[1].map(|v| (v - 1e-6).ceil() as i64 + 1);
    let z = (whole.inverse().ok()?.offset()[0] / spacing[0]).round() as i64;
    Some(Box3::new([z, low[1], low[2]], [z + 1, high[1], high[2]]))
}

/// The images that are open, the one that was used last at the end.
struct Images<'a> {
    tiles: &'a Tiles<'a>,
    /// The greatest number of open tiles.
    most: usize,
    /// The cache of each, bytes.
    each: u64,
    open: Mutex<Vec<(usize, Arc<TileImage>)>>,
}

impl Images<'_> {
    fn tile(&self, number: usize) -> Result<Arc<TileImage>, Error> {
        let lock = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let found = {
            let mut open = lock();
            let at = open.iter().position(|(of, _)| *of == number);
            at.map(|at| {
                let used = open.remove(at);
                let volume = Arc::clone(&used.1);
                open.push(used);
                volume
            })
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let Tiles { project, options, .. } = self.tiles;
        let tile = &project.tiles[number];
        let opened = Arc::new(project.image(tile, options.channel)?);
        opened.image.keep(self.each);
        let mut open = lock();
        open.push((number, Arc::clone(&opened)));
        if open.len() > self.most {
            open.remove(0);
        }
        Ok(opened)
    }
}
