//! The adapter for OCI runtime binaries: runc, crun, youki, or whatever has their command line.
//!
//! There is no daemon. Truth is on disk: one folder per container with small sealed files, each
//! written once. Every container has a monitor process that outlives whoever asked for it.
//!
//! Map, from the bottom: `sealed` (state files that are whole or recognisably damaged), `process`
//! (which process is meant), `cgroup`, `journal` (events), `log_file`, `record` (a container's
//! folder and what it says), `runtime_binary` (the one place that runs the OCI runtime), `ending`
//! (an end, recorded and told once); `monitor` (the process per container); `images` and `bundle`
//! (from a registry to `config.json`); `adapter`, `create`, `delete`, `signals`, `exec`, `logs`,
//! `events`, `view` and `port` (the port itself); `observer`
//! (a look from outside that changes nothing); `chaos` (an OCI runtime that does wrong on
//! purpose, apart from all that).

mod adapter;
mod bundle;
mod capabilities;
pub mod cgroup;
mod changes;
pub mod chaos;
mod clock;
mod config;
mod create;
mod deadline;
mod delete;
mod ending;
mod events;
mod exec;
pub mod images;
pub mod journal;
pub mod log_file;
mod logs;
pub mod monitor;
mod monitor_client;
mod observer;
mod pidfd_info;
mod port;
pub mod process;
mod readiness;
pub mod record;
pub mod runtime_binary;
pub mod sealed;
mod signals;
mod user;
mod view;

pub use adapter::OciRuntime;
pub use capabilities::CAPABILITIES;
pub use config::Config;
pub use monitor::MonitorProgram;
pub use observer::Observer;
pub use wavetank_distribution::Registries;
