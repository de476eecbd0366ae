//! The adapter for OCI runtime binaries.

pub mod cgroup;
mod clock;
mod ending;
pub mod journal;
pub mod log_file;
pub mod monitor;
mod pidfd_info;
pub mod process;
pub mod record;
pub mod runtime_binary;
pub mod sealed;

pub use runtime_binary::CALL_MAX;
