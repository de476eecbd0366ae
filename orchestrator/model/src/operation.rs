//! What a client may ask of the managers, and what it gets.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wavetank_port::WallTime;

use crate::ids::{
    FencingToken, Generation, LeaseName, NodeId, NodeRole, Revision, ServiceName, TaskId,
};
use crate::spec::{Resources, ServiceSpec};
use crate::state::{Availability, DesiredState, NodeStatus, RolloutState, TaskStatus};

/// A request to the managers. All are linearizable; a repeated [`crate::RequestId`] takes effect
/// once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "specs are rare; a box would be in everyone's way"
)]
pub enum Operation {
    /// Create a service, or update it to this spec (a new generation).
    Deploy {
        /// The whole spec.
        spec: ServiceSpec,
    },
    /// Change the number of tasks of a replicated service or job.
    Scale {
        /// Which service.
        service: ServiceName,
        /// The new number.
        replicas: u32,
    },
    /// Go back to the last completed generation.
    Rollback {
        /// Which service.
        service: ServiceName,
    },
    /// Stop all tasks; keep the service; nothing restarts it but `Start`.
    Stop {
        /// Which service.
        service: ServiceName,
    },
    /// Undo `Stop`.
    Start {
        /// Which service.
        service: ServiceName,
    },
    /// Stop and forget all tasks, then the service.
    Delete {
        /// Which service.
        service: ServiceName,
    },
    /// Say what may run on a node.
    SetAvailability {
        /// Which node.
        node: NodeId,
        /// What may run there.
        availability: Availability,
    },
    /// Put a manager out of the consensus group for good. It may join again only without its log.
    RemoveManager {
        /// Which manager.
        node: NodeId,
    },
    /// The service as the managers know it.
    GetService {
        /// Which service.
        service: ServiceName,
    },
    /// Write a key.
    Put {
        /// The key.
        key: String,
        /// Its new value.
        value: String,
        /// Set if a lease holder acts: refused if its token is not the lease's newest.
        claim: Option<Claim>,
    },
    /// Read a key.
    Get {
        /// The key.
        key: String,
    },
    /// Take a lease, or keep it. Granted if it is free or already the caller's.
    LeaseAcquire {
        /// Which lease.
        lease: LeaseName,
        /// Who holds it: an instance's name.
        holder: String,
        /// How long it lasts without renewal.
        ttl: Duration,
    },
    /// Keep a lease; refused unless `token` is its newest.
    LeaseRenew {
        /// Which lease.
        lease: LeaseName,
        /// The token of the grant.
        token: FencingToken,
    },
    /// Give a lease back; refused unless `token` is its newest.
    LeaseRelease {
        /// Which lease.
        lease: LeaseName,
        /// The token of the grant.
        token: FencingToken,
    },
    /// All services as the managers know them.
    ListServices,
    /// All managers and agents as the managers know them.
    ListNodes,
    /// Let one more node in, once. Managers never learn the token itself.
    CreateToken {
        /// SHA-256 of the token's secret, in lower-case hex.
        digest: String,
        /// What the node will be.
        role: NodeRole,
        /// Refused from then on.
        expires: WallTime,
    },
    /// Use a token up; its bearer becomes the next node of its role.
    RedeemToken {
        /// SHA-256 of the token's secret, in lower-case hex.
        digest: String,
        /// The time by the clock of the manager that was shown the token.
        now: WallTime,
    },
}

impl Operation {
    /// The kebab-case name.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::Deploy { .. } => "deploy",
            Operation::Scale { .. } => "scale",
            Operation::Rollback { .. } => "rollback",
            Operation::Stop { .. } => "stop",
            Operation::Start { .. } => "start",
            Operation::Delete { .. } => "delete",
            Operation::SetAvailability { .. } => "set-availability",
            Operation::RemoveManager { .. } => "remove-manager",
            Operation::GetService { .. } => "get-service",
            Operation::Put { .. } => "put",
            Operation::Get { .. } => "get",
            Operation::LeaseAcquire { .. } => "lease-acquire",
            Operation::LeaseRenew { .. } => "lease-renew",
            Operation::LeaseRelease { .. } => "lease-release",
            Operation::ListServices => "list-services",
            Operation::ListNodes => "list-nodes",
            Operation::CreateToken { .. } => "create-token",
            Operation::RedeemToken { .. } => "redeem-token",
        }
    }

    /// True if it changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(
            self,
            Operation::GetService { .. }
                | Operation::Get { .. }
                | Operation::ListServices
                | Operation::ListNodes
        )
    }

    /// May a node of that role ask for it? An agent takes part in elections for what it runs, and
    /// writes under the lease that was won; whoever takes an agent over must not own the cluster.
    pub fn is_open_to(&self, role: NodeRole) -> bool {
        role != NodeRole::Agent
            || matches!(
                self,
                Operation::LeaseAcquire { .. }
                    | Operation::LeaseRenew { .. }
                    | Operation::LeaseRelease { .. }
                    | Operation::Put { claim: Some(_), .. }
            )
    }
}

/// A claim to hold a lease, checked against the store when the write is applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// Which lease.
    pub lease: LeaseName,
    /// Who claims it: an instance's name.
    pub holder: String,
    /// The token of the grant; `None` from a lock without tokens, which cannot be checked.
    pub token: Option<FencingToken>,
}

/// The answer to an [`Operation`] that took effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "specs are rare; a box would be in everyone's way"
)]
pub enum Outcome {
    /// Done; the store's revision in which it is.
    Done {
        /// Where it is in the log.
        revision: Revision,
    },
    /// Answer to `Get`.
    Value {
        /// `None` if never written.
        value: Option<String>,
    },
    /// Answer to `GetService`.
    Service {
        /// `None` if there is none.
        service: Option<ServiceView>,
    },
    /// The lease is the caller's.
    Granted {
        /// To be sent with every act.
        token: FencingToken,
    },
    /// Somebody else has the lease.
    Held {
        /// Who.
        holder: String,
    },
    /// Answer to `ListServices`.
    Services {
        /// In the order of their names.
        services: Vec<ServiceView>,
    },
    /// Answer to `ListNodes`.
    Nodes {
        /// Members of the consensus group, in the order of their numbers.
        managers: Vec<NodeId>,
        /// The one that leads, and answers; not said by managers of before this was.
        #[serde(default)]
        leader: Option<NodeId>,
        /// Those that have no vote yet.
        #[serde(default)]
        joining: Vec<NodeId>,
        /// All that ever registered, in the order of their numbers.
        agents: Vec<AgentView>,
    },
    /// Answer to `RedeemToken`.
    Admitted {
        /// Who the bearer is from now on; nobody else ever was or will be.
        node: NodeId,
    },
}

/// A service as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// What was asked for.
    pub spec: ServiceSpec,
    /// Its version.
    pub generation: Generation,
    /// Where its rollout is.
    pub rollout: RolloutState,
    /// Stopped by an operator.
    pub stopped: bool,
    /// Being deleted: goes away with its last task.
    #[serde(default)]
    pub deleting: bool,
    /// Its tasks, in id order.
    pub tasks: Vec<TaskView>,
}

/// A task as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskView {
    /// Its id.
    pub task: TaskId,
    /// Which of the service's places it fills, from 1.
    pub slot: u32,
    /// The spec's version it runs.
    pub generation: Generation,
    /// Where.
    pub node: Option<NodeId>,
    /// What managers want.
    pub desired: DesiredState,
    /// What is.
    pub status: TaskStatus,
}

/// An agent as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentView {
    /// Its identity.
    pub node: NodeId,
    /// Whether it is heard of.
    pub status: NodeStatus,
    /// What may run there.
    pub availability: Availability,
    /// What it has to offer.
    pub resources: Resources,
    /// What its tasks take of that.
    pub used: Resources,
    /// What it is like.
    pub labels: BTreeMap<String, String>,
    /// Tasks that are bound to it and have not ended.
    pub tasks: u32,
}

/// Why an [`Operation`] had no effect. None of these leaves a trace in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum OperationError {
    /// No such service, node or lease.
    #[error("{what} does not exist")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// The request makes no sense as it is.
    #[error("{why}")]
    Invalid {
        /// What is wrong with it.
        why: String,
    },
    /// The fencing token is not the lease's newest.
    #[error("lease {lease} is at token {newest}, not {given}")]
    Fenced {
        /// Which lease.
        lease: LeaseName,
        /// What the caller sent.
        given: FencingToken,
        /// What the lease is at.
        newest: FencingToken,
    },
}
