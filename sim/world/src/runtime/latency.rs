//! How long calls and events take: drawn evenly from the plan's ranges, or from what was measured
//! on a real runtime where the plan says so. Without measured steps a runtime draws exactly what it
//! has always drawn, in the same order.

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::NodeId;
use wavetank_scenario::plan::{Range, RuntimeStep, RuntimeSteps};
use wavetank_trace::VirtualTime;

use super::Runtime;

/// What a runtime is made with.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Its machine.
    pub node: NodeId,
    /// Time a call takes.
    pub latency: Range,
    /// Delay of events.
    pub event_delay: Range,
    /// Steps that take what was measured instead.
    pub steps: RuntimeSteps,
}

/// What of measured times has been drawn and is not over yet.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Drawn {
    /// Of calls under way: what is left from their effect to their answer, in nanoseconds.
    rests: BTreeMap<u64, u64>,
    /// How long events take for now.
    events: Option<EventDelay>,
}

/// How long events take for a while.
#[derive(Clone, Copy, Debug, PartialEq)]
struct EventDelay {
    /// In nanoseconds.
    delay: u64,
    /// Until then. It does not depend on `delay`: that would favour long ones.
    until: VirtualTime,
    /// When the last event arrives.
    arrives: VirtualTime,
}

impl Drawn {
    /// Nobody waits for anything any more.
    pub fn clear(&mut self) {
        *self = Drawn::default();
    }

    /// Nobody waits for this call any more.
    pub fn forget(&mut self, call: u64) {
        self.rests.remove(&call);
    }

    /// Nobody waits for events any more.
    pub fn forget_events(&mut self) {
        self.events = None;
    }

    /// Everything happens that much later.
    pub fn shift(&mut self, pause: Duration) {
        if let Some(events) = &mut self.events {
            events.until = events.until + pause;
            events.arrives = events.arrives + pause;
        }
    }
}

/// The measured step that a verb is.
fn step_of(verb: &str) -> RuntimeStep {
    match verb {
        "pull" => RuntimeStep::Pull,
        "create" => RuntimeStep::Create,
        "start" => RuntimeStep::Start,
        "wait" => RuntimeStep::ExitSeen,
        "delete" => RuntimeStep::Delete,
        _ => RuntimeStep::Call,
    }
}

impl Runtime {
    /// Draws how long it takes from a call to its effect, in nanoseconds. Of a measured step the
    /// whole is drawn here: half of it comes before the effect, except where more is known. What
    /// is measured of a wait comes after the process's end; of a start, one draw decides both when
    /// the process begins and when the answer comes, because a slow start begins late.
    pub(super) fn until_effect(&mut self, call: u64, verb: &str) -> u64 {
        let step = step_of(verb);
        let Some(measured) = self.config.steps.get(&step) else {
            return self.stream.nanos(self.config.latency) / 2;
        };
        let share = self.stream.share();
        let whole = measured.at(share);
        let before = match step {
            RuntimeStep::Start => match self.config.steps.get(&RuntimeStep::Begin) {
                Some(begin) => begin.at(share).min(whole),
                None => whole / 2,
            },
            RuntimeStep::ExitSeen => 0,
            _ => whole / 2,
        };
        self.drawn.rests.insert(call, whole - before);
        before
    }

    /// How long it takes from a call's effect to its answer, in nanoseconds; `None` if that has
    /// not been drawn yet. Says it once.
    pub(super) fn take_rest(&mut self, call: u64) -> Option<u64> {
        self.drawn.rests.remove(&call)
    }

    /// True if a pull takes what was measured, with the question to the registry in it.
    pub(super) fn pull_is_measured(&self) -> bool {
        self.config.steps.contains_key(&RuntimeStep::Pull)
    }

    /// Draws how long an event takes, in nanoseconds. Measured ones that follow each other closely
    /// take as long, and none overtakes another: a real stream keeps its order.
    pub(super) fn event_delay(&mut self, now: VirtualTime) -> u64 {
        let Some(measured) = self.config.steps.get(&RuntimeStep::Event) else {
            return self.stream.nanos(self.config.event_delay);
        };
        let last = self.drawn.events;
        let (delay, until) = match last.filter(|last| last.until > now) {
            Some(last) => (last.delay, last.until),
            None => (measured.at(self.stream.share()), now + measured.max()),
        };
        let earliest = last.map_or(now, |last| last.arrives);
        let arrives = (now + Duration::from_nanos(delay)).max(earliest);
        self.drawn.events = Some(EventDelay {
            delay,
            until,
            arrives,
        });
        u64::try_from(arrives.since(now).as_nanos()).unwrap_or(u64::MAX)
    }
}
