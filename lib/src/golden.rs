//! Data and results of other programs, which cannot be distributed with this project: inputs of the
//! tests that are ignored by default.

use std::path::{Path, PathBuf};

pub(crate) mod npz;

/// The path of a part of the shared data: in `VOXLOOM_SHARED`, or in `shared` beside the
/// repository.
///
/// # Panics
/// If the path does not exist: a test that needs the data must not pass without them.
pub(crate) fn shared(part: &str) -> PathBuf {
    let default_folder = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared");
    let path =
        std::env::var_os("VOXLOOM_SHARED").map_or_else(default_folder, PathBuf::from).join(part);
    assert!(path.exists(), "{} is not there; set VOXLOOM_SHARED", path.display());
    path
}
