//! Second pass: blends the fields of the blocks into one.
//!
//! Along each axis a block's weight rises from 0 to 1 over as many nodes as its halo is wide, half
//! of them on either side of its face, and falls likewise at the opposite face. The weights of
//! neighbours sum to 1, and nodes near the outer edge of a halo have weight 0. A block without a
//! field of its own gets the mean displacement of its neighbours and is blended in the same way;
//! blocks next to a block with a field are filled first, then blocks further away.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::lattice::{Field, Lattice};
use super::pairs::{self, BlockSummary, Planes};
use super::unfold::Folds;
use super::{CHUNK, Error, Options};
use crate::blocks::{Context, Identity, Outcome, Plan, Task, TaskResult, TaskResults, TaskRows};
use crate::geom::{Box3, Point};
use crate::volume::FieldOutput;

/// One block of the first pass.
struct Entry {
    head: BlockSummary,
    /// The nodes of the block without its halo.
    core: Box3,
    /// The nodes of the block with its halo.
    around: Box3,
}

/// The blocks of the first pass and how they overlap.
pub(super) struct Blend<'a> {
    rows: &'a TaskRows,
    /// The plan of the first pass.
    plan: &'a Plan,
    ends: &'a TaskResults,
    nodes: Lattice,
    entries: Vec<Entry>,
    /// Half the width of the ramps, nodes.
    ramp: Point,
}

/// Summary of a task of the second pass in its ledger entry, and of all tasks together.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Extremes {
    /// The least Jacobian determinant; `None` if it is not finite.
    least_jacobian: Option<f64>,
    folded: usize,
    /// The longest displacement along each axis, micrometres.
    reach: Point,
}

impl Extremes {
    fn of(field: &Field, shape: [usize; 3], spacing: Point) -> Self {
        let lattice = Lattice { shape, factor: [1; 3] };
        let (least, folded) = lattice.least_jacobian(field, spacing);
        let longest = |image: &Vec<f32>| image.iter().fold(0.0, |m: f32, v| m.max(v.abs()));
        Self {
            least_jacobian: least.is_finite().then_some(least),
            folded,
            reach: field.each_ref().map(|image| f64::from(longest(image))),
        }
    }

    fn and(self, other: Self) -> Self {
        let least = self.least_jacobian.into_iter().chain(other.least_jacobian);
        Self {
            least_jacobian: least.reduce(f64::min),
            folded: self.folded + other.folded,
            reach: std::array::from_fn(|c| self.reach[c].max(other.reach[c])),
        }
    }
}

/// Summary of the whole field.
pub(super) struct Summary {
    similarity: [f64; 2],
    aligned: usize,
    /// The median elasticity of the blocks.
    elasticity: f64,
    extremes: Extremes,
    /// Number of nodes that folded before the repair and no longer do.
    unfolded: usize,
}

impl Summary {
    /// Sets the least determinant of the complete map, the number of nodes that still fold
    /// (`left`), and how many of the `found` folded nodes were repaired.
    pub(super) fn unfolded(&mut self, left: &Folds, found: usize) {
        self.extremes.least_jacobian = left.least.is_finite().then_some(left.least);
        self.extremes.folded = left.nodes.len();
        self.unfolded = found.saturating_sub(left.nodes.len());
    }

    /// The longest displacement along each axis, micrometres.
    pub(super) fn reach(&self) -> Point {
        self.extremes.reach
    }

    pub(super) fn record(&self, metric: &str, ctx: &Context) {
        let Extremes { least_jacobian, folded, reach } = self.extremes;
        ctx.record("metric", metric);
        ctx.record("before", self.similarity[0]);
        ctx.record("after", self.similarity[1]);
        ctx.record("blocks_aligned", self.aligned);
        ctx.record("jacobian_least", least_jacobian);
        ctx.record("folded", folded);
        ctx.record("unfolded", self.unfolded);
        ctx.record("elasticity", self.elasticity);
        ctx.record("longest_um", json!(reach));
        tracing::info!(
            "{metric} {:.4} -> {:.4}, least Jacobian determinant {:.3}",
            self.similarity[0],
            self.similarity[1],
            least_jacobian.unwrap_or(f64::NAN)
        );
        if self.unfolded > 0 {
            tracing::info!("{} nodes folded; the field is smoothed there", self.unfolded);
        }
        if folded > 0 {
            tracing::warn!(
                "the map folds at {folded} nodes, where blocks disagree or the initial map does; try a \
                 larger --overlap or --elasticity"
            );
        }
    }
}

/// The plan of the second pass: chunks of the field, each blended from all blocks that reach it.
///
/// * `block`: block size of the first pass, voxels
pub(super) fn plan(first: &Plan, nodes: &Lattice, block: [usize; 3], options: &Options) -> Plan {
    let part = nodes.shape.map(|n| n.min(CHUNK + 2));
    let around: [usize; 3] =
        std::array::from_fn(|a| (block[a] + 2 * options.overlap).div_ceil(nodes.factor[a]) + 2);
    let planes = part[0].min(around[0]) * around[1] * around[2];
    let chunk = CHUNK.pow(3);
    // vectors of three `f32`: the sums, the planes of one block, the chunk and its stored form
    let bytes = 12 * (part.iter().product::<usize>() + planes + 2 * chunk) as u64;
    let identity = Identity::of("deform, second pass").with("first", first.identity().to_json());
    Plan::tile(Box3::of_shape(nodes.shape), [CHUNK; 3], bytes, &identity)
}

impl<'a> Blend<'a> {
    /// Prepares the blending.
    ///
    /// * `ends`: the task results of the first pass, whose plan is `plan`
    ///
    /// # Errors
    /// [`Error::Nothing`] if no block has a field.
    pub(super) fn new(
        rows: &'a TaskRows,
        plan: &'a Plan,
        ends: &'a TaskResults,
        nodes: &Lattice,
        block: [usize; 3],
        options: &Options,
    ) -> Result<Self, Error> {
        let factor = nodes.factor;
        let whole = plan.tasks().bounds();
        let in_nodes = |part: &Box3| {
            let f = factor.map(|f| f as i64);
            Box3::new(
                std::array::from_fn(|a| part.min[a] / f[a]),
                std::array::from_fn(|a| (part.max[a] + f[a] - 1) / f[a]),
            )
        };
        let entry = |task: Task| {
            let around = pairs::around(&task, options.overlap, factor, &whole);
            Entry { head: missing(), core: in_nodes(&task.core), around: in_nodes(&around) }
        };
        let mut entries: Vec<Entry> = plan.tasks().iter().map(entry).collect();
        for summary in ends.summaries() {
            let (task, head) = summary?;
            entries[task].head = head;
        }
        if entries.iter().all(|entry| entry.head.reason.is_some()) {
            let reason = entries.first().and_then(|entry| entry.head.reason.clone());
            let initial = options.initial.clone();
            return Err(Error::Nothing { initial, reason: reason.unwrap_or_default() });
        }
        fill_in(&mut entries, plan);
        let overlap = options.overlap;
        let ramp = std::array::from_fn(|a| (overlap.min(block[a]) / factor[a]) as f64 * 0.5);
        Ok(Self { rows, plan, ends, nodes: *nodes, entries, ramp })
    }

    /// Writes the chunks of the field that belong to this run. Returns the summary of the whole
    /// field, or `None` if this run does only a part of the tasks or only plans. The Jacobian
    /// determinants of a chunk are computed with the nodes next to the chunk.
    ///
    /// * `second`: the plan that [`plan`] returned
    /// * `spacing`: distance between nodes, micrometres
    pub(super) fn write(
        &self,
        second: &Plan,
        out: &FieldOutput,
        spacing: Point,
        ctx: &Context,
    ) -> Result<Option<Summary>, Error> {
        let bounds = Box3::of_shape(self.nodes.shape);
        let ends = second.stream_second(
            ctx,
            &out.ledger_folder(),
            |_| Ok(()),
            |task, ()| {
                let part = task.core.grow([1; 3]).intersect(&bounds);
                let field = self.blend(&part)?;
                let extremes = Extremes::of(&field, part.shape(), spacing);
                Ok((interleave(&field, &part, &task.core), extremes))
            },
            |task, (vectors, extremes)| {
                out.write(&task.core, &vectors)?;
                Ok(TaskResult::from(Outcome::Done).with_summary(&extremes)?)
            },
        )?;
        if !ctx.gathers() {
            return Ok(None);
        }
        let mut extremes = Extremes::default();
        for summary in ends.summaries() {
            extremes = extremes.and(summary?.1);
        }
        let aligned: Vec<&BlockSummary> =
            self.entries.iter().map(|e| &e.head).filter(|head| head.reason.is_none()).collect();
        let mean = |i: usize| {
            aligned.iter().map(|head| head.similarity[i]).sum::<f64>() / aligned.len() as f64
        };
        let similarity = [mean(0), mean(1)];
        let mut stiff: Vec<f64> = aligned.iter().map(|head| head.elasticity).collect();
        stiff.sort_by(f64::total_cmp);
        let elasticity = stiff.get(stiff.len() / 2).copied().unwrap_or(0.0);
        let aligned = aligned.len();
        Ok(Some(Summary { similarity, aligned, elasticity, extremes, unfolded: 0 }))
    }

    /// The blocks that can have a nonzero weight at the nodes of a box, in the order of the plan.
    fn reaching(&self, part: &Box3) -> impl Iterator<Item = Task> {
        let factor = self.nodes.factor.map(|f| f as i64);
        let ramp = self.ramp.map(|ramp| ramp.ceil() as i64);
        let voxels = |at: [i64; 3]| std::array::from_fn(|a| at[a] * factor[a]);
        let part = part.grow(ramp);
        self.plan.tasks().at(&Box3::new(voxels(part.min), voxels(part.max)))
    }

    /// The blended field at the nodes of a box.
    pub(super) fn blend(&self, part: &Box3) -> Result<Field, Error> {
        let mut sums: Field = std::array::from_fn(|_| vec![0.0; part.len()]);
        for task in self.reaching(part) {
            let entry = &self.entries[task.id];
            let weights: [Vec<f32>; 3] = std::array::from_fn(|a| self.weights(entry, part, a));
            let range = |axis: &Vec<f32>| -> Option<[usize; 2]> {
                let first = axis.iter().position(|w| *w != 0.0)?;
                Some([first, axis.iter().rposition(|w| *w != 0.0)? + 1])
            };
            if let [Some(z), Some(y), Some(x)] = weights.each_ref().map(range) {
                self.add(&task, part, &weights, [z, y, x], &mut sums)?;
            }
        }
        Ok(sums)
    }

    /// Adds the weighted field of one block at the nodes `ranges` of `part`.
    fn add(
        &self,
        task: &Task,
        part: &Box3,
        weights: &[Vec<f32>; 3],
        ranges: [[usize; 2]; 3],
        sums: &mut Field,
    ) -> Result<(), Error> {
        let entry = &self.entries[task.id];
        let local = |a: usize, i: usize| (part.min[a] + i as i64 - entry.around.min[a]) as usize;
        let [_, height, width] = part.shape();
        let [z, y, x] = ranges;
        let planes = if entry.head.reason.is_none() {
            let planes = local(0, z[0])..local(0, z[1] - 1) + 1;
            Some(Planes::read(self.rows, task, self.ends, entry.around.shape(), planes)?)
        } else {
            None
        };
        for (at, z, y) in
            (z[0]..z[1]).flat_map(|z| (y[0]..y[1]).map(move |y| ((z * height + y) * width, z, y)))
        {
            let across = weights[0][z] * weights[1][y];
            let weights = &weights[2][x[0]..x[1]];
            for (c, sums) in sums.iter_mut().enumerate() {
                let sums = &mut sums[at + x[0]..at + x[1]];
                let mean = entry.head.mean[c] as f32;
                match &planes {
                    Some(planes) => {
                        let x = local(2, x[0])..local(2, x[1] - 1) + 1;
                        let values = planes.row(c, [local(0, z), local(1, y)], x);
                        for ((sum, weight), value) in sums.iter_mut().zip(weights).zip(values) {
                            *sum += across * weight * value;
                        }
                    }
                    None => {
                        for (sum, weight) in sums.iter_mut().zip(weights) {
                            *sum += across * weight * mean;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A block's weights along an axis of `part`.
    fn weights(&self, entry: &Entry, part: &Box3, axis: usize) -> Vec<f32> {
        let (low, high) = (entry.core.min[axis], entry.core.max[axis]);
        let ramp = self.ramp[axis];
        let last = self.nodes.shape[axis] as i64;
        (part.min[axis]..part.max[axis])
            .map(|j| {
                let at = j as f64 + 0.5;
                // the rising ramp around the face `face`
                let rise = |face: i64| {
                    let d = at - face as f64;
                    if ramp < 0.5 {
                        f64::from(u8::from(d > 0.0))
                    } else {
                        (0.5 + 0.5 * d / ramp).clamp(0.0, 1.0)
                    }
                };
                let begins = if low == 0 { 1.0 } else { rise(low) };
                let ends = if high == last { 0.0 } else { rise(high) };
                (begins - ends).max(0.0) as f32
            })
            .collect()
    }
}

/// The summary of a block without a ledger entry, which means that its task failed.
fn missing() -> BlockSummary {
    BlockSummary {
        reason: Some("failed".to_owned()),
        shape: [0; 3],
        similarity: [0.0; 2],
        mean: [0.0; 3],
        elasticity: 0.0,
        evidence: None,
    }
}

/// Gives blocks without a field the mean displacement of their neighbours, beginning next to the
/// blocks that have a field.
fn fill_in(entries: &mut [Entry], plan: &Plan) {
    let mut known: Vec<bool> = entries.iter().map(|entry| entry.head.reason.is_none()).collect();
    let mut unknown: Vec<Task> = plan.tasks().iter().filter(|task| !known[task.id]).collect();
    while !unknown.is_empty() {
        let mut found = Vec::new();
        for task in &unknown {
            let around = plan.tasks().at(&task.core.grow([1; 3]));
            let near: Vec<Task> = around.filter(|task| known[task.id]).collect();
            if near.is_empty() {
                continue;
            }
            let mean: [f64; 3] = std::array::from_fn(|c| {
                let sum: f64 = near.iter().map(|task| entries[task.id].head.mean[c]).sum();
                sum / near.len() as f64
            });
            found.push((task.id, mean));
        }
        if found.is_empty() {
            return; // no block has a field
        }
        for (i, mean) in found {
            entries[i].head.mean = mean;
            known[i] = true;
        }
        unknown.retain(|task| !known[task.id]);
    }
}

/// The vectors of the nodes in `core`, which lies in `part`.
pub(super) fn interleave(field: &Field, part: &Box3, core: &Box3) -> Vec<[f32; 3]> {
    let [_, height, width] = part.shape();
    let mut out = Vec::with_capacity(core.len());
    for z in core.min[0]..core.max[0] {
        for y in core.min[1]..core.max[1] {
            let row = ((z - part.min[0]) as usize * height + (y - part.min[1]) as usize) * width;
            let x = row + (core.min[2] - part.min[2]) as usize;
            let count = (core.max[2] - core.min[2]) as usize;
            out.extend((x..x + count).map(|i| [field[0][i], field[1][i], field[2][i]]));
        }
    }
    out
}
