use std::path::Path;
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

    /// What the name of an output says, for a volume or a transform; `None` where it says nothing.
    pub fn told_by(output: &str, is_transform: bool) -> Option<Self> {
        let name = output.trim_end_matches('/').to_ascii_lowercase();
        let path = Path::new(&name);
        let ends = |extension: &str| path.extension().is_some_and(|found| found == extension);
        let within = |extension: &str| {
            path.ancestors().any(|above| above.extension().is_some_and(|e| e == extension))
        };
        let of_volume = [
            (within("n5"), Format::N5),
            (within("zarr"), Format::Zarr3),
            (ends("tif") || ends("tiff"), Format::Tiff),
            (ends("npy"), Format::Npy),
        ];
        let of_transform = [
            (within("zarr"), Self::Field),
            (ends("json"), Self::Json),
            (ends("tfm"), Self::Itk),
            (ends("nii") || name.ends_with(".nii.gz"), Self::Nifti),
            (ends("nrrd") || ends("nhdr"), Self::Nrrd),
        ];
        if is_transform {
            of_transform.into_iter().find_map(|(is, target)| is.then_some(target))
        } else {
            of_volume.into_iter().find_map(|(is, format)| is.then_some(Self::Volume(format)))
        }
    }

    /// Whether it is one text, or one short file, that may be written to standard output.
    pub fn is_one_text(self) -> bool {
        !matches!(self, Self::Volume(_) | Self::Field | Self::Nifti | Self::Nrrd | Self::Ngff)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_output_says_its_format() {
        for (name, volume, transform) in [
            ("a.zarr", Some("zarr3"), Some("field")),
            ("a.zarr/labels/", Some("zarr3"), Some("field")),
            ("a.n5/c0/s0", Some("n5"), None),
            ("a.TIFF", Some("tiff"), None),
            ("a.npy", Some("npy"), None),
            ("a.json", None, Some("json")),
            ("a.tfm", None, Some("itk")),
            ("a.nii.gz", None, Some("nifti")),
            ("a.nrrd", None, Some("nrrd")),
            ("a.txt", None, None),
            ("a", None, None),
            ("-", None, None),
        ] {
            assert_eq!(Target::told_by(name, false).map(Target::name), volume, "{name}");
            assert_eq!(Target::told_by(name, true).map(Target::name), transform, "{name}");
        }
    }
}
