//! The port, implemented: each call under its deadline.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wavetank_distribution::Reference;
use wavetank_port::{
    Capabilities, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, ContainerStats,
    ContainerStatus, ErrorClass, EventCursor, EventStream, ExecRequest, ExecResult, ExitStatus,
    Image, ImageReference, Limits, ListFilter, LogOptions, LogStream, PullRequest, RuntimeError,
    Signal,
};

use crate::adapter::{OciRuntime, Shared};
use crate::bundle;
use crate::capabilities::CAPABILITIES;
use crate::cgroup::Cgroup;
use crate::deadline::{Lock, Result, Sharing, blocking, to_its_end, unknown, within};
use crate::events::Subscription;
use crate::logs::Log;
use crate::monitor::protocol::Verb;
use crate::monitor_client::ask;
use crate::record::Phase;
use crate::runtime_binary::CALL_MAX;
use crate::signals::{Sent, kill_process, send};
use crate::view::{View, ended};

#[async_trait]
impl ContainerRuntime for OciRuntime {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn version(&self, limit: Duration) -> Result<String> {
        let runtime = self.shared.runtime.clone();
        within(limit, "version", blocking(move || runtime.version())).await
    }

    async fn pull(&self, request: &PullRequest, limit: Duration) -> Result<Image> {
        within(limit, "pull", self.shared.puller.pull(request)).await
    }

    async fn images(&self, limit: Duration) -> Result<Vec<Image>> {
        let store = self.shared.images.clone();
        let images = blocking(move || store.images().map_err(|error| unknown(&error)));
        within(limit, "images", images).await
    }

    async fn remove_image(&self, image: &ImageReference, limit: Duration) -> Result<()> {
        let removal = self.shared.clone().remove_image(image.clone());
        within(limit, "remove image", to_its_end(removal)).await
    }

    async fn create(&self, spec: &ContainerSpec, limit: Duration) -> Result<()> {
        let creation = self.shared.clone().create(spec.clone());
        within(limit, "create", to_its_end(creation)).await
    }

    async fn start(&self, id: &ContainerId, limit: Duration) -> Result<ContainerState> {
        within(limit, "start", self.shared.start(id)).await
    }

    async fn wait(&self, id: &ContainerId, limit: Duration) -> Result<ExitStatus> {
        within(limit, "wait", self.shared.wait(id)).await
    }

    async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
        limit: Duration,
    ) -> Result<Option<ExitStatus>> {
        within(limit, "stop", self.shared.stop(id, grace)).await
    }

    async fn kill(&self, id: &ContainerId, signal: Signal, limit: Duration) -> Result<()> {
        within(limit, "kill", self.shared.kill(id, signal)).await
    }

    async fn pause(&self, id: &ContainerId, limit: Duration) -> Result<()> {
        let pause = self.shared.freeze("pause", id, ContainerStatus::Running);
        within(limit, "pause", pause).await
    }

    async fn resume(&self, id: &ContainerId, limit: Duration) -> Result<()> {
        let resume = self.shared.freeze("resume", id, ContainerStatus::Paused);
        within(limit, "resume", resume).await
    }

    async fn delete(&self, id: &ContainerId, force: bool, limit: Duration) -> Result<()> {
        let deletion = self.shared.clone().delete(id.clone(), force);
        within(limit, "delete", to_its_end(deletion)).await
    }

    async fn inspect(&self, id: &ContainerId, limit: Duration) -> Result<ContainerState> {
        within(limit, "inspect", async {
            self.shared.view(id).await?.state()
        })
        .await
    }

    async fn list(&self, filter: &ListFilter, limit: Duration) -> Result<Vec<ContainerState>> {
        within(limit, "list", self.shared.list(filter)).await
    }

    async fn events(
        &self,
        since: Option<&EventCursor>,
        limit: Duration,
    ) -> Result<Box<dyn EventStream>> {
        let open = Subscription::open(self.shared.journal.clone(), since.cloned());
        Ok(Box::new(within(limit, "events", open).await?))
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        limit: Duration,
    ) -> Result<Box<dyn LogStream>> {
        let open = async {
            let view = self.shared.view(id).await?;
            Log::open(self.shared.clone(), &view, options.clone()).await
        };
        Ok(Box::new(within(limit, "logs", open).await?))
    }

    async fn exec(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        limit: Duration,
    ) -> Result<ExecResult> {
        let exec = async {
            let view = self.shared.view(id).await?;
            require(&view, &[ContainerStatus::Running])?;
            self.shared.exec(&view, request).await
        };
        within(limit, "exec", exec).await
    }

    async fn stats(&self, id: &ContainerId, limit: Duration) -> Result<ContainerStats> {
        within(limit, "stats", self.shared.stats(id)).await
    }

    async fn update(&self, id: &ContainerId, limits: &Limits, limit: Duration) -> Result<()> {
        within(limit, "update", self.shared.update(id, *limits)).await
    }
}

/// `FailedPrecondition` unless the container is in one of `wanted`.
fn require(view: &View, wanted: &[ContainerStatus]) -> Result<()> {
    let status = view.status()?;
    if wanted.contains(&status) {
        return Ok(());
    }
    let id = &view.record.spec.id;
    let message = format!("the container {id} is {status:?}");
    Err(RuntimeError::new(ErrorClass::FailedPrecondition, message))
}

/// How often a waiter looks again where nothing can wake it.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How often a start is asked for when the monitor dies over it. One that is dying hears no more
/// some time before it is gone and another can take its place.
const START_TRIES: u32 = 20;

impl Shared {
    async fn start(self: &Arc<Self>, id: &ContainerId) -> Result<ContainerState> {
        let mut tries = 0;
        loop {
            let view = self.view(id).await?;
            match &view.phase {
                Phase::Refused(error) => return Err(error.clone()),
                // The monitor died after it had been asked: was it started?
                Phase::Running | Phase::Exited(_) if tries > 0 && view.facts.started.exists() => {
                    return view.state();
                }
                _ => require(&view, &[ContainerStatus::Created])?,
            }
            tries += 1;
            match ask(&view.folder, Verb::Start).await {
                Ok(()) => return self.view(id).await?.state(),
                Err(error) if error.class != ErrorClass::Unavailable => return Err(error),
                Err(error) if tries == START_TRIES => return Err(error),
                Err(_) => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
            }
        }
    }

    async fn wait(self: &Arc<Self>, id: &ContainerId) -> Result<ExitStatus> {
        loop {
            let view = self.view(id).await?;
            match view.phase {
                Phase::Exited(exit) => return Ok(exit),
                Phase::Refused(error) => return Err(error),
                _ => {}
            }
            // The monitor ends after it has recorded the end; without one, the process tells.
            let failed = |error: std::io::Error| unknown(&error);
            let handle = match view.monitor().map_err(failed)? {
                Some(monitor) => Some(monitor),
                None => view.process().map_err(failed)?,
            };
            match handle {
                Some(handle) => ended(handle).await?,
                // Ended, and the end cannot be recorded: a full disk perhaps.
                None => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
            }
        }
    }

    async fn stop(
        self: &Arc<Self>,
        id: &ContainerId,
        grace: Duration,
    ) -> Result<Option<ExitStatus>> {
        let view = self.view(id).await?;
        match view.phase {
            Phase::Created | Phase::Refused(_) | Phase::HalfMade => return Ok(None),
            Phase::Exited(exit) => return Ok(view.facts.started.exists().then_some(exit)),
            Phase::Running | Phase::Ending => {}
        }
        if !grace.is_zero() {
            send(&self.runtime, &view, view.record.stop_signal).await?;
            if let Ok(exit) = tokio::time::timeout(grace, self.wait(id)).await {
                return exit.map(Some);
            }
        }
        kill_process(&self.runtime, &view).await?;
        self.wait(id).await.map(Some)
    }

    async fn kill(self: &Arc<Self>, id: &ContainerId, signal: Signal) -> Result<()> {
        if !signal.is_valid() {
            let message = format!("{} is not a signal", signal.number());
            return Err(RuntimeError::new(ErrorClass::InvalidArgument, message));
        }
        let view = self.view(id).await?;
        let gone = || RuntimeError::new(ErrorClass::NotFound, format!("{id} has ended"));
        match view.phase {
            Phase::Exited(_) | Phase::Ending => return Err(gone()),
            _ => require(&view, &[ContainerStatus::Running, ContainerStatus::Paused])?,
        }
        match send(&self.runtime, &view, signal.number()).await? {
            Sent::Delivered => Ok(()),
            // The wish is fulfilled; the port wants it said nevertheless.
            Sent::Gone => Err(gone()),
        }
    }

    async fn freeze(
        self: &Arc<Self>,
        verb: &'static str,
        id: &ContainerId,
        from: ContainerStatus,
    ) -> Result<()> {
        let view = self.view(id).await?;
        require(&view, &[from])?;
        let (runtime, name) = (self.runtime.clone(), id.0.clone());
        blocking(move || runtime.call(verb, &[&name], CALL_MAX)).await
    }

    async fn list(self: &Arc<Self>, filter: &ListFilter) -> Result<Vec<ContainerState>> {
        let shared = self.clone();
        let prefix = filter.id_prefix.clone().unwrap_or_default();
        let views = blocking(move || {
            let ids = shared.ids()?;
            let wanted = ids.iter().filter(|id| id.0.starts_with(&prefix));
            let looks = wanted.map(|id| View::look(&shared.containers, id));
            looks
                .filter_map(Result::transpose)
                .collect::<Result<Vec<View>>>()
        })
        .await?;
        let mut settling = Vec::new();
        for view in views {
            let shared = self.clone();
            // At the same time: one monitor that is held up must not add to another.
            settling.push(tokio::spawn(async move {
                match view.is_unsettled() {
                    true => shared.settle(view).await?.state(),
                    false => view.state(),
                }
            }));
        }
        let mut states = Vec::new();
        for settled in settling {
            match settled.await.map_err(|error| unknown(&error.into()))? {
                Ok(state) => states.push(state),
                // It vanished meanwhile.
                Err(error) if error.class == ErrorClass::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        states.retain(|state| selects(filter, state));
        Ok(states)
    }

    async fn stats(self: &Arc<Self>, id: &ContainerId) -> Result<ContainerStats> {
        let running = [ContainerStatus::Running, ContainerStatus::Paused];
        let view = self.view(id).await?;
        require(&view, &running)?;
        let cgroup = Cgroup::open(&view.record.cgroup).map_err(|error| unknown(&error))?;
        match cgroup.stats() {
            Ok(stats) => Ok(stats),
            Err(error) => {
                // It may just have ended.
                require(&self.view(id).await?, &running)?;
                Err(unknown(&error))
            }
        }
    }

    async fn update(self: &Arc<Self>, id: &ContainerId, limits: Limits) -> Result<()> {
        let view = self.view(id).await?;
        require(&view, &[ContainerStatus::Running, ContainerStatus::Paused])?;
        let resources = bundle::resources(limits)?;
        let (runtime, name) = (self.runtime.clone(), id.0.clone());
        blocking(move || {
            let failed = |error: std::io::Error| unknown(&error);
            let file = tempfile::NamedTempFile::new_in(view.folder.path()).map_err(failed)?;
            serde_json::to_writer(file.as_file(), &resources).map_err(|it| failed(it.into()))?;
            let path = file.path().display().to_string();
            runtime.call("update", &["--resources", &path, &name], CALL_MAX)
        })
        .await
    }

    async fn remove_image(self: Arc<Self>, image: ImageReference) -> Result<()> {
        let name = Reference::try_from(&image)?.to_string();
        let lock = Lock::acquire(&self.images.use_lock(), Sharing::Alone).await?;
        blocking(move || {
            let _lock = lock;
            for id in self.ids()? {
                let user = View::look(&self.containers, &id)?;
                if user.is_some_and(|view| view.record.image_reference == name) {
                    let message = format!("the container {id} uses {name}");
                    return Err(RuntimeError::new(ErrorClass::FailedPrecondition, message));
                }
            }
            self.images
                .remove_name(&name)
                .map_err(|error| unknown(&error))?;
            match Lock::try_acquire(&self.images.fetch_lock(), Sharing::Alone)? {
                Some(_fetching) => self.collect_images_locked(),
                // Whoever fetches may need what is there; the next removal or start cleans up.
                None => Ok(()),
            }
        })
        .await
    }
}

fn selects(filter: &ListFilter, state: &ContainerState) -> bool {
    let has = |(name, value): (&String, &String)| state.labels.get(name) == Some(value);
    filter.labels.iter().all(has) && filter.status.is_none_or(|status| status == state.status)
}
