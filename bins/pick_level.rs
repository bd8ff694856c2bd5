//! `pick-level`: picks the resolution at which a volume is aligned.

use std::path::PathBuf;
use std::process::ExitCode;

use voxloom::blocks::{Budget, Context, write_whole};
use voxloom::cli::{self, FlagSet, Program, Purpose, VolumeArgs};
use voxloom::downsample::{self, LevelStorage};
use voxloom::inspect::{self, RequestedLevel};
use voxloom::volume::{Format, Select, Volume};

/// Picks the resolution at which a volume is aligned, and computes it if it is not stored.
///
/// A suitable level of the volume's image is used if there is one; otherwise a reduced copy is
/// written to --scratch. The location of the picked level is written to the output, for the
/// programs that align; the transforms that they find are applied to the volume itself.
#[derive(clap::Args)]
pub(crate) struct PickLevel {
    /// The volume
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// The location of the picked level: a text file of one line
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Where a reduced copy is written, if one is needed: Zarr
    #[arg(long, value_name = "LOC")]
    scratch: String,
    /// Match the voxel size of this volume instead of measuring the structures
    #[arg(long, value_name = "LOC")]
    like: Option<String>,
    /// auto, or how many times the resolution is halved: 0 uses the volume as it is
    #[arg(long, value_name = "auto|N", default_value_t = RequestedLevel::Auto)]
    level: RequestedLevel,
    /// Parameters file of a workflow; if it sets a channel, time point, image, voxel size or
    /// origin, the volume is used as it is unless --level is a number
    #[arg(long, value_name = "FILE")]
    parameters: Option<PathBuf>,
    #[command(flatten)]
    volume_args: VolumeArgs,
}

impl Program for PickLevel {
    const NAME: &'static str = "pick-level";
    const PURPOSE: Purpose = Purpose::Align;
    const FLAG_SET: FlagSet = FlagSet::Whole;
    const EXAMPLE: &'static str = "pick-level fixed.zarr -o fixed.txt --scratch fixed-reduced.zarr";

    fn pipes(&self) -> Vec<&'static str> {
        vec!["parameters", "output"]
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        ctx.refuse_existing(&self.output)?;
        let selects = self.parameters.as_deref().map_or(Ok(false), cli::selects_a_volume)?;
        let picked = if selects && self.level == RequestedLevel::Auto {
            self.volume
        } else {
            let select = self.volume_args.select();
            let volume = Volume::open(&self.volume, &select)?;
            ctx.input(&volume);
            let like = self.like.map(|like| Volume::open(&like, &Select::default())).transpose()?;
            let held = inspect::suggest_memory(&volume, &volume, ctx.threads);
            if ctx.is_plan_asked("picking the resolution", &Budget::of(ctx), &held)? {
                return Ok(());
            }
            let choice = inspect::pick(&volume, self.level, like.map(|like| like.grid()).as_ref())?;
            ctx.record("working", choice.json());
            if let Some(stored) = choice.stored {
                stored
            } else {
                let levels = Some(choice.level);
                let options = downsample::Options { levels, ..Default::default() };
                let to = Some((self.scratch.as_str(), Format::Zarr3));
                let layout = LevelStorage::default();
                downsample::pyramid(&self.volume, &select, to, &layout, &options, ctx)?;
                // the copy does not contain the volume itself: its level 0 is the volume halved
                // once
                format!("{}/{}", self.scratch, choice.level - 1)
            }
        };
        if ctx.plan_only {
            return Ok(());
        }
        ctx.check_inputs()?;
        write_whole(&self.output, format!("{picked}\n").as_bytes())?;
        ctx.output_file(&self.output);
        Ok(())
    }
}

fn main() -> ExitCode {
    cli::main::<PickLevel>()
}
