//! Checks that the name of an output fits its format.

use std::path::Path;

use super::{Error, Format};

/// File name extensions, and the formats that they stand for.
const EXTENSIONS: [(&str, &str); 41] = [
    ("bmp", "BMP"),
    ("csv", "a table"),
    ("czi", "CZI"),
    ("dm3", "Digital Micrograph"),
    ("dm4", "Digital Micrograph"),
    ("gif", "GIF"),
    ("gz", "a compressed file"),
    ("h5", "HDF5"),
    ("hdf5", "HDF5"),
    ("html", "a page"),
    ("ims", "Imaris"),
    ("jpeg", "JPEG"),
    ("jpg", "JPEG"),
    ("json", "JSON"),
    ("klb", "KLB"),
    ("lif", "LIF"),
    ("mat", "MATLAB"),
    ("mha", "MetaImage"),
    ("mhd", "MetaImage"),
    ("mrc", "MRC"),
    ("n5", "N5"),
    ("nd2", "ND2"),
    ("nii", "NIfTI"),
    ("npy", "NumPy"),
    ("npz", "NumPy"),
    ("nrrd", "NRRD"),
    ("pdf", "PDF"),
    ("png", "PNG"),
    ("svg", "SVG"),
    ("tfm", "ITK"),
    ("tif", "TIFF"),
    ("tiff", "TIFF"),
    ("tsv", "a table"),
    ("txt", "text"),
    ("vtk", "VTK"),
    ("webp", "WebP"),
    ("xml", "XML"),
    ("yaml", "YAML"),
    ("yml", "YAML"),
    ("zarr", "Zarr"),
    ("zip", "a compressed file"),
];

/// Refuses a name whose extension belongs to another format, such as `a.png` for a Zarr array.
///
/// # Errors
/// [`Error::Format`], which names the endings of `format`.
pub fn check_name(location: &str, format: Format) -> Result<(), Error> {
    let (own, what, endings): (&[&str], _, _) = match format {
        Format::Zarr3 | Format::Zarr2 => (&["zarr"], "Zarr, a folder", ".zarr"),
        Format::N5 => (&["n5"], "N5, a folder", ".n5"),
        Format::Tiff => (&["tif", "tiff"], "TIFF", ".tif or .tiff"),
        Format::Npy => (&["npy"], "a NumPy file", ".npy"),
    };
    let Some((extension, other)) = other_format(location, own) else { return Ok(()) };
    let read_only = if extension == "png" { ", which is read and not written" } else { "" };
    let message = format!(
        "would be {what}, but its name is that of {other}{read_only}; let it end in {endings}, or choose \
         another format by its ending (.zarr, .n5, .tif, .npy)"
    );
    Err(Error::format(location, message))
}

/// As [`check_name`], for an output that is always Zarr: a field, or local affines.
///
/// # Errors
/// [`Error::Format`].
pub fn check_zarr_name(location: &str) -> Result<(), Error> {
    let Some((_, other)) = other_format(location, &["zarr"]) else { return Ok(()) };
    let message = format!(
        "would be Zarr, a folder, but its name is that of {other}; let it end in .zarr, and make \
         other formats of it with transcode"
    );
    Err(Error::format(location, message))
}

/// The extension of a name and the format that it stands for; `None` if the extension is unknown or
/// one of `own`.
pub fn other_format(location: &str, own: &[&str]) -> Option<(&'static str, &'static str)> {
    let extension = Path::new(location.trim_end_matches('/')).extension()?;
    let extension = extension.to_string_lossy().to_lowercase();
    EXTENSIONS.into_iter().find(|(known, _)| *known == extension && !own.contains(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_ends_as_another_format_does_is_refused() {
        for (name, format, fits) in [
            ("a.zarr", Format::Zarr3, true),
            ("a.zarr/", Format::Zarr2, true),
            ("a.n5/c0/s0", Format::N5, true),
            ("round.1", Format::Zarr3, true),
            ("a", Format::Tiff, true),
            ("a.TIFF", Format::Tiff, true),
            ("a.ome.zarr", Format::Zarr3, true),
            ("a.png", Format::Zarr3, false),
            ("a.zarr/b.JSON", Format::Zarr3, false),
            ("a.nii.gz", Format::Zarr3, false),
            ("a.mrc", Format::Zarr3, false),
            ("a.zarr", Format::Tiff, false),
            ("a.zarr", Format::N5, false),
            ("a.tif", Format::Npy, false),
        ] {
            let checked = check_name(name, format);
            assert_eq!(checked.is_ok(), fits, "{name} {checked:?}");
        }
        let message = check_name("a.png", Format::Zarr3).unwrap_err().to_string();
        assert!(message.contains("PNG, which is read and not written"), "{message}");
    }
}
