//! Figures of a stack as inline SVG: lines over the sections, strips, and arrows.

use std::fmt::Write;

use super::super::figures::{escape, round_length, short};
use super::super::picture::Picture;
use super::super::planes::{self, Contrast, Plane};
use super::extent;
use crate::geom::Grid;

/// Width and height of a chart, in SVG units.
const SIZE: [f64; 2] = [640.0, 210.0];
/// The margins of a chart: left, right, top, bottom.
const MARGINS: [f64; 4] = [56.0, 12.0, 10.0, 28.0];
/// The height of a strip is at least this fraction of its width.
const LEAST_HEIGHT: f64 = 0.08;
/// The width of figures of sections, in SVG units.
const WIDTH: f64 = 640.0;

/// A line of a chart: a value for each section, and the class that gives its colour.
pub(super) struct Line {
    pub(super) class: &'static str,
    pub(super) name: &'static str,
    pub(super) values: Vec<Option<f64>>,
}

impl Line {
    pub(super) fn has_values(&self) -> bool {
        self.values.iter().any(Option::is_some)
    }
}

/// Draws lines over the number of the section. Sections without a value leave a gap.
pub(super) fn chart(lines: &[Line], title: &str) -> String {
    let [width, height] = SIZE;
    let [left, right, top, bottom] = MARGINS;
    let values = || lines.iter().flat_map(|line| line.values.iter().flatten().copied());
    let low = values().fold(0.0, f64::min);
    let high = values().fold(low + 1e-9, f64::max);
    let last = lines.iter().map(|line| line.values.len()).max().unwrap_or(1).saturating_sub(1);
    let x = |section: f64| left + section / (last.max(1) as f64) * (width - left - right);
    let y = |value: f64| height - bottom - (value - low) / (high - low) * (height - top - bottom);
    let mut svg = format!(
        "<svg viewBox=\"0 0 {width} {height}\" class=\"chart\" role=\"img\" aria-label=\"{}\">",
        escape(title)
    );
    for value in ticks(low, high, 4.0) {
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{left} {0:.1}H{1:.1}\"/><text class=\"tick end\" x=\"{2:.1}\" y=\"{3:.1}\">{4}</text>",
            y(value),
            width - right,
            left - 8.0,
            y(value) + 4.0,
            short(value)
        );
    }
    for section in ticks(0.0, last as f64, 8.0).into_iter().filter(|section| section.fract() == 0.0)
    {
        let _ = write!(
            svg,
            "<text class=\"tick middle\" x=\"{:.1}\" y=\"{:.1}\">{section}</text>",
            x(section),
            height - 8.0
        );
    }
    for line in lines {
        let mut path = String::new();
        let mut is_drawing = false;
        for (section, value) in line.values.iter().enumerate() {
            if let Some(value) = value {
                let command = if is_drawing { 'L' } else { 'M' };
                // a line of no length makes a dot of a value between two gaps
                let _ = write!(path, "{command}{0:.1} {1:.1}h0", x(section as f64), y(*value));
            }
            is_drawing = value.is_some();
        }
        let _ = write!(svg, "<path class=\"line {}\" d=\"{path}\"/>", line.class);
    }
    svg.push_str("</svg>");
    svg
}

/// Multiples of a round number from `low` to `high`, about `count` of them.
fn ticks(low: f64, high: f64, count: f64) -> Vec<f64> {
    let step = round_length((high - low).max(1e-9) / count);
    let first = (low / step).ceil() as i64;
    let end = (high / step + 1e-9).floor() as i64;
    (first..=end).map(|i| i as f64 * step).collect()
}

/// Draws a cut through all sections, perpendicular to y (rows are z) or to x (rows are y, columns z,
/// which are drawn as rows here too). Sections are at least so thick that they can be seen.
pub(super) fn strip(plane: &Plane, axis: usize, contrast: Contrast, grid: &Grid) -> String {
    let turned;
    let plane = if axis == 2 {
        let (height, width) = (plane.width, plane.height);
        let at = |i: usize| plane.values[i % width * plane.width + i / width];
        turned = Plane { height, width, values: (0..height * width).map(at).collect() };
        &turned
    } else {
        plane
    };
    let depth = grid.shape[0] as f64 * grid.spacing[0];
    let length = extent(grid)[usize::from(axis == 1)];
    let height = WIDTH * (depth / length).clamp(LEAST_HEIGHT, 2.0);
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.1}\" class=\"ortho\"><image width=\"{WIDTH}\" height=\"{height:.1}\" \
         preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"{}\"/></svg>",
        planes::plain(plane, contrast).address()
    )
}

/// Draws a picture of a section.
pub(super) fn section(picture: &Picture, grid: &Grid) -> String {
    let [height, width] = extent(grid);
    let height = WIDTH * height / width;
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.1}\" class=\"ortho\"><image width=\"{WIDTH}\" height=\"{height:.1}\" \
         preserveAspectRatio=\"none\" href=\"{}\"/></svg>",
        picture.address()
    )
}

/// Draws a section, and arrows at points of it (micrometres along y and x); returns the figure and
/// the factor by which the arrows are enlarged.
pub(super) fn arrows(
    plane: &Plane,
    contrast: Contrast,
    grid: &Grid,
    vectors: &[([f64; 2], [f64; 2])],
) -> (String, f64) {
    let size = extent(grid);
    let scale = WIDTH / size[1];
    let height = size[0] * scale;
    let longest = vectors.iter().map(|(_, v)| v[0].hypot(v[1])).fold(1e-12, f64::max);
    // the longest arrow is a twelfth of the section long, and arrows are not made shorter
    let enlarged = round_length((size[1] / 12.0 / longest).max(1.0));
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height:.1}\" class=\"ortho\"><image width=\"{WIDTH}\" height=\"{height:.1}\" \
         preserveAspectRatio=\"none\" href=\"{}\"/>",
        planes::grey([plane.height, plane.width], &plane.values, contrast).address()
    );
    let place = |p: [f64; 2]| {
        [0, 1].map(|a| (p[a] - grid.origin[1 + a] + 0.5 * grid.spacing[1 + a]) * scale)
    };
    for (at, vector) in vectors {
        let [y, x] = place(*at);
        let [dy, dx] = vector.map(|v| v * enlarged * scale);
        let _ = write!(
            svg,
            "<path class=\"vector\" d=\"M{x:.1} {y:.1}l{dx:.1} {dy:.1}\"/><circle class=\"inlier\" cx=\"{x:.1}\" \
             cy=\"{y:.1}\" r=\"2.5\"/>"
        );
    }
    svg.push_str("</svg>");
    (svg, enlarged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within_the_range() {
        assert_eq!(ticks(0.0, 2.0, 4.0), [0.0, 0.5, 1.0, 1.5, 2.0]);
        assert_eq!(ticks(-7.0, 12.0, 4.0), [-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    }

    #[test]
    fn a_section_without_a_value_leaves_a_gap() {
        let values = vec![Some(0.0), Some(1.0), None, Some(0.5)];
        let svg = chart(&[Line { class: "after", name: "a", values }], "a < b");
        let path = svg.split("<path class=\"line after\" d=\"").nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
        assert!(svg.contains("a &lt; b"));
    }
}
