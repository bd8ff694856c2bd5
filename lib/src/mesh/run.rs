//! Relaxes the meshes of fields on disk, block by block.

use std::path::Path;

use super::conclude::{PairCounts, conclude};
use super::matches::{Matches, Robust};
use super::rounds::{Relaxation, Relaxed};
use super::sources::{self, Source};
use super::{Error, Options};
use crate::blocks::{self, Context, Identity, Outcome, Plan, Task, TaskResult, WriteUnit};
use crate::device::Cost;
use crate::fingerprint::Fingerprint;
use crate::geom::{Chain, FieldSource, Grid, Point};
use crate::transform::{self, Step, StoredChain};
use crate::volume::{self, FieldOutput, FieldParts};
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
/// relaxed each for itself.
///
/// # Errors
/// [`Error`].
pub fn relax(
    locations: &[String],
    through: &StoredChain,
    output: &str,
    options: &Options,
    ctx: &Context,
) -> Result<(), Error> {
    volume::check_zarr_name(output)?;
    let sources = sources::open(locations, options)?;
    let Some(first) = sources.first() else {
        return Err(blocks::Error::Usage("no field is given".to_owned()).into());
    };
    let (grid, components) = (first.field.grid(), first.field.parts().components);
    let planes = components == 2;
    options.check(&grid, planes)?;
    let chunk = grid.shape.map(|n| n.min(CHUNK[usize::from(!planes)]));
    let chunk = if planes { [1, chunk[1], chunk[2]] } else { chunk };
    let plan = plan(&sources, &through.chain, (&grid, chunk), options, ctx)?;
    locations.iter().for_each(|location| ctx.input_file(location));
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let document = transform::document_beside(output);
    ctx.replace_document(&document)?;
    let parts = FieldParts { components, quality: Vec::new() };
    let out = FieldOutput::create_parts(output, &grid, parts, chunk, &plan.as_run(ctx))?;
    ctx.output_file(Path::new(output));
    let results = plan.stream_to::<_, _, _, Error>(
        ctx,
        &out,
        |task| Input::read(&sources, task, options),
        |task, input| Ok(input.relax(&grid, task, options)),
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

fn plan(
    sources: &[Source],
    through: &Chain,
    (grid, chunk): (&Grid, [usize; 3]),
    options: &Options,
    ctx: &Context,
) -> Result<Plan, Error> {
    if ctx.block_size.is_some() {
        let message = "--block-size has no effect: the mesh of a plane, and of a volume or a stack, is relaxed at once; \
             leave it out";
        return Err(blocks::Error::Usage(message.to_owned()).into());
    }
    let alone = chunk[0] == 1 && !options.stack;
    let block: [usize; 3] = std::array::from_fn(|a| {
        if alone && a == 0 { 1 } else { grid.shape[a].next_multiple_of(chunk[a]) }
    });
    let measured: usize = sources
        .iter()
        .map(|source| source.field.grid().shape[usize::from(alone)..].iter().product::<usize>())
        .sum();
    let nodes: usize = grid.shape[usize::from(alone)..].iter().product();
    let waiting = Cost::of::<[f32; 4]>("displacements", measured);
    let band = sources.iter().map(|source| source.distance.unsigned_abs()).max().unwrap_or(0);
    let springs = if chunk[0] == 1 { 4 } else { 13 };
    let peak = waiting.clone()
        + Cost::of::<[f64; 3]>("displacements of nodes", 10 * nodes)
        + Cost::of::<[f32; 3]>("springs", springs * nodes)
        + Cost::of::<[f32; 4]>("ties", 3 * (sources.len() + 1) * nodes)
        + Cost::of::<f32>("multigrid", (2 * (band + 1) + 2 * (sources.len() + 1) + 24) * nodes);
    blocks::refuse_large(block, grid.bounds(), WriteUnit::from(block), |_| peak.clone(), ctx)?;
    let mut identity = Identity::of("relax")
        .with("options", options)
        .with("grid", grid)
        .with_chain("through", through)?;
    for (i, source) in sources.iter().enumerate() {
        identity = source.add_to(identity, &format!("field {}", i + 1))?;
    }
    if let Some(first) = sources.first() {
        let after =
            transform::open_steps("the chain", &first.after, transform::Direction::FixedToMoving)?;
        identity = identity.with_chain("initial", &after)?;
    }
    Ok(Plan::tile(grid.bounds(), block, peak, &identity).waiting(&waiting))
}

/// The displacements of a task.
enum Input {
    Planes(Vec<Matches<2>>),
    Volume(Vec<Matches<3>>),
}

impl Input {
    fn read(sources: &[Source], task: &Task, options: &Options) -> anyhow::Result<Self> {
        let planes = sources.iter().all(|source| source.field.parts().components == 2);
        let range = [task.core.min[0], task.core.max[0]];
        Ok(if planes {
            Self::Planes(sources.iter().map(|s| s.read(range, options)).collect::<Result<_, _>>()?)
        } else {
            Self::Volume(sources.iter().map(|s| s.read(range, options)).collect::<Result<_, _>>()?)
        })
    }

    fn relax(self, grid: &Grid, task: &Task, options: &Options) -> (Vec<f32>, MeshCounts) {
        match self {
            Self::Planes(matches) => relax_task(matches, grid, task, options),
            Self::Volume(matches) => relax_task(matches, grid, task, options),
        }
    }
}

/// The elements of a task's part of the field, and what was found.
fn relax_task<const C: usize>(
    mut matches: Vec<Matches<C>>,
    grid: &Grid,
    task: &Task,
    options: &Options,
) -> (Vec<f32>, MeshCounts) {
    let first = task.core.min[0] as usize;
    let own = grid.crop(&task.core);
    let asked: Vec<Matches<C>> = matches.iter_mut().map(|m| hold_out(m, first, options)).collect();
    let shortest = own.spacing[3 - C..].iter().copied().fold(f64::INFINITY, f64::min);
    let robust =
        options.outlier_length.or(options.stack.then_some(OUTLIER_LENGTH[0])).map(|length| {
            let least =
                if options.outlier_length.is_some() { 0.0 } else { OUTLIER_LENGTH[1] * shortest };
            Robust { length: (length * own.spacing[0]).max(least) }
        });
    let sections = if C == 2 { own.shape[0] } else { 1 };
    let held = (0..sections).map(|s| options.stack && options.fixed.contains(&s)).collect();
    let relaxation = Relaxation {
        grid: own,
        matches,
        stiffness: options.stiffness,
        robust,
        held,
        tolerance: TOLERANCE * shortest,
    };
    let relaxed = relaxation.relax();
    let pairs = PairCounts::of(&relaxed, &relaxation, &asked, first);
    let counts = MeshCounts {
        pairs,
        nodes: own.bounds().len() as u64,
        rounds: relaxed.rounds as u64,
        folded: relaxed.folded.map(|n| n as u64),
        least_area: relaxed.least_area,
        reach: [0.0; 3],
    };
    elements(&relaxed, &own, options, counts)
}

/// Leaves out a fraction of the matches, and returns them: those whose hash is small.
fn hold_out<const C: usize>(
    matches: &mut Matches<C>,
    first: usize,
    options: &Options,
) -> Matches<C> {
    let mut asked = matches.clone();
    if options.hold_out == 0.0 {
        asked.weights.fill(0.0);
        return asked;
    }
    for i in 0..asked.weights.len() {
        let mut hash = Fingerprint::default();
        let plane: usize = matches.grid.shape[1..].iter().product();
        let section = if C == 2 { i / plane + first } else { 0 };
        let at = if C == 2 { i % plane } else { i };
        hash.add_counts([section as u64, at as u64, matches.distance.unsigned_abs() as u64]);
        let draw = u32::from_str_radix(hash.hex().get(..8).unwrap_or("0"), 16).unwrap_or(0);
        let is_out = f64::from(draw) < options.hold_out * f64::from(u32::MAX);
        let kept = if is_out { &mut matches.weights } else { &mut asked.weights };
        kept[i] = 0.0;
    }
    asked
}

/// The components of each node in the order in which they are stored; NaN in sections that no match
/// reaches, unless they are part of a stack.
fn elements<const C: usize>(
    relaxed: &Relaxed<C>,
    grid: &Grid,
    options: &Options,
    mut counts: MeshCounts,
) -> (Vec<f32>, MeshCounts) {
    let layout = relaxed.layout;
    let is_known = options.stack || counts.pairs.iter().any(|pair| pair.matched > 0);
    let [nz, ny, nx] = grid.shape;
    let mut out = Vec::with_capacity(nz * ny * nx * C);
    for z in 0..nz {
        for y in 0..ny {
            for x in 0..nx {
                let (section, z) = if C == 2 { (z, 0) } else { (0, z) };
                let u = relaxed.u[layout.index(section, [z, y, x])];
                for c in 0..C {
                    out.push(if is_known { u[c] as f32 } else { f32::NAN });
                    let reach = &mut counts.reach[3 - C + c];
                    *reach = reach.max(u[c].abs());
                }
            }
        }
    }
    (out, counts)
}
