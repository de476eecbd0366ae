//! A scenario's time and this machine's. Live, everything that a plan times (timers, faults, what
//! containers do) takes a `speed`-th of the time that the plan says; what machines and runtimes
//! take by themselves takes what it takes. Whatever leaves for a node is shortened here, and
//! whatever comes back is stretched, so that a trace speaks the plan's time alone.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use wavetank_model::{Operation, Timers};
use wavetank_port::WallTime;
use wavetank_trace::VirtualTime;

/// Consensus on real disks and few cores needs so long, whatever the speed.
const RAFT_HEARTBEAT_MIN: Duration = Duration::from_millis(50);
/// See [`RAFT_HEARTBEAT_MIN`].
const RAFT_ELECTION_MIN: Duration = Duration::from_millis(350);
/// Real runtimes start a container in up to a second on a loaded machine.
const RUNTIME_TIMEOUT_MIN: Duration = Duration::from_secs(4);
/// An agent notices that a manager does not answer no faster than that.
const SESSION_TIMEOUT_MIN: Duration = Duration::from_millis(1500);

/// How fast a plan runs, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How many of the plan's seconds pass in one of the machine's.
    pub speed: u32,
    /// When the plan's time began.
    pub began: WallTime,
}

impl Pace {
    /// A span of the plan's time on this machine.
    pub fn real(self, planned: Duration) -> Duration {
        planned / self.speed.max(1)
    }

    /// A moment of this machine in the plan's time; what came before it began is its beginning.
    pub fn at(self, wall: WallTime) -> VirtualTime {
        let passed = wall.0.saturating_sub(self.began.0);
        VirtualTime(passed.saturating_mul(u64::from(self.speed.max(1))))
    }

    /// The timers that nodes are given.
    pub fn timers(self, planned: &Timers) -> serde_json::Result<Timers> {
        let mut timers: Timers = self.shortened(planned)?;
        timers.raft_heartbeat = timers.raft_heartbeat.max(RAFT_HEARTBEAT_MIN);
        timers.raft_election = timers.raft_election.max(RAFT_ELECTION_MIN);
        timers.runtime_timeout = timers.runtime_timeout.max(RUNTIME_TIMEOUT_MIN);
        timers.session_timeout = timers.session_timeout.max(SESSION_TIMEOUT_MIN);
        Ok(timers)
    }

    /// An operation as nodes are to carry it out.
    pub fn operation(self, planned: &Operation) -> serde_json::Result<Operation> {
        self.shortened(planned)
    }

    fn shortened<T: Serialize + DeserializeOwned>(self, planned: &T) -> serde_json::Result<T> {
        let mut value = serde_json::to_value(planned)?;
        let speed = u128::from(self.speed.max(1));
        each_span(&mut value, &|nanos| nanos / speed);
        serde_json::from_value(value)
    }

    /// What a node said, in the plan's time. Moments are the machine's and stay.
    pub fn stretch(self, said: &mut Value) {
        let speed = u128::from(self.speed.max(1));
        each_span(said, &|nanos| nanos * speed);
    }
}

/// Changes every span of time within, as serde writes them: an object of `secs` and `nanos`.
fn each_span(value: &mut Value, change: &impl Fn(u128) -> u128) {
    if let Some(nanos) = span(value) {
        let changed = change(nanos);
        let secs = u64::try_from(changed / 1_000_000_000).unwrap_or(u64::MAX);
        *value = json!({ "secs": secs, "nanos": changed % 1_000_000_000 });
        return;
    }
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| each_span(item, change)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|field| each_span(field, change)),
        _ => {}
    }
}

fn span(value: &Value) -> Option<u128> {
    let fields = value.as_object().filter(|fields| fields.len() == 2)?;
    let secs = fields.get("secs")?.as_u64()?;
    let nanos = fields.get("nanos")?.as_u64()?;
    Some(u128::from(secs) * 1_000_000_000 + u128::from(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Pace = Pace {
        speed: 10,
        began: WallTime(1_000),
    };

    #[test]
    fn timers_are_shortened_down_to_what_machines_can_do() -> serde_json::Result<()> {
        let timers = TEN.timers(&Timers::SHIPPED)?;
        assert_eq!(timers.heartbeat, Duration::from_millis(500));
        assert_eq!(timers.pull_backoff.cap, Duration::from_secs(30));
        assert_eq!(timers.snapshot_every, Timers::SHIPPED.snapshot_every);
        assert_eq!(timers.raft_election, RAFT_ELECTION_MIN);
        let same = Pace { speed: 1, ..TEN };
        assert_eq!(same.timers(&Timers::SHIPPED)?, Timers::SHIPPED);
        Ok(())
    }

    #[test]
    fn what_comes_back_is_stretched_to_what_was_sent() -> serde_json::Result<()> {
        let sent = json!({ "grace": Duration::from_secs(7), "list": [Duration::from_millis(30)] });
        let mut value: Value = TEN.shortened(&sent)?;
        assert_eq!(value["grace"], json!(Duration::from_millis(700)));
        TEN.stretch(&mut value);
        assert_eq!(value, sent);
        Ok(())
    }

    #[test]
    fn moments_become_the_plans_time() {
        assert_eq!(TEN.at(WallTime(1_007)), VirtualTime(70));
        assert_eq!(TEN.at(WallTime(3)), VirtualTime::ZERO);
    }
}
