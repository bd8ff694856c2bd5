//! Selection of the voxels of the fixed image that are compared with the moving image.

use super::{Image, hash};

/// The locations of samples.
#[derive(Clone, Debug)]
pub enum SampleLocations {
    /// Voxels of the fixed grid, as indices in C order, ascending.
    Voxels(Vec<u32>),
    /// Positions in voxels of the moving image (z, y, x), already mapped by an initial transform
    /// that is not a matrix.
    Points(Vec<[f32; 3]>),
}

/// Some or all voxels of a fixed image.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The values of the samples, all finite.
    pub values: Vec<f32>,
    /// The locations of the samples, one for each value.
    pub places: SampleLocations,
    /// Number of voxels from which the samples were selected.
    pub usable: usize,
}

impl Samples {
    /// All known voxels of an image for which `inside` holds. If there are more than `wanted` such
    /// voxels, one voxel is chosen at random, by `seed`, in each cell of a lattice that gives about
    /// `wanted` samples.
    ///
    /// * `image`: must have fewer than 2^32 voxels
    /// * `inside`: takes the index of a voxel in C order
    pub fn choose(
        image: &Image,
        inside: impl Fn(usize) -> bool,
        wanted: Option<usize>,
        seed: u64,
    ) -> Self {
        let usable = |at: usize| image.voxels[at].is_finite() && inside(at);
        let count = (0..image.voxels.len()).filter(|&at| usable(at)).count();
        let voxels: Vec<u32> = match wanted {
            Some(wanted) if count > wanted => {
                let share = count as f64 / image.voxels.len() as f64;
                one_per_cell(image, wanted as f64 / share, seed)
                    .filter(|&at| usable(at))
                    .map(|at| at as u32)
                    .collect()
            }
            _ => (0..image.voxels.len()).filter(|&at| usable(at)).map(|at| at as u32).collect(),
        };
        let values = voxels.iter().map(|&at| image.voxels[at as usize]).collect();
        Self { values, places: SampleLocations::Voxels(voxels), usable: count }
    }

    /// Number of samples.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// One random voxel of each of about `cells` cells, in ascending order. The lattice of cells
/// divides all three axes, so that the samples are spread evenly.
fn one_per_cell(image: &Image, cells: f64, seed: u64) -> impl Iterator<Item = usize> {
    let shape = image.grid.shape;
    let axes = shape.iter().filter(|&&n| n > 1).count().max(1);
    let ratio = (image.voxels.len() as f64 / cells).max(1.0);
    let edge = ratio.powf(1.0 / axes as f64);
    let counts = shape.map(|n| ((n as f64 / edge).round() as usize).clamp(1, n));
    let mut chosen: Vec<usize> = (0..counts.iter().product())
        .map(|cell| {
            let index =
                [cell / (counts[1] * counts[2]), cell / counts[2] % counts[1], cell % counts[2]];
            let chance = hash(seed, cell as u64);
            let at: [usize; 3] = std::array::from_fn(|a| {
                let (from, to) =
                    (index[a] * shape[a] / counts[a], (index[a] + 1) * shape[a] / counts[a]);
                from + (chance >> (21 * a) & 0x1F_FFFF) as usize * (to - from) / 0x20_0000
            });
            (at[0] * shape[1] + at[1]) * shape[2] + at[2]
        })
        .collect();
    chosen.sort_unstable();
    chosen.into_iter()
}
