//! Pages about transforms, both native ones and those of other programs.

use std::sync::Arc;

use serde_json::{Value, json};

use super::page::{short, times};
use super::{Error, Page};
use crate::geom::{Affine, Chain, Grid, LocalAffines, Transform};
use crate::interchange::{self, StepSummary, TransformSummary};
use crate::transform::{self, Direction};
use crate::volume;

/// Opens a displacement field; also returns its direction.
pub(super) fn open_field(location: &str) -> Result<(volume::FieldFile, Direction), volume::Error> {
    volume::FieldFile::open(location).map(|field| (field, Direction::FixedToMoving)).or_else(
        |error| match volume::FieldFile::open_inverse(location) {
            Ok(field) => Ok((field, Direction::MovingToFixed)),
            Err(_) => Err(error),
        },
    )
}

pub(super) fn page(location: &str) -> Result<Page, Error> {
    let read = transform::read_chain(&[location.to_owned()]);
    let (chain, direction) = match (read, open_field(location)) {
        // a moving-to-fixed field, as `invmap` writes it
        (Err(_), Ok((field, direction))) => {
            (Chain { steps: vec![Transform::Field(Arc::new(field))] }, direction)
        }
        (chain, _) => (chain?, Direction::FixedToMoving),
    };
    let mut page = Page::new(location);
    page.add_text("kind", "transform");
    page.add_text("direction", direction.to_string());
    page.add_text("unit", "micrometer");
    page.add_text("axes", "zyx");
    add_steps(&mut page, chain.steps.iter().map(step_facts));
    if let Some(map) = Chain::as_affine(&chain).filter(|_| chain.steps.len() > 1) {
        let (text, value) = affine_facts(&map);
        page.add("in_all", text, value);
    }
    Ok(page)
}

/// Adds the steps as a numbered list.
fn add_steps(page: &mut Page, steps: impl Iterator<Item = (String, Value)>) {
    let number =
        |(i, (text, value)): (usize, (String, Value))| (format!("{}. {text}", i + 1), value);
    let (texts, values): (Vec<_>, Vec<_>) = steps.enumerate().map(number).unzip();
    let text =
        if texts.is_empty() { "none: it moves nothing".to_owned() } else { texts.join("\n") };
    page.add("steps", text, values);
}

/// The page of another program's transform. It lists the steps into which `transcode` converts it.
pub(super) fn foreign_page(location: &str) -> Result<Page, Error> {
    let TransformSummary { taken_as, steps } = interchange::summarise(location)?;
    let word = |key: &str| taken_as[key].as_str().filter(|text| !text.is_empty());
    let mut page = Page::new(location);
    page.add_text("kind", "transform");
    let own = ["axes", "frame", "unit", "remark"].into_iter().filter_map(word);
    let own: Vec<_> = own.collect();
    let text = format!("{} ({})", word("format").unwrap_or("unknown"), own.join(", "));
    page.add("format", text, taken_as.clone());
    page.add_text("direction", word("direction").unwrap_or_default());
    page.add_text("unit", "micrometer");
    page.add_text("axes", "zyx");
    add_steps(&mut page, steps.iter().map(map_facts));
    page.add_text("use", format!("transcode {location} -o chain.json"));
    Ok(page)
}

fn map_facts(map: &StepSummary) -> (String, Value) {
    match map {
        StepSummary::Native(step) => step_facts(step),
        StepSummary::Spline => {
            let text = "spline, which transcode samples on the grid of --onto";
            (text.to_owned(), json!({ "type": "spline" }))
        }
        StepSummary::Field { grid, holds, is_turned } => {
            let turned = if *is_turned { ", on axes that are turned against z, y, x" } else { "" };
            let text = format!("field of {holds}: {}{turned}", samples(grid));
            (text, json!({ "type": holds, "grid": grid_json(grid), "turned": is_turned }))
        }
    }
}

fn samples(grid: &Grid) -> String {
    format!(
        "{} vectors, {} um apart, from {}",
        times(grid.axes(&grid.shape)),
        times(grid.axes(&grid.spacing.map(short))),
        grid.axes(&grid.origin.map(short)).join(", ")
    )
}

fn step_facts(step: &Transform) -> (String, Value) {
    match step {
        Transform::Affine(map) => {
            let (text, value) = affine_facts(map);
            (format!("affine\n{text}"), json!({ "type": "affine", "affine": value }))
        }
        Transform::LocalAffines(maps) => {
            let counts = LocalAffines::counts(maps.domain.shape, maps.block);
            // z is left out for a planar domain
            let axes = usize::from(maps.domain.shape[0] == 1)..3;
            let text = format!(
                "local affines: {} blocks of {} voxels, overlap {}",
                times(&counts[axes.clone()]),
                times(&maps.block[axes.clone()]),
                times(&maps.overlap.map(short)[axes])
            );
            (
                text,
                json!({ "type": transform::LOCAL_AFFINES, "blocks": counts,
                "block": maps.block, "overlap": maps.overlap, "domain": grid_json(&maps.domain) }),
            )
        }
        Transform::Field(source) => {
            let grid = source.grid();
            let reach = source.reach().map_or(String::new(), |reach| {
                format!(", at most {} um long", reach.map(short).join(", "))
            });
            let text = format!("displacement field: {}{reach}", samples(&grid));
            (
                text,
                json!({ "type": "displacements", "grid": grid_json(&grid),
                "reach": source.reach() }),
            )
        }
    }
}

fn grid_json(grid: &Grid) -> Value {
    json!({ "shape": grid.axes(&grid.shape), "spacing": grid.axes(&grid.spacing),
            "origin": grid.axes(&grid.origin) })
}

/// Describes a matrix and its decomposition, as text and as JSON.
fn affine_facts(map: &Affine) -> (String, Value) {
    let rows: Vec<_> =
        map.rows().iter().map(|row| row.map(|v| format!("{v:>12.6}")).join(" ")).collect();
    let plane = PlaneParts::of(map);
    let parts = map.decompose();
    let angle = plane.as_ref().map_or(parts.angle, |plane| plane.angle).to_degrees();
    let scales = plane.as_ref().map_or(parts.scales.to_vec(), |plane| plane.scales.to_vec());
    let shear = plane.as_ref().map_or(parts.shear, |plane| plane.shear);
    let shift = if plane.is_some() { &map.offset()[1..] } else { &map.offset()[..] };
    let list = |values: &[f64]| values.iter().map(|v| short(*v)).collect::<Vec<_>>().join(", ");
    let still = if plane.is_some() { "in y and x, z as it is: " } else { "" };
    let mirrored = if parts.determinant < 0.0 { ", mirrored" } else { "" };
    let text = format!(
        "{}\n{still}shift {} um, turn {} degrees, stretches {}, shear {}, determinant {}{mirrored}",
        rows.join("\n"),
        list(shift),
        short(angle),
        list(&scales),
        short((shear * 1e9).round() / 1e9), // hide rounding errors
        short(parts.determinant),
    );
    let value = json!({ "rows": map.rows(), "shift": map.offset(), "angle_degrees": angle,
        "scales": scales, "shear": shear, "determinant": parts.determinant });
    (text, value)
}

/// The decomposition of a map that acts in the y-x plane only.
struct PlaneParts {
    angle: f64,
    scales: [f64; 2],
    shear: f64,
}

impl PlaneParts {
    /// The decomposition of `map`; `None` if the map changes z or depends on z, or if it is a pure
    /// translation.
    fn of(map: &Affine) -> Option<Self> {
        let [z, y, x] = map.linear();
        let in_plane = z == [1.0, 0.0, 0.0] && y[0] == 0.0 && x[0] == 0.0 && map.offset()[0] == 0.0;
        if !in_plane || (y == [0.0, 1.0, 0.0] && x == [0.0, 0.0, 1.0]) {
            return None;
        }
        // singular values of a 2x2 matrix (Blinn, "Consider the lowly 2x2 matrix", 1996)
        let turning = [x[1] - y[2], y[1] + x[2]];
        let mirroring = [x[1] + y[2], y[1] - x[2]];
        let halves = [turning, mirroring].map(|[a, b]| a.hypot(b) / 2.0);
        let scales = [halves[0] + halves[1], halves[0] - halves[1]];
        let shear = scales[0] / scales[1].abs() - 1.0;
        Some(Self { angle: turning[0].atan2(turning[1]).abs(), scales, shear })
    }
}
