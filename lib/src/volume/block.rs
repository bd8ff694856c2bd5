//! How a block of an array lies in memory once it is loaded.

use super::dtype::ByteOrder;

/// How the elements of a loaded block lie in [`Scratch::data`](super::source::Scratch::data).
#[derive(Debug)]
pub(super) struct Block {
    /// The element, counted in strides, that the buffer begins with.
    pub(super) first: usize,
    /// Elements from one to the next along each dimension.
    pub(super) strides: Vec<usize>,
    /// The size of what is there; beyond it the fill value holds.
    pub(super) extent: Vec<u64>,
    /// Byte order of the elements.
    pub(super) order: ByteOrder,
}

impl Block {
    /// A whole block in C order.
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
