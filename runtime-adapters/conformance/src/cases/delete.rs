//! Cases 39 to 43: a container goes, with all that is its own and nothing else.

use wavetank_fixtures::{Program, Step, TestImage};
use wavetank_port::{ContainerStatus, ErrorClass, OutputStream};

use crate::bed::{Bed, CALL, ended_with};
use crate::check::{Answer, Check, holds, same};

/// 39
pub async fn running(bed: &Bed<'_>) -> Check {
    let state = bed.start_ready(&bed.spec("a", TestImage::Normal)).await?;
    let answer = bed.runtime.delete(&state.id, false, CALL).await;
    answer.fails(
        "delete of a running container",
        &[ErrorClass::FailedPrecondition],
    )?;
    bed.still_runs(&state).await
}

/// 40
pub async fn running_by_force(bed: &Bed<'_>) -> Check {
    // Once before the count, so that what a runtime makes once and keeps is in it.
    bed.run(&bed.tool("first", &Program::exit(0))).await?;
    bed.remove(&bed.id("first")).await?;
    let spec = bed.spec("a", TestImage::ForksChildren);
    bed.create(&spec).await?;
    bed.remove(&spec.id).await?;
    let before = bed.arm.resources().await?;
    bed.start_ready(&spec).await?;
    let delete = bed.runtime.delete(&spec.id, true, CALL).await;
    delete.works("delete by force")?;
    bed.is_gone(&spec.id).await?;
    let answer = bed.runtime.wait(&spec.id, CALL).await;
    answer.fails("wait for what is gone", &[ErrorClass::NotFound])?;
    // Its processes are dead as well: each is a resource.
    bed.settles_to(&before).await
}

/// 41
pub async fn others(bed: &Bed<'_>) -> Check {
    let created = bed.tool("created", &Program::exit(5));
    bed.create(&created).await?;
    let exited = bed.tool("exited", &Program::exit(5));
    bed.run(&exited).await?;
    for spec in [created, exited] {
        let delete = bed.runtime.delete(&spec.id, false, CALL).await;
        delete.works(&format!("delete of {}", spec.id))?;
        bed.is_gone(&spec.id).await?;
        for force in [false, true] {
            let again = bed.runtime.delete(&spec.id, force, CALL).await;
            again.fails("delete of what is gone", &[ErrorClass::NotFound])?;
        }
    }
    Ok(())
}

/// 42
pub async fn only_its_own(bed: &Bed<'_>) -> Check {
    let path = "/volumes/shared/kept";
    let with_volume = |name: &str, program: &Program| {
        let mut spec = bed.tool(name, program);
        spec.volumes = vec!["shared".to_owned()];
        spec
    };
    let write = Step::WriteFile(path.to_owned(), "kept".to_owned());
    let writer = with_volume("writer", &Program::of([write]));
    ended_with("the writer", bed.run(&writer).await?, 0)?;
    let neighbour = bed
        .start_ready(&bed.spec("neighbour", TestImage::Normal))
        .await?;
    let created = bed.tool("created", &Program::exit(0));
    bed.create(&created).await?;
    bed.remove(&writer.id).await?;
    bed.still_runs(&neighbour).await?;
    let state = bed.inspect(&created.id).await?;
    same(
        "a neighbour's status",
        state.status,
        ContainerStatus::Created,
    )?;
    let reader = with_volume("reader", &Program::of([Step::Cat(path.to_owned())]));
    ended_with("the reader", bed.run(&reader).await?, 0)?;
    let read = bed.log(&reader.id, OutputStream::Stdout).await?;
    same(
        "the volume's file",
        String::from_utf8_lossy(&read).into_owned(),
        "kept".to_owned(),
    )
}

/// 43
pub async fn id_again(bed: &Bed<'_>) -> Check {
    for round in 1..=3_u8 {
        let mut spec = bed.tool("a", &Program::exit(round));
        spec.labels = [(format!("round-{round}"), "yes".to_owned())].into();
        bed.create(&spec).await?;
        let state = bed.inspect(&spec.id).await?;
        same("the labels", &state.labels, &spec.labels)?;
        holds(
            state.status == ContainerStatus::Created && state.exit.is_none(),
            || format!("a new container that begins as {state:?}"),
        )?;
        bed.runtime.start(&spec.id, CALL).await.works("start")?;
        ended_with("it", bed.wait(&spec.id).await?, round.into())?;
        let delete = bed.runtime.delete(&spec.id, false, CALL).await;
        delete.works("delete")?;
    }
    Ok(())
}
