//! What really became of containers, as their runtimes tell someone who is not the node.
//!
//! One observer per host, with a connection of its own to the host's runtime, past any proxy that
//! does wrong to the node's. It lists all the time and listens to events; what is certain it tells
//! a sink, for each container in order and each thing once.
//!
//! Map: `tracker` (observations in, truth out, without IO), `life` (one container), `source` (how
//! each runtime is watched), this file (asking again and again).
//!
//! # What it does not know
//! - While a runtime does not answer, nothing is told; what happened meanwhile is told when it
//!   answers again, with the times that the runtime gives.
//! - A container that came and went between two listings while events were lost was never there.
//! - Exits say that they are forgotten where the runtime has no code; none is guessed.
//! - Whether a process with a code of its own obeyed SIGTERM is known to whoever saw the stop being
//!   asked for, see [`Observer::mark`].
//! - containerd's event of an exit does not say whether it was for memory. A container that is
//!   deleted within a tenth of a second of its end may be said not to have been.

mod life;
mod source;
mod tracker;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;
use wavetank_fixtures::daemon::process::Process;
use wavetank_port::{ContainerId, EventCursor, EventStream};
use wavetank_trace::ExitCause;

pub use source::{Source, containerd, oci, podman, runtime};
pub use tracker::{Told, Tracker, Volumes};

/// Between the end of a listing and the next one.
const LIST_EVERY: Duration = Duration::from_millis(100);
/// The longest that a runtime may take for a listing or a subscription.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between two attempts to subscribe to events.
const SUBSCRIBE_EVERY: Duration = Duration::from_millis(200);

/// How often one looks for ends that somebody may still be writing down: two seconds in all.
const END_LOOKS_MAX: u32 = 20;

/// Takes what is told. It is called under a lock, so it must neither wait nor call the observer.
pub type Sink = Box<dyn Fn(Told) + Send>;

/// Watches one host's containers until it is dropped or finished.
pub struct Observer {
    shared: Arc<Shared>,
    // Dropping a set of tasks aborts them.
    watching: JoinSet<()>,
}

struct Shared {
    source: Arc<dyn Source>,
    books: Mutex<Books>,
}

struct Books {
    tracker: Tracker,
    sink: Sink,
}

impl Observer {
    /// Starts to watch. Must be called within a tokio runtime.
    pub fn start(source: Arc<dyn Source>, volumes: Volumes, sink: Sink) -> Self {
        let tracker = Tracker::new(volumes);
        let shared = Arc::new(Shared {
            source,
            books: Mutex::new(Books { tracker, sink }),
        });
        let mut watching = JoinSet::new();
        watching.spawn(list_for_ever(shared.clone()));
        watching.spawn(listen_for_ever(shared.clone()));
        Observer { shared, watching }
    }

    /// Says why a container's process ends: before it is made to, so that it cannot be too late.
    /// `Terminated` says that it was asked to: unless it is then killed, that is why it ends.
    pub fn mark(&self, container: &ContainerId, cause: ExitCause) {
        self.shared.change(|tracker| tracker.mark(container, cause));
    }

    /// Looks now, out of turn, until it is known of every process that has ended how it did, or
    /// until nobody seems to know. For when no other process ends meanwhile.
    pub async fn look_at_ends(&self) {
        for _ in 0..END_LOOKS_MAX {
            if !self.shared.list().await {
                return;
            }
            let open = self.shared.lock().tracker.open_processes();
            if open.into_iter().all(is_running) {
                return;
            }
            tokio::time::sleep(LIST_EVERY).await;
        }
    }

    /// The host lost power just now: what ran has ended, and nobody will know how. With `wiped`,
    /// its records are gone too.
    pub fn power_lost(&self, wiped: bool) {
        let now = now_ns();
        self.shared.change(|tracker| tracker.power_lost(now, wiped));
    }

    /// Looks a last time and tells what is known. What cannot be asked any more stays as it was.
    pub async fn finish(mut self) {
        self.watching.shutdown().await;
        self.shared.list().await;
        self.shared.change(Tracker::close);
    }
}

impl Shared {
    /// The one way to change what is known: what comes of it is told before anybody else does.
    fn change(&self, change: impl FnOnce(&mut Tracker)) {
        let mut books = self.lock();
        change(&mut books.tracker);
        for told in books.tracker.drain_told() {
            (books.sink)(told);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        // A sink that panics has not been told of something, which no lock can mend.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the runtime answered.
    async fn list(&self) -> bool {
        let asked_at = now_ns();
        match self.source.list(ANSWER_WITHIN).await {
            Ok(states) => {
                let answered_at = now_ns();
                self.change(|tracker| tracker.listed(asked_at, answered_at, &states));
            }
            // Unknown is not absent.
            Err(error) => {
                tracing::debug!(%error, "the runtime does not list its containers");
                return false;
            }
        }
        true
    }
}

async fn list_for_ever(shared: Arc<Shared>) {
    loop {
        shared.list().await;
        tokio::time::sleep(LIST_EVERY).await;
    }
}

async fn listen_for_ever(shared: Arc<Shared>) {
    let mut cursor = None;
    loop {
        match shared.source.events(cursor.as_ref(), ANSWER_WITHIN).await {
            Ok(stream) => listen(&shared, stream, &mut cursor).await,
            Err(error) => tracing::debug!(%error, "the runtime does not tell its events"),
        }
        tokio::time::sleep(SUBSCRIBE_EVERY).await;
    }
}

/// Until the stream ends.
async fn listen(
    shared: &Shared,
    mut stream: Box<dyn EventStream>,
    cursor: &mut Option<EventCursor>,
) {
    while let Ok(record) = stream.next().await {
        shared.change(|tracker| tracker.heard(now_ns(), &record.event));
        *cursor = record.cursor.or(cursor.take());
    }
}

fn is_running(pid: u32) -> bool {
    Process::read(pid).is_some_and(|process| !process.is_zombie())
}

fn now_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
