//! Cases 16 to 21: a container comes into being, whole or not at all.

use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{
    ContainerId, ContainerSpec, ContainerStatus, ErrorClass, ListFilter, OutputStream, PullRequest,
    Signal,
};

use crate::bed::{Bed, CALL, ended_with};
use crate::check::{Answer, Check, holds, same};

/// 16
pub async fn valid(bed: &Bed<'_>) -> Check {
    let mut spec = bed.tool("a", &Program::exit(3));
    spec.labels = [("wavetank.test".to_owned(), "a b=c".to_owned())].into();
    let watch = bed.watch().await?;
    bed.create(&spec).await?;
    let state = bed.inspect(&spec.id).await?;
    same("the status", state.status, ContainerStatus::Created)?;
    same("the labels", &state.labels, &spec.labels)?;
    same("the image", &state.image, &spec.image)?;
    holds(
        state.pid.is_none() && state.started_at.is_none() && state.exit.is_none(),
        || format!("it has not run and has the state {state:?}"),
    )?;
    same("the listing", bed.list().await?, vec![state])?;
    let written = bed.log(&spec.id, OutputStream::Stdout).await?;
    same("its log", written.len(), 0)?;
    // Its process has not run until it is started: nothing was said of it, and now it runs.
    same("its events", watch.of(&spec.id), Vec::new())?;
    bed.runtime.start(&spec.id, CALL).await.works("start")?;
    ended_with("it", bed.wait(&spec.id).await?, 3)
}

/// 17
pub async fn duplicate(bed: &Bed<'_>) -> Check {
    let mut spec = bed.spec("a", TestImage::Normal);
    spec.labels = [("first".to_owned(), "yes".to_owned())].into();
    bed.create(&spec).await?;
    let mut other = bed.tool("a", &Program::exit(3));
    other.labels = [("second".to_owned(), "yes".to_owned())].into();
    bed.pull(TestImage::Tool).await?;
    let created = bed.inspect(&spec.id).await?;
    let answer = bed.runtime.create(&other, CALL).await;
    answer.fails("create of a taken id", &[ErrorClass::AlreadyExists])?;
    same("the first one", bed.inspect(&spec.id).await?, created)?;
    bed.runtime.start(&spec.id, CALL).await.works("start")?;
    bed.ready(&spec.id).await?;
    let running = bed.inspect(&spec.id).await?;
    let answer = bed.runtime.create(&other, CALL).await;
    answer.fails("create of a running id", &[ErrorClass::AlreadyExists])?;
    same("the first one", bed.inspect(&spec.id).await?, running)
}

/// 18
pub async fn invalid(bed: &Bed<'_>) -> Check {
    bed.pull(TestImage::Normal).await?;
    let long = "a".repeat(300);
    let before = all_ids(bed).await?;
    for id in ["", "a/b", "../a", "a b", "-a", "a\n", long.as_str()] {
        let mut spec = bed.spec("a", TestImage::Normal);
        spec.id = ContainerId(id.to_owned());
        refused(bed, &spec, &format!("create with the id {id:?}")).await?;
    }
    let mut spec = bed.spec("a", TestImage::Normal);
    spec.stop_signal = Some(Signal::Other(99));
    refused(bed, &spec, "create with the stop signal 99").await?;
    let mut spec = bed.spec("a", TestImage::Normal);
    spec.volumes = vec!["../up".to_owned()];
    refused(bed, &spec, "create with the volume `../up`").await?;
    same("the containers", all_ids(bed).await?, before)?;
    bed.create(&bed.spec("a", TestImage::Normal)).await
}

/// 19
pub async fn image_missing(bed: &Bed<'_>) -> Check {
    let spec = bed.tool("a", &Program::exit(3));
    let answer = bed.runtime.create(&spec, CALL).await;
    answer.fails("create without the image", &[ErrorClass::NotFound])?;
    bed.is_gone(&spec.id).await?;
    ended_with("it, with its image", bed.run(&spec).await?, 3)
}

/// 20
pub async fn changed_later(bed: &Bed<'_>) -> Check {
    let mut spec = bed.tool("a", &Program::exit(5));
    spec.labels = [("version".to_owned(), "1".to_owned())].into();
    bed.create(&spec).await?;
    let created = bed.inspect(&spec.id).await?;
    spec.command = Program::exit(6).command();
    spec.labels.insert("version".to_owned(), "2".to_owned());
    let answer = bed.runtime.create(&spec, CALL).await;
    answer.fails("create of a taken id", &[ErrorClass::AlreadyExists])?;
    same("its state", bed.inspect(&spec.id).await?, created.clone())?;
    bed.runtime.start(&spec.id, CALL).await.works("start")?;
    ended_with("what was created", bed.wait(&spec.id).await?, 5)?;
    let labels = bed.inspect(&spec.id).await?.labels;
    same("its labels", labels, created.labels)
}

/// 21
pub async fn fails_half_way(bed: &Bed<'_>) -> Check {
    let spec = bed.tool("a", &Program::exit(5));
    let pull = PullRequest::of(spec.image.clone());
    bed.runtime.pull(&pull, CALL).await.works("pull")?;
    let before = bed.arm.resources().await?;
    bed.arm.fail_next_create().await?;
    // A runtime whose create is lazy meets the failure when it starts the container.
    let mut answer = bed.runtime.create(&spec, CALL).await;
    if answer.is_ok() {
        answer = bed.runtime.start(&spec.id, CALL).await.map(|_| ());
        bed.remove(&spec.id).await?;
    }
    let error = answer.fails("create that fails half-way", &ErrorClass::ALL)?;
    holds(error.class != ErrorClass::AlreadyExists, || {
        format!("the failure is not about the id: {error}")
    })?;
    bed.is_gone(&spec.id).await?;
    bed.settles_to(&before).await?;
    ended_with("the same id again", bed.run(&spec).await?, 5)
}

async fn refused(bed: &Bed<'_>, spec: &ContainerSpec, what: &str) -> Check {
    let answer = bed.runtime.create(spec, CALL).await;
    answer
        .fails(what, &[ErrorClass::InvalidArgument])
        .map(|_| ())
}

async fn all_ids(bed: &Bed<'_>) -> Check<Vec<ContainerId>> {
    let everything = ListFilter::default();
    let all = bed.runtime.list(&everything, CALL).await.works("list")?;
    Ok(all.into_iter().map(|state| state.id).collect())
}
