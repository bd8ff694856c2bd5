//! Cleans and merges fields of patches on disk.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::clean::{FlowField, Limits, Quality};
use super::peak::QUALITY;
use super::{CHUNK, Error, FEW};
use crate::blocks::{self, Context, Identity, Outcome, Plan, Task, TaskResult, WriteUnit};
use crate::device::Cost;
use crate::geom::{Box3, FieldSource, Grid, Point};
use crate::transform::{self, Direction, Step};
use crate::volume::{self, FieldFile, FieldOutput, FieldParts};

/// If cleaning leaves fewer than this fraction of the vectors, the field is not to be believed.
const MIN_LEFT: f64 = 0.2;

/// How fields are cleaned.
#[derive(Clone, Debug, Serialize)]
pub struct CleanOptions {
    /// The limits; lengths are in micrometres.
    pub limits: Limits,
    /// The maximum difference between neighbouring patches of the displacement along the axis that
    /// joins them, as a fraction of their distance.
    pub max_strain: f64,
    /// Whether unknown vectors are estimated from the known ones.
    pub fill: bool,
}

/// A field to be cleaned, and the steps that follow it in its chain.
struct Source {
    field: FieldFile,
    steps: Vec<Step>,
}

/// The numbers of vectors of a task in its ledger entry, or of all tasks.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct CleanCounts {
    patches: u64,
    /// Known vectors of the first field.
    before: u64,
    /// Vectors of the first field that violate a limit.
    removed: u64,
    /// Vectors taken from other fields.
    merged: u64,
    /// Merged vectors that do not fit to each other.
    unreconciled: u64,
    filled: u64,
    /// The longest displacement along z, y, x, micrometres.
    reach: Point,
}

impl CleanCounts {
    fn add(&mut self, other: &Self) {
        self.patches += other.patches;
        self.before += other.before;
        self.removed += other.removed;
        self.merged += other.merged;
        self.unreconciled += other.unreconciled;
        self.filled += other.filled;
        self.reach = std::array::from_fn(|a| self.reach[a].max(other.reach[a]));
    }

    fn known(&self) -> u64 {
        self.before + self.merged + self.filled - self.removed - self.unreconciled
    }
}

/// Cleans each of the fields at `locations`, fills unknown vectors of the first from the others in
/// order, removes merged vectors that do not fit to each other, and writes the result to `output`
/// on the nodes of the first field. A location is a field or a chain that begins with one; the
/// chain of the result is written to [`transform::document_beside`] `output`.
///
/// A plane, or the whole of a volume, is cleaned at once.
///
/// # Errors
/// [`Error`].
pub fn clean_fields(
    locations: &[String],
    output: &str,
    options: &CleanOptions,
    ctx: &Context,
) -> Result<(), Error> {
    volume::check_zarr_name(output)?;
    options.limits.check().map_err(blocks::Error::Usage)?;
    if !(options.max_strain > 0.0) {
        let message =
            format!("--max-strain {} is out of range; wanted above 0", options.max_strain);
        return Err(blocks::Error::Usage(message).into());
    }
    let sources = open(locations)?;
    let Some((first, _)) = sources.split_first() else {
        return Err(blocks::Error::Usage("no field is given".to_owned()).into());
    };
    let (grid, components) = (first.field.grid(), first.field.parts().components);
    let planes = components == 2;
    let chunk = grid.shape.map(|n| n.min(CHUNK[usize::from(!planes)]));
    let chunk = if planes { [1, chunk[1], chunk[2]] } else { chunk };
    let plan = plan(&sources, &grid, chunk, options, ctx)?;
    locations.iter().for_each(|location| ctx.input_file(location));
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let document = transform::document_beside(output);
    ctx.replace_document(&document)?;
    let channels: Vec<String> =
        has_quality(&sources).then(|| QUALITY[0].to_owned()).into_iter().collect();
    let parts = FieldParts { components, quality: channels };
    let out = FieldOutput::create_parts(output, &grid, parts, chunk, &plan.as_run(ctx))?;
    ctx.output_file(Path::new(output));
    let results = plan.stream_to::<_, _, _, Error>(
        ctx,
        &out,
        |task| sources.iter().map(|source| read(source, task)).collect(),
        |_, fields: Vec<FlowField>| Ok(merge(fields, &sources, options)),
        |task, (field, counts)| {
            out.write_parts(&task.core, &elements(&field))?;
            let outcome = if counts.known() == 0 { Outcome::Empty } else { Outcome::Done };
            Ok(TaskResult::from(outcome).with_summary(&counts)?)
        },
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let mut counts = CleanCounts::default();
    for summary in results.summaries() {
        counts.add(&summary?.1);
    }
    if let Some(through) = first.field.through() {
        out.set_attribute(volume::THROUGH, json!(through))?;
    }
    conclude(&counts, &out, ctx)?;
    let mut chain = vec![Step::Field(output.to_owned())];
    chain.extend_from_slice(&first.steps);
    Ok(transform::write_document(&document, &chain)?)
}

/// The places of the quality channels in a field; `None` if one is missing.
fn channels(source: &Source) -> Option<Vec<usize>> {
    let names = &source.field.parts().quality;
    QUALITY.iter().map(|name| names.iter().position(|own| own == name)).collect()
}

/// Whether the result has the correlation of its vectors.
fn has_quality(sources: &[Source]) -> bool {
    sources.iter().all(|source| channels(source).is_some())
}

/// Opens the fields, which must have the same components and the same steps after them.
fn open(locations: &[String]) -> Result<Vec<Source>, Error> {
    let mut sources: Vec<Source> = Vec::new();
    for location in locations {
        let refuse = |message: &str| {
            let message = format!("{location} {message}");
            Err(Error::from(blocks::Error::Usage(message)))
        };
        let steps = transform::read_steps(location, Direction::FixedToMoving)?;
        let Some((Step::Field(field), steps)) = steps.split_first() else {
            return refuse("does not begin with a field; give the output of flow");
        };
        let source = Source { field: FieldFile::open(field)?, steps: steps.to_vec() };
        if channels(&source).is_none() {
            tracing::info!("{location} has no quality channels, whose limits have no effect on it");
        }
        if let Some(first) = sources.first() {
            let shape = |source: &Source| source.field.grid().shape[0];
            if first.steps != source.steps {
                return refuse(
                    "has another initial map than the first field, and they cannot be merged; give fields \
                     that were measured with the same --initial",
                );
            }
            if first.field.through() != source.field.through() {
                return refuse(
                    "was measured through other transforms (flow --through) than the first field",
                );
            }
            if first.field.parts().components != source.field.parts().components
                || (first.field.parts().components == 2 && shape(first) != shape(&source))
            {
                return refuse("has other planes, or vectors of other axes, than the first field");
            }
        }
        sources.push(source);
    }
    Ok(sources)
}

fn plan(
    sources: &[Source],
    grid: &Grid,
    chunk: [usize; 3],
    options: &CleanOptions,
    ctx: &Context,
) -> Result<Plan, Error> {
    if ctx.block_size.is_some() {
        let message =
            "--block-size has no effect: planes, and volumes, are cleaned at once; leave it out";
        return Err(blocks::Error::Usage(message.to_owned()).into());
    }
    let planes = chunk[0] == 1;
    let block: [usize; 3] = std::array::from_fn(|a| {
        if planes && a == 0 { 1 } else { grid.shape[a].next_multiple_of(chunk[a]) }
    });
    let nodes: usize = sources
        .iter()
        .map(|source| {
            let shape = source.field.grid().shape;
            shape[usize::from(planes)..].iter().product::<usize>()
        })
        .sum();
    let waiting = Cost::of::<[f32; 3]>("vectors", nodes) + Cost::of::<Quality>("quality", nodes);
    // unknown vectors are estimated from fields of a half, a quarter ... of the resolution
    let peak = waiting.clone()
        + Cost::of::<[f32; 3]>("cleaned vectors", 2 * nodes)
        + Cost::of::<[f64; 6]>("sums of vectors", nodes);
    let unit = WriteUnit::from(block);
    blocks::refuse_large(block, grid.bounds(), unit, |_| peak.clone(), ctx)?;
    // the steps after the field are copied to the chain of the result
    let stored = |step: &Step| match step {
        Step::Affine(map) => json!({"affine": map.rows()}),
        Step::LocalAffines(location) => json!({"local_affines": location}),
        Step::Field(location) => json!({"field": location}),
    };
    let initial: Vec<_> =
        sources.iter().take(1).flat_map(|source| &source.steps).map(stored).collect();
    let mut identity = Identity::of("clean-flow")
        .with("options", options)
        .with("grid", grid)
        .with("initial", initial);
    for (i, source) in sources.iter().enumerate() {
        let content = source.field.fingerprint().map_err(blocks::Error::Field)?;
        identity = identity.with(&format!("field {}", i + 1), content);
    }
    Ok(Plan::tile(grid.bounds(), block, peak, &identity).waiting(&waiting))
}

/// Reads the plane, or the volume, of a task from a field on its own nodes.
fn read(source: &Source, task: &Task) -> anyhow::Result<FlowField> {
    let own = source.field.grid();
    let planar = source.field.parts().components == 2;
    let part = if planar {
        let bounds = own.bounds();
        let (mut min, mut max) = (bounds.min, bounds.max);
        (min[0], max[0]) = (task.core.min[0], task.core.max[0]);
        Box3::new(min, max)
    } else {
        own.bounds()
    };
    let vectors = source.field.read(&part).map_err(anyhow::Error::from_boxed)?;
    let mut quality = Vec::new();
    if let Some(channels) = channels(source) {
        let values = channels.iter().map(|channel| source.field.read_quality(*channel, &part));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        quality = (0..vectors.len())
            .map(|i| Quality {
                correlation: values[0][i],
                sharpness: values[1][i],
                ratio: values[2][i],
                evidence: values[3][i],
            })
            .collect();
    }
    Ok(FlowField { shape: part.shape(), planar, vectors, quality })
}

/// Cleans the fields of a task and merges them on the nodes of the first.
fn merge(
    fields: Vec<FlowField>,
    sources: &[Source],
    options: &CleanOptions,
) -> (FlowField, CleanCounts) {
    let mut fields = fields.into_iter().zip(sources);
    let Some((mut merged, first)) = fields.next() else {
        return (FlowField::default(), CleanCounts::default());
    };
    let mut counts = CleanCounts {
        patches: merged.vectors.len() as u64,
        before: merged.known() as u64,
        removed: merged.clean(&options.limits) as u64,
        ..CleanCounts::default()
    };
    for (mut other, source) in fields {
        other.clean(&options.limits);
        let before = merged.known();
        merged.fill_from(&other.onto(&source.field.grid(), &first.field.grid(), merged.shape));
        counts.merged += (merged.known() - before) as u64;
    }
    let spacing = first.field.grid().spacing;
    counts.unreconciled =
        merged.reconcile(&options.limits, spacing.map(|s| s * options.max_strain)) as u64;
    if has_quality(sources) {
        merged.forget_quality_of_unknown();
    } else {
        merged.quality.clear();
    }
    if options.fill {
        counts.filled = merged.fill() as u64;
    }
    for v in &merged.vectors {
        // `max` ignores NaN
        (0..3).for_each(|a| counts.reach[a] = f64::from(v[a].abs()).max(counts.reach[a]));
    }
    (merged, counts)
}

/// The components of each vector, and its correlation if it is known, in the order in which they are
/// stored.
fn elements(field: &FlowField) -> Vec<f32> {
    let first = usize::from(field.planar);
    let mut elements = Vec::with_capacity(4 * field.vectors.len());
    for (i, v) in field.vectors.iter().enumerate() {
        elements.extend_from_slice(&v[first..]);
        elements.extend(field.quality.get(i).map(|quality| quality.correlation));
    }
    elements
}

fn conclude(counts: &CleanCounts, out: &FieldOutput, ctx: &Context) -> Result<(), Error> {
    let CleanCounts { patches, before, removed, merged, unreconciled, filled, reach } = *counts;
    ctx.record("patches", patches);
    ctx.record("known_before", before);
    ctx.record("removed", removed);
    ctx.record("merged", merged);
    ctx.record("unreconciled", unreconciled);
    ctx.record("filled", filled);
    ctx.record("known", counts.known());
    ctx.record("longest_um", json!(reach));
    if patches == 0 {
        return Ok(()); // all blocks failed, which was allowed
    }
    out.set_attribute("reach", json!(reach))?;
    let measured = counts.known() - filled;
    if measured == 0 || (measured as f64) < MIN_LEFT * before as f64 {
        let verdict = blocks::ExitReason::TooManyFailed;
        return Err(Error::NothingLeft { patches, before, removed, unreconciled, verdict });
    }
    if (measured as f64) < FEW * patches as f64 && filled > 0 {
        tracing::warn!(
            "only {measured} of {patches} vectors are measured; {filled} are estimated from them"
        );
    }
    tracing::info!(
        "{} of {patches} vectors are known: {before} before, {removed} removed, {merged} merged, \
         {unreconciled} removed after merging, {filled} filled",
        counts.known()
    );
    Ok(())
}
