//! Reads displacement fields of other programs: files with a header, and arrays.

use std::path::Path;

use super::{Convention, Read, Reading, warn};
use crate::geom::Grid;
use crate::interchange::detect::SourceFormat;
use crate::interchange::flat::FlatHeader;
use crate::interchange::map_steps::{ForeignField, MapStep, Payload, VectorMeaning};
use crate::interchange::nifti::{self, Doubt, Meaning};
use crate::interchange::read_error::ReadError;
use crate::interchange::unpack::Packing;
use crate::interchange::world::{AnatomicalFrame, Unit, World};
use crate::interchange::{control, ngff};
use crate::quote::shorten;
use crate::transform::AxisOrder;
use crate::volume::{FlatVectors, VectorArray};

/// The meaning of a NIfTI file's vectors, as stated by its header and by the user.
fn meaning(head: &nifti::NiftiHeader, frame: Option<AnatomicalFrame>) -> Result<Meaning, String> {
    match (head.meaning.clone(), frame) {
        (Ok(Meaning::ControlPoints), Some(_)) => {
            Err("is a grid of control points of NiftyReg, which are RAS; leave --frame out"
                .to_owned())
        }
        (Ok(Meaning::Positions(_)), Some(frame)) => Ok(Meaning::Positions(frame)),
        (Ok(Meaning::Displacements(_)) | Err(Doubt::Unsaid(_)), Some(frame)) => {
            Ok(Meaning::Displacements(frame))
        }
        (Ok(meaning), None) => Ok(meaning),
        (Err(Doubt::Unsaid(message) | Doubt::Other(message)), _) => Err(message),
    }
}

pub(super) fn read_nifti(location: &str, reading: &Reading) -> Result<Read, ReadError> {
    let path = Path::new(location);
    let head = nifti::read(path)?;
    let meaning = meaning(&head, reading.frame)?;
    warn(location, &head.notes);
    let stated = head.micrometres.filter(|_| reading.unit.is_none());
    let micrometres = stated.unwrap_or_else(|| reading.unit.unwrap_or(Unit::Mm).micrometres());
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
        Payload::Packed { file: path.to_owned(), from: 0, packing: Packing::Gzip, flat }
    } else {
        Payload::Flat(flat)
    };
    let positions = World { frame: AnatomicalFrame::Ras, micrometres };
    let (frame, holds) = match meaning {
        Meaning::Displacements(frame) => (frame, VectorMeaning::Displacements),
        Meaning::Positions(frame) => (frame, VectorMeaning::Positions),
        Meaning::ControlPoints => {
            if head.slope != 1.0 || head.extended {
                return Err("is a grid of control points of NiftyReg with matrices in its header, which are not \
                            read; turn it into displacements with reg_transform -disp"
                    .into());
            }
            let spline = control::spline(&head.placement, positions, head.components, &payload)?;
            let convention = Convention {
                format: "control points of NiftyReg",
                axes: "x,y,z",
                frame: Some(AnatomicalFrame::Ras),
                micrometres,
                unit_is_stated: stated.is_some(),
                more: ", a cubic B-spline of positions".to_owned(),
            };
            return Ok((vec![MapStep::Smooth(std::sync::Arc::new(spline))], convention));
        }
    };
    if holds == VectorMeaning::Positions && head.components == 2 {
        return Err("holds positions in a plane, which are not read".into());
    }
    let vectors = World { frame, micrometres };
    let mut field = ForeignField::new(&head.placement, positions, vectors, holds, payload)?;
    field.scale(head.slope);
    let convention = convention("NIfTI", vectors, stated.is_some(), &field);
    Ok((vec![MapStep::ForeignField(Box::new(field))], convention))
}

/// Reads a field in NRRD or MetaImage.
pub(super) fn read_flat(
    location: &str,
    format: &'static str,
    head: &FlatHeader,
    reading: &Reading,
) -> Result<Read, ReadError> {
    warn(location, &head.notes);
    let stated = if reading.unit.is_none() { head.micrometres.clone()? } else { None };
    let micrometres = stated.unwrap_or_else(|| reading.unit.unwrap_or(Unit::Mm).micrometres());
    // ITK converts positions of other spaces to LPS but leaves vectors as they are
    let vectors = World { frame: reading.frame.unwrap_or(AnatomicalFrame::Lps), micrometres };
    let positions = World { frame: head.frame, micrometres };
    let payload = head.payload(location);
    let field = ForeignField::new(
        &head.placement,
        positions,
        vectors,
        VectorMeaning::Displacements,
        payload,
    )?;
    let convention = convention(format, vectors, stated.is_some(), &field);
    Ok((vec![MapStep::ForeignField(Box::new(field))], convention))
}

fn convention(
    format: &'static str,
    vectors: World,
    unit_is_stated: bool,
    field: &ForeignField,
) -> Convention {
    let turned =
        if field.is_straight() { "" } else { ", its axes turned by a matrix before and after" };
    Convention {
        format,
        axes: "x,y,z",
        frame: Some(vectors.frame),
        micrometres: vectors.micrometres,
        unit_is_stated,
        more: format!(", {}{turned}", field.holds().name()),
    }
}

pub(super) fn read_ngff(location: &str, reading: &Reading) -> Result<Read, ReadError> {
    let found = ngff::read(
        location,
        &ngff::NgffRequest {
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
        unit_is_stated: true,
        more: format!(", '{}' is fixed and '{}' moving", shorten(fixed), shorten(moving)),
    };
    Ok((found.pieces, convention))
}

pub(super) fn read_array(
    location: &str,
    source: SourceFormat,
    reading: &Reading,
) -> Result<Read, ReadError> {
    let holds = if source == SourceFormat::BigstreamPositions {
        VectorMeaning::Positions
    } else {
        VectorMeaning::Displacements
    };
    // positions of BigStream of 2021 are x, y, z
    let usual = if holds == VectorMeaning::Positions { AxisOrder::Xyz } else { AxisOrder::Zyx };
    let axes = reading.axes.unwrap_or(usual);
    let array = VectorArray::open(location, None, axes == AxisOrder::Xyz)
        .map_err(|e| ReadError::volume(location, e))?;
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
            (AxisOrder::Xyz, _) => Some(2 - a),
            (AxisOrder::Zyx, false) => Some(a),
            (AxisOrder::Zyx, true) => a.checked_sub(1),
        };
        if let Some(c) = place {
            turn[a][c] = um;
        }
    }
    if planar && holds == VectorMeaning::Positions {
        return Err("holds positions in a plane, which are not read".into());
    }
    let grid = Grid::new(array.shape(), spacing, origin);
    let field = ForeignField::on_grid(grid, turn, holds, Payload::Array(array))?;
    let what = if holds == VectorMeaning::Positions { "positions" } else { "displacements" };
    let convention = Convention {
        format: "BigStream",
        axes: if axes == AxisOrder::Xyz { "x,y,z" } else { "z,y,x" },
        frame: None,
        micrometres: um,
        unit_is_stated: false,
        more: format!(", {what} {spacing:?} um apart along z,y,x from {origin:?}"),
    };
    Ok((vec![MapStep::ForeignField(Box::new(field))], convention))
}
