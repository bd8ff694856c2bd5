//! Residuals of the inliers: distances between mapped fixed points and moving points.

use std::fmt::Write;

use super::figures::{round_length, short};
use crate::table::Match;

/// Statistics of the inliers' residuals.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(super) struct Residuals {
    pub(super) matches: usize,
    pub(super) inliers: usize,
    pub(super) median_um: f64,
    pub(super) rms_um: f64,
    pub(super) p95_um: f64,
}

impl Residuals {
    /// The statistics of `matches`; `None` if no inlier has a finite residual.
    pub(super) fn of(matches: &[Match]) -> Option<Self> {
        let sorted = sorted_residuals(matches);
        let at = |share: f64| sorted[(share * (sorted.len() - 1) as f64).round() as usize];
        let square = sorted.iter().map(|v| v * v).sum::<f64>() / sorted.len().max(1) as f64;
        (!sorted.is_empty()).then(|| Self {
            matches: matches.len(),
            inliers: matches.iter().filter(|m| m.inlier).count(),
            median_um: at(0.5),
            rms_um: square.sqrt(),
            p95_um: at(0.95),
        })
    }
}

fn sorted_residuals(matches: &[Match]) -> Vec<f64> {
    let mut out: Vec<f64> =
        matches.iter().filter(|m| m.inlier && m.residual.is_finite()).map(|m| m.residual).collect();
    out.sort_by(f64::total_cmp);
    out
}

/// Draws a histogram of the inliers' residuals, with their median and root mean square.
pub(super) fn histogram(matches: &[Match], residuals: &Residuals) -> String {
    const BINS: usize = 32;
    let sorted = sorted_residuals(matches);
    let (left, right, top, bottom) = (56.0, 12.0, 34.0, 44.0);
    let (width, height) = (640.0, 320.0);
    let most = sorted.last().copied().unwrap_or(0.0).max(1e-9) * 1.0001;
    let mut counts = [0usize; BINS];
    for v in &sorted {
        counts[((v / most * BINS as f64) as usize).min(BINS - 1)] += 1;
    }
    let peak = counts.iter().copied().max().unwrap_or(1).max(1) as f64;
    let x = |v: f64| left + v / most * (width - left - right);
    let y = |n: f64| height - bottom - n / peak * (height - top - bottom);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" class=\"chart\" role=\"img\" aria-label=\"Histogram of residuals\">"
    );
    axis(&mut svg, [left, right, bottom], [width, height], most, &x);
    let step = round_length(peak / 3.0).max(1.0);
    let mut n = step;
    while n <= peak {
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{left} {:.1}H{:.1}\"/><text class=\"tick end\" x=\"{:.1}\" y=\"{:.1}\">{n}</text>",
            y(n),
            width - right,
            left - 8.0,
            y(n) + 4.0
        );
        n += step;
    }
    for (i, &count) in counts.iter().enumerate() {
        let (from, to) = (i as f64 / BINS as f64 * most, (i + 1) as f64 / BINS as f64 * most);
        let _ = write!(
            svg,
            "<rect class=\"column\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
             <title>{} to {} µm: {count}</title></rect>",
            x(from) + 0.5,
            y(count as f64),
            x(to) - x(from) - 1.0,
            height - bottom - y(count as f64),
            short(from),
            short(to)
        );
    }
    let median_left = residuals.median_um <= residuals.rms_um;
    for (name, value, to_left) in
        [("median", residuals.median_um, median_left), ("RMS", residuals.rms_um, !median_left)]
    {
        let (class, shift) = if to_left { ("mark end", -5.0) } else { ("mark", 5.0) };
        let near = x(value) < left + 110.0 && to_left;
        let (class, shift, rise) = if near { ("mark", 5.0, 14.0) } else { (class, shift, 0.0) };
        let _ = write!(
            svg,
            "<path class=\"mark-line\" d=\"M{:.1} {:.1}V{:.1}\"/><text class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\">{name} {} µm</text>",
            x(value),
            top - 6.0 - rise,
            height - bottom,
            x(value) + shift,
            top - 10.0 - rise + 8.0,
            short(value)
        );
    }
    svg.push_str("</svg>");
    svg
}

fn axis(
    svg: &mut String,
    [left, right, bottom]: [f64; 3],
    [width, height]: [f64; 2],
    most: f64,
    x: &impl Fn(f64) -> f64,
) {
    let base = height - bottom;
    let _ = write!(svg, "<path class=\"axis\" d=\"M{left} {base}H{:.1}\"/>", width - right);
    let step = round_length(most / 4.0);
    let mut at = 0.0;
    while at <= most {
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{0:.1} {base}v5\"/><text class=\"tick middle\" x=\"{0:.1}\" y=\"{1}\">{2}</text>",
            x(at),
            base + 19.0,
            short(at)
        );
        at += step;
    }
    let _ = write!(
        svg,
        "<text class=\"tick middle\" x=\"{:.1}\" y=\"{:.1}\">distance after the global map, µm</text>",
        f64::midpoint(left, width - right),
        height - 6.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn residuals_are_those_of_the_inliers_alone() {
        let one = |residual, inlier| Match {
            fixed: [0.0; 3],
            moving: [0.0; 3],
            correlation: 0.9,
            inlier,
            residual,
        };
        let matches = [one(1.0, true), one(2.0, true), one(2.0, true), one(50.0, false)];
        let residuals = Residuals::of(&matches).unwrap();
        assert_eq!((residuals.matches, residuals.inliers, residuals.median_um), (4, 3, 2.0));
        assert!((residuals.rms_um - 3f64.sqrt()).abs() < 1e-12);
        assert!(histogram(&matches, &residuals).contains("median 2 µm"));
        assert!(Residuals::of(&[one(1.0, false)]).is_none());
    }
}
