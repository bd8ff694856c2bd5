use std::str::FromStr;

use crate::transform::Axes;
use crate::volume::Format;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A volume.
    Volume(Format),
    /// A transform as a chain's JSON, its fields beside it.
    Json,
    /// A displacement field of ours.
    Field,
    /// A matrix as BigStream's text.
    Matrix(Axes),
    /// A matrix as an ITK transform file.
    Itk,
    /// A matrix as ANTs' MATLAB file.
    Ants,
    /// A matrix as greedy's text.
    Greedy,
    /// A matrix as an elastix parameter file.
    Elastix,
    /// Landmarks of BigWarp.
    BigWarp,
    /// A displacement field as NIfTI.
    Nifti,
    /// A displacement field as NRRD.
    Nrrd,
    /// A Zarr group with OME-NGFF coordinate transformations.
    Ngff,
}

impl Target {
    /// Their names on the command line.
    pub const NAMES: [(&'static str, Self); 17] = [
        ("zarr3", Self::Volume(Format::Zarr3)),
        ("zarr2", Self::Volume(Format::Zarr2)),
        ("n5", Self::Volume(Format::N5)),
        ("tiff", Self::Volume(Format::Tiff)),
        ("npy", Self::Volume(Format::Npy)),
        ("json", Self::Json),
        ("field", Self::Field),
        ("bigstream-zyx", Self::Matrix(Axes::Zyx)),
        ("bigstream-xyz", Self::Matrix(Axes::Xyz)),
        ("itk", Self::Itk),
        ("ants", Self::Ants),
        ("greedy", Self::Greedy),
        ("elastix", Self::Elastix),
        ("bigwarp", Self::BigWarp),
        ("nifti", Self::Nifti),
        ("nrrd", Self::Nrrd),
        ("ngff", Self::Ngff),
    ];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, target)| *target == self).map_or("unknown", |(name, _)| name)
    }

    /// Whether its numbers are in a unit that `--to-unit` may choose.
    pub(super) fn takes_a_unit(self) -> bool {
        use Target::{Ants, BigWarp, Elastix, Greedy, Itk, Matrix, Nifti, Nrrd};
        matches!(self, Matrix(_) | Itk | Ants | Greedy | Elastix | BigWarp | Nifti | Nrrd)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, target)| *target).ok_or_else(|| {
            format!("'{text}' is no format; known are {}", Self::NAMES.map(|n| n.0).join(", "))
        })
    }
}
