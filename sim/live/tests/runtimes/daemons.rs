//! The three runtimes, each with whatever it needs, behind one face.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use wavetank_containerd::{Containerd, ContainerdConfig};
use wavetank_fixtures::daemon::OciRuntime;
use wavetank_fixtures::daemon::containerd::{ContainerdDaemon, ContainerdSettings};
use wavetank_fixtures::daemon::podman::{PodmanDaemon, PodmanSettings};
use wavetank_live::truth::{self, Source};
use wavetank_podman::{Endpoint, Podman, PodmanConfig};
use wavetank_port::ContainerRuntime;

use crate::bed::{LONG, OciBed};

/// A daemon of one's own, if the runtime has one.
pub enum Daemon {
    Containerd(ContainerdDaemon),
    Podman(PodmanDaemon),
}

impl Daemon {
    pub fn socket(&self) -> PathBuf {
        match self {
            Daemon::Containerd(daemon) => daemon.socket(),
            Daemon::Podman(daemon) => daemon.socket(),
        }
    }

    pub fn kill(&mut self) {
        match self {
            Daemon::Containerd(daemon) => daemon.kill(),
            Daemon::Podman(daemon) => daemon.kill(),
        }
    }

    pub async fn restart(&mut self) {
        let restarted = match self {
            Daemon::Containerd(daemon) => daemon.restart().await,
            Daemon::Podman(daemon) => daemon.restart().await,
        };
        restarted.expect("the daemon comes back");
    }
}

/// A daemon and a client of it, in a folder that stands for the node's.
pub struct DaemonBed {
    pub namespace: String,
    pub runtime: Arc<dyn ContainerRuntime>,
    // Dropped before the folder that it lives in.
    pub daemon: Daemon,
    pub folder: TempDir,
}

/// containerd's runc keeps its state by namespace, for all daemons of a machine.
fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("live-{name}-{}-{number}", std::process::id())
}

fn folder() -> TempDir {
    tempfile::Builder::new()
        .prefix("wt-live-")
        .tempdir()
        .expect("folder")
}

/// The node's own, apart from the daemon's.
fn dir(folder: &TempDir) -> PathBuf {
    folder.path().join("node")
}

impl DaemonBed {
    pub async fn containerd() -> Self {
        Self::containerd_over(OciRuntime::Runc).await
    }

    pub async fn containerd_over(oci_runtime: OciRuntime) -> Self {
        let (folder, namespace) = (folder(), unique("c"));
        let settings = ContainerdSettings {
            oci_runtime,
            ..ContainerdSettings::default()
        };
        let namespaces = [namespace.as_str()];
        let daemon = ContainerdDaemon::start_with(folder.path(), &namespaces, &settings).await;
        let daemon = Daemon::Containerd(daemon.expect("containerd"));
        let runtime = containerd(&daemon.socket(), &namespace, &dir(&folder)).await;
        DaemonBed {
            namespace,
            runtime,
            daemon,
            folder,
        }
    }

    pub async fn podman() -> Self {
        Self::podman_over(OciRuntime::Runc).await
    }

    pub async fn podman_over(oci_runtime: OciRuntime) -> Self {
        let (folder, namespace) = (folder(), unique("p"));
        let settings = PodmanSettings {
            oci_runtime,
            ..PodmanSettings::default()
        };
        let daemon = PodmanDaemon::start(folder.path(), &settings).await;
        let daemon = Daemon::Podman(daemon.expect("podman"));
        let runtime = podman(&daemon.socket(), &namespace);
        DaemonBed {
            namespace,
            runtime,
            daemon,
            folder,
        }
    }

    /// A client that reaches the daemon by another socket.
    pub async fn through(&self, socket: &Path) -> Arc<dyn ContainerRuntime> {
        match self.daemon {
            Daemon::Containerd(_) => containerd(socket, &self.namespace, &dir(&self.folder)).await,
            Daemon::Podman(_) => podman(socket, &self.namespace),
        }
    }

    /// Where the truth comes from.
    pub async fn source(&self) -> Arc<dyn Source> {
        let (socket, dir) = (self.daemon.socket(), dir(&self.folder));
        match self.daemon {
            Daemon::Containerd(_) => {
                let source = truth::containerd(&socket, &self.namespace, &dir, LONG).await;
                source.expect("a second connection")
            }
            Daemon::Podman(_) => truth::podman(&socket, &self.namespace).expect("a namespace"),
        }
    }

    pub fn containerd_usable() -> Result<(), String> {
        usable("containerd")
    }

    pub fn podman_usable() -> Result<(), String> {
        usable("podman")
    }
}

async fn containerd(socket: &Path, namespace: &str, dir: &Path) -> Arc<dyn ContainerRuntime> {
    let config = ContainerdConfig::new(socket, namespace, dir.join("containerd"));
    Arc::new(
        Containerd::connect(config, LONG)
            .await
            .expect("containerd answers"),
    )
}

fn podman(socket: &Path, namespace: &str) -> Arc<dyn ContainerRuntime> {
    Arc::new(Podman::new(PodmanConfig {
        endpoint: Endpoint::Unix(socket.to_owned()),
        namespace: namespace.parse().expect("a namespace"),
    }))
}

fn usable(program: &str) -> Result<(), String> {
    OciBed::usable()?;
    let version = std::process::Command::new(program)
        .arg("--version")
        .output();
    match version {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err(format!("there is no {program}")),
    }
}
