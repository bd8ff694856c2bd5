//! Second pass: one field from those of the blocks.
//!
//! Along each axis a block's weight rises from 0 to 1 over as many nodes as it reads beyond its own
//! voxels, half of them on either side of its face, and falls likewise: those of neighbours sum to 1,
//! and what lies next to the end of what a block has read counts nowhere. A block without a field of its own
//! takes the mean displacement of its neighbours, of theirs where they have none, and is blended alike.

use rayon::prelude::*;
use serde_json::json;

use super::lattice::{Field, Lattice};
use super::pairs::{self, Head};
use super::{Error, Options};
use crate::blocks::{self, Context, Plan, Rows, Task};
use crate::geom::{Box3, Point};
use crate::volume::FieldOutput;

/// One block of the first pass.
struct Entry {
    head: Head,
    /// Its own nodes.
    core: Box3,
    /// Its nodes with the halo.
    around: Box3,
}

/// What the second pass works with.
pub(super) struct Blend<'a> {
    rows: &'a Rows,
    plan: &'a Plan,
    nodes: Lattice,
    entries: Vec<Entry>,
    /// Half the width of the ramps, in nodes.
    ramp: Point,
}

/// What is known of the whole field.
pub(super) struct Summary {
    likeness: [f64; 2],
    aligned: usize,
    least_jacobian: f64,
    folded: usize,
    /// The longest displacement along each axis, micrometres.
    pub(super) reach: Point,
}

impl Summary {
    pub(super) fn record(&self, metric: &str, ctx: &Context) {
        ctx.record("metric", metric);
        ctx.record("before", self.likeness[0]);
        ctx.record("after", self.likeness[1]);
        ctx.record("blocks_aligned", self.aligned);
        ctx.record("jacobian_least", self.least_jacobian);
        ctx.record("folded", self.folded);
        ctx.record("longest_um", json!(self.reach));
        tracing::info!(
            "{metric} {:.4} -> {:.4}, least Jacobian determinant {:.3}",
            self.likeness[0],
            self.likeness[1],
            self.least_jacobian
        );
        if self.folded > 0 {
            tracing::warn!(
                "the field folds at {} nodes, where blocks disagree; try a larger --overlap or \
                 --elasticity",
                self.folded
            );
        }
    }
}

impl<'a> Blend<'a> {
    pub(super) fn new(
        rows: &'a Rows,
        plan: &'a Plan,
        nodes: &Lattice,
        block: [usize; 3],
        options: &Options,
    ) -> anyhow::Result<Self> {
        let factor = nodes.factor;
        let whole = plan.tasks.iter().map(|task| task.core).reduce(|a, b| a.union(&b));
        let whole = whole.unwrap_or(Box3::of_shape([0; 3]));
        let in_nodes = |part: &Box3| {
            let f = factor.map(|f| f as i64);
            Box3::new(
                std::array::from_fn(|a| part.min[a] / f[a]),
                std::array::from_fn(|a| (part.max[a] + f[a] - 1) / f[a]),
            )
        };
        let mut entries = Vec::with_capacity(plan.tasks.len());
        for task in &plan.tasks {
            let bytes = rows.read(task)?;
            let head = if bytes.is_empty() { missing() } else { pairs::decode(&bytes)?.0 };
            let around = pairs::around(task, options.overlap, factor, &whole);
            entries.push(Entry { head, core: in_nodes(&task.core), around: in_nodes(&around) });
        }
        if entries.iter().all(|entry| entry.head.reason.is_some()) {
            let reason = entries.first().and_then(|entry| entry.head.reason.clone());
            let initial = options.initial.clone();
            return Err(Error::Nothing { initial, reason: reason.unwrap_or_default() }.into());
        }
        fill_in(&mut entries, plan);
        let overlap = options.overlap;
        let ramp = std::array::from_fn(|a| (overlap.min(block[a]) / factor[a]) as f64 * 0.5);
        Ok(Self { rows, plan, nodes: *nodes, entries, ramp })
    }

    /// Writes the field, chunk by chunk; its Jacobian is taken with the nodes next to each.
    ///
    /// * `spacing`: from node to node, micrometres
    pub(super) fn write(
        &self,
        out: &FieldOutput,
        spacing: Point,
        ctx: &Context,
    ) -> anyhow::Result<Summary> {
        let bounds = Box3::of_shape(self.nodes.shape);
        let chunks: Vec<Box3> = bounds.tiles(out.unit()).collect();
        let found = chunks.par_iter().map(|core| {
            if let Some(signal) = ctx.cancel.signal() {
                return Err(blocks::Error::Interrupted { signal }.into());
            }
            let part = core.grow([1; 3]).intersect(&bounds);
            let field = self.blend(&part)?;
            out.write(core, &interleave(&field, &part, core))?;
            let lattice = Lattice { shape: part.shape(), factor: [1; 3] };
            let (least, folded) = lattice.least_jacobian(&field, spacing);
            let reach =
                field.each_ref().map(|image| image.iter().fold(0.0, |m: f32, v| m.max(v.abs())));
            anyhow::Ok((least, folded, reach.map(f64::from)))
        });
        let (least_jacobian, folded, reach) = found.try_reduce(
            || (f64::INFINITY, 0, [0.0; 3]),
            |a, b| Ok((a.0.min(b.0), a.1 + b.1, std::array::from_fn(|c| a.2[c].max(b.2[c])))),
        )?;
        let aligned: Vec<&Head> =
            self.entries.iter().map(|e| &e.head).filter(|head| head.reason.is_none()).collect();
        let mean = |i: usize| {
            aligned.iter().map(|head| head.likeness[i]).sum::<f64>() / aligned.len() as f64
        };
        let likeness = [mean(0), mean(1)];
        Ok(Summary { likeness, aligned: aligned.len(), least_jacobian, folded, reach })
    }

    /// The field at some nodes.
    fn blend(&self, part: &Box3) -> anyhow::Result<Field> {
        let mut sums: Field = std::array::from_fn(|_| vec![0.0; part.len()]);
        let [_, height, width] = part.shape();
        for (entry, task) in self.entries.iter().zip(&self.plan.tasks) {
            let weights: [Vec<f32>; 3] = std::array::from_fn(|a| self.weights(entry, part, a));
            if weights.iter().any(|axis| axis.iter().all(|w| *w == 0.0)) {
                continue;
            }
            let own = if entry.head.reason.is_none() {
                pairs::decode(&self.rows.read(task)?)?.1
            } else {
                None
            };
            let around = entry.around.shape();
            for (row, z, y) in (0..part.shape()[0])
                .flat_map(|z| (0..height).map(move |y| ((z * height + y) * width, z, y)))
            {
                let across = weights[0][z] * weights[1][y];
                if across == 0.0 {
                    continue;
                }
                let local =
                    |a: usize, i: usize| (part.min[a] + i as i64 - entry.around.min[a]) as usize;
                let first = (local(0, z) * around[1] + local(1, y)) * around[2];
                for x in (0..width).filter(|&x| weights[2][x] > 0.0) {
                    let weight = across * weights[2][x];
                    for c in 0..3 {
                        let value = own
                            .as_ref()
                            .map_or(entry.head.mean[c] as f32, |u| u[c][first + local(2, x)]);
                        sums[c][row + x] += weight * value;
                    }
                }
            }
        }
        Ok(sums)
    }

    /// A block's weights along an axis of `part`.
    fn weights(&self, entry: &Entry, part: &Box3, axis: usize) -> Vec<f32> {
        let (low, high) = (entry.core.min[axis], entry.core.max[axis]);
        let ramp = self.ramp[axis];
        let last = self.nodes.shape[axis] as i64;
        (part.min[axis]..part.max[axis])
            .map(|j| {
                let at = j as f64 + 0.5;
                // the height of the ramp around the face `face`, going up
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

/// The head of a block of which nothing is left: it failed.
fn missing() -> Head {
    Head {
        reason: Some("failed".to_owned()),
        shape: [0; 3],
        likeness: [0.0; 2],
        mean: [0.0; 3],
        least_jacobian: 1.0,
    }
}

/// Gives blocks without a field the mean displacement of those next to them, ring by ring.
fn fill_in(entries: &mut [Entry], plan: &Plan) {
    let index = |task: &Task| task.index.map(|i| i as i64);
    let mut known: Vec<bool> = entries.iter().map(|entry| entry.head.reason.is_none()).collect();
    while known.contains(&false) && known.contains(&true) {
        let mut found = Vec::new();
        for (i, task) in plan.tasks.iter().enumerate().filter(|(i, _)| !known[*i]) {
            let near = plan.tasks.iter().enumerate().filter(|(j, other)| {
                known[*j] && (0..3).all(|a| (index(other)[a] - index(task)[a]).abs() <= 1)
            });
            let near: Vec<usize> = near.map(|(j, _)| j).collect();
            if near.is_empty() {
                continue;
            }
            let mean: [f64; 3] = std::array::from_fn(|c| {
                near.iter().map(|&j| entries[j].head.mean[c]).sum::<f64>() / near.len() as f64
            });
            found.push((i, mean));
        }
        for (i, mean) in found {
            entries[i].head.mean = mean;
            known[i] = true;
        }
    }
}

/// The vectors of `core`, which lies in `part`.
fn interleave(field: &Field, part: &Box3, core: &Box3) -> Vec<[f32; 3]> {
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
