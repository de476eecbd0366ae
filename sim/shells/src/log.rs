//! What machines say while they run, in the order in which they say it. Whoever steps the
//! simulator takes it from here, puts it in order of time, and records it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use wavetank_sim_runtime::Pace;
use wavetank_trace::{Payload, VirtualTime};

/// One thing said.
pub struct Draft {
    /// When.
    pub at: VirtualTime,
    /// By which machine, by its place.
    pub place: u32,
    /// What.
    pub said: Said,
}

/// What a machine can say.
#[expect(
    clippy::large_enum_variant,
    reason = "taken up within the tick; a box would be in everyone's way"
)]
pub enum Said {
    /// Something for the trace.
    Event(Payload),
    /// A fault had a part in something.
    Hit(u32),
    /// Its process has ended by itself.
    Ended(Ending),
    /// A task of its process panicked, with these words.
    Panicked(String),
}

/// How a process ended by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why.
    pub why: String,
    /// Its disk cannot be trusted: the remedy is to wipe it and to join again.
    pub distrusts_disk: bool,
}

/// Everything said and not yet recorded, by all machines.
pub struct Log {
    drafts: Mutex<Vec<Draft>>,
    pace: Arc<dyn Pace>,
    news: Arc<Notify>,
}

impl Log {
    /// An empty log by this clock.
    pub fn new(pace: Arc<dyn Pace>) -> Self {
        Log {
            drafts: Mutex::default(),
            pace,
            news: Arc::default(),
        }
    }

    /// Says something now.
    pub fn say(&self, place: u32, said: Said) {
        self.say_at(self.pace.now(), place, said);
    }

    /// Says something that happened at `at`.
    pub fn say_at(&self, at: VirtualTime, place: u32, said: Said) {
        let mut drafts = self.drafts.lock().unwrap_or_else(PoisonError::into_inner);
        drafts.push(Draft { at, place, said });
        drop(drafts);
        self.news.notify_one();
    }

    /// Takes everything, in order of time; what was said at one time stays in the order in which
    /// it was said. Machines that a simulator runs one after the other through one tick cannot
    /// hear of each other within it, so this order is one in which it can have happened.
    pub fn take(&self) -> Vec<Draft> {
        let mut drafts = self.drafts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = std::mem::take(&mut *drafts);
        drop(drafts);
        taken.sort_by_key(|draft| draft.at);
        taken
    }

    /// Comes back when something was said, or may be due earlier than before.
    #[cfg(madsim)]
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Rings when something was said.
    pub fn bell(&self) -> Arc<Notify> {
        Arc::clone(&self.news)
    }
}
