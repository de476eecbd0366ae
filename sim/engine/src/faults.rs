//! When faults fire: at a time, after another fault, or on the n-th occurrence of an event.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};
use wavetank_model::{NodeId, Notice, Revision};
use wavetank_port::ContainerId;
use wavetank_scenario::expression::Expression;
use wavetank_scenario::plan::{Action, Plan, Point, Trigger};
use wavetank_trace::{Event, EventId, FaultState, Payload, VirtualTime, view};

use crate::aim::{Struck, aim};
use crate::engine::{Engine, Happening};
use crate::roster::index;

/// When to look again for something to strike (no leader, no such task).
pub const AIM_AGAIN: Duration = Duration::from_millis(100);

/// Waits for the n-th occurrence of an event.
struct Watch {
    fault: u32,
    event: String,
    condition: Option<Expression>,
    left: u32,
    point: Point,
    delay: Duration,
}

/// What became of one fault so far.
#[derive(Default)]
pub struct FaultRun {
    /// It has been in force.
    pub fired: bool,
    /// It is in force.
    pub active: bool,
    /// It had a part in something.
    pub hit: bool,
    /// The host of the event that triggered it, and the event.
    pub trigger: Option<(Option<NodeId>, EventId)>,
    /// Hosts it struck, for its undoing.
    pub places: Vec<u32>,
    /// Containers it struck, for its undoing.
    pub containers: Vec<(u32, ContainerId)>,
}

/// All faults of a run.
pub struct FaultBoard {
    /// What became of each, by its number.
    pub runs: Vec<FaultRun>,
    /// The newest change of the store that any manager has told of.
    applied: Revision,
    watches: Vec<Watch>,
    watched: BTreeSet<String>,
    codecs: BTreeSet<u32>,
    codec_kinds: Vec<(u32, String)>,
}

impl FaultBoard {
    /// Nothing has fired.
    pub fn new(plan: &Plan) -> Self {
        let watches: Vec<Watch> = plan
            .faults
            .iter()
            .zip(0..)
            .filter_map(|(fault, number)| watch(fault, number))
            .collect();
        let watched = watches.iter().map(|watch| watch.event.clone()).collect();
        FaultBoard {
            runs: plan.faults.iter().map(|_| FaultRun::default()).collect(),
            applied: Revision(0),
            watches,
            watched,
            codecs: BTreeSet::new(),
            codec_kinds: plan.faults.iter().zip(0..).filter_map(codec_kind).collect(),
        }
    }

    /// Does any fault wait for events of this name?
    pub fn watches(&self, name: &str) -> bool {
        !self.watched.is_empty() && self.watched.contains(name)
    }

    /// Does any fault wait for the moment before an event?
    pub fn watches_before(&self) -> bool {
        self.watches
            .iter()
            .any(|watch| watch.point == Point::Before)
    }

    /// True if no manager has told of this change before: what triggers on changes triggers once,
    /// however many managers apply them.
    pub fn is_news(&self, revision: Revision) -> bool {
        revision > self.applied
    }

    /// The faults that waited for this event to have happened, with their delays. Their trigger
    /// is noted.
    pub fn due_after(&mut self, event: &Event) -> Vec<(u32, Duration)> {
        let mut due = Vec::new();
        match &event.payload {
            Payload::Notice {
                notice:
                    Notice::Applied {
                        revision, changes, ..
                    },
            } if self.is_news(*revision) => {
                self.applied = *revision;
                for change in changes {
                    let name = view::change_name(change).filter(|name| self.watches(name));
                    if let Some(name) = name {
                        let fields = view::change_fields(change, event.host);
                        due.extend(self.due(name, Point::After, &fields));
                    }
                }
            }
            payload => {
                let name = view::event_name(payload).filter(|name| self.watches(name));
                if let Some(name) = name {
                    due = self.due(name, Point::After, &view::event_fields(event));
                }
            }
        }
        for (fault, _) in &due {
            self.runs[*fault as usize].trigger = Some((event.host, event.id));
        }
        due
    }

    /// The faults for which this event is the one they wait for, with their delays.
    fn due(
        &mut self,
        name: &str,
        point: Point,
        fields: &Map<String, Value>,
    ) -> Vec<(u32, Duration)> {
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

    /// A fault comes into force: gives back whom it disturbs and how, for the record.
    pub fn begin(&mut self, fault: u32, struck: Struck) -> (Vec<NodeId>, String) {
        let run = &mut self.runs[fault as usize];
        run.fired = true;
        run.active = true;
        run.places = struck.places;
        run.containers = struck.containers;
        (struck.disturbs, struck.detail)
    }

    /// A fault is over; false if it was not in force.
    pub fn end(&mut self, fault: u32) -> bool {
        std::mem::take(&mut self.runs[fault as usize].active)
    }

    /// A fault had a part in something; true for the first time. Numbers that are no fault's
    /// belong to what a world has by itself.
    pub fn hit(&mut self, fault: u32) -> bool {
        let run = self.runs.get_mut(fault as usize);
        run.is_some_and(|run| !std::mem::replace(&mut run.hit, true))
    }

    /// The codec fault in force for messages of this kind from this sender.
    pub fn codec_of(&self, from: u32, kind: &str) -> Option<u32> {
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
    pub fn set_codec(&mut self, fault: u32, active: bool) {
        if active {
            self.codecs.insert(fault);
        } else {
            self.codecs.remove(&fault);
        }
    }
}

/// Faults that wait for this one, with their delays.
pub fn dependents(plan: &Plan, first: u32) -> impl Iterator<Item = (u32, Duration)> {
    let numbered = plan.faults.iter().zip(0..);
    numbered.filter_map(move |(other, number)| match other.trigger {
        Trigger::AfterFault { fault, delay } if fault == first => Some((number, delay)),
        _ => None,
    })
}

/// What a trace says about a fault.
pub fn fault_payload(
    plan: &Plan,
    fault: u32,
    state: FaultState,
    disturbs: Vec<NodeId>,
    detail: String,
) -> Payload {
    let planned = &plan.faults[fault as usize];
    Payload::Fault {
        fault,
        name: planned.name.clone(),
        action: planned.action.name().to_owned(),
        state,
        disturbs,
        detail,
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
        for fault in 0..index(self.plan.faults.len()) {
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

    /// Fires the faults that wait for the moment before this event.
    pub(crate) fn trigger_before(
        &mut self,
        name: &str,
        host: Option<NodeId>,
        fields: &Map<String, Value>,
    ) {
        for (fault, _) in self.faults.due(name, Point::Before, fields) {
            self.faults.runs[fault as usize].trigger = Some((host, EventId(0)));
            self.fire(fault);
        }
    }

    /// Fires the faults that wait for this event to have happened.
    pub(crate) fn trigger_after(&mut self, event: &Event) {
        for (fault, delay) in self.faults.due_after(event) {
            self.queue.push(self.now + delay, Happening::Fire { fault });
        }
    }

    /// A fault's moment has come.
    pub(crate) fn fire(&mut self, fault: u32) {
        let run = &self.faults.runs[fault as usize];
        if run.fired || self.settling {
            return;
        }
        let cause = run.trigger.map_or(EventId(0), |(_, event)| event);
        let host = run.trigger.and_then(|(host, _)| host);
        let Some(struck) = aim(&self.plan.faults[fault as usize], host, self) else {
            self.queue
                .push(self.now + AIM_AGAIN, Happening::Fire { fault });
            return;
        };
        let (disturbs, detail) = self.faults.begin(fault, struck);
        let cause = self.record_fault(fault, FaultState::Fired, disturbs, detail, cause);
        self.strike(fault, cause);
        for (other, delay) in dependents(self.plan, fault) {
            let at = self.now + delay;
            self.queue.push(at, Happening::Fire { fault: other });
        }
        if let Some(duration) = self.plan.faults[fault as usize].duration {
            self.queue
                .push(self.now + duration, Happening::Heal { fault });
        }
    }

    /// A fault is over; void if it is not in force.
    pub(crate) fn heal(&mut self, fault: u32) {
        if !self.faults.end(fault) {
            return;
        }
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
        for fault in 0..index(self.plan.faults.len()) {
            if self.plan.faults[fault as usize].heals {
                self.heal(fault);
            }
        }
    }

    /// A fault had a part in something for the first time.
    pub(crate) fn hit(&mut self, fault: u32) {
        if self.faults.hit(fault) {
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
        let payload = fault_payload(self.plan, fault, state, disturbs, detail);
        self.announce(None, cause, payload)
    }
}
