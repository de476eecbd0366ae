//! Signals to a container's process, by way of the OCI runtime: only it knows how to reach a
//! process in whatever it uses for isolation.

use std::time::Duration;

use wavetank_port::{RuntimeError, Signal};

use crate::deadline::{Result, blocking, unknown};
use crate::runtime_binary::RuntimeBinary;
use crate::view::View;

/// The longest that the runtime may take to send a signal.
const SENT_WITHIN: Duration = Duration::from_secs(5);

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The process got it.
    Delivered,
    /// There was no process any more.
    Gone,
}

/// Sends signal `number`. A process that has ended needs none: that is no error.
pub async fn send(runtime: &RuntimeBinary, view: &View, number: i32) -> Result<Sent> {
    let (runtime, id) = (runtime.clone(), view.record.spec.id.0.clone());
    let identity = view.facts.identity().cloned();
    blocking(move || {
        let alive = || match &identity {
            Some(identity) => identity.is_alive().map_err(|error| unknown(&error)),
            None => Ok(false),
        };
        if !alive()? {
            return Ok(Sent::Gone);
        }
        let sent = runtime.call("kill", &[&id, &number.to_string()], SENT_WITHIN);
        match sent {
            Ok(()) => Ok(Sent::Delivered),
            // It ended just now; the runtime has no code for that, only words.
            Err(_) if !alive()? => Ok(Sent::Gone),
            Err(error) => Err(error),
        }
    })
    .await
}

/// Sends SIGKILL, without the runtime if that does not do it.
pub async fn kill_process(runtime: &RuntimeBinary, view: &View) -> Result<Sent> {
    let refused: RuntimeError = match send(runtime, view, Signal::Kill.number()).await {
        Ok(sent) => return Ok(sent),
        Err(error) => error,
    };
    tracing::warn!(id = %view.record.spec.id, error = %refused, "the runtime cannot kill it");
    let Some(identity) = view.facts.identity().cloned() else {
        return Err(refused);
    };
    blocking(move || identity.kill().map_err(|error| unknown(&error))).await?;
    Ok(Sent::Delivered)
}
