//! Validation of the fill value.

use super::{Error, Interpolation, Options};
use crate::volume::{Dtype, Voxel};
use crate::{blocks, quote, with_voxel};

/// Rejects a fill value that the output's data type cannot represent exactly.
pub(super) fn check(dtype: Dtype, options: &Options) -> Result<(), Error> {
    let fill = options.fill;
    let is_single = options.interpolation != Interpolation::Nearest;
    // interpolation computes in `f32`, and so the fill value is written as `f32` too
    let computed = if is_single && !dtype.is_integer() { Dtype::F32 } else { dtype };
    let [least, greatest] = computed.range();
    let wrong = if !computed.holds(fill) {
        let whole = if computed.is_integer() { "whole numbers" } else { "numbers" };
        format!(
            "wanted one of the {whole} from {} to {}",
            quote::number(least),
            quote::number(greatest)
        )
    } else if is_single
        && with_voxel!(dtype, T => T::DTYPE.is_integer() && T::from_f32(fill as f32) != T::from_f64(fill))
    {
        "and what is interpolated has 24 bits of precision; give one of so many bits, or --interpolation \
         nearest"
            .to_owned()
    } else {
        return Ok(());
    };
    let message = format!("--fill is {}, the output's type {dtype}; {wrong}", quote::number(fill));
    Err(blocks::Error::Usage(message).into())
}
