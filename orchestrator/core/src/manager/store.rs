//! The replicated store: what all managers hold in common, changed by [`Command`]s in log order
//! and by nothing else.
//!
//! Desired and observed state have separate writers: operators write specs, availability and
//! stops; the planner writes slots, nodes and what is desired of tasks (which only grows); an
//! agent writes the status of its own tasks, in the order of its transitions. No command carries
//! a field of another writer, so none can undo what another wrote.
//!
//! Applying must give the same result on every manager: no clock, no randomness, no hidden order.
//!
//! Map: `records` (what is kept), `index` (what is derived), `apply` (commands of managers and
//! agents), `tasks` (what they do to tasks), `operations` (requests of clients), `views` (what
//! clients are shown), `tokens` (who is let in), `validate` (what a client may not ask).

mod apply;
mod index;
mod operations;
mod records;
mod tasks;
mod tokens;
mod validate;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wavetank_model::{
    Change, DesiredState, Incarnation, LeaseName, NodeId, NodeRole, NodeStatus, Operation,
    OperationError, Outcome, Resources, Revision, ServiceName, ServiceSpec, TaskId,
};

use super::command::Command;
use crate::message::Assignment;
use index::Index;
use records::{ClientRecord, TokenRecord};
pub use records::{
    GenerationRecord, LeaseRecord, MemberRecord, NodeRecord, ServiceRecord, TaskRecord,
};

/// Version of the encoded store; another one is refused.
const FORMAT: u8 = 2;

/// What one command did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// What changed, in order. Empty for a command that came too late.
    pub changes: Vec<Change>,
    /// The answer for the client, if the command was a client's. `None` also for a request so
    /// old that nobody can tell any more whether it took effect; it is not answered.
    pub result: Option<Result<Outcome, OperationError>>,
}

/// Bytes that are no store of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Written by another version.
    #[error("the store has format {found}, this version reads {FORMAT}")]
    Format {
        /// The format's number.
        found: u8,
    },
    /// Damaged.
    #[error("the store cannot be read: {0}")]
    Damaged(String),
}

/// Everything that is replicated. What is in here is in a snapshot, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Data {
    nodes: BTreeMap<NodeId, NodeRecord>,
    services: BTreeMap<ServiceName, ServiceRecord>,
    tasks: BTreeMap<TaskId, TaskRecord>,
    task_last: u64,
    placement_round: Revision,
    entries: BTreeMap<String, String>,
    leases: BTreeMap<LeaseName, LeaseRecord>,
    members: BTreeMap<u64, NodeId>,
    member_last: u64,
    joined: BTreeMap<NodeId, MemberRecord>,
    clients: BTreeMap<NodeId, ClientRecord>,
    tokens: BTreeMap<String, TokenRecord>,
    /// Highest number of each role that was given to, or taken from, a node.
    numbers: BTreeMap<NodeRole, u32>,
}

/// The replicated store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Store {
    data: Data,
    index: Index,
}

impl Store {
    /// An empty store.
    pub fn new() -> Self {
        Store::default()
    }

    /// The store that the first members of a new cluster start with.
    pub fn bootstrap(members: &BTreeMap<u64, NodeId>) -> Self {
        let mut store = Store::default();
        store.data.members = members.clone();
        store.data.member_last = members.keys().next_back().copied().unwrap_or(0);
        store
    }

    /// Applies the log entry at `revision`. Never fails: a command that no longer makes sense
    /// changes nothing.
    pub fn apply(&mut self, revision: Revision, command: &Command) -> Applied {
        apply::apply(self, revision, command)
    }

    /// Answers a request that changes nothing: a value, a view, and whether a lease may be
    /// renewed. The caller makes sure that the store is up to date.
    pub fn read(&self, operation: &Operation) -> Result<Outcome, OperationError> {
        operations::read(self, operation)
    }

    /// The store as bytes, complete: what is not in them does not exist.
    pub fn encode(&self) -> Vec<u8> {
        let bytes = vec![FORMAT];
        postcard::to_extend(&self.data, bytes).expect("a store always serializes")
    }

    /// The store that was encoded.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (found, body) = bytes
            .split_first()
            .ok_or_else(|| DecodeError::Damaged("it is empty".to_owned()))?;
        if *found != FORMAT {
            return Err(DecodeError::Format { found: *found });
        }
        let data: Data =
            postcard::from_bytes(body).map_err(|error| DecodeError::Damaged(error.to_string()))?;
        let index = Index::of(&data);
        Ok(Store { data, index })
    }

    /// Everything a node should be working on, in task id order: what is bound to it and has not
    /// ended. All tasks of one generation share one spec.
    pub fn assignments(&self, node: NodeId) -> Vec<Assignment> {
        self.tasks_on(node)
            .filter_map(|task| self.assignment(task))
            .collect()
    }

    fn assignment(&self, task: &TaskRecord) -> Option<Assignment> {
        Some(Assignment {
            task: task.id,
            slot: task.slot,
            generation: task.generation,
            desired: task.desired,
            reason: task.reason,
            spec: Arc::clone(self.spec_of(task)?),
            reported: (task.status.sequence > 0).then(|| task.status.clone()),
        })
    }

    /// The revision in which a node's assignments changed last; zero for an unknown node.
    pub fn assignments_revision(&self, node: NodeId) -> Revision {
        self.data
            .nodes
            .get(&node)
            .map_or(Revision(0), |record| record.assignments)
    }

    /// One node.
    pub fn node(&self, node: NodeId) -> Option<&NodeRecord> {
        self.data.nodes.get(&node)
    }

    /// All nodes that ever registered.
    pub fn nodes(&self) -> &BTreeMap<NodeId, NodeRecord> {
        &self.data.nodes
    }

    /// The managers by their ids in the consensus group.
    pub fn members(&self) -> &BTreeMap<u64, NodeId> {
        &self.data.members
    }

    /// A member id that was never used.
    pub fn next_member(&self) -> u64 {
        self.data.member_last + 1
    }

    /// The newest attempt of a node to join that was answered, and the member id it got.
    pub fn joined(&self, node: NodeId) -> Option<(Incarnation, u64)> {
        self.data
            .joined
            .get(&node)
            .map(|record| (record.incarnation, record.member))
    }

    /// The last transition of a task that counts. `None` for a task that is unknown or has
    /// ended: whatever its agent still says about it changes nothing and may be acknowledged.
    pub fn task_sequence(&self, task: TaskId) -> Option<u64> {
        let record = self.data.tasks.get(&task)?;
        (!record.status.state.is_terminal()).then_some(record.status.sequence)
    }

    /// All leases.
    pub fn leases(&self) -> &BTreeMap<LeaseName, LeaseRecord> {
        &self.data.leases
    }

    /// All services.
    pub fn services(&self) -> &BTreeMap<ServiceName, ServiceRecord> {
        &self.data.services
    }

    /// One service.
    pub fn service(&self, service: &ServiceName) -> Option<&ServiceRecord> {
        self.data.services.get(service)
    }

    /// One task.
    pub fn task(&self, task: TaskId) -> Option<&TaskRecord> {
        self.data.tasks.get(&task)
    }

    /// All tasks.
    pub fn tasks(&self) -> &BTreeMap<TaskId, TaskRecord> {
        &self.data.tasks
    }

    /// All task records of a service, ended ones too, in id order.
    pub fn tasks_of<'a>(
        &'a self,
        service: &ServiceName,
    ) -> impl Iterator<Item = &'a TaskRecord> + use<'a> {
        let ids = self.index.by_service.get(service).into_iter().flatten();
        ids.filter_map(|id| self.data.tasks.get(id))
    }

    /// How many task records a service has.
    pub fn tasks_count(&self, service: &ServiceName) -> usize {
        self.index.by_service.get(service).map_or(0, BTreeSet::len)
    }

    /// The tasks that are bound to a node and have not ended, in id order.
    pub fn tasks_on(&self, node: NodeId) -> impl Iterator<Item = &TaskRecord> {
        let ids = self.index.by_node.get(&node).map(|on_node| &on_node.tasks);
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.data.tasks.get(id))
    }

    /// How many tasks are bound to a node and have not ended.
    pub fn tasks_on_count(&self, node: NodeId) -> usize {
        self.index
            .by_node
            .get(&node)
            .map_or(0, |on_node| on_node.tasks.len())
    }

    /// Tasks without a node, in id order.
    pub fn pending(&self) -> &BTreeSet<TaskId> {
        &self.index.pending
    }

    /// What the tasks on a node take of it.
    pub fn used(&self, node: NodeId) -> Resources {
        self.index
            .by_node
            .get(&node)
            .map_or_else(Resources::default, |on_node| on_node.used())
    }

    /// Who has a host port of a node.
    pub fn port_taken(&self, node: NodeId, port: u16) -> Option<TaskId> {
        self.index
            .by_node
            .get(&node)
            .and_then(|on_node| on_node.ports.get(&port).copied())
    }

    /// The spec that a task runs.
    pub fn spec_of(&self, task: &TaskRecord) -> Option<&Arc<ServiceSpec>> {
        let service = self.data.services.get(&task.service)?;
        service
            .generations
            .get(&task.generation)
            .map(|generation| &generation.spec)
    }

    /// Is a task wanted and ready, on a node that is heard of?
    pub fn is_up(&self, task: &TaskRecord) -> bool {
        let node = task.node.and_then(|node| self.node(node));
        task.desired == DesiredState::Running
            && task.is_ready()
            && node.is_some_and(|record| record.status == NodeStatus::Ready)
    }

    /// Where in the log the scheduler's last pass is.
    pub fn placement_round(&self) -> Revision {
        self.data.placement_round
    }
}
