//! How the chunks of an array become bytes, and back.
//!
//! Zarr v3, "Codecs" (<https://zarr-specs.readthedocs.io/en/latest/v3/core/>), and the sharding
//! codec, version 1.0; Zarr v2, "Filters" and "Compressors". Sizes are in array order unless a name
//! says that they are stored ones.

use super::shard::Shard;
use crate::volume::block::c_strides;
use crate::volume::codecs::{self, Size, Step};
use crate::volume::dtype::ByteOrder;

/// The codecs of an array, or of the inner chunks of a shard.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// The dimension of the array that each stored dimension is; `None` where they are the same.
    pub(super) order: Option<Vec<usize>>,
    /// How elements become bytes.
    pub(super) body: Body,
    /// What is then done to the bytes.
    pub(super) steps: Vec<Step>,
}

/// How elements become bytes.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// One after the other.
    Elements(ByteOrder),
    /// In inner chunks.
    Shard(Box<Shard>),
}

impl Chain {
    /// The byte order of elements, in the innermost chunks where there are several layers.
    pub(super) fn byte_order(&self) -> ByteOrder {
        match &self.body {
            Body::Elements(order) => *order,
            Body::Shard(shard) => shard.chain.byte_order(),
        }
    }

    /// The byte order of chunks whose elements lie in the file as they are in the array.
    pub(super) fn as_it_is(&self) -> Option<ByteOrder> {
        match &self.body {
            Body::Elements(order) if self.order.is_none() && self.steps.is_empty() => Some(*order),
            _ => None,
        }
    }

    /// The shard, where its inner chunks can be read one by one.
    pub(super) fn shard(&self) -> Option<&Shard> {
        match &self.body {
            Body::Shard(shard) if self.order.is_none() && self.steps.is_empty() => Some(shard),
            _ => None,
        }
    }

    /// The shape in which a chunk of `shape` is stored.
    pub(super) fn stored_shape(&self, shape: &[u64]) -> Vec<u64> {
        match &self.order {
            Some(order) => order.iter().map(|d| shape[*d]).collect(),
            None => shape.to_vec(),
        }
    }

    /// The bytes that a chunk of `shape` takes before the steps.
    fn plain(&self, shape: &[u64], size: usize) -> Size {
        match &self.body {
            Body::Elements(_) => Size::Exactly(shape.iter().product::<u64>() as usize * size),
            Body::Shard(shard) => {
                let inner = shard.chain.encoded(&shard.chunk, size).most();
                let count = shard.count(&self.stored_shape(shape)) as usize;
                Size::AtMost(count.saturating_mul(inner.saturating_add(16)).saturating_add(4))
            }
        }
    }

    /// The bytes that a chunk of `shape` takes in a file.
    pub(super) fn encoded(&self, shape: &[u64], size: usize) -> Size {
        codecs::encoded(&self.steps, self.plain(shape, size))
    }

    /// Decodes a chunk of `shape`, elements of `fill.len()` bytes, into `out`: C order, elements in
    /// [`Chain::byte_order`], as `fill` is.
    ///
    /// # Errors
    /// What is wrong with `input`.
    pub(super) fn decode(
        &self,
        input: &[u8],
        shape: &[u64],
        fill: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let size = fill.len();
        codecs::undo(&self.steps, input, self.plain(shape, size), out)?;
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

/// Brings elements from the order in which they are stored to that of the array.
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

/// Calls `row` with the first index of every row along the last dimension, and its length.
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
