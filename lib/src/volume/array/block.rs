//! The memory layout of a loaded block of an array.

use crate::volume::dtype::ByteOrder;

/// The layout of a loaded block's elements in [`Scratch::data`](crate::volume::source::Scratch::data).
#[derive(Debug)]
pub(in crate::volume) struct Block {
    /// The offset, in elements, of the buffer's first element from the block's first element: the
    /// sum, over the dimensions, of its index times its stride. It is 0 if the block was read from
    /// its first element.
    pub(in crate::volume) first: usize,
    /// Distance in elements between neighbours along each dimension.
    pub(in crate::volume) strides: Vec<usize>,
    /// The number of stored elements along each dimension; elements beyond it have the fill value.
    pub(in crate::volume) extent: Vec<u64>,
    /// Byte order of the elements.
    pub(in crate::volume) order: ByteOrder,
}

impl Block {
    /// A complete block in C order.
    pub(in crate::volume) fn whole(extent: &[u64], order: ByteOrder) -> Self {
        Self { first: 0, strides: c_strides(extent), extent: extent.to_vec(), order }
    }
}

/// Strides of a C-order array, in elements.
pub(in crate::volume) fn c_strides(shape: &[u64]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for d in (1..shape.len()).rev() {
        strides[d - 1] = strides[d] * shape[d] as usize;
    }
    strides
}
