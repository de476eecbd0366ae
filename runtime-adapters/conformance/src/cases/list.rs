//! Cases 56 and 57: a listing shows what there is, no less and no more.

use futures_util::{TryStreamExt as _, stream};
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{ContainerId, ContainerStatus, ErrorClass, ListFilter};

use crate::bed::{Bed, CALL};
use crate::cases::exit::WIDTH;
use crate::check::{Answer, Check, holds, same};

/// Case 57's number of containers that come and go.
const CONTAINERS: u32 = 50;

/// 56
pub async fn filters(bed: &Bed<'_>) -> Check {
    let labelled = |name: &str, role: &str| {
        let mut spec = bed.tool(name, &Program::exit(1));
        spec.labels = labels(&[("role", role), ("name", name)]);
        spec
    };
    bed.create(&labelled("aa", "web")).await?;
    bed.run(&labelled("ab", "web")).await?;
    bed.create(&labelled("b", "database")).await?;
    let mut normal = bed.spec("c", TestImage::Normal);
    normal.labels = labels(&[("role", "web")]);
    bed.start_ready(&normal).await?;
    let label = |pairs| ListFilter {
        labels: labels(pairs),
        ..ListFilter::default()
    };
    let status = |status| ListFilter {
        status: Some(status),
        ..ListFilter::default()
    };
    let prefix = |name| ListFilter {
        id_prefix: Some(bed.id(name).0),
        ..ListFilter::default()
    };
    selects(bed, ListFilter::default(), &["aa", "ab", "b", "c"]).await?;
    selects(bed, label(&[("role", "web")]), &["aa", "ab", "c"]).await?;
    selects(bed, label(&[("role", "web"), ("name", "ab")]), &["ab"]).await?;
    selects(bed, label(&[("role", "we")]), &[]).await?;
    selects(bed, label(&[("web", "role")]), &[]).await?;
    selects(bed, status(ContainerStatus::Created), &["aa", "b"]).await?;
    selects(bed, status(ContainerStatus::Running), &["c"]).await?;
    selects(bed, status(ContainerStatus::Exited), &["ab"]).await?;
    selects(bed, status(ContainerStatus::Paused), &[]).await?;
    selects(bed, prefix("a"), &["aa", "ab"]).await?;
    selects(bed, prefix("aa"), &["aa"]).await?;
    let all_three = ListFilter {
        labels: labels(&[("role", "web")]),
        status: Some(ContainerStatus::Exited),
        id_prefix: Some(bed.id("a").0),
    };
    selects(bed, all_three, &["ab"]).await?;
    resolves(bed).await
}

async fn resolves(bed: &Bed<'_>) -> Check {
    let found = bed.runtime.resolve(&bed.id("aa").0, CALL).await;
    same("the one", found.works("resolve")?.id, bed.id("aa"))?;
    let several = bed.runtime.resolve(&bed.id("a").0, CALL).await;
    several.fails("an ambiguous prefix", &[ErrorClass::InvalidArgument])?;
    let none = bed.runtime.resolve(&bed.id("zz").0, CALL).await;
    none.fails("a prefix of nobody", &[ErrorClass::NotFound])
        .map(|_| ())
}

/// 57
pub async fn while_they_vanish(bed: &Bed<'_>) -> Check {
    let stays = bed
        .start_ready(&bed.spec("stays", TestImage::Normal))
        .await?;
    bed.pull(TestImage::Tool).await?;
    let one = |number: u32| async move {
        let spec = bed.tool(&number.to_string(), &Program::exit(0));
        bed.runtime.create(&spec, CALL).await.works("create")?;
        if number.is_multiple_of(2) {
            bed.runtime.start(&spec.id, CALL).await.works("start")?;
        }
        bed.remove(&spec.id).await
    };
    let churn = stream::iter((0..CONTAINERS).map(Ok)).try_for_each_concurrent(WIDTH, one);
    let look = async {
        loop {
            let listed = bed.list().await?;
            let shown = listed.iter().any(|state| state.id == stays.id);
            holds(shown, || "a container that stays was left out".to_owned())?;
            let ordered = listed.is_sorted_by(|a, b| a.id < b.id);
            holds(ordered, || format!("doubled or out of order: {listed:?}"))?;
            // The others get a turn even where an answer costs no time.
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        done = churn => done?,
        failed = look => return failed,
    }
    selects(bed, ListFilter::default(), &["stays"]).await
}

fn labels(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

async fn selects(bed: &Bed<'_>, filter: ListFilter, names: &[&str]) -> Check {
    let what = format!("{filter:?}");
    let listed = bed.list_where(filter).await?;
    let found: Vec<ContainerId> = listed.into_iter().map(|state| state.id).collect();
    let expected: Vec<ContainerId> = names.iter().map(|name| bed.id(name)).collect();
    same(&what, found, expected)
}
