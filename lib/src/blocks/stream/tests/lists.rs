//! Tests of plans that are lists of tasks in waves, with unequal cost and memory.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use crate::blocks::stream::*;
use crate::blocks::{Identity, Key, ListedTask, Outcome, Part};
use crate::geom::Box3;

/// Tasks with these costs and waves; each needs 1 GiB for each unit of cost.
fn plan(tasks: &[(u64, usize)]) -> Plan {
    let item = |(i, &(cost, wave)): (usize, &(u64, usize))| ListedTask {
        key: Key::Name(format!("pair {i}").into()),
        core: Box3::new([i as i64, 0, 0], [i as i64 + 1, 1, 1]),
        cost,
        memory: cost << 30,
        wave,
    };
    let most = tasks.iter().map(|(cost, _)| cost << 30).max().unwrap_or(0);
    Plan::list(tasks.iter().enumerate().map(item), most, &Identity::of("list"))
}

fn context() -> Context {
    Context { threads: 2, memory: 1 << 50, existing: Existing::Resume, ..Context::default() }
}

/// Each task computes 1 plus the sum (modulo 1 000 003) of the results of all lower waves. Returns
/// the results by task.
fn sums(plan: &Plan, ctx: &Context, folder: &Path) -> Result<BTreeMap<usize, u64>, Error> {
    let results = plan.stream_waves(
        ctx,
        folder,
        |task, results| {
            let lower = plan.tasks().iter().filter(|other| other.wave < task.wave).count();
            let known: Vec<(usize, u64)> = results.summaries().collect::<Result<_, _>>()?;
            let known = known.iter().filter(|(id, _)| plan.tasks().get(*id).wave < task.wave);
            let sums: Vec<u64> = known.map(|(_, sum)| *sum).collect();
            anyhow::ensure!(sums.len() == lower, "{} of {lower} are known", sums.len());
            Ok(1 + sums.iter().sum::<u64>() % 1_000_003)
        },
        |_, sum| Ok(sum),
        |_, sum| Ok(TaskResult::from(Outcome::Done).with_summary(&sum)?),
    )?;
    results.summaries().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_whole_parts_in_any_order_and_a_resumed_run_give_the_same(
        tasks in prop::collection::vec((0_u64..9, 0_usize..3), 1..20),
        n in 1_usize..5,
        reversed in any::<bool>(),
        cut in 0.0..1.0,
    ) {
        let plan = plan(&tasks);
        let whole = tempfile::tempdir().unwrap();
        let wanted = sums(&plan, &context(), whole.path()).unwrap();
        prop_assert_eq!(wanted.len(), tasks.len());
        // each time that all parts have run, at least one further wave is done
        let parts = tempfile::tempdir().unwrap();
        for _ in plan.tasks().waves() {
            for k in 1..=n {
                let part = Part { k: if reversed { n + 1 - k } else { k }, n };
                sums(&plan, &Context { part, ..context() }, parts.path()).unwrap();
            }
        }
        let finish = Context { finish: true, ..context() };
        prop_assert_eq!(&sums(&plan, &finish, parts.path()).unwrap(), &wanted);
        let ledger = ledger::files(whole.path(), "ledger-").unwrap().remove(0);
        let text = std::fs::read(&ledger).unwrap();
        std::fs::write(&ledger, &text[..(cut * text.len() as f64) as usize]).unwrap();
        prop_assert_eq!(&sums(&plan, &context(), whole.path()).unwrap(), &wanted);
    }
}

#[test]
fn a_part_leaves_out_what_needs_tasks_of_other_parts() {
    let plan = plan(&[(1, 0), (1, 0), (1, 1), (1, 1)]);
    let folder = tempfile::tempdir().unwrap();
    let part = |k| Context { part: Part { k, n: 2 }, ..context() };
    let done = |k| sums(&plan, &part(k), folder.path()).unwrap().into_keys().collect::<Vec<_>>();
    assert_eq!(done(1), [0]);
    let finish = sums(&plan, &Context { finish: true, ..context() }, folder.path());
    assert!(matches!(finish, Err(Error::Missing { missing: 3, total: 4, first: 1 })));
    assert_eq!(done(2), [0, 1, 3]);
    assert_eq!(done(1), [0, 1, 2, 3]);
}

#[test]
fn nothing_is_built_on_failures_that_are_not_allowed() {
    let plan = plan(&[(1, 0), (1, 0), (1, 1)]);
    let folder = tempfile::tempdir().unwrap();
    let run = |allow_failed: f64| {
        let ran = Mutex::new(Vec::new());
        let ctx = Context { allow_failed, threads: 1, ..context() };
        let read = |task: &Task, _: &TaskResults| {
            ran.lock().unwrap().push(task.id);
            anyhow::ensure!(task.id != 1, "the section is torn");
            Ok(())
        };
        let done =
            plan.stream_waves(&ctx, folder.path(), read, |_, ()| Ok(()), |_, ()| Ok(Outcome::Done));
        (done.map(drop), ran.into_inner().unwrap())
    };
    let (result, ran) = run(0.0);
    let message = result.unwrap_err().to_string();
    assert!(message.contains("pair 1: the section is torn"), "{message}");
    assert_eq!(ran, [0, 1]);
    let (result, ran) = run(0.5);
    result.unwrap();
    assert_eq!(ran, [1, 2], "the failed one is tried again, and the next wave begins");
}

#[test]
fn tasks_of_unequal_memory_together_stay_within_the_limit() {
    let tasks: Vec<(u64, usize)> = (0..40).map(|i| (1 + i * 7 % 10, 0)).collect();
    let plan = plan(&tasks);
    let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
    let ctx = Context { threads: 8, memory: 24 << 30, ..context() };
    let room = plan.room(&ctx);
    assert!(room >= 20 << 30, "{room}");
    let folder = tempfile::tempdir().unwrap();
    plan.stream(
        &ctx,
        folder.path(),
        |task| {
            let now = held.fetch_add(task.memory, Ordering::SeqCst) + task.memory;
            most.fetch_max(now, Ordering::SeqCst);
            Ok(())
        },
        |_, ()| {
            std::thread::sleep(Duration::from_millis(2));
            Ok(())
        },
        |task, ()| {
            held.fetch_sub(task.memory, Ordering::SeqCst);
            Ok(Outcome::Done)
        },
    )
    .unwrap();
    let most = most.into_inner();
    assert!(most <= room && most > 11 << 30, "{most} of {room}: several, and not too many");
}

#[test]
fn a_plan_tells_its_waves() {
    let ctx = Context { part: Part { k: 2, n: 2 }, ..context() };
    let plan = plan(&[(6, 0), (1, 1), (2, 0), (3, 0), (1, 1)]).describe(&ctx);
    assert_eq!((&plan["tasks"], &plan["waves"]), (&5.into(), &serde_json::json!([3, 2])));
    // the parts divide the first wave into costs of 6 and of 2 + 3, and the second into 1 and 1
    assert_eq!((&plan["part"]["first"], &plan["part"]["tasks"]), (&1.into(), &3.into()));
}
