//! First pass: the data that each task reads, and the results that it stores for the second pass.

use std::ops::Range;

use anyhow::Context as _;

use super::block::{self, BlockPair, Unusable};
use super::lattice::Field;
use super::{Options, outcome_of};
use crate::blocks::{self, Outcome, Task, TaskResults, TaskRows};
use crate::filter::despike;
use crate::geom::{Box3, Chain, Grid, LocalChain};
use crate::volume::{Masks, Volume, cut_out};
use crate::warp;

/// The two volumes and the initial map between them.
pub(super) struct Pair<'a> {
    pub(super) fixed: &'a Volume,
    pub(super) moving: &'a Volume,
    pub(super) masks: Masks<'a>,
    pub(super) initial: &'a Chain,
    pub(super) options: &'a Options,
    /// Voxels per node, along each axis.
    pub(super) factor: [usize; 3],
}

/// The images that a task has read; `None` if its block is background, or if the moving volume does
/// not reach it under the initial map.
pub(super) type Input = Option<BlockPair>;

/// Result of a task: a summary for the ledger and, if a field was found, the field that the second
/// pass reads.
pub(super) struct BlockResult {
    pub(super) head: BlockSummary,
    pub(super) field: Option<Field>,
    pub(super) outcome: Outcome,
}

/// Summary of a task in the ledger.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct BlockSummary {
    /// The reason why the block has no field; `None` if the block has a field.
    pub(super) reason: Option<String>,
    /// Nodes along each axis, halo included.
    pub(super) shape: [usize; 3],
    pub(super) similarity: [f64; 2],
    /// The mean displacement, z, y, x, micrometres.
    pub(super) mean: [f64; 3],
    pub(super) elasticity: f64,
    /// Evidence that the images show the same sample, standard deviations; `None` if it could not
    /// be estimated.
    pub(super) evidence: Option<f64>,
}

/// A task's voxels with its halo, which is a whole number of nodes wide.
pub(super) fn around(task: &Task, overlap: usize, factor: [usize; 3], bounds: &Box3) -> Box3 {
    let halo = factor.map(|f| overlap.next_multiple_of(f) as i64);
    task.core.grow(halo).intersect(bounds)
}

impl Pair<'_> {
    pub(super) fn read(&self, task: &Task) -> anyhow::Result<Input> {
        let grid = self.fixed.grid();
        if self.is_background(task)? {
            return Ok(None);
        }
        let around = around(task, self.options.overlap, self.factor, &grid.bounds());
        let (chain, image) =
            self.initial.localise(grid.extent(&around)).map_err(blocks::Error::Field)?;
        let onto = grid.crop(&around);
        let Some(mut moving) =
            pull(self.moving, &chain, image, &onto, false).context("reading the moving volume")?
        else {
            return Ok(None);
        };
        let mut fixed = self.fixed.read::<f32>(&around).context("reading the fixed volume")?;
        // hot voxels would dominate the contrast of their surroundings
        despike(&mut fixed, around.shape());
        if let Some(mask) = self.masks.fixed {
            let identity = LocalChain::default();
            let inside = pull(mask, &identity, onto.extent(&onto.bounds()), &onto, true)
                .context("reading --fixed-mask")?;
            cut_out(&mut fixed, inside.as_deref());
        }
        if let Some(mask) = self.masks.moving {
            let inside = pull(mask, &chain, image, &onto, true).context("reading --moving-mask")?;
            cut_out(&mut moving, inside.as_deref());
        }
        // infinite values count as unknown
        for v in fixed.iter_mut().chain(&mut moving).filter(|v| !v.is_finite()) {
            *v = f32::NAN;
        }
        Ok(Some(BlockPair { fixed, moving, shape: onto.shape, voxel: grid.spacing }))
    }

    /// Whether too small a fraction of a task's core lies within the fixed mask.
    fn is_background(&self, task: &Task) -> anyhow::Result<bool> {
        let Some(mask) = self.masks.fixed else { return Ok(false) };
        if self.options.foreground <= 0.0 {
            return Ok(false);
        }
        let onto = self.fixed.grid().crop(&task.core);
        let extent = onto.extent(&onto.bounds());
        let inside = pull(mask, &LocalChain::default(), extent, &onto, true)
            .context("reading --fixed-mask")?;
        let count = inside.map_or(0, |mask| mask.iter().filter(|v| **v > 0.0).count());
        Ok((count as f64) < self.options.foreground * task.core.len() as f64)
    }

    pub(super) fn align(&self, task: &Task, input: Input) -> BlockResult {
        let found = match input {
            None => {
                Err(Unusable::Empty("the moving volume shows nothing there, or it is background"))
            }
            Some(pair) => block::register(pair, self.options),
        };
        let head = match &found {
            Ok(found) => BlockSummary {
                reason: None,
                shape: found.nodes.shape,
                similarity: found.similarity,
                mean: found.mean,
                elasticity: found.elasticity,
                evidence: found.evidence,
            },
            Err(unusable) => {
                let (reason, evidence) = match unusable {
                    Unusable::Empty(reason) => (*reason, None),
                    Unusable::NoGain(evidence) => ("no similarity gained", *evidence),
                };
                tracing::debug!("{}: {reason}", task.key);
                BlockSummary {
                    reason: Some(reason.to_owned()),
                    shape: [0; 3],
                    similarity: [0.0; 2],
                    mean: [0.0; 3],
                    elasticity: self.options.elasticity,
                    evidence,
                }
            }
        };
        tracing::debug!("{}: evidence {:.2?}", task.key, head.evidence);
        let outcome = found.as_ref().err().map_or(Outcome::Done, outcome_of);
        BlockResult { head, field: found.ok().map(|found| found.field), outcome }
    }
}

/// A field as it is stored: little-endian `f32`, `(z, component, y, x)`, so that a range of planes
/// can be read at once.
pub(super) fn encode(field: &Field, [depth, height, width]: [usize; 3]) -> Vec<u8> {
    let plane = height * width;
    let mut bytes = Vec::with_capacity(12 * depth * plane);
    for z in 0..depth {
        for image in field {
            bytes.extend(image[z * plane..(z + 1) * plane].iter().flat_map(|v| v.to_le_bytes()));
        }
    }
    bytes
}

/// Some planes of a field that was stored by [`encode`].
pub(super) struct Planes {
    bytes: Vec<u8>,
    first: usize,
    height: usize,
    width: usize,
}

impl Planes {
    /// Reads the planes `z` of a block's field, which has the given number of nodes along each
    /// axis.
    pub(super) fn read(
        rows: &TaskRows,
        task: &Task,
        ends: &TaskResults,
        [_, height, width]: [usize; 3],
        z: Range<usize>,
    ) -> Result<Self, blocks::Error> {
        let plane = (12 * height * width) as u64;
        let range = z.start as u64 * plane..z.end as u64 * plane;
        let bytes = rows.read_part(task, ends, range)?;
        let bytes = bytes.ok_or_else(|| rows.unrecorded(task))?;
        Ok(Self { bytes, first: z.start, height, width })
    }

    /// The displacements of component `c` at the nodes `x` of the row `[z, y]`.
    pub(super) fn row(
        &self,
        c: usize,
        [z, y]: [usize; 2],
        x: Range<usize>,
    ) -> impl Iterator<Item = f32> + '_ {
        let row = (((z - self.first) * 3 + c) * self.height + y) * self.width;
        let numbers = self.bytes.as_chunks::<4>().0;
        numbers[row + x.start..row + x.end].iter().map(|b| f32::from_le_bytes(*b))
    }
}

/// Resamples a volume through a chain onto a grid, with NaN (0 for masks) where the volume has no
/// value.
///
/// * `image`: extent that contains the grid's image under the chain, micrometres
/// * returns `None` if `image` is undefined (NaN) or does not overlap the volume
fn pull(
    volume: &Volume,
    chain: &LocalChain,
    image: [[f64; 3]; 2],
    onto: &Grid,
    is_mask: bool,
) -> Result<Option<Vec<f32>>, crate::volume::Error> {
    let grid = volume.grid();
    if image.as_flattened().iter().any(|v| v.is_nan()) {
        return Ok(None);
    }
    let part = grid.enclosing(image).grow([2; 3]).intersect(&grid.bounds());
    if part.is_empty() {
        return Ok(None);
    }
    let mut voxels = volume.read::<f32>(&part)?;
    if !is_mask {
        despike(&mut voxels, part.shape());
    }
    let options = warp::Options {
        interpolation: if is_mask {
            warp::Interpolation::Nearest
        } else {
            warp::Interpolation::Linear
        },
        fill: if is_mask { 0.0 } else { f64::NAN },
        ..warp::Options::default()
    };
    Ok(Some(warp::resample_block(&voxels, &grid.crop(&part), chain, onto, &options)))
}
