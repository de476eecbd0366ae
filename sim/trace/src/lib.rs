//! The trace of a run: what happened, as versioned events that every world writes and that
//! checkers and reports read. Nothing here runs anything.
//!
//! Map: `event` (the vocabulary), `view` (events as CEL and people see them), `digest` (the
//! rolling digest by which two runs are equal), `store` (JSON Lines in and out).
//!
//! # Determinism
//! An event's bytes in JSON Lines depend on the event alone. The digest covers every event in
//! order, also those that are not kept.

pub mod digest;
pub mod event;
pub mod store;
pub mod view;

pub use digest::Digest;
pub use event::{
    Event, EventId, ExitCause, FaultState, Header, HostState, Payload, Phase, VirtualTime,
};
pub use store::{FORMAT_VERSION, ReadError, Reader, Writer};
