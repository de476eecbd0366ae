//! The arm of the podman adapter: a private service in a folder of its own.

use std::fs;
use std::sync::Arc;

use async_trait::async_trait;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::Mutex;
use wavetank_fixtures::daemon::podman::{MONITOR, PodmanDaemon, PodmanSettings};
use wavetank_fixtures::daemon::process::{self, Process};
use wavetank_fixtures::daemon::resources::{Audit, count};
use wavetank_fixtures::program::PROGRAM_PATH;
use wavetank_fixtures::test_image::NAME_PATH;
use wavetank_fixtures::{Program, TestImage};
use wavetank_podman::{Endpoint, Namespace, Podman, PodmanConfig};
use wavetank_port::{ContainerId, ContainerRuntime};

use crate::arm::{Arm, ArmError, Images, Resources};
use crate::arms::images::ArmImages;
use crate::bed::CALL;
use crate::latency::Peer;
use crate::run::Bench;

/// The namespace under test, and the other one.
const NAMESPACE: &str = "conformance";
const ELSEWHERE: &str = "elsewhere";

/// How many calls make the service collect its garbage, within a few rounds of counting.
const GARBAGE_CALLS: usize = 10;

/// Makes arms with a private daemon each.
pub struct PodmanBench;

#[async_trait]
impl Bench for PodmanBench {
    fn runtime(&self) -> &'static str {
        "podman"
    }

    async fn arm(&self) -> Result<Box<dyn Arm>, ArmError> {
        Ok(Box::new(PodmanArm::start().await?))
    }
}

/// One private service with a registry.
pub struct PodmanArm {
    podman: Arc<Podman>,
    // Dropped before the folder that it lives in.
    daemon: Mutex<PodmanDaemon>,
    images: ArmImages,
    folder: TempDir,
}

impl PodmanArm {
    /// A service that nobody has used.
    pub async fn start() -> Result<Self, ArmError> {
        let folder = tempfile::Builder::new()
            .prefix("wt-podman-")
            .tempdir()
            .map_err(harness)?;
        let daemon = PodmanDaemon::start(folder.path(), &PodmanSettings::default())
            .await
            .map_err(harness)?;
        Ok(PodmanArm {
            podman: Arc::new(client(&daemon, NAMESPACE)?),
            images: ArmImages::start().await?,
            daemon: Mutex::new(daemon),
            folder,
        })
    }

    /// Podman forgets to close some files and leaves them to Go's collector, which runs when enough
    /// was allocated: answers are allocated.
    async fn make_garbage(&self) {
        for _ in 0..GARBAGE_CALLS {
            // Whether it answers is not what is counted.
            let _ = self.podman.images(CALL).await;
        }
    }

    async fn monitor(&self, id: &ContainerId) -> Result<Process, ArmError> {
        let name = format!("{NAMESPACE}.{id}");
        let found = self.daemon.lock().await.monitor(&name).map_err(harness)?;
        found.ok_or_else(|| ArmError::Harness(format!("container {id} has no monitor")))
    }

    async fn process(&self, id: &ContainerId) -> Result<Process, ArmError> {
        let state = self.podman.inspect(id, CALL).await.map_err(harness)?;
        let found = state.pid.and_then(Process::read);
        found.ok_or_else(|| ArmError::Harness(format!("container {id} has no process")))
    }
}

fn client(daemon: &PodmanDaemon, namespace: &str) -> Result<Podman, ArmError> {
    let namespace: Namespace = namespace.parse().map_err(harness)?;
    Ok(Podman::new(PodmanConfig {
        endpoint: Endpoint::Unix(daemon.socket()),
        namespace,
    }))
}

fn harness(error: impl std::error::Error) -> ArmError {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(below) = source {
        message = format!("{message}: {below}");
        source = below.source();
    }
    ArmError::Harness(message)
}

fn signal(process: &Process, signal: Signal) -> Result<(), ArmError> {
    match process.signal(signal) {
        true => Ok(()),
        false => Err(ArmError::Harness(format!(
            "process {} is gone",
            process.pid
        ))),
    }
}

#[async_trait]
impl Arm for PodmanArm {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        self.podman.clone()
    }

    async fn other_namespace(&self) -> Result<Arc<dyn ContainerRuntime>, ArmError> {
        let other = client(&*self.daemon.lock().await, ELSEWHERE)?;
        Ok(Arc::new(other))
    }

    fn images(&self) -> &dyn Images {
        &self.images
    }

    async fn corrupt_local_image(&self, image: TestImage) -> Result<(), ArmError> {
        let daemon = self.daemon.lock().await;
        let content = format!("{}\n", image.name());
        let layer = daemon
            .layer_with(NAME_PATH.trim_start_matches('/'), &content)
            .map_err(harness)?
            .ok_or_else(|| ArmError::Harness(format!("{} is not stored", image.name())))?;
        // What a power loss makes of a file whose folder was never synced.
        let program = layer.join(PROGRAM_PATH.trim_start_matches('/'));
        fs::remove_file(program).map_err(harness)
    }

    async fn kill_daemon(&self) -> Result<(), ArmError> {
        self.daemon.lock().await.kill();
        Ok(())
    }

    async fn start_daemon(&self) -> Result<(), ArmError> {
        self.daemon.lock().await.restart().await.map_err(harness)
    }

    async fn reboot(&self) -> Result<(), ArmError> {
        self.daemon.lock().await.reboot().await.map_err(harness)
    }

    async fn kill_monitor(&self, id: &ContainerId) -> Result<(), ArmError> {
        signal(&self.monitor(id).await?, Signal::KILL)
    }

    async fn pause_monitor(&self, id: &ContainerId, paused: bool) -> Result<(), ArmError> {
        let wanted = if paused { Signal::STOP } else { Signal::CONT };
        signal(&self.monitor(id).await?, wanted)
    }

    async fn kill_process(&self, id: &ContainerId) -> Result<(), ArmError> {
        signal(&self.process(id).await?, Signal::KILL)
    }

    async fn fail_next_create(&self) -> Result<(), ArmError> {
        self.daemon.lock().await.fail_next_start().map_err(harness)
    }

    async fn orphan_record(&self, id: &ContainerId) -> Result<(), ArmError> {
        let process = self.process(id).await?;
        self.kill_monitor(id).await?;
        signal(&process, Signal::KILL)
    }

    async fn resources(&self) -> Result<Resources, ArmError> {
        self.make_garbage().await;
        let daemon = self.daemon.lock().await;
        let audit = Audit {
            directory: daemon.directory(),
            monitors: &[MONITOR],
            holders: &[daemon.pid(), std::process::id()],
        };
        let mut counts = count(&audit).map_err(harness)?;
        counts.extend(daemon.leftovers().map_err(harness)?);
        Ok(counts)
    }

    async fn peer(&self, program: &Program) -> Result<Option<Peer>, ArmError> {
        let socket = self.daemon.lock().await.socket();
        let image = self.images.image(TestImage::Tool);
        Ok(Some(Peer::podman(&socket, &image, program)))
    }

    async fn close(self: Box<Self>) -> Result<(), ArmError> {
        let PodmanArm { daemon, folder, .. } = *self;
        drop(daemon);
        let left = process::of_directory(folder.path()).map_err(harness)?;
        let left: Vec<String> = left
            .iter()
            .filter(|it| it.is_alive())
            .map(|it| format!("{} {}", it.pid, it.name()))
            .collect();
        folder.close().map_err(harness)?;
        match left.is_empty() {
            true => Ok(()),
            false => Err(ArmError::Harness(format!(
                "still alive: {}",
                left.join(", ")
            ))),
        }
    }
}
