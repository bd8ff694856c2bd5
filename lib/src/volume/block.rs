//! The memory layout of a loaded block of an array.

use super::dtype::ByteOrder;

/// The layout of a loaded block's elements in [`Scratch::data`](super::source::Scratch::data).
#[derive(Debug)]
pub(super) struct Block {
    /// The offset in elements, as `strides` count them, at which the buffer begins.
    pub(super) first: usize,
    /// Distance in elements between neighbours along each dimension.
    pub(super) strides: Vec<usize>,
    /// Stored elements along each dimension; elements beyond them have the fill value.
    pub(super) extent: Vec<u64>,
    /// Byte order of the elements.
    pub(super) order: ByteOrder,
}

impl Block {
    /// A complete block in C order.
    pub(super) fn whole(extent: &[u64], order: ByteOrder) -> Self {
        Self { first: 0, strides: c_strides(extent), extent: extent.to_vec(), order }
    }
}

/// Strides of a C-order array, in elements.
pub(super) fn c_strides(shape: &[u64]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d] as usize;
    }
    strides
}
