//! The runtime port over containerd's gRPC API, for containerd 1.6 and newer.
//!
//! What is done here is what one client of containerd has to do itself: pull an image where the
//! daemon cannot, build the OCI spec, keep garbage collection off what is in the making, and find
//! out what became of a container whose shim or daemon died. No command line tool is called.
//!
//! Map: `config`, `runtime` (the port's calls, each under its deadline), `deadline`; below it
//! `connection` (one lazily mended connection, headers), `error` (classes), `record` (what we keep
//! about a container, in containerd), `observe` (what a container is doing), `torn` (starts that
//! were cut off), `lifecycle` (create to delete), `leftover` (bundles in its way), `spec` and
//! `user` (what a container is given), `exec`, `logs`, `events`, `cgroup`;
//! for images `pull`, `transfer`, `content`, `unpack`, `images`, `lease`; and `capabilities`.
//!
//! # Who knows how a process ended
//! containerd forgets: a task is gone after a reboot, and when a shim is killed the daemon makes
//! up an exit (137 or 255) for its container and deletes the task. So the first call that sees an
//! end writes it to the container's record, and from then on the record is the truth. A container
//! that was started and has neither a task nor a recorded end has ended in a way nobody can know:
//! [`wavetank_port::ExitCode::Unknown`]. So is an end that may be that of runc's own process in a
//! start that was cut off.
//!
//! # Nothing half done
//! A call that changes something goes on in the background when its caller gives up, because a
//! daemon that is cancelled in the middle of a create leaves an id that can be neither used nor
//! created. What is in the making is held by a lease, so that garbage collection takes it if we
//! die.
//!
//! # Isolation
//! Two adapters with different namespaces do not see each other. Two daemons on one machine must
//! not share a namespace: runc keeps its state by namespace, not by daemon.

#[expect(
    clippy::allow_attributes_without_reason,
    reason = "tonic generates them"
)]
mod api {
    include!(concat!(env!("OUT_DIR"), "/api.rs"));
}
mod capabilities;
mod cgroup;
mod config;
mod connection;
mod content;
mod daemon;
mod deadline;
mod error;
mod events;
mod exec;
#[cfg(test)]
mod hostile;
mod images;
mod lease;
mod leftover;
mod lifecycle;
mod logs;
mod observe;
mod pull;
mod record;
mod runtime;
mod spec;
mod torn;
mod transfer;
mod unpack;
mod user;

pub use capabilities::CAPABILITIES;
pub use config::ContainerdConfig;
pub use runtime::Containerd;
pub use wavetank_distribution::Registries;
