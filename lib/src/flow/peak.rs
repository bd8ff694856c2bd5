//! The maximum of a correlation surface, to a fraction of a voxel, and measures of its quality.

use super::patches::Patches;
use crate::filter::parabola;
use crate::geom::Point;

/// Maxima closer to the highest one than this along every axis, in voxels, are part of it.
const SEPARATION: usize = 2;
/// The half width of the box around the maximum on whose surface `sharpness` is measured, voxels.
/// The values outside the box are the background of `evidence`.
const NEAR: usize = 5;
/// The minimum number of values of a background.
const MIN_BACKGROUND: f64 = 100.0;

/// The names of the quality channels, in the order of [`Peak::quality`].
pub(super) const QUALITY: [&str; 4] = ["correlation", "sharpness", "ratio", "evidence"];

/// The best match of a patch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Peak {
    /// The shift from the fixed to the moving image, voxels along z, y, x.
    pub(crate) shift: Point,
    /// The correlation coefficient at the whole-voxel maximum.
    pub(crate) correlation: f32,
    /// The correlation minus its mean over the shifts that are [`NEAR`] voxels from the maximum
    /// along at least one axis.
    pub(crate) sharpness: f32,
    /// The second highest maximum divided by the highest; 0 if there is no other positive maximum.
    pub(crate) ratio: f32,
    /// By how many standard deviations the maximum exceeds the highest of as many values of a
    /// normal distribution as the background has maxima. The mean and the standard deviation are
    /// those of the background, which has the spectra of both images and no match. NaN if the search
    /// window is too small for a background.
    pub(crate) evidence: f32,
}

/// Why a patch has no match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NoPeak {
    /// Too few voxels are known, or one image is constant.
    Unknown,
    /// The correlation is highest at the edge of the search window.
    AtEdge,
}

impl Peak {
    pub(super) fn quality(&self) -> [f32; 4] {
        [self.correlation, self.sharpness, self.ratio, self.evidence]
    }
}

/// A correlation surface in C order `(z, y, x)` from the lowest shift.
struct Surface<'a> {
    values: &'a [f32],
    size: [usize; 3],
}

/// Finds the maximum of a surface of [`super::cpu::surfaces`].
///
/// # Errors
/// Why there is none.
pub(crate) fn find(values: &[f32], patches: &Patches) -> Result<Peak, NoPeak> {
    let surface = Surface { values, size: patches.shifts() };
    let known = values.iter().enumerate().filter(|(_, v)| !v.is_nan());
    // the first of equal maxima
    let top = known.fold(None, |best: Option<(usize, f32)>, (i, v)| match best {
        Some((_, most)) if most >= *v => best,
        _ => Some((i, *v)),
    });
    let (top, correlation) = top.ok_or(NoPeak::Unknown)?;
    // rounding errors of a nearly constant patch
    let correlation = correlation.min(1.0);
    let top = surface.position(top);
    let is_free: [bool; 3] = std::array::from_fn(|a| surface.size[a] > 1);
    let at_edge = (0..3).any(|a| is_free[a] && (top[a] == 0 || top[a] + 1 == surface.size[a]));
    if at_edge || surface.neighbours(top).any(f32::is_nan) {
        return Err(NoPeak::AtEdge);
    }
    let offset = parabola::vertex(
        |by| {
            let at = std::array::from_fn(|a| top[a].saturating_add_signed(by[a]));
            f64::from(surface.at(at))
        },
        is_free,
    );
    let (second, background) = surface.rest(top);
    Ok(Peak {
        shift: std::array::from_fn(|a| top[a] as f64 - patches.radius[a] as f64 + offset[a]),
        correlation,
        sharpness: correlation - surface.shell_mean(top).unwrap_or(correlation),
        ratio: (second.max(0.0) / correlation).clamp(0.0, 1.0),
        evidence: background.evidence(correlation),
    })
}

/// The values of a surface far from its maximum.
#[derive(Default)]
struct Background {
    count: f64,
    sum: f64,
    squares: f64,
    maxima: f64,
}

impl Background {
    fn add(&mut self, values: &[f32]) {
        for value in values.iter().filter(|v| !v.is_nan()).map(|v| f64::from(*v)) {
            self.count += 1.0;
            self.sum += value;
            self.squares += value * value;
        }
    }

    fn evidence(&self, top: f32) -> f32 {
        let mean = self.sum / self.count;
        let deviation = (self.squares / self.count - mean * mean).max(0.0).sqrt();
        if !(self.count >= MIN_BACKGROUND && deviation > 0.0) {
            return f32::NAN;
        }
        // the expected maximum of n normal values is about sqrt(2 ln n)
        let expected = (2.0 * self.maxima.max(1.0).ln()).sqrt();
        ((f64::from(top) - mean) / deviation - expected) as f32
    }
}

impl Surface<'_> {
    fn at(&self, at: [usize; 3]) -> f32 {
        self.values[(at[0] * self.size[1] + at[1]) * self.size[2] + at[2]]
    }

    fn position(&self, i: usize) -> [usize; 3] {
        let [_, ny, nx] = self.size;
        [i / (ny * nx), i / nx % ny, i % nx]
    }

    /// The box of half width `by` around a position, cut at the edges of the surface.
    fn around(&self, at: [usize; 3], by: usize) -> [std::ops::RangeInclusive<usize>; 3] {
        std::array::from_fn(|a| at[a].saturating_sub(by)..=(at[a] + by).min(self.size[a] - 1))
    }

    /// The values next to a position, itself included.
    fn neighbours(&self, at: [usize; 3]) -> impl Iterator<Item = f32> + '_ {
        let [z, y, x] = self.around(at, 1);
        z.flat_map(move |z| {
            let (y, x) = (y.clone(), x.clone());
            y.flat_map(move |y| x.clone().map(move |x| self.at([z, y, x])))
        })
    }

    /// Whether no known neighbour is higher.
    fn is_maximum(&self, at: [usize; 3]) -> bool {
        let here = self.at(at);
        !self.neighbours(at).any(|v| v > here)
    }

    /// The mean over the surface of the box of half width [`NEAR`] around a position.
    fn shell_mean(&self, top: [usize; 3]) -> Option<f32> {
        let [z, y, x] = self.around(top, NEAR);
        let (mut sum, mut count) = (0.0, 0);
        for z in z {
            for y in y.clone() {
                for x in x.clone() {
                    let at = [z, y, x];
                    let is_shell = (0..3).any(|a| at[a].abs_diff(top[a]) == NEAR);
                    let v = self.at(at);
                    if is_shell && !v.is_nan() {
                        sum += v;
                        count += 1;
                    }
                }
            }
        }
        (count > 0).then(|| sum / count as f32)
    }

    /// The highest maximum that is not part of the one at `top` (minus infinity if there is none),
    /// and the background.
    fn rest(&self, top: [usize; 3]) -> (f32, Background) {
        let [_, ny, nx] = self.size;
        let (mut second, mut found) = (f32::NEG_INFINITY, Background::default());
        for (row, values) in self.values.chunks_exact(nx).enumerate() {
            let (z, y) = (row / ny, row % ny);
            let off = z.abs_diff(top[0]).max(y.abs_diff(top[1]));
            // the background of this row
            let near = if off > NEAR {
                0..0
            } else {
                top[2].saturating_sub(NEAR)..nx.min(top[2] + NEAR + 1)
            };
            found.add(&values[..near.start]);
            found.add(&values[near.end..]);
            for (x, v) in values.iter().enumerate() {
                let beside = [x.checked_sub(1), Some(x + 1)].map(|x| x.and_then(|x| values.get(x)));
                if v.is_nan() || beside.iter().flatten().any(|other| *other > v) {
                    continue;
                }
                let distance = off.max(x.abs_diff(top[2]));
                if distance > SEPARATION && self.is_maximum([z, y, x]) {
                    second = second.max(*v);
                    found.maxima += f64::from(u8::from(distance > NEAR));
                }
            }
        }
        (second, found)
    }
}
