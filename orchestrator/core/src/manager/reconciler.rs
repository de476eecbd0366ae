//! The reconciler: what one service has against what it should have.
//!
//! Level-triggered and pure: a [`Plan`] follows from the store and the leader's clocks alone, so
//! it does not matter how the service got where it is, nor how often it is looked at.
//!
//! A service has slots. A slot is filled by one task that fits: wanted, of the right generation,
//! on a node that is not being emptied. While a task is being replaced its slot has two; the old
//! one goes when the new one is available. A slot whose newest task is to be removed does not
//! count any more. This file adds and removes slots, refills empty ones, clears doubles and
//! forgets old records; `rollout` replaces tasks that work by better ones and judges the rollout.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use wavetank_model::{
    Availability, DesiredState, Generation, Instant, NodeId, NodeStatus, Reason, RestartCondition,
    RolloutState, ServiceMode, ServiceName, TaskId, TaskState,
};

use super::command::{NewTask, Plan};
use super::rollout;
use super::store::{NodeRecord, ServiceRecord, Store, TaskRecord};

/// When a slot may get its next task. Kept by the leader only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotClock {
    /// Tasks of the slot that ended unasked, without a stable run in between.
    pub failures: u32,
    /// Not before.
    pub retry_at: Instant,
}

/// What the leader knows about time. Kept by the leader only; a new leader starts with what it
/// can tell from the store and grants a full wait where it cannot.
#[derive(Clone, Copy, Debug)]
pub struct Clocks<'a> {
    /// The leader's time.
    pub now: Instant,
    /// Per slot of the service, when it may get its next task.
    pub slots: Option<&'a BTreeMap<u32, SlotClock>>,
    /// Since when tasks have been ready.
    pub ready: &'a BTreeMap<TaskId, Instant>,
    /// Since when tasks that were never available have been known.
    pub trial: &'a BTreeMap<TaskId, Instant>,
    /// Ended tasks kept per slot.
    pub history_max: u32,
}

/// What is to be done about a service, and when to look again if nothing changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// May be empty.
    pub plan: Plan,
    /// [`Instant::NEVER`] if only a change can make a difference.
    pub wake: Instant,
    /// Does it matter when a task becomes ready or stops being so?
    pub watching: bool,
}

/// Decides about one service; `None` if there is no such service.
pub fn reconcile_service(
    store: &Store,
    name: &ServiceName,
    clocks: Clocks<'_>,
) -> Option<Decision> {
    let mut work = Work::new(store, name, clocks)?;
    if !work.service.deleting && !work.service.stopped {
        work.remove_surplus();
        let replaceable = work.settle_slots();
        work.add_slots();
        rollout::replace(&mut work, replaceable);
        rollout::judge(&mut work);
    }
    work.forget_history();
    let watching = work.is_watching();
    Some(Decision {
        plan: work.plan,
        wake: work.wake,
        watching,
    })
}

/// The tasks of one slot, oldest first, never empty.
pub(super) type Slot<'a> = Vec<&'a TaskRecord>;

/// One look at one service: what is there, and the plan as far as it goes.
pub(super) struct Work<'a> {
    pub store: &'a Store,
    pub service: &'a ServiceRecord,
    pub clocks: Clocks<'a>,
    /// Slots that count.
    pub slots: BTreeMap<u32, Slot<'a>>,
    pub plan: Plan,
    pub wake: Instant,
    /// How many slots there should be.
    pub wanted: usize,
    /// Tasks that have not ended, and those that are to be created.
    pub live: usize,
    /// Available tasks, without those that are to be stopped.
    pub available: usize,
    /// Slots that are to be added.
    missing: Vec<u32>,
    /// Something waits until more tasks are available.
    blocked: bool,
}

impl<'a> Work<'a> {
    fn new(store: &'a Store, name: &ServiceName, clocks: Clocks<'a>) -> Option<Self> {
        let service = store.service(name)?;
        let mut slots: BTreeMap<u32, Slot<'a>> = BTreeMap::new();
        let mut live = 0;
        for task in store.tasks_of(name) {
            live += usize::from(task.is_live());
            slots.entry(task.slot).or_default().push(task);
        }
        slots.retain(|_, tasks| head(tasks).desired != DesiredState::Removed);
        let plan = Plan::new(name.clone(), service.round, service.losses);
        let mut work = Work {
            store,
            service,
            clocks,
            slots,
            plan,
            wake: Instant::NEVER,
            wanted: 0,
            live,
            available: 0,
            missing: Vec::new(),
            blocked: false,
        };
        work.count_wanted();
        work.available = store
            .tasks_of(name)
            .filter(|task| work.is_available(task))
            .count();
        Some(work)
    }

    fn count_wanted(&mut self) {
        let Some(replicas) = self.service.spec.replicas() else {
            return self.count_wanted_nodes();
        };
        self.wanted = usize::try_from(replicas).unwrap_or(usize::MAX);
        let missing = self.wanted.saturating_sub(self.slots.len());
        let free = (1..=u32::MAX).filter(|slot| !self.slots.contains_key(slot));
        self.missing = free.take(missing).collect();
    }

    /// A global service wants a slot on each node that is up and takes its tasks.
    fn count_wanted_nodes(&mut self) {
        for (node, record) in self.store.nodes() {
            if record.status == NodeStatus::Down || !self.belongs(record) {
                continue;
            }
            let there = self.slots.contains_key(&node.number);
            if there || record.availability == Availability::Active {
                self.wanted += 1;
            }
            if !there && record.availability == Availability::Active {
                self.missing.push(node.number);
            }
        }
    }

    /// May a global service's task stay on a node?
    fn belongs(&self, record: &NodeRecord) -> bool {
        record.availability != Availability::Drain
            && record.has_labels(&self.service.spec.constraints)
    }

    /// Removes slots that are too many.
    fn remove_surplus(&mut self) {
        let surplus = if self.service.spec.mode == ServiceMode::Global {
            self.slots_of_lost_nodes()
        } else {
            self.slots_above_wanted()
        };
        for slot in surplus {
            let reason = self.surplus_reason(slot);
            let Some(tasks) = self.slots.remove(&slot) else {
                continue;
            };
            for task in tasks {
                self.available -= usize::from(self.is_available(task));
                self.plan
                    .desire
                    .push((task.id, DesiredState::Removed, reason));
            }
        }
    }

    fn surplus_reason(&self, slot: u32) -> Reason {
        let node = self.store.node(NodeId::agent(slot));
        let drained = node.is_some_and(|node| node.availability == Availability::Drain);
        if drained && self.service.spec.mode == ServiceMode::Global {
            Reason::NodeDraining
        } else {
            Reason::TerminatedByOperator
        }
    }

    fn slots_of_lost_nodes(&self) -> Vec<u32> {
        let stays = |slot: &u32| {
            self.store
                .node(NodeId::agent(*slot))
                .is_some_and(|record| self.belongs(record))
        };
        self.slots
            .keys()
            .copied()
            .filter(|slot| !stays(slot))
            .collect()
    }

    /// The slots that are missed least: no task of the newest generation, none that is available
    /// or done, highest number.
    fn slots_above_wanted(&self) -> Vec<u32> {
        let surplus = self.slots.len().saturating_sub(self.wanted);
        if surplus == 0 {
            return Vec::new();
        }
        let mut slots: Vec<(bool, bool, Reverse<u32>)> = self
            .slots
            .iter()
            .map(|(slot, tasks)| {
                let newest = tasks
                    .iter()
                    .any(|task| task.is_wanted() && !self.is_stale(task));
                let works = tasks.iter().any(|task| self.is_available(task));
                let done = self.is_done(head(tasks));
                (newest || done, works || done, Reverse(*slot))
            })
            .collect();
        slots.sort();
        slots
            .into_iter()
            .take(surplus)
            .map(|(_, _, Reverse(slot))| slot)
            .collect()
    }

    /// Refills slots in which nothing runs, clears doubles, and returns the slots whose tasks
    /// run but should be replaced.
    fn settle_slots(&mut self) -> Vec<u32> {
        let mut replaceable = Vec::new();
        let slots = std::mem::take(&mut self.slots);
        for (slot, tasks) in &slots {
            if let Some(keeper) = self.keeper(tasks) {
                self.clear_doubles(tasks, keeper);
            } else if tasks.iter().any(|task| task.is_wanted()) {
                replaceable.push(*slot);
            } else {
                self.refill(*slot, tasks);
            }
        }
        self.slots = slots;
        replaceable
    }

    /// The task that fills a slot: the newest that fits, unless one of the same template works
    /// already, as after a drain that was taken back before its node was empty.
    fn keeper(&self, tasks: &Slot<'a>) -> Option<&'a TaskRecord> {
        let mut fitting = tasks.iter().rev().filter(|task| self.fits(task));
        let newest = *fitting.clone().next()?;
        let template = |task: &TaskRecord| self.service.template_of(task.generation);
        let works = fitting.find(|task| self.is_up(task) && template(task) == template(newest));
        Some(works.copied().unwrap_or(newest))
    }

    /// Stops the slot's other tasks: those that are no use at once, those that work once the one
    /// to keep is available.
    fn clear_doubles(&mut self, tasks: &Slot<'a>, keeper: &TaskRecord) {
        let keeper_works = self.is_available(keeper);
        for task in tasks
            .iter()
            .filter(|task| task.is_wanted() && task.id != keeper.id)
        {
            if keeper_works || !self.is_up(task) {
                self.stop(task);
            } else {
                self.blocked = true;
            }
        }
    }

    /// Gives a slot in which nothing is wanted to run its next task, if it should have one.
    fn refill(&mut self, slot: u32, tasks: &Slot<'a>) {
        let head = head(tasks);
        let generation = self.next_generation(tasks);
        let exclusive = self.stops_first() && tasks.iter().any(|task| task.is_live());
        if self.is_done(head) || exclusive || self.must_wait(slot, head, generation) {
            return;
        }
        self.create(slot, generation);
    }

    /// The newest generation; while a rollout is paused, what the slot had last that did not
    /// fail.
    pub fn next_generation(&self, tasks: &Slot<'a>) -> Generation {
        if self.service.rollout != RolloutState::Paused {
            return self.service.generation;
        }
        let failed = |task: &TaskRecord| {
            matches!(task.status.state, TaskState::Failed | TaskState::Rejected)
        };
        let last = tasks.iter().rev().find(|task| !failed(task));
        last.map_or(head(tasks).generation, |task| task.generation)
    }

    /// Does the slot's backoff still run? It does not hold back another template.
    pub fn must_wait(&mut self, slot: u32, head: &TaskRecord, generation: Generation) -> bool {
        let same =
            self.service.template_of(head.generation) == self.service.template_of(generation);
        let ended_unasked = !head.is_live() && head.desired == DesiredState::Running;
        let clock = self.clocks.slots.and_then(|slots| slots.get(&slot));
        let retry_at = clock.map_or(Instant::ZERO, |clock| clock.retry_at);
        if !same || !ended_unasked || retry_at <= self.clocks.now {
            return false;
        }
        self.wake = self.wake.min(retry_at);
        true
    }

    /// Adds slots that are missing.
    fn add_slots(&mut self) {
        for slot in std::mem::take(&mut self.missing) {
            if !self.create(slot, self.service.generation) {
                return;
            }
        }
    }

    /// Creates a task if there may be one more, and there may be one there.
    pub fn create(&mut self, slot: u32, generation: Generation) -> bool {
        let exclusive = self.service.spec.volume.is_some() && self.live > 0;
        let full = self.live >= self.wanted.saturating_add(self.surge_max());
        if exclusive || full || !self.takes_tasks(slot) {
            return false;
        }
        self.live += 1;
        self.plan.create.push(NewTask { slot, generation });
        true
    }

    /// A global service's slot is its node.
    fn takes_tasks(&self, slot: u32) -> bool {
        let node = self.store.node(NodeId::agent(slot));
        self.service.spec.mode != ServiceMode::Global || node.is_some_and(NodeRecord::takes_tasks)
    }

    /// Stops a task: at once if it does not work, else if that leaves enough available ones.
    pub fn stop(&mut self, task: &TaskRecord) {
        let reason = if self.is_leaving(task) {
            Reason::NodeDraining
        } else {
            Reason::Superseded
        };
        if self.service.is_job() {
            self.plan
                .desire
                .push((task.id, DesiredState::Shutdown, reason));
            return;
        }
        if !self.is_up(task) {
            self.plan.discard.push((task.id, reason));
            return;
        }
        let floor = self.wanted.saturating_sub(self.unavailable_max());
        let left = self.available - usize::from(self.is_available(task));
        if left < floor {
            self.blocked = true;
            return;
        }
        self.available = left;
        self.plan.retire.tasks.push((task.id, reason));
    }

    /// Must the old task be gone before its replacement may exist? A volume has one writer, a
    /// host port one owner per node, and a job's work is not to be done twice at once.
    pub fn stops_first(&self) -> bool {
        let spec = &self.service.spec;
        let same_ports = spec.mode == ServiceMode::Global && !spec.ports.is_empty();
        spec.volume.is_some() || same_ports || self.service.is_job()
    }

    fn surge_max(&self) -> usize {
        if self.stops_first() {
            return 0;
        }
        usize::try_from(self.service.spec.update.surge_max).unwrap_or(usize::MAX)
    }

    fn unavailable_max(&self) -> usize {
        let least = usize::from(self.stops_first());
        let asked = self.service.spec.update.unavailable_max;
        usize::try_from(asked).unwrap_or(usize::MAX).max(least)
    }

    /// Is the task wanted, of the right generation, and where it may stay?
    fn fits(&self, task: &TaskRecord) -> bool {
        task.is_wanted() && !self.is_stale(task) && !self.is_leaving(task)
    }

    /// Does the task run another template than the newest generation's? Nothing is stale while a
    /// rollout is paused.
    pub fn is_stale(&self, task: &TaskRecord) -> bool {
        self.service.rollout != RolloutState::Paused && self.is_other_template(task)
    }

    pub fn is_other_template(&self, task: &TaskRecord) -> bool {
        self.service.template_of(task.generation) != self.service.template()
    }

    /// Is the task's node being emptied?
    pub fn is_leaving(&self, task: &TaskRecord) -> bool {
        let node = task.node.and_then(|node| self.store.node(node));
        node.is_some_and(|record| record.availability == Availability::Drain)
    }

    /// Can the task be counted on? It is up; if it is of the newest template, it has been for as
    /// long as the update policy asks.
    pub fn is_available(&self, task: &TaskRecord) -> bool {
        self.is_up(task) && self.available_at(task) <= self.clocks.now
    }

    pub fn is_up(&self, task: &TaskRecord) -> bool {
        self.store.is_up(task)
    }

    fn available_at(&self, task: &TaskRecord) -> Instant {
        if self.is_other_template(task) {
            return Instant::ZERO;
        }
        let since = self
            .clocks
            .ready
            .get(&task.id)
            .copied()
            .unwrap_or(self.clocks.now);
        since + self.service.spec.update.monitor
    }

    /// Does anything depend on readiness? If it waits for it, looks again in time.
    fn is_watching(&mut self) -> bool {
        if self.blocked {
            let tasks: Vec<&TaskRecord> = self.slots.values().flatten().copied().collect();
            tasks
                .into_iter()
                .for_each(|task| self.wake_when_available(task));
        }
        self.blocked || self.service.is_rolling()
    }

    /// Looks again when a ready task has been ready for long enough.
    pub fn wake_when_available(&mut self, task: &TaskRecord) {
        let at = self.available_at(task);
        if task.is_ready() && at > self.clocks.now {
            self.wake = self.wake.min(at);
        }
    }

    /// Has the slot's work been done for good? An end that the restart rules accept is not made
    /// up for by another task.
    pub fn is_done(&self, task: &TaskRecord) -> bool {
        if task.desired != DesiredState::Running || self.is_stale(task) {
            return false;
        }
        let Some(spec) = self.store.spec_of(task) else {
            return false;
        };
        let condition = spec.restart.condition;
        match task.status.state {
            TaskState::Complete => self.service.is_job() || condition != RestartCondition::Always,
            TaskState::Failed => condition == RestartCondition::Never,
            _ => false,
        }
    }

    /// Forgets the oldest records of ended tasks; never a slot's newest task.
    fn forget_history(&mut self) {
        let most = usize::try_from(self.clocks.history_max).unwrap_or(usize::MAX);
        for tasks in self.slots.values() {
            let ended: Vec<TaskId> = tasks
                .iter()
                .filter(|task| !task.is_live())
                .map(|task| task.id)
                .collect();
            let newest_counts = usize::from(!head(tasks).is_live());
            let excess = ended.len().saturating_sub(most.max(newest_counts));
            self.plan.forget.extend(&ended[..excess]);
        }
    }
}

/// The slot's newest task.
pub(super) fn head<'a>(tasks: &Slot<'a>) -> &'a TaskRecord {
    tasks.last().expect("a slot exists because of its tasks")
}
