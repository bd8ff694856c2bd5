//! Drawings, as SVG inside the page.

use std::fmt::Write;

use super::blocks_table::Block;
use crate::geom::{Grid, Model, Point, fit};
use crate::table::Match;

/// The width that drawings are laid out in.
const WIDTH: f64 = 1000.0;
/// Space between panels.
const GAP: f64 = 8.0;

/// Three planes through one point, laid out so that neighbours share an axis.
pub(super) struct Ortho {
    /// Addresses of the pictures across z, y and x.
    pub(super) pictures: [String; 3],
    /// What the pictures are called in the page, for others to reuse.
    pub(super) id: String,
    /// Whether pixels are to stay squares.
    pub(super) pixelated: bool,
}

/// Where the panels lie.
pub(super) struct Layout {
    scale: f64,
    /// Size of the volume in micrometres.
    extent: Point,
    /// The point that the planes share, micrometres from the volume's corner.
    at: Point,
    /// Its physical position.
    position: Point,
}

impl Layout {
    pub(super) fn new(grid: &Grid, centre: [usize; 3]) -> Self {
        let extent: Point = std::array::from_fn(|a| grid.shape[a] as f64 * grid.spacing[a]);
        Self {
            scale: (WIDTH - GAP) / (extent[2] + extent[0]),
            extent,
            at: std::array::from_fn(|a| (centre[a] as f64 + 0.5) * grid.spacing[a]),
            position: grid.position(centre.map(|v| v as f64)),
        }
    }

    /// Width and height of the panel across z.
    pub(super) fn main_panel(&self) -> [f64; 2] {
        [self.extent[2] * self.scale, self.extent[1] * self.scale]
    }

    /// Corner and size `[x, y, width, height]` of the panel across `axis`.
    fn panel(&self, axis: usize) -> [f64; 4] {
        let [depth, height, width] = self.extent.map(|v| v * self.scale);
        match axis {
            0 => [0.0, 0.0, width, height],
            1 => [0.0, height + GAP, width, depth],
            _ => [width + GAP, 0.0, depth, height],
        }
    }

    /// The figure of three planes.
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

    /// Lines where the planes cut each other.
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

/// 1, 2 or 5 times a power of ten, at most `limit`.
fn round_length(limit: f64) -> f64 {
    let power = 10f64.powf(limit.log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|v| v * power).find(|&v| v <= limit).unwrap_or(power)
}

/// A number as a person reads it: four figures, no tail of zeros.
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

/// For text that goes into a drawing.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// How the residuals of inliers are spread.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub(super) struct Residuals {
    pub(super) matches: usize,
    pub(super) inliers: usize,
    pub(super) median_um: f64,
    pub(super) rms_um: f64,
    pub(super) p95_um: f64,
}

impl Residuals {
    /// Of the inliers; none where there are none.
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

/// The histogram of the inliers' residuals, with median and root mean square.
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

/// What the drawing of spots shows.
pub(super) struct SpotFigure<'a> {
    pub(super) grid: Grid,
    /// Address of the maximum projection along z.
    pub(super) background: String,
    pub(super) spots: &'a [Point],
    pub(super) matches: &'a [Match],
}

/// Spots drawn at most, of each kind: more would hide each other and swell the page.
pub(super) const DRAWN: usize = 2500;

impl SpotFigure<'_> {
    /// Spots, matches and the inliers' residual vectors along z, and the enlargement of the vectors.
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
        for &p in thinned(self.spots) {
            let [x, y] = place(p);
            let _ = write!(svg, "<circle class=\"spot\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.2\"/>");
        }
        let outliers: Vec<Match> = self.matches.iter().filter(|m| !m.inlier).copied().collect();
        for m in thinned(&outliers) {
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
        for (i, m) in thinned(&inliers).enumerate() {
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

    /// What the best global matrix leaves of each inlier, in the fixed frame, and how many times it
    /// is enlarged for the eye.
    fn arrows(&self, inliers: &[Match], width: f64) -> Option<(Vec<Point>, f64)> {
        let from: Vec<Point> = inliers.iter().map(|m| m.fixed).collect();
        let to: Vec<Point> = inliers.iter().map(|m| m.moving).collect();
        let map = fit(Model::Affine, &from, &to, None, true).ok()?;
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
    count.div_ceil(DRAWN).max(1)
}

/// At most [`DRAWN`], evenly.
fn thinned<T>(all: &[T]) -> impl Iterator<Item = &T> {
    all.iter().step_by(step_of(all.len()))
}

/// How blocks ended, in the order in which they are listed.
pub(super) const STATUSES: [&str; 4] = ["fitted", "regularised", "fallback", "empty"];

/// A raster of blocks for each layer along z.
pub(super) fn block_map(blocks: &[Block]) -> String {
    const SIDE: f64 = 42.0;
    let most = |of: fn(&Block) -> usize| blocks.iter().map(of).max().unwrap_or(0) + 1;
    let (layers, rows, columns) = (most(|b| b.block_z), most(|b| b.block_y), most(|b| b.block_x));
    let mut out = String::new();
    for layer in 0..layers {
        let (width, height) = (columns as f64 * SIDE, rows as f64 * SIDE);
        let _ = write!(
            out,
            "<figure class=\"layer\" style=\"max-width:{:.0}px\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\" \
             aria-label=\"Blocks of layer {layer}\">",
            width.max(84.0)
        );
        for b in blocks.iter().filter(|b| b.block_z == layer) {
            let (x, y) = (b.block_x as f64 * SIDE, b.block_y as f64 * SIDE);
            let class =
                if STATUSES.contains(&b.status.as_str()) { b.status.as_str() } else { "fallback" };
            let inliers = b.inliers.map_or(String::new(), |n| n.to_string());
            let _ = write!(
                out,
                "<g class=\"block {class}\"><title>{}</title><rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" \
                 height=\"{:.1}\" rx=\"4\"/><text x=\"{:.1}\" y=\"{:.1}\">{inliers}</text></g>",
                escape(&describe(b)),
                x + 1.5,
                y + 1.5,
                SIDE - 3.0,
                SIDE - 3.0,
                x + SIDE / 2.0,
                y + SIDE / 2.0 + 4.5
            );
        }
        let _ = write!(out, "</svg><figcaption>z {layer}</figcaption></figure>");
    }
    out
}

fn describe(b: &Block) -> String {
    let mut text = format!("block {}, {}, {}: {}", b.block_z, b.block_y, b.block_x, b.status);
    if !b.reason.is_empty() {
        let _ = write!(text, " ({})", b.reason);
    }
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            let _ = write!(text, "\n{name} {value}");
        }
    };
    add("inliers", b.inliers.map(|n| n.to_string()));
    add("matches", b.matches.map(|n| n.to_string()));
    add("median residual", b.median_um.map(|v| format!("{} µm", short(v))));
    add("RMS residual", b.rms_um.map(|v| format!("{} µm", short(v))));
    if let (Some(z), Some(y), Some(x)) = (b.shift_z_um, b.shift_y_um, b.shift_x_um) {
        add("shift", Some(format!("{}, {}, {} µm", short(z), short(y), short(x))));
    }
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

    #[test]
    fn a_block_map_names_each_block_and_escapes_its_reason() {
        let block = |z, status: &str, reason: &str| Block {
            block_z: z,
            status: status.into(),
            reason: reason.into(),
            inliers: Some(7),
            ..Block::default()
        };
        let map =
            block_map(&[block(0, "fitted", ""), block(1, "fallback", "scale < 0.5 & \"odd\"")]);
        assert_eq!(map.matches("<svg").count(), 2);
        assert!(map.contains("class=\"block fitted\""));
        assert!(map.contains("(scale &lt; 0.5 &amp; &quot;odd&quot;)"));
    }
}
