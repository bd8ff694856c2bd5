use std::path::{Path, PathBuf};

use super::*;
use crate::blocks::{Error, Identity, Outcome, Plan};
use crate::cli::{FlagSet, Purpose, VolumeArgs};
use crate::geom::Box3;

/// Counts things. It stands here for programs that do more.
///
/// Nobody needs to read this paragraph first.
#[derive(clap::Args)]
struct Count {
    /// What is counted.
    thing: String,
    /// Where to.
    #[arg(short, long)]
    output: PathBuf,
    /// How it should end.
    #[arg(long, default_value = "well")]
    end: String,
    /// How many.
    #[arg(long, default_value_t = 1.5)]
    factor: f64,
    #[command(flatten)]
    volume: VolumeArgs,
}

impl Program for Count {
    const NAME: &'static str = "count";
    const PURPOSE: Purpose = Purpose::Test;
    const FLAG_SET: FlagSet = FlagSet::Blocks;
    const EXAMPLE: &'static str = "count sheep -o sheep.txt";

    fn run(self, ctx: &Context) -> anyhow::Result<()> {
        let plan = Plan::tile(
            Box3::of_shape([4, 1, 1]),
            [1; 3],
            1_u64,
            &Identity::of("test").with("factor", self.factor),
        );
        if plan.is_all_asked(ctx)? {
            return Ok(());
        }
        ctx.output_file(&self.output);
        let folder = crate::blocks::ledger_folder_of(&self.output);
        plan.stream(
            ctx,
            &folder,
            |_| Ok(()),
            |task, ()| {
                anyhow::ensure!(self.end != "gap" || task.id != 2, "wolf");
                Ok(())
            },
            |_, ()| {
                Ok(match self.end.as_str() {
                    "fallback" => Outcome::Fallback("goat".into()),
                    _ => Outcome::Done,
                })
            },
        )?;
        match self.end.as_str() {
            "badly" => anyhow::bail!("no {}", self.thing),
            "panic" => panic!("lost count"),
            "usage" => Err(Error::Usage("--end usage".into()).into()),
            _ => Ok(()),
        }
    }
}

/// Runs `count sheep -o folder/out` with the additional flags `more` and checks the exit code.
/// Codes are compared as text, because `ExitCode` cannot be compared.
fn ends(folder: &Path, more: &[&str], code: u8) {
    let out = folder.join("out");
    let mut arguments: Vec<OsString> = ["count", "sheep", "-q", "-o"].map(Into::into).into();
    arguments.push(out.into());
    arguments.extend(more.iter().map(Into::into));
    let ended = run::<Count>(arguments);
    assert_eq!(format!("{ended:?}"), format!("{:?}", ExitCode::from(code)), "{more:?}");
}

fn receipt(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn help_opens_with_a_sentence_and_an_example() {
    let help = command::<Count>().render_long_help().to_string();
    let begin = "Counts things. It stands here for programs that do more\n\nExample:\n  \
                 count sheep -o sheep.txt\n\nUsage: count [OPTIONS] --output <OUTPUT> <THING>\n";
    assert!(help.starts_with(begin), "{help}");
    assert!(help.trim_end().ends_with("Nobody needs to read this paragraph first."), "{help}");
    assert!(help.contains("Shared options:\n"), "{help}");
    let short = command::<Count>().render_help().to_string();
    assert!(short.starts_with(begin) && !short.contains("Nobody"), "{short}");
    command::<Count>().debug_assert();
}

#[test]
fn ends_have_their_codes() {
    for (end, code) in [("well", 0), ("badly", 1), ("panic", 1), ("usage", 2), ("gap", 3)] {
        let folder = tempfile::tempdir().unwrap();
        ends(folder.path(), &["--end", end], code);
        let receipt_file = folder.path().join("out.receipt.json");
        assert_eq!(receipt_file.exists(), matches!(code, 0 | 3), "{end}");
    }
    let folder = tempfile::tempdir().unwrap();
    ends(folder.path(), &["--no-such-flag"], 2);
    ends(folder.path(), &["--part", "5/4"], 2);
    ends(folder.path(), &["--config", "/none.yaml"], 1);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn what_fell_back_is_done_but_told_unless_allowed() {
    let folder = tempfile::tempdir().unwrap();
    ends(folder.path(), &["--end", "fallback"], 3);
    ends(folder.path(), &["--end", "fallback", "--resume", "--allow-failed", "1"], 0);
    let receipt = receipt(&folder.path().join("out.receipt.json"));
    assert_eq!(receipt["blocks"]["fallback"], 4);
}

#[test]
fn a_receipt_has_every_parameter_and_the_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.json");
    ends(folder.path(), &["--receipt", path.to_str().unwrap(), "--end", "it's over"], 0);
    let receipt = receipt(&path);
    assert!(!folder.path().join("out.receipt.json").exists());
    let parameters = &receipt["parameters"];
    assert_eq!(parameters["thing"], "sheep");
    assert_eq!(parameters["factor"], 1.5);
    assert_eq!((&parameters["resume"], &parameters["seed"]), (&json!(false), &json!(0)));
    assert!(parameters["threads"].as_u64().is_some() && parameters["memory"].as_u64().is_some());
    assert_eq!(parameters["spacing"], Value::Null);
    let command = receipt["command"].as_str().unwrap();
    assert!(
        command.starts_with("count sheep -q -o ") && command.ends_with(r"--end 'it'\''s over'")
    );
    assert_eq!((&receipt["program"], &receipt["blocks"]["done"]), (&json!("count"), &json!(4)));
}

#[test]
fn parts_end_in_one_receipt_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    ends(folder.path(), &["--finish"], 1);
    for part in ["2/2", "1/2"] {
        ends(folder.path(), &["--part", part], 0);
    }
    assert!(!folder.path().join("out.receipt.json").exists());
    for _ in 0..2 {
        ends(folder.path(), &["--finish"], 0);
        assert_eq!(receipt(&folder.path().join("out.receipt.json"))["blocks"]["done"], 4);
    }
    ends(folder.path(), &["--finish", "--factor", "2"], 1);
}

#[test]
fn a_plan_is_one_answer() {
    let ctx = Context { part: crate::blocks::Part { k: 1, n: 3 }, ..Context::default() };
    let identity = Identity::of("test");
    let tile = |n| Plan::tile(Box3::of_shape([n, 1, 1]), [1; 3], n as u64, &identity);
    let plans = vec![tile(5).describe(&ctx), tile(2).describe(&ctx)];
    let mut receipt = Receipt::default();
    receipt.plans = plans;
    let answer = plan("count", &ctx, &receipt);
    assert_eq!(answer["inputs"], json!([]));
    assert_eq!((&answer["tasks"], &answer["parts"]), (&json!(7), &json!(3)));
    assert_eq!((&answer["bytes_per_task"], &answer["threads"]), (&json!(5), &json!(1)));
}
