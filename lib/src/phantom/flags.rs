//! The command-line flags of test sets, which programs flatten into their own. The struct has no doc
//! comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{Rounds, Sections, Tiles, parse_shape};
use crate::blocks::Error;
use crate::geom::Point;

/// The default shapes of rounds, sections and tiles, and the voxel sizes of rounds and of the others.
const SHAPES: [[usize; 3]; 3] = [[256; 3], [20, 512, 512], [1, 1024, 1024]];
const SPACINGS: [Point; 2] = [[1.0, 0.8, 0.8], [0.05, 0.01, 0.01]];

#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Size of the fixed volume, or number and size of the sections or of the planes that tiles cover,
    /// in voxels: one number or three [default: 256; sections: 20,512,512; tiles: 1,1024,1024]
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
    /// sections, tiles: maximum shift of a section, or error of the stage, along each axis, pixels
    /// [default: 20; tiles: 4]
    #[arg(long, value_name = "PIXELS")]
    pub max_shift: Option<f64>,
    /// sections: maximum rotation of a section [default: 1]
    #[arg(long, value_name = "DEGREES")]
    pub max_rotation: Option<f64>,
    /// sections: how many are flawed; at 1, a twentieth is broken, a twentieth blank, a fortieth
    /// imaged twice and a fortieth missing, and some have folds and tears [default: 1]
    #[arg(long, value_name = "X")]
    pub defects: Option<f64>,
    /// tiles: size of a tile, pixels [default: 256,256]
    #[arg(long, value_name = "Y,X", value_parser = parse_tile)]
    pub tile: Option<[usize; 2]>,
    /// tiles: overlap of neighbours, as a fraction of a tile [default: 0.1]
    #[arg(long, value_name = "FRACTION")]
    pub overlap: Option<f64>,
    /// tiles: largest displacement by a distortion that all tiles share, pixels [default: 0]
    #[arg(long, value_name = "PIXELS")]
    pub lens: Option<f64>,
    /// tiles: drift of the sample while a plane is imaged, pixels [default: 0]
    #[arg(long, value_name = "PIXELS")]
    pub drift: Option<f64>,
    /// tiles: number of tiles of each plane that show nothing [default: 0]
    #[arg(long, value_name = "N")]
    pub empty: Option<usize>,
}

/// Parses the syntax of `--tile`: two numbers of pixels `y,x`.
fn parse_tile(text: &str) -> Result<[usize; 2], String> {
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|n| n.trim().parse()).collect();
    match numbers.as_deref() {
        Ok([y, x]) => Ok([*y, *x]),
        _ => Err("wanted two numbers of pixels along y,x such as 256,256".to_owned()),
    }
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

    /// Refuses the flags that are for other kinds of test sets.
    ///
    /// * `kind`: `sections`, `tiles`, or another word for those that have no flags of their own
    ///
    /// # Errors
    /// [`Error::Usage`], which names the first of them.
    pub fn refuse_others(&self, kind: &str) -> Result<(), Error> {
        let given = [
            ("--max-shift", "sections and tiles", self.max_shift.is_some()),
            ("--max-rotation", "sections", self.max_rotation.is_some()),
            ("--defects", "sections", self.defects.is_some()),
            ("--tile", "tiles", self.tile.is_some()),
            ("--overlap", "tiles", self.overlap.is_some()),
            ("--lens", "tiles", self.lens.is_some()),
            ("--drift", "tiles", self.drift.is_some()),
            ("--empty", "tiles", self.empty.is_some()),
        ];
        match given.iter().find(|(_, of, is_given)| *is_given && !of.contains(kind)) {
            Some((flag, of, _)) => Err(Error::Usage(format!(
                "{flag} is for {of}, and has no effect here; leave it out"
            ))),
            None => Ok(()),
        }
    }

    /// The parameters of tiles.
    pub fn tiles(&self, spacing: Option<Point>, seed: u64) -> Tiles {
        Tiles {
            shape: self.size.unwrap_or(SHAPES[2]),
            spacing: spacing.unwrap_or(SPACINGS[1]),
            tile: self.tile.unwrap_or([256, 256]),
            overlap: self.overlap.unwrap_or(0.1),
            max_shift: self.max_shift.unwrap_or(4.0),
            lens: self.lens.unwrap_or(0.0),
            drift: self.drift.unwrap_or(0.0),
            empty: self.empty.unwrap_or(0),
            noise: self.noise,
            seed,
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
