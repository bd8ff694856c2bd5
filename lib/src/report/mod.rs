//! Combines receipts, tables and volumes into one self-contained page.
//!
//! [`write()`] reads the outputs of the programs and writes three files: the page (HTML with all
//! pictures embedded), the same numbers as JSON, and a state for Neuroglancer. Correlations are
//! computed from all voxels, streamed tile by tile, and pictures from single planes, so memory does
//! not grow with the volumes.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Value, json};

use crate::blocks::{self, Budget, Context, Reads, write_whole};
use crate::device::Cost;
use crate::filter::Regridded;
use crate::geom::Grid;
use crate::volume::{self, Select, Volume};
use crate::{store, table};

mod agreement;
mod figures;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod neuroglancer;
mod page;
mod papers;
mod picture;
mod planes;
mod receipts;
mod residuals;
mod source;
mod stack;
mod views;
mod windows;

pub use agreement::Agreement;
pub use stack::{StackRequest, write_stack};

use agreement::Survey;
use figures::{Ortho, PanelLayout, STATUSES};
use neuroglancer::Layer;
use page::{StageView, View};
use papers::Papers;
use planes::{Contrast, Plane};
use residuals::Residuals;
use source::{ReportVolume, Unaligned};
use views::{block_view, describe, spot_view, truth_view};

/// An error that prevents a report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An input is not of the expected kind.
    #[error("{path}: {message}")]
    Input {
        /// The file or location.
        path: String,
        /// What was found, what was wanted and how to fix it.
        message: String,
    },
    /// The operating system reported an error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A volume could not be read.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// A table could not be read.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// The page's template could not be rendered.
    #[error("cannot lay out the page: {0}")]
    Page(#[from] minijinja::Error),
    /// An error of the run, such as an output that already exists.
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
}

/// A name and a location, written `name=location`.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedLocation {
    /// The name that the page shows.
    pub name: String,
    /// The location of the file or volume.
    pub location: String,
}

impl FromStr for NamedLocation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, location)) if !name.is_empty() && !location.is_empty() => {
                Ok(Self { name: name.to_owned(), location: location.to_owned() })
            }
            _ => Err("wanted a name, = and a location, such as global=out/global.zarr".to_owned()),
        }
    }
}

/// The inputs and the output of a report.
pub struct Request {
    /// The fixed volume.
    pub fixed: Volume,
    /// The moving volume before alignment.
    pub moving: Volume,
    /// The moving volume after each stage, resampled onto the fixed grid, in the order of the
    /// stages.
    pub stages: Vec<NamedLocation>,
    /// Receipts: JSON files, or arrays that hold one in their attributes.
    pub receipts: Vec<PathBuf>,
    /// The table of matches of the global stage.
    pub matches: Option<PathBuf>,
    /// The table of spots of the fixed volume.
    pub fixed_spots: Option<PathBuf>,
    /// The table with the status of each block of the local stage.
    pub blocks_table: Option<PathBuf>,
    /// The files of scores against a known ground truth, as `phantom score` prints them.
    pub truth_scores: Vec<NamedLocation>,
    /// The base URL at which Neuroglancer finds the volumes.
    pub base_url: String,
    /// The title of the page; `None` selects a title that names both volumes.
    pub title: Option<String>,
    /// The path of the page.
    pub output: PathBuf,
}

/// The volumes of a report. Those of `fixed` and `moving` are stored with their locations.
struct Subject<'a> {
    title: Option<&'a str>,
    fixed: (&'a str, &'a dyn ReportVolume),
    moving: (&'a str, &'a dyn ReportVolume),
    /// Name, location and volume of each stage.
    stages: Vec<(&'a str, &'a str, &'a dyn ReportVolume)>,
    base_url: &'a str,
    neuroglancer: String,
}

/// The contents of the three output files.
struct Report {
    page: String,
    numbers: Value,
    state: Value,
}

/// Maximum memory for decoded chunks of each volume, in bytes. The volumes are read tile by tile.
const CACHE_BYTES: u64 = 32 << 20;

/// The name under which the moving volume before alignment is compared like a stage.
const BEFORE_ALIGNMENT: &str = "before";

/// The paths of the two files that are written next to the page: its numbers as JSON, and a state
/// for Neuroglancer.
pub fn companion_paths(output: &Path) -> [PathBuf; 2] {
    ["json", "neuroglancer.json"].map(|extension| output.with_extension(extension))
}

/// Writes the page and, next to it, `<stem>.json` and `<stem>.neuroglancer.json`.
///
/// # Errors
/// [`Error`] if an input is not of the expected kind, a stage does not lie on the fixed volume's
/// grid or a finer grid of the same extent, or an output exists.
pub fn write(request: &Request, ctx: &Context) -> Result<(), Error> {
    let output = &request.output;
    ctx.refuse_existing(output)?;
    let budget = Budget::of(ctx);
    let papers = Papers::read(request)?;
    ctx.input(&request.fixed);
    ctx.input(&request.moving);
    let mut stages = Vec::new();
    for stage in &request.stages {
        let volume = Volume::open(&stage.location, &Select::default())?;
        let finer = check_grid(stage, &volume.grid(), &request.fixed.grid())?;
        ctx.input(&volume);
        stages.push((stage.name.as_str(), volume, finer));
    }
    let held = memory_needed(request, &stages, &budget);
    if ctx.is_plan_asked("comparing the stages", &budget, &held)? {
        return Ok(());
    }
    let onto = request.fixed.grid();
    let reduce = |volume| Regridded::new(volume, Some(onto.spacing));
    let reduced: Vec<Regridded> = stages.iter().map(|(_, volume, _)| reduce(volume)).collect();
    let seen: Vec<Unaligned> = reduced.iter().map(|moving| Unaligned { moving, onto }).collect();
    let [numbers_path, state_path] = companion_paths(output);
    let subject = Subject {
        title: request.title.as_deref(),
        fixed: (request.fixed.location(), &request.fixed),
        moving: (request.moving.location(), &request.moving),
        stages: stages
            .iter()
            .zip(&seen)
            .map(|((name, volume, finer), seen)| {
                let source: &dyn ReportVolume = if *finer { seen } else { volume };
                (*name, volume.location(), source)
            })
            .collect(),
        base_url: &request.base_url,
        neuroglancer: state_path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let report = compose(&subject, papers, ctx.threads)?;
    ctx.check_inputs()?;
    create_folder_of(output)?;
    write_whole(&state_path, pretty(&report.state).as_bytes())?;
    write_whole(&numbers_path, pretty(&report.numbers).as_bytes())?;
    // the page is written last: if it exists, so do the other files
    write_whole(output, report.page.as_bytes())?;
    ctx.output_file(output);
    record(&report.numbers, ctx);
    Ok(())
}

/// Creates the folder of a file, unless it is in a bucket.
fn create_folder_of(output: &Path) -> Result<(), Error> {
    let Some(folder) = output.parent().filter(|folder| !store::is_remote(folder)) else {
        return Ok(());
    };
    std::fs::create_dir_all(folder).map_err(|source| Error::Io {
        action: "create",
        path: folder.display().to_string(),
        source,
    })
}

/// The memory for comparing all volumes: the tiles of each volume, and its decoded chunks.
fn memory_needed(request: &Request, stages: &[(&str, Volume, bool)], budget: &Budget) -> Cost {
    // one more than the stages, for the moving volume before alignment
    let tiles = agreement::memory_needed(&request.fixed.grid(), stages.len() + 1, budget.threads());
    let volumes = [&request.fixed, &request.moving].into_iter();
    let volumes = volumes.chain(stages.iter().map(|(_, volume, _)| volume));
    let reads: Vec<_> = volumes.map(|volume| (Reads::Volume(volume), CACHE_BYTES)).collect();
    let kept = budget.caches(&reads, &tiles);
    tiles + kept
}

/// Records the correlations of each stage, and of [`BEFORE_ALIGNMENT`], in the receipt:
/// `ncc_<stage>` and `ncc_foreground_<stage>`.
fn record(numbers: &Value, ctx: &Context) {
    for stage in numbers["stages"].as_array().into_iter().flatten() {
        let name = stage["name"].as_str().unwrap_or_default();
        for (key, of) in [("ncc", "ncc_overlap"), ("ncc_foreground", "ncc_foreground")] {
            ctx.record(&format!("{key}_{name}"), stage["agreement"][of].clone());
        }
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn compose(subject: &Subject, papers: Papers, threads: usize) -> Result<Report, Error> {
    let (_, fixed) = subject.fixed;
    let grid = fixed.grid();
    let unaligned = Unaligned { moving: subject.moving.1, onto: grid };
    let mut stages: Vec<(&str, &str, &dyn ReportVolume)> =
        vec![(BEFORE_ALIGNMENT, subject.moving.0, &unaligned)];
    stages.extend(&subject.stages);
    let volumes: Vec<&dyn ReportVolume> = stages.iter().map(|s| s.2).collect();
    let survey = agreement::survey(fixed, &volumes, threads)?;
    let contrasts: Vec<Contrast> = survey.samples.iter().map(|s| Contrast::of(s)).collect();
    let views = stage_views(fixed, &stages, &survey, &contrasts)?;

    let mut warnings = papers.warnings();
    warnings.extend(disagreements(&views));
    let numbers = numbers(subject, &papers, &views, &warnings);
    let state = viewer_state(subject, &grid, &survey, &contrasts);
    let layout = PanelLayout::new(&grid, survey.centre);
    let residuals = Residuals::of(&papers.matches);
    let (spot_drawing, spots) = spot_view(&grid, &survey, contrasts[0], &papers, residuals);
    let view = View {
        title: subject.title.map_or_else(
            || {
                format!(
                    "Alignment of {} to {}",
                    short_name(subject.moving.0),
                    short_name(subject.fixed.0)
                )
            },
            str::to_owned,
        ),
        fixed: describe(subject.fixed.0, &grid),
        moving: describe(subject.moving.0, &subject.moving.1.grid()),
        stages: views,
        panel: layout.main_panel(),
        window_um: std::array::from_fn(|a| survey.windows.size[a] as f64 * grid.spacing[a]),
        spots,
        spot_drawing,
        histogram: residuals.map(|r| residuals::histogram(&papers.matches, &r)).unwrap_or_default(),
        blocks: (!papers.blocks.is_empty()).then(|| block_view(&papers.blocks)),
        block_drawing: figures::block_map(&papers.blocks),
        truth: papers.truth.iter().map(|(name, score)| truth_view(name, score)).collect(),
        receipts: papers.receipts,
        warnings,
        neuroglancer: subject.neuroglancer.clone(),
    };
    Ok(Report { page: page::render(&view)?, numbers, state })
}

/// Checks that a stage covers the fixed volume's grid. Returns whether its grid is finer; the stage
/// is then resampled at the fixed volume's voxels.
fn check_grid(stage: &NamedLocation, found: &Grid, wanted: &Grid) -> Result<bool, Error> {
    // metadata are rounded when they are written, so allow for a thousandth of a voxel
    let near = (0..3).all(|a| {
        let slack = 1e-3 * wanted.spacing[a];
        (found.spacing[a] - wanted.spacing[a]).abs() * wanted.shape[a] as f64 <= slack.max(1e-9)
            && (found.origin[a] - wanted.origin[a]).abs() <= slack
    });
    if near && found.shape == wanted.shape {
        return Ok(false);
    }
    let finer = (0..3).any(|a| found.spacing[a] < 0.8 * wanted.spacing[a]);
    let covers = (0..3).all(|a| {
        let faces = |grid: &Grid| {
            let low = grid.origin[a] - 0.5 * grid.spacing[a];
            [low, low + grid.shape[a] as f64 * grid.spacing[a]]
        };
        let (ours, theirs) = (faces(wanted), faces(found));
        found.spacing[a] <= 1.001 * wanted.spacing[a]
            && (0..2).all(|end| (ours[end] - theirs[end]).abs() <= wanted.spacing[a])
    });
    if finer && covers {
        return Ok(true);
    }
    Err(Error::Input {
        path: stage.location.clone(),
        message: format!(
            "stage {} has {:?} voxels of {:?} um from {:?}, and the fixed volume {:?} of {:?} from {:?}; give \
             as --stage what apply-transform made onto the fixed volume",
            stage.name,
            found.shape,
            found.spacing,
            found.origin,
            wanted.shape,
            wanted.spacing,
            wanted.origin
        ),
    })
}

fn stage_views(
    fixed: &dyn ReportVolume,
    stages: &[(&str, &str, &dyn ReportVolume)],
    survey: &Survey,
    contrasts: &[Contrast],
) -> Result<Vec<StageView>, Error> {
    let layout = PanelLayout::new(&fixed.grid(), survey.centre);
    let planes = |source: &dyn ReportVolume| -> Result<Vec<Plane>, Error> {
        (0..3).map(|axis| Ok(Plane::read(source, axis, survey.centre[axis])?)).collect()
    };
    let ours = planes(fixed)?;
    let mut views = Vec::new();
    for (i, (name, location, volume)) in stages.iter().enumerate() {
        let theirs = planes(*volume)?;
        let figure = |kind: &str, pixelated: bool, picture: &dyn Fn(usize) -> picture::Picture| {
            let pictures = std::array::from_fn(|axis| picture(axis).address());
            let ortho = Ortho { pictures, id: format!("{kind}-{i}"), pixelated };
            layout.ortho(&ortho, &format!("{kind} of {name}"))
        };
        let colours = (contrasts[0], contrasts[i + 1]);
        // the checkerboard has about ten squares across, of the same size in all three planes
        let side = (ours[0].width.max(ours[0].height) / 10).max(4);
        views.push(StageView {
            name: (*name).to_owned(),
            location: (*location).to_owned(),
            agreement: survey.agreements[i],
            overlay: figure("overlay", false, &|axis| {
                ours[axis].overlay(colours.0, &theirs[axis], colours.1)
            }),
            checkerboard: figure("checkerboard", false, &|axis| {
                ours[axis].checkerboard(colours.0, &theirs[axis], colours.1, side)
            }),
            local: figure("local", true, &|axis| {
                planes::local_map(&survey.local[i], &survey.windows, axis, survey.centre[axis])
            }),
        });
    }
    Ok(views)
}

/// Warnings about stages with a lower correlation than the previous one, or without overlap.
fn disagreements(views: &[StageView]) -> Vec<String> {
    let mut out = Vec::new();
    for pair in views.windows(2) {
        let [before, after] = [&pair[0], &pair[1]].map(|v| v.agreement.ncc_overlap);
        match (before, after) {
            (_, None) => out.push(format!("{}: nothing overlaps the fixed volume", pair[1].name)),
            (Some(before), Some(after)) if after < before - 1e-3 => out.push(format!(
                "{}: the correlation fell from {before:.3} to {after:.3}",
                pair[1].name
            )),
            _ => {}
        }
    }
    out
}

fn numbers(subject: &Subject, papers: &Papers, views: &[StageView], warnings: &[String]) -> Value {
    let counts: serde_json::Map<String, Value> = STATUSES
        .iter()
        .map(|&status| {
            let count = papers.blocks.iter().filter(|b| b.status == status).count();
            (status.name().to_owned(), json!(count))
        })
        .collect();
    let place = |(location, volume): (&str, &dyn ReportVolume)| {
        let Grid { shape, spacing, origin, .. } = volume.grid();
        json!({ "location": location, "shape": shape, "spacing": spacing, "origin": origin })
    };
    json!({
        "fixed": place(subject.fixed),
        "moving": place(subject.moving),
        "stages": views.iter().map(|v| {
            json!({ "name": v.name, "location": v.location, "agreement": v.agreement })
        }).collect::<Vec<_>>(),
        "matches": Residuals::of(&papers.matches),
        "blocks": (!papers.blocks.is_empty()).then_some(counts),
        "truth": papers.truth.iter().map(|(name, score)| {
            json!({ "name": name, "score": score })
        }).collect::<Vec<_>>(),
        "runs": papers.receipts.iter().map(|r| {
            json!({ "program": r.program(), "wall": r.wall(), "cpu": r.cpu(), "peak_memory": r.peak_memory() })
        }).collect::<Vec<_>>(),
        "warnings": warnings,
    })
}

fn viewer_state(subject: &Subject, grid: &Grid, survey: &Survey, contrasts: &[Contrast]) -> Value {
    let last = subject.stages.len();
    let mut layers = vec![Layer {
        name: "fixed",
        location: subject.fixed.0,
        contrast: contrasts[0],
        colour: "#ff00ff",
        visible: true,
    }];
    for (i, (name, location, _)) in subject.stages.iter().enumerate() {
        let contrast = contrasts[i + 2];
        layers.push(Layer { name, location, contrast, colour: "#00ff00", visible: i + 1 == last });
    }
    layers.push(Layer {
        name: "moving",
        location: subject.moving.0,
        contrast: contrasts[1],
        colour: "#00a0ff",
        visible: last == 0,
    });
    let position = grid.position(survey.centre.map(|v| v as f64));
    neuroglancer::state(&layers, grid, position, subject.base_url)
}

/// The end of a location that identifies it: `fix.n5/lowres` for `data/fix.n5/lowres`.
fn short_name(location: &str) -> String {
    let parts: Vec<&str> = location.split(['/', '\\']).filter(|p| !p.is_empty()).collect();
    let container =
        parts.iter().rposition(|p| p.contains('.')).unwrap_or(parts.len().saturating_sub(1));
    parts[container..].join("/")
}

#[cfg(test)]
mod tests;
