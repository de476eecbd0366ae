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
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::Failure;

/// Which signal came last; none is 0. Unset while nobody listens.
static CAME: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// Those that are listened to.
const SIGNALS: [(i32, &str); 3] = [(SIGTERM, "SIGTERM"), (SIGINT, "SIGINT"), (SIGHUP, "SIGHUP")];

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
    let [mut terminated, mut interrupted, mut hung_up] = [
        signal(SignalKind::terminate()).context(cannot)?,
        signal(SignalKind::interrupt()).context(cannot)?,
        signal(SignalKind::hangup()).context(cannot)?,
    ];
    // These wake us for what comes from now on; this is what came before.
    check()?;
    let name = tokio::select! {
        done = work => return Ok(done),
        _ = terminated.recv() => "SIGTERM",
        _ = interrupted.recv() => "SIGINT",
        _ = hung_up.recv() => "SIGHUP",
    };
    Err(ended_by(name))
}

fn listen() -> std::io::Result<()> {
    if CAME.get().is_some() {
        return Ok(());
    }
    let came = CAME.get_or_init(Arc::default);
    for (at, (signal, _)) in SIGNALS.into_iter().enumerate() {
        signal_hook::flag::register_usize(signal, came.clone(), at + 1)?;
    }
    Ok(())
}
