//! Error classes of a runtime call. Nine, so that a caller can match on all of them.

use serde::{Deserialize, Serialize};

/// What kind of failure a runtime call met. Adapters map their native errors onto these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// The object named by the call does not exist.
    NotFound,
    /// The id is taken; the existing object is untouched.
    AlreadyExists,
    /// The object exists but is in a state that forbids the call.
    FailedPrecondition,
    /// The request itself is wrong; a retry cannot help.
    InvalidArgument,
    /// The runtime or registry cannot be reached now; a retry may help.
    Unavailable,
    /// No answer within the deadline; the call may still take effect.
    DeadlineExceeded,
    /// Credentials are missing or refused.
    Unauthenticated,
    /// Out of disk, memory, rate limit or another bounded resource.
    ResourceExhausted,
    /// Anything that has no class of its own.
    Unknown,
}

impl ErrorClass {
    /// All classes, in declaration order.
    pub const ALL: [ErrorClass; 9] = [
        ErrorClass::NotFound,
        ErrorClass::AlreadyExists,
        ErrorClass::FailedPrecondition,
        ErrorClass::InvalidArgument,
        ErrorClass::Unavailable,
        ErrorClass::DeadlineExceeded,
        ErrorClass::Unauthenticated,
        ErrorClass::ResourceExhausted,
        ErrorClass::Unknown,
    ];

    /// The kebab-case name, as scenario files and traces spell it.
    pub fn name(self) -> &'static str {
        match self {
            ErrorClass::NotFound => "not-found",
            ErrorClass::AlreadyExists => "already-exists",
            ErrorClass::FailedPrecondition => "failed-precondition",
            ErrorClass::InvalidArgument => "invalid-argument",
            ErrorClass::Unavailable => "unavailable",
            ErrorClass::DeadlineExceeded => "deadline-exceeded",
            ErrorClass::Unauthenticated => "unauthenticated",
            ErrorClass::ResourceExhausted => "resource-exhausted",
            ErrorClass::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed runtime call: the class to act on, and the runtime's own words for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{class}: {message}")]
pub struct RuntimeError {
    /// What a caller may match on.
    pub class: ErrorClass,
    /// The runtime's words; never parsed.
    pub message: String,
}

impl RuntimeError {
    /// A new error of `class`.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        RuntimeError {
            class,
            message: message.into(),
        }
    }
}
