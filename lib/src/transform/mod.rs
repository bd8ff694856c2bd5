//! Reading and writing of transforms: chains as JSON after OME-NGFF's coordinate transformations,
//! BigStream's 4x4 text matrices, displacement fields and local affines as Zarr arrays.
//!
//! Every transform is converted to a map of `[z, y, x]` micrometres from the fixed to the moving
//! volume. A document must state its direction, axes and unit. A text matrix states none of these:
//! its axes and direction are given by the caller, and its unit is the micrometre.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::geom::{Affine, Chain, Transform};
use crate::quote::shorten;
use crate::store;
use crate::{files, volume};

mod convention;
mod document;
mod local_affines;
mod matrix_text;
mod numbers;
#[cfg(test)]
mod tests;

pub use convention::{Direction, reverse_axes};
pub use document::{
    Step, compose, pretty, read_document, relative, steps_of as steps_of_object, write_chain,
    write_document,
};
pub use local_affines::{read_local_affines, write_local_affines};
pub use matrix_text::{AxisOrder, read_matrix_text, write_matrix_text};

/// The `type` of local affines, in documents and in the attributes of their array.
pub const LOCAL_AFFINES: &str = "voxloom:localAffines";

/// Why a transform could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The content is not a transform of a known kind, or has the wrong direction.
    #[error("{location}: {message}")]
    Format {
        /// The file or array.
        location: String,
        /// What was found, what was wanted and how to fix it.
        message: String,
    },
    /// The operating system reported an error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The operation that failed: "read" or "write".
        action: &'static str,
        /// The file.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A displacement field or an array of local affines could not be read or written.
    #[error(transparent)]
    Volume(#[from] crate::volume::Error),
}

/// The kind of transform at a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransformKind {
    /// A chain as JSON.
    Document,
    /// A 4x4 matrix as text.
    MatrixText,
    /// An array of local affines.
    LocalAffines,
    /// A displacement field, or a container that may hold one.
    Field,
}

/// Maximum size of a transform in text form, bytes; larger files are refused.
const MAX_TEXT: u64 = 64 << 20;

/// Number of leading bytes by which the kind of a file is detected.
const HEAD_BYTES: usize = 4096;

/// Detects the kind of transform at a location by its content.
///
/// # Errors
/// [`Error`] if nothing is there, it cannot be read, or it is a file of no supported kind.
pub fn kind_of(location: &str) -> Result<TransformKind, Error> {
    let wrong = |message: &str| Error::Format {
        location: location.to_owned(),
        message: message.to_owned(),
    };
    if files::is_pipe(location) {
        let path = if location == "-" { "standard input" } else { location };
        let refused = |source| Error::Io { action: "read", path: path.to_owned(), source };
        let bytes = store::document::read(location).map_err(refused)?;
        return kind_of_text(&bytes[..bytes.len().min(HEAD_BYTES)], &wrong);
    }
    let path = path_of(location)?;
    let refused = |source| Error::Io { action: "read", path: location.to_owned(), source };
    let there = store::stat(&path).map_err(refused)?;
    let is_file = |there: &&store::Stat| {
        there.kind == store::EntryKind::File && !volume::is_folder_on_the_web(&path)
    };
    let Some(file) = there.as_ref().filter(is_file) else {
        // a web server does not report whether a folder exists
        if there.is_none() && store::is_listable(&path) {
            return Err(wrong(
                "not found; wanted a transform (a chain's JSON, a 4x4 text matrix, or a field or local \
                 affines in Zarr), check the path",
            ));
        }
        return Ok(if local_affines::is_local_affines(&path) {
            TransformKind::LocalAffines
        } else {
            TransformKind::Field
        });
    };
    if file.length > MAX_TEXT {
        return Err(wrong(
            "is too large for a transform in text; a field is given as its Zarr folder",
        ));
    }
    let head = store::document::read_start(&path, HEAD_BYTES).map_err(refused)?;
    if store::is_remote(&path) && is_foreign(&head) {
        return Err(wrong(
            "is a transform of another program, which is read from a local path only; copy it to one and \
             turn it into a chain's JSON: transcode FILE -o chain.json",
        ));
    }
    let kind = kind_of_text(&head, &wrong)?;
    let named = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("mat"));
    if kind == TransformKind::MatrixText && named {
        return Err(wrong(
            "is text and called .mat, as greedy's matrices are (x,y,z, RAS, mm) and BigStream's may be (z,y,x, \
             um); say which it is: transcode FILE --from greedy (or bigstream) -o chain.json",
        ));
    }
    Ok(kind)
}

/// Converts a location to a path as the functions of `store` take it: a local path or an address.
fn path_of(location: &str) -> Result<PathBuf, Error> {
    let wrong = |message| Error::Format { location: location.to_owned(), message };
    store::parse(location).map_err(wrong)
}

/// The kind of a file that begins with `head`.
fn kind_of_text(head: &[u8], wrong: &dyn Fn(&str) -> Error) -> Result<TransformKind, Error> {
    if is_foreign(head) {
        return Err(wrong(
            "is a transform of another program (ITK, NIfTI, NRRD, MetaImage, HDF5, MATLAB or elastix); turn it into a \
             chain's JSON first: transcode FILE -o chain.json",
        ));
    }
    if head.starts_with(b"II*\0") || head.starts_with(b"MM\0*") || head.contains(&0) {
        return Err(wrong(
            "is a binary file and no transform; wanted a chain's JSON, a 4x4 text matrix, or a Zarr folder",
        ));
    }
    let text = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    match text.first() {
        None => Err(wrong("is empty; wanted a transform: a chain's JSON or a 4x4 text matrix")),
        Some(b'{') => Ok(TransformKind::Document),
        Some(_) => Ok(TransformKind::MatrixText),
    }
}

/// Whether a file begins like the transforms of other programs that `transcode` reads.
fn is_foreign(head: &[u8]) -> bool {
    let elastix = String::from_utf8_lossy(head).contains("(Transform \"");
    let nifti = matches!(head.get(344..347), Some(b"n+1" | b"ni1"));
    let gzip = head.starts_with(&[0x1f, 0x8b]);
    let itk = head.starts_with(b"#Insight Transform File");
    let hdf5 = head.starts_with(b"\x89HDF");
    let metaimage = head.starts_with(b"ObjectType") || head.starts_with(b"NDims");
    let matlab = head.get(20..).is_some_and(|name| {
        ["AffineTransform_", "MatrixOffsetTransformBase_", "Euler3DTransform_"]
            .iter()
            .any(|class| name.starts_with(class.as_bytes()))
    });
    elastix || nifti || gzip || itk || metaimage || hdf5 || matlab || head.starts_with(b"NRRD000")
}

/// Reads one chain from several locations, in the order in which the transforms are applied.
///
/// A location is a chain's JSON, a 4x4 text matrix (axes z, y, x), a displacement field or an array
/// of local affines; the kind is detected by content.
///
/// # Errors
/// [`Error`] if nothing exists at a location, or it is not a transform or has another direction.
pub fn read_chain(locations: &[String]) -> Result<Chain, Error> {
    read_chain_in(locations, Direction::FixedToMoving)
}

/// Like [`read_chain`], for transforms of the given direction.
///
/// # Errors
/// As [`read_chain`].
pub fn read_chain_in(locations: &[String], direction: Direction) -> Result<Chain, Error> {
    Ok(read_stored(locations, direction)?.chain)
}

/// A chain that was read, and where its steps are stored.
pub struct StoredChain {
    /// The chain.
    pub chain: Chain,
    /// The same steps in the form in which documents store them.
    pub steps: Vec<Step>,
}

/// Like [`read_chain_in`], but also returns the steps, from which a document can be written.
///
/// # Errors
/// As [`read_chain`].
pub fn read_stored(locations: &[String], direction: Direction) -> Result<StoredChain, Error> {
    let mut stored = StoredChain { chain: Chain::default(), steps: Vec::new() };
    for location in locations {
        let kind = kind_of(location)?;
        let steps = steps_of(location, kind, direction)?;
        if kind == TransformKind::MatrixText {
            tracing::info!("{location}: a text matrix, taken as {direction} in z,y,x micrometres");
        }
        stored.chain.steps.extend(open_steps(location, &steps, direction)?.steps);
        stored.steps.extend(steps);
    }
    Ok(stored)
}

/// Opens the arrays of the `steps` of `document`. Each array must be a displacement field of this
/// direction, or local affines; images and other folders are refused.
///
/// # Errors
/// [`Error`] if an array does not exist or is something else.
pub fn open_steps(document: &str, steps: &[Step], direction: Direction) -> Result<Chain, Error> {
    let steps = steps.iter().map(|step| open_step(document, step, direction));
    Ok(Chain { steps: steps.collect::<Result<_, _>>()? })
}

/// The location of the document of a chain that begins with the field at `output`, beside the
/// field.
pub fn document_beside(output: &str) -> PathBuf {
    Path::new(output.trim_end_matches('/')).with_extension("json")
}

/// Reads the steps at a location. Arrays are given by location and are not opened.
///
/// # Errors
/// As [`read_chain`].
pub fn read_steps(location: &str, direction: Direction) -> Result<Vec<Step>, Error> {
    steps_of(location, kind_of(location)?, direction)
}

/// The steps at a location that holds a transform of this kind.
fn steps_of(location: &str, kind: TransformKind, direction: Direction) -> Result<Vec<Step>, Error> {
    Ok(match kind {
        TransformKind::Document => read_document(&document_of(location)?, direction)?,
        TransformKind::MatrixText => {
            vec![Step::Affine(read_matrix_text(&document_of(location)?, AxisOrder::Zyx)?)]
        }
        TransformKind::LocalAffines => vec![Step::LocalAffines(location.to_owned())],
        TransformKind::Field => vec![Step::Field(location.to_owned())],
    })
}

/// The path of a document; `-` (standard input) stays as it is.
fn document_of(location: &str) -> Result<PathBuf, Error> {
    if files::is_stream(location) { Ok(location.into()) } else { path_of(location) }
}

/// Reads a chain that must consist of matrices alone, and returns their composition; used for
/// `--initial` of a matching step, for example.
///
/// # Errors
/// As [`read_chain`]; [`Error::Format`] if a step is no matrix.
pub fn read_affine(locations: &[String]) -> Result<Affine, Error> {
    read_chain(locations)?.as_affine().ok_or_else(|| Error::Format {
        location: locations.join(", "),
        message: "holds a field or local affines, and one matrix is wanted here; give the global \
                  transform alone"
            .to_owned(),
    })
}

/// Opens one step that `document` refers to.
///
/// # Errors
/// Like [`open_steps`].
pub fn open_step(document: &str, step: &Step, direction: Direction) -> Result<Transform, Error> {
    let there = |array: &str| {
        if array.contains("://") || Path::new(array).exists() {
            return Ok(());
        }
        Err(Error::Format {
            location: document.to_owned(),
            message: format!(
                "refers to {}, which is not there; keep it where the document says",
                shorten(array)
            ),
        })
    };
    Ok(match step {
        Step::Affine(map) => Transform::Affine(*map),
        Step::LocalAffines(array) => {
            there(array)?;
            if direction == Direction::MovingToFixed {
                return Err(Error::Format {
                    location: array.clone(),
                    message: format!(
                        "holds local affines, which are {}; make a field of their inverse with \
                         invmap, or leave --direction out",
                        Direction::FixedToMoving
                    ),
                });
            }
            Transform::LocalAffines(Arc::new(read_local_affines(array)?))
        }
        Step::Field(array) => {
            there(array)?;
            open_field(array, direction)?
        }
    })
}

fn open_field(location: &str, direction: Direction) -> Result<Transform, Error> {
    Ok(Transform::Field(Arc::new(match direction {
        Direction::FixedToMoving => volume::FieldFile::open(location)?,
        Direction::MovingToFixed => volume::FieldFile::open_inverse(location)?,
    })))
}
