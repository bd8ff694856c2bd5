//! Formats numbers for the page's template.

use serde_json::{Value, json};

use super::Papers;
use super::agreement::Survey;
use super::figures::{self, STATUSES, SpotFigure, short};
use super::planes::{self, Contrast};
use super::residuals::Residuals;
use crate::geom::Grid;
use crate::table::{BlockRow, Status};

pub(super) fn spot_view(
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
        "thinned": (papers.spots.len().max(papers.matches.len()) > figures::MAX_DRAWN)
            .then_some(figures::MAX_DRAWN),
    });
    (drawing, Some(view))
}

/// Maximum number of rows in the table of blocks. If there are more blocks, fitted blocks are
/// omitted.
const LISTED: usize = 4000;

pub(super) fn block_view(blocks: &[BlockRow]) -> Value {
    let count = |status: Status| blocks.iter().filter(|b| b.status == status).count();
    let length = |v: Option<f64>| v.map_or("–".to_owned(), short);
    let all = blocks.len() <= LISTED;
    let rows: Vec<[String; 9]> = blocks
        .iter()
        .filter(|b| all || b.status != Status::Fitted)
        .take(LISTED)
        .map(|b| {
            [
                b.index.map(|i| i.to_string()).join(", "),
                b.status.name().to_owned(),
                b.spots.to_string(),
                b.matches.to_string(),
                b.inliers.to_string(),
                length(b.median),
                length(b.rms),
                b.shift.map(short).join(", "),
                b.reason.clone(),
            ]
        })
        .collect();
    let statuses = STATUSES.map(|s| json!({ "status": s.name(), "count": count(s) }));
    json!({
        "total": blocks.len(),
        "fitted": count(Status::Fitted),
        "statuses": statuses,
        "listed": rows.len(),
        "rows": rows,
    })
}

pub(super) fn truth_view(name: &str, score: &Value) -> Value {
    let spread = |unit: &str| {
        let at = |what: &str| score[unit][what].as_f64().map_or("–".to_owned(), short);
        json!({ "median": at("median"), "p95": at("p95"), "max": at("max") })
    };
    json!({ "name": name, "points": score["points"], "um": spread("um"), "voxels": spread("voxels") })
}

pub(super) fn describe(location: &str, grid: &Grid) -> Value {
    json!({
        "location": location,
        "shape": grid.shape.map(|n| n.to_string()).join(" × "),
        "spacing": grid.spacing.map(short).join(" × "),
    })
}
