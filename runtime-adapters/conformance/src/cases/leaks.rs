//! Cases 67 to 70: nothing is left behind, nothing gets mixed up, nothing is half done.

use std::time::Duration;

use futures_util::{TryStreamExt as _, stream};
use wavetank_fixtures::{Output, Program, Step, TestImage};
use wavetank_port::{
    Capability, ContainerId, ContainerState, ErrorClass, Image, ListFilter, LogOptions,
    OutputStream, PullRequest, RuntimeError, Signal,
};

use crate::arm::Resources;
use crate::bed::{Bed, CALL, ended_with};
use crate::cases::exit::WIDTH;
use crate::check::{Answer, Check, broken, holds, same};

/// Case 67's number of lifecycles.
const CYCLES: u32 = 200;
/// Case 68's number of lifecycles, all at once.
const AT_ONCE: u32 = 50;
/// Lifecycles before the first count, so that what a runtime makes once and keeps is in it.
const WARM_UP: u32 = 8;

/// 67
pub async fn nothing_left(bed: &Bed<'_>) -> Check {
    for image in [TestImage::Tool, TestImage::Normal, TestImage::ForksChildren] {
        bed.pull(image).await?;
    }
    cycles(bed, 0..WARM_UP).await?;
    let before = bed.arm.resources().await?;
    holds(!before.is_empty(), || "the arm counts nothing".to_owned())?;
    cycles(bed, WARM_UP..WARM_UP + CYCLES).await?;
    same("the containers", bed.list().await?, Vec::new())?;
    bed.settles_to(&before).await
}

async fn cycles(bed: &Bed<'_>, numbers: std::ops::Range<u32>) -> Check {
    stream::iter(numbers.map(Ok))
        .try_for_each_concurrent(WIDTH, |number| cycle(bed, number))
        .await
}

/// One life of one of four kinds: by itself, stopped, killed with children, never started.
async fn cycle(bed: &Bed<'_>, number: u32) -> Check {
    let name = number.to_string();
    let runtime = &bed.runtime;
    let spec = match number % 4 {
        0 | 3 => bed.tool(&name, &Program::exit(0)),
        1 => bed.spec(&name, TestImage::Normal),
        _ => bed.spec(&name, TestImage::ForksChildren),
    };
    runtime.create(&spec, CALL).await.works("create")?;
    if number % 4 != 3 {
        runtime.start(&spec.id, CALL).await.works("start")?;
    }
    match number % 4 {
        0 => ended_with("it", bed.wait(&spec.id).await?, 0)?,
        1 => {
            let grace = Duration::from_millis(500);
            let stop = runtime.stop(&spec.id, grace, CALL).await;
            stop.works("stop")?;
        }
        _ => {}
    }
    let force = number % 4 == 2;
    runtime.delete(&spec.id, force, CALL).await.works("delete")
}

/// 68
pub async fn no_crosstalk(bed: &Bed<'_>) -> Check {
    bed.pull(TestImage::Tool).await?;
    let one = |number: u32| async move {
        let code = u8::try_from(number).unwrap_or_default();
        let name = format!("n{number:02}");
        let steps = [
            Step::Write(Output::Stdout, name.clone()),
            Step::SleepMs(100),
            Step::Exit(code),
        ];
        let mut spec = bed.tool(&name, &Program::of(steps));
        spec.labels = [("own".to_owned(), name.clone())].into();
        bed.runtime.create(&spec, CALL * 3).await.works("create")?;
        bed.runtime.start(&spec.id, CALL * 3).await.works("start")?;
        let exit = bed.runtime.wait(&spec.id, CALL * 3).await.works("wait")?;
        ended_with(&name, exit, code.into())?;
        let state = bed.runtime.inspect(&spec.id, CALL * 3).await;
        same("the labels", state.works("inspect")?.labels, spec.labels)?;
        let written = log_of_one(bed, &spec.id).await?;
        same("the log", written, name.into_bytes())?;
        let delete = bed.runtime.delete(&spec.id, false, CALL * 3).await;
        delete.works("delete")
    };
    stream::iter((0..AT_ONCE).map(Ok))
        .try_for_each_concurrent(None, one)
        .await?;
    same("the containers", bed.list().await?, Vec::new())
}

/// What one of many has written to its output, with as much time as their other calls have.
async fn log_of_one(bed: &Bed<'_>, id: &ContainerId) -> Check<Vec<u8>> {
    let (options, within) = (LogOptions::default(), CALL * 3);
    let log = bed.runtime.logs(id, &options, within).await;
    let mut log = log.works("logs")?;
    let mut written = Vec::new();
    let read = async {
        while let Some(chunk) = log.next().await.works("reading a log")? {
            if chunk.stream == OutputStream::Stdout {
                written.extend_from_slice(&chunk.bytes);
            }
        }
        Ok(written)
    };
    match tokio::time::timeout(within, read).await {
        Ok(found) => found,
        Err(_) => broken(format!("not within {within:?}: the log of {id} ends")),
    }
}

/// 69
pub async fn namespaces(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::Namespaces)?;
    let other = bed.arm.other_namespace().await?;
    let spec = bed.spec("a", TestImage::Normal);
    let state = bed.start_ready(&spec).await?;
    let listed = other.list(&ListFilter::default(), CALL).await;
    same("the other's containers", listed.works("list")?, Vec::new())?;
    let not_there = &[ErrorClass::NotFound];
    let answer = other.inspect(&spec.id, CALL).await;
    answer.fails("inspect from elsewhere", not_there)?;
    let answer = other.kill(&spec.id, Signal::Kill, CALL).await;
    answer.fails("kill from elsewhere", not_there)?;
    let answer = other.stop(&spec.id, Duration::ZERO, CALL).await;
    answer.fails("stop from elsewhere", not_there)?;
    let answer = other.delete(&spec.id, true, CALL).await;
    answer.fails("delete from elsewhere", not_there)?;
    // The same id means another container there.
    let mut theirs = bed.tool("a", &Program::exit(3));
    theirs.labels = [("whose".to_owned(), "theirs".to_owned())].into();
    let pull = PullRequest::of(theirs.image.clone());
    other.pull(&pull, CALL).await.works("pull elsewhere")?;
    other
        .create(&theirs, CALL)
        .await
        .works("create elsewhere")?;
    other
        .start(&theirs.id, CALL)
        .await
        .works("start elsewhere")?;
    let exit = other.wait(&theirs.id, CALL).await.works("wait elsewhere")?;
    ended_with("theirs", exit, 3)?;
    bed.still_runs(&state).await?;
    other
        .delete(&theirs.id, true, CALL)
        .await
        .works("delete elsewhere")?;
    bed.still_runs(&state).await
}

/// 70
pub async fn errors_change_nothing(bed: &Bed<'_>) -> Check {
    let running = bed.spec("running", TestImage::Normal);
    bed.start_ready(&running).await?;
    let created = bed.tool("created", &Program::exit(0));
    bed.create(&created).await?;
    let exited = bed.tool("exited", &Program::exit(5));
    bed.run(&exited).await?;
    let nobody = bed.id("nobody");
    let before = everything(bed).await?;
    for id in [&running.id, &exited.id] {
        let answer = bed.runtime.start(id, CALL).await;
        if id == &running.id || !bed.has(Capability::StartAgain) {
            failed("start", answer)?;
        }
    }
    for spec in [&running, &created, &exited] {
        failed("create again", bed.runtime.create(spec, CALL).await)?;
    }
    let absent = PullRequest::of(bed.arm.images().missing_image());
    failed("pull", bed.runtime.pull(&absent, CALL).await)?;
    let mut imageless = bed.spec("imageless", TestImage::Normal);
    imageless.image = bed.arm.images().missing_image();
    failed("create", bed.runtime.create(&imageless, CALL).await)?;
    let answer = bed.runtime.delete(&running.id, false, CALL).await;
    failed("delete", answer)?;
    let bad = Signal::Other(0);
    failed("kill", bed.runtime.kill(&running.id, bad, CALL).await)?;
    for id in [&created.id, &exited.id, &nobody] {
        failed("kill", bed.runtime.kill(id, Signal::Kill, CALL).await)?;
        failed("pause", bed.runtime.pause(id, CALL).await)?;
        failed("stats", bed.runtime.stats(id, CALL).await)?;
    }
    for id in [&running.id, &created.id, &exited.id, &nobody] {
        failed("resume", bed.runtime.resume(id, CALL).await)?;
    }
    let grace = Duration::ZERO;
    failed("stop", bed.runtime.stop(&nobody, grace, CALL).await)?;
    failed("delete", bed.runtime.delete(&nobody, true, CALL).await)?;
    failed("start", bed.runtime.start(&nobody, CALL).await)?;
    failed("wait", bed.runtime.wait(&nobody, CALL).await)?;
    let after = everything(bed).await?;
    same("containers", after.containers, before.containers)?;
    same("images", after.images, before.images)?;
    bed.settles_to(&before.resources).await
}

/// What an outsider can see.
struct Everything {
    containers: Vec<ContainerState>,
    images: Vec<Image>,
    resources: Resources,
}

async fn everything(bed: &Bed<'_>) -> Check<Everything> {
    Ok(Everything {
        containers: bed.list().await?,
        images: bed.runtime.images(CALL).await.works("images")?,
        resources: bed.arm.resources().await?,
    })
}

fn failed<T: std::fmt::Debug>(what: &str, answer: Result<T, RuntimeError>) -> Check {
    let any = ErrorClass::ALL;
    answer.fails(&format!("{what}, which must fail"), &any)?;
    Ok(())
}
