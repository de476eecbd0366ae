//! The orchestrator's vocabulary: ids, specs, states, reasons, timers, and what it says about
//! itself. Data only; every decision lives in `wavetank-core`.
//!
//! Map: `ids` (newtypes), `time` (the monotonic `Instant`), `spec` (what a user asks for),
//! `state` (what is), `operation` (what a client may ask of the managers), `timers` (every
//! constant that a profile may set), `notice` (what managers and agents report about themselves:
//! logs in production, trace events in simulation).
//!
//! # Determinism
//! No clock, no randomness, no IO, ordered maps only.

pub mod ids;
pub mod notice;
pub mod operation;
pub mod spec;
pub mod state;
pub mod time;
pub mod timers;

pub use ids::{
    Epoch, FencingToken, Generation, Incarnation, InstanceId, LeaseName, NodeId, NodeRole,
    RequestId, Revision, ServiceName, SessionId, TaskId,
};
pub use notice::{Change, ConsensusRole, Notice};
pub use operation::{AgentView, Claim, Operation, OperationError, Outcome, ServiceView, TaskView};
pub use spec::{
    ElectionBackend, ElectionSpec, HealthCheck, OnRolloutFailure, Resources, RestartCondition,
    RestartPolicy, ServiceMode, ServiceSpec, UpdatePolicy,
};
pub use state::{
    Availability, DesiredState, NodeStatus, Reason, RolloutState, TaskState, TaskStatus,
};
pub use time::Instant;
pub use timers::{Backoff, Timers};
