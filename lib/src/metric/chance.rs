//! Stateless pseudorandom numbers: each is a hash of the seed and of its purpose.

/// A hash of a seed and of the purpose of the number: the finaliser of splitmix64 (Steele, Lea and
/// Flood 2014), applied twice.
#[inline]
pub fn hash(seed: u64, purpose: u64) -> u64 {
    mix(seed.wrapping_add(0x9E37_79B9_7F4A_7C15) ^ mix(purpose))
}

/// A pseudorandom number, uniform in `[0, 1)`.
#[inline]
pub fn unit(seed: u64, purpose: u64) -> f64 {
    (hash(seed, purpose) >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fill_the_unit_interval_evenly() {
        let mut counts = [0; 10];
        for i in 0..10_000 {
            counts[(unit(3, i) * 10.0) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (850..1150).contains(&n)), "{counts:?}");
        assert_ne!(hash(1, 2), hash(2, 1));
    }
}
