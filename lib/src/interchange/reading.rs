//! Reads a transform of any supported program: detects its format and interprets its conventions.

use std::path::Path;

use serde_json::{Value, json};

use super::bigwarp::{self, LandmarkModel};
use super::detect::{self, SourceFormat};
use super::map_steps::MapStep;
use super::read_error::ReadError;
use super::world::{AnatomicalFrame, Unit, World};
use super::{Error, dfield, elastix, itk, matrices, metaimage, nrrd};
use crate::geom::{Grid, Point};
use crate::transform::{self, AxisOrder, Direction, Step};

mod fields;

/// What the user specifies in addition to the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The format; `None` to detect it by content.
    pub from: Option<SourceFormat>,
    /// The axis order of BigStream's text matrices and arrays.
    pub axes: Option<AxisOrder>,
    /// Whether the transform maps moving points to fixed points and must be inverted.
    pub invert: bool,
    /// The unit of lengths in the file.
    pub unit: Option<Unit>,
    /// The frame of the positions and vectors in the file, LPS or RAS.
    pub frame: Option<AnatomicalFrame>,
    /// The model that is fitted to landmarks.
    pub fit: Option<LandmarkModel>,
    /// The name of the transformation or array to read, if the file contains several.
    pub name: Option<String>,
    /// Spacing of a field's samples, `[z, y, x]` micrometres; replaces the one stated in the file.
    pub spacing: Option<Point>,
    /// Position of a field's first sample, `[z, y, x]` micrometres; replaces the stated position.
    pub origin: Option<Point>,
    /// The grid on which the transform is sampled.
    pub onto: Option<Grid>,
    /// Whether the transform is only inspected; its interpretation is then not logged.
    pub is_summary: bool,
}

/// A transform that has been read, and how it was interpreted.
pub(super) struct Imported {
    pub(super) pieces: Vec<MapStep>,
    /// The interpretation, for the receipt.
    pub(super) taken_as: Value,
    /// Whether the transform was fitted to landmarks in a plane.
    pub(super) planar: bool,
}

/// The conventions by which a file was interpreted, for messages.
pub(super) struct Convention {
    pub(super) format: &'static str,
    pub(super) axes: &'static str,
    pub(super) frame: Option<AnatomicalFrame>,
    pub(super) micrometres: f64,
    /// Whether the file itself states its unit.
    pub(super) unit_is_stated: bool,
    pub(super) more: String,
}

/// Reads the transform at `location`.
pub(super) fn read(location: &str, reading: &Reading) -> Result<Imported, Error> {
    let unfit = |error: ReadError| error.of(location);
    let source = match reading.from {
        Some(source) => source,
        None => detect::source_of(location)?,
    };
    check(source, reading).map_err(|message| unfit(message.into()))?;
    if matches!(source, SourceFormat::Json | SourceFormat::Field | SourceFormat::Bigstream) {
        return read_native(location, source, reading);
    }
    let (mut pieces, convention) = match source {
        SourceFormat::Nifti => fields::read_nifti(location, reading).map_err(unfit)?,
        SourceFormat::Nrrd => nrrd::read(Path::new(location))
            .and_then(|head| fields::read_flat(location, "NRRD", &head, reading))
            .map_err(unfit)?,
        SourceFormat::Metaimage => metaimage::read(Path::new(location))
            .and_then(|head| fields::read_flat(location, "MetaImage", &head, reading))
            .map_err(unfit)?,
        SourceFormat::BigwarpField => dfield::read(location, reading).map_err(unfit)?,
        SourceFormat::Ngff => fields::read_ngff(location, reading).map_err(unfit)?,
        SourceFormat::BigstreamDisplacements | SourceFormat::BigstreamPositions => {
            fields::read_array(location, source, reading).map_err(unfit)?
        }
        _ => read_matrices(location, source, reading)?,
    };
    // the readers of BigWarp landmarks and OME-NGFF have inverted the map already
    if reading.invert && !matches!(source, SourceFormat::Bigwarp | SourceFormat::Ngff) {
        pieces = inverse(pieces).map_err(unfit)?;
    }
    let planar = source == SourceFormat::Bigwarp && convention.axes == "x,y";
    let turns = !pieces.iter().any(|piece| matches!(piece, MapStep::ForeignField(_)));
    let taken_as = record_convention(location, &convention, reading, turns);
    if source == SourceFormat::Greedy && reading.from.is_none() && !reading.is_summary {
        tracing::info!("{location}: --from bigstream if BigStream wrote it");
    }
    Ok(Imported { pieces, taken_as, planar })
}

/// Refuses options that do not apply to the format.
fn check(source: SourceFormat, reading: &Reading) -> Result<(), String> {
    use SourceFormat::{
        Ants, Bigstream, BigstreamDisplacements, BigstreamPositions, Bigwarp, BigwarpField,
        Elastix, Field, Greedy, Itk, Json, Metaimage, Ngff, Nifti, Nrrd,
    };
    let arrays = matches!(source, BigstreamDisplacements | BigstreamPositions);
    let placed = arrays || source == BigwarpField;
    let framed = matches!(source, Itk | Ants | Greedy | Elastix | Nifti | Nrrd | Metaimage);
    let given = [
        (
            reading.axes.is_some(),
            arrays || source == Bigstream,
            "says its own axes; leave --from-axes out",
        ),
        (reading.frame.is_some(), framed, "has no LPS or RAS; leave --frame out"),
        (
            reading.unit.is_some(),
            !matches!(source, Json | Field),
            "says its own unit; leave --unit out",
        ),
        (reading.fit.is_some(), source == Bigwarp, "holds no landmarks; leave --model out"),
        (
            reading.name.is_some(),
            matches!(source, Ngff | BigwarpField),
            "holds one transform; leave --name out",
        ),
        (
            reading.spacing.is_some() || reading.origin.is_some(),
            placed,
            "says where its numbers belong; leave --spacing and --origin out",
        ),
    ];
    match given.iter().find(|(given, fits, _)| *given && !*fits) {
        Some((_, _, message)) => Err((*message).to_owned()),
        None => Ok(()),
    }
}

/// Logs assumptions as warnings.
pub(super) fn warn(location: &str, notes: &[String]) {
    for note in notes {
        tracing::warn!("{location}: {note}");
    }
}

/// Logs how the file was interpreted, and returns the interpretation for the receipt. `turns` says
/// whether the transform can be read with `--invert`.
fn record_convention(
    location: &str,
    convention: &Convention,
    reading: &Reading,
    turns: bool,
) -> Value {
    let Convention { format, axes, frame, micrometres, unit_is_stated, more } = convention;
    let unit = [Unit::Nm, Unit::Um, Unit::Mm]
        .into_iter()
        .find(|unit| unit.micrometres() == *micrometres)
        .map_or_else(|| format!("units of {micrometres} um"), |unit| unit.name().to_owned());
    let direction = if reading.invert { "moving-to-fixed" } else { "fixed-to-moving" };
    let framed = frame.map_or_else(String::new, |frame| format!(", {}", frame.name()));
    let mut flags = Vec::new();
    for (flag, free) in [
        ("--invert", turns && !reading.invert),
        ("--frame", frame.is_some() && reading.frame.is_none()),
        ("--unit", !unit_is_stated && reading.unit.is_none()),
    ] {
        if free {
            flags.push(flag);
        }
    }
    let cure = match flags.split_last() {
        None => String::new(),
        Some((one, [])) => format!(" ({one} says otherwise)"),
        Some((last, rest)) => format!(" ({} and {last} say otherwise)", rest.join(", ")),
    };
    if !reading.is_summary {
        tracing::info!(
            "{location}: read as {format}: {direction}, {axes}{framed}, {unit}{more}{cure}"
        );
    }
    json!({
        "format": format,
        "direction": direction,
        "axes": axes,
        "frame": frame.map(AnatomicalFrame::name),
        "unit": unit,
        "remark": more.trim_start_matches([',', ';', ' ']),
    })
}

/// The inverse of each map, in reverse order.
fn inverse(pieces: Vec<MapStep>) -> Result<Vec<MapStep>, ReadError> {
    pieces
        .into_iter()
        .rev()
        .map(|piece| match piece {
            MapStep::Affine(map) => Ok(MapStep::Affine(map.inverse().map_err(|e| e.to_string())?)),
            _ => Err("is or holds a field, and only matrices can be turned round here; invmap makes the \
                      inverse of a field"
                .into()),
        })
        .collect()
}

fn world(reading: &Reading, frame: AnatomicalFrame, unit: Unit) -> World {
    World {
        frame: reading.frame.unwrap_or(frame),
        micrometres: reading.unit.unwrap_or(unit).micrometres(),
    }
}

pub(super) type Read = (Vec<MapStep>, Convention);

/// Reads the matrix, spline and landmark files of ITK, ANTs, greedy, elastix and BigWarp.
fn read_matrices(location: &str, source: SourceFormat, reading: &Reading) -> Result<Read, Error> {
    let path = Path::new(location);
    let refused = |error| Error::Io { action: "read", path: location.to_owned(), source: error };
    let text = || -> Result<String, Error> {
        let bytes = crate::store::document::read(path).map_err(refused)?;
        Ok(String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').to_owned())
    };
    let (frame, unit) = match source {
        SourceFormat::Greedy => (AnatomicalFrame::Ras, Unit::Mm),
        SourceFormat::Bigwarp => (AnatomicalFrame::Lps, Unit::Um),
        _ => (AnatomicalFrame::Lps, Unit::Mm),
    };
    let world = world(reading, frame, unit);
    let convention = |format| Convention {
        format,
        axes: "x,y,z",
        frame: Some(world.frame),
        micrometres: world.micrometres,
        unit_is_stated: false,
        more: String::new(),
    };
    let read = match source {
        SourceFormat::Itk => itk::read_file(path, world).map(|pieces| (pieces, convention("ITK"))),
        SourceFormat::Ants => {
            itk::read_file(path, world).map(|pieces| (pieces, convention("ITK or ANTs")))
        }
        SourceFormat::Greedy => matrices::read_greedy(&text()?, world)
            .map(|map| (vec![MapStep::Affine(map)], convention("greedy")))
            .map_err(ReadError::from),
        SourceFormat::Elastix => {
            elastix::read(path, world).map(|pieces| (pieces, convention("elastix")))
        }
        _ => {
            let fit = reading.fit.unwrap_or_default();
            let landmarks = bigwarp::read(&text()?, world, fit, reading.invert);
            landmarks.map_err(ReadError::from).map(|landmarks| {
                let convention = Convention {
                    axes: if landmarks.axes == 2 { "x,y" } else { "x,y,z" },
                    frame: None,
                    more: format!(", the {} of {} landmarks", fit.name(), landmarks.count),
                    ..convention("BigWarp")
                };
                (vec![landmarks.piece], convention)
            })
        }
    };
    read.map_err(|error| error.of(location))
}

/// Reads native files and BigStream's text matrices.
fn read_native(location: &str, source: SourceFormat, reading: &Reading) -> Result<Imported, Error> {
    let direction =
        if reading.invert { Direction::MovingToFixed } else { Direction::FixedToMoving };
    let unfit = |message: &str| ReadError::from(message).of(location);
    let own = json!({ "format": "voxloom", "direction": if reading.invert { "moving-to-fixed" } else { "fixed-to-moving" } });
    let imported = |pieces, taken_as| Imported { pieces, taken_as, planar: false };
    let path = Path::new(location);
    let arrays = |steps: Vec<Step>| -> Result<Vec<MapStep>, Error> {
        transform::open_steps(location, &steps, Direction::FixedToMoving)?;
        Ok(steps.into_iter().map(native_step).collect())
    };
    Ok(match source {
        SourceFormat::Json => imported(arrays(transform::read_document(path, direction)?)?, own),
        SourceFormat::Bigstream => {
            let order = reading.axes.unwrap_or_default();
            let map = transform::read_matrix_text(path, order)?;
            let um = reading.unit.map_or(1.0, Unit::micrometres);
            let shift = map.offset().map(|v| v * um);
            let map = crate::geom::Affine::from_parts(map.linear(), shift);
            let convention = Convention {
                format: "BigStream's text",
                axes: if order == AxisOrder::Zyx { "z,y,x" } else { "x,y,z" },
                frame: None,
                micrometres: um,
                unit_is_stated: false,
                more: String::new(),
            };
            let map = if reading.invert {
                map.inverse().map_err(|e| unfit(&e.to_string()))?
            } else {
                map
            };
            let taken_as = record_convention(location, &convention, reading, true);
            if reading.axes.is_none() {
                tracing::info!(
                    "{location}: --from-axes xyz if BigStream of 2021 wrote it, --from greedy if \
                                greedy did"
                );
            }
            imported(vec![MapStep::Affine(map)], taken_as)
        }
        _ if reading.invert => {
            return Err(unfit(
                "is an array, and only matrices can be turned round here; invmap makes the \
                              inverse of a field",
            ));
        }
        _ => imported(arrays(transform::read_steps(location, direction)?)?, own),
    })
}

fn native_step(step: Step) -> MapStep {
    match step {
        Step::Affine(map) => MapStep::Affine(map),
        other => MapStep::Native(other),
    }
}
