//! Tests with random chains: mapping a point forwards and back must return it.

use std::sync::Arc;

use proptest::prelude::*;

use super::{forward, inverse};
use crate::geom::{Affine, Chain, Field, Grid, LocalAffines, Point, Transform};

/// A step with a `Debug` output for failure messages.
#[derive(Clone)]
struct Step(Transform);

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Transform::Affine(map) => write!(f, "{:?}", map.rows()),
            Transform::LocalAffines(maps) => write!(f, "{:?}", maps.affines),
            Transform::Field(field) => write!(f, "a field on {:?}", field.grid()),
        }
    }
}

/// An affine without reflection: a rotation by up to half a radian about each axis, scales, slight
/// shears and a shift.
fn affine() -> impl Strategy<Value = Affine> {
    let three = |range: std::ops::Range<f64>| prop::array::uniform3(range);
    (three(-0.5..0.5), three(0.8..1.25), three(-0.1..0.1), three(-20.0..20.0)).prop_map(
        |(turns, scales, shears, shift)| {
            let mut map = Affine::from_parts(
                [
                    [scales[0], shears[0], shears[1]],
                    [0.0, scales[1], shears[2]],
                    [0.0, 0.0, scales[2]],
                ],
                shift,
            );
            for (a, turn) in turns.into_iter().enumerate() {
                let (sin, cos) = turn.sin_cos();
                let (i, j) = ((a + 1) % 3, (a + 2) % 3);
                let mut linear = Affine::IDENTITY.linear();
                (linear[i][i], linear[i][j], linear[j][i], linear[j][j]) = (cos, -sin, sin, cos);
                map = map.then(&Affine::from_parts(linear, [0.0; 3]));
            }
            map
        },
    )
}

/// Local affines in blocks of 100 um, whose maps differ so little that the blend between them does
/// not fold.
fn local_affines() -> impl Strategy<Value = Step> {
    let differences = prop::collection::vec(prop::array::uniform3(-4.0..4.0f64), 64);
    (affine(), differences).prop_map(|(map, differences)| {
        let affines = differences.into_iter().map(|d| map.then(&Affine::translation(d))).collect();
        let domain = Grid::new([20; 3], [20.0; 3], [-190.0; 3]);
        let maps = LocalAffines { domain, block: [5; 3], overlap: [2.0; 3], affines };
        Step(Transform::LocalAffines(Arc::new(maps)))
    })
}

/// A sinusoidal field that covers all points that the chains can reach and is too smooth to fold.
fn field() -> impl Strategy<Value = Step> {
    (prop::array::uniform3(0.0..6.0f64), prop::array::uniform3(0.05..0.4f64)).prop_map(
        |(phases, turns)| {
            let grid = Grid::new([21; 3], [40.0; 3], [-400.0; 3]);
            let vectors = (0..grid.bounds().len())
                .map(|i| {
                    let node = [i / 441, i / 21 % 21, i % 21].map(|v| v as f64);
                    std::array::from_fn(|a| {
                        let along = node[(a + 1) % 3] * turns[a] + node[a] * turns[(a + 2) % 3];
                        (8.0 * (along + phases[a]).sin()) as f32
                    })
                })
                .collect();
            Step(Transform::Field(Arc::new(Field { grid, vectors })))
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let matrix = affine().prop_map(|map| Step(Transform::Affine(map)));
    prop::collection::vec(prop_oneof![matrix, local_affines(), field()], 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_point_carried_through_any_chain_and_back_is_where_it_was(
        steps in steps(),
        points in prop::collection::vec(prop::array::uniform3(-60.0..60.0f64), 1..12),
    ) {
        let chain = Chain { steps: steps.into_iter().map(|step| step.0).collect() };
        let there = forward(&chain, &points).unwrap();
        let back = inverse(&chain, &there).unwrap();
        prop_assert!(back.lost.is_empty(), "{:?}", back.lost);
        let off = |p: &Point, q: &Point| (0..3).map(|a| (p[a] - q[a]).abs()).fold(0.0, f64::max);
        for (p, q) in points.iter().zip(&back.points) {
            prop_assert!(off(p, q) < 1e-3, "{p:?} comes back as {q:?}");
        }
        // the reverse direction: from the moving space to the fixed one and back
        let again = forward(&chain, &back.points).unwrap();
        for (p, q) in there.iter().zip(&again) {
            prop_assert!(off(p, q) < 1e-3, "{p:?} goes to {q:?}");
        }
    }
}
