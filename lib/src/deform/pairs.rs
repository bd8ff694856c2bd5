//! First pass: what each task reads, and what it leaves for the second.

use anyhow::Context as _;

use super::block::{self, BlockPair, Registered, Unusable};
use super::lattice::Field;
use super::{Masks, Options, outcome_of};
use crate::blocks::{Outcome, Task};
use crate::geom::{Box3, Chain, Grid, LocalChain};
use crate::volume::Volume;
use crate::warp;

/// The two volumes and the map between them that is known so far.
pub(super) struct Pair<'a> {
    pub(super) fixed: &'a Volume,
    pub(super) moving: &'a Volume,
    pub(super) masks: Masks<'a>,
    pub(super) initial: &'a Chain,
    pub(super) options: &'a Options,
    /// Voxels per node.
    pub(super) factor: [usize; 3],
}

/// What a task has read; `None` where it is known to be empty.
pub(super) type Input = Option<BlockPair>;

/// What a task leaves.
pub(super) struct Kept {
    pub(super) bytes: Vec<u8>,
    pub(super) outcome: Outcome,
}

/// The head of what a task leaves: one line of JSON, before the three images of the field.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Head {
    /// Why there is no field.
    pub(super) reason: Option<String>,
    /// Nodes along each axis, halo included.
    pub(super) shape: [usize; 3],
    pub(super) likeness: [f64; 2],
    /// The mean displacement, micrometres.
    pub(super) mean: [f64; 3],
    pub(super) least_jacobian: f64,
}

/// A task's voxels with its halo, from whole nodes on.
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
        let (chain, image) = self
            .initial
            .localise(grid.extent(&around))
            .map_err(|e| anyhow::anyhow!("the initial transform cannot be read: {e}"))?;
        let onto = grid.crop(&around);
        let Some(mut moving) =
            pull(self.moving, &chain, image, &onto, false).context("reading the moving volume")?
        else {
            return Ok(None);
        };
        let mut fixed = self.fixed.read::<f32>(&around).context("reading the fixed volume")?;
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
        // infinities are no numbers either
        for v in fixed.iter_mut().chain(&mut moving).filter(|v| !v.is_finite()) {
            *v = f32::NAN;
        }
        Ok(Some(BlockPair { fixed, moving, shape: onto.shape, voxel: grid.spacing }))
    }

    /// Whether too little of a task's core lies within the fixed mask.
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

    pub(super) fn align(&self, task: &Task, input: Input) -> anyhow::Result<Kept> {
        let found = match input {
            None => {
                Err(Unusable::Empty("the moving volume shows nothing there, or it is background"))
            }
            Some(pair) => block::register(pair, self.options),
        };
        let head = match &found {
            Ok(found) => Head {
                reason: None,
                shape: found.nodes.shape,
                likeness: found.likeness,
                mean: found.field.each_ref().map(|image| mean(image)),
                least_jacobian: found.least_jacobian,
            },
            Err(unusable) => {
                let reason = match unusable {
                    Unusable::Empty(reason) => *reason,
                    Unusable::NoGain => "no likeness gained",
                };
                tracing::debug!("block {:?}: {reason}", task.index);
                Head {
                    reason: Some(reason.to_owned()),
                    shape: [0; 3],
                    likeness: [0.0; 2],
                    mean: [0.0; 3],
                    least_jacobian: 1.0,
                }
            }
        };
        let outcome = found.as_ref().err().map_or(Outcome::Done, outcome_of);
        Ok(Kept { bytes: encode(&head, found.ok().as_ref())?, outcome })
    }
}

fn mean(image: &[f32]) -> f64 {
    image.iter().map(|v| f64::from(*v)).sum::<f64>() / image.len().max(1) as f64
}

fn encode(head: &Head, found: Option<&Registered>) -> anyhow::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(head)?;
    bytes.push(b'\n');
    for image in found.iter().flat_map(|found| &found.field) {
        bytes.extend(image.iter().flat_map(|v| v.to_le_bytes()));
    }
    Ok(bytes)
}

/// What [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> anyhow::Result<(Head, Option<Field>)> {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let head: Head = serde_json::from_slice(&bytes[..end])?;
    if head.reason.is_some() {
        return Ok((head, None));
    }
    let len: usize = head.shape.iter().product();
    let images = bytes.get(end + 1..).unwrap_or_default();
    anyhow::ensure!(images.len() == 12 * len, "what the first pass left is not whole; delete it");
    let numbers = images.as_chunks().0;
    let image = |c: usize| -> Vec<f32> {
        numbers[c * len..(c + 1) * len].iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let field = std::array::from_fn(image);
    Ok((head, Some(field)))
}

/// What a volume shows where a chain leads from a grid, NaN (0 for masks) where nothing; `None` where
/// nothing at all.
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
    let voxels = volume.read::<f32>(&part)?;
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

fn cut_out(image: &mut [f32], mask: Option<&[f32]>) {
    match mask {
        None => image.fill(f32::NAN),
        Some(mask) => {
            for (v, _) in image.iter_mut().zip(mask).filter(|(_, inside)| !(**inside > 0.0)) {
                *v = f32::NAN;
            }
        }
    }
}
