//! The simulated environment: what machines, links, disks, clocks, a registry and a container
//! runtime do, and every way in which they fail. No orchestration, no event loop: each part is a
//! state machine that the engine steps.
//!
//! Map: `random` (one stream per entity and purpose), `clock` (one machine's clocks), `disk` (what
//! is durable), `network` (who reaches whom, and when), `registry` (how a pull goes), `runtime`
//! (containers of one machine), `locks` (lock files on volumes).
//!
//! # Determinism
//! Time is an argument. Every draw comes from a stream of its own, so that removing one fault or
//! machine leaves all other draws as they were. Integer arithmetic only.

pub mod clock;
pub mod disk;
pub mod locks;
pub mod network;
pub mod random;
pub mod registry;
pub mod runtime;

pub use clock::LocalClock;
pub use disk::{Disk, DiskFault};
pub use locks::Locks;
pub use network::{Delivery, LinkEffect, LinkRule, Network, Selection};
pub use random::Stream;
pub use registry::{Registry, RegistryEffect, RegistryRule};
pub use runtime::{
    Interpretation, Interpreter, Output, PortCommand, Program, Runtime, RuntimeConfig,
    RuntimeEffect, RuntimeRule, Step, Written,
};
