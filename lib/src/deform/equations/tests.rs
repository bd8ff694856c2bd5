use super::*;
use crate::deform::bspline::Controls;
use crate::deform::lattice::Lattice;

const BLOCK: [usize; 3] = [9, 10, 11];

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let hash = |i: u32| (i.wrapping_mul(0x9e37_79b9) ^ seed).wrapping_mul(0x85eb_ca6b) >> 8;
    let fine = |v: u32| (v ^ (v >> 9)).wrapping_mul(0xc2b2_ae35) >> 8;
    (0..count as u32).map(|i| fine(hash(i)) as f32 / 8_388_608.0 - 1.0).collect()
}

fn field(count: usize, seed: u32) -> Field {
    std::array::from_fn(|c| noise(count, seed.wrapping_add(77 * c as u32)))
}

/// Products of pseudorandom gradients.
fn tensor(count: usize) -> [Vec<f32>; 6] {
    let g = field(count, 3);
    [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]
        .map(|(a, b)| g[a].iter().zip(&g[b]).map(|(a, b)| a * b).collect())
}

#[test]
fn the_product_is_that_of_a_symmetric_matrix_with_no_negative_eigenvalue() {
    let nodes = Lattice::over(BLOCK, [2; 3]);
    let controls = Controls::over(BLOCK, [1.0; 3], 4.0);
    let (basis, tensor) = (controls.basis(&nodes), tensor(nodes.len()));
    let equations = Equations::new(&basis, controls.shape(), &tensor);
    let stiffness = equations.stiffness(4.0, Metric::Lcc);
    let count = controls.shape().iter().product();
    let (a, b) = (field(count, 10), field(count, 20));
    let times = |v: &Field| {
        let mut work = Work::default();
        equations.times(v, stiffness, 0.0, &mut work);
        work.out
    };
    let (ab, ba) = (dot(&a, &times(&b)), dot(&b, &times(&a)));
    assert!((ab - ba).abs() < 1e-4 * dot(&a, &times(&a)), "{ab} {ba}");
    assert!(dot(&a, &times(&a)) > 0.0);
}

#[test]
fn a_step_leaves_little_of_the_slope() {
    let nodes = Lattice::over(BLOCK, [1; 3]);
    let controls = Controls::over(BLOCK, [1.0; 3], 6.0);
    let (basis, tensor) = (controls.basis(&nodes), tensor(nodes.len()));
    let equations = Equations::new(&basis, controls.shape(), &tensor);
    let stiffness = equations.stiffness(4.0, Metric::Lcc);
    let slope = field(nodes.len(), 30);
    let from = field(controls.shape().iter().product(), 40)
        .map(|image| image.iter().map(|v| 0.05 * v).collect());
    let mut wanted = slope.each_ref().map(|image| basis.gather(image));
    let step = equations.solve(wanted.clone(), &from, None, stiffness, 1.0, OF_STEP);
    add(&mut wanted, -stiffness.weight, &bend(&from, controls.shape()));
    let held = (DAMPING * equations.mean) as f32;
    let mut work = Work::default();
    equations.times(&step, stiffness, held, &mut work);
    let mut rest = work.out;
    add(&mut rest, -1.0, &wanted);
    let left = (dot(&rest, &rest) / dot(&wanted, &wanted)).sqrt();
    assert!(left < 0.1, "{left}");
}

#[test]
fn what_is_straight_is_not_bent_and_bending_costs_what_the_second_differences_say() {
    let shape = [5, 6, 7];
    let straight: Vec<f32> =
        (0..210).map(|i| (i / 42) as f32 + 2.0 * (i / 7 % 6) as f32 - (i % 7) as f32).collect();
    let straight: Field = std::array::from_fn(|_| straight.clone());
    assert!(bend(&straight, shape).iter().flatten().all(|v| v.abs() < 1e-5));
    let bent = field(210, 5);
    let at = |c: usize, z: usize, y: usize, x: usize| f64::from(bent[c][(z * 6 + y) * 7 + x]);
    let mut sum = 0.0;
    for c in 0..3 {
        for (z, y, x) in
            (0..5).flat_map(|z| (0..6).flat_map(move |y| (0..7).map(move |x| (z, y, x))))
        {
            let here = at(c, z, y, x);
            if (1..4).contains(&z) {
                sum += (at(c, z - 1, y, x) - 2.0 * here + at(c, z + 1, y, x)).powi(2);
            }
            if (1..5).contains(&y) {
                sum += (at(c, z, y - 1, x) - 2.0 * here + at(c, z, y + 1, x)).powi(2);
            }
            if (1..6).contains(&x) {
                sum += (at(c, z, y, x - 1) - 2.0 * here + at(c, z, y, x + 1)).powi(2);
            }
        }
    }
    let found = dot(&bent, &bend(&bent, shape));
    assert!((found - sum).abs() < 1e-3, "{found} {sum}");
}
