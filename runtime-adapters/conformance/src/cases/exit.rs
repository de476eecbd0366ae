//! Cases 44 to 50: how a process ended is known, once and truly.

use std::time::Duration;

use futures_util::future::join;
use futures_util::{TryStreamExt as _, stream};
use wavetank_fixtures::{Program, Step, TestImage};
use wavetank_port::{Capability, ContainerStatus, ErrorClass, ExitCode, ListFilter, Signal};

use crate::bed::{Bed, CALL, bounded, ended_with};
use crate::check::{Answer, Check, holds, same};

/// Containers at a time where many are run; more only queue at the daemon.
pub const WIDTH: usize = 8;
/// Case 45's number of containers.
const STORM: u32 = 1_000;
/// A limit far below what the programs that eat memory take.
const LITTLE_MEMORY: u64 = 48 << 20;
/// Far above it, in MiB.
const MUCH_MEBIBYTES: u64 = 256;

/// 44
pub async fn codes(bed: &Bed<'_>) -> Check {
    for code in [0, 1, 50, 125, 126, 127, 128, 143, 255] {
        let spec = bed.tool(&format!("code-{code}"), &Program::exit(code));
        ended_with("it", bed.run(&spec).await?, code.into())?;
        let state = bed.inspect(&spec.id).await?;
        let recorded = state.exit.map(|exit| exit.code);
        same(
            "the recorded code",
            recorded,
            Some(ExitCode::Known(code.into())),
        )?;
    }
    let spec = bed.spec("killed", TestImage::Normal);
    bed.start_ready(&spec).await?;
    bed.runtime
        .kill(&spec.id, Signal::Kill, CALL)
        .await
        .works("kill")?;
    let exit = bed.wait(&spec.id).await?;
    ended_with("it", exit, 137)?;
    holds(!exit.oom_killed, || "137 alone is no lack of memory".into())
}

/// 45
pub async fn fast(bed: &Bed<'_>) -> Check {
    bed.pull(TestImage::Tool).await?;
    let watch = bed.watch().await?;
    let one = |number: u32| async move {
        let code = u8::try_from(number % 7).unwrap_or_default();
        let program = match number % 2 {
            0 => Program::exit(code),
            _ => Program::exit_after(5, code),
        };
        let spec = bed.tool(&number.to_string(), &program);
        let runtime = &bed.runtime;
        let id = &spec.id;
        runtime.create(&spec, CALL).await.works("create")?;
        runtime.start(id, CALL).await.works("start")?;
        ended_with(&id.0, bed.wait(id).await?, code.into())?;
        let recorded = bed.inspect(id).await?.exit.map(|exit| exit.code);
        same(&id.0, recorded, Some(ExitCode::Known(code.into())))?;
        runtime.delete(id, false, CALL).await.works("delete")
    };
    stream::iter((0..STORM).map(Ok))
        .try_for_each_concurrent(WIDTH, one)
        .await?;
    for number in 0..STORM {
        let id = bed.id(&number.to_string());
        watch.until_event(&id, "delete").await?;
        let expected = vec!["start", "exit", "delete"];
        same(&format!("the events of {id}"), watch.names(&id), expected)?;
    }
    let quiet = watch
        .events()
        .iter()
        .all(|event| event.name() != "interrupted");
    holds(quiet, || "the event stream was interrupted".to_owned())
}

/// 46
pub async fn waiters(bed: &Bed<'_>) -> Check {
    let spec = bed.tool("a", &Program::exit_after(300, 5));
    bed.create(&spec).await?;
    let id = &spec.id;
    // One waits from before the start, two while it runs, one afterwards.
    let later = async {
        bed.runtime.start(id, CALL).await.works("start")?;
        let (one, two) = join(bed.wait(id), bed.wait(id)).await;
        let exit = one?;
        same("two who wait", two?, exit)?;
        same("one who comes late", bed.wait(id).await?, exit)?;
        Check::Ok(exit)
    };
    let (early, exit) = join(bed.wait(id), later).await;
    let exit = exit?;
    same("one who came early", early?, exit)?;
    ended_with("it", exit, 5)?;
    let given_up = bed.spec("b", TestImage::Normal);
    bed.start_ready(&given_up).await?;
    let answer = bed.runtime.wait(&given_up.id, Duration::from_millis(200));
    answer
        .await
        .fails("wait for what goes on", &[ErrorClass::DeadlineExceeded])
        .map(|_| ())
}

/// 47
pub async fn removed(bed: &Bed<'_>) -> Check {
    let spec = bed.spec("a", TestImage::Normal);
    bed.start_ready(&spec).await?;
    let waiting = bed.runtime.wait(&spec.id, CALL * 2);
    let removing = async {
        // The wait is polled first, and has been sent when this goes on.
        tokio::time::sleep(Duration::from_millis(200)).await;
        bed.remove(&spec.id).await
    };
    let both = async {
        let (waited, removed) = join(waiting, removing).await;
        removed.map(|()| waited)
    };
    match bounded("wait for what is removed", both).await? {
        Ok(exit) => ended_with("what is removed by force", exit, 137)?,
        gone => {
            gone.fails("wait for what is removed", &[ErrorClass::NotFound])?;
        }
    }
    for id in [&spec.id, &bed.id("nobody")] {
        let answer = bed.runtime.wait(id, CALL).await;
        answer.fails("wait for nobody", &[ErrorClass::NotFound])?;
    }
    Ok(())
}

/// 48
pub async fn times(bed: &Bed<'_>) -> Check {
    let spec = bed.tool("a", &Program::exit_after(50, 5));
    let started = bed.start(&spec).await?.started_at;
    let exit = bed.wait(&spec.id).await?;
    let first = bed.inspect(&spec.id).await?;
    same("when it started", first.started_at, started)?;
    holds(started.is_some() && exit.exited_at >= started, || {
        format!("started {started:?} and ended {:?}", exit.exited_at)
    })?;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(30)).await;
        same(
            "its state later",
            bed.inspect(&spec.id).await?,
            first.clone(),
        )?;
        same("its listing", bed.list().await?, vec![first.clone()])?;
        same("its exit", Some(bed.wait(&spec.id).await?), first.exit)?;
    }
    Ok(())
}

/// 49
pub async fn out_of_memory(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::MemoryLimit)?;
    let limited = |name: &str, step, code| {
        let mut spec = bed.tool(name, &Program::of([step, Step::Exit(code)]));
        spec.memory_bytes_max = Some(LITTLE_MEMORY);
        spec
    };
    let eater = limited("eater", Step::EatMebibytes(MUCH_MEBIBYTES), 0);
    let exit = bed.run(&eater).await?;
    ended_with("what eats more than it may", exit, 137)?;
    if bed.support(Capability::OomReport) != wavetank_port::Support::Missing {
        holds(exit.oom_killed, || {
            format!("killed for memory, and not said so: {exit:?}")
        })?;
        let state = bed.inspect(&eater.id).await?;
        same("the recorded exit", state.exit, Some(exit))?;
    }
    let parent = limited("parent", Step::EatMebibytesInChild(MUCH_MEBIBYTES), 7);
    let exit = bed.run(&parent).await?;
    ended_with("the parent of what was killed", exit, 7)?;
    holds(!exit.oom_killed, || {
        format!("its child was killed for memory, not it: {exit:?}")
    })?;
    let modest = limited("modest", Step::EatMebibytes(1), 3);
    ended_with("what eats less than it may", bed.run(&modest).await?, 3)
}

/// 50
pub async fn stays_stopped(bed: &Bed<'_>) -> Check {
    let watch = bed.watch().await?;
    let stopped = bed.spec("stopped", TestImage::Normal);
    bed.start_ready(&stopped).await?;
    let stop = bed.runtime.stop(&stopped.id, CALL, CALL * 2).await;
    stop.works("stop")?;
    let failed = bed.tool("failed", &Program::exit(1));
    bed.run(&failed).await?;
    // A container that fails by itself and one that is killed may tempt a restart just as well.
    let killed = bed.spec("killed", TestImage::Normal);
    bed.start_ready(&killed).await?;
    bed.arm.kill_process(&killed.id).await?;
    bed.wait(&killed.id).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let marker = bed.tool("marker", &Program::exit(0));
    bed.run(&marker).await?;
    watch.until_event(&marker.id, "exit").await?;
    for spec in [&stopped, &failed, &killed] {
        let status = bed.inspect(&spec.id).await?.status;
        same(&spec.id.0, status, ContainerStatus::Exited)?;
        same(&spec.id.0, watch.names(&spec.id), vec!["start", "exit"])?;
    }
    let filter = ListFilter {
        status: Some(ContainerStatus::Running),
        ..ListFilter::default()
    };
    same("what runs", bed.list_where(filter).await?, Vec::new())
}
