//! The orchestrator's timers, and what a configuration may change of those that ship.

use std::time::Duration;

use serde::Deserialize;
use wavetank_model::{Backoff, Timers};

use super::values::{Problem, Span};

/// The table `[timers]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimersTable {
    heartbeat: Option<Span>,
    node_down_after: Option<Span>,
    down_check: Option<Span>,
    failover_grace: Option<Span>,
    session_timeout: Option<Span>,
    request_retry: Option<Span>,
    raft_heartbeat: Option<Span>,
    raft_election: Option<Span>,
    snapshot_every: Option<u64>,
    reconcile: Option<Span>,
    status_poll: Option<Span>,
    runtime_timeout: Option<Span>,
    pull_timeout: Option<Span>,
    pull_backoff: Option<BackoffTable>,
    pull_attempts_max: Option<u32>,
    replace_backoff: Option<BackoffTable>,
    history_max: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BackoffTable {
    base: Span,
    cap: Span,
}

impl TimersTable {
    /// The defaults with these changes, if they fit together.
    pub fn resolve(&self) -> Result<Timers, Problem> {
        let span = |given: Option<Span>, default| given.map_or(default, |span| span.0);
        let pause = |given: &Option<BackoffTable>, default| {
            given.as_ref().map_or(default, |given| Backoff {
                base: given.base.0,
                cap: given.cap.0,
            })
        };
        let timers = Timers {
            heartbeat: span(self.heartbeat, Timers::SHIPPED.heartbeat),
            node_down_after: span(self.node_down_after, Timers::SHIPPED.node_down_after),
            down_check: span(self.down_check, Timers::SHIPPED.down_check),
            failover_grace: span(self.failover_grace, Timers::SHIPPED.failover_grace),
            session_timeout: span(self.session_timeout, Timers::SHIPPED.session_timeout),
            request_retry: span(self.request_retry, Timers::SHIPPED.request_retry),
            raft_heartbeat: span(self.raft_heartbeat, Timers::SHIPPED.raft_heartbeat),
            raft_election: span(self.raft_election, Timers::SHIPPED.raft_election),
            snapshot_every: self
                .snapshot_every
                .unwrap_or(Timers::SHIPPED.snapshot_every),
            reconcile: span(self.reconcile, Timers::SHIPPED.reconcile),
            status_poll: span(self.status_poll, Timers::SHIPPED.status_poll),
            runtime_timeout: span(self.runtime_timeout, Timers::SHIPPED.runtime_timeout),
            pull_timeout: span(self.pull_timeout, Timers::SHIPPED.pull_timeout),
            pull_backoff: pause(&self.pull_backoff, Timers::SHIPPED.pull_backoff),
            pull_attempts_max: self.pull_attempts_max.or(Timers::SHIPPED.pull_attempts_max),
            replace_backoff: pause(&self.replace_backoff, Timers::SHIPPED.replace_backoff),
            history_max: self.history_max.unwrap_or(Timers::SHIPPED.history_max),
        };
        check(&timers).map(|()| timers)
    }
}

fn check(timers: &Timers) -> Result<(), Problem> {
    at_least(
        "raft_election",
        timers.raft_election,
        "raft_heartbeat",
        timers.raft_heartbeat * 3,
    )?;
    at_least(
        "session_timeout",
        timers.session_timeout,
        "heartbeat",
        timers.heartbeat * 2,
    )?;
    at_least(
        "node_down_after",
        timers.node_down_after,
        "session_timeout",
        timers.session_timeout,
    )?;
    for (name, pause) in [
        ("pull_backoff", timers.pull_backoff),
        ("replace_backoff", timers.replace_backoff),
    ] {
        let place = format!("timers.{name}");
        if pause.cap < pause.base {
            let reason = "the cap is shorter than the base".to_owned();
            return Err(Problem::new(place, reason, "give `cap` the longest wait"));
        }
    }
    if timers.snapshot_every == 0 {
        let reason = "a snapshot after every 0 entries makes no sense".to_owned();
        return Err(Problem::new(
            "timers.snapshot_every",
            reason,
            "use 1 or more",
        ));
    }
    if timers.pull_attempts_max == Some(0) {
        let reason = "without an attempt no image is ever pulled".to_owned();
        return Err(Problem::new(
            "timers.pull_attempts_max",
            reason,
            "leave it out to try for ever",
        ));
    }
    Ok(())
}

fn at_least(name: &str, is: Duration, of: &str, least: Duration) -> Result<(), Problem> {
    if is >= least {
        return Ok(());
    }
    let show = humantime::format_duration;
    Err(Problem::new(
        format!("timers.{name}"),
        format!("{} is too short for this `{of}`", show(is)),
        format!("use {} or more, or a shorter `{of}`", show(least)),
    ))
}
