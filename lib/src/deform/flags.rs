//! The command-line flags of the deformation, which programs flatten into their own. The struct has
//! no doc comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{CONTROL_SPACING, Metric, Model, Options};

/// Default window over which a displacement is estimated, voxels.
const SMOOTHING: f64 = 2.0;

/// Upper limit of windows, overlap, elasticity and distance between control points, voxels. Larger
/// values are useless, because blocks are a few hundred voxels long.
const WIDEST: f64 = 1000.0;

/// How a field is represented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ModelName {
    /// Each node has its own displacement.
    Dense,
    /// Cubic B-splines on a grid of control points.
    #[default]
    Bspline,
}

/// Stiffness of a field; `None` if each block chooses its own by cross-validation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Elasticity(Option<f64>);

impl std::str::FromStr for Elasticity {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self(None)),
            (_, Ok(value)) => Ok(Self(Some(value))),
            _ => Err("wanted a number, or auto".to_owned()),
        }
    }
}

#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Similarity measure: lcc (local correlation), ssq (squared difference, for equal brightness),
    /// mi (mutual information)
    #[arg(long, value_enum, default_value_t = Metric::Lcc, hide_possible_values = true)]
    pub metric: Metric,
    /// Representation of the field: bspline (cubic, on control points), dense (one displacement per
    /// node)
    #[arg(long, value_enum, default_value_t = ModelName::Bspline, hide_possible_values = true)]
    pub model: ModelName,
    /// Distance between control points of --model bspline, voxels of each resolution [default: 8]
    #[arg(long, value_name = "VOXELS")]
    pub control_spacing: Option<f64>,
    /// Number of resolutions, from coarse to fine, each twice as fine as the one before; fewer for
    /// small blocks
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=10))]
    pub levels: u8,
    /// Maximum number of steps at each resolution, coarse to fine; the last number applies to all
    /// that follow
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "10,8,8,6")]
    pub iterations: Vec<u16>,
    /// Stop at a resolution when a step improves the similarity measure by less than this fraction
    #[arg(long, value_name = "FRACTION", default_value_t = 0.005)]
    pub tolerance: f64,
    /// Window of the local correlation (standard deviation), voxels of each resolution
    #[arg(long, value_name = "VOXELS", default_value_t = 4.0)]
    pub correlation_radius: f64,
    /// Window over which each displacement is estimated (standard deviation), voxels of each
    /// resolution: larger is smoother; for --model dense only [default: 2]
    #[arg(long, value_name = "VOXELS")]
    pub smoothing: Option<f64>,
    /// Stiffness of the field; auto: each block uses the value with which a field fitted to one half
    /// of its cells fits the other half best. For --model dense, a smoothing after each step (standard
    /// deviation), voxels of each resolution; auto is then 4, 8, 16, or no field
    #[arg(long, value_name = "X|auto", default_value = "auto")]
    pub elasticity: Elasticity,
    /// How strongly regions without structure are held in place
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub damping: f64,
    /// Width of the margin that a block reads around its own voxels on each side, voxels
    #[arg(long, value_name = "VOXELS", default_value_t = 32)]
    pub overlap: usize,
    /// Skip blocks with less than this fraction of their voxels inside --fixed-mask
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    pub foreground: f64,
    /// Reject the field unless the volumes' similarity exceeds that at wrong positions (shifted) by
    /// this many of their standard deviations; 0 accepts any field
    #[arg(long, value_name = "DEVIATIONS", default_value_t = 8.0)]
    pub min_evidence: f64,
}

impl Flags {
    /// Converts the flags to options; `initial` is the initial map's name.
    ///
    /// # Errors
    /// A sentence that names the flag that is out of range or does not apply to `--model`.
    pub fn options(&self, initial: String) -> Result<Options, String> {
        let within = |name: &str, v: f64, least: f64, most: f64| {
            if (least..=most).contains(&v) {
                return Ok(v);
            }
            Err(format!("--{name} {v}: wanted is a number from {least} to {most}"))
        };
        let voxels = |name: &str, v: f64, least: f64| within(name, v, least, WIDEST);
        if self.overlap as f64 > WIDEST {
            return Err(format!("--overlap {}: wanted are at most {WIDEST} voxels", self.overlap));
        }
        let model = match (self.model, self.control_spacing) {
            (ModelName::Dense, None) => Model::Dense,
            (ModelName::Dense, Some(v)) => {
                return Err(format!("--control-spacing {v} needs --model bspline"));
            }
            (ModelName::Bspline, v) => {
                let v = v.unwrap_or(CONTROL_SPACING);
                Model::Bspline { spacing: voxels("control-spacing", v, 2.0)? }
            }
        };
        if let (ModelName::Bspline, Some(v)) = (self.model, self.smoothing) {
            return Err(format!(
                "--smoothing {v} is for --model dense; the stiffness of --model bspline is --elasticity"
            ));
        }
        Ok(Options {
            initial,
            metric: self.metric,
            model,
            levels: usize::from(self.levels),
            iterations: self.iterations.iter().map(|&n| usize::from(n)).collect(),
            tolerance: within("tolerance", self.tolerance, 0.0, 1.0)?,
            radius: voxels("correlation-radius", self.correlation_radius, 1.0)?,
            window: voxels("smoothing", self.smoothing.unwrap_or(SMOOTHING), 0.5)?,
            elasticity: voxels("elasticity", self.elasticity.0.unwrap_or(4.0), 0.0)?,
            choose: self.elasticity.0.is_none(),
            damping: within("damping", self.damping, 1e-6, 1e6)?,
            overlap: self.overlap,
            foreground: within("foreground", self.foreground, 0.0, 1.0)?,
            min_evidence: within("min-evidence", self.min_evidence, 0.0, 1e6)?,
        })
    }
}
