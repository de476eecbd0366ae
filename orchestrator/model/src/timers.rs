//! Every constant of the orchestrator that a profile may set. No defaults here: a profile names
//! all of them, with their sources.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Exponential backoff: `base`, doubled each time, at most `cap`; the caller adds jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Backoff {
    /// First wait.
    pub base: Duration,
    /// Longest wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (1 or more); zero for none.
    pub fn delay(self, failures: u32) -> Duration {
        if failures == 0 {
            return Duration::ZERO;
        }
        let factor = 1u32.checked_shl(failures - 1).unwrap_or(u32::MAX);
        self.base
            .checked_mul(factor)
            .unwrap_or(self.cap)
            .min(self.cap)
    }
}

/// Timers and limits of managers and agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers {
    /// Between an agent's heartbeats.
    pub heartbeat: Duration,
    /// An agent not heard of for this long is down.
    pub node_down_after: Duration,
    /// Between the leader's looks for agents that have gone down.
    pub down_check: Duration,
    /// After an election, agents have this long on top before they can be declared down.
    pub failover_grace: Duration,
    /// An agent that got no answer for this long looks for another manager.
    pub session_timeout: Duration,
    /// Agents and clients repeat an unanswered request after this long.
    pub request_retry: Duration,
    /// Consensus: between the leader's heartbeats.
    pub raft_heartbeat: Duration,
    /// Consensus: shortest election timeout; each is drawn from once to twice this.
    pub raft_election: Duration,
    /// Consensus: applied entries between snapshots of the store.
    pub snapshot_every: u64,
    /// Between the leader's full reconcile passes; changes are also handled at once.
    pub reconcile: Duration,
    /// Between an agent's full listings of its containers.
    pub status_poll: Duration,
    /// Longest an agent waits for a runtime call (a stop: on top of its grace).
    pub runtime_timeout: Duration,
    /// Longest an agent waits for a pull.
    pub pull_timeout: Duration,
    /// Between attempts to pull.
    pub pull_backoff: Backoff,
    /// Attempts to pull before the instance fails; `None` tries for ever.
    pub pull_attempts_max: Option<u32>,
    /// Wait before a failed or lost task's slot gets its next task.
    pub replace_backoff: Backoff,
    /// Finished tasks kept per slot for people to look at.
    pub history_max: u32,
}
