//! The leader's planner. (skeleton)

use wavetank_model::{Change, FencingToken, Instant, LeaseName, Timers};

use super::command::Command;
use super::store::Store;

/// The leader's planner.
#[derive(Clone, Debug, PartialEq)]
pub struct Planner {
    timers: Timers,
}

impl Planner {
    /// Starts planning from a store, right after an election.
    pub fn new(timers: &Timers, now: Instant, store: &Store) -> Self {
        let _ = (now, store);
        Planner { timers: timers.clone() }
    }

    /// Takes note of what was applied.
    pub fn note(&mut self, changes: &[Change], now: Instant) {
        let _ = (changes, now, &self.timers);
    }

    /// Decides what to propose now.
    pub fn step(&mut self, store: &Store, now: Instant) -> Vec<Command> {
        let _ = (store, now);
        Vec::new()
    }

    /// When `step` wants to be called next without a change.
    pub fn next_deadline(&self) -> Instant {
        Instant::NEVER
    }

    /// A holder renewed its lease. False if it may not, because the grant is gone or going.
    pub fn renew(&mut self, lease: &LeaseName, token: FencingToken, now: Instant) -> bool {
        let _ = (lease, token, now);
        false
    }
}
