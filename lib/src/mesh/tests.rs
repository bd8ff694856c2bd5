//! Tests of the springs, the solver and the rounds.

use proptest::prelude::*;

use super::conclude::{PairCounts, groups};
use super::folds::folds;
use super::layout::Layout;
use super::matches::{Matches, Robust};
use super::multigrid::Multigrid;
use super::oracle::{Integration, integrate};
use super::rounds::{Relaxation, Relaxed};
use super::solve::Problem;
use super::springs::{dot, springs};
use super::ties::Ties;
use super::tiles::{Coarse, coarse_grid, reduced};
use crate::geom::{Box3, Grid};

/// Numbers between -1 and 1 without visible order.
fn noise(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}

fn vectors<const C: usize>(count: usize, size: f64, seed: u64) -> Vec<[f64; C]> {
    let mut next = noise(seed);
    (0..count).map(|_| std::array::from_fn(|_| size * next())).collect()
}

fn ties<const C: usize>(layout: &Layout, distance: isize, holes: usize, seed: u64) -> Ties<C> {
    let targets = vectors::<C>(layout.len(), 2.0, seed);
    Ties {
        distance,
        weights: (0..layout.len())
            .map(|i| if i % holes == 0 { 0.0 } else { 0.2 + (i % 3) as f32 })
            .collect(),
        targets: targets.iter().map(|t| t.map(|t| t as f32)).collect(),
    }
}

/// Factors of springs between 0.001 and 1; none for even seeds.
fn factors<const C: usize>(layout: &Layout, seed: u64) -> Vec<Vec<f32>> {
    let mut next = noise(seed + 77);
    let count = if seed.is_multiple_of(2) { 0 } else { springs::<C>([1.0; 3], 1.0).len() };
    let factor = |_| 10.0_f64.powf(1.5 * next() - 1.5) as f32;
    (0..count * layout.len())
        .map(factor)
        .collect::<Vec<_>>()
        .chunks(layout.len())
        .map(<[f32]>::to_vec)
        .collect()
}

fn check_gradient<const C: usize>(layout: Layout, seed: u64) {
    let held: Vec<bool> = (0..layout.sections).map(|s| s == 2).collect();
    let factors = factors::<C>(&layout, seed);
    let problem = Problem {
        layout,
        spacing: [5.0, 4.0, 3.0],
        stiffness: 0.7,
        factors: &factors,
        ties: vec![
            ties::<C>(&layout, 0, 4, seed),
            ties(&layout, 1, 3, seed + 1),
            ties(&layout, -2, 5, seed + 2),
        ],
        anchor: 0.01,
        held: &held,
        floats: false,
    };
    let springs = problem.springs();
    let mut u = vectors::<C>(layout.len(), 1.0, seed + 9);
    let (_, gradient) = problem.gradient(&springs, &u);
    for i in (0..u.len()).step_by(3) {
        for c in 0..C {
            let step = 1e-5;
            u[i][c] += step;
            let above = problem.gradient(&springs, &u).0;
            u[i][c] -= 2.0 * step;
            let below = problem.gradient(&springs, &u).0;
            u[i][c] += step;
            let slope = (above - below) / (2.0 * step);
            let expected = if held[layout.position(i).0] { 0.0 } else { slope };
            assert!((gradient[i][c] - expected).abs() < 1e-5, "{} {expected}", gradient[i][c]);
        }
    }
}

/// The approximate inverse is symmetric and positive, as conjugate gradients demand.
fn check_symmetry<const C: usize>(layout: Layout, seed: u64) {
    let held: Vec<bool> = (0..layout.sections).map(|s| s == 1).collect();
    let ties =
        [ties::<C>(&layout, 0, 2, seed), ties(&layout, 1, 3, seed + 1), ties(&layout, 2, 5, seed)];
    let factors = factors::<C>(&layout, seed);
    let inverse = Multigrid::new(layout, [5.0, 4.0, 3.0], 0.7, &factors, &ties, 0.01, &held);
    let free = |mut v: Vec<[f64; C]>| {
        for (_, v) in v.iter_mut().enumerate().filter(|(i, _)| held[layout.position(*i).0]) {
            *v = [0.0; C];
        }
        v
    };
    let [a, b] = [seed + 5, seed + 6].map(|seed| free(vectors::<C>(layout.len(), 1.0, seed)));
    let product = |v: &[[f64; C]]| {
        let mut out = vec![[0.0; C]; v.len()];
        inverse.apply(v, &mut out);
        free(out)
    };
    let inner =
        |a: &[[f64; C]], b: &[[f64; C]]| -> f64 { a.iter().zip(b).map(|(a, b)| dot(a, b)).sum() };
    let (of_a, of_b) = (product(&a), product(&b));
    assert!(inner(&a, &of_a) > 0.0);
    let scale = (inner(&a, &of_a) * inner(&b, &of_b)).sqrt();
    let difference = inner(&a, &of_b) - inner(&b, &of_a);
    assert!(difference.abs() < 1e-4 * scale, "{difference} of {scale}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn the_gradient_of_a_mesh_is_the_slope_of_its_energy(
        ny in 1_usize..6, nx in 1_usize..6, sections in 1_usize..5, seed in 0_u64..1000,
    ) {
        check_gradient::<2>(Layout { shape: [1, ny, nx], sections }, seed);
        check_gradient::<3>(Layout { shape: [2, ny, nx], sections: 1 }, seed);
    }

    #[test]
    fn the_approximate_inverse_is_symmetric(
        ny in 1_usize..12, nx in 1_usize..12, sections in 1_usize..5, seed in 0_u64..1000,
    ) {
        check_symmetry::<2>(Layout { shape: [1, ny, nx], sections }, seed);
        check_symmetry::<3>(Layout { shape: [5, ny, nx], sections: 1 }, seed);
    }
}

fn check_oracle<const C: usize>(shape: [usize; 3]) {
    let layout = Layout { shape, sections: 1 };
    let spacing = [8.0, 10.0, 12.0];
    let mut targets = vectors::<C>(layout.len(), 2.0, 7);
    for i in (0..targets.len()).filter(|i| i % 5 == 0 || (20..40).contains(i)) {
        targets[i] = [f64::NAN; C];
    }
    let of = Integration {
        time_step: 0.01,
        longest_step: 1.0,
        tie: 0.05,
        cap: f64::INFINITY,
        keeps_order: false,
    };
    let slow = integrate(&layout, &springs(spacing, 0.1), &targets, &of, 3000);
    let ties = Ties {
        distance: 0,
        weights: targets.iter().map(|t| if t[0].is_nan() { 0.0 } else { 0.05 }).collect(),
        targets: targets.iter().map(|t| t.map(|t| t as f32)).collect(),
    };
    let held = [false];
    let problem = Problem {
        layout,
        spacing,
        stiffness: 0.1,
        factors: &[],
        ties: vec![ties],
        anchor: 0.0,
        held: &held,
        floats: false,
    };
    let mut u = vec![[0.0; C]; layout.len()];
    problem.solve(&mut u, 1e-7);
    for (u, slow) in u.iter().zip(&slow) {
        (0..C).for_each(|c| assert!((u[c] - slow[c]).abs() < 1e-4, "{u:?} {slow:?}"));
    }
}

#[test]
fn a_mesh_comes_to_rest_where_its_motion_in_time_ends() {
    check_oracle::<2>([1, 9, 11]);
    check_oracle::<3>([4, 5, 6]);
}

#[test]
fn large_meshes_with_large_holes_need_few_iterations() {
    for (shape, sections, holds) in [([1, 90, 70], 1, false), ([1, 33, 40], 30, true)] {
        let layout = Layout { shape, sections };
        let mut all = ties::<2>(&layout, isize::from(holds), 1 << 20, 3);
        for i in 0..layout.len() {
            let (_, [_, y, x]) = layout.position(i);
            if y > 10 && x > 10 {
                all.weights[i] = 0.0;
            }
        }
        let held: Vec<bool> = (0..sections).map(|s| holds && s == 0).collect();
        let problem = Problem {
            layout,
            spacing: [1.0, 40.0, 40.0],
            stiffness: 3.0,
            factors: &[],
            ties: vec![all],
            anchor: 1e-7,
            held: &held,
            floats: false,
        };
        let mut u = vec![[0.0; 2]; layout.len()];
        let found = problem.solve(&mut u, 1e-3);
        assert!(found.steps <= 8 && found.iterations <= 12 * found.steps, "{found:?}");
    }
}

#[test]
fn a_mesh_follows_shifts_and_rotations_however_stiff_it_is() {
    let grid = Grid::new([1, 12, 14], [1.0, 2.0, 2.0], [0.0, 3.0, -5.0]);
    let (sin, cos) = 20.0_f64.to_radians().sin_cos();
    let displacements = (0..12 * 14)
        .map(|i| {
            let [_, y, x] = grid.position([0.0, (i / 14) as f64, (i % 14) as f64]);
            if i % 7 == 3 {
                return [f32::NAN; 2];
            }
            [(cos * y - sin * x - y + 4.0) as f32, (sin * y + cos * x - x) as f32]
        })
        .collect();
    let matches = Matches::<2> {
        grid,
        displacements,
        weights: vec![1.0; 12 * 14],
        distance: 0,
        first: [0; 3],
    };
    for stiffness in [1e-5, 1.0, 1e4] {
        let relaxed = relaxation(grid, vec![matches.clone()], stiffness, None).relax();
        for (i, wanted) in matches.displacements.iter().enumerate() {
            let known = wanted.iter().all(|v| v.is_finite());
            for c in (0..2).filter(|_| known) {
                let away = (relaxed.u[i][c] - f64::from(wanted[c])).abs();
                assert!(away < 1e-3, "{stiffness} {i} {away}");
            }
        }
    }
}

fn relaxation<const C: usize>(
    grid: Grid,
    matches: Vec<Matches<C>>,
    stiffness: f64,
    robust: Option<f64>,
) -> Relaxation<C> {
    let sections = if C == 2 { grid.shape[0] } else { 1 };
    Relaxation {
        grid,
        matches,
        stiffness,
        factors: Vec::new(),
        robust: robust.map(|length| Robust { length }),
        held: vec![false; sections],
        frame: None,
        tolerance: 1e-4 * grid.spacing[2],
    }
}

/// The place in section s of the point p of the world, and its inverse.
fn warp(section: usize, [y, x]: [f64; 2]) -> [f64; 2] {
    let s = section as f64;
    let wave = |v: f64, phase: f64| 6.0 * (v / 120.0 + phase).sin();
    [y + wave(x, 1.7 * s) + 9.0 * (2.1 * s).sin(), x + wave(y, 2.9 * s) + 9.0 * (s * 1.3).cos()]
}

fn unwarp(section: usize, place: [f64; 2]) -> [f64; 2] {
    let mut p = place;
    for _ in 0..60 {
        let at = warp(section, p);
        p = [p[0] + place[0] - at[0], p[1] + place[1] - at[1]];
    }
    p
}

/// What flow finds between sections of a stack of warped sections, except those that are `blank`.
fn stack(grid: Grid, distance: isize, blank: &[usize]) -> Matches<2> {
    let [nz, ny, nx] = grid.shape;
    let displacements = (0..nz * ny * nx)
        .map(|i| {
            let (section, y, x) = (i / (ny * nx), i / nx % ny, i % nx);
            let [_, y, x] = grid.position([0.0, y as f64, x as f64]);
            let other = section.checked_add_signed(-distance).filter(|s| *s < nz);
            match other.filter(|s| !blank.contains(s) && !blank.contains(&section)) {
                Some(other) => {
                    let there = warp(other, unwarp(section, [y, x]));
                    [(there[0] - y) as f32, (there[1] - x) as f32]
                }
                None => [f32::NAN; 2],
            }
        })
        .collect();
    Matches { grid, displacements, weights: vec![0.5; nz * ny * nx], distance, first: [0; 3] }
}

/// The greatest difference between the places of one point of the world in neighbouring sections,
/// in the aligned stack, away from the rim.
fn misalignment(grid: &Grid, relaxed: &Relaxed<2>, skip: &[usize]) -> f64 {
    let mut worst: f64 = 0.0;
    let [nz, ny, nx] = grid.shape;
    let sections: Vec<usize> = (0..nz).filter(|z| !skip.contains(z)).collect();
    for pair in sections.windows(2) {
        for i in 0..ny * nx {
            let (y, x) = (i / nx, i % nx);
            // what lies there was displaced from outside
            if y.min(x) < 4 || y + 4 >= ny || x + 4 >= nx {
                continue;
            }
            let [_, py, px] = grid.position([0.0, y as f64, x as f64]);
            let [a, b] = [pair[0], pair[1]].map(|section| {
                let u = relaxed.u[relaxed.layout.index(section, [0, y, x])];
                unwarp(section, [py + u[0], px + u[1]])
            });
            worst = worst.max((a[0] - b[0]).hypot(a[1] - b[1]));
        }
    }
    worst
}

#[test]
fn sections_of_a_stack_are_aligned_to_each_other_across_a_blank_one() {
    let grid = Grid::new([8, 16, 18], [40.0, 20.0, 20.0], [0.0, 5.0, 7.0]);
    let blank = [3];
    let matches = vec![stack(grid, 1, &blank), stack(grid, 2, &blank)];
    let relaxed = relaxation(grid, matches, 0.02, Some(40.0)).relax();
    let worst = misalignment(&grid, &relaxed, &blank);
    assert!(worst < 0.25, "{worst}");
    // the blank section lies between its neighbours
    for i in [100, 150, 200] {
        let at = [0, i / 18, i % 18];
        let [a, b, c] = [2, 3, 4].map(|s| relaxed.u[relaxed.layout.index(s, at)]);
        for c_ in 0..2 {
            assert!((0.5 * (a[c_] + c[c_]) - b[c_]).abs() < 3.0, "{a:?} {b:?} {c:?}");
        }
    }
    assert!(relaxed.folded[0].is_empty());
}

#[test]
fn fixed_sections_do_not_move_and_the_others_come_to_them() {
    let grid = Grid::new([5, 14, 14], [40.0, 20.0, 20.0], [0.0; 3]);
    let mut relaxation = relaxation(grid, vec![stack(grid, 1, &[])], 1e-3, None);
    relaxation.held[1] = true;
    let relaxed = relaxation.relax();
    let layout = relaxed.layout;
    for i in 0..layout.len() {
        if layout.position(i).0 == 1 {
            assert_eq!(relaxed.u[i], [0.0; 2]);
        }
    }
    assert!(misalignment(&grid, &relaxed, &[]) < 0.1);
}

#[test]
fn matches_that_contradict_the_others_have_no_say() {
    let grid = Grid::new([7, 14, 14], [40.0, 20.0, 20.0], [0.0; 3]);
    let mut wrong = stack(grid, 2, &[]);
    for (i, v) in wrong.displacements.iter_mut().enumerate() {
        if i / 196 == 4 {
            *v = [v[0] + 60.0, v[1] - 45.0];
        }
    }
    let matches = vec![stack(grid, 1, &[]), wrong, stack(grid, 3, &[])];
    let plain = relaxation(grid, matches.clone(), 0.02, None).relax();
    assert!(misalignment(&grid, &plain, &[]) > 5.0);
    let relaxed = relaxation(grid, matches, 0.02, Some(10.0)).relax();
    let worst = misalignment(&grid, &relaxed, &[]);
    assert!(worst < 0.3, "{worst}");
}

#[test]
fn a_mesh_that_folds_is_unfolded() {
    let grid = Grid::new([1, 16, 16], [1.0, 10.0, 10.0], [0.0; 3]);
    let displacements = (0..256)
        .map(|i| {
            if (5..8).contains(&(i / 16)) && (5..9).contains(&(i % 16)) {
                [60.0, -45.0]
            } else {
                [0.0; 2]
            }
        })
        .collect();
    let matches =
        Matches::<2> { grid, displacements, weights: vec![1.0; 256], distance: 0, first: [0; 3] };
    let relaxed = relaxation(grid, vec![matches], 0.05, None).relax();
    assert!(!relaxed.folded[0].is_empty());
    assert!(relaxed.folded[1].is_empty());
    assert!(folds(&relaxed.layout, grid.spacing, &relaxed.u).0.is_empty());
    // away from the fold, nothing moves
    assert!(relaxed.u[15 * 16 + 15].iter().all(|u| u.abs() < 0.5), "{:?}", relaxed.u[255]);
}

#[test]
fn a_tile_of_a_stack_is_relaxed_as_the_whole_is() {
    let grid = Grid::new([5, 90, 40], [40.0, 20.0, 20.0], [0.0, 5.0, -3.0]);
    let all = [stack(grid, 1, &[]), stack(grid, 2, &[])];
    let whole = relaxation(grid, all.to_vec(), 0.2, None).relax();
    let below = coarse_grid(&grid);
    let coarse = relaxation(below, all.iter().map(reduced).collect(), 0.2, None).relax();
    let coarse = Coarse { grid: below, layout: coarse.layout, u: coarse.u };
    // rows 0 to 45, and a halo of 24 rows
    let part = Box3::new([0; 3], [5, 45 + 24, 40]);
    let mut tile = relaxation(grid.crop(&part), all.to_vec(), 0.2, None);
    tile.frame = Some(coarse.frame(&grid, &part));
    let start = coarse.frame(&grid, &part).start;
    let tile = tile.relax();
    let (mut worst, mut from_coarse) = (0.0_f64, 0.0_f64);
    for i in 0..tile.layout.len() {
        let (section, [z, y, x]) = tile.layout.position(i);
        if y < 45 {
            let wanted = whole.u[whole.layout.index(section, [z, y, x])];
            for c in 0..2 {
                worst = worst.max((tile.u[i][c] - wanted[c]).abs());
                from_coarse = from_coarse.max((start[i][c] - wanted[c]).abs());
            }
        }
    }
    assert!(worst < 0.2 && from_coarse > 2.0 * worst, "{worst}, at first {from_coarse}");
}

fn pair(section: u64, distance: i64, matched: u64) -> PairCounts {
    PairCounts {
        section,
        distance,
        field: 1,
        nodes: 1000,
        matched,
        outliers: 0,
        weight: 0.5 * matched as f64,
        rms_um: 0.0,
        held_out: 0,
        held_out_rms_um: 0.0,
    }
}

#[test]
fn sections_that_no_match_connects_are_groups() {
    let mut pairs: Vec<PairCounts> = (1..8).map(|s| pair(s, 1, 900)).collect();
    assert_eq!(groups(&pairs, 8, &[]).len(), 1);
    (pairs[2].outliers, pairs[2].weight) = (895, 2.5);
    assert_eq!(groups(&pairs, 8, &[]), [vec![3, 4, 5, 6, 7], vec![0, 1, 2]]);
    assert_eq!(groups(&pairs, 8, &[1, 6]).len(), 1);
    // a section without any match is in no group, and one with matches of chance neither
    (pairs[3].matched, pairs[3].weight) = (0, 0.0);
    assert_eq!(groups(&pairs, 8, &[]), [vec![4, 5, 6, 7], vec![0, 1, 2]]);
    (pairs[3].matched, pairs[3].weight) = (200, 6.0);
    assert_eq!(groups(&pairs, 8, &[]), [vec![4, 5, 6, 7], vec![0, 1, 2]]);
}
