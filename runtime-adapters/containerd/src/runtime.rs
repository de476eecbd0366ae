//! The port's calls, each under its deadline.
//!
//! Calls that change something and that a daemon must not be cut off in are `finished`: they go on
//! without their caller. All others are `bounded`: they end with him.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wavetank_port::{
    Capabilities, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, ContainerStats,
    EventCursor, EventStream, ExecRequest, ExecResult, ExitStatus, Image, ImageReference, Limits,
    ListFilter, LogOptions, LogStream, PullRequest, Signal, runtime::Result,
};

use crate::capabilities::CAPABILITIES;
use crate::config::ContainerdConfig;
use crate::daemon::Daemon;
use crate::deadline::{bounded, finished};
use crate::lease::Lease;

/// containerd as a container runtime. Cheap to clone; clones share one connection.
#[derive(Clone)]
pub struct Containerd {
    daemon: Arc<Daemon>,
}

impl Containerd {
    /// Makes sure that the daemon answers and knows our namespace.
    pub async fn connect(config: ContainerdConfig, within: Duration) -> Result<Self> {
        let daemon = Arc::new(Daemon::new(config)?);
        bounded("connect", within, daemon.create_namespace()).await?;
        Ok(Containerd { daemon })
    }

    /// Without asking the daemon anything.
    #[cfg(test)]
    pub(crate) fn unchecked(config: ContainerdConfig) -> Result<Self> {
        let daemon = Arc::new(Daemon::new(config)?);
        Ok(Containerd { daemon })
    }

    /// Makes the daemon remove what nothing refers to any more, which it otherwise does now and
    /// then: file systems of deleted containers, content of removed images.
    pub async fn collect_garbage(&self, within: Duration) -> Result<()> {
        bounded("collect garbage", within, async {
            Lease::begin(&self.daemon).await?.discard().await
        })
        .await
    }

    fn daemon(&self) -> Arc<Daemon> {
        self.daemon.clone()
    }
}

#[async_trait]
impl ContainerRuntime for Containerd {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn version(&self, within: Duration) -> Result<String> {
        bounded("version", within, self.daemon.version()).await
    }

    async fn pull(&self, request: &PullRequest, within: Duration) -> Result<Image> {
        bounded("pull", within, self.daemon.pull(request)).await
    }

    async fn images(&self, within: Duration) -> Result<Vec<Image>> {
        bounded("images", within, self.daemon.images()).await
    }

    async fn remove_image(&self, image: &ImageReference, within: Duration) -> Result<()> {
        bounded("remove image", within, self.daemon.remove_image(image)).await
    }

    async fn create(&self, spec: &ContainerSpec, within: Duration) -> Result<()> {
        finished("create", within, self.daemon().create(spec.clone())).await
    }

    async fn start(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        finished("start", within, self.daemon().start(id.clone())).await
    }

    async fn wait(&self, id: &ContainerId, within: Duration) -> Result<ExitStatus> {
        bounded("wait", within, self.daemon.wait(id)).await
    }

    async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
        within: Duration,
    ) -> Result<Option<ExitStatus>> {
        bounded("stop", within, self.daemon.stop(id, grace)).await
    }

    async fn kill(&self, id: &ContainerId, signal: Signal, within: Duration) -> Result<()> {
        bounded("kill", within, self.daemon.kill(id, signal)).await
    }

    async fn pause(&self, id: &ContainerId, within: Duration) -> Result<()> {
        finished("pause", within, self.daemon().pause(id.clone())).await
    }

    async fn resume(&self, id: &ContainerId, within: Duration) -> Result<()> {
        finished("resume", within, self.daemon().resume(id.clone())).await
    }

    async fn delete(&self, id: &ContainerId, force: bool, within: Duration) -> Result<()> {
        finished("delete", within, self.daemon().delete(id.clone(), force)).await
    }

    async fn inspect(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        let observed = bounded("inspect", within, self.daemon.observe(id)).await?;
        Ok(observed.state())
    }

    async fn list(&self, filter: &ListFilter, within: Duration) -> Result<Vec<ContainerState>> {
        bounded("list", within, self.daemon.list(filter)).await
    }

    async fn events(
        &self,
        since: Option<&EventCursor>,
        within: Duration,
    ) -> Result<Box<dyn EventStream>> {
        bounded("events", within, self.daemon().events(since.is_some())).await
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        within: Duration,
    ) -> Result<Box<dyn LogStream>> {
        bounded(
            "logs",
            within,
            self.daemon().logs(id.clone(), options.clone()),
        )
        .await
    }

    async fn exec(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        within: Duration,
    ) -> Result<ExecResult> {
        finished(
            "exec",
            within,
            self.daemon().exec(id.clone(), request.clone()),
        )
        .await
    }

    async fn stats(&self, id: &ContainerId, within: Duration) -> Result<ContainerStats> {
        bounded("stats", within, self.daemon.stats(id)).await
    }

    async fn update(&self, id: &ContainerId, limits: &Limits, within: Duration) -> Result<()> {
        finished("update", within, self.daemon().update(id.clone(), *limits)).await
    }
}
