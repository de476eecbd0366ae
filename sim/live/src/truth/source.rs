//! How each runtime is watched by somebody who is not the node.
//!
//! Each of these must be given the daemon's own socket, not a proxy's, and the node's own
//! namespace and folder. None of them creates or removes a container. containerd's adapter, which
//! sees an end before the node does, writes it into the container's labels, where the node finds
//! it: the same words that the node would have written.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wavetank_containerd::{Containerd, ContainerdConfig};
use wavetank_podman::{ConfigError, Endpoint, Namespace, Podman, PodmanConfig};
use wavetank_port::runtime::Result;
use wavetank_port::{
    ContainerRuntime, ContainerState, EventCursor, EventRecord, EventStream, ListFilter,
    RuntimeEvent,
};

/// Where the truth comes from.
#[async_trait]
pub trait Source: Send + Sync {
    /// All containers. An error says that nothing is known.
    async fn list(&self, within: Duration) -> Result<Vec<ContainerState>>;

    /// A subscription to events, from a place on if it is given.
    async fn events(
        &self,
        since: Option<&EventCursor>,
        within: Duration,
    ) -> Result<Box<dyn EventStream>>;
}

/// Whatever a runtime itself says.
pub fn runtime(runtime: Arc<dyn ContainerRuntime>) -> Arc<dyn Source> {
    Arc::new(Whole {
        runtime,
        tells_ends_late: false,
    })
}

struct Whole {
    runtime: Arc<dyn ContainerRuntime>,
    tells_ends_late: bool,
}

#[async_trait]
impl Source for Whole {
    async fn list(&self, within: Duration) -> Result<Vec<ContainerState>> {
        self.runtime.list(&ListFilter::default(), within).await
    }

    async fn events(
        &self,
        since: Option<&EventCursor>,
        within: Duration,
    ) -> Result<Box<dyn EventStream>> {
        let stream = self.runtime.events(since, within).await?;
        Ok(match self.tells_ends_late {
            true => Box::new(Timeless(stream)),
            false => stream,
        })
    }
}

/// The node's containers in a containerd. `dir` is the node's folder: part of what is known about
/// ends is in its files.
pub async fn containerd(
    socket: &Path,
    namespace: &str,
    dir: &Path,
    within: Duration,
) -> Result<Arc<dyn Source>> {
    let config = ContainerdConfig::new(socket, namespace, dir.join("containerd"));
    let connected = Containerd::connect(config, within).await?;
    Ok(runtime(Arc::new(connected)))
}

/// The node's containers in a Podman service.
pub fn podman(socket: &Path, namespace: &str) -> Result<Arc<dyn Source>, ConfigError> {
    let namespace: Namespace = namespace.parse()?;
    let endpoint = Endpoint::Unix(socket.to_owned());
    let config = PodmanConfig {
        endpoint,
        namespace,
    };
    let podman: Arc<dyn ContainerRuntime> = Arc::new(Podman::new(config));
    Ok(Arc::new(Whole {
        runtime: podman,
        tells_ends_late: true,
    }))
}

/// Ends without a time: Podman tells of an end when its clean-up has run, which on a busy machine
/// is seconds later. How a process ended is true in its event, when is not.
struct Timeless(Box<dyn EventStream>);

#[async_trait]
impl EventStream for Timeless {
    async fn next(&mut self) -> Result<EventRecord> {
        let mut record = self.0.next().await?;
        if let RuntimeEvent::Exited { exit, .. } = &mut record.event {
            exit.exited_at = None;
        }
        Ok(record)
    }
}

/// The node's containers in the oci adapter's root in the node's folder. Only its files are read:
/// a second adapter there would take over containers whose monitors died and record their ends,
/// which is for the node to do and for nobody to do in its place.
pub fn oci(dir: &Path) -> Arc<dyn Source> {
    Arc::new(OciFiles(wavetank_oci::Observer::of(&dir.join("oci/root"))))
}

struct OciFiles(wavetank_oci::Observer);

#[async_trait]
impl Source for OciFiles {
    async fn list(&self, within: Duration) -> Result<Vec<ContainerState>> {
        self.0.list(within).await
    }

    async fn events(
        &self,
        since: Option<&EventCursor>,
        within: Duration,
    ) -> Result<Box<dyn EventStream>> {
        self.0.events(since, within).await
    }
}
