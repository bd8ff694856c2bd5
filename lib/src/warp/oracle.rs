//! A slow reference implementation of resampling, and tests against it.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Interpolation, Options, Rounding, VoxelMap, cpu, spline};
use crate::geom::{
    Affine, Box3, Chain, Field, FieldPart, FieldSource, Grid, LocalAffines, LocalChain, LocalStep,
    Point, SourceError, Transform,
};
use crate::volume::Voxel;

/// The value at a fractional voxel index; `None` outside.
pub(super) fn value(
    voxels: &[f64],
    shape: [usize; 3],
    at: Point,
    options: &Options,
) -> Option<f64> {
    let inside = (0..3).all(|a| at[a] >= -0.5 && at[a] <= shape[a] as f64 - 0.5);
    if !(inside || options.extrapolate && at.iter().all(|v| v.is_finite())) {
        return None;
    }
    let read = |i: [i64; 3]| {
        let [z, y, x] = std::array::from_fn(|a| i[a].clamp(0, shape[a] as i64 - 1) as usize);
        voxels[(z * shape[1] + y) * shape[2] + x]
    };
    let held: Point = std::array::from_fn(|a| at[a].clamp(0.0, shape[a] as f64 - 1.0));
    Some(match options.interpolation {
        Interpolation::Nearest => read(at.map(|v| (v + 0.5).floor() as i64)),
        Interpolation::Linear => corners(held, 2)
            .map(|i| (0..3).map(|a| 1.0 - (held[a] - i[a] as f64).abs()).product::<f64>() * read(i))
            .sum(),
        Interpolation::Cubic => spline_at(&coefficients(voxels, shape), shape, held),
        Interpolation::Lanczos => {
            let weight =
                |i: [i64; 3]| (0..3).map(|a| lanczos(held[a] - i[a] as f64)).product::<f64>();
            let sum: f64 = corners(held, 6).map(weight).sum();
            corners(held, 6).map(|i| weight(i) / sum * read(i)).sum()
        }
    })
}

fn lanczos(t: f64) -> f64 {
    let sinc = |t: f64| {
        let t = t * std::f64::consts::PI;
        if t == 0.0 { 1.0 } else { t.sin() / t }
    };
    if t.abs() < 3.0 { sinc(t) * sinc(t / 3.0) } else { 0.0 }
}

/// The voxels around a position, `n` along each axis.
fn corners(at: Point, n: i64) -> impl Iterator<Item = [i64; 3]> {
    let low = at.map(|v| v.floor() as i64 - (n / 2 - 1));
    (0..n * n * n).map(move |i| [low[0] + i / (n * n), low[1] + i / n % n, low[2] + i % n])
}

/// The value of the spline with these coefficients at a fractional voxel index.
pub(super) fn spline_at(coefficients: &[f64], shape: [usize; 3], held: Point) -> f64 {
    corners(held, 4)
        .map(|i| {
            let weight: f64 = (0..3).map(|a| b_spline(held[a] - i[a] as f64)).product();
            let at: [usize; 3] = std::array::from_fn(|a| spline::fold(i[a], shape[a]));
            weight * coefficients[(at[0] * shape[1] + at[1]) * shape[2] + at[2]]
        })
        .sum()
}

fn b_spline(t: f64) -> f64 {
    let t = t.abs();
    if t < 1.0 {
        2.0 / 3.0 - t * t * (2.0 - t) / 2.0
    } else if t < 2.0 {
        (2.0 - t).powi(3) / 6.0
    } else {
        0.0
    }
}

/// The spline coefficients, by convolution with the filter's impulse response `sqrt(3) pole^|k|`.
pub(super) fn coefficients(voxels: &[f64], shape: [usize; 3]) -> Vec<f64> {
    let pole = 3f64.sqrt() - 2.0;
    let mut values = voxels.to_vec();
    let stride = [shape[1] * shape[2], shape[2], 1];
    for a in 0..3 {
        let before = values.clone();
        for (i, v) in values.iter_mut().enumerate() {
            let at = (i / stride[a] % shape[a]) as i64;
            *v = (-60..=60i64)
                .map(|k| {
                    let from =
                        i - at as usize * stride[a] + spline::fold(at + k, shape[a]) * stride[a];
                    3f64.sqrt() * pole.powi(k.abs() as i32) * before[from]
                })
                .sum();
        }
    }
    values
}

/// Resamples every voxel of `onto` individually.
fn resample(
    voxels: &[f64],
    moving: &Grid,
    chain: &LocalChain,
    onto: &Grid,
    options: &Options,
) -> Vec<Option<f64>> {
    onto.bounds()
        .tiles([1, 1, 1])
        .map(|voxel| {
            let p = chain.apply(onto.position(voxel.min.map(|v| v as f64)));
            value(voxels, moving.shape, moving.index(p), options)
        })
        .collect()
}

fn any_affine() -> impl Strategy<Value = Affine> {
    prop::array::uniform3(prop::array::uniform4(-0.3..0.3f64)).prop_map(|mut rows| {
        for (a, row) in rows.iter_mut().enumerate() {
            row[a] += 1.0;
            row[3] *= 8.0;
        }
        Affine::from_rows(rows)
    })
}

fn any_local_affines() -> impl Strategy<Value = LocalAffines> {
    (
        prop::array::uniform3(2..7usize),
        prop::array::uniform3(0.0..1.0f64),
        prop::array::uniform3(0.5..2.0f64),
    )
        .prop_flat_map(|(block, overlap, spacing)| {
            let domain = Grid::new([9, 10, 11], spacing, [0.5, -1.0, 0.0]);
            let count = LocalAffines::counts(domain.shape, block).iter().product::<usize>();
            prop::collection::vec(any_affine(), count).prop_map(move |affines| LocalAffines {
                domain,
                block,
                overlap: std::array::from_fn(|a| overlap[a] * block[a] as f64 / 2.0),
                affines,
            })
        })
}

fn any_field() -> impl Strategy<Value = Field> {
    (prop::array::uniform3(1..5usize), prop::array::uniform3(1.0..4.0f64)).prop_flat_map(
        |(shape, spacing)| {
            let vector = prop::array::uniform3(-1.5..1.5f32);
            let grid = Grid::new(shape, spacing, [0.3, 0.0, -0.4]);
            prop::collection::vec(vector, shape.iter().product::<usize>())
                .prop_map(move |vectors| Field { grid, vectors })
        },
    )
}

/// A field with the displacement `exterior` outside its grid.
struct WithExterior {
    field: Field,
    exterior: f64,
}

impl FieldSource for WithExterior {
    fn grid(&self) -> Grid {
        self.field.grid
    }

    fn read(&self, part: &Box3) -> Result<Vec<[f32; 3]>, SourceError> {
        self.field.read(part)
    }

    fn exterior(&self) -> f64 {
        self.exterior
    }
}

#[derive(Clone, Debug)]
enum AnyStep {
    Affine(Affine),
    LocalAffines(LocalAffines),
    Field(Field),
}

fn any_step() -> impl Strategy<Value = AnyStep> {
    prop_oneof![
        any_affine().prop_map(AnyStep::Affine),
        any_local_affines().prop_map(AnyStep::LocalAffines),
        any_field().prop_map(AnyStep::Field),
    ]
}

fn local(steps: Vec<AnyStep>, exterior: f64) -> LocalChain {
    let steps = steps.into_iter().map(|step| match step {
        AnyStep::Affine(map) => LocalStep::Affine(map),
        AnyStep::LocalAffines(maps) => LocalStep::LocalAffines(Arc::new(maps)),
        AnyStep::Field(field) => LocalStep::Field(FieldPart { exterior, ..field.into() }),
    });
    LocalChain { steps: steps.collect() }
}

fn noise(shape: [usize; 3], seed: u64) -> Vec<u16> {
    let mut state = seed | 1;
    (0..shape.iter().product())
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 54) as u16
        })
        .collect()
}

const METHODS: [Interpolation; 4] =
    [Interpolation::Nearest, Interpolation::Linear, Interpolation::Cubic, Interpolation::Lanczos];

/// Whether a position is so close to an edge of the volume, or to the middle between voxels, that
/// it can round either way.
fn near_an_edge(at: Point, shape: [usize; 3]) -> bool {
    (0..3).any(|a| {
        let half = (at[a] + 0.5) - (at[a] + 0.5).round();
        half.abs() < 1e-5 || (at[a] - shape[a] as f64 + 0.5).abs() < 1e-5
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_block_holds_what_each_voxel_by_itself_would(
        steps in prop::collection::vec(any_step(), 1..4),
        shape in prop::array::uniform3(1..9usize),
        method in 0..4usize,
        extrapolate: bool,
        unknown_outside: bool,
        seed: u64,
    ) {
        let chain = local(steps, if unknown_outside { f64::NAN } else { 0.0 });
        let moving = Grid::new(shape, [1.1, 0.9, 1.0], [0.0, 0.4, -0.2]);
        let onto = Grid::new([4, 5, 21], [1.7, 1.3, 0.45], [-1.0, 0.0, -0.7]);
        let options = Options {
            interpolation: METHODS[method], fill: -7.0, extrapolate, ..Options::default()
        };
        let voxels = noise(shape, seed);
        let doubles: Vec<f64> = voxels.iter().map(|v| f64::from(*v)).collect();
        let got = super::resample_block::<_, f32>(&voxels, &moving, &chain, &onto, &options);
        let want = resample(&doubles, &moving, &chain, &onto, &options);
        for ((voxel, got), want) in onto.bounds().tiles([1, 1, 1]).zip(got).zip(want) {
            let p = chain.apply(onto.position(voxel.min.map(|v| v as f64)));
            let at = moving.index(p);
            let want = want.unwrap_or(-7.0);
            // neighbours differ by up to 1023, so that rounding errors of the position are
            // amplified
            prop_assert!((f64::from(got) - want).abs() < 0.05 || near_an_edge(at, shape),
                "{method} at {at:?}: {got} instead of {want}");
        }
    }

    #[test]
    fn a_voxel_does_not_depend_on_the_block_that_it_is_computed_in(
        map in any_affine(),
        maps in any_local_affines(),
        field in any_field(),
        field_first: bool,
        unknown_outside: bool,
        lanczos: bool,
        seed: u64,
    ) {
        let moving = Grid::new([12, 11, 10], [1.0; 3], [0.0; 3]);
        let onto = Grid::new([6, 5, 40], [1.2, 1.5, 0.3], [0.0; 3]);
        let voxels = noise(moving.shape, seed);
        let exterior = if unknown_outside { f64::NAN } else { 0.0 };
        let field = Transform::Field(Arc::new(WithExterior { field, exterior }));
        let mut steps = vec![Transform::LocalAffines(Arc::new(maps)), Transform::Affine(map)];
        steps.insert(if field_first { 0 } else { 2 }, field);
        let chain = Chain { steps };
        let interpolation =
            if lanczos { Interpolation::Lanczos } else { Interpolation::Linear };
        let options = Options { interpolation, ..Options::default() };
        let whole = pulled(&voxels, &moving, &chain, &onto, onto.shape, &options);
        let parts = pulled(&voxels, &moving, &chain, &onto, [2, 3, 7], &options);
        prop_assert_eq!(whole, parts);
    }
}

/// Resamples block by block as [`super::resample`] does: each block from its own part of the moving
/// volume.
fn pulled(
    voxels: &[u16],
    moving: &Grid,
    chain: &Chain,
    onto: &Grid,
    block: [usize; 3],
    options: &Options,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; onto.bounds().len()];
    for core in onto.bounds().tiles(block) {
        let (local, image) = chain.localise(onto.extent(&core)).unwrap();
        let margin = [cpu::support(options.interpolation); 3];
        let part = moving.enclosing(image).grow(margin).intersect(&moving.bounds());
        let mut values = vec![options.fill as f32; core.len()];
        if !part.is_empty() {
            let read: Vec<u16> = voxels_of(&part, &moving.bounds(), voxels);
            let view = cpu::Moving { voxels: &read, channels: 1, part, whole: moving.shape };
            let rows = VoxelMap::new(&local, onto, moving);
            cpu::interpolate(&view, &rows, &core, options, &mut values);
        }
        let mut next = values.into_iter();
        for [z, y, x] in core.tiles([1, 1, 1]).map(|t| t.min.map(|v| v as usize)) {
            out[(z * onto.shape[1] + y) * onto.shape[2] + x] = next.next().unwrap();
        }
    }
    out
}

fn voxels_of<T: Voxel>(part: &Box3, whole: &Box3, voxels: &[T]) -> Vec<T> {
    let [_, height, width] = whole.shape();
    part.tiles([1, 1, 1])
        .map(|t| t.min.map(|v| v as usize))
        .map(|[z, y, x]| voxels[(z * height + y) * width + x])
        .collect()
}

#[test]
fn a_spline_from_a_block_is_the_spline_of_the_whole_to_a_millionth() {
    let moving = Grid::new([40, 44, 48], [1.0; 3], [0.0; 3]);
    let voxels = noise(moving.shape, 5);
    let map = Affine::from_parts(
        [[0.9, 0.1, 0.0], [-0.1, 0.95, 0.05], [0.0, 0.0, 1.1]],
        [2.3, 3.1, -1.7],
    );
    let options = Options { interpolation: Interpolation::Cubic, ..Options::default() };
    let chain = Chain::affine(map);
    let whole = pulled(&voxels, &moving, &chain, &moving, moving.shape, &options);
    let parts = pulled(&voxels, &moving, &chain, &moving, [9, 11, 10], &options);
    let worst = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1023.0 * 1e-6, "{worst}");
}

#[test]
fn a_whole_voxel_shift_copies_values_untouched() {
    let grid = Grid::new([5, 6, 7], [0.3, 0.7, 1.3], [10.0, -4.0, 0.1]);
    let mut voxels: Vec<f32> = noise(grid.shape, 3).into_iter().map(f32::from).collect();
    voxels[100] = f32::NAN;
    let shift = Affine::translation([0.3, 0.0, -1.3]);
    let chain = LocalChain { steps: vec![LocalStep::Affine(shift)] };
    let out = super::resample_block::<_, f32>(&voxels, &grid, &chain, &grid, &Options::default());
    for [z, y, x] in grid.bounds().tiles([1, 1, 1]).map(|t| t.min) {
        let here = out[((z * 6 + y) * 7 + x) as usize];
        let from = [z + 1, y, x - 1];
        if !grid.bounds().contains(from) {
            assert_eq!(here, 0.0);
        } else if from != [2, 2, 2] {
            let there = voxels[((from[0] * 6 + from[1]) * 7 + from[2]) as usize];
            assert!((here - there).abs() < 0.001 || there.is_nan(), "{from:?}: {here} {there}");
        }
    }
}

#[test]
fn integers_are_rounded_half_away_from_zero_or_cut_off_on_request() {
    let grid = Grid::new([1, 1, 2], [1.0; 3], [0.0; 3]);
    let half = Grid::new([1, 1, 1], [1.0; 3], [0.0, 0.0, 0.5]);
    let chain = LocalChain::default();
    let view =
        cpu::Moving { voxels: &[-3i16, -4], channels: 1, part: grid.bounds(), whole: grid.shape };
    let rows = VoxelMap::new(&chain, &half, &grid);
    let mut out = [0i16];
    for (rounding, wanted) in [(Rounding::Nearest, -4), (Rounding::Truncate, -3)] {
        let options = Options { rounding, ..Options::default() };
        cpu::interpolate(&view, &rows, &half.bounds(), &options, &mut out);
        assert_eq!(out, [wanted]);
    }
}

#[test]
fn labels_of_64_bits_are_copied_whole() {
    let grid = Grid::new([1, 1, 3], [1.0; 3], [0.0; 3]);
    let labels = [u64::MAX, (1 << 60) + 1, 7];
    let chain = LocalChain::default();
    let rows = VoxelMap::new(&chain, &grid, &grid);
    let view = cpu::Moving { voxels: &labels, channels: 1, part: grid.bounds(), whole: grid.shape };
    let mut out = [0; 3];
    cpu::nearest(&view, &rows, &grid.bounds(), &Options::default(), &mut out);
    assert_eq!(out, labels);
}
