//! Comparisons with the meshes of SOFIMA on its reference cases (`reference/sofima`).

use std::collections::BTreeMap;

use super::layout::Layout;
use super::oracle::{Integration, forces, integrate};
use super::solve::Problem;
use super::springs::{self, springs};
use super::ties::Ties;
use crate::golden::npz::{Array, read_npz};
use crate::golden::shared;

const STIFFNESS: f64 = 0.1;
const TIE: f64 = 0.01;

fn reference(name: &str) -> BTreeMap<String, Array> {
    read_npz(&shared("reference/sofima").join(format!("{name}.npz")))
}

/// Meshes of SOFIMA, whose components are x, y and z, in the order of the layout.
fn nodes<const C: usize>(array: &Array) -> (Layout, Vec<[f64; C]>) {
    let [_, nz, ny, nx] = array.shape[..] else { panic!("{:?}", array.shape) };
    let layout = match C {
        2 => Layout { shape: [1, ny, nx], sections: nz },
        _ => Layout { shape: [nz, ny, nx], sections: 1 },
    };
    let count = nz * ny * nx;
    let node = |i: usize| {
        let (section, [z, y, x]) = layout.position(i);
        let at = ((section + z) * ny + y) * nx + x;
        std::array::from_fn(|c| array.values[(C - 1 - c) * count + at])
    };
    (layout, (0..count).map(node).collect())
}

fn furthest<const C: usize>(a: &[[f64; C]], b: &[[f64; C]]) -> f64 {
    let away =
        |(a, b): (&[f64; C], &[f64; C])| (0..C).map(|c| (a[c] - b[c]).powi(2)).sum::<f64>().sqrt();
    a.iter().zip(b).map(away).fold(0.0, f64::max)
}

fn check_forces<const C: usize>(names: [&str; 3], spacing: [f64; 3]) {
    let all = reference("forces");
    let (layout, u) = nodes::<C>(&all[names[0]]);
    let springs = springs::<C>(spacing, STIFFNESS);
    let mut gradient = vec![[0.0; C]; u.len()];
    springs::add_gradient(&layout, &springs, &u, &mut gradient);
    let plain: Vec<[f64; C]> = gradient.iter().map(|g| g.map(|g| -g)).collect();
    assert!(furthest(&plain, &nodes(&all[names[1]]).1) < 1e-4);
    assert!(furthest(&forces(&layout, &springs, &u, false), &plain) < 1e-9);
    let ordered = forces(&layout, &springs, &u, true);
    assert!(furthest(&ordered, &nodes(&all[names[2]]).1) < 1e-4);
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn forces_are_those_of_sofima() {
    check_forces::<2>(["x2", "f2", "f2o"], [1.0, 16.0, 16.0]);
    check_forces::<3>(["x3", "f3", "f3o"], [8.0, 12.0, 12.0]);
}

fn check_mesh<const C: usize>(name: &str, spacing: [f64; 3]) {
    let all = reference(name);
    let (layout, targets) = nodes::<C>(&all["prev"]);
    let springs = springs::<C>(spacing, STIFFNESS);
    let of =
        Integration { time_step: 1e-3, longest_step: 1.0, tie: TIE, cap: 0.01, keeps_order: true };
    let after = integrate(&layout, &springs, &targets, &of, 50);
    assert!(furthest(&after, &nodes(&all["x50"]).1) < 1e-3);

    let is_known = |t: &[f64; C]| t.iter().all(|t| t.is_finite());
    let ties = Ties {
        distance: 0,
        weights: targets.iter().map(|t| if is_known(t) { TIE as f32 } else { 0.0 }).collect(),
        targets: targets.iter().map(|t| t.map(|t| t as f32)).collect(),
    };
    let held = vec![false; layout.sections];
    let problem = Problem {
        layout,
        spacing,
        stiffness: STIFFNESS,
        factors: &[],
        ties: vec![ties],
        anchor: 1e-9,
        held: &held,
        floats: false,
    };
    let mut u = vec![[0.0; C]; layout.len()];
    let found = problem.solve(&mut u, 1e-6);
    let theirs = nodes(&all["x"]).1;
    assert!(furthest(&u, &theirs) < 1e-3, "{found:?}");
    assert!(found.energy <= problem.gradient(&springs, &theirs).0);
}

#[test]
#[ignore = "needs the shared data: set VOXLOOM_SHARED and run with --include-ignored"]
fn meshes_come_to_rest_where_those_of_sofima_do() {
    check_mesh::<2>("mesh2d", [1.0, 16.0, 16.0]);
    check_mesh::<3>("mesh3d", [8.0, 12.0, 12.0]);
}
