//! Reading a transform of any program: which format it is, and what it is taken to mean.

use std::path::Path;

use serde_json::{Value, json};

use super::bigwarp::{self, Fit};
use super::detect::{self, Source};
use super::pieces::{Foreign, Holds, Payload, Piece};
use super::world::{Frame, Unit, World};
use super::{Error, elastix, itk, matrices, ngff, nifti, nrrd};
use crate::geom::{Grid, Point};
use crate::transform::{self, Axes, Direction, Kind, Step};
use crate::volume::{FlatVectors, VectorArray};

/// What a user says beside the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The format, where the content does not tell.
    pub from: Option<Source>,
    /// The order of axes of BigStream's text and arrays.
    pub axes: Option<Axes>,
    /// The transform takes moving points to fixed ones.
    pub invert: bool,
    /// The unit of its lengths.
    pub unit: Option<Unit>,
    /// The frame of its numbers.
    pub frame: Option<Frame>,
    /// What is fitted to landmarks.
    pub fit: Option<Fit>,
    /// Which of several transformations.
    pub name: Option<String>,
    /// The spacing and the first sample of a field that does not say them.
    pub spacing: Option<Point>,
    /// The same.
    pub origin: Option<Point>,
    /// The grid on which a map is sampled.
    pub onto: Option<Grid>,
}

/// What was read, and how it was taken.
pub(super) struct Imported {
    pub(super) pieces: Vec<Piece>,
    /// For the receipt.
    pub(super) taken_as: Value,
    /// Whether points lie in a plane.
    pub(super) planar: bool,
}

/// The convention of a format, as it is told.
struct Convention {
    format: &'static str,
    axes: &'static str,
    frame: Option<Frame>,
    micrometres: f64,
    /// Whether the file itself said its unit.
    unit_is_said: bool,
    more: String,
}

/// Reads what is at `location`.
pub(super) fn read(location: &str, reading: &Reading) -> Result<Imported, Error> {
    let unfit = |message: String| Error::Unfit { location: location.to_owned(), message };
    let source = match reading.from {
        Some(source) => source,
        None => detect::source_of(location)?,
    };
    check(source, reading).map_err(unfit)?;
    if matches!(source, Source::Json | Source::Field | Source::Bigstream) {
        return ours(location, source, reading);
    }
    let (mut pieces, convention) = match source {
        Source::Nifti => read_nifti(location, reading).map_err(unfit)?,
        Source::Nrrd => read_nrrd(location, reading).map_err(unfit)?,
        Source::Ngff => read_ngff(location, reading).map_err(unfit)?,
        Source::BigstreamDisplacements | Source::BigstreamPositions => {
            read_array(location, source, reading).map_err(unfit)?
        }
        _ => read_matrices(location, source, reading)?,
    };
    // these know themselves what the other way is
    if reading.invert && !matches!(source, Source::Bigwarp | Source::Ngff) {
        pieces = inverse(pieces).map_err(unfit)?;
    }
    let planar = source == Source::Bigwarp && convention.axes == "x,y";
    let turns = !pieces.iter().any(|piece| matches!(piece, Piece::Foreign(_)));
    let taken_as = tell(location, &convention, reading, turns);
    Ok(Imported { pieces, taken_as, planar })
}

/// Refuses what is said beside a format that has no such thing.
fn check(source: Source, reading: &Reading) -> Result<(), String> {
    use Source::{
        Ants, Bigstream, BigstreamDisplacements, BigstreamPositions, Bigwarp, Elastix, Field,
        Greedy, Itk, Json, Ngff, Nifti, Nrrd,
    };
    let arrays = matches!(source, BigstreamDisplacements | BigstreamPositions);
    let framed = matches!(source, Itk | Ants | Greedy | Elastix | Nifti | Nrrd);
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
        (reading.name.is_some(), source == Ngff, "holds one transform; leave --name out"),
        (
            reading.spacing.is_some() || reading.origin.is_some(),
            arrays,
            "says where its numbers belong; leave --spacing and --origin out",
        ),
    ];
    match given.iter().find(|(given, fits, _)| *given && !*fits) {
        Some((_, _, message)) => Err((*message).to_owned()),
        None => Ok(()),
    }
}

/// Says how it was read, for people and for the receipt; `turns` if --invert can turn it round.
fn tell(location: &str, convention: &Convention, reading: &Reading, turns: bool) -> Value {
    let Convention { format, axes, frame, micrometres, unit_is_said, more } = convention;
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
        ("--unit", !unit_is_said && reading.unit.is_none()),
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
    tracing::info!("{location}: read as {format}: {direction}, {axes}{framed}, {unit}{more}{cure}");
    json!({
        "format": format,
        "direction": direction,
        "axes": axes,
        "frame": frame.map(Frame::name),
        "unit": unit,
        "remark": more.trim_start_matches([',', ';', ' ']),
    })
}

/// Each map turned round, last first.
fn inverse(pieces: Vec<Piece>) -> Result<Vec<Piece>, String> {
    pieces
        .into_iter()
        .rev()
        .map(|piece| match piece {
            Piece::Affine(map) => Ok(Piece::Affine(map.inverse().map_err(|e| e.to_string())?)),
            _ => Err("is or holds a field, and only matrices can be turned round here; invmap makes the \
                      inverse of a field"
                .to_owned()),
        })
        .collect()
}

fn world(reading: &Reading, frame: Frame, unit: Unit) -> World {
    World {
        frame: reading.frame.unwrap_or(frame),
        micrometres: reading.unit.unwrap_or(unit).micrometres(),
    }
}

type Read = (Vec<Piece>, Convention);

/// Text and MATLAB files.
fn read_matrices(location: &str, source: Source, reading: &Reading) -> Result<Read, Error> {
    let path = Path::new(location);
    let refused = |error| Error::Io { action: "read", path: location.to_owned(), source: error };
    let bytes = crate::files::read(path).map_err(refused)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_start_matches('\u{feff}');
    let (frame, unit) = match source {
        Source::Greedy => (Frame::Ras, Unit::Mm),
        Source::Bigwarp => (Frame::Lps, Unit::Um),
        _ => (Frame::Lps, Unit::Mm),
    };
    let world = world(reading, frame, unit);
    let convention = |format| Convention {
        format,
        axes: "x,y,z",
        frame: Some(world.frame),
        micrometres: world.micrometres,
        unit_is_said: false,
        more: String::new(),
    };
    let read = match source {
        Source::Itk => itk::read_text(text, world).map(|pieces| (pieces, convention("ITK"))),
        Source::Ants => {
            itk::read_matlab(&bytes, world).map(|pieces| (pieces, convention("ITK or ANTs")))
        }
        Source::Greedy => matrices::read_greedy(text, world)
            .map(|map| (vec![Piece::Affine(map)], convention("greedy"))),
        Source::Elastix => elastix::read(path, world).map(|pieces| (pieces, convention("elastix"))),
        _ => {
            let fit = reading.fit.unwrap_or_default();
            bigwarp::read(text, world, fit, reading.invert).map(|landmarks| {
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
    read.map_err(|message| Error::Unfit { location: location.to_owned(), message })
}

fn read_nifti(location: &str, reading: &Reading) -> Result<Read, String> {
    let path = Path::new(location);
    let head = nifti::read(path)?;
    let vectors = reading.frame.or(head.vectors).ok_or_else(|| {
        format!(
            "has the intent {}, wanted 1007 (vectors) or 1006 (displacements); if it is a displacement field, \
             say with --frame whether its vectors are lps or ras",
            head.intent
        )
    })?;
    let said = head.micrometres.filter(|_| reading.unit.is_none());
    let micrometres = said.unwrap_or_else(|| reading.unit.unwrap_or(Unit::Mm).micrometres());
    let flat = FlatVectors {
        location: location.to_owned(),
        path: path.to_owned(),
        offset: head.offset,
        dtype: head.dtype,
        order: head.order,
        shape: head.placement.shape,
        components: head.components,
        planar: true,
    };
    let payload = if head.gzip {
        Payload::Gzip { file: path.to_owned(), from: 0, flat }
    } else {
        Payload::Flat(flat)
    };
    let positions = World { frame: Frame::Ras, micrometres };
    let vectors = World { frame: vectors, micrometres };
    let mut field =
        Foreign::new(&head.placement, positions, vectors, Holds::Displacements, payload)?;
    field.scale(head.slope);
    let convention = field_convention("NIfTI", vectors, said.is_some(), &field);
    Ok((vec![Piece::Foreign(Box::new(field))], convention))
}

fn read_nrrd(location: &str, reading: &Reading) -> Result<Read, String> {
    let head = nrrd::read(Path::new(location))?;
    let said = head.micrometres.filter(|_| reading.unit.is_none());
    let micrometres = said.unwrap_or_else(|| reading.unit.unwrap_or(Unit::Mm).micrometres());
    // ITK turns positions of other spaces to LPS and leaves vectors alone
    let vectors = World { frame: reading.frame.unwrap_or(Frame::Lps), micrometres };
    let flat = FlatVectors {
        location: location.to_owned(),
        path: head.file.clone(),
        offset: if head.gzip { 0 } else { head.offset },
        dtype: head.dtype,
        order: head.order,
        shape: head.placement.shape,
        components: head.components,
        planar: head.planar,
    };
    let payload = if head.gzip {
        Payload::Gzip { file: head.file.clone(), from: head.offset, flat }
    } else {
        Payload::Flat(flat)
    };
    let positions = World { frame: head.frame, micrometres };
    let field = Foreign::new(&head.placement, positions, vectors, Holds::Displacements, payload)?;
    let convention = field_convention("NRRD", vectors, said.is_some(), &field);
    Ok((vec![Piece::Foreign(Box::new(field))], convention))
}

fn field_convention(
    format: &'static str,
    vectors: World,
    unit_is_said: bool,
    field: &Foreign,
) -> Convention {
    let turned =
        if field.is_straight() { "" } else { ", its axes turned by a matrix before and after" };
    Convention {
        format,
        axes: "x,y,z",
        frame: Some(vectors.frame),
        micrometres: vectors.micrometres,
        unit_is_said,
        more: format!(", displacements{turned}"),
    }
}

fn read_ngff(location: &str, reading: &Reading) -> Result<Read, String> {
    let found = ngff::read(
        location,
        &ngff::Request {
            name: reading.name.as_deref(),
            micrometres: reading.unit.map(Unit::micrometres),
            invert: reading.invert,
        },
    )?;
    let (fixed, moving) =
        if reading.invert { (&found.output, &found.input) } else { (&found.input, &found.output) };
    let convention = Convention {
        format: "OME-NGFF",
        axes: if found.axes.len() < 5 { "the axes named" } else { "z,y,x by name" },
        frame: None,
        micrometres: found.micrometres,
        unit_is_said: true,
        more: format!(", '{fixed}' is fixed and '{moving}' moving"),
    };
    Ok((found.pieces, convention))
}

fn read_array(location: &str, source: Source, reading: &Reading) -> Result<Read, String> {
    let holds =
        if source == Source::BigstreamPositions { Holds::Positions } else { Holds::Displacements };
    // 2021's are x,y,z
    let usual = if holds == Holds::Positions { Axes::Xyz } else { Axes::Zyx };
    let axes = reading.axes.unwrap_or(usual);
    let array = VectorArray::open(location, None, axes == Axes::Xyz).map_err(|e| {
        let said = e.to_string();
        said.strip_prefix(&format!("{location}: ")).unwrap_or(&said).to_owned()
    })?;
    let (known, first) = array.calibration();
    let spacing = reading.spacing.or(known).ok_or(
        "does not say how far apart its vectors are; give --spacing z,y,x (the image's spacing times its \
         shape over the field's)",
    )?;
    let origin = reading.origin.or(first).unwrap_or_default();
    let um = reading.unit.map_or(1.0, Unit::micrometres);
    let planar = array.components() == 2;
    let mut turn = [[0.0; 3]; 3];
    for a in 0..3usize {
        let place = match (axes, planar) {
            (Axes::Xyz, _) => Some(2 - a),
            (Axes::Zyx, false) => Some(a),
            (Axes::Zyx, true) => a.checked_sub(1),
        };
        if let Some(c) = place {
            turn[a][c] = um;
        }
    }
    if planar && holds == Holds::Positions {
        return Err("holds positions in a plane, which are not read".to_owned());
    }
    let grid = Grid::new(array.shape(), spacing, origin);
    let field = Foreign::on_grid(grid, turn, holds, Payload::Array(array))?;
    let what = if holds == Holds::Positions { "positions" } else { "displacements" };
    let convention = Convention {
        format: "BigStream",
        axes: if axes == Axes::Xyz { "x,y,z" } else { "z,y,x" },
        frame: None,
        micrometres: um,
        unit_is_said: false,
        more: format!(", {what} {spacing:?} um apart along z,y,x from {origin:?}"),
    };
    Ok((vec![Piece::Foreign(Box::new(field))], convention))
}

/// Our own files, and text that looks like them.
fn ours(location: &str, source: Source, reading: &Reading) -> Result<Imported, Error> {
    let direction =
        if reading.invert { Direction::MovingToFixed } else { Direction::FixedToMoving };
    let unfit =
        |message: &str| Error::Unfit { location: location.to_owned(), message: message.to_owned() };
    let own = json!({ "format": "voxloom", "direction": if reading.invert { "moving-to-fixed" } else { "fixed-to-moving" } });
    let imported = |pieces, taken_as| Imported { pieces, taken_as, planar: false };
    let path = Path::new(location);
    Ok(match (source, transform::kind_of(location)?) {
        (Source::Json, _) => {
            let steps = transform::read_document(path, direction)?;
            imported(steps.into_iter().map(own_piece).collect(), own)
        }
        (Source::Bigstream, _) => {
            let order = reading.axes.unwrap_or_default();
            let map = transform::read_matrix_text(path, order)?;
            let um = reading.unit.map_or(1.0, Unit::micrometres);
            let shift = map.offset().map(|v| v * um);
            let map = crate::geom::Affine::from_parts(map.linear(), shift);
            let convention = Convention {
                format: "BigStream's text",
                axes: if order == Axes::Zyx { "z,y,x" } else { "x,y,z" },
                frame: None,
                micrometres: um,
                unit_is_said: false,
                more: String::new(),
            };
            let map = if reading.invert {
                map.inverse().map_err(|e| unfit(&e.to_string()))?
            } else {
                map
            };
            let taken_as = tell(location, &convention, reading, true);
            if reading.axes.is_none() {
                tracing::info!(
                    "{location}: --from-axes xyz if BigStream of 2021 wrote it, --from greedy if \
                                greedy did"
                );
            }
            imported(vec![Piece::Affine(map)], taken_as)
        }
        _ if reading.invert => {
            return Err(unfit(
                "is an array, and only matrices can be turned round here; invmap makes the \
                              inverse of a field",
            ));
        }
        (_, Kind::LocalAffines) => {
            imported(vec![Piece::Ours(Step::LocalAffines(location.to_owned()))], own)
        }
        _ => imported(vec![Piece::Ours(Step::Field(location.to_owned()))], own),
    })
}

fn own_piece(step: Step) -> Piece {
    match step {
        Step::Affine(map) => Piece::Affine(map),
        other => Piece::Ours(other),
    }
}
