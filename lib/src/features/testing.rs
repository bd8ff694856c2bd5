//! Shared test helpers: volumes with known blobs, and the volumes and key points of the BigStream
//! tutorial.

use std::io::Read;
use std::path::Path;

use n5::{DataBlock as _, N5Reader, VecDataBlock};

use crate::geom::{Box3, Point};

/// A reproducible generator of pseudo-random numbers in `[0, 1)`.
pub(super) struct TestRandom(u64);

impl TestRandom {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn roll(&mut self) -> f64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A normally distributed number, mean 0, standard deviation 1.
    pub(super) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.roll()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.roll()).cos()
    }
}

/// Gaussian blobs of `sigma` (micrometres) and height 1 at `centres` (voxels).
pub(super) fn blobs(shape: [usize; 3], spacing: Point, centres: &[Point], sigma: f64) -> Vec<f32> {
    let [nz, ny, nx] = shape;
    let mut image = vec![0.0_f32; nz * ny * nx];
    for centre in centres {
        let profile: [Vec<f64>; 3] = std::array::from_fn(|a| {
            let away = |i: usize| (i as f64 - centre[a]) * spacing[a] / sigma;
            (0..shape[a]).map(|i| (-0.5 * away(i).powi(2)).exp()).collect()
        });
        for z in 0..nz {
            for y in 0..ny {
                let plane = profile[0][z] * profile[1][y];
                let row = &mut image[(z * ny + y) * nx..][..nx];
                row.iter_mut().zip(&profile[2]).for_each(|(v, x)| *v += (plane * x) as f32);
            }
        }
    }
    image
}

/// Reads a whole dataset of an N5 container with the `n5` crate: its voxels in C order, and its
/// shape `(z, y, x)`.
pub(super) fn read_n5(container: &Path, dataset: &str) -> (Vec<f32>, [usize; 3]) {
    let reader = n5::filesystem::N5Filesystem::open(container).unwrap();
    let attributes = reader.get_dataset_attributes(dataset).unwrap();
    let [nx, ny, nz] = [0, 1, 2].map(|a| attributes.get_dimensions()[a] as usize);
    let mut out = vec![0.0; nx * ny * nz];
    for at in attributes.coord_iter() {
        let coordinates = at.iter().copied().collect();
        let block: Option<VecDataBlock<u16>> =
            reader.read_block(dataset, &attributes, coordinates).unwrap();
        let Some(block) = block else { continue };
        let size = block.get_size().to_vec();
        let first: Vec<usize> =
            (0..3).map(|a| at[a] as usize * attributes.get_block_size()[a] as usize).collect();
        let rows = block.into_data();
        for (i, row) in rows.chunks_exact(size[0] as usize).enumerate() {
            let (z, y) = (first[2] + i / size[1] as usize, first[1] + i % size[1] as usize);
            let start = (z * ny + y) * nx + first[0];
            out[start..start + row.len()].iter_mut().zip(row).for_each(|(o, &v)| *o = f32::from(v));
        }
    }
    (out, [nz, ny, nx])
}

/// The voxels of the box `part` of an array, in C order.
pub(super) fn crop(voxels: &[f32], shape: [usize; 3], part: &Box3) -> Vec<f32> {
    let [_, ny, nx] = shape;
    let [min, max] = [part.min, part.max].map(|corner| corner.map(|v| v as usize));
    let mut out = Vec::with_capacity(part.len());
    for z in min[0]..max[0] {
        for y in min[1]..max[1] {
            let row = (z * ny + y) * nx;
            out.extend_from_slice(&voxels[row + min[2]..row + max[2]]);
        }
    }
    out
}

/// An array of 8-byte integers from a NumPy `.npz` archive (zip, stored or deflated).
pub(super) fn read_npz(path: &Path, name: &str) -> Vec<i64> {
    let bytes = std::fs::read(path).unwrap();
    let number = |at: usize, size: usize| {
        bytes[at..at + size].iter().rev().fold(0_usize, |sum, &b| sum << 8 | usize::from(b))
    };
    // the central directory, found from the record at the archive's end (APPNOTE 4.3.12, 4.3.16)
    let end = bytes.windows(4).rposition(|w| w == b"PK\x05\x06").unwrap();
    let mut entry = number(end + 16, 4);
    loop {
        assert_eq!(&bytes[entry..entry + 4], b"PK\x01\x02", "{name} is not in {}", path.display());
        let [method, packed] = [number(entry + 10, 2), number(entry + 20, 4)];
        let [length, extra, comment] = [28, 30, 32].map(|at| number(entry + at, 2));
        if &bytes[entry + 46..entry + 46 + length] == format!("{name}.npy").as_bytes() {
            let local = number(entry + 42, 4);
            let start = local + 30 + number(local + 26, 2) + number(local + 28, 2);
            let packed = &bytes[start..start + packed];
            let mut array = Vec::new();
            if method == 0 {
                array.extend_from_slice(packed);
            } else {
                let mut packed = flate2::read::DeflateDecoder::new(packed);
                assert!(packed.read_to_end(&mut array).unwrap() > 0);
            }
            let header = 10 + usize::from(array[8]) + (usize::from(array[9]) << 8);
            assert!(array[..header].windows(3).any(|w| w == b"<i8"), "{name} holds no integers");
            let values = array[header..].chunks_exact(8);
            return values.map(|v| i64::from_le_bytes(v.try_into().unwrap())).collect();
        }
        entry += 46 + length + extra + comment;
    }
}
