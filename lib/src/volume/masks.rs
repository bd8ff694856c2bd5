use serde::{Deserialize, Serialize};

use super::Volume;

/// What the pixels of a mask show. Pixels of a mask are used where its value is above 0, so that the
/// labels of what is not compared are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Label {
    /// No tissue, or tissue that cannot be used: resin, padding, dirt, charging.
    Excluded,
    /// Tissue.
    Tissue,
    /// Tissue that deforms more easily.
    Soft,
    /// A tear: the tissue to both sides was connected.
    Tear,
    /// A wrinkle: the tissue to both sides overlaps or is hidden.
    Wrinkle,
}

impl Label {
    /// All labels.
    pub const ALL: [Self; 5] =
        [Self::Excluded, Self::Tissue, Self::Soft, Self::Tear, Self::Wrinkle];

    /// The value of the label in a mask.
    pub const fn value(self) -> i8 {
        match self {
            Self::Excluded => 0,
            Self::Tissue => 1,
            Self::Soft => 2,
            Self::Tear => -1,
            Self::Wrinkle => -2,
        }
    }

    /// The label of a value of a mask. Masks can have any values above 0 where voxels are used.
    pub fn of(value: f32) -> Self {
        match value {
            v if v == f32::from(Self::Soft.value()) => Self::Soft,
            v if v == f32::from(Self::Tear.value()) => Self::Tear,
            v if v == f32::from(Self::Wrinkle.value()) => Self::Wrinkle,
            v if v > 0.0 => Self::Tissue,
            _ => Self::Excluded,
        }
    }

    /// The name of the label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Excluded => "excluded",
            Self::Tissue => "tissue",
            Self::Soft => "soft",
            Self::Tear => "tear",
            Self::Wrinkle => "wrinkle",
        }
    }
}

/// The masks of a pair of volumes: only voxels above 0 are used.
#[derive(Clone, Copy, Debug, Default)]
pub struct Masks<'a> {
    /// Mask of the fixed volume, on any grid.
    pub fixed: Option<&'a Volume>,
    /// Mask of the moving volume, on any grid.
    pub moving: Option<&'a Volume>,
}

/// Sets the voxels where the mask is not above 0 to NaN; all voxels if the mask has none there.
///
/// * `mask`: the mask on the grid of the image; `None` if it does not reach this grid
pub(crate) fn cut_out(image: &mut [f32], mask: Option<&[f32]>) {
    match mask {
        None => image.fill(f32::NAN),
        Some(mask) => {
            for (v, _) in image.iter_mut().zip(mask).filter(|(_, inside)| !(**inside > 0.0)) {
                *v = f32::NAN;
            }
        }
    }
}
