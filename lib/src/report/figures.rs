//! Figures as inline SVG.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::geom::{Grid, Model, Point, fit};
use crate::table::{BlockRow, Match, Status};

/// Width of the figures, in SVG units.
const WIDTH: f64 = 1000.0;
/// Gap between panels, in SVG units.
const GAP: f64 = 8.0;

/// Three orthogonal planes through one point, arranged so that adjacent panels share an axis.
pub(super) struct Ortho {
    /// `data:` URLs of the pictures perpendicular to z, y and x.
    pub(super) pictures: [String; 3],
    /// Prefix of the element ids of the pictures; the page shows the pictures again by these ids.
    pub(super) id: String,
    /// Whether pixels are enlarged without interpolation.
    pub(super) pixelated: bool,
}

/// The arrangement of the three panels of an [`Ortho`].
pub(super) struct PanelLayout {
    scale: f64,
    /// Size of the volume in micrometres.
    extent: Point,
    /// The common point of the planes, micrometres from the volume's corner.
    at: Point,
    /// The physical position of the common point of the planes, micrometres.
    position: Point,
}

impl PanelLayout {
    pub(super) fn new(grid: &Grid, centre: [usize; 3]) -> Self {
        let extent: Point = std::array::from_fn(|a| grid.shape[a] as f64 * grid.spacing[a]);
        Self {
            scale: (WIDTH - GAP) / (extent[2] + extent[0]),
            extent,
            at: std::array::from_fn(|a| (centre[a] as f64 + 0.5) * grid.spacing[a]),
            position: grid.position(centre.map(|v| v as f64)),
        }
    }

    /// Width and height of the panel perpendicular to z, in SVG units.
    pub(super) fn main_panel(&self) -> [f64; 2] {
        [self.extent[2] * self.scale, self.extent[1] * self.scale]
    }

    /// Corner and size `[x, y, width, height]` of the panel perpendicular to `axis`, in SVG units.
    fn panel(&self, axis: usize) -> [f64; 4] {
        let [depth, height, width] = self.extent.map(|v| v * self.scale);
        match axis {
            0 => [0.0, 0.0, width, height],
            1 => [0.0, height + GAP, width, depth],
            _ => [width + GAP, 0.0, depth, height],
        }
    }

    /// Draws the three planes with labels, their lines of intersection and a scale bar.
    pub(super) fn ortho(&self, ortho: &Ortho, title: &str) -> String {
        let height = (self.extent[1] + self.extent[0]) * self.scale + GAP;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height:.1}\" class=\"ortho\" role=\"img\" aria-label=\"{}\">",
            escape(title)
        );
        let style = if ortho.pixelated { " style=\"image-rendering:pixelated\"" } else { "" };
        for axis in 0..3 {
            let [x, y, w, h] = self.panel(axis);
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" class=\"nothing\"/>\
                 <image id=\"{}-{axis}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{w:.1}\" height=\"{h:.1}\" \
                 preserveAspectRatio=\"none\"{style} href=\"{}\"/>",
                escape(&ortho.id),
                ortho.pictures[axis]
            );
        }
        self.cross(&mut svg);
        self.labels(&mut svg);
        self.scale_bar(&mut svg);
        svg.push_str("</svg>");
        svg
    }

    /// Draws the lines in which the planes intersect.
    fn cross(&self, svg: &mut String) {
        let at = self.at.map(|v| v * self.scale);
        for (axis, [column, row]) in [(0, [at[2], at[1]]), (1, [at[2], at[0]]), (2, [at[0], at[1]])]
        {
            let [x, y, w, h] = self.panel(axis);
            let _ = write!(
                svg,
                "<path class=\"cut\" d=\"M{:.1} {y:.1}v{h:.1}M{x:.1} {:.1}h{w:.1}\"/>",
                x + column,
                y + row
            );
        }
    }

    fn labels(&self, svg: &mut String) {
        for (axis, name) in ["z", "y", "x"].iter().enumerate() {
            let [x, y, ..] = self.panel(axis);
            let _ = write!(
                svg,
                "<text class=\"on\" x=\"{:.1}\" y=\"{:.1}\">{name} = {} µm</text>",
                x + 10.0,
                y + 31.0,
                short(self.position[axis])
            );
        }
    }

    fn scale_bar(&self, svg: &mut String) {
        let length = round_length(self.extent[2] / 4.0);
        let [_, height] = self.main_panel();
        let _ = write!(
            svg,
            "<path class=\"bar\" d=\"M14 {:.1}h{:.1}\"/><text class=\"on\" x=\"14\" y=\"{:.1}\">{} µm</text>",
            height - 14.0,
            length * self.scale,
            height - 26.0,
            short(length)
        );
    }
}

/// The largest number that is 1, 2 or 5 times a power of ten and at most `limit`.
pub(super) fn round_length(limit: f64) -> f64 {
    let power = 10f64.powf(limit.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|v| v * power).find(|&v| v <= limit).unwrap_or(power)
}

/// A number with four significant digits, or with all digits before the decimal point if there are
/// more than four, and without trailing zeros after the point. Magnitudes below 1e-4 or from 1e12
/// on are written with an exponent.
pub(super) fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..12).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.*}", (3 - magnitude).clamp(0, 7) as usize);
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

/// Escapes text for SVG and HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The contents of the figure of spots.
pub(super) struct SpotFigure<'a> {
    pub(super) grid: Grid,
    /// `data:` URL of the maximum projection along z.
    pub(super) background: String,
    pub(super) spots: &'a [Point],
    pub(super) matches: &'a [Match],
}

/// Maximum number of marks of each kind (spots, outliers, inliers, blocks) in a figure. More marks
/// would hide each other and enlarge the page.
pub(super) const MAX_DRAWN: usize = 2500;

impl SpotFigure<'_> {
    /// Draws spots, matches and the residual vectors of inliers, viewed along z; also returns the
    /// factor by which the vectors are enlarged.
    pub(super) fn draw(&self) -> (String, Option<f64>) {
        let extent: Point =
            std::array::from_fn(|a| self.grid.shape[a] as f64 * self.grid.spacing[a]);
        let scale = WIDTH / extent[2];
        let height = extent[1] * scale;
        let place = |p: Point| {
            [2, 1].map(|a| (p[a] - self.grid.origin[a] + 0.5 * self.grid.spacing[a]) * scale)
        };
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height:.1}\" class=\"spots\" role=\"img\" aria-label=\"Spots and inliers\">\
             <image width=\"{WIDTH}\" height=\"{height:.1}\" preserveAspectRatio=\"none\" href=\"{}\"/>",
            self.background
        );
        for &p in subsample(self.spots) {
            let [x, y] = place(p);
            let _ = write!(svg, "<circle class=\"spot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"/>");
        }
        let outliers: Vec<Match> = self.matches.iter().filter(|m| !m.inlier).copied().collect();
        for m in subsample(&outliers) {
            let [x, y] = place(m.fixed);
            let _ = write!(
                svg,
                "<path class=\"outlier\" d=\"M{:.1} {:.1}l7 7m0 -7l-7 7\"/>",
                x - 3.5,
                y - 3.5
            );
        }
        let inliers: Vec<Match> = self.matches.iter().filter(|m| m.inlier).copied().collect();
        let arrows = self.arrows(&inliers, extent[2]);
        for (i, m) in subsample(&inliers).enumerate() {
            let [x, y] = place(m.fixed);
            if let Some((vectors, enlarged)) = &arrows {
                let v = vectors[i * step_of(inliers.len())];
                let _ = write!(
                    svg,
                    "<path class=\"vector\" d=\"M{x:.1} {y:.1}l{:.1} {:.1}\"/>",
                    v[2] * enlarged * scale,
                    v[1] * enlarged * scale
                );
            }
            let _ = write!(
                svg,
                "<circle class=\"inlier\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"><title>residual {} µm</title></circle>",
                short(m.residual)
            );
        }
        let bar = round_length(extent[2] / 6.0);
        let _ = write!(
            svg,
            "<path class=\"bar\" d=\"M14 {:.1}h{:.1}\"/><text class=\"on\" x=\"14\" y=\"{:.1}\">{} µm</text></svg>",
            height - 14.0,
            bar * scale,
            height - 26.0,
            short(bar)
        );
        (svg, arrows.map(|(_, enlarged)| enlarged))
    }

    /// The residual vector of each inlier after the best global affine, in the fixed frame
    /// (micrometres), and the factor by which the vectors are enlarged to be visible in a figure of
    /// this `width` (micrometres). `None` if no affine can be fitted.
    fn arrows(&self, inliers: &[Match], width: f64) -> Option<(Vec<Point>, f64)> {
        let from: Vec<Point> = inliers.iter().map(|m| m.fixed).collect();
        let to: Vec<Point> = inliers.iter().map(|m| m.moving).collect();
        let affine = |model| fit(model, &from, &to, None, true).ok();
        let map = affine(Model::Affine).or_else(|| affine(Model::PlanarAffine))?;
        let back = map.inverse().ok()?;
        let vectors: Vec<Point> = inliers
            .iter()
            .map(|m| {
                let got = map.apply(m.fixed);
                back.apply_vector(std::array::from_fn(|a| m.moving[a] - got[a]))
            })
            .collect();
        let mut lengths: Vec<f64> = vectors.iter().map(|v| v[1].hypot(v[2])).collect();
        lengths.sort_by(f64::total_cmp);
        let long = lengths[lengths.len() * 9 / 10].max(1e-9);
        Some((vectors, round_length(width / 30.0 / long).max(1.0)))
    }
}

fn step_of(count: usize) -> usize {
    count.div_ceil(MAX_DRAWN).max(1)
}

/// At most [`MAX_DRAWN`] items, evenly spaced.
fn subsample<T>(all: &[T]) -> impl Iterator<Item = &T> {
    all.iter().step_by(step_of(all.len()))
}

/// All statuses of a block, in the order in which the page lists them.
pub(super) const STATUSES: [Status; 4] =
    [Status::Fitted, Status::Regularised, Status::Fallback, Status::Empty];

/// Merges cubes of neighbouring blocks if there are more than [`MAX_DRAWN`] blocks. Each cube
/// becomes one row with the worst status, the mean shift, and the total numbers of spots, matches
/// and inliers.
fn grouped(blocks: &[BlockRow]) -> Cow<'_, [BlockRow]> {
    let worst = |status| match status {
        Status::Fitted => 0,
        Status::Regularised => 1,
        Status::Empty => 2,
        Status::Fallback => 3,
    };
    if blocks.len() <= MAX_DRAWN {
        return Cow::Borrowed(blocks);
    }
    let mut side = 2;
    loop {
        let mut groups: BTreeMap<[usize; 3], (usize, BlockRow)> = BTreeMap::new();
        for block in blocks {
            let index = block.index.map(|i| i / side);
            let fresh = || {
                let row = BlockRow {
                    index,
                    reason: String::new(),
                    median: None,
                    rms: None,
                    spots: 0,
                    matches: 0,
                    inliers: 0,
                    ..block.clone()
                };
                (0, row)
            };
            let (count, row) = groups.entry(index).or_insert_with(fresh);
            *count += 1;
            row.spots += block.spots;
            row.matches += block.matches;
            row.inliers += block.inliers;
            if worst(block.status) > worst(row.status) {
                row.status = block.status;
            }
            let shift = row.shift.iter_mut().zip(block.shift);
            shift.for_each(|(mean, v)| *mean += (v - *mean) / *count as f64);
        }
        if groups.len() <= MAX_DRAWN {
            let rows = groups.into_values().map(|(count, mut row)| {
                row.reason = format!("the worst of {count} blocks");
                row
            });
            return Cow::Owned(rows.collect());
        }
        side += side.div_ceil(2);
    }
}

/// Draws the blocks of each layer along z as a grid.
pub(super) fn block_map(blocks: &[BlockRow]) -> String {
    const SIDE: f64 = 42.0;
    let blocks = grouped(blocks);
    let most = |axis: usize| blocks.iter().map(|b| b.index[axis] + 1).max().unwrap_or(0) as f64;
    let (width, height) = (most(2) * SIDE, most(1) * SIDE);
    let layers: BTreeSet<usize> = blocks.iter().map(|b| b.index[0]).collect();
    let mut out = String::new();
    for layer in layers {
        let _ = write!(
            out,
            "<figure class=\"layer\" style=\"max-width:{:.0}px\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"Blocks of layer {layer}\">",
            width.max(84.0)
        );
        for b in blocks.iter().filter(|b| b.index[0] == layer) {
            let (x, y) = (b.index[2] as f64 * SIDE, b.index[1] as f64 * SIDE);
            let _ = write!(
                out,
                "<g class=\"block {}\"><title>{}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" \
                 height=\"{:.1}\" rx=\"4\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
                b.status.name(),
                escape(&describe(b)),
                x + 1.5,
                y + 1.5,
                SIDE - 3.0,
                SIDE - 3.0,
                x + SIDE / 2.0,
                y + SIDE / 2.0 + 4.5,
                b.inliers
            );
        }
        let _ = write!(out, "</svg><figcaption>z {layer}</figcaption></figure>");
    }
    out
}

fn describe(b: &BlockRow) -> String {
    let [z, y, x] = b.index;
    let mut text = format!("block {z}, {y}, {x}: {}", b.status.name());
    if !b.reason.is_empty() {
        let _ = write!(text, " ({})", b.reason);
    }
    let _ = write!(text, "\ninliers {} of {} matches", b.inliers, b.matches);
    for (name, value) in [("median", b.median), ("RMS", b.rms)] {
        if let Some(value) = value {
            let _ = write!(text, "\n{name} residual {} µm", short(value));
        }
    }
    let _ = write!(text, "\nshift {} µm", b.shift.map(short).join(", "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_lengths_round() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.123_456, "0.1235"),
            (123.456, "123.5"),
            (98_765.4, "98765"),
            (-2.5, "-2.5"),
            (1.5e-7, "1.50e-7"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(short(value), text);
        }
        for (limit, length) in [(64.0, 50.0), (49.0, 20.0), (0.19, 0.1), (1.0, 1.0)] {
            assert!((round_length(limit) - length).abs() < 1e-12);
        }
    }

    #[test]
    fn a_block_map_of_many_blocks_draws_groups_that_count_them_all() {
        let row = |i: usize| BlockRow {
            index: [i / 10_000, i / 100 % 100, i % 100],
            status: if i == 4321 { Status::Fallback } else { Status::Fitted },
            reason: String::new(),
            spots: 3,
            matches: 2,
            inliers: 1,
            median: Some(0.5),
            rms: None,
            shift: [1.0, 2.0, 3.0],
        };
        let rows: Vec<BlockRow> = (0..40_000).map(row).collect();
        let groups = grouped(&rows);
        assert!(groups.len() <= MAX_DRAWN && groups.len() > MAX_DRAWN / 20, "{}", groups.len());
        assert_eq!(groups.iter().map(|b| b.inliers).sum::<usize>(), 40_000);
        assert_eq!(groups.iter().filter(|b| b.status == Status::Fallback).count(), 1);
        assert!(
            groups.iter().all(|b| b
                .shift
                .iter()
                .zip([1.0, 2.0, 3.0])
                .all(|(a, b)| (a - b).abs() < 1e-9))
        );
        assert!(block_map(&rows).len() < 2_000_000);
    }

    #[test]
    fn a_block_map_names_each_block_and_escapes_its_reason() {
        let block = |z, status, reason: &str| BlockRow {
            index: [z, 0, 0],
            status,
            reason: reason.into(),
            spots: 9,
            matches: 8,
            inliers: 7,
            median: None,
            rms: Some(0.5),
            shift: [0.0, 1.0, 2.0],
        };
        let map = block_map(&[
            block(0, Status::Fitted, ""),
            block(1, Status::Fallback, "scale < 0.5 & \"odd\""),
        ]);
        assert_eq!(map.matches("<svg").count(), 2);
        assert!(map.contains("class=\"block fitted\""));
        assert!(map.contains("(scale &lt; 0.5 &amp; &quot;odd&quot;)"));
    }
}
