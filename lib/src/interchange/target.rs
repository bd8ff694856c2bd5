use std::path::Path;
use std::str::FromStr;

use super::Error;
use crate::blocks;
use crate::transform::AxisOrder;
use crate::volume::{self, Format};

/// The format to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetFormat {
    /// A volume.
    Volume(Format),
    /// A transform as a chain in JSON, with its fields in arrays next to it.
    Json,
    /// A native displacement field.
    Field,
    /// A matrix as BigStream's text.
    Matrix(AxisOrder),
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

impl TargetFormat {
    /// The formats by their names on the command line.
    pub const NAMES: [(&'static str, Self); 17] = [
        ("zarr3", Self::Volume(Format::Zarr3)),
        ("zarr2", Self::Volume(Format::Zarr2)),
        ("n5", Self::Volume(Format::N5)),
        ("tiff", Self::Volume(Format::Tiff)),
        ("npy", Self::Volume(Format::Npy)),
        ("json", Self::Json),
        ("field", Self::Field),
        ("bigstream-zyx", Self::Matrix(AxisOrder::Zyx)),
        ("bigstream-xyz", Self::Matrix(AxisOrder::Xyz)),
        ("itk", Self::Itk),
        ("ants", Self::Ants),
        ("greedy", Self::Greedy),
        ("elastix", Self::Elastix),
        ("bigwarp", Self::BigWarp),
        ("nifti", Self::Nifti),
        ("nrrd", Self::Nrrd),
        ("ngff", Self::Ngff),
    ];

    /// The name of the format on the command line.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, target)| *target == self).map_or("unknown", |(name, _)| name)
    }

    /// Whether the output is a single text or short file, which can go to standard output.
    pub fn is_one_text(self) -> bool {
        !matches!(self, Self::Volume(_) | Self::Field | Self::Nifti | Self::Nrrd | Self::Ngff)
    }

    /// Whether `--to-unit` can choose the unit of lengths in the output.
    pub(super) fn takes_a_unit(self) -> bool {
        use TargetFormat::{Ants, BigWarp, Elastix, Greedy, Itk, Matrix, Nifti, Nrrd};
        matches!(self, Matrix(_) | Itk | Ants | Greedy | Elastix | BigWarp | Nifti | Nrrd)
    }
}

/// The formats that the name `output` can denote; `is_transform` says whether the source is a
/// transform.
pub(super) fn of_name(output: &str, is_transform: impl Fn() -> bool) -> Vec<TargetFormat> {
    use TargetFormat::{
        Ants, BigWarp, Elastix, Field, Greedy, Itk, Json, Matrix, Ngff, Nifti, Nrrd, Volume,
    };
    let name = output.trim_end_matches('/').to_lowercase();
    let path = Path::new(&name);
    let ends = |path: &Path| path.extension().map(|e| e.to_string_lossy().into_owned());
    match ends(path).as_deref() {
        Some("tif" | "tiff") => return vec![Volume(Format::Tiff)],
        Some("npy") => return vec![Volume(Format::Npy)],
        Some("json") => return vec![Json],
        Some("tfm") => return vec![Itk],
        Some("mat") => return vec![Ants, Greedy],
        Some("txt") => {
            return vec![Itk, Elastix, Greedy, Matrix(AxisOrder::Zyx), Matrix(AxisOrder::Xyz)];
        }
        Some("csv") => return vec![BigWarp],
        Some("nii") => return vec![Nifti],
        Some("gz") if name.ends_with(".nii.gz") => return vec![Nifti],
        Some("nrrd") => return vec![Nrrd],
        _ => {}
    }
    // an array may be nested deeply in its container
    let container = path.ancestors().find_map(|parent| match ends(parent).as_deref() {
        Some("n5") => Some(Format::N5),
        Some("zarr") => Some(Format::Zarr3),
        _ => None,
    });
    match container {
        Some(Format::Zarr3) if is_transform() => vec![Field, Ngff],
        Some(format) => vec![Volume(format)],
        None => Vec::new(),
    }
}

/// Refuses a name that denotes another format than `target`.
pub(super) fn check_name(output: &str, target: TargetFormat) -> Result<(), Error> {
    match target {
        TargetFormat::Volume(format) => return Ok(volume::check_name(output, format)?),
        TargetFormat::Field | TargetFormat::Ngff => {
            return Ok(volume::check_name(output, Format::Zarr3)?);
        }
        _ => {}
    }
    let candidates = of_name(output, || true);
    if candidates.is_empty() || candidates.contains(&target) {
        return Ok(());
    }
    let candidates: Vec<_> = candidates.into_iter().map(TargetFormat::name).collect();
    Err(blocks::Error::Usage(format!(
        "--to {} does not fit the name {output}, which is that of {}; give another name or another --to",
        target.name(),
        candidates.join(" or ")
    ))
    .into())
}

impl FromStr for TargetFormat {
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
    fn a_name_tells_one_format_or_all_that_it_may_mean() {
        let names = |output: &str, transform: bool| -> Vec<&str> {
            of_name(output, || transform).into_iter().map(TargetFormat::name).collect()
        };
        for (output, want) in [
            ("out.zarr", &["zarr3"][..]),
            ("a/out.ZARR/0/", &["zarr3"]),
            ("out.n5/c0/s0", &["n5"]),
            ("out.TIFF", &["tiff"]),
            ("out.npy", &["npy"]),
            ("out.json", &["json"]),
            ("-", &[]),
            ("out.tfm", &["itk"]),
            ("out.csv", &["bigwarp"]),
            ("out.nii", &["nifti"]),
            ("out.nii.gz", &["nifti"]),
            ("out.nrrd", &["nrrd"]),
            ("out.mat", &["ants", "greedy"]),
            ("out.txt", &["itk", "elastix", "greedy", "bigstream-zyx", "bigstream-xyz"]),
            ("out.gz", &[]),
            ("out", &[]),
            ("", &[]),
        ] {
            assert_eq!(names(output, false), want, "{output}");
        }
        assert_eq!(names("out.zarr", true), ["field", "ngff"]);
    }
}
