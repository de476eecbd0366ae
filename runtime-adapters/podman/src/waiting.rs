//! How the end of a container's process is waited for.
//!
//! Where the process is here, the kernel says when it has ended. Elsewhere Podman is asked, which
//! looks at its database as often as it is told to, each time with the whole database locked, and
//! calls a container ended only once its monitor's clean-up has come through: 20 seconds after
//! the end where that failed (`WaitForExit` in `libpod/container_api.go`). So neither answer is
//! more than a hint, and an inspection is made from time to time in any case.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{sleep, timeout};
use wavetank_port::{ContainerId, ContainerStatus, ErrorClass, ExitStatus};

use crate::error::{Error, Result};
use crate::lifecycle::OUR_POLL;
use crate::observed::Observed;
use crate::process::Init;
use crate::service::Service;
use crate::transport::Call;

/// How often the service looks whether a process has ended.
const SERVER_POLL: &str = "100ms";

/// How long a hint is waited for before we look without one.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// How long the monitor of a process that has ended is first given to write that down.
const REPORT_PAUSE: Duration = Duration::from_millis(2);

impl Service {
    pub(crate) async fn wait(&self, id: &ContainerId) -> Result<ExitStatus> {
        let mut seen = self.observe(id).await?;
        let podman_id = seen.podman_id.clone();
        let mut pause = REPORT_PAUSE;
        loop {
            if let Some(exit) = seen.state.exit {
                return Ok(exit);
            }
            if seen.state.status == ContainerStatus::Created {
                sleep(OUR_POLL).await;
            } else if timeout(LOOK_WITHIN, self.hint_of_end(&seen)).await.is_ok() {
                sleep(pause).await;
                pause = LOOK_WITHIN.min(pause * 2);
            }
            seen = self.observe(id).await?;
            if seen.podman_id != podman_id {
                let message = format!("container {id} was deleted; another one has its id now");
                return Err(Error::ours(ErrorClass::NotFound, message));
            }
        }
    }

    /// Comes back when the process seems to have ended, or when nobody can say.
    pub(crate) async fn hint_of_end(&self, seen: &Observed) {
        match self.hold_init(seen).await {
            Init::Ended => {}
            Init::Held(process) => {
                // Where the kernel cannot tell us, we look again.
                if let Ok(process) = readiness(process) {
                    let _ = process.readable().await;
                }
            }
            Init::Elsewhere => self.wait_at_service(&seen.podman_id).await,
        }
    }

    async fn wait_at_service(&self, podman_id: &str) {
        let call = Call::post(format!("/containers/{podman_id}/wait"))
            .query("condition", "stopped")
            .query("interval", SERVER_POLL);
        // Whatever it answers, the caller looks for itself.
        if let Ok(reply) = self.client.send(call).await {
            let _ = reply.done().await;
        }
    }
}

/// A descriptor, to be waited for until it can be read.
#[expect(
    unsafe_code,
    reason = "tokio takes any descriptor on the caller's word that it stays what it is"
)]
fn readiness(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open for as long as it lives, and says the same number always; the
    // `AsyncFd` owns it and gives it to nobody.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
