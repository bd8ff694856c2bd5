use crate::geom::{Grid, Point, defaults};

/// The filter that detects blobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Detector {
    /// Laplacian of Gaussian.
    #[default]
    Log,
    /// Difference of Gaussians, which approximates the Laplacian of Gaussian.
    Dog,
}

/// The order of spots, which decides which are kept if there are too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Rank {
    /// Intensity of the unfiltered image, as in BigStream.
    #[default]
    Intensity,
    /// Filter response: contrast, not brightness.
    Response,
}

/// The parameters of spot detection.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Options {
    /// The smallest and largest blob radius: micrometres, or voxels if [`Options::exact`] is set.
    pub radius: [f64; 2],
    /// The filter; [`Options::exact`] always uses the Laplacian of Gaussian.
    pub detector: Detector,
    /// Whether to return the integer voxels of BigStream 2021 instead of sub-voxel positions.
    pub exact: bool,
    /// Whether to subtract structures wider than the largest blob first (white top-hat).
    pub background_subtract: bool,
    /// The fractions of the darkest and of the brightest voxels to clamp before detection.
    pub winsorize: Option<[f64; 2]>,
    /// The minimum response, in units of the image's intensity.
    pub threshold: f64,
    /// The minimum response as a fraction of the volume's maximum response.
    pub threshold_relative: f64,
    /// If the spheres of two spots share more than this fraction of the smaller sphere, only the
    /// larger spot is kept.
    pub overlap: f64,
    /// Spots closer than this to a face of the volume are dropped; unit as in [`Options::radius`].
    pub border: f64,
    /// The maximum number of spots to keep.
    pub max_spots: usize,
    /// The order that decides which spots are kept.
    pub rank: Rank,
}

/// The error for invalid options.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsError(String);

/// The minimum response as a fraction of the maximum response; smaller responses are rounding
/// errors. BigStream 2021 computes in `f64` with a threshold of 0. Where the image is 0, the
/// responses of both programs are exactly 0.
const MIN_RELATIVE_RESPONSE: f64 = 1e-9;

/// The minimum response as a fraction of the intensity. If a constant background is not subtracted,
/// rounding in `f32` gives it second differences of up to 1e-5 of its value.
const MIN_RESPONSE_PER_INTENSITY: f64 = 3e-5;

/// The smallest radius allowed, in voxels.
const MIN_RADIUS: f64 = 0.1;
/// A radius that is allowed however small the volume is, in voxels.
const ALWAYS_ALLOWED_RADIUS: f64 = 32.0;

impl Options {
    /// Defaults for voxels of size `spacing` (micrometres along z, y, x): blob radii of 3 to 10
    /// voxels, at most 5000 spots.
    pub fn new(spacing: Point) -> Self {
        let voxel = spacing.iter().product::<f64>().cbrt();
        Self {
            radius: [3.0 * voxel, 10.0 * voxel],
            detector: Detector::default(),
            exact: false,
            background_subtract: true,
            winsorize: None,
            threshold: 0.0,
            threshold_relative: 0.0,
            overlap: 0.5,
            border: 3.0 * voxel,
            max_spots: 5000,
            rank: Rank::default(),
        }
    }

    /// Like [`Options::new`] for a volume, with a border that is limited so that short axes keep
    /// most of their voxels.
    pub fn for_grid(grid: &Grid) -> Self {
        let like = Self::new(grid.typical_spacing());
        Self { border: like.border.min(defaults::border(grid)), ..like }
    }

    /// The parameters of BigStream's tutorial: radii of 6 to 20 voxels, and a border of 12 voxels,
    /// which is its context radius.
    pub fn exact() -> Self {
        let like = Self::new([1.0; 3]);
        Self { radius: [6.0, 20.0], exact: true, overlap: 0.8, border: 12.0, ..like }
    }

    /// Checks that the values are valid.
    ///
    /// # Errors
    /// [`OptionsError`] names the flag, its invalid value and the allowed values.
    pub fn check(&self) -> Result<(), OptionsError> {
        let refuse = |text: String| Err(OptionsError(text));
        let [low, high] = self.radius;
        if !(low > 0.0 && high >= low && high.is_finite()) {
            return refuse(format!(
                "--radius {low}..{high} is no range of sizes; give MIN..MAX with 0 < MIN <= MAX"
            ));
        }
        if self.exact && (high - low).floor() < 1.0 {
            return refuse(format!(
                "--exact has one scale per voxel between the radii, and {low}..{high} are less \
                 than one voxel apart; give a wider --radius, in voxels"
            ));
        }
        if let Some([low, high]) = self.winsorize
            && !(low >= 0.0 && high >= 0.0 && low + high < 1.0)
        {
            return refuse(format!(
                "--winsorize {low},{high} are no fractions to clamp; give two numbers from 0 \
                 with a sum below 1, such as 0.01,0.01"
            ));
        }
        for (flag, value, most) in [
            ("--threshold", self.threshold, f64::MAX),
            ("--threshold-relative", self.threshold_relative, 1.0),
            ("--overlap", self.overlap, 1.0),
            ("--border", self.border, f64::MAX),
        ] {
            if !(0.0..=most).contains(&value) {
                let range = if most > 1.0 { "0 or more" } else { "0 to 1" };
                return refuse(format!("{flag} {value} is out of range; give {range}"));
            }
        }
        if self.max_spots == 0 {
            return refuse("--max-spots 0 leaves none; give 1 or more".to_owned());
        }
        Ok(())
    }

    /// Like [`Options::check`], and also checks that blobs of these radii fit into a volume of this
    /// grid.
    ///
    /// # Errors
    /// As [`Options::check`].
    pub fn check_for(&self, grid: &Grid) -> Result<(), OptionsError> {
        self.check()?;
        let [low, high] = self.radius;
        let spacing = if self.exact { [1.0; 3] } else { grid.spacing };
        let axes = || (0..3).filter(|&a| grid.shape[a] > 1);
        let finest = axes().map(|a| spacing[a]).fold(f64::INFINITY, f64::min);
        let longest = axes().map(|a| spacing[a] * grid.shape[a] as f64).fold(0.0, f64::max);
        let unit = if self.exact { "voxels" } else { "um" };
        if low < finest * MIN_RADIUS {
            return Err(OptionsError(format!(
                "--radius {low}..{high}: {low} {unit} is less than a tenth of a voxel of {finest} {unit}; \
                 give a larger MIN"
            )));
        }
        if high > longest.max(finest * ALWAYS_ALLOWED_RADIUS) {
            return Err(OptionsError(format!(
                "--radius {low}..{high}: {high} {unit} is more than the longest side of the volume, {longest} \
                 {unit}; give a smaller MAX"
            )));
        }
        Ok(())
    }

    /// The response that a spot must exceed, given the maximum response of the whole volume.
    pub(super) fn floor(&self, greatest: f64) -> f64 {
        self.threshold.max(self.threshold_relative.max(MIN_RELATIVE_RESPONSE) * greatest)
    }

    /// Whether a response is too large to be rounding error at a voxel of this intensity.
    pub(super) fn is_signal(&self, response: f64, intensity: f64) -> bool {
        self.exact || response > MIN_RESPONSE_PER_INTENSITY * intensity.abs()
    }
}
