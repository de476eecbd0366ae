//! Cases 1 to 15: images come from a registry, are listed, and go.

use std::time::Duration;

use futures_util::future::{join, join_all};
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{
    Capability, ContainerStatus, Credentials, ErrorClass, ImageReference, PullPolicy, PullRequest,
};

use crate::arm::RegistryFault;
use crate::bed::{Bed, CALL, bounded, ended_with};
use crate::check::{Answer, Check, broken, holds, same};

/// A deadline that a registry that hangs cannot meet.
const SHORT: Duration = Duration::from_secs(2);
/// Longer than any deadline here.
const VERY_SLOW: Duration = Duration::from_secs(300);
/// Less than any layer of a test image has.
const FEW_BYTES: u64 = 1_000;

/// 1
pub async fn by_tag(bed: &Bed<'_>) -> Check {
    let pulled = bed.pull(TestImage::Normal).await?;
    let name = bed.arm.images().image(TestImage::Normal);
    same("the image's name", &pulled.reference, &name)?;
    let hex = pulled.digest.strip_prefix("sha256:").unwrap_or_default();
    holds(
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
        || format!("not a digest: {}", pulled.digest),
    )?;
    let by_digest = bed.arm.images().image_by_digest(TestImage::Normal);
    holds(by_digest.0.ends_with(&pulled.digest), || {
        format!(
            "the registry has {by_digest}, the pull said {}",
            pulled.digest
        )
    })
}

/// 2
pub async fn without_tag(bed: &Bed<'_>) -> Check {
    let tagged = bed.arm.images().image(TestImage::Normal);
    let request = PullRequest::of(untagged(&tagged));
    let pulled = bed.runtime.pull(&request, CALL).await.works("pull")?;
    let latest = ImageReference(format!("{}:latest", request.image));
    same("the image's name", &pulled.reference, &latest)?;
    let listed = bed.images().await?;
    holds(listed.contains(&latest), || {
        format!("{latest} is not among {listed:?}")
    })?;
    // The arm's registry serves one content under both tags.
    let by_tag = bed.pull(TestImage::Normal).await?;
    same("the digest", by_tag.digest, pulled.digest)
}

/// 3
pub async fn by_digest(bed: &Bed<'_>) -> Check {
    let request = PullRequest::of(bed.arm.images().image_by_digest(TestImage::Normal));
    let pulled = bed.runtime.pull(&request, CALL).await.works("pull")?;
    same("the image's name", &pulled.reference, &request.image)?;
    let mut spec = bed.spec("a", TestImage::Normal);
    spec.image = request.image;
    let state = bed.start_ready(&spec).await?;
    same("the container's image", state.image, spec.image)?;
    let by_tag = bed.pull(TestImage::Normal).await?;
    same("the digest", by_tag.digest, pulled.digest)
}

/// 4
pub async fn twice(bed: &Bed<'_>) -> Check {
    let first = bed.pull(TestImage::Normal).await?;
    let images = bed.images().await?;
    let fetched = bed.arm.images().blob_requests(TestImage::Normal);
    let second = bed.pull(TestImage::Normal).await?;
    same("the second pull", second, first.clone())?;
    let always = request(bed, TestImage::Normal, PullPolicy::Always);
    let third = bed.runtime.pull(&always, CALL).await.works("pull")?;
    same("the third pull", third, first)?;
    same("the images", bed.images().await?, images)?;
    let now = bed.arm.images().blob_requests(TestImage::Normal);
    same("blobs fetched", now, fetched)
}

/// 5
pub async fn missing(bed: &Bed<'_>) -> Check {
    let absent = bed.arm.images().missing_image();
    let no_tag = untagged(&bed.arm.images().image(TestImage::Normal));
    let no_tag = ImageReference(format!("{no_tag}:no-such-tag"));
    let before = bed.images().await?;
    for image in [absent, no_tag] {
        let request = PullRequest::of(image);
        let answer = bed.runtime.pull(&request, CALL).await;
        answer.fails("pull of what is not there", &[ErrorClass::NotFound])?;
    }
    same("the images", bed.images().await?, before)
}

/// 6
pub async fn bad_credentials(bed: &Bed<'_>) -> Check {
    bed.needs(Capability::RegistryLogin)?;
    let with = |credentials: Option<(&str, &str)>| PullRequest {
        image: bed.arm.images().private_image(),
        policy: PullPolicy::Always,
        credentials: credentials.map(|(user, password)| Credentials {
            user: user.to_owned(),
            password: password.to_owned(),
        }),
    };
    for wrong in [None, Some(("wavetank", "wrong"))] {
        let answer = bed.runtime.pull(&with(wrong), CALL).await;
        answer.fails("pull without the password", &[ErrorClass::Unauthenticated])?;
    }
    let listed = bed.images().await?;
    holds(!listed.contains(&bed.arm.images().private_image()), || {
        "an image is listed that could not be pulled".to_owned()
    })?;
    let right = with(Some(("wavetank", "wavetank")));
    let answer = bed.runtime.pull(&right, CALL).await;
    answer.works("pull with the password").map(|_| ())
}

/// 7
pub async fn registry_down(bed: &Bed<'_>) -> Check {
    let unreachable = PullRequest::of(bed.arm.images().unreachable_image());
    let answer = bed.runtime.pull(&unreachable, CALL).await;
    answer.fails("pull from nobody", &[ErrorClass::Unavailable])?;
    for (fault, class) in [
        (RegistryFault::Unavailable, &[ErrorClass::Unavailable][..]),
        (
            RegistryFault::TruncateAfter(FEW_BYTES),
            &[ErrorClass::Unavailable],
        ),
        (RegistryFault::Corrupt, &[ErrorClass::Unavailable]),
        // A runtime that backs off by itself may spend the whole deadline on it.
        (
            RegistryFault::TooManyRequests,
            &[ErrorClass::ResourceExhausted, ErrorClass::DeadlineExceeded],
        ),
    ] {
        set_fault(bed, Some(fault));
        let what = format!("pull while the registry has {fault:?}");
        let normal = PullRequest::of(bed.arm.images().image(TestImage::Normal));
        let answer = bed.runtime.pull(&normal, CALL).await;
        answer.fails(&what, class)?;
        is_absent(bed).await?;
    }
    set_fault(bed, None);
    bed.pull(TestImage::Normal).await.map(|_| ())
}

/// 8
pub async fn slow(bed: &Bed<'_>) -> Check {
    for fault in [
        RegistryFault::Slow(VERY_SLOW),
        RegistryFault::StallAfter(FEW_BYTES),
    ] {
        set_fault(bed, Some(fault));
        let what = format!("pull while the registry has {fault:?}");
        let normal = PullRequest::of(bed.arm.images().image(TestImage::Normal));
        let answer = bounded(&what, async { Ok(bed.runtime.pull(&normal, SHORT).await) });
        answer
            .await?
            .fails(&what, &[ErrorClass::DeadlineExceeded])?;
        is_absent(bed).await?;
    }
    set_fault(bed, None);
    bed.pull(TestImage::Normal).await.map(|_| ())
}

/// 9
pub async fn cancelled(bed: &Bed<'_>) -> Check {
    set_fault(bed, Some(RegistryFault::StallAfter(FEW_BYTES)));
    let normal = PullRequest::of(bed.arm.images().image(TestImage::Normal));
    let pull = bed.runtime.pull(&normal, VERY_SLOW);
    let begun = bed.until("a blob is asked for", || async {
        Ok(bed.arm.images().blob_requests(TestImage::Normal) > 0)
    });
    tokio::select! {
        answer = pull => return broken(format!("a stalled pull answered {answer:?}")),
        begun = begun => begun?,
    }
    is_absent(bed).await?;
    set_fault(bed, None);
    bed.pull(TestImage::Normal).await?;
    let exit = bed.run(&bed.tool("a", &Program::exit(5))).await?;
    ended_with("a container", exit, 5)
}

/// 10
pub async fn concurrent(bed: &Bed<'_>) -> Check {
    let pulls = (0..10).map(|_| bed.pull(TestImage::Normal));
    let pulled: Vec<_> = join_all(pulls).await.into_iter().collect::<Check<_>>()?;
    holds(pulled.iter().all(|image| *image == pulled[0]), || {
        format!("ten pulls of one image are not one image: {pulled:?}")
    })?;
    let name = bed.arm.images().image(TestImage::Normal);
    let mut listed = bed.images().await?;
    listed.retain(|image| *image == name);
    same("images of that name", listed.len(), 1)?;
    bed.start_ready(&bed.spec("a", TestImage::Normal))
        .await
        .map(|_| ())
}

/// 11
pub async fn listed(bed: &Bed<'_>) -> Check {
    is_absent(bed).await?;
    let pulled = bed.pull(TestImage::Normal).await?;
    let images = bed.runtime.images(CALL).await.works("images")?;
    holds(images.contains(&pulled), || {
        format!("{pulled:?} is not among {images:?}")
    })?;
    holds(images.is_sorted(), || format!("not in order: {images:?}"))?;
    bed.runtime
        .remove_image(&pulled.reference, CALL)
        .await
        .works("remove image")?;
    is_absent(bed).await?;
    let spec = bed.spec("a", TestImage::Normal);
    let answer = bed.runtime.create(&spec, CALL).await;
    answer
        .fails("create from a removed image", &[ErrorClass::NotFound])
        .map(|_| ())
}

/// 12
pub async fn removes(bed: &Bed<'_>) -> Check {
    let image = bed.pull(TestImage::Normal).await?.reference;
    let remove = || bed.runtime.remove_image(&image, CALL);
    let (one, two) = join(remove(), remove()).await;
    one.works("remove image")?;
    two.works("remove image at the same time")?;
    is_absent(bed).await?;
    remove().await.works("remove of a removed image")?;
    bed.runtime
        .remove_image(&bed.arm.images().missing_image(), CALL)
        .await
        .works("remove of an image that never was")
}

/// 13
pub async fn in_use(bed: &Bed<'_>) -> Check {
    let state = bed.start_ready(&bed.spec("a", TestImage::Normal)).await?;
    let image = bed.arm.images().image(TestImage::Normal);
    let answer = bed.runtime.remove_image(&image, CALL).await;
    if bed.has(Capability::ImageInUse) {
        answer.fails("remove of a used image", &[ErrorClass::FailedPrecondition])?;
        let listed = bed.images().await?;
        holds(listed.contains(&image), || "it is gone".to_owned())?;
    } else {
        answer.works("remove of a used image")?;
    }
    bed.still_runs(&state).await?;
    let stopped = bed.runtime.stop(&state.id, CALL, CALL * 2).await;
    match stopped.works("stop")? {
        Some(exit) => ended_with("stop", exit, 0)?,
        None => return broken("stop of a running container knew no exit"),
    }
    bed.remove(&state.id).await?;
    bed.runtime
        .remove_image(&image, CALL)
        .await
        .works("remove of an image that nobody uses any more")?;
    is_absent(bed).await
}

/// 14
pub async fn policies(bed: &Bed<'_>) -> Check {
    let pull = async |policy| {
        let request = request(bed, TestImage::Normal, policy);
        bed.runtime.pull(&request, CALL).await
    };
    let never = pull(PullPolicy::Never).await;
    never.fails("pull never, absent", &[ErrorClass::NotFound])?;
    let asked = bed.arm.images().blob_requests(TestImage::Normal);
    same("blobs fetched by a pull that never fetches", asked, 0)?;
    let first = pull(PullPolicy::IfMissing).await;
    let first = first.works("pull if missing, absent")?;
    set_fault(bed, Some(RegistryFault::Unavailable));
    for policy in [PullPolicy::IfMissing, PullPolicy::Never] {
        let found = pull(policy).await;
        let found = found.works(&format!("pull {policy:?}, present, registry down"))?;
        same("what is present", found, first.clone())?;
    }
    let always = pull(PullPolicy::Always).await;
    always.fails("pull always, registry down", &[ErrorClass::Unavailable])?;
    set_fault(bed, None);
    let always = pull(PullPolicy::Always).await;
    same("what is present", always.works("pull always")?, first)
}

/// 15
pub async fn corrupt_local(bed: &Bed<'_>) -> Check {
    bed.pull(TestImage::Tool).await?;
    bed.arm.corrupt_local_image(TestImage::Tool).await?;
    let spec = bed.tool("a", &Program::exit(5));
    let damaged = bounded("a container of a damaged image is refused or runs", async {
        Ok(bed.run(&spec).await)
    });
    if let Ok(exit) = damaged.await? {
        ended_with("a container of a damaged image", exit, 5)?;
    }
    bed.clean().await;
    let image = bed.arm.images().image(TestImage::Tool);
    let removed = bed.runtime.remove_image(&image, CALL).await;
    removed.works("remove of a damaged image")?;
    let exit = bed.run(&bed.tool("b", &Program::exit(6))).await?;
    ended_with("a container of the image pulled again", exit, 6)?;
    let state = bed.inspect(&bed.id("b")).await?;
    same("its status", state.status, ContainerStatus::Exited)
}

fn set_fault(bed: &Bed<'_>, fault: Option<RegistryFault>) {
    bed.arm
        .images()
        .set_registry_fault(TestImage::Normal, fault);
}

/// The image of these cases is not listed, under any name.
async fn is_absent(bed: &Bed<'_>) -> Check {
    let name = untagged(&bed.arm.images().image(TestImage::Normal));
    let listed = bed.images().await?;
    holds(
        listed.iter().all(|image| !image.0.starts_with(&name.0)),
        || format!("{name} should be absent, there are {listed:?}"),
    )
}

fn request(bed: &Bed<'_>, image: TestImage, policy: PullPolicy) -> PullRequest {
    PullRequest {
        policy,
        ..PullRequest::of(bed.arm.images().image(image))
    }
}

/// The name without its tag; a colon before the last slash belongs to a port.
fn untagged(image: &ImageReference) -> ImageReference {
    let cut = match (image.0.rfind(':'), image.0.rfind('/')) {
        (Some(colon), slash) if slash.is_none_or(|slash| colon > slash) => colon,
        _ => image.0.len(),
    };
    ImageReference(image.0[..cut].to_owned())
}
