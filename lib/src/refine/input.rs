//! One of the two volumes: its stored levels, its mask, and its image at a resolution.

use super::pyramid::{OWN_RESOLUTION_FACTOR, Pyramid, decimation, finest, read_at};
use super::{Error, InputVolume};
use crate::blocks::Context;
use crate::geom::{Box3, Grid};
use crate::metric::{Image, padding};
use crate::volume::{Volume, levels};

/// Bytes of decoded chunks that are cached for each volume.
const CACHE: u64 = 32 << 20;
/// Size of the tiles in which a mask is read, voxels along z, y, x.
const TILE: [usize; 3] = [16, 256, 256];

/// One of the two input volumes.
pub(super) struct OpenedInput {
    /// "fixed" or "moving".
    pub(super) name: &'static str,
    /// The volume as given, and the coarser levels stored with it.
    pub(super) stored: Vec<Volume>,
    mask: Option<Volume>,
}

impl OpenedInput {
    pub(super) fn open(input: &InputVolume<'_>, name: &'static str) -> Result<Self, Error> {
        let volume = Volume::open(input.location, &input.select)?;
        volume.keep(CACHE);
        let grid = volume.grid();
        let mask = input.mask.map(|mask| Volume::open_mask(mask, &volume)).transpose()?;
        mask.iter().for_each(|mask| mask.keep(CACHE));
        let mut stored = vec![volume];
        let has_overrides = input.select.spacing.is_some() || input.select.origin.is_some();
        // --spacing and --origin apply only to the level that was named
        for level in
            if has_overrides { Vec::new() } else { levels(input.location).unwrap_or_default() }
        {
            let coarser = (0..3).all(|a| level.grid.spacing[a] >= 0.999 * grid.spacing[a]);
            if coarser && level.grid.shape != grid.shape {
                let other = Volume::open(&level.location, &input.select)?;
                other.keep(CACHE);
                stored.push(other);
            }
        }
        Ok(Self { name, stored, mask })
    }

    /// The grid of the volume as given.
    pub(super) fn grid(&self) -> Grid {
        self.stored[0].grid()
    }

    /// The location of the volume as given.
    pub(super) fn location(&self) -> &str {
        self.stored[0].location()
    }

    /// The coarsest stored level whose spacing along each axis is at most `resolution`
    /// (micrometres), or at most that of the volume as given if that is larger.
    pub(super) fn source(&self, resolution: f64) -> &Volume {
        let given = self.grid();
        let fine = |volume: &&Volume| {
            let spacing = volume.grid().spacing;
            (0..3).all(|a| spacing[a] <= 1.01 * resolution.max(given.spacing[a]))
        };
        let fits = self.stored.iter().filter(fine);
        let coarsest = fits.max_by(|a, b| finest(&a.grid()).total_cmp(&finest(&b.grid())));
        coarsest.unwrap_or(&self.stored[0])
    }

    /// Number of voxels of the image at `resolution` (micrometres).
    pub(super) fn voxels(&self, resolution: f64) -> u64 {
        let grid = self.source(resolution).grid();
        let (_, step) = decimation(&grid, finest(&grid), resolution);
        (0..3).map(|a| grid.shape[a].div_ceil(step[a]) as u64).product()
    }

    /// The image pyramid whose finest level has about the resolution `resolution` (micrometres).
    /// Voxels at which the mask is 0 are NaN. A plane is moved to z = 0 and gets a z spacing of 1.
    ///
    /// # Errors
    /// [`Error::Mask`] if the mask excludes all voxels; errors of reading.
    pub(super) fn image(&self, resolution: f64, planar: bool) -> Result<Pyramid, Error> {
        let source = self.source(resolution);
        let mut image = read_at(&source.grid(), resolution, |part| source.read::<f32>(part))?;
        if let Some(mask) = &self.mask {
            apply_mask(mask, &mut image)?;
            if image.voxels.iter().all(|v| v.is_nan()) {
                let location = mask.location().to_owned();
                return Err(Error::Mask { location, side: self.name });
            }
        }
        if planar {
            (image.grid.origin[0], image.grid.spacing[0]) = (0.0, 1.0);
        }
        Ok(pyramid(image, &source.grid(), resolution))
    }

    /// The mask, if there is one.
    pub(super) fn mask(&self) -> Option<&Volume> {
        self.mask.as_ref()
    }

    /// The coarsest stored level with all sections whose pixels are no larger than `resolution`
    /// (micrometres).
    fn sections(&self, resolution: f64) -> &Volume {
        let given = self.grid();
        let fits = |volume: &&Volume| {
            let grid = volume.grid();
            let [_, y, x] = grid.spacing;
            grid.shape[0] == given.shape[0] && y.max(x) <= 1.01 * resolution
        };
        let fits = self.stored.iter().filter(fits);
        fits.max_by(|a, b| finest(&a.grid()).total_cmp(&finest(&b.grid())))
            .unwrap_or(&self.stored[0])
    }

    /// The number of pixels of a section at `resolution` (micrometres).
    pub(super) fn plane_pixels(&self, resolution: f64) -> u64 {
        let grid = plane_of(&self.sections(resolution).grid(), 0).1;
        let (_, step) = decimation(&grid, finest(&grid), resolution);
        (1..3).map(|a| grid.shape[a].div_ceil(step[a]) as u64).product()
    }

    /// The image pyramid of a section, at z = 0, whose finest level has about the resolution
    /// `resolution` (micrometres). Pixels at which the mask is 0, and padding, are NaN.
    ///
    /// # Errors
    /// Errors of reading.
    pub(super) fn plane(&self, z: usize, resolution: f64) -> Result<Pyramid, Error> {
        let source = self.sections(resolution);
        let (part, grid) = plane_of(&source.grid(), z);
        let mut image =
            read_at(&grid, resolution, |tile| source.read::<f32>(&tile.shift(part.min)))?;
        if let Some(mask) = &self.mask {
            apply_mask(mask, &mut image)?;
        }
        // the outlines of sections on an empty background resemble each other
        padding::mark(image.grid.shape, &mut image.voxels);
        (image.grid.origin[0], image.grid.spacing[0]) = (0.0, 1.0);
        Ok(pyramid(image, &grid, resolution))
    }
}

/// The box of a section of a stack, and its grid.
fn plane_of(grid: &Grid, z: usize) -> (Box3, Grid) {
    let bounds = grid.bounds();
    let (mut min, mut max) = (bounds.min, bounds.max);
    (min[0], max[0]) = (z as i64, z as i64 + 1);
    let part = Box3::new(min, max);
    (part, grid.crop(&part))
}

/// The pyramid of an image that was read from a volume on `grid` at `resolution` (micrometres).
fn pyramid(image: Image, grid: &Grid, resolution: f64) -> Pyramid {
    let own = finest(grid);
    let read = if resolution < OWN_RESOLUTION_FACTOR * own { own } else { resolution };
    Pyramid::new(image, read)
}

/// Sets voxels to NaN where the nearest mask voxel is not above 0, and outside the mask.
fn apply_mask(mask: &Volume, image: &mut Image) -> Result<(), Error> {
    let (grid, own) = (image.grid, mask.grid());
    let [_, ny, nx] = grid.shape;
    let nearest = |position: f64, a: usize| -> i64 {
        if grid.shape[a] == 1 && own.shape[a] == 1 {
            return 0;
        }
        ((position - own.origin[a]) / own.spacing[a]).round().clamp(-1.0, own.shape[a] as f64)
            as i64
    };
    for tile in grid.bounds().tiles(TILE) {
        let [low, high] = grid.extent(&tile);
        let part = Box3::new(
            std::array::from_fn(|a| nearest(low[a], a)),
            std::array::from_fn(|a| nearest(high[a], a) + 1),
        );
        let values = mask.read::<f32>(&part)?;
        let [_, rows, columns] = part.shape();
        for voxel in tile.tiles([1; 3]) {
            let p = grid.position(voxel.min.map(|v| v as f64));
            let [z, y, x] = std::array::from_fn(|a| (nearest(p[a], a) - part.min[a]) as usize);
            let value = values[(z * rows + y) * columns + x];
            if !(value > 0.0) {
                let [z, y, x] = voxel.min.map(|v| v as usize);
                image.voxels[(z * ny + y) * nx + x] = f32::NAN;
            }
        }
    }
    Ok(())
}

/// Chooses the resolution at which both images are read: that of the images, or `--resolution` if
/// it is coarser, or an even coarser one if `--memory` requires it.
pub(super) struct ResolutionChoice<'a> {
    /// The fixed and the moving volume.
    pub(super) sides: [&'a OpenedInput; 2],
    /// Scale of the initial map: moving lengths divided by fixed lengths.
    pub(super) scale: f64,
    /// Maximum number of samples; `None` for all voxels.
    pub(super) samples: Option<usize>,
    /// Whether a search compares the images at a range of scales.
    pub(super) search: bool,
}

/// Bytes per voxel of the fixed and of the moving image: the image, its pyramid, and a working
/// copy; for the moving image also its sorted values.
const PER_VOXEL: [u64; 2] = [9, 13];
/// Bytes per sample: location, value, sorted values, moving value and gradient.
const PER_SAMPLE: u64 = 28;
/// Bytes that each thread holds while reading: input, two stages of smoothing, output.
pub(super) const PER_THREAD: u64 = 48 << 20;
/// Bytes per voxel of either image that each thread holds while it refines a candidate of a search:
/// the image, its detail, and sorted values.
const PER_SEARCHED: u64 = 12;
/// Side lengths of the largest images on which candidates are refined, voxels, for volumes and for
/// planes: eight times those of the first placement.
const REFINED_SIDES: [u64; 2] = [8 * 36, 8 * 160];

impl ResolutionChoice<'_> {
    /// Resolutions in fixed and in moving micrometres, and the bytes needed.
    ///
    /// # Errors
    /// [`Error::Memory`] if even images of fewer than 4096 voxels do not fit.
    pub(super) fn resolution(
        &self,
        wanted: Option<f64>,
        ctx: &Context,
    ) -> Result<([f64; 2], u64), Error> {
        let own = self.sides.map(|side| finest(&side.grid()));
        // in a search, either image can be the finer one, so each is read at its own resolution
        let common = own[0].max(own[1] / self.scale).max(wanted.unwrap_or(0.0));
        let mut resolution = match (self.search, wanted) {
            (true, _) => own,
            (false, _) => [common, common * self.scale],
        };
        loop {
            let voxels: Vec<u64> = (0..2).map(|i| self.sides[i].voxels(resolution[i])).collect();
            let samples = self.samples.map_or(voxels[0], |n| voxels[0].min(2 * n as u64));
            let images: u64 = voxels.iter().zip(PER_VOXEL).map(|(n, each)| n * each).sum();
            let bytes = images
                + samples * PER_SAMPLE
                + ctx.threads as u64 * PER_THREAD.max(self.searched(&voxels))
                + 2 * CACHE;
            // samples are indexed with 32 bits
            if bytes <= ctx.memory / 10 * 9 && voxels[0] < u64::from(u32::MAX) {
                return Ok((resolution, bytes));
            }
            if voxels.iter().any(|&n| n < 4096) {
                let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
                let (wanted, found) = (megabytes(bytes / 9 * 10 + 10), megabytes(ctx.memory));
                return Err(Error::Memory { resolution: resolution[0], wanted, found });
            }
            resolution = resolution.map(|r| 2.0 * r);
        }
    }

    /// Bytes that each thread of a search needs.
    fn searched(&self, voxels: &[u64]) -> u64 {
        if !self.search {
            return 0;
        }
        let planar = self.sides.iter().all(|side| side.grid().shape[0] == 1);
        let most = if planar { REFINED_SIDES[1].pow(2) } else { REFINED_SIDES[0].pow(3) };
        let images: u64 = voxels.iter().map(|&n| n.min(most) * PER_SEARCHED).sum();
        let most = voxels[0].min(most);
        PER_THREAD + images + self.samples.map_or(most, |n| most.min(2 * n as u64)) * PER_SAMPLE
    }
}
