//! The part of a run that no simulator knows: the plan's workload and faults, the containers'
//! runtimes, what is recorded and judged. Between two moments of its own the simulator lets the
//! stage have its *turn*: the stage takes what was said, records it, and does to the machines what
//! is due.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wavetank_engine::aim::{Sight, aim};
use wavetank_engine::build::build_loads;
use wavetank_engine::faults::{AIM_AGAIN, FaultBoard, dependents, fault_payload};
use wavetank_engine::leadership::Leadership;
use wavetank_engine::queue::Queue;
use wavetank_engine::recorder::Recorder;
use wavetank_engine::roster::Roster;
use wavetank_engine::workload::{Load, OPERATOR, Operator};
use wavetank_engine::{Keep, RunResult};
use wavetank_model::{NodeId, Notice, RequestId};
use wavetank_node::identity::IdentityError;
use wavetank_port::{ContainerId, ImageReference};
use wavetank_scenario::plan::{Plan, Trigger};
use wavetank_sim_runtime::{Pace, SharedRegistry};
use wavetank_trace::{Event, EventId, FaultState, Payload, Phase, VirtualTime};
use wavetank_world::{LinkRule, Registry};

#[cfg(madsim)]
use crate::log::Log;
use crate::log::{Draft, Said};
use crate::machine::{Common, Machine, build_machines};
use crate::simulator::Simulator;

/// Something that is due at a time.
#[derive(Clone, Copy)]
pub(crate) enum Happening {
    Fire { fault: u32 },
    Heal { fault: u32 },
    Step { index: usize },
    Load { client: usize },
    Restart { place: u32, starts: u64 },
    Blackout { place: u32, fault: u32 },
    Settle,
}

/// What the stage knows of a machine.
#[derive(Default)]
pub(crate) struct Host {
    /// Its process runs.
    pub up: bool,
    /// How often it was started and stopped: what was meant for an older life is void.
    pub lives: u64,
    /// It has no power.
    pub dark: bool,
    /// Faults that keep its process from running.
    pub down_by: BTreeSet<u32>,
    /// Faults that freeze it.
    pub paused_by: BTreeSet<u32>,
    /// Since when it is frozen.
    pub paused_since: VirtualTime,
}

/// One run.
pub struct Stage<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) roster: Roster,
    pub(crate) common: Arc<Common>,
    pub(crate) machines: Vec<Arc<Machine>>,
    pub(crate) registry: SharedRegistry,
    pub(crate) hosts: Vec<Host>,
    pub(crate) rules: Vec<LinkRule>,
    pub(crate) faults: FaultBoard,
    pub(crate) operator: Operator,
    pub(crate) queue: Queue<Happening>,
    pub(crate) now: VirtualTime,
    recorder: Recorder<'a>,
    loads: Vec<Load>,
    asked: BTreeMap<RequestId, EventId>,
    pub(crate) leadership: Leadership,
    last: VirtualTime,
    settling: bool,
    events: u64,
}

impl<'a> Stage<'a> {
    /// Sets everything up by a simulator's clock; nothing has happened yet.
    ///
    /// # Errors
    /// If the machines' certificates cannot be made.
    pub fn new(
        plan: &'a Plan,
        keep: Keep,
        sink: &'a mut dyn FnMut(&Event),
        pace: Arc<dyn Pace>,
    ) -> Result<Self, IdentityError> {
        let common = Arc::new(Common::new(plan, pace));
        let registry = Arc::new(Mutex::new(registry(plan)));
        let machines = build_machines(&common, &registry)?;
        Ok(Stage {
            plan,
            roster: common.roster,
            hosts: machines.iter().map(|_| Host::default()).collect(),
            common,
            machines,
            registry,
            rules: Vec::new(),
            faults: FaultBoard::new(plan),
            operator: Operator::default(),
            queue: Queue::new(),
            now: VirtualTime::ZERO,
            recorder: Recorder::new(plan, keep, sink),
            loads: build_loads(plan),
            asked: BTreeMap::new(),
            leadership: Leadership::default(),
            last: VirtualTime::ZERO,
            settling: false,
            events: 0,
        })
    }

    /// The machines, by their places.
    pub fn machines(&self) -> &[Arc<Machine>] {
        &self.machines
    }

    /// What the machines say.
    #[cfg(madsim)]
    pub fn log(&self) -> Arc<Log> {
        Arc::clone(&self.common.log)
    }

    /// When the run is over.
    pub fn end(&self) -> VirtualTime {
        VirtualTime::from_duration(self.plan.horizon + self.plan.settle)
    }

    /// Starts everyone who is there from the beginning, and arms the faults.
    pub fn begin(&mut self, simulator: &mut dyn Simulator) {
        let phase = Phase::Faults;
        self.record(None, EventId(0), Payload::Phase { phase });
        for (place, id) in (0..).zip(self.roster.nodes()) {
            let joins_later = id.role == wavetank_model::NodeRole::Manager
                && id.number > self.plan.cluster.managers;
            if !joins_later {
                self.start(place, simulator);
            }
        }
        for (index, step) in self.plan.workload.iter().enumerate() {
            let at = VirtualTime::from_duration(step.at);
            self.queue.push(at, Happening::Step { index });
        }
        for (client, load) in self.loads.iter().enumerate() {
            let at = VirtualTime::from_duration(load.config.at);
            self.queue.push(at, Happening::Load { client });
        }
        self.arm(simulator);
        let settle = VirtualTime::from_duration(self.plan.horizon);
        self.queue.push(settle, Happening::Settle);
    }

    fn arm(&mut self, simulator: &dyn Simulator) {
        for (fault, planned) in (0..).zip(&self.plan.faults) {
            let silence = (Vec::new(), String::new());
            self.record_fault(fault, FaultState::Armed, silence, EventId(0));
            if let Some(why) = crate::unable::why(planned, simulator) {
                self.faults.runs[fault as usize].fired = true;
                let words = (Vec::new(), why.to_owned());
                self.record_fault(fault, FaultState::NotApplied, words, EventId(0));
            } else if let Trigger::At(at) = planned.trigger {
                let at = VirtualTime::from_duration(at);
                self.queue.push(at, Happening::Fire { fault });
            }
        }
    }

    /// Everything up to `now` is taken, recorded and answered.
    pub fn turn(&mut self, now: VirtualTime, simulator: &mut dyn Simulator) {
        self.now = now;
        loop {
            self.step_runtimes();
            let drafts = self.common.log.take();
            let happening = self.queue.pop_until(now);
            if drafts.is_empty() && happening.is_none() {
                return;
            }
            for draft in drafts {
                self.hear(draft, simulator);
            }
            if let Some((_, happening)) = happening {
                self.events += 1;
                self.happen(happening, simulator);
            }
        }
    }

    /// When the stage wants its turn, whatever is said until then. (Turmoil gives it one a tick.)
    #[cfg(madsim)]
    pub fn next_deadline(&self) -> VirtualTime {
        let runtimes = self.machines.iter().zip(&self.hosts);
        let due = runtimes
            .filter(|(_, host)| host.runs_containers())
            .filter_map(|(machine, _)| machine.runtime.as_ref()?.next_deadline())
            .chain(self.queue.next_at());
        due.min().unwrap_or(self.end()).min(self.end())
    }

    fn step_runtimes(&mut self) {
        for (machine, host) in self.machines.iter().zip(&self.hosts) {
            if let (true, Some(runtime)) = (host.runs_containers(), &machine.runtime) {
                runtime.step(self.now);
            }
        }
    }

    /// The end of the run: the digest and the verdict.
    pub fn finish(mut self) -> RunResult {
        self.now = self.end();
        let phase = Phase::End;
        self.record(None, EventId(0), Payload::Phase { phase });
        let virtual_time = self.end().as_duration();
        let (digest, judgement) = self.recorder.finish();
        RunResult {
            digest,
            events: self.events,
            virtual_time,
            judgement,
        }
    }

    fn hear(&mut self, draft: Draft, simulator: &mut dyn Simulator) {
        let Draft { at, place, said } = draft;
        self.events += 1;
        match said {
            Said::Hit(fault) => self.hit(fault),
            Said::Event(payload) => self.hear_event(at, place, payload, simulator),
            Said::Ended(ending) => self.ended(place, ending, simulator),
            Said::Panicked(words) => {
                let (id, seed) = (self.roster.id_of(place), self.plan.seed);
                panic!("a task of {id} panicked at {at} (seed {seed}): {words}");
            }
        }
    }

    fn hear_event(
        &mut self,
        at: VirtualTime,
        place: u32,
        payload: Payload,
        simulator: &mut dyn Simulator,
    ) {
        let host = self.roster.id_of(place);
        let cause = match &payload {
            Payload::ClientReturned { request, .. } => self.asked.remove(request),
            _ => None,
        };
        let event = self.record_at(at, Some(host), cause.unwrap_or(EventId(0)), payload);
        match &event.payload {
            Payload::Notice {
                notice: Notice::RoleChanged { role, epoch },
            } => self.leadership.follow(place, *role, *epoch),
            Payload::ClientInvoked { request, .. } => {
                self.asked.insert(*request, event.id);
            }
            Payload::ClientReturned { .. } => self.answered(host, simulator),
            _ => {}
        }
    }

    fn answered(&mut self, client: NodeId, simulator: &mut dyn Simulator) {
        if client == OPERATOR {
            self.operator.answered();
            self.operate(simulator);
        } else if let Some(client) = (client.number as usize).checked_sub(2) {
            let at = self.now + self.loads[client].config.pause;
            self.queue.push(at, Happening::Load { client });
        }
    }

    fn happen(&mut self, happening: Happening, simulator: &mut dyn Simulator) {
        match happening {
            Happening::Fire { fault } => self.fire(fault, simulator),
            Happening::Heal { fault } => self.heal(fault, simulator),
            Happening::Step { index } => {
                let operation = self.plan.workload[index].operation.clone();
                self.operator.push(operation, EventId(0));
                self.operate(simulator);
            }
            Happening::Load { client } => {
                if let Some(operation) = self.loads[client].next(self.now) {
                    let number = u32::try_from(client).unwrap_or(u32::MAX) + 2;
                    self.ask(NodeId::client(number), operation, simulator);
                }
            }
            Happening::Restart { place, starts } => {
                if self.hosts[place as usize].lives == starts {
                    self.start(place, simulator);
                }
            }
            Happening::Blackout { place, fault } => {
                if self.hosts[place as usize].down_by.contains(&fault) {
                    self.black_out(place, simulator);
                }
            }
            Happening::Settle => {
                self.settling = true;
                self.heal_all(simulator);
                let phase = Phase::Settle;
                self.record(None, EventId(0), Payload::Phase { phase });
            }
        }
    }

    /// The operator asks the next thing, if it is not waiting for an answer.
    pub(crate) fn operate(&mut self, simulator: &mut dyn Simulator) {
        if let Some((operation, _)) = self.operator.take_next() {
            self.ask(OPERATOR, operation, simulator);
        }
    }

    fn ask(
        &mut self,
        client: NodeId,
        operation: wavetank_model::Operation,
        simulator: &mut dyn Simulator,
    ) {
        if let Some(place) = self.roster.place_of(client) {
            self.machines[place as usize].ask(operation);
            simulator.nudge(place);
        }
    }

    fn fire(&mut self, fault: u32, simulator: &mut dyn Simulator) {
        let run = &self.faults.runs[fault as usize];
        if run.fired || self.settling {
            return;
        }
        let (host, cause) = run.trigger.unwrap_or((None, EventId(0)));
        let Some(struck) = aim(&self.plan.faults[fault as usize], host, self) else {
            let again = self.now + AIM_AGAIN;
            self.queue.push(again, Happening::Fire { fault });
            return;
        };
        let words = self.faults.begin(fault, struck);
        let cause = self.record_fault(fault, FaultState::Fired, words, cause);
        self.strike(fault, cause, simulator);
        for (other, delay) in dependents(self.plan, fault) {
            let at = self.now + delay;
            self.queue.push(at, Happening::Fire { fault: other });
        }
        if let Some(duration) = self.plan.faults[fault as usize].duration {
            let at = self.now + duration;
            self.queue.push(at, Happening::Heal { fault });
        }
    }

    fn heal(&mut self, fault: u32, simulator: &mut dyn Simulator) {
        if !self.faults.end(fault) {
            return;
        }
        let silence = (Vec::new(), String::new());
        let cause = self.record_fault(fault, FaultState::Healed, silence, EventId(0));
        self.undo(fault, cause, simulator);
    }

    fn heal_all(&mut self, simulator: &mut dyn Simulator) {
        for (fault, planned) in (0..).zip(&self.plan.faults) {
            if planned.heals {
                self.heal(fault, simulator);
            }
        }
    }

    pub(crate) fn hit(&mut self, fault: u32) {
        if self.faults.hit(fault) {
            let silence = (Vec::new(), String::new());
            self.record_fault(fault, FaultState::Hit, silence, EventId(0));
        }
    }

    fn record_fault(
        &mut self,
        fault: u32,
        state: FaultState,
        (disturbs, detail): (Vec<NodeId>, String),
        cause: EventId,
    ) -> EventId {
        let payload = fault_payload(self.plan, fault, state, disturbs, detail);
        self.record(None, cause, payload).id
    }

    /// Records what happens now, by the stage's own doing.
    pub(crate) fn record(
        &mut self,
        host: Option<NodeId>,
        cause: EventId,
        payload: Payload,
    ) -> Event {
        self.record_at(self.now, host, cause, payload)
    }

    /// Records an event and lets those faults fire soon that waited for it.
    fn record_at(
        &mut self,
        at: VirtualTime,
        host: Option<NodeId>,
        cause: EventId,
        payload: Payload,
    ) -> Event {
        self.last = self.last.max(at);
        let event = self.recorder.record(self.last, host, cause, payload);
        for (fault, delay) in self.faults.due_after(&event) {
            let at = self.now + delay;
            self.queue.push(at, Happening::Fire { fault });
        }
        event
    }

    /// Time a power loss has to strike in the middle of a write.
    pub(crate) fn fuse_time() -> Duration {
        Duration::from_millis(200)
    }
}

impl Host {
    fn runs_containers(&self) -> bool {
        !self.dark && self.paused_by.is_empty()
    }
}

/// The registry of a plan. The port completes names without a tag.
fn registry(plan: &Plan) -> Registry {
    let mut registry = Registry::new(plan.images.clone());
    for name in plan.images.keys().filter(|name| !name.contains(':')) {
        let (full, short) = (format!("{name}:latest"), name.clone());
        registry.add_alias(&ImageReference(full), &ImageReference(short));
    }
    registry
}

impl Sight for Stage<'_> {
    fn roster(&self) -> Roster {
        self.roster
    }

    fn leader(&self) -> Option<u32> {
        self.leadership.leader()
    }

    fn is_up(&self, place: u32) -> bool {
        self.hosts[place as usize].up
    }

    fn running_tasks(&self, service: Option<&str>) -> Vec<(u32, ContainerId)> {
        let mut tasks = Vec::new();
        for machine in &self.machines {
            if let Some(runtime) = &machine.runtime {
                let ids: Vec<ContainerId> =
                    runtime.strike(|world, _, _| world.running_of(service).cloned().collect());
                tasks.extend(ids.into_iter().map(|id| (machine.place, id)));
            }
        }
        tasks
    }
}
