//! Cases 61 to 66: what surrounds a container dies, and the container's truth survives.

use std::time::Duration;

use futures_util::future::join;
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{
    Capability, ContainerState, ContainerStatus, ErrorClass, ExitCode, ListFilter,
};

use crate::bed::{Bed, CALL, bounded, ended_with};
use crate::check::{Answer, Check, broken, holds, same};

/// A deadline for calls that may not be answered at all.
const SHORT: Duration = Duration::from_secs(2);
/// What a call without anybody to answer it may fail with.
const NO_ANSWER: &[ErrorClass] = &[ErrorClass::Unavailable, ErrorClass::DeadlineExceeded];

/// 61
pub async fn restart(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::Daemon)?;
    let spec = bed.spec("a", TestImage::TrapsTerm);
    let state = bed.start_ready(&spec).await?;
    let waiting = bed.runtime.wait(&spec.id, CALL * 3);
    let rest = async {
        bed.arm.kill_daemon().await?;
        bed.arm.start_daemon().await?;
        bed.still_runs(&state).await?;
        bed.ready(&spec.id).await?;
        let stop = bed.runtime.stop(&spec.id, CALL, CALL * 2).await;
        match stop.works("stop")? {
            Some(exit) => ended_with("after the restart", exit, 7)?,
            None => return broken("stop of a running container knew no exit"),
        }
        bed.wait(&spec.id).await
    };
    let (waited, exit) = join(waiting, rest).await;
    let exit = exit?;
    match waited {
        Ok(waited) => same("a wait from before the restart", waited, exit),
        failed => failed
            .fails("a wait from before the restart", NO_ANSWER)
            .map(|_| ()),
    }
}

/// 62
pub async fn exit_unseen(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::Daemon)?;
    let watch = bed.watch().await?;
    let spec = bed.tool("a", &Program::exit_after(2_000, 42));
    let started = bed.start(&spec).await?.started_at;
    bed.arm.kill_daemon().await?;
    let listed = bed.runtime.list(&ListFilter::default(), SHORT).await;
    listed.fails("list without a daemon", NO_ANSWER)?;
    let inspected = bed.runtime.inspect(&spec.id, SHORT).await;
    inspected.fails("inspect without a daemon", NO_ANSWER)?;
    // Nobody is there who could announce the exit.
    tokio::time::sleep(Duration::from_secs(3)).await;
    bed.arm.start_daemon().await?;
    let exit = bed.wait(&spec.id).await?;
    ended_with("what ended unseen", exit, 42)?;
    holds(exit.exited_at >= started && started.is_some(), || {
        format!("started {started:?}, ended {:?}", exit.exited_at)
    })?;
    let state = bed.inspect(&spec.id).await?;
    same("the status", state.status, ContainerStatus::Exited)?;
    same("the recorded exit", state.exit, Some(exit))?;
    // A subscriber either gets the exit after all or learns that something is missing.
    watch
        .until("the exit, or that events are missing", |events| {
            let names = events.iter().map(wavetank_port::RuntimeEvent::name);
            names
                .into_iter()
                .any(|it| it == "exit" || it == "interrupted")
        })
        .await
}

/// 63
pub async fn reboot(bed: &Bed<'_>) -> Check {
    let running = bed.spec("running", TestImage::Normal);
    bed.start_ready(&running).await?;
    let exited = bed.tool("exited", &Program::exit(0));
    bed.run(&exited).await?;
    let created = bed.tool("created", &Program::exit(5));
    bed.create(&created).await?;
    bed.arm.reboot().await?;
    for spec in [&running, &exited, &created] {
        match bed.runtime.inspect(&spec.id, CALL).await {
            Ok(state) => {
                is_not_running(&state)?;
                if spec.id == running.id {
                    is_no_success(&state)?;
                }
                bed.remove(&spec.id).await?;
            }
            gone if bed.has(Capability::RecordsOutliveReboot) => {
                gone.works("inspect after a reboot")?;
            }
            gone => {
                gone.fails("inspect after a reboot", &[ErrorClass::NotFound])?;
            }
        }
        bed.is_gone(&spec.id).await?;
    }
    let again = bed.tool("running", &Program::exit(6));
    ended_with("the same id after a reboot", bed.run(&again).await?, 6)
}

/// 64
pub async fn monitor_killed(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::Monitor)?;
    let other = bed
        .start_ready(&bed.spec("other", TestImage::Normal))
        .await?;
    let spec = bed.spec("a", TestImage::Normal);
    let before = bed.start_ready(&spec).await?;
    bed.arm.kill_monitor(&spec.id).await?;
    let outlives = bed.has(Capability::OutlivesMonitor);
    if outlives {
        bed.still_runs(&before).await?;
        bed.arm.kill_process(&spec.id).await?;
    }
    let is_exited = || async {
        let state = bed.inspect(&spec.id).await?;
        Ok(state.status == ContainerStatus::Exited)
    };
    bed.until("its end is known", is_exited).await?;
    let state = bed.inspect(&spec.id).await?;
    is_no_success(&state)?;
    if outlives && bed.has(Capability::ExitCodeWithoutMonitor) {
        let code = state.exit.map(|exit| exit.code);
        same("its code", code, Some(ExitCode::Known(137)))?;
    }
    let exit = bounded("wait without a monitor", bed.wait(&spec.id)).await?;
    same("what wait says", Some(exit), state.exit)?;
    bed.remove(&spec.id).await?;
    bed.is_gone(&spec.id).await?;
    bed.still_runs(&other).await?;
    let again = bed.tool("a", &Program::exit(6));
    ended_with("the same id again", bed.run(&again).await?, 6)
}

/// 65
pub async fn monitor_hangs(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::Monitor)?;
    let spec = bed.spec("a", TestImage::Normal);
    bed.start_ready(&spec).await?;
    bed.arm.pause_monitor(&spec.id, true).await?;
    let about_it = async {
        let inspected = bed.runtime.inspect(&spec.id, SHORT).await;
        answered_or_late("inspect", inspected.map(|_| ()))?;
        let stopped = bed.runtime.stop(&spec.id, SHORT / 4, SHORT).await;
        answered_or_late("stop", stopped.map(|_| ()))?;
        let deleted = bed.runtime.delete(&spec.id, false, SHORT).await;
        answered_or_late("delete", deleted)
    };
    let about_others = async {
        let other = bed.tool("other", &Program::exit(4));
        ended_with("another container", bed.run(&other).await?, 4)?;
        bed.remove(&other.id).await?;
        bed.list().await
    };
    let both = async { Ok(join(about_it, about_others).await) };
    let (one, others) = bounded("calls while a monitor hangs", both).await?;
    one?;
    others?;
    bed.arm.pause_monitor(&spec.id, false).await?;
    let settled = || async {
        match bed.runtime.delete(&spec.id, true, CALL).await {
            Ok(()) => Ok(true),
            Err(error) => Ok(error.class == ErrorClass::NotFound),
        }
    };
    bed.until("it can be removed once its monitor goes on", settled)
        .await?;
    bed.is_gone(&spec.id).await
}

/// 66
pub async fn orphans(bed: &Bed<'_>) -> Check {
    let spec = bed.spec("a", TestImage::Normal);
    bed.start_ready(&spec).await?;
    bed.arm.orphan_record(&spec.id).await?;
    let is_exited = || async {
        let listed = bed.list().await?;
        match listed.iter().find(|state| state.id == spec.id) {
            Some(state) => Ok(state.status == ContainerStatus::Exited),
            None => broken("a record that nobody removed is not listed"),
        }
    };
    bed.until("its end is known", is_exited).await?;
    is_no_success(&bed.inspect(&spec.id).await?)?;
    bed.remove(&spec.id).await?;
    bed.is_gone(&spec.id).await?;
    let again = bed.tool("a", &Program::exit(6));
    ended_with("the same id again", bed.run(&again).await?, 6)
}

/// A call about what hangs may work, or be late; it may also find its object gone or going.
fn answered_or_late(what: &str, answer: Result<(), wavetank_port::RuntimeError>) -> Check {
    match answer {
        Ok(()) => Ok(()),
        failed => failed
            .fails(
                what,
                &[
                    ErrorClass::DeadlineExceeded,
                    ErrorClass::Unavailable,
                    ErrorClass::FailedPrecondition,
                    ErrorClass::NotFound,
                ],
            )
            .map(|_| ()),
    }
}

fn is_not_running(state: &ContainerState) -> Check {
    let running = matches!(
        state.status,
        ContainerStatus::Running | ContainerStatus::Paused
    );
    holds(!running, || format!("it cannot run, and is {state:?}"))
}

/// Whoever cannot know how a process ended says so; nobody guesses that all was well.
fn is_no_success(state: &ContainerState) -> Check {
    holds(
        state.exit.is_some_and(|exit| !exit.code.is_success()),
        || format!("it did not end well, and is {state:?}"),
    )
}
