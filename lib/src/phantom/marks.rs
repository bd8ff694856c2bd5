//! What the pixels of a section show, and its folds and tears.

use super::random::Random;
use super::sections::Sections;
use crate::volume::Label;

/// What a pixel of a section shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shown {
    /// A place of the tissue, pixels along y and x.
    Tissue([f64; 2]),
    /// Resin without tissue.
    Resin,
    /// The gap between the pieces of a broken section.
    Gap,
    /// A fold.
    Fold,
    /// A tear.
    Tear,
    /// No image.
    Nothing,
}

impl Shown {
    /// The label in the true mask.
    pub(super) fn label(&self) -> Label {
        match self {
            Self::Tissue(_) => Label::Tissue,
            Self::Resin | Self::Nothing => Label::Excluded,
            Self::Gap | Self::Tear => Label::Tear,
            Self::Fold => Label::Wrinkle,
        }
    }
}

/// A line of limited length: its middle, its direction, and half its length and width.
struct Line {
    middle: [f64; 2],
    along: [f64; 2],
    size: [f64; 2],
    shown: Shown,
}

/// A fold and a tear of a section, each along a line.
pub(super) struct Marks(Vec<Line>);

impl Marks {
    pub(super) fn new(of: &Sections, random: &mut Random) -> Self {
        let mut marks = Vec::new();
        for shown in [Shown::Fold, Shown::Tear] {
            let middle = [1, 2].map(|a| random.between(0.1, 0.9) * of.shape[a] as f64);
            let (sin, cos) = random.between(0.0, std::f64::consts::TAU).sin_cos();
            let size = [random.between(0.05, 0.2) * of.shape[1] as f64, random.between(2.0, 6.0)];
            if random.chance((0.25 * of.defects).min(1.0)) {
                marks.push(Line { middle, along: [cos, sin], size, shown });
            }
        }
        Self(marks)
    }

    /// What a pixel shows instead of tissue.
    pub(super) fn at(&self, p: [f64; 2]) -> Option<Shown> {
        self.0.iter().find_map(|Line { middle, along, size, shown }| {
            let d = [p[0] - middle[0], p[1] - middle[1]];
            let on = (along[0] * d[0] + along[1] * d[1]).abs() / size[0];
            let off = (along[0] * d[1] - along[1] * d[0]).abs() / size[1];
            // tapered to its ends
            (on < 1.0 && off < 1.0 - on * on).then_some(*shown)
        })
    }
}
