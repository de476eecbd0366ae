//! The orchestrator's decisions as state machines without IO.
//!
//! Every state machine is a [`Process`]: it is handed one [`Input`] at a time and leaves
//! [`Effects`] behind. Whoever drives it (the production shell, the simulator) keeps this order
//! after every input: make `persist` durable, then send `messages`, then carry out `calls` and
//! `locks`, hand over `completions`, log `notices`, and re-arm one timer for
//! [`Process::next_deadline`]. The separate queues of `Effects` are that order: nothing can be
//! sent before what it promises is durable.
//!
//! Map: `process` (the contract with the driver), `message` (what travels between nodes),
//! `record` (what is durable), `manager` (consensus, store, dispatcher, scheduler, reconciler,
//! rollout, leases), `agent` (session, tasks, images, health, restarts, election, recovery),
//! `client` (asks managers, follows the leader, retries safely).
//!
//! # Determinism
//! Time and randomness come from [`Context`] only. No clock, thread, file, socket or environment
//! is touched; all maps are ordered; the one random draw inside the Raft library is overruled.

pub mod agent;
pub mod client;
pub mod manager;
pub mod message;
pub mod process;
mod random;
pub mod record;

pub use agent::{Agent, AgentConfig};
pub use client::{Client, ClientConfig};
pub use manager::{Boot, Manager, ManagerConfig};
pub use message::{Assignment, Message, RaftMessage, TaskReport};
pub use process::{
    CallId, Completion, Context, Effects, Input, LockReply, LockRequest, Process, RuntimeCall,
};
pub use record::{Record, Stored};
