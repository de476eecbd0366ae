//! The replicated store as the managers' applied entries tell it. Every manager says what it
//! applied; the first to say so for a position counts, whether the others agree is for I2.

use std::collections::{BTreeMap, BTreeSet};

use wavetank_model::{
    Availability, Change, DesiredState, FencingToken, Generation, LeaseName, NodeId, NodeStatus,
    Notice, Revision, RolloutState, ServiceName, ServiceSpec, TaskId, TaskStatus,
};
use wavetank_trace::{Event, EventId, Payload, VirtualTime};

/// A node in the store.
#[derive(Clone, Debug)]
pub struct NodeRecord {
    /// What was observed.
    pub status: NodeStatus,
    /// What the operator wants.
    pub availability: Availability,
    /// When either changed last.
    pub changed_at: VirtualTime,
}

/// A service in the store.
#[derive(Clone, Debug)]
pub struct ServiceRecord {
    /// The newest spec.
    pub spec: ServiceSpec,
    /// Specs by generation, for tasks of older ones.
    pub specs: BTreeMap<Generation, ServiceSpec>,
    /// The newest generation.
    pub generation: Generation,
    /// Where its rollout is.
    pub rollout: RolloutState,
    /// Stopped by an operator.
    pub stopped: bool,
    /// Being deleted.
    pub deleting: bool,
    /// When it was created.
    pub created_at: VirtualTime,
    /// When any of this changed last.
    pub changed_at: VirtualTime,
    /// The event that changed it last.
    pub event: EventId,
}

/// A task in the store.
#[derive(Clone, Debug)]
pub struct TaskRecord {
    /// Its service.
    pub service: ServiceName,
    /// Which place it fills.
    pub slot: u32,
    /// The spec's version.
    pub generation: Generation,
    /// Its node, once bound.
    pub node: Option<NodeId>,
    /// What managers want.
    pub desired: DesiredState,
    /// Observed status.
    pub status: TaskStatus,
    /// When it was created.
    pub created_at: VirtualTime,
    /// When its state (or attempt) changed last.
    pub state_since: VirtualTime,
    /// When it was wanted otherwise last, and in which revision.
    pub desired_since: (VirtualTime, Revision),
    /// When it was seen ready last, if ever; now, if it is.
    pub ready_until: Option<VirtualTime>,
    /// The event that changed it last.
    pub event: EventId,
}

impl TaskRecord {
    /// Not finished, and not to be stopped.
    pub fn is_wanted(&self) -> bool {
        self.desired == DesiredState::Running && !self.status.state.is_terminal()
    }

    /// Running and ready.
    pub fn is_ready(&self) -> bool {
        self.status.state == wavetank_model::TaskState::Running && self.status.ready
    }
}

/// One change of one task in the newest entry.
#[derive(Clone, Debug)]
pub struct TaskStep {
    /// Which task.
    pub task: TaskId,
    /// What the change says it was before.
    pub from: Option<wavetank_model::TaskState>,
    /// The record before; `None` if it was not there.
    pub before: Option<TaskRecord>,
    /// The record after.
    pub after: TaskRecord,
}

/// The store after the newest applied entry.
#[derive(Debug, Default)]
pub struct StoreView {
    /// Position of the newest entry that any manager applied.
    pub revision: Revision,
    /// Services by name.
    pub services: BTreeMap<ServiceName, ServiceRecord>,
    /// Tasks by id.
    pub tasks: BTreeMap<TaskId, TaskRecord>,
    /// Nodes that ever registered.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// Leases with holder and newest token.
    pub leases: BTreeMap<LeaseName, (Option<String>, FencingToken)>,
    by_service: BTreeMap<ServiceName, BTreeSet<TaskId>>,
    fresh: Option<EventId>,
    steps: Vec<TaskStep>,
}

impl StoreView {
    /// Takes in an event.
    pub fn observe(&mut self, event: &Event) {
        self.fresh = None;
        self.steps.clear();
        let Payload::Notice {
            notice: Notice::Applied {
                revision, changes, ..
            },
        } = &event.payload
        else {
            return;
        };
        if *revision <= self.revision {
            return;
        }
        self.revision = *revision;
        self.fresh = Some(event.id);
        for change in changes {
            self.apply(event, change);
        }
    }

    /// The changes of an event that applied an entry for the first time; none for others.
    pub fn fresh_changes<'e>(&self, event: &'e Event) -> &'e [Change] {
        match &event.payload {
            Payload::Notice {
                notice: Notice::Applied { changes, .. },
            } if self.fresh == Some(event.id) => changes,
            _ => &[],
        }
    }

    /// The task changes of the event that was observed last, if it applied a new entry.
    pub fn steps(&self) -> &[TaskStep] {
        &self.steps
    }

    /// The tasks of a service, in id order.
    pub fn tasks_of(&self, service: &ServiceName) -> impl Iterator<Item = (TaskId, &TaskRecord)> {
        let ids = self.by_service.get(service).into_iter().flatten();
        ids.filter_map(|id| self.tasks.get(id).map(|task| (*id, task)))
    }

    /// The tasks that count on a node: bound to it and not finished.
    pub fn live_tasks_on(&self, node: NodeId) -> impl Iterator<Item = (TaskId, &TaskRecord)> {
        let tasks = self.tasks.iter().map(|(id, task)| (*id, task));
        tasks.filter(move |(_, task)| task.node == Some(node) && !task.status.state.is_terminal())
    }

    /// The spec that a task runs.
    pub fn spec_of(&self, task: &TaskRecord) -> Option<&ServiceSpec> {
        let service = self.services.get(&task.service)?;
        service.specs.get(&task.generation).or(Some(&service.spec))
    }

    fn apply(&mut self, event: &Event, change: &Change) {
        match change {
            Change::Node {
                node,
                status,
                availability,
            } => {
                let record = NodeRecord {
                    status: *status,
                    availability: *availability,
                    changed_at: event.at,
                };
                self.nodes.insert(*node, record);
            }
            Change::Service {
                spec,
                generation,
                rollout,
                stopped,
                deleting,
            } => {
                let service =
                    self.services
                        .entry(spec.name.clone())
                        .or_insert_with(|| ServiceRecord {
                            spec: spec.clone(),
                            specs: BTreeMap::new(),
                            generation: *generation,
                            rollout: *rollout,
                            stopped: *stopped,
                            deleting: *deleting,
                            created_at: event.at,
                            changed_at: event.at,
                            event: event.id,
                        });
                service.specs.insert(*generation, spec.clone());
                service.spec.clone_from(spec);
                service.generation = *generation;
                service.rollout = *rollout;
                service.stopped = *stopped;
                service.deleting = *deleting;
                service.changed_at = event.at;
                service.event = event.id;
            }
            Change::ServiceRemoved { service } => {
                self.services.remove(service);
            }
            Change::Task { .. } => self.apply_task(event, change),
            Change::TaskRemoved { task, service } => {
                self.tasks.remove(task);
                if let Some(ids) = self.by_service.get_mut(service) {
                    ids.remove(task);
                    if ids.is_empty() {
                        self.by_service.remove(service);
                    }
                }
            }
            Change::Entry { .. } => {}
            Change::Lease {
                lease,
                holder,
                token,
            } => {
                self.leases.insert(lease.clone(), (holder.clone(), *token));
            }
        }
    }

    fn apply_task(&mut self, event: &Event, change: &Change) {
        let Change::Task {
            task,
            service,
            slot,
            generation,
            node,
            desired,
            from,
            status,
        } = change
        else {
            return;
        };
        let before = self.tasks.get(task).cloned();
        let mut after = TaskRecord {
            service: service.clone(),
            slot: *slot,
            generation: *generation,
            node: *node,
            desired: *desired,
            status: status.clone(),
            created_at: event.at,
            state_since: event.at,
            desired_since: (event.at, self.revision),
            ready_until: None,
            event: event.id,
        };
        if let Some(before) = &before {
            after.created_at = before.created_at;
            after.ready_until = before.ready_until;
            let same = (before.status.state, before.status.attempt);
            if same == (status.state, status.attempt) {
                after.state_since = before.state_since;
            }
            if before.desired == *desired {
                after.desired_since = before.desired_since;
            }
        }
        // Ready until now, whether it still is or just stopped being so.
        if after.is_ready() || before.as_ref().is_some_and(TaskRecord::is_ready) {
            after.ready_until = Some(event.at);
        }
        self.by_service
            .entry(service.clone())
            .or_default()
            .insert(*task);
        self.tasks.insert(*task, after.clone());
        self.steps.push(TaskStep {
            task: *task,
            from: *from,
            before,
            after,
        });
    }
}
