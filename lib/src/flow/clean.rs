//! Removal of vectors that are not to be believed, and the merging of several fields.

use super::peak::Peak;
use crate::filter::{Groups, mirror};
use crate::geom::{Grid, Point};

/// A field of patches in memory.
#[derive(Clone, Debug, Default)]
pub struct FlowField {
    /// The number of patches along z, y, x.
    pub shape: [usize; 3],
    /// Whether each plane is a field of its own, whose vectors have no component along z.
    pub planar: bool,
    /// The displacement of each patch along z, y, x, in voxels or micrometres; NaN where unknown.
    pub vectors: Vec<[f32; 3]>,
    /// The quality of each patch; empty if it is not known.
    pub quality: Vec<Quality>,
}

/// The quality of a patch; see `docs/formats.md`, "Flow".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// The correlation coefficient.
    pub correlation: f32,
    /// The correlation minus its mean at a distance of 5 voxels.
    pub sharpness: f32,
    /// The second highest maximum of the correlation divided by the highest.
    pub ratio: f32,
    /// The evidence that the highest maximum is not one of chance, standard deviations; NaN if the
    /// search window is too small to tell.
    pub evidence: f32,
}

/// Which vectors are kept. Lengths are in the unit of the vectors.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Limits {
    /// The minimum correlation coefficient.
    pub min_correlation: f64,
    /// The minimum sharpness.
    pub min_sharpness: f64,
    /// The maximum ratio of the second highest to the highest maximum.
    pub max_ratio: f64,
    /// The minimum evidence, standard deviations.
    pub min_evidence: f64,
    /// The maximum displacement along each axis.
    pub max_magnitude: f64,
    /// The maximum difference of a component from the median of the patch and its neighbours.
    pub max_deviation: f64,
    /// The minimum number of connected patches.
    pub min_patches: usize,
    /// Which neighbours count.
    pub neighbours: Neighbours,
}

/// Which neighbours of a patch count when it is compared with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Neighbours {
    /// Known neighbours. A patch without any is kept.
    #[default]
    Known,
    /// All, as in SOFIMA: unknown displacements are 0 in the median, the field is mirrored at its
    /// faces for the median and is 0 beyond them for the gradient.
    Sofima,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_correlation: 0.0,
            min_sharpness: 0.0,
            max_ratio: 1.0,
            min_evidence: f64::NEG_INFINITY,
            max_magnitude: f64::INFINITY,
            max_deviation: f64::INFINITY,
            min_patches: 0,
            neighbours: Neighbours::Known,
        }
    }
}

impl Limits {
    /// Checks the limits.
    ///
    /// # Errors
    /// A sentence about the first value that is not usable.
    pub fn check(&self) -> Result<(), String> {
        let all = f64::INFINITY;
        // written so that NaN is rejected
        for (flag, value, [least, most]) in [
            ("--min-correlation", self.min_correlation, [-1.0, 1.0]),
            ("--min-sharpness", self.min_sharpness, [-2.0, 2.0]),
            ("--max-ratio", self.max_ratio, [0.0, 1.0]),
            ("--min-evidence", self.min_evidence, [-all, all]),
            ("--max-magnitude", self.max_magnitude, [0.0, all]),
            ("--max-deviation", self.max_deviation, [0.0, all]),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("{flag} {value} is out of range; wanted {least} to {most}"));
            }
        }
        Ok(())
    }

    /// Whether a match is within the limits of quality and magnitude.
    pub(super) fn accept(&self, peak: &Peak) -> bool {
        let [correlation, sharpness, ratio, evidence] = peak.quality();
        let longest = peak.shift.iter().fold(0.0, |most: f64, v| most.max(v.abs()));
        self.accepts(&Quality { correlation, sharpness, ratio, evidence })
            && longest <= self.max_magnitude
    }

    fn accepts(&self, quality: &Quality) -> bool {
        // what is not known (NaN) violates no limit
        let is_below = |value: f32, least: f64| f64::from(value) < least;
        !(is_below(quality.correlation, self.min_correlation)
            || is_below(quality.sharpness, self.min_sharpness)
            || f64::from(quality.ratio) > self.max_ratio
            || is_below(quality.evidence, self.min_evidence))
    }
}

/// The steps from a patch to the neighbours along the axes of a field.
fn axes(planar: bool) -> std::ops::Range<usize> {
    usize::from(planar)..3
}

impl FlowField {
    fn position(&self, i: usize) -> [usize; 3] {
        let [_, ny, nx] = self.shape;
        [i / (ny * nx), i / nx % ny, i % nx]
    }

    /// Patch `i` moved by `by` along an axis; `None` beyond the face.
    fn beside(&self, i: usize, axis: usize, by: isize) -> Option<usize> {
        let at = self.position(i)[axis].checked_add_signed(by).filter(|v| *v < self.shape[axis])?;
        let stride: usize = self.shape[axis + 1..].iter().product();
        Some(at * stride + i - self.position(i)[axis] * stride)
    }

    fn is_known(&self, i: usize) -> bool {
        axes(self.planar).all(|a| !self.vectors[i][a].is_nan())
    }

    fn remove(&mut self, i: usize) {
        self.vectors[i] = [f32::NAN; 3];
    }

    /// The number of known vectors.
    pub fn known(&self) -> usize {
        (0..self.vectors.len()).filter(|&i| self.is_known(i)).count()
    }

    /// Removes the vectors that violate the limits of quality, magnitude and deviation. All are
    /// judged before any is removed. Returns how many vectors were removed.
    pub fn clean(&mut self, limits: &Limits) -> usize {
        let before = self.known();
        let is_bad: Vec<bool> = (0..self.vectors.len())
            .map(|i| {
                let magnitude =
                    axes(self.planar).map(|a| self.vectors[i][a].abs()).fold(0.0, f32::max);
                self.quality.get(i).is_some_and(|quality| !limits.accepts(quality))
                    || f64::from(magnitude) > limits.max_magnitude
                    || self.deviates(i, limits, axes(self.planar))
            })
            .collect();
        self.remove_all(&is_bad);
        before - self.known()
    }

    fn remove_all(&mut self, is_bad: &[bool]) {
        (0..is_bad.len()).filter(|&i| is_bad[i]).for_each(|i| self.remove(i));
    }

    /// Whether a component along one of the axes differs too much from the median of the patch and
    /// its neighbours.
    fn deviates(&self, i: usize, limits: &Limits, axes: std::ops::Range<usize>) -> bool {
        limits.max_deviation.is_finite()
            && axes.into_iter().any(|a| {
                let median = self.median(i, a, limits.neighbours);
                f64::from((self.vectors[i][a] - median).abs()) > limits.max_deviation
            })
    }

    /// The median of component `a` over the patch and its neighbours, also the diagonal ones; NaN
    /// if the patch is unknown or has no neighbour that counts.
    fn median(&self, i: usize, a: usize, rule: Neighbours) -> f32 {
        let at = self.position(i);
        let reach = [isize::from(!self.planar), 1, 1];
        let mut values = Vec::with_capacity(27);
        for z in -reach[0]..=reach[0] {
            for y in -1..=1 {
                for x in -1..=1 {
                    let by = [z, y, x];
                    let place: [i64; 3] = std::array::from_fn(|a| at[a] as i64 + by[a] as i64);
                    let inside = (0..3).all(|a| (0..self.shape[a] as i64).contains(&place[a]));
                    let [z, y, x] = std::array::from_fn(|a| mirror(place[a], self.shape[a]));
                    let value = self.vectors[(z * self.shape[1] + y) * self.shape[2] + x][a];
                    match rule {
                        Neighbours::Sofima => values.push(if value.is_nan() { 0.0 } else { value }),
                        Neighbours::Known if inside && !value.is_nan() => values.push(value),
                        Neighbours::Known => {}
                    }
                }
            }
        }
        if values.len() < 2 {
            return f32::NAN;
        }
        values.sort_unstable_by(f32::total_cmp);
        let middle = values.len() / 2;
        if values.len() % 2 == 1 {
            values[middle]
        } else {
            0.5 * (values[middle - 1] + values[middle])
        }
    }

    /// The vectors at the nodes of another grid, which has `shape` nodes, by linear interpolation;
    /// NaN where a vector that has a weight is unknown, and more than half a node outside. Planes are
    /// those of the field itself. The quality is that of the nearest node.
    pub(super) fn onto(&self, own: &Grid, grid: &Grid, shape: [usize; 3]) -> Self {
        let count = shape.iter().product();
        let [_, ny, nx] = self.shape;
        let vector = |i: usize| -> [f32; 3] {
            let at = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
            let place = own.index(grid.position(at.map(|v| v as f64)));
            let mut sum = [0.0; 3];
            let mut taps = [[(0usize, 0.0f32); 2]; 3];
            for a in 0..3 {
                let last = self.shape[a] as f64 - 1.0;
                let p = if a == 0 && self.planar { at[0] as f64 } else { place[a] };
                if p < -0.5 || p > last + 0.5 {
                    return [f32::NAN; 3];
                }
                // nodes that coincide up to rounding do not need their neighbours
                let p = if (p - p.round()).abs() < 1e-6 { p.round() } else { p }.clamp(0.0, last);
                let share = (p - p.floor()) as f32;
                taps[a] = [(p as usize, 1.0 - share), (p as usize + 1, share)];
            }
            for (z, wz) in taps[0] {
                for (y, wy) in taps[1] {
                    for (x, wx) in taps[2].into_iter().filter(|(_, w)| wz * wy * w > 0.0) {
                        let v = self.vectors[(z * ny + y) * nx + x];
                        (0..3).for_each(|a| sum[a] += wz * wy * wx * v[a]);
                    }
                }
            }
            sum
        };
        let vectors = (0..count).map(vector).collect();
        let nearest = |i: usize| {
            let at = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
            let place = own.index(grid.position(at.map(|v| v as f64)));
            let [z, y, x]: [usize; 3] = std::array::from_fn(|a| {
                let p = if a == 0 && self.planar { at[0] as f64 } else { place[a] };
                p.round().clamp(0.0, self.shape[a] as f64 - 1.0) as usize
            });
            self.quality[(z * ny + y) * nx + x]
        };
        let quality =
            if self.quality.is_empty() { Vec::new() } else { (0..count).map(nearest).collect() };
        Self { shape, planar: self.planar, vectors, quality }
    }

    /// Fills unknown vectors with those of another field of the same patches. The quality is
    /// filled too if both fields have one.
    pub fn fill_from(&mut self, other: &Self) {
        for i in 0..self.vectors.len() {
            if !self.is_known(i) && other.is_known(i) {
                self.vectors[i] = other.vectors[i];
                if let (Some(to), Some(from)) = (self.quality.get_mut(i), other.quality.get(i)) {
                    *to = *from;
                }
            }
        }
    }

    /// Sets the quality of unknown vectors to unknown.
    pub(super) fn forget_quality_of_unknown(&mut self) {
        let unknown = f32::NAN;
        for i in 0..self.quality.len() {
            if !self.is_known(i) {
                self.quality[i] = Quality {
                    correlation: unknown,
                    sharpness: unknown,
                    ratio: unknown,
                    evidence: unknown,
                };
            }
        }
    }

    /// Removes the vectors that do not fit to each other: first those whose displacement along an
    /// axis differs by more than `max_gradient` from that of a neighbour along this axis, then those that deviate from their neighbours (along y and x only, as in SOFIMA),
    /// then groups of fewer than `min_patches` connected patches of a plane, or of the volume.
    /// Returns how many vectors were removed.
    pub fn reconcile(&mut self, limits: &Limits, max_gradient: Point) -> usize {
        let before = self.known();
        let all = 0..self.vectors.len();
        let is_steep = |i| self.is_steep(i, limits.neighbours, max_gradient);
        let is_bad: Vec<bool> = all.clone().map(is_steep).collect();
        self.remove_all(&is_bad);
        let is_bad: Vec<bool> = all.map(|i| self.deviates(i, limits, 1..3)).collect();
        self.remove_all(&is_bad);
        self.remove_small_groups(limits.min_patches);
        before - self.known()
    }

    fn is_steep(&self, i: usize, rule: Neighbours, max_gradient: Point) -> bool {
        axes(self.planar).any(|a| {
            [-1, 1].into_iter().any(|by| {
                let other = match (self.beside(i, a, by), rule) {
                    (Some(j), _) => self.vectors[j][a],
                    (None, Neighbours::Sofima) => 0.0,
                    (None, Neighbours::Known) => f32::NAN,
                };
                f64::from((self.vectors[i][a] - other).abs()) > max_gradient[a]
            })
        })
    }

    fn remove_small_groups(&mut self, least: usize) {
        let groups = Groups::find(self.shape, self.planar, |i| self.is_known(i));
        let is_small: Vec<bool> = (0..self.vectors.len()).map(|i| groups.size(i) < least).collect();
        self.remove_all(&is_small);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plane(vectors: Vec<[f32; 3]>, width: usize) -> FlowField {
        let shape = [1, vectors.len() / width, width];
        FlowField { shape, planar: true, vectors, quality: Vec::new() }
    }

    #[test]
    fn an_outlier_beside_a_hole_is_removed_and_its_neighbours_stay() {
        let mut vectors = vec![[0.0, 30.0, -20.0]; 35];
        vectors[17] = [0.0, 30.0, 25.0];
        for i in [9, 10, 16] {
            vectors[i] = [f32::NAN; 3];
        }
        let limits = Limits { max_deviation: 5.0, ..Limits::default() };
        let mut field = plane(vectors.clone(), 7);
        assert_eq!(field.clean(&limits), 1);
        assert!(field.vectors[17][1].is_nan());
        // unknown vectors that count as 0 remove the rim of a hole in a large displacement
        let sofima = Limits { neighbours: Neighbours::Sofima, ..limits };
        let mut wide = vec![[0.0, 30.0, -20.0]; 49];
        for i in [16, 17, 18, 23, 25, 30, 31, 32] {
            wide[i] = [f32::NAN; 3];
        }
        let mut field = plane(wide.clone(), 7);
        assert_eq!(field.clean(&sofima), 1);
        assert_eq!(plane(wide, 7).clean(&limits_known()), 0);
    }

    fn limits_known() -> Limits {
        Limits { max_deviation: 5.0, ..Limits::default() }
    }

    #[test]
    fn quality_magnitude_gradient_and_small_groups_are_limits_of_their_own() {
        let good = Quality { correlation: 0.9, sharpness: 0.5, ratio: 0.2, evidence: 9.0 };
        let mut field = plane(vec![[0.0, 1.0, 2.0]; 12], 4);
        field.quality = vec![good; 12];
        field.quality[0].correlation = 0.1;
        field.quality[1].ratio = 0.95;
        field.quality[2].sharpness = 0.01;
        field.quality[3].evidence = -1.0;
        field.vectors[4] = [0.0, 1.0, -90.0];
        let limits = Limits {
            min_correlation: 0.3,
            max_ratio: 0.9,
            min_sharpness: 0.1,
            min_evidence: 2.0,
            max_magnitude: 80.0,
            ..Limits::default()
        };
        assert_eq!(field.clean(&limits), 5);
        assert_eq!(field.known(), 7);

        let mut steep = plane(vec![[0.0, 0.0, 0.0], [0.0, 0.0, 9.0], [0.0, 9.0, 9.0]], 3);
        // along y there are no neighbours
        assert_eq!(steep.reconcile(&Limits::default(), [5.0; 3]), 2);
        let hole = [f32::NAN; 3];
        let one = [0.0; 3];
        let mut groups = plane(vec![one, one, hole, one, one, one, hole, hole], 4);
        assert_eq!(
            groups.reconcile(&Limits { min_patches: 3, ..Limits::default() }, [f64::INFINITY; 3]),
            1
        );
        assert_eq!(groups.known(), 4);
    }
}
