//! The places of overlapping tiles of planes, from what they have in common.
//!
//! Pairs of tiles that overlap (`pairs.rs`) are compared near the position of the stage
//! (`measure.rs`, `strips.rs`). Links that are stronger than chance and do not contradict each other
//! (`links.rs`) demand that places which two tiles show come to lie at one place; the displacements
//! that fit best to all of them (`solve.rs`) give each tile its map (`place.rs`).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::blocks::{
    self, Budget, Context, Identity, Key, ListedTask, Outcome, Plan, Task, TaskResult, TaskResults,
    TaskRows,
};
use crate::device::Cost;
use crate::geom::Box3;
use crate::tiles::{self, Project, TileImage};
use crate::volume;

#[cfg(feature = "cli")]
mod flags;
mod links;
mod measure;
mod pairs;
mod place;
mod solve;
mod strips;
#[cfg(test)]
mod tests;

#[cfg(feature = "cli")]
pub use flags::Flags;

use links::Links;
use measure::{Link, Search};
use pairs::TilePair;
use strips::Strip;

/// The number of pairs of a task.
const PAIRS: usize = 8;
/// By default, the half width of the search window as a fraction of the longer side of the tiles.
const SEARCH: f64 = 0.05;
/// If a pair does not fit, it is compared again in search windows that are wider by these factors.
const WIDER: [i64; 3] = [1, 2, 4];
/// A pair is compared again unless its correlation exceeds that by chance by this much.
const CLEAR: f64 = 0.1;
/// The memory of a task per pixel that is compared, bytes: two strips and their reductions, and the
/// sums of their products.
const PER_PIXEL: u64 = 60;
/// The memory of the sums for the shifts of patches, bytes.
const SUMS: u64 = 8 << 20;
/// The memory for one match when all are fitted together, bytes.
const PER_MATCH: u64 = 600;
/// The number of matches that is expected of a pair.
const MATCHES: u64 = 40;

/// Why tiles were not stitched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The project could not be read or written.
    #[error(transparent)]
    Tiles(#[from] tiles::Error),
    /// An image could not be read, or a field not written.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// An error of the run, such as an invalid option or an output that exists.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    /// A map could not be written.
    #[error(transparent)]
    Transform(#[from] crate::transform::Error),
}

/// How a tile can be displaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum StitchModel {
    /// Each tile is shifted.
    Translation,
    /// Each tile has an affine map.
    Affine,
    /// Each tile is shifted and deformed smoothly.
    Elastic,
}

impl StitchModel {
    /// The name of the model in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Translation => "translation",
            Self::Affine => "affine",
            Self::Elastic => "elastic",
        }
    }
}

/// How tiles are stitched.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Options {
    /// How a tile can be displaced; `None` for the simplest model that predicts matches which it
    /// has not seen as well as any.
    pub model: Option<StitchModel>,
    /// Whether all tiles have a distortion in common; `None` as for `model`.
    pub lens: Option<bool>,
    /// The greatest error of a position, pixels; `None` for 5 % of the longer side of the tiles.
    pub search: Option<f64>,
    /// The side of the patches that are matched, pixels.
    pub patch: usize,
    /// The least correlation of a pair of tiles, and of a match.
    pub min_correlation: f64,
    /// The residual of matches, pixels, above which the result is not to be believed.
    pub max_residual: f64,
    /// The channel of the tiles; `None` if they have one.
    pub channel: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            model: None,
            lens: None,
            search: None,
            patch: 128,
            min_correlation: 0.25,
            max_residual: 5.0,
            channel: None,
        }
    }
}

impl Options {
    /// Checks the options.
    ///
    /// # Errors
    /// [`blocks::Error::Usage`] with the value and the range allowed.
    pub fn check(&self) -> Result<(), blocks::Error> {
        let refuse = |flag: &str, found: String, wanted: &str| {
            Err(blocks::Error::Usage(format!("{flag} {found} is out of range; wanted {wanted}")))
        };
        if self.search.is_some_and(|search| !(1.0..=10_000.0).contains(&search)) {
            let found = self.search.unwrap_or_default().to_string();
            return refuse("--search", found, "1 to 10000 pixels");
        }
        if !(12..=2048).contains(&self.patch) {
            return refuse("--patch", self.patch.to_string(), "12 to 2048 pixels");
        }
        if !(0.0..1.0).contains(&self.min_correlation) {
            return refuse("--min-correlation", self.min_correlation.to_string(), "0 to 1");
        }
        if !(self.max_residual > 0.0) {
            return refuse("--max-residual", self.max_residual.to_string(), "above 0 pixels");
        }
        Ok(())
    }

    fn radius(&self, project: &Project) -> i64 {
        let sides = project.tiles.iter().flat_map(|tile| tile.shape);
        let longest = sides.max().unwrap_or_default() as f64;
        self.search.unwrap_or((SEARCH * longest).max(4.0)).ceil() as i64
    }
}

/// The location of the fields of a project whose document is written to `output`.
pub fn fields_beside(output: &Path) -> PathBuf {
    output.with_extension("zarr")
}

/// Finds the places of the tiles of `project`, and writes the project with their maps to `output` and,
/// unless all maps are affine, their fields to [`fields_beside`] it.
///
/// # Errors
/// [`Error`]; [`blocks::Error::Rejected`] if fewer than half of the tiles of planes with several are
/// linked, or if the tiles do not fit together.
pub fn stitch(
    project: &Project,
    output: &Path,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    options.check()?;
    let run = Run::new(project, options, ctx)?;
    let plan = run.plan()?;
    for tile in &project.tiles {
        ctx.input_file(&tile.location);
        tile.mask.iter().for_each(|mask| ctx.input_file(mask));
    }
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    ctx.refuse_existing(&fields_beside(output))?;
    // maps of an earlier run must not refer to the fields of this one
    ctx.replace_document(output)?;
    ctx.output_file(output);
    let folder = blocks::ledger_folder_of(output);
    let rows = TaskRows::new(&folder);
    let results = run.find_links(&plan, &rows, &folder)?;
    if !ctx.gathers() {
        return Ok(());
    }
    ctx.check_inputs()?;
    let mut links: Vec<Link> = Vec::new();
    for task in plan.tasks().iter() {
        links.extend(rows.read_json::<Vec<Link>>(&task, &results)?.unwrap_or_default());
    }
    let links = Links::judge(links, project, options.min_correlation);
    let placed = place::place(&links, project, options);
    if let Some(reason) = run.conclude(&links, &placed) {
        rows.discard(ctx);
        return Err(ctx.reject_result(output, &reason).into());
    }
    placed.write(project, output, ctx)?;
    rows.remove(ctx);
    Ok(())
}

struct Run<'a> {
    project: &'a Project,
    options: &'a Options,
    ctx: &'a Context,
    pairs: Vec<TilePair>,
    search: Search,
}

impl<'a> Run<'a> {
    fn new(
        project: &'a Project,
        options: &'a Options,
        ctx: &'a Context,
    ) -> Result<Self, blocks::Error> {
        let pairs = pairs::overlapping(&project.tiles);
        if pairs.is_empty() {
            let tiles = project.tiles.len();
            return Err(blocks::Error::Usage(format!(
                "none of the {tiles} tiles of {} overlaps another by {} pixels or more; look at the positions, which \
                 are those of the first pixel of each tile, in pixels",
                project.location,
                pairs::LEAST_SIDE
            )));
        }
        let search = Search {
            radius: options.radius(project),
            patch: options.patch as i64,
            min_correlation: options.min_correlation,
        };
        Ok(Self { project, options, ctx, pairs, search })
    }

    /// The box of the first tile of a pair that is compared, and that of the second, if positions
    /// may be wrong by `radius` pixels.
    fn boxes(&self, pair: TilePair, radius: i64) -> [Box3; 2] {
        let places = [pair.a, pair.b].map(|tile| pairs::place(&self.project.tiles[tile]));
        let common = places[0].intersect(&places[1]).grow([0, radius, radius]);
        places.map(|place| {
            let part = common.intersect(&place);
            part.shift(place.min.map(|v| -v))
        })
    }

    fn memory(&self, pair: TilePair) -> Cost {
        let pixels = self.boxes(pair, self.search.radius * WIDER[WIDER.len() - 1]);
        let pixels: usize = pixels.iter().map(Box3::len).sum();
        Cost::bytes("strips", pixels as u64 * PER_PIXEL) + Cost::bytes("sums of products", SUMS)
    }

    fn plan(&self) -> Result<Plan, Error> {
        let mut images = Vec::with_capacity(self.project.tiles.len());
        for tile in &self.project.tiles {
            let image = self.project.image(tile, self.options.channel)?.identity()?;
            images.push(json!([image, tile.z, tile.position]));
        }
        let identity = Identity::of("stitch")
            .with("tiles", images)
            .with("spacing", self.project.spacing)
            .with("options", self.options);
        let largest = self.pairs.iter().map(|pair| self.memory(*pair));
        let largest = largest.max_by_key(Cost::total).unwrap_or_default();
        let items = self.pairs.chunks(PAIRS).enumerate().map(|(i, pairs)| {
            let work = pairs.iter().map(|pair| self.boxes(*pair, self.search.radius)[0].len());
            let first = (i * PAIRS) as i64;
            ListedTask {
                key: Key::Name(format!("pairs from {first}").into()),
                core: Box3::new([first, 0, 0], [first + pairs.len() as i64, 1, 1]),
                cost: work.sum::<usize>() as u64,
                memory: largest.total(),
                wave: 0,
            }
        });
        let matches = Cost::bytes("matches", self.pairs.len() as u64 * MATCHES * PER_MATCH);
        Ok(Plan::list(items, largest.clone(), &identity).waiting(&Cost::default()).with_overhead(
            &Budget::of(self.ctx),
            matches,
            Cost::default(),
        ))
    }

    fn find_links(
        &self,
        plan: &Plan,
        rows: &TaskRows,
        folder: &Path,
    ) -> Result<TaskResults, blocks::Error> {
        plan.stream(
            self.ctx,
            folder,
            |_| Ok(()),
            |task: &Task, ()| {
                let mut images = HashMap::new();
                let of = task.core.min[0] as usize..task.core.max[0] as usize;
                let links: Result<Vec<Link>, Error> =
                    of.map(|i| self.link(self.pairs[i], &mut images)).collect();
                Ok(links?)
            },
            |_, links: Vec<Link>| {
                let is_found = links.iter().any(|link| link.refusal.is_none());
                let outcome = if is_found { Outcome::Done } else { Outcome::Empty };
                Ok(TaskResult::from(outcome).with_rows(rows.write(&serde_json::to_vec(&links)?)?))
            },
        )
    }

    /// Compares a pair, in wider search windows until it fits clearly.
    fn link(&self, pair: TilePair, images: &mut HashMap<usize, TileImage>) -> Result<Link, Error> {
        let expected = {
            let [a, b] = [pair.a, pair.b].map(|tile| self.project.tiles[tile].position);
            [b[0] - a[0], b[1] - a[1]]
        };
        let mut best = Link { a: pair.a, b: pair.b, ..Link::default() };
        for wider in WIDER {
            let search = Search { radius: self.search.radius * wider, ..self.search };
            let [first, second] = self.boxes(pair, search.radius);
            let strips = [self.strip(pair.a, first, images)?, self.strip(pair.b, second, images)?];
            let found = measure::compare([&strips[0], &strips[1]], expected, &search);
            match found {
                Ok(link) => {
                    let link = Link { a: pair.a, b: pair.b, ..link };
                    let excess = |link: &Link| {
                        link.correlation - link.chance.iter().copied().fold(0.0, f64::max)
                    };
                    let is_clear = excess(&link) > CLEAR && !link.matches.is_empty();
                    if best.chance.is_empty() || excess(&link) > excess(&best) {
                        best = link;
                    }
                    if is_clear {
                        break;
                    }
                }
                Err(reason) if best.chance.is_empty() => best.refusal = Some(reason),
                Err(_) => {}
            }
        }
        Ok(best)
    }

    /// Reads a part of a tile, which is opened if it is not yet.
    fn strip(
        &self,
        tile: usize,
        part: Box3,
        images: &mut HashMap<usize, TileImage>,
    ) -> Result<Strip, Error> {
        let image = match images.entry(tile) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(place) => {
                let tile = &self.project.tiles[tile];
                place.insert(self.project.image(tile, self.options.channel)?)
            }
        };
        Ok(Strip { part, values: image.read(&part)? })
    }

    /// Records links and tiles; returns the reason if the result is rejected.
    fn conclude(&self, links: &Links, placed: &place::Placed) -> Option<String> {
        let ctx = self.ctx;
        let project = self.project;
        let believed = links.believed().count();
        let names = |of: &[usize]| -> Vec<String> {
            of.iter().map(|tile| project.tiles[*tile].name()).collect()
        };
        ctx.record("links", json!(links.report(project)));
        ctx.record("believed_links", believed);
        ctx.record("least_correlation", links.threshold);
        ctx.record("models", json!(placed.tried));
        ctx.record("model", placed.basis_name());
        ctx.record("matches", placed.matches);
        ctx.record("residual_px", json!(placed.residual));
        ctx.record("by_stage", names(&placed.by_stage));
        let several = placed.several;
        let linked = several - placed.by_stage.len().min(several);
        tracing::info!(
            "{believed} of {} pairs of tiles are linked; {}: residual {:.3} px (RMS of matches that the fit had not \
             seen), {:.3} px at 95 %",
            links.links.len(),
            placed.basis_name(),
            placed.residual.rms,
            placed.residual.p95
        );
        if 2 * linked < several || believed == 0 {
            let reason = links.links.iter().find_map(|link| link.refusal.clone());
            return Some(format!(
                "only {linked} of {several} tiles are linked to others ({}); look at the positions, or give a larger \
                 --search (now {} px) or a lower --min-correlation (now {:.2} is wanted)",
                reason.unwrap_or_else(|| "their correlations may be chance".to_owned()),
                self.search.radius,
                links.threshold
            ));
        }
        if placed.residual.p95 > self.options.max_residual {
            return Some(format!(
                "the tiles do not fit together: 95 % of the matches fit within {:.1} px, and --max-residual is {}; try \
                 --model elastic, or look at the worst links in the receipt",
                placed.residual.p95, self.options.max_residual
            ));
        }
        if !placed.by_stage.is_empty() {
            tracing::warn!(
                "no link connects these tiles to most of their plane, and the positions of the stage place them: {}",
                crate::quote::list(&names(&placed.by_stage))
            );
        }
        None
    }
}
