//! Receipts, tables and volumes to one self-contained page.
//!
//! [`write`] reads what the programs left behind and writes three files: the page (HTML with all
//! pictures inside), the same numbers as JSON, and a state for Neuroglancer. Correlations are of
//! all voxels, streamed tile by tile; pictures come from single planes: memory does not grow
//! with the volumes.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::geom::{Grid, Point};
use crate::table::{self, Match};
use crate::volume::{self, Existing, Volume};

mod agreement;
mod blocks_table;
mod figures;
mod neuroglancer;
mod page;
mod picture;
mod planes;
mod receipts;
mod source;

pub use agreement::Agreement;

use agreement::Survey;
use blocks_table::Block;
use figures::{Layout, Ortho, Residuals, STATUSES, SpotFigure, short};
use neuroglancer::Layer;
use page::{StageView, View};
use planes::{Contrast, Plane};
use receipts::Receipt;
use source::{Source, Unaligned};

/// Why a report could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was given is not what was wanted.
    #[error("{path}: {message}")]
    Input {
        /// The file or location.
        path: String,
        /// What was found, what was wanted, the way out.
        message: String,
    },
    /// The page is there already.
    #[error("{0} exists already; give --overwrite to replace it")]
    Exists(String),
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: String,
        /// Its refusal.
        source: std::io::Error,
    },
    /// A volume's error.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// A table's error.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// The template and its data do not fit.
    #[error("cannot lay out the page: {0}")]
    Page(#[from] minijinja::Error),
    /// The machine gave no threads.
    #[error("cannot start the threads of --threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// What a report is about.
pub struct Request {
    /// The fixed volume.
    pub fixed: Volume,
    /// The moving volume as it was.
    pub moving: Volume,
    /// Name and result of each step, on the fixed grid, in their order.
    pub stages: Vec<(String, Volume)>,
    /// Receipts: JSON files, or arrays that carry one.
    pub receipts: Vec<PathBuf>,
    /// The matches of the global step.
    pub matches: Option<PathBuf>,
    /// The fixed volume's spots.
    pub fixed_spots: Option<PathBuf>,
    /// How the blocks of the local step ended.
    pub blocks_table: Option<PathBuf>,
    /// Name and file of each measurement against a known truth.
    pub truth_scores: Vec<(String, PathBuf)>,
    /// Where Neuroglancer will find the volumes.
    pub base_url: String,
    /// The page.
    pub output: PathBuf,
}

/// All but volumes, read.
#[derive(Default)]
struct Papers {
    receipts: Vec<Receipt>,
    matches: Vec<Match>,
    spots: Vec<Point>,
    blocks: Vec<Block>,
    truth: Vec<(String, Value)>,
}

/// Volumes with their names.
struct Subject<'a> {
    fixed: (&'a str, &'a dyn Source),
    moving: (&'a str, &'a dyn Source),
    /// Name, location, volume.
    stages: Vec<(&'a str, &'a str, &'a dyn Source)>,
    base_url: &'a str,
    neuroglancer: String,
}

/// The three files.
struct Report {
    page: String,
    numbers: Value,
    state: Value,
}

/// The stage before the first.
const BEFORE: &str = "before";

/// Writes the page, and beside it `<stem>.json` and `<stem>.neuroglancer.json`. Returns the numbers.
///
/// # Errors
/// [`Error`]: an input that is not what it should be, a stage on another grid than the fixed
/// volume's, an output that exists.
pub fn write(request: &Request, threads: usize, existing: Existing) -> Result<Value, Error> {
    let output = &request.output;
    if existing == Existing::Refuse && output.exists() {
        return Err(Error::Exists(output.display().to_string()));
    }
    let papers = Papers::read(request)?;
    let state_path = output.with_extension("neuroglancer.json");
    let subject = Subject {
        fixed: (request.fixed.location(), &request.fixed),
        moving: (request.moving.location(), &request.moving),
        stages: request
            .stages
            .iter()
            .map(|(name, volume)| (name.as_str(), volume.location(), volume as &dyn Source))
            .collect(),
        base_url: &request.base_url,
        neuroglancer: state_path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build()?;
    let report = pool.install(|| compose(&subject, papers, threads))?;
    replace(&state_path, &pretty(&report.state))?;
    replace(&output.with_extension("json"), &pretty(&report.numbers))?;
    // the page last: where it is, all is
    replace(output, &report.page)?;
    Ok(report.numbers)
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Writes a file, whole or not at all.
fn replace(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Io { action: "write", path: path.display().to_string(), source };
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".{}.partial", std::process::id()));
    std::fs::write(&partial, text).map_err(failed)?;
    std::fs::rename(&partial, path).map_err(failed)
}

impl Papers {
    fn read(request: &Request) -> Result<Self, Error> {
        let truth = request
            .truth_scores
            .iter()
            .map(|(name, path)| Ok((name.clone(), read_score(path)?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            receipts: receipts::read_all(&request.receipts)?,
            matches: request.matches.as_deref().map_or(Ok(Vec::new()), table::read_matches)?,
            spots: match &request.fixed_spots {
                Some(path) => table::read_spots(path)?.iter().map(|s| s.position).collect(),
                None => Vec::new(),
            },
            blocks: request.blocks_table.as_deref().map_or(Ok(Vec::new()), blocks_table::read)?,
            truth,
        })
    }

    /// What the programs warn of.
    fn warnings(&self) -> Vec<String> {
        let mut out: Vec<String> = self.receipts.iter().flat_map(Receipt::warnings).collect();
        let fell: Vec<&Block> = self.blocks.iter().filter(|b| b.status == "fallback").collect();
        if let Some(first) = fell.first() {
            let reason = if first.reason.is_empty() { "no reason given" } else { &first.reason };
            out.push(format!(
                "{} of {} blocks of the local step fell back, the first of them {},{},{}: {reason}",
                fell.len(),
                self.blocks.len(),
                first.block_z,
                first.block_y,
                first.block_x
            ));
        }
        out
    }
}

/// Reads what `phantom score` printed.
fn read_score(path: &Path) -> Result<Value, Error> {
    let wrong = |message: String| Error::Input {
        path: path.display().to_string(),
        message: format!("{message}; wanted what `phantom score` prints"),
    };
    let value: Value =
        serde_json::from_str(&receipts::read_text(path)?).map_err(|e| wrong(e.to_string()))?;
    for unit in ["um", "voxels"] {
        if value[unit]["median"].as_f64().is_none() {
            return Err(wrong(format!("there is no median in \"{unit}\"")));
        }
    }
    Ok(value)
}

fn compose(subject: &Subject, papers: Papers, threads: usize) -> Result<Report, Error> {
    let (_, fixed) = subject.fixed;
    let grid = fixed.grid();
    for (name, location, volume) in &subject.stages {
        check_grid(name, location, &volume.grid(), &grid)?;
    }
    let unaligned = Unaligned { moving: subject.moving.1, onto: grid };
    let mut stages: Vec<(&str, &str, &dyn Source)> = vec![(BEFORE, subject.moving.0, &unaligned)];
    stages.extend(&subject.stages);
    let volumes: Vec<&dyn Source> = stages.iter().map(|s| s.2).collect();
    let survey = agreement::survey(fixed, &volumes, threads)?;
    let contrasts: Vec<Contrast> = survey.samples.iter().map(|s| Contrast::of(s)).collect();
    let views = stage_views(fixed, &stages, &survey, &contrasts)?;

    let mut warnings = papers.warnings();
    warnings.extend(disagreements(&views));
    let numbers = numbers(subject, &papers, &views, &warnings);
    let state = viewer_state(subject, &grid, &survey, &contrasts);
    let layout = Layout::new(&grid, survey.centre);
    let residuals = Residuals::of(&papers.matches);
    let (spot_drawing, spots) = spot_view(&grid, &survey, contrasts[0], &papers, residuals);
    let view = View {
        title: format!("Alignment of {} to {}", leaf(subject.moving.0), leaf(subject.fixed.0)),
        fixed: describe(subject.fixed.0, &grid),
        moving: describe(subject.moving.0, &subject.moving.1.grid()),
        stages: views,
        panel: layout.main_panel(),
        window_um: std::array::from_fn(|a| survey.windows.size[a] as f64 * grid.spacing[a]),
        spots,
        spot_drawing,
        histogram: residuals.map(|r| figures::histogram(&papers.matches, &r)).unwrap_or_default(),
        blocks: (!papers.blocks.is_empty()).then(|| block_view(&papers.blocks)),
        block_drawing: figures::block_map(&papers.blocks),
        truth: papers.truth.iter().map(|(name, score)| truth_view(name, score)).collect(),
        receipts: papers.receipts,
        warnings,
        neuroglancer: subject.neuroglancer.clone(),
    };
    Ok(Report { page: page::render(&view)?, numbers, state })
}

fn check_grid(name: &str, location: &str, found: &Grid, wanted: &Grid) -> Result<(), Error> {
    // metadata is rounded when it is written: a thousandth of a voxel is the same place
    let near = (0..3).all(|a| {
        let slack = 1e-3 * wanted.spacing[a];
        (found.spacing[a] - wanted.spacing[a]).abs() * wanted.shape[a] as f64 <= slack.max(1e-9)
            && (found.origin[a] - wanted.origin[a]).abs() <= slack
    });
    if near && found.shape == wanted.shape {
        return Ok(());
    }
    Err(Error::Input {
        path: location.to_owned(),
        message: format!(
            "stage {name} has {:?} voxels of {:?} um from {:?}, and the fixed volume {:?} of {:?} from {:?}; give \
             as --stage what apply-transform made onto the fixed volume",
            found.shape, found.spacing, found.origin, wanted.shape, wanted.spacing, wanted.origin
        ),
    })
}

fn stage_views(
    fixed: &dyn Source,
    stages: &[(&str, &str, &dyn Source)],
    survey: &Survey,
    contrasts: &[Contrast],
) -> Result<Vec<StageView>, Error> {
    let layout = Layout::new(&fixed.grid(), survey.centre);
    let planes = |source: &dyn Source| -> Result<Vec<Plane>, Error> {
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
        // about ten squares across, the same in all three planes
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

/// Steps after which the volumes agree less than before, or not at all.
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
            (status.to_owned(), json!(count))
        })
        .collect();
    let place = |(location, volume): (&str, &dyn Source)| {
        let Grid { shape, spacing, origin } = volume.grid();
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

fn spot_view(
    grid: &Grid,
    survey: &Survey,
    contrast: Contrast,
    papers: &Papers,
    residuals: Option<Residuals>,
) -> (String, Option<Value>) {
    if papers.spots.is_empty() && papers.matches.is_empty() {
        return (String::new(), None);
    }
    let projection = &survey.projection;
    let mut sorted = projection.values.clone();
    sorted.sort_by(f32::total_cmp);
    let brightest = Contrast::of(&sorted).high;
    let contrast = Contrast { low: contrast.low, high: brightest.max(contrast.high) };
    let figure = SpotFigure {
        grid: *grid,
        background: planes::grey(projection.shape, &projection.values, contrast).address(),
        spots: &papers.spots,
        matches: &papers.matches,
    };
    let (drawing, enlarged) = figure.draw();
    let view = json!({
        "count": papers.spots.len(),
        "residuals": residuals,
        "outliers": residuals.map(|r| r.matches - r.inliers),
        "median": residuals.map(|r| short(r.median_um)),
        "p95": residuals.map(|r| short(r.p95_um)),
        "enlarged": enlarged.map(short),
        "thinned": (papers.spots.len().max(papers.matches.len()) > figures::DRAWN)
            .then_some(figures::DRAWN),
    });
    (drawing, Some(view))
}

fn block_view(blocks: &[Block]) -> Value {
    let count = |status: &str| blocks.iter().filter(|b| b.status == status).count();
    let whole = |v: Option<u64>| v.map_or("–".to_owned(), |v| v.to_string());
    let length = |v: Option<f64>| v.map_or("–".to_owned(), short);
    let rows: Vec<[String; 10]> = blocks
        .iter()
        .map(|b| {
            let shift = [b.shift_z_um, b.shift_y_um, b.shift_x_um].map(length).join(", ");
            [
                format!("{}, {}, {}", b.block_z, b.block_y, b.block_x),
                b.status.clone(),
                whole(b.spots_fixed),
                whole(b.spots_moving),
                whole(b.matches),
                whole(b.inliers),
                length(b.median_um),
                length(b.rms_um),
                shift,
                b.reason.clone(),
            ]
        })
        .collect();
    json!({
        "total": blocks.len(),
        "fitted": count("fitted"),
        "statuses": STATUSES.map(|s| json!({ "status": s, "count": count(s) })),
        "rows": rows,
    })
}

fn truth_view(name: &str, score: &Value) -> Value {
    let spread = |unit: &str| {
        let at = |what: &str| score[unit][what].as_f64().map_or("–".to_owned(), short);
        json!({ "median": at("median"), "p95": at("p95"), "max": at("max") })
    };
    json!({ "name": name, "points": score["points"], "um": spread("um"), "voxels": spread("voxels") })
}

fn describe(location: &str, grid: &Grid) -> Value {
    json!({
        "location": location,
        "shape": grid.shape.map(|n| n.to_string()).join(" × "),
        "spacing": grid.spacing.map(short).join(" × "),
    })
}

/// The last part of a location that is a name: `fix.n5/lowres` for `data/fix.n5/lowres`.
fn leaf(location: &str) -> String {
    let parts: Vec<&str> = location.split(['/', '\\']).filter(|p| !p.is_empty()).collect();
    let container =
        parts.iter().rposition(|p| p.contains('.')).unwrap_or(parts.len().saturating_sub(1));
    parts[container..].join("/")
}

#[cfg(test)]
mod tests;
