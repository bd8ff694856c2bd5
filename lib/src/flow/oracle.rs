//! The definition of a correlation surface, one patch and one shift at a time.

use super::cpu::{BlockPair, MIN_OVERLAP, extent, surfaces};
use super::patches::Patches;

/// The correlation coefficient of patch `node` at each shift: of the voxels of the patch that are
/// known (not NaN) in both images.
fn surface(pair: &BlockPair, patches: &Patches, node: [usize; 3]) -> Vec<f32> {
    let shape = extent(pair.nodes, patches);
    let wide: [usize; 3] = std::array::from_fn(|a| shape[a] + 2 * patches.radius[a]);
    let [wz, wy, wx] = patches.shifts();
    let [pz, py, px] = patches.size;
    let value = |image: &[f32], shape: [usize; 3], at: [usize; 3]| {
        f64::from(image[(at[0] * shape[1] + at[1]) * shape[2] + at[2]])
    };
    let mut out = Vec::new();
    for shift in (0..wz * wy * wx).map(|i| [i / (wy * wx), i / wx % wy, i % wx]) {
        let mut pairs = Vec::new();
        for voxel in (0..pz * py * px).map(|i| [i / (py * px), i / px % py, i % px]) {
            let at = std::array::from_fn(|a| node[a] * patches.stride[a] + voxel[a]);
            let f = value(&pair.fixed, shape, at);
            let m = value(&pair.moving, wide, std::array::from_fn(|a| at[a] + shift[a]));
            if !f.is_nan() && !m.is_nan() {
                pairs.push((f, m));
            }
        }
        let n = pairs.len() as f64;
        let [mean_f, mean_m] = [
            pairs.iter().map(|p| p.0).sum::<f64>() / n,
            pairs.iter().map(|p| p.1).sum::<f64>() / n,
        ];
        let (mut fm, mut ff, mut mm) = (0.0, 0.0, 0.0);
        for (f, m) in &pairs {
            fm += (f - mean_f) * (m - mean_m);
            ff += (f - mean_f).powi(2);
            mm += (m - mean_m).powi(2);
        }
        let is_known = n >= MIN_OVERLAP * (pz * py * px) as f64 && ff > 1e-6 && mm > 1e-6;
        out.push(if is_known { (fm / (ff * mm).sqrt()) as f32 } else { f32::NAN });
    }
    out
}

/// A reproducible texture between 0 and 255, rough along each axis.
fn texture(shape: [usize; 3], seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32
    };
    (0..shape.iter().product()).map(|_| (noise() * 255.0).round()).collect()
}

fn compare(patches: Patches, nodes: [usize; 3], seed: u64, unknown: f32) {
    let shape = extent(nodes, &patches);
    let wide = std::array::from_fn(|a| shape[a] + 2 * patches.radius[a]);
    let (mut fixed, mut moving) = (texture(shape, seed), texture(wide, seed + 1));
    if unknown > 0.0 {
        for (image, seed) in [(&mut fixed, seed + 2), (&mut moving, seed + 3)] {
            let dice = texture([1, 1, image.len()], seed);
            for (v, dice) in image.iter_mut().zip(dice) {
                if dice < 255.0 * unknown {
                    *v = f32::NAN;
                }
            }
        }
        // with an unknown region, some cells are known, some partly known and some unknown
        let half = fixed.len() / 3;
        fixed[..half].fill(f32::NAN);
    }
    let pair = BlockPair { nodes, fixed, moving };
    let mut seen = 0;
    surfaces(pair.clone(), &patches, |i, found| {
        let node = [i / (nodes[1] * nodes[2]), i / nodes[2] % nodes[1], i % nodes[2]];
        for (a, b) in found.iter().zip(surface(&pair, &patches, node)) {
            assert!(
                (a.is_nan() && b.is_nan()) || (a - b).abs() < 2e-5,
                "{patches:?} patch {node:?}: {a} instead of {b}"
            );
        }
        seen += 1;
    });
    assert_eq!(seen, nodes.iter().product::<usize>());
}

#[test]
fn surfaces_from_cells_are_those_of_the_definition() {
    let planes = |size, stride, radius| Patches {
        size: [1, size, size],
        stride: [1, stride, stride],
        radius: [0, radius, radius],
    };
    for (seed, unknown) in [(1, 0.0), (2, 0.02), (3, 0.4)] {
        compare(planes(12, 4, 3), [1, 3, 4], seed, unknown);
        compare(planes(12, 8, 5), [1, 2, 2], seed, unknown);
        compare(planes(7, 3, 2), [2, 2, 3], seed, unknown);
        compare(planes(10, 20, 17), [1, 2, 1], seed, unknown);
        let volume = Patches { size: [4, 6, 8], stride: [2, 3, 8], radius: [1, 2, 3] };
        compare(volume, [2, 3, 2], seed, unknown);
    }
}

#[test]
fn a_bright_offset_does_not_change_a_surface() {
    let patches = Patches { size: [1, 16, 16], stride: [1, 8, 8], radius: [0, 4, 4] };
    let nodes = [1, 3, 3];
    let shape = extent(nodes, &patches);
    let wide = [shape[0], shape[1] + 8, shape[2] + 8];
    let pair = |offset: f32| BlockPair {
        nodes,
        fixed: texture(shape, 7).into_iter().map(|v| v + offset).collect(),
        moving: texture(wide, 8).into_iter().map(|v| v + offset).collect(),
    };
    let mut all = [Vec::new(), Vec::new()];
    for (all, offset) in all.iter_mut().zip([0.0, 60_000.0]) {
        surfaces(pair(offset), &patches, |_, surface| all.extend_from_slice(surface));
    }
    let [plain, bright] = all;
    assert!(plain.iter().zip(bright).all(|(a, b)| (a - b).abs() < 1e-5));
}
