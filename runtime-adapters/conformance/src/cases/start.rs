//! Cases 22 to 26: a created container's process begins, once.

use wavetank_fixtures::program::{ABSENT_PATH, NOT_EXECUTABLE_PATH};
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{Capability, ContainerStatus, ErrorClass};

use crate::bed::{Bed, CALL, ended_with};
use crate::check::{Answer, Check, holds, same};

/// 22
pub async fn created(bed: &Bed<'_>) -> Check {
    let spec = bed.spec("a", TestImage::Normal);
    let state = bed.start_ready(&spec).await?;
    same("the status", state.status, ContainerStatus::Running)?;
    holds(
        state.pid.is_some_and(|pid| pid > 0)
            && state.started_at.is_some_and(|at| at.0 > 0)
            && state.exit.is_none(),
        || format!("no process or no time in {state:?}"),
    )?;
    same("its state later", bed.inspect(&spec.id).await?, state)
}

/// 23
pub async fn running(bed: &Bed<'_>) -> Check {
    let spec = bed.spec("a", TestImage::Normal);
    let watch = bed.watch().await?;
    let state = bed.start_ready(&spec).await?;
    let answer = bed.runtime.start(&spec.id, CALL).await;
    answer.fails(
        "start of a running container",
        &[ErrorClass::FailedPrecondition],
    )?;
    bed.still_runs(&state).await?;
    bed.runtime
        .stop(&spec.id, CALL, CALL * 2)
        .await
        .works("stop")?;
    watch.until_event(&spec.id, "exit").await?;
    same("its events", watch.names(&spec.id), vec!["start", "exit"])
}

/// 24
pub async fn exited(bed: &Bed<'_>) -> Check {
    let spec = bed.tool("a", &Program::exit(5));
    let exit = bed.run(&spec).await?;
    let answer = bed.runtime.start(&spec.id, CALL).await;
    if bed.has(Capability::StartAgain) {
        answer.works("second start")?;
        return ended_with("the second run", bed.wait(&spec.id).await?, 5);
    }
    answer.fails(
        "start of an exited container",
        &[ErrorClass::FailedPrecondition],
    )?;
    let state = bed.inspect(&spec.id).await?;
    same("its exit", state.exit, Some(exit))
}

/// 25
pub async fn missing(bed: &Bed<'_>) -> Check {
    let answer = bed.runtime.start(&bed.id("nobody"), CALL).await;
    answer
        .fails("start of nobody", &[ErrorClass::NotFound])
        .map(|_| ())
}

/// 26
pub async fn bad_program(bed: &Bed<'_>) -> Check {
    let watch = bed.watch().await?;
    for (name, path) in [
        ("absent", ABSENT_PATH),
        ("not-executable", NOT_EXECUTABLE_PATH),
    ] {
        let mut spec = bed.spec(name, TestImage::Tool);
        spec.command = vec![path.to_owned()];
        bed.create(&spec).await?;
        let answer = bed.runtime.start(&spec.id, CALL).await;
        let what = format!("start of {path}");
        answer.fails(&what, &[ErrorClass::InvalidArgument])?;
        let state = bed.inspect(&spec.id).await?;
        holds(state.status != ContainerStatus::Running, || {
            format!("{path} runs: {state:?}")
        })?;
        bed.remove(&spec.id).await?;
        bed.is_gone(&spec.id).await?;
    }
    // What comes after them in the stream shows that no event about them is still on its way.
    let marker = bed.tool("marker", &Program::exit(0));
    bed.run(&marker).await?;
    watch.until_event(&marker.id, "exit").await?;
    for name in ["absent", "not-executable"] {
        let mut names = watch.names(&bed.id(name));
        names.retain(|name| *name != "delete");
        same("events of what never ran", names, Vec::new())?;
    }
    Ok(())
}
