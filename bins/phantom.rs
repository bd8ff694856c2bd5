//! `phantom`: makes test volumes with a known map between them, and scores transforms.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use voxloom::blocks::{Budget, Context};
use voxloom::cli::{self, FlagSet, Length3, Program, Purpose, parse_spacing};
use voxloom::phantom::{self, Flags};

/// Makes realistic test volumes with a known map between them, or measures the error of a transform.
///
/// `rounds` writes fixed.zarr, moving.zarr and the true map: truth.json is the whole chain (the
/// field truth.zarr, then an affine), `truth_points.csv` lists the objects that both volumes show.
/// `sections` writes the stack sections.zarr and its true mask labels.zarr (1 tissue, 0 none, -1 tear,
/// -2 wrinkle); truth.json takes the aligned stack to it.
/// `tiles` writes planes as overlapping tiles: their images, the table tiles.csv of their nominal
/// positions, and the true ones in tiles.json.
/// `score` prints, as JSON, the distances between where a transform maps these objects and where
/// they are, between what the sections of an aligned stack show at one place, or between where
/// `stitch` put the pixels of tiles and where they are.
#[derive(clap::Args)]
pub(crate) struct Phantom {
    /// What to do
    #[arg(value_name = "KIND")]
    kind: Action,
    /// rounds, sections, tiles: the folder to write
    #[arg(short, long, value_name = "DIR",
          required_if_eq_any([("kind", "rounds"), ("kind", "sections"), ("kind", "tiles")]))]
    output: Option<PathBuf>,
    /// Voxel size (nm, um, mm; default um) [default: 1,0.8,0.8; sections and tiles: 0.05,0.01,0.01]
    #[arg(long, value_name = "Z,Y,X[UNIT]", value_parser = parse_spacing)]
    spacing: Option<Length3>,
    #[command(flatten)]
    set: Flags,
    /// score: the folder that `phantom` wrote
    #[arg(long, value_name = "DIR", required_if_eq("kind", "score"))]
    truth: Option<PathBuf>,
    /// score: the transform, or the tiles that `stitch` wrote; several in the order in which they are applied
    #[arg(long, value_name = "FILE", num_args = 1.., required_if_eq("kind", "score"))]
    transform: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Action {
    /// Make two rounds of imaging of one tissue
    Rounds,
    /// Make a stack of serial sections, as an electron microscope images them
    Sections,
    /// Make planes that are imaged as overlapping tiles
    Tiles,
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
        let folder = self.output.unwrap_or_default();
        let spacing = self.spacing.map(|spacing| spacing.0);
        match self.kind {
            Action::Rounds => {
                self.set.refuse_others("rounds")?;
                Ok(phantom::rounds(&self.set.rounds(spacing), &folder, ctx)?)
            }
            Action::Tiles => {
                self.set.refuse_others("tiles")?;
                Ok(phantom::tiles(&self.set.tiles(spacing, ctx.seed), &folder, ctx)?)
            }
            Action::Sections => {
                self.set.refuse_others("sections")?;
                Ok(phantom::sections(&self.set.sections(spacing, ctx.seed), &folder, ctx)?)
            }
            Action::Score => {
                self.set.refuse_others("score")?;
                score(&self.truth.unwrap_or_default(), &self.transform, ctx)
            }
        }
    }
}

fn score(truth: &Path, transform: &[String], ctx: &Context) -> anyhow::Result<()> {
    transform.iter().for_each(|location| ctx.input_file(location));
    let held = phantom::score_memory(truth);
    if ctx.is_plan_asked("measuring the transform", &Budget::of(ctx), &held)? {
        return Ok(());
    }
    if phantom::is_of_tiles(truth) {
        let [project] = transform else {
            let message = "--transform lists several; wanted the one file that stitch wrote";
            return Err(voxloom::blocks::Error::Usage(message.to_owned()).into());
        };
        return cli::print(&phantom::score_tiles(truth, project)?.to_json());
    }
    cli::print(&if phantom::is_of_sections(truth) {
        phantom::score_sections(truth, transform)?.to_json()
    } else {
        phantom::score(truth, transform)?.to_json()
    })
}

fn main() -> ExitCode {
    cli::main::<Phantom>()
}
