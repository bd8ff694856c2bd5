//! The comparison of two sections.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::RoughOptions;
use super::pieces::{self, Labels};
use crate::geom::{Affine, Point};
use crate::refine::chance::{self, Evidence};
use crate::refine::coarse_to_fine::{Refinement, refine_levels};
use crate::refine::image_pair::{ImagePair, InitialMap};
use crate::refine::pyramid::Pyramid;
use crate::refine::search::{self, SearchExtent, scale};
use crate::refine::{Error, Options};

/// A map is certain if its evidence is this multiple of the minimum.
const CERTAIN: f64 = 2.0;
/// A map explains sections as a whole if it explains this fraction of them.
const WHOLE: f64 = 0.8;

/// What the comparison of two sections found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Link {
    /// The section, and the one before it with which it was compared.
    pub(super) section: usize,
    pub(super) other: usize,
    /// The maps of the pieces from `section` to `other`; the first is that of most of the section.
    pub(super) pieces: Vec<Piece>,
    /// Where each map holds, in `section` and in `other`, if there are several.
    pub(super) labels: Option<[Labels; 2]>,
    /// The number of standard deviations by which the similarity exceeds that by chance.
    pub(super) evidence: f64,
    /// The similarity of the details.
    pub(super) similarity: f64,
    /// The overlap, as a fraction of the smaller section.
    pub(super) overlap: f64,
    /// The fraction of the common part of the sections in which the maps explain what is seen.
    pub(super) explained: f64,
    /// Why no map is believed.
    pub(super) refusal: Option<String>,
}

/// A map in the plane: the rows of y and x, micrometres.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Piece(pub(super) [[f64; 3]; 2]);

impl Piece {
    fn of(map: &Affine) -> Self {
        let rows = map.rows();
        Self([1, 2].map(|a| [rows[a][1], rows[a][2], rows[a][3]]))
    }

    pub(super) fn to_affine(self) -> Affine {
        let [y, x] = self.0.map(|[a, b, c]| [0.0, a, b, c]);
        Affine::from_rows([[1.0, 0.0, 0.0, 0.0], y, x])
    }

    pub(super) fn apply(&self, [y, x]: [f64; 2]) -> [f64; 2] {
        self.0.map(|[a, b, c]| a * y + b * x + c)
    }

    /// The inverse; the map itself if it has none, which no map of a link is.
    pub(super) fn inverse(&self) -> Self {
        self.to_affine().inverse().map_or(*self, |back| Self::of(&back))
    }
}

impl Link {
    pub(super) fn is_believed(&self) -> bool {
        self.refusal.is_none() && !self.pieces.is_empty()
    }

    /// Whether one map explains nearly all that both sections show.
    pub(super) fn is_whole(&self) -> bool {
        self.is_believed() && self.pieces.len() == 1 && self.explained >= WHOLE
    }

    /// Whether the evidence is so strong that the section need not be compared with others.
    pub(super) fn is_certain(&self, options: &RoughOptions) -> bool {
        self.is_whole() && self.evidence >= CERTAIN * options.min_evidence
    }

    /// The place in `other` of a point of `section`.
    pub(super) fn forward(&self, p: [f64; 2]) -> [f64; 2] {
        let label = self.labels.as_ref().map_or(0, |[own, _]| own.at(p));
        self.pieces[label].apply(p)
    }

    /// The place in `section` of a point of `other`.
    pub(super) fn backward(&self, p: [f64; 2]) -> [f64; 2] {
        let label = self.labels.as_ref().map_or(0, |[_, other]| other.at(p));
        self.pieces[label].inverse().apply(p)
    }

    /// The link as the receipt states it.
    pub(super) fn report(&self) -> Value {
        let first = self.pieces.first().map(|piece| piece.0);
        let turned = first.map(|[[a, _, _], [c, _, _]]| c.atan2(a).to_degrees());
        let mirrored = first.map(|[[a, b, _], [c, d, _]]| a * d - b * c < 0.0);
        json!({
            "section": self.section,
            "other": self.other,
            "evidence": self.evidence,
            "similarity": self.similarity,
            "overlap": self.overlap,
            "explained": self.explained,
            "rotation_degrees": turned,
            "mirrored": mirrored,
            "pieces": self.pieces.len(),
            "refusal": self.refusal,
        })
    }
}

/// The links of a section to those before it, the nearest first, until one is certain. If none is
/// believed, all are searched for once more, with smaller steps.
///
/// * `earlier`: the sections before it, the nearest first
pub(super) fn links(
    section: usize,
    image: &Pyramid,
    earlier: &[(usize, &Pyramid)],
    options: &RoughOptions,
    seed: u64,
) -> Vec<Link> {
    let mut links: Vec<Link> = Vec::new();
    for extent in [SearchExtent::AsAsked, SearchExtent::Wider] {
        links.clear();
        for &(other, moving) in earlier {
            let found = link([section, other], [image, moving], extent, options, seed);
            let is_certain = found.is_certain(options);
            links.push(found);
            if is_certain {
                break;
            }
        }
        if links.iter().any(Link::is_believed) {
            break;
        }
    }
    links
}

/// Finds the map from a section to another.
fn link(
    [section, other]: [usize; 2],
    [fixed, moving]: [&Pyramid; 2],
    extent: SearchExtent,
    options: &RoughOptions,
    seed: u64,
) -> Link {
    let pair = options.of_pair();
    let images = ImagePair { fixed, moving, planar: true, options: &pair, seed, quiet: true };
    let none = Link { section, other, ..Link::default() };
    let first = match find(&images, &Affine::IDENTITY, extent) {
        Ok(first) => first,
        Err(refusal) => return Link { refusal: Some(refusal), ..none },
    };
    let Found { map, evidence, overlap } = first;
    let mut maps = vec![map];
    while maps.len() < options.pieces {
        let Some(next) = pieces::next(&images, &maps) else { break };
        maps.push(next);
    }
    let maps = pieces::without_unused(&images, maps);
    let labels = (maps.len() > 1).then(|| pieces::labels(&images, &maps));
    let explained = pieces::explained(&images, &maps);
    Link {
        pieces: maps.iter().map(Piece::of).collect(),
        labels,
        evidence: evidence.evidence,
        similarity: evidence.found,
        overlap,
        explained,
        ..none
    }
}

/// A map that is believed.
pub(super) struct Found {
    pub(super) map: Affine,
    evidence: Evidence,
    overlap: f64,
}

/// Searches for the map between two images, near `given` and elsewhere; the error is the reason why
/// none is believed.
pub(super) fn find(
    images: &ImagePair<'_>,
    given: &Affine,
    extent: SearchExtent,
) -> Result<Found, String> {
    let Options { search: Some(what), min_evidence, .. } = images.options else {
        return Err("no search is asked for".to_owned());
    };
    let text = |error: Error| error.to_string();
    let found = search::search(images, given, what, extent).map_err(text)?;
    let size = scale(&found.map, true);
    let start = InitialMap::Matrix(found.map);
    let done = refine_levels(images, &start, None, size, "the search").map_err(text)?;
    let Refinement { map, refusal, overlap, .. } = done;
    if let Some(refusal) = refusal {
        return Err(refusal.to_string());
    }
    let judged = chance::judge(images, &start, &map, size, CERTAIN * min_evidence, true)
        .ok_or_else(|| "too little is in common to tell the map from wrong ones".to_owned())?;
    if judged.evidence < *min_evidence {
        return Err(format!(
            "the similarity stands out by {:.1} standard deviations, less than {min_evidence}",
            judged.evidence
        ));
    }
    Ok(Found { map: found.map.then(&map), evidence: judged, overlap: overlap[1] })
}

/// A point in the plane as one of space.
pub(super) fn in_space([y, x]: [f64; 2]) -> Point {
    [0.0, y, x]
}
