//! The loop: takes the next thing from the queue and makes it happen.

use std::collections::BTreeMap;

use wavetank_core::{Context, Effects, Input, Message};
use wavetank_model::{NodeId, NodeRole};
use wavetank_port::ContainerId;
use wavetank_scenario::plan::Plan;
use wavetank_trace::{EventId, Payload, Phase, VirtualTime};
use wavetank_world::{Locks, Network, Registry, Stream};

use crate::aim::Sight;
use crate::build::{build_hosts, build_loads};
use crate::faults::FaultBoard;
use crate::host::{Host, Waiting};
use crate::leadership::Leadership;
use crate::queue::Queue;
use crate::recorder::Recorder;
use crate::roster::{Roster, index};
use crate::system::System;
use crate::workload::{Load, Operator};
use crate::{RunOptions, RunResult};

/// A process that wants its timer this often without time passing is in an endless loop.
const SPINS_MAX: u32 = 10_000;

/// Something that will happen.
pub(crate) enum Happening {
    /// A message arrives.
    Deliver {
        to: u32,
        boot: u64,
        cause: EventId,
        from: u32,
        message: Message,
    },
    /// Something else arrives: garbage, the end of a connection, the answer to a lock request.
    Arrive {
        to: u32,
        boot: u64,
        cause: EventId,
        input: Input,
    },
    /// A process wants its timer.
    Timer { host: u32, boot: u64 },
    /// A runtime has something to do.
    RuntimeTimer { host: u32 },
    /// A write is durable, or a slow step is over.
    Unblock { host: u32, boot: u64 },
    /// A supervisor starts a crashed process again.
    Restart { host: u32, boot: u64 },
    /// The operator does something.
    Step { index: usize },
    /// A load client makes its next request.
    Load { client: usize },
    /// A fault's time has come.
    Fire { fault: u32 },
    /// A fault is over.
    Heal { fault: u32 },
    /// The settle phase begins.
    Settle,
}

/// A message that a hold rule keeps.
pub(crate) struct Envelope {
    pub(crate) to: u32,
    pub(crate) boot: u64,
    pub(crate) cause: EventId,
    pub(crate) from: u32,
    pub(crate) message: Message,
}

/// A runtime call that was not answered yet.
pub(crate) struct OpenCall {
    pub(crate) host: u32,
    pub(crate) boot: u64,
    pub(crate) call: wavetank_core::CallId,
    pub(crate) name: &'static str,
    pub(crate) container: Option<ContainerId>,
    pub(crate) cause: EventId,
}

/// One run.
pub struct Engine<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) system: &'a dyn System,
    pub(crate) now: VirtualTime,
    pub(crate) end: VirtualTime,
    pub(crate) queue: Queue<Happening>,
    pub(crate) hosts: Vec<Host>,
    pub(crate) roster: Roster,
    pub(crate) network: Network,
    pub(crate) registry: Registry,
    pub(crate) locks: Locks,
    pub(crate) recorder: Recorder<'a>,
    pub(crate) faults: FaultBoard,
    pub(crate) held: Vec<(u32, Envelope)>,
    pub(crate) calls: BTreeMap<u64, OpenCall>,
    pub(crate) calls_made: u64,
    pub(crate) operator: Operator,
    pub(crate) loads: Vec<Load>,
    pub(crate) sequences: BTreeMap<u32, u64>,
    pub(crate) leadership: Leadership,
    pub(crate) settling: bool,
    pub(crate) scratch: Effects,
    pub(crate) events: u64,
}

impl<'a> Engine<'a> {
    /// Sets everything up; nothing has happened yet.
    pub fn new(
        plan: &'a Plan,
        system: &'a dyn System,
        options: RunOptions,
        sink: &'a mut dyn FnMut(&wavetank_trace::Event),
    ) -> Self {
        let roster = Roster::of(plan);
        let hosts = build_hosts(plan, roster);
        let streams = hosts
            .iter()
            .map(|h| Stream::new(plan.seed, &h.id.to_string(), "network"))
            .collect();
        let (all, leading) = (hosts.len(), roster.managers as usize);
        let peers = |host| if host < leading { all } else { leading };
        Engine {
            plan,
            system,
            now: VirtualTime::ZERO,
            end: VirtualTime::from_duration(plan.horizon + plan.settle),
            queue: Queue::new(),
            roster,
            network: Network::new(plan.cluster.latency, streams, peers),
            registry: Registry::new(plan.images.clone()),
            locks: Locks::new(plan.cluster.shared_volumes.clone()),
            recorder: Recorder::new(plan, options.keep, sink),
            faults: FaultBoard::new(plan),
            held: Vec::new(),
            calls: BTreeMap::new(),
            calls_made: 0,
            operator: Operator::default(),
            loads: build_loads(plan),
            sequences: BTreeMap::new(),
            leadership: Leadership::default(),
            settling: false,
            scratch: Effects::default(),
            events: 0,
            hosts,
        }
    }

    /// Runs to the end of the settle phase.
    pub fn run(mut self) -> RunResult {
        self.begin();
        while let Some((at, happening)) = self.queue.pop_until(self.end) {
            self.now = at;
            self.events += 1;
            self.happen(happening);
        }
        self.now = self.end;
        self.record(None, EventId(0), Payload::Phase { phase: Phase::End });
        let (digest, judgement) = self.recorder.finish();
        RunResult {
            digest,
            events: self.events,
            virtual_time: self.end.as_duration(),
            judgement,
        }
    }

    fn begin(&mut self) {
        self.record(
            None,
            EventId(0),
            Payload::Phase {
                phase: Phase::Faults,
            },
        );
        for host in 0..self.hosts.len() {
            let extra = self.hosts[host].id.role == NodeRole::Manager
                && self.hosts[host].id.number > self.plan.cluster.managers;
            if !extra {
                self.start_process(index(host), EventId(0));
            }
        }
        for (position, step) in self.plan.workload.iter().enumerate() {
            let at = VirtualTime::from_duration(step.at);
            self.queue.push(at, Happening::Step { index: position });
        }
        for (client, load) in self.loads.iter().enumerate() {
            let at = VirtualTime::from_duration(load.config.at);
            self.queue.push(at, Happening::Load { client });
        }
        self.arm_faults();
        self.queue.push(
            VirtualTime::from_duration(self.plan.horizon),
            Happening::Settle,
        );
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Deliver {
                to,
                boot,
                cause,
                from,
                message,
            } => {
                self.deliver(to, boot, cause, from, message);
            }
            Happening::Arrive {
                to,
                boot,
                cause,
                input,
            } => self.arrive(to, boot, cause, input),
            Happening::Timer { host, boot } => self.timer_due(host, boot),
            Happening::RuntimeTimer { host } => self.runtime_due(host),
            Happening::Unblock { host, boot } => self.unblock(host, boot),
            Happening::Restart { host, boot } => {
                if self.hosts[host as usize].boot == boot {
                    self.start_process(host, EventId(0));
                }
            }
            Happening::Step { index } => {
                let operation = self.plan.workload[index].operation.clone();
                self.operator.push(operation, EventId(0));
                self.operate();
            }
            Happening::Load { client } => self.load(client),
            Happening::Fire { fault } => self.fire(fault),
            Happening::Heal { fault } => self.heal(fault),
            Happening::Settle => self.settle(),
        }
    }

    fn settle(&mut self) {
        self.settling = true;
        self.heal_all();
        self.record(
            None,
            EventId(0),
            Payload::Phase {
                phase: Phase::Settle,
            },
        );
    }

    /// The host with this id, by its place in `hosts`.
    pub(crate) fn place_of(&self, id: NodeId) -> Option<u32> {
        self.roster.place_of(id)
    }

    /// Something arrives at a host; void if it was meant for an earlier boot.
    pub(crate) fn arrive(&mut self, to: u32, boot: u64, cause: EventId, input: Input) {
        let host = &mut self.hosts[to as usize];
        if host.boot != boot || host.process.is_none() {
            return;
        }
        if host.is_ready() {
            self.step(to, input, cause);
        } else {
            host.inbox.push_back((input, cause));
        }
    }

    /// Hands one input to a process that is ready, and carries out what it wants.
    pub(crate) fn step(&mut self, place: u32, input: Input, cause: EventId) {
        let now = self.now;
        let mut effects = std::mem::take(&mut self.scratch);
        let host = &mut self.hosts[place as usize];
        let Some(process) = host.process.as_mut() else {
            return;
        };
        let (local, wall) = (host.clock.monotonic(now), host.clock.wall(now));
        process.handle(
            &mut Context::new(local, wall, &mut host.rng, &mut effects),
            input,
        );
        if effects.is_empty() {
            self.scratch = effects;
            self.rearm(place);
            return;
        }
        if let Some(why) = effects.fatal.take() {
            effects.clear();
            self.scratch = effects;
            self.crash(place, cause, &why);
            return;
        }
        let boot = host.boot;
        self.announce_decisions(place, &effects.notices);
        if self.hosts[place as usize].boot != boot {
            effects.clear();
            self.scratch = effects;
            return;
        }
        self.commit(place, effects, cause);
    }

    /// Makes a step's records durable, then releases its other effects.
    fn commit(&mut self, place: u32, mut effects: Effects, cause: EventId) {
        let host = &mut self.hosts[place as usize];
        let mut wait = host.step_ms() * 1_000_000;
        let writes = !effects.persist.is_empty();
        if writes {
            if let Some((fault, why)) = host.disk.refusal() {
                self.hit(fault);
                self.crash(place, cause, why);
                return;
            }
            let (duration, hit) = host.disk.begin_write(effects.persist.drain(..));
            wait += duration;
            for fault in hit {
                self.hit(fault);
            }
        }
        let host = &mut self.hosts[place as usize];
        if wait == 0 && !host.is_paused() {
            self.release(place, &mut effects, cause);
            effects.clear();
            self.scratch = effects;
            self.rearm(place);
        } else {
            let boot = host.boot;
            host.waiting = Some(Waiting {
                effects,
                cause,
                writes,
            });
            let at = VirtualTime(self.now.0.saturating_add(wait));
            self.queue
                .push(at, Happening::Unblock { host: place, boot });
        }
    }

    /// A step's records are durable: everything else it wanted happens now.
    pub(crate) fn unblock(&mut self, place: u32, boot: u64) {
        let host = &mut self.hosts[place as usize];
        if host.boot != boot || host.is_paused() {
            return;
        }
        let Some(mut waiting) = host.waiting.take() else {
            return;
        };
        host.disk
            .finish_write(wavetank_core::Record::replaces_history);
        self.release(place, &mut waiting.effects, waiting.cause);
        self.catch_up(place);
    }

    /// Handles what arrived while the host could not, and arms its timer.
    pub(crate) fn catch_up(&mut self, place: u32) {
        loop {
            let host = &mut self.hosts[place as usize];
            if !host.is_ready() {
                return;
            }
            let Some((input, cause)) = host.inbox.pop_front() else {
                break;
            };
            self.step(place, input, cause);
        }
        self.rearm(place);
    }

    /// Makes sure the queue has a timer event no later than the process's deadline.
    pub(crate) fn rearm(&mut self, place: u32) {
        let host = &mut self.hosts[place as usize];
        if !host.is_ready() {
            return;
        }
        let Some(process) = host.process.as_ref() else {
            return;
        };
        let due = host.clock.when(process.next_deadline()).max(self.now);
        if due > self.end || host.timer.is_some_and(|armed| armed <= due) {
            return;
        }
        host.timer = Some(due);
        let boot = host.boot;
        self.queue.push(due, Happening::Timer { host: place, boot });
    }

    fn timer_due(&mut self, place: u32, boot: u64) {
        let now = self.now;
        let host = &mut self.hosts[place as usize];
        if host.boot != boot || host.timer != Some(now) {
            return;
        }
        host.timer = None;
        if !host.is_ready() {
            return;
        }
        let Some(process) = host.process.as_ref() else {
            return;
        };
        // The deadline may have moved since the timer was armed; clocks may have drifted.
        if host.clock.when(process.next_deadline()) > now {
            self.rearm(place);
            return;
        }
        self.guard_against_spinning(place);
        self.step(place, Input::Timer, EventId(0));
    }

    fn guard_against_spinning(&mut self, place: u32) {
        let (now, seed) = (self.now, self.plan.seed);
        let host = &mut self.hosts[place as usize];
        let (at, count) = host.spins;
        host.spins = if at == now { (at, count + 1) } else { (now, 0) };
        let id = host.id;
        assert!(
            host.spins.1 < SPINS_MAX,
            "{id} asks for its timer again and again at {now} (seed {seed})"
        );
    }
}

impl Sight for Engine<'_> {
    fn roster(&self) -> Roster {
        self.roster
    }

    fn leader(&self) -> Option<u32> {
        self.leadership.leader()
    }

    fn is_up(&self, place: u32) -> bool {
        self.hosts[place as usize].process.is_some()
    }

    fn running_tasks(&self, service: Option<&str>) -> Vec<(u32, ContainerId)> {
        let mut tasks = Vec::new();
        for (host, place) in self.hosts.iter().zip(0..) {
            if let Some(runtime) = &host.runtime {
                tasks.extend(runtime.running_of(service).map(|id| (place, id.clone())));
            }
        }
        tasks
    }
}
