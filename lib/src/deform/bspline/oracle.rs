//! A slow reference implementation of B-splines, and tests of their properties.

use proptest::prelude::*;

use super::{Basis, Controls};
use crate::deform::lattice::Lattice;
use crate::geom::Point;

/// The B-spline of a degree and unit spacing, by the recursion of Cox and de Boor.
fn spline(degree: i32, t: f64) -> f64 {
    let half = 0.5 * f64::from(degree + 1);
    if degree == 0 {
        return f64::from(u8::from((-half..half).contains(&t)));
    }
    let rise = (half + t) * spline(degree - 1, t + 0.5);
    let fall = (half - t) * spline(degree - 1, t - 0.5);
    (rise + fall) / f64::from(degree)
}

/// The displacement at each node, summed over all control points.
fn evaluate(controls: &Controls, coefficients: &[f32], nodes: &Lattice) -> Vec<f64> {
    let counts = controls.shape();
    let index = |i: usize, shape: [usize; 3]| {
        [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]]
    };
    let value = |node: [usize; 3]| {
        let at: Point = std::array::from_fn(|a| {
            let middle = 0.5 * (controls.block[a] as f64 - 1.0);
            let factor = nodes.factor[a] as f64;
            let voxel = factor * node[a] as f64 + 0.5 * (factor - 1.0);
            let half = 0.5 * controls.block[a] as f64;
            (voxel - middle).clamp(-half, half) * controls.voxel[a] / controls.spacing
        });
        let weight = |i: usize| -> f64 {
            let control = index(i, counts);
            let from_middle = |a: usize| control[a] as f64 - (counts[a] / 2) as f64;
            (0..3).map(|a| spline(3, at[a] - from_middle(a))).product()
        };
        coefficients.iter().enumerate().map(|(i, c)| weight(i) * f64::from(*c)).sum()
    };
    (0..nodes.len()).map(|i| value(index(i, nodes.shape))).collect()
}

/// Pseudorandom numbers between -1 and 1.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| (i.wrapping_mul(0x9e37_79b9) ^ seed).wrapping_mul(0x85eb_ca6b) >> 8;
    let fine = |v: u32| (v ^ (v >> 9)).wrapping_mul(0xc2b2_ae35) >> 8;
    (0..count as u32).map(|i| fine(hash(i)) as f32 / 8_388_608.0 - 1.0).collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn count(shape: [usize; 3]) -> usize {
    shape.iter().product()
}

const VOXEL: Point = [1.7, 1.0, 0.9];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nodes_hold_what_all_control_points_add_up_to(
        block in prop::array::uniform3(1..24usize),
        factor in prop::array::uniform3(1..4usize),
        spacing in 2.0..20.0f64,
        seed: u32,
    ) {
        let controls = Controls::over(block, VOXEL, spacing);
        let nodes = Lattice::over(block, factor);
        let coefficients = noise(count(controls.shape()), seed);
        let found = controls.basis(&nodes).evaluate(&coefficients);
        for (found, wanted) in found.iter().zip(evaluate(&controls, &coefficients, &nodes)) {
            prop_assert!((f64::from(*found) - wanted).abs() < 1e-5, "{found} {wanted}");
        }
    }

    #[test]
    fn gathering_is_the_adjoint_of_evaluating(
        block in prop::array::uniform3(1..24usize),
        factor in prop::array::uniform3(1..4usize),
        spacing in 2.0..20.0f64,
        squared: bool,
        seed: u32,
    ) {
        let controls = Controls::over(block, VOXEL, spacing);
        let nodes = Lattice::over(block, factor);
        let basis = controls.basis(&nodes);
        let basis = if squared { basis.squared() } else { basis };
        let coefficients = noise(count(controls.shape()), seed);
        let values = noise(nodes.len(), !seed);
        let there = dot(&basis.evaluate(&coefficients), &values);
        let back = dot(&coefficients, &basis.gather(&values));
        prop_assert!((there - back).abs() < 1e-4 * nodes.len() as f64, "{there} {back}");
    }

    #[test]
    fn control_points_of_half_the_spacing_show_the_same(
        block in prop::array::uniform3(1..24usize),
        spacing in 2.0..20.0f64,
        seed: u32,
    ) {
        let controls = Controls::over(block, VOXEL, spacing);
        let nodes = Lattice::over(block, [1; 3]);
        let coefficients = noise(count(controls.shape()), seed);
        let all = [coefficients.clone(), coefficients.clone(), coefficients];
        let (finer, refined) = controls.halve(&all);
        prop_assert_eq!(refined[0].len(), count(finer.shape()));
        let show = |basis: Basis, c: &[f32]| basis.evaluate(c);
        let coarse = show(controls.basis(&nodes), &all[0]);
        for (a, b) in coarse.iter().zip(show(finer.basis(&nodes), &refined[0])) {
            prop_assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
    }
}

#[test]
fn control_points_on_a_plane_show_that_plane() {
    let block = [9, 17, 30];
    let controls = Controls::over(block, VOXEL, 6.0);
    let [_, height, width] = controls.shape();
    let from_middle = |i: usize, n: usize| 6.0 * (i as f32 - (n / 2) as f32);
    let coefficients: Vec<f32> = (0..count(controls.shape()))
        .map(|i| {
            0.5 * from_middle(i / width % height, height) - 0.25 * from_middle(i % width, width)
        })
        .collect();
    let nodes = Lattice::over(block, [1; 3]);
    let found = controls.basis(&nodes).evaluate(&coefficients);
    for (i, found) in found.iter().enumerate() {
        let (y, x) = ((i / 30 % 17) as f64 - 8.0, (i % 30) as f64 - 14.5);
        assert!((f64::from(*found) - (0.5 * y * VOXEL[1] - 0.25 * x * VOXEL[2])).abs() < 1e-5);
    }
}
