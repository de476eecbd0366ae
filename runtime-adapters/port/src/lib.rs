//! The seam between an orchestrator and a container runtime: vocabulary only, no orchestration.
//!
//! Everything here is plain data, so that the same commands and events can be answered by a
//! simulated runtime, containerd, Podman or an OCI runtime binary.
//!
//! Map: `container` (ids, specs, states, exit statuses), `command` (what can be asked and what
//! comes back), `event` (what a runtime says by itself), `error` (nine classes that callers may
//! match on).
//!
//! # Determinism
//! No clock, no randomness, no IO. All collections are ordered.

pub mod command;
pub mod container;
pub mod error;
pub mod event;

pub use command::{RuntimeCommand, RuntimeReply};
pub use container::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, ExitCode, ExitStatus,
    ImageReference, Signal, WallTime,
};
pub use error::{ErrorClass, RuntimeError};
pub use event::RuntimeEvent;
