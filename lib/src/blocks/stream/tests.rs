use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::{Identity, Key, Outcome, Part, TaskRows, is_passing};
use super::*;
use crate::device::Cost;
use crate::geom::Box3;

mod lists;

fn plan(tasks: usize) -> Plan {
    Plan::tile(Box3::of_shape([tasks, 1, 1]), [1; 3], 1_u64, &Identity::of("test"))
}

fn context(threads: usize) -> Context {
    Context { threads, existing: Existing::Resume, ..Context::default() }
}

/// Streams squares of task numbers; `stage` injects errors by stage and task.
fn squares(
    ctx: &Context,
    folder: &Path,
    tasks: usize,
    stage: impl Fn(&str, usize) -> anyhow::Result<()> + Sync,
) -> (Result<(), Error>, BTreeMap<usize, usize>) {
    let out = Mutex::new(BTreeMap::new());
    let result = plan(tasks).stream(
        ctx,
        folder,
        |task| stage("read", task.id).map(|()| task.id),
        |task, id| stage("compute", task.id).map(|()| id * id),
        |task, square| {
            stage("write", task.id)?;
            out.lock().unwrap().insert(task.id, square);
            Ok(if task.id == 1 { Outcome::Empty } else { Outcome::Done })
        },
    );
    (result.map(drop), out.into_inner().unwrap())
}

#[test]
fn one_thread_and_many_and_any_parts_give_the_same() {
    let wanted: BTreeMap<usize, usize> = (0..23).map(|i| (i, i * i)).collect();
    for threads in [1, 2, 5] {
        let folder = tempfile::tempdir().unwrap();
        let ctx = context(threads);
        let (result, out) = squares(&ctx, folder.path(), 23, |_, _| Ok(()));
        result.unwrap();
        assert_eq!(out, wanted);
        let blocks = &ctx.receipt().blocks;
        assert_eq!((blocks.done, blocks.empty, blocks.failed.len()), (22, 1, 0));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut all = BTreeMap::new();
    for k in [3, 1, 7, 2, 6, 5, 4] {
        let ctx = Context { part: Part { k, n: 7 }, ..context(2) };
        assert!(!ctx.gathers());
        let (result, out) = squares(&ctx, folder.path(), 23, |_, _| Ok(()));
        result.unwrap();
        assert_eq!(ctx.receipt().blocks.done + ctx.receipt().blocks.empty, out.len());
        all.extend(out);
    }
    assert_eq!(all, wanted);
    let ctx = Context { finish: true, ..context(1) };
    let (result, out) = squares(&ctx, folder.path(), 23, |_, _| Ok(()));
    result.unwrap();
    assert!(out.is_empty() && ctx.gathers());
    assert_eq!(ctx.receipt().blocks.done, 22);
}

#[test]
fn a_finish_names_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let part = Context { part: Part { k: 1, n: 2 }, ..context(1) };
    squares(&part, folder.path(), 6, |_, _| Ok(())).0.unwrap();
    let finish = Context { finish: true, ..context(1) };
    let (result, _) = squares(&finish, folder.path(), 6, |_, _| Ok(()));
    assert!(matches!(result, Err(Error::Missing { missing: 3, total: 6, first: 3 })));
}

#[test]
fn a_block_that_fails_or_panics_in_any_stage_is_named_and_the_rest_is_done() {
    for (stage, panics) in [("read", false), ("compute", true), ("write", false)] {
        let folder = tempfile::tempdir().unwrap();
        let ctx = context(2);
        let (result, out) = squares(&ctx, folder.path(), 9, |at, id| {
            assert!(!(panics && at == stage && id == 4), "index out of bounds");
            anyhow::ensure!(at != stage || id != 4, "chunk is damaged");
            Ok(())
        });
        let message = result.unwrap_err().to_string();
        let reason = if panics { "index out of bounds" } else { "chunk is damaged" };
        assert!(message.contains("1 of 9") && message.contains(reason), "{message}");
        assert!(message.contains("4,0,0"), "{message}");
        assert_eq!(out.len(), 8);
        // accepted failures stay failures, and only failed blocks are tried again
        let ctx = Context { allow_failed: 0.2, ..context(2) };
        let (result, out) = squares(&ctx, folder.path(), 9, |_, id| {
            anyhow::ensure!(id != 4, "still");
            Ok(())
        });
        result.unwrap();
        assert!(out.is_empty());
        assert_eq!(ctx.receipt().blocks.failed[0].reason, "still");
        let ctx = context(1);
        let (result, out) = squares(&ctx, folder.path(), 9, |_, _| Ok(()));
        result.unwrap();
        assert_eq!(out, BTreeMap::from([(4, 16)]));
        assert!(ctx.receipt().blocks.failed.is_empty());
    }
}

#[test]
fn a_full_disk_stops_the_run_which_can_be_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let (result, out) = squares(&context(2), folder.path(), 200, |at, id| {
        if at == "write" && id >= 5 {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC).into());
        }
        Ok(())
    });
    let error = anyhow::Error::from(result.unwrap_err());
    assert!(is_passing(error.as_ref()) && error.to_string().contains("--resume"), "{error}");
    let before: BTreeSet<usize> = out.into_keys().collect();
    assert!(before.is_subset(&(0..5).collect()), "{before:?}");
    let ctx = context(2);
    let (result, out) = squares(&ctx, folder.path(), 200, |_, _| Ok(()));
    result.unwrap();
    assert!((0..200).filter(|id| !before.contains(id)).eq(out.into_keys()));
    assert_eq!(ctx.receipt().blocks.done, 199, "the counts are of the whole output");
}

#[test]
fn memory_admits_few_tasks_at_once() {
    for (tasks_that_fit, threads) in [(1, 4), (3, 4), (1000, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let size = 1_u64 << 40; // so large that the memory of the process is negligible
        let memory = tasks_that_fit * size + (1 << 39);
        let ctx = Context { memory, ..context(threads) };
        let mut plan = plan(40);
        (plan.task, plan.waiting) = (Cost::from(size), size);
        let (held, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (computing, busiest) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let enter = |now: &AtomicUsize, most: &AtomicUsize| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        };
        plan.stream(
            &ctx,
            folder.path(),
            |_| {
                enter(&held, &most);
                Ok(())
            },
            |_, ()| {
                enter(&computing, &busiest);
                std::thread::sleep(Duration::from_millis(1));
                computing.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            },
            |_, ()| {
                held.fetch_sub(1, Ordering::SeqCst);
                Ok(Outcome::Done)
            },
        )
        .unwrap();
        let fit = (tasks_that_fit as usize).clamp(1, 4 * threads);
        assert!(most.into_inner() <= fit);
        assert!(busiest.into_inner() <= threads);
    }
}

#[test]
fn a_task_that_does_not_fit_is_refused_before_anything_is_read() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("ledger");
    let mut plan = plan(3);
    plan.task = Cost::bytes("voxels", 1 << 40);
    let read = |_: &Task| -> anyhow::Result<()> { panic!("it was read") };
    let done = plan.stream(&context(1), &folder, read, |_, ()| Ok(()), |_, ()| Ok(Outcome::Done));
    let message = done.unwrap_err().to_string();
    assert!(message.contains("--memory") && message.contains("1099512 MB"), "{message}");
    assert!(!folder.exists());
}

#[test]
fn no_more_threads_compute_than_are_given_whatever_tasks_do_in_parallel() {
    use rayon::prelude::*;
    for (tasks, threads, in_flight) in [(6, 3, 9), (2, 4, 2), (1, 3, 1), (5, 4, 1)] {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let busy = || {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            now.fetch_sub(1, Ordering::SeqCst);
        };
        let folder = tempfile::tempdir().unwrap();
        let size = 1_u64 << 40;
        let memory = in_flight * size + (1 << 39);
        let mut plan = plan(tasks);
        (plan.task, plan.waiting) = (Cost::from(size), size);
        let ctx = Context { memory, ..context(threads) };
        plan.stream(
            &ctx,
            folder.path(),
            |_| {
                busy();
                Ok(())
            },
            |_, ()| {
                (0..20).into_par_iter().for_each(|_| busy());
                Ok(())
            },
            |_, ()| {
                busy();
                Ok(Outcome::Done)
            },
        )
        .unwrap();
        let most = most.into_inner();
        assert!(most <= threads, "{most} of {threads}");
        assert!(tasks > 2 || in_flight > 2 || most > 1, "a lone task has all threads");
    }
}

#[test]
fn a_signal_lets_what_is_computed_be_written_and_nothing_be_begun() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = context(1);
    let (result, out) = squares(&ctx, folder.path(), 100, |at, id| {
        if at == "compute" && id == 7 {
            ctx.cancel.stop(libc::SIGTERM);
        }
        Ok(())
    });
    assert!(matches!(result, Err(Error::Interrupted { signal: libc::SIGTERM })));
    assert!(out.contains_key(&7) && out.len() < 100, "{out:?}");
    let entries = ledger::load(folder.path(), &plan(100)).unwrap();
    let known = (0..100).filter(|task| entries.contains(*task));
    assert!(known.eq(out.keys().copied()), "what is written is in the ledger, and no more");
    let (result, rest) = squares(&context(2), folder.path(), 100, |_, _| Ok(()));
    result.unwrap();
    assert_eq!(rest.len() + out.len(), 100);
}

#[test]
fn a_plan_runs_and_creates_nothing() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("ledger");
    let ctx = Context { plan_only: true, ..context(1) };
    let (result, out) = squares(&ctx, &folder, 5, |_, _| Ok(()));
    result.unwrap();
    assert!(out.is_empty() && !folder.exists() && !ctx.gathers());
    assert_eq!(ctx.receipt().plans[0]["tasks"], 5);
}

#[test]
fn a_second_pass_is_shared_by_finish_with_part_and_completed_by_finish() {
    let folder = tempfile::tempdir().unwrap();
    let second = |ctx: &Context| {
        let done = AtomicUsize::new(0);
        let write = |_: &Task, ()| {
            done.fetch_add(1, Ordering::SeqCst);
            Ok(Outcome::Done)
        };
        assert!(ctx.reaches_second_pass());
        plan(6).stream_second(ctx, folder.path(), |_| Ok(()), |_, ()| Ok(()), write).unwrap();
        (done.into_inner(), ctx.gathers(), ctx.receipt().blocks.done)
    };
    let part = Part { k: 1, n: 2 };
    assert!(!Context { part, ..context(1) }.reaches_second_pass());
    assert_eq!(second(&Context { part, finish: true, ..context(1) }), (3, false, 0));
    assert_eq!(second(&Context { finish: true, ..context(1) }), (3, true, 0));
    assert_eq!(second(&Context { existing: Existing::Refuse, ..context(1) }), (0, true, 0));
}

#[test]
fn a_block_that_fails_in_a_second_pass_is_never_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = Context { allow_failed: 1.0, ..context(1) };
    let read = |task: &Task| {
        anyhow::ensure!(task.id != 4, "chunk is damaged");
        Ok(())
    };
    let result =
        plan(6).stream_second(&ctx, folder.path(), read, |_, ()| Ok(()), |_, ()| Ok(Outcome::Done));
    assert!(matches!(result, Err(Error::TooManyFailed { failed: 1, total: 6, .. })));
    assert_eq!(ctx.receipt().blocks.failed[0].key, Key::Block([4, 0, 0]));
}

/// Streams tasks that write rows and a summary; returns the sum of the summaries and the rows, both
/// in task order.
fn reduced(ctx: &Context, folder: &Path) -> Result<(f64, Vec<u8>), Error> {
    let rows = TaskRows::new(folder);
    let results = plan(7).stream(
        ctx,
        folder,
        |task| Ok(task.id),
        |_, id| Ok(0.1 + 1.0 / (id as f64 + 3.0)),
        |_, number| {
            let stored = rows.write(format!("{number}\n").as_bytes())?;
            Ok(TaskResult::from(Outcome::Done).with_rows(stored).with_summary(&number)?)
        },
    )?;
    let mut sum = 0.0;
    for summary in results.summaries::<f64>() {
        sum += summary?.1;
    }
    let mut text = Vec::new();
    for task in plan(7).tasks().iter() {
        text.extend(rows.read(&task, &results)?.unwrap_or_default());
    }
    Ok((sum, text))
}

#[test]
fn summaries_of_the_whole_of_parts_and_of_a_ledger_cut_at_any_byte_reduce_to_the_same() {
    let whole = tempfile::tempdir().unwrap();
    let wanted = reduced(&context(2), whole.path()).unwrap();
    let parts = tempfile::tempdir().unwrap();
    for k in [3, 1, 2] {
        reduced(&Context { part: Part { k, n: 3 }, ..context(1) }, parts.path()).unwrap();
    }
    let finish = Context { finish: true, ..context(1) };
    assert_eq!(reduced(&finish, parts.path()).unwrap(), wanted);
    let ledger = ledger::files(whole.path(), "ledger-").unwrap().remove(0);
    let text = std::fs::read(&ledger).unwrap();
    for length in 0..=text.len() {
        std::fs::write(&ledger, &text[..length]).unwrap();
        let ctx = context(1);
        assert_eq!(reduced(&ctx, whole.path()).unwrap(), wanted, "cut at byte {length}");
        assert_eq!(ctx.receipt().blocks.done, 7);
        for more in ledger::files(whole.path(), "ledger-").unwrap() {
            if more != ledger {
                std::fs::remove_file(more).unwrap();
            }
        }
    }
}

#[test]
fn work_that_another_run_is_still_doing_is_shared_and_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refuse = || Context { existing: Existing::Refuse, ..context(1) };
    let first = refuse();
    squares(&first, folder.path(), 6, |_, _| Ok(())).0.unwrap();
    // the first run is active until its context is dropped
    squares(&refuse(), folder.path(), 6, |_, _| Ok(())).0.unwrap();
    drop(first);
    let (result, _) = squares(&refuse(), folder.path(), 6, |_, _| Ok(()));
    assert!(matches!(result, Err(Error::Exists { .. })), "{result:?}");
}

#[test]
fn two_processes_on_one_part_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let outs = std::thread::scope(|scope| {
        let one = scope.spawn(|| squares(&context(1), folder.path(), 50, |_, _| Ok(())));
        let two = scope.spawn(|| squares(&context(1), folder.path(), 50, |_, _| Ok(())));
        [one.join().unwrap(), two.join().unwrap()]
    });
    let mut all = BTreeMap::new();
    for (result, out) in outs {
        result.unwrap();
        all.extend(out);
    }
    assert_eq!(all.len(), 50);
    assert_eq!(ledger::load(folder.path(), &plan(50)).unwrap().len(), 50);
}

#[test]
fn a_fallback_is_remembered_with_its_reason_when_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let run = |ctx: &Context| {
        plan(4)
            .stream(
                ctx,
                folder.path(),
                |_| Ok(()),
                |_, ()| Ok(()),
                |_, ()| Ok(Outcome::Fallback("no match".into())),
            )
            .unwrap();
    };
    run(&context(1));
    let ctx = context(1);
    run(&ctx);
    assert_eq!(ctx.receipt().blocks.fallback, 4);
    assert!(ctx.receipt().verdict(0.5).unwrap_err().to_string().contains("no match"));
}

#[test]
fn what_was_done_while_an_input_went_away_is_done_again() {
    use crate::geom::Grid;
    use crate::volume::{Codec, Dtype, Format, Output, Select, Spec, Volume};
    let folder = tempfile::tempdir().unwrap();
    let location = folder.path().join("a.zarr").display().to_string();
    let grid = Grid::new([4, 4, 4], [1.0; 3], [0.0; 3]);
    let (dtype, codec, format) = (Dtype::U8, Codec::Raw, Format::Zarr3);
    let spec = Spec { grid, dtype, chunk: [4, 4, 2], shard: None, codec, format };
    let output = Output::create(&location, &spec, Existing::Refuse).unwrap();
    output.write(&grid.bounds(), &[7_u8; 64]).unwrap();
    let chunk = folder.path().join("a.zarr/0/c/0/0/1");
    let ledger = folder.path().join("ledger");
    let ctx = context(1);
    ctx.input(&Volume::open(&location, &Select::default()).unwrap());
    let (result, _) = squares(&ctx, &ledger, 5, |stage, task| {
        if stage == "compute" && task == 3 {
            std::fs::remove_file(&chunk).unwrap();
        }
        Ok(())
    });
    assert!(result.unwrap_err().to_string().contains("lost chunks"));
    // after the chunk is restored, a second run does all tasks again
    std::fs::write(&chunk, [7; 32]).unwrap();
    let ctx = context(1);
    ctx.input(&Volume::open(&location, &Select::default()).unwrap());
    let (result, out) = squares(&ctx, &ledger, 5, |_, _| Ok(()));
    result.unwrap();
    assert_eq!(out.len(), 5);
}
