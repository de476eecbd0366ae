//! What managers and agents say about themselves. Production logs them; a simulated world puts
//! them into its trace. They never influence a decision.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use wavetank_port::{ContainerId, ErrorClass, ExitStatus};

use crate::ids::{
    Epoch, FencingToken, Generation, InstanceId, LeaseName, NodeId, Revision, ServiceName,
    SessionId, TaskId,
};
use crate::spec::ServiceSpec;
use crate::state::{
    Availability, DesiredState, NodeStatus, Reason, RolloutState, TaskState, TaskStatus,
};

/// A manager's part in consensus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsensusRole {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks for votes (also pre-votes).
    Candidate,
    /// Leads its epoch.
    Leader,
    /// Receives the log without a vote.
    Learner,
}

/// One statement of a manager or an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "kebab-case")]
pub enum Notice {
    /// Manager: its part in consensus changed.
    RoleChanged {
        /// New part.
        role: ConsensusRole,
        /// In which epoch.
        epoch: Epoch,
    },
    /// Manager: a committed log entry was applied to its store.
    Applied {
        /// Log position.
        revision: Revision,
        /// Epoch of the entry.
        epoch: Epoch,
        /// Digest of the entry's bytes: equal on all managers at the same position.
        digest: u64,
        /// What it changed, in order. Equal on all managers.
        changes: Vec<Change>,
    },
    /// Manager: its store was replaced by a snapshot.
    SnapshotInstalled {
        /// The log position it stands for.
        revision: Revision,
    },
    /// Manager: it started with this much of the log from its disk.
    Recovered {
        /// Last log position on disk; 0 for none.
        last: Revision,
        /// True if a damaged tail was cut off.
        truncated: bool,
    },
    /// Manager: the membership of the consensus group changed.
    MembershipChanged {
        /// Who votes now.
        voters: Vec<NodeId>,
    },
    /// Manager (leader): a message from `from` could not be decoded.
    Undecodable {
        /// Sender.
        from: NodeId,
        /// What it should have been.
        message: String,
        /// Why not.
        error: String,
    },
    /// Agent: a leader accepted it.
    SessionOpened {
        /// The session.
        session: SessionId,
        /// The leader's epoch.
        epoch: Epoch,
        /// The leader.
        manager: NodeId,
    },
    /// Agent: the session is gone; it looks for a leader.
    SessionLost {
        /// The session.
        session: SessionId,
    },
    /// Agent: it now works on this set of assignments.
    AssignmentsAccepted {
        /// Issuer's epoch.
        epoch: Epoch,
        /// The store's revision they were made from.
        revision: Revision,
        /// How many tasks.
        tasks: u32,
    },
    /// Agent: it refused assignments from an older epoch or revision (fencing).
    AssignmentsRefused {
        /// Issuer's epoch.
        epoch: Epoch,
        /// Their revision.
        revision: Revision,
    },
    /// Agent: a task moved.
    TaskMoved {
        /// Which task.
        task: TaskId,
        /// Its service.
        service: ServiceName,
        /// Before.
        from: TaskState,
        /// The whole status after.
        status: TaskStatus,
    },
    /// Agent: managers have confirmed a task's transitions up to `sequence`.
    ReportAcknowledged {
        /// Which task.
        task: TaskId,
        /// Up to which transition.
        sequence: u64,
    },
    /// Agent: it stops an instance: asks now, kills after `grace`.
    StopRequested {
        /// Which instance.
        instance: InstanceId,
        /// Time it is given.
        grace: Duration,
        /// Why.
        reason: Reason,
    },
    /// Agent: it saw how an instance's process ended. Once per instance.
    ExitObserved {
        /// Which instance.
        instance: InstanceId,
        /// How.
        exit: ExitStatus,
    },
    /// Agent: it could not look at its containers; it knows no more than before.
    ObservationFailed {
        /// Why.
        class: ErrorClass,
    },
    /// Agent: it found a running or exited container of its own and took it over.
    InstanceAdopted {
        /// Which instance.
        instance: InstanceId,
    },
    /// Agent: it removes a container that no task owns.
    OrphanRemoved {
        /// Which container.
        container: ContainerId,
    },
    /// Agent: it waits before it tries to pull again.
    PullDelayed {
        /// Which image.
        image: String,
        /// Failures so far.
        failures: u32,
        /// How long it waits.
        delay: Duration,
        /// What the last failure was.
        class: ErrorClass,
    },
    /// Agent: an instance of its own became the holder of a lease.
    LeaseWon {
        /// Which lease.
        lease: LeaseName,
        /// Who.
        instance: InstanceId,
        /// Its token; `None` for a backend without.
        token: Option<FencingToken>,
    },
    /// Agent: an instance of its own stopped acting as holder.
    LeaseLost {
        /// Which lease.
        lease: LeaseName,
        /// Who.
        instance: InstanceId,
    },
}

impl Notice {
    /// The kebab-case name.
    pub fn name(&self) -> &'static str {
        match self {
            Notice::RoleChanged { .. } => "role-changed",
            Notice::Applied { .. } => "applied",
            Notice::SnapshotInstalled { .. } => "snapshot-installed",
            Notice::Recovered { .. } => "recovered",
            Notice::MembershipChanged { .. } => "membership-changed",
            Notice::Undecodable { .. } => "undecodable",
            Notice::SessionOpened { .. } => "session-opened",
            Notice::SessionLost { .. } => "session-lost",
            Notice::AssignmentsAccepted { .. } => "assignments-accepted",
            Notice::AssignmentsRefused { .. } => "assignments-refused",
            Notice::TaskMoved { .. } => "task-moved",
            Notice::ReportAcknowledged { .. } => "report-acknowledged",
            Notice::StopRequested { .. } => "stop-requested",
            Notice::ExitObserved { .. } => "exit-observed",
            Notice::ObservationFailed { .. } => "observation-failed",
            Notice::InstanceAdopted { .. } => "instance-adopted",
            Notice::OrphanRemoved { .. } => "orphan-removed",
            Notice::PullDelayed { .. } => "pull-delayed",
            Notice::LeaseWon { .. } => "lease-won",
            Notice::LeaseLost { .. } => "lease-lost",
        }
    }
}

/// One change to the replicated store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "specs are rare; a box would be in everyone's way"
)]
pub enum Change {
    /// A node was written.
    Node {
        /// Which node.
        node: NodeId,
        /// What was observed.
        status: NodeStatus,
        /// What the operator wants.
        availability: Availability,
    },
    /// A service was written.
    Service {
        /// What was asked for.
        spec: ServiceSpec,
        /// Its version.
        generation: Generation,
        /// Where its rollout is.
        rollout: RolloutState,
        /// Stopped by an operator.
        stopped: bool,
        /// Being deleted.
        deleting: bool,
    },
    /// A service is gone.
    ServiceRemoved {
        /// Which service.
        service: ServiceName,
    },
    /// A task was written.
    Task {
        /// Which task.
        task: TaskId,
        /// Its service.
        service: ServiceName,
        /// Which place of the service it fills, from 1.
        slot: u32,
        /// The spec's version it runs.
        generation: Generation,
        /// Its node, once bound.
        node: Option<NodeId>,
        /// What managers want.
        desired: DesiredState,
        /// State before; `None` if it is new.
        from: Option<TaskState>,
        /// The whole status after.
        status: TaskStatus,
    },
    /// A task's record is gone.
    TaskRemoved {
        /// Which task.
        task: TaskId,
        /// Its service.
        service: ServiceName,
    },
    /// A key was written.
    Entry {
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// The lease whose holder wrote it, if a lease holder did.
        lease: Option<LeaseName>,
        /// The token it was checked against; `None` if the write was not fenced.
        token: Option<FencingToken>,
        /// The holder's name, if a lease holder wrote it.
        holder: Option<String>,
    },
    /// A lease changed hands.
    Lease {
        /// Which lease.
        lease: LeaseName,
        /// Who has it now.
        holder: Option<String>,
        /// The newest token.
        token: FencingToken,
    },
}
