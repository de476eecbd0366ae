//! Every constant of the orchestrator that a configuration or a profile may set, and the one set of
//! values that ships. Other profiles name all of them, with their sources.

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

impl Timers {
    /// What ships. The profile `wavetank` of scenarios is the same, so that what is tested is what
    /// a node does unless it is told otherwise.
    pub const SHIPPED: Timers = Timers {
        heartbeat: s(5),                 // SwarmKit, Warren
        node_down_after: s(30),          // six heartbeats
        down_check: s(1),                // detection within threshold and one second
        failover_grace: s(10),           // two heartbeats after an election
        session_timeout: s(12),          // two heartbeats and some latency
        request_retry: s(2),             // ours
        raft_heartbeat: ms(150),         // etcd's 100 ms with room for slow disks
        raft_election: s(1),             // etcd's default
        snapshot_every: 10_000,          // SwarmKit
        reconcile: s(10),                // Warren
        status_poll: s(5),               // Warren
        runtime_timeout: s(10),          // Warren's and StreamSpace's upper end
        pull_timeout: s(300),            // plfm's lower limit
        pull_backoff: backoff(1, 300),   // Kubernetes: up to five minutes
        pull_attempts_max: None,         // Kubernetes: tries for ever
        replace_backoff: backoff(1, 60), // ours
        history_max: 3,                  // Swarm keeps 5
    };
}

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn backoff(base: u64, cap: u64) -> Backoff {
    Backoff {
        base: s(base),
        cap: s(cap),
    }
}
