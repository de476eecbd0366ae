//! I3: at the end of the settle phase the cluster is what was asked for.
//!
//! Owed at the end, where everything concerned was undisturbed for the whole settle phase (or for
//! as long as the timers allow detection and repair to take, if that is shorter):
//! - managers have a leader (`no-leader`);
//! - every agent whose process runs is ready in the store (`node-not-ready`);
//! - a replicated service has exactly its wanted number of tasks, ready in the store and with a
//!   running container in truth (`missing-instances`, `surplus-instances`);
//! - a global service has one on every node that may run it (`missing-on-node`);
//! - every slot of a job is done: complete, or failed for good (`job-unfinished`);
//! - rollouts are over (`rollout-unfinished`);
//! - stopped services want no tasks (`not-stopped`), deleted ones are gone (`not-deleted`), and
//!   what is to stop has stopped (`stuck-stopping`).
//!
//! Exemptions, each because a correct system could not do better:
//! - nodes that a fault still holds: tasks there count as good, and nothing is owed to them; all
//!   services while a fault that names no node has no end; everything without a majority;
//! - images that cannot come to rest: those that end by themselves, are missing from the
//!   registry, never get healthy or need more memory than their limit (for jobs: those that never
//!   end, or fail and are to be tried again);
//! - tasks for which no node has room, by labels, memory, ports and state of the nodes; services
//!   whose volume is on a node that is held by a fault;
//! - waits that are still within their announced backoff: pulls, restarts, replacements; anything
//!   that moved within the last `RECENT`;
//! - paused rollouts, and rollouts that by their own numbers need longer than the settle phase.
//!
//! Map: `images` (what can come to rest), `room` (where a task would fit).

mod images;
mod room;

use std::collections::BTreeMap;
use std::time::Duration;

use wavetank_model::{
    Backoff, Change, ConsensusRole, NodeId, NodeStatus, Notice, RestartCondition, RolloutState,
    ServiceMode, ServiceName, TaskId, TaskState,
};
use wavetank_scenario::plan::Plan;
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

use crate::checker::{Breach, Checker, Report};
use crate::model::{Instance, Model, ServiceRecord, TaskRecord};

const ID: &str = "I3";

/// What moved within this time before the end may still be moving.
const RECENT: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    failures: u32,
    failed_at: VirtualTime,
    done: bool,
}

/// See the file's header.
pub struct Convergence {
    agents: u32,
    slots: BTreeMap<(ServiceName, u32), Slot>,
    pulls: BTreeMap<(NodeId, String), VirtualTime>,
    elected_at: VirtualTime,
}

impl Convergence {
    /// For a run of `plan`.
    pub fn new(plan: &Plan) -> Self {
        Convergence {
            agents: u32::try_from(plan.cluster.agents.len()).unwrap_or(u32::MAX),
            slots: BTreeMap::new(),
            pulls: BTreeMap::new(),
            elected_at: VirtualTime::ZERO,
        }
    }
}

impl Checker for Convergence {
    fn id(&self) -> &'static str {
        ID
    }

    fn observe(&mut self, event: &Event, report: &mut Report) {
        let Payload::Notice { notice } = &event.payload else {
            return;
        };
        match notice {
            Notice::RoleChanged {
                role: ConsensusRole::Leader,
                ..
            } => self.elected_at = event.at,
            Notice::PullDelayed { image, delay, .. } => {
                if let Some(host) = event.host {
                    self.pulls.insert((host, image.clone()), event.at + *delay);
                }
            }
            Notice::Applied { .. } => self.applied(event, &report.model),
            _ => {}
        }
    }

    fn finish(&mut self, end: VirtualTime, report: &mut Report) {
        if report.model.settle_at.is_none() || report.model.disturbance.silent_fault_in_force() {
            return;
        }
        let view = View {
            model: &report.model,
            checker: self,
            end,
            owed: owed(&report.model),
        };
        let mut found = Vec::new();
        view.control(&mut found);
        view.nodes(&mut found);
        if report.model.control_steady_for(view.owed, end) {
            for (name, service) in &report.model.store.services {
                view.service(name, service, &mut found);
            }
            view.stopping(&mut found);
        }
        for (kind, cause, witness) in found {
            let witnesses = witness.into_iter().collect();
            report.findings.add(Breach {
                checker: ID,
                kind,
                cause,
                at: end,
                witnesses,
            });
        }
    }
}

impl Convergence {
    fn applied(&mut self, event: &Event, model: &Model) {
        for step in model.store.steps() {
            let (before, after) = (&step.before, &step.after);
            if before
                .as_ref()
                .is_some_and(|task| task.status.state == after.status.state)
            {
                continue;
            }
            let Some(spec) = model.store.spec_of(after) else {
                continue;
            };
            let slot = self
                .slots
                .entry((after.service.clone(), after.slot))
                .or_default();
            match after.status.state {
                TaskState::Complete => slot.done = true,
                TaskState::Failed | TaskState::Rejected | TaskState::Lost => {
                    slot.failures += 1;
                    slot.failed_at = event.at;
                    slot.done |= after.status.state == TaskState::Failed
                        && spec.restart.condition == RestartCondition::Never;
                }
                _ => {}
            }
        }
        for change in model.store.fresh_changes(event) {
            if let Change::ServiceRemoved { service } = change {
                self.slots.retain(|(name, _), _| name != service);
            }
        }
    }
}

/// How long before the end something must have been undisturbed to be owed anything.
fn owed(model: &Model) -> Duration {
    let timers = &model.plan.cluster.timers;
    let repair = timers.node_down_after
        + timers.failover_grace
        + timers.session_timeout * 2
        + timers.reconcile * 2
        + timers.runtime_timeout * 2
        + RECENT;
    repair.min(model.plan.settle.saturating_sub(Duration::from_secs(5)))
}

type Found = Vec<(&'static str, String, Option<EventId>)>;

struct View<'a> {
    model: &'a Model,
    checker: &'a Convergence,
    end: VirtualTime,
    owed: Duration,
}

impl View<'_> {
    fn is_owed(&self, node: NodeId) -> bool {
        self.model.steady_for(node, self.owed, self.end)
    }

    fn is_recent(&self, at: VirtualTime) -> bool {
        self.end.since(at) < RECENT
    }

    fn control(&self, found: &mut Found) {
        let managers = (1..=self.model.plan.cluster.managers).map(NodeId::manager);
        let steady = managers.filter(|node| self.is_owed(*node)).count();
        let majority = self.model.plan.cluster.managers as usize / 2 + 1;
        if steady >= majority && self.model.disturbance.leader().is_none() {
            let cause = format!("{steady} managers are well, and none of them leads");
            found.push(("no-leader", cause, None));
        }
    }

    fn nodes(&self, found: &mut Found) {
        if !self.model.control_steady_for(self.owed, self.end) {
            return;
        }
        for node in (1..=self.checker.agents).map(NodeId::agent) {
            let record = self.model.store.nodes.get(&node);
            let ready = record.is_some_and(|record| record.status == NodeStatus::Ready);
            if !ready && self.is_owed(node) {
                let cause = format!("{node} is well, and the managers do not call it ready");
                found.push(("node-not-ready", cause, None));
            }
        }
    }

    fn service(&self, name: &ServiceName, service: &ServiceRecord, found: &mut Found) {
        let held = self
            .model
            .store
            .tasks_of(name)
            .any(|(_, task)| task.node.is_some_and(|node| !self.is_owed(node)));
        if self.end.since(service.changed_at) < self.owed.min(RECENT * 2) {
            return;
        }
        let witness = Some(service.event);
        if service.deleting {
            if !held {
                found.push((
                    "not-deleted",
                    format!("{name} is still being deleted"),
                    witness,
                ));
            }
            return;
        }
        if service.stopped {
            if self
                .model
                .store
                .tasks_of(name)
                .any(|(_, task)| task.is_wanted())
            {
                let cause = format!("{name} is stopped, and some of its tasks are to run");
                found.push(("not-stopped", cause, witness));
            }
            return;
        }
        if (held && service.spec.volume.is_some())
            || !images::comes_to_rest(self.model, &service.spec)
        {
            return;
        }
        match service.spec.mode {
            ServiceMode::Replicated { replicas } => self.replicated(service, replicas, found),
            ServiceMode::Global => self.global(service, found),
            ServiceMode::Job { completions } => self.job(service, completions, found),
        }
    }

    fn replicated(&self, service: &ServiceRecord, replicas: u32, found: &mut Found) {
        let name = &service.spec.name;
        match service.rollout {
            RolloutState::Paused => return,
            // A first generation replaces nothing: its tasks are all made at once.
            RolloutState::Updating if service.generation.0 == 1 => {}
            RolloutState::Updating | RolloutState::RollingBack => {
                self.rollout(service, replicas, found);
                return;
            }
            RolloutState::Completed | RolloutState::RolledBack => {}
        }
        let tasks: Vec<_> = self
            .model
            .store
            .tasks_of(name)
            .filter(|(_, task)| task.is_wanted())
            .collect();
        let good = tasks
            .iter()
            .filter(|(id, task)| self.is_good(*id, task))
            .count();
        let excused = tasks
            .iter()
            .filter(|(id, task)| self.is_excused(*id, task))
            .count()
            + self.slots_waiting(name, replicas);
        let wanted = replicas as usize;
        if good + excused < wanted {
            let cause = format!("{name} has {good} of {wanted} tasks that work");
            found.push(("missing-instances", cause, Some(service.event)));
        }
        let moving = tasks
            .iter()
            .any(|(_, task)| self.is_recent(task.state_since));
        if tasks.len() > wanted && !moving {
            let cause = format!("{name} has {} tasks instead of {wanted}", tasks.len());
            found.push(("surplus-instances", cause, Some(service.event)));
        }
    }

    fn rollout(&self, service: &ServiceRecord, replicas: u32, found: &mut Found) {
        let policy = service.spec.update;
        let width = (policy.surge_max + policy.unavailable_max).max(1);
        let step = policy.monitor + service.spec.stop_grace + Duration::from_secs(30);
        let needed = step * (replicas.div_ceil(width) + 1);
        let name = &service.spec.name;
        let tasks = || self.model.store.tasks_of(name);
        let waits = tasks().any(|(id, task)| task.is_wanted() && self.is_excused(id, task))
            || self.slots_waiting(name, replicas) > 0
            || tasks().any(|(_, task)| task.node.is_some_and(|node| !self.is_owed(node)));
        if needed < self.owed && !waits && self.end.since(service.changed_at) > needed {
            let cause = format!("the rollout of {name} is still {:?}", service.rollout);
            found.push(("rollout-unfinished", cause, Some(service.event)));
        }
    }

    fn global(&self, service: &ServiceRecord, found: &mut Found) {
        let name = &service.spec.name;
        let waiting = self.slots_waiting(name, u32::MAX) > 0;
        for (node, record) in &self.model.store.nodes {
            if !room::is_eligible(self.model, &service.spec, *node, record) || !self.is_owed(*node)
            {
                continue;
            }
            let tasks = self.model.store.tasks_of(name);
            let here: Vec<_> = tasks
                .filter(|(_, task)| task.node == Some(*node) && task.is_wanted())
                .collect();
            let fine = here
                .iter()
                .any(|(id, task)| self.is_good(*id, task) || self.is_excused(*id, task));
            let excused = here.is_empty()
                && (waiting
                    || self.is_recent(record.changed_at)
                    || !room::has_room(self.model, &service.spec, *node));
            if !fine && !excused {
                let cause = format!("{name} has no working task on {node}");
                found.push(("missing-on-node", cause, Some(service.event)));
            }
        }
    }

    fn job(&self, service: &ServiceRecord, completions: u32, found: &mut Found) {
        let name = &service.spec.name;
        for number in 1..=completions {
            let slot = self.slot(name, number);
            if slot.done {
                continue;
            }
            let mut tasks = self
                .model
                .store
                .tasks_of(name)
                .filter(|(_, task)| task.slot == number);
            let running = |task: &TaskRecord| {
                task.status.state == TaskState::Running
                    && self.end.since(task.state_since)
                        < images::run_for(self.model, &service.spec) + RECENT
            };
            let excused = self.is_waiting(slot)
                || tasks.any(|(id, task)| {
                    task.is_wanted()
                        && (self.is_excused(id, task) || running(task) || self.is_held(task))
                });
            if !excused {
                let cause = format!("slot {number} of job {name} is not done");
                found.push(("job-unfinished", cause, Some(service.event)));
            }
        }
    }

    fn stopping(&self, found: &mut Found) {
        let timers = &self.model.plan.cluster.timers;
        for (id, task) in &self.model.store.tasks {
            let Some(spec) = self.model.store.spec_of(task) else {
                continue;
            };
            let bound =
                spec.stop_grace + timers.runtime_timeout * 3 + timers.status_poll * 3 + RECENT;
            let overdue = self.end.since(task.desired_since.0) > bound.max(self.owed);
            let stuck = !task.is_wanted() && !task.status.state.is_terminal();
            if stuck && overdue && !self.is_held(task) {
                let cause = format!("{id} should have stopped and is {}", task.status.state);
                found.push(("stuck-stopping", cause, Some(task.event)));
            }
        }
    }

    fn is_held(&self, task: &TaskRecord) -> bool {
        task.node.is_some_and(|node| !self.is_owed(node))
    }

    /// Ready in the store, and truly running (as far as its node can be owed that).
    fn is_good(&self, id: TaskId, task: &TaskRecord) -> bool {
        let live = self
            .model
            .containers
            .of_task(id)
            .iter()
            .any(Instance::is_live);
        self.is_held(task) || (task.is_ready() && live)
    }

    /// Not good, for a reason that is none of the orchestrator's fault.
    fn is_excused(&self, id: TaskId, task: &TaskRecord) -> bool {
        if self.is_good(id, task) {
            return false;
        }
        let Some(spec) = self.model.store.spec_of(task) else {
            return true;
        };
        let waited = self.end.since(task.state_since);
        let pull = task
            .node
            .and_then(|node| self.checker.pulls.get(&(node, spec.image.0.clone())));
        let pull_waits = pull.is_some_and(|until| *until + RECENT > self.end);
        match task.status.state {
            _ if self.is_recent(task.state_since) => true,
            TaskState::Pending => room::fits_nowhere(self.model, spec),
            TaskState::Pulling => pull_waits,
            TaskState::Backoff => waited < longest(spec.restart.backoff, task.status.attempt),
            // It runs again for a short while only, or its probe needs some time.
            TaskState::Running => waited < images::ready_after(self.model, spec) + RECENT,
            _ => false,
        }
    }

    fn slot(&self, name: &ServiceName, number: u32) -> Slot {
        self.checker
            .slots
            .get(&(name.clone(), number))
            .copied()
            .unwrap_or_default()
    }

    /// Empty slots whose next task is not due yet.
    fn slots_waiting(&self, name: &ServiceName, replicas: u32) -> usize {
        let filled = |number: u32| {
            let mut tasks = self.model.store.tasks_of(name);
            tasks.any(|(_, task)| task.slot == number && task.is_wanted())
        };
        let first = (name.clone(), 0);
        let slots = self
            .checker
            .slots
            .range(first..)
            .take_while(|((service, _), _)| service == name);
        slots
            .filter(|((_, number), slot)| {
                *number <= replicas && self.is_waiting(**slot) && !filled(*number)
            })
            .count()
    }

    fn is_waiting(&self, slot: Slot) -> bool {
        let timers = &self.model.plan.cluster.timers;
        let since = slot.failed_at.max(self.checker.elected_at);
        let wait = longest(timers.replace_backoff, slot.failures) + timers.reconcile;
        slot.failures > 0 && self.end.since(since) < wait + RECENT
    }
}

/// The longest that a wait after so many failures can be, jitter included.
fn longest(backoff: Backoff, failures: u32) -> Duration {
    backoff.delay(failures) * 3 / 2 + RECENT
}

#[cfg(test)]
mod tests;
