use std::sync::Arc;

use super::affine::corners;
use super::{Affine, FieldPart, FieldSource, LocalAffines, Point, SourceError};

/// One step of a chain.
#[derive(Clone)]
pub enum Transform {
    /// A 3x4 matrix.
    Affine(Affine),
    /// One affine per block, blended at the block boundaries.
    LocalAffines(Arc<LocalAffines>),
    /// A displacement field, of which parts are read on demand.
    Field(Arc<dyn FieldSource>),
}

/// A sequence of transforms in the order in which they are applied: `[T1, T2]` maps `p` to
/// `T2(T1(p))`.
///
/// ```
/// use std::sync::Arc;
/// use voxloom::geom::{Affine, Chain, Field, Grid, Transform};
/// use voxloom::warp::points;
///
/// let grid = Grid::new([2, 2, 2], [10.0; 3], [0.0; 3]);
/// let field = Field { grid, vectors: vec![[0.0, 0.0, 1.5]; 8] };
/// let steps = vec![
///     Transform::Field(Arc::new(field)),
///     Transform::Affine(Affine::translation([1.0, 0.0, 0.0])),
/// ];
/// let chain = Chain { steps };
/// assert_eq!(points::forward(&chain, &[[5.0; 3]])?, [[6.0, 5.0, 6.5]]);
/// # Ok::<(), voxloom::warp::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Chain {
    /// The steps; the first is applied first.
    pub steps: Vec<Transform>,
}

impl Chain {
    /// A chain of one affine.
    pub fn affine(map: Affine) -> Self {
        Self { steps: vec![Transform::Affine(map)] }
    }

    /// The equivalent single affine if all steps are affine, otherwise `None`.
    pub fn as_affine(&self) -> Option<Affine> {
        self.steps.iter().try_fold(Affine::IDENTITY, |sum, step| match step {
            Transform::Affine(map) => Some(sum.then(map)),
            _ => None,
        })
    }

    /// Checks that each displacement field overlaps the points that it would be applied to.
    ///
    /// The check follows the extent `[low, high]` (micrometres) through the steps. It stops at a
    /// field whose [`FieldSource::reach`] is unknown, because such a field can move points
    /// anywhere.
    ///
    /// # Errors
    /// [`UnreachedField`] for the first field that lies wholly outside the extent of the points at
    /// that step.
    pub fn check_fields(&self, extent: [Point; 2]) -> Result<(), UnreachedField> {
        let mut image = extent;
        for (i, step) in self.steps.iter().enumerate() {
            match step {
                Transform::Affine(map) => image = image_of(map, image),
                Transform::LocalAffines(maps) => image = maps.image_of(image),
                Transform::Field(source) => {
                    let grid = source.grid();
                    if grid.enclosing(image).intersect(&grid.bounds()).is_empty() {
                        let field = grid.extent(&grid.bounds());
                        return Err(UnreachedField { step: i + 1, field, points: image });
                    }
                    let Some(reach) = source.reach() else { return Ok(()) };
                    for a in 0..3 {
                        image[0][a] -= reach[a];
                        image[1][a] += reach[a];
                    }
                }
            }
        }
        Ok(())
    }

    /// Restricts the chain to points of the extent `[low, high]` (micrometres), and reads into
    /// memory the parts of its fields that these points can reach.
    ///
    /// Returns the restricted chain and an extent that contains the images of all the points.
    /// Adjacent affines are multiplied into one. A field that no point reaches is left out or, if
    /// displacements outside it are unknown (NaN), replaced by a step that maps every point to NaN;
    /// the returned extent is then meaningless.
    ///
    /// # Errors
    /// Any error of a field's source.
    pub fn localise(&self, extent: [Point; 2]) -> Result<(LocalChain, [Point; 2]), SourceError> {
        self.localise_into(extent, |len| vec![[0.0; 3]; len])
    }

    /// Like [`Chain::localise`], but `buffer` provides the memory for the vectors. `buffer` takes a
    /// number of vectors and returns a `Vec` of at least that length with arbitrary contents.
    ///
    /// # Errors
    /// Any error of a field's source.
    pub fn localise_into(
        &self,
        extent: [Point; 2],
        buffer: impl Fn(usize) -> Vec<[f32; 3]>,
    ) -> Result<(LocalChain, [Point; 2]), SourceError> {
        let mut steps: Vec<LocalStep> = Vec::new();
        let mut image = extent;
        for step in &self.steps {
            match step {
                Transform::Affine(map) => {
                    image = image_of(map, image);
                    if let Some(LocalStep::Affine(last)) = steps.last_mut() {
                        *last = last.then(map);
                    } else {
                        steps.push(LocalStep::Affine(*map));
                    }
                }
                Transform::LocalAffines(maps) => {
                    image = maps.image_of(image);
                    steps.push(LocalStep::LocalAffines(Arc::clone(maps)));
                }
                Transform::Field(source) => {
                    let grid = source.grid();
                    let part = grid.enclosing(image).intersect(&grid.bounds());
                    let exterior = source.exterior();
                    if part.is_empty() {
                        if exterior != 0.0 {
                            steps.push(LocalStep::Affine(Affine::translation([exterior; 3])));
                        }
                        continue;
                    }
                    // add one sample on each side, so that a point of the image lies at an edge of
                    // the part only if this edge is also an edge of the field
                    let part = part.grow([1; 3]).intersect(&grid.bounds());
                    let mut vectors = buffer(part.len());
                    source.read_into(&part, &mut vectors[..part.len()])?;
                    let field = FieldPart { grid, part, vectors, exterior };
                    let [least, most] = field.range();
                    image = [
                        std::array::from_fn(|a| image[0][a] + least[a]),
                        std::array::from_fn(|a| image[1][a] + most[a]),
                    ];
                    steps.push(LocalStep::Field(field));
                }
            }
        }
        Ok((LocalChain { steps }, image))
    }
}

/// The error for a displacement field that does not overlap the points to be displaced.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "step {step} of the transform, a displacement field, covers {} and the voxels come to lie at {}: they have \
     nothing in common; check the field's origin and unit, and the order of the steps",
    format_extent(field),
    format_extent(points)
)]
pub struct UnreachedField {
    /// The step's number in the chain, counted from 1.
    pub step: usize,
    /// The field's extent `[low, high]`, micrometres.
    pub field: [Point; 2],
    /// The extent `[low, high]` of the points at that step, micrometres.
    pub points: [Point; 2],
}

/// An extent formatted for a message.
fn format_extent([low, high]: &[Point; 2]) -> String {
    let axis = |a: usize| format!("{} {:.1}..{:.1}", ["z", "y", "x"][a], low[a], high[a]);
    format!("{}, {}, {} um", axis(0), axis(1), axis(2))
}

/// One step of a [`LocalChain`], wholly in memory.
#[derive(Clone)]
pub enum LocalStep {
    /// One affine.
    Affine(Affine),
    /// One affine per block, blended at the block boundaries.
    LocalAffines(Arc<LocalAffines>),
    /// The part of a field that points of the chain's extent can reach.
    Field(FieldPart),
}

/// A chain restricted to one extent, wholly in memory.
#[derive(Clone, Default)]
pub struct LocalChain {
    /// The steps; the first is applied first.
    pub steps: Vec<LocalStep>,
}

impl LocalChain {
    /// The total number of vectors in all its fields.
    pub fn vectors(&self) -> usize {
        let count = |step: &LocalStep| match step {
            LocalStep::Field(field) => field.part.len(),
            _ => 0,
        };
        self.steps.iter().map(count).sum()
    }

    /// The image of `p`; `p` must lie in the extent to which the chain was restricted.
    pub fn apply(&self, p: Point) -> Point {
        self.steps.iter().fold(p, |p, step| match step {
            LocalStep::Affine(map) => map.apply(p),
            LocalStep::LocalAffines(maps) => maps.apply(p),
            LocalStep::Field(field) => {
                let u = field.displacement(p);
                std::array::from_fn(|a| p[a] + u[a])
            }
        })
    }

    /// Whether the image of every point of the extent is unknown (NaN), because all points lie
    /// outside a field whose displacements are unknown there.
    pub fn is_unknown(&self) -> bool {
        self.steps.iter().any(|step| match step {
            LocalStep::Affine(map) => map.rows().as_flattened().iter().any(|v| v.is_nan()),
            _ => false,
        })
    }

    /// The equivalent single affine if all steps are affine, otherwise `None`.
    pub fn as_affine(&self) -> Option<Affine> {
        self.steps.iter().try_fold(Affine::IDENTITY, |sum, step| match step {
            LocalStep::Affine(map) => Some(sum.then(map)),
            _ => None,
        })
    }
}

fn image_of(map: &Affine, extent: [Point; 2]) -> [Point; 2] {
    let mut image = [[f64::INFINITY; 3], [f64::NEG_INFINITY; 3]];
    for q in corners(extent).map(|p| map.apply(p)) {
        for a in 0..3 {
            image[0][a] = image[0][a].min(q[a]);
            image[1][a] = image[1][a].max(q[a]);
        }
    }
    image
}

#[cfg(test)]
mod tests {
    use super::super::{Field, Grid};
    use super::*;

    #[test]
    fn a_local_chain_agrees_with_its_steps_and_its_image_holds_it() {
        let grid = Grid::new([6, 6, 6], [1.0; 3], [0.0; 3]);
        let vectors =
            (0..216).map(|i| [0.1 * (i % 7) as f32, -0.2, 0.05 * (i % 3) as f32]).collect();
        let field = Field { grid, vectors };
        let map = Affine::from_parts(
            [[1.1, 0.0, 0.1], [0.0, 0.9, 0.0], [0.0, 0.2, 1.0]],
            [0.5, 0.1, -0.3],
        );
        let chain = Chain {
            steps: vec![Transform::Affine(map), Transform::Field(Arc::new(field.clone()))],
        };
        let extent = [[1.0, 1.0, 1.0], [2.0, 3.0, 2.5]];
        let (local, image) = chain.localise(extent).unwrap();
        for p in corners(extent) {
            let q = map.apply(p);
            let u = field.displacement(q);
            let want: Point = std::array::from_fn(|a| q[a] + u[a]);
            let got = local.apply(p);
            for a in 0..3 {
                assert!((got[a] - want[a]).abs() < 1e-6);
                assert!(image[0][a] <= got[a] && got[a] <= image[1][a]);
            }
        }
    }
}
