//! The command-line flags of meshes, which programs flatten into their own. The struct has no doc
//! comment, because clap would use it as the program's description.
#![expect(missing_docs, reason = "a flattened struct's doc comment would open --help")]

use super::{Materials, Options};

#[derive(clap::Args, Clone, Debug)]
pub struct Flags {
    /// Stiffness of the mesh: the force of a spring between neighbouring nodes relative to that of a
    /// perfect match, at the same length; with 0.001, nodes follow their matches alone
    #[arg(long, value_name = "K", default_value_t = 0.2)]
    pub stiffness: f64,
    /// The fields compare sections of one stack (flow --planes --distance); all sections are
    /// relaxed together
    #[arg(long)]
    pub stack: bool,
    /// With --stack, sections that do not move, counted from 0 [default: none; the stack keeps the
    /// mean shape of its sections]
    #[arg(long, value_name = "Z,...", value_delimiter = ',')]
    pub fixed: Vec<usize>,
    /// Residual at which a match counts a quarter, in section thicknesses times the distance of the
    /// sections [default: with --stack 1, or a tenth of the distance of nodes if that is more; else
    /// no limit]
    #[arg(long, value_name = "THICKNESSES")]
    pub outlier_length: Option<f64>,
    /// Do not weight matches by the square of their correlation
    #[arg(long)]
    pub unweighted: bool,
    /// Fraction of the matches that is left out, and whose residuals are reported
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0)]
    pub hold_out: f64,
    /// With --mask, the stiffness of what is labelled relative to that of tissue [default:
    /// excluded=1,soft=0.1,tear=0.0001,wrinkle=0.01]
    #[arg(long, value_name = "NAME=FACTOR,...", requires = "mask")]
    pub materials: Option<Materials>,
}

impl Flags {
    /// The options selected by the flags.
    pub fn options(&self) -> Options {
        Options {
            stiffness: self.stiffness,
            stack: self.stack,
            fixed: self.fixed.clone(),
            outlier_length: self.outlier_length,
            weighted: !self.unweighted,
            hold_out: self.hold_out,
            materials: self.materials.unwrap_or_default(),
        }
    }
}
