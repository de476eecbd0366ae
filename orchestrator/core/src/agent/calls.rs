//! Which runtime call or lock request belongs to whom, and when it is given up.
//!
//! Owns the ids of one boot. It decides nothing: a call that is not found here any more was given
//! up, and its late answer says nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use wavetank_model::{Backoff, Instant, TaskId, Timers};
use wavetank_port::{ContainerId, ErrorClass, ImageReference};

use crate::process::CallId;
use crate::random::jittered;

/// Who waits for an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A task, about its container.
    Task(TaskId),
    /// An image that is being pulled, for whoever needs it.
    Image(ImageReference),
    /// The periodic listing.
    Listing,
    /// A container without a task.
    Orphan(ContainerId),
    /// A task's elector, about a lock file.
    Lock(TaskId),
}

/// All calls that wait for an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Calls {
    last: u64,
    waiting: BTreeMap<CallId, Caller>,
}

impl Calls {
    /// An id for a new call.
    pub fn open(&mut self, caller: Caller) -> CallId {
        self.last += 1;
        let call = CallId(self.last);
        self.waiting.insert(call, caller);
        call
    }

    /// Who waits for this answer; nobody if the call was given up or answered before.
    pub fn close(&mut self, call: CallId) -> Option<Caller> {
        self.waiting.remove(&call)
    }
}

/// A call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flight {
    pub call: CallId,
    pub verb: Verb,
    /// When it is given up: what it did is unknown from then on.
    pub deadline: Instant,
}

/// What is asked about one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Start,
    Inspect,
    Stop,
    Delete { force: bool },
    Probe,
}

/// Failures in a row of one kind of call, and when it may be tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retry {
    pub failures: u32,
    pub not_before: Instant,
}

impl Retry {
    /// One more failure: wait longer.
    pub fn fail(&mut self, now: Instant, timers: &Timers, rng: &mut ChaCha8Rng) {
        self.failures = self.failures.saturating_add(1);
        self.not_before = now + jittered(rng, retry_backoff(timers).delay(self.failures));
    }

    /// It worked.
    pub fn clear(&mut self) {
        *self = Retry::default();
    }
}

/// Between attempts of a call that failed. The runtime is local, so the waits are those that a
/// manager's request gets, and never longer than it takes the next listing to come round.
fn retry_backoff(timers: &Timers) -> Backoff {
    let base = timers.request_retry.max(Duration::from_millis(1));
    Backoff {
        base,
        cap: timers.status_poll.max(base),
    }
}

/// True if the runtime could not be reached or was too slow: that says nothing about the call
/// itself, so trying again costs no budget.
pub(super) fn is_transient(class: ErrorClass) -> bool {
    matches!(
        class,
        ErrorClass::Unavailable | ErrorClass::DeadlineExceeded
    )
}
