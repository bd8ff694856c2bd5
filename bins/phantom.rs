//! `phantom`: makes test volumes with a known map between them, and scores transforms.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use voxloom::blocks::{Budget, Context};
use voxloom::cli::{self, FlagSet, Length3, Program, Purpose, parse_spacing};
use voxloom::phantom;

/// Makes a realistic pair of volumes with a known map between them, or measures the error of a
/// transform.
///
/// `rounds` writes fixed.zarr, moving.zarr and the true map: truth.json is the whole chain (the
/// field truth.zarr, then an affine), `truth_points.csv` lists the objects that both volumes show.
/// `score` prints, as JSON, the distances between where a transform maps these objects and where
/// they are.
#[derive(clap::Args)]
pub(crate) struct Phantom {
    /// What to do
    #[arg(value_name = "KIND")]
    kind: Action,
    /// rounds: the folder to write
    #[arg(short, long, value_name = "DIR", required_if_eq("kind", "rounds"))]
    output: Option<PathBuf>,
    /// rounds: size of the fixed volume in voxels, one number or three
    #[arg(long, value_name = "N|Z,Y,X", default_value = "256", value_parser = phantom::parse_shape)]
    size: [usize; 3],
    /// rounds: voxel size of both volumes (nm, um, mm; default um)
    #[arg(long, value_name = "Z,Y,X[UNIT]", default_value = "1,0.8,0.8", value_parser = parse_spacing)]
    spacing: Length3,
    /// rounds: maximum displacement of the smooth deformation, voxels
    #[arg(long, value_name = "VOXELS", default_value_t = 8.0)]
    max_displacement: f64,
    /// rounds: shortest wavelength of the deformation, voxels
    #[arg(long, value_name = "VOXELS", default_value_t = 256.0)]
    wavelength: f64,
    /// rounds: noise level; 1 is that of a good camera
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    noise: f64,
    /// score: the folder that `phantom rounds` wrote
    #[arg(long, value_name = "DIR", required_if_eq("kind", "score"))]
    truth: Option<PathBuf>,
    /// score: the transform; several in the order in which they are applied
    #[arg(long, value_name = "FILE", num_args = 1.., required_if_eq("kind", "score"))]
    transform: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Action {
    /// Make two rounds of imaging of one tissue
    Rounds,
    /// Measure the error of a transform against the true map
    Score,
}

impl Program for Phantom {
    const NAME: &'static str = "phantom";
    const PURPOSE: Purpose = Purpose::Test;
    const FLAG_SET: FlagSet = FlagSet::Whole;
    const EXAMPLE: &'static str = "phantom rounds --size 256 --seed 1 -o pair";

    fn pipes(&self) -> Vec<&'static str> {
        vec!["transform"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        if let Action::Score = self.kind {
            let truth = self.truth.unwrap_or_default();
            self.transform.iter().for_each(|location| ctx.input_file(location));
            let held = phantom::score_memory(&truth);
            if ctx.is_plan_asked("measuring the transform", &Budget::of(ctx), &held)? {
                return Ok(());
            }
            let score = phantom::score(&truth, &self.transform)?;
            return cli::print(&score.to_json());
        }
        let rounds = phantom::Rounds {
            shape: self.size,
            spacing: self.spacing.0,
            max_displacement: self.max_displacement,
            wavelength: self.wavelength,
            noise: self.noise,
        };
        Ok(phantom::rounds(&rounds, &self.output.unwrap_or_default(), ctx)?)
    }
}

fn main() -> ExitCode {
    cli::main::<Phantom>()
}
