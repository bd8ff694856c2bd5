//! Global search for a map that a local refinement can start from.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::coarse_to_fine::MIN_SAMPLES;
use super::image_pair::{ImagePair, InitialMap, Level, detail};
use super::initial_maps::{Linear, axis_rotations, linear_maps};
use super::model::ModelParameters;
use super::optimise::{Optimum, StopCriteria, optimise};
use super::pyramid::Pyramid;
use super::search_image::{Scratch, SearchImage, Template};
use super::{Error, SearchOptions};
use crate::geom::{Affine, Model, Point};
use crate::metric::{Image, SimilarityMeasure, Workspace};

/// Maximum side lengths of the smaller and of the larger image at the first placement, voxels, for
/// planes and for volumes. Images of this size suffice to tell maps apart, and one placement takes
/// milliseconds.
const PLACEMENT_SIDES: [[f64; 2]; 2] = [[44.0, 160.0], [16.0, 36.0]];
/// Voxels per independent observation: neighbouring voxels are correlated.
const VOXELS_PER_OBSERVATION: f64 = 4.0;
/// Maps are distinct if they differ by more than this fraction of the image's longest side.
const DISTINCT_FRACTION: f64 = 0.1;
/// Maximum number of steps of each refinement of a candidate.
const MAX_STEPS: usize = 25;

/// Factor by which a wider search increases the number of versions.
const WIDER_FACTOR: usize = 3;

/// Extent of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SearchExtent {
    /// The number of versions and the minimum overlap are those of the options.
    AsAsked,
    /// There are more versions, and the minimum overlap is at least one half. Small overlaps allow
    /// the most shifts, and thus the highest correlations by chance.
    Wider,
}

/// A candidate map from fixed to moving, and its score.
#[derive(Clone, Debug)]
struct Candidate {
    map: Affine,
    /// The score; larger is better.
    score: f64,
    /// Resolution of the first placement, fixed micrometres.
    resolution: f64,
}

/// Result of a search.
pub(super) struct SearchResult {
    /// The best map.
    pub(super) map: Affine,
    /// Number of candidates before refinement: versions with an allowed translation, and the
    /// initial map.
    pub(super) placed: usize,
    /// Scores of the best map and of the next best distinct map.
    pub(super) score: [Option<f64>; 2],
}

/// The best map among rotated, scaled and mirrored versions of `initial`.
///
/// The placement of a version finds its best translation at a coarse resolution. The best
/// candidates are refined at this resolution, the best of them at a resolution twice as fine, and
/// so on. Scores measure the similarity of details, not of the unfiltered images. In addition to
/// the versions that `options` describes, rotations by multiples of 90 degrees are tried.
///
/// * `reach`: extent of the search
///
/// # Errors
/// [`Error::Metric`] if an image is constant or has no known voxel; otherwise
/// [`Error::NothingFound`] if no candidate remains.
pub(super) fn search(
    images: &ImagePair<'_>,
    initial: &Affine,
    options: &SearchOptions,
    reach: SearchExtent,
) -> Result<SearchResult, Error> {
    let nothing = || {
        let size = scale(initial, images.planar);
        let level = images.level(images.finest(size), size, &InitialMap::Matrix(*initial));
        level.err().unwrap_or(Error::NothingFound { starts: options.starts })
    };
    let overlap = match reach {
        SearchExtent::AsAsked => images.options.min_overlap,
        SearchExtent::Wider => images.options.min_overlap.max(0.5),
    };
    let placements = PlacementSearch::new(images, initial, options, overlap);
    let mut versions = match reach {
        SearchExtent::AsAsked => linear_maps(options, images.planar, images.seed),
        SearchExtent::Wider => {
            let more = SearchOptions { starts: WIDER_FACTOR * options.starts, ..options.clone() };
            linear_maps(&more, images.planar, images.seed)
        }
    };
    versions.extend(axis_rotations(options, images.planar));
    let mut candidates = placements.place_all(&versions);
    if let Some(given) = placements.given() {
        candidates.push(given);
    }
    let placed = candidates.len();
    sort(&mut candidates);
    let mut candidates = distinct(candidates, options.keep, &placements);
    for stage in 0..4 {
        candidates = candidates
            .into_par_iter()
            .filter_map(|candidate| refined(&placements, &candidate, stage))
            .collect();
        sort(&mut candidates);
        candidates = distinct(candidates, (options.keep >> (2 * stage + 2)).max(2), &placements);
        if let Some(best) = candidates.first().filter(|_| !images.quiet) {
            tracing::info!(
                "search, stage {} of 4: {} candidates are left; the best score is {:.3}",
                stage + 1,
                candidates.len(),
                best.score
            );
        }
    }
    let best = candidates.first().ok_or_else(nothing)?;
    let score = [Some(best.score), candidates.get(1).map(|next| next.score)];
    Ok(SearchResult { map: best.map, placed, score })
}

/// Sorts by score, best first; candidates of equal score keep their order.
fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
}

/// The best `most` of sorted candidates, without those whose map is close to that of a better
/// candidate.
fn distinct(
    candidates: Vec<Candidate>,
    most: usize,
    placements: &PlacementSearch<'_>,
) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() == most {
            break;
        }
        if kept.iter().all(|other| placements.differ(&candidate.map, &other.map)) {
            kept.push(candidate);
        }
    }
    kept
}

/// The score of a correlation of `independent` observations: its lower confidence bound by Fisher's
/// transform. With this bound, a few voxels that agree by chance do not outrank many that agree.
fn score(correlation: f64, independent: f64) -> f64 {
    correlation.clamp(-0.999_999, 0.999_999).atanh() - 3.0 / (independent - 3.0).max(1.0).sqrt()
}

/// A candidate after refinement at a resolution `2^stage` times as fine as that of the first
/// placement; `None` if its overlap or scale leaves the allowed range.
fn refined(
    placements: &PlacementSearch<'_>,
    candidate: &Candidate,
    stage: i32,
) -> Option<Candidate> {
    let (images, options) = (placements.images, placements.options);
    let size = scale(&candidate.map, images.planar);
    let finest = images.finest(size);
    let resolution = (candidate.resolution / 2f64.powi(stage)).max(finest);
    let start = InitialMap::Matrix(candidate.map);
    let model = match images.options.model {
        Model::Affine if stage < 2 => Model::Similarity,
        model => model,
    };
    let parameters = ModelParameters::of(model, images.planar);
    let mut work = Workspace::default();
    let mut optimised = |level: &Level, map: &Affine| {
        let criteria = StopCriteria {
            iterations: MAX_STEPS,
            voxel: level.resolution[1],
            min_samples: MIN_SAMPLES,
        };
        optimise(&level.similarity(&start), map, &parameters, &criteria, &mut work)
    };
    let level = images.detail(resolution, size, &start).ok()?;
    let mut optimum = optimised(&level, &Affine::IDENTITY);
    if stage == 0 {
        // the unfiltered image has a wider capture range than its detail, but a less exact optimum
        let rough = images.level(resolution, size, &start).ok();
        let rough = rough.and_then(|level| optimised(&level, &Affine::IDENTITY));
        let other = rough.and_then(|rough| optimised(&level, &rough.map));
        let better = |one: &Optimum| optimum.as_ref().is_none_or(|two| one.energy < two.energy);
        if let Some(other) = other.filter(better) {
            optimum = Some(other);
        }
    }
    let optimum = optimum?;
    let map = candidate.map.then(&optimum.map);
    let [low, high] = options.scale_range;
    let (found, slack) = (scale(&map, images.planar), images.options.max_scale);
    if level.overlap(optimum.count) < placements.overlap
        || !(low / slack..=high * slack).contains(&found)
    {
        return None;
    }
    let score = if images.options.metric == SimilarityMeasure::MutualInformation {
        -optimum.energy
    } else {
        let independent =
            level.independence(images.planar) * optimum.count as f64 / VOXELS_PER_OBSERVATION;
        score(1.0 - optimum.energy, independent)
    };
    Some(Candidate { map, score, ..*candidate })
}

/// Scale factor of a map: moving lengths divided by fixed lengths.
pub(super) fn scale(map: &Affine, planar: bool) -> f64 {
    let l = map.linear();
    if planar {
        (l[1][1] * l[2][2] - l[1][2] * l[2][1]).abs().sqrt()
    } else {
        map.determinant().abs().cbrt()
    }
}

/// The data that the placements of all versions of one initial map share.
struct PlacementSearch<'a> {
    images: &'a ImagePair<'a>,
    initial: Affine,
    options: &'a SearchOptions,
    /// Minimum overlap as a fraction of the smaller image.
    overlap: f64,
    /// Centres of the fixed and of the moving image, micrometres.
    centres: [Point; 2],
    /// Side lengths of the fixed and of the moving image, micrometres.
    sizes: [Point; 2],
}

/// Which image is shifted over which in the placement of a version, and at which resolutions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PlacementScale {
    /// Whether the moving image is the larger one, over which the fixed image is shifted.
    over_moving: bool,
    /// Resolution of the placement, in multiples of the larger image's own resolution.
    coarser: usize,
    /// Resolution of the smaller image, in quarter octaves above 1 um.
    octave: i32,
}

impl<'a> PlacementSearch<'a> {
    fn new(
        images: &'a ImagePair<'a>,
        initial: &Affine,
        options: &'a SearchOptions,
        overlap: f64,
    ) -> Self {
        let grids = [images.fixed.base().grid, images.moving.base().grid];
        let extents = grids.map(|grid| grid.extent(&grid.bounds()));
        Self {
            images,
            initial: *initial,
            options,
            overlap,
            centres: extents.map(|[low, high]| std::array::from_fn(|a| 0.5 * (low[a] + high[a]))),
            sizes: [0, 1].map(|i| {
                std::array::from_fn(|a| extents[i][1][a] - extents[i][0][a] + grids[i].spacing[a])
            }),
        }
    }

    /// The initial map as a candidate with the best possible score, without a search for its best
    /// translation; `None` if the images overlap too little under this map.
    fn given(&self) -> Option<Candidate> {
        let linear = self.initial.linear();
        let (placement, _) = self.placement(&linear);
        let size = scale(&self.initial, self.images.planar);
        let resolution =
            self.pyramid(placement.over_moving).resolution() * placement.coarser as f64;
        let resolution = if placement.over_moving { resolution / size } else { resolution };
        let start = InitialMap::Matrix(self.initial);
        let level = self.images.detail(resolution, size, &start).ok()?;
        let score = level.similarity(&start).score(&Affine::IDENTITY, &mut Workspace::default())?;
        if score.count < MIN_SAMPLES || level.overlap(score.count) < self.overlap {
            return None;
        }
        // the initial map is refined whatever its score
        Some(Candidate { map: self.initial, score: f64::MAX, resolution })
    }

    /// Whether two maps differ by more than [`DISTINCT_FRACTION`] over the fixed image.
    fn differ(&self, a: &Affine, b: &Affine) -> bool {
        let half: Point = self.sizes[0].map(|s| 0.5 * s);
        let extent = [
            std::array::from_fn(|i| self.centres[0][i] - half[i]),
            std::array::from_fn(|i| self.centres[0][i] + half[i]),
        ];
        let length = self.longest_side(0) * scale(a, self.images.planar);
        a.distance(b, extent) > DISTINCT_FRACTION * length
    }

    fn longest_side(&self, side: usize) -> f64 {
        self.sizes[side][usize::from(self.images.planar)..].iter().copied().fold(0.0, f64::max)
    }

    fn pyramid(&self, moving: bool) -> &Pyramid {
        if moving { self.images.moving } else { self.images.fixed }
    }

    /// The placement of the version with the linear part `linear`, and the linear part of the map
    /// from the larger to the smaller image.
    fn placement(&self, linear: &Linear) -> (PlacementScale, Linear) {
        let map = Affine::from_parts(*linear, [0.0; 3]);
        let size = scale(&map, self.images.planar);
        let over_moving = self.longest_side(1) > size * self.longest_side(0);
        let (large, small) = (usize::from(over_moving), usize::from(!over_moving));
        // length in the smaller image per length in the larger one
        let ratio = if over_moving { 1.0 / size } else { size };
        let [own, other] = [over_moving, !over_moving].map(|side| self.pyramid(side).resolution());
        let [template, search_image] = PLACEMENT_SIDES[usize::from(!self.images.planar)];
        let wanted = (self.longest_side(small) / ratio / template)
            .max(self.longest_side(large) / search_image)
            .max(other / ratio);
        let coarser = (wanted / own).ceil().max(1.0) as usize;
        let octave = (4.0 * (own * coarser as f64 * ratio).log2()).round() as i32;
        let between =
            if over_moving { map.inverse().map_or(*linear, |back| back.linear()) } else { *linear };
        (PlacementScale { over_moving, coarser, octave }, between)
    }

    /// Finds the best translation of every version; versions without an allowed translation are
    /// dropped.
    fn place_all(&self, versions: &[Linear]) -> Vec<Candidate> {
        let planned: Vec<(PlacementScale, Linear, Linear)> = versions
            .iter()
            .map(|version| {
                let turned = Affine::from_parts(self.initial.linear(), [0.0; 3])
                    .then(&Affine::from_parts(*version, [0.0; 3]))
                    .linear();
                let (placement, between) = self.placement(&turned);
                (placement, between, turned)
            })
            .collect();
        // the largest template sizes, and the smaller images, which several versions share
        let mut largest: BTreeMap<(bool, usize), [usize; 3]> = BTreeMap::new();
        let mut small: BTreeMap<(bool, i32), Image> = BTreeMap::new();
        for (placement, between, _) in &planned {
            let shape = self.template_shape(placement, between);
            let most = largest.entry((placement.over_moving, placement.coarser)).or_insert([1; 3]);
            *most = std::array::from_fn(|a| most[a].max(shape[a]));
            small.entry((placement.over_moving, placement.octave)).or_insert_with(|| {
                let resolution = 2f64.powf(f64::from(placement.octave) / 4.0);
                detail(&self.pyramid(!placement.over_moving).at(resolution), resolution)
            });
        }
        let search_images: BTreeMap<(bool, usize), Option<SearchImage>> = largest
            .into_par_iter()
            .map(|(key, largest)| {
                let image = self.search_image_at(key.0, key.1);
                (key, SearchImage::new(image, largest))
            })
            .collect();
        planned
            .par_iter()
            .map_init(Scratch::default, |scratch, (placement, between, turned)| {
                let search_image =
                    search_images.get(&(placement.over_moving, placement.coarser))?.as_ref()?;
                let image = small.get(&(placement.over_moving, placement.octave))?;
                self.place(placement, [between, turned], search_image, image, scratch)
            })
            .flatten()
            .collect()
    }

    fn search_image_at(&self, over_moving: bool, coarser: usize) -> Image {
        let pyramid = self.pyramid(over_moving);
        let resolution = pyramid.resolution() * coarser as f64;
        detail(&pyramid.at(resolution), resolution)
    }

    /// Shape of the template: the bounding box of the smaller image on the larger image's grid,
    /// voxels.
    fn template_shape(&self, placement: &PlacementScale, between: &Linear) -> [usize; 3] {
        let pyramid = self.pyramid(placement.over_moving);
        let resolution = pyramid.resolution() * placement.coarser as f64;
        let grid = pyramid.base().grid;
        let size = self.sizes[usize::from(!placement.over_moving)];
        let back = Affine::from_parts(*between, [0.0; 3]).inverse();
        let back = back.map_or(*between, |back| back.linear());
        std::array::from_fn(|a| {
            if grid.shape[a] == 1 {
                return 1;
            }
            let extent: f64 = (0..3).map(|b| back[a][b].abs() * size[b]).sum();
            // the largest step whose spacing does not exceed the resolution, as in `decimation`
            let step = (resolution / grid.spacing[a] + 1e-6).floor().max(1.0);
            (extent / (step * grid.spacing[a])).ceil() as usize + 1
        })
    }

    fn place(
        &self,
        placement: &PlacementScale,
        [between, turned]: [&Linear; 2],
        search_image: &SearchImage,
        image: &Image,
        scratch: &mut Scratch,
    ) -> Option<Candidate> {
        let grid = search_image.image.grid;
        let shape = self.template_shape(placement, between);
        let centre = self.centres[usize::from(!placement.over_moving)];
        let template = Template::draw(image, between, centre, grid.spacing, shape)?;
        let map_of =
            |shift: [i64; 3]| self.map(placement, between, turned, search_image, shape, shift);
        let there = self.initial.apply(self.centres[0]);
        let allowed = |shift| {
            let here = map_of(shift).apply(self.centres[0]);
            let most = self.options.max_translation.unwrap_or(f64::INFINITY);
            (0..3).all(|a| (here[a] - there[a]).abs() <= most)
        };
        let inverted = self.images.options.metric == SimilarityMeasure::MutualInformation;
        let fit = search_image.place(&template, self.overlap, inverted, allowed, scratch)?;
        let resolution =
            self.pyramid(placement.over_moving).resolution() * placement.coarser as f64;
        let axes = usize::from(self.images.planar)..3;
        let fraction: f64 = axes.map(|a| (grid.spacing[a] / resolution).min(1.0)).product();
        let map = map_of(fit.shift);
        let size = scale(&map, self.images.planar);
        Some(Candidate {
            map,
            score: score(fit.correlation, fit.count * fraction / VOXELS_PER_OBSERVATION),
            resolution: if placement.over_moving { resolution / size } else { resolution },
        })
    }

    /// The map from fixed to moving for a shift of the template over the search image, voxels.
    fn map(
        &self,
        placement: &PlacementScale,
        between: &Linear,
        turned: &Linear,
        search_image: &SearchImage,
        shape: [usize; 3],
        shift: [i64; 3],
    ) -> Affine {
        let grid = search_image.image.grid;
        // the point of the search image at the centre of the smaller image
        let middle =
            grid.position(std::array::from_fn(|a| shift[a] as f64 + (shape[a] as f64 - 1.0) / 2.0));
        let (from, to, linear) = if placement.over_moving {
            (self.centres[0], middle, turned)
        } else {
            (middle, self.centres[1], between)
        };
        Affine::translation(from.map(|v| -v)).then(&Affine::from_parts(*linear, to))
    }
}
