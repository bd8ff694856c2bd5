//! Geometry: boxes of voxels, grids in space, affines, chains of transforms, displacement fields.
//!
//! Points, sizes, spacings and vectors are `[z, y, x]`; physical units are micrometres; all
//! arithmetic is `f64`. Transforms *pull*: they take a point of the fixed (output) space to the
//! moving (input) space.

mod affine;
mod boxes;
mod chain;
pub mod defaults;
mod field;
mod fit;
mod grid;
mod local_affines;
mod solve;

pub use affine::{Affine, Parts, SingularError};
pub use boxes::Box3;
pub use chain::{Chain, LocalChain, LocalStep, Transform, UnreachedField};
pub use field::{Field, FieldPart, FieldSource, SourceError};
pub(crate) use fit::principal_extents;
pub use fit::{FitError, Model, fit};
pub use grid::Grid;
pub use local_affines::LocalAffines;
pub use solve::{Accuracy, Solution, conjugate_gradients};

/// A position or a vector, `[z, y, x]`, in micrometres or voxels, as stated where it is used.
pub type Point = [f64; 3];
