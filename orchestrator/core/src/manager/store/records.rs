//! What the store keeps about each thing. Plain data with a few questions that are answered from
//! the record alone; all changes are made by the sibling modules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wavetank_model::{
    Availability, Change, DesiredState, FencingToken, Generation, Incarnation, LeaseName, NodeId,
    NodeRole, NodeStatus, OperationError, Outcome, Reason, Resources, Revision, RolloutState,
    ServiceMode, ServiceName, ServiceSpec, TaskId, TaskState, TaskStatus,
};
use wavetank_port::WallTime;

/// A node that registered at least once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What it has to offer. Written by the leader, from the node's registration.
    pub resources: Resources,
    /// What it is like. Written by the leader, from the node's registration.
    pub labels: BTreeMap<String, String>,
    /// Whether it is heard of. Written by the leader.
    pub status: NodeStatus,
    /// What may run there. Written by operators only: a node that registers again stays drained.
    pub availability: Availability,
    /// When its assignments changed last.
    pub assignments: Revision,
}

impl NodeRecord {
    /// May the node be given tasks?
    pub fn takes_tasks(&self) -> bool {
        self.status == NodeStatus::Ready && self.availability == Availability::Active
    }

    /// Does the node have all these labels?
    pub fn has_labels(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted
            .iter()
            .all(|(key, value)| self.labels.get(key) == Some(value))
    }

    pub(super) fn change(&self, node: NodeId) -> Change {
        Change::Node {
            node,
            status: self.status,
            availability: self.availability,
        }
    }
}

/// One version of a service's spec, kept while it is current, may be gone back to, or has tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GenerationRecord {
    /// The spec as its tasks get it. Later changes of the number of tasks do not show here.
    pub spec: Arc<ServiceSpec>,
    /// Generations that would run tasks in the same way share this: going back to a generation
    /// leaves its tasks alone.
    pub template: Generation,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What was asked for, with the newest number of tasks. Written by operators only.
    pub spec: ServiceSpec,
    /// The newest generation.
    pub generation: Generation,
    /// Specs by generation.
    pub generations: BTreeMap<Generation, GenerationRecord>,
    /// The last generations that completed, at most two of different templates, oldest first.
    pub completed: Vec<Generation>,
    /// Where the rollout of the newest generation is.
    pub rollout: RolloutState,
    /// Tasks of the newest generation that failed during its rollout.
    pub failures: u32,
    /// Stopped by an operator; nothing but an operator starts it again.
    pub stopped: bool,
    /// Being deleted: goes away with its last task.
    pub deleting: bool,
    /// The node that has the volume, from the first assignment on.
    pub home: Option<NodeId>,
    /// Where in the log the last plan or operator's change is; a plan made from an older state is
    /// void.
    pub round: Revision,
    /// Grows whenever an available task stops being available without a plan that said so.
    pub losses: u64,
}

impl ServiceRecord {
    /// What the newest generation runs.
    pub fn template(&self) -> Generation {
        self.template_of(self.generation)
    }

    /// What a generation runs.
    pub fn template_of(&self, generation: Generation) -> Generation {
        self.generations
            .get(&generation)
            .map_or(generation, |record| record.template)
    }

    /// Is the newest generation on its way in?
    pub fn is_rolling(&self) -> bool {
        matches!(
            self.rollout,
            RolloutState::Updating | RolloutState::RollingBack
        )
    }

    /// The newest completed generation that runs something else than the current one.
    pub fn rollback_target(&self) -> Option<Generation> {
        let current = self.template();
        self.completed
            .iter()
            .rev()
            .copied()
            .find(|done| self.template_of(*done) != current)
    }

    /// Does the service run tasks to completion?
    pub fn is_job(&self) -> bool {
        matches!(self.spec.mode, ServiceMode::Job { .. })
    }

    pub(super) fn change(&self) -> Change {
        Change::Service {
            spec: self.spec.clone(),
            generation: self.generation,
            rollout: self.rollout,
            stopped: self.stopped,
            deleting: self.deleting,
        }
    }
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// Its id; never used before.
    pub id: TaskId,
    /// Its service.
    pub service: ServiceName,
    /// Which place of the service it fills, from 1; in a global service its node's number.
    pub slot: u32,
    /// The spec it runs.
    pub generation: Generation,
    /// Its node. Written once, by the scheduler.
    pub node: Option<NodeId>,
    /// What managers want. Only grows.
    pub desired: DesiredState,
    /// Why it should stop, when it should.
    pub reason: Option<Reason>,
    /// Counted as a failure of its generation's rollout.
    pub counted: bool,
    /// What is. Written by managers until it is assigned and if its node is lost, else by its
    /// agent.
    pub status: TaskStatus,
}

impl TaskRecord {
    /// Has it not ended?
    pub fn is_live(&self) -> bool {
        !self.status.state.is_terminal()
    }

    /// Is it live and wanted to run?
    pub fn is_wanted(&self) -> bool {
        self.is_live() && self.desired == DesiredState::Running
    }

    /// Does it run and work, as far as its agent said?
    pub fn is_ready(&self) -> bool {
        self.status.state == TaskState::Running && self.status.ready
    }

    pub(super) fn change(&self, from: Option<TaskState>) -> Change {
        Change::Task {
            task: self.id,
            service: self.service.clone(),
            slot: self.slot,
            generation: self.generation,
            node: self.node,
            desired: self.desired,
            from,
            status: self.status.clone(),
        }
    }
}

/// A lease that was granted at least once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Who has it; nobody after it was given back or ran out.
    pub holder: Option<String>,
    /// The token of the newest grant.
    pub token: FencingToken,
    /// How long a grant lasts without renewal.
    pub ttl: Duration,
}

impl LeaseRecord {
    pub(super) fn change(&self, lease: &LeaseName) -> Change {
        Change::Lease {
            lease: lease.clone(),
            holder: self.holder.clone(),
            token: self.token,
        }
    }
}

/// A manager's newest attempt to join.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRecord {
    /// Which attempt.
    pub incarnation: Incarnation,
    /// The id it got.
    pub member: u64,
}

/// A join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TokenRecord {
    /// What its bearer becomes.
    pub role: NodeRole,
    /// It is refused from then on.
    pub expires: WallTime,
    /// Who used it up.
    pub redeemed_by: Option<NodeId>,
}

/// The answers that one boot of a client got, so that a repeated request takes effect once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ClientRecord {
    pub incarnation: Incarnation,
    /// Requests up to this one have been answered so long ago that their answers are gone.
    pub forgotten: u64,
    pub answers: BTreeMap<u64, Result<Outcome, OperationError>>,
}
