//! The test bed of one case: the arm, ids that belong to this case alone, and the calls that most
//! cases begin with. What a case is about is said in the case, not here.

use std::sync::Arc;
use std::time::Duration;

use wavetank_fixtures::program::READY;
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{
    Capability, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, ContainerStatus,
    ErrorClass, ExitCode, ExitStatus, Image, ImageReference, ListFilter, LogOptions, Network,
    OutputStream, PullRequest, Support,
};

use crate::arm::{Arm, Resources};
use crate::check::{Answer, Check, Unmet, broken, holds};
use crate::watch::Watch;

/// The deadline of a call that should be quick. Long, because a loaded machine is no finding.
pub const CALL: Duration = Duration::from_secs(20);
/// How long something may take to become true that nobody announces.
pub const SETTLE: Duration = Duration::from_secs(20);
/// How often to look meanwhile.
const LOOK: Duration = Duration::from_millis(20);

/// The test bed of one case.
pub struct Bed<'a> {
    /// What can be broken around the runtime.
    pub arm: &'a dyn Arm,
    /// The runtime under test.
    pub runtime: Arc<dyn ContainerRuntime>,
    case: u8,
}

impl<'a> Bed<'a> {
    /// A bed for the case of this number.
    pub fn new(arm: &'a dyn Arm, case: u8) -> Self {
        Bed {
            arm,
            runtime: arm.runtime(),
            case,
        }
    }

    /// What all ids of this case begin with.
    pub fn prefix(&self) -> String {
        format!("c{:02}-", self.case)
    }

    /// An id of this case.
    pub fn id(&self, name: &str) -> ContainerId {
        ContainerId(format!("{}{name}", self.prefix()))
    }

    /// How far the runtime has `capability`.
    pub fn support(&self, capability: Capability) -> Support {
        self.runtime.capabilities().support(capability)
    }

    /// True if the runtime has all of `capability`.
    pub fn has(&self, capability: Capability) -> bool {
        self.support(capability) == Support::Full
    }

    /// Without `capability` the case cannot apply.
    pub fn needs(&self, capability: Capability) -> Check {
        match self.support(capability) {
            Support::Missing => Err(Unmet::NotApplicable(capability)),
            Support::Full | Support::Differs => Ok(()),
        }
    }

    /// Pulls a test image by its tag.
    pub async fn pull(&self, image: TestImage) -> Check<Image> {
        self.runtime
            .pull(&PullRequest::of(self.arm.images().image(image)), CALL)
            .await
            .works("pull")
    }

    /// The spec of a container that runs what the image runs.
    pub fn spec(&self, name: &str, image: TestImage) -> ContainerSpec {
        ContainerSpec {
            network: Network::None,
            ..ContainerSpec::of(self.id(name), self.arm.images().image(image))
        }
    }

    /// The spec of a container that runs `program`.
    pub fn tool(&self, name: &str, program: &Program) -> ContainerSpec {
        ContainerSpec {
            command: program.command(),
            ..self.spec(name, TestImage::Tool)
        }
    }

    /// Pulls what the spec needs, and creates the container.
    pub async fn create(&self, spec: &ContainerSpec) -> Check {
        self.runtime
            .pull(&PullRequest::of(spec.image.clone()), CALL)
            .await
            .works("pull")?;
        self.runtime.create(spec, CALL).await.works("create")
    }

    /// Creates and starts a container.
    pub async fn start(&self, spec: &ContainerSpec) -> Check<ContainerState> {
        self.create(spec).await?;
        self.runtime.start(&spec.id, CALL).await.works("start")
    }

    /// Starts a container and waits until its program says that it is ready for signals.
    pub async fn start_ready(&self, spec: &ContainerSpec) -> Check<ContainerState> {
        let state = self.start(spec).await?;
        self.ready(&spec.id).await?;
        Ok(state)
    }

    /// Runs a container to its end.
    pub async fn run(&self, spec: &ContainerSpec) -> Check<ExitStatus> {
        self.start(spec).await?;
        self.wait(&spec.id).await
    }

    /// Waits until the container's program says that it is ready for signals.
    pub async fn ready(&self, id: &ContainerId) -> Check {
        self.until("the program says that it is ready", || async {
            let written = self.log(id, OutputStream::Stdout).await?;
            Ok(written.starts_with(READY.as_bytes()))
        })
        .await
    }

    /// Waits for the process's end.
    pub async fn wait(&self, id: &ContainerId) -> Check<ExitStatus> {
        self.runtime.wait(id, CALL).await.works("wait")
    }

    /// The container's state.
    pub async fn inspect(&self, id: &ContainerId) -> Check<ContainerState> {
        self.runtime.inspect(id, CALL).await.works("inspect")
    }

    /// The container must be running, with this process.
    pub async fn still_runs(&self, before: &ContainerState) -> Check {
        let now = self.inspect(&before.id).await?;
        holds(
            now.status == ContainerStatus::Running
                && now.pid == before.pid
                && now.started_at == before.started_at,
            || format!("expected it to run on as {before:?}, found {now:?}"),
        )
    }

    /// The runtime must know no such container.
    pub async fn is_gone(&self, id: &ContainerId) -> Check {
        self.runtime
            .inspect(id, CALL)
            .await
            .fails("inspect of what should be gone", &[ErrorClass::NotFound])?;
        let listed = self.list().await?;
        holds(listed.iter().all(|state| state.id != *id), || {
            format!("{id} is gone and still listed")
        })
    }

    /// All containers of this case.
    pub async fn list(&self) -> Check<Vec<ContainerState>> {
        self.list_where(ListFilter::default()).await
    }

    /// The containers of this case that `filter` selects.
    pub async fn list_where(&self, filter: ListFilter) -> Check<Vec<ContainerState>> {
        let filter = ListFilter {
            id_prefix: filter.id_prefix.or_else(|| Some(self.prefix())),
            ..filter
        };
        self.runtime.list(&filter, CALL).await.works("list")
    }

    /// The references of all images here.
    pub async fn images(&self) -> Check<Vec<ImageReference>> {
        let images = self.runtime.images(CALL).await.works("images")?;
        Ok(images.into_iter().map(|image| image.reference).collect())
    }

    /// Deletes a container by force.
    pub async fn remove(&self, id: &ContainerId) -> Check {
        self.runtime.delete(id, true, CALL).await.works("delete")
    }

    /// What the process has written to one output so far.
    pub async fn log(&self, id: &ContainerId, stream: OutputStream) -> Check<Vec<u8>> {
        self.log_where(id, stream, &LogOptions::default()).await
    }

    /// What `options` select of what the process has written to one output.
    pub async fn log_where(
        &self,
        id: &ContainerId,
        stream: OutputStream,
        options: &LogOptions,
    ) -> Check<Vec<u8>> {
        let mut log = self.runtime.logs(id, options, CALL).await.works("logs")?;
        let mut written = Vec::new();
        let read = async {
            while let Some(chunk) = log.next().await.works("reading a log")? {
                if chunk.stream == stream {
                    written.extend_from_slice(&chunk.bytes);
                }
            }
            Ok(())
        };
        bounded("a log ends", read).await?;
        Ok(written)
    }

    /// Subscribes to events of this case's containers.
    pub async fn watch(&self) -> Check<Watch> {
        let stream = self.runtime.events(None, CALL).await.works("events")?;
        Ok(Watch::new(stream, self.prefix()))
    }

    /// Waits until `claim` becomes true.
    pub async fn until<F>(&self, what: &str, mut claim: impl FnMut() -> F) -> Check
    where
        F: Future<Output = Check<bool>>,
    {
        let deadline = tokio::time::Instant::now() + SETTLE;
        while !claim().await? {
            if tokio::time::Instant::now() >= deadline {
                return broken(format!("not within {SETTLE:?}: {what}"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until there is no more of anything than in `baseline`.
    pub async fn settles_to(&self, baseline: &Resources) -> Check {
        let deadline = tokio::time::Instant::now() + SETTLE;
        loop {
            let leaked = grown(baseline, &self.arm.resources().await?);
            if leaked.is_empty() {
                return Ok(());
            }
            if tokio::time::Instant::now() >= deadline {
                return broken(format!("left over: {}", leaked.join(", ")));
            }
            tokio::time::sleep(LOOK * 10).await;
        }
    }

    /// Deletes whatever the case has left, whatever that takes.
    pub async fn clean(&self) {
        let filter = ListFilter {
            id_prefix: Some(self.prefix()),
            ..ListFilter::default()
        };
        // Best effort: the arm's end removes the rest, and the case has had its say.
        for state in self.runtime.list(&filter, CALL).await.unwrap_or_default() {
            let _ = self.runtime.delete(&state.id, true, CALL).await;
        }
    }
}

/// What there is more of than before, as `name before -> now`.
pub fn grown(before: &Resources, now: &Resources) -> Vec<String> {
    now.iter()
        .filter_map(|(name, count)| {
            let was = before.get(name).copied().unwrap_or(0);
            (*count > was).then(|| format!("{name} {was} -> {count}"))
        })
        .collect()
}

/// `step` must end within [`SETTLE`].
pub async fn bounded<T>(what: &str, step: impl Future<Output = Check<T>>) -> Check<T> {
    match tokio::time::timeout(SETTLE, step).await {
        Ok(found) => found,
        Err(_) => broken(format!("not within {SETTLE:?}: {what}")),
    }
}

/// The process must have ended with `code`.
pub fn ended_with(what: &str, exit: ExitStatus, code: i32) -> Check {
    holds(exit.code == ExitCode::Known(code), || {
        format!("{what}: expected exit code {code}, found {exit:?}")
    })
}
