//! The runtime port over Podman's REST API (libpod, Podman 4.3 and newer, rootful or rootless).
//!
//! Map: `runtime` (the port, call by call, and the one place for deadlines), `service` (what calls
//! share, and the look at one container that all others trust), `lifecycle`, `waiting`, `images`,
//! `exec`, `logs`, `events` (the calls), `observed` (an inspection in the port's words), `process`
//! and `kernel_log` (what Podman does not know, told by the machine), `transport` and `buffers`
//! (HTTP within limits), `wire` (the API's JSON), `names` (ids, names, labels), `error` (the tables
//! of classes), `capabilities`, `config`.
//!
//! It must not run the `podman` program, nor trust an answer's size, types or end.
//!
//! # What the service must be set to
//! `events_logger = "file"` keeps events where the service may replay them; `exit_command_delay`
//! says how long the monitor of an exec lives on (5 minutes by default), which is memory for who
//! probes often.

mod buffers;
mod capabilities;
mod config;
mod error;
mod events;
mod exec;
mod images;
mod kernel_log;
mod lifecycle;
mod logs;
mod names;
mod observed;
mod process;
mod runtime;
mod service;
mod transport;
mod waiting;
mod wire;

pub use capabilities::CAPABILITIES;
pub use config::{ConfigError, Endpoint, Namespace, PodmanConfig};
pub use runtime::Podman;
