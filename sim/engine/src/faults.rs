//! When faults fire: at a time, after another fault, or on the n-th occurrence of an event.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use wavetank_model::NodeId;
use wavetank_port::ContainerId;
use wavetank_scenario::expression::Expression;
use wavetank_scenario::plan::{Action, Plan, Point, Trigger};
use wavetank_trace::{EventId, FaultState, Payload, VirtualTime};

use crate::engine::{Engine, Happening};

/// Waits for the n-th occurrence of an event.
struct Watch {
    fault: u32,
    event: String,
    condition: Option<Expression>,
    left: u32,
    point: Point,
    delay: std::time::Duration,
}

/// What became of one fault so far.
#[derive(Default)]
pub(crate) struct FaultRun {
    pub(crate) fired: bool,
    pub(crate) active: bool,
    pub(crate) hit: bool,
    /// The host of the event that triggered it, and the event.
    pub(crate) trigger: Option<(Option<NodeId>, EventId)>,
    /// Hosts it struck, for its undoing.
    pub(crate) places: Vec<u32>,
    /// Containers it struck, for its undoing.
    pub(crate) containers: Vec<(u32, ContainerId)>,
}

/// All faults of a run.
pub(crate) struct FaultBoard {
    pub(crate) runs: Vec<FaultRun>,
    watches: Vec<Watch>,
    watched: BTreeSet<String>,
    codecs: BTreeSet<u32>,
    codec_kinds: Vec<(u32, String)>,
}

impl FaultBoard {
    /// Nothing has fired.
    pub(crate) fn new(plan: &Plan) -> Self {
        let watches: Vec<Watch> = plan
            .faults
            .iter()
            .zip(0..)
            .filter_map(|(fault, number)| watch(fault, number))
            .collect();
        let watched = watches.iter().map(|watch| watch.event.clone()).collect();
        FaultBoard {
            runs: plan.faults.iter().map(|_| FaultRun::default()).collect(),
            watches,
            watched,
            codecs: BTreeSet::new(),
            codec_kinds: plan.faults.iter().zip(0..).filter_map(codec_kind).collect(),
        }
    }

    /// Does any fault wait for events of this name?
    pub(crate) fn watches(&self, name: &str) -> bool {
        !self.watched.is_empty() && self.watched.contains(name)
    }

    /// Does any fault wait for the moment before an event?
    pub(crate) fn watches_before(&self) -> bool {
        self.watches
            .iter()
            .any(|watch| watch.point == Point::Before)
    }

    /// The faults for which this event is the one they wait for, with their delays.
    fn due(
        &mut self,
        name: &str,
        point: Point,
        fields: &Map<String, Value>,
    ) -> Vec<(u32, std::time::Duration)> {
        let mut due = Vec::new();
        self.watches.retain_mut(|watch| {
            let matches = watch.event == name
                && watch.point == point
                && watch
                    .condition
                    .as_ref()
                    .is_none_or(|condition| condition.matches(fields).unwrap_or(false));
            if matches {
                watch.left -= 1;
            }
            if watch.left == 0 {
                due.push((watch.fault, watch.delay));
            }
            watch.left > 0
        });
        if !due.is_empty() {
            self.watched = self
                .watches
                .iter()
                .map(|watch| watch.event.clone())
                .collect();
        }
        due
    }

    /// The codec fault in force for messages of this kind from this sender.
    pub(crate) fn codec_of(&self, from: u32, kind: &str) -> Option<u32> {
        if self.codecs.is_empty() {
            return None;
        }
        let applies = |fault: &u32| {
            self.runs
                .get(*fault as usize)
                .is_some_and(|run| run.places.contains(&from))
                && self
                    .codec_kinds
                    .iter()
                    .any(|(other, name)| other == fault && name == kind)
        };
        self.codecs.iter().copied().find(applies)
    }

    /// A codec fault comes into force or is over.
    pub(crate) fn set_codec(&mut self, fault: u32, active: bool) {
        if active {
            self.codecs.insert(fault);
        } else {
            self.codecs.remove(&fault);
        }
    }
}

fn watch(fault: &wavetank_scenario::plan::Fault, number: u32) -> Option<Watch> {
    let Trigger::OnEvent {
        event,
        condition,
        occurrence,
        point,
        delay,
    } = &fault.trigger
    else {
        return None;
    };
    // Conditions were compiled when the file was checked; one that no longer compiles never fires,
    // and the run says so.
    let condition = match condition {
        None => None,
        Some(source) => Some(Expression::compile_event(event, source).ok()?),
    };
    Some(Watch {
        fault: number,
        event: event.clone(),
        condition,
        left: (*occurrence).max(1),
        point: *point,
        delay: *delay,
    })
}

fn codec_kind((fault, number): (&wavetank_scenario::plan::Fault, u32)) -> Option<(u32, String)> {
    match &fault.action {
        Action::CodecRetype { message, .. }
        | Action::CodecRename { message, .. }
        | Action::CodecMissing { message, .. } => Some((number, message.clone())),
        _ => None,
    }
}

impl Engine<'_> {
    /// Puts all faults that wait for a time into the queue, and says that all are armed.
    pub(crate) fn arm_faults(&mut self) {
        for fault in 0..crate::engine::index(self.plan.faults.len()) {
            self.record_fault(
                fault,
                FaultState::Armed,
                Vec::new(),
                String::new(),
                EventId(0),
            );
            if let Trigger::At(at) = self.plan.faults[fault as usize].trigger {
                let at = VirtualTime::from_duration(at);
                self.queue.push(at, Happening::Fire { fault });
            }
        }
    }

    /// Fires the faults that wait for this event.
    pub(crate) fn trigger(
        &mut self,
        name: &str,
        point: Point,
        host: Option<NodeId>,
        fields: &Map<String, Value>,
        cause: EventId,
    ) {
        for (fault, delay) in self.faults.due(name, point, fields) {
            self.faults.runs[fault as usize].trigger = Some((host, cause));
            if point == Point::Before {
                self.fire(fault);
            } else {
                self.queue.push(self.now + delay, Happening::Fire { fault });
            }
        }
    }

    /// A fault's moment has come.
    pub(crate) fn fire(&mut self, fault: u32) {
        let run = &self.faults.runs[fault as usize];
        if run.fired || self.settling {
            return;
        }
        let cause = run.trigger.map_or(EventId(0), |(_, event)| event);
        let Some(struck) = self.aim(fault) else {
            // Nothing to strike yet (no leader, no such task): look again soon.
            let again = self.now + std::time::Duration::from_millis(100);
            self.queue.push(again, Happening::Fire { fault });
            return;
        };
        let run = &mut self.faults.runs[fault as usize];
        run.fired = true;
        run.active = true;
        run.places = struck.places;
        run.containers = struck.containers;
        let cause = self.record_fault(
            fault,
            FaultState::Fired,
            struck.disturbs,
            struck.detail,
            cause,
        );
        self.strike(fault, cause);
        self.fire_dependents(fault);
        if let Some(duration) = self.plan.faults[fault as usize].duration {
            self.queue
                .push(self.now + duration, Happening::Heal { fault });
        }
    }

    fn fire_dependents(&mut self, fault: u32) {
        for (other, number) in self.plan.faults.iter().zip(0..) {
            if let Trigger::AfterFault {
                fault: first,
                delay,
            } = other.trigger
                && first == fault
            {
                self.queue
                    .push(self.now + delay, Happening::Fire { fault: number });
            }
        }
    }

    /// A fault is over; void if it is not in force.
    pub(crate) fn heal(&mut self, fault: u32) {
        let run = &mut self.faults.runs[fault as usize];
        if !run.active {
            return;
        }
        run.active = false;
        let cause = self.record_fault(
            fault,
            FaultState::Healed,
            Vec::new(),
            String::new(),
            EventId(0),
        );
        self.undo(fault, cause);
    }

    /// The fault phase is over: everything that can heal does.
    pub(crate) fn heal_all(&mut self) {
        for fault in 0..crate::engine::index(self.plan.faults.len()) {
            if self.plan.faults[fault as usize].heals {
                self.heal(fault);
            }
        }
    }

    /// A fault had a part in something for the first time.
    pub(crate) fn hit(&mut self, fault: u32) {
        let Some(run) = self.faults.runs.get_mut(fault as usize) else {
            return;
        };
        if !run.hit {
            run.hit = true;
            self.record_fault(
                fault,
                FaultState::Hit,
                Vec::new(),
                String::new(),
                EventId(0),
            );
        }
    }

    fn record_fault(
        &mut self,
        fault: u32,
        state: FaultState,
        disturbs: Vec<NodeId>,
        detail: String,
        cause: EventId,
    ) -> EventId {
        let planned = &self.plan.faults[fault as usize];
        let (name, action) = (planned.name.clone(), planned.action.name().to_owned());
        let payload = Payload::Fault {
            fault,
            name,
            action,
            state,
            disturbs,
            detail,
        };
        self.announce(None, cause, payload)
    }
}
