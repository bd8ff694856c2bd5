//! Arrays of vectors as other programs store them: axes in either order, components first or last.

use std::path::PathBuf;

use super::array::Array;
use super::calibration::Calibration;
use super::dtype::ByteOrder;
use super::flat::FlatFile;
use super::open::OpenedArray;
use super::source::{self, ArrayLayout, View};
use super::{Dtype, Error, Format, open};
use crate::fingerprint::Fingerprint;
use crate::geom::{Box3, Point};

/// Uncompressed vectors in a file, beginning at byte `offset`.
#[derive(Clone, Debug)]
pub struct FlatVectors {
    /// The location as given, for messages.
    pub location: String,
    /// The file that holds the elements.
    pub path: PathBuf,
    /// The offset of the first element in bytes.
    pub offset: u64,
    /// The type of the elements.
    pub dtype: Dtype,
    /// The byte order of the elements.
    pub order: ByteOrder,
    /// The number of vectors along z, y, x; x varies fastest.
    pub shape: [usize; 3],
    /// The number of components of a vector.
    pub components: usize,
    /// Whether all first components precede all second components; otherwise vectors are
    /// interleaved.
    pub planar: bool,
}

/// Vectors of two or three components on a grid, read box by box, with components in stored order.
pub struct VectorArray {
    array: Array,
    axes: [Option<usize>; 3],
    component: usize,
    known: (Option<Point>, Option<Point>),
}

impl VectorArray {
    /// Opens a Zarr, N5 or NumPy array of rank 4 (three components) or 3 (two components).
    ///
    /// The components lie along dimension `component`. If `component` is `None`, or the size of
    /// that dimension is not the number of components, the components lie along the last dimension
    /// if its size is the number of components, otherwise along the first dimension. The other
    /// dimensions are x, y, z if `xyz`, otherwise z, y, x; an array of rank 3 has no z.
    ///
    /// # Errors
    /// [`Error`] if nothing exists at `location`, or it is not an array of vectors.
    pub fn open(location: &str, component: Option<usize>, xyz: bool) -> Result<Self, Error> {
        let found = open::find(location)?;
        let shape = &found.source.layout().shape;
        let rank = shape.len();
        let count = rank.saturating_sub(1) as u64;
        let component = match shape.as_slice() {
            _ if component
                .is_some_and(|d| matches!(rank, 3 | 4) && shape.get(d) == Some(&count)) =>
            {
                component.unwrap_or_default()
            }
            [.., last] if matches!(rank, 3 | 4) && *last == count => rank - 1,
            [first, ..] if matches!(rank, 3 | 4) && *first == count => 0,
            _ => {
                let message = format!(
                    "has the shape {shape:?}; a field has as many components as axes, in its last or first \
                     dimension"
                );
                return Err(Error::format(location, message));
            }
        };
        let mut space: Vec<Option<usize>> =
            (0..rank).filter(|d| *d != component).map(Some).collect();
        if xyz {
            space.reverse();
        }
        if rank == 3 {
            space.insert(0, None);
        }
        let known = (found.calibration.spacing, found.calibration.origin);
        let axes = [space[0], space[1], space[2]];
        Ok(Self { array: Array::of(location, found), axes, component, known })
    }

    /// Opens uncompressed elements in a file. Nothing is cached. A missing or too short file is
    /// reported when it is read.
    pub fn flat(file: FlatVectors) -> Self {
        let [z, y, x] = file.shape.map(|n| n as u64);
        let count = file.components as u64;
        let (shape, block, axes, component) = if file.planar {
            (vec![count, z, y, x], vec![1, 1, y, x], [Some(1), Some(2), Some(3)], 0)
        } else {
            (vec![z, y, x, count], vec![1, y, x, count], [Some(0), Some(1), Some(2)], 3)
        };
        let layout =
            ArrayLayout { shape, block, dtype: file.dtype, fill: vec![0; file.dtype.size()] };
        let source = FlatFile {
            location: file.location,
            path: file.path,
            offset: file.offset,
            layout,
            order: file.order,
            facts: serde_json::Map::new(),
        };
        let (location, path) = (source.location.clone(), source.path.clone());
        let found = OpenedArray {
            source: Box::new(source),
            names: Vec::new(),
            calibration: Calibration::unknown("a bare file does not say"),
            path,
            format: Format::Npy,
            attributes: serde_json::Map::new(),
            notes: Vec::new(),
        };
        let array = Array::of(&location, found);
        array.keep(0);
        Self { array, axes, component, known: (None, None) }
    }

    /// The fingerprint of the array's content and of how its dimensions are interpreted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn fingerprint(&self) -> Result<String, Error> {
        let axes = self.axes.map(|axis| axis.map_or(0, |d| d as u64 + 1));
        let mut fingerprint = Fingerprint::default();
        fingerprint.add(self.array.source.stored().fingerprint()?.as_bytes());
        fingerprint.add_counts(axes).add_counts([self.component as u64]);
        Ok(fingerprint.hex())
    }

    /// The number of vectors along z, y, x.
    pub fn shape(&self) -> [usize; 3] {
        self.view(0).shape(self.array.source.layout())
    }

    /// The number of components of a vector.
    pub fn components(&self) -> usize {
        self.array.source.layout().shape[self.component] as usize
    }

    /// Whether the elements are integers.
    pub fn is_integer(&self) -> bool {
        self.array.source.layout().dtype.is_integer()
    }

    /// Spacing along z, y, x and position of the first vector from the metadata, micrometres.
    pub fn calibration(&self) -> (Option<Point>, Option<Point>) {
        self.known
    }

    /// The vectors of `part`, which must lie within the array, in C order `(z, y, x)`. Components
    /// are in the order in which they are stored; the third of vectors with two components is 0.
    ///
    /// # Errors
    /// As [`super::Volume::read_into`].
    pub fn read(&self, part: &Box3) -> Result<Vec<[f64; 3]>, Error> {
        let mut vectors = vec![[0.0; 3]; part.len()];
        let mut values = vec![0.0f64; part.len()];
        for c in 0..self.components().min(3) {
            source::read(
                &*self.array.source,
                &self.array.cache,
                &self.view(c as u64),
                part,
                &mut values,
            )?;
            for (vector, value) in vectors.iter_mut().zip(&values) {
                vector[c] = *value;
            }
        }
        Ok(vectors)
    }

    /// Caches up to `bytes` of decoded chunks from now on.
    pub fn keep(&self, bytes: u64) {
        self.array.cache.keep(bytes);
    }

    /// Bytes of decoded chunks that further reading can add to the cache.
    pub fn kept_bytes(&self) -> u64 {
        source::kept_bytes(&*self.array.source, &self.array.cache)
    }

    /// Bytes that each thread holds while it reads, besides what it returns.
    pub fn scratch_bytes(&self) -> u64 {
        source::scratch_bytes(&*self.array.source)
    }

    fn view(&self, component: u64) -> View {
        let mut fixed = vec![0; self.array.source.layout().shape.len()];
        fixed[self.component] = component;
        View { axes: self.axes, fixed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Component `c` of the vector at z, y, x is `1000 c + 100 z + 10 y + x`.
    fn value([z, y, x]: [i64; 3], c: i64) -> f32 {
        (1000 * c + 100 * z + 10 * y + x) as f32
    }

    #[test]
    fn vectors_are_read_the_same_however_they_lie() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Box3::of_shape([2, 3, 4]);
        for planar in [false, true] {
            let voxels: Vec<[i64; 3]> = shape.tiles([1; 3]).map(|v| v.min).collect();
            let values: Vec<f32> = if planar {
                (0..3).flat_map(|c| voxels.iter().map(move |v| value(*v, c))).collect()
            } else {
                voxels.iter().flat_map(|v| (0..3).map(|c| value(*v, c))).collect()
            };
            let path = folder.path().join("raw");
            let mut bytes = vec![7u8; 11];
            bytes.extend(values.iter().flat_map(|v| v.to_be_bytes()));
            std::fs::write(&path, bytes).unwrap();
            let array = VectorArray::flat(FlatVectors {
                location: "raw".into(),
                path,
                offset: 11,
                dtype: Dtype::F32,
                order: ByteOrder::Big,
                shape: [2, 3, 4],
                components: 3,
                planar,
            });
            assert_eq!((array.shape(), array.components()), ([2, 3, 4], 3));
            let part = Box3::new([1, 0, 1], [2, 3, 3]);
            let want: Vec<[f64; 3]> = part
                .tiles([1; 3])
                .map(|v| std::array::from_fn(|c| f64::from(value(v.min, c as i64))))
                .collect();
            assert_eq!(array.read(&part).unwrap(), want);
        }
    }
}
