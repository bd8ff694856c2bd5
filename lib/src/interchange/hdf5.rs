//! HDF5: ITK transforms (`HDF5TransformIO`: a group for each, in `TransformGroup`) and
//! displacement fields of BigWarp and template-building.

use std::path::{Path, PathBuf};

use hdf5_reader::{Datatype, Hdf5File, OpenOptions, SliceInfo, SliceInfoElem};
use serde_json::{Map, Value};

use super::read_error::ReadError;
use crate::geom::Box3;
use crate::quote::{self, shorten};
use crate::volume::{Dtype, Voxel};
use crate::with_voxel;

/// The signature at the beginning of a file.
pub(super) const MAGIC: &[u8] = b"\x89HDF\r\n\x1a\n";

/// Maximum size of a decoded chunk, bytes.
const MAX_CHUNK_BYTES: usize = 256 << 20;

/// The group that contains ITK transforms.
const TRANSFORMS: &str = "TransformGroup";

/// The contents of a file.
pub(super) enum Hdf5Content {
    /// ITK transforms.
    Transforms,
    /// Arrays, by their paths.
    Arrays(Vec<String>),
}

/// A transform as ITK stores it.
pub(super) struct TransformRecord {
    /// The class of the transform, such as `AffineTransform_double_3_3`.
    pub(super) name: String,
    pub(super) fixed: Vec<f64>,
    pub(super) parameters: Parameters,
}

/// The parameters of a transform: numbers in memory, or the vectors of a displacement field, which
/// are read later.
pub(super) enum Parameters {
    Here(Vec<f64>),
    There(Box<Vectors>),
}

/// The arrangement of vectors in an array.
#[derive(Clone, Copy, Debug)]
enum VectorOrder {
    /// The components are the first dimension.
    First,
    /// The components are the last dimension.
    Last,
    /// A one-dimensional list of vectors, x fastest.
    Listed,
}

/// Vectors in an array of an HDF5 file.
pub(super) struct Vectors {
    dataset: hdf5_reader::Dataset,
    dtype: Dtype,
    order: VectorOrder,
    /// Shape along z, y, x.
    shape: [usize; 3],
    components: usize,
    /// The path of the HDF5 file.
    pub(super) path: PathBuf,
}

fn unread(error: hdf5_reader::error::Error) -> ReadError {
    let message = format!("is HDF5 that cannot be read: {}", shorten(&error.to_string()));
    ReadError::because(message, error)
}

fn open(path: &Path) -> Result<Hdf5File, ReadError> {
    let length = std::fs::metadata(path).map_err(ReadError::io)?.len();
    // deflate expands one byte to at most 1032 bytes
    let most = usize::try_from(length.saturating_mul(1032)).unwrap_or(usize::MAX);
    let options = OpenOptions::default()
        .with_chunk_cache_bytes(16 << 20)
        .with_max_chunk_bytes(MAX_CHUNK_BYTES.min(most))
        .with_max_read_bytes(most)
        .with_max_object_header_bytes(1 << 20);
    Hdf5File::open_with_options(path, options).map_err(unread)
}

/// Finds out what the file at `path` contains.
pub(super) fn content(path: &Path) -> Result<Hdf5Content, ReadError> {
    let file = open(path)?;
    if file.group(TRANSFORMS).is_ok() {
        return Ok(Hdf5Content::Transforms);
    }
    let mut found = Vec::new();
    let root = file.root_group().map_err(unread)?;
    list(&root, "", 3, &mut found)?;
    Ok(Hdf5Content::Arrays(found))
}

/// Collects the paths of the arrays in `group` and in `depth` levels of groups below, at most 100.
fn list(
    group: &hdf5_reader::group::Group,
    prefix: &str,
    depth: usize,
    found: &mut Vec<String>,
) -> Result<(), ReadError> {
    let (groups, arrays) = group.member_names().map_err(unread)?;
    for name in arrays {
        if found.len() < 100 {
            found.push(format!("{prefix}{name}"));
        }
    }
    for name in groups {
        if depth > 0 && found.len() < 100 {
            let inner = group.group(&name).map_err(unread)?;
            list(&inner, &format!("{prefix}{name}/"), depth - 1, found)?;
        }
    }
    Ok(())
}

fn dtype(datatype: &Datatype) -> Result<Dtype, String> {
    Ok(match datatype {
        Datatype::FloatingPoint { size: 4, .. } => Dtype::F32,
        Datatype::FloatingPoint { size: 8, .. } => Dtype::F64,
        Datatype::FixedPoint { size: 1, signed: true, .. } => Dtype::I8,
        Datatype::FixedPoint { size: 1, signed: false, .. } => Dtype::U8,
        Datatype::FixedPoint { size: 2, signed: true, .. } => Dtype::I16,
        Datatype::FixedPoint { size: 2, signed: false, .. } => Dtype::U16,
        Datatype::FixedPoint { size: 4, signed: true, .. } => Dtype::I32,
        Datatype::FixedPoint { size: 4, signed: false, .. } => Dtype::U32,
        _ => {
            return Err(
                "holds numbers of a type that is not read; integers of 8 to 32 bits, float32 and float64 are"
                    .to_owned(),
            );
        }
    })
}

/// All numbers of an array.
fn numbers(dataset: &hdf5_reader::Dataset) -> Result<Vec<f64>, ReadError> {
    with_voxel!(dtype(dataset.dtype())?, T => {
        let values = dataset.read_array::<T>().map_err(unread)?;
        Ok(values.iter().map(|value| value.to_f64()).collect())
    })
}

/// Reads the transforms of an ITK file, in the order of the file.
pub(super) fn records(path: &Path) -> Result<Vec<TransformRecord>, ReadError> {
    let file = open(path)?;
    let group = file.group(TRANSFORMS).map_err(|_| "is HDF5 without transforms of ITK")?;
    let (names, _) = group.member_names().map_err(unread)?;
    let mut numbered: Vec<(usize, String)> = Vec::new();
    for name in names {
        let number = name.parse().map_err(|_| {
            format!("has the transform '{}', wanted a number as its name", shorten(&name))
        })?;
        numbered.push((number, name));
    }
    numbered.sort();
    numbered.iter().map(|(_, name)| record(&group, name, path)).collect()
}

fn record(
    group: &hdf5_reader::group::Group,
    name: &str,
    path: &Path,
) -> Result<TransformRecord, ReadError> {
    let group = group.group(name).map_err(unread)?;
    let (_, arrays) = group.member_names().map_err(unread)?;
    // ITK before 4.10 omitted the s of 'Transform' in these names
    let find =
        |names: [&'static str; 2]| names.into_iter().find(|name| arrays.iter().any(|a| a == name));
    let array = |name: &str| group.dataset(name).map_err(unread);
    let class = array("TransformType")?.read_strings().map_err(unread)?;
    let class = class.into_iter().next().unwrap_or_default().trim_matches('\0').to_owned();
    let optional = |names: [&'static str; 2]| match find(names) {
        Some(name) => numbers(&array(name)?),
        None => Ok(Vec::new()),
    };
    let fixed = optional(["TransformFixedParameters", "TranformFixedParameters"])?;
    let parameters = ["TransformParameters", "TranformParameters"];
    let field = class.starts_with("DisplacementFieldTransform");
    let parameters = match find(parameters).filter(|_| field) {
        Some(name) => {
            let dataset = array(name)?;
            let dtype = dtype(dataset.dtype())?;
            let (order, path) = (VectorOrder::Listed, path.to_owned());
            let vectors = Vectors { dataset, dtype, order, shape: [0; 3], components: 3, path };
            Parameters::There(Box::new(vectors))
        }
        None => Parameters::Here(optional(parameters)?),
    };
    Ok(TransformRecord { name: class, fixed, parameters })
}

impl Vectors {
    /// Opens the array `name`, whose first or last dimension holds the components of the vectors,
    /// and reads its attributes.
    pub(super) fn open(path: &Path, name: &str) -> Result<(Self, Map<String, Value>), ReadError> {
        let dataset = open(path)?.dataset(name).map_err(unread)?;
        let rank = dataset.shape().len();
        let lengths: Option<Vec<usize>> =
            dataset.shape().iter().map(|n| usize::try_from(*n).ok()).collect();
        let lengths = lengths.unwrap_or_default();
        let count = rank.saturating_sub(1);
        // if the first and the last dimension fit, the first one is taken, as in n5-imglib2
        let order = match lengths.as_slice() {
            [first, ..] if matches!(rank, 3 | 4) && *first == count => VectorOrder::First,
            [.., last] if matches!(rank, 3 | 4) && *last == count => VectorOrder::Last,
            _ => {
                return Err(format!(
                    "has the array {} of the shape {}; a field has as many components as axes, in its last or \
                     first dimension",
                    shorten(name),
                    quote::numbers(dataset.shape())
                ).into());
            }
        };
        let space = match order {
            VectorOrder::First => &lengths[1..],
            _ => &lengths[..count],
        };
        let shape = match space {
            [z, y, x] => [*z, *y, *x],
            _ => [1, space[0], space[1]],
        };
        let attributes = dataset.attributes().iter().filter_map(value).collect();
        let dtype = dtype(dataset.dtype())?;
        let path = path.to_owned();
        Ok((Self { dataset, dtype, order, shape, components: count, path }, attributes))
    }

    /// Sets the shape and the number of components of vectors that are stored as a list.
    ///
    /// # Errors
    /// A message if the number of elements does not fit.
    pub(super) fn on(self, shape: [usize; 3], components: usize) -> Result<Self, String> {
        let counts = shape.into_iter().chain([components]);
        let wanted = counts.fold(1u64, |product, n| product.saturating_mul(n as u64));
        let found = self.dataset.shape().iter().fold(1u64, |product, n| product.saturating_mul(*n));
        if found != wanted || self.dataset.shape().len() != 1 {
            return Err(format!("has {found} numbers, wanted {wanted}"));
        }
        Ok(Self { shape, components, ..self })
    }

    /// Shape along z, y, x.
    pub(super) fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// Number of components of a vector.
    pub(super) fn components(&self) -> usize {
        self.components
    }

    /// Whether its elements are integers.
    pub(super) fn is_integer(&self) -> bool {
        self.dtype.is_integer()
    }

    /// Reads the vectors of `part` in C order, with components in the order of the file.
    pub(super) fn read(&self, part: &Box3) -> Result<Vec<[f64; 3]>, ReadError> {
        let mut vectors = vec![[0.0; 3]; part.len()];
        if vectors.is_empty() {
            return Ok(vectors);
        }
        let range = |a: usize| (part.min[a] as u64, part.max[a] as u64);
        let count = self.components as u64;
        if matches!(self.order, VectorOrder::Listed) {
            let [_, ny, nx] = self.shape.map(|n| n as u64);
            let (z, y, x) = (range(0), range(1), range(2));
            let rows = (z.0..z.1).flat_map(|z| (y.0..y.1).map(move |y| (z * ny + y) * nx));
            let width = (x.1 - x.0) as usize;
            for (row, vectors) in rows.zip(vectors.chunks_mut(width)) {
                let values = self.values(&[((row + x.0) * count, (row + x.1) * count)])?;
                spread(&values, vectors, self.components, false);
            }
            return Ok(vectors);
        }
        let first = usize::from(self.components == 2);
        let mut ranges: Vec<(u64, u64)> = (first..3).map(range).collect();
        let planar = matches!(self.order, VectorOrder::First);
        ranges.insert(if planar { 0 } else { ranges.len() }, (0, count));
        spread(&self.values(&ranges)?, &mut vectors, self.components, planar);
        Ok(vectors)
    }

    /// Reads the numbers within these ranges, in C order.
    fn values(&self, ranges: &[(u64, u64)]) -> Result<Vec<f64>, ReadError> {
        let slice = |&(start, end): &(u64, u64)| SliceInfoElem::Slice { start, end, step: 1 };
        let selection = SliceInfo { selections: ranges.iter().map(slice).collect() };
        with_voxel!(self.dtype, T => {
            let values = self.dataset.read_slice::<T>(&selection).map_err(unread)?;
            Ok(values.iter().map(|value| value.to_f64()).collect())
        })
    }
}

/// Distributes numbers to vectors. With `planar`, the first components of all vectors come first;
/// otherwise the components of each vector are adjacent.
fn spread(values: &[f64], vectors: &mut [[f64; 3]], components: usize, planar: bool) {
    let count = vectors.len();
    for (i, vector) in vectors.iter_mut().enumerate() {
        for (c, value) in vector.iter_mut().enumerate().take(components) {
            let at = if planar { c * count + i } else { i * components + c };
            *value = values.get(at).copied().unwrap_or(f64::NAN);
        }
    }
}

/// Converts an attribute to JSON: a number, a text or a list.
fn value(attribute: &hdf5_reader::Attribute) -> Option<(String, Value)> {
    let value = match attribute.num_elements() {
        Ok(1) if attribute.shape.is_empty() || attribute.name.contains("multiplier") => {
            match attribute.read_as_f64() {
                Ok(number) => Value::from(number),
                Err(_) => Value::from(attribute.read_string().ok()?),
            }
        }
        Ok(_) => {
            let numbers = dtype(&attribute.datatype).ok().and_then(|dtype| {
                with_voxel!(dtype, T => {
                    let numbers = attribute.read_1d::<T>().ok()?;
                    Some(numbers.into_iter().map(Voxel::to_f64).collect::<Vec<f64>>())
                })
            });
            match numbers {
                Some(numbers) => Value::from(numbers),
                None => Value::from(attribute.read_strings().ok()?),
            }
        }
        Err(_) => return None,
    };
    Some((attribute.name.clone(), value))
}
