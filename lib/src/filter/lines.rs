//! Bundles of parallel lines, copied to buffers so that the inner loops read contiguous memory.
//!
//! Along z and y, [`LANES`] neighbouring columns are copied together, position by position along
//! the line: a vector register holds the same position of several lines, and strides that are
//! powers of two cannot thrash the cache. Along x the line itself is contiguous and is only padded.

/// Number of lines processed together. Their values at 111 positions, the length of the largest
/// kernel in BigStream's tutorial, fit into the first-level cache.
pub(super) const LANES: usize = 64;

/// A buffer that begins at the start of a cache line: vector loads that straddle two cache lines
/// take twice as long.
#[derive(Default)]
pub(super) struct Scratch {
    entries: Vec<f32>,
    start: usize,
}

impl Scratch {
    /// Sets the length; the contents are unspecified afterwards.
    pub(super) fn resize(&mut self, len: usize) {
        self.entries.resize(len + 16, 0.0);
        self.start = self.entries.as_ptr().align_offset(64).min(16);
        self.entries.truncate(self.start + len);
    }
}

impl std::ops::Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.entries[self.start..]
    }
}

impl std::ops::DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.entries[self.start..]
    }
}

/// The index in `0..n` of the voxel at position `i`, where a line of `n` voxels continues
/// infinitely by half-sample mirroring (`c b a | a b c | c b a`).
///
/// * `n` must not be 0
pub fn mirror(i: i64, n: usize) -> usize {
    let n = n as i64;
    if (0..n).contains(&i) {
        return i as usize;
    }
    let i = i.rem_euclid(2 * n);
    i.min(2 * n - 1 - i) as usize
}

/// Compiles a loop twice, for AVX2 with FMA and portably, and runs the AVX2 version if the
/// processor has both features.
///
/// Measured on the volume of BigStream's tutorial, convolutions take a quarter of the time of the
/// portable version. The const parameter of the body tells it whether a fused multiply-add is one
/// instruction.
macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) => $body:ident) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn fast($($arg: $type),*) {
                    $body::<true>($($arg),*);
                }
                if $crate::device::fuses_multiply_add() {
                    // SAFETY: `fuses_multiply_add` has confirmed that the processor has both
                    // features.
                    #[expect(unsafe_code, reason = "a clone for newer processors, 4 times as fast")]
                    return unsafe { fast($($arg),*) };
                }
            }
            $body::<false>($($arg),*);
        }
    };
}
pub(crate) use vectorised;

/// Compiles a function twice, for AVX2 and portably, and runs the AVX2 version if the processor has
/// AVX2. Neither version uses a fused multiply-add, so that the results are bit-identical.
///
/// The body must be `#[inline(always)]`, and so must all functions that its loops call. A generic
/// body is compiled twice for each type, so code that does not depend on the type belongs in a
/// separate function.
macro_rules! for_avx2 {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident $(<$($generic:ident: $bound:ident),+>)?
        ($($arg:ident: $type:ty),* $(,)?) $(-> $result:ty)? => $body:path
    ) => {
        $(#[$meta])*
        $vis fn $name $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                #[target_feature(enable = "avx2")]
                fn with_avx2 $(<$($generic: $bound),+>)? ($($arg: $type),*) $(-> $result)? {
                    $body($($arg),*)
                }
                // SAFETY: the processor supports AVX2, as was just checked.
                #[expect(unsafe_code, reason = "a call across target features")]
                return unsafe { with_avx2($($arg),*) };
            }
            $body($($arg),*)
        }
    };
}
pub(crate) use for_avx2;

/// `a * b + c`, fused if that is one instruction.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// Location of the voxels of a bundle of lines: the voxel at position `i` of lane `l` has the index
/// `first + l + i * stride`.
#[derive(Clone, Copy)]
pub(super) struct Bundle {
    /// Index of the first voxel of the first lane.
    pub(super) first: usize,
    /// Distance between the voxels of a line.
    pub(super) stride: usize,
    /// Number of lanes in use, at most [`LANES`].
    pub(super) width: usize,
}

/// Copies positions `from..to` (mirrored beyond `0..n`) of a bundle into rows of [`LANES`].
pub(super) fn gather(
    image: &[f32],
    bundle: Bundle,
    n: usize,
    from: i64,
    to: i64,
    out: &mut Scratch,
) {
    out.resize((to - from) as usize * LANES);
    for (row, i) in out.chunks_exact_mut(LANES).zip(from..to) {
        let at = bundle.first + mirror(i, n) * bundle.stride;
        row[..bundle.width].copy_from_slice(&image[at..at + bundle.width]);
        row[bundle.width..].fill(0.0);
    }
}

/// Copies rows of [`LANES`] back to positions `0..` of a bundle.
pub(super) fn scatter(rows: &[f32], bundle: Bundle, image: &mut [f32]) {
    for (i, row) in rows.chunks_exact(LANES).enumerate() {
        let at = bundle.first + i * bundle.stride;
        image[at..at + bundle.width].copy_from_slice(&row[..bundle.width]);
    }
}

/// Copies positions `from..to` of a line along x, mirrored beyond its ends, and appends zeros, so
/// that a whole row can be read from any position.
pub(super) fn pad(line: &[f32], from: i64, to: i64, out: &mut Scratch) {
    let (n, len) = (line.len(), (to - from) as usize);
    out.resize(len + LANES);
    let start = (-from) as usize;
    out[start..start + n].copy_from_slice(line);
    for i in (from..0).chain(n as i64..to) {
        out[(i - from) as usize] = line[mirror(i, n)];
    }
    out[len..].fill(0.0);
}

/// A row of a scratch buffer. Its constant length removes bounds checks from the loops over it.
pub(super) type LaneRow = [f32; LANES];

/// The row that begins at `at`.
#[inline(always)]
pub(super) fn row(scratch: &[f32], at: usize) -> &LaneRow {
    scratch[at..].first_chunk().expect("a scratch ends with a whole row")
}

/// The rows of an output buffer.
#[inline(always)]
pub(super) fn rows(out: &mut [f32]) -> std::slice::IterMut<'_, LaneRow> {
    out.as_chunks_mut().0.iter_mut()
}

/// The bundles of columns along `axis` (0 or 1) of an array of `shape`.
pub(super) fn bundles(shape: [usize; 3], axis: usize) -> impl Iterator<Item = Bundle> {
    let [nz, ny, nx] = shape;
    // columns along z lie side by side over a whole plane; columns along y only over one row
    let (groups, span, apart, stride) =
        if axis == 0 { (1, ny * nx, 0, ny * nx) } else { (nz, nx, ny * nx, nx) };
    (0..groups).flat_map(move |group| {
        (0..span).step_by(LANES).map(move |start| Bundle {
            first: group * apart + start,
            stride,
            width: LANES.min(span - start),
        })
    })
}
