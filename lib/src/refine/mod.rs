//! Affine registration by intensities: finds the map that, applied after an initial map, makes two
//! images most similar.
//!
//! [`align`] works from coarse to fine resolutions; at each resolution, it takes damped
//! Gauss-Newton steps on a similarity measure of `metric`. With `--search` it first tries rotated,
//! scaled and mirrored versions of the initial map. Images are read at the finest resolution that
//! fits `--memory`.

use std::path::Path;

use serde_json::json;

use crate::blocks::{self, Context};
use crate::device::Cost;
use crate::geom::{Affine, Chain, Grid, Point};
use crate::transform::{self, Direction, Step};
use crate::volume::Select;

mod chance;
mod coarse_to_fine;
mod error;
#[cfg(feature = "cli")]
mod flags;
mod image_pair;
mod initial_maps;
mod input;
mod model;
mod optimise;
mod options;
mod pyramid;
mod rough;
mod search;
mod search_image;
#[cfg(test)]
mod tests;

pub use error::{Error, Refusal};
#[cfg(feature = "cli")]
pub use flags::Flags;
pub use options::{Options, SearchOptions};
#[cfg(feature = "cli")]
pub use rough::RoughFlags;
pub use rough::{RoughOptions, rough};

use chance::Evidence;
use coarse_to_fine::{Refinement, refine_levels};
use image_pair::{ImagePair, InitialMap};
use input::{OpenedInput, ResolutionChoice};
use search::{SearchExtent, SearchResult, scale};

/// One of the two input volumes.
#[derive(Clone, Debug)]
pub struct InputVolume<'a> {
    /// The location of the volume.
    pub location: &'a str,
    /// The channel to read, and values that override the metadata of the volume.
    pub select: Select,
    /// The location of a mask volume. Voxels at which the mask is 0 are ignored.
    pub mask: Option<&'a str>,
}

/// Aligns two volumes by their intensities and writes the chain from fixed to moving to `output`:
/// the initial chain followed by the refinement, merged into one matrix if the initial chain is
/// affine.
///
/// * `initial`: locations of transforms, applied in this order; empty for the identity
///
/// A result that fails the acceptance checks is not written. If an initial map was given, `output`
/// then contains the initial map; otherwise nothing is written. The reason is reported, and the
/// receipt says `believed: false`.
///
/// # Errors
/// [`Error`]; if the result is refused, [`blocks::Error::Rejected`] with the text of the
/// [`Refusal`].
pub fn align(
    fixed: &InputVolume<'_>,
    moving: &InputVolume<'_>,
    initial: &[String],
    output: &Path,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    ctx.refuse_existing(output)?;
    let (chain, steps) = read_initial(initial)?;
    if options.search.is_some() && chain.as_affine().is_none() {
        return Err(Error::SearchNeedsMatrix(initial.join(" --initial ")));
    }
    let sides = [OpenedInput::open(fixed, "fixed")?, OpenedInput::open(moving, "moving")?];
    refuse_coarse(options.resolution, &sides[0])?;
    sides.iter().for_each(|side| ctx.input(&side.stored[0]));
    initial.iter().for_each(|location| ctx.input_file(location));
    let masks = [fixed.mask, moving.mask];
    masks.iter().flatten().for_each(|mask| ctx.input_file(mask));
    let planar = dimensions(&sides)?;
    let description = describe_initial(initial);
    let job =
        RefineJob { sides: &sides, chain: &chain, planar, initial: &description, options, ctx };
    let Some((refined, refusal)) = job.run(!initial.is_empty())? else { return Ok(()) };
    ctx.check_inputs()?;
    let steps = match (&refusal, refined) {
        // the identity that stands in for a missing initial map is not written as a result
        (Some(refusal), _) if initial.is_empty() => {
            return Err(ctx
                .reject_result(output, &format!("no map was written: {refusal}"))
                .into());
        }
        (Some(_), _) => steps,
        (None, RefinedMap::Whole(map)) => vec![Step::Affine(map)],
        (None, RefinedMap::After(map)) => steps.into_iter().chain([Step::Affine(map)]).collect(),
    };
    transform::write_document(output, &steps)?;
    ctx.output_file(output);
    match refusal {
        None => Ok(()),
        Some(refusal) => {
            let message = format!("the initial map was kept: {refusal}");
            Err(blocks::Error::Rejected(message).into())
        }
    }
}

/// Refuses a `--resolution` that is coarser than the longest side of the fixed volume.
fn refuse_coarse(resolution: Option<f64>, fixed: &OpenedInput) -> Result<(), blocks::Error> {
    let grid = fixed.stored[0].grid();
    let longest = (0..3).map(|a| grid.shape[a] as f64 * grid.spacing[a]).fold(0.0, f64::max);
    match resolution.filter(|resolution| *resolution > longest) {
        None => Ok(()),
        Some(resolution) => Err(blocks::Error::Usage(format!(
            "--resolution {resolution} um is more than the longest side of the fixed volume, {longest} um; give a \
             smaller one"
        ))),
    }
}

/// The map to write.
enum RefinedMap {
    /// The complete map from fixed to moving.
    Whole(Affine),
    /// The map to append to the initial chain.
    After(Affine),
}

/// The inputs and the options of an alignment.
struct RefineJob<'a> {
    sides: &'a [OpenedInput; 2],
    chain: &'a Chain,
    planar: bool,
    initial: &'a str,
    options: &'a Options,
    ctx: &'a Context,
}

impl RefineJob<'_> {
    /// Aligns the images. Returns the map and, if the map is refused, the reason; `None` if only
    /// the plan was requested.
    ///
    /// * `given`: whether the user gave an initial map
    fn run(&self, given: bool) -> Result<Option<(RefinedMap, Option<Refusal>)>, Error> {
        let grids = [self.sides[0].grid(), self.sides[1].grid()];
        self.chain.check_fields(grids[0].extent(&grids[0].bounds()))?;
        let about = jacobian(self.chain, &grids[0])?;
        about.inverse().map_err(|source| Error::Singular {
            location: self.initial.trim_start_matches("--initial ").to_owned(),
            source,
        })?;
        let budget = ResolutionChoice {
            sides: [&self.sides[0], &self.sides[1]],
            scale: scale(&about, self.planar),
            samples: self.options.samples,
            search: self.options.search.is_some(),
        };
        let (resolution, bytes) = budget.resolution(self.options.resolution, self.ctx)?;
        let cost = Cost::bytes("images, samples and threads", bytes);
        if self.ctx.notes_plan("aligning the images", &blocks::Budget::of(self.ctx), &cost) {
            return Ok(None);
        }
        let fixed = self.sides[0].image(resolution[0], self.planar)?;
        let moving = self.sides[1].image(resolution[1], self.planar)?;
        let images = ImagePair {
            fixed: &fixed,
            moving: &moving,
            planar: self.planar,
            options: self.options,
            seed: self.ctx.seed,
            quiet: false,
        };
        self.record_input(resolution, bytes);
        let whole = self.chain.as_affine();
        let Some(whole) = whole else {
            let start = InitialMap::Chain(self.chain, grids[0].origin[0]);
            let done = refine_levels(&images, &start, None, budget.scale, self.initial)?;
            let judged = self.judge(&images, &start, &done, budget.scale);
            let refusal = self.conclude(&done, None, judged.as_ref());
            return Ok(Some((RefinedMap::After(done.map), refusal)));
        };
        let flat = flattened(&whole, self.planar, &grids, given);
        let mut best = self.attempt(&images, &flat.inner, SearchExtent::AsAsked)?;
        if self.options.search.is_some() && self.doubted(&best) {
            tracing::info!("what was found does not stand out from chance: searching wider");
            let wider = self.attempt(&images, &flat.inner, SearchExtent::Wider).ok();
            if let Some(wider) = wider.filter(|wider| wider.evidence() > best.evidence()) {
                best = wider;
            }
        }
        let refusal = self.conclude(&best.done, best.found.as_ref(), best.judged.as_ref());
        Ok(Some((RefinedMap::Whole(flat.outer(&best.start.then(&best.done.map))), refusal)))
    }

    /// Searches for a start if requested, refines it, and judges the result.
    fn attempt(
        &self,
        images: &ImagePair<'_>,
        given: &Affine,
        reach: SearchExtent,
    ) -> Result<RefineAttempt, Error> {
        let (start, found) = match &self.options.search {
            None => (*given, None),
            Some(what) => {
                let found = search::search(images, given, what, reach)?;
                (found.map, Some(found))
            }
        };
        let given = InitialMap::Matrix(*given);
        let before = found.is_some().then_some(&given);
        let size = scale(&start, self.planar);
        let done = refine_levels(images, &InitialMap::Matrix(start), before, size, self.initial)?;
        let judged = self.judge(images, &InitialMap::Matrix(start), &done, size);
        Ok(RefineAttempt { start, done, found, judged })
    }

    /// Compares the similarity under the map found with that under wrong maps; `None` if the result
    /// is already refused, `min_evidence` is 0, or the volumes are too small for a comparison.
    fn judge(
        &self,
        images: &ImagePair<'_>,
        start: &InitialMap<'_>,
        done: &Refinement,
        size: f64,
    ) -> Option<Evidence> {
        let wanted = self.options.min_evidence;
        if done.refusal.is_some() || wanted == 0.0 {
            return None;
        }
        let judged = chance::judge(images, start, &done.map, size, wanted, false);
        if judged.is_none() {
            tracing::warn!(
                "the volumes are too small to tell the map found from wrong ones: look at the result"
            );
        }
        judged
    }

    /// Whether the result was refused or its evidence is below `min_evidence`.
    fn doubted(&self, attempt: &RefineAttempt) -> bool {
        attempt.done.refusal.is_some() || attempt.evidence() < self.options.min_evidence
    }

    /// Records in the receipt which stored levels are read, and at which resolution.
    fn record_input(&self, resolution: [f64; 2], bytes: u64) {
        let sources = [0, 1].map(|i| self.sides[i].source(resolution[i]));
        for (name, source) in ["fixed_level", "moving_level"].into_iter().zip(sources) {
            self.ctx.record(
                name,
                json!({"location": source.location(), "spacing_um": source.grid().spacing}),
            );
        }
        self.ctx.record("resolution_um", json!(resolution));
        self.ctx.record("memory_needed", bytes);
        tracing::info!(
            "fixed: {} at {:.3} um; moving: {} at {:.3} um",
            sources[0].location(),
            resolution[0],
            sources[1].location(),
            resolution[1]
        );
    }

    /// Records the results in the receipt. Returns the reason if the map is refused.
    fn conclude(
        &self,
        done: &Refinement,
        found: Option<&SearchResult>,
        judged: Option<&Evidence>,
    ) -> Option<Refusal> {
        let ctx = self.ctx;
        let metric = self.options.metric;
        let refusal = done.refusal.clone().or_else(|| self.worse(done));
        let refusal = refusal.or_else(|| self.chance(judged?));
        if let Some(judged) = judged {
            ctx.record("evidence", judged.evidence);
            ctx.record(
                "judged",
                json!({
                    "resolution_um": judged.resolution,
                    "measure": metric.of_details().name(),
                    "found": judged.found,
                    "most_by_chance": judged.wrong,
                    "wrong_maps": judged.maps,
                }),
            );
        }
        ctx.record("believed", refusal.is_none());
        let [before, after] = done.energy.map(|energy| energy.map(|e| metric.shown(e)));
        ctx.record("metric", metric.name());
        ctx.record("metric_before", json!(before));
        ctx.record("metric_after", json!(after));
        ctx.record("overlap_before", done.overlap[0]);
        ctx.record("overlap_after", done.overlap[1]);
        ctx.record("finest_resolution_um", done.resolution);
        ctx.record("samples", done.samples);
        ctx.record("levels", done.levels.clone());
        let iterations: u64 =
            done.levels.iter().filter_map(|level| level["iterations"].as_u64()).sum();
        ctx.record("iterations", iterations);
        ctx.record("accepted", refusal.is_none());
        ctx.record("refusal", json!(refusal.as_ref().map(ToString::to_string)));
        if let Some(found) = found {
            ctx.record(
                "search",
                json!({"placed": found.placed, "worth": found.score[0], "next_worth": found.score[1]}),
            );
        }
        refusal
    }

    /// Refuses a result whose energy is higher than that of the initial map.
    fn worse(&self, done: &Refinement) -> Option<Refusal> {
        let metric = self.options.metric;
        let [before, after] = done.energy;
        // the energy of an initial map with too little overlap is not comparable
        let before = before.filter(|_| done.overlap[0] >= self.options.min_overlap)?;
        let after = after?;
        (after > before)
            .then(|| Refusal::Worse { before: metric.shown(before), after: metric.shown(after) })
    }

    /// Refuses a result whose evidence is below `min_evidence`.
    fn chance(&self, judged: &Evidence) -> Option<Refusal> {
        let wanted = self.options.min_evidence;
        (judged.evidence < wanted).then(|| Refusal::Chance {
            measure: self.options.metric.of_details().name(),
            found: judged.found,
            wrong: judged.wrong,
            maps: judged.maps,
            evidence: judged.evidence,
            wanted,
            way_out: match &self.options.search {
                None => "--search 1000 (with --allow-reflection where one may be mirrored)",
                Some(search) if !search.allow_reflection => {
                    "--allow-reflection where one may be mirrored"
                }
                Some(_) => "see whether both show the same sample and channel",
            },
        })
    }
}

/// The result of a refinement, of the search before it, and of the comparison with wrong maps.
struct RefineAttempt {
    /// The initial map of the refinement.
    start: Affine,
    done: Refinement,
    found: Option<SearchResult>,
    judged: Option<Evidence>,
}

impl RefineAttempt {
    /// The evidence for the map: 0 if it was refused, infinite if it was not judged.
    fn evidence(&self) -> f64 {
        match &self.judged {
            Some(judged) => judged.evidence,
            None if self.done.refusal.is_some() => 0.0,
            None => f64::INFINITY,
        }
    }
}

/// Reads the chain. Also returns its steps as documents store them, with consecutive matrices
/// merged.
fn read_initial(locations: &[String]) -> Result<(Chain, Vec<Step>), Error> {
    let stored = transform::read_stored(locations, Direction::FixedToMoving)?;
    let mut steps: Vec<Step> = Vec::new();
    for step in stored.steps {
        match (steps.last_mut(), step) {
            (Some(Step::Affine(last)), Step::Affine(next)) => *last = last.then(&next),
            (_, step) => steps.push(step),
        }
    }
    Ok((stored.chain, steps))
}

fn describe_initial(initial: &[String]) -> String {
    if initial.is_empty() {
        "the identity (no --initial)".to_owned()
    } else {
        format!("--initial {}", initial.join(" "))
    }
}

/// Whether both volumes are single planes; an error if only one of them is a plane.
fn dimensions(sides: &[OpenedInput; 2]) -> Result<bool, Error> {
    let planes = [sides[0].grid().shape[0], sides[1].grid().shape[0]];
    match planes {
        [1, 1] => Ok(true),
        [1, planes] | [planes, 1] => {
            let flat = usize::from(sides[0].grid().shape[0] != 1);
            Err(Error::Dimensions {
                plane: sides[flat].location().to_owned(),
                volume: sides[1 - flat].location().to_owned(),
                planes,
            })
        }
        _ => Ok(false),
    }
}

/// The affine map that approximates `chain` over `grid`, from the value at the centre and from
/// central differences over a quarter of the extent to either side. The result is the identity if
/// the chain is undefined at one of these points.
fn jacobian(chain: &Chain, grid: &Grid) -> Result<Affine, Error> {
    if let Some(map) = chain.as_affine() {
        return Ok(map);
    }
    let [low, high] = grid.extent(&grid.bounds());
    let at = |p: Point| -> Result<Point, Error> {
        let (local, _) = chain.localise([p, p]).map_err(|source| transform::Error::Format {
            location: "--initial".to_owned(),
            message: source.to_string(),
        })?;
        Ok(local.apply(p))
    };
    let centre: Point = std::array::from_fn(|a| 0.5 * (low[a] + high[a]));
    let mut linear = [[0.0; 3]; 3];
    for b in 0..3 {
        let step = (0.25 * (high[b] - low[b])).max(0.5 * grid.spacing[b]);
        let (mut one, mut two) = (centre, centre);
        (one[b], two[b]) = (centre[b] - step, centre[b] + step);
        let (one, two) = (at(one)?, at(two)?);
        (0..3).for_each(|a| linear[a][b] = (two[a] - one[a]) / (2.0 * step));
    }
    let there = at(centre)?;
    let known = there.iter().chain(linear.iter().flatten()).all(|v| v.is_finite());
    if !known {
        // the field is unknown near the centre, so its scale cannot be estimated
        return Ok(Affine::IDENTITY);
    }
    Ok(Affine::translation(centre.map(|c| -c)).then(&Affine::from_parts(linear, there)))
}

/// The in-plane part of a map between planes, and the row that restores the complete map.
struct InPlaneMap {
    /// The map between the images that are compared, in which planes lie at z = 0.
    inner: Affine,
    /// The z row of the complete map for planes; `None` for volumes.
    height: Option<[f64; 4]>,
}

fn flattened(whole: &Affine, planar: bool, grids: &[Grid; 2], given: bool) -> InPlaneMap {
    if !planar {
        return InPlaneMap { inner: *whole, height: None };
    }
    let (height, rows) = (grids[0].origin[0], whole.rows());
    let row = |a: usize| [0.0, rows[a][1], rows[a][2], rows[a][3] + rows[a][0] * height];
    let inner = Affine::from_rows([[1.0, 0.0, 0.0, 0.0], row(1), row(2)]);
    let z = if given {
        rows[0]
    } else {
        // z of the fixed plane goes to z of the moving plane
        [1.0, 0.0, 0.0, grids[1].origin[0] - height]
    };
    InPlaneMap { inner, height: Some(z) }
}

impl InPlaneMap {
    /// Restores the complete map from `map`, which is a map between the compared images.
    fn outer(&self, map: &Affine) -> Affine {
        match self.height {
            None => *map,
            Some(z) => {
                let rows = map.rows();
                Affine::from_rows([z, rows[1], rows[2]])
            }
        }
    }
}
