//! Why a command ended without a verdict, and the exit code that says so.

use std::fmt;

use wavetank_reports::exit_code;

/// Why a command gave up. Its `Display` is complete: it is what the user reads.
#[derive(Debug)]
pub enum Failure {
    /// The command cannot mean anything, or a file is not what it should be.
    Usage(String),
    /// The paths and seeds mean nothing at all.
    NothingSelected(String),
    /// wavetank or its environment failed.
    Harness(anyhow::Error),
}

impl Failure {
    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => exit_code::USAGE,
            Failure::NothingSelected(_) => exit_code::NOTHING_SELECTED,
            Failure::Harness(_) => exit_code::HARNESS,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(what) | Failure::NothingSelected(what) => write!(f, "error: {what}"),
            Failure::Harness(error) => write!(f, "error: {error:#}"),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Failure::Harness(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Failure::Harness(error.into())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Failure::Harness(error.into())
    }
}
