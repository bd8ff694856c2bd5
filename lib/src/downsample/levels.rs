//! The number of levels, their locations and their blocks.

use std::path::Path;

use super::{Error, Factor, Format, Grid, Method, Options, Volume, blocks, volume};
use crate::store;

/// Chunks with more voxels than this along an axis are whole planes or strips of planes, or have
/// other shapes that a level should not inherit.
const MAX_CHUNK: usize = 512;

/// Axes whose spacing is within this factor of the smallest are downsampled together. The ratio of
/// two spacings then never grows beyond this factor, and a larger ratio shrinks.
const SAME_SPACING_FACTOR: f64 = std::f64::consts::SQRT_2;

/// The step from one level to the next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LevelStep {
    /// Number of voxels that are combined into one along each axis.
    pub(super) factor: [usize; 3],
    /// The grid of the next level.
    pub(super) grid: Grid,
}

/// The grid after combining blocks of `factor` voxels. The voxel centres are the centres of the
/// blocks, or for [`Method::Stride`] the centres of their first voxels.
pub(super) fn reduced(grid: &Grid, factor: [usize; 3], method: Method) -> Grid {
    let middle = |a: usize| match method {
        Method::Stride => 0.0,
        _ => (factor[a] - 1) as f64 / 2.0,
    };
    Grid {
        shape: std::array::from_fn(|a| grid.shape[a].div_ceil(factor[a])),
        spacing: std::array::from_fn(|a| grid.spacing[a] * factor[a] as f64),
        origin: grid.position([0, 1, 2].map(middle)),
        planar: grid.planar,
    }
}

/// All levels below `grid`. An axis that has only one voxel is not reduced.
pub(super) fn steps(grid: &Grid, chunk: [usize; 3], options: &Options) -> Vec<LevelStep> {
    let mut steps = Vec::new();
    let mut grid = *grid;
    loop {
        let enough = match options.levels {
            Some(levels) => steps.len() >= levels,
            None => (0..3).all(|a| grid.shape[a] <= chunk[a]),
        };
        let factor = next_factor(&grid, options.factor);
        if enough || factor == [1; 3] {
            return steps;
        }
        grid = reduced(&grid, factor, options.method);
        steps.push(LevelStep { factor, grid });
    }
}

/// The factor along each axis from a level to the next; `[1; 3]` if nothing is left to reduce.
pub(super) fn next_factor(grid: &Grid, factor: Factor) -> [usize; 3] {
    let long = |a: usize| grid.shape[a] > 1;
    let finest = (0..3).filter(|&a| long(a)).map(|a| grid.spacing[a]).fold(f64::INFINITY, f64::min);
    std::array::from_fn(|a| match factor {
        _ if !long(a) => 1,
        // the tolerance admits spacings that differ by rounding errors only
        Factor::Auto if grid.spacing[a] <= SAME_SPACING_FACTOR * finest * (1.0 + 1e-9) => 2,
        Factor::Auto => 1,
        Factor::Fixed(factor) => factor[a],
    })
}

/// The chunk shape of the volume, if it has 16 to 512 voxels along each axis, or spans an axis of
/// at most 512 voxels; otherwise 128 voxels along each axis, or all if there are fewer.
pub(super) fn usual_chunk(volume: &Volume) -> [usize; 3] {
    let (chunk, shape) = (volume.chunk(), volume.grid().shape);
    let usual = |n: usize| (16..=MAX_CHUNK).contains(&n);
    if (0..3).all(|a| usual(chunk[a]) || chunk[a] >= shape[a] && shape[a] <= MAX_CHUNK) {
        chunk
    } else {
        shape.map(|n| n.min(128))
    }
}

/// The block of a task: one write unit, extended along each axis while `fit` permits until block
/// borders meet borders of the source's chunks, so that no chunk is decoded for several blocks.
pub(super) fn block(
    unit: [usize; 3],
    shape: [usize; 3],
    factor: [usize; 3],
    source: [usize; 3],
    fit: impl Fn([usize; 3]) -> bool,
) -> [usize; 3] {
    let mut block = unit;
    for a in (0..3).rev() {
        let aligned = |n: usize| (n * factor[a]).is_multiple_of(source[a].max(1)) || n >= shape[a];
        while !aligned(block[a]) && block[a] * factor[a] < 2 * source[a] {
            let mut next = block;
            next[a] += unit[a];
            if !fit(next) {
                return block;
            }
            block = next;
        }
    }
    block
}

/// The location of a pyramid's base and of its levels.
#[derive(Debug)]
pub(super) struct PyramidLocations {
    /// The volume that the first level is computed from.
    pub(super) base: String,
    /// The location of the first level, if it is not `stem` followed by its number.
    head: Option<String>,
    /// Prefix of the number in a level's location; empty if there is only one level.
    stem: String,
    /// The number in the first level's location.
    first: usize,
}

impl PyramidLocations {
    /// Finds the locations: levels of the image that `location` is or belongs to, or of the new
    /// image `to`.
    pub(super) fn find(location: &str, to: Option<(&str, Format)>) -> Result<Self, Error> {
        if let Some((to, format)) = to {
            let (head, stem) = match format {
                Format::Tiff | Format::Npy => (Some(to.to_owned()), String::new()),
                Format::N5 => (image_of(to), format!("{to}/s")),
                Format::Zarr2 | Format::Zarr3 => (image_of(to), format!("{to}/")),
            };
            return Ok(Self { base: location.to_owned(), head, stem, first: 0 });
        }
        let levels = volume::levels(location)?;
        let here = |level: &&volume::Level| same_place(&level.location, location);
        let base = levels.iter().find(here).or(levels.first());
        let base = base.map_or(location, |level| &level.location).to_owned();
        let in_place = base.rfind('/').and_then(|slash| {
            let name = &base[slash + 1..];
            let digits = name.trim_start_matches(|c: char| !c.is_ascii_digit());
            let number: usize = digits.parse().ok()?;
            let listed = volume::levels(&base[..slash]).ok()?;
            let is_level = listed.iter().any(|level| same_place(&level.location, &base));
            is_level.then(|| (base[..base.len() - digits.len()].to_owned(), number + 1))
        });
        if let Some((stem, first)) = in_place {
            return Ok(Self { base, head: None, stem, first });
        }
        let what =
            if store::is_folder(Path::new(location)) { "an array by itself" } else { "a file" };
        Err(blocks::Error::Usage(format!(
            "{location} is {what}, and levels are added to a multiscale image; give -o PYRAMID.zarr for \
             one of its smaller levels"
        ))
        .into())
    }

    /// Whether the first level is written at the location of the image itself; `--overwrite` then
    /// removes an existing image with all its levels.
    pub(super) fn is_replaced_whole(&self) -> bool {
        self.head.is_some()
    }

    /// The location of the `i`-th level to write, counted from 0.
    pub(super) fn level(&self, i: usize) -> String {
        match &self.head {
            Some(head) if i == 0 => head.clone(),
            _ => format!("{}{}", self.stem, self.first + i),
        }
    }
}

/// `to` itself if writing to it creates an image there; `None` for a path inside a container, where
/// writing would create an array.
fn image_of(to: &str) -> Option<String> {
    let is_container = |path: &Path| path.extension().is_some_and(|e| e == "zarr" || e == "n5");
    let inside = Path::new(to).ancestors().skip(1).any(is_container);
    (is_container(Path::new(to)) || !inside).then(|| to.to_owned())
}

fn same_place(a: &str, b: &str) -> bool {
    let paths = [a, b].map(|p| Path::new(p).components().collect::<Vec<_>>());
    paths[0] == paths[1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn automatic_factors_lead_to_voxels_of_equal_sides_and_end_in_one_chunk() {
        let grid = Grid::new([100, 800, 800], [4.0, 1.0, 1.0], [0.0, 10.0, -1.0]);
        let steps = steps(&grid, [64; 3], &Options::default());
        let factors: Vec<_> = steps.iter().map(|s| s.factor).collect();
        assert_eq!(factors, [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]);
        assert_eq!(steps[3].grid.shape, [25, 50, 50]);
        assert_eq!(steps[1].grid.spacing, [4.0; 3]);
        assert_eq!(steps[2].grid.origin, [2.0, 13.5, 2.5]);
    }

    #[test]
    fn a_stride_keeps_the_first_voxels_centre_and_a_plane_stays_a_plane() {
        let grid = Grid::new([1, 9, 9], [1.0; 3], [5.0; 3]);
        let options = Options {
            method: Method::Stride,
            factor: Factor::Fixed([2, 3, 3]),
            levels: Some(5),
            ..Options::default()
        };
        let steps = steps(&grid, [1, 4, 4], &options);
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1].grid, Grid::new([1; 3], [1.0, 9.0, 9.0], [5.0; 3]));
    }

    #[test]
    fn blocks_follow_the_chunks_of_the_source() {
        let block =
            |source, fit: fn([usize; 3]) -> bool| block([64; 3], [1000; 3], [2; 3], source, fit);
        assert_eq!(block([128; 3], |_| true), [64; 3]);
        assert_eq!(block([192, 128, 64], |_| true), [192, 64, 64]);
        assert_eq!(block([192, 128, 64], |_| false), [64; 3]);
    }
}
