//! Cases 27 to 38: a process is asked to end, or made to.

use std::time::Duration;

use futures_util::future::join;
use tokio::time::Instant;
use wavetank_fixtures::program::SIGUSR1;
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{
    Capability, ContainerSpec, ContainerStatus, ErrorClass, ExitStatus, RuntimeEvent, Signal,
};

use crate::bed::{Bed, CALL, bounded, ended_with};
use crate::check::{Answer, Check, broken, holds, same};

/// More than any program here needs to end by itself.
const AMPLE: Duration = Duration::from_secs(15);
/// A grace that is meant to run out.
const BRIEF: Duration = Duration::from_secs(1);
/// A grace that does not run out while anything is looked at, even if the machine stands still for
/// seconds, and that can be outwaited.
const LASTING: Duration = Duration::from_secs(10);
/// A grace of which no case sees the end.
const ENDLESS: Duration = Duration::from_secs(600);

/// 27
pub async fn obeys(bed: &Bed<'_>) -> Check {
    for (name, image, code) in [
        ("normal", TestImage::Normal, 0),
        ("traps", TestImage::TrapsTerm, 7),
    ] {
        let spec = bed.spec(name, image);
        bed.start_ready(&spec).await?;
        // Not 137: it has ended by itself, within its grace.
        let exit = stop(bed, &spec, AMPLE).await?;
        ended_with(name, exit, code)?;
        let state = bed.inspect(&spec.id).await?;
        same("the status", state.status, ContainerStatus::Exited)?;
        same("the recorded exit", state.exit, Some(exit))?;
    }
    Ok(())
}

/// 28
pub async fn ignores(bed: &Bed<'_>) -> Check {
    let stubborn = bed.spec("stubborn", TestImage::IgnoresTerm);
    bed.start_ready(&stubborn).await?;
    let meanwhile = async {
        let exit = bed.run(&bed.tool("other", &Program::exit(4))).await?;
        ended_with("another container", exit, 4)?;
        bed.remove(&bed.id("other")).await?;
        let state = bed.inspect(&stubborn.id).await?;
        same("its status", state.status, ContainerStatus::Running)
    };
    let patient = bed.runtime.stop(&stubborn.id, ENDLESS, ENDLESS + CALL);
    // However long the calls take, the grace is longer: then that stop is given up.
    tokio::select! {
        biased;
        exit = patient => return broken(format!("stopped before its grace was over: {exit:?}")),
        done = meanwhile => done?,
    }
    let began = Instant::now();
    ended_with("it", stop(bed, &stubborn, BRIEF).await?, 137)?;
    holds(began.elapsed() >= BRIEF, || {
        format!("stopped before its grace was over: {:?}", began.elapsed())
    })
}

/// 29
pub async fn extreme_graces(bed: &Bed<'_>) -> Check {
    let hurried = bed.spec("hurried", TestImage::TrapsTerm);
    bed.start_ready(&hurried).await?;
    let exit = stop(bed, &hurried, Duration::ZERO).await?;
    ended_with("with no grace at all", exit, 137)?;
    let patient = bed.spec("patient", TestImage::TrapsTerm);
    bed.start_ready(&patient).await?;
    let exit = stop(bed, &patient, Duration::MAX).await?;
    ended_with("with all the time in the world", exit, 7)
}

/// 30
pub async fn not_running(bed: &Bed<'_>) -> Check {
    let spec = bed.tool("exited", &Program::exit(5));
    let exit = bed.run(&spec).await?;
    for _ in 0..2 {
        let again = bed.runtime.stop(&spec.id, BRIEF, CALL).await;
        same(
            "stop of an exited container",
            again.works("stop")?,
            Some(exit),
        )?;
    }
    let created = bed.tool("created", &Program::exit(5));
    bed.create(&created).await?;
    let never = bed.runtime.stop(&created.id, BRIEF, CALL).await;
    same("stop of what never ran", never.works("stop")?, None)?;
    let nobody = bed.runtime.stop(&bed.id("nobody"), BRIEF, CALL).await;
    nobody
        .fails("stop of nobody", &[ErrorClass::NotFound])
        .map(|_| ())
}

/// 31
pub async fn stop_cancelled(bed: &Bed<'_>) -> Check {
    let spec = bed.spec("a", TestImage::IgnoresTerm);
    let state = bed.start_ready(&spec).await?;
    let cancelled = bed.runtime.stop(&spec.id, LASTING, LASTING + CALL);
    let given_up = tokio::time::timeout(BRIEF / 2, cancelled).await;
    holds(given_up.is_err(), || {
        format!("the stop answered within its grace: {given_up:?}")
    })?;
    // Nothing announces that no kill will come: outwait the grace that nobody waits for.
    tokio::time::sleep(LASTING + BRIEF).await;
    bed.still_runs(&state).await?;
    ended_with("a later stop", stop(bed, &spec, BRIEF).await?, 137)
}

/// 32
pub async fn stop_signal(bed: &Bed<'_>) -> Check {
    let from_image = bed.spec("image", TestImage::CustomStopSignal);
    bed.start_ready(&from_image).await?;
    let exit = stop(bed, &from_image, AMPLE).await?;
    ended_with("with the image's stop signal", exit, 21)?;
    let mut from_spec = bed.tool("spec", &Program::until_signal(SIGUSR1, 22));
    from_spec.stop_signal = Some(Signal::Other(SIGUSR1));
    bed.start_ready(&from_spec).await?;
    let exit = stop(bed, &from_spec, AMPLE).await?;
    ended_with("with the spec's stop signal", exit, 22)?;
    let mut overruled = bed.spec("overruled", TestImage::CustomStopSignal);
    overruled.stop_signal = Some(Signal::Terminate);
    bed.start_ready(&overruled).await?;
    let exit = stop(bed, &overruled, BRIEF).await?;
    ended_with("with a stop signal that it ignores", exit, 137)
}

/// 33
pub async fn kill(bed: &Bed<'_>) -> Check {
    for (name, image, signal, code) in [
        ("term", TestImage::TrapsTerm, Signal::Terminate, 7),
        (
            "usr1",
            TestImage::CustomStopSignal,
            Signal::Other(SIGUSR1),
            21,
        ),
        ("kill", TestImage::IgnoresTerm, Signal::Kill, 137),
    ] {
        let spec = bed.spec(name, image);
        let state = bed.start_ready(&spec).await?;
        if name == "kill" {
            let ignored = bed.runtime.kill(&spec.id, Signal::Terminate, CALL).await;
            ignored.works("a signal that is ignored")?;
            bed.still_runs(&state).await?;
        }
        let killed = bed.runtime.kill(&spec.id, signal, CALL).await;
        killed.works(&format!("kill with {signal:?}"))?;
        ended_with(name, bed.wait(&spec.id).await?, code)?;
    }
    Ok(())
}

/// 34
pub async fn invalid_signal(bed: &Bed<'_>) -> Check {
    let state = bed.start_ready(&bed.spec("a", TestImage::Normal)).await?;
    for number in [0, 65, 255] {
        let answer = bed.runtime.kill(&state.id, Signal::Other(number), CALL);
        let what = format!("signal {number}");
        answer.await.fails(&what, &[ErrorClass::InvalidArgument])?;
        bed.still_runs(&state).await?;
    }
    Ok(())
}

/// 35
pub async fn kill_dead(bed: &Bed<'_>) -> Check {
    let exited = bed.tool("exited", &Program::exit(5));
    let exit = bed.run(&exited).await?;
    let killed = bed.spec("killed", TestImage::Normal);
    bed.start_ready(&killed).await?;
    bed.arm.kill_process(&killed.id).await?;
    bed.wait(&killed.id).await?;
    for id in [&exited.id, &killed.id, &bed.id("nobody")] {
        for signal in [Signal::Kill, Signal::Terminate] {
            let what = format!("{signal:?} to {id}, which does not run");
            let answer = bed.runtime.kill(id, signal, CALL).await;
            answer.fails(&what, &[ErrorClass::NotFound])?;
        }
    }
    let state = bed.inspect(&exited.id).await?;
    same("the recorded exit", state.exit, Some(exit))
}

/// 36
pub async fn kill_created(bed: &Bed<'_>) -> Check {
    let spec = bed.tool("a", &Program::exit(5));
    bed.create(&spec).await?;
    for signal in [Signal::Terminate, Signal::Kill] {
        let answer = bed.runtime.kill(&spec.id, signal, CALL).await;
        answer.fails("kill of what never ran", &[ErrorClass::FailedPrecondition])?;
    }
    let state = bed.inspect(&spec.id).await?;
    same("the status", state.status, ContainerStatus::Created)?;
    bed.runtime.start(&spec.id, CALL).await.works("start")?;
    ended_with("it", bed.wait(&spec.id).await?, 5)
}

/// 37
pub async fn kill_paused(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::Pause)?;
    let thawed = bed.spec("thawed", TestImage::Normal);
    pause(bed, &thawed).await?;
    // A signal that can be handled waits until the process can handle it.
    let asked = bed.runtime.kill(&thawed.id, Signal::Terminate, CALL).await;
    let state = bed.inspect(&thawed.id).await?;
    same("the status", state.status, ContainerStatus::Paused)?;
    let resumed = bed.runtime.resume(&thawed.id, CALL).await;
    resumed.works("resume")?;
    match asked {
        Ok(()) => ended_with("once resumed", bed.wait(&thawed.id).await?, 0)?,
        refused => {
            refused.fails(
                "SIGTERM to a paused container",
                &[ErrorClass::FailedPrecondition],
            )?;
            ended_with("once resumed", stop(bed, &thawed, AMPLE).await?, 0)?;
        }
    }
    let frozen = bed.spec("frozen", TestImage::Normal);
    pause(bed, &frozen).await?;
    match bed.runtime.kill(&frozen.id, Signal::Kill, CALL).await {
        Ok(()) => ended_with("a paused container", bed.wait(&frozen.id).await?, 137),
        refused => refused
            .fails(
                "SIGKILL to a paused container",
                &[ErrorClass::FailedPrecondition],
            )
            .map(|_| ()),
    }
}

async fn pause(bed: &Bed<'_>, spec: &ContainerSpec) -> Check {
    bed.start_ready(spec).await?;
    bed.runtime.pause(&spec.id, CALL).await.works("pause")?;
    let state = bed.inspect(&spec.id).await?;
    same("the status", state.status, ContainerStatus::Paused)
}

/// 38
pub async fn kill_and_stop(bed: &Bed<'_>) -> Check {
    let watch = bed.watch().await?;
    for round in 0..5 {
        let spec = bed.spec(&format!("round-{round}"), TestImage::TrapsTerm);
        bed.start_ready(&spec).await?;
        let both = join(
            stop(bed, &spec, AMPLE),
            bed.runtime.kill(&spec.id, Signal::Kill, CALL),
        );
        let (stopped, killed) = bounded("stop and kill together", async { Ok(both.await) }).await?;
        if killed.is_err() {
            killed.fails("a kill that came second", &[ErrorClass::NotFound])?;
        }
        let stopped = stopped?;
        same("what wait says", bed.wait(&spec.id).await?, stopped)?;
        let state = bed.inspect(&spec.id).await?;
        same("what inspect says", state.exit, Some(stopped))?;
        bed.remove(&spec.id).await?;
        watch.until_event(&spec.id, "delete").await?;
        let mut exits = watch.of(&spec.id);
        exits.retain(|event| event.name() == "exit");
        let id = spec.id.clone();
        let exit = RuntimeEvent::Exited { id, exit: stopped };
        same("the exit events", exits, vec![exit])?;
    }
    Ok(())
}

/// Stops a running container and says how it ended.
async fn stop(bed: &Bed<'_>, spec: &ContainerSpec, grace: Duration) -> Check<ExitStatus> {
    let stopped = bed.runtime.stop(&spec.id, grace, AMPLE + CALL).await;
    match stopped.works("stop")? {
        Some(exit) => Ok(exit),
        None => broken("stop of a running container knew no exit"),
    }
}
