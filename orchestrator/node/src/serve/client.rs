//! Runs a client that lives in a folder: whoever asks the managers as a peer, without their API.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use wavetank_model::{Incarnation, NodeRole, Timers};

use super::{ServeError, StateFolder};
use crate::driver::Submission;
use crate::node::{Seat, run_client};
use crate::observer::Observer;
use crate::os::Os;
use crate::platform::Platform as _;
use crate::transport::{Limits, TransportConfig};

/// Runs the client that `join` made in the folder until `stop` comes back. It asks what comes
/// through `submissions` and remembers nothing: each run is a boot of its own, told from the ones
/// before by the wall clock.
pub async fn client(
    dir: &Path,
    timers: Timers,
    observer: Arc<dyn Observer>,
    submissions: mpsc::Receiver<Submission>,
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let folder = StateFolder::at(dir);
    let platform = Os::new();
    let network = TransportConfig {
        identity: Arc::new(folder.identity_of(NodeRole::Client)?),
        incarnation: Incarnation(platform.wall().0),
        listen: None,
        advertise: None,
        addresses: folder.managers()?,
        limits: Limits::usual(),
        jitter: platform.rng(),
    };
    let seat = Seat {
        platform,
        timers,
        network,
        observer,
    };
    let ended = run_client(seat, submissions, stop).await;
    ended.map_err(ServeError::Node)
}
