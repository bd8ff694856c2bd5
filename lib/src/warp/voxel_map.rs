//! Maps a row of output voxels to positions in the moving volume.

use crate::filter::lines::for_avx2;
use crate::geom::{Affine, Box3, FieldPart, Grid, LocalAffines, LocalChain, LocalStep, Point};

/// The number of voxels that a kernel processes at once; buffers of positions are padded to a
/// multiple of it.
pub(super) const LANES: usize = 16;

/// The distance, in voxels, below which a position counts as lying on a voxel.
pub(super) const ON_VOXEL: f32 = 1e-6;

/// The distance, in sample spacings, below which a position counts as lying on a sample of a field.
const ON_SAMPLE: f64 = 1e-6;

/// How far the edge values of a field extend beyond its outermost samples, in sample spacings (as
/// in `Field::displacement`).
const FIELD_MARGIN: f64 = 0.5;

/// The positions of one row of output voxels, in voxels of the whole moving volume, as one array
/// per axis.
///
/// They are `f64` and counted from the first voxel of the moving volume, not of the part that is
/// read, so that the value of an output voxel does not depend on the block in which it is computed.
#[derive(Default)]
pub(super) struct Positions {
    /// One array for each of z, y, x, padded to a multiple of [`LANES`] with arbitrary values.
    pub(super) axes: [Vec<f64>; 3],
    /// The number of voxels in the row.
    pub(super) len: usize,
    /// Whether the positions, including the padding, are equally spaced on one line.
    pub(super) straight: bool,
    pieces: Vec<RowSegment>,
    vectors: Vec<Point>,
}

/// A segment of a row along which each coordinate is a polynomial of the x index of the output
/// voxel.
#[derive(Clone, Copy, Debug)]
struct RowSegment {
    /// The x index of the output voxel after the last one of the segment.
    end: i64,
    /// The coefficients of 1, x and x squared, each `[z, y, x]`.
    terms: [Point; 3],
}

impl RowSegment {
    fn line(end: i64, start: Point, step: Point) -> Self {
        Self { end, terms: [start, step, [0.0; 3]] }
    }

    fn through(&self, map: &Affine) -> Self {
        let [start, step, bend] = self.terms;
        Self {
            end: self.end,
            terms: [map.apply(start), map.apply_vector(step), map.apply_vector(bend)],
        }
    }
}

/// A chain restricted to a block, from voxels of the output to voxels of the moving volume.
pub(super) struct VoxelMap<'a> {
    steps: Vec<VoxelMapStep<'a>>,
    /// Whether a field of the chain is NaN at any of its samples, or outside its grid.
    has_unknown: bool,
}

enum VoxelMapStep<'a> {
    Affine(Affine),
    LocalAffines(&'a LocalAffines),
    Field(&'a FieldPart),
}

impl<'a> VoxelMap<'a> {
    /// The map from voxels of `onto` through `chain` to voxels of `moving`.
    pub(super) fn new(chain: &'a LocalChain, onto: &Grid, moving: &Grid) -> Self {
        let mut steps = vec![VoxelMapStep::Affine(onto.to_physical())];
        let mut has_unknown = false;
        for step in &chain.steps {
            match step {
                LocalStep::Affine(map) => append(&mut steps, *map),
                LocalStep::LocalAffines(maps) => steps.push(VoxelMapStep::LocalAffines(maps)),
                LocalStep::Field(field) => {
                    has_unknown |= field.has_unknown();
                    steps.push(VoxelMapStep::Field(field));
                }
            }
        }
        append(&mut steps, to_voxels(moving));
        Self { steps, has_unknown }
    }

    /// The number of positions of a row that are NaN, because a field is unknown there.
    pub(super) fn count_unknown(&self, positions: &Positions) -> u64 {
        if !self.has_unknown {
            return 0;
        }
        let [zs, ys, xs] = &positions.axes;
        let all = zs.iter().zip(ys).zip(xs).take(positions.len);
        all.filter(|((z, y), x)| (**z + **y + **x).is_nan()).count() as u64
    }

    /// Fills `out` with the positions of the row of `part` that has the output voxel indices
    /// `(z, y)`.
    ///
    /// The row starts as a line and is kept as a few polynomials for as long as possible: an affine
    /// maps a line to a line, and local affines map a line along x to segments of second degree.
    /// From the first step that does not give polynomials on, every voxel is mapped individually.
    pub(super) fn fill(&self, z: i64, y: i64, part: &Box3, out: &mut Positions) {
        fill_row(self, z, y, part, out);
    }

    #[inline(always)]
    fn fill_inlined(&self, z: i64, y: i64, part: &Box3, out: &mut Positions) {
        let first = part.min[2];
        out.resize(part.shape()[2]);
        out.pieces.clear();
        out.straight = false;
        let start = [z as f64, y as f64, 0.0];
        out.pieces.push(RowSegment::line(part.max[2], start, [0.0, 0.0, 1.0]));
        let mut evaluate = false;
        for step in &self.steps {
            if evaluate {
                out.straight = false;
                out.map_each(step);
                continue;
            }
            match step {
                VoxelMapStep::Affine(map) => {
                    for piece in &mut out.pieces {
                        *piece = piece.through(map);
                    }
                }
                VoxelMapStep::LocalAffines(maps) => {
                    if let Some(line) = out.line_along_x(&maps.domain) {
                        split_at_ramps(maps, &line, first, &mut out.pieces);
                    } else {
                        out.evaluate(first);
                        evaluate = true;
                        out.straight = false;
                        out.map_each(step);
                    }
                }
                VoxelMapStep::Field(field) => {
                    let line = out.line_along_x(&field.grid);
                    out.evaluate(first);
                    evaluate = true;
                    out.straight = false;
                    match line {
                        Some(line) => out.displace_along_x(field, &line, first),
                        None => out.map_each(step),
                    }
                }
            }
        }
        if !evaluate {
            out.evaluate(first);
        }
    }
}

for_avx2! {
    /// Implements [`VoxelMap::fill`].
    fn fill_row(map: &VoxelMap, z: i64, y: i64, part: &Box3, out: &mut Positions)
        => VoxelMap::fill_inlined
}

impl Positions {
    /// The coordinates along `axis` of the [`LANES`] positions of one group.
    #[inline(always)]
    pub(super) fn lanes(&self, axis: usize, group: usize) -> &[f64; LANES] {
        &self.axes[axis].as_chunks().0[group]
    }

    /// The number of positions, with the padding of the last group.
    pub(super) fn padded_len(&self) -> usize {
        self.axes[0].len()
    }

    fn resize(&mut self, len: usize) {
        self.len = len;
        for axis in &mut self.axes {
            axis.resize(len.next_multiple_of(LANES), 0.0);
        }
    }

    /// The row as one segment, in physical coordinates, if it is a line in the direction of
    /// increasing x of `grid`.
    fn line_along_x(&self, grid: &Grid) -> Option<RowSegment> {
        let [piece] = self.pieces[..] else { return None };
        let [_, step, bend] = piece.terms;
        let along = step[0] == 0.0 && step[1] == 0.0 && step[2] > 0.0;
        (along && bend == [0.0; 3] && grid.spacing[2] > 0.0).then_some(piece)
    }

    /// Evaluates the polynomials at every voxel.
    #[inline(always)]
    fn evaluate(&mut self, first: i64) {
        let (mut from, padded) = (0, self.axes[0].len());
        if let [piece] = &mut self.pieces[..] {
            piece.end = i64::MAX; // covers the padding too
            self.straight = piece.terms[2] == [0.0; 3];
        }
        for piece in &self.pieces {
            let to = (piece.end.saturating_sub(first)).clamp(0, padded as i64) as usize;
            if to <= from {
                continue;
            }
            let [start, step, bend] = piece.terms;
            for a in 0..3 {
                let (c0, c1, c2) = (start[a], step[a], bend[a]);
                let axis = &mut self.axes[a][from..to];
                // voxel indices up to 2^53 are exact in `f64`
                let origin = (first + from as i64) as f64;
                if c2 == 0.0 {
                    for (i, at) in axis.iter_mut().enumerate() {
                        *at = c0 + c1 * (origin + i as u32 as f64);
                    }
                } else {
                    for (i, at) in axis.iter_mut().enumerate() {
                        let x = origin + i as u32 as f64;
                        *at = c0 + x * (c1 + x * c2);
                    }
                }
            }
            from = to;
        }
    }

    /// Maps every position through `step`.
    #[inline(always)]
    fn map_each(&mut self, step: &VoxelMapStep) {
        let [zs, ys, xs] = &mut self.axes;
        let all = zs.iter_mut().zip(ys.iter_mut()).zip(xs.iter_mut()).take(self.len);
        match step {
            VoxelMapStep::Affine(map) => {
                let map = *map;
                for ((z, y), x) in all {
                    [*z, *y, *x] = map.apply([*z, *y, *x]);
                }
            }
            VoxelMapStep::LocalAffines(maps) => {
                for ((z, y), x) in all {
                    [*z, *y, *x] = maps.apply([*z, *y, *x]);
                }
            }
            VoxelMapStep::Field(field) => {
                for ((z, y), x) in all {
                    let u = field.displacement([*z, *y, *x]);
                    [*z, *y, *x] = [*z + u[0], *y + u[1], *x + u[2]];
                }
            }
        }
    }

    /// Adds the displacements of `field` at the positions of a line along its x axis. The four rows
    /// of vectors around the line are interpolated along z and y first, so that each voxel is
    /// interpolated from only two vectors.
    #[inline(always)]
    fn displace_along_x(&mut self, field: &FieldPart, line: &RowSegment, first: i64) {
        let shape = field.shape();
        let start = field.index(line.terms[0]);
        let step = line.terms[1][2] / field.grid.spacing[2];
        let last = shape[2] as f64 - 1.0;
        if !blend_rows(field, [start[0], start[1]], &mut self.vectors) {
            if field.exterior != 0.0 {
                self.axes.iter_mut().flatten().for_each(|at| *at += field.exterior);
            }
            return;
        }
        let [zs, ys, xs] = &mut self.axes;
        for i in 0..self.len {
            let at = start[2] + step * (first as f64 + i as u32 as f64);
            if !(at >= -FIELD_MARGIN && at <= last + FIELD_MARGIN) {
                for axis in [&mut *zs, &mut *ys, &mut *xs] {
                    axis[i] += field.exterior;
                }
                continue;
            }
            let at = at.clamp(0.0, last);
            let nearest = (at + 0.5).floor();
            let u = if (at - nearest).abs() < ON_SAMPLE {
                self.vectors[nearest as usize]
            } else {
                let low = at as usize;
                let share = at - low as f64;
                let (u, v) = (self.vectors[low], self.vectors[low + 1]);
                std::array::from_fn(|a| u[a] + share * (v[a] - u[a]))
            };
            zs[i] += u[0];
            ys[i] += u[1];
            xs[i] += u[2];
        }
    }
}

/// Interpolates the up to four rows of vectors around a line along x that has the index `at`
/// (`[z, y]`) in the field. Returns false if the line is outside the field.
fn blend_rows(field: &FieldPart, at: [f64; 2], out: &mut Vec<Point>) -> bool {
    let shape = field.shape();
    let mut ends = [[(0, 0.0); 2]; 2];
    for a in 0..2 {
        let last = shape[a] as f64 - 1.0;
        if !(at[a] >= -FIELD_MARGIN && at[a] <= last + FIELD_MARGIN) {
            return false;
        }
        let at = at[a].clamp(0.0, last);
        let low = at.floor();
        let share = at - low;
        let share = if share < ON_SAMPLE {
            0.0
        } else if share > 1.0 - ON_SAMPLE {
            1.0
        } else {
            share
        };
        ends[a] = [(low as usize, 1.0 - share), (low as usize + 1, share)];
    }
    out.clear();
    out.resize(shape[2], [0.0; 3]);
    for (z, weight_z) in ends[0] {
        for (y, weight_y) in ends[1] {
            let weight = weight_z * weight_y;
            if weight == 0.0 {
                continue; // skips NaN vectors of weight 0
            }
            let row = &field.vectors[(z * shape[1] + y) * shape[2]..][..shape[2]];
            for (sum, u) in out.iter_mut().zip(row) {
                for a in 0..3 {
                    sum[a] += weight * f64::from(u[a]);
                }
            }
        }
    }
    true
}

/// Divides a line along x of the domain into segments at the ramps that it crosses. A ramp is the
/// overlap in which the weights of two neighbouring blocks change linearly. The result equals that
/// of [`LocalAffines::apply`]: z and y, and therefore the weights along them, are constant on the
/// line.
fn split_at_ramps(maps: &LocalAffines, line: &RowSegment, first: i64, out: &mut Vec<RowSegment>) {
    let counts = LocalAffines::counts(maps.domain.shape, maps.block);
    let index = maps.domain.index(line.terms[0]);
    let pace = line.terms[1][2] / maps.domain.spacing[2];
    // at the centre of its core a block has weight 1 along x, so that only the weights along z and
    // y remain
    let blend = |x: usize| {
        let middle = (x as f64 + 0.5) * maps.block[2] as f64 - 0.5;
        let mut sum = RowSegment::line(line.end, [0.0; 3], [0.0; 3]);
        for (block, weight) in maps.shares(maps.domain.position([index[0], index[1], middle])) {
            if weight != 0.0 {
                let through = line.through(&maps.affines[block]);
                for t in 0..2 {
                    for a in 0..3 {
                        sum.terms[t][a] += weight * through.terms[t][a];
                    }
                }
            }
        }
        sum
    };
    // the first output voxel, along x, at or beyond position `place` of the domain
    let crossing = |place: f64| {
        let x = ((place - index[2]) / pace).ceil();
        (x.clamp(-1e15, 1e15) as i64).clamp(first, line.end)
    };
    out.clear();
    let block = maps.block[2] as f64;
    let overlap = maps.overlap[2].clamp(1e-9, block / 2.0);
    let mut here: Option<RowSegment> = None;
    for x in 0..counts[2] {
        let face = (x + 1) as f64 * block - 0.5;
        let (from, to) = if x + 1 < counts[2] {
            (crossing(face - overlap), crossing(face + overlap))
        } else {
            (line.end, line.end)
        };
        if to <= first {
            continue; // the row begins after this block
        }
        let core = here.take().unwrap_or_else(|| blend(x));
        out.push(RowSegment { end: from, ..core });
        if from >= line.end {
            return;
        }
        let next = blend(x + 1);
        let offset = (index[2] - face + overlap) / (2.0 * overlap);
        let slope = pace / (2.0 * overlap);
        out.push(ramp_between(&core, &next, offset, slope, to));
        if to >= line.end {
            return;
        }
        here = Some(next);
    }
}

/// The polynomial `low + (offset + slope x) * (high - low)`, expanded to coefficients of x.
fn ramp_between(
    low: &RowSegment,
    high: &RowSegment,
    offset: f64,
    slope: f64,
    end: i64,
) -> RowSegment {
    let mut terms = [[0.0; 3]; 3];
    for a in 0..3 {
        let (start, step) = (low.terms[0][a], low.terms[1][a]);
        let (rise, turn) = (high.terms[0][a] - start, high.terms[1][a] - step);
        terms[0][a] = start + offset * rise;
        terms[1][a] = step + offset * turn + slope * rise;
        terms[2][a] = slope * turn;
    }
    RowSegment { end, terms }
}

fn append(steps: &mut Vec<VoxelMapStep>, map: Affine) {
    if let Some(VoxelMapStep::Affine(last)) = steps.last_mut() {
        *last = last.then(&map);
    } else {
        steps.push(VoxelMapStep::Affine(map));
    }
}

/// The affine from physical positions to voxel indices.
fn to_voxels(grid: &Grid) -> Affine {
    Affine::from_rows(std::array::from_fn(|a| {
        let mut row = [0.0; 4];
        row[a] = 1.0 / grid.spacing[a];
        row[3] = -grid.origin[a] / grid.spacing[a];
        row
    }))
}
