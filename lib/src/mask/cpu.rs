//! The masks of planes: local contrast, tissue, and what is too dark or too bright to be tissue.
//!
//! Numbers: `f32` images `(y, x)` of `shape`, NaN where nothing is known. Border: as if nothing were
//! known beyond it. Checked by: `oracle.rs`.

use super::{Defects, Label, Options, Tone};
use crate::filter::{Groups, Kernel, distance, smooth_known};

/// The standard deviations of the two Gaussians whose difference is the detail of an image, pixels.
const DETAIL: [f64; 2] = [1.0, 4.0];
/// Half the side of the square over which the detail is averaged, pixels.
pub(super) const WINDOW: usize = 8;
/// The standard deviation of the Gaussian that removes membranes and noise before dark and bright
/// places are looked for, pixels.
const BLUR: f64 = 1.5;
/// The share of the pixels that lie beyond the end of most of the tissue, and the factor of
/// [`Options::outlier`] there. A defect that covers more than the first share hides this end, and the
/// second one counts. What is dark in tissue is more diverse than what is bright.
const ENDS: [(Tone, [(f64, f64); 2]); 2] =
    [(Tone::Dark, [(0.03, 1.0), (0.1, 3.0)]), (Tone::Bright, [(0.03, 1.0), (0.1, 2.0)])];
/// A defect reaches to where its grey values are beyond most of the tissue by this fraction of what
/// makes a defect.
const WEAK: f64 = 0.5;
/// Planes with less tissue than this have no grey values to compare with.
pub(super) const LEAST_TISSUE: f64 = 0.01;
/// A group is a line if it is this many times as long as wide.
const ELONGATION: f64 = 4.0;
/// ... and if its pixels spread along one axis at least this many times as far as across it.
const SPREAD: f64 = 1.5;

/// The local contrast of an image: the mean, over a square around each pixel, of the absolute
/// difference of two Gaussian means. NaN where the image is not known.
///
/// This is the mask of the Janelia scripts (mean of the absolute high-pass in a box), with the noise
/// of single pixels removed before.
pub(super) fn contrast(image: &[f32], shape: [usize; 2]) -> Vec<f32> {
    let [fine, coarse] = DETAIL.map(|s| smooth_known(image, shape, &Kernel::discrete(s * s)));
    let detail = |(i, (fine, coarse)): (usize, (&f32, &f32))| {
        if image[i].is_finite() { (fine - coarse).abs() } else { f32::NAN }
    };
    let details: Vec<f32> = fine.iter().zip(&coarse).enumerate().map(detail).collect();
    let mut contrast = smooth_known(&details, shape, &Kernel::uniform(WINDOW));
    for (contrast, grey) in contrast.iter_mut().zip(image) {
        if !grey.is_finite() {
            *contrast = f32::NAN;
        }
    }
    contrast
}

/// The pixels within a distance of a set.
fn grown(set: &[bool], shape: [usize; 2], by: f64) -> Vec<bool> {
    if by <= 0.0 {
        return set.to_vec();
    }
    distance(set, shape).iter().map(|d| f64::from(*d) <= by).collect()
}

/// The morphological closing of a set with a disc.
fn closed(set: &[bool], shape: [usize; 2], by: f64) -> Vec<bool> {
    let outside: Vec<bool> = grown(set, shape, by).iter().map(|v| !v).collect();
    grown(&outside, shape, by).iter().map(|v| !v).collect()
}

/// Adds the holes of a set, and removes its groups, that have fewer than `least` pixels.
fn without_small(set: &[bool], shape: [usize; 2], least: usize) -> Vec<bool> {
    let shape = [1, shape[0], shape[1]];
    let holes = Groups::find(shape, true, |i| !set[i]);
    let filled: Vec<bool> = (0..set.len()).map(|i| set[i] || holes.size(i) < least).collect();
    let groups = Groups::find(shape, true, |i| filled[i]);
    (0..set.len()).map(|i| groups.size(i) >= least.max(1)).collect()
}

/// Where there is tissue: where the contrast is high, or between such places.
pub(super) fn tissue(
    contrast: &[f32],
    shape: [usize; 2],
    threshold: f64,
    options: &Options,
) -> Vec<bool> {
    let high: Vec<bool> = contrast.iter().map(|c| f64::from(*c) >= threshold).collect();
    let mut tissue = without_small(&closed(&high, shape, options.close), shape, options.min_area);
    for (tissue, contrast) in tissue.iter_mut().zip(contrast) {
        *tissue &= contrast.is_finite();
    }
    tissue
}

/// The limits of what is too dark, or too bright, to be tissue.
#[derive(Clone, Copy)]
struct Limits {
    tone: Tone,
    /// The end of most of the tissue.
    end: f32,
    /// The distance beyond it at which a defect is certain.
    beyond: f32,
}

impl Limits {
    /// Those of a plane: as far beyond most of the tissue as [`Options::outlier`] times the distance
    /// from the median to its end. `None` if there is too little tissue.
    fn of(greys: &[f32], tissue: &[bool], outlier: f64) -> Option<[Self; 2]> {
        let of_tissue =
            greys.iter().zip(tissue).filter(|(grey, is_in)| **is_in && grey.is_finite());
        let mut of_tissue: Vec<f32> = of_tissue.map(|(grey, _)| *grey).collect();
        if of_tissue.is_empty() || (of_tissue.len() as f64) < LEAST_TISSUE * greys.len() as f64 {
            return None;
        }
        let mut rank = |share: f64| {
            let at = (share * (of_tissue.len() - 1) as f64).round() as usize;
            *of_tissue.select_nth_unstable_by(at, f32::total_cmp).1
        };
        let median = rank(0.5);
        Some(ENDS.map(|(tone, ends)| {
            let of_end = |(share, factor): (f64, f64)| {
                let end = rank(if tone == Tone::Dark { share } else { 1.0 - share });
                Self { tone, end, beyond: (outlier * factor) as f32 * (end - median).abs() }
            };
            let [outer, inner] = ends.map(of_end);
            let reach = |limits: &Self| (limits.end - median).abs() + limits.beyond;
            if reach(&inner) < reach(&outer) { inner } else { outer }
        }))
    }

    /// Whether a grey value is beyond a fraction of the distance.
    fn exceeds(&self, grey: f32, share: f64) -> bool {
        let by = match self.tone {
            Tone::Dark => self.end - grey,
            Tone::Bright => grey - self.end,
        };
        by > share as f32 * self.beyond
    }
}

/// The labels of a plane.
///
/// * `image`: grey values
/// * `threshold`: the least contrast of tissue
pub(super) fn labels(
    image: &[f32],
    shape: [usize; 2],
    threshold: f64,
    options: &Options,
) -> Vec<Label> {
    let contrast = contrast(image, shape);
    let tissue = tissue(&contrast, shape, threshold, options);
    let label = |is_in: &bool| if *is_in { Label::Tissue } else { Label::Excluded };
    let mut labels: Vec<Label> = tissue.iter().map(label).collect();
    let greys = smooth_known(image, shape, &Kernel::discrete(BLUR * BLUR));
    for limits in Limits::of(&greys, &tissue, options.outlier).into_iter().flatten() {
        let is_beyond =
            |i: usize, share: f64| image[i].is_finite() && limits.exceeds(greys[i], share);
        mark(&mut labels, shape, is_beyond, limits.tone, &options.defects);
    }
    if options.edge > 0.0 {
        exclude_edges(&mut labels, image, shape, options.edge);
    }
    labels
}

/// The moments of the pixels of a group.
#[derive(Clone, Default)]
struct Moments {
    count: f64,
    first: [f64; 2],
    /// Of y y, x x and y x.
    second: [f64; 3],
}

impl Moments {
    fn add(&mut self, at: [usize; 2]) {
        let [y, x] = at.map(|v| v as f64);
        self.count += 1.0;
        self.first = [self.first[0] + y, self.first[1] + x];
        self.second = [self.second[0] + y * y, self.second[1] + x * x, self.second[2] + y * x];
    }

    /// How much farther the pixels spread along one axis than across it.
    fn spread(&self) -> f64 {
        let [y, x] = self.first.map(|v| v / self.count);
        let [yy, xx, yx] = self.second.map(|v| v / self.count);
        let (yy, xx, yx) = (yy - y * y, xx - x * x, yx - y * x);
        let (mean, half) = (0.5 * (yy + xx), (0.5 * (yy - xx)).hypot(yx));
        // a pixel has a width
        let width = 1.0 / 12.0;
        ((mean + half + width) / (mean - half + width).max(width)).sqrt()
    }
}

/// Labels groups of pixels that are too dark or too bright: lines are wrinkles or tears.
///
/// * `is_beyond`: whether a pixel is beyond a fraction of the distance that makes a defect
fn mark(
    labels: &mut [Label],
    shape: [usize; 2],
    is_beyond: impl Fn(usize, f64) -> bool,
    tone: Tone,
    defects: &Defects,
) {
    let groups = Groups::find([1, shape[0], shape[1]], true, |i| is_beyond(i, WEAK));
    let outside: Vec<bool> = groups.of.iter().map(|group| *group == 0).collect();
    let depth = distance(&outside, shape);
    let mut deepest = vec![0.0_f32; groups.sizes.len() + 1];
    let mut certain = vec![0_usize; groups.sizes.len() + 1];
    let mut moments = vec![Moments::default(); groups.sizes.len() + 1];
    for (i, group) in groups.of.iter().enumerate().filter(|(_, group)| **group > 0) {
        let group = *group as usize;
        deepest[group] = deepest[group].max(depth[i]);
        certain[group] += usize::from(is_beyond(i, 1.0));
        moments[group].add([i / shape[1], i % shape[1]]);
    }
    let of_line = match tone {
        _ if defects.wrinkles == Some(tone) => Label::Wrinkle,
        _ if defects.tears == Some(tone) => Label::Tear,
        _ => Label::Excluded,
    };
    let label = |group: usize| {
        // the depth of a pixel is measured to the centre of the nearest pixel outside
        let width = (2.0 * f64::from(deepest[group]) - 1.0).max(1.0);
        match groups.sizes[group - 1] as f64 {
            _ if certain[group] < defects.min_area.max(1) => None,
            size if size >= ELONGATION * width * width && moments[group].spread() >= SPREAD => {
                Some(of_line)
            }
            _ => Some(Label::Excluded),
        }
    };
    let of_groups: Vec<Option<Label>> = (1..=groups.sizes.len()).map(label).collect();
    // lines last: they are more than nothing
    for kind in [Label::Excluded, of_line] {
        let of_kind = |group: &u32| *group > 0 && of_groups[*group as usize - 1] == Some(kind);
        let set: Vec<bool> = groups.of.iter().map(of_kind).collect();
        if !set.contains(&true) {
            continue;
        }
        for (label, _) in
            labels.iter_mut().zip(grown(&set, shape, defects.grow)).filter(|(_, is_in)| *is_in)
        {
            *label = kind;
        }
    }
}

/// Excludes the pixels within a distance of the border of the plane, of what is not known and of what
/// is excluded.
fn exclude_edges(labels: &mut [Label], image: &[f32], shape: [usize; 2], edge: f64) {
    let beyond: Vec<bool> = labels
        .iter()
        .zip(image)
        .map(|(label, grey)| *label == Label::Excluded || !grey.is_finite())
        .collect();
    let within = grown(&beyond, shape, edge);
    for (i, label) in labels.iter_mut().enumerate() {
        let (y, x) = (i / shape[1], i % shape[1]);
        let to_border = (y + 1).min(shape[0] - y).min(x + 1).min(shape[1] - x);
        if within[i] || to_border as f64 <= edge {
            *label = Label::Excluded;
        }
    }
}
