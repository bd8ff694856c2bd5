//! Relaxes the meshes of fields on disk, block by block.

use std::path::Path;

use super::conclude::{PairCounts, conclude};
use super::matches::{Matches, Robust};
use super::materials::Tissue;
use super::rounds::{Relaxation, Relaxed};
use super::sources::{self, Source};
use super::tiles::{self, Coarse, Frame, HALO};
use super::{Error, Options};
use crate::blocks::{self, Context, Identity, Outcome, Plan, Task, TaskResult, WriteUnit};
use crate::device::Cost;
use crate::fingerprint::Fingerprint;
use crate::geom::{Box3, Chain, FieldSource, Grid, Point};
use crate::transform::{self, Step, StoredChain};
use crate::volume::{self, FieldOutput, FieldParts, Volume};
use serde::{Deserialize, Serialize};

/// The side of a chunk of the field, in nodes: of planes along y and x, and of volumes.
const CHUNK: [usize; 2] = [64, 16];
/// The meshes are at rest when a step moves no node by more than this, relative to the distance of
/// nodes.
const TOLERANCE: f64 = 1e-3;
/// The default length at which the weight of a match in a stack is a quarter: that many section
/// thicknesses, but no less than this fraction of the distance of nodes.
const OUTLIER_LENGTH: [f64; 2] = [1.0, 0.1];

/// What a task found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct MeshCounts {
    /// The pairs of sections, or the one pair of volumes.
    pub(super) pairs: Vec<PairCounts>,
    pub(super) nodes: u64,
    pub(super) rounds: u64,
    /// The nodes that folded at first, and at the end.
    pub(super) folded: [u64; 2],
    pub(super) least_area: f64,
    /// The longest displacement along z, y, x, micrometres.
    pub(super) reach: Point,
}

/// Relaxes the meshes of the fields at `locations`, on the nodes of the first, and writes the
/// displacements of their nodes to `output`. A location is a field, or a chain that begins with one;
/// the chain of the result, which ends with `through`, the chain through which the displacements
/// were seen, is written to [`transform::document_beside`] `output`.
///
/// The sections of a stack, or the whole of a volume, are relaxed at once; planes of a pair are
/// relaxed each for itself. The labels of `mask`, which lies in the space that `through` leads to, say
/// where springs are weaker. If planes do not fit into memory, or with `--block-size`, they are relaxed
/// in tiles (`tiles.rs`).
///
/// # Errors
/// [`Error`].
pub fn relax(
    locations: &[String],
    through: &StoredChain,
    mask: Option<&Volume>,
    output: &str,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    volume::check_zarr_name(output)?;
    let sources = sources::open(locations, options)?;
    sources::check_through(&sources, locations, &through.chain)?;
    let Some(first) = sources.first() else {
        return Err(blocks::Error::Usage("no field is given".to_owned()).into());
    };
    let (grid, components) = (first.field.grid(), first.field.parts().components);
    let planes = components == 2;
    options.check(&grid, planes)?;
    let tissue =
        mask.map(|mask| Tissue { mask, through: &through.chain, materials: &options.materials });
    if tissue.is_some() && !planes {
        let message =
            "--mask is for fields of planes, and these are fields of volumes; leave it out";
        return Err(blocks::Error::Usage(message.to_owned()).into());
    }
    let chunk = grid.shape.map(|n| n.min(CHUNK[usize::from(!planes)]));
    let chunk = if planes { [1, chunk[1], chunk[2]] } else { chunk };
    let Division { plan, is_tiled } =
        plan(&sources, &through.chain, mask, (&grid, chunk), options, ctx)?;
    mask.iter().for_each(|mask| ctx.input(mask));
    locations.iter().for_each(|location| ctx.input_file(location));
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let document = transform::document_beside(output);
    ctx.replace_document(&document)?;
    let parts = FieldParts { components, quality: Vec::new() };
    let out = FieldOutput::create_parts(output, &grid, parts, chunk, &plan.as_run(ctx))?;
    ctx.output_file(Path::new(output));
    let mut meshes = Meshes { sources: &sources, tissue, grid, options, coarse: None };
    if is_tiled && !ctx.finish {
        meshes.relax_coarse().map_err(|e| blocks::Error::Field(e.into()))?;
    }
    let results = plan.stream_to::<_, _, _, Error>(
        ctx,
        &out,
        |task| meshes.read(task),
        |task, input| Ok(meshes.relax(input, task)),
        |task, (elements, counts)| {
            out.write_parts(&task.core, &elements)?;
            let found = counts.pairs.iter().any(|pair| pair.matched > 0);
            let outcome = if found { Outcome::Done } else { Outcome::Empty };
            Ok(TaskResult::from(outcome).with_summary(&counts)?)
        },
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let mut counts = MeshCounts { least_area: f64::INFINITY, ..MeshCounts::default() };
    for summary in results.summaries() {
        counts.add(summary?.1);
    }
    counts.pairs = PairCounts::joined(counts.pairs);
    conclude(&counts, &grid, &out, output, options, ctx)?;
    let mut chain = vec![Step::Field(output.to_owned())];
    chain.extend_from_slice(&first.after);
    chain.extend_from_slice(&through.steps);
    Ok(transform::write_document(&document, &chain)?)
}

impl MeshCounts {
    fn add(&mut self, other: Self) {
        self.pairs.extend(other.pairs);
        self.nodes += other.nodes;
        self.rounds = self.rounds.max(other.rounds);
        self.folded = std::array::from_fn(|i| self.folded[i] + other.folded[i]);
        self.least_area = self.least_area.min(other.least_area);
        self.reach = std::array::from_fn(|a| self.reach[a].max(other.reach[a]));
    }
}

/// How the nodes are divided into tasks, and the meshes that hold tiles together.
struct Division {
    plan: Plan,
    is_tiled: bool,
}

fn plan(
    sources: &[Source],
    through: &Chain,
    mask: Option<&Volume>,
    (grid, chunk): (&Grid, [usize; 3]),
    options: &Options,
    ctx: &Context,
) -> Result<Division, Error> {
    let planes = chunk[0] == 1;
    if ctx.block_size.is_some() && !planes {
        let message =
            "--block-size has no effect: the mesh of a volume is relaxed at once; leave it out";
        return Err(blocks::Error::Usage(message.to_owned()).into());
    }
    let together = if planes && !options.stack { 1 } else { grid.shape[0] };
    let whole: [usize; 3] = std::array::from_fn(|a| match a {
        0 => together,
        _ => grid.shape[a].next_multiple_of(chunk[a]),
    });
    let fits = |block| {
        let unit = WriteUnit::from(block);
        blocks::refuse_large(
            block,
            grid.bounds(),
            unit,
            |_| cost(sources, grid, mask.is_some(), block).0,
            ctx,
        )
    };
    let is_tiled = planes && (ctx.block_size.is_some() || fits(whole).is_err());
    let block = if is_tiled {
        let unit = [together, chunk[1], chunk[2]];
        let below = tiles::coarse_grid(grid).shape;
        let apart = cost(sources, grid, mask.is_some(), [together, below[1], below[2]]).0;
        Plan::choose_block(
            grid.bounds(),
            unit,
            |block| cost(sources, grid, mask.is_some(), tile(block, grid)).0 + apart.clone(),
            ctx,
        )?
    } else {
        fits(whole)?;
        whole
    };
    let mut identity = Identity::of("relax")
        .with("options", options)
        .with("grid", grid)
        .with("tiled", is_tiled)
        .with_optional("mask", mask)?
        .with_chain("through", through)?;
    for (i, source) in sources.iter().enumerate() {
        identity = source.add_to(identity, &format!("field {}", i + 1))?;
    }
    if let Some(first) = sources.first() {
        let after =
            transform::open_steps("the chain", &first.after, transform::Direction::FixedToMoving)?;
        identity = identity.with_chain("initial", &after)?;
    }
    let (peak, waiting) =
        cost(sources, grid, mask.is_some(), if is_tiled { tile(block, grid) } else { block });
    let plan = Plan::tile(grid.bounds(), block, peak, &identity).waiting(&waiting);
    Ok(Division { plan, is_tiled })
}

/// The shape of a tile with its halo.
fn tile(block: [usize; 3], grid: &Grid) -> [usize; 3] {
    std::array::from_fn(|a| match a {
        0 => block[0],
        _ => (block[a] + 2 * HALO).min(grid.shape[a]),
    })
}

/// The memory of a task of `nodes` at its peak, and while it waits.
fn cost(sources: &[Source], grid: &Grid, is_masked: bool, nodes: [usize; 3]) -> (Cost, Cost) {
    let nodes: usize = (0..3).map(|a| nodes[a].min(grid.shape[a])).product();
    let all: usize = grid.shape.iter().product();
    // other fields may have more nodes
    let share = nodes as f64 / all.max(1) as f64;
    let measured: f64 = sources
        .iter()
        .map(|source| share * source.field.grid().shape.iter().product::<usize>() as f64)
        .sum();
    let waiting = Cost::of::<[f32; 4]>("displacements", measured.ceil() as usize);
    let band = sources.iter().map(|source| source.distance.unsigned_abs()).max().unwrap_or(0);
    let springs =
        if sources.iter().all(|source| source.field.parts().components == 2) { 4 } else { 13 };
    let peak = waiting.clone()
        + Cost::of::<[f64; 3]>("displacements of nodes", 10 * nodes)
        + Cost::of::<[f32; 3]>("springs", springs * nodes)
        + Cost::of::<[f32; 4]>("ties", 3 * (sources.len() + 1) * nodes)
        + Cost::of::<[f32; 4]>("materials", if is_masked { 5 * nodes } else { 0 })
        + Cost::of::<f32>("multigrid", (2 * (band + 1) + 2 * (sources.len() + 1) + 24) * nodes);
    (peak, waiting)
}

/// The displacements of a task.
enum Input {
    /// With the factors of the springs.
    Planes(Vec<Matches<2>>, Option<Frame<2>>, Vec<Vec<f32>>),
    Volume(Vec<Matches<3>>),
}

/// What all tasks share.
struct Meshes<'a> {
    sources: &'a [Source],
    tissue: Option<Tissue<'a>>,
    grid: Grid,
    options: &'a Options,
    coarse: Option<Coarse>,
}

impl Meshes<'_> {
    /// The nodes of a task and of its halo.
    fn part(&self, task: &Task) -> Box3 {
        match self.coarse {
            Some(_) => task.core.grow([0, HALO as i64, HALO as i64]).intersect(&self.grid.bounds()),
            None => task.core,
        }
    }

    fn read(&self, task: &Task) -> anyhow::Result<Input> {
        let part = self.part(task);
        let range = [part.min[0], part.max[0]];
        let within = self.coarse.as_ref().map(|coarse| {
            let mut extent = self.grid.extent(&part);
            for (c, reach) in coarse.reach().into_iter().enumerate() {
                let by = reach + 2.0 * self.grid.spacing[1 + c];
                extent[0][1 + c] -= by;
                extent[1][1 + c] += by;
            }
            extent
        });
        let sources = self.sources.iter();
        let frame = self.coarse.as_ref().map(|coarse| coarse.frame(&self.grid, &part));
        Ok(if self.sources.iter().all(|source| source.field.parts().components == 2) {
            let matches = sources.map(|s| s.read(range, within, self.options));
            let factors = self.factors(&self.grid.crop(&part))?;
            Input::Planes(matches.collect::<Result<_, _>>()?, frame, factors)
        } else {
            let matches = sources.map(|s| s.read(range, None, self.options));
            Input::Volume(matches.collect::<Result<_, _>>()?)
        })
    }

    /// The factors of the springs of planes with these nodes; none without a mask.
    fn factors(&self, grid: &Grid) -> Result<Vec<Vec<f32>>, blocks::Error> {
        self.tissue.map_or(Ok(Vec::new()), |tissue| tissue.factors(grid))
    }

    /// Relaxes all sections at a lower resolution.
    fn relax_coarse(&mut self) -> anyhow::Result<()> {
        let mut all: Vec<Matches<2>> = Vec::new();
        for source in self.sources {
            let mut whole: Option<Matches<2>> = None;
            for z in 0..self.grid.shape[0] as i64 {
                let mut plane = source.read([z, z + 1], None, self.options)?;
                hold_out(&mut plane, self.options);
                let plane = tiles::reduced(&plane);
                match &mut whole {
                    None => whole = Some(plane),
                    Some(whole) => {
                        whole.grid.shape[0] += 1;
                        whole.displacements.extend(plane.displacements);
                        whole.weights.extend(plane.weights);
                    }
                }
            }
            all.extend(whole);
        }
        let grid = tiles::coarse_grid(&self.grid);
        let factors = self.factors(&grid)?;
        let relaxation = relaxation(all, &grid, None, factors, 0, self.options);
        let relaxed = relaxation.relax();
        self.coarse = Some(Coarse { grid, layout: relaxed.layout, u: relaxed.u });
        Ok(())
    }

    fn relax(&self, input: Input, task: &Task) -> (Vec<f32>, MeshCounts) {
        match input {
            Input::Planes(matches, frame, factors) => {
                self.relax_task(matches, frame, factors, task)
            }
            Input::Volume(matches) => self.relax_task(matches, None, Vec::new(), task),
        }
    }

    /// The elements of a task's part of the field, and what was found.
    fn relax_task<const C: usize>(
        &self,
        mut matches: Vec<Matches<C>>,
        frame: Option<Frame<C>>,
        factors: Vec<Vec<f32>>,
        task: &Task,
    ) -> (Vec<f32>, MeshCounts) {
        let (part, first) = (self.part(task), task.core.min[0] as usize);
        let own = self.grid.crop(&part);
        let asked: Vec<Matches<C>> =
            matches.iter_mut().map(|m| hold_out(m, self.options)).collect();
        let relaxation = relaxation(matches, &own, frame, factors, first, self.options);
        let relaxed = relaxation.relax();
        let core = task.core.shift(part.min.map(|v| -v));
        let is_own = |[_, y, x]: [usize; 3]| {
            (core.min[1]..core.max[1]).contains(&(y as i64))
                && (core.min[2]..core.max[2]).contains(&(x as i64))
        };
        let pairs = PairCounts::of(&relaxed, &relaxation, &asked, first, is_own);
        let folded = relaxed.folded.each_ref().map(|nodes| {
            nodes.iter().filter(|i| is_own(relaxed.layout.position(**i).1)).count() as u64
        });
        let counts = MeshCounts {
            pairs,
            nodes: task.core.len() as u64,
            rounds: relaxed.rounds as u64,
            folded,
            least_area: relaxed.least_area,
            reach: [0.0; 3],
        };
        elements(&relaxed, &core, self.options, counts)
    }
}

/// What acts on the meshes of a grid.
///
/// * `factors`: those of the constants of springs; none if all are 1
/// * `first`: the section of the stack that is the first of the grid
fn relaxation<const C: usize>(
    matches: Vec<Matches<C>>,
    grid: &Grid,
    frame: Option<Frame<C>>,
    factors: Vec<Vec<f32>>,
    first: usize,
    options: &Options,
) -> Relaxation<C> {
    let shortest = grid.spacing[3 - C..].iter().copied().fold(f64::INFINITY, f64::min);
    let default = options.stack.then_some(OUTLIER_LENGTH[0]);
    let robust = options.outlier_length.or(default).map(|length| {
        let is_given = options.outlier_length.is_some();
        let least = if is_given { 0.0 } else { OUTLIER_LENGTH[1] * shortest };
        Robust { length: (length * grid.spacing[0]).max(least) }
    });
    let sections = if C == 2 { grid.shape[0] } else { 1 };
    let held = (0..sections).map(|s| options.stack && options.fixed.contains(&(first + s)));
    Relaxation {
        grid: *grid,
        matches,
        stiffness: options.stiffness,
        factors,
        robust,
        held: held.collect(),
        frame,
        tolerance: TOLERANCE * shortest,
    }
}

/// Leaves out a fraction of the matches, and returns them: those whose hash is small.
fn hold_out<const C: usize>(matches: &mut Matches<C>, options: &Options) -> Matches<C> {
    let mut asked = matches.clone();
    if options.hold_out == 0.0 {
        asked.weights.fill(0.0);
        return asked;
    }
    for i in 0..asked.weights.len() {
        let mut hash = Fingerprint::default();
        let [_, ny, nx] = matches.grid.shape;
        let at = [i / (ny * nx), i / nx % ny, i % nx];
        let at: [u64; 3] = std::array::from_fn(|a| (matches.first[a] + at[a] as i64) as u64);
        hash.add_counts(at).add_counts([matches.distance.unsigned_abs() as u64]);
        let draw = u32::from_str_radix(hash.hex().get(..8).unwrap_or("0"), 16).unwrap_or(0);
        let is_out = f64::from(draw) < options.hold_out * f64::from(u32::MAX);
        let kept = if is_out { &mut matches.weights } else { &mut asked.weights };
        kept[i] = 0.0;
    }
    asked
}

/// The components of each node of the core in the order in which they are stored; NaN in sections that
/// no match reaches, unless they are part of a stack.
fn elements<const C: usize>(
    relaxed: &Relaxed<C>,
    core: &Box3,
    options: &Options,
    mut counts: MeshCounts,
) -> (Vec<f32>, MeshCounts) {
    let layout = relaxed.layout;
    let is_known = options.stack || counts.pairs.iter().any(|pair| pair.matched > 0);
    let mut out = Vec::with_capacity(core.len() * C);
    for node in core.tiles([1; 3]) {
        let [z, y, x] = node.min.map(|v| v as usize);
        let (section, z) = if C == 2 { (z, 0) } else { (0, z) };
        let u = relaxed.u[layout.index(section, [z, y, x])];
        for c in 0..C {
            out.push(if is_known { u[c] as f32 } else { f32::NAN });
            let reach = &mut counts.reach[3 - C + c];
            *reach = reach.max(u[c].abs());
        }
    }
    (out, counts)
}
