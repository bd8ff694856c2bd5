/// Sums over pairs of values, `f` of the fixed image and `m` of the moving one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairSums {
    /// The number of pairs.
    pub n: f64,
    /// The sum of `f`.
    pub f: f64,
    /// The sum of `m`.
    pub m: f64,
    /// The sum of `f f`.
    pub ff: f64,
    /// The sum of `m m`.
    pub mm: f64,
    /// The sum of `f m`.
    pub fm: f64,
}

impl PairSums {
    /// Adds a pair.
    #[inline]
    pub fn add(&mut self, f: f64, m: f64) {
        self.n += 1.0;
        self.f += f;
        self.m += m;
        self.ff += f * f;
        self.mm += m * m;
        self.fm += f * m;
    }

    /// Adds the pairs of other sums.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.f += other.f;
        self.m += other.m;
        self.ff += other.ff;
        self.mm += other.mm;
        self.fm += other.fm;
    }

    /// The sums of `f f`, `m m` and `f m` after subtraction of the means.
    pub fn centred(&self) -> [f64; 3] {
        let Self { n, f, m, ff, mm, fm } = *self;
        [ff - f * f / n, mm - m * m / n, fm - f * m / n]
    }

    /// Pearson's correlation; `None` for fewer than two pairs, or if either image is constant.
    pub fn correlation(&self) -> Option<f64> {
        let [ff, mm, fm] = self.centred();
        // variances are differences of large sums: below this ratio they are rounding errors
        let floor = 1e-12;
        (self.n >= 2.0 && ff > floor * self.ff && mm > floor * self.mm)
            .then(|| fm / (ff * mm).sqrt())
    }
}
