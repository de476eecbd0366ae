//! What is done to a machine as a whole.

use std::sync::Arc;

use wavetank_fixtures::daemon::process::Process;

use super::error::{RoomError, blocking};
use super::layout::Host;
use super::{Room, Shared, disk, lock, members, removal};

impl Room {
    /// Freezes a machine: no process on it, in a container or not, runs until it is resumed. Its
    /// kernel still answers, as it does for any process that hangs.
    pub async fn pause(&self, host: &str) -> Result<(), RoomError> {
        let host = self.host(host)?;
        blocking(move || members::stop(&host)).await
    }

    /// Freezes what runs in its containers and nothing else: no process ends any more, and what has
    /// ended can still be told.
    pub async fn pause_containers(&self, host: &str) -> Result<(), RoomError> {
        let host = self.host(host)?;
        blocking(move || members::stop_containers(&host)).await
    }

    /// Lets everything on it run again, with a daemon that was paused alone.
    pub async fn resume(&self, host: &str) -> Result<(), RoomError> {
        let host = self.host(host)?;
        blocking(move || members::go_on(&host)).await
    }

    /// Cuts its power: silence at once, then nothing is left of it but its disk.
    pub async fn power_off(&self, host: &str) -> Result<(), RoomError> {
        self.cut_power(host, false).await
    }

    /// Cuts its power and empties its disk.
    pub async fn wipe(&self, host: &str) -> Result<(), RoomError> {
        self.cut_power(host, true).await
    }

    /// Gives it power: its link is up and its daemon answers, if it had one. Everything else that
    /// ran on it is for the caller to start, as it would be for a machine's init. A machine that
    /// has power is left alone.
    pub async fn power_on(&self, host: &str) -> Result<(), RoomError> {
        let host = self.host(host)?;
        let shared = self.shared.clone();
        let powered = host.clone();
        if !blocking(move || shared.set_power(&powered, true)).await? {
            return Ok(());
        }
        match self.daemon(&host.name).await?.as_mut() {
            Some(daemon) => daemon.run().await,
            None => Ok(()),
        }
    }

    async fn cut_power(&self, host: &str, is_wiped: bool) -> Result<(), RoomError> {
        let host = self.host(host)?;
        let shared: Arc<Shared> = self.shared.clone();
        let silent = host.clone();
        // Before all else, and whoever holds the daemon.
        blocking(move || {
            shared.set_power(&silent, false)?;
            members::stop(&silent)
        })
        .await?;
        let mut daemon = self.daemon(&host.name).await?;
        blocking(move || {
            end(&host)?;
            if let Some(daemon) = daemon.as_mut() {
                daemon.power_off()?;
            }
            let left = removal::unmount_all(&host.folder, &disk::mounts(&host))?.left;
            if !left.is_empty() {
                let (what, host) = ("mounts", host.name);
                return Err(RoomError::Left { what, host, left });
            }
            if is_wiped {
                if let Some(daemon) = daemon.as_mut() {
                    daemon.forget();
                }
                disk::wipe(&host)?;
            }
            Ok(())
        })
        .await
    }
}

impl Shared {
    /// Says whether that changed anything.
    fn set_power(&self, host: &Host, is_on: bool) -> Result<bool, RoomError> {
        lock(&self.network).set_power(&self.layout, host, is_on)
    }
}

/// Ends everything that runs.
fn end(host: &Host) -> Result<(), RoomError> {
    let killed = members::kill(std::slice::from_ref(host));
    let mut left = killed.map_err(RoomError::file("read", "/proc"))?;
    left.retain(Process::is_alive);
    if left.is_empty() {
        return Ok(());
    }
    Err(RoomError::Left {
        what: "processes",
        host: host.name.clone(),
        left: left.iter().map(members::describe).collect(),
    })
}
