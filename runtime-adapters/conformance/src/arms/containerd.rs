//! The arm of the containerd adapter: a private daemon, two namespaces, the arm's registry.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::sync::Mutex;
use wavetank_containerd::{Containerd, ContainerdConfig};
use wavetank_fixtures::daemon::containerd::{ContainerdDaemon, MONITOR};
use wavetank_fixtures::daemon::process::Process;
use wavetank_fixtures::daemon::resources::{self, Audit};
use wavetank_fixtures::{Program, TestImage};
use wavetank_port::{ContainerId, ContainerRuntime};

use super::images::ArmImages;
use crate::arm::{Arm, ArmError, Images, Resources};
use crate::latency::Peer;
use crate::run::Bench;

/// How long the daemon may take for what an arm asks of it.
const WITHIN: Duration = Duration::from_secs(20);

/// Makes arms with a private daemon each.
pub struct ContainerdBench;

#[async_trait]
impl Bench for ContainerdBench {
    fn runtime(&self) -> &'static str {
        "containerd"
    }

    async fn arm(&self) -> Result<Box<dyn Arm>, ArmError> {
        Ok(Box::new(ContainerdArm::new().await?))
    }
}

/// A daemon of one's own.
struct ContainerdArm {
    images: ArmImages,
    runtime: Arc<Containerd>,
    namespace: String,
    daemon: Mutex<ContainerdDaemon>,
    /// Last: everything else lies in it.
    directory: TempDir,
}

impl ContainerdArm {
    async fn new() -> Result<Self, ArmError> {
        let images = ArmImages::start().await?;
        let directory = TempDir::new().map_err(harness)?;
        let namespace = unique_namespace();
        let namespaces = [namespace.as_str(), &second(&namespace)];
        let daemon = ContainerdDaemon::start(directory.path(), &namespaces).await;
        let daemon = daemon.map_err(harness)?;
        let runtime = connect(&daemon, &namespace).await?;
        Ok(ContainerdArm {
            images,
            runtime: Arc::new(runtime),
            namespace,
            daemon: Mutex::new(daemon),
            directory,
        })
    }

    /// The shim, which must be there.
    async fn shim(&self, id: &ContainerId) -> Result<Process, ArmError> {
        let daemon = self.daemon.lock().await;
        let shim = daemon.shim(&self.namespace, &id.0).map_err(harness)?;
        shim.ok_or_else(|| ArmError::Harness(format!("{id} has no shim")))
    }

    /// The container's process, which must be there.
    async fn process(&self, id: &ContainerId) -> Result<Process, ArmError> {
        let state = self.runtime.inspect(id, WITHIN).await.map_err(harness)?;
        let process = state.pid.and_then(Process::read);
        process.ok_or_else(|| ArmError::Harness(format!("{id} has no process")))
    }

    /// The files in which an image is stored: its manifest and all that it names.
    async fn stored(&self, image: TestImage) -> Result<Vec<PathBuf>, ArmError> {
        let reference = self.images.image_by_digest(image).0;
        let (_, digest) = reference.split_once('@').unwrap_or_default();
        let daemon = self.daemon.lock().await;
        let manifest = daemon.blob(digest);
        let text = std::fs::read(&manifest).map_err(harness)?;
        let parsed: serde_json::Value = serde_json::from_slice(&text).map_err(harness)?;
        let layers = parsed["layers"].as_array().into_iter().flatten();
        let named = layers.chain([&parsed["config"]]);
        let digests = named.filter_map(|it| it["digest"].as_str());
        Ok(digests
            .map(|it| daemon.blob(it))
            .chain([manifest])
            .collect())
    }
}

#[async_trait]
impl Arm for ContainerdArm {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        self.runtime.clone()
    }

    async fn other_namespace(&self) -> Result<Arc<dyn ContainerRuntime>, ArmError> {
        let daemon = self.daemon.lock().await;
        Ok(Arc::new(connect(&daemon, &second(&self.namespace)).await?))
    }

    fn images(&self) -> &dyn Images {
        &self.images
    }

    async fn corrupt_local_image(&self, image: TestImage) -> Result<(), ArmError> {
        for file in self.stored(image).await? {
            tear(&file).map_err(harness)?;
        }
        Ok(())
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
        signal(&self.shim(id).await?, Signal::KILL)
    }

    async fn pause_monitor(&self, id: &ContainerId, paused: bool) -> Result<(), ArmError> {
        let signal_number = if paused { Signal::STOP } else { Signal::CONT };
        signal(&self.shim(id).await?, signal_number)
    }

    async fn kill_process(&self, id: &ContainerId) -> Result<(), ArmError> {
        signal(&self.process(id).await?, Signal::KILL)
    }

    async fn fail_next_create(&self) -> Result<(), ArmError> {
        self.daemon.lock().await.fail_next_create().map_err(harness)
    }

    async fn orphan_record(&self, id: &ContainerId) -> Result<(), ArmError> {
        let (shim, process) = (self.shim(id).await?, self.process(id).await?);
        // Without the daemon nobody sees them go.
        self.kill_daemon().await?;
        signal(&shim, Signal::KILL)?;
        signal(&process, Signal::KILL)?;
        self.start_daemon().await
    }

    async fn resources(&self) -> Result<Resources, ArmError> {
        // What the daemon will remove by itself is not left behind.
        let collected = self.runtime.collect_garbage(WITHIN).await;
        collected.map_err(harness)?;
        let daemon = self.daemon.lock().await;
        let audit = Audit {
            directory: self.directory.path(),
            monitors: &[MONITOR],
            holders: &[daemon.pid(), std::process::id()],
        };
        let mut counts = resources::count(&audit).map_err(harness)?;
        counts.extend(daemon.leftovers().map_err(harness)?);
        Ok(counts)
    }

    async fn peer(&self, program: &Program) -> Result<Option<Peer>, ArmError> {
        let daemon = self.daemon.lock().await;
        let image = self.images.image(TestImage::Tool);
        let namespace = second(&self.namespace);
        Ok(Some(Peer::ctr(
            &daemon.socket(),
            &namespace,
            &image,
            program,
        )))
    }

    async fn close(self: Box<Self>) -> Result<(), ArmError> {
        let mut daemon = self.daemon.lock().await;
        let left = daemon.end_all().map_err(harness)?;
        if left.is_empty() {
            return Ok(());
        }
        Err(ArmError::Harness(format!("left over: {}", left.join(", "))))
    }
}

async fn connect(daemon: &ContainerdDaemon, namespace: &str) -> Result<Containerd, ArmError> {
    let state = daemon.directory().join("adapter");
    let config = ContainerdConfig::new(daemon.socket(), namespace, state);
    Containerd::connect(config, WITHIN).await.map_err(harness)
}

/// runc keeps its state by namespace, for all daemons of the machine.
fn unique_namespace() -> String {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    format!("wavetank-{}-{count}", std::process::id())
}

fn second(namespace: &str) -> String {
    format!("{namespace}-other")
}

fn signal(process: &Process, signal: Signal) -> Result<(), ArmError> {
    if process.signal(signal) {
        return Ok(());
    }
    Err(ArmError::Harness(format!(
        "process {} is gone",
        process.pid
    )))
}

/// Leaves the first half of a file.
fn tear(file: &Path) -> std::io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(file)?;
    file.set_len(file.metadata()?.len() / 2)
}

fn harness(error: impl std::fmt::Display) -> ArmError {
    ArmError::Harness(error.to_string())
}
