//! The simulated container runtime behind the async port: the same state machine that the event
//! world steps (`wavetank_world::Runtime`), driven by tokio's clock or by whoever steps it.
//!
//! Map: `runtime` (the state machine, its clock and its driver task), `pace` (how time passes),
//! `port` (the async trait), `capabilities` (what it does differently from the port's description),
//! `spec` (what it refuses to create), `events` and `logs` (what is read bit by bit).
//!
//! # Determinism
//! Time is tokio's or a simulator's: a run depends on nothing but the seed and the order in which
//! tasks call. tokio's timers have a resolution of one millisecond, and what is due earlier happens
//! then; a runtime that is stepped does each thing at its own time. Nothing here draws random
//! numbers; the state machine has its own stream.

pub mod capabilities;
mod events;
mod logs;
mod pace;
mod port;
mod runtime;
mod spec;

pub use capabilities::CAPABILITIES;
pub use pace::{Pace, TokioPace};
pub use runtime::{SharedClock, SharedRegistry, SimConfig, SimRuntime, Stepper, Truth, TruthSink};
