//! The port, call by call, each within its deadline.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wavetank_port::runtime::Result;
use wavetank_port::{
    Capabilities, ContainerId, ContainerRuntime, ContainerSpec, ContainerState, ContainerStats,
    ErrorClass, EventCursor, EventStream, ExecRequest, ExecResult, ExitStatus, Image,
    ImageReference, Limits, ListFilter, LogOptions, LogStream, PullRequest, RuntimeError, Signal,
};

use crate::capabilities::CAPABILITIES;
use crate::config::PodmanConfig;
use crate::error;
use crate::service::Service;
use crate::transport::Call;
use crate::wire::Version;

/// One namespace of one Podman service, as a container runtime. Cheap to clone; clones share what
/// they know.
#[derive(Clone)]
pub struct Podman {
    service: Arc<Service>,
}

impl Podman {
    /// Connects to nothing yet: each call does.
    pub fn new(config: PodmanConfig) -> Self {
        Podman {
            service: Arc::new(Service::new(config)),
        }
    }
}

/// The one place where a call meets its deadline. What runs longer is dropped, and its connection
/// with it.
async fn bounded<T>(
    what: &str,
    within: Duration,
    call: impl Future<Output = error::Result<T>> + Send,
) -> Result<T> {
    match tokio::time::timeout(within, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RuntimeError::new(
            ErrorClass::DeadlineExceeded,
            format!("{what}: no answer from the Podman service within {within:?}"),
        )),
    }
}

#[async_trait]
impl ContainerRuntime for Podman {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn version(&self, within: Duration) -> Result<String> {
        let ask = async {
            let reply = self.service.client.send(Call::get("/version")).await?;
            Ok(reply.json::<Version>().await?.version)
        };
        bounded("version", within, ask).await
    }

    async fn pull(&self, request: &PullRequest, within: Duration) -> Result<Image> {
        bounded("pull", within, self.service.pull(request)).await
    }

    async fn images(&self, within: Duration) -> Result<Vec<Image>> {
        bounded("images", within, self.service.images()).await
    }

    async fn remove_image(&self, image: &ImageReference, within: Duration) -> Result<()> {
        bounded("remove image", within, self.service.remove_image(image)).await
    }

    async fn create(&self, spec: &ContainerSpec, within: Duration) -> Result<()> {
        bounded("create", within, self.service.create(spec)).await
    }

    async fn start(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        bounded("start", within, self.service.start(id)).await
    }

    async fn wait(&self, id: &ContainerId, within: Duration) -> Result<ExitStatus> {
        bounded("wait", within, self.service.wait(id)).await
    }

    async fn stop(
        &self,
        id: &ContainerId,
        grace: Duration,
        within: Duration,
    ) -> Result<Option<ExitStatus>> {
        bounded("stop", within, self.service.stop(id, grace)).await
    }

    async fn kill(&self, id: &ContainerId, signal: Signal, within: Duration) -> Result<()> {
        bounded("kill", within, self.service.kill(id, signal)).await
    }

    async fn pause(&self, id: &ContainerId, within: Duration) -> Result<()> {
        bounded("pause", within, self.service.freeze(id, "pause")).await
    }

    async fn resume(&self, id: &ContainerId, within: Duration) -> Result<()> {
        bounded("resume", within, self.service.freeze(id, "unpause")).await
    }

    async fn delete(&self, id: &ContainerId, force: bool, within: Duration) -> Result<()> {
        bounded("delete", within, self.service.delete(id, force)).await
    }

    async fn inspect(&self, id: &ContainerId, within: Duration) -> Result<ContainerState> {
        let look = async { Ok(self.service.observe(id).await?.state) };
        bounded("inspect", within, look).await
    }

    async fn list(&self, filter: &ListFilter, within: Duration) -> Result<Vec<ContainerState>> {
        bounded("list", within, self.service.list(filter)).await
    }

    async fn events(
        &self,
        since: Option<&EventCursor>,
        within: Duration,
    ) -> Result<Box<dyn EventStream>> {
        let events = bounded("events", within, self.service.events(since)).await?;
        Ok(Box::new(events))
    }

    async fn logs(
        &self,
        id: &ContainerId,
        options: &LogOptions,
        within: Duration,
    ) -> Result<Box<dyn LogStream>> {
        let log = bounded("logs", within, self.service.logs(id, options)).await?;
        Ok(Box::new(log))
    }

    async fn exec(
        &self,
        id: &ContainerId,
        request: &ExecRequest,
        within: Duration,
    ) -> Result<ExecResult> {
        bounded("exec", within, self.service.exec(id, request)).await
    }

    async fn stats(&self, id: &ContainerId, within: Duration) -> Result<ContainerStats> {
        bounded("stats", within, self.service.stats(id)).await
    }

    async fn update(&self, id: &ContainerId, limits: &Limits, within: Duration) -> Result<()> {
        bounded("update", within, self.service.update(id, limits)).await
    }
}
