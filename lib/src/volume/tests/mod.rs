//! Round trips of volumes, and tests of faults.

mod arrays;
mod bucket;
mod faults;
mod foreign;
mod formats;
mod images;
mod metadata;
mod outputs;
mod planar;
mod round_trips;
mod slices;

use super::*;
use crate::geom::Box3;

/// A voxel value that varies with position and fits the type.
fn value<T: Voxel>(z: i64, y: i64, x: i64) -> T {
    let mixed = (z * 7919 + y * 104_729 + x * 1_299_709).rem_euclid(60_000);
    T::from_f64(if T::DTYPE.size() == 1 {
        (mixed % 251 - if T::DTYPE == Dtype::I8 { 125 } else { 0 }) as f64
    } else {
        (mixed / 2) as f64
    })
}

/// The voxels of a box, with the values of [`value`].
fn ramp<T: Voxel>(part: &Box3) -> Vec<T> {
    let mut voxels = Vec::with_capacity(part.len());
    for z in part.min[0]..part.max[0] {
        for y in part.min[1]..part.max[1] {
            voxels.extend((part.min[2]..part.max[2]).map(|x| value::<T>(z, y, x)));
        }
    }
    voxels
}

/// A grid whose spacings and origins all differ.
fn grid(shape: [usize; 3]) -> Grid {
    Grid::new(shape, [0.84, 0.23, 0.25], [10.0, -2.5, 3.0])
}

fn spec(shape: [usize; 3], chunk: [usize; 3], format: Format) -> Spec {
    Spec { grid: grid(shape), dtype: Dtype::U16, chunk, shard: None, codec: Codec::Blosc, format }
}

/// Writes the voxels of [`ramp`], unit by unit.
fn fill<T: Voxel>(output: &Output, shape: [usize; 3]) {
    for tile in Box3::of_shape(shape).tiles(output.unit()) {
        output.write(&tile, &ramp::<T>(&tile)).unwrap();
    }
}

/// Checks a volume written by [`fill`]: the whole volume, and a box that extends beyond its bounds.
fn assert_ramp<T: Voxel>(volume: &Volume) {
    let bounds = volume.grid().bounds();
    assert_eq!(volume.dtype(), T::DTYPE);
    assert_eq!(volume.read::<T>(&bounds).unwrap(), ramp::<T>(&bounds));
    let odd = Box3::new([-1, 2, -3], [3, 9, 4]);
    let inside = odd.intersect(&bounds);
    let found = volume.read::<T>(&odd).unwrap();
    let mut at = found.iter();
    for z in odd.min[0]..odd.max[0] {
        for y in odd.min[1]..odd.max[1] {
            for x in odd.min[2]..odd.max[2] {
                let wanted = if inside.contains([z, y, x]) { value(z, y, x) } else { T::default() };
                assert_eq!(*at.next().unwrap(), wanted, "{z},{y},{x}");
            }
        }
    }
}

/// The location of `name` in a temporary folder.
fn at(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}
