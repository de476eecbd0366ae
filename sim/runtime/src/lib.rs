//! The simulated container runtime behind the async port: the same state machine that the event
//! world steps (`wavetank_world::Runtime`), driven by tokio's clock.
//!
//! Map: `runtime` (the state machine, its clock and its driver task), `port` (the async trait),
//! `capabilities` (what it does differently from the port's description), `spec` (what it refuses
//! to create), `events` and `logs` (what is read bit by bit).
//!
//! # Determinism
//! Time is tokio's: paused, it is virtual, and a run depends on nothing but the seed and the order
//! in which tasks call. tokio's timers have a resolution of one millisecond, and what is due
//! earlier happens then. Nothing here draws random numbers; the state machine has its own stream.

pub mod capabilities;
mod events;
mod logs;
mod port;
mod runtime;
mod spec;

pub use capabilities::CAPABILITIES;
pub use runtime::{SharedRegistry, SimConfig, SimRuntime};
