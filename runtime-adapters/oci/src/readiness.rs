//! Waiting in the async world for a file descriptor that tokio has no type for: a pidfd, an
//! inotify.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor whose readability can be awaited. Must be called within a tokio runtime.
#[expect(
    unsafe_code,
    reason = "tokio asks us to vouch that the descriptor stays open; an OwnedFd does"
)]
pub fn readiness(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned and can neither be replaced nor closed
    // before that is dropped: nothing hands it out mutably.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
