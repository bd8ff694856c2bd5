//! `inspect`: describes volumes, transforms and tables, and proposes parameters for a pair.

use std::process::ExitCode;

use voxloom::blocks::{Budget, Context, Error};
use voxloom::cli::{self, FixedArgs, FlagSet, MovingArgs, Program, Purpose, VolumeArgs};
use voxloom::device::Cost;
use voxloom::inspect;
use voxloom::volume::Volume;

/// Describes a volume, a transform or a table, or proposes parameters for a pair of volumes.
///
/// Statistics of a large volume are computed from a part of its voxels; the output says so. With
/// --suggest the two volumes are measured, and a configuration for --config is printed, with a
/// reason for each parameter.
#[derive(clap::Args)]
pub(crate) struct Inspect {
    /// Volumes, transforms or tables; with --suggest the fixed and the moving volume
    #[arg(value_name = "LOC", required = true)]
    locations: Vec<String>,
    /// Propose spot radii, block size and other parameters for aligning the second volume to the
    /// first
    #[arg(long)]
    suggest: bool,
    /// Print JSON, one line per location
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    volume: VolumeArgs,
    #[command(flatten)]
    fixed: FixedArgs,
    #[command(flatten)]
    moving: MovingArgs,
}

impl Program for Inspect {
    const NAME: &'static str = "inspect";
    const PURPOSE: Purpose = Purpose::Inspect;
    const FLAG_SET: FlagSet = FlagSet::Inspect;
    const EXAMPLE: &'static str = "inspect image.zarr";

    fn pipes(&self) -> Vec<&'static str> {
        if self.suggest { vec![] } else { vec!["locations"] }
    }

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let budget = Budget::of(ctx);
        self.refuse_unused()?;
        if self.suggest {
            let [fixed, moving] = self.locations.as_slice() else {
                let found = self.locations.len();
                let message = "--suggest wants two volumes, the fixed and the moving one";
                return Err(Error::Usage(format!("{message}, and was given {found}")).into());
            };
            let fixed = Volume::open(fixed, &self.fixed.select())?;
            let moving = Volume::open(moving, &self.moving.select())?;
            ctx.input(&fixed);
            ctx.input(&moving);
            let held = inspect::suggest_memory(&fixed, &moving, ctx.threads);
            if ctx.is_plan_asked("measuring the volumes", &budget, &held)? {
                return Ok(());
            }
            let suggestion = inspect::suggest(&fixed, &moving)?;
            return cli::print(&if self.json {
                format!("{}\n", suggestion.json())
            } else {
                suggestion.yaml()
            });
        }
        let held = |location: &String| inspect::memory_needed(location, &self.volume.select());
        if ctx.plan_only {
            for location in &self.locations {
                match Volume::open_any(location, &self.volume.select()) {
                    Ok(volume) => ctx.input(&volume),
                    Err(_) => ctx.input_file(location),
                }
            }
        }
        let most = self.locations.iter().map(held).reduce(Cost::or).unwrap_or_default();
        if ctx.is_plan_asked("looking at it", &budget, &most)? {
            return Ok(());
        }
        for location in &self.locations {
            let page = inspect::inspect(location, &self.volume.select())?;
            cli::print(&if self.json { format!("{}\n", page.json()) } else { page.text() })?;
        }
        Ok(())
    }
}

impl Inspect {
    /// Refuses flags that would have no effect: those of a single volume with --suggest, and those
    /// of a pair of volumes without --suggest.
    fn refuse_unused(&self) -> Result<(), Error> {
        let pair = [self.fixed.select().given(), self.moving.select().given()].concat();
        let message = match (self.suggest, self.volume.select().given().first(), pair.first()) {
            (true, Some(name), _) => format!(
                "--{name} is not used with --suggest; give --fixed-{name} and --moving-{name}"
            ),
            (false, _, Some(name)) => {
                format!("--fixed-{name} and --moving-{name} are for --suggest; give --{name}")
            }
            _ => return Ok(()),
        };
        Err(Error::Usage(message))
    }
}

fn main() -> ExitCode {
    cli::main::<Inspect>()
}
