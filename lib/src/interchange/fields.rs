//! Writes displacement fields: native ones in blocks, and single files of other formats.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::Error;
use crate::blocks::{
    self, Budget, Context, ExitReason, Identity, Outcome, Plan, Reads, TaskResult,
};
use crate::device::Cost;
use crate::geom::{Box3, FieldSource, Grid, Point};
use crate::volume::{Existing, FieldOutput};
use crate::{files, store};

/// Edge length of a chunk, vectors.
const CHUNK: usize = 64;

/// Maximum size of a slab of planes, bytes; a slab of a single plane can be larger.
const SLAB: usize = 8 << 20;

/// Writes a native field at `location`, block by block.
///
/// `identity` contains the interpretation of the source and the request; this function adds the
/// fingerprint and the grid of the field.
///
/// # Errors
/// [`Error`]; in particular [`Error::Unknown`] if every vector is NaN.
pub(super) fn write_field(
    source: &dyn FieldSource,
    location: &str,
    identity: Identity,
    ctx: &Context,
) -> Result<(), Error> {
    let grid = source.grid();
    let chunk = grid.shape.map(|n| n.clamp(1, CHUNK));
    let budget = Budget::of(ctx);
    let cost = |block: [usize; 3]| {
        let core: usize = (0..3).map(|a| block[a].min(grid.shape[a])).product();
        Cost::of::<[f64; 3]>("vectors as they are stored", core) + vectors_of(core)
    };
    let identity =
        identity.with("field", source.fingerprint().map_err(Error::Field)?).with("grid", grid);
    let block = Plan::choose_block(grid.bounds(), chunk, cost, ctx)?;
    let reads = Reads::Field(source);
    let kept = budget.caches(&[(reads, ctx.memory / 8)], &cost(block));
    let core = (0..3).map(|a| block[a].min(grid.shape[a])).product();
    let plan = Plan::tile(grid.bounds(), block, cost(block), &identity)
        .waiting(&vectors_of(core))
        .with_overhead(
            &budget,
            kept,
            Budget::each_thread(&[reads], FieldOutput::writing_bytes(location, chunk)),
        );
    if plan.is_all_asked(ctx)? {
        return Ok(());
    }
    let output = Arc::new(FieldOutput::begin(location, &grid, chunk, &plan.as_run(ctx))?);
    let results = plan.stream_to::<_, _, _, Error>(
        ctx,
        &*output,
        |task| source.read(&task.core).map_err(anyhow::Error::from_boxed),
        |_, vectors: Vec<[f32; 3]>| {
            let mut summary = VectorStatistics::default();
            for u in &vectors {
                for a in 0..3 {
                    summary.reach[a] = summary.reach[a].max(f64::from(u[a].abs()));
                }
                summary.known += u64::from(u.iter().all(|v| v.is_finite()));
            }
            Ok((vectors, summary))
        },
        |task, (vectors, summary)| {
            output.write(&task.core, &vectors)?;
            Ok(TaskResult::from(Outcome::Done).with_summary(&summary)?)
        },
    )?;
    if !ctx.gathers() {
        return Ok(());
    }
    let mut whole = VectorStatistics::default();
    for summary in results.summaries::<VectorStatistics>() {
        let (_, of_block) = summary?;
        whole.reach = std::array::from_fn(|a| whole.reach[a].max(of_block.reach[a]));
        whole.known += of_block.known;
    }
    output.set_attribute("reach", json!(whole.reach))?;
    if whole.known == 0 {
        let (location, verdict) = (location.to_owned(), ExitReason::TooManyFailed);
        return Err(Error::Unknown { location, verdict });
    }
    Ok(())
}

/// Statistics of the vectors of a block.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct VectorStatistics {
    /// The largest absolute displacement along each axis, micrometres.
    reach: Point,
    /// Number of finite vectors.
    known: u64,
}

fn vectors_of(count: usize) -> Cost {
    Cost::of::<[f32; 3]>("vectors", count)
}

/// A folder for temporary data next to `destination`, or in the system's folder for temporary files
/// if `destination` is in a bucket. The folder is removed on drop.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// The folder's name contains the process id, so that processes do not share it.
    pub(super) fn next_to(destination: &str) -> Self {
        let trimmed = destination.trim_end_matches('/');
        let name = format!("scratch-{}", std::process::id());
        if store::is_remote(Path::new(trimmed)) {
            return Self(std::env::temp_dir().join(format!("voxloom-{name}")).join(name));
        }
        Self(blocks::ledger_folder_of(Path::new(trimmed)).join(name))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The location of `name` in the folder.
    pub(super) fn at(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // a failure is harmless; the parent folder is removed only if it is empty
        let _ = fs::remove_dir_all(&self.0);
        if let Some(above) = self.0.parent() {
            let _ = fs::remove_dir(above);
        }
    }
}

/// Copies a field into a scratch folder, in a single thread.
pub(super) fn copy_field(source: &dyn FieldSource, location: &str) -> Result<(), Error> {
    let grid = source.grid();
    let chunk = grid.shape.map(|n| n.clamp(1, CHUNK));
    let output = FieldOutput::create(location, &grid, chunk, Existing::Overwrite)?;
    for part in grid.bounds().tiles(chunk) {
        output.write(&part, &source.read(&part).map_err(Error::Field)?)?;
    }
    Ok(())
}

/// Divides a grid into slabs of whole planes, whose vectors take at most [`SLAB`] bytes unless a
/// single plane takes more.
pub(super) fn slabs(grid: &Grid) -> Vec<Box3> {
    let [_, ny, nx] = grid.shape;
    let plane = ny * nx * size_of::<[f32; 3]>();
    let depth = (SLAB / plane.max(1)).clamp(1, CHUNK);
    grid.bounds().tiles([depth, ny, nx]).collect()
}

/// Writes a file atomically through a buffer.
pub(super) fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut BufWriter<&mut File>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut field_error = None;
    let written = files::write_with(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        fill(&mut out).map_err(|error| {
            field_error = Some(error);
            io::Error::other("it could not be filled")
        })?;
        out.flush()
    });
    written.map_err(|source| {
        let path = path.display().to_string();
        field_error.unwrap_or(Error::Io { action: "write", path, source })
    })
}
