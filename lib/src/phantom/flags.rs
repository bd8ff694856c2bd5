//! The command-line flags of test sets, which programs flatten into their own. The struct has no doc
//! comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{Rounds, Sections, parse_shape};
use crate::blocks::Error;
use crate::geom::Point;

/// The default shapes and voxel sizes of rounds and of sections.
const SHAPES: [[usize; 3]; 2] = [[256; 3], [20, 512, 512]];
const SPACINGS: [Point; 2] = [[1.0, 0.8, 0.8], [0.05, 0.01, 0.01]];

#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Size of the fixed volume, or number and size of the sections, in voxels: one number or
    /// three [default: 256; sections: 20,512,512]
    #[arg(long, value_name = "N|Z,Y,X", value_parser = parse_shape)]
    pub size: Option<[usize; 3]>,
    /// Maximum displacement of the smooth deformation, voxels
    #[arg(long, value_name = "VOXELS", default_value_t = 8.0)]
    pub max_displacement: f64,
    /// Shortest wavelength of the deformation, voxels
    #[arg(long, value_name = "VOXELS", default_value_t = 256.0)]
    pub wavelength: f64,
    /// Noise level; 1 is that of a good camera
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub noise: f64,
    /// sections: maximum shift of a section along each axis, pixels [default: 20]
    #[arg(long, value_name = "PIXELS")]
    pub max_shift: Option<f64>,
    /// sections: maximum rotation of a section [default: 1]
    #[arg(long, value_name = "DEGREES")]
    pub max_rotation: Option<f64>,
    /// sections: how many are flawed; at 1, a twentieth is broken, a twentieth blank, a fortieth
    /// imaged twice and a fortieth missing, and some have folds and tears [default: 1]
    #[arg(long, value_name = "X")]
    pub defects: Option<f64>,
}

impl Flags {
    /// The parameters of rounds.
    pub fn rounds(&self, spacing: Option<Point>) -> Rounds {
        Rounds {
            shape: self.size.unwrap_or(SHAPES[0]),
            spacing: spacing.unwrap_or(SPACINGS[0]),
            max_displacement: self.max_displacement,
            wavelength: self.wavelength,
            noise: self.noise,
        }
    }

    /// Refuses the flags that are for sections alone.
    ///
    /// # Errors
    /// [`Error::Usage`], which names the first of them.
    pub fn refuse_those_of_sections(&self) -> Result<(), Error> {
        let given = [
            ("--max-shift", self.max_shift),
            ("--max-rotation", self.max_rotation),
            ("--defects", self.defects),
        ];
        match given.iter().find(|(_, value)| value.is_some()) {
            Some((flag, _)) => Err(Error::Usage(format!(
                "{flag} is for sections, and has no effect here; leave it out"
            ))),
            None => Ok(()),
        }
    }

    /// The parameters of sections.
    pub fn sections(&self, spacing: Option<Point>, seed: u64) -> Sections {
        Sections {
            shape: self.size.unwrap_or(SHAPES[1]),
            spacing: spacing.unwrap_or(SPACINGS[1]),
            max_displacement: self.max_displacement,
            wavelength: self.wavelength,
            max_shift: self.max_shift.unwrap_or(20.0),
            max_rotation: self.max_rotation.unwrap_or(1.0),
            noise: self.noise,
            defects: self.defects.unwrap_or(1.0),
            seed,
        }
    }
}
