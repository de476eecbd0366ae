//! What a caller can watch or read of a container besides its state: logs, exec, stats.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::container::{ContainerStatus, ExitCode, WallTime};

/// Which containers a listing shows. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Labels the container must carry, each with this value.
    pub labels: std::collections::BTreeMap<String, String>,
    /// Where it must be in its life.
    pub status: Option<ContainerStatus>,
    /// What its id must begin with.
    pub id_prefix: Option<String>,
}

/// A place in a runtime's event stream; opaque to the caller, valid for the runtime that gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventCursor(pub String);

/// Which of a process's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputStream {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// What of a log to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on with what is yet to be written; the stream ends when the process has.
    pub follow: bool,
    /// Leave out what was written before.
    pub since: Option<WallTime>,
    /// Leave out what was written at this time or later.
    pub until: Option<WallTime>,
    /// Only this many last lines of each output.
    pub tail_lines: Option<usize>,
}

/// A piece of a log: bytes exactly as the process wrote them, cut anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogChunk {
    /// Where it was written.
    pub stream: OutputStream,
    /// When the runtime took it; `None` if it keeps no times.
    pub at: Option<WallTime>,
    /// What was written.
    pub bytes: Vec<u8>,
}

/// A command to run beside a container's process, in its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments; the program is looked up in the container.
    pub command: Vec<String>,
    /// The command is killed when it runs longer: `DeadlineExceeded`.
    pub timeout: Duration,
}

/// How a command ended and what it wrote. Each output is cut at [`EXEC_OUTPUT_BYTES_MAX`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// Its exit code; 126 and 127 as a shell has them where the program could not run.
    pub code: ExitCode,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
}

/// The longest output kept of an exec, in bytes per stream.
pub const EXEC_OUTPUT_BYTES_MAX: usize = 1 << 20;

/// What a running container uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerStats {
    /// Memory charged to it, in bytes.
    pub memory_bytes: u64,
    /// CPU time used since its start, in nanoseconds.
    pub cpu_nanos: u64,
    /// Processes in it.
    pub processes: u64,
}

/// Limits of a container that may change while it runs; `None` leaves a limit as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Hard memory limit in bytes.
    pub memory_bytes_max: Option<u64>,
    /// CPU limit in thousandths of a core.
    pub cpu_millis_max: Option<u32>,
}
