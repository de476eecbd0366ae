//! What managers agree on: every change to the store is one of these commands, in log order.
//!
//! A command may be applied long after it was proposed, twice, or not at all. Each one is
//! therefore checked again when it is applied (see `store/apply.rs`); a stale one does nothing.
//! This file owns the commands and their encoding; it decides nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wavetank_model::{
    DesiredState, FencingToken, Generation, Incarnation, LeaseName, NodeId, Operation, Reason,
    RequestId, Resources, Revision, ServiceName, TaskId,
};

use crate::message::TaskReport;

/// One entry of the replicated log, as far as the store is concerned.
#[expect(
    clippy::large_enum_variant,
    reason = "a command lives for one proposal or one application; a box would only add to that"
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A client's request that changes something.
    Client {
        /// Whose request; takes effect once.
        id: RequestId,
        /// What is asked.
        operation: Operation,
    },
    /// The leader registered a node, or something about it changed.
    NodeUp {
        /// Which node.
        node: NodeId,
        /// What it has to offer.
        resources: Resources,
        /// What it is like.
        labels: BTreeMap<String, String>,
    },
    /// The leader has not heard of a node for too long.
    NodeDown {
        /// Which node.
        node: NodeId,
    },
    /// An agent's tasks moved.
    Report {
        /// Whose tasks; reports about tasks of other nodes are ignored.
        node: NodeId,
        /// Oldest first per task.
        reports: Vec<TaskReport>,
    },
    /// A manager got an id in the consensus group.
    Member {
        /// The id; never used before.
        member: u64,
        /// Who has it; an older id of the same node is gone.
        node: NodeId,
        /// Which attempt to join this answers; an older one does nothing.
        incarnation: Incarnation,
    },
    /// A lease was not renewed in time.
    LeaseExpire {
        /// Which lease.
        lease: LeaseName,
        /// Which grant; a newer one stays.
        token: FencingToken,
    },
    /// The planner's decisions about one service.
    Plan(Plan),
    /// The scheduler's decisions: pending tasks get their nodes.
    Assign {
        /// The pass before, as the store had it; void unless that was the last one.
        round: Revision,
        /// Each is checked on its own.
        placements: Vec<(TaskId, NodeId)>,
    },
    /// The scheduler's reasons why pending tasks have no node yet.
    Explain {
        /// Tasks with the same reason.
        tasks: Vec<TaskId>,
        /// For a person.
        message: String,
    },
}

/// Decisions about one service, made together from one state and applied together or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which service.
    pub service: ServiceName,
    /// The service's last plan or operator's change, as the store had it; void unless that is
    /// still the last one.
    pub round: Revision,
    /// New tasks.
    pub create: Vec<NewTask>,
    /// What is wanted of existing tasks from now on.
    pub desire: Vec<(TaskId, DesiredState, Reason)>,
    /// Stops of tasks that do not work. One that works by then is left alone.
    pub discard: Vec<(TaskId, Reason)>,
    /// Stops that are allowed only because enough other tasks are available.
    pub retire: Retire,
    /// Records of finished tasks that nobody needs any more.
    pub forget: Vec<TaskId>,
    /// Tasks of the newest generation that failed to become available in time.
    pub overdue: Vec<TaskId>,
    /// Where the rollout goes.
    pub rollout: Option<RolloutStep>,
}

impl Plan {
    /// A plan without decisions, made from this state of the service.
    pub fn new(service: ServiceName, round: Revision, losses: u64) -> Self {
        Plan {
            service,
            round,
            create: Vec::new(),
            desire: Vec::new(),
            discard: Vec::new(),
            retire: Retire {
                losses,
                tasks: Vec::new(),
            },
            forget: Vec::new(),
            overdue: Vec::new(),
            rollout: None,
        }
    }

    /// True if nothing was decided.
    pub fn is_empty(&self) -> bool {
        self.create.is_empty()
            && self.desire.is_empty()
            && self.discard.is_empty()
            && self.retire.tasks.is_empty()
            && self.forget.is_empty()
            && self.overdue.is_empty()
            && self.rollout.is_none()
    }
}

/// One task to be written down as pending; its id is given when that is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTask {
    /// Which place of its service it fills.
    pub slot: u32,
    /// Which spec it runs.
    pub generation: Generation,
}

/// Stops of tasks that work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retire {
    /// How often the service had lost an available task when this was decided. If it has lost
    /// another one since, these stops would be one too many and are left out.
    pub losses: u64,
    /// What to stop, and why.
    pub tasks: Vec<(TaskId, Reason)>,
}

/// A step of a rollout. Applied to the generation that is current in the plan's round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RolloutStep {
    /// Everything wanted is of the newest generation and available.
    Complete,
    /// Too many failures: stop where it is.
    Pause,
    /// Too many failures: back to the last completed generation.
    Rollback,
}

/// A log entry that is no command of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a command of this version: {0}")]
pub struct CommandError(String);

impl Command {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Vec<u8> {
        // Every type in here serializes without failing; a vector grows as needed.
        postcard::to_stdvec(self).expect("commands always serialize")
    }

    /// The command that was encoded.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommandError> {
        postcard::from_bytes(bytes).map_err(|error| CommandError(error.to_string()))
    }
}
