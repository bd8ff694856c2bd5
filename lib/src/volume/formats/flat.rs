//! Reads files of uncompressed elements: `.npy`, and ImageJ stacks whose planes share one image
//! file directory.

use std::ops::Range;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::store::{self, ReadRange};
use crate::volume::Error;
use crate::volume::block::Block;
use crate::volume::content::StoredContent;
use crate::volume::dtype::ByteOrder;
use crate::volume::source::{ArrayLayout, Scratch, Source};

/// A file that holds one array in C order, beginning at byte `offset`. Its blocks are planes of the
/// last two dimensions.
pub(in crate::volume) struct FlatFile {
    pub(in crate::volume) location: String,
    pub(in crate::volume) path: PathBuf,
    pub(in crate::volume) offset: u64,
    pub(in crate::volume) layout: ArrayLayout,
    pub(in crate::volume) order: ByteOrder,
    /// The facts about the format that `inspect` shows.
    pub(in crate::volume) facts: Map<String, Value>,
}

/// The block shape of an array whose blocks are planes of the last two dimensions.
pub(in crate::volume) fn planes(shape: &[u64]) -> Vec<u64> {
    let rank = shape.len();
    shape.iter().enumerate().map(|(d, n)| if d + 2 < rank { 1 } else { *n }).collect()
}

impl Source for FlatFile {
    fn layout(&self) -> &ArrayLayout {
        &self.layout
    }

    fn load(
        &self,
        index: &[u64],
        wanted: &[Range<u64>],
        scratch: &mut Scratch,
    ) -> Result<Option<Block>, Error> {
        let block = Block::whole(&self.layout.block, self.order);
        let size = self.layout.dtype.size();
        let plane = self.layout.block.iter().product::<u64>();
        // planes are contiguous: the number of the wanted plane is its linear index in C order
        let number = index.iter().zip(&self.layout.shape).zip(&self.layout.block).fold(
            0,
            |number, ((i, shape), block)| {
                if *block == 1 && shape != block { number * shape + i } else { number }
            },
        );
        let offset = |pick: &dyn Fn(&Range<u64>) -> u64| -> usize {
            wanted.iter().zip(&block.strides).map(|(w, s)| pick(w) as usize * s).sum()
        };
        let (first, last) = (offset(&|w| w.start), offset(&|w| w.end - 1));
        let start = self.offset + (number * plane + first as u64) * size as u64;
        let length = (last + 1 - first) * size;
        match store::read(&self.path, ReadRange::Range { start, length }, &mut scratch.data) {
            Ok(Some(_)) if scratch.data.len() == length => Ok(Some(Block { first, ..block })),
            Ok(Some(_)) => {
                let message = format!("the file ends before byte {}", start + length as u64);
                Err(Error::damaged(&self.location, index, &self.path, message))
            }
            Ok(None) => Err(Error::missing(&self.location, "it was there when it was opened")),
            Err(source) => Err(Error::io("read", &self.path, source)),
        }
    }

    fn is_coded(&self) -> bool {
        false
    }

    fn in_flight(&self) -> usize {
        if store::is_remote(&self.path) { store::IN_FLIGHT } else { 1 }
    }

    fn stored(&self) -> StoredContent<'_> {
        let shape = &self.layout.shape;
        let form =
            format!("{shape:?} {} {:?} from {}", self.layout.dtype.name(), self.order, self.offset);
        StoredContent::in_files(form, vec![self.path.clone()])
    }

    fn describe(&self) -> Map<String, Value> {
        self.facts.clone()
    }
}
