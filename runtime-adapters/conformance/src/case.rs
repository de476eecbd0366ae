//! What a case is, and how one can end.

use std::pin::Pin;
use std::time::Duration;

use serde::Serialize;
use wavetank_port::Capability;

use crate::bed::Bed;
use crate::check::Check;

/// A case's body under way.
pub type Running<'a> = Pin<Box<dyn Future<Output = Check> + Send + 'a>>;

/// One thing that every runtime must do the same way.
#[derive(Clone, Copy)]
pub struct Case {
    /// 1 to 70; stable, people refer to it.
    pub number: u8,
    /// What is done.
    pub name: &'static str,
    /// What must be seen.
    pub claim: &'static str,
    /// The longest it may take, by the arm's clock.
    pub deadline: Duration,
    /// Does it.
    pub run: for<'a> fn(&'a Bed<'a>) -> Running<'a>,
}

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// What it claims was seen.
    Pass,
    /// Something else was seen.
    Fail {
        /// What.
        message: String,
    },
    /// The runtime has no such thing, and says so.
    NotApplicable {
        /// What it lacks.
        capability: Capability,
        /// What a caller meets instead, from the runtime's capability table.
        note: &'static str,
    },
}

/// One case on one runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    /// Of the case.
    pub number: u8,
    /// Of the case.
    pub name: &'static str,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// What it took by the arm's clock, without making and closing the arm; whole milliseconds.
    pub elapsed_ms: u128,
}
