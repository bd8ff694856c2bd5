//! Smooth noise, defined at every point of space.

/// Gradient noise with mean about 0 and values in -1 to 1, twice differentiable, with features
/// about one unit of `p` wide (Perlin, "Improving noise", SIGGRAPH 2002, with a different hash).
pub(super) fn gradient_noise(seed: u32, p: [f64; 3]) -> f32 {
    let base = p.map(f64::floor);
    let frac: [f32; 3] = std::array::from_fn(|a| (p[a] - base[a]) as f32);
    let cell = base.map(|v| v as i64 as u32);
    let fade = frac.map(|t| t * t * t * (t * (t * 6.0 - 15.0) + 10.0));
    let mut planes = [0.0; 2];
    for (dz, plane) in planes.iter_mut().enumerate() {
        let mut rows = [0.0; 2];
        for (dy, row) in rows.iter_mut().enumerate() {
            let at = |dx: usize| {
                let hash = hash(
                    seed,
                    cell[0].wrapping_add(dz as u32),
                    cell[1].wrapping_add(dy as u32),
                    cell[2].wrapping_add(dx as u32),
                );
                slope(hash, [frac[0] - dz as f32, frac[1] - dy as f32, frac[2] - dx as f32])
            };
            *row = lerp(at(0), at(1), fade[2]);
        }
        *plane = lerp(rows[0], rows[1], fade[1]);
    }
    lerp(planes[0], planes[1], fade[0])
}

#[inline]
fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

#[inline]
fn hash(seed: u32, z: u32, y: u32, x: u32) -> u32 {
    let sum = z.wrapping_mul(0x9E37_79B1)
        ^ y.wrapping_mul(0x85EB_CA77)
        ^ x.wrapping_mul(0xC2B2_AE3D)
        ^ seed;
    let sum = (sum ^ (sum >> 15)).wrapping_mul(0x2C1B_3C6D);
    let sum = (sum ^ (sum >> 12)).wrapping_mul(0x297A_2D39);
    sum ^ (sum >> 15)
}

/// Dot product of an offset with the gradient of its lattice point, which is chosen by `hash` among
/// the directions to the 12 edges of a cube (4 of them listed twice).
#[inline]
fn slope(hash: u32, [z, y, x]: [f32; 3]) -> f32 {
    let h = hash & 15;
    let u = if h < 8 { x } else { y };
    let v = if h < 4 {
        y
    } else if h == 12 || h == 14 {
        x
    } else {
        z
    };
    (if h & 1 == 0 { u } else { -u }) + (if h & 2 == 0 { v } else { -v })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_bounded_varied_and_continuous_over_cell_faces() {
        let mut range = [f32::MAX, f32::MIN];
        for i in 0..20_000 {
            let p = [i as f64 * 0.137 - 900.0, i as f64 * 0.071, i as f64 * -0.053];
            let value = gradient_noise(5, p);
            range = [range[0].min(value), range[1].max(value)];
        }
        assert!(range[0] >= -1.1 && range[1] <= 1.1, "{range:?}");
        assert!(range[0] < -0.5 && range[1] > 0.5, "{range:?}");
        let (below, above) = ([2.0 - 1e-6, 0.3, 0.4], [2.0 + 1e-6, 0.3, 0.4]);
        assert!((gradient_noise(5, below) - gradient_noise(5, above)).abs() < 1e-4);
    }
}
