//! Concurrent reading of several blocks, for arrays whose blocks take one request each to a bucket
//! or a web server.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::{BlockRead, Loaded, Scratch, Source, View, copy_overlap, load};
use crate::device::{Permits, waiting};
use crate::volume::block::Block;
use crate::volume::cache::{Cache, Decoded};
use crate::volume::{Error, Voxel};

/// A block that another thread has loaded.
enum LoadedBlock {
    Kept(std::sync::Arc<Decoded>),
    Own(Option<Block>, Vec<u8>),
}

/// The index of a target, its loaded block, and the wanted ranges of elements within the block; or
/// an error.
type Message = Result<(usize, LoadedBlock, Vec<Range<u64>>), Error>;

/// As [`super::read`], for the blocks in `targets`. Up to [`Source::in_flight`] threads load
/// blocks, and the calling thread copies them to the output. A loading thread takes a permit from
/// the same semaphore as the calling thread, so that the limit on computing threads still holds.
pub(super) fn read<const N: usize, T: Voxel>(
    source: &dyn Source,
    cache: &Cache,
    view: &View<N>,
    targets: &[BlockRead<N>],
    out: &mut [T],
) -> Result<(), Error> {
    let permits = Permits::of_thread();
    let next = AtomicUsize::new(0);
    // the channel has no buffer: each loading thread waits until its block is received, so that the
    // number of threads bounds the memory
    let (sender, receiver) = mpsc::sync_channel::<Message>(0);
    let load_next = |scratch: &mut Scratch| -> Option<Message> {
        let i = next.fetch_add(1, Ordering::Relaxed);
        let target = targets.get(i)?;
        let loaded = match &permits {
            Some(permits) => permits.with(1, || load(source, cache, view, target, scratch)),
            None => load(source, cache, view, target, scratch),
        };
        Some(loaded.map(|(loaded, wanted)| match loaded {
            Loaded::Kept(kept) => (i, LoadedBlock::Kept(kept), wanted),
            Loaded::InScratch(block) => {
                (i, LoadedBlock::Own(block, std::mem::take(&mut scratch.data)), wanted)
            }
        }))
    };
    std::thread::scope(|scope| {
        for _ in 0..source.in_flight().min(targets.len()) {
            let (sender, load_next) = (sender.clone(), &load_next);
            scope.spawn(move || {
                let mut scratch = Scratch::default();
                while let Some(message) = load_next(&mut scratch) {
                    // this cannot fail, because the receiver lives until all threads have ended
                    let _ = sender.send(message);
                }
            });
        }
        drop(sender);
        let mut failed = None;
        while let Ok(message) = waiting(|| receiver.recv()) {
            let (i, arrived, wanted) = match message {
                Ok(arrived) if failed.is_none() => arrived,
                // after an error, no further blocks are loaded; `waiting` releases this thread's
                // permit for the threads that still load a block
                other => {
                    next.store(targets.len(), Ordering::Relaxed);
                    failed = failed.or(other.err());
                    continue;
                }
            };
            let (block, data) = match &arrived {
                LoadedBlock::Kept(kept) => (kept.block.as_ref(), &kept.data),
                LoadedBlock::Own(block, data) => (block.as_ref(), data),
            };
            copy_overlap(source.layout(), view, &wanted, block, &targets[i], data, out);
        }
        failed.map_or(Ok(()), Err)
    })
}
