//! Named sets of timers and policies: our own, and those of the five reference systems. Every
//! constant names its source: the reference's table of profile constants, or our choice where the
//! system has none.

use std::time::Duration;

use wavetank_model::{
    Backoff, HealthCheck, OnRolloutFailure, RestartCondition, RestartPolicy, Timers, UpdatePolicy,
};

/// One profile: everything a scenario may leave unsaid.
#[derive(Debug)]
pub struct Profile {
    /// The name that `profile:` takes.
    pub name: &'static str,
    /// What it stands for.
    pub summary: &'static str,
    /// Constants of managers and agents.
    pub timers: Timers,
    /// What a service gets that says nothing of `restart`.
    pub restart: RestartPolicy,
    /// What a health check gets that says `true`, and its missing fields.
    pub health: Probing,
    /// From SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// What a service gets that says nothing of `update`.
    pub update: UpdatePolicy,
}

/// How a profile probes; what it runs is the service's business.
#[derive(Clone, Copy, Debug)]
pub struct Probing {
    /// Between probes.
    pub interval: Duration,
    /// Longest a probe may take.
    pub timeout: Duration,
    /// After the start, failures do not count for this long.
    pub start_period: Duration,
    /// Unhealthy verdicts in a row that fail the instance.
    pub failures_max: u32,
}

impl From<Probing> for HealthCheck {
    fn from(probing: Probing) -> Self {
        HealthCheck {
            command: Vec::new(),
            interval: probing.interval,
            timeout: probing.timeout,
            start_period: probing.start_period,
            failures_max: probing.failures_max,
        }
    }
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

/// Our own default: Swarm's order of magnitude, with bounds on everything.
const WAVETANK: Profile = Profile {
    name: "wavetank",
    summary: "our own default",
    timers: Timers {
        snapshot_every: 500, // small, so that runs of minutes see snapshots
        ..Timers::SHIPPED
    },
    restart: RestartPolicy {
        condition: RestartCondition::Always,
        restarts_max: 10,
        backoff: Backoff {
            base: s(1),
            cap: s(60),
        },
        stable_after: s(60),
    },
    health: Probing {
        interval: s(10),
        timeout: s(2),
        start_period: s(10),
        failures_max: 3,
    },
    stop_grace: s(10), // Docker, Warren, StreamSpace
    update: UpdatePolicy {
        surge_max: 1,
        unavailable_max: 0,
        monitor: s(5), // Swarm's update monitor
        failures_max: 2,
        on_failure: OnRolloutFailure::Rollback,
    },
};

/// Warren: Swarm-like, with its own raft.
const WARREN: Profile = Profile {
    name: "warren",
    summary: "Warren: Swarm-like managers and workers",
    timers: Timers {
        heartbeat: s(5),            // table, heartbeat
        node_down_after: s(30),     // table: 30 s in code and HA document, 15 s in the change log
        down_check: s(10),          // its reconcile pass finds dead workers
        reconcile: s(10),           // table; scheduler 5 s
        status_poll: s(5),          // table
        raft_heartbeat: ms(250),    // table: lease 250 ms
        raft_election: ms(500),     // table: election 500 ms
        runtime_timeout: s(10),     // table: API timeout 5 to 10 s
        pull_attempts_max: Some(1), // table: no pull retry, the task fails
        ..WAVETANK.timers
    },
    restart: RestartPolicy {
        restarts_max: 1_000,
        ..WAVETANK.restart
    }, // table: budget ignored
    health: Probing {
        interval: s(30),
        timeout: s(10),
        ..WAVETANK.health
    }, // table: 30/10/3
    ..WAVETANK
};

/// Archipelago: one node, applications with long shutdowns, slow monitor.
const ARCHIPELAGO: Profile = Profile {
    name: "archipelago",
    summary: "Archipelago: applications of a home server",
    timers: Timers {
        reconcile: s(120),            // table: 120 s monitor
        status_poll: s(120),          // table
        runtime_timeout: s(30),       // table: socket timeout 30 s, formerly 5 s
        pull_backoff: backoff(5, 15), // table: after 5 s and 15 s
        pull_attempts_max: Some(3),   // table: three tries
        ..WAVETANK.timers
    },
    restart: RestartPolicy {
        restarts_max: 10,
        stable_after: s(3600),
        ..WAVETANK.restart
    }, // table
    stop_grace: s(600), // table: 600, 330 or 30 s by application; the longest
    ..WAVETANK
};

/// Reaper: an OCI runtime under a kubelet.
const REAPER: Profile = Profile {
    name: "reaper",
    summary: "Reaper: an OCI runtime with its shim",
    timers: Timers {
        heartbeat: s(30),       // table: condition every 30 s
        node_down_after: s(90), // three heartbeats; the table has none
        session_timeout: s(65), // two heartbeats and some latency
        reconcile: s(30),       // table: controllers every 30/10/5/60 s
        status_poll: ms(100),   // table
        runtime_timeout: s(10), // table: polls the process id for 10 s
        ..WAVETANK.timers
    },
    restart: RestartPolicy {
        // The kubelet's own: ten seconds to five minutes, reset after ten.
        restarts_max: 1_000,
        backoff: Backoff {
            base: s(10),
            cap: s(300),
        },
        stable_after: s(600),
        condition: RestartCondition::Always,
    },
    stop_grace: s(30), // the kubelet's default
    ..WAVETANK
};

/// plfm: a node agent that pulls plans.
const PLFM: Profile = Profile {
    name: "plfm",
    summary: "plfm: a node agent of a platform",
    timers: Timers {
        heartbeat: s(10),       // table
        node_down_after: s(60), // table; the runbook says 2 and 5 min
        session_timeout: s(25), // two heartbeats and some latency
        reconcile: s(5),        // table: 5 s tick, full pass every 30 s
        status_poll: s(10),     // table: health every 10 s
        runtime_timeout: s(30), // table: API timeout
        pull_timeout: s(1800),  // table: limits of 5 and 30 min
        ..WAVETANK.timers
    },
    restart: RestartPolicy {
        restarts_max: 3,
        stable_after: s(600),
        ..WAVETANK.restart
    }, // table
    health: Probing {
        interval: s(10),
        timeout: s(2),
        start_period: s(10),
        failures_max: 3,
    },
    stop_grace: s(10), // table: 10 s in the specification, 30 s in code
    ..WAVETANK
};

/// StreamSpace: replicated agents that elect one of themselves.
const STREAMSPACE: Profile = Profile {
    name: "streamspace",
    summary: "StreamSpace: highly available Docker agents",
    timers: Timers {
        heartbeat: s(30),           // table: code; the ADR says 10 s
        node_down_after: s(45),     // table: more than 45 s, formerly 30 s
        down_check: s(10),          // table: tick 10 s
        session_timeout: s(40),     // one heartbeat and some latency: before it counts as down
        reconcile: s(60),           // table
        status_poll: s(1),          // table: while starting
        runtime_timeout: s(10),     // table: 5 to 10 s
        pull_attempts_max: Some(1), // table: no retry
        ..WAVETANK.timers
    },
    restart: RestartPolicy {
        restarts_max: 1_000,
        ..WAVETANK.restart
    }, // unless-stopped
    stop_grace: s(10), // table
    ..WAVETANK
};

/// All profiles, our own first.
pub const ALL: &[Profile] = &[WAVETANK, WARREN, ARCHIPELAGO, REAPER, PLFM, STREAMSPACE];

/// The names of all profiles, for `profile:`.
pub const NAMES: &[&str] = &[
    "wavetank",
    "warren",
    "archipelago",
    "reaper",
    "plfm",
    "streamspace",
];

/// The profile of that name.
pub fn find(name: &str) -> Option<&'static Profile> {
    ALL.iter().find(|profile| profile.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_profiles_agree() {
        assert_eq!(
            ALL.iter().map(|profile| profile.name).collect::<Vec<_>>(),
            NAMES
        );
    }

    #[test]
    fn no_profile_declares_a_healthy_node_down() {
        for profile in ALL {
            let timers = &profile.timers;
            assert!(
                timers.heartbeat < timers.session_timeout,
                "{}",
                profile.name
            );
            assert!(
                timers.session_timeout < timers.node_down_after,
                "{}",
                profile.name
            );
            assert!(
                timers.raft_heartbeat * 2 <= timers.raft_election,
                "{}",
                profile.name
            );
        }
    }
}
