use super::{Box3, Grid, Point};
use crate::fingerprint::Fingerprint;

/// The reason why part of a field could not be read; callers wrap it in their own errors.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// A displacement field that is read box by box from wherever it is stored.
pub trait FieldSource: Send + Sync {
    /// The grid of the vectors; its shape counts vectors.
    fn grid(&self) -> Grid;

    /// Reads the vectors of `part`, which must lie within the grid. The vectors are in C order and
    /// have the components z, y, x in micrometres.
    ///
    /// # Errors
    /// Any failure to read the vectors.
    fn read(&self, part: &Box3) -> Result<Vec<[f32; 3]>, SourceError>;

    /// Like [`FieldSource::read`], into a buffer of `part.len()` vectors.
    ///
    /// # Errors
    /// As [`FieldSource::read`].
    fn read_into(&self, part: &Box3, out: &mut [[f32; 3]]) -> Result<(), SourceError> {
        out.copy_from_slice(&self.read(part)?);
        Ok(())
    }

    /// The value of each component of the displacement at positions more than half a sample outside
    /// the extent of the samples: 0 if nothing moves there, NaN if the displacement is unknown
    /// there.
    fn exterior(&self) -> f64 {
        0.0
    }

    /// An upper bound on the absolute displacement along each axis (micrometres); `None` if
    /// unknown.
    fn reach(&self) -> Option<Point> {
        None
    }

    /// Sets the limit, in bytes, of the cache of decoded chunks that is kept between reads.
    fn keep(&self, _bytes: u64) {}

    /// The number of bytes that further reads can add to the cache of decoded chunks.
    fn kept_bytes(&self) -> u64 {
        0
    }

    /// The temporary memory that each thread needs for a read, bytes, besides the vectors returned.
    fn scratch_bytes(&self) -> u64 {
        0
    }

    /// The fingerprint of the grid and all vectors; it does not depend on how they are stored.
    ///
    /// # Errors
    /// Any failure to read the vectors.
    fn fingerprint(&self) -> Result<String, SourceError> {
        let grid = self.grid();
        let mut fingerprint = Fingerprint::default();
        grid.add_to(&mut fingerprint);
        for plane in grid.bounds().tiles([1, grid.shape[1], grid.shape[2]]) {
            let vectors = self.read(&plane)?;
            fingerprint.add_numbers(vectors.as_flattened().iter().copied().map(f64::from));
        }
        Ok(fingerprint.hex())
    }
}

/// A displacement field in memory: `p -> p + u(p)`, with `u` in micrometres.
///
/// `u` is interpolated trilinearly between the samples. Up to half a sample beyond the outermost
/// samples it takes the nearest edge value (as in ITK); farther out it is 0.
#[derive(Clone, Debug)]
pub struct Field {
    /// The grid of the vectors.
    pub grid: Grid,
    /// Vectors in C order `(z, y, x)`, components z, y, x, micrometres; NaN where unknown.
    pub vectors: Vec<[f32; 3]>,
}

impl Field {
    /// The displacement at a physical position, micrometres.
    ///
    /// It is 0 more than half a sample outside the extent of the samples, and NaN where a NaN
    /// sample contributes.
    ///
    /// ```
    /// use voxloom::geom::{Field, Grid};
    ///
    /// let grid = Grid::new([1, 1, 2], [1.0, 1.0, 4.0], [0.0; 3]);
    /// let field = Field { grid, vectors: vec![[0.0, 0.0, 0.0], [0.0, 0.0, 2.0]] };
    /// assert_eq!(field.displacement([0.0, 0.0, 3.0]), [0.0, 0.0, 1.5]);
    /// // farther out than half a sample, nothing moves
    /// assert_eq!(field.displacement([0.0, 0.0, 7.0]), [0.0; 3]);
    /// ```
    pub fn displacement(&self, p: Point) -> Point {
        trilinear(&self.vectors, self.grid.shape, self.grid.index(p), 0.0)
    }

    /// The minimum and maximum displacement along each axis; NaN is ignored, and the range always
    /// includes 0.
    pub fn range(&self) -> [Point; 2] {
        range(&self.vectors)
    }
}

/// A part of a displacement field in memory.
///
/// Sample indices are computed on the grid of the whole field, so that rounding does not depend on
/// the part: a voxel gets bit-identical results in whichever block it is computed.
#[derive(Clone, Debug)]
pub struct FieldPart {
    /// The grid of the whole field.
    pub grid: Grid,
    /// The box of samples that is in memory.
    pub part: Box3,
    /// The vectors of `part` in C order `(z, y, x)`, components z, y, x, micrometres; NaN where
    /// unknown. Elements after the first `part.len()` are unused.
    pub vectors: Vec<[f32; 3]>,
    /// The displacement outside the field, as [`FieldSource::exterior`].
    pub exterior: f64,
}

impl FieldPart {
    /// The number of samples along z, y, x.
    pub fn shape(&self) -> [usize; 3] {
        self.part.shape()
    }

    /// The fractional sample index of a physical position, relative to the first sample of the
    /// part.
    #[inline(always)]
    pub fn index(&self, p: Point) -> Point {
        let index = self.grid.index(p);
        // the difference is exact, because `part.min` is an integer not much larger than the index
        std::array::from_fn(|a| index[a] - self.part.min[a] as f64)
    }

    /// The displacement at a physical position, micrometres: as [`Field::displacement`], but only
    /// from the samples of `part`, and with `exterior` in place of 0 outside.
    #[inline(always)]
    pub fn displacement(&self, p: Point) -> Point {
        trilinear(&self.vectors, self.shape(), self.index(p), self.exterior)
    }

    /// The minimum and maximum displacement, as [`Field::range`].
    pub fn range(&self) -> [Point; 2] {
        range(&self.vectors[..self.part.len()])
    }

    /// Whether the displacement is unknown (NaN) anywhere.
    pub fn has_unknown(&self) -> bool {
        let vectors = self.vectors[..self.part.len()].as_flattened();
        self.exterior.is_nan() || vectors.iter().any(|v| v.is_nan())
    }
}

impl From<Field> for FieldPart {
    fn from(field: Field) -> Self {
        let part = field.grid.bounds();
        Self { grid: field.grid, part, vectors: field.vectors, exterior: 0.0 }
    }
}

/// The trilinearly interpolated vector at a fractional index; `exterior` if the index is more than
/// half a sample outside the samples.
#[inline(always)]
fn trilinear(vectors: &[[f32; 3]], shape: [usize; 3], index: Point, exterior: f64) -> Point {
    let mut low = [0usize; 3];
    let mut frac = [0.0; 3];
    for a in 0..3 {
        let last = shape[a] as f64 - 1.0;
        if !(index[a] >= -0.5 && index[a] <= last + 0.5) {
            return [exterior; 3];
        }
        let at = index[a].clamp(0.0, last);
        low[a] = (at as usize).min(shape[a].saturating_sub(2));
        frac[a] = at - low[a] as f64;
    }
    let mut sum = [0.0; 3];
    for corner in 0..8usize {
        let mut weight = 1.0;
        let mut at = [0usize; 3];
        for a in 0..3 {
            let upper = corner >> a & 1;
            weight *= if upper == 1 { frac[a] } else { 1.0 - frac[a] };
            at[a] = low[a] + upper;
        }
        if weight != 0.0 {
            let u = vectors[(at[0] * shape[1] + at[1]) * shape[2] + at[2]];
            for a in 0..3 {
                sum[a] += weight * f64::from(u[a]);
            }
        }
    }
    sum
}

fn range(vectors: &[[f32; 3]]) -> [Point; 2] {
    let mut range = [[0.0f32; 3]; 2];
    for u in vectors {
        for a in 0..3 {
            range[0][a] = u[a].min(range[0][a]);
            range[1][a] = u[a].max(range[1][a]);
        }
    }
    range.map(|end| end.map(f64::from))
}

impl FieldSource for Field {
    fn grid(&self) -> Grid {
        self.grid
    }

    fn read(&self, part: &Box3) -> Result<Vec<[f32; 3]>, SourceError> {
        let shape = self.grid.shape;
        let mut out = Vec::with_capacity(part.len());
        for z in part.min[0]..part.max[0] {
            for y in part.min[1]..part.max[1] {
                let row = (z as usize * shape[1] + y as usize) * shape[2];
                out.extend_from_slice(
                    &self.vectors[row + part.min[2] as usize..row + part.max[2] as usize],
                );
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_field_is_sampled_exactly_and_ends_at_its_rim() {
        let grid = Grid::new([3, 4, 5], [2.0, 1.0, 0.5], [1.0, 0.0, 0.0]);
        let vectors = (0..60)
            .map(|i| {
                let p = grid.position([(i / 20) as f64, (i / 5 % 4) as f64, (i % 5) as f64]);
                [p[0] as f32, p[1] as f32, p[2] as f32]
            })
            .collect();
        let field = Field { grid, vectors };
        let u = field.displacement([2.5, 1.25, 0.6]);
        assert!((u[0] - 2.5).abs() < 1e-6 && (u[1] - 1.25).abs() < 1e-6);
        assert_eq!(field.displacement([6.1, 1.0, 1.0]), [0.0; 3]);
        assert_eq!(field.displacement([5.9, 3.0, 2.0]), [5.0, 3.0, 2.0]);
        assert_eq!(field.displacement([5.0, 3.0, 2.0]), [5.0, 3.0, 2.0]);
    }
}
