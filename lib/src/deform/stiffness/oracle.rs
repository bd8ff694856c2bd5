//! A slow reference score with dense matrices, and tests of the score and of the chosen elasticity.

use nalgebra::{DMatrix, DVector};
use proptest::prelude::*;

use super::*;

/// Pseudorandom numbers between -1 and 1.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    (0..count).map(|i| 2.0 * crate::metric::unit(seed, i as u64) as f32 - 1.0).collect()
}

/// Terms of random gradients, whose differences are those of a displacement and of noise.
fn terms(nodes: Lattice, truth: impl Fn([f64; 3]) -> f64, level: f32, seed: u64) -> Terms {
    let [_, height, width] = nodes.shape;
    let mut terms = Terms {
        nodes,
        tensor: std::array::from_fn(|_| vec![0.0; nodes.len()]),
        slope: nodes.zeros(),
    };
    for pass in 0..6 {
        let gradient = [0, 1, 2].map(|c| noise(nodes.len(), seed + 10 * pass + c));
        let own = noise(nodes.len(), seed + 10 * pass + 7);
        for i in 0..nodes.len() {
            let at = [i / (height * width), i / width % height, i % width];
            let g: [f32; 3] = std::array::from_fn(|c| gradient[c][i]);
            let moved = truth(at.map(|v| v as f64)) as f32;
            let difference = g.iter().sum::<f32>() * moved + level * own[i];
            let pairs = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)];
            for (image, (a, b)) in terms.tensor.iter_mut().zip(pairs) {
                image[i] += g[a] * g[b];
            }
            for c in 0..3 {
                terms.slope[c][i] += g[c] * difference;
            }
        }
    }
    terms
}

/// The matrix of a linear function of fields.
fn matrix(rows: usize, columns: usize, f: impl Fn(&Field) -> Field) -> DMatrix<f64> {
    let mut out = DMatrix::zeros(rows, columns);
    for column in 0..columns {
        let mut unit: Field = std::array::from_fn(|_| vec![0.0; columns / 3]);
        unit[column / (columns / 3)][column % (columns / 3)] = 1.0;
        for (row, v) in f(&unit).iter().flatten().enumerate() {
            out[(row, column)] = f64::from(*v);
        }
    }
    out
}

/// The score with every matrix written out and solved directly.
fn slow(controls: &Controls, terms: &Terms, from: &Field, elasticity: f64) -> f64 {
    let basis = controls.basis(&terms.nodes);
    let count: usize = controls.shape().iter().product();
    let show = matrix(3 * terms.nodes.len(), 3 * count, |c| basis.field(c));
    let whole = Equations::new(&basis, controls.shape(), &terms.tensor);
    let stiffness = whole.stiffness(elasticity, Metric::Lcc);
    let from = DVector::from_iterator(3 * count, from.iter().flatten().map(|v| f64::from(*v)));
    let bend = matrix(3 * count, 3 * count, |c| stiffness.bend(c, controls.shape()));
    let halves = [terms.half(0), terms.half(1)].map(|half| {
        let curve = matrix(3 * terms.nodes.len(), 3 * terms.nodes.len(), |v| {
            let mut v = v.clone();
            multiply(&half.tensor, &mut v);
            v
        });
        let slope = half.slope.iter().flatten().map(|v| f64::from(*v));
        (curve, DVector::from_iterator(3 * terms.nodes.len(), slope))
    });
    let mut score = 0.0;
    for (fitted, unseen) in [(0, 1), (1, 0)] {
        let left = show.transpose() * &halves[fitted].0 * &show + &bend;
        let right = show.transpose() * &halves[fitted].1 - &bend * &from;
        let step = &show * left.lu().solve(&right).unwrap();
        score += 2.0 * step.dot(&halves[unseen].1) - step.dot(&(&halves[unseen].0 * &step));
    }
    score
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn a_score_is_that_of_the_step_that_solves_the_equations(
        elasticity in 1.0..16.0f64,
        seed in 0..1000u64,
    ) {
        let nodes = Lattice { shape: [8, 6, 6], factor: [4; 3] };
        let controls = Controls::over([32, 24, 24], [1.0; 3], 12.0);
        let terms = terms(nodes, |p| (0.4 * p[1]).sin(), 0.3, seed);
        let from = [1, 2, 3].map(|c| {
            noise(controls.shape().iter().product(), seed + c).iter().map(|v| 0.1 * v).collect()
        });
        let basis = controls.basis(&nodes);
        let trial = Trial {
            halves: [terms.half(0), terms.half(1)],
            whole: Equations::new(&basis, controls.shape(), &terms.tensor),
            basis: &basis,
            shape: controls.shape(),
            from: &from,
        };
        let exact = Accuracy { steps: 5000, residual: 1e-6 };
        // the steps of another elasticity serve as the initial guess
        let mut steps = [None, None];
        trial.score(0.5 * elasticity, exact, &mut steps);
        let found = trial.score(elasticity, exact, &mut steps);
        let wanted = slow(&controls, &terms, &from, elasticity);
        prop_assert!((found - wanted).abs() < 0.01 * wanted.abs() + 0.1, "{found} {wanted}");
    }
}

#[test]
fn rough_displacements_are_fitted_loosely_and_noise_is_not() {
    let nodes = Lattice { shape: [24; 3], factor: [4; 3] };
    let controls = Controls::over([96; 3], [1.0; 3], 8.0);
    let chosen = |wavelength: f64, amplitude: f64| {
        let wave = |p: [f64; 3]| (std::f64::consts::TAU * p[2] / wavelength).sin();
        let terms = terms(nodes, |p| amplitude * wave(p), 0.5, 5);
        choose(&controls, &terms, &controls.zeros(), 2.0).unwrap()
    };
    // wavelengths in nodes
    let (rough, smooth, none) = (chosen(8.0, 1.0), chosen(48.0, 1.0), chosen(8.0, 0.0));
    assert!(rough < 4.0 && smooth > 2.0 * rough && none > smooth, "{rough} {smooth} {none}");
}

#[test]
fn the_vertex_of_a_parabola_is_found_between_the_elasticities_tried() {
    let score = |e: f64| -(e.log2() - 1.3).powi(2);
    let tried = [8.0, 4.0, 2.0, 1.0].map(|e| (e, score(e)));
    assert!((vertex(&tried).log2() - 1.3).abs() < 1e-9);
    assert_eq!(vertex(&tried[..2]), 4.0);
}

#[test]
fn a_block_of_too_few_cells_has_no_choice() {
    let nodes = Lattice { shape: [14, 8, 8], factor: [4; 3] };
    let controls = Controls::over([56, 32, 32], [1.0; 3], 8.0);
    let terms = terms(nodes, |_| 1.0, 0.1, 1);
    assert_eq!(choose(&controls, &terms, &controls.zeros(), 2.0), None);
}
