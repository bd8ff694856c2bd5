//! Global search for a map that a local refinement can start from.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::canvas::{Canvas, Scratch, Template};
use super::climb::{Limits, Summit, climb};
use super::descent::FEWEST;
use super::model::Freedom;
use super::pyramid::Pyramid;
use super::scene::{Level, Scene, Start, detail};
use super::starts::{Linear, starts, turns};
use super::{Error, Search};
use crate::geom::{Affine, Model, Point};
use crate::metric::{Image, Kind, Workspace};

/// Side lengths of the smaller and of the larger image at the first placement, voxels, for planes
/// and for volumes: enough voxels to tell maps apart, few enough that one placement takes
/// milliseconds.
const SIDES: [[f64; 2]; 2] = [[44.0, 160.0], [16.0, 36.0]];
/// Voxels per independent observation: neighbouring voxels at one resolution are correlated.
const DEPENDENT: f64 = 4.0;
/// Maps are distinct if they differ by more than this fraction of the image's longest side.
const APART: f64 = 0.1;
/// Maximum number of steps of each refinement of a candidate.
const STEPS: usize = 25;

/// Factor by which a wider search increases the number of versions.
const WIDER: usize = 3;

/// Extent of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// As the options say.
    AsAsked,
    /// More versions, and a minimum overlap of one half: small overlaps allow the most shifts, and
    /// thus the highest correlations by chance.
    Wider,
}

/// A candidate map from fixed to moving, and its score.
#[derive(Clone, Debug)]
struct Candidate {
    map: Affine,
    /// The score; larger is better.
    worth: f64,
    /// Resolution of the first placement, fixed micrometres.
    resolution: f64,
}

/// Result of a search.
pub(super) struct Found {
    /// The best map.
    pub(super) map: Affine,
    /// Number of versions that could be placed.
    pub(super) placed: usize,
    /// Scores of the best map and of the next best distinct map.
    pub(super) worth: [Option<f64>; 2],
}

/// The best map among rotated, scaled and mirrored versions of `initial`.
///
/// Each version is placed at its best translation at a coarse resolution. The best candidates are
/// refined there, the best of these at twice the detail, and so on. Scores measure the similarity
/// of details, not of the unfiltered images. In addition to the versions that `what` asks for,
/// rotations by multiples of 90 degrees are tried.
///
/// * `reach`: extent of the search
///
/// # Errors
/// [`Error::NothingFound`] if no candidate is left; [`Error::Metric`] if the reason is that an
/// image is constant or has no known voxel.
pub(super) fn search(
    scene: &Scene<'_>,
    initial: &Affine,
    what: &Search,
    reach: Reach,
) -> Result<Found, Error> {
    let nothing = || {
        let size = scale(initial, scene.planar);
        let level = scene.level(scene.finest(size), size, &Start::Matrix(*initial));
        level.err().unwrap_or(Error::NothingFound { starts: what.starts })
    };
    let overlap = match reach {
        Reach::AsAsked => scene.options.min_overlap,
        Reach::Wider => scene.options.min_overlap.max(0.5),
    };
    let looks = Looks::new(scene, initial, what, overlap);
    let mut versions = match reach {
        Reach::AsAsked => starts(what, scene.planar, scene.seed),
        Reach::Wider => {
            let more = Search { starts: WIDER * what.starts, ..what.clone() };
            starts(&more, scene.planar, scene.seed)
        }
    };
    versions.extend(turns(what, scene.planar));
    let mut candidates = looks.place_all(&versions);
    if let Some(given) = looks.given() {
        candidates.push(given);
    }
    let placed = candidates.len();
    sort(&mut candidates);
    let mut candidates = apart(candidates, what.keep, &looks);
    for stage in 0..4 {
        candidates = candidates
            .into_par_iter()
            .filter_map(|candidate| refined(&looks, &candidate, stage))
            .collect();
        sort(&mut candidates);
        candidates = apart(candidates, (what.keep >> (2 * stage + 2)).max(2), &looks);
        if let Some(best) = candidates.first() {
            tracing::info!(
                "search, stage {} of 4: {} candidates are left; the best score is {:.3}",
                stage + 1,
                candidates.len(),
                best.worth
            );
        }
    }
    let best = candidates.first().ok_or_else(nothing)?;
    let worth = [Some(best.worth), candidates.get(1).map(|next| next.worth)];
    Ok(Found { map: best.map, placed, worth })
}

/// Sorts by score, best first; ties keep the order in which they were tried.
fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by(|a, b| b.worth.total_cmp(&a.worth));
}

/// The best `most` of sorted candidates, without those near a better one.
fn apart(candidates: Vec<Candidate>, most: usize, looks: &Looks<'_>) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() == most {
            break;
        }
        if kept.iter().all(|other| looks.differ(&candidate.map, &other.map)) {
            kept.push(candidate);
        }
    }
    kept
}

/// The score of a correlation: its lower confidence bound by Fisher's transform, so that a few
/// voxels that agree by chance do not outrank many that agree.
fn worth(correlation: f64, independent: f64) -> f64 {
    correlation.clamp(-0.999_999, 0.999_999).atanh() - 3.0 / (independent - 3.0).max(1.0).sqrt()
}

/// A candidate after refinement at `2^stage` times the detail of the first placement; `None` if its
/// overlap or scale leaves the allowed range.
fn refined(looks: &Looks<'_>, candidate: &Candidate, stage: i32) -> Option<Candidate> {
    let (scene, what) = (looks.scene, looks.what);
    let size = scale(&candidate.map, scene.planar);
    let finest = scene.finest(size);
    let resolution = (candidate.resolution / 2f64.powi(stage)).max(finest);
    let start = Start::Matrix(candidate.map);
    let model = match scene.options.model {
        Model::Affine if stage < 2 => Model::Similarity,
        model => model,
    };
    let freedom = Freedom::of(model, scene.planar);
    let mut work = Workspace::default();
    let mut climbed = |level: &Level, map: &Affine| {
        let limits = Limits { iterations: STEPS, voxel: level.resolution[1], least: FEWEST };
        climb(&level.affinity(&start), map, &freedom, &limits, &mut work)
    };
    let level = scene.detail(resolution, size, &start).ok()?;
    let mut summit = climbed(&level, &Affine::IDENTITY);
    if stage == 0 {
        // the unfiltered image has a wider capture range than its detail, but a less exact optimum
        let rough = scene.level(resolution, size, &start).ok();
        let rough = rough.and_then(|level| climbed(&level, &Affine::IDENTITY));
        let other = rough.and_then(|rough| climbed(&level, &rough.map));
        let better = |one: &Summit| summit.as_ref().is_none_or(|two| one.energy < two.energy);
        if let Some(other) = other.filter(better) {
            summit = Some(other);
        }
    }
    let summit = summit?;
    let map = candidate.map.then(&summit.map);
    let [low, high] = what.scale_range;
    let (found, slack) = (scale(&map, scene.planar), scene.options.max_scale);
    if level.overlap(summit.count) < looks.overlap || !(low / slack..=high * slack).contains(&found)
    {
        return None;
    }
    let worth = if scene.options.metric == Kind::MutualInformation {
        -summit.energy
    } else {
        let independent = level.independence(scene.planar) * summit.count as f64 / DEPENDENT;
        worth(1.0 - summit.energy, independent)
    };
    Some(Candidate { map, worth, ..*candidate })
}

/// Scale factor of a map: moving lengths by fixed lengths.
pub(super) fn scale(map: &Affine, planar: bool) -> f64 {
    let l = map.linear();
    if planar {
        (l[1][1] * l[2][2] - l[1][2] * l[2][1]).abs().sqrt()
    } else {
        map.determinant().abs().cbrt()
    }
}

/// The data that the first placements of all versions of one initial map have in common.
struct Looks<'a> {
    scene: &'a Scene<'a>,
    initial: Affine,
    what: &'a Search,
    /// Minimum overlap as a fraction of the smaller image.
    overlap: f64,
    /// Centres of the fixed and of the moving image, micrometres.
    centres: [Point; 2],
    /// Their side lengths, micrometres.
    sizes: [Point; 2],
}

/// How one version is placed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Look {
    /// Whether the moving image is the larger one, over which the fixed image is shifted.
    over_moving: bool,
    /// Resolution of the placement, in multiples of the larger image's own.
    coarser: usize,
    /// Resolution of the smaller image, in quarter octaves above 1 um.
    octave: i32,
}

impl<'a> Looks<'a> {
    fn new(scene: &'a Scene<'a>, initial: &Affine, what: &'a Search, overlap: f64) -> Self {
        let grids = [scene.fixed.base().grid, scene.moving.base().grid];
        let extents = grids.map(|grid| grid.extent(&grid.bounds()));
        Self {
            scene,
            initial: *initial,
            what,
            overlap,
            centres: extents.map(|[low, high]| std::array::from_fn(|a| 0.5 * (low[a] + high[a]))),
            sizes: [0, 1].map(|i| {
                std::array::from_fn(|a| extents[i][1][a] - extents[i][0][a] + grids[i].spacing[a])
            }),
        }
    }

    /// The initial map as a candidate, scored without a search for its best shift, at the
    /// resolution of a first placement.
    fn given(&self) -> Option<Candidate> {
        let linear = self.initial.linear();
        let (look, _) = self.look(&linear);
        let size = scale(&self.initial, self.scene.planar);
        let resolution = self.pyramid(look.over_moving).resolution() * look.coarser as f64;
        let resolution = if look.over_moving { resolution / size } else { resolution };
        let start = Start::Matrix(self.initial);
        let level = self.scene.detail(resolution, size, &start).ok()?;
        let score = level.affinity(&start).score(&Affine::IDENTITY, &mut Workspace::default())?;
        if score.count < FEWEST || level.overlap(score.count) < self.overlap {
            return None;
        }
        // always kept: the initial map given by the user is refined whatever its score
        Some(Candidate { map: self.initial, worth: f64::MAX, resolution })
    }

    /// Whether two maps differ by more than [`APART`] over the fixed image.
    fn differ(&self, a: &Affine, b: &Affine) -> bool {
        let half: Point = self.sizes[0].map(|s| 0.5 * s);
        let extent = [
            std::array::from_fn(|i| self.centres[0][i] - half[i]),
            std::array::from_fn(|i| self.centres[0][i] + half[i]),
        ];
        let length = self.longest(0) * scale(a, self.scene.planar);
        a.distance(b, extent) > APART * length
    }

    fn longest(&self, side: usize) -> f64 {
        self.sizes[side][usize::from(self.scene.planar)..].iter().copied().fold(0.0, f64::max)
    }

    fn pyramid(&self, moving: bool) -> &Pyramid {
        if moving { &self.scene.moving } else { &self.scene.fixed }
    }

    /// How a version is placed, and the linear part of the map from the larger to the smaller
    /// image.
    fn look(&self, linear: &Linear) -> (Look, Linear) {
        let map = Affine::from_parts(*linear, [0.0; 3]);
        let size = scale(&map, self.scene.planar);
        let over_moving = self.longest(1) > size * self.longest(0);
        let (large, small) = (usize::from(over_moving), usize::from(!over_moving));
        // length in the smaller image per length in the larger one
        let ratio = if over_moving { 1.0 / size } else { size };
        let [own, other] = [over_moving, !over_moving].map(|side| self.pyramid(side).resolution());
        let [template, canvas] = SIDES[usize::from(!self.scene.planar)];
        let wanted = (self.longest(small) / ratio / template)
            .max(self.longest(large) / canvas)
            .max(other / ratio);
        let coarser = (wanted / own).ceil().max(1.0) as usize;
        let octave = (4.0 * (own * coarser as f64 * ratio).log2()).round() as i32;
        let between =
            if over_moving { map.inverse().map_or(*linear, |back| back.linear()) } else { *linear };
        (Look { over_moving, coarser, octave }, between)
    }

    /// Places every version at its best translation; versions without a valid one are dropped.
    fn place_all(&self, versions: &[Linear]) -> Vec<Candidate> {
        let planned: Vec<(Look, Linear, Linear)> = versions
            .iter()
            .map(|version| {
                let turned = Affine::from_parts(self.initial.linear(), [0.0; 3])
                    .then(&Affine::from_parts(*version, [0.0; 3]))
                    .linear();
                let (look, between) = self.look(&turned);
                (look, between, turned)
            })
            .collect();
        // canvases and small images that several versions share
        let mut largest: BTreeMap<(bool, usize), [usize; 3]> = BTreeMap::new();
        let mut small: BTreeMap<(bool, i32), Image> = BTreeMap::new();
        for (look, between, _) in &planned {
            let shape = self.template_shape(look, between);
            let most = largest.entry((look.over_moving, look.coarser)).or_insert([1; 3]);
            *most = std::array::from_fn(|a| most[a].max(shape[a]));
            small.entry((look.over_moving, look.octave)).or_insert_with(|| {
                let resolution = 2f64.powf(f64::from(look.octave) / 4.0);
                detail(&self.pyramid(!look.over_moving).at(resolution), resolution)
            });
        }
        let canvases: BTreeMap<(bool, usize), Option<Canvas>> = largest
            .into_par_iter()
            .map(|(key, largest)| {
                let image = self.canvas_image(key.0, key.1);
                (key, Canvas::new(image, largest))
            })
            .collect();
        planned
            .par_iter()
            .map_init(Scratch::default, |scratch, (look, between, turned)| {
                let canvas = canvases.get(&(look.over_moving, look.coarser))?.as_ref()?;
                let image = small.get(&(look.over_moving, look.octave))?;
                self.place(look, [between, turned], canvas, image, scratch)
            })
            .flatten()
            .collect()
    }

    fn canvas_image(&self, over_moving: bool, coarser: usize) -> Image {
        let pyramid = self.pyramid(over_moving);
        let resolution = pyramid.resolution() * coarser as f64;
        detail(&pyramid.at(resolution), resolution)
    }

    /// Shape of the template: the smaller image's bounding box on the larger image's grid, voxels.
    fn template_shape(&self, look: &Look, between: &Linear) -> [usize; 3] {
        let pyramid = self.pyramid(look.over_moving);
        let resolution = pyramid.resolution() * look.coarser as f64;
        let grid = pyramid.base().grid;
        let size = self.sizes[usize::from(!look.over_moving)];
        let back = Affine::from_parts(*between, [0.0; 3]).inverse();
        let back = back.map_or(*between, |back| back.linear());
        std::array::from_fn(|a| {
            if grid.shape[a] == 1 {
                return 1;
            }
            let extent: f64 = (0..3).map(|b| back[a][b].abs() * size[b]).sum();
            // the largest step whose spacing does not exceed the resolution, as in `thinning`
            let step = (resolution / grid.spacing[a] + 1e-6).floor().max(1.0);
            (extent / (step * grid.spacing[a])).ceil() as usize + 1
        })
    }

    fn place(
        &self,
        look: &Look,
        [between, turned]: [&Linear; 2],
        canvas: &Canvas,
        image: &Image,
        scratch: &mut Scratch,
    ) -> Option<Candidate> {
        let grid = canvas.image.grid;
        let shape = self.template_shape(look, between);
        let centre = self.centres[usize::from(!look.over_moving)];
        let template = Template::draw(image, between, centre, grid.spacing, shape)?;
        let map_of = |shift: [i64; 3]| self.map(look, between, turned, canvas, shape, shift);
        let there = self.initial.apply(self.centres[0]);
        let allowed = |shift| {
            let here = map_of(shift).apply(self.centres[0]);
            let most = self.what.max_translation.unwrap_or(f64::INFINITY);
            (0..3).all(|a| (here[a] - there[a]).abs() <= most)
        };
        let inverted = self.scene.options.metric == Kind::MutualInformation;
        let fit = canvas.place(&template, self.overlap, inverted, allowed, scratch)?;
        let resolution = self.pyramid(look.over_moving).resolution() * look.coarser as f64;
        let axes = usize::from(self.scene.planar)..3;
        let share: f64 = axes.map(|a| (grid.spacing[a] / resolution).min(1.0)).product();
        let map = map_of(fit.shift);
        let size = scale(&map, self.scene.planar);
        Some(Candidate {
            map,
            worth: worth(fit.correlation, fit.count * share / DEPENDENT),
            resolution: if look.over_moving { resolution / size } else { resolution },
        })
    }

    /// The map from fixed to moving for a shift of the template over the canvas.
    fn map(
        &self,
        look: &Look,
        between: &Linear,
        turned: &Linear,
        canvas: &Canvas,
        shape: [usize; 3],
        shift: [i64; 3],
    ) -> Affine {
        let grid = canvas.image.grid;
        // the point of the canvas at the centre of the smaller image
        let middle =
            grid.position(std::array::from_fn(|a| shift[a] as f64 + (shape[a] as f64 - 1.0) / 2.0));
        let (from, to, linear) = if look.over_moving {
            (self.centres[0], middle, turned)
        } else {
            (middle, self.centres[1], between)
        };
        Affine::translation(from.map(|v| -v)).then(&Affine::from_parts(*linear, to))
    }
}
