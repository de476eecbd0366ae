//! The loop: takes the next thing from the queue and makes it happen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wavetank_core::{
    AgentConfig, Boot, ClientConfig, Context, Effects, Input, ManagerConfig, Message, Stored,
};
use wavetank_model::{Epoch, Incarnation, NodeId, NodeRole, Revision};
use wavetank_port::ContainerId;
use wavetank_scenario::plan::{Plan, Target};
use wavetank_trace::{EventId, HostState, Payload, Phase, VirtualTime};
use wavetank_world::{
    Disk, LocalClock, Locks, Network, Registry, Runtime, RuntimeConfig, Stream, random,
};

use crate::faults::FaultBoard;
use crate::host::{Host, Waiting};
use crate::queue::Queue;
use crate::recorder::Recorder;
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
    pub(crate) managers: u32,
    pub(crate) agents: u32,
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
    pub(crate) leader: Option<(Epoch, u32)>,
    pub(crate) applied: Revision,
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
        let managers = manager_count(plan);
        let hosts = build_hosts(plan, managers);
        let agents = u32::try_from(plan.cluster.agents.len()).unwrap_or(u32::MAX);
        let streams = hosts
            .iter()
            .map(|h| Stream::new(plan.seed, &h.id.to_string(), "network"))
            .collect();
        let (all, leading) = (hosts.len(), managers as usize);
        let peers = |host| if host < leading { all } else { leading };
        Engine {
            plan,
            system,
            now: VirtualTime::ZERO,
            end: VirtualTime::from_duration(plan.horizon + plan.settle),
            queue: Queue::new(),
            managers,
            agents,
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
            leader: None,
            applied: Revision(0),
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
        let (base, count) = match id.role {
            NodeRole::Manager => (0, self.managers),
            NodeRole::Agent => (self.managers, self.agents),
            NodeRole::Client => {
                let base = self.managers + self.agents;
                (base, index(self.hosts.len()) - base)
            }
        };
        (1..=count)
            .contains(&id.number)
            .then(|| base + id.number - 1)
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

    /// Starts a host's process from its disk, if nothing keeps it from running.
    pub(crate) fn start_process(&mut self, place: u32, cause: EventId) {
        let host = &self.hosts[place as usize];
        if host.process.is_some() || !host.power || !host.down_by.is_empty() {
            return;
        }
        let made = self.make_process(place);
        let host = &mut self.hosts[place as usize];
        host.seasoned = true;
        let (id, incarnation, boot) = (host.id, host.incarnation, host.boot);
        match made {
            Ok(process) => {
                host.process = Some(process);
                let state = HostState::Started;
                let payload = Payload::Host { state, incarnation };
                let cause = self.announce(Some(id), cause, payload);
                self.arrive(place, boot, cause, Input::Timer);
            }
            Err(why) => {
                self.record(Some(id), cause, Payload::GaveUp { why });
                // The runbook for a disk that cannot be trusted: wipe it and join again.
                self.hosts[place as usize].disk.wipe();
                let state = HostState::Crashed;
                self.announce(Some(id), cause, Payload::Host { state, incarnation });
                self.restart_later(place);
            }
        }
    }

    fn make_process(&mut self, place: u32) -> Result<Box<dyn wavetank_core::Process>, String> {
        let all_managers: Vec<NodeId> = (1..=self.managers).map(NodeId::manager).collect();
        let timers = self.plan.cluster.timers.clone();
        let initial = self.plan.cluster.managers;
        let host = &mut self.hosts[place as usize];
        host.incarnation = Incarnation(host.incarnation.0 + 1);
        let (id, incarnation) = (host.id, host.incarnation);
        let now = host.clock.monotonic(self.now);
        let read = |record: Option<_>| record.map_or(Stored::Damaged, Stored::Intact);
        let stored = host.disk.read().map(read).collect();
        match id.role {
            NodeRole::Manager => {
                let founder = !host.seasoned && id.number <= initial;
                let boot = if founder {
                    let member = |n| (u64::from(n), NodeId::manager(n));
                    Boot::Bootstrap {
                        members: (1..=initial).map(member).collect(),
                    }
                } else {
                    Boot::Join {
                        contacts: all_managers.into_iter().filter(|m| *m != id).collect(),
                    }
                };
                let config = ManagerConfig {
                    id,
                    incarnation,
                    boot,
                    timers,
                };
                self.system.manager(config, stored, now, &mut host.rng)
            }
            NodeRole::Agent => {
                let agent = &self.plan.cluster.agents[id.number as usize - 1];
                let config = AgentConfig {
                    id,
                    incarnation,
                    managers: all_managers,
                    resources: agent.resources,
                    labels: agent.labels.clone(),
                    timers,
                };
                self.system.agent(config, stored, now, &mut host.rng)
            }
            NodeRole::Client => {
                let config = ClientConfig {
                    id,
                    incarnation,
                    managers: all_managers,
                    timers,
                };
                Ok(self.system.client(config, now, &mut host.rng))
            }
        }
    }

    /// A process gives up; its supervisor starts it again after a while.
    pub(crate) fn crash(&mut self, place: u32, cause: EventId, why: &str) {
        let id = self.hosts[place as usize].id;
        let cause = self
            .record(
                Some(id),
                cause,
                Payload::GaveUp {
                    why: why.to_owned(),
                },
            )
            .id;
        self.stop_process(place, cause, HostState::Crashed, false);
        self.restart_later(place);
    }

    fn restart_later(&mut self, place: u32) {
        let boot = self.hosts[place as usize].boot;
        let at = self.now + self.plan.cluster.restart_delay;
        self.queue
            .push(at, Happening::Restart { host: place, boot });
    }

    /// Ends a host's process, and with a power loss or a wipe the machine.
    pub(crate) fn stop_process(
        &mut self,
        place: u32,
        cause: EventId,
        state: HostState,
        torn: bool,
    ) -> bool {
        let now = self.now;
        let silent = matches!(state, HostState::PowerLost | HostState::Wiped);
        let host = &mut self.hosts[place as usize];
        let was_running = host.process.is_some();
        let has_more_to_lose = silent && host.power;
        if !(was_running || has_more_to_lose) {
            return false;
        }
        let (id, incarnation) = (host.id, host.incarnation);
        if silent {
            host.disk.lose_power(torn);
            host.power = false;
            if let Some(runtime) = &mut host.runtime {
                runtime.lose_power(now, &host.clock);
                if state == HostState::Wiped {
                    runtime.wipe(now, &host.clock);
                }
            }
            if state == HostState::Wiped {
                host.disk.wipe();
            }
        } else {
            if let Some(runtime) = &mut host.runtime {
                runtime.disconnect();
            }
            self.complete_write(place);
        }
        self.hosts[place as usize].drop_process();
        self.locks.release_all(id);
        if self.leader.is_some_and(|(_, leader)| leader == place) {
            self.leader = None;
        }
        let cause = self.announce(Some(id), cause, Payload::Host { state, incarnation });
        self.pump_runtime(place, cause);
        if !silent {
            self.tell_peers(place, cause);
        }
        true
    }

    /// A process ended while its write was under way: the kernel completes it, so what the process
    /// decided is durable and counts as decided. Nothing of it is sent.
    fn complete_write(&mut self, place: u32) {
        let host = &mut self.hosts[place as usize];
        host.disk
            .finish_write(wavetank_core::Record::replaces_history);
        let Some(waiting) = host.waiting.take().filter(|waiting| waiting.writes) else {
            return;
        };
        let mut cause = waiting.cause;
        for notice in waiting.effects.notices {
            cause = self.release_notice(place, notice, cause);
        }
    }

    /// The peers of an ended process see their connections close.
    fn tell_peers(&mut self, place: u32, cause: EventId) {
        let id = self.hosts[place as usize].id;
        for peer in 0..index(self.hosts.len()) {
            let known = self.network.has_sent(place, peer) || self.network.has_sent(peer, place);
            if peer == place || !known {
                continue;
            }
            let delivery = self.network.route(self.now, place, peer, 64);
            if let Some(at) = delivery.arrivals[0] {
                let boot = self.hosts[peer as usize].boot;
                let input = Input::ConnectionLost { peer: id };
                self.queue.push(
                    at,
                    Happening::Arrive {
                        to: peer,
                        boot,
                        cause,
                        input,
                    },
                );
            }
        }
    }
}

/// A dense host index as the network and the queue keep it.
pub(crate) fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Managers that the plan starts with, and those that faults bring in later.
fn manager_count(plan: &Plan) -> u32 {
    let named = plan.faults.iter().filter_map(|fault| match &fault.target {
        Target::Nodes(nodes) => nodes
            .iter()
            .filter(|node| node.role == NodeRole::Manager)
            .map(|node| node.number)
            .max(),
        _ => None,
    });
    named.max().unwrap_or(0).max(plan.cluster.managers)
}

fn build_hosts(plan: &Plan, managers: u32) -> Vec<Host> {
    let agents = index(plan.cluster.agents.len());
    let clients = index(plan.cluster.clients.len()) + 1;
    (1..=managers)
        .map(NodeId::manager)
        .chain((1..=agents).map(NodeId::agent))
        .chain((1..=clients).map(NodeId::client))
        .map(|id| build_host(plan, id))
        .collect()
}

fn build_host(plan: &Plan, id: NodeId) -> Host {
    let name = id.to_string();
    let stream = |purpose| Stream::new(plan.seed, &name, purpose);
    // Up to an hour of uptime, so that no two machines' monotonic clocks agree.
    let uptime = stream("clock").below(3_600_000_000_000);
    let runtime = (id.role == NodeRole::Agent).then(|| {
        let config = RuntimeConfig {
            node: id,
            latency: plan.cluster.runtime_latency,
            event_delay: plan.cluster.event_delay,
        };
        Runtime::new(config, stream("runtime"))
    });
    Host {
        id,
        clock: LocalClock::new(uptime),
        disk: Disk::new(stream("disk"), plan.cluster.fsync),
        runtime,
        rng: random::generator(plan.seed, &name, "process"),
        process: None,
        boot: 0,
        incarnation: Incarnation(0),
        power: true,
        down_by: BTreeSet::new(),
        paused_by: BTreeSet::new(),
        paused_since: VirtualTime::ZERO,
        slowed_by: Vec::new(),
        seasoned: false,
        waiting: None,
        inbox: VecDeque::new(),
        timer: None,
        runtime_timer: None,
        spins: (VirtualTime::ZERO, 0),
    }
}

fn build_loads(plan: &Plan) -> Vec<Load> {
    let numbered = plan.cluster.clients.iter().zip(2..);
    numbered
        .map(|(config, number)| {
            let id = NodeId::client(number);
            Load::new(
                id,
                config.clone(),
                Stream::new(plan.seed, &id.to_string(), "load"),
            )
        })
        .collect()
}
