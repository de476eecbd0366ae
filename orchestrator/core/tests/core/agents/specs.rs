//! The timers and the services that the tests use.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{
    Backoff, ElectionSpec, HealthCheck, OnRolloutFailure, Resources, RestartCondition,
    RestartPolicy, ServiceMode, ServiceSpec, Timers, UpdatePolicy,
};
use wavetank_port::ImageReference;

pub fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub fn timers() -> Timers {
    let backoff = Backoff {
        base: seconds(1),
        cap: seconds(8),
    };
    Timers {
        heartbeat: seconds(2),
        node_down_after: seconds(30),
        down_check: seconds(1),
        failover_grace: seconds(5),
        session_timeout: seconds(6),
        request_retry: seconds(1),
        raft_heartbeat: Duration::from_millis(150),
        raft_election: Duration::from_millis(500),
        snapshot_every: 100,
        reconcile: seconds(5),
        status_poll: seconds(5),
        runtime_timeout: seconds(10),
        pull_timeout: seconds(20),
        pull_backoff: backoff,
        pull_attempts_max: None,
        replace_backoff: backoff,
        history_max: 2,
    }
}

pub fn spec(condition: RestartCondition) -> ServiceSpec {
    ServiceSpec {
        name: "web".into(),
        image: ImageReference("web".into()),
        command: Vec::new(),
        environment: BTreeMap::new(),
        mode: ServiceMode::Replicated { replicas: 1 },
        resources: Resources {
            cpu_millis: 100,
            memory_bytes: 1 << 20,
        },
        constraints: BTreeMap::new(),
        spread: None,
        ports: Vec::new(),
        volume: None,
        restart: RestartPolicy {
            condition,
            restarts_max: 3,
            backoff: Backoff {
                base: seconds(1),
                cap: seconds(4),
            },
            stable_after: seconds(30),
        },
        health: None,
        stop_grace: seconds(10),
        update: UpdatePolicy {
            surge_max: 1,
            unavailable_max: 0,
            monitor: seconds(5),
            failures_max: 1,
            on_failure: OnRolloutFailure::Pause,
        },
        election: None,
    }
}

/// What probes run.
pub const PROBE: &str = "check";

pub fn checked(interval: u64, failures_max: u32) -> ServiceSpec {
    let health = HealthCheck {
        command: vec![PROBE.to_owned()],
        interval: seconds(interval),
        timeout: seconds(1),
        start_period: Duration::ZERO,
        failures_max,
    };
    ServiceSpec {
        health: Some(health),
        ..spec(RestartCondition::Always)
    }
}

pub fn electing(election: ElectionSpec) -> ServiceSpec {
    ServiceSpec {
        election: Some(election),
        ..spec(RestartCondition::Always)
    }
}
