//! The codec chain of an array's chunks.
//!
//! Specifications: Zarr v3, "Codecs" (<https://zarr-specs.readthedocs.io/en/latest/v3/core/>), and
//! the sharding codec, version 1.0; Zarr v2, "Filters" and "Compressors". Sizes are in the array's
//! dimension order, unless a name contains `stored`.

use super::shard::Shard;
use crate::volume::block::c_strides;
use crate::volume::codecs::{self, Size, Step};
use crate::volume::dtype::ByteOrder;

/// The codecs of an array, or of the inner chunks of a shard.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// The array dimension of each stored dimension; `None` if the order is unchanged.
    pub(super) order: Option<Vec<usize>>,
    /// The conversion of elements to bytes.
    pub(super) body: Body,
    /// The codecs that are then applied to the bytes, in this order.
    pub(super) steps: Vec<Step>,
}

/// The conversion of elements to bytes.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Elements in C order.
    Elements(ByteOrder),
    /// Inner chunks with an index.
    Shard(Box<Shard>),
}

impl Chain {
    /// The byte order of the elements; with nested shards, that of the innermost chunks.
    pub(super) fn byte_order(&self) -> ByteOrder {
        match &self.body {
            Body::Elements(order) => *order,
            Body::Shard(shard) => shard.chain.byte_order(),
        }
    }

    /// The byte order, if chunks are stored uncompressed and in C order; `None` otherwise.
    pub(super) fn raw_order(&self) -> Option<ByteOrder> {
        match &self.body {
            Body::Elements(order) if self.order.is_none() && self.steps.is_empty() => Some(*order),
            _ => None,
        }
    }

    /// The shard codec, if its inner chunks can be read individually.
    pub(super) fn shard(&self) -> Option<&Shard> {
        match &self.body {
            Body::Shard(shard) if self.order.is_none() && self.steps.is_empty() => Some(shard),
            _ => None,
        }
    }

    /// The stored shape of a chunk of `shape`.
    pub(super) fn stored_shape(&self, shape: &[u64]) -> Vec<u64> {
        match &self.order {
            Some(order) => order.iter().map(|d| shape[*d]).collect(),
            None => shape.to_vec(),
        }
    }

    /// The size in bytes of a chunk of `shape` before `steps`, for elements of `size` bytes.
    fn plain(&self, shape: &[u64], size: usize) -> Size {
        match &self.body {
            Body::Elements(_) => Size::Exactly(shape.iter().product::<u64>() as usize * size),
            Body::Shard(shard) => {
                let inner = shard.chain.encoded(&shard.chunk, size).max();
                let count = shard.count(&self.stored_shape(shape)) as usize;
                Size::AtMost(count.saturating_mul(inner.saturating_add(16)).saturating_add(4))
            }
        }
    }

    /// The size in bytes of an encoded chunk of `shape`, for elements of `size` bytes.
    pub(super) fn encoded(&self, shape: &[u64], size: usize) -> Size {
        codecs::encoded(&self.steps, self.plain(shape, size))
    }

    /// Decodes a chunk of `shape` with elements of `fill.len()` bytes into `out`, in C order.
    /// Elements, like `fill`, have the byte order [`Chain::byte_order`].
    ///
    /// # Errors
    /// A message about what is invalid in `input`.
    pub(super) fn decode(
        &self,
        input: &[u8],
        shape: &[u64],
        fill: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let size = fill.len();
        codecs::decode(&self.steps, input, self.plain(shape, size), out)?;
        let stored = self.stored_shape(shape);
        if let Body::Shard(shard) = &self.body {
            let file = std::mem::take(out);
            shard.decode(&file, &stored, fill, out)?;
        }
        if let Some(order) = &self.order {
            let bytes = std::mem::take(out);
            turn(&bytes, &stored, order, size, out);
        }
        Ok(())
    }
}

/// Transposes elements from the stored dimension order to that of the array.
fn turn(bytes: &[u8], stored: &[u64], order: &[usize], size: usize, out: &mut Vec<u8>) {
    let mut shape = vec![0; stored.len()];
    let mut strides = vec![0; stored.len()];
    for (i, (d, stride)) in order.iter().zip(c_strides(stored)).enumerate() {
        (shape[*d], strides[*d]) = (stored[i], stride);
    }
    out.clear();
    out.reserve_exact(bytes.len());
    each_row(&shape, |at, length| {
        let start: usize = at.iter().zip(&strides).map(|(at, stride)| *at as usize * stride).sum();
        let step = strides.last().copied().unwrap_or(1);
        for i in 0..length {
            let element = (start + i * step) * size;
            out.extend_from_slice(&bytes[element..element + size]);
        }
    });
}

/// Calls `row` for every row along the last dimension, with the index of its first element and its
/// number of elements.
pub(super) fn each_row(shape: &[u64], mut row: impl FnMut(&[u64], usize)) {
    let Some((last, rest)) = shape.split_last() else { return };
    if shape.contains(&0) {
        return;
    }
    let mut at = vec![0; shape.len()];
    loop {
        row(&at, *last as usize);
        let mut d = rest.len();
        loop {
            if d == 0 {
                return;
            }
            d -= 1;
            at[d] += 1;
            if at[d] < rest[d] {
                break;
            }
            at[d] = 0;
        }
    }
}
