/// `[sum(a * b), sum(b), sum(b * b)]` of two rows of one length.
///
/// Numbers: `f32` in eight lanes, for the vector units; rows are short (a context's), so no more
/// is needed.
pub fn moments(a: &[f32], b: &[f32]) -> [f32; 3] {
    let mut lanes = [[0.0f32; 8]; 3];
    let (heads, others) = (a.chunks_exact(8), b.chunks_exact(8));
    let (tail, other_tail) = (heads.remainder(), others.remainder());
    for (a, b) in heads.zip(others) {
        for i in 0..8 {
            lanes[0][i] += a[i] * b[i];
            lanes[1][i] += b[i];
            lanes[2][i] += b[i] * b[i];
        }
    }
    let mut sums = lanes.map(|lane| lane.iter().sum::<f32>());
    for (a, b) in tail.iter().zip(other_tail) {
        sums[0] += a * b;
        sums[1] += b;
        sums[2] += b * b;
    }
    sums
}
