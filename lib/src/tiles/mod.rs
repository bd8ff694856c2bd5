//! Projects of tiles: images that overlap, and together show a plane or several.
//!
//! A project is read from a table of images (`table.rs`), from the positions that other programs
//! write (`positions.rs`), or from the document of ours that also has the transform of each tile
//! (`document.rs`).

use std::path::{Path, PathBuf};

use crate::geom::{Affine, Box3, Chain, Grid};
use crate::quote::shorten;
use crate::store::document as text;
use crate::transform::{self, Direction, Step};
use crate::volume::{self, Select, Volume};

mod document;
mod positions;
#[cfg(test)]
mod tests;

/// Why a project could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An image or a table of images could not be read.
    #[error(transparent)]
    Volume(#[from] volume::Error),
    /// A transform could not be read or written.
    #[error(transparent)]
    Transform(#[from] transform::Error),
    /// The file does not have the form that is expected.
    #[error("{location}: {message}")]
    Format {
        /// The file.
        location: String,
        /// What was found, what was expected, and how to proceed.
        message: String,
    },
    /// The operating system reported an error.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// The operation that failed.
        action: &'static str,
        /// The file.
        path: String,
        /// The error of the operating system.
        source: std::io::Error,
    },
}

/// An image of a part of a plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// The location of the image.
    pub location: String,
    /// The location of its mask, if there is one: only pixels above 0 are used.
    pub mask: Option<String>,
    /// The index of the plane.
    pub z: i64,
    /// The numbers of rows and columns.
    pub shape: [usize; 2],
    /// Where the stage put the first pixel, pixels along y, x.
    pub position: [f64; 2],
    /// The map from the plane to the tile: lengths in micrometres; the first pixel of the tile is at
    /// 0, 0, 0, and z of the plane is its index times the spacing.
    pub map: Vec<Step>,
    /// Whether links to other tiles determine the map.
    pub linked: bool,
}

/// The tiles of one or several planes, all with the same pixel size.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// The location from which the project was read.
    pub location: String,
    /// The distance of planes, if it is known, and the pixel size along y, x; micrometres.
    pub spacing: [f64; 3],
    /// Whether the distance of planes is known; it is the pixel size along y otherwise.
    pub has_depth: bool,
    /// The tiles, in the order of their planes.
    pub tiles: Vec<Tile>,
}

/// A tile as a table lists it, before its image is opened.
struct Listed {
    image: PathBuf,
    mask: Option<PathBuf>,
    z: i64,
    position: [f64; 2],
    /// The line in the table, counted from 1.
    line: u64,
}

/// The largest relative difference of pixel sizes that count as equal.
const SAME_SPACING: f64 = 1e-4;

/// The images, masks and fields to which a project that is not a table of images refers (those of a
/// table are [`volume::members`]); none if there is no project at `path`. Nothing of them is opened.
pub fn members(path: &Path) -> Vec<PathBuf> {
    let location = path.display().to_string();
    let Ok(read) = text::read_text(path) else { return Vec::new() };
    if !read.trim_start().starts_with('{') {
        let listed = positions::parse(path, &read).unwrap_or_default();
        return listed.into_iter().map(|tile| tile.image).collect();
    }
    let Ok(project) = document::parse(&location, path, &read) else { return Vec::new() };
    let mut all: Vec<PathBuf> = Vec::new();
    for tile in project.tiles {
        all.push(tile.location.into());
        all.extend(tile.mask.map(PathBuf::from));
        for step in tile.map {
            if let Step::Field(field) | Step::LocalAffines(field) = step {
                all.push(field.into());
            }
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

impl Project {
    /// Reads the project at `location`. Channel and pixel size of `select` apply to all tiles.
    ///
    /// # Errors
    /// [`Error`] if it is no project, or if a tile cannot be opened, is no single plane, or has
    /// another pixel size than the first.
    pub fn open(location: &str, select: &Select) -> Result<Self, Error> {
        let path = crate::store::parse(location)
            .map_err(|message| Error::Format { location: location.to_owned(), message })?;
        if crate::store::is_folder(&path) {
            let message = "is a folder; wanted a table of tiles (z,location,offset_y,offset_x), a \
                           TileConfiguration.txt, or the document that stitch wrote";
            return Err(Error::Format { location: location.to_owned(), message: message.into() });
        }
        if volume::is_sections(location) {
            let table = volume::read_images(&path)?;
            let listed = table.rows.into_iter().map(|row| Listed {
                image: row.image,
                mask: row.mask,
                z: row.z,
                position: row.offset,
                line: row.line,
            });
            return Self::of(location, listed.collect(), table.spacing, select);
        }
        let read = text::read_text(&path).map_err(|source| Error::Io {
            action: "read",
            path: location.to_owned(),
            source,
        })?;
        if read.trim_start().starts_with('{') {
            let project = document::parse(location, &path, &read)?;
            if select.spacing.is_some() {
                let message = "states the pixel size of its tiles; leave out --spacing".to_owned();
                return Err(Error::Format { location: location.to_owned(), message });
            }
            return Ok(project);
        }
        let listed = positions::parse(&path, &read)
            .map_err(|message| Error::Format { location: location.to_owned(), message })?;
        Self::of(location, listed, None, select)
    }

    /// Opens the images of tiles, for their shapes and their pixel size.
    fn of(
        location: &str,
        mut listed: Vec<Listed>,
        stated: Option<[f64; 3]>,
        select: &Select,
    ) -> Result<Self, Error> {
        let stated = select.spacing.or(stated);
        listed.sort_by_key(|tile| tile.z);
        let select = &Select { spacing: None, origin: None, ..select.clone() };
        let (mut tiles, mut spacing): (Vec<Tile>, Option<[f64; 3]>) = (Vec::new(), None);
        for tile in listed {
            let image = tile.image.display().to_string();
            let bad = |message: String| Error::Format {
                location: format!("{location}, line {}", tile.line),
                message,
            };
            let volume = match stated {
                Some([_, y, x]) => {
                    Volume::open_any(&image, select).map(|volume| volume.with_spacing([y, y, x]))
                }
                None => Volume::open(&image, select),
            };
            let volume = volume.map_err(|error| bad(error.to_string()))?;
            let grid = volume.grid();
            if grid.shape[0] != 1 {
                return Err(bad(format!(
                    "{image} has {} planes; tiles are single planes",
                    grid.shape[0]
                )));
            }
            let own = grid.spacing;
            let first = *spacing.get_or_insert(own);
            if (1..3).any(|a| (own[a] - first[a]).abs() > SAME_SPACING * first[a]) {
                return Err(bad(format!(
                    "{image} has pixels of {} x {} um, and the first tile of {} x {}; all must be alike",
                    own[1], own[2], first[1], first[2]
                )));
            }
            let shape = [grid.shape[1], grid.shape[2]];
            let mut tile = Tile {
                location: image,
                mask: tile.mask.map(|mask| mask.display().to_string()),
                z: tile.z,
                shape,
                position: tile.position,
                map: Vec::new(),
                linked: false,
            };
            tile.place([first[1], first[2]], tile.position);
            tiles.push(tile);
        }
        let Some([_, y, x]) = spacing else {
            return Err(Error::Format {
                location: location.to_owned(),
                message: "lists no tile".to_owned(),
            });
        };
        let depth = stated.map(|[z, ..]| z).filter(|z| z.is_finite());
        let mut project = Self {
            location: location.to_owned(),
            spacing: [depth.unwrap_or(y), y, x],
            has_depth: depth.is_some(),
            tiles,
        };
        let z = project.spacing[0];
        project.tiles.iter_mut().for_each(|tile| tile.set_depth(z));
        Ok(project)
    }

    /// Writes the project as a document, atomically.
    ///
    /// # Errors
    /// [`Error`] if a map is singular or not finite, or the document cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        document::write(self, path)
    }

    /// The planes that have tiles, in their order.
    pub fn planes(&self) -> Vec<i64> {
        let mut planes: Vec<i64> = self.tiles.iter().map(|tile| tile.z).collect();
        planes.dedup();
        planes
    }

    /// Opens a tile and its mask.
    ///
    /// # Errors
    /// [`Error`] if they cannot be opened, or have another shape than the project says.
    pub fn image(&self, tile: &Tile, channel: Option<usize>) -> Result<TileImage, Error> {
        let mask = tile.mask.as_deref().map(|mask| self.plane(mask, tile, None)).transpose()?;
        Ok(TileImage { image: self.plane(&tile.location, tile, channel)?, mask })
    }

    fn plane(&self, at: &str, tile: &Tile, channel: Option<usize>) -> Result<Volume, Error> {
        let select = Select { channel, ..Select::default() };
        let volume = Volume::open_any(at, &select)?.with_spacing(self.spacing);
        let [_, height, width] = volume.grid().shape;
        if volume.grid().shape[0] != 1 || [height, width] != tile.shape {
            let [rows, columns] = tile.shape;
            let message = format!(
                "has {:?} voxels, and {} says {rows} x {columns} pixels",
                volume.grid().shape,
                self.location
            );
            return Err(Error::Format { location: at.to_owned(), message });
        }
        Ok(volume)
    }
}

/// A tile that is open for reading.
#[derive(Debug)]
pub struct TileImage {
    /// The image.
    pub image: Volume,
    /// Its mask.
    pub mask: Option<Volume>,
}

impl TileImage {
    /// What identifies the image and its mask: their content, channel, type and pixel size.
    ///
    /// # Errors
    /// [`Error`] if a file cannot be read.
    pub fn identity(&self) -> Result<serde_json::Value, Error> {
        let mask = self.mask.as_ref().map(Volume::identity).transpose()?;
        Ok(serde_json::json!([self.image.identity()?, mask]))
    }

    /// The pixels of a part, NaN where the mask is not above 0.
    ///
    /// # Errors
    /// [`Error`] if the part cannot be read.
    pub fn read(&self, part: &Box3) -> Result<Vec<f32>, Error> {
        let mut values: Vec<f32> = self.image.read(part)?;
        if let Some(mask) = &self.mask {
            let known: Vec<f32> = mask.read(part)?;
            for (value, known) in values.iter_mut().zip(known) {
                if !(known > 0.0) {
                    *value = f32::NAN;
                }
            }
        }
        Ok(values)
    }
}

impl Tile {
    /// The pixels of the tile.
    ///
    /// * `spacing`: that of the project
    pub fn grid(&self, spacing: [f64; 3]) -> Grid {
        let [rows, columns] = self.shape;
        Grid { planar: true, ..Grid::new([1, rows, columns], spacing, [0.0; 3]) }
    }

    /// Makes the map a shift that puts the first pixel at `position`, pixels along y, x.
    fn place(&mut self, pixel: [f64; 2], position: [f64; 2]) {
        let by = [0.0, -position[0] * pixel[0], -position[1] * pixel[1]];
        self.map = vec![Step::Affine(Affine::translation(by))];
    }

    /// Makes the map take the plane at its depth to 0.
    fn set_depth(&mut self, spacing: f64) {
        if let Some(Step::Affine(map)) = self.map.first_mut() {
            let [_, y, x] = map.offset();
            *map = Affine::from_parts(map.linear(), [-(self.z as f64) * spacing, y, x]);
        }
    }

    /// The map, with its fields open.
    ///
    /// # Errors
    /// [`Error`] if a field cannot be opened.
    pub fn chain(&self, project: &str) -> Result<Chain, Error> {
        Ok(transform::open_steps(project, &self.map, Direction::FixedToMoving)?)
    }

    /// The name of the tile in messages and tables: that of its file, without the extension.
    pub fn name(&self) -> String {
        let path = Path::new(&self.location);
        shorten(&path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy())
    }
}
