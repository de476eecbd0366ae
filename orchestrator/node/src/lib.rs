//! The production shell around the orchestrator's decisions: what they want done is done here, in
//! the order that `wavetank-core` demands. It decides nothing.
//!
//! Map: `platform` (the port to the machine: network, clocks, entropy, tasks), `os` (a real one),
//! `journal` (durable records), `identity` (certificates and keys), `wire` (frames), `transport`
//! (links to peers), `admission` (how a node gets in and stays in), `calls` (the container
//! runtime), `logs` (what containers wrote), `locks` (lock files), `observer` (who is told),
//! `driver` (the loop around one process), `node` (a whole node put together). What only a real
//! node has: `serve` (a node from its folder), `durable` (files replaced as a whole), `events` (the
//! event log), `api` (a manager's HTTP API), `config` (what a node is told), `ctl` (an operator's
//! commands), `program` (all of it behind one command line).
//!
//! # Determinism
//! Nothing outside `os` and what only a real node has touches a clock, a socket, an executor or
//! entropy. Whatever waits for several things at once asks them in a fixed
//! order (`biased`), and maps are ordered. On a simulated [`Platform`] the shell is as
//! deterministic as that is.

pub mod admission;
pub mod api;
pub mod calls;
pub mod config;
pub mod ctl;
pub mod driver;
mod durable;
pub mod events;
pub mod identity;
pub mod journal;
pub mod locks;
pub mod logs;
pub mod node;
pub mod observer;
pub mod os;
pub mod platform;
pub mod program;
pub mod serve;
pub mod transport;
pub mod wire;

pub use journal::{Journal, JournalError};
pub use observer::Observer;
pub use os::Os;
pub use platform::{Platform, Task};
