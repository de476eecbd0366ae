//! What travels between nodes. Types of our own, so that nothing from the network is ever parsed
//! by the Raft library's codec.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wavetank_model::{
    DesiredState, Epoch, Generation, Incarnation, NodeId, Operation, OperationError, Outcome,
    RequestId, Resources, Revision, ServiceSpec, SessionId, TaskId, TaskStatus,
};

use crate::record::{LogEntry, Snapshot};

/// One message between two nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// Manager to manager: consensus.
    Raft(Box<RaftMessage>),
    /// Manager without a log to a manager: let me in (again).
    Join {
        /// Distinguishes this attempt to join from older ones.
        incarnation: Incarnation,
    },
    /// The answer to `Join`, once the membership change is committed.
    Joined {
        /// Echo of the request.
        incarnation: Incarnation,
        /// The joiner's id in the consensus group; never used before.
        member: u64,
        /// Everyone's id in the consensus group.
        members: BTreeMap<u64, NodeId>,
    },
    /// Agent to manager: I am here.
    Register {
        /// Which boot of the agent.
        incarnation: Incarnation,
        /// What it has to offer.
        resources: Resources,
        /// What it is like.
        labels: BTreeMap<String, String>,
    },
    /// Leader to agent: you belong to me.
    Registered {
        /// Echo of the request.
        incarnation: Incarnation,
        /// To be named in every later message.
        session: SessionId,
        /// The leader's epoch.
        epoch: Epoch,
    },
    /// Manager to agent or client: not me.
    Redirect {
        /// Who leads, if known.
        leader: Option<NodeId>,
    },
    /// Agent to leader: still here.
    Heartbeat {
        /// Its session.
        session: SessionId,
        /// The agent's wall clock; for people.
        sent_at: u64,
        /// Assignments it works on: epoch and revision. The leader sends newer ones again if it
        /// has any.
        assignments: (Epoch, Revision),
    },
    /// Leader to agent: heard.
    HeartbeatAcknowledged {
        /// Echo.
        session: SessionId,
    },
    /// Manager to agent: I do not know this session; register.
    SessionUnknown {
        /// Echo.
        session: SessionId,
    },
    /// Leader to agent: everything the agent should have; what is not listed is to be removed.
    Assignments {
        /// The session they are for.
        session: SessionId,
        /// The issuer's epoch; older ones are refused.
        epoch: Epoch,
        /// The store's revision they are made from; within an epoch older ones are refused.
        revision: Revision,
        /// In task id order.
        tasks: Vec<Assignment>,
    },
    /// Agent to leader: transitions that have not been acknowledged yet.
    Report {
        /// Its session.
        session: SessionId,
        /// Oldest first per task.
        reports: Vec<TaskReport>,
    },
    /// Leader to agent: these transitions are committed.
    ReportAcknowledged {
        /// Its session.
        session: SessionId,
        /// Per task: the last committed transition.
        through: Vec<(TaskId, u64)>,
    },
    /// Client (or agent, for leases) to manager.
    Request {
        /// Takes effect once, however often it is sent.
        id: RequestId,
        /// What is asked.
        operation: Operation,
    },
    /// Manager to client.
    Response {
        /// Echo.
        id: RequestId,
        /// What came of it.
        result: Result<Outcome, OperationError>,
    },
}

impl Message {
    /// The kind's name, as faults and traces spell it.
    pub fn kind(&self) -> &'static str {
        match self {
            Message::Raft(_) => "raft",
            Message::Join { .. } => "join",
            Message::Joined { .. } => "joined",
            Message::Register { .. } => "register",
            Message::Registered { .. } => "registered",
            Message::Redirect { .. } => "redirect",
            Message::Heartbeat { .. } => "heartbeat",
            Message::HeartbeatAcknowledged { .. } => "heartbeat-acknowledged",
            Message::SessionUnknown { .. } => "session-unknown",
            Message::Assignments { .. } => "assignments",
            Message::Report { .. } => "report",
            Message::ReportAcknowledged { .. } => "report-acknowledged",
            Message::Request { .. } => "request",
            Message::Response { .. } => "response",
        }
    }
}

/// One task as its agent needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Which task.
    pub task: TaskId,
    /// Which place of its service it fills.
    pub slot: u32,
    /// The spec's version.
    pub generation: Generation,
    /// What managers want of it.
    pub desired: DesiredState,
    /// Why it should stop, when it should.
    pub reason: Option<wavetank_model::Reason>,
    /// What to run. Shared: all tasks of one generation have the same.
    pub spec: std::sync::Arc<ServiceSpec>,
    /// The last status that its agent reported, if it reported any. An agent that has lost its
    /// disk goes on from there; one that has the task looks at its own record.
    pub reported: Option<TaskStatus>,
}

/// One transition of one task, as its agent made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskReport {
    /// Which task.
    pub task: TaskId,
    /// The status after the transition; its `sequence` orders them.
    pub status: TaskStatus,
}

/// A consensus message, field by field as Raft defines it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RaftMessage {
    /// Sender's and receiver's ids in the consensus group.
    pub from: u64,
    /// Receiver's id; a manager refuses messages for a member it is not (any more).
    pub to: u64,
    /// Message type by Raft's own numbering.
    pub kind: i32,
    /// Sender's term.
    pub term: u64,
    /// Term of the entry at `index`.
    pub log_term: u64,
    /// Log position.
    pub index: u64,
    /// Entries to append.
    pub entries: Vec<LogEntry>,
    /// Sender's commit position.
    pub commit: u64,
    /// Term of the entry at `commit`.
    pub commit_term: u64,
    /// A whole store, for a member that is too far behind.
    pub snapshot: Option<Box<Snapshot>>,
    /// Ask for a snapshot from this position.
    pub request_snapshot: u64,
    /// True for a refusal.
    pub reject: bool,
    /// Where to try next.
    pub reject_hint: u64,
    /// Opaque, for reads and transfers.
    #[serde(with = "serde_bytes")]
    pub context: Vec<u8>,
    /// Election priority.
    pub priority: i64,
}
