//! containerd's errors and the port's classes for them.
//!
//! Most have a gRPC code that says it all. What runc or the kernel said arrives as text under
//! `Unknown`, and is told apart by phrases; the table names where each was seen.

use tonic::{Code, Status};
use wavetank_port::{ErrorClass, RuntimeError};

/// A directory is there that the snapshotter does not know; failing over it, it removes it.
pub(crate) const LEFTOVER_SNAPSHOT: &str = "failed to rename: rename";

/// Phrases of errors whose code says nothing, first match wins.
const PHRASES: &[(&str, ErrorClass)] = &[
    // The kernel, through any plugin that writes.
    ("no space left on device", ErrorClass::ResourceExhausted),
    ("disk quota exceeded", ErrorClass::ResourceExhausted),
    ("cannot allocate memory", ErrorClass::ResourceExhausted),
    ("too many open files", ErrorClass::ResourceExhausted),
    // runc 1.1: the program of a create or an exec.
    ("executable file not found", ErrorClass::InvalidArgument),
    ("exec format error", ErrorClass::InvalidArgument),
    (
        "no such file or directory: unknown",
        ErrorClass::InvalidArgument,
    ),
    ("permission denied: unknown", ErrorClass::InvalidArgument),
    ("is a directory: unknown", ErrorClass::InvalidArgument),
    // The shim, asked about a process that has ended.
    ("process already finished", ErrorClass::NotFound),
    ("process does not exist", ErrorClass::NotFound),
    ("container not running", ErrorClass::FailedPrecondition),
    (
        "cannot start a stopped process",
        ErrorClass::FailedPrecondition,
    ),
    ("cannot exec in a", ErrorClass::FailedPrecondition),
    ("cannot pause a", ErrorClass::FailedPrecondition),
    ("cannot resume a", ErrorClass::FailedPrecondition),
    ("container not paused", ErrorClass::FailedPrecondition),
    ("cannot update a", ErrorClass::FailedPrecondition),
    // The daemon, about a task that goes while it looks (`services/tasks/local.go`).
    ("task does not exist", ErrorClass::NotFound),
    // The daemon, while it cleans up after a shim of that name, or after one that was killed as
    // soon as it was there.
    ("failed to start shim", ErrorClass::Unavailable),
    // The overlayfs snapshotter, after the daemon died between its directory and its database.
    (LEFTOVER_SNAPSHOT, ErrorClass::Unavailable),
    // The daemon, asked about a shim that is dying, and tonic about a daemon that is.
    ("ttrpc: closed", ErrorClass::Unavailable),
    ("context canceled", ErrorClass::Unavailable),
    ("h2 protocol error", ErrorClass::Unavailable),
    ("transport error", ErrorClass::Unavailable),
    ("connection refused", ErrorClass::Unavailable),
    ("broken pipe", ErrorClass::Unavailable),
    ("connection reset", ErrorClass::Unavailable),
];

/// The error of a call that was about `what`.
pub(crate) fn failed(what: &str) -> impl FnOnce(Status) -> RuntimeError + use<> {
    let what = what.to_owned();
    move |status| {
        RuntimeError::new(
            class_of(status.code(), status.message()),
            format!("{what}: {}", status.message()),
        )
    }
}

/// Makes `NotFound` an answer: `None`.
pub(crate) fn found<T>(result: Result<T, RuntimeError>) -> Result<Option<T>, RuntimeError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.class == ErrorClass::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// An error of ours.
pub(crate) fn error(class: ErrorClass, message: impl Into<String>) -> RuntimeError {
    RuntimeError::new(class, message)
}

/// An answer that no containerd gives.
pub(crate) fn broken(what: &str) -> RuntimeError {
    error(
        ErrorClass::Unknown,
        format!("{what}: the daemon's answer is incomplete"),
    )
}

pub(crate) fn class_of(code: Code, message: &str) -> ErrorClass {
    match code {
        Code::NotFound => ErrorClass::NotFound,
        Code::AlreadyExists => ErrorClass::AlreadyExists,
        Code::InvalidArgument | Code::OutOfRange => ErrorClass::InvalidArgument,
        Code::Unavailable | Code::Aborted => ErrorClass::Unavailable,
        Code::DeadlineExceeded => ErrorClass::DeadlineExceeded,
        Code::Unauthenticated | Code::PermissionDenied => ErrorClass::Unauthenticated,
        Code::ResourceExhausted => ErrorClass::ResourceExhausted,
        Code::FailedPrecondition => by_phrase(message).unwrap_or(ErrorClass::FailedPrecondition),
        // tonic: the connection broke while the call was on it.
        Code::Cancelled => ErrorClass::Unavailable,
        _ => by_phrase(message).unwrap_or(ErrorClass::Unknown),
    }
}

fn by_phrase(message: &str) -> Option<ErrorClass> {
    let message = message.to_ascii_lowercase();
    let mut known = PHRASES.iter();
    known
        .find(|(phrase, _)| message.contains(phrase))
        .map(|(_, class)| *class)
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use wavetank_port::ErrorClass;

    use super::class_of;

    /// Code and message, and what they mean.
    const SAID: &[(Code, &str, ErrorClass)] = &[
        (
            Code::NotFound,
            "no running task found",
            ErrorClass::NotFound,
        ),
        (
            Code::NotFound,
            "process already finished: not found",
            ErrorClass::NotFound,
        ),
        (
            Code::AlreadyExists,
            "container \"a\": already exists",
            ErrorClass::AlreadyExists,
        ),
        (
            Code::Unknown,
            "failed to create shim task: OCI runtime create failed: runc create failed: \
             unable to start container process: exec: \"no-such\": executable file not \
             found in $PATH: unknown",
            ErrorClass::InvalidArgument,
        ),
        (
            Code::Unknown,
            "OCI runtime create failed: exec: \"/etc\": permission denied: unknown",
            ErrorClass::InvalidArgument,
        ),
        (
            Code::Unknown,
            "write /ingest/data: no space left on device",
            ErrorClass::ResourceExhausted,
        ),
        (
            Code::FailedPrecondition,
            "cannot exec in a stopped state: failed precondition",
            ErrorClass::FailedPrecondition,
        ),
        (
            Code::Unknown,
            "ttrpc: closed: unknown",
            ErrorClass::Unavailable,
        ),
        (
            Code::Unavailable,
            "transport error",
            ErrorClass::Unavailable,
        ),
        (
            Code::Unknown,
            "h2 protocol error: error reading a body from connection",
            ErrorClass::Unavailable,
        ),
        (
            Code::Unknown,
            "failed to start shim: mkdir /run/io.containerd.runtime.v2.task/n/a: file exists",
            ErrorClass::Unavailable,
        ),
        (
            Code::Unknown,
            "failed to start shim: start failed: failed to adjust OOM score for shim: set shim \
             OOM score: write /proc/7/oom_score_adj: no such process: exit status 1",
            ErrorClass::Unavailable,
        ),
        (
            Code::Unknown,
            "context canceled: unknown",
            ErrorClass::Unavailable,
        ),
        (Code::Unknown, "task does not exist", ErrorClass::NotFound),
        (
            Code::Unknown,
            "cannot pause a stopped container: unknown",
            ErrorClass::FailedPrecondition,
        ),
        (Code::Unimplemented, "unknown service", ErrorClass::Unknown),
        (
            Code::Internal,
            "failed to decode Protobuf message",
            ErrorClass::Unknown,
        ),
    ];

    #[test]
    fn what_containerd_1_6_says_has_a_class() {
        for (code, message, class) in SAID {
            assert_eq!(class_of(*code, message), *class, "{message}");
        }
    }
}
