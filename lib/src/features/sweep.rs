//! The default detector: the volume is streamed plane by plane, once per octave.
//!
//! Each plane is smoothed along y and x onto the octave's grid. As soon as enough planes are
//! available, they are smoothed along z, and the background is subtracted. The result is the first
//! level of the octave (the base). From it, the other levels, the responses and their local maxima
//! are computed. Only the planes in the support of each step are held, so that the memory of a task
//! depends on the area of its planes and not on their number. Each level is smoothed directly from
//! the base, which needs a smaller halo than smoothing it from the previous level.

use super::Detector;
use super::background::Background;
use super::block::ResponseMaximum;
use super::maxima::{PlateauRule, ResponseImage, ScaleStack};
use super::response;
use super::scheme::{Octave, Pyramid, REFINE_REACH, Scheme};
use super::stage_boxes::{StageBoxes, area};
use crate::filter::planes::{Area, Plane, PlaneFilter, Ring, smooth_across};
use crate::geom::Box3;

/// The state of one octave of one task.
pub(super) struct Sweep<'a> {
    pyramid: &'a Pyramid,
    octave: &'a Octave,
    frame: StageBoxes,
    background: Option<Background>,
    within: PlaneFilter,
    /// Planes of the volume, smoothed along y and x onto the octave's grid.
    image: Ring,
    base: Ring,
    /// The levels after the base.
    levels: Vec<Ring>,
    next_level: i64,
    responses: Vec<Ring>,
    next_search: i64,
    /// A buffer for each level after the base: a plane of the base, smoothed along z only.
    across: Vec<Plane>,
    found: Vec<ResponseMaximum>,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(
        scheme: &Scheme,
        pyramid: &'a Pyramid,
        octave: &'a Octave,
        frame: &StageBoxes,
    ) -> Self {
        let count = octave.levels.len() - 1;
        let responses = octave.responses(pyramid).len();
        let across = octave.smoothing.iter().map(|kernels| {
            let grown =
                area(&frame.level).grow([kernels[1].radius(), 0], [frame.grid[1], frame.grid[2]]);
            let base = area(&frame.base);
            Plane::new(Area { min: [grown.min[0], base.min[1]], max: [grown.max[0], base.max[1]] })
        });
        let ring = |part: &Box3| Ring::new(area(part), part.min[0]);
        Self {
            background: scheme.coarse.map(|coarse| frame.background(octave, coarse)),
            within: PlaneFilter::default(),
            image: Ring::new(area(&frame.base), frame.image.min[0]),
            base: ring(&frame.base),
            levels: (0..count).map(|_| ring(&frame.level)).collect(),
            next_level: frame.level.min[0],
            responses: (0..responses).map(|_| ring(&frame.response)).collect(),
            next_search: frame.core.min[0],
            across: across.collect(),
            found: Vec::new(),
            pyramid,
            octave,
            frame: *frame,
        }
    }

    /// Takes plane `z` of the volume over the area of [`StageBoxes::input`]. All planes of this box
    /// must be pushed, in ascending order.
    pub(super) fn push(&mut self, z: i64, plane: &Plane) {
        if let Some(background) = &mut self.background {
            background.push(z, plane);
        }
        let [_, ny, nx] = self.frame.volume;
        if (self.frame.image.min[0]..self.frame.image.max[0]).contains(&z) {
            let [_, y, x] = &self.octave.base;
            let [_, step_y, step_x] = self.octave.step;
            let mut out = self.image.blank();
            self.within.smooth(plane, [ny, nx], [y, x], [step_y, step_x], &mut out);
            self.image.push(out);
        }
        while self.add_base() {}
        while self.add_levels() {}
        while self.add_responses() {}
        while self.search() {}
    }

    /// The maxima found, after all planes have been pushed.
    pub(super) fn finish(self) -> Vec<ResponseMaximum> {
        self.found
    }

    /// Whether all planes up to `z + reach`, clipped to a grid of `extent` planes, precede plane
    /// `next`.
    fn reaches(next: i64, z: i64, reach: usize, extent: usize) -> bool {
        (z + reach as i64).min(extent as i64 - 1) < next
    }

    fn add_base(&mut self) -> bool {
        let z = self.base.next();
        let (kernel, step) = (&self.octave.base[0], self.octave.step[0] as i64);
        let depth = self.frame.volume[0];
        if z >= self.frame.base.max[0]
            || !Self::reaches(self.image.next(), z * step, kernel.radius(), depth)
            || self.background.as_ref().is_some_and(|background| !background.is_ready(z))
        {
            return false;
        }
        let mut out = self.base.blank();
        smooth_across(&self.image.around(z * step, kernel.radius(), depth), kernel, &mut out);
        if let Some(background) = &mut self.background {
            background.subtract(z, &mut out);
        }
        self.base.push(out);
        self.image.forget_before((z + 1) * step - kernel.radius() as i64);
        true
    }

    fn add_levels(&mut self) -> bool {
        let (z, [depth, height, width]) = (self.next_level, self.frame.grid);
        let [reach, ..] = self.octave.level_reach();
        if z >= self.frame.level.max[0] || !Self::reaches(self.base.next(), z, reach, depth) {
            return false;
        }
        let kernels = self.octave.smoothing.iter().zip(&mut self.across);
        for (ring, ([along_z, y, x], across)) in self.levels.iter_mut().zip(kernels) {
            let mut out = ring.blank();
            smooth_across(&self.base.around(z, along_z.radius(), depth), along_z, across);
            self.within.smooth(across, [height, width], [y, x], [1, 1], &mut out);
            ring.push(out);
        }
        self.next_level += 1;
        true
    }

    fn add_responses(&mut self) -> bool {
        let Some(z) = self.responses.first().map(Ring::next) else { return false };
        let (reach, grid) = (self.octave.difference_reach, self.frame.grid);
        if z >= self.frame.response.max[0] || !Self::reaches(self.next_level, z, reach, grid[0]) {
            return false;
        }
        let first = self.octave.levels.start;
        for (i, ring) in self.responses.iter_mut().enumerate() {
            let level = |i: usize| if i == 0 { &self.base } else { &self.levels[i - 1] };
            let mut out = ring.blank();
            match self.pyramid.detector {
                Detector::Log => {
                    let scales = self.pyramid.curvature_scales(self.octave, first + i);
                    response::laplacian(
                        &level(i).around(z, reach, grid[0]),
                        grid,
                        scales,
                        &mut out,
                    );
                }
                Detector::Dog => {
                    let scale = self.pyramid.difference_scale();
                    response::difference([level(i).at(z), level(i + 1).at(z)], scale, &mut out);
                }
            }
            ring.push(out);
        }
        let kept = z + 1 - reach as i64;
        self.levels.iter_mut().for_each(|ring| ring.forget_before(kept));
        let [smoothing, ..] = self.octave.level_reach();
        self.base.forget_before(kept.min(self.next_level - smoothing as i64));
        true
    }

    /// Searches one plane of the octave's grid for maxima.
    fn search(&mut self) -> bool {
        let (z, depth) = (self.next_search, self.frame.grid[0]);
        let Some(next) = self.responses.first().map(Ring::next) else { return false };
        if z >= self.frame.core.max[0] || !Self::reaches(next, z, REFINE_REACH, depth) {
            return false;
        }
        let mut plane = self.frame.core;
        (plane.min[0], plane.max[0]) = (z, z + 1);
        let first = self.octave.levels.start;
        for index in self.octave.wanted.clone() {
            let at = index - first;
            if self.responses[at].at(z).is_zero() {
                continue;
            }
            let stack = ScaleStack {
                shape: self.frame.grid,
                below: at.checked_sub(1).map(|below| &self.responses[below]),
                here: &self.responses[at],
                above: self.responses.get(at + 1),
            };
            for voxel in stack.maxima(&plane, PlateauRule::First) {
                self.found.push(self.pyramid.place(self.octave, &stack, index, voxel));
            }
        }
        self.next_search += 1;
        let kept = self.next_search - REFINE_REACH as i64;
        self.responses.iter_mut().for_each(|ring| ring.forget_before(kept));
        true
    }
}

impl Pyramid {
    /// Refines the maximum at grid voxel `voxel` and scale `index`, and converts it to voxel
    /// coordinates of the volume.
    fn place(
        &self,
        octave: &Octave,
        stack: &ScaleStack<'_, Ring>,
        index: usize,
        voxel: [usize; 3],
    ) -> ResponseMaximum {
        let top = stack.refine(voxel);
        let scale = index as f64 + stack.refine_scale(voxel);
        ResponseMaximum {
            position: std::array::from_fn(|a| {
                (top.voxel[a] as f64 + top.offset[a]) * octave.step[a] as f64
            }),
            sigma: self.scales[0] * self.ratio.powf(scale),
            response: top.height,
        }
    }
}

impl ResponseImage for Ring {
    fn row(&self, z: usize, y: usize, xs: std::ops::Range<usize>) -> &[f32] {
        let first = self.area().min[1] as usize;
        &self.at(z as i64).row(y as i64)[xs.start - first..xs.end - first]
    }
}
