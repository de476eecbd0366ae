//! What an agent remembers across restarts. (contract stub)

use serde::{Deserialize, Serialize};
use wavetank_model::TaskStatus;

use crate::message::Assignment;

/// One task as its agent must know it after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DurableTask {
    /// What managers last wanted.
    pub assignment: Assignment,
    /// Where it is.
    pub status: TaskStatus,
    /// Restarts since the last stable run.
    pub restarts: u32,
    /// Transitions that managers have not acknowledged, oldest first.
    pub unacknowledged: Vec<TaskStatus>,
}
