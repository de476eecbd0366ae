//! Cases 54 and 55: what a runtime says by itself, in order, and what it says about gaps.

use futures_util::{TryStreamExt as _, stream};
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{Capability, ContainerStatus, RuntimeEvent};

use crate::bed::{Bed, CALL, ended_with};
use crate::cases::exit::WIDTH;
use crate::check::{Answer, Check, holds, same};
use crate::watch::Watch;

/// Case 54's number of containers; case 45 looks at the events of 1,000 more.
const CONTAINERS: u32 = 200;

/// 54
pub async fn order(bed: &Bed<'_>) -> Check {
    bed.pull(TestImage::Normal).await?;
    bed.pull(TestImage::Tool).await?;
    let watch = bed.watch().await?;
    let one = |number: u32| async move {
        let mut spec = bed.spec(&number.to_string(), TestImage::Normal);
        // A third each ends by itself, is stopped, or is deleted while it runs.
        if number.is_multiple_of(3) {
            spec = bed.tool(&number.to_string(), &Program::exit(1));
        }
        bed.runtime.create(&spec, CALL).await.works("create")?;
        bed.runtime.start(&spec.id, CALL).await.works("start")?;
        match number % 3 {
            0 => ended_with("it", bed.wait(&spec.id).await?, 1)?,
            1 => {
                bed.ready(&spec.id).await?;
                let stop = bed.runtime.stop(&spec.id, CALL, CALL * 2).await;
                stop.works("stop")?;
            }
            _ => {}
        }
        bed.remove(&spec.id).await
    };
    stream::iter((0..CONTAINERS).map(Ok))
        .try_for_each_concurrent(WIDTH, one)
        .await?;
    for number in 0..CONTAINERS {
        let id = bed.id(&number.to_string());
        watch.until_event(&id, "delete").await?;
        let expected = vec!["start", "exit", "delete"];
        same(&format!("the events of {id}"), watch.names(&id), expected)?;
    }
    Ok(())
}

/// 55
pub async fn resume(bed: &Bed<'_>) -> Check {
    let watch = bed.watch().await?;
    let before = bed.tool("before", &Program::exit(1));
    bed.run(&before).await?;
    watch.until_event(&before.id, "exit").await?;
    let Some(cursor) = watch.cursor() else {
        return holds(
            bed.support(Capability::EventReplay) != wavetank_port::Support::Full,
            || "events without a cursor".to_owned(),
        );
    };
    drop(watch);
    let during = bed.tool("during", &Program::exit(2));
    bed.run(&during).await?;
    let events = bed.runtime.events(Some(&cursor), CALL).await;
    let again = Watch::new(events.works("events since a cursor")?, bed.prefix());
    let after = bed.tool("after", &Program::exit(3));
    bed.run(&after).await?;
    again.until_event(&after.id, "exit").await?;
    same("the events before", again.names(&before.id), Vec::new())?;
    same(
        "the events after",
        again.names(&after.id),
        vec!["start", "exit"],
    )?;
    if bed.has(Capability::EventReplay) {
        same(
            "the events missed",
            again.names(&during.id),
            vec!["start", "exit"],
        )?;
    } else {
        let first = again.events().first().map(RuntimeEvent::name);
        same("the first event", first, Some("interrupted"))?;
    }
    // The truth is the listing, whatever was missed.
    let listed = bed.list().await?;
    let exited = listed.iter().all(|it| it.status == ContainerStatus::Exited);
    holds(listed.len() == 3 && exited, || {
        format!("not the truth: {listed:?}")
    })
}
