use std::sync::Arc;

use super::affine::corners;
use super::{Affine, FieldPart, FieldSource, LocalAffines, Point, SourceError};

/// One step of a chain.
#[derive(Clone)]
pub enum Transform {
    /// A 3x4 matrix.
    Affine(Affine),
    /// One affine per block, blended.
    LocalAffines(Arc<LocalAffines>),
    /// A displacement field, read where it is needed.
    Field(Arc<dyn FieldSource>),
}

/// Transforms in the order in which they are applied: `[T1, T2]` takes `p` to `T2(T1(p))`.
#[derive(Clone, Default)]
pub struct Chain {
    /// The steps, first applied first.
    pub steps: Vec<Transform>,
}

impl Chain {
    /// A chain of one affine.
    pub fn affine(map: Affine) -> Self {
        Self { steps: vec![Transform::Affine(map)] }
    }

    /// The one matrix that the chain amounts to, where all its steps are matrices.
    pub fn as_affine(&self) -> Option<Affine> {
        self.steps.iter().try_fold(Affine::IDENTITY, |sum, step| match step {
            Transform::Affine(map) => Some(sum.then(map)),
            _ => None,
        })
    }

    /// Whether its displacement fields have anything to say of the extent `[low, high]`.
    ///
    /// A field whose [`FieldSource::reach`] is not known may take points anywhere, as far as this knows.
    ///
    /// # Errors
    /// [`FieldApart`] for the first field that no point of the extent can come to lie in.
    pub fn check_fields(&self, extent: [Point; 2]) -> Result<(), FieldApart> {
        let mut image = extent;
        for (i, step) in self.steps.iter().enumerate() {
            match step {
                Transform::Affine(map) => image = image_of(map, image),
                Transform::LocalAffines(maps) => image = maps.image_of(image),
                Transform::Field(source) => {
                    let grid = source.grid();
                    if grid.enclosing(image).intersect(&grid.bounds()).is_empty() {
                        let field = grid.extent(&grid.bounds());
                        return Err(FieldApart { step: i + 1, field, points: image });
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

    /// The chain for points of the extent `[low, high]` alone, with what its fields say there in
    /// memory, and the extent that holds every image of it.
    ///
    /// Neighbouring matrices become one.
    ///
    /// # Errors
    /// What a field's source says.
    pub fn localise(&self, extent: [Point; 2]) -> Result<(LocalChain, [Point; 2]), SourceError> {
        self.localise_into(extent, |len| vec![[0.0; 3]; len])
    }

    /// As [`Chain::localise`], with buffers of at least so many vectors from `buffer`, which may have been
    /// used before.
    ///
    /// # Errors
    /// What a field's source says.
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
                    if part.is_empty() {
                        continue; // displacement 0 outside the field
                    }
                    // one sample more, so that the rim of the part is the field's only where it is
                    let part = part.grow([1; 3]).intersect(&grid.bounds());
                    let mut vectors = buffer(part.len());
                    source.read_into(&part, &mut vectors[..part.len()])?;
                    let field = FieldPart { grid, part, vectors };
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

/// A displacement field that says nothing of the points that it is to displace.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "step {step} of the transform, a displacement field, covers {} and the voxels come to lie at {}: they have \
     nothing in common; check the field's origin and unit, and the order of the steps",
    said(field),
    said(points)
)]
pub struct FieldApart {
    /// Its number in the chain, from 1.
    pub step: usize,
    /// The field's extent, micrometres.
    pub field: [Point; 2],
    /// The extent of the points, micrometres.
    pub points: [Point; 2],
}

/// An extent in words.
fn said([low, high]: &[Point; 2]) -> String {
    let axis = |a: usize| format!("{} {:.1}..{:.1}", ["z", "y", "x"][a], low[a], high[a]);
    format!("{}, {}, {} um", axis(0), axis(1), axis(2))
}

/// One step of a [`LocalChain`], in memory.
#[derive(Clone)]
pub enum LocalStep {
    /// A matrix.
    Affine(Affine),
    /// Blended blocks.
    LocalAffines(Arc<LocalAffines>),
    /// The part of a field that can be met.
    Field(FieldPart),
}

/// A chain for one extent, wholly in memory.
#[derive(Clone, Default)]
pub struct LocalChain {
    /// The steps, first applied first.
    pub steps: Vec<LocalStep>,
}

impl LocalChain {
    /// Vectors of all its fields.
    pub fn vectors(&self) -> usize {
        let count = |step: &LocalStep| match step {
            LocalStep::Field(field) => field.part.len(),
            _ => 0,
        };
        self.steps.iter().map(count).sum()
    }

    /// Where it takes `p`, a point of the extent that it was made for.
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

    /// The one matrix that it amounts to, if it is one.
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
