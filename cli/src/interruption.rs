//! Whoever asks this program to end, by SIGTERM, SIGINT or SIGHUP, while it has something to take
//! back.
//!
//! What runs is dropped, and with it all that it has started; nothing else is begun. To listen
//! replaces what these signals do by themselves, for as long as the process lives, so one that
//! comes between two pieces of work is kept for the next.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Which signal came last; none is 0. Unset while nobody listens.
static CAME: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Those that are listened to.
const SIGNALS: [(SignalKind, &str); 3] = [
    (SignalKind::terminate(), "SIGTERM"),
    (SignalKind::interrupt(), "SIGINT"),
    (SignalKind::hangup(), "SIGHUP"),
];

/// Fails if this process was asked to end. Until something has listened, the signals end it by
/// themselves.
pub fn check() -> Result<(), Failure> {
    let number = CAME.get().map_or(0, |came| came.load(Ordering::Relaxed));
    match number.checked_sub(1).and_then(|at| SIGNALS.get(at)) {
        None => Ok(()),
        Some((_, name)) => Err(ended_by(name)),
    }
}

fn ended_by(signal: &str) -> Failure {
    Failure::Harness(anyhow::anyhow!("ended by {signal}"))
}

/// What `work` gives, unless this process is asked to end.
pub async fn unless_interrupted<T>(work: impl Future<Output = T>) -> Result<T, Failure> {
    let cannot = "cannot listen for signals";
    listen().context(cannot)?;
    let [terminate, interrupt, hang_up] = SIGNALS.map(|(kind, _)| signal(kind));
    let mut terminate = terminate.context(cannot)?;
    let mut interrupt = interrupt.context(cannot)?;
    let mut hang_up = hang_up.context(cannot)?;
    // These wake us for what comes from now on; this is what came before.
    check()?;
    tokio::select! {
        done = work => return Ok(done),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hang_up.recv() => {}
    }
    Err(check().err().unwrap_or_else(|| ended_by("a signal")))
}

/// Threads that do so at once each register a listener, of which one counts.
fn listen() -> std::io::Result<()> {
    if CAME.get().is_none() {
        let came = Arc::default();
        for (at, (kind, _)) in SIGNALS.into_iter().enumerate() {
            let (signal, came) = (kind.as_raw_value(), Arc::clone(&came));
            signal_hook::flag::register_usize(signal, came, at + 1)?;
        }
        let _ = CAME.set(came);
    }
    Ok(())
}
