//! When leases run out, by the leader's own clock.
//!
//! The store knows who holds a lease; only the leader knows how long that was not renewed. A new
//! leader cannot know and starts every lease with its full time: a lease may last longer than its
//! holder asked for, never shorter. The leader measures from when it applied the grant or
//! confirmed the renewal, the holder from when it sent the request, which is earlier; so a holder
//! has given up before the lease is free.
//!
//! Once the end of a grant is proposed it cannot be renewed any more: the proposal may already be
//! in the log.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{FencingToken, Instant, LeaseName};

use super::command::Command;
use super::store::Store;

/// One grant.
#[derive(Clone, Debug, PartialEq)]
struct LeaseClock {
    token: FencingToken,
    /// When it was granted or renewed last.
    since: Instant,
    /// `None` until the store was asked.
    ttl: Option<Duration>,
    /// Its end was proposed; not proposed again before this.
    ending: Option<Instant>,
}

impl LeaseClock {
    fn deadline(&self) -> Instant {
        self.ending
            .unwrap_or_else(|| self.ttl.map_or(self.since, |ttl| self.since + ttl))
    }
}

/// The clocks of all leases that are held.
#[derive(Clone, Debug, PartialEq)]
pub struct LeaseClocks {
    clocks: BTreeMap<LeaseName, LeaseClock>,
    /// No lease needs a look before this.
    look_at: Instant,
}

impl LeaseClocks {
    /// Every held lease starts anew.
    pub fn new(store: &Store, now: Instant) -> Self {
        let mut clocks = LeaseClocks {
            clocks: BTreeMap::new(),
            look_at: Instant::NEVER,
        };
        for (lease, record) in store.leases() {
            clocks.note(lease, record.holder.is_some(), record.token, now);
        }
        clocks
    }

    /// A lease was granted, given back or ended.
    pub fn note(&mut self, lease: &LeaseName, held: bool, token: FencingToken, now: Instant) {
        if !held {
            self.clocks.remove(lease);
            return;
        }
        let clock = LeaseClock {
            token,
            since: now,
            ttl: None,
            ending: None,
        };
        self.clocks.insert(lease.clone(), clock);
        self.look_at = Instant::ZERO;
    }

    /// The holder of this grant renewed it. False if the grant is not (or soon not) the newest.
    pub fn renew(&mut self, lease: &LeaseName, token: FencingToken, now: Instant) -> bool {
        match self.clocks.get_mut(lease) {
            Some(clock) if clock.token == token && clock.ending.is_none() => {
                clock.since = now;
                true
            }
            _ => false,
        }
    }

    /// Proposes the end of grants that were not renewed in time, again after `retry` if that
    /// came to nothing.
    pub fn expire(&mut self, store: &Store, now: Instant, retry: Duration) -> Vec<Command> {
        let mut ended = Vec::new();
        if now < self.look_at {
            return ended;
        }
        self.look_at = Instant::NEVER;
        for (lease, clock) in &mut self.clocks {
            clock.ttl = clock
                .ttl
                .or_else(|| store.leases().get(lease).map(|record| record.ttl));
            if clock.deadline() <= now {
                clock.ending = Some(now + retry);
                ended.push(Command::LeaseExpire {
                    lease: lease.clone(),
                    token: clock.token,
                });
            }
            self.look_at = self.look_at.min(clock.deadline());
        }
        ended
    }

    /// When to call `expire` next.
    pub fn next_deadline(&self) -> Instant {
        self.look_at
    }
}
