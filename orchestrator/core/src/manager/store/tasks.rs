//! The primitives that change a task after it was written down: what is wanted of it, its status,
//! its end. They keep index, assignments' revision and changes in step, and they carry out what
//! follows from an end: a task that should be gone goes, and a service with its last task.

use std::collections::BTreeSet;

use wavetank_model::{
    Change, DesiredState, NodeId, NodeStatus, Reason, ServiceName, TaskId, TaskState, TaskStatus,
};

use super::apply::Apply;
use super::records::TaskRecord;

impl Apply<'_> {
    /// Wants more of a task than before; never less. A task that no agent knows of ends at once,
    /// and so does one whose node is down if it is to be removed.
    pub(super) fn desire(&mut self, task: TaskId, desired: DesiredState, reason: Reason) {
        let Some(record) = self.store.data.tasks.get_mut(&task) else {
            return;
        };
        if desired <= record.desired {
            return;
        }
        record.desired = desired;
        record.reason = Some(reason);
        let (node, live, state) = (record.node, record.is_live(), record.status.state);
        if !live {
            self.settle(task);
            return;
        }
        self.changes.push(record.change(Some(state)));
        match node {
            None => self.shut_down_unbound(task, reason),
            Some(node) => {
                self.touch(node);
                self.settle_on_down_node(task, node);
            }
        }
    }

    /// What the task does is unknown for good.
    pub(super) fn lose(&mut self, task: TaskId, message: String) {
        let Some(record) = self.store.task(task) else {
            return;
        };
        let status = TaskStatus {
            state: TaskState::Lost,
            ready: false,
            reason: Some(Reason::NodeDown),
            message,
            ..record.status.clone()
        };
        self.set_status(task, status);
    }

    /// An available task stops being available without a plan that said so.
    pub(super) fn count_loss(&mut self, task: TaskId) {
        let Some(record) = self.store.data.tasks.get(&task) else {
            return;
        };
        if record.is_ready()
            && record.desired == DesiredState::Running
            && let Some(service) = self.store.data.services.get_mut(&record.service)
        {
            service.losses += 1;
        }
    }

    fn shut_down_unbound(&mut self, task: TaskId, reason: Reason) {
        let Some(record) = self.store.task(task) else {
            return;
        };
        let status = TaskStatus {
            state: TaskState::Shutdown,
            reason: Some(reason),
            message: "it had no node yet".to_owned(),
            ..record.status.clone()
        };
        self.set_status(task, status);
    }

    fn settle_on_down_node(&mut self, task: TaskId, node: NodeId) {
        let down = self
            .store
            .node(node)
            .is_some_and(|record| record.status == NodeStatus::Down);
        let removed = self
            .store
            .task(task)
            .is_some_and(|record| record.desired == DesiredState::Removed);
        if down && removed {
            self.lose(task, format!("{node} is down"));
        }
    }

    /// Writes a task's status, and whatever follows from its end.
    pub(super) fn set_status(&mut self, task: TaskId, status: TaskStatus) {
        if !(status.state == TaskState::Running && status.ready) {
            self.count_loss(task);
        }
        let store = &mut *self.store;
        let Some(record) = store.data.tasks.get_mut(&task) else {
            return;
        };
        let from = std::mem::replace(&mut record.status, status).state;
        self.changes.push(record.change(Some(from)));
        if record.is_live() {
            return;
        }
        let (record, node) = (record.clone(), record.node);
        if let Some(spec) = self.store.spec_of(&record).cloned() {
            self.store.index.release(&record, &spec);
        }
        if let Some(node) = node {
            self.touch(node);
        }
        self.settle(task);
    }

    /// An ended task that should be gone is gone; a service that should be gone goes with its
    /// last task.
    fn settle(&mut self, task: TaskId) {
        let gone =
            |record: &TaskRecord| !record.is_live() && record.desired == DesiredState::Removed;
        if self.store.task(task).is_some_and(gone) {
            self.remove_task(task);
        }
    }

    pub(super) fn remove_task(&mut self, task: TaskId) {
        let Some(record) = self.store.data.tasks.remove(&task) else {
            return;
        };
        self.store.index.remove(&record);
        self.changes.push(Change::TaskRemoved {
            task,
            service: record.service.clone(),
        });
        self.settle_service(&record.service);
    }

    /// Removes a service that is being deleted once it has no tasks.
    pub(super) fn settle_service(&mut self, name: &ServiceName) {
        let deleting = self
            .store
            .service(name)
            .is_some_and(|service| service.deleting);
        if deleting && self.store.tasks_count(name) == 0 {
            self.store.data.services.remove(name);
            self.changes.push(Change::ServiceRemoved {
                service: name.clone(),
            });
        }
    }

    /// A node's assignments changed.
    pub(super) fn touch(&mut self, node: NodeId) {
        if let Some(record) = self.store.data.nodes.get_mut(&node) {
            record.assignments = self.revision;
        }
    }

    /// Forgets specs that no task has and that nobody can go back to.
    pub(super) fn collect_generations(&mut self, name: &ServiceName) {
        let Some(service) = self.store.service(name) else {
            return;
        };
        let few = 1 + service.completed.len();
        if service.generations.len() <= few {
            return;
        }
        let mut keep: BTreeSet<_> = self
            .store
            .tasks_of(name)
            .map(|task| task.generation)
            .collect();
        keep.extend(service.completed.iter().copied());
        keep.insert(service.generation);
        if let Some(service) = self.store.data.services.get_mut(name) {
            service
                .generations
                .retain(|generation, _| keep.contains(generation));
        }
    }
}
