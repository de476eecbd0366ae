//! What is derived from the store's data and never written to a snapshot: who has what, found
//! without looking at everything.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{NodeId, Resources, ServiceName, ServiceSpec, TaskId};

use super::Data;
use super::records::TaskRecord;

/// What is bound to one node and has not ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OnNode {
    pub tasks: BTreeSet<TaskId>,
    pub ports: BTreeMap<u16, TaskId>,
    cpu_millis: u64,
    /// Wider than any sum of what tasks may ask for, so that taking away undoes adding.
    memory_bytes: u128,
}

impl OnNode {
    pub fn used(&self) -> Resources {
        Resources {
            cpu_millis: u32::try_from(self.cpu_millis).unwrap_or(u32::MAX),
            memory_bytes: u64::try_from(self.memory_bytes).unwrap_or(u64::MAX),
        }
    }
}

/// The derived view.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Index {
    pub by_service: BTreeMap<ServiceName, BTreeSet<TaskId>>,
    pub by_node: BTreeMap<NodeId, OnNode>,
    pub pending: BTreeSet<TaskId>,
}

impl Index {
    /// The view of a whole store.
    pub fn of(data: &Data) -> Self {
        let mut index = Index::default();
        for task in data.tasks.values() {
            index.add(task);
            let spec = data
                .services
                .get(&task.service)
                .and_then(|service| service.generations.get(&task.generation));
            if let Some(generation) = spec {
                index.bind(task, &generation.spec);
            }
        }
        index
    }

    /// A task was written down.
    pub fn add(&mut self, task: &TaskRecord) {
        self.by_service
            .entry(task.service.clone())
            .or_default()
            .insert(task.id);
        if task.node.is_none() && task.is_live() {
            self.pending.insert(task.id);
        }
    }

    /// A task got its node.
    pub fn bind(&mut self, task: &TaskRecord, spec: &ServiceSpec) {
        let Some(node) = task.node.filter(|_| task.is_live()) else {
            return;
        };
        self.pending.remove(&task.id);
        let on_node = self.by_node.entry(node).or_default();
        on_node.tasks.insert(task.id);
        on_node
            .ports
            .extend(spec.ports.iter().map(|port| (*port, task.id)));
        on_node.cpu_millis += u64::from(spec.resources.cpu_millis);
        on_node.memory_bytes += u128::from(spec.resources.memory_bytes);
    }

    /// A task ended: it takes nothing of its node any more.
    pub fn release(&mut self, task: &TaskRecord, spec: &ServiceSpec) {
        self.pending.remove(&task.id);
        let Some(on_node) = task.node.and_then(|node| self.by_node.get_mut(&node)) else {
            return;
        };
        if !on_node.tasks.remove(&task.id) {
            return;
        }
        on_node.ports.retain(|_, owner| *owner != task.id);
        on_node.cpu_millis -= u64::from(spec.resources.cpu_millis);
        on_node.memory_bytes -= u128::from(spec.resources.memory_bytes);
        if on_node.tasks.is_empty()
            && let Some(node) = task.node
        {
            self.by_node.remove(&node);
        }
    }

    /// A task's record is gone.
    pub fn remove(&mut self, task: &TaskRecord) {
        if let Some(tasks) = self.by_service.get_mut(&task.service) {
            tasks.remove(&task.id);
            if tasks.is_empty() {
                self.by_service.remove(&task.service);
            }
        }
    }
}
