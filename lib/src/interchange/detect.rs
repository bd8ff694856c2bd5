//! Detects by content which program wrote a transform.

use std::path::Path;

use super::read_error::ReadError;
use super::{
    Error, bigwarp, dfield, elastix, hdf5, itk, matlab, matrices, metaimage, ngff, nifti, nrrd,
};
use crate::files;
use crate::store::document;
use crate::transform::{self, TransformKind};
use crate::volume::{self, VectorArray};

/// Number of leading bytes of a file that are examined.
const HEAD_BYTES: u64 = 4096;

/// Signatures of similar formats that are not supported, with advice.
const UNSUPPORTED: [(&[u8], &str); 1] =
    [(b"MATLAB 5", "is a MATLAB 5 file; ITK and ANTs write level 4, save it with '-v4'")];

/// A format that transforms are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum SourceFormat {
    /// A chain in voxloom's JSON format.
    Json,
    /// A displacement field or local affines of voxloom.
    Field,
    /// A 4x4 text matrix of BigStream.
    Bigstream,
    /// An array of displacements of current BigStream.
    BigstreamDisplacements,
    /// An array of positions of BigStream 2021.
    BigstreamPositions,
    /// A text file of ITK.
    Itk,
    /// A MATLAB file of ITK or ANTs.
    Ants,
    /// A matrix of greedy.
    Greedy,
    /// A parameter file of elastix.
    Elastix,
    /// Landmarks of BigWarp.
    Bigwarp,
    /// A displacement field in NIfTI, from ITK, ANTs or greedy.
    Nifti,
    /// A displacement field in NRRD.
    Nrrd,
    /// A displacement field in MetaImage.
    Metaimage,
    /// A displacement field in N5 or Zarr, from BigWarp or template-building.
    BigwarpField,
    /// OME-NGFF coordinate transformations.
    Ngff,
}

/// Detects the format of the transform at `location`.
pub(super) fn source_of(location: &str) -> Result<SourceFormat, Error> {
    let path = Path::new(location);
    let is_pipe = files::is_pipe(path);
    if location.contains("://") || !(path.exists() || is_pipe) {
        return native_format(location);
    }
    if path.is_dir() {
        return folder(location);
    }
    let refused = |source| Error::Io { action: "read", path: location.to_owned(), source };
    let unfit = |message: &str| ReadError::from(message).of(location);
    let (start, gzip) = if is_pipe {
        let bytes = document::read(path).map_err(refused)?;
        (bytes[..bytes.len().min(HEAD_BYTES as usize)].to_vec(), bytes.starts_with(&[0x1f, 0x8b]))
    } else {
        nifti::start_of(path, HEAD_BYTES).map_err(refused)?
    };
    let is_field = nifti::is_nifti(&start)
        || [nrrd::MAGIC, hdf5::MAGIC].iter().any(|magic| start.starts_with(magic))
        || metaimage::is_metaimage(&start);
    if is_pipe && (gzip || is_field) {
        return Err(unfit(
            "is a field or compressed, which is not read from a pipe; name its file",
        ));
    }
    if nifti::is_nifti(&start) {
        return Ok(SourceFormat::Nifti);
    }
    if nifti::is_cut(&start) {
        let message = format!(
            "is a NIfTI file that is cut off within its header, after {} bytes; copy it again",
            start.len()
        );
        return Err(unfit(&message));
    }
    if gzip {
        return Err(unfit("is gzip and no NIfTI file; decompress it first"));
    }
    if start.starts_with(nrrd::MAGIC) {
        return Ok(SourceFormat::Nrrd);
    }
    if start.starts_with(itk::MAGIC) {
        return Ok(SourceFormat::Itk);
    }
    if metaimage::is_metaimage(&start) {
        return Ok(SourceFormat::Metaimage);
    }
    if start.starts_with(hdf5::MAGIC) {
        return match hdf5::content(path).map_err(|error| error.of(location))? {
            hdf5::Hdf5Content::Transforms => Ok(SourceFormat::Itk),
            hdf5::Hdf5Content::Arrays(_) => Ok(SourceFormat::BigwarpField),
        };
    }
    for (magic, message) in UNSUPPORTED {
        if start.starts_with(magic) {
            return Err(unfit(message));
        }
    }
    if matlab::is_level_4(&start) {
        return Ok(SourceFormat::Ants);
    }
    if start.starts_with(b"\x93NUMPY") {
        // a file that cannot be opened as vectors counts as a volume, even if it is damaged
        let is_field = VectorArray::open(location, None, false).is_ok();
        return if is_field { Err(array(location)) } else { native_format(location) };
    }
    if start.contains(&0) {
        return native_format(location);
    }
    let text = String::from_utf8_lossy(&start);
    let text = text.trim_start_matches('\u{feff}');
    if elastix::is_parameter_file(text) {
        return Ok(SourceFormat::Elastix);
    }
    if bigwarp::is_landmarks(text) {
        return Ok(SourceFormat::Bigwarp);
    }
    if text.trim_start().starts_with('{') {
        let ours = text.contains("\"direction\"");
        return Ok(match ngff::attributes(location) {
            Ok(Some(_)) if !ours => SourceFormat::Ngff,
            _ => SourceFormat::Json,
        });
    }
    // 4x4 text matrices of greedy and BigStream differ in the file name only; BigStream has no 3x3
    // matrices
    let rows = matrices::rows_of(text).map(|rows| rows.len());
    let named = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("mat"));
    if rows == Some(3) || (rows == Some(4) && named) {
        return Ok(SourceFormat::Greedy);
    }
    native_format(location)
}

/// Whether `location` holds a transform rather than a volume, judged by its content.
pub(super) fn is_transform(location: &str) -> bool {
    let path = Path::new(location);
    if path.is_dir() {
        let attributes = volume::attributes(location).ok().flatten();
        return transform::kind_of(location).is_ok_and(|kind| kind == TransformKind::LocalAffines)
            || ngff::attributes(location).is_ok_and(|found| found.is_some())
            || attributes.is_some_and(|(attributes, is_array)| {
                is_array
                    && (attributes.contains_key("direction")
                        || dfield::is_field(location, &attributes))
            });
    }
    let images: [&[u8]; 6] = [b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"\x89PNG", b"\x93NUMPY"];
    files::is_pipe(path)
        || !volume::is_sections(location)
            && document::read_start(path, 8)
                .is_ok_and(|start| !images.iter().any(|magic| start.starts_with(magic)))
}

/// The native format at `location`; an error if there is no native transform.
fn native_format(location: &str) -> Result<SourceFormat, Error> {
    Ok(match transform::kind_of(location)? {
        TransformKind::Document => SourceFormat::Json,
        TransformKind::MatrixText => SourceFormat::Bigstream,
        TransformKind::LocalAffines | TransformKind::Field => SourceFormat::Field,
    })
}

fn folder(location: &str) -> Result<SourceFormat, Error> {
    if transform::kind_of(location)? == TransformKind::LocalAffines {
        return Ok(SourceFormat::Field);
    }
    if ngff::attributes(location).map_err(|error| error.of(location))?.is_some() {
        return Ok(SourceFormat::Ngff);
    }
    match volume::attributes(location)? {
        Some((attributes, _)) if attributes.contains_key("direction") => Ok(SourceFormat::Field),
        Some((attributes, true)) if dfield::is_field(location, &attributes) => {
            Ok(SourceFormat::BigwarpField)
        }
        _ if VectorArray::open(location, None, false).is_ok() => Err(array(location)),
        _ => Ok(SourceFormat::Field),
    }
}

/// The error for an array of vectors whose meaning is not stated.
fn array(location: &str) -> Error {
    let message = "is an array of vectors that does not say what they are; give --from \
                   bigstream-displacements (current BigStream), bigstream-positions (that of 2021) or \
                   bigwarp-field";
    ReadError::from(message).of(location)
}
