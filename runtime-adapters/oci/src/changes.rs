//! Waiting for a folder to change, by inotify. Changes since the last look are not missed: set it
//! up, look, and wait only if there was nothing to see.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::io::unix::AsyncFd;

use crate::deadline::{Result, unknown};
use crate::readiness::readiness;

/// A watch on one folder.
pub struct Changes {
    events: AsyncFd<OwnedFd>,
}

impl Changes {
    /// Watches `folder` from now on.
    pub fn of(folder: &Path) -> Result<Self> {
        let failed = |error: rustix::io::Errno| unknown(&error.into());
        let events = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let what = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE
            | WatchFlags::MOVE_SELF
            | WatchFlags::DELETE_SELF;
        add_watch(&events, folder, what).map_err(failed)?;
        let events = readiness(events).map_err(|error| unknown(&error))?;
        Ok(Changes { events })
    }

    /// Waits for a change after the last call.
    pub async fn next(&self) -> Result<()> {
        let mut ready = self
            .events
            .readable()
            .await
            .map_err(|error| unknown(&error))?;
        // What changed does not matter: whoever waits looks again.
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        while rustix::io::read(self.events.get_ref(), &mut buffer)
            .is_ok_and(|read| !read.0.is_empty())
        {}
        ready.clear_ready();
        Ok(())
    }
}
