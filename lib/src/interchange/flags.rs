//! The flags that control how a transform of another program is interpreted, for programs to
//! flatten into their own. The struct has no doc comment because clap would use it as the program's
//! description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{AnatomicalFrame, LandmarkModel, Reading, SourceFormat, Unit, parse_axes};
use crate::geom::Grid;
use crate::transform::AxisOrder;
use crate::volume::Select;

#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Transforms of other programs")]
pub struct Flags {
    /// Format of the transform [default: detected from the content]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub from: Option<SourceFormat>,
    /// Axis order of BigStream's matrices and arrays: zyx or xyz [default: zyx; positions xyz]
    #[arg(long, value_name = "AXES", value_parser = parse_axes)]
    pub from_axes: Option<AxisOrder>,
    /// The transform maps moving points to fixed ones: write its inverse
    #[arg(long)]
    pub invert: bool,
    /// Unit of lengths in the transform [default: as stated in the file; else um for BigStream and
    /// BigWarp, mm for others]
    #[arg(long, value_enum)]
    pub unit: Option<Unit>,
    /// Directions of the x and y axes, in NIfTI and NRRD those of the vectors [default: as stated
    /// in the file; else RAS for greedy, LPS for others]
    #[arg(long, value_enum)]
    pub frame: Option<AnatomicalFrame>,
    /// Map that is fitted to BigWarp's landmarks [default: tps]
    #[arg(long = "model", value_enum)]
    pub model: Option<LandmarkModel>,
    /// Name of the OME-NGFF transformation to read, if there are several
    #[arg(long)]
    pub name: Option<String>,
    /// Unit of lengths in the output [default: mm, and um for BigStream and BigWarp]
    #[arg(long, value_enum)]
    pub to_unit: Option<Unit>,
}

impl Flags {
    /// The options for reading: these flags, the spacing and origin of `select`, and `onto`.
    pub fn reading(&self, select: &Select, onto: Option<Grid>) -> Reading {
        Reading {
            from: self.from,
            axes: self.from_axes,
            invert: self.invert,
            unit: self.unit,
            frame: self.frame,
            fit: self.model,
            name: self.name.clone(),
            spacing: select.spacing,
            origin: select.origin,
            onto,
            is_summary: false,
        }
    }
}
