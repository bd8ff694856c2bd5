//! A slow reference implementation of the exact detector: plain loops in `f64`, from the
//! specification alone.

use super::{Options, SpotVoxel};
use crate::filter::mirror;

/// A scalar field on voxels.
struct Field {
    shape: [usize; 3],
    values: Vec<f64>,
}

impl Field {
    fn new(shape: [usize; 3], mut value: impl FnMut([i64; 3]) -> f64) -> Self {
        let [nz, ny, nx] = shape.map(|n| n as i64);
        let mut values = Vec::new();
        for z in 0..nz {
            for y in 0..ny {
                for x in 0..nx {
                    values.push(value([z, y, x]));
                }
            }
        }
        Self { shape, values }
    }

    /// The value at an index, mirrored about the edges.
    fn at(&self, index: [i64; 3]) -> f64 {
        let [z, y, x]: [usize; 3] = std::array::from_fn(|a| mirror(index[a], self.shape[a]));
        self.values[(z * self.shape[1] + y) * self.shape[2] + x]
    }

    /// Applies `join` to the neighbours at the offsets `offsets[0]..=offsets[1]` along one axis.
    fn along(&self, axis: usize, offsets: [i64; 2], join: impl Fn(&[f64]) -> f64) -> Self {
        Self::new(self.shape, |index| {
            let line: Vec<f64> = (offsets[0]..=offsets[1])
                .map(|by| {
                    let mut there = index;
                    there[axis] += by;
                    self.at(there)
                })
                .collect();
            join(&line)
        })
    }
}

fn top_hat(image: &Field, side: usize) -> Field {
    let (low, high) = ((side / 2) as i64, (side - 1 - side / 2) as i64);
    let least = |line: &[f64]| line.iter().copied().fold(f64::INFINITY, f64::min);
    let most = |line: &[f64]| line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut opened = Field::new(image.shape, |index| image.at(index));
    for axis in 0..3 {
        opened = opened.along(axis, [-low, high], least);
    }
    for axis in 0..3 {
        opened = opened.along(axis, [-high, low], most);
    }
    Field::new(image.shape, |index| image.at(index) - opened.at(index))
}

/// `-sigma^2` times the Laplacian of Gaussian.
fn response(image: &Field, sigma: f64) -> Field {
    let radius = (4.0 * sigma + 0.5).floor() as i64;
    let offsets: Vec<f64> = (-radius..=radius).map(|x| x as f64).collect();
    let bell: Vec<f64> = offsets.iter().map(|x| (-x * x / (2.0 * sigma * sigma)).exp()).collect();
    let sum: f64 = bell.iter().sum();
    let plain: Vec<f64> = bell.iter().map(|v| v / sum).collect();
    let curved = |(x, v): (&f64, &f64)| v * (x * x / (sigma * sigma) - 1.0) / (sigma * sigma);
    let curved: Vec<f64> = offsets.iter().zip(&plain).map(curved).collect();
    let parts: Vec<Field> = (0..3)
        .map(|second| {
            let mut part = Field::new(image.shape, |index| image.at(index));
            for axis in 0..3 {
                let kernel = if axis == second { &curved } else { &plain };
                part = part.along(axis, [-radius, radius], |line| {
                    line.iter().zip(kernel).map(|(value, weight)| value * weight).sum()
                });
            }
            part
        })
        .collect();
    Field::new(image.shape, |index| {
        -sigma * sigma * parts.iter().map(|part| part.at(index)).sum::<f64>()
    })
}

/// All local maxima over position and scale that lie outside the excluded border, unpruned, in the
/// order of scale, z, y, x.
pub(super) fn detect(voxels: &[f32], shape: [usize; 3], options: &Options) -> Vec<SpotVoxel> {
    let mut values = voxels.iter().map(|&v| f64::from(v));
    let image = Field::new(shape, |_| values.next().unwrap());
    let [low, high] = options.radius;
    let count = ((high - low) as usize).min(15);
    let (first, last) = (0.8 * low / 3.0_f64.sqrt(), 1.2 * high / 3.0_f64.sqrt());
    let sigma = |i: usize| {
        if count == 1 { first } else { first + (last - first) * i as f64 / (count - 1) as f64 }
    };
    let flat = top_hat(&image, high as usize);
    let stack: Vec<Field> = (0..count).map(|i| response(&flat, sigma(i))).collect();
    let border = options.border as i64;
    let [nz, ny, nx] = shape.map(|n| n as i64);
    let mut spots = Vec::new();
    for scale in 0..count {
        for z in border..nz - border {
            for y in border..ny - border {
                for x in border..nx - border {
                    if is_maximum(&stack, scale, [z, y, x]) {
                        spots.push(SpotVoxel {
                            position: [z, y, x].map(|v| v as f64),
                            radius: sigma(scale) * 3.0_f64.sqrt(),
                            response: stack[scale].at([z, y, x]),
                            intensity: image.at([z, y, x]),
                        });
                    }
                }
            }
        }
    }
    spots
}

fn is_maximum(stack: &[Field], scale: usize, [z, y, x]: [i64; 3]) -> bool {
    let value = stack[scale].at([z, y, x]);
    let shape = stack[scale].shape;
    let near = |i: i64, n: usize| (i - 1).max(0)..(i + 2).min(n as i64);
    let scales = scale.saturating_sub(1)..(scale + 2).min(stack.len());
    value > 0.0
        && scales.into_iter().all(|s| {
            near(z, shape[0]).all(|k| {
                near(y, shape[1])
                    .all(|j| near(x, shape[2]).all(|i| stack[s].at([k, j, i]) <= value))
            })
        })
}
