//! The meaning of the vectors of a NIfTI file, which is determined by the intent, its name and its
//! first parameter, and is never guessed.

use crate::interchange::world::AnatomicalFrame;
use crate::quote::shorten;

const DISPLACEMENT: i32 = 1006;

/// The meaning of each vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::interchange) enum Meaning {
    /// The displacement of the sample, in this frame.
    Displacements(AnatomicalFrame),
    /// The position to which the sample is mapped, in this frame.
    Positions(AnatomicalFrame),
    /// The position of a control point of a cubic B-spline, RAS.
    ControlPoints,
}

/// Why the meaning cannot be determined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::interchange) enum Doubt {
    /// The meaning is not stated; the user can declare the vectors to be displacements.
    Unsaid(String),
    /// The vectors have a meaning that is not supported.
    Other(String),
}

/// The meaning of vectors with this intent, name of the intent and first parameter.
pub(super) fn of(intent: i32, name: &str, parameter: f64) -> Result<Meaning, Doubt> {
    match (intent, name) {
        (super::VECTOR, "NREG_TRANS") => niftyreg(parameter),
        // SPM: each vector is the position in millimetres from which the voxel is sampled
        (super::VECTOR, "Mapping") => Ok(Meaning::Positions(AnatomicalFrame::Ras)),
        (super::VECTOR, "") => Ok(Meaning::Displacements(AnatomicalFrame::Lps)),
        (DISPLACEMENT, "") => Ok(Meaning::Displacements(AnatomicalFrame::Ras)),
        (super::VECTOR | DISPLACEMENT, other) => Err(Doubt::Unsaid(format!(
            "has vectors that are named '{}', which is not known; if they are displacements, say with --frame \
             whether they are lps or ras",
            shorten(other)
        ))),
        (2006..=2009 | 2016..=2018, _) => Err(Doubt::Other(format!(
            "is a warp of FSL (intent {intent}), which counts in voxels of FSL's own; turn it into a field of \
             ITK, for example with wb_command -convert-warpfield -from-fnirt ... -to-itk"
        ))),
        _ => Err(Doubt::Unsaid(format!(
            "has the intent {intent}, wanted 1007 (vectors) or 1006 (displacements); if it is a displacement \
             field, say with --frame whether its vectors are lps or ras"
        ))),
    }
}

/// The meaning of a transform type of NiftyReg (`_reg_maths.h`, `NREG_TRANS_TYPE`); all are RAS.
fn niftyreg(kind: f64) -> Result<Meaning, Doubt> {
    let other = |what: &str| {
        Err(Doubt::Other(format!(
            "is {what} of NiftyReg, which is not read; turn it into displacements with reg_transform -disp"
        )))
    };
    if kind == 0.0 {
        Ok(Meaning::Positions(AnatomicalFrame::Ras))
    } else if kind == 1.0 {
        Ok(Meaning::Displacements(AnatomicalFrame::Ras))
    } else if kind == 2.0 {
        Ok(Meaning::ControlPoints)
    } else if kind == 3.0 || kind == 4.0 {
        other("a velocity field")
    } else if kind == 5.0 {
        other("a velocity grid of control points")
    } else if kind == 6.0 {
        other("a linear grid of control points")
    } else {
        other(&format!("a transform of the unknown kind {kind}"))
    }
}
