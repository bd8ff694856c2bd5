//! Planes of tissue that a microscope images as overlapping tiles.
//!
//! Pixel p of a tile shows the tissue at the true position of the tile + p + lens(p). The table of
//! tiles has the nominal positions, from which the true ones differ by the errors of the stage and by
//! the drift of the sample.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::random::{Random, mix, normal_of};
use super::score::Spread;
use super::sections::tissue;
use super::{Error, create_folder, io};
use crate::blocks::{self, Budget, Context, write_whole};
use crate::device::Cost;
use crate::geom::Grid;
use crate::store::document;
use crate::tiles::Project;
use crate::volume::{Codec, Dtype, Format, Output, Select, Spec};

/// The file of the parameters and the true positions.
pub(super) const TRUTH: &str = "tiles.json";
/// The table of the tiles.
const TABLE: &str = "tiles.csv";
/// The largest relative difference of the brightness of a tile.
const GAIN: f64 = 0.03;
/// The brightness lost from the centre of a tile to its corners.
const VIGNETTING: f64 = 0.1;
/// The greatest number of tiles.
const MAX_TILES: usize = 100_000;
/// The number of points along each axis of a tile at which positions are compared.
const POINTS: usize = 7;

/// Parameters of [`tiles`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tiles {
    /// The number of planes, and the pixels of each along y and x that the tiles cover.
    pub shape: [usize; 3],
    /// The distance of planes and the size of a pixel along y and x, micrometres.
    pub spacing: [f64; 3],
    /// The pixels of a tile along y and x.
    pub tile: [usize; 2],
    /// The overlap of neighbours as a fraction of a tile.
    pub overlap: f64,
    /// The largest error of the stage along each axis, pixels.
    pub max_shift: f64,
    /// The largest displacement by the distortion that all tiles share, pixels.
    pub lens: f64,
    /// By how much the sample drifts along y while a plane is imaged, pixels; half of it along x.
    pub drift: f64,
    /// The number of tiles of a plane that show no tissue.
    pub empty: usize,
    /// The strength of the noise.
    pub noise: f64,
    /// The seed of all random numbers.
    pub seed: u64,
}

/// A tile, as it truly is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TrueTile {
    location: String,
    z: usize,
    nominal: [i64; 2],
    position: [f64; 2],
    empty: bool,
    gain: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct TilesTruth {
    parameters: Tiles,
    tiles: Vec<TrueTile>,
}

impl Tiles {
    fn check(&self) -> Result<(), Error> {
        let usage = |message: String| Err(blocks::Error::Usage(message).into());
        let [n, ny, nx] = self.shape;
        if !(1..=10_000).contains(&n) || [ny, nx].iter().any(|n| !(64..=100_000).contains(n)) {
            return usage(format!(
                "--size {n},{ny},{nx} is out of range; wanted 1 to 10000 planes of 64 to 100000 pixels along y and x"
            ));
        }
        if self.spacing.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return usage(format!("--spacing {:?} is not three lengths above 0", self.spacing));
        }
        let [h, w] = self.tile;
        if self.tile.iter().any(|n| !(64..=8192).contains(n)) {
            return usage(format!("--tile {h},{w} is out of range; wanted 64 to 8192 pixels"));
        }
        let quarter = h.min(w) as f64 / 4.0;
        for (flag, value, least, most) in [
            ("--overlap", self.overlap, 0.02, 0.5),
            ("--max-shift", self.max_shift, 0.0, quarter),
            ("--lens", self.lens, 0.0, quarter / 4.0),
            ("--drift", self.drift, 0.0, quarter),
            ("--noise", self.noise, 0.0, 20.0),
        ] {
            if !(least..=most).contains(&value) {
                return usage(format!("{flag} {value} is out of range; wanted {least} to {most}"));
            }
        }
        let each = self.counts()[0] * self.counts()[1];
        if n * each > MAX_TILES {
            return usage(format!(
                "--size and --tile make {} tiles; wanted {MAX_TILES} at most",
                n * each
            ));
        }
        if self.empty >= each {
            return usage(format!(
                "--empty {} leaves no tile with tissue: a plane has {each}; give less",
                self.empty
            ));
        }
        Ok(())
    }

    /// The distance of neighbouring tiles, pixels.
    fn pitch(&self) -> [usize; 2] {
        self.tile.map(|n| n - ((n as f64 * self.overlap).round() as usize).max(1))
    }

    /// The numbers of rows and columns of tiles.
    fn counts(&self) -> [usize; 2] {
        let pitch = self.pitch();
        std::array::from_fn(|a| {
            self.shape[a + 1].saturating_sub(self.tile[a]).div_ceil(pitch[a]) + 1
        })
    }

    /// The tiles of all planes.
    fn tiles(&self) -> Vec<TrueTile> {
        let ([rows, columns], pitch) = (self.counts(), self.pitch());
        let mut tiles = Vec::new();
        for z in 0..self.shape[0] {
            let mut random = Random::new(self.seed, 5000 + z as u64);
            let first = tiles.len();
            for i in 0..rows * columns {
                let (r, c) = (i / columns, i % columns);
                let nominal = [(r * pitch[0]) as i64, (c * pitch[1]) as i64];
                let share = i as f64 / (rows * columns - 1).max(1) as f64;
                let drift = self.drift * share * share;
                let position = std::array::from_fn(|a| {
                    let error = random.between(-self.max_shift, self.max_shift);
                    nominal[a] as f64 + error + drift / [1.0, 2.0][a]
                });
                let gain = 1.0 + random.between(-GAIN, GAIN);
                let location = format!("tiles/z{z:03}_r{r:02}_c{c:02}.tif");
                tiles.push(TrueTile { location, z, nominal, position, empty: false, gain });
            }
            let mut left = self.empty;
            while left > 0 {
                let i = first + random.between(0.0, (rows * columns) as f64) as usize;
                if let Some(tile) = tiles.get_mut(i).filter(|tile| !tile.empty) {
                    tile.empty = true;
                    left -= 1;
                }
            }
        }
        tiles
    }

    /// The displacement of a pixel by the lens: radial, and growing with the third power.
    fn lens(&self, p: [f64; 2]) -> [f64; 2] {
        let middle = self.tile.map(|n| (n as f64 - 1.0) / 2.0);
        let radius = middle[0].hypot(middle[1]);
        let d: [f64; 2] = std::array::from_fn(|a| (p[a] - middle[a]) / radius);
        d.map(|v| self.lens * (d[0] * d[0] + d[1] * d[1]) * v)
    }

    /// The grey values of a tile.
    fn render(&self, tile: &TrueTile, number: usize) -> Vec<u8> {
        let [rows, columns] = self.tile;
        let middle = self.tile.map(|n| (n as f64 - 1.0) / 2.0);
        let seed = mix(self.seed ^ mix(number as u64 + 99));
        (0..rows * columns)
            .map(|i| {
                let p = [(i / columns) as f64, (i % columns) as f64];
                let by = self.lens(p);
                let at = [0, 1].map(|a| tile.position[a] + p[a] + by[a]);
                let grey =
                    if tile.empty { 200.0 } else { tissue(self.seed as u32, tile.z as f64, at) };
                let away = [0, 1].map(|a| (p[a] - middle[a]) / middle[a]);
                let shade = 1.0 - VIGNETTING * (away[0] * away[0] + away[1] * away[1]) / 2.0;
                let pixel = mix(seed ^ mix(i as u64));
                let noise = 6.0 * self.noise * f64::from(normal_of(pixel, mix(pixel)));
                (tile.gain * shade * grey + noise).round().clamp(1.0, 255.0) as u8
            })
            .collect()
    }
}

/// Writes tiles into `folder`: their images, the table `tiles.csv` with their nominal positions and,
/// last, `tiles.json` with the true ones.
///
/// # Errors
/// [`Error`] if a parameter is out of range or an output exists.
pub fn tiles(of: &Tiles, folder: &Path, ctx: &Context) -> Result<(), Error> {
    of.check()?;
    let (table, truth) = (folder.join(TABLE), folder.join(TRUTH));
    ctx.refuse_existing(&table)?;
    ctx.refuse_existing(&truth)?;
    let cost = Cost::of::<u8>("pixels of a tile", 2 * of.tile[0] * of.tile[1]);
    if ctx.is_plan_asked("rendering tiles", &Budget::of(ctx), &cost)? {
        return Ok(());
    }
    // positions of an earlier run are not those of the new tiles
    ctx.replace_document(&truth)?;
    ctx.replace_document(&table)?;
    create_folder(folder, ctx)?;
    create_folder(&folder.join("tiles"), ctx)?;
    let truth_of = TilesTruth { parameters: of.clone(), tiles: of.tiles() };
    let [z, y, x] = of.spacing;
    let mut text = format!("# spacing: {z},{y},{x} um\nz,location,offset_y,offset_x\n");
    let grid = Grid::plane(of.tile, [y, x], [0.0; 2]);
    let chunk = [1, of.tile[0], of.tile[1]];
    let spec = Spec {
        grid,
        dtype: Dtype::U8,
        chunk,
        shard: None,
        codec: Codec::Raw,
        format: Format::Tiff,
    };
    for (i, tile) in truth_of.tiles.iter().enumerate() {
        let path = folder.join(&tile.location).display().to_string();
        let output = Output::create(&path, &spec, ctx.existing_now())?;
        output.write(&grid.bounds(), &of.render(tile, i))?;
        let [y, x] = tile.nominal;
        text.push_str(&format!("{},{},{y},{x}\n", tile.z, tile.location));
        if let Some(signal) = ctx.cancel.signal() {
            return Err(blocks::Error::Interrupted { signal }.into());
        }
    }
    write_whole(&table, text.as_bytes())?;
    let text = serde_json::to_vec_pretty(&truth_of)
        .map_err(|e| Error::Truth { path: truth.display().to_string(), message: e.to_string() })?;
    write_whole(&truth, &text)?;
    ctx.output_file(&table);
    ctx.record("tiles", json!(truth_of.tiles.len()));
    Ok(())
}

/// How well tiles are placed: at points of each tile, the distance between the pixel that the map
/// finds and the true one, pixels. The mean shift of a plane is no error.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TilesScore {
    /// The errors of all tiles that show tissue.
    pub pixels: Spread,
    /// The greatest of the median errors of these tiles.
    pub worst_tile: f64,
    /// The name of that tile.
    pub worst: String,
    /// The median error of each tile, in the order of the table.
    pub tiles: Vec<f64>,
}

impl TilesScore {
    /// Formats the score as indented JSON with a final newline.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", json!(self))
    }
}

/// Whether a folder has the ground truth of [`tiles`].
pub fn is_of_tiles(truth: &Path) -> bool {
    crate::store::exists(&truth.join(TRUTH))
}

/// Measures the maps of a project against the ground truth that [`tiles`] wrote into the folder
/// `truth`.
///
/// # Errors
/// [`Error`] if the ground truth or the project cannot be read, or if they have different tiles.
pub fn score_tiles(truth: &Path, project: &str) -> Result<TilesScore, Error> {
    let path = truth.join(TRUTH);
    let bad = |message: String| Error::Truth { path: path.display().to_string(), message };
    let text = document::read(&path).map_err(io("read", &path))?;
    let truth: TilesTruth = serde_json::from_slice(&text)
        .map_err(|e| bad(format!("{e}; wanted the {TRUTH} that `phantom tiles` writes")))?;
    let project = Project::open(project, &Select::default()).map_err(|e| bad(e.to_string()))?;
    if project.tiles.len() != truth.tiles.len() {
        let [found, wanted] = [project.tiles.len(), truth.tiles.len()];
        return Err(bad(format!("lists {wanted} tiles, and the project has {found}")));
    }
    let of = &truth.parameters;
    let mut errors: Vec<Vec<[f64; 2]>> = Vec::new();
    for (tile, real) in project.tiles.iter().zip(&truth.tiles) {
        let chain = tile.chain(&project.location).map_err(|e| bad(e.to_string()))?;
        let mut own = Vec::new();
        for i in 0..POINTS * POINTS {
            let at = [i / POINTS, i % POINTS].map(|v| v as f64 / (POINTS - 1) as f64);
            let p = [0, 1].map(|a| at[a] * (of.tile[a] - 1) as f64);
            let by = of.lens(p);
            let w = [0, 1].map(|a| (real.position[a] + p[a] + by[a]) * of.spacing[a + 1]);
            let point = [tile.z as f64 * project.spacing[0], w[0], w[1]];
            let (local, _) = chain.localise([point, point]).map_err(Error::Field)?;
            let found = local.apply(point);
            own.push([0, 1].map(|a| found[a + 1] / of.spacing[a + 1] - p[a]));
        }
        errors.push(own);
    }
    Ok(spread(&truth, &errors))
}

/// The score of the errors at the points of each tile.
fn spread(truth: &TilesTruth, errors: &[Vec<[f64; 2]>]) -> TilesScore {
    let middle = |mut values: Vec<f64>| {
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    let planes = truth.parameters.shape[0];
    let shown = |z: usize| {
        let all = truth.tiles.iter().zip(errors);
        all.filter(move |(tile, _)| tile.z == z && !tile.empty).flat_map(|(_, own)| own)
    };
    let shifts: Vec<[f64; 2]> =
        (0..planes).map(|z| [0, 1].map(|a| middle(shown(z).map(|e| e[a]).collect()))).collect();
    let (mut all, mut tiles, mut worst) = (Vec::new(), Vec::new(), (0.0, String::new()));
    for (tile, own) in truth.tiles.iter().zip(errors) {
        let [y, x] = shifts[tile.z];
        let lengths: Vec<f64> = own.iter().map(|e| (e[0] - y).hypot(e[1] - x)).collect();
        let median = middle(lengths.clone());
        tiles.push(median);
        if !tile.empty {
            all.extend(lengths);
            if median >= worst.0 {
                worst = (median, tile.location.clone());
            }
        }
    }
    TilesScore { pixels: Spread::of(all), worst_tile: worst.0, worst: worst.1, tiles }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane() -> Tiles {
        Tiles {
            shape: [1, 200, 230],
            spacing: [0.05, 0.01, 0.01],
            tile: [96, 100],
            overlap: 0.2,
            max_shift: 3.0,
            lens: 0.0,
            drift: 0.0,
            empty: 0,
            noise: 0.0,
            seed: 3,
        }
    }

    #[test]
    fn the_tiles_cover_the_plane() {
        let of = Tiles { max_shift: 0.0, ..plane() };
        let tiles = of.tiles();
        for pixel in 0..200 * 230 {
            let at = [(pixel / 230) as i64, (pixel % 230) as i64];
            let covers = |tile: &TrueTile| {
                (0..2).all(|a| (0..of.tile[a] as i64).contains(&(at[a] - tile.nominal[a])))
            };
            assert!(tiles.iter().any(covers), "{at:?}");
        }
    }

    #[test]
    fn neighbours_show_the_same_tissue_where_they_overlap() {
        // whole positions, so that pixels coincide
        let of = Tiles { max_shift: 0.0, ..plane() };
        let mut tiles = of.tiles();
        tiles.iter_mut().for_each(|tile| tile.gain = 1.0);
        let [a, b] = [0, 1].map(|i| of.render(&tiles[i], i));
        let shift = tiles[1].nominal[1] as usize;
        let (mut difference, mut count) = (0.0, 0);
        for y in 0..of.tile[0] {
            for x in shift..of.tile[1] {
                let [p, q] = [a[y * of.tile[1] + x], b[y * of.tile[1] + x - shift]];
                difference += (f64::from(p) - f64::from(q)).abs();
                count += 1;
            }
        }
        // shading differs by up to 5 %
        assert!(difference / f64::from(count) < 9.0, "{}", difference / f64::from(count));
    }

    #[test]
    fn the_seed_and_the_number_of_empty_tiles_decide() {
        let tiles = Tiles { empty: 2, ..plane() }.tiles();
        assert_eq!(tiles.iter().filter(|tile| tile.empty).count(), 2);
        assert_eq!(tiles, Tiles { empty: 2, ..plane() }.tiles());
        assert_ne!(tiles, Tiles { empty: 2, seed: 4, ..plane() }.tiles());
        assert!(Tiles { empty: 9, ..plane() }.check().is_err());
    }
}
