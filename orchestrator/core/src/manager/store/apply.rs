//! Applies the commands of managers and agents, each checked against the store as it is now.
//!
//! Every function here is the only place that makes its kind of change. A task that exists is
//! changed through `tasks` only, which keeps index, assignments' revision and changes in step.

use std::collections::BTreeMap;

use wavetank_model::{
    Availability, Change, DesiredState, FencingToken, Incarnation, LeaseName, NodeId, NodeStatus,
    Reason, Resources, Revision, RolloutState, ServiceName, TaskId, TaskState, TaskStatus,
};

use super::records::{MemberRecord, NodeRecord, ServiceRecord, TaskRecord};
use super::{Applied, Store, operations};
use crate::manager::command::{Command, NewTask, Plan, RolloutStep};
use crate::manager::scheduler;
use crate::message::TaskReport;

/// One application: the store, where in the log it happens, and what it has changed so far.
pub(super) struct Apply<'a> {
    pub store: &'a mut Store,
    pub revision: Revision,
    pub changes: Vec<Change>,
}

pub(super) fn apply(store: &mut Store, revision: Revision, command: &Command) -> Applied {
    let mut apply = Apply {
        store,
        revision,
        changes: Vec::new(),
    };
    let result = match command {
        Command::Client { id, operation } => operations::once(&mut apply, *id, operation),
        other => {
            apply.manager_command(other);
            None
        }
    };
    Applied {
        changes: apply.changes,
        result,
    }
}

impl Apply<'_> {
    fn manager_command(&mut self, command: &Command) {
        match command {
            Command::Client { .. } => {}
            Command::NodeUp {
                node,
                resources,
                labels,
            } => self.node_up(*node, *resources, labels),
            Command::NodeDown { node } => self.node_down(*node),
            Command::Report { node, reports } => {
                reports.iter().for_each(|report| self.report(*node, report));
            }
            Command::Member {
                member,
                node,
                incarnation,
            } => {
                self.member(*member, *node, *incarnation);
            }
            Command::LeaseExpire { lease, token } => self.lease_expire(lease, *token),
            Command::Plan(plan) => self.plan(plan),
            Command::Assign { round, placements } => self.assign(*round, placements),
            Command::Explain { tasks, message } => {
                tasks.iter().for_each(|task| self.explain(*task, message));
            }
        }
    }

    fn node_up(&mut self, node: NodeId, resources: Resources, labels: &BTreeMap<String, String>) {
        let record = self
            .store
            .data
            .nodes
            .entry(node)
            .or_insert_with(|| NodeRecord {
                resources,
                labels: labels.clone(),
                status: NodeStatus::Down,
                availability: Availability::Active,
                assignments: Revision(0),
            });
        let same = record.status == NodeStatus::Ready
            && record.resources == resources
            && record.labels == *labels;
        if same {
            return;
        }
        record.status = NodeStatus::Ready;
        record.resources = resources;
        record.labels.clone_from(labels);
        self.changes.push(record.change(node));
    }

    /// What the node's tasks do is unknown from now on. Those with a volume stay bound: whoever
    /// comes back with the volume may still be writing to it.
    fn node_down(&mut self, node: NodeId) {
        let Some(record) = self.store.data.nodes.get_mut(&node) else {
            return;
        };
        if record.status == NodeStatus::Down {
            return;
        }
        record.status = NodeStatus::Down;
        self.changes.push(record.change(node));
        let ids: Vec<TaskId> = self.store.tasks_on(node).map(|task| task.id).collect();
        for id in ids {
            if self.stays_bound(id) {
                self.count_loss(id);
            } else {
                self.lose(id, format!("{node} was declared down"));
            }
        }
    }

    fn stays_bound(&self, task: TaskId) -> bool {
        let Some(record) = self.store.task(task) else {
            return false;
        };
        let volume = self
            .store
            .spec_of(record)
            .is_some_and(|spec| spec.volume.is_some());
        volume && record.desired != DesiredState::Removed
    }

    /// One transition of one task. Only the next one in order counts; one that cannot follow is
    /// passed over, so that an agent that lost its memory does not block itself for ever.
    fn report(&mut self, node: NodeId, report: &TaskReport) {
        let Some(record) = self.store.data.tasks.get_mut(&report.task) else {
            return;
        };
        let next = record.status.sequence + 1;
        if record.node != Some(node) || !record.is_live() || report.status.sequence != next {
            return;
        }
        if !may_follow(&record.status, &report.status) {
            record.status.sequence = next;
            return;
        }
        let mut status = report.status.clone();
        status.ready &= status.state == TaskState::Running;
        if status.attempt == record.status.attempt && record.status.exit.is_some() {
            status.exit = record.status.exit;
        }
        self.set_status(report.task, status);
        self.count_failure(report.task);
    }

    /// A task of the newest generation that fails during its rollout counts against it, once.
    fn count_failure(&mut self, task: TaskId) {
        let Some(record) = self.store.data.tasks.get_mut(&task) else {
            return;
        };
        let failed = matches!(record.status.state, TaskState::Failed | TaskState::Rejected);
        if !failed || record.counted || record.desired != DesiredState::Running {
            return;
        }
        if let Some(service) = self.store.data.services.get_mut(&record.service)
            && service.is_rolling()
            && service.template_of(record.generation) == service.template()
        {
            record.counted = true;
            service.failures = service.failures.saturating_add(1);
        }
    }

    fn member(&mut self, member: u64, node: NodeId, incarnation: Incarnation) {
        let data = &mut self.store.data;
        let answered = data
            .joined
            .get(&node)
            .is_some_and(|done| done.incarnation >= incarnation);
        if answered || member <= data.member_last {
            return;
        }
        data.members.retain(|_, other| *other != node);
        data.members.insert(member, node);
        data.member_last = member;
        data.joined.insert(
            node,
            MemberRecord {
                incarnation,
                member,
            },
        );
    }

    fn lease_expire(&mut self, lease: &LeaseName, token: FencingToken) {
        let Some(record) = self.store.data.leases.get_mut(lease) else {
            return;
        };
        if record.token == token && record.holder.take().is_some() {
            self.changes.push(record.change(lease));
        }
    }

    fn plan(&mut self, plan: &Plan) {
        let name = &plan.service;
        let Some(service) = self.store.data.services.get_mut(name) else {
            return;
        };
        if service.round != plan.round {
            return;
        }
        service.round = self.revision;
        let careful = service.losses == plan.retire.losses;
        plan.overdue
            .iter()
            .for_each(|task| self.overdue(name, *task));
        for (task, desired, reason) in &plan.desire {
            self.desire_of(name, *task, *desired, *reason);
        }
        for (task, reason) in &plan.discard {
            if !self
                .store
                .task(*task)
                .is_some_and(|record| self.store.is_up(record))
            {
                self.desire_of(name, *task, DesiredState::Shutdown, *reason);
            }
        }
        for (task, reason) in plan.retire.tasks.iter().filter(|_| careful) {
            self.desire_of(name, *task, DesiredState::Shutdown, *reason);
        }
        plan.forget.iter().for_each(|task| self.forget(name, *task));
        plan.create.iter().for_each(|new| self.create(name, *new));
        if let Some(step) = plan.rollout {
            self.rollout(name, step);
        }
        self.collect_generations(name);
    }

    /// A task that takes too long fails its rollout each time it is said; its end does not
    /// count on top of that.
    fn overdue(&mut self, name: &ServiceName, task: TaskId) {
        let Some(record) = self.store.data.tasks.get_mut(&task) else {
            return;
        };
        if record.service != *name || !record.is_live() {
            return;
        }
        record.counted = true;
        if let Some(service) = self.store.data.services.get_mut(name) {
            service.failures = service.failures.saturating_add(1);
        }
    }

    fn desire_of(&mut self, name: &ServiceName, task: TaskId, desired: DesiredState, why: Reason) {
        if self
            .store
            .task(task)
            .is_some_and(|record| record.service == *name)
        {
            self.desire(task, desired, why);
        }
    }

    fn forget(&mut self, service: &ServiceName, task: TaskId) {
        let Some(record) = self.store.task(task) else {
            return;
        };
        if record.service == *service && !record.is_live() {
            self.remove_task(task);
        }
    }

    fn create(&mut self, name: &ServiceName, new: NewTask) {
        let Some(service) = self.store.data.services.get(name) else {
            return;
        };
        let runs = !service.stopped && !service.deleting;
        if !runs || !service.generations.contains_key(&new.generation) {
            return;
        }
        self.store.data.task_last += 1;
        let task = TaskRecord {
            id: TaskId(self.store.data.task_last),
            service: name.clone(),
            slot: new.slot,
            generation: new.generation,
            node: None,
            desired: DesiredState::Running,
            reason: None,
            counted: false,
            status: TaskStatus::pending(),
        };
        self.changes.push(task.change(None));
        self.store.index.add(&task);
        self.store.data.tasks.insert(task.id, task);
    }

    fn rollout(&mut self, name: &ServiceName, step: RolloutStep) {
        let Some(service) = self.store.data.services.get_mut(name) else {
            return;
        };
        match (step, service.rollout) {
            (RolloutStep::Complete, RolloutState::Updating) => {
                complete(service);
                service.rollout = RolloutState::Completed;
            }
            (RolloutStep::Complete, RolloutState::RollingBack) => {
                complete(service);
                service.rollout = RolloutState::RolledBack;
            }
            (RolloutStep::Pause, RolloutState::Updating) => service.rollout = RolloutState::Paused,
            (RolloutStep::Rollback, RolloutState::Updating) => {
                if !operations::roll_back(service) {
                    return;
                }
            }
            _ => return,
        }
        self.changes.push(service.change());
    }

    fn assign(&mut self, round: Revision, placements: &[(TaskId, NodeId)]) {
        if round != self.store.data.placement_round {
            return;
        }
        self.store.data.placement_round = self.revision;
        for (task, node) in placements {
            if scheduler::may_place(self.store, *task, *node) {
                self.bind(*task, *node);
            }
        }
    }

    fn bind(&mut self, task: TaskId, node: NodeId) {
        let store = &mut *self.store;
        let Some(record) = store.data.tasks.get_mut(&task) else {
            return;
        };
        let Some(service) = store.data.services.get_mut(&record.service) else {
            return;
        };
        let Some(generation) = service.generations.get(&record.generation) else {
            return;
        };
        if generation.spec.volume.is_some() {
            service.home.get_or_insert(node);
        }
        record.node = Some(node);
        record.status.state = TaskState::Assigned;
        record.status.reason = None;
        record.status.message.clear();
        store.index.bind(record, &generation.spec);
        self.changes.push(record.change(Some(TaskState::Pending)));
        self.touch(node);
    }

    fn explain(&mut self, task: TaskId, message: &str) {
        let Some(record) = self.store.data.tasks.get_mut(&task) else {
            return;
        };
        if record.status.state != TaskState::Pending || record.status.message == message {
            return;
        }
        record.status.reason = Some(Reason::Unschedulable);
        message.clone_into(&mut record.status.message);
        self.changes.push(record.change(Some(TaskState::Pending)));
    }
}

/// The current generation works: it is what a rollback goes back to from now on.
fn complete(service: &mut ServiceRecord) {
    let template = service.template();
    let generations = &service.generations;
    service.completed.retain(|done| {
        generations
            .get(done)
            .is_some_and(|record| record.template != template)
    });
    service.completed.push(service.generation);
    let excess = service.completed.len().saturating_sub(2);
    service.completed.drain(..excess);
    service.failures = 0;
}

/// May an agent say that this follows? Some states are for managers to give.
fn may_follow(before: &TaskStatus, after: &TaskStatus) -> bool {
    let managers = matches!(
        after.state,
        TaskState::Pending | TaskState::Assigned | TaskState::Lost
    );
    !managers
        && before
            .state
            .may_report(before.attempt, after.state, after.attempt)
}
