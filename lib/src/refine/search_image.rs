//! The best translation of one image over another: masked normalised cross-correlation at all
//! integer shifts at once, by Fourier transforms (Padfield, IEEE TIP 21, 2012).

use crate::filter::Fft;
use crate::geom::{Affine, Point};
use crate::metric::{Image, sample};

/// A shift is ignored if the variance of an image within the overlap is below this fraction of the
/// variance of the whole image.
const MIN_RELATIVE_VARIANCE: f32 = 0.02;

/// The image over which templates are shifted.
pub(super) struct SearchImage {
    /// The image as given; shifts are in voxels of its grid.
    pub(super) image: Image,
    fft: Fft,
    /// Spectra of the mask of known voxels, of the normalised image, and of its square.
    spectra: [Vec<[f32; 2]>; 3],
    known: f32,
}

/// Buffers that are reused from one placement to the next.
#[derive(Default)]
pub(super) struct Scratch {
    spectra: [Vec<[f32; 2]>; 3],
    sums: [Vec<[f32; 2]>; 3],
}

/// A shift and the similarity of the images at this shift.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placement {
    /// Position of the template's first voxel in the search image, voxels, z, y, x.
    pub(super) shift: [i64; 3],
    /// The correlation, or its absolute value if inverted contrast is accepted.
    pub(super) correlation: f64,
    /// Number of voxels known in both images.
    pub(super) count: f64,
}

/// The image that is shifted: `known` is 1 or 0, and `values` are 0 where `known` is 0.
pub(super) struct Template {
    pub(super) shape: [usize; 3],
    pub(super) values: Vec<f32>,
    pub(super) known: Vec<f32>,
}

impl Template {
    /// Resamples `image` on a grid of `shape` voxels and `spacing` whose centre lies at the point
    /// `centre` of the image; `linear` maps lengths of the grid to lengths of the image. `None` if
    /// the result has no contrast.
    pub(super) fn draw(
        image: &Image,
        linear: &[[f64; 3]; 3],
        centre: Point,
        spacing: Point,
        shape: [usize; 3],
    ) -> Option<Self> {
        let middle: Point = std::array::from_fn(|a| (shape[a] as f64 - 1.0) / 2.0 * spacing[a]);
        let map = Affine::translation(middle.map(|m| -m))
            .then(&Affine::from_parts(*linear, centre))
            .rows();
        let n = shape.iter().product();
        let (mut values, mut known) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for i in 0..n {
            let voxel = [i / (shape[1] * shape[2]), i / shape[2] % shape[1], i % shape[2]];
            let p: Point = std::array::from_fn(|a| voxel[a] as f64 * spacing[a]);
            let q = map.map(|r| r[0] * p[0] + r[1] * p[1] + r[2] * p[2] + r[3]);
            let (value, _) = sample(image, image.grid.index(q).map(|v| v as f32));
            known.push(f32::from(u8::from(!value.is_nan())));
            values.push(if value.is_nan() { 0.0 } else { value });
        }
        normalise(&mut values, &known)?;
        Some(Self { shape, values, known })
    }

    /// Number of known voxels.
    pub(super) fn count(&self) -> f32 {
        self.known.iter().sum()
    }
}

/// Normalises the known values to mean 0 and variance 1; `None` if they are constant.
fn normalise(values: &mut [f32], known: &[f32]) -> Option<()> {
    let (mut n, mut sum, mut square) = (0.0, 0.0, 0.0);
    for (&v, &k) in values.iter().zip(known) {
        let (v, k) = (f64::from(v), f64::from(k));
        (n, sum, square) = (n + k, sum + v * k, square + v * v * k);
    }
    let mean = sum / n;
    let variance = square / n - mean * mean;
    if !(variance > 1e-10 * mean * mean) {
        return None;
    }
    let scale = 1.0 / variance.sqrt();
    for (v, &k) in values.iter_mut().zip(known) {
        *v = if k > 0.0 { ((f64::from(*v) - mean) * scale) as f32 } else { 0.0 };
    }
    Some(())
}

impl SearchImage {
    /// Prepares an image for templates of up to `largest` voxels along each axis; `None` if the
    /// image is constant or has no known voxel.
    pub(super) fn new(image: Image, largest: [usize; 3]) -> Option<Self> {
        let shape = image.grid.shape;
        let fft = Fft::holding(std::array::from_fn(|a| shape[a] + largest[a] - 1));
        let known: Vec<f32> =
            image.voxels.iter().map(|v| f32::from(u8::from(v.is_finite()))).collect();
        let mut values: Vec<f32> =
            image.voxels.iter().map(|v| if v.is_finite() { *v } else { 0.0 }).collect();
        normalise(&mut values, &known)?;
        let mut spectra = Default::default();
        transform(&fft, shape, &values, &known, &mut spectra);
        let known = known.iter().sum();
        Some(Self { image, fft, spectra, known })
    }

    /// The shift of `template` with the highest correlation. The number of voxels known in both
    /// images must be at least 16 and at least the fraction `overlap` of the known voxels of the
    /// image that has fewer, and `allowed` must accept the shift. With `inverted`, the absolute
    /// value of the correlation counts.
    pub(super) fn place(
        &self,
        template: &Template,
        overlap: f64,
        inverted: bool,
        allowed: impl Fn([i64; 3]) -> bool,
        scratch: &mut Scratch,
    ) -> Option<Placement> {
        let least = (overlap * f64::from(self.known.min(template.count()))).max(16.0) as f32;
        self.sum(template, scratch);
        let [one, two, three] = &scratch.sums;
        let box_shape = self.fft.shape();
        let mut best: Option<Placement> = None;
        for at in 0..self.fft.len() {
            let ([n, sum], [square, own_sum], [own_square, product]) =
                (one[at], two[at], three[at]);
            if n < least {
                continue;
            }
            let variance = square - sum * sum / n;
            let own = own_square - own_sum * own_sum / n;
            if !(variance > MIN_RELATIVE_VARIANCE * n && own > MIN_RELATIVE_VARIANCE * n) {
                continue;
            }
            let covariance = product - sum * own_sum / n;
            let mut r = f64::from(covariance / (variance * own).sqrt());
            if inverted {
                r = r.abs();
            }
            if best.is_none_or(|best| r > best.correlation) {
                let shift = self.shift(at, box_shape);
                if allowed(shift) {
                    best = Some(Placement { shift, correlation: r, count: f64::from(n.round()) });
                }
            }
        }
        best
    }

    /// The shift at an index of the correlation array: negative shifts wrap around to its end.
    fn shift(&self, at: usize, [_, ny, nx]: [usize; 3]) -> [i64; 3] {
        let index = [at / (ny * nx), at / nx % ny, at % nx];
        let (sides, shape) = (self.fft.shape(), self.image.grid.shape);
        std::array::from_fn(|a| {
            let wrapped = index[a] >= shape[a];
            index[a] as i64 - if wrapped { sides[a] as i64 } else { 0 }
        })
    }

    /// Computes six sums over the voxels known in both images, for every shift. Each of the three
    /// arrays `scratch.sums` contains two of them, as real and imaginary part: the number of voxels
    /// and the sum of the search image; the sum of squares of the search image and the sum of the
    /// template; the sum of squares of the template and the sum of products.
    fn sum(&self, template: &Template, scratch: &mut Scratch) {
        let Scratch { spectra, sums } = scratch;
        transform(&self.fft, template.shape, &template.values, &template.known, spectra);
        let [known, values, squares] = &*spectra;
        let [own_known, own_values, own_squares] = &self.spectra;
        let pairs = [
            [(known, own_known), (known, own_values)],
            [(known, own_squares), (values, own_known)],
            [(squares, own_known), (values, own_values)],
        ];
        for (sum, [(a, b), (c, d)]) in sums.iter_mut().zip(pairs) {
            sum.clear();
            // one transform gives two real results: one as its real part, one as its imaginary part
            sum.extend((0..self.fft.len()).map(|i| {
                let (p, q) = (correlate(a[i], b[i]), correlate(c[i], d[i]));
                [p[0] - q[1], p[1] + q[0]]
            }));
            self.fft.inverse(sum);
        }
    }
}

/// `conj(a) b`.
#[inline]
fn correlate(a: [f32; 2], b: [f32; 2]) -> [f32; 2] {
    [a[0] * b[0] + a[1] * b[1], a[0] * b[1] - a[1] * b[0]]
}

/// Computes the spectra of the mask of known voxels, of the values and of their squares.
fn transform(
    fft: &Fft,
    shape: [usize; 3],
    values: &[f32],
    known: &[f32],
    [first, second, squares]: &mut [Vec<[f32; 2]>; 3],
) {
    let put = |out: &mut Vec<[f32; 2]>, pair: &dyn Fn(usize) -> [f32; 2]| {
        out.clear();
        out.resize(fft.len(), [0.0; 2]);
        let [_, ny, nx] = fft.shape();
        for row in 0..shape[0] * shape[1] {
            let at = (row / shape[1] * ny + row % shape[1]) * nx;
            for x in 0..shape[2] {
                out[at + x] = pair(row * shape[2] + x);
            }
        }
        fft.forward(out);
    };
    // two real images are transformed as one complex image
    put(squares, &|i| [values[i], known[i]]);
    first.resize(fft.len(), [0.0; 2]);
    second.resize(fft.len(), [0.0; 2]);
    for i in 0..fft.len() {
        let (here, there) = (squares[i], squares[fft.opposite(i)]);
        first[i] = [0.5 * (here[1] + there[1]), 0.5 * (there[0] - here[0])];
        second[i] = [0.5 * (here[0] + there[0]), 0.5 * (here[1] - there[1])];
    }
    put(squares, &|i| [values[i] * values[i], 0.0]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geom::Grid;
    use crate::metric::hash;

    fn noise(shape: [usize; 3], seed: u64) -> Image {
        let grid = Grid::new(shape, [1.0; 3], [0.0; 3]);
        let voxels = (0..shape.iter().product::<usize>())
            .map(|i| (hash(seed, i as u64) % 1000) as f32)
            .collect();
        Image { grid, voxels }
    }

    /// The correlation of the voxels known in both images at one shift, by its definition, and
    /// their count.
    fn slow(canvas: &Image, template: &Template, shift: [i64; 3]) -> Option<(f64, f64)> {
        let [nz, ny, nx] = template.shape;
        let mut pairs = Vec::new();
        for i in 0..nz * ny * nx {
            let own = [i / (ny * nx), i / nx % ny, i % nx];
            let at: [i64; 3] = std::array::from_fn(|a| own[a] as i64 + shift[a]);
            if canvas.grid.bounds().contains(at) && template.known[i] > 0.0 {
                let [z, y, x] = at.map(|v| v as usize);
                let [_, ny, nx] = canvas.grid.shape;
                let value = canvas.voxels[(z * ny + y) * nx + x];
                if value.is_finite() {
                    pairs.push([f64::from(template.values[i]), f64::from(value)]);
                }
            }
        }
        let n = pairs.len() as f64;
        let mean = |k: usize| pairs.iter().map(|p| p[k]).sum::<f64>() / n;
        let (a, b) = (mean(0), mean(1));
        let sum = |f: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(f).sum::<f64>();
        let (aa, bb) = (sum(&|p| (p[0] - a).powi(2)), sum(&|p| (p[1] - b).powi(2)));
        (n > 0.0).then(|| (sum(&|p| (p[0] - a) * (p[1] - b)) / (aa * bb).sqrt(), n))
    }

    #[test]
    fn the_best_shift_is_that_of_the_slow_sum_over_all_shifts() {
        for (shape, size) in [([1, 20, 24], [1, 9, 7]), ([8, 10, 9], [5, 4, 6])] {
            let mut image = noise(shape, 3);
            image.voxels[7] = f32::NAN;
            let unit = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
            let other = noise(shape, 4);
            let centre = [shape[0], shape[1], shape[2]].map(|n| (n - 1) as f64 / 2.0 + 0.25);
            let centre = if shape[0] == 1 { [0.0, centre[1], centre[2]] } else { centre };
            let template = Template::draw(&other, &unit, centre, [1.0; 3], size).unwrap();
            let canvas = SearchImage::new(image.clone(), size).unwrap();
            let mut scratch = Scratch::default();
            let found = canvas.place(&template, 0.5, false, |_| true, &mut scratch).unwrap();
            let mut best = (f64::MIN, [0; 3], 0.0);
            for z in -(size[0] as i64)..=shape[0] as i64 {
                for y in -(size[1] as i64)..=shape[1] as i64 {
                    for x in -(size[2] as i64)..=shape[2] as i64 {
                        if let Some((r, n)) = slow(&image, &template, [z, y, x])
                            && n >= 0.5 * f64::from(template.count())
                            && r > best.0
                        {
                            best = (r, [z, y, x], n);
                        }
                    }
                }
            }
            assert_eq!(found.shift, best.1);
            assert!((found.correlation - best.0).abs() < 1e-3 && found.count == best.2);
        }
    }

    #[test]
    fn a_piece_is_found_where_it_was_cut_also_inverted() {
        let image = noise([1, 40, 50], 8);
        let unit = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];
        let mut piece =
            Template::draw(&image, &unit, [0.0, 14.0, 25.0], [1.0; 3], [1, 9, 11]).unwrap();
        let canvas = SearchImage::new(image, [1, 9, 11]).unwrap();
        let mut scratch = Scratch::default();
        let found = canvas.place(&piece, 0.5, false, |_| true, &mut scratch).unwrap();
        assert_eq!(found.shift, [0, 10, 20]);
        assert!(found.correlation > 0.999);
        piece.values.iter_mut().for_each(|v| *v = -*v);
        let found = canvas.place(&piece, 0.5, true, |_| true, &mut scratch).unwrap();
        assert_eq!(found.shift, [0, 10, 20]);
        let here = |shift| shift == [0, 10, 20];
        let found = canvas.place(&piece, 0.5, false, here, &mut scratch).unwrap();
        assert!(found.correlation < -0.999);
    }

    #[test]
    fn images_without_contrast_have_no_place() {
        let mut flat = noise([1, 20, 20], 1);
        flat.voxels.fill(5.0);
        assert!(SearchImage::new(flat, [1, 4, 4]).is_none());
    }
}
