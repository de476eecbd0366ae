//! What a node spends on its peers at most, and how often it had to say no.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use wavetank_model::{Instant, NodeRole};

/// Bounds on everything that another machine can make a node spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The first frame of a connection, when nobody is known yet.
    pub first_frame_bytes_max: usize,
    /// Frames of managers: a snapshot of the store is one.
    pub manager_frame_bytes_max: usize,
    /// Frames of agents and clients.
    pub frame_bytes_max: usize,
    /// Connections that others made, in all.
    pub connections_max: usize,
    /// Those among them that have not said who they are; a new one then drives out the oldest.
    pub handshakes_max: usize,
    /// Joins and renewals that are worked on at once.
    pub admissions_max: usize,
    /// Messages to one peer that wait for its acknowledgement.
    pub queue_messages_max: usize,
    /// Their bytes. One message may exceed it alone.
    pub queue_bytes_max: usize,
    /// Messages that have arrived and that nobody has looked at, of all peers together.
    pub arrivals_max: usize,
    /// From the first byte until both sides know each other.
    pub handshake_timeout: Duration,
    /// From a request for a certificate to its answer.
    pub admission_timeout: Duration,
    /// A side that has said nothing for this long says so.
    pub keepalive: Duration,
    /// A connection on which nothing was heard for this long (or twice that) is given up.
    pub silence_timeout: Duration,
    /// A connection that takes no bytes for this long (or twice that) is given up.
    pub stall_timeout: Duration,
    /// The pause after a first failure to connect; it doubles with each further one.
    pub reconnect_min: Duration,
    /// The longest pause.
    pub reconnect_max: Duration,
}

impl Limits {
    /// What a node should use unless there is a reason not to. With 20,000 file descriptors these
    /// leave room for the containers' logs and the API.
    pub fn usual() -> Self {
        Limits {
            first_frame_bytes_max: 64 << 10,
            manager_frame_bytes_max: 64 << 20,
            frame_bytes_max: 4 << 20,
            connections_max: 8192,
            handshakes_max: 512,
            admissions_max: 16,
            queue_messages_max: 4096,
            queue_bytes_max: 64 << 20,
            arrivals_max: 256,
            handshake_timeout: Duration::from_secs(5),
            admission_timeout: Duration::from_secs(30),
            keepalive: Duration::from_secs(2),
            silence_timeout: Duration::from_secs(6),
            stall_timeout: Duration::from_secs(6),
            reconnect_min: Duration::from_millis(50),
            reconnect_max: Duration::from_secs(2),
        }
    }

    /// The longest frame that a peer of this role may send.
    pub(super) fn frame_bytes_max_of(&self, role: NodeRole) -> usize {
        match role {
            NodeRole::Manager => self.manager_frame_bytes_max,
            NodeRole::Agent | NodeRole::Client => self.frame_bytes_max,
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// What it stands at.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened on a node's connections since it started.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Every counter with its name.
            pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.get()),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Messages handed over for sending.
    messages_submitted,
    /// Messages written to a connection, again ones included.
    messages_written,
    /// Messages that arrived and were passed on.
    messages_received,
    /// Messages that had arrived before.
    messages_repeated,
    /// Messages that could not be read.
    messages_undecodable,
    /// Messages dropped because too many waited, or because they were too large.
    messages_overflowed,
    /// Messages dropped because their peer had started anew.
    messages_outlived,
    /// Bytes that came from connections, as the network carries them: TLS included.
    bytes_read,
    /// Bytes that went into connections, likewise.
    bytes_written,
    /// Connections that others made.
    connections_accepted,
    /// Connections that were dropped because there were too many.
    connections_refused,
    /// Connections that failed before both sides knew each other: wrong or no certificate,
    /// no TLS, nonsense, silence.
    handshakes_failed,
    /// Attempts to connect.
    dials,
    /// Those that failed.
    dials_failed,
    /// Connections on which both sides knew each other.
    connections_established,
    /// Connections given up because nothing was heard or nothing was taken.
    connections_abandoned,
    /// Streams that peers were asked for.
    streams_asked,
    /// Streams that peers asked for.
    streams_answered,
    /// Joins and renewals that were granted.
    admissions_granted,
    /// Joins and renewals that were refused.
    admissions_refused,
}

/// How many complaints are logged in [`WINDOW`].
const COMPLAINTS_MAX: u64 = 20;
const WINDOW: Duration = Duration::from_secs(10);

/// Keeps whoever knocks at the door all night from filling the log.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    began: Instant,
    said: u64,
    unsaid: u64,
}

impl Complaints {
    /// Logs why there is no connection with somebody, who was turned away or does not answer,
    /// unless there was too much of that lately.
    pub(super) fn say(&self, now: Instant, who: &dyn fmt::Display, why: &dyn fmt::Display) {
        if let Some(unsaid) = self.admit(now) {
            tracing::warn!(%who, %why, unsaid, "no connection");
        }
    }

    /// How many complaints were passed over since the last one, if another may be logged.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.since(window.began) >= WINDOW {
            window.began = now;
            window.said = 0;
        }
        if window.said >= COMPLAINTS_MAX {
            window.unsaid += 1;
            return None;
        }
        window.said += 1;
        Some(std::mem::take(&mut window.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_limited_and_what_was_left_out_is_counted() {
        let complaints = Complaints::default();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let said = (0..1000).filter_map(|_| complaints.admit(at(1))).count();
        assert_eq!(said as u64, COMPLAINTS_MAX);
        assert_eq!(complaints.admit(at(30)), Some(1000 - COMPLAINTS_MAX));
        assert_eq!(complaints.admit(at(31)), Some(0));
    }
}
