use super::Volume;

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
