//! Tests with hand-built files: every kind of page that is read, and every kind that is refused.

mod layouts;
mod refusals;
mod stacks;
mod writer;

use std::fs;

use writer::{Chunk, LONG, PageSpec, SHORT, file};

use crate::geom::Box3;
use crate::volume::dtype::ByteOrder;
use crate::volume::{Error, Select, Volume};

/// A temporary folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Writes a little-endian file and returns its location.
    fn pages(&self, name: &str, pages: &[PageSpec]) -> String {
        self.bytes(name, &file(pages, ByteOrder::Little, false))
    }

    fn bytes(&self, name: &str, bytes: &[u8]) -> String {
        fs::write(self.at(name), bytes).unwrap();
        self.at(name)
    }
}

fn spaced() -> Select {
    Select { spacing: Some([1.0; 3]), ..Select::default() }
}

fn open(location: &str) -> Result<Volume, Error> {
    Volume::open(location, &spaced())
}

fn channel(location: &str, channel: usize) -> Volume {
    Volume::open(location, &Select { channel: Some(channel), ..spaced() }).unwrap()
}

/// Reads all voxels.
fn read_whole(volume: &Volume) -> Vec<f64> {
    volume.read::<f64>(&volume.grid().bounds()).unwrap()
}

/// The error message of a location that is refused on opening, before a voxel is read.
fn refusal(location: &str) -> String {
    let error = open(location).expect_err("a refusal").to_string();
    assert!(!error.contains('\n') && error.len() < 600, "{error}");
    error
}
