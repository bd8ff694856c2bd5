//! Contexts: the box of raw voxels around each spot, described by its mean, its Euclidean norm and
//! its low-frequency coefficients.

use std::borrow::Cow;

use super::basis::Basis;
use super::cpu::{CoefficientRow, copy_lines, dot};
use super::threading::Threading;
use crate::geom::{Grid, Point};
use crate::volume::Voxel;

/// The maximum distance along each axis, in voxels, by which the sub-voxel search moves from the
/// spot.
pub(super) const MARGIN: usize = 3;

/// A spot whose context lies inside the volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ContextSpot {
    /// The index of the spot in the list given.
    pub(super) spot: usize,
    /// The central voxel of its context, `[z, y, x]`.
    pub(super) voxel: [usize; 3],
    /// The position as given, `[z, y, x]` in micrometres.
    pub(super) position: Point,
}

/// The spots with complete contexts of half width `radius`, ordered by tiles of the size of a
/// context: spots that follow each other then share voxels, which are still in the processor's
/// cache.
///
/// `truncate`: whether the position is truncated to a voxel, as in BigStream, instead of rounded.
/// BigStream computes (spot * spacing) / spacing and casts the quotient to an integer. If the
/// quotient is rounded below a whole number, the result is the next lower voxel.
pub(super) fn places(
    grid: &Grid,
    positions: &[Point],
    radius: [usize; 3],
    truncate: bool,
) -> Vec<ContextSpot> {
    let inside = |(spot, &position): (usize, &Point)| {
        let index = grid.index(position).map(|v| if truncate { v.trunc() } else { v.round() });
        let fits = (0..3).all(|a| {
            index[a] >= radius[a] as f64 && index[a] + (radius[a] as f64) < grid.shape[a] as f64
        });
        fits.then(|| ContextSpot { spot, voxel: index.map(|v| v as usize), position })
    };
    let mut places: Vec<ContextSpot> = positions.iter().enumerate().filter_map(inside).collect();
    let tile = |p: &ContextSpot| -> [usize; 3] {
        std::array::from_fn(|a| p.voxel[a] / (2 * radius[a] + 1))
    };
    places.sort_by_cached_key(|p| (tile(p), p.voxel, p.spot));
    places
}

/// The voxels around the spots: one array that contains them all, or a small array for each spot.
pub(super) struct Store<'a, T: Clone> {
    pub(super) voxels: Cow<'a, [T]>,
    /// The strides along z and y, in elements.
    pub(super) strides: [usize; 2],
    /// The index in `voxels` of the central voxel of each context.
    pub(super) centres: Vec<usize>,
}

impl<'a, T: Voxel> Store<'a, T> {
    /// A single array that contains the contexts of all spots in `places`; its first voxel is voxel
    /// `origin` of the volume.
    pub(super) fn array(
        voxels: impl Into<Cow<'a, [T]>>,
        shape: [usize; 3],
        origin: [usize; 3],
        places: &[ContextSpot],
    ) -> Self {
        let offset = |p: &ContextSpot| {
            let [z, y, x]: [usize; 3] = std::array::from_fn(|a| p.voxel[a] - origin[a]);
            (z * shape[1] + y) * shape[2] + x
        };
        Self {
            voxels: voxels.into(),
            strides: [shape[1] * shape[2], shape[2]],
            centres: places.iter().map(offset).collect(),
        }
    }

    /// Consecutive arrays of shape `size`, one for each of `places` spots and centred on the spot.
    pub(super) fn cubes(voxels: Cow<'a, [T]>, size: [usize; 3], places: usize) -> Self {
        let [cz, cy, cx] = size;
        let middle = (cz / 2 * cy + cy / 2) * cx + cx / 2;
        let centres = (0..places).map(|i| i * cz * cy * cx + middle).collect();
        Self { voxels, strides: [cy * cx, cx], centres }
    }
}

/// The contexts of the spots of one volume.
pub(super) struct Contexts<'a, T: Clone> {
    store: Store<'a, T>,
    /// The shape of the volume.
    shape: [usize; 3],
    pub(super) radius: [usize; 3],
    /// The spot of each context.
    pub(super) places: Vec<ContextSpot>,
    means: Vec<f32>,
    lengths: Vec<f32>,
    /// The norm of the part of each context (scaled to norm 1) that the coefficients do not
    /// represent.
    pub(super) rests: Vec<f32>,
    /// The coefficients of the contexts scaled to norm 1; `width` for each context.
    pub(super) coefficients: Vec<f32>,
    pub(super) width: usize,
}

/// The description of one context.
struct Description {
    mean: f32,
    length: f32,
    rest: f32,
    coefficients: Vec<f32>,
}

impl<'a, T: Voxel> Contexts<'a, T> {
    /// Describes the contexts of half width `radius` around `places` of a volume of `shape`.
    ///
    /// Constant contexts and contexts with a non-finite voxel are dropped, as they match nothing.
    pub(super) fn describe(
        store: Store<'a, T>,
        shape: [usize; 3],
        places: &[ContextSpot],
        radius: [usize; 3],
        share: Threading,
    ) -> Self {
        let size = radius.map(|r| 2 * r + 1);
        let basis = Basis::new(size);
        let mut contexts = Self {
            store,
            shape,
            radius,
            places: Vec::new(),
            means: Vec::new(),
            lengths: Vec::new(),
            rests: Vec::new(),
            coefficients: Vec::with_capacity(places.len() * basis.len()),
            width: basis.len(),
        };
        let work = |(voxels, lines): &mut (Vec<f32>, Vec<CoefficientRow>), i: usize| {
            gather(&contexts.store, i, radius, 0.0, voxels);
            describe(voxels, &basis, lines)
        };
        let described = share.map(places.len(), Default::default, work);
        let mut centres = Vec::new();
        for (i, description) in described.into_iter().enumerate() {
            let Some(it) = description else { continue };
            contexts.places.push(places[i]);
            centres.push(contexts.store.centres[i]);
            contexts.means.push(it.mean);
            contexts.lengths.push(it.length);
            contexts.rests.push(it.rest);
            contexts.coefficients.extend(it.coefficients);
        }
        contexts.store.centres = centres;
        contexts
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// The coefficients of context `i`.
    pub(super) fn row(&self, i: usize) -> &[f32] {
        &self.coefficients[i * self.width..][..self.width]
    }

    /// The voxels of context `i` minus their mean.
    pub(super) fn centred(&self, i: usize, out: &mut Vec<f32>) {
        gather(&self.store, i, self.radius, self.means[i], out);
    }

    /// The voxels of the central box of half width `inner` of context `i`, minus the mean of the
    /// box.
    pub(super) fn middle(&self, i: usize, inner: [usize; 3], out: &mut Vec<f32>) {
        gather(&self.store, i, inner, self.means[i], out);
        let mean = out.iter().sum::<f32>() / out.len() as f32;
        for v in out.iter_mut() {
            *v -= mean;
        }
    }

    /// The voxels of context `i`, scaled to mean 0 and norm 1.
    pub(super) fn unit(&self, i: usize, out: &mut Vec<f32>) {
        self.centred(i, out);
        let scale = 1.0 / self.lengths[i];
        for v in out.iter_mut() {
            *v *= scale;
        }
    }

    /// The correlation of `unit`, a context of mean 0 and norm 1, with context `i`.
    pub(super) fn correlation(&self, i: usize, unit: &[f32], scratch: &mut Vec<f32>) -> f32 {
        self.centred(i, scratch);
        dot(unit, scratch) / self.lengths[i]
    }

    /// The number of voxels, at most `MARGIN`, by which context `i` can be shifted towards lower
    /// and towards higher indices along each axis.
    pub(super) fn reach(&self, i: usize) -> [[usize; 2]; 3] {
        std::array::from_fn(|a| {
            let (at, r) = (self.places[i].voxel[a], self.radius[a]);
            [MARGIN.min(at - r), MARGIN.min(self.shape[a] - 1 - r - at)]
        })
    }

    /// Copies the central box of half width `inner` of context `i`, and the voxels within its
    /// [`Contexts::reach`], minus the mean of the context, into `out`, an array with `strides`
    /// along z and y. `out` is larger than the box by `MARGIN` on each side, and the box is at its
    /// centre. Voxels beyond the reach and non-finite voxels are 0.
    pub(super) fn surroundings(
        &self,
        i: usize,
        inner: [usize; 3],
        strides: [usize; 2],
        out: &mut [f32],
    ) {
        let reach = self.reach(i);
        let [sz, sy] = self.store.strides;
        let [down_z, down_y, down_x] = std::array::from_fn(|a| inner[a] + reach[a][0]);
        let [nz, ny, nx] = std::array::from_fn(|a| 2 * inner[a] + 1 + reach[a][0] + reach[a][1]);
        let [to_z, to_y, to_x] = std::array::from_fn(|a| MARGIN - reach[a][0]);
        let corner = self.store.centres[i] - down_z * sz - down_y * sy - down_x;
        out.fill(0.0);
        for z in 0..nz {
            for y in 0..ny {
                let row = &self.store.voxels[corner + z * sz + y * sy..][..nx];
                let to = (z + to_z) * strides[0] + (y + to_y) * strides[1] + to_x;
                let mean = self.means[i];
                for (o, v) in out[to..to + nx].iter_mut().zip(row) {
                    let v = v.to_f32() - mean;
                    *o = if v.is_finite() { v } else { 0.0 };
                }
            }
        }
    }
}

/// Copies context `i` of half width `radius`, minus `mean`.
fn gather<T: Voxel>(
    store: &Store<'_, T>,
    i: usize,
    radius: [usize; 3],
    mean: f32,
    out: &mut Vec<f32>,
) {
    let [rz, ry, rx] = radius;
    let [sz, sy] = store.strides;
    let corner = store.centres[i] - rz * sz - ry * sy - rx;
    out.resize((2 * rz + 1) * (2 * ry + 1) * (2 * rx + 1), 0.0);
    copy_lines(&store.voxels[corner..], [sz, sy], radius.map(|r| 2 * r + 1), mean, out);
}

/// Describes one context and subtracts the mean from `voxels`; `None` if the context is constant or
/// contains a non-finite voxel.
fn describe(
    voxels: &mut [f32],
    basis: &Basis,
    lines: &mut Vec<CoefficientRow>,
) -> Option<Description> {
    // sums of 64 integers of 16 bits are exact in `f32`
    let sum: f64 = voxels.chunks(64).map(|c| f64::from(c.iter().sum::<f32>())).sum();
    let mean = (sum / voxels.len() as f64) as f32;
    for v in voxels.iter_mut() {
        *v -= mean;
    }
    let square = dot(voxels, voxels);
    let length = square.sqrt();
    // because of rounding errors, a constant context minus its mean is not exactly 0
    let noise = 1e-6 * mean.abs() * (voxels.len() as f32).sqrt();
    if !(length.is_finite() && length > noise && square.is_normal()) {
        return None;
    }
    let mut coefficients = vec![0.0; basis.len()];
    basis.project(voxels, lines, &mut coefficients);
    for v in &mut coefficients {
        *v /= length;
    }
    let rest = (1.0 - dot(&coefficients, &coefficients)).max(0.0).sqrt();
    Some(Description { mean, length, rest, coefficients })
}
