//! The seam between an orchestrator and a container runtime: vocabulary only, no orchestration.
//!
//! Everything here is plain data, so that the same commands and events can be answered by a
//! simulated runtime, containerd, Podman or an OCI runtime binary.
//!
//! Map: `runtime` (the port: one async trait that every adapter implements), `capability` (what
//! they legitimately do differently), `container` (ids, specs, states, exit statuses), `image`,
//! `observe` (listing filters, logs, exec, stats), `event` (what a runtime says by itself), `error`
//! (nine classes that callers may match on), `command` (the part of the port that orchestration
//! decisions use, as data).
//!
//! # Determinism
//! No clock, no randomness, no IO, no executor. All collections are ordered.

pub mod capability;
pub mod command;
pub mod container;
pub mod error;
pub mod event;
pub mod image;
pub mod observe;
pub mod runtime;

pub use capability::{Capabilities, Capability, Difference, Support};
pub use command::{RuntimeCommand, RuntimeReply};
pub use container::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, ExitCode, ExitStatus,
    ImageReference, Network, Signal, WallTime,
};
pub use error::{ErrorClass, RuntimeError};
pub use event::RuntimeEvent;
pub use image::{Credentials, Image, PullPolicy, PullRequest};
pub use observe::{
    ContainerStats, EventCursor, ExecRequest, ExecResult, Limits, ListFilter, LogChunk, LogOptions,
    OutputStream,
};
pub use runtime::{ContainerRuntime, EventRecord, EventStream, LogStream};
