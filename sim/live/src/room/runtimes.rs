//! What is done with and to the runtime daemon of a host.

use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::sync::OwnedMutexGuard;
use wavetank_fixtures::SocketProxy;

use super::daemons::{DaemonKind, HostDaemon, OciRuntime, Records};
use super::error::{RoomError, blocking};
use super::{Room, lock};

impl Room {
    /// Starts a daemon on a host, which may have one, and waits until it answers. Returns the
    /// socket of the proxy before it, which a node is to use.
    pub async fn start_daemon(
        &self,
        host: &str,
        kind: DaemonKind,
        oci_runtime: OciRuntime,
    ) -> Result<PathBuf, RoomError> {
        let host = self.host(host)?;
        let name = host.name.clone();
        let mut slot = self.daemon(&name).await?;
        if slot.is_some() {
            return Err(RoomError::Invalid {
                what: format!("{name} has a runtime daemon already"),
                hint: "a host can have one".to_owned(),
            });
        }
        let daemon = HostDaemon::start(host, kind, oci_runtime, self.uplink()).await?;
        let proxy = daemon.proxy().await?;
        *slot = Some(daemon);
        let socket = proxy.path().to_owned();
        lock(&self.shared.proxies).insert(name, proxy);
        Ok(socket)
    }

    /// The daemon's own socket, for those who look at it from outside.
    pub async fn daemon_socket(&self, host: &str) -> Result<PathBuf, RoomError> {
        let slot = self.daemon(host).await?;
        let daemon = slot.as_ref().ok_or_else(|| no_daemon(host))?;
        Ok(daemon.socket())
    }

    /// What stands between the node and the daemon, to do wrong.
    pub fn proxy(&self, host: &str) -> Result<Arc<SocketProxy>, RoomError> {
        let found = lock(&self.shared.proxies).get(host).cloned();
        found.ok_or_else(|| no_daemon(host))
    }

    /// Kills the daemon alone; containers go on. It is dead until it was restarted as often as it
    /// was killed.
    pub async fn kill_daemon(&self, host: &str) -> Result<(), RoomError> {
        self.with_daemon(host, |it| {
            it.kill();
            Ok(())
        })
        .await
    }

    /// Stops the daemon alone from running: calls to it hang.
    pub async fn pause_daemon(&self, host: &str) -> Result<(), RoomError> {
        self.with_daemon(host, |it| it.set_paused(true)).await
    }

    /// Lets it run again.
    pub async fn resume_daemon(&self, host: &str) -> Result<(), RoomError> {
        self.with_daemon(host, |it| it.set_paused(false)).await
    }

    /// Starts the daemon again, after killing it if it runs, and waits until it answers. On a
    /// machine without power that is left to [`Room::power_on`].
    pub async fn restart_daemon(&self, host: &str, records: Records) -> Result<(), RoomError> {
        if records == Records::Lose {
            self.with_daemon(host, HostDaemon::lose_records).await?;
        }
        let mut slot = self.daemon(host).await?;
        let daemon = slot.as_mut().ok_or_else(|| no_daemon(host))?;
        daemon.release();
        let has_power = lock(&self.shared.network).has_power(host);
        match has_power {
            true => daemon.run().await,
            false => Ok(()),
        }
    }

    /// Sends a signal to the monitor (shim, conmon) of a container, which is called as the daemon
    /// calls it: to kill it, to stop it, to let it go on.
    pub async fn signal_monitor(
        &self,
        host: &str,
        container: &str,
        signal: Signal,
    ) -> Result<(), RoomError> {
        let (host_name, name) = (host.to_owned(), container.to_owned());
        self.with_daemon(host, move |it| match it.monitor(&name)?.signal(signal) {
            true => Ok(()),
            false => Err(RoomError::NoMonitor {
                container: name,
                host: host_name,
            }),
        })
        .await
    }

    /// The daemon of a host, if it has one; nobody else changes it meanwhile.
    pub(super) async fn daemon(
        &self,
        host: &str,
    ) -> Result<OwnedMutexGuard<Option<HostDaemon>>, RoomError> {
        let name = self.host(host)?.name;
        let slot = self.shared.daemons.get(&name);
        let slot = slot.ok_or_else(|| no_daemon(host))?.clone();
        Ok(slot.lock_owned().await)
    }

    async fn with_daemon(
        &self,
        host: &str,
        work: impl FnOnce(&mut HostDaemon) -> Result<(), RoomError> + Send + 'static,
    ) -> Result<(), RoomError> {
        let mut slot = self.daemon(host).await?;
        let name = host.to_owned();
        blocking(move || work(slot.as_mut().ok_or_else(|| no_daemon(&name))?)).await
    }
}

fn no_daemon(host: &str) -> RoomError {
    RoomError::NoDaemon {
        host: host.to_owned(),
    }
}
