//! The estimation of SOFIMA (`flow_field.py`), for results that agree with earlier ones: whole-voxel
//! shifts from the cross-correlation of two patches at all shifts at which they overlap.
//!
//! The formulas and constants are those of SOFIMA with a batch size of 1; with larger batches, its
//! masked results depend on the other patches of the batch. Without masks the correlation is not
//! normalised, so that large shifts, at which the patches overlap less, are found less easily.
//! Patches that would begin outside an image are moved inwards, and the shift that is reported does
//! not account for this.

use crate::filter::Fft;

use super::clean::{FlowField, Quality};

/// Candidates for a maximum are not lower than their neighbours within this distance, voxels.
const SEPARATION: usize = 2;
/// The minimum value of a candidate, relative to the highest value.
const THRESHOLD: f64 = 0.5;
/// The half width of the box in which sharpness is measured, voxels.
const NEAR: usize = 5;
/// The rounding unit of single precision.
const EPSILON: f64 = 1.192_092_9e-7;
/// The minimum number of voxels known in both patches, relative to its maximum over all shifts.
const MIN_OVERLAP: f64 = 0.3;

/// How patches are compared. Lengths are in voxels along z, y, x; for planes, the sizes and the
/// stride along z are 1.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct SofimaOptions {
    /// The size of a patch of the fixed image.
    pub size: [usize; 3],
    /// The size of a patch of the moving image.
    pub moving_size: [usize; 3],
    /// The distance between neighbouring patches.
    pub stride: [usize; 3],
    /// Patches of which at least this fraction is masked are not compared.
    pub max_masked: f64,
    /// Whether masks only select patches, and masked voxels are compared like others.
    pub masks_only_select: bool,
}

/// An image, C order `(z, y, x)`, and its mask: true where a voxel is ignored. An empty mask ignores
/// none.
#[derive(Clone, Copy, Debug)]
pub struct MaskedImage<'a> {
    /// The number of voxels along z, y, x.
    pub shape: [usize; 3],
    /// The values.
    pub voxels: &'a [f32],
    /// The mask.
    pub mask: &'a [bool],
}

/// A known displacement around which patches are searched, for example of larger patches. Vector `i`
/// belongs to voxel `i * stride`.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The field.
    pub field: &'a FlowField,
    /// The distance between its vectors, voxels along z, y, x.
    pub stride: [usize; 3],
}

/// A patch: values minus their mean (0 where masked), and 1 for each voxel that is not masked.
struct Patch {
    size: [usize; 3],
    values: Vec<f64>,
    known: Option<Vec<f64>>,
}

/// The displacement from each patch of `fixed` to `moving`. The sharpness is the absolute value of
/// SOFIMA's; the ratio is the inverse of SOFIMA's, or 0 if there is one maximum. The correlation and
/// the evidence are not known (NaN).
pub fn flow(
    fixed: &MaskedImage,
    moving: &MaskedImage,
    target: Option<&Target>,
    options: &SofimaOptions,
) -> FlowField {
    let shape: [usize; 3] = std::array::from_fn(|a| {
        (fixed.shape[a] + options.stride[a]).saturating_sub(options.size[a]) / options.stride[a]
    });
    let unknown = Quality { correlation: f32::NAN, evidence: f32::NAN, ..Quality::default() };
    let count = shape.iter().product();
    let mut out = FlowField {
        shape,
        planar: options.size[0] == 1,
        vectors: vec![[f32::NAN; 3]; count],
        quality: vec![unknown; count],
    };
    let whole: [usize; 3] = std::array::from_fn(|a| options.size[a] + options.moving_size[a] - 1);
    let transform = Fft::holding(whole);
    for i in 0..count {
        let node = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
        let start = std::array::from_fn(|a| (node[a] * options.stride[a]) as i64);
        let begin: [i64; 3] = std::array::from_fn(|a| {
            let wider = options.moving_size[a] as i64 - options.size[a] as i64;
            (start[a] - wider.div_euclid(2)).max(0)
        });
        let masked = |image: &MaskedImage, start, size| image.masked_fraction(start, size);
        if masked(fixed, start, options.size) >= options.max_masked
            || masked(moving, begin, options.moving_size) >= options.max_masked
        {
            continue;
        }
        let offset =
            target.map_or([0; 3], |target| target.offset(start, begin, options, moving.shape));
        let begin = std::array::from_fn(|a| begin[a] + offset[a]);
        let patch = fixed.patch(start, options.size, options.masks_only_select);
        let other = moving.patch(begin, options.moving_size, options.masks_only_select);
        let surface = correlation(&other, &patch, &transform);
        let Some((top, quality)) = peak(&surface, whole) else { continue };
        out.vectors[i] = std::array::from_fn(|a| {
            let centre = options.size[a].midpoint(options.moving_size[a]) - 1;
            (top[a] as i64 - centre as i64 + offset[a]) as f32
        });
        out.quality[i] = Quality { ..quality };
    }
    out
}

impl Target<'_> {
    /// The known displacement of a patch in whole voxels, reduced so that the moving patch lies
    /// inside the moving image.
    fn offset(
        &self,
        start: [i64; 3],
        begin: [i64; 3],
        options: &SofimaOptions,
        shape: [usize; 3],
    ) -> [i64; 3] {
        let node: [usize; 3] = std::array::from_fn(|a| {
            let centre = start[a] as f64 + (options.size[a] / 2) as f64;
            let node = (centre / self.stride[a] as f64).round_ties_even() as usize;
            node.min(self.field.shape[a] - 1)
        });
        let [_, ny, nx] = self.field.shape;
        let known = self.field.vectors[(node[0] * ny + node[1]) * nx + node[2]];
        std::array::from_fn(|a| {
            // a cast truncates towards 0, and takes NaN for 0
            let wanted = begin[a] + known[a] as i64;
            let last = shape[a] as i64 - options.moving_size[a] as i64;
            wanted.max(0).min(last.max(0)) - begin[a]
        })
    }
}

impl MaskedImage<'_> {
    /// The voxels of a box, which is moved inwards where it leaves the image.
    fn box_at(&self, start: [i64; 3], size: [usize; 3]) -> impl Iterator<Item = usize> + '_ {
        let first: [usize; 3] = std::array::from_fn(|a| {
            start[a].clamp(0, self.shape[a].saturating_sub(size[a]) as i64) as usize
        });
        let [_, ny, nx] = self.shape;
        (0..size.iter().product()).map(move |i| {
            let at = [i / (size[1] * size[2]), i / size[2] % size[1], i % size[2]];
            ((first[0] + at[0]) * ny + first[1] + at[1]) * nx + first[2] + at[2]
        })
    }

    fn masked_fraction(&self, start: [i64; 3], size: [usize; 3]) -> f64 {
        if self.mask.is_empty() {
            return 0.0;
        }
        let masked = self.box_at(start, size).filter(|&i| self.mask[i]).count();
        masked as f64 / size.iter().product::<usize>() as f64
    }

    fn patch(&self, start: [i64; 3], size: [usize; 3], ignores_mask: bool) -> Patch {
        let values: Vec<f64> =
            self.box_at(start, size).map(|i| f64::from(self.voxels[i])).collect();
        let known = (!self.mask.is_empty() && !ignores_mask).then(|| {
            let weight = |i: usize| f64::from(u8::from(!self.mask[i]));
            self.box_at(start, size).map(weight).collect::<Vec<f64>>()
        });
        let weight = |i: usize| known.as_ref().map_or(1.0, |known| known[i]);
        let count: f64 = (0..values.len()).map(weight).sum();
        let sum: f64 = values.iter().enumerate().map(|(i, v)| v * weight(i)).sum();
        let mean = if count > 0.0 { sum / count } else { 0.0 };
        let values = values.iter().enumerate().map(|(i, v)| (v - mean) * weight(i)).collect();
        Patch { size, values, known }
    }
}

/// The cross-correlation of two patches at all shifts at which they overlap, C order: of the values
/// minus their means, or the correlation coefficient of Padfield (IEEE Trans. Image Process. 21(5),
/// 2012) if one patch has a mask.
fn correlation(moving: &Patch, fixed: &Patch, transform: &Fft) -> Vec<f64> {
    let whole = std::array::from_fn(|a| moving.size[a] + fixed.size[a] - 1);
    let of = |a: &[f64], b: &[f64]| -> Vec<f64> {
        let spectrum = |values: &[f64], size: [usize; 3], flips: bool| {
            let mut data = vec![[0.0f32; 2]; transform.len()];
            let [_, ny, nx] = transform.shape();
            for (i, v) in values.iter().enumerate() {
                let at = [i / (size[1] * size[2]), i / size[2] % size[1], i % size[2]];
                let [z, y, x] =
                    if flips { std::array::from_fn(|a| size[a] - 1 - at[a]) } else { at };
                data[(z * ny + y) * nx + x][0] = *v as f32;
            }
            transform.forward(&mut data);
            data
        };
        let (mut a, b) = (spectrum(a, moving.size, false), spectrum(b, fixed.size, true));
        for ([ar, ai], [br, bi]) in a.iter_mut().zip(&b) {
            (*ar, *ai) = (*ar * br - *ai * bi, *ar * bi + *ai * br);
        }
        transform.inverse(&mut a);
        let [_, ny, nx] = transform.shape();
        let [wz, wy, wx]: [usize; 3] = whole;
        (0..wz * wy * wx)
            .map(|i| {
                let [z, y, x] = [i / (wy * wx), i / wx % wy, i % wx];
                f64::from(a[(z * ny + y) * nx + x][0])
            })
            .collect()
    };
    if moving.known.is_none() && fixed.known.is_none() {
        return of(&moving.values, &fixed.values);
    }
    let ones = |patch: &Patch| patch.known.clone().unwrap_or_else(|| vec![1.0; patch.values.len()]);
    let (ma, mb) = (ones(moving), ones(fixed));
    let squares = |patch: &Patch| patch.values.iter().map(|v| v * v).collect::<Vec<f64>>();
    let number: Vec<f64> = of(&ma, &mb).iter().map(|n| n.round().max(EPSILON)).collect();
    let (sa, sb) = (of(&moving.values, &mb), of(&ma, &fixed.values));
    let (saa, sbb) = (of(&squares(moving), &mb), of(&ma, &squares(fixed)));
    let product = of(&moving.values, &fixed.values);
    let scale: Vec<f64> = (0..number.len())
        .map(|i| {
            let variance = |square: f64, sum: f64| (square - sum * sum / number[i]).max(0.0);
            (variance(saa[i], sa[i]) * variance(sbb[i], sb[i])).sqrt()
        })
        .collect();
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let (least_scale, least_number) = (1e3 * EPSILON * most(&scale), MIN_OVERLAP * most(&number));
    (0..number.len())
        .map(|i| {
            let value = (product[i] - sa[i] * sb[i] / number[i]) / scale[i];
            let is_known = scale[i] > least_scale && number[i] >= least_number;
            if is_known { value.clamp(-1.0, 1.0) } else { 0.0 }
        })
        .collect()
}

/// The highest candidate of a surface, and its quality; `None` if there is no candidate.
fn peak(surface: &[f64], size: [usize; 3]) -> Option<([usize; 3], Quality)> {
    let at = |i: usize| [i / (size[1] * size[2]), i / size[2] % size[1], i % size[2]];
    let value = |[z, y, x]: [usize; 3]| surface[(z * size[1] + y) * size[2] + x];
    let within = |first: [usize; 3], end: [usize; 3]| {
        let [z, y, x]: [std::ops::Range<usize>; 3] = std::array::from_fn(|a| first[a]..end[a]);
        z.flat_map(move |z| {
            let x = x.clone();
            y.clone().flat_map(move |y| x.clone().map(move |x| [z, y, x]))
        })
    };
    let most = surface.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut found: Option<[usize; 3]> = None;
    let mut second: Option<f64> = None;
    for (i, v) in surface.iter().enumerate().filter(|(_, v)| **v > THRESHOLD * most) {
        let place = at(i);
        let first = place.map(|p| p.saturating_sub(SEPARATION));
        let end = std::array::from_fn(|a| (place[a] + SEPARATION + 1).min(size[a]));
        // beyond the edges the surface is 0
        let is_at_edge = (0..3).any(|a| size[a] > 1 && end[a] - first[a] < 2 * SEPARATION + 1);
        if (is_at_edge && *v < 0.0) || within(first, end).any(|other| value(other) > *v) {
            continue;
        }
        match found {
            Some(top) if value(top) >= *v => second = Some(second.map_or(*v, |most| most.max(*v))),
            _ => {
                // the candidate that was the highest is higher than all others
                second = found.map(value);
                found = Some(place);
            }
        }
    }
    let top = found?;
    let width: [usize; 3] = size.map(|n| n.min(2 * NEAR + 1));
    let first: [usize; 3] =
        std::array::from_fn(|a| top[a].saturating_sub(NEAR).min(size[a] - width[a]));
    let end = std::array::from_fn(|a| first[a] + width[a]);
    let low = within(first, end).map(value).fold(f64::INFINITY, f64::min);
    let quality = Quality {
        correlation: f32::NAN,
        evidence: f32::NAN,
        sharpness: (value(top) / low).abs() as f32,
        ratio: second.map_or(0.0, |second| second / value(top)) as f32,
    };
    Some((top, quality))
}
