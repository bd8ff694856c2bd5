//! Reading a volume a few planes at a time in its own data type, and reading single voxels.

use std::collections::BTreeMap;

use super::cpu::Preprocessing;
use crate::filter::planes::Plane;
use crate::geom::Box3;
use crate::volume::{Dtype, Error, Volume, Voxel};

/// Voxels in their stored data type where that takes less memory than `f32`.
enum SlabVoxels {
    U8(Vec<u8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    F32(Vec<f32>),
}

/// Bytes per voxel in [`Slabs`].
pub(super) fn size(dtype: Dtype) -> usize {
    match dtype {
        Dtype::U8 => 1,
        Dtype::U16 | Dtype::I16 => 2,
        _ => 4,
    }
}

/// The planes of a box of a volume, provided one after the other.
pub(super) struct Slabs<'a> {
    volume: &'a Volume,
    /// The box that is read.
    part: Box3,
    /// The box whose non-finite voxels are counted.
    core: Box3,
    /// The number of planes read at once; slabs are aligned to plane 0 of the volume.
    depth: i64,
    clean: Preprocessing,
    voxels: SlabVoxels,
    held: std::ops::Range<i64>,
    first: Option<f32>,
    /// Whether all preprocessed voxels that were read so far are equal.
    pub(super) constant: bool,
    /// The number of NaN and infinite voxels of the core that were read so far.
    pub(super) not_finite: u64,
}

impl<'a> Slabs<'a> {
    pub(super) fn new(
        volume: &'a Volume,
        part: Box3,
        core: Box3,
        depth: usize,
        clean: Preprocessing,
    ) -> Self {
        let voxels = match volume.dtype() {
            Dtype::U8 => SlabVoxels::U8(Vec::new()),
            Dtype::U16 => SlabVoxels::U16(Vec::new()),
            Dtype::I16 => SlabVoxels::I16(Vec::new()),
            _ => SlabVoxels::F32(Vec::new()),
        };
        Self {
            volume,
            part,
            core,
            depth: depth.max(1) as i64,
            clean,
            voxels,
            held: 0..0,
            first: None,
            constant: true,
            not_finite: 0,
        }
    }

    /// Fills `plane`, which must cover the box `part` along y and x, with the preprocessed voxels
    /// of plane `z` of the volume.
    pub(super) fn fill(&mut self, z: i64, plane: &mut Plane) -> Result<(), Error> {
        if !self.held.contains(&z) {
            self.read(z)?;
        }
        let [_, ny, nx] = self.part.shape();
        let start = (z - self.held.start) as usize * ny * nx;
        let range = start..start + ny * nx;
        let mut pass = PlanePass { slabs: SlabStatistics::of(self, z), plane, width: nx };
        match &self.voxels {
            SlabVoxels::U8(voxels) => pass.copy(&voxels[range]),
            SlabVoxels::U16(voxels) => pass.copy(&voxels[range]),
            SlabVoxels::I16(voxels) => pass.copy(&voxels[range]),
            SlabVoxels::F32(voxels) => pass.copy(&voxels[range]),
        }
        let SlabStatistics { first, constant, not_finite, .. } = pass.slabs;
        (self.first, self.constant) = (first, constant);
        self.not_finite += not_finite;
        Ok(())
    }

    fn read(&mut self, z: i64) -> Result<(), Error> {
        let end = (z.div_euclid(self.depth) + 1) * self.depth;
        let mut slab = self.part;
        (slab.min[0], slab.max[0]) = (z, end.min(self.part.max[0]));
        match &mut self.voxels {
            SlabVoxels::U8(voxels) => read(self.volume, &slab, voxels),
            SlabVoxels::U16(voxels) => read(self.volume, &slab, voxels),
            SlabVoxels::I16(voxels) => read(self.volume, &slab, voxels),
            SlabVoxels::F32(voxels) => read(self.volume, &slab, voxels),
        }?;
        self.held = slab.min[0]..slab.max[0];
        Ok(())
    }
}

fn read<T: Voxel>(volume: &Volume, slab: &Box3, voxels: &mut Vec<T>) -> Result<(), Error> {
    voxels.resize(slab.len(), T::default());
    volume.read_into(slab, voxels)
}

/// The statistics that are updated while a plane is copied.
struct SlabStatistics {
    clean: Preprocessing,
    first: Option<f32>,
    constant: bool,
    not_finite: u64,
    /// The core, if the plane intersects it.
    counted: Option<Box3>,
    min: [i64; 2],
}

impl SlabStatistics {
    fn of(slabs: &Slabs<'_>, z: i64) -> Self {
        let inside = (slabs.core.min[0]..slabs.core.max[0]).contains(&z);
        Self {
            clean: slabs.clean,
            first: slabs.first,
            constant: slabs.constant,
            not_finite: 0,
            counted: inside.then_some(slabs.core),
            min: [slabs.part.min[1], slabs.part.min[2]],
        }
    }
}

struct PlanePass<'a> {
    slabs: SlabStatistics,
    plane: &'a mut Plane,
    width: usize,
}

impl PlanePass<'_> {
    fn copy<T: Voxel>(&mut self, voxels: &[T]) {
        let seen = &mut self.slabs;
        let clean = seen.clean;
        let (mut zero, mut finite) = (true, true);
        for (i, row) in voxels.chunks_exact(self.width.max(1)).enumerate() {
            let out = &mut self.plane.row_mut(seen.min[0] + i as i64)[..self.width];
            for (out, &v) in out.iter_mut().zip(row) {
                let v = v.to_f32();
                finite &= v.is_finite();
                *out = clean.apply(v);
                zero &= *out == 0.0;
            }
            if seen.constant {
                let first = *seen.first.get_or_insert(out[0]);
                seen.constant = out.iter().all(|&v| v == first);
            }
        }
        if zero {
            self.plane.clear();
        }
        if !finite && let Some(core) = seen.counted {
            let [y0, x0] = seen.min;
            let columns = (core.min[2] - x0) as usize..(core.max[2] - x0) as usize;
            for y in core.min[1]..core.max[1] {
                let row = &voxels[(y - y0) as usize * self.width..][..self.width];
                let bad = row[columns.clone()].iter().filter(|v| !v.to_f32().is_finite());
                seen.not_finite += bad.count() as u64;
            }
        }
    }
}

/// The side of the cells in which single voxels are read, in voxels.
const CELL_SIDE: i64 = 64;

/// The voxels at the given indices `[z, y, x]` of a volume; `None` outside the volume.
///
/// The voxels are read in the order of the volume's chunks, at most one cell at a time.
pub(super) fn sample<T: Voxel>(
    volume: &Volume,
    places: &[[i64; 3]],
) -> Result<Vec<Option<T>>, Error> {
    let bounds = volume.grid().bounds();
    // a group of whole chunks: one chunk, or several if they are smaller than a cell
    let chunk = volume.chunk().map(|n| n as i64 * (CELL_SIDE / n.max(1) as i64).max(1));
    let mut cells: BTreeMap<([i64; 3], [i64; 3]), Vec<usize>> = BTreeMap::new();
    for (i, place) in places.iter().enumerate().filter(|(_, place)| bounds.contains(**place)) {
        let of_chunk = std::array::from_fn(|a| place[a] / chunk[a]);
        let in_chunk = std::array::from_fn(|a| place[a] % chunk[a] / CELL_SIDE);
        cells.entry((of_chunk, in_chunk)).or_default().push(i);
    }
    let mut out = vec![None; places.len()];
    let mut voxels = Vec::new();
    for members in cells.values() {
        let boxes = members.iter().map(|&i| Box3::new(places[i], places[i].map(|v| v + 1)));
        let Some(part) = boxes.reduce(|a, b| a.union(&b)) else { continue };
        voxels.resize(part.len(), T::default());
        volume.read_into(&part, &mut voxels)?;
        let [_, ny, nx] = part.shape();
        for &i in members {
            let [z, y, x]: [usize; 3] =
                std::array::from_fn(|a| (places[i][a] - part.min[a]) as usize);
            out[i] = Some(voxels[(z * ny + y) * nx + x]);
        }
    }
    Ok(out)
}
