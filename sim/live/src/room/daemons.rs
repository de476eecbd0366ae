//! The runtime daemon of a host: a containerd or a Podman service in the host's network namespace,
//! with all it has on the host's disk, and a proxy before its socket.

use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;

use wavetank_fixtures::daemon::containerd::{ContainerdDaemon, ContainerdSettings};
use wavetank_fixtures::daemon::podman::{PodmanDaemon, PodmanSettings};
use wavetank_fixtures::daemon::process::Process;
use wavetank_fixtures::{DaemonError, SocketProxy};

pub use wavetank_fixtures::daemon::OciRuntime;

use super::error::RoomError;
use super::layout::Host;

/// Which daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DaemonKind {
    /// containerd.
    Containerd,
    /// Podman's service.
    Podman,
}

/// What becomes of a daemon's storage when it is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// It is as it was.
    Keep,
    /// All is gone, and all containers with it: images, containers, what is known about them.
    Lose,
}

/// The daemon of a host, or what becomes one when the host is switched on.
#[derive(Debug)]
pub(crate) struct HostDaemon {
    host: Host,
    kind: DaemonKind,
    oci_runtime: OciRuntime,
    /// Where the harness may serve images in plain HTTP.
    uplink: Ipv4Addr,
    daemon: Option<Daemon>,
    /// How many have killed it and not yet had it run again.
    killed_by: u32,
}

#[derive(Debug)]
enum Daemon {
    Containerd(ContainerdDaemon),
    Podman(PodmanDaemon),
}

impl HostDaemon {
    pub(crate) async fn start(
        host: Host,
        kind: DaemonKind,
        oci_runtime: OciRuntime,
        uplink: Ipv4Addr,
    ) -> Result<Self, RoomError> {
        let mut daemon = HostDaemon {
            host,
            kind,
            oci_runtime,
            uplink,
            daemon: None,
            killed_by: 0,
        };
        daemon.run().await?;
        Ok(daemon)
    }

    /// Where clients that do not go through the proxy find it.
    pub(crate) fn socket(&self) -> PathBuf {
        match self.kind {
            DaemonKind::Containerd => self.host.containerd().join("containerd.sock"),
            DaemonKind::Podman => self.host.podman().join("podman.sock"),
        }
    }

    /// A proxy before the socket, for as long as it is held.
    pub(crate) async fn proxy(&self) -> Result<Arc<SocketProxy>, RoomError> {
        let path = self.host.folder.join("runtime.sock");
        // Of a room that was here before.
        let _ = std::fs::remove_file(&path);
        let proxy = SocketProxy::start(&path, &self.socket()).await;
        Ok(Arc::new(
            proxy.map_err(RoomError::file("listen at", &path))?,
        ))
    }

    /// One of those who have killed it wants it to run again.
    pub(crate) fn release(&mut self) {
        self.killed_by = self.killed_by.saturating_sub(1);
    }

    /// Runs it, whether it ran before or not, and waits until it answers; not while somebody wants
    /// it dead.
    pub(crate) async fn run(&mut self) -> Result<(), RoomError> {
        if self.killed_by > 0 {
            return Ok(());
        }
        let result = match &mut self.daemon {
            Some(Daemon::Containerd(daemon)) => daemon.restart().await,
            Some(Daemon::Podman(daemon)) => daemon.restart().await,
            None => self.start_anew().await,
        };
        result.map_err(|source| self.failed(source))
    }

    async fn start_anew(&mut self) -> Result<(), DaemonError> {
        let network_namespace = Some(self.host.namespace_path());
        let oci_runtime = self.oci_runtime.clone();
        self.daemon = Some(match self.kind {
            DaemonKind::Containerd => {
                let settings = ContainerdSettings {
                    network_namespace,
                    oci_runtime,
                };
                let namespaces = [self.host.namespace.as_str()];
                let directory = self.host.containerd();
                let daemon = ContainerdDaemon::start_with(&directory, &namespaces, &settings);
                Daemon::Containerd(daemon.await?)
            }
            DaemonKind::Podman => {
                let settings = PodmanSettings {
                    network_namespace,
                    oci_runtime,
                    plain_http: vec![self.uplink.to_string()],
                    ..PodmanSettings::default()
                };
                Daemon::Podman(PodmanDaemon::start(&self.host.podman(), &settings).await?)
            }
        });
        Ok(())
    }

    /// Kills the daemon alone, until all who did have released it.
    pub(crate) fn kill(&mut self) {
        self.killed_by += 1;
        match &mut self.daemon {
            Some(Daemon::Containerd(daemon)) => daemon.kill(),
            Some(Daemon::Podman(daemon)) => daemon.kill(),
            None => {}
        }
    }

    /// Stops the daemon alone from running, or lets it run again.
    pub(crate) fn set_paused(&mut self, is_paused: bool) -> Result<(), RoomError> {
        let result = match (&mut self.daemon, is_paused) {
            (Some(Daemon::Containerd(daemon)), true) => daemon.pause(),
            (Some(Daemon::Containerd(daemon)), false) => daemon.resume(),
            (Some(Daemon::Podman(daemon)), true) => daemon.pause(),
            (Some(Daemon::Podman(daemon)), false) => daemon.resume(),
            (None, _) => {
                let host = self.host.name.clone();
                return Err(RoomError::NoDaemon { host });
            }
        };
        result.map_err(|source| self.failed(source))
    }

    /// Ends it with all containers and what is known only in memory.
    pub(crate) fn power_off(&mut self) -> Result<(), RoomError> {
        let result = match &mut self.daemon {
            Some(Daemon::Containerd(daemon)) => daemon.end_all().map(drop),
            Some(Daemon::Podman(daemon)) => daemon.power_off(),
            None => Ok(()),
        };
        result.map_err(self.unclean())
    }

    /// The same, and its storage is gone.
    pub(crate) fn lose_records(&mut self) -> Result<(), RoomError> {
        let result = match &mut self.daemon {
            Some(Daemon::Containerd(daemon)) => daemon.lose_records(),
            Some(Daemon::Podman(daemon)) => daemon.lose_records(),
            None => Ok(()),
        };
        result.map_err(self.unclean())
    }

    /// Its folder is gone with the disk; the next run starts from nothing.
    pub(crate) fn forget(&mut self) {
        self.daemon = None;
    }

    /// The monitor of a container, by the name that the daemon knows it by.
    pub(crate) fn monitor(&self, container: &str) -> Result<Process, RoomError> {
        let found = match &self.daemon {
            Some(Daemon::Containerd(daemon)) => daemon.shim(&self.host.namespace, container),
            Some(Daemon::Podman(daemon)) => daemon.monitor(container),
            None => Ok(None),
        };
        let found = found.map_err(RoomError::file("read", "/proc"))?;
        found.ok_or_else(|| RoomError::NoMonitor {
            container: container.to_owned(),
            host: self.host.name.clone(),
        })
    }

    fn failed(&self, source: DaemonError) -> RoomError {
        RoomError::Daemon {
            host: self.host.name.clone(),
            source,
        }
    }

    fn unclean(&self) -> impl FnOnce(io::Error) -> RoomError {
        RoomError::file("clean up", self.host.disk())
    }
}
