//! The environment of the tests: the programs, a folder, volumes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use assert_cmd::Command;
use tempfile::TempDir;
use voxloom::geom::Grid;
use voxloom::volume::{Codec, Existing, Format, Output, Spec, Voxel};

/// A command that runs one of our programs.
pub(crate) fn program(name: &str) -> Command {
    let mut command = Command::new(executable(name));
    command.env_remove("VOXLOOM_LOG");
    command
}

/// The path of a program.
pub(crate) fn executable(name: &str) -> PathBuf {
    // all binaries of this package are in one folder
    Path::new(env!("CARGO_BIN_EXE_voxloom")).with_file_name(name)
}

/// A folder that is removed at the end of the test.
pub(crate) struct Scene {
    folder: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self { folder: TempDir::new().unwrap() }
    }

    /// A path in the folder, as text for a command line.
    pub(crate) fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file with this text; returns its path.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.at(name), text).unwrap();
        self.at(name)
    }

    /// All files below the folder, names and bytes, to check that nothing was changed.
    pub(crate) fn contents(&self) -> Vec<(PathBuf, Vec<u8>)> {
        files(self.folder.path())
    }

    /// A Zarr volume with voxels of 1 um and chunks of 16, filled by a function of (z, y, x).
    pub(crate) fn volume<T: Voxel>(
        &self,
        name: &str,
        shape: [usize; 3],
        value: impl Fn([i64; 3]) -> T,
    ) -> String {
        self.volume_on(name, Grid::new(shape, [1.0; 3], [0.0; 3]), value)
    }

    /// As [`Scene::volume`], on any grid.
    pub(crate) fn volume_on<T: Voxel>(
        &self,
        name: &str,
        grid: Grid,
        value: impl Fn([i64; 3]) -> T,
    ) -> String {
        let spec = Spec {
            grid,
            dtype: T::DTYPE,
            chunk: [16; 3],
            shard: None,
            codec: Codec::Raw,
            format: Format::Zarr3,
        };
        let location = self.at(name);
        let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
        for part in grid.bounds().tiles([16; 3]) {
            let voxels: Vec<T> = part.tiles([1; 3]).map(|voxel| value(voxel.min)).collect();
            output.write(&part, &voxels).unwrap();
        }
        location
    }
}

/// All files below `folder`, sorted, with their bytes.
pub(crate) fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push((path.clone(), std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// A small phantom pair with its global affine, made once for all tests of a run.
pub(crate) struct PhantomPair {
    folder: TempDir,
}

impl PhantomPair {
    pub(crate) fn get() -> &'static Self {
        static PAIR: OnceLock<PhantomPair> = OnceLock::new();
        PAIR.get_or_init(|| {
            let folder = TempDir::new().unwrap();
            let pair = Self { folder };
            program("phantom")
                .args(["rounds", "--size", "96", "--max-displacement", "2", "-o", &pair.at("")])
                .arg("--overwrite")
                .assert()
                .success();
            for round in ["fixed", "moving"] {
                program("extract-spots")
                    .args([
                        &pair.at(&format!("{round}.zarr")),
                        "-o",
                        &pair.at(&format!("{round}.csv")),
                    ])
                    .assert()
                    .success();
            }
            program("ransac")
                .args([&pair.at("fixed.zarr"), &pair.at("moving.zarr")])
                .args([
                    "--fixed-spots",
                    &pair.at("fixed.csv"),
                    "--moving-spots",
                    &pair.at("moving.csv"),
                ])
                .args(["-o", &pair.at("global.json")])
                .assert()
                .success();
            pair
        })
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }
}
