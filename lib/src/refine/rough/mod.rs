//! A rough alignment of the sections of a stack of which nothing is known.
//!
//! Each section is compared with those before it, the nearest first, over all rotations (`links.rs`),
//! until a map is found that stands out clearly, or up to a distance. Where a section is broken, each piece gets a map of its own (`pieces.rs`). The
//! sections are then placed along the links that explain most (`tree.rs`).

use std::path::Path;

use serde::Serialize;
use serde_json::json;

use super::input::OpenedInput;
use super::{Error, InputVolume, SearchOptions};
use crate::blocks::{
    self, Context, Identity, Outcome, Plan, Task, TaskResult, TaskResults, TaskRows,
};
use crate::device::Cost;
use crate::geom::{Box3, Grid, Model};
use crate::metric::SimilarityMeasure;
use crate::quote::ranges;
use crate::store;
use crate::transform::{self, Step};
use crate::volume::{self, FieldOutput, FieldParts, Unfinished as _};

#[cfg(feature = "cli")]
mod flags;
mod links;
mod pieces;
#[cfg(test)]
mod tests;
mod tree;

#[cfg(feature = "cli")]
pub use flags::RoughFlags;

use links::Link;
use tree::Tree;

/// The longest side of the images that are compared, pixels; the search itself begins with less.
const SIDE: f64 = 384.0;
/// The smallest side of a section, pixels.
const LEAST_SIDE: usize = 32;
/// The number of sections of a task. Those before them, up to the distance, are read once more.
const SECTIONS: usize = 2;
/// The nodes of the field along y and x: of rigid sections, and if some sections are broken.
const NODES: [usize; 2] = [2, 65];
/// The number of pixels that are compared in the refinement of a map.
const SAMPLES: usize = 16_000;
/// The width of the margin of the field around a section, as a fraction of its side.
const MARGIN: f64 = 0.125;
/// The angle between the rotations that are tried, radians.
const ROTATION_STEP: f64 = 6.0 / 180.0 * std::f64::consts::PI;
/// The ratio of scales that are tried one after the other.
const SCALE_STEP: f64 = 1.06;
/// The memory of a task per pixel that is compared, bytes: images of two sections, their details and
/// spectra.
const PER_PIXEL: u64 = 160;

/// How the sections of a stack are aligned roughly.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RoughOptions {
    /// The number of sections before a section with which it is compared.
    pub distance: usize,
    /// The largest rotation between two sections, radians.
    pub max_rotation: f64,
    /// The range of the scale from a section to another.
    pub scale_range: [f64; 2],
    /// Whether sections can be mirrored.
    pub allow_reflection: bool,
    /// The maximum number of pieces of a section.
    pub pieces: usize,
    /// The similarity measure.
    pub metric: SimilarityMeasure,
    /// The minimum overlap of two sections, as a fraction of the smaller one.
    pub min_overlap: f64,
    /// The minimum number of standard deviations by which the similarity of two sections exceeds
    /// that under wrong maps.
    pub min_evidence: f64,
    /// The section that is not moved; `None` for the middle one of those that are connected.
    pub reference: Option<usize>,
}

impl Default for RoughOptions {
    fn default() -> Self {
        let pair = super::Options::default();
        Self {
            distance: 2,
            max_rotation: std::f64::consts::PI,
            scale_range: [1.0, 1.0],
            allow_reflection: false,
            pieces: 3,
            metric: pair.metric,
            min_overlap: 0.3,
            min_evidence: pair.min_evidence,
            reference: None,
        }
    }
}

impl RoughOptions {
    /// The options of the comparison of two sections.
    fn of_pair(&self) -> super::Options {
        super::Options {
            metric: self.metric,
            model: if self.scale_range == [1.0, 1.0] { Model::Rigid } else { Model::Similarity },
            levels: 2,
            samples: Some(SAMPLES),
            iterations: 30,
            min_overlap: self.min_overlap,
            min_evidence: self.min_evidence,
            search: Some(self.search()),
            ..super::Options::default()
        }
    }

    fn search(&self) -> SearchOptions {
        let turns = (2.0 * self.max_rotation / ROTATION_STEP).ceil().max(1.0);
        let [low, high] = self.scale_range;
        let scales = 1.0 + ((high / low).ln() / SCALE_STEP.ln()).ceil();
        let sides = if self.allow_reflection { 2.0 } else { 1.0 };
        SearchOptions {
            starts: (turns * scales * sides) as usize + 1,
            max_rotation: self.max_rotation,
            max_translation: None,
            scale_range: self.scale_range,
            allow_reflection: self.allow_reflection,
            keep: 6,
        }
    }

    /// Checks the options for a stack on `grid`.
    fn check(&self, grid: &Grid, location: &str) -> Result<(), blocks::Error> {
        let refuse = |message: String| Err(blocks::Error::Usage(message));
        let [sections, height, width] = grid.shape;
        if sections < 2 {
            return refuse(format!(
                "{location} has one section, and no other to align it to; for two images, refine --search finds \
                 the map between them"
            ));
        }
        if height.min(width) < LEAST_SIDE {
            return refuse(format!(
                "the sections of {location} have {height} x {width} pixels; wanted {LEAST_SIDE} or more along each \
                 axis"
            ));
        }
        if let Some(beyond) = self.reference.filter(|reference| *reference >= sections) {
            return refuse(format!(
                "--reference {beyond} is out of range: the stack has {sections} sections, 0 to {}",
                sections - 1
            ));
        }
        Ok(())
    }
}

/// Aligns the sections of a stack roughly, and writes the field that takes each point of the aligned
/// stack to its section to `output`, and its chain to [`transform::document_beside`] `output`.
///
/// # Errors
/// [`Error`]; [`blocks::Error::Rejected`] if fewer than half of the sections are connected.
pub fn rough(
    stack: &InputVolume<'_>,
    output: &str,
    options: &RoughOptions,
    ctx: &Context,
) -> Result<(), Error> {
    volume::check_zarr_name(output)?;
    let opened = OpenedInput::open(stack, "stack")?;
    let grid = opened.grid();
    options.check(&grid, stack.location)?;
    let run = Run { stack: &opened, grid, options, ctx };
    let plan = run.plan()?;
    ctx.input(&opened.stored[0]);
    stack.mask.iter().for_each(|mask| ctx.input_file(mask));
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let (path, document) = (Path::new(output), transform::document_beside(output));
    let folder = blocks::ledger_folder_of(path);
    if plan.has_finished(output, ctx)? && store::exists(&document) {
        plan.restore_receipt(output, ctx)?;
        TaskRows::sweep(&folder, ctx);
        return Ok(());
    }
    ctx.replace_document(&document)?;
    ctx.output_file(path);
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
    let tree = Tree::of(&links, grid.shape[0], options.reference);
    if let Some(reason) = run.conclude(&links, &tree) {
        rows.discard(ctx);
        return Err(ctx.reject_result(path, &reason).into());
    }
    run.write(&tree, &links, &plan, output)?;
    transform::write_document(&document, &[Step::Field(output.to_owned())])?;
    rows.remove(ctx);
    Ok(())
}

struct Run<'a> {
    stack: &'a OpenedInput,
    grid: Grid,
    options: &'a RoughOptions,
    ctx: &'a Context,
}

impl Run<'_> {
    /// The resolution at which sections are compared, micrometres.
    fn resolution(&self) -> f64 {
        let [_, y, x] = self.grid.spacing;
        let longest = (self.grid.shape[1] as f64 * y).max(self.grid.shape[2] as f64 * x);
        (longest / SIDE).max(y.min(x))
    }

    fn plan(&self) -> Result<Plan, Error> {
        let identity = Identity::of("rough")
            .with_processor()
            .with_volume("stack", &self.stack.stored[0])?
            .with_optional("mask", self.stack.mask())?
            .with("options", self.options)
            .with("seed", self.ctx.seed);
        let images = self.stack.plane_pixels(self.resolution());
        let read = SECTIONS + self.options.distance;
        let cost = Cost::bytes("sections", images * 6 * read as u64)
            + Cost::bytes("comparison", images * PER_PIXEL)
            + Cost::bytes(
                "reading",
                super::input::PER_THREAD.min(24 * self.stack.plane_pixels(0.0)),
            );
        let sections = Box3::of_shape([self.grid.shape[0], 1, 1]);
        Ok(Plan::tile(sections, [SECTIONS, 1, 1], cost, &identity))
    }

    fn find_links(
        &self,
        plan: &Plan,
        rows: &TaskRows,
        folder: &Path,
    ) -> Result<TaskResults, blocks::Error> {
        let first = |task: &Task| (task.core.min[0] as usize).saturating_sub(self.options.distance);
        let resolution = self.resolution();
        plan.stream(
            self.ctx,
            folder,
            |task| {
                let sections = first(task)..task.core.max[0] as usize;
                let images: Result<Vec<_>, Error> =
                    sections.map(|z| self.stack.plane(z, resolution)).collect();
                Ok(images?)
            },
            |task, images| {
                let mut links = Vec::new();
                for section in task.core.min[0] as usize..task.core.max[0] as usize {
                    let image = |z: usize| &images[z - first(task)];
                    let earlier = (section.saturating_sub(self.options.distance)..section).rev();
                    let earlier: Vec<_> = earlier.map(|z| (z, image(z))).collect();
                    links.extend(links::links(
                        section,
                        image(section),
                        &earlier,
                        self.options,
                        self.ctx.seed,
                    ));
                }
                Ok(links)
            },
            |_, links| {
                let is_linked = links.iter().any(Link::is_believed);
                let outcome = if is_linked { Outcome::Done } else { Outcome::Empty };
                Ok(TaskResult::from(outcome).with_rows(rows.write(&serde_json::to_vec(&links)?)?))
            },
        )
    }

    /// Records links and sections; returns the reason if the result is rejected.
    fn conclude(&self, links: &[Link], tree: &Tree) -> Option<String> {
        let ctx = self.ctx;
        let believed = links.iter().filter(|link| link.is_believed()).count();
        let broken = tree.in_pieces(links);
        let lost = tree.not_placed();
        ctx.record("links", json!(links.iter().map(Link::report).collect::<Vec<_>>()));
        ctx.record("believed_links", believed);
        ctx.record("reference", tree.root);
        ctx.record("placed", self.grid.shape[0] - lost.len());
        ctx.record("not_placed", ranges(&lost));
        ctx.record("in_pieces", ranges(&broken));
        tracing::info!(
            "{believed} of {} pairs of sections are similar; section {} is not moved",
            links.len(),
            tree.root
        );
        if 2 * lost.len() > self.grid.shape[0] || believed == 0 {
            return Some(self.apart(links, &lost));
        }
        if !broken.is_empty() {
            tracing::info!("in pieces, each of which has a map of its own: {}", ranges(&broken));
        }
        if !lost.is_empty() {
            tracing::warn!(
                "no similarity connects these sections to the others, and they follow their neighbours: {}",
                ranges(&lost)
            );
        }
        None
    }

    /// Says that too few sections are connected, and what can be done.
    fn apart(&self, links: &[Link], lost: &[usize]) -> String {
        let sections = self.grid.shape[0];
        let further = if self.options.distance + 1 < sections {
            format!("a --distance above {}, ", self.options.distance)
        } else {
            String::new()
        };
        let reason = links.iter().find_map(|link| {
            let refusal = link.refusal.as_ref()?;
            Some(format!("sections {} and {}: {refusal}", link.other, link.section))
        });
        format!(
            "only {} of {sections} sections are connected by similarities beyond chance ({}); give {further}\
             --allow-reflection where sections may be mirrored, a --scale-range, --metric mutual-information for \
             different stains, a --mask of the tissue, or a lower --min-evidence",
            sections - lost.len(),
            reason.unwrap_or_default()
        )
    }

    /// Writes the field; the attribute that marks it as complete is written last.
    fn write(&self, tree: &Tree, links: &[Link], plan: &Plan, output: &str) -> Result<(), Error> {
        let is_rigid = tree.links(links).all(|link| link.pieces.len() == 1);
        let nodes = NODES[usize::from(!is_rigid)];
        let grid = self.nodes(nodes);
        let displacements = tree.displacements(links, &grid);
        let parts = FieldParts { components: 2, quality: Vec::new() };
        let chunk = [grid.shape[0].min(16), nodes, nodes];
        let out = FieldOutput::create_parts(output, &grid, parts, chunk, &self.ctx.existing_now())?;
        out.write_parts(&grid.bounds(), &displacements)?;
        let longest = |a: usize| {
            displacements.iter().skip(a).step_by(2).fold(0.0f64, |m, v| m.max(f64::from(v.abs())))
        };
        out.set_attribute("reach", json!([0.0, longest(0), longest(1)]))?;
        out.set_attribute(blocks::RESULTS, self.ctx.results())?;
        out.set_attribute(blocks::IDENTITY_ATTRIBUTE, plan.identity().to_json())?;
        out.set_missing_blocks(None, true)?;
        Ok(())
    }

    /// The grid of the nodes, which reaches beyond the first and the last pixel of a section by a
    /// [`MARGIN`], because the stack at another resolution has its first pixel elsewhere.
    fn nodes(&self, nodes: usize) -> Grid {
        let mut grid = self.grid;
        for a in 1..3 {
            let length = (grid.shape[a] - 1) as f64 * grid.spacing[a];
            grid.origin[a] -= MARGIN * length;
            grid.spacing[a] = length * (1.0 + 2.0 * MARGIN) / (nodes - 1) as f64;
            grid.shape[a] = nodes;
        }
        grid
    }
}
