//! The errors of an aligned stack of sections.

use std::path::Path;

use serde::Serialize;

use super::score::Spread;
use super::sections::{Kind, SectionMap, SectionsTruth, TRUTH};
use super::{Error, io};
use crate::geom::{Chain, Grid};
use crate::store::document;
use crate::transform;

/// The greatest number of points at which sections are compared.
const POINTS: usize = 2500;
/// The rim of the stack that is left out, as a fraction of its width.
const RIM: f64 = 0.1;

/// How well sections are aligned to each other: at each point of the aligned stack, the places of
/// the tissue that the sections show there, and their distances from the median place, pixels.
///
/// What is common to all sections is no error, since an alignment of sections to each other cannot
/// know it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SectionsScore {
    /// The errors of all good sections.
    pub pixels: Spread,
    /// The greatest of the median errors of the good sections.
    pub worst_section: f64,
    /// The greatest distance between the mean places of two good sections.
    pub drift: f64,
    /// Each section.
    pub sections: Vec<SectionScore>,
}

/// The errors of a section.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SectionScore {
    /// Its number.
    pub section: usize,
    /// What is wrong with it.
    pub kind: Kind,
    /// The number of points that it shows.
    pub points: usize,
    /// The median error, pixels.
    pub median: f64,
    /// The 95th percentile of the errors, pixels.
    pub p95: f64,
    /// The mean of the errors along y and x, pixels.
    pub mean: [f64; 2],
}

impl SectionsScore {
    /// Formats the score as indented JSON with a final newline.
    pub fn to_json(&self) -> String {
        format!("{:#}\n", serde_json::json!(self))
    }
}

/// Whether a folder has the ground truth of [`super::sections`].
pub fn is_of_sections(truth: &Path) -> bool {
    crate::store::exists(&truth.join(TRUTH))
}

/// Measures the chain in the files `transforms` (applied in this order), which takes the aligned
/// stack to the sections, against the ground truth that [`super::sections`] wrote into the folder
/// `truth`.
///
/// # Errors
/// [`Error`] if the ground truth or a transform cannot be read.
pub fn score_sections(truth: &Path, transforms: &[String]) -> Result<SectionsScore, Error> {
    let path = truth.join(TRUTH);
    let text = document::read(&path).map_err(io("read", &path))?;
    let truth: SectionsTruth = serde_json::from_slice(&text).map_err(|e| Error::Truth {
        path: path.display().to_string(),
        message: format!("{e}; wanted the {TRUTH} that `phantom sections` writes"),
    })?;
    of_chain(&truth, &transform::read_chain(transforms)?)
}

fn of_chain(truth: &SectionsTruth, chain: &Chain) -> Result<SectionsScore, Error> {
    let of = &truth.parameters;
    let grid = Grid::new(of.shape, of.spacing, [0.0; 3]);
    let points = points(of.shape);
    let mut places = Vec::new();
    for section in 0..of.shape[0] {
        let corner = |y: f64, x: f64| grid.position([section as f64, y, x]);
        let extent = [corner(0.0, 0.0), corner(of.shape[1] as f64 - 1.0, of.shape[2] as f64 - 1.0)];
        let (local, _) = chain.localise(extent).map_err(Error::Field)?;
        let map = truth.map(section);
        let place = |q: &[f64; 2]| {
            let p = grid.index(local.apply(corner(q[0], q[1])));
            shown(&map, [p[1], p[2]], of.shape)
        };
        places.push(points.iter().map(place).collect::<Vec<_>>());
    }
    let is_good = |section: &usize| matches!(truth.kinds[*section], Kind::Good | Kind::Doubled);
    let good: Vec<usize> = (0..of.shape[0]).filter(is_good).collect();
    let common: Vec<Option<[f64; 2]>> = (0..points.len())
        .map(|i| median_place(good.iter().filter_map(|s| places[*s][i])))
        .collect();
    let mut all = Vec::new();
    let mut sections = Vec::new();
    for (section, places) in places.iter().enumerate() {
        let away: Vec<[f64; 2]> = places
            .iter()
            .zip(&common)
            .filter_map(|(at, common)| {
                let (at, common) = ((*at)?, (*common)?);
                Some([at[0] - common[0], at[1] - common[1]])
            })
            .collect();
        let lengths: Vec<f64> = away.iter().map(|v| v[0].hypot(v[1])).collect();
        let count = away.len().max(1) as f64;
        let mean = [0, 1].map(|a| away.iter().map(|v| v[a]).sum::<f64>() / count);
        if is_good(&section) {
            all.extend_from_slice(&lengths);
        }
        let (points, Spread { median, p95, .. }) = (away.len(), Spread::of(lengths));
        let kind = truth.kinds[section];
        sections.push(SectionScore { section, kind, points, median, p95, mean });
    }
    let measured: Vec<&SectionScore> =
        sections.iter().filter(|s| is_good(&s.section) && s.points > 0).collect();
    let apart =
        |a: &SectionScore, b: &SectionScore| (a.mean[0] - b.mean[0]).hypot(a.mean[1] - b.mean[1]);
    let drift =
        measured.iter().flat_map(|a| measured.iter().map(move |b| apart(a, b))).fold(0.0, f64::max);
    if measured.len() < 2 {
        let message = "takes hardly any point of the aligned stack to the sections of this truth; give the transforms of this stack";
        return Err(Error::Truth { path: "--transform".to_owned(), message: message.to_owned() });
    }
    let worst_section = measured.iter().map(|s| s.median).fold(0.0, f64::max);
    Ok(SectionsScore { pixels: Spread::of(all), worst_section, drift, sections })
}

/// Points of the aligned stack on a lattice, pixels along y and x.
fn points([_, ny, nx]: [usize; 3]) -> Vec<[f64; 2]> {
    let step = ((ny * nx) as f64 / POINTS as f64).sqrt().max(1.0);
    let along = |n: usize| {
        let (first, last) = (RIM * n as f64, (1.0 - RIM) * n as f64);
        (0..).map(move |i| first + step * f64::from(i)).take_while(move |v| *v <= last)
    };
    along(ny).flat_map(|y| along(nx).map(move |x| [y, x])).collect()
}

/// The place of the tissue that a pixel of a section shows.
fn shown(map: &SectionMap, p: [f64; 2], [_, ny, nx]: [usize; 3]) -> Option<[f64; 2]> {
    let is_inside = (0.0..ny as f64).contains(&p[0]) && (0.0..nx as f64).contains(&p[1]);
    if is_inside { map.apply(p) } else { None }
}

/// The median of each coordinate.
fn median_place(places: impl Iterator<Item = [f64; 2]>) -> Option<[f64; 2]> {
    let places: Vec<[f64; 2]> = places.collect();
    let along = |a: usize| Spread::of(places.iter().map(|p| p[a]).collect()).median;
    (!places.is_empty()).then(|| [along(0), along(1)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::Context;
    use crate::phantom::{Sections, sections};

    #[test]
    fn the_true_chain_of_a_stack_has_no_error_and_no_chain_has_a_large_one() {
        let folder = tempfile::tempdir().unwrap();
        let of = Sections {
            shape: [20, 128, 150],
            spacing: [0.05, 0.01, 0.01],
            max_displacement: 5.0,
            wavelength: 128.0,
            max_shift: 12.0,
            max_rotation: 1.5,
            noise: 1.0,
            defects: 1.0,
            seed: 3,
        };
        sections(&of, folder.path(), &Context::default()).unwrap();
        assert!(is_of_sections(folder.path()));
        let at = |name: &str| folder.path().join(name).display().to_string();
        let truth = score_sections(folder.path(), &[at("truth.json")]).unwrap();
        assert!(truth.pixels.p95 < 0.1 && truth.drift < 0.05, "{truth:?}");
        let kinds = |kind| truth.sections.iter().filter(|s| s.kind == kind).count();
        assert_eq!(
            [Kind::Broken, Kind::Blank, Kind::Doubled, Kind::Missing].map(kinds),
            [1, 1, 1, 1]
        );
        std::fs::write(at("none.txt"), "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n").unwrap();
        let none = score_sections(folder.path(), &[at("none.txt")]).unwrap();
        assert!(none.pixels.median > 4.0 && none.drift > 4.0, "{none:?}");
    }
}
