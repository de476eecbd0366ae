//! The leader's planner: looks at what was applied and proposes what should follow.
//!
//! It owns the leader's knowledge of time (how long tasks have been ready, when a slot may be
//! refilled, when leases run out), which is not replicated: a new leader rebuilds it from the
//! store and grants full waits. All decisions are made by pure functions (`reconciler`,
//! `rollout`, `scheduler`); this file decides only which of them to ask, and when.
//!
//! What was proposed is not applied yet, so a service whose plan is under way is left alone until
//! the plan arrives in the store or is given up for lost. Work is done per service that changed;
//! a service with nothing to do costs nothing until the periodic look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wavetank_model::{
    Change, DesiredState, FencingToken, Instant, LeaseName, NodeId, Revision, ServiceMode,
    ServiceName, TaskId, TaskState, Timers,
};

use super::command::Command;
use super::leases::LeaseClocks;
use super::reconciler::{Clocks, SlotClock, reconcile_service};
use super::scheduler::schedule;
use super::store::{ServiceRecord, Store, TaskRecord};

/// Looking at many things is spaced out so that it takes at most a small share of the time:
/// after a look at n of them the next one waits for n times this.
const SPACING: Duration = Duration::from_micros(50);
/// Fewer things than this are looked at as often as they change.
const SPACING_FROM: usize = 100;

/// When a service is looked at next.
#[derive(Clone, Debug, PartialEq)]
struct Agenda {
    due: Instant,
    /// The last look found that readiness matters.
    watching: bool,
    looked_at: Instant,
    /// A proposal under way: the round it was made in, and when it counts as lost.
    flight: Option<(Revision, Instant)>,
}

impl Agenda {
    fn new(due: Instant) -> Self {
        Agenda {
            due,
            watching: true,
            looked_at: Instant::ZERO,
            flight: None,
        }
    }

    /// When a look is possible: after the proposal under way, and not too often. `None` for now.
    fn hold(&mut self, round: Revision, size: usize, now: Instant) -> Option<Instant> {
        self.flight = self
            .flight
            .filter(|(made_in, lost_at)| *made_in == round && now < *lost_at);
        let spacing = if size < SPACING_FROM {
            Duration::ZERO
        } else {
            SPACING * saturate(size)
        };
        let free_at = self.flight.map_or(Instant::ZERO, |(_, lost_at)| lost_at);
        let held = free_at.max(self.looked_at + spacing);
        (held > now).then_some(held)
    }
}

fn saturate(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// Something that was applied and that the planner has to look into.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    /// A service was written, or one of its tasks was created, told to stop, or ended.
    Service(ServiceName),
    /// A task became ready or stopped being so.
    Readiness(ServiceName),
    /// A task stopped being ready after this long.
    RanFor {
        service: ServiceName,
        slot: u32,
        task: TaskId,
        ready: Duration,
    },
    /// A task ended although it should run.
    EndedUnasked { service: ServiceName, slot: u32 },
    /// A node was written.
    Node(NodeId),
    /// A service is gone.
    Gone(ServiceName),
}

/// The leader's planner.
#[derive(Clone, Debug, PartialEq)]
pub struct Planner {
    timers: Timers,
    /// Noted and not looked into yet.
    events: Vec<(Event, Instant)>,
    agendas: BTreeMap<ServiceName, Agenda>,
    /// The scheduler's; due only while something is to be placed.
    placing: Agenda,
    slots: BTreeMap<ServiceName, BTreeMap<u32, SlotClock>>,
    ready: BTreeMap<TaskId, Instant>,
    trial: BTreeMap<TaskId, Instant>,
    leases: LeaseClocks,
    reconcile_at: Instant,
    /// Nothing needs a look before this, leases apart.
    look_at: Instant,
}

impl Planner {
    /// Starts planning from a store, right after an election.
    pub fn new(timers: &Timers, now: Instant, store: &Store) -> Self {
        let mut planner = Planner {
            timers: timers.clone(),
            events: Vec::new(),
            agendas: BTreeMap::new(),
            placing: Agenda::new(now),
            slots: BTreeMap::new(),
            ready: BTreeMap::new(),
            trial: BTreeMap::new(),
            leases: LeaseClocks::new(store, now),
            reconcile_at: now,
            look_at: now,
        };
        for (name, service) in store.services() {
            planner.recall(store, name, service, now);
        }
        planner
    }

    /// Rebuilds what can be told of a service. Where a wait was under way it starts again.
    fn recall(&mut self, store: &Store, name: &ServiceName, service: &ServiceRecord, now: Instant) {
        let since = if service.is_rolling() {
            now
        } else {
            Instant::ZERO
        };
        let mut failures: BTreeMap<u32, u32> = BTreeMap::new();
        for task in store.tasks_of(name) {
            if task.is_ready() {
                self.ready.insert(task.id, since);
            }
            if task.is_live() && service.is_rolling() {
                self.trial.insert(task.id, now);
            }
            let failed = !task.is_live() && task.desired == DesiredState::Running;
            let count = failures.entry(task.slot).or_default();
            *count = if failed { *count + 1 } else { 0 };
        }
        failures.retain(|_, failures| *failures > 0);
        let clock = |failures: u32| SlotClock {
            failures,
            retry_at: now + self.timers.replace_backoff.delay(failures),
        };
        let clocks = failures
            .into_iter()
            .map(|(slot, count)| (slot, clock(count)))
            .collect();
        self.slots.insert(name.clone(), clocks);
    }

    /// Takes note of what was applied. Cheap; `step` looks into it.
    pub fn note(&mut self, changes: &[Change], now: Instant) {
        for change in changes {
            match change {
                Change::Task { .. } => self.note_task(change, now),
                Change::TaskRemoved { task, service } => {
                    self.ready.remove(task);
                    self.trial.remove(task);
                    self.push(Event::Service(service.clone()), now);
                }
                Change::Node { node, .. } => self.push(Event::Node(*node), now),
                Change::Service { spec, .. } => self.push(Event::Service(spec.name.clone()), now),
                Change::ServiceRemoved { service } => self.push(Event::Gone(service.clone()), now),
                Change::Lease {
                    lease,
                    holder,
                    token,
                } => {
                    self.leases.note(lease, holder.is_some(), *token, now);
                }
                Change::Entry { .. } => {}
            }
        }
    }

    fn push(&mut self, event: Event, now: Instant) {
        self.events.push((event, now));
    }

    fn note_task(&mut self, change: &Change, now: Instant) {
        let Change::Task {
            task,
            service,
            slot,
            desired,
            from,
            status,
            ..
        } = change
        else {
            return;
        };
        let is_ready = status.state == TaskState::Running && status.ready;
        if is_ready && !self.ready.contains_key(task) {
            self.ready.insert(*task, now);
            self.push(Event::Readiness(service.clone()), now);
        } else if !is_ready && let Some(since) = self.ready.remove(task) {
            let (service, slot, task) = (service.clone(), *slot, *task);
            self.push(
                Event::RanFor {
                    service,
                    slot,
                    task,
                    ready: now.since(since),
                },
                now,
            );
        }
        match from {
            None => {
                self.trial.insert(*task, now);
                self.placing.due = now;
                self.push(Event::Service(service.clone()), now);
            }
            Some(TaskState::Pending) if status.state == TaskState::Assigned => {
                self.placing.due = now;
                self.look_at = now;
            }
            Some(_) if status.state.is_terminal() => {
                self.trial.remove(task);
                self.placing.due = now;
                if *desired == DesiredState::Running {
                    let (service, slot) = (service.clone(), *slot);
                    self.push(Event::EndedUnasked { service, slot }, now);
                }
                self.push(Event::Service(service.clone()), now);
            }
            Some(before) if *before == status.state && *desired != DesiredState::Running => {
                self.push(Event::Service(service.clone()), now);
            }
            Some(_) => {}
        }
    }

    /// Decides what to propose now. Costs nothing if nothing changed and no wait is over.
    pub fn step(&mut self, store: &Store, now: Instant) -> Vec<Command> {
        let mut commands = Vec::new();
        if now < self.next_deadline() {
            return commands;
        }
        commands.extend(self.leases.expire(store, now, self.give_up_after()));
        if self.events.is_empty() && now < self.look_at {
            return commands;
        }
        self.look_into(store);
        if self.reconcile_at <= now {
            self.look_at_everything(store, now);
        }
        self.plan_services(store, now, &mut commands);
        self.place(store, now, &mut commands);
        let services = self.agendas.values().map(|agenda| agenda.due).min();
        self.look_at = self
            .reconcile_at
            .min(self.placing.due)
            .min(services.unwrap_or(Instant::NEVER));
        commands
    }

    /// When `step` is to be called next without a change.
    pub fn next_deadline(&self) -> Instant {
        let noted = self.events.first().map_or(Instant::NEVER, |(_, at)| *at);
        self.look_at.min(self.leases.next_deadline()).min(noted)
    }

    /// The holder of this grant renewed its lease, which a majority confirmed. False if it can
    /// not be renewed because the grant is gone or its end is already proposed.
    pub fn renew(&mut self, lease: &LeaseName, token: FencingToken, now: Instant) -> bool {
        self.leases.renew(lease, token, now)
    }

    /// A leader whose proposals take longer than this is about to lose its leadership.
    fn give_up_after(&self) -> Duration {
        self.timers.raft_election * 2
    }

    /// Turns what was noted into agenda.
    fn look_into(&mut self, store: &Store) {
        let mut nodes = BTreeSet::new();
        for (event, at) in std::mem::take(&mut self.events) {
            match event {
                Event::Service(service) => self.agenda(service, at).due = at,
                Event::Readiness(service) => self.readiness(service, at),
                Event::RanFor {
                    service,
                    slot,
                    task,
                    ready,
                } => {
                    self.judge_run(store, &service, slot, task, ready);
                    self.readiness(service, at);
                }
                Event::EndedUnasked { service, slot } => self.count_failure(service, slot, at),
                Event::Node(node) => {
                    nodes.insert(node);
                    self.placing.due = at;
                }
                Event::Gone(service) => {
                    self.agendas.remove(&service);
                    self.slots.remove(&service);
                }
            }
        }
        if !nodes.is_empty() {
            self.look_into_nodes(store, &nodes);
        }
    }

    fn agenda(&mut self, service: ServiceName, due: Instant) -> &mut Agenda {
        self.agendas
            .entry(service)
            .or_insert_with(|| Agenda::new(due))
    }

    fn readiness(&mut self, service: ServiceName, at: Instant) {
        let agenda = self.agenda(service, at);
        if agenda.watching {
            agenda.due = at;
        }
    }

    /// A stable run clears the slot's failures; one that was long enough for the rollout's
    /// monitor ends the task's trial.
    fn judge_run(
        &mut self,
        store: &Store,
        name: &ServiceName,
        slot: u32,
        task: TaskId,
        ready: Duration,
    ) {
        let Some(service) = store.service(name) else {
            return;
        };
        if ready >= service.spec.update.monitor {
            self.trial.remove(&task);
        }
        if ready >= service.spec.restart.stable_after
            && let Some(slots) = self.slots.get_mut(name)
        {
            slots.remove(&slot);
        }
    }

    fn count_failure(&mut self, service: ServiceName, slot: u32, at: Instant) {
        let slots = self.slots.entry(service).or_default();
        let clock = slots.entry(slot).or_insert(SlotClock {
            failures: 0,
            retry_at: at,
        });
        clock.failures = clock.failures.saturating_add(1);
        clock.retry_at = at + self.timers.replace_backoff.delay(clock.failures);
    }

    /// Nodes matter to the services that have tasks there, and to those that want one on each.
    fn look_into_nodes(&mut self, store: &Store, nodes: &BTreeSet<NodeId>) {
        let global = |service: &ServiceRecord| service.spec.mode == ServiceMode::Global;
        let mut concerned: BTreeSet<&ServiceName> = store
            .services()
            .iter()
            .filter(|(_, service)| global(service))
            .map(|(name, _)| name)
            .collect();
        for node in nodes {
            concerned.extend(store.tasks_on(*node).map(|task: &TaskRecord| &task.service));
        }
        for name in concerned {
            self.agenda(name.clone(), Instant::ZERO).due = Instant::ZERO;
        }
    }

    fn look_at_everything(&mut self, store: &Store, now: Instant) {
        self.reconcile_at = now + self.timers.reconcile;
        self.agendas.retain(|name, _| store.service(name).is_some());
        self.slots.retain(|name, _| store.service(name).is_some());
        for name in store.services().keys() {
            self.agenda(name.clone(), now).due = now;
        }
        self.placing.due = now;
    }

    fn plan_services(&mut self, store: &Store, now: Instant, commands: &mut Vec<Command>) {
        let due: Vec<ServiceName> = self
            .agendas
            .iter()
            .filter(|(_, agenda)| agenda.due <= now)
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            match store.service(&name) {
                Some(service) => self.plan_service(store, &name, service, now, commands),
                None => {
                    self.agendas.remove(&name);
                }
            }
        }
    }

    fn plan_service(
        &mut self,
        store: &Store,
        name: &ServiceName,
        service: &ServiceRecord,
        now: Instant,
        commands: &mut Vec<Command>,
    ) {
        let lost_at = now + self.give_up_after();
        let Some(agenda) = self.agendas.get_mut(name) else {
            return;
        };
        if let Some(held) = agenda.hold(service.round, store.tasks_count(name), now) {
            agenda.due = held;
            return;
        }
        let clocks = Clocks {
            now,
            slots: self.slots.get(name),
            ready: &self.ready,
            trial: &self.trial,
            history_max: self.timers.history_max,
        };
        let Some(decision) = reconcile_service(store, name, clocks) else {
            return;
        };
        agenda.looked_at = now;
        agenda.watching = decision.watching;
        agenda.due = decision.wake;
        if !decision.plan.is_empty() {
            agenda.flight = Some((service.round, lost_at));
            agenda.due = agenda.due.min(lost_at);
            self.trial
                .extend(decision.plan.overdue.iter().map(|task| (*task, now)));
            commands.push(Command::Plan(decision.plan));
        }
    }

    fn place(&mut self, store: &Store, now: Instant, commands: &mut Vec<Command>) {
        if now < self.placing.due {
            return;
        }
        if store.pending().is_empty() {
            self.placing.due = Instant::NEVER;
            return;
        }
        let round = store.placement_round();
        if let Some(held) = self.placing.hold(round, store.nodes().len(), now) {
            self.placing.due = held;
            return;
        }
        let schedule = schedule(store);
        self.placing.looked_at = now;
        self.placing.due = Instant::NEVER;
        if !schedule.placements.is_empty() {
            let lost_at = now + self.give_up_after();
            self.placing.flight = Some((round, lost_at));
            self.placing.due = lost_at;
            commands.push(Command::Assign {
                round,
                placements: schedule.placements,
            });
        }
        for (message, tasks) in schedule.explanations {
            commands.push(Command::Explain { tasks, message });
        }
    }
}
