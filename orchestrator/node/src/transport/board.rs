//! A value that several tasks follow.
//!
//! tokio's `watch` wakes its followers in an order that it draws from a generator that nobody can
//! seed, and which differs from run to run within one process: under an executor that draws the
//! next task from what is ready, that order shows. This one wakes them as they came.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The value, and how often it has changed.
struct State<T> {
    value: T,
    version: u64,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Notify,
}

/// Where the value is written.
pub(super) struct Board<T> {
    shared: Arc<Shared<T>>,
}

/// Somebody who follows it.
pub struct Follower<T> {
    shared: Arc<Shared<T>>,
    seen: u64,
}

impl<T: Clone> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Board<T> {
    /// A board with this value.
    pub(super) fn new(value: T) -> Self {
        let state = Mutex::new(State { value, version: 1 });
        let changed = Notify::new();
        Board {
            shared: Arc::new(Shared { state, changed }),
        }
    }

    /// The value now.
    pub(super) fn get(&self) -> T {
        self.shared.lock().value.clone()
    }

    /// Changes the value; `change` says whether it did.
    pub(super) fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) {
        let mut state = self.shared.lock();
        if change(&mut state.value) {
            state.version += 1;
            drop(state);
            self.shared.changed.notify_waiters();
        }
    }

    /// Follows it from now on.
    pub(super) fn subscribe(&self) -> Follower<T> {
        let seen = self.shared.lock().version;
        Follower {
            shared: Arc::clone(&self.shared),
            seen,
        }
    }
}

impl<T: Clone> Follower<T> {
    /// The value now, which is seen.
    pub fn look(&mut self) -> T {
        let state = self.shared.lock();
        self.seen = state.version;
        state.value.clone()
    }

    /// Whether there is something that was not seen.
    pub(super) fn has_news(&self) -> bool {
        self.shared.lock().version != self.seen
    }

    /// What is there counts as not seen.
    pub(super) fn forget(&mut self) {
        self.seen = 0;
    }

    /// Comes back when there is something that was not seen. Cancel-safe.
    pub async fn changed(&self) {
        loop {
            let changed = self.shared.changed.notified();
            if self.has_news() {
                return;
            }
            changed.await;
        }
    }
}
